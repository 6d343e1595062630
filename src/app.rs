//! The composition root: builds everything from a configuration, decides nothing.
//!
//! Threads: one single-threaded runtime per worker for the data plane, and one control runtime
//! for refreshes, the store, the admin and health listeners.

#![allow(missing_docs, reason = "public for the behaviour tests only")]

mod callers;
pub(crate) mod control;
mod hooks;
mod listeners;
mod private;
mod reload;
mod serve;
mod supervisor;
mod telemetry;
mod waiting;
mod worker;

use crate::{
    admin::health::{Health, Readiness},
    audit::{Action, Actor, Entry},
    callers::sessions::Sessions,
    clock::Clock,
    config::{Config, StoreConfig, admin_text},
    engine::{self, Engine, KeepFresh},
    hooks::Hooks,
    https,
    listen::{
        ConnectionLimit,
        bind::{BindError, SocketFile},
        tls::{self, ServerTls},
    },
    log::{self, Log},
    metrics::Metrics,
    proxy::{DataPlane, Settings},
    store,
    telemetry::Telemetry,
};
use arc_swap::ArcSwap;
pub(crate) use hooks::{finish_hooks, start_hooks};
use listeners::AdminListeners;
pub(crate) use listeners::reject;
pub use private::CommandProxy;
pub use serve::serve;
pub(crate) use serve::{forbid_dumps, harden};
use std::{
    fmt, io,
    sync::{Arc, atomic::AtomicBool},
    thread::JoinHandle,
    time::{Duration, Instant},
};
use supervisor::{Managed, Supervisor};
use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::watch,
    task::JoinSet,
    time::{timeout, timeout_at},
};
use tracing::{info, warn};
use worker::{WorkerThread, start_workers};

/// How long refreshes under way may take at least, after the last request has ended.
const REFRESHES_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the last entries of the audit log may take.
const AUDIT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why adsproxy cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error(transparent)]
    Engine(#[from] engine::Error),
    #[error("cannot read the store")]
    Store(#[from] store::Error),
    #[error("cannot use the listener's certificate")]
    Tls(#[from] tls::Error),
    #[error("cannot set up TLS towards Amazon")]
    Https(#[from] https::Error),
    /// The operating system refuses threads or sockets.
    #[error("cannot start")]
    Io(#[from] io::Error),
}

/// A running adsproxy.
pub struct App {
    addresses: Vec<String>,
    listeners: AdminListeners,
    drain: watch::Sender<bool>,
    /// Ends the admin and health listeners: readiness is to be seen falling until then.
    stop: watch::Sender<bool>,
    readiness: Arc<Health>,
    /// Serves one command: it neither begins nor ends as a server in the audit log.
    is_private: bool,
    supervisor: Supervisor,
    pub(crate) engine: Engine,
    _keep_fresh: KeepFresh,
    sessions: Sessions,
    tls: Option<Arc<ServerTls>>,
    telemetry: Option<Telemetry>,
    shared: Arc<DataPlane>,
    /// Looks at the files of the configuration.
    watching: JoinSet<()>,
    hooks: Option<Hooks>,
    workers: Vec<JoinHandle<()>>,
    /// Unlinked at the end.
    socket_files: Vec<SocketFile>,
    control: Option<Runtime>,
    /// Last: what ends before it can still be logged.
    _log: Log,
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

impl App {
    /// Starts with the machine's clock. Blocks while the database of the store is away.
    ///
    /// # Errors
    /// See [`Error`]; nothing keeps running after one.
    pub fn start(config: Config) -> Result<Self, Error> {
        Self::start_managed(config, &Managed::default())
    }

    /// Starts with a clock of the caller's, for tests.
    pub fn start_with(config: Config, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        Self::launch(config, clock, None, Managed::default())
    }

    fn launch(
        config: Config,
        clock: Arc<dyn Clock>,
        private: Option<CommandProxy>,
        Managed { mut sockets, supervisor }: Managed,
    ) -> Result<Self, Error> {
        let config = Arc::new(config);
        let log = open_log(&config, private.is_none())?;
        let metrics = Metrics::new(&config.metrics, log.dropped());
        let control = control_runtime(private.is_none())?;
        let handle = control.handle().clone();
        let engine = open_engine(&config, clock, &metrics, private.as_ref(), handle.clone())?;
        let tls = load_tls(&config, &metrics)?;
        let sessions = callers::open(&engine, private.as_ref(), &metrics, &control)?;
        let telemetry = telemetry::start(&engine, private.as_ref(), &handle);
        let shared = share(&engine, &sessions, &handle, private.as_ref(), telemetry.as_ref())?;
        let readiness = Arc::<Health>::default();
        let (drain, stop) = (watch::Sender::new(false), watch::Sender::new(false));
        let mut listeners = AdminListeners::default();
        if private.is_none() {
            let opened = listeners.open(&engine, &sessions, &readiness, &stop, &mut sockets);
            control.block_on(opened)?;
        }

        // Before anything happens that they report.
        let hooks = start_hooks(&engine, handle)?;
        control.block_on(engine.enroll())?;
        let keep_fresh = engine.keep_fresh();
        if let Some(tls) = &tls {
            control.spawn(tls::watch(tls.clone(), tls::RELOAD_INTERVAL));
        }

        // Last: every connection is served.
        let connections = ConnectionLimit::new(config.limits.connections_max);
        let started = start_workers(&config, sockets, |heartbeat| WorkerThread {
            shared: shared.clone(),
            metrics: metrics.clone(),
            access: log.access(),
            tls: tls.clone(),
            connections: connections.clone(),
            drain: drain.subscribe(),
            heartbeat,
        })?;
        control.spawn(supervisor.clone().keep_alive(started.heartbeats, readiness.clone()));
        readiness.set(Readiness::Ready);
        let app = Self {
            addresses: started.addresses,
            listeners,
            drain,
            stop,
            readiness,
            is_private: private.is_some(),
            supervisor,
            engine,
            _keep_fresh: keep_fresh,
            sessions,
            tls,
            telemetry,
            shared,
            watching: JoinSet::new(),
            hooks,
            workers: started.threads,
            socket_files: started.files,
            control: Some(control),
            _log: log,
        };
        app.report_start();
        Ok(app)
    }

    /// Logs where it listens; a server is in the audit log, too.
    fn report_start(&self) {
        let AdminListeners { admin, health, public, .. } = &self.listeners;
        let [health, public] = [health, public].map(|it| it.as_ref().map(tracing::field::display));
        let (proxy, admin) = (self.addresses.join(", "), admin_text(admin));
        info!(proxy, admin, public, health, "listening");
        if self.is_private {
            return;
        }
        if !self.engine.audit().is_on() {
            info!("no audit log is kept: the store has no place for it, and audit.path is not set");
        }
        // A failure is logged and counted; the server goes on.
        let _ = self.engine.audit().record(&Entry::new(Actor::Server, Action::ServerStart));
    }

    /// The data plane's addresses as bound: `127.0.0.1:8787`, `unix:/path`.
    pub fn proxy_addresses(&self) -> &[String] {
        &self.addresses
    }

    /// The admin listener's TCP address as bound.
    #[cfg(feature = "sandbox")]
    pub fn admin_address(&self) -> Option<std::net::SocketAddr> {
        self.listeners.admin.as_ref()?.tcp()
    }

    /// Stops accepting, lets requests and refreshes under way finish for at most the drain
    /// timeout, and ends. Says whether all of them did.
    #[must_use]
    pub fn drain(mut self) -> bool {
        info!("draining");
        self.watching.abort_all();
        self.readiness.set(Readiness::Draining);
        self.drain.send_replace(true);
        let deadline = Instant::now() + self.engine.config().proxy.drain_timeout;
        for worker in self.workers.drain(..) {
            if worker.join().is_err() {
                warn!("a worker ended by a panic");
            }
        }
        let served = Instant::now() < deadline;
        if !served {
            warn!("some requests were still in flight at the end of the drain timeout");
        }
        let control = self.control.as_ref().map(|control| control.handle().clone());
        let refreshed = control.is_none_or(|control| control.block_on(self.finish(deadline)));
        info!("stopped");
        served && refreshed
    }

    /// Lets what goes on besides requests end, each part for a while; says whether refreshes did.
    async fn finish(&mut self, deadline: Instant) -> bool {
        // A rotated refresh token must reach the store, also when no caller waits for it any more.
        let deadline = deadline.max(Instant::now() + REFRESHES_TIMEOUT);
        let refreshed = timeout_at(deadline.into(), self.engine.tokens().finish()).await.is_ok();
        if !refreshed {
            warn!("a token refresh was still under way");
        }
        // A grant that Amazon has given must reach the store, and the browser hear of it. Readiness
        // was seen falling by now.
        self.stop.send_replace(true);
        self.listeners.finish_logins().await;
        let audit = self.engine.audit();
        let written = async {
            audit.flush().await;
            match self.is_private {
                true => Ok(()),
                false => audit.write(Entry::new(Actor::Server, Action::ServerStop)).await,
            }
        };
        if timeout(AUDIT_TIMEOUT, written).await.is_err() {
            warn!("the audit log was still being written");
        }
        if let Some(telemetry) = &mut self.telemetry {
            telemetry.finish().await;
        }
        // What cannot be delivered any more is by the next process.
        if let Some(hooks) = &mut self.hooks {
            finish_hooks(hooks).await;
        }
        refreshed
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.drain.send_replace(true);
        self.stop.send_replace(true);
        self.socket_files.clear();
        if let Some(control) = self.control.take() {
            // For writes to the disk: other tasks just end.
            control.shutdown_timeout(Duration::from_secs(5));
        }
    }
}

/// The runtime of everything but the data plane. A server does not end by signals that ask nothing.
fn control_runtime(is_server: bool) -> io::Result<Runtime> {
    let control = Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("control")
        .enable_all()
        .build()?;
    if is_server {
        let _context = control.enter();
        serve::survive_signals()?;
    }
    Ok(control)
}

/// The certificate of the data plane, if it has one.
fn load_tls(config: &Config, metrics: &Metrics) -> Result<Option<Arc<ServerTls>>, tls::Error> {
    let Some(files) = &config.listen.tls else { return Ok(None) };
    let tls = ServerTls::load(files)?;
    metrics.certificate(tls.expiry());
    Ok(Some(tls))
}

/// The accounts: all of the configuration's, or the one of a private data plane.
fn open_engine(
    config: &Arc<Config>,
    clock: Arc<dyn Clock>,
    metrics: &Arc<Metrics>,
    private: Option<&CommandProxy>,
    handle: Handle,
) -> Result<Engine, engine::Error> {
    let socket = private.and_then(|private| private.server.as_deref());
    let account = private.map(|private| private.account.clone());
    let (config, metrics) = (config.clone(), metrics.clone());
    let engine = Engine::open(socket, config, clock, metrics, Actor::Server, handle)?;
    Ok(engine.only(account))
}

/// The log; its first line, of a server, says which program, which configuration, which store.
fn open_log(config: &Config, is_server: bool) -> io::Result<Log> {
    let log = log::init(&config.log)?;
    if is_server {
        let source = config.source.as_ref().map(|path| path.display().to_string());
        let source = source.as_deref().unwrap_or("environment");
        let StoreConfig { kind, .. } = &config.store;
        let path = config.store.place();
        let (version, commit) = (env!("CARGO_PKG_VERSION"), env!("ADSPROXY_COMMIT"));
        info!(version, commit, config = source, store = kind.as_str(), path, "adsproxy starts");
    }
    Ok(log)
}

fn share(
    engine: &Engine,
    sessions: &Sessions,
    control: &Handle,
    private: Option<&CommandProxy>,
    telemetry: Option<&Telemetry>,
) -> Result<Arc<DataPlane>, Error> {
    let config = engine.config();
    Ok(Arc::new(DataPlane {
        config: config.clone(),
        directory: engine.enroller.directory.clone(),
        tokens: engine.tokens().clone(),
        clock: engine.clock().clone(),
        throttling: engine.throttling.clone(),
        requests: engine.requests.clone(),
        spans: telemetry.and_then(|telemetry| telemetry.spans.clone()),
        settings: Arc::new(ArcSwap::from_pointee(Settings::new(&config))),
        tls: https::client_config(config.upstream_roots(), config.upstream.http2)?,
        draining: Arc::new(AtomicBool::new(false)),
        audit: engine.audit().clone(),
        control: control.clone(),
        callers: sessions.callers().clone(),
        path_key: private.map(|private| private.key.clone()),
    }))
}
