//! An emulator of Login with Amazon and of the Amazon Ads API, on loopback.
//!
//! It is the only fake there is: behind `adsproxy sandbox`, in our tests, in users' CI. One
//! listener serves the token endpoint, the consent page, the API of all regions, the MCP server
//! and the presigned download host; a second one may serve the same over TLS. HTTP/1.1 and
//! HTTP/2 (by prior knowledge or ALPN) are distinguished by the first bytes.
//!
//! [`EmulatorState`] scripts and inspects the emulator in-process; `/_sandbox` does the same over
//! HTTP. The emulator never leaves loopback, holds no real secret and does not know the proxy:
//! only `run` does.

mod ads;
mod aids;
mod amc;
pub mod banner;
mod campaigns;
mod consent;
mod control;
mod fault;
mod grants;
mod http_server;
mod lwa;
mod mcp;
mod profiles;
mod record;
mod reports;
mod response;
pub mod run;
mod settings;
mod text;

pub use self::{
    ads::Api,
    fault::{ApiFault, Faults, LwaFault, Permission, RequestGate, Scripted, Times},
    grants::{AdvertiserGrant, Lwa},
    http_server::Connections,
    profiles::{Country, Profile},
    record::{CallCounts, RequestRecord, SeenRequest, Surface},
    settings::{ApiSettings, ExpiresIn, LwaSettings, RefreshRotation},
};

use self::http_server::EmulatorService;
use crate::clock::{Clock, SystemClock};
use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};
use tokio::task::JoinSet;

pub const CLIENT_ID: &str = "amzn1.application-oa2-client.sandbox";
pub const CLIENT_SECRET: &str = "amzn1.oa2-cs.v1.sandbox";
/// The demo accounts: alias, refresh token, first profile.
pub const ACCOUNTS: [(&str, &str, i64); 2] = [
    ("acme", "Atzr|sandbox-refresh-token-of-acme", 1_234_567_890_123_456),
    ("globex", "Atzr|sandbox-refresh-token-of-globex", 2_345_678_901_234_567),
];

#[derive(Debug, Clone)]
pub struct EmulatorOptions {
    /// A loopback address; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Listens over TLS too, on a free port of the same address.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    pub clock: Arc<dyn Clock>,
}

impl Default for EmulatorOptions {
    fn default() -> Self {
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self { listen, tls: None, clock: Arc::new(SystemClock) }
    }
}

#[derive(Debug)]
pub struct EmulatorState {
    pub lwa: Lwa,
    pub api: Api,
    pub record: RequestRecord,
    pub connections: Connections,
}

impl EmulatorState {
    /// A fresh state with the demo application and accounts.
    fn new(clock: Arc<dyn Clock>) -> Self {
        let lwa = Lwa::new(clock);
        lwa.add_application(CLIENT_ID, &[CLIENT_SECRET]);
        let countries = [[Country::Us, Country::Ca], [Country::De, Country::Uk]];
        for ((account, refresh, id), countries) in ACCOUNTS.into_iter().zip(countries) {
            let name = format!("{account} (sandbox)");
            let profiles = [id, id + 1].into_iter().zip(countries);
            let profiles = profiles.map(|(id, country)| Profile::seller(id, country, &name));
            lwa.add_grant(account, CLIENT_ID, refresh, profiles.collect());
        }
        let (api, record, connections) = Default::default();
        Self { lwa, api, record, connections }
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
    /// Starts an emulator with a state of its own on the current runtime. The address must be one
    /// of loopback.
    pub async fn start(options: EmulatorOptions) -> io::Result<Self> {
        let state = EmulatorState::new(Arc::clone(&options.clock));
        Self::start_with(options, Arc::new(state)).await
    }

    /// Starts an emulator that shares `state` with others, or goes on with that of one before.
    pub async fn start_with(
        options: EmulatorOptions,
        state: Arc<EmulatorState>,
    ) -> io::Result<Self> {
        let plain = http_server::bind(options.listen)?;
        let addr = plain.local_addr()?;
        let s3_authority = format!("localhost:{}", addr.port());
        let service = Arc::new(EmulatorService { state: Arc::clone(&state), s3_authority });
        let mut listeners = JoinSet::new();
        listeners.spawn(Arc::clone(&service).accept(plain, None));
        let mut tls_addr = None;
        if let Some(tls) = options.tls {
            let secure = http_server::bind(SocketAddr::new(addr.ip(), 0))?;
            tls_addr = Some(secure.local_addr()?);
            listeners.spawn(service.accept(secure, Some(tls.into())));
        }
        Ok(Self { addr, tls_addr, state, _listeners: listeners })
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub fn tls_addr(&self) -> Option<SocketAddr> {
        self.tls_addr
    }

    pub fn state(&self) -> &Arc<EmulatorState> {
        &self.state
    }
}
