//! `adsproxy sandbox`: the emulator with the real proxy in front of it.

use super::{ACCOUNTS, CLIENT_ID, CLIENT_SECRET, Emulator, LwaSettings, Options, banner::banner};
use crate::{
    app::App,
    config::{
        Account, Application, Config, Encryption, Guard, Limits, Listen, Log, Metrics, Proxy,
        ProxyAddress, Replay, Store, StoreKind, Token, Upstream,
    },
    id::Region,
    secret::Secret,
};
use anyhow::Context;
use http::Uri;
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    time::Duration,
};
use tokio::runtime::Runtime;

/// What `adsproxy sandbox` takes.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct RunOptions {
    /// Port of the proxy.
    #[arg(long, default_value_t = 8787)]
    pub port: u16,
    /// Port of health and metrics.
    #[arg(long, default_value_t = 8788)]
    pub admin_port: u16,
    /// Port of the emulated Amazon.
    #[arg(long, default_value_t = 8789)]
    pub emulator_port: u16,
    /// How long an access token lives.
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub token_lifetime_secs: u64,
}

/// The running sandbox.
#[derive(Debug)]
pub struct Sandbox {
    // In this order: the proxy goes before what it talks to.
    app: App,
    emulator: Emulator,
    _runtime: Runtime,
}

impl Sandbox {
    /// Starts the emulator and the proxy in front of it; port 0 takes a free one.
    ///
    /// # Errors
    /// When a port is taken, or the proxy does not start.
    pub fn start(options: &RunOptions) -> anyhow::Result<Self> {
        let proxy = free_port(options.port, "--port")?;
        let admin = free_port(options.admin_port, "--admin-port")?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("sandbox")
            .enable_all()
            .build()
            .context("cannot start a runtime for the emulator")?;
        let emulator = runtime.block_on(start(options))?;
        let config = config(proxy, admin, emulator.addr(), lifetime(options))?;
        let app = App::start(config).context("cannot start the proxy")?;
        Ok(Self { app, emulator, _runtime: runtime })
    }

    /// The proxy's address.
    #[must_use]
    pub fn proxy_address(&self) -> &str {
        self.app.proxy_addresses().first().map_or("", String::as_str)
    }

    /// The emulator.
    #[must_use]
    pub fn emulator(&self) -> &Emulator {
        &self.emulator
    }
}

/// Runs the sandbox until it is told to stop.
///
/// # Errors
/// As [`Sandbox::start`].
pub fn run(options: &RunOptions) -> anyhow::Result<()> {
    let sandbox = Sandbox::start(options)?;
    let (admin, emulator) = (sandbox.app.admin_address(), sandbox.emulator.addr());
    println!("{}", banner(sandbox.proxy_address(), admin, emulator, lifetime(options)));
    // What was cut off at the end does not matter here.
    let _ = sandbox.app.wait_for_signal_and_drain();
    Ok(())
}

async fn start(options: &RunOptions) -> anyhow::Result<Emulator> {
    let lwa = LwaSettings { token_lifetime: lifetime(options), ..LwaSettings::default() };
    let listen = loopback(options.emulator_port);
    Emulator::start(Options { listen, lwa, ..Options::default() })
        .await
        .with_context(|| taken(options.emulator_port, "--emulator-port"))
}

fn lifetime(options: &RunOptions) -> Duration {
    Duration::from_secs(options.token_lifetime_secs)
}

/// Looks whether a port is free, so that the complaint can name the flag.
fn free_port(port: u16, flag: &str) -> anyhow::Result<SocketAddr> {
    let addr = loopback(port);
    if port != 0 {
        TcpListener::bind(addr).with_context(|| taken(port, flag))?;
    }
    Ok(addr)
}

fn taken(port: u16, flag: &str) -> String {
    format!("cannot listen on port {port}: choose another one with {flag}")
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// The proxy's configuration: everything at its default but what the short token life asks for.
fn config(
    proxy: SocketAddr,
    admin: SocketAddr,
    emulator: SocketAddr,
    lifetime: Duration,
) -> anyhow::Result<Config> {
    let listen = Listen {
        proxy: vec![ProxyAddress::Tcp(proxy)],
        admin,
        health: None,
        tls: None,
        unsafe_allow_unauthenticated: false,
    };
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(Config {
        listen,
        proxy: Proxy { workers, default_account: None, drain_timeout: Duration::from_secs(5) },
        guard: Guard { allowed_hosts: Vec::new() },
        applications: BTreeMap::from([("default".to_owned(), application(emulator, admin)?)]),
        upstream: upstream(emulator)?,
        token: token(lifetime),
        replay: replay(),
        limits: limits(),
        store: Store { kind: StoreKind::Memory, path: PathBuf::new() },
        encryption: Encryption { keys: Vec::new() },
        accounts: accounts()?,
        log: Log { filter: "info".to_owned(), format: None, access: true },
        metrics: Metrics { account_labels_max: 100 },
    })
}

fn application(emulator: SocketAddr, admin: SocketAddr) -> anyhow::Result<Application> {
    Ok(Application {
        client_id: CLIENT_ID.to_owned(),
        client_secrets: vec![Secret::from(CLIENT_SECRET)],
        token_url: uri(emulator, "/auth/o2/token")?,
        fallback_token_urls: Vec::new(),
        authorize_url: uri(emulator, "/ap/oa")?,
        redirect_uri: format!("http://localhost:{}/api/auth/amazon/callback", admin.port()),
        scopes: vec!["advertising::campaign_management".to_owned()],
    })
}

fn upstream(emulator: SocketAddr) -> anyhow::Result<Upstream> {
    let host = uri(emulator, "")?;
    Ok(Upstream {
        api: [host.clone(), host.clone(), host.clone()],
        mcp: [host.clone(), host.clone(), host],
        ca_file: None,
        connect_timeout: Duration::from_secs(5),
        response_header_timeout: Duration::from_secs(75),
        response_idle_timeout: Duration::from_secs(75),
        idle_timeout: Duration::from_secs(60),
        connections_max: 1024,
        http2: true,
    })
}

/// A quarter and a half of the lifetime: with Amazon's hour the defaults are 5 and 15 minutes.
fn token(lifetime: Duration) -> Token {
    Token {
        refresh_buffer: lifetime / 4,
        background_lead: lifetime / 2,
        background_concurrency: 8,
        // Short, so that `expire` can be tried again and again.
        forced_refresh_min_interval: Duration::from_secs(1),
        wait_timeout: Duration::from_secs(15),
        waiters_max: 20_000,
        lwa_concurrency: 16,
        lwa_connect_timeout: Duration::from_secs(5),
        lwa_timeout: Duration::from_secs(10),
        lwa_attempts_max: 3,
    }
}

fn replay() -> Replay {
    Replay {
        max_replays: 2,
        memory_max_bytes: 1024 * 1024,
        disk_max_bytes: 64 * 1024 * 1024,
        total_max_bytes: 1024 * 1024 * 1024,
        directory: None,
    }
}

fn limits() -> Limits {
    Limits {
        connections_max: 10_000,
        in_flight_max: 10_000,
        header_max_bytes: 64 * 1024,
        headers_max: 100,
        body_max_bytes: 0,
        http2_streams_max: 250,
        handshake_timeout: Duration::from_secs(10),
        first_byte_timeout: Duration::from_secs(30),
        header_timeout: Duration::from_secs(10),
        idle_timeout: Duration::from_secs(75),
        body_timeout: Duration::from_secs(30),
        body_min_bytes_per_sec: 256,
        write_timeout: Duration::from_secs(60),
    }
}

fn accounts() -> anyhow::Result<BTreeMap<crate::id::AccountId, Account>> {
    let regions = [Region::Na, Region::Eu];
    let accounts = ACCOUNTS.into_iter().zip(regions).map(|((alias, refresh, _), region)| {
        let account = Account {
            region,
            application: "default".to_owned(),
            refresh_token: Some(Secret::from(refresh)),
            headers: Vec::new(),
        };
        Ok((alias.parse()?, account))
    });
    accounts.collect()
}

fn uri(emulator: SocketAddr, path: &str) -> anyhow::Result<Uri> {
    format!("http://{emulator}{path}").parse().context("an address makes a valid URI")
}
