//! Reads the configuration again, by a signal, by the API, or because a file has changed, and puts
//! it in force: all of it or nothing.
//!
//! What can fail happens first, and one reload at a time. What needs a restart is named and stays as
//! it is.

use super::{App, supervisor::Supervisor};
use crate::{
    admin::reload::{Reload, ReloadReport, Reloading},
    audit::{Action, Actor, Entry},
    callers::sessions::Sessions,
    config::load::{Environment, Loaded, Options, ReadFiles, load_noting},
    engine::Engine,
    error_chain::chain,
    listen::tls::ServerTls,
    log,
    proxy::DataPlane,
};
use parking_lot::Mutex as SyncMutex;
use std::{mem, sync::Arc, thread, time::Duration};
use tokio::{
    sync::Mutex,
    task::{JoinHandle, spawn_blocking},
    time::sleep,
};
use tracing::{error, info, warn};

/// Between two looks at the files; two that agree make a change that is complete.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Attempts to read files that nothing changes meanwhile, and the pause between them.
const READ_ATTEMPTS: usize = 5;
const READ_PAUSE: Duration = Duration::from_millis(100);

/// Cheap to clone.
#[derive(Clone)]
pub(super) struct Reloader(Arc<ReloaderParts>);

struct ReloaderParts {
    engine: Engine,
    sessions: Sessions,
    tls: Option<Arc<ServerTls>>,
    shared: Arc<DataPlane>,
    supervisor: Supervisor,
    /// Without a copy of the environment, which may hold secrets.
    options: Options,
    state: Mutex<ReloadState>,
    restart_required: SyncMutex<Vec<String>>,
}

struct ReloadState {
    running: Loaded,
    /// As they were read last, whether that brought a configuration or not.
    files: ReadFiles,
    /// Why that was not put in force.
    failure: Option<String>,
}

impl Reloader {
    pub(super) fn new(app: &App, running: Loaded, options: Options) -> Self {
        let files = running.files.clone();
        app.engine.with.metrics.config_reloaded(None, app.engine.clock().now().unix());
        Self(Arc::new(ReloaderParts {
            engine: app.engine.clone(),
            sessions: app.sessions.clone(),
            tls: app.tls.clone(),
            shared: app.shared.clone(),
            supervisor: app.supervisor.clone(),
            options: Options { environment: Environment::default(), ..options },
            state: Mutex::new(ReloadState { running, files, failure: None }),
            restart_required: SyncMutex::default(),
        }))
    }

    /// Reloads in a task of its own, because of a signal.
    pub(super) fn on_signal(&self) {
        drop(self.spawn(Entry::new(Actor::Server, Action::ConfigReload).about("signal")));
    }

    fn spawn(&self, entry: Entry) -> JoinHandle<Result<ReloadReport, String>> {
        let this = self.clone();
        self.0.engine.with.control.spawn(async move {
            let mut state = this.0.state.lock().await;
            this.reload(&mut state, entry).await
        })
    }

    /// Reloads when files have changed, until dropped.
    pub(super) async fn watch(self) {
        let mut seen = self.0.state.lock().await.files.clone();
        loop {
            sleep(LOOK_INTERVAL).await;
            let mut state = self.0.state.lock().await;
            let files = state.files.clone();
            let Ok(found) = spawn_blocking(move || files.look()).await else { continue };
            let is_settled = found == mem::replace(&mut seen, found.clone());
            // What failed is tried on: a directory's mode, for one, shows in no file.
            if is_settled && (found != state.files || state.failure.is_some()) {
                let entry = Entry::new(Actor::Server, Action::ConfigReload).about("file");
                let _ = self.reload(&mut state, entry).await;
            }
        }
    }

    /// Reads, puts in force, and reports. What failed before in the same way is not reported again,
    /// unless one was asked for.
    async fn reload(&self, state: &mut ReloadState, entry: Entry) -> Result<ReloadReport, String> {
        let before = (state.files.clone(), state.failure.clone());
        let is_watch = entry.is_about("file");
        // Another attempt each second at what has failed is nothing to report.
        let is_news = !(is_watch && state.failure.is_some());
        let reported = is_news.then(|| self.0.supervisor.reloading());
        let done = self.try_reload(state).await;
        if let Some(reported) = reported {
            reported.finish(done.is_ok());
        }
        state.failure = done.as_ref().err().cloned();
        if is_watch
            && state.failure.is_some()
            && before == (state.files.clone(), state.failure.clone())
        {
            return done;
        }
        let engine = &self.0.engine;
        engine.with.metrics.config_reloaded(Some(done.is_ok()), engine.clock().now().unix());
        let entry = match &done {
            Ok(report) => {
                info!(applied = report.applied.join(", "), "configuration reloaded");
                if !report.restart_required.is_empty() {
                    let changed = report.restart_required.join(", ");
                    warn!(changed, "restart to apply these keys");
                }
                entry
            }
            Err(error) => {
                error!(error, "configuration not reloaded: the old one stays in force");
                entry.failed("configuration_rejected")
            }
        };
        // A key that is revoked must end, whether that can be written down or not.
        let _ = engine.audit().write(entry).await;
        done
    }

    async fn try_reload(&self, state: &mut ReloadState) -> Result<ReloadReport, String> {
        let parts = &*self.0;
        let options = parts.options.clone();
        let read =
            spawn_blocking(move || read(options)).await.map_err(|error| error.to_string())?;
        state.files = read.1;
        let plan = state.running.plan(read.0?);
        let config = Arc::new(plan.loaded.config.clone());
        let engine = &parts.engine;
        let tls = match (&parts.tls, &config.listen.tls) {
            (Some(tls), Some(files)) => {
                let (tls, files) = (tls.clone(), files.clone());
                let loaded = spawn_blocking(move || tls.prepare(&files)).await;
                Some(loaded.map_err(|error| error.to_string())?.map_err(|error| chain(&error))?)
            }
            _ => None,
        };
        let stored = engine.store().versions().await;
        let stored = stored.map_err(|error| format!("the store: {}", chain(&error)))?;
        let (metrics, control) = (&engine.with.metrics, &engine.with.control);
        let callers = parts.sessions.callers().prepare(&config, metrics, control);
        let callers = callers.map_err(|error| chain(&error))?;
        // From here on nothing fails. First who is not to call any more.
        parts.sessions.reconfigure(callers).await;
        let settings = parts.shared.settings.load().next(&config);
        parts.shared.settings.store(Arc::new(settings));
        if let Some((tls, prepared)) = parts.tls.as_ref().zip(tls) {
            tls.install(prepared);
        }
        log::set_filter(&config.log);
        engine.enroller.reconfigure(config, stored).await;
        for warning in &plan.loaded.warnings {
            warn!("{}", warning.message);
        }
        let report = ReloadReport {
            applied: plan.applied.into_iter().collect(),
            restart_required: plan.restart.into_iter().collect(),
        };
        parts.restart_required.lock().clone_from(&report.restart_required);
        state.running = plan.loaded;
        Ok(report)
    }
}

impl Reload for Reloader {
    fn reload(&self, entry: Entry) -> Reloading {
        let task = self.spawn(entry);
        Box::pin(async move { task.await.unwrap_or_else(|error| Err(error.to_string())) })
    }

    fn restart_required(&self) -> Vec<String> {
        self.0.restart_required.lock().clone()
    }
}

/// Reads files that nothing changes meanwhile: half of a swap would go together with nothing.
fn read(options: Options) -> (Result<Loaded, String>, ReadFiles) {
    let options = Options { environment: Environment::of_process(), ..options };
    let mut attempts = 1;
    loop {
        let mut files = ReadFiles::default();
        let loaded = load_noting(&options, &mut files).map_err(|error| error.to_string());
        if files.look() == files {
            return (loaded, files);
        }
        if attempts == READ_ATTEMPTS {
            return (Err("the files change while they are read".to_owned()), files);
        }
        attempts += 1;
        thread::sleep(READ_PAUSE);
    }
}

impl App {
    /// Lets signals, the API and changed files reload the configuration that was `loaded` from
    /// `options`.
    pub(super) fn allow_reload(&mut self, loaded: Loaded, options: Options) -> Reloader {
        let reloader = Reloader::new(self, loaded, options);
        let _ = self.readiness.reload.set(Arc::new(reloader.clone()));
        self.watching.spawn_on(reloader.clone().watch(), &self.engine.with.control);
        reloader
    }
}
