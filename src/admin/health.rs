//! Says whether the process lives, has started, and wants requests.
//!
//! Readiness never depends on Amazon or on one account: a sidecar that is not ready takes its
//! whole pod out of service.

use std::{
    fmt,
    sync::atomic::{AtomicU8, Ordering},
};

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
}

impl Check {
    /// A check that asks `holds`; it must answer at once.
    pub fn new(name: &'static str, holds: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self { name, holds: Box::new(holds) }
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
        let checks = self.checks.iter().map(|check| ((check.holds)(), check.name));
        let (mut ready, mut text) = (true, String::new());
        for (holds, name) in std::iter::once(serving).chain(checks) {
            ready &= holds;
            text.push_str(if holds { "[+] " } else { "[-] " });
            text.push_str(name);
            text.push_str(if holds { " ok\n" } else { " failed\n" });
        }
        (ready, text)
    }
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
    fn a_draining_process_does_not_become_ready_again() {
        let health = Health::new(vec![]);
        health.set(Readiness::Draining);
        health.set(Readiness::Ready);
        assert_eq!(health.readiness(), Readiness::Draining);
    }
}
