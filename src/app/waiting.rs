//! A server whose database is away: until it is there, requests get 503 and probes "not ready".
//!
//! Nothing is known without the store, neither accounts nor who may call, so every request gets the
//! same response, over TLS too. By the control socket a command learns which server waits, and can
//! end it.

use super::{App, Error, control, listeners::reject, serve::stop_signal, supervisor::Managed};
use crate::{
    admin::describe_server,
    backoff::Backoff,
    caller_body::CallerBody,
    clock::SystemClock,
    config::{Config, Limits, ListenAddress},
    deadline::TICK,
    engine,
    error_chain::chain,
    inbound::{peer::ConnectionInfo, request_id},
    listen::{
        Acceptor, ConnectionLimit,
        bind::{self, Bound, SocketFile},
        control_plane::{self, AwaitedBody},
        inherited::InheritedSockets,
        tls::{self, ServerTls},
    },
    log,
    metrics::Metrics,
    problem::{Code, Problem},
    store::{self, Store},
    token::Obstacle,
};
use bytes::Bytes;
use http::{
    HeaderValue, Request, Response, StatusCode, Version,
    header::{CONNECTION, CONTENT_TYPE},
};
use http_body_util::Full;
use hyper::service::service_fn;
use std::{
    convert::Infallible,
    future::ready,
    io, process,
    rc::Rc,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};
use tokio::{
    net::{TcpListener, UnixListener},
    runtime::{Builder, LocalOptions, Runtime},
    sync::{Notify, watch},
    task::{JoinSet, spawn_blocking},
    time::{interval, sleep},
};
use tracing::{error, info, warn};

/// Between two looks: several servers do not look in step.
const PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));
/// When a caller is to try again.
const RETRY_AFTER_SECS: u64 = 2;
/// How long callers may take to read their last response.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// Between two looks whether they have.
const DRAIN_TICK: Duration = Duration::from_millis(20);

/// Until it is dropped, a signal that stops a server ends the process: nothing is under way yet.
struct StopGuard(Option<Runtime>);

impl Drop for StopGuard {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl App {
    /// As [`App::start`], under a service manager.
    pub(super) fn start_managed(mut config: Config, managed: &Managed) -> Result<Self, Error> {
        let mut _guard = None;
        loop {
            let clock = Arc::new(SystemClock);
            let launched = Self::launch(config.clone(), clock, None, managed.try_clone()?);
            match launched.as_ref().err().and_then(passing) {
                Some(error) => {
                    // The one of the start that failed has taken the output with it.
                    let _log = log::init(&config.log)?;
                    _guard = Some(wait(&mut config, error, managed)?);
                }
                None => return launched,
            }
        }
    }
}

/// The error of the store, if it may pass without anything being changed here.
fn passing(error: &Error) -> Option<&store::Error> {
    match error {
        Error::Store(error) | Error::Engine(engine::Error::Store(error)) => {
            Some(error).filter(|error| error.is_away())
        }
        _ => None,
    }
}

/// Waits until the store can be opened, and serves meanwhile. A port that the system chooses is that
/// of `config` from then on.
///
/// # Errors
/// When it cannot for another reason than that the database is away.
fn wait(config: &mut Config, error: &store::Error, managed: &Managed) -> Result<StopGuard, Error> {
    let runtime = super::control_runtime(true)?;
    runtime.spawn(async {
        stop_signal().await;
        process::exit(0);
    });
    warn!(error = %chain(error), "waiting for the store: requests get 503 until it is there");
    let stop = watch::Sender::new(false);
    let mut waiting = WaitingServer { stop, ..WaitingServer::default() };
    let _context = runtime.enter();
    let worker = waiting.listen(config, managed.sockets.try_clone()?)?;
    let is_over = runtime.block_on(async {
        let is_over = tokio::select! {
            looked = look(config) => looked.map(|()| false)?,
            () = managed.supervisor.keep_starting() => false,
            () = waiting.quit.notified() => true,
        };
        waiting.stop.send_replace(true);
        while waiting.serving.join_next().await.is_some() {}
        Ok::<_, Error>(is_over)
    })?;
    if worker.join().is_err() {
        warn!("the worker ended by a panic");
    }
    drop(waiting);
    if is_over {
        process::exit(0);
    }
    info!("the store is there");
    Ok(StopGuard(Some(runtime)))
}

async fn look(config: &Config) -> Result<(), Error> {
    let mut pause = Backoff::new(PAUSE.0, PAUSE.1);
    let settings = Arc::new((config.store.clone(), config.encryption.clone()));
    loop {
        sleep(pause.next()).await;
        let settings = settings.clone();
        let opened = spawn_blocking(move || Store::open(&settings.0, &settings.1).map(drop)).await;
        match opened.map_err(io::Error::other)? {
            Err(error) if error.is_away() => {
                warn!(error = %chain(&error), "still waiting for the store");
            }
            opened => return Ok(opened?),
        }
    }
}

/// The listeners meanwhile.
#[derive(Default)]
struct WaitingServer {
    stop: watch::Sender<bool>,
    /// A command ends the server.
    quit: Arc<Notify>,
    /// All but the data plane.
    serving: JoinSet<()>,
    /// The files of the Unix sockets, removed at the end.
    files: Vec<SocketFile>,
}

impl WaitingServer {
    /// Opens the listeners; the data plane is served on a thread of its own, as it will be.
    fn listen(
        &mut self,
        config: &mut Config,
        mut inherited: InheritedSockets,
    ) -> Result<JoinHandle<()>, Error> {
        let metrics = Metrics::new(&config.metrics, Arc::default());
        let tls = super::load_tls(config, &metrics)?;
        if let Some(tls) = &tls {
            self.serving.spawn(watch_certificate(tls.clone(), self.stop.subscribe()));
        }
        let listen = &mut config.listen;
        let mut data = Vec::new();
        for address in &mut listen.proxy {
            data.append(&mut self.bind(address, &mut inherited)?);
        }
        // By the configured address of the admin listener a command knows its own server.
        let is_any_port = |it: &ListenAddress| it.tcp().is_some_and(|it| it.port() == 0);
        let admin = listen.admin.as_mut().filter(|it| !is_any_port(it));
        let beside = [admin, listen.public.as_mut(), listen.health.as_mut()];
        for address in beside.into_iter().flatten() {
            for socket in self.bind(address, &mut inherited)? {
                self.spawn(socket, |_: &_| true, |request| respond(&request))?;
            }
        }
        if let Some((listener, file)) = control::bind(config) {
            self.files.push(file);
            let description = describe_server(config).to_string().into();
            let server = ThisServer { description, quit: self.quit.clone() };
            let socket = Bound::Unix(listener);
            self.spawn(socket, control::is_allowed, move |request| server.respond(&request))?;
        }
        let (limits, stop) = (config.limits.clone(), self.stop.subscribe());
        let worker = thread::Builder::new().name("waiting".to_owned());
        let serve = move || {
            if let Err(error) = serve_data(data, &limits, tls, &metrics, stop) {
                error!(%error, "requests get no response until the store is there");
            }
        };
        Ok(worker.spawn(serve)?)
    }

    /// Binds an address, which then has the port that the system has chosen.
    fn bind(
        &mut self,
        address: &mut ListenAddress,
        inherited: &mut InheritedSockets,
    ) -> Result<Vec<Bound>, Error> {
        let mut sockets = bind::bind(std::slice::from_ref(address), 1, inherited)?;
        self.files.append(&mut sockets.files);
        let sockets = sockets.workers.into_iter().flatten().collect::<Vec<_>>();
        if let (ListenAddress::Tcp(_), [Bound::Tcp(bound)]) = (&*address, &*sockets) {
            *address = ListenAddress::Tcp(bound.local_addr()?);
        }
        info!(%address, "listening, not ready");
        Ok(sockets)
    }

    /// Serves a listener beside the data plane.
    fn spawn(
        &mut self,
        socket: Bound,
        is_allowed: impl Fn(&ConnectionInfo) -> bool + Send + Sync + 'static,
        respond: impl Fn(Request<AwaitedBody>) -> Response<Bytes> + Clone + Send + Sync + 'static,
    ) -> io::Result<()> {
        let service = move |info: &ConnectionInfo| {
            let respond = respond.clone();
            let respond =
                move |request| ready(Ok::<_, Infallible>(respond(request).map(Full::new)));
            is_allowed(info).then(|| service_fn(respond))
        };
        let stop = self.stop.subscribe();
        match socket {
            Bound::Tcp(tcp) => {
                let tcp = TcpListener::from_std(tcp)?;
                self.serving.spawn(control_plane::serve(tcp, service, reject, stop));
            }
            Bound::Unix(unix) => {
                let unix = UnixListener::from_std(unix)?;
                self.serving.spawn(control_plane::serve(unix, service, reject, stop));
            }
        }
        Ok(())
    }
}

async fn watch_certificate(tls: Arc<ServerTls>, mut stop: watch::Receiver<bool>) {
    tokio::select! {
        () = tls::watch(tls, tls::RELOAD_INTERVAL) => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
}

/// Serves the data plane on this thread until `stop` is true.
fn serve_data(
    sockets: Vec<Bound>,
    limits: &Limits,
    tls: Option<Arc<ServerTls>>,
    metrics: &Arc<Metrics>,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    runtime.block_on(async {
        let service = |request: Request<CallerBody>, _: Rc<ConnectionInfo>| {
            let mut response = unavailable();
            // It comes back on a connection to the server that is ready.
            if request.version() < Version::HTTP_2 {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            ready(response.map(Full::new))
        };
        let connections = ConnectionLimit::new(limits.connections_max);
        let service = (service, Rc::new(reject) as _);
        let acceptor = Acceptor::new(limits, tls, metrics.worker(), connections, service);
        acceptor.listen(sockets)?;
        let (started, mut ticks) = (Instant::now(), interval(TICK));
        let mut draining: Option<Instant> = None;
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    acceptor.sweep(u32::try_from(started.elapsed().as_secs()).unwrap_or(u32::MAX));
                }
                _ = stop.wait_for(|stop| *stop), if draining.is_none() => {
                    draining = Some(Instant::now());
                    acceptor.drain();
                    ticks = interval(DRAIN_TICK);
                }
            }
            let Some(since) = draining.map(|began| began.elapsed()) else { continue };
            if acceptor.has_drained(since) || since >= DRAIN_TIMEOUT {
                return Ok(());
            }
        }
    })
}

fn unavailable() -> Response<Bytes> {
    problem(Obstacle::Store.advice())
}

fn problem(detail: &str) -> Response<Bytes> {
    let retry_after_secs = Some(RETRY_AFTER_SECS);
    let problem = Problem { detail, retry_after_secs, ..Code::TokenUnavailable.problem() };
    problem.respond(&request_id::fresh(request_id::first()))
}

fn plain(status: StatusCode, text: &'static str) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from_static(text.as_bytes()));
    *response.status_mut() = status;
    let of = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, of);
    response
}

fn respond<B>(request: &Request<B>) -> Response<Bytes> {
    match request.uri().path() {
        "/livez" => plain(StatusCode::OK, "ok\n"),
        "/readyz" | "/startupz" | "/healthz" => {
            plain(StatusCode::SERVICE_UNAVAILABLE, "not ok: waiting for the store\n")
        }
        _ => unavailable(),
    }
}

/// What the control socket says, to the users that the server itself would serve.
#[derive(Clone)]
struct ThisServer {
    /// By this a command knows its own server.
    description: Bytes,
    quit: Arc<Notify>,
}

impl ThisServer {
    fn respond<B>(&self, request: &Request<B>) -> Response<Bytes> {
        match (request.method().as_str(), request.uri().path()) {
            ("GET", "/api/v1/server") => {
                let mut response = Response::new(self.description.clone());
                let json = HeaderValue::from_static("application/json");
                response.headers_mut().insert(CONTENT_TYPE, json);
                response
            }
            ("POST", "/quitquitquit") => {
                self.quit.notify_one();
                plain(StatusCode::OK, "draining\n")
            }
            (_, "/livez" | "/readyz" | "/startupz" | "/healthz") => respond(request),
            _ => problem(
                "This server waits for the database of its store, which cannot be reached: its log \
                 says why. Until then it knows no account.",
            ),
        }
    }
}
