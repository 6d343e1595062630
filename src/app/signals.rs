//! What signals mean to a server: stop, reload, or nothing.

use std::{future::pending, io};
use tokio::signal::unix::{SignalKind, signal};

/// Keeps the signals that end a process by default, but ask nothing of a server, from ending this
/// one. A handler stays installed for the rest of the process.
///
/// # Errors
/// When a handler cannot be installed.
pub(super) fn survive() -> io::Result<()> {
    let ignored = [
        SignalKind::hangup(),
        SignalKind::user_defined1(),
        SignalKind::user_defined2(),
        SignalKind::alarm(),
        SignalKind::io(),
    ];
    ignored.into_iter().try_for_each(|kind| signal(kind).map(drop))
}

/// Returns on SIGTERM or SIGINT; calls `reload` for each SIGHUP before that.
pub(super) async fn stop(mut reload: impl FnMut()) {
    let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()];
    // Without handlers the signals keep their usual effect: the process ends at once.
    let [Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup)] = kinds.map(signal) else {
        return pending().await;
    };
    loop {
        tokio::select! {
            _ = terminate.recv() => return,
            _ = interrupt.recv() => return,
            _ = hangup.recv() => reload(),
        }
    }
}
