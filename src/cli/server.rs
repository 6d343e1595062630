//! The admin API as a command reaches it: of the running server, over its control socket or one of
//! its listeners; where none runs, of this process, which opens the store for it.
//!
//! Without a server, the lock of the store makes this safe beside other processes: the one that
//! comes second finds the token that the first one fetched. What a refresh has to save is saved
//! before the process ends.

use super::{
    CommandFailure, Context,
    wire::{AdminRequest, AdminResponse, block_on, exchange},
};
use crate::{
    admin::{Admin, AdminSurface},
    app::{self, control},
    audit::Actor,
    callers::{Callers, sessions::Sessions},
    clock::SystemClock,
    config::{Config, ListenAddress, LogFormat, admin_text},
    engine::Engine,
    hooks::Hooks,
    id::AccountId,
    inbound::guard::Guard,
    log::{self, Log},
    login::Logins,
    metrics::Metrics,
    secret::Secret,
    token::Obstacle,
};
use anyhow::{Context as _, bail};
use http::HeaderValue;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::TcpStream,
    runtime::{Builder, Runtime},
    time::timeout,
};

/// How long refreshes under way may take at the end.
const FINISH_TIMEOUT: Duration = Duration::from_secs(15);
/// How long the server may take to fetch a token.
const TOKEN_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a token lives that no lifetime is asked for: enough for a command or two.
const USUAL_TTL: Duration = Duration::from_secs(300);

#[derive(Clone)]
pub(super) enum Server {
    /// Its control socket.
    Control(PathBuf),
    /// Its admin or health listener, and an operator's key for what needs one.
    Listener(SocketAddr, Option<Secret>),
    /// No server runs.
    Own(Arc<OwnServer>),
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Control(path) => write!(f, "{}", path.display()),
            Self::Listener(address, _) => write!(f, "{address}"),
            Self::Own(_) => f.write_str("this command"),
        }
    }
}

impl Server {
    /// The running server of `config`, by its control socket; none if none runs.
    ///
    /// # Errors
    /// When one runs that this user may not use: a command must not work on the store behind it.
    pub(super) fn find(context: &Context, config: &Config) -> anyhow::Result<Option<Self>> {
        let runtime = context.environment.get("XDG_RUNTIME_DIR").map(Path::new);
        for place in control::places(config, runtime) {
            let shown = place.path.display();
            match block_on(control::connect(&place.path))? {
                Ok(None) => continue,
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => bail!(
                    "a server runs, and {shown} does not let this user in ({error}): run the \
                     command as the server's user or as root"
                ),
                connected => drop(connected.with_context(|| format!("cannot connect to {shown}"))?),
            }
            let server = Self::Control(place.path);
            if place.is_of_store || server.is_of(config) {
                return Ok(Some(server));
            }
        }
        Ok(None)
    }

    /// The running server of `config`, else the store, opened in this process.
    pub(super) fn find_or_open(context: &Context, config: Config) -> anyhow::Result<Self> {
        match Self::find(context, &config)? {
            Some(server) => Ok(server),
            None => Ok(Self::Own(OwnServer::open(config, "error")?)),
        }
    }

    /// The server whose admin listener is at `address`; without one, that of the control socket.
    pub(super) fn at(context: &Context, address: &Option<ListenAddress>) -> anyhow::Result<Self> {
        match address {
            Some(ListenAddress::Tcp(address)) => {
                let key = context.environment.non_empty("ADSPROXY_KEY").map(Secret::from);
                Ok(Self::Listener(*address, key))
            }
            Some(ListenAddress::Unix(path)) => Ok(Self::Control(path.clone())),
            Some(ListenAddress::Inherited(_)) | None => Self::find(
                context,
                &context.load()?.config,
            )?
            .with_context(|| {
                let admin = admin_text(address);
                format!(
                    "listen.admin is \"{admin}\", and no server has the control socket: start one"
                )
            }),
        }
    }

    /// Whether a server whose socket is in a directory of many programs is the one of `config`.
    fn is_of(&self, config: &Config) -> bool {
        let Ok(response) = self.send(AdminRequest::get("/api/v1/server")) else { return false };
        let store = config.store.place();
        response.said["store"].as_str() == store.as_deref()
            && response.said["admin"] == admin_text(&config.listen.admin)
    }

    /// Sends a request and returns the response, whole and within its time.
    pub(super) fn send(&self, request: AdminRequest) -> io::Result<AdminResponse> {
        let limit = request.timeout;
        let response = async {
            let mut http = request.http()?;
            let response = match self {
                Self::Own(own) => {
                    let admin = own.admin(AdminSurface::Control);
                    return AdminResponse::read(admin.respond(http).await).await;
                }
                Self::Listener(address, key) => {
                    if let Some(key) = key {
                        let mut value =
                            HeaderValue::try_from(key.expose()).map_err(io::Error::other)?;
                        value.set_sensitive(true);
                        http.headers_mut().insert("x-ads-key", value);
                    }
                    exchange(TcpStream::connect(&*ways(*address)).await?, http).await?
                }
                Self::Control(path) => {
                    let stream = control::connect(path).await?;
                    exchange(stream.ok_or(io::ErrorKind::ConnectionRefused)?, http).await?
                }
            };
            AdminResponse::read(response).await
        };
        let response = async {
            timeout(limit, response).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        };
        match self {
            Self::Own(own) => own.runtime.block_on(response),
            _ => block_on(response)?,
        }
    }

    /// The response to a request, which may be a rejection.
    ///
    /// # Errors
    /// [`CommandFailure::no_server`] if there is none.
    pub(super) fn response(&self, request: AdminRequest) -> anyhow::Result<AdminResponse> {
        self.send(request).map_err(|error| CommandFailure::no_server(self, &error).into())
    }

    /// The JSON of a successful response.
    ///
    /// # Errors
    /// [`CommandFailure::no_server`] if there is no response; what the server says instead.
    pub(super) fn json(&self, request: AdminRequest) -> anyhow::Result<Value> {
        self.response(request)?.success(self)
    }

    /// An access token of `alias` that lives for `min_ttl` more. Without a `min_ttl`, another one
    /// will do while Login with Amazon cannot be reached. That it is disclosed is recorded.
    pub(super) fn token(
        &self,
        alias: &AccountId,
        min_ttl: Option<Duration>,
        is_disclosed: bool,
    ) -> anyhow::Result<Value> {
        if let Self::Own(own) = self {
            let account = own.runtime.block_on(own.logins.engine.account(alias));
            account.context("cannot read the store")?;
        }
        let seconds = min_ttl.unwrap_or(USUAL_TTL).as_secs();
        let mut body = json!({ "min_ttl_secs": seconds, "must": min_ttl.is_some() });
        if is_disclosed {
            body["purpose"] = "token".into();
        }
        let path = format!("/api/v1/accounts/{alias}/token");
        let response = self.response(AdminRequest::post(&path, &body).within(TOKEN_TIMEOUT))?;
        if response.status == 200 {
            return Ok(response.said);
        }
        let detail = response.text("detail").unwrap_or_default();
        let cause = response.text("last_error").map(|error| format!(" ({error})"));
        let no_token =
            format!("no token for account {alias}: {detail}{}", cause.unwrap_or_default());
        let is_lasting = LASTING.iter().any(|lasting| lasting.advice() == detail);
        match response.said["code"].as_str().unwrap_or_default() {
            "unknown_account" => bail!(unknown(alias)),
            "reauthorization_required" => bail!(CommandFailure::reauthorization_required(&[alias])),
            "token_unavailable" if is_lasting => bail!(no_token),
            "token_unavailable" | "overloaded" => bail!(CommandFailure::unavailable(no_token)),
            _ => bail!("account {alias}: {detail}"),
        }
    }
}

/// What is in the way of a token until a person acts; the rest passes.
const LASTING: [Obstacle; 4] =
    [Obstacle::Sealed, Obstacle::Unreadable, Obstacle::REFUSED, Obstacle::NOT_LWA];

/// The admin API over the store, in this process and without a listener. Dropped, it lets refreshes
/// and deliveries to hooks finish; not to be dropped on an async thread.
pub(super) struct OwnServer {
    pub(super) runtime: Runtime,
    pub(super) logins: Logins,
    sessions: Sessions,
    /// The process that LWA refuses a dead grant is the only one to send hooks.
    hooks: Option<Hooks>,
    _log: Mutex<Log>,
}

impl OwnServer {
    pub(super) fn open(mut config: Config, log_filter: &str) -> anyhow::Result<Arc<Self>> {
        quiet(&mut config);
        log_filter.clone_into(&mut config.log.filter);
        let log = log::init(&config.log)?;
        let metrics = Metrics::new(&config.metrics, log.dropped());
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let (clock, control) = (Arc::new(SystemClock), runtime.handle().clone());
        let (config, actor) = (config.into(), Actor::cli());
        let engine = Engine::open(None, config, clock, metrics, actor, control.clone())?;
        let hooks = app::start_hooks(&engine, control)?;
        let (store, clock) = (engine.store().clone(), engine.clock().clone());
        let sessions = Sessions::new(store, Callers::new(&engine.config()), clock);
        let logins = Logins::new(engine, Actor::cli());
        Ok(Arc::new(Self { runtime, logins, sessions, hooks, _log: Mutex::new(log) }))
    }

    pub(super) fn admin(&self, surface: AdminSurface) -> Admin {
        let guard = Guard::new(&self.logins.engine.config().guard);
        Admin::new(surface, Arc::default(), guard, self.logins.clone(), self.sessions.clone())
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        let engine = &self.logins.engine;
        self.runtime.block_on(async {
            let ended = async {
                engine.tokens().finish().await;
                engine.audit().flush().await;
            };
            let _ = timeout(FINISH_TIMEOUT, ended).await;
            if let Some(hooks) = &mut self.hooks {
                app::finish_hooks(hooks).await;
            }
        });
    }
}

pub(super) fn unknown(alias: &AccountId) -> String {
    format!("there is no account {alias}; `adsproxy account list` lists the accounts")
}

/// A command reports by itself what failed; of the log only errors are of interest.
pub(super) fn quiet(config: &mut Config) {
    "error".clone_into(&mut config.log.filter);
    config.log.access = false;
    config.log.format.get_or_insert(LogFormat::Text);
}

/// A listener on every address is reached on this machine's own.
pub(super) fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        other => other,
    };
    SocketAddr::new(ip, address.port())
}

/// The addresses at which a listener is tried in turn: `[::]` takes IPv4 connections too, and a pod need not
/// have `::1`.
fn ways(address: SocketAddr) -> Vec<SocketAddr> {
    let first = reachable(address);
    let ipv4 = SocketAddr::from((Ipv4Addr::LOCALHOST, address.port()));
    let is_both = address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    [first].into_iter().chain(is_both.then_some(ipv4)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read, Write},
        net::TcpListener,
        thread,
    };

    /// A program that sends `parts`, 5 ms apart, to its one client.
    fn program(parts: impl Iterator<Item = &'static str> + Send + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Server::Listener(listener.local_addr().unwrap(), None);
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]);
            for part in parts {
                if stream.write_all(part.as_bytes()).is_err() {
                    return;
                }
                thread::sleep(Duration::from_millis(5));
            }
        });
        server
    }

    fn ask(server: &Server, millis: u64) -> io::Result<AdminResponse> {
        server.send(AdminRequest::get("/").within(Duration::from_millis(millis)))
    }

    #[test]
    fn reads_status_fields_and_body() {
        let text = "HTTP/1.1 503 Service Unavailable\r\na: b\r\n\r\n{\"x\":1}";
        let response = ask(&program([text].into_iter()), 5000).unwrap();
        assert_eq!((response.status, response.headers["A"].as_bytes()), (503, b"b".as_slice()));
        assert_eq!(response.said["x"], 1);
    }

    #[test]
    fn a_program_that_sends_a_byte_now_and_then_is_not_waited_for() {
        let head = ["HTTP/1.1 200 OK\r\n\r\n"].into_iter();
        let server = program(head.chain(std::iter::repeat("x")));
        let kind = ask(&server, 100).err().map(|error| error.kind());
        assert_eq!(kind, Some(io::ErrorKind::TimedOut));
    }

    #[test]
    fn what_is_no_http_is_an_error() {
        for text in ["SSH-2.0-x\r\n\r\n", "HTTP/1.1 abc x\r\n\r\n", "HTTP/1.1 200 OK\r\n"] {
            assert!(ask(&program([text].into_iter()), 5000).is_err(), "{text}");
        }
    }

    #[test]
    fn listeners_on_every_address_are_reached_on_loopback() {
        for (listens, asked) in
            [("0.0.0.0:1", "127.0.0.1:1"), ("[::]:1", "[::1]:1"), ("10.0.0.1:1", "10.0.0.1:1")]
        {
            assert_eq!(reachable(listens.parse().unwrap()), asked.parse().unwrap());
        }
        let ways = ways("[::]:1".parse().unwrap());
        assert_eq!(ways, ["[::1]:1".parse().unwrap(), "127.0.0.1:1".parse().unwrap()]);
    }
}
