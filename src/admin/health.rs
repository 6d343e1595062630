//! Whether the process lives, has started, and wants requests.
//!
//! Readiness never depends on Amazon or on one account: a sidecar that is not ready takes its
//! whole pod out of service.

use super::{
    AdminCall,
    respond::{Handled, Reply, reply, text},
    shape::Shape,
};
use http::StatusCode;
use parking_lot::Mutex;

/// Not every check passes with a 200.
pub(super) fn shape() -> Shape {
    Shape::text().or(503, "Not now, or not any more.").query(&[("verbose", "Lists the checks.")])
}

const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Where the process is in its life.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Readiness {
    /// Not listening yet.
    #[default]
    Starting,
    Ready,
    /// Finishing what is under way.
    Draining,
}

/// The readiness of a process, starting at first.
#[derive(Default)]
pub struct Health(Mutex<Readiness>);

impl Health {
    /// Moves on. Nothing goes back to [`Readiness::Starting`], and draining is the end.
    pub fn set(&self, readiness: Readiness) {
        let mut now = self.0.lock();
        *now = readiness.max(*now);
    }

    /// A line for each check. Reasons stay in the log: any program may ask. A store that does not
    /// take every record fails no request.
    fn report(&self, is_saved: bool) -> String {
        let serving = match *self.0.lock() {
            Readiness::Starting => "[-] serving (starting) failed",
            Readiness::Ready => "[+] serving ok",
            Readiness::Draining => "[-] serving (draining) failed",
        };
        let store = if is_saved { "[+] store ok" } else { "[!] store degraded" };
        format!("{serving}\n{store}\n")
    }
}

pub(super) async fn live(_: AdminCall) -> Handled {
    Ok(state(true))
}

pub(super) async fn started(call: AdminCall) -> Handled {
    Ok(state(*call.admin.0.health.0.lock() != Readiness::Starting))
}

pub(super) async fn ready(call: AdminCall) -> Handled {
    let health = &call.admin.0.health;
    let mut response = state(*health.0.lock() == Readiness::Ready);
    if !call.query.all("verbose").is_empty() {
        let is_saved = call.logins.engine.tokens().unsaved() == 0;
        *response.body_mut() = health.report(is_saved).into();
    }
    Ok(response)
}

pub(super) async fn metrics(call: AdminCall) -> Handled {
    let engine = &call.logins.engine;
    let accounts = call.may_count_all().then(|| engine.accounts());
    let page = engine.with.metrics.render(accounts.as_deref());
    Ok(reply(StatusCode::OK, PROMETHEUS, page))
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
        let health = Health::default();
        assert!(health.report(true).starts_with("[-] serving (starting) failed\n"));
        health.set(Readiness::Ready);
        assert_eq!(health.report(true), "[+] serving ok\n[+] store ok\n");
        assert_eq!(health.report(false), "[+] serving ok\n[!] store degraded\n");
        health.set(Readiness::Draining);
        health.set(Readiness::Ready);
        assert_eq!(*health.0.lock(), Readiness::Draining);
    }
}
