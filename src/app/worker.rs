//! One worker thread of the data plane: its runtime, its listener, its drain.

use crate::{
    deadline::TICK,
    listen::{
        Acceptor, ConnectionLimit, IDLE_GRACE, bind::Bound, rejection::ListenRejection,
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
        let limits = self.shared.config.limits.clone();
        let drain_timeout = self.shared.config.proxy.drain_timeout;
        let late = self.shared.draining.clone();
        let worker = Worker::new(self.shared, metrics.clone(), self.access);
        let service = {
            let worker = worker.clone();
            move |request, connection: Rc<_>| worker.clone().handle(request, &connection)
        };
        let write_rejection = {
            let worker = worker.clone();
            Rc::new(move |rejection| worker.reject(&as_error(rejection)))
        };
        let acceptor =
            Acceptor::new(&limits, self.tls, metrics, self.connections, (service, write_rejection));
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
            if acceptor.has_drained(since) || since >= drain_timeout {
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
