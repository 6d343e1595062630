//! Which server Amazon's response comes to: the running one, or this very command for a while.

use super::Login;
use crate::{
    admin::AdminSurface,
    app::reject,
    cli::{
        Context,
        server::{OwnServer, Server},
        table::{configured, plain},
        wire::AdminRequest,
    },
    config::{
        ApplicationConfig, Config, DEFAULT_APPLICATION, ListenAddress, StoreKind, admin_text,
    },
    inbound::{guard::Guard, peer::ConnectionInfo},
    listen::control_plane,
};
use anyhow::{Context as _, bail};
use http::Uri;
use serde_json::{Value, json};
use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

pub(super) struct LoginServer {
    pub(super) server: Server,
    redirect_uri: Uri,
    authorize_url: Uri,
    pub(super) confirm_timeout: Duration,
    _listeners: Option<ReturnListeners>,
}

impl LoginServer {
    /// The running server if Amazon's response comes to it; else this command, which listens at the
    /// return address unless the response is pasted.
    pub(super) fn find(context: &Context, config: Config, login: &Login) -> anyhow::Result<Self> {
        let application = application(&config, login)?;
        let redirect_uri: Uri =
            application.redirect_uri.parse().context("lwa.redirect_uri is no address")?;
        let authorize_url = application.authorize_url.clone();
        let confirm_timeout = config.login.confirm_timeout;
        let host = redirect_uri.host().unwrap_or_default();
        let port = redirect_uri.port_u16().unwrap_or(80);
        let is_here = matches!(host, "localhost" | "127.0.0.1" | "[::1]")
            && redirect_uri.scheme_str() == Some("http");
        let admin = &config.listen.admin;
        let is_memory = config.store.kind == StoreKind::Memory;
        let running = match Server::find(context, &config)? {
            None if is_memory => Server::at(context, admin).ok().filter(is_adsproxy),
            found => found,
        };
        let listening = [&config.listen.admin, &config.listen.public];
        let listening = listening.map(|address| address.as_ref().and_then(ListenAddress::tcp));
        let leads_to_it = listening.into_iter().flatten().any(|address| address.port() == port);
        let returns_to_it = login.paste || !is_here || leads_to_it;
        let mut listeners = None;
        let server = match running.filter(|_| returns_to_it) {
            Some(server) => {
                let is_known =
                    config.listen.public.is_some() || Guard::new(&config.guard).answers_host(host);
                if !login.paste && !is_here && !is_known {
                    bail!(
                        "lwa.redirect_uri {redirect_uri} does not lead to this server: say --paste, \
                         or add its host to guard.allowed_hosts"
                    );
                }
                server
            }
            None if is_memory => bail!(
                "store.kind = \"memory\" keeps nothing beyond the server, and no server responds \
                 at {}: start one, or use another store",
                admin_text(admin)
            ),
            None if !login.paste && !is_here => bail!(
                "lwa.redirect_uri {redirect_uri} does not lead to this command: start the server \
                 that it leads to, or say --paste"
            ),
            None => {
                let own = OwnServer::open(config, "error")?;
                // Deletes a new grant whose login was not confirmed in time.
                let logins = own.logins.clone();
                own.runtime.spawn(async move { logins.run_purge().await });
                if !login.paste {
                    listeners = Some(ReturnListeners::open(&own, port)?);
                }
                Server::Own(own)
            }
        };
        Ok(Self { server, redirect_uri, authorize_url, confirm_timeout, _listeners: listeners })
    }

    /// The address in `url`, to be opened and shown, and what to do where Amazon refuses it.
    ///
    /// # Errors
    /// When it leads neither to the server nor to Amazon, as that of a program which is no adsproxy
    /// may.
    pub(super) fn instructions(&self, url: &Value) -> anyhow::Result<(String, String)> {
        let text = url.as_str().context("the server gave no address")?;
        let url = text.parse::<Uri>().ok().filter(|_| !text.contains(char::is_control));
        let is_known = |url: &Uri| {
            [&self.redirect_uri, &self.authorize_url].iter().any(|known| {
                matches!(url.scheme_str(), Some("http" | "https"))
                    && url.scheme() == known.scheme()
                    && url.authority() == known.authority()
            })
        };
        let Some(url) = url.filter(is_known) else {
            bail!(
                "{} gave an address that leads neither to lwa.redirect_uri nor to \
                 lwa.authorize_url: {}",
                self.server,
                plain(text)
            )
        };
        let instructions = format!(
            "open this address in a browser:\n\n  {url}\n\nIf Amazon shows an error about the \
             redirect URI, add exactly {} to the Allowed Return URLs of the security profile.\n",
            self.redirect_uri
        );
        Ok((url.to_string(), instructions))
    }

    /// Says whether the new grant replaces the old one.
    pub(super) fn confirm(&self, outcome: &Value, yes: bool) -> anyhow::Result<Value> {
        let answer = if yes { "yes" } else { "no" };
        let body = json!({ "token": outcome["token"], "answer": answer });
        let request = AdminRequest::post("/api/auth/amazon/confirm", &body);
        self.server.json(request.within(super::FINISH_TIMEOUT))
    }
}

/// Serve the return address; dropped, they finish the responses under way.
struct ReturnListeners {
    own: Arc<OwnServer>,
    stop: watch::Sender<bool>,
    serving: Vec<JoinHandle<()>>,
}

impl ReturnListeners {
    fn open(own: &Arc<OwnServer>, port: u16) -> anyhow::Result<Self> {
        let (stop, admin) = (watch::Sender::new(false), own.admin(AdminSurface::Admin));
        let service = move |info: &ConnectionInfo| Some(admin.of_connection(info));
        let serving = own.runtime.block_on(async {
            let v4 = bind((Ipv4Addr::LOCALHOST, port).into()).await?;
            // A browser may look here first, and would take what listens here for this command; a
            // machine without IPv6 has nothing here.
            let v6 = match bind((Ipv6Addr::LOCALHOST, port).into()).await {
                Err(error) if is_in_use(&error) => return Err(error),
                v6 => v6.ok(),
            };
            let serve = |listener| {
                let (service, stop) = (service.clone(), stop.subscribe());
                tokio::spawn(control_plane::serve(listener, service, reject, stop))
            };
            anyhow::Ok([Some(v4), v6].into_iter().flatten().map(serve).collect())
        })?;
        Ok(Self { own: own.clone(), stop, serving })
    }
}

impl Drop for ReturnListeners {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        for serving in self.serving.drain(..) {
            // Fails only if it panicked.
            let _ = self.own.runtime.block_on(serving);
        }
    }
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!(
            "cannot listen at {address}, where Amazon's response comes to: if another program \
             listens there, stop it, say --paste, or change lwa.redirect_uri"
        )
    })
}

fn is_in_use(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::AddrInUse)
}

fn application<'a>(config: &'a Config, login: &Login) -> anyhow::Result<&'a ApplicationConfig> {
    let account = config.accounts.get(&login.account);
    let name = login.application.as_ref().or(account.map(|account| &account.application));
    let application = match name {
        Some(name) => config.applications.get(name),
        None if config.applications.len() == 1 => config.applications.values().next(),
        None => config.applications.get(DEFAULT_APPLICATION),
    };
    application.with_context(|| {
        let known = configured(config.applications.keys());
        format!("say which application with --application; {known}")
    })
}

fn is_adsproxy(server: &Server) -> bool {
    server.send(AdminRequest::get("/status")).is_ok_and(|response| {
        let said = &response.said;
        response.status == 200 && said["version"].is_string() && said["accounts"].is_array()
    })
}
