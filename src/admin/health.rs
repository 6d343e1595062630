//! Says whether the process lives, has started, and wants requests.
//!
//! Readiness never depends on Amazon or on one account: a sidecar that is not ready takes its
//! whole pod out of service.

use super::{
    Sources,
    respond::{Reply, respond, text},
};
use http::StatusCode;
use std::{
    fmt,
    sync::atomic::{AtomicU8, Ordering},
};

const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Where the process is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// Not listening yet.
    Starting,
    /// Serving.
    Ready,
    /// Finishing what is under way.
    Draining,
}

/// A named condition of readiness.
pub struct Check {
    name: &'static str,
    holds: Box<dyn Fn() -> bool + Send + Sync>,
    /// Whether requests are unwanted while it does not hold.
    is_vital: bool,
}

impl Check {
    /// A check that asks `holds`; it must answer at once.
    pub fn new(name: &'static str, holds: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self { name, holds: Box::new(holds), is_vital: true }
    }

    /// As [`Check::new`], for what a person should know and requests need not care about.
    pub fn warning(name: &'static str, holds: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self { is_vital: false, ..Self::new(name, holds) }
    }
}

/// The state behind `/livez`, `/readyz` and `/startupz`.
pub struct Health {
    readiness: AtomicU8,
    checks: Vec<Check>,
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health").field("readiness", &self.readiness()).finish_non_exhaustive()
    }
}

impl Health {
    /// Begins as [`Readiness::Starting`].
    #[must_use]
    pub fn new(checks: Vec<Check>) -> Self {
        Self { readiness: AtomicU8::new(Readiness::Starting as u8), checks }
    }

    /// Moves on. Nothing goes back to [`Readiness::Starting`], and draining is the end.
    pub fn set(&self, readiness: Readiness) {
        self.readiness.fetch_max(readiness as u8, Ordering::SeqCst);
    }

    /// Where the process is.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        match self.readiness.load(Ordering::SeqCst) {
            0 => Readiness::Starting,
            1 => Readiness::Ready,
            _ => Readiness::Draining,
        }
    }

    /// Says whether start-up is over.
    #[must_use]
    pub fn has_started(&self) -> bool {
        self.readiness() != Readiness::Starting
    }

    /// Says whether requests are wanted, and lists what that depends on, a line each. Reasons
    /// stay in the log: anybody may ask.
    #[must_use]
    pub fn report(&self) -> (bool, String) {
        let readiness = self.readiness();
        let serving = match readiness {
            Readiness::Starting => (false, "serving (starting)"),
            Readiness::Ready => (true, "serving"),
            Readiness::Draining => (false, "serving (draining)"),
        };
        let serving = (serving.0, serving.1, true);
        let checks = self.checks.iter();
        let checks = checks.map(|check| ((check.holds)(), check.name, check.is_vital));
        let (mut ready, mut text) = (true, String::new());
        for (holds, name, is_vital) in std::iter::once(serving).chain(checks) {
            ready &= holds || !is_vital;
            let (mark, word) = match (holds, is_vital) {
                (true, _) => ("+", "ok"),
                (false, true) => ("-", "failed"),
                (false, false) => ("!", "degraded"),
            };
            text.push_str(&format!("[{mark}] {name} {word}\n"));
        }
        (ready, text)
    }
}

pub(super) fn live(_: &Sources, _query: &str) -> Reply {
    state(true)
}

pub(super) fn started(sources: &Sources, _query: &str) -> Reply {
    state(sources.health.has_started())
}

pub(super) fn ready(sources: &Sources, query: &str) -> Reply {
    let (ready, report) = sources.health.report();
    let is_verbose = query.split('&').any(|part| part.split('=').next() == Some("verbose"));
    if !is_verbose {
        return state(ready);
    }
    let mut response = text(report);
    *response.status_mut() = state_code(ready);
    response
}

pub(super) fn metrics(sources: &Sources, _query: &str) -> Reply {
    respond(StatusCode::OK, PROMETHEUS, sources.metrics.render(&*sources.accounts))
}

fn state_code(good: bool) -> StatusCode {
    if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

fn state(good: bool) -> Reply {
    let mut response = text(if good { "ok\n" } else { "not ok\n" });
    *response.status_mut() = state_code(good);
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, atomic::AtomicBool};

    #[test]
    fn ready_means_started_not_draining_and_every_check_holds() {
        let store = Arc::new(AtomicBool::new(true));
        let asked = Arc::clone(&store);
        let check = Check::new("store", move || asked.load(Ordering::SeqCst));
        let health = Health::new(vec![check]);
        assert!(!health.report().0 && !health.has_started());
        health.set(Readiness::Ready);
        assert_eq!(health.report(), (true, "[+] serving ok\n[+] store ok\n".into()));
        store.store(false, Ordering::SeqCst);
        assert_eq!(health.report(), (false, "[+] serving ok\n[-] store failed\n".into()));
        store.store(true, Ordering::SeqCst);
        health.set(Readiness::Draining);
        assert!(!health.report().0 && health.has_started());
    }

    #[test]
    fn a_warning_is_told_and_keeps_no_request_away() {
        let health = Health::new(vec![Check::warning("store", || false)]);
        health.set(Readiness::Ready);
        assert_eq!(health.report(), (true, "[+] serving ok\n[!] store degraded\n".into()));
    }

    #[test]
    fn a_draining_process_does_not_become_ready_again() {
        let health = Health::new(vec![]);
        health.set(Readiness::Draining);
        health.set(Readiness::Ready);
        assert_eq!(health.readiness(), Readiness::Draining);
    }
}
