//! Whether the process lives, has started, and wants requests.
//!
//! Readiness never depends on Amazon or on one account: a sidecar that is not ready takes its
//! whole pod out of service.

use super::{
    AdminCall,
    reload::Reload,
    respond::{Handled, Reply, reply, text},
    shape::Shape,
};
use http::StatusCode;
use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering::Relaxed},
};
use tokio::sync::{Notify, watch};

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
pub struct Health {
    readiness: watch::Sender<Readiness>,
    is_hung: AtomicBool,
    /// How the process reads its configuration again, if it does.
    pub reload: OnceLock<Arc<dyn Reload>>,
    stop: Notify,
}

impl Health {
    /// Moves on. Nothing goes back to [`Readiness::Starting`], and draining is the end.
    pub fn set(&self, readiness: Readiness) {
        self.readiness.send_modify(|now| *now = readiness.max(*now));
    }

    /// Where the process is in its life now.
    pub(super) fn readiness(&self) -> Readiness {
        *self.readiness.borrow()
    }

    /// Returns once the process drains. Cancel safe.
    #[cfg(feature = "dashboard")]
    pub(super) async fn draining(&self) {
        let mut readiness = self.readiness.subscribe();
        // The sender is this very value.
        let _ = readiness.wait_for(|now| *now == Readiness::Draining).await;
    }

    /// Whether a worker of the data plane hangs, from now on.
    pub fn set_hung(&self, is_hung: bool) {
        self.is_hung.store(is_hung, Relaxed);
    }

    /// Whether a worker of the data plane hangs.
    pub fn is_hung(&self) -> bool {
        self.is_hung.load(Relaxed)
    }

    /// Asks the process to finish what is under way and to end.
    pub(super) fn request_stop(&self) {
        self.stop.notify_one();
    }

    /// Returns once the process was asked to end. Cancel safe.
    pub async fn stop_requested(&self) {
        self.stop.notified().await;
    }

    /// A line for each check. Reasons stay in the log: any program may ask. A store that does not
    /// take every record fails no request.
    /// Whose record it is is not said, so that it is left out (none) for who may see those of some only.
    pub(super) fn report(&self, is_saved: Option<bool>) -> String {
        let serving = match self.readiness() {
            Readiness::Starting => "[-] serving (starting) failed",
            Readiness::Ready => "[+] serving ok",
            Readiness::Draining => "[-] serving (draining) failed",
        };
        let store = match is_saved {
            Some(true) => "[+] store ok\n",
            Some(false) => "[!] store degraded\n",
            None => "",
        };
        format!("{serving}\n{store}")
    }
}

pub(super) async fn live(call: AdminCall) -> Handled {
    Ok(state(!call.admin.0.health.is_hung()))
}

pub(super) async fn started(call: AdminCall) -> Handled {
    Ok(state(call.admin.0.health.readiness() != Readiness::Starting))
}

pub(super) async fn ready(call: AdminCall) -> Handled {
    let health = &call.admin.0.health;
    let mut response = state(health.readiness() == Readiness::Ready);
    if !call.query.all("verbose").is_empty() {
        let is_saved = || call.logins.engine.tokens().unsaved() == 0;
        let is_saved = call.may_count_all().then(is_saved);
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
        assert!(health.report(Some(true)).starts_with("[-] serving (starting) failed\n"));
        health.set(Readiness::Ready);
        assert_eq!(health.report(Some(true)), "[+] serving ok\n[+] store ok\n");
        assert_eq!(health.report(Some(false)), "[+] serving ok\n[!] store degraded\n");
        assert_eq!(health.report(None), "[+] serving ok\n", "a tenant's is no other's business");
        health.set(Readiness::Draining);
        health.set(Readiness::Ready);
        assert_eq!(health.readiness(), Readiness::Draining);
    }
}
