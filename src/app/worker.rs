//! The worker threads of the data plane: their start; the runtime, the listener, the drain of each.

use super::supervisor::Heartbeat;
use crate::{
    config::Config,
    deadline::TICK,
    listen::{
        Acceptor, ConnectionLimit, IDLE_GRACE,
        bind::{self, Bound, SocketFile},
        inherited::InheritedSockets,
        rejection::ListenRejection,
        tls::ServerTls,
    },
    log::AccessLog,
    metrics::Metrics,
    problem::Code,
    proxy::{DataPlane, Error, Worker},
};
use std::{
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};
use tokio::{
    runtime::{Builder, LocalOptions},
    sync::watch,
};

/// What one worker thread is given.
pub(super) struct WorkerThread {
    pub(super) shared: Arc<DataPlane>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) access: AccessLog,
    pub(super) tls: Option<Arc<ServerTls>>,
    pub(super) connections: Arc<ConnectionLimit>,
    pub(super) drain: watch::Receiver<bool>,
    /// Ends only when the work is done.
    pub(super) heartbeat: Arc<Heartbeat>,
}

/// The data plane as it runs.
pub(super) struct RunningWorkers {
    pub(super) threads: Vec<JoinHandle<()>>,
    pub(super) heartbeats: Vec<Arc<Heartbeat>>,
    pub(super) addresses: Vec<String>,
    pub(super) files: Vec<SocketFile>,
}

/// Binds the data plane, which takes what is left of the sockets that were passed, and starts a thread
/// for each set of sockets.
pub(super) fn start_workers(
    config: &Config,
    mut inherited: InheritedSockets,
    worker: impl Fn(Arc<Heartbeat>) -> WorkerThread,
) -> Result<RunningWorkers, super::Error> {
    let bound = bind::bind(&config.listen.proxy, config.proxy.workers, &mut inherited)?;
    inherited.finish()?;
    let (addresses, files) = (bound.addresses, bound.files);
    let mut started =
        RunningWorkers { threads: Vec::new(), heartbeats: Vec::new(), addresses, files };
    for (number, sockets) in bound.workers.into_iter().enumerate() {
        let heartbeat = Arc::<Heartbeat>::default();
        let worker = worker(heartbeat.clone());
        let thread = thread::Builder::new().name(format!("worker-{number}"));
        started.threads.push(thread.spawn(move || worker.run(sockets))?);
        started.heartbeats.push(heartbeat);
    }
    Ok(started)
}

impl WorkerThread {
    /// Works until drained.
    pub(super) fn run(self, sockets: Vec<Bound>) {
        let runtime =
            Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
        match runtime {
            Ok(runtime) => {
                runtime.block_on(self.work(sockets));
                // A name server or a disk that hangs must not hold the exit.
                runtime.shutdown_background();
            }
            Err(error) => tracing::error!(%error, "a worker cannot start"),
        }
    }

    async fn work(mut self, sockets: Vec<Bound>) {
        let metrics = self.metrics.worker();
        let late = self.shared.draining.clone();
        let worker = Worker::new(self.shared, metrics.clone(), self.access);
        let mut settings = worker.settings();
        let service = {
            let worker = worker.clone();
            move |request, connection| worker.clone().handle(request, connection)
        };
        let write_rejection = {
            let worker = worker.clone();
            Rc::new(move |rejection| worker.reject(&as_error(rejection)))
        };
        let acceptor = Acceptor::new(
            &settings.config.limits,
            self.tls,
            metrics,
            self.connections,
            (service, write_rejection),
        );
        if let Err(error) = acceptor.listen(sockets) {
            return tracing::error!(%error, "a worker cannot accept connections");
        }
        let started = Instant::now();
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut draining: Option<Instant> = None;
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    worker.tick();
                    self.heartbeat.beat();
                    let latest = worker.settings();
                    if !Arc::ptr_eq(&latest, &settings) {
                        acceptor.set_limits(&latest.config.limits);
                        settings = latest;
                    }
                    acceptor.sweep(u32::try_from(started.elapsed().as_secs()).unwrap_or(u32::MAX));
                }
                _ = self.drain.changed(), if draining.is_none() => {
                    draining = Some(Instant::now());
                    acceptor.drain();
                    ticks = tokio::time::interval(Duration::from_millis(20));
                }
            }
            let Some(since) = draining.map(|began| began.elapsed()) else { continue };
            if since >= IDLE_GRACE {
                // Requests that were on their way have come by now; others are refused.
                late.store(true, Ordering::Relaxed);
            }
            if acceptor.has_drained(since) || since >= settings.config.proxy.drain_timeout {
                self.heartbeat.end();
                return worker.tick();
            }
        }
    }
}

/// A rejection by the listener as an error of the table.
pub(super) fn as_error(rejection: ListenRejection) -> Error {
    match rejection {
        ListenRejection::Malformed => Error::BadRequest("The request is not well-formed HTTP/1.1."),
        ListenRejection::HeadersTooLarge => Error::Rejected(Code::HeadersTooLarge),
        ListenRejection::Connections => Error::Overloaded(
            "The proxy has as many connections as it may (limits.connections_max). Try again later.",
        ),
    }
}
