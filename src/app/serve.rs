//! `adsproxy serve`: a hardened process that runs until a signal, and reloads on another.

use super::App;
use crate::{
    config::{
        DEFAULT_APPLICATION,
        load::{Environment, Loaded, Options},
    },
    engine::Engine,
    log,
};
use std::{future::pending, io};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

/// Runs `serve`: hardens the process, starts, logs the warnings, and blocks until drained. SIGHUP
/// reads `options` again, with the environment of that moment: no copy of it, which may hold
/// secrets, is kept meanwhile.
pub fn serve(mut loaded: Loaded, mut options: Options) -> anyhow::Result<()> {
    options.environment = Environment::default();
    harden();
    let app = App::start(loaded.config.clone())?;
    for warning in &loaded.warnings {
        warn!("{}", warning.message);
    }
    let engine = app.engine.clone();
    let drained = app.serve_until_signal(move || {
        let options = Options { environment: Environment::of_process(), ..options.clone() };
        reload(&engine, &mut loaded, &options);
    });
    anyhow::ensure!(drained, "stopped before everything under way was finished");
    Ok(())
}

/// Applies what can be changed at run time, and names the rest.
fn reload(engine: &Engine, loaded: &mut Loaded, options: &Options) {
    let (newer, changed) = match loaded.reload(options) {
        Ok(reloaded) => reloaded,
        Err(error) => {
            return warn!(%error, "configuration not reloaded; run `adsproxy check-config`");
        }
    };
    log::set_filter(&newer.config.log);
    let replaced =
        engine.enroller.set_client_secrets(&newer.config).into_iter().map(|name| match name {
            DEFAULT_APPLICATION => "lwa.client_secret".to_owned(),
            name => format!("applications.{name}.client_secret"),
        });
    let replaced: Vec<_> = replaced.collect();
    let (applied, left): (Vec<_>, Vec<_>) =
        changed.into_iter().partition(|key| key == "log.filter" || replaced.contains(key));
    info!(applied = applied.join(", "), "configuration reloaded");
    if left.is_empty() {
        *loaded = newer;
    } else {
        // Compared again at the next signal.
        warn!(changed = left.join(", "), "restart to apply these keys");
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

/// Returns on SIGTERM or SIGINT; calls `reload` for each SIGHUP before that.
pub(super) async fn stop_signal(mut reload: impl FnMut()) {
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
