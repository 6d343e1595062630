//! The check of the audit log that a page asks for: the one of `adsproxy audit verify`, one at a time,
//! beside all requests.

use super::redirect;
use crate::{
    admin::{AdminCall, respond::Handled},
    audit::{self, AuditReport},
    error_chain::chain,
    hooks::rfc3339,
};
use parking_lot::Mutex;
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;

const AUDIT: &str = "/dashboard/audit";
/// A check of a small log has ended by the time its page is shown.
const WAIT: Duration = Duration::from_secs(3);
/// Findings that are shown.
const FINDINGS_MAX: usize = 20;

/// The check of the log that is under way, and the last one.
#[derive(Default)]
pub(super) struct LogChecks(Mutex<LogChecksState>);

#[derive(Clone, Default)]
pub(super) struct LogChecksState {
    /// Another number whenever one begins or ends.
    pub(super) version: u64,
    pub(super) is_running: bool,
    pub(super) last: Option<LogVerdict>,
}

/// What a check has found, in words.
#[derive(Clone)]
pub(super) struct LogVerdict {
    pub(super) at: String,
    pub(super) class: &'static str,
    pub(super) text: String,
    /// The first findings, and notes.
    pub(super) lines: Vec<String>,
}

/// A check that is under way; it has ended when this is dropped.
struct RunningCheck(Arc<LogChecks>);

impl LogChecks {
    pub(super) fn state(&self) -> LogChecksState {
        self.0.lock().clone()
    }

    pub(super) fn version(&self) -> u64 {
        self.0.lock().version
    }

    /// Begins a check, unless one is under way.
    fn begin(self: &Arc<Self>) -> Option<RunningCheck> {
        let mut state = self.0.lock();
        if state.is_running {
            return None;
        }
        (state.is_running, state.version) = (true, state.version + 1);
        Some(RunningCheck(self.clone()))
    }
}

impl RunningCheck {
    fn end(self, verdict: LogVerdict) {
        self.0.0.lock().last = Some(verdict);
    }
}

impl Drop for RunningCheck {
    fn drop(&mut self) {
        let mut state = self.0.0.lock();
        (state.is_running, state.version) = (false, state.version + 1);
    }
}

/// Begins a check of the audit log. The page shows its end.
pub(in crate::admin) async fn verify(call: AdminCall) -> Handled {
    let engine = &call.logins.engine;
    if let Some(running) = call.admin.0.live.checks.begin() {
        let (audit, clock) = (engine.audit().clone(), engine.clock().clone());
        let check = move || running.end(LogVerdict::of(audit.verify(), clock.now().unix()));
        let check = tokio::task::spawn_blocking(check);
        // It goes on by itself.
        let _ = timeout(WAIT, check).await;
    }
    Ok(redirect(AUDIT))
}

impl LogVerdict {
    fn of(checked: Result<AuditReport, audit::Error>, now: u64) -> Self {
        let (class, text, lines) = match checked {
            Err(error) => ("bad", format!("It cannot be checked: {}.", chain(&error)), Vec::new()),
            Ok(report) if report.files == 0 && report.is_clean() => {
                ("idle", "There is no entry yet.".to_owned(), Vec::new())
            }
            Ok(report) => {
                let AuditReport { entries, files, findings, notes, .. } = &report;
                let (class, text) = match (report.is_clean(), findings.len()) {
                    (true, _) => ("good", format!("Clean. Entries: {entries}, files: {files}.")),
                    (false, count) => {
                        let what = "Changed since adsproxy wrote it";
                        ("bad", format!("{what}. Findings: {count}, entries: {entries}."))
                    }
                };
                let shown = findings.iter().take(FINDINGS_MAX).map(ToString::to_string);
                let mut lines: Vec<String> = shown.collect();
                if findings.len() > lines.len() {
                    lines.push(format!("and {} more", findings.len() - lines.len()));
                }
                lines.extend(notes.iter().map(|note| format!("note: {note}")));
                (class, text, lines)
            }
        };
        Self { at: rfc3339(now), class, text, lines }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_check_runs_at_a_time_and_one_that_breaks_off_is_over() {
        let checks = Arc::<LogChecks>::default();
        let running = checks.begin().expect("the first");
        assert!(checks.begin().is_none() && checks.state().is_running);
        drop(running);
        assert!(!checks.state().is_running && checks.state().last.is_none());
        let running = checks.begin().expect("the next");
        running.end(LogVerdict::of(Ok(AuditReport::default()), 0));
        let state = checks.state();
        assert_eq!((state.is_running, state.version), (false, 4));
        assert_eq!(state.last.expect("a verdict").text, "There is no entry yet.");
    }
}
