//! `adsproxy serve`: a hardened process that runs until it is asked to end, by a signal or over the
//! control socket, and reloads on another signal.

use super::{
    App,
    supervisor::{Managed, Supervisor},
};
use crate::{
    admin::health::Readiness,
    config::load::{Loaded, Options},
    listen::inherited::InheritedSockets,
};
use std::{future::pending, io};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::timeout,
};
use tracing::{info, warn};

/// Runs `serve`: hardens the process, starts, logs the warnings, and blocks until drained. SIGHUP
/// reads `options` again, with the environment of that moment: no copy of it, which may hold
/// secrets, is kept meanwhile.
pub fn serve(loaded: Loaded, options: Options) -> anyhow::Result<()> {
    // First: what was passed has its numbers, and is closed in programs that we start.
    let sockets = InheritedSockets::of_process(&loaded.config)?;
    harden();
    let managed = Managed { sockets, supervisor: Supervisor::of_process() };
    let mut app = App::start_managed(loaded.config.clone(), &managed)?;
    drop(managed);
    for warning in &loaded.warnings {
        warn!("{}", warning.message);
    }
    let reloader = app.allow_reload(loaded, options);
    let drained = app.serve_until_stopped(move || reloader.on_signal());
    anyhow::ensure!(drained, "stopped before everything under way was finished");
    Ok(())
}

impl App {
    /// Serves until SIGTERM, SIGINT or a request to the control socket, then drains and says whether
    /// all could finish. A second signal ends the process at once. SIGHUP calls `reload`.
    pub(crate) fn serve_until_stopped(self, reload: impl FnMut()) -> bool {
        if let Some(control) = &self.control {
            control.block_on(self.until_stop(reload));
        }
        self.drain()
    }

    /// Returns when draining is to begin.
    async fn until_stop(&self, reload: impl FnMut()) {
        // Without handlers the signals keep their usual effect: the process ends at once.
        let Ok(mut signals) = StopSignals::new() else { return pending().await };
        self.supervisor.ready();
        let signal = tokio::select! {
            signal = signals.next(reload) => Some(signal),
            () = self.readiness.stop_requested() => None,
        };
        self.supervisor.stopping();
        tokio::spawn(async move {
            // Who supervises us need not know of the request: its first signal is no hurry.
            if signal.is_none() {
                signals.next(|| ()).await;
            }
            signals.next(|| ()).await;
            std::process::exit(1);
        });
        let delay = self.engine.config().proxy.shutdown_delay;
        if signal == Some(StopSignal::Terminate) && !delay.is_zero() {
            self.readiness.set(Readiness::Draining);
            info!(
                seconds = delay.as_secs_f64(),
                "serving on for a while: proxy.shutdown_delay_secs"
            );
            let _ = timeout(delay, self.readiness.stop_requested()).await;
        }
    }
}

/// No core dumps, also of what we start, and as many file descriptors as are allowed.
pub(crate) fn harden() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    forbid_dumps();
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let files = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files });
}

/// Lets only root dump or read the memory of this process, which holds tokens.
pub(crate) fn forbid_dumps() {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

/// Keeps the signals that end a process by default, but ask nothing of a server, from ending this
/// one. A handler stays installed for the rest of the process.
pub(super) fn survive_signals() -> io::Result<()> {
    let ignored = [
        SignalKind::hangup(),
        SignalKind::user_defined1(),
        SignalKind::user_defined2(),
        SignalKind::alarm(),
        SignalKind::io(),
    ];
    ignored.into_iter().try_for_each(|kind| signal(kind).map(drop))
}

/// The signals that ask a server to stop, and the one that asks it to reload.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

/// Returns on the first signal to stop.
pub(super) async fn stop_signal() {
    match StopSignals::new() {
        Ok(mut signals) => drop(signals.next(|| ()).await),
        Err(_) => pending().await,
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum StopSignal {
    /// By a program that supervises this one.
    Terminate,
    /// By a person, who waits.
    Interrupt,
}

impl StopSignals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The next signal to stop; calls `reload` for each SIGHUP before it.
    async fn next(&mut self, mut reload: impl FnMut()) -> StopSignal {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return StopSignal::Terminate,
                _ = self.interrupt.recv() => return StopSignal::Interrupt,
                _ = self.hangup.recv() => reload(),
            }
        }
    }
}
