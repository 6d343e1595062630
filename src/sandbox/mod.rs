//! An emulator of Login with Amazon and of the Amazon Ads API, on loopback.
//!
//! It is the only fake there is: behind `adsproxy sandbox`, in our tests, in users' CI. One
//! listener serves the token endpoint, the consent page, the API of all regions, the MCP server
//! and the presigned download host; a second one may serve the same over TLS. HTTP/1.1 and
//! HTTP/2 (by prior knowledge or ALPN) are distinguished by the first bytes.
//!
//! [`EmulatorState`] is the way to script and to inspect it in-process; `/_sandbox` (see
//! [`control::HELP`]) does the same over HTTP. It never leaves loopback, holds no real secret and
//! does not know the proxy: only `run` does.

pub mod ads;
mod aids;
mod amc;
pub mod banner;
mod campaigns;
mod consent;
pub mod control;
pub mod fault;
mod form;
pub mod gate;
pub mod grants;
mod home;
mod listener;
mod lwa;
mod mcp;
mod moment;
pub mod profiles;
pub mod record;
mod reports;
mod response;
pub mod run;
pub mod settings;

pub use self::{
    ads::{Api, ApiSettings},
    fault::{ApiFault, Faults, LwaFault, Permission, Scripted, Times},
    gate::Gate,
    grants::{Lwa, SandboxGrant},
    listener::OpenConnections,
    profiles::{Country, Profile},
    record::{Counts, Record, Seen, Surface},
    settings::{ExpiresIn, LwaSettings, Rotation},
};

use self::{
    record::Received,
    response::{Emulated, Stop, With},
};
use crate::clock::{Clock, Now, SystemClock};
use http::{Request, request::Parts};
use hyper::body::Incoming;
use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};
use tokio::task::JoinSet;

/// The client id of the demo application.
pub const CLIENT_ID: &str = "amzn1.application-oa2-client.sandbox";
/// The client secret of the demo application.
pub const CLIENT_SECRET: &str = "amzn1.oa2-cs.v1.sandbox";
/// The demo accounts: alias, refresh token, first profile.
pub const ACCOUNTS: [(&str, &str, i64); 2] = [
    ("acme", "Atzr|sandbox-refresh-token-of-acme", 1_234_567_890_123_456),
    ("globex", "Atzr|sandbox-refresh-token-of-globex", 2_345_678_901_234_567),
];

/// Bytes of a request body the emulated operations look at: Amazon's batches are about 1 MB.
const BODY_READ_MAX_BYTES: usize = 2 * 1024 * 1024;

/// How an emulator is started.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where it listens: a loopback address; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Listens over TLS too, on a free port of the same address.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    pub lwa: LwaSettings,
    pub api: ApiSettings,
    /// Where expiry takes the time from.
    pub clock: Arc<dyn Clock>,
    /// Requests remembered in full.
    pub record_max: usize,
    /// The host of presigned addresses; the emulator as `localhost` if none.
    pub s3_authority: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            tls: None,
            lwa: LwaSettings::default(),
            api: ApiSettings::default(),
            clock: Arc::new(SystemClock),
            record_max: 4096,
            s3_authority: None,
        }
    }
}

/// Everything the emulated services know and do.
#[derive(Debug)]
pub struct EmulatorState {
    /// Login with Amazon.
    pub lwa: Lwa,
    pub api: Api,
    /// What arrived.
    pub record: Record,
    pub connections: OpenConnections,
}

impl EmulatorState {
    /// The state of a fresh emulator with the demo application and accounts.
    pub fn new(options: &Options) -> Self {
        let lwa = Lwa::new(Arc::clone(&options.clock), options.lwa.clone());
        lwa.add_application(CLIENT_ID, &[CLIENT_SECRET]);
        let countries = [[Country::Us, Country::Ca], [Country::De, Country::Uk]];
        for ((account, refresh, id), [first, second]) in ACCOUNTS.into_iter().zip(countries) {
            let name = format!("{account} (sandbox)");
            let profiles =
                vec![Profile::seller(id, first, &name), Profile::seller(id + 1, second, &name)];
            lwa.add_grant(account, CLIENT_ID, refresh, profiles);
        }
        let api = Api::default();
        api.configure(|settings| *settings = options.api.clone());
        let record = Record::new(options.record_max);
        Self { lwa, api, record, connections: OpenConnections::default() }
    }
}

/// A running emulator. Dropping it closes its listeners and connections.
#[derive(Debug)]
pub struct Emulator {
    addr: SocketAddr,
    tls_addr: Option<SocketAddr>,
    state: Arc<EmulatorState>,
    _listeners: JoinSet<()>,
}

impl Emulator {
    /// Starts an emulator with a state of its own on the current runtime.
    ///
    /// # Errors
    /// When the address is not loopback (`InvalidInput`) or cannot be bound.
    pub async fn start(options: Options) -> io::Result<Self> {
        let state = Arc::new(EmulatorState::new(&options));
        Self::start_with(options, state).await
    }

    /// Starts an emulator that shares `state` with others, or goes on with that of one before.
    pub async fn start_with(options: Options, state: Arc<EmulatorState>) -> io::Result<Self> {
        let plain = listener::bind(options.listen)?;
        let addr = plain.local_addr()?;
        let s3_authority =
            options.s3_authority.unwrap_or_else(|| format!("localhost:{}", addr.port()));
        let service = Arc::new(Service { state: Arc::clone(&state), s3_authority });
        let mut listeners = JoinSet::new();
        listeners.spawn(listener::accept(plain, None, Arc::clone(&service)));
        let mut tls_addr = None;
        if let Some(tls) = options.tls {
            let secure = listener::bind(SocketAddr::new(addr.ip(), 0))?;
            tls_addr = Some(secure.local_addr()?);
            listeners.spawn(listener::accept(secure, Some(tls), service));
        }
        Ok(Self { addr, tls_addr, state, _listeners: listeners })
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub fn tls_addr(&self) -> Option<SocketAddr> {
        self.tls_addr
    }

    /// For scripting and inspection.
    pub fn state(&self) -> &Arc<EmulatorState> {
        &self.state
    }
}

/// What every request is served from.
#[derive(Debug)]
struct Service {
    state: Arc<EmulatorState>,
    s3_authority: String,
}

impl Service {
    fn now(&self) -> Now {
        self.state.lwa.now()
    }

    /// Responds to one request and takes it down; an error ends the connection.
    async fn serve(&self, request: Request<Incoming>) -> io::Result<Emulated> {
        let (parts, body) = request.into_parts();
        let surface = surface(&parts);
        let token = ads::bearer(&parts.headers);
        let sender = token.and_then(|token| self.state.lwa.generation(token));
        let number = self.state.record.arrived(surface, &parts, sender);
        let reply = self.respond(surface, &parts, body, number).await.or_else(Stop::reply);
        let reply = reply.map_err(|_| io::Error::other("the emulator hangs up"))?;
        self.state.record.responded(number, surface, reply.status());
        Ok(reply)
    }

    async fn respond(
        &self,
        surface: Surface,
        parts: &Parts,
        body: Incoming,
        number: u64,
    ) -> Result<Emulated, Stop> {
        if surface == Surface::Api {
            return self.api(parts, body, number).await;
        }
        let body = self.receive(parts, number, body).await?;
        match surface {
            Surface::Token => lwa::token(&self.state, parts, &body.start).await,
            Surface::Revoke => Ok(lwa::revoke(&self.state, parts, &body.start)),
            Surface::S3 => Ok(reports::stored(parts, &body, self.now())),
            Surface::Consent => {
                Ok(consent::page(&self.state, parts.uri.query().unwrap_or_default()))
            }
            Surface::Control | Surface::Api => Ok(control::respond(&self.state, parts)),
        }
    }

    async fn api(&self, parts: &Parts, body: Incoming, number: u64) -> Result<Emulated, Stop> {
        let settings = self.state.api.settings();
        let reply = if settings.answers_before_body {
            match ads::enter(self, parts).await {
                Ok(owner) => {
                    let body = self.receive(parts, number, body).await?;
                    ads::respond(self, parts, &body, owner).await
                }
                // As servers do that leave a body unread: the connection is of no more use.
                Err(stop) => stop.reply().map(|reply| reply.with("connection", "close")),
            }
        } else {
            let body = self.receive(parts, number, body).await?;
            match ads::enter(self, parts).await {
                Ok(owner) => ads::respond(self, parts, &body, owner).await,
                Err(stop) => Err(stop),
            }
        };
        Ok(ads::finish(parts, &settings, reply.or_else(Stop::reply)?).await)
    }

    /// Reads the body to its end; a broken one gets no response.
    async fn receive(&self, parts: &Parts, number: u64, body: Incoming) -> Result<Received, Stop> {
        // The test aids look at length and hash only, and take uploads of any size.
        let is_aid = parts.uri.path().starts_with("/_");
        let keep = if is_aid { record::BODY_KEPT_MAX_BYTES } else { BODY_READ_MAX_BYTES };
        let body = Received::read(body, keep).await;
        self.state.record.received(number, body.clone());
        if body.complete { Ok(body) } else { Err(Stop::Hangup) }
    }
}

/// Which service a request is for.
fn surface(parts: &Parts) -> Surface {
    match (parts.method.as_str(), parts.uri.path()) {
        ("POST", "/auth/o2/token") => Surface::Token,
        ("POST", "/auth/o2/revoke") => Surface::Revoke,
        ("GET", "/ap/oa") => Surface::Consent,
        (_, path) if path.starts_with("/_s3/") => Surface::S3,
        (_, path) if path == "/_sandbox" || path.starts_with("/_sandbox/") => Surface::Control,
        _ => Surface::Api,
    }
}
