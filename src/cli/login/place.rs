//! Where Amazon's answer comes to: the running server, or this very command for a while.

use super::{FINISH_PATIENCE, Login, Refused, failure};
use crate::{
    admin::{Admin, Sources, health::Health},
    audit::Actor,
    cli::{
        Context,
        table::plain,
        wire::{self, Ask, Server},
    },
    clock::SystemClock,
    config::{Application, Config, DEFAULT_APPLICATION, StoreKind},
    engine::Engine,
    inbound::guard::Guard,
    listen::control_plane,
    login::Logins,
    metrics::Metrics,
};
use anyhow::{Context as _, bail};
use http::{Uri, header::SET_COOKIE};
use serde_json::{Value, json};
use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{net::TcpListener, runtime::Runtime, sync::watch, task::JoinHandle};

/// Who takes the answer.
pub(super) struct Place {
    server: Server,
    redirect_uri: String,
    authorize_url: Uri,
    confirm_timeout: Duration,
    _own: Option<Own>,
}

/// The listeners of this command; dropped, they finish what is being answered.
struct Own {
    runtime: Runtime,
    stop: watch::Sender<bool>,
    serving: Vec<JoinHandle<()>>,
}

impl Drop for Own {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        for serving in self.serving.drain(..) {
            // Cut by a panic of its own, then.
            let _ = self.runtime.block_on(serving);
        }
    }
}

impl Place {
    /// The running server if the answer comes to it; else a listener of our own on the return
    /// address, or anywhere if the answer is pasted.
    pub(super) fn find(context: &Context, config: Config, login: &Login) -> anyhow::Result<Self> {
        let application = application(&config, login)?;
        let redirect_uri = application.redirect_uri.clone();
        let authorize_url = application.authorize_url.clone();
        let uri: Uri = redirect_uri.parse().context("lwa.redirect_uri is no address")?;
        let host = uri.host().unwrap_or_default();
        let default = if uri.scheme_str() == Some("https") { 443 } else { 80 };
        let port = uri.port_u16().unwrap_or(default);
        let is_here = is_loopback(host) && uri.scheme_str() == Some("http");
        let admin = config.listen.admin;
        let control = Server::find(context, &config)?;
        let is_memory = config.store.kind == StoreKind::Memory;
        let serves = (control.is_some() || is_memory && runs(admin))
            && (login.paste || !is_here || admin.port() == port);
        let confirm_timeout = config.login.confirm_timeout;
        if serves {
            let reaches = login.paste || is_here || answers(&config, host);
            if !reaches {
                bail!(
                    "lwa.redirect_uri {redirect_uri} does not lead to this server: say --paste, or \
                     add its host to guard.allowed_hosts"
                );
            }
            let server = control.unwrap_or(Server::Listener(admin));
            return Ok(Self { server, redirect_uri, authorize_url, confirm_timeout, _own: None });
        }
        if is_memory {
            bail!(
                "store.kind = \"memory\" keeps nothing beyond the server, and no server answers at \
                 {admin}: start one, or use another store"
            );
        }
        if !login.paste && !is_here {
            bail!(
                "lwa.redirect_uri {redirect_uri} does not lead to this command: start the server \
                 that it leads to, or say --paste"
            );
        }
        let (own, address) = Own::start(config, if login.paste { 0 } else { port })?;
        Ok(Self {
            server: Server::Listener(address),
            redirect_uri,
            authorize_url,
            confirm_timeout,
            _own: Some(own),
        })
    }

    /// What to do where Amazon refuses before it comes back.
    pub(super) fn hint(&self) -> String {
        format!(
            "If Amazon shows an error about the redirect URI, add exactly {} to the Allowed Return \
             URLs of the security profile.",
            self.redirect_uri
        )
    }

    /// The address in `url`, to be opened and shown: the server's or Amazon's, and no other.
    ///
    /// # Errors
    /// When it leads elsewhere, as that of a program which is no adsproxy may.
    pub(super) fn verified(&self, url: &Value) -> anyhow::Result<String> {
        let text = url.as_str().context("the server gave no address")?;
        let url = text.parse::<Uri>().ok().filter(|_| !text.contains(char::is_control));
        let own: Uri = self.redirect_uri.parse().context("lwa.redirect_uri is no address")?;
        let is_known = |url: &Uri| {
            [&own, &self.authorize_url].iter().any(|known| {
                matches!(url.scheme_str(), Some("http" | "https"))
                    && url.scheme() == known.scheme()
                    && url.authority() == known.authority()
            })
        };
        match url.filter(is_known) {
            Some(url) => Ok(url.to_string()),
            None => bail!(
                "{} gave an address that leads neither to lwa.redirect_uri nor to \
                 lwa.authorize_url: {}",
                self.server,
                plain(text)
            ),
        }
    }

    pub(super) fn confirm_timeout(&self) -> Duration {
        self.confirm_timeout
    }

    pub(super) fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let patience = Some(FINISH_PATIENCE);
        let json = Some(body.to_string());
        self.send(&Ask { json, path, patience, ..Ask::default() }).map(|(answer, _)| answer)
    }

    pub(super) fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.send(&Ask { path, ..Ask::default() }).map(|(answer, _)| answer)
    }

    /// Answers the server's question.
    pub(super) fn confirm(&self, question: &Value, yes: bool) -> anyhow::Result<Value> {
        let answer = if yes { "yes" } else { "no" };
        let body = json!({ "token": question["token"], "answer": answer });
        self.post("/api/auth/amazon/confirm", &body)
    }

    /// The answer and the cookie that came with it.
    pub(super) fn send(&self, ask: &Ask<'_>) -> anyhow::Result<(Value, Option<String>)> {
        let answer = wire::send(&self.server, ask)
            .with_context(|| format!("no adsproxy responds at {}", self.server))?;
        let said = answer.json();
        if answer.status >= 300 {
            return Err(if said.is_null() {
                Refused(format!("{} responds with {}", self.server, answer.status)).into()
            } else {
                failure(&said)
            });
        }
        let cookie = answer.headers.get(SET_COOKIE).and_then(|cookie| cookie.to_str().ok());
        let cookie = cookie.and_then(|cookie| cookie.split(';').next());
        Ok((said, cookie.map(str::to_owned)))
    }
}

impl Own {
    fn start(config: Config, port: u16) -> anyhow::Result<(Self, SocketAddr)> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let metrics = Metrics::new(&config.metrics, Arc::default());
        let guard = Guard::new(&config.guard);
        let handle = runtime.handle().clone();
        let engine = Engine::open(
            Arc::new(config),
            Arc::new(SystemClock),
            metrics.clone(),
            Actor::cli(),
            handle,
        )?;
        let health = Arc::new(Health::new(Vec::new()));
        let sources = Sources { health, metrics, accounts: Arc::new(engine.clone()) };
        let logins = Logins::new(engine, Actor::cli());
        let sweeper = logins.clone();
        // Where no server runs, nobody else throws away a grant that nobody said yes to.
        runtime.spawn(async move { sweeper.run_purge().await });
        let service = Admin::guarded(sources, guard, Some(logins));
        let service = move |_: &_| Some(service.clone());
        let stop = watch::Sender::new(false);
        let (serving, address) = runtime.block_on(async {
            let v4 = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?;
            let address = v4.local_addr()?;
            // A browser may try this one first; on a machine without it there is nothing to try.
            let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, address.port()));
            let v6 = match TcpListener::bind(v6).await {
                Ok(listener) => Some(listener),
                // The browser would take what listens there for us.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => bail!(in_use(v6)),
                Err(_) => None,
            };
            let listeners = [Some(v4), v6].into_iter().flatten();
            let serve = |listener| {
                tokio::spawn(control_plane::serve(listener, service.clone(), stop.subscribe()))
            };
            anyhow::Ok((listeners.map(serve).collect(), address))
        })?;
        Ok((Self { runtime, stop, serving }, address))
    }
}

fn in_use(address: SocketAddr) -> String {
    format!(
        "another program listens at {address}, where Amazon's answer comes to: stop it, say \
         --paste, or change lwa.redirect_uri"
    )
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => anyhow::anyhow!(in_use(address)),
        _ => anyhow::Error::new(error).context(format!("cannot listen at {address}")),
    })
}

fn application<'a>(config: &'a Config, login: &Login) -> anyhow::Result<&'a Application> {
    let account = config.accounts.get(&login.account);
    let name = login.application.as_ref().or(account.map(|account| &account.application));
    let application = match name {
        Some(name) => config.applications.get(name),
        None if config.applications.len() == 1 => config.applications.values().next(),
        None => config.applications.get(DEFAULT_APPLICATION),
    };
    let Some(application) = application else {
        let known: Vec<&str> = config.applications.keys().map(String::as_str).collect();
        bail!("say which application with --application; configured: {}", known.join(", "));
    };
    Ok(application)
}

/// Whether an adsproxy answers there.
fn runs(address: SocketAddr) -> bool {
    let answer = wire::get(address, "/status").ok().filter(|(status, _)| *status == 200);
    let answer = answer.and_then(|(_, body)| serde_json::from_str::<Value>(&body).ok());
    answer.is_some_and(|answer| answer["version"].is_string() && answer["accounts"].is_array())
}

fn answers(config: &Config, host: &str) -> bool {
    Guard::new(&config.guard).answers_host(host)
}

fn is_loopback(host: &str) -> bool {
    matches!(host, "localhost" | "127.0.0.1" | "[::1]")
}
