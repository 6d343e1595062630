//! An emulator of Login with Amazon and of the Amazon Ads API, on loopback.
//!
//! It is the only fake there is: behind `adsproxy sandbox`, in our tests, in users' CI. One
//! listener serves the token endpoint, the consent page, the API of all regions, the MCP server
//! and the presigned download host; a second one may serve the same over TLS. HTTP/1.1 and
//! HTTP/2 (by prior knowledge or ALPN) are distinguished by the first bytes.
//!
//! [`State`] is the way to script and to inspect it in-process; `/_sandbox` (see
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
    grants::{Grant, Lwa},
    listener::Connections,
    profiles::{Country, Profile},
    record::{Counts, Record, Seen, Surface},
    settings::{ExpiresIn, LwaSettings, Rotation},
};

use self::{
    record::Received,
    response::{HandlerResult, Hangup},
};
use crate::clock::{Clock, Now, SystemClock};
use http::{Method, Request, request::Parts};
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
    /// How the token service issues tokens.
    pub lwa: LwaSettings,
    /// How the API behaves.
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
pub struct State {
    /// Login with Amazon.
    pub lwa: Lwa,
    /// The API.
    pub api: Api,
    /// What arrived.
    pub record: Record,
    /// The open connections.
    pub connections: Connections,
}

impl State {
    /// The state of a fresh emulator with the demo application and accounts.
    #[must_use]
    pub fn new(options: &Options) -> Self {
        let lwa = Lwa::new(Arc::clone(&options.clock), options.lwa.clone());
        lwa.add_application(CLIENT_ID, &[CLIENT_SECRET]);
        let countries = [[Country::Us, Country::Ca], [Country::De, Country::Uk]];
        for ((account, refresh, id), countries) in ACCOUNTS.into_iter().zip(countries) {
            let name = format!("{account} (sandbox)");
            let ids = [id, id + 1];
            let profiles = ids.into_iter().zip(countries);
            let profiles = profiles.map(|(id, country)| Profile::seller(id, country, &name));
            lwa.add_grant(account, CLIENT_ID, refresh, profiles.collect());
        }
        let api = Api::default();
        api.configure(|settings| *settings = options.api.clone());
        let record = Record::new(options.record_max);
        Self { lwa, api, record, connections: Connections::default() }
    }
}

/// A running emulator. Dropping it closes its listeners and connections.
#[derive(Debug)]
pub struct Emulator {
    addr: SocketAddr,
    tls_addr: Option<SocketAddr>,
    state: Arc<State>,
    _listeners: JoinSet<()>,
}

impl Emulator {
    /// Starts an emulator with a state of its own on the current runtime.
    ///
    /// # Errors
    /// When the address is not loopback (`InvalidInput`) or cannot be bound.
    pub async fn start(options: Options) -> io::Result<Self> {
        let state = Arc::new(State::new(&options));
        Self::start_with(options, state).await
    }

    /// Starts an emulator that shares `state` with others, or goes on with that of one before.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_with(options: Options, state: Arc<State>) -> io::Result<Self> {
        let plain = listener::bind(options.listen)?;
        let addr = plain.local_addr()?;
        let s3_authority =
            options.s3_authority.unwrap_or_else(|| format!("localhost:{}", addr.port()));
        let context = Arc::new(Context { state: Arc::clone(&state), s3_authority });
        let mut listeners = JoinSet::new();
        listeners.spawn(listener::accept(plain, None, Arc::clone(&context)));
        let tls_addr = match options.tls {
            Some(tls) => {
                let secure = listener::bind(SocketAddr::new(addr.ip(), 0))?;
                let tls_addr = secure.local_addr()?;
                listeners.spawn(listener::accept(secure, Some(tls), context));
                Some(tls_addr)
            }
            None => None,
        };
        Ok(Self { addr, tls_addr, state, _listeners: listeners })
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where it listens over TLS.
    #[must_use]
    pub fn tls_addr(&self) -> Option<SocketAddr> {
        self.tls_addr
    }

    /// Its state, for scripting and inspection.
    #[must_use]
    pub fn state(&self) -> &Arc<State> {
        &self.state
    }
}

/// What every request is served from.
#[derive(Debug)]
struct Context {
    state: Arc<State>,
    s3_authority: String,
}

impl Context {
    fn now(&self) -> Now {
        self.state.lwa.now()
    }

    /// Responds to one request and takes it down.
    async fn serve(&self, request: Request<Incoming>) -> HandlerResult {
        let (parts, body) = request.into_parts();
        let surface = surface(&parts);
        let token = ads::bearer(&parts.headers);
        let sender = token.and_then(|token| self.state.lwa.generation(token));
        let number = self.state.record.arrived(surface, &parts, sender);
        let response = match surface {
            Surface::Api => self.api(&parts, body, number).await?,
            Surface::Token => {
                let body = self.receive(&parts, number, body).await?;
                lwa::token(&self.state, &parts, &body.start).await?
            }
            Surface::Revoke => {
                let body = self.receive(&parts, number, body).await?;
                lwa::revoke(&self.state, &parts, &body.start)
            }
            Surface::S3 => {
                let body = self.receive(&parts, number, body).await?;
                reports::stored(&parts, &body, self.now())
            }
            Surface::Consent => consent::page(&self.state, parts.uri.query().unwrap_or_default()),
            Surface::Control => control::respond(&self.state, &parts),
        };
        self.state.record.responded(number, surface, response.status());
        Ok(response)
    }

    async fn api(&self, parts: &Parts, body: Incoming, number: u64) -> HandlerResult {
        let settings = self.state.api.settings();
        let (met, body) = if settings.answers_before_body {
            match ads::meet(self, parts).await {
                Ok(owner) => (Ok(owner), self.receive(parts, number, body).await?),
                Err(response) => {
                    let mut response = ads::finish(parts, &settings, response?).await;
                    // As servers do that leave a body unread: the connection is of no more use.
                    let close = http::HeaderValue::from_static("close");
                    response.headers_mut().insert(http::header::CONNECTION, close);
                    return Ok(response);
                }
            }
        } else {
            let body = self.receive(parts, number, body).await?;
            (ads::meet(self, parts).await, body)
        };
        let response = match met {
            Ok(owner) => ads::respond(self, parts, &body, owner).await?,
            Err(response) => response?,
        };
        Ok(ads::finish(parts, &settings, response).await)
    }

    /// Reads the body to its end; a broken one gets no response.
    async fn receive(
        &self,
        parts: &Parts,
        number: u64,
        body: Incoming,
    ) -> Result<Received, Hangup> {
        // The test aids look at length and hash only, and take uploads of any size.
        let is_aid = parts.uri.path().starts_with("/_");
        let keep = if is_aid { record::BODY_KEPT_MAX_BYTES } else { BODY_READ_MAX_BYTES };
        let body = Received::read(body, keep).await;
        self.state.record.received(number, body.clone());
        if body.complete { Ok(body) } else { Err(Hangup) }
    }
}

/// Which service a request is for.
fn surface(parts: &Parts) -> Surface {
    let path = parts.uri.path();
    if path == "/auth/o2/token" && parts.method == Method::POST {
        Surface::Token
    } else if path == "/auth/o2/revoke" && parts.method == Method::POST {
        Surface::Revoke
    } else if path == "/ap/oa" && parts.method == Method::GET {
        Surface::Consent
    } else if path.starts_with("/_s3/") {
        Surface::S3
    } else if path == "/_sandbox" || path.starts_with("/_sandbox/") {
        Surface::Control
    } else {
        Surface::Api
    }
}
