//! Whether the process lives, has started, and wants requests.
//!
//! Readiness never depends on Amazon or on one account: a sidecar that is not ready takes its
//! whole pod out of service.

use super::{
    AdminCall,
    respond::{Handled, Reply, reply, text},
};
use http::StatusCode;
use parking_lot::Mutex;

const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Where the process is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Readiness {
    /// Not listening yet.
    Starting,
    Ready,
    /// Finishing what is under way.
    Draining,
}

/// What an operator should know and requests need not care about; it must return at once.
pub type HealthCheck = Box<dyn Fn() -> bool + Send + Sync>;

pub struct Health {
    readiness: Mutex<Readiness>,
    checks: Vec<(&'static str, HealthCheck)>,
}

impl Health {
    pub fn new(checks: Vec<(&'static str, HealthCheck)>) -> Self {
        Self { readiness: Mutex::new(Readiness::Starting), checks }
    }

    /// Moves on. Nothing goes back to [`Readiness::Starting`], and draining is the end.
    pub fn set(&self, readiness: Readiness) {
        let mut now = self.readiness.lock();
        *now = readiness.max(*now);
    }

    /// A line for each check. Reasons stay in the log: any program may ask.
    fn report(&self) -> String {
        let mut report = match *self.readiness.lock() {
            Readiness::Starting => "[-] serving (starting) failed\n",
            Readiness::Ready => "[+] serving ok\n",
            Readiness::Draining => "[-] serving (draining) failed\n",
        }
        .to_owned();
        for (name, holds) in &self.checks {
            let (mark, word) = if holds() { ("+", "ok") } else { ("!", "degraded") };
            report.push_str(&format!("[{mark}] {name} {word}\n"));
        }
        report
    }
}

pub(super) async fn live(_: AdminCall) -> Handled {
    Ok(state(true))
}

pub(super) async fn started(call: AdminCall) -> Handled {
    Ok(state(*call.admin.0.health.readiness.lock() != Readiness::Starting))
}

pub(super) async fn ready(call: AdminCall) -> Handled {
    let health = &call.admin.0.health;
    let mut response = state(*health.readiness.lock() == Readiness::Ready);
    if !call.query.all("verbose").is_empty() {
        *response.body_mut() = health.report().into();
    }
    Ok(response)
}

pub(super) async fn metrics(call: AdminCall) -> Handled {
    let engine = &call.logins.engine;
    Ok(reply(StatusCode::OK, PROMETHEUS, engine.metrics().render(&engine.accounts())))
}

fn state(good: bool) -> Reply {
    match good {
        true => text(StatusCode::OK, "ok\n"),
        false => text(StatusCode::SERVICE_UNAVAILABLE, "not ok\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_check_is_reported_and_a_draining_process_does_not_become_ready_again() {
        let health = Health::new(vec![("store", Box::new(|| false))]);
        assert!(health.report().starts_with("[-] serving (starting) failed\n"));
        health.set(Readiness::Ready);
        assert_eq!(health.report(), "[+] serving ok\n[!] store degraded\n");
        health.set(Readiness::Draining);
        health.set(Readiness::Ready);
        assert_eq!(*health.readiness.lock(), Readiness::Draining);
    }
}
