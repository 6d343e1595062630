//! Tells hooks what happens to grants and tokens: signed webhooks and local commands.
//!
//! An event is noted without blocking, written down as one message per hook, and only then sent,
//! until it is taken or given up: at least once, whoever is killed in between. All of it runs on
//! the control runtime with a bound on everything, so that a receiver that is slow, hostile or gone
//! delays neither a request nor a refresh. It knows neither tokens nor the store; what it needs
//! to make a link for reconnecting an account it is handed.

mod address;
mod command;
mod intake;
mod message;
pub mod outbox;
mod run;
mod schedule;
mod sign;
mod webhook;

pub use message::{Message, rfc3339};

use crate::{
    clock::Clock,
    config::{self, Config},
    https,
    id::AccountId,
    metrics::Metrics,
    secret::Secret,
};
pub use intake::Intake;
use outbox::Outbox;
use run::Runner;
use rustls::ClientConfig;
use std::{
    fmt,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    time::Duration,
};
use tokio::{runtime::Handle, sync::watch, task::JoinHandle};
use webhook::Webhook;

/// So much is kept of why a message was not taken: it is written down with the message.
const WHY_MAX_CHARS: usize = 500;

/// Makes a link by which the account can be connected again. None if there can be no such link.
pub type Reconnect =
    Arc<dyn Fn(AccountId) -> Pin<Box<dyn Future<Output = Option<Secret>> + Send>> + Send + Sync>;

/// What hooks stand on.
pub struct Surroundings {
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Makes links for reconnecting.
    pub reconnect: Option<Reconnect>,
    /// Where everything runs.
    pub control: Handle,
}

/// The running hooks; they stop when this is dropped.
#[derive(Debug)]
pub struct Hooks {
    pub(crate) intake: Arc<Intake>,
    stop: watch::Sender<bool>,
    runner: JoinHandle<()>,
}

impl Hooks {
    /// Takes over what waits in the outbox. None if no hook is
    /// configured.
    ///
    /// If the outbox cannot be used, messages wait in memory, which the log tells: hooks are no
    /// reason for requests to fail.
    ///
    /// # Errors
    /// When no TLS client can be made.
    pub fn start(config: &Config, with: Surroundings) -> Result<Option<Self>, https::Error> {
        if config.hooks.is_empty() {
            return Ok(None);
        }
        let tls = https::client_config(config.other_roots(), false)?;
        let targets = config.hooks.iter().map(|hook| Target::new(hook, &tls));
        let targets = targets.collect::<Result<Vec<_>, _>>()?;
        let outbox = directory(&config.store).and_then(|path| match Outbox::open(&path) {
            Ok(outbox) => Some(Arc::new(outbox)),
            Err(error) => {
                let error = crate::error_chain::chain(&error);
                tracing::error!(error, "messages to hooks are kept in memory only");
                None
            }
        });
        let wanted: Vec<_> = config.hooks.iter().flat_map(|hook| hook.events.clone()).collect();
        let max = config.outbox.messages_max;
        let intake = Arc::new(Intake::new(max, wanted, with.metrics.clone()));
        let stop = watch::Sender::new(false);
        let control = with.control.clone();
        let runner = Runner::new(config, targets, outbox, intake.clone(), with);
        let runner = control.spawn(runner.run(stop.subscribe()));
        Ok(Some(Self { intake, stop, runner }))
    }

    /// Writes down what was told until now and waits for the deliveries under way; without an
    /// outbox on disk, tries what waits once more. The caller sets the deadline.
    pub async fn finish(&mut self) {
        self.stop.send_replace(true);
        let _ = (&mut self.runner).await;
    }
}

impl Drop for Hooks {
    fn drop(&mut self) {
        self.runner.abort();
    }
}

/// Where the outbox of `store` is; none if it outlives nothing.
#[must_use]
pub fn directory(store: &config::Store) -> Option<PathBuf> {
    store.kind.seals().then(|| Path::new(&store.path).join("outbox"))
}

/// Tries once to deliver `message` to `hook`, for `adsproxy hooks test`. Returns what a command
/// printed.
///
/// # Errors
/// Why it failed.
pub async fn attempt(
    hook: &config::Hook,
    tls: &ClientConfig,
    message: &Message,
    now: u64,
) -> Result<Vec<u8>, Failed> {
    let target = Target::new(hook, tls).map_err(|error| Failed::new(error.to_string()))?;
    target.deliver(message, None, now).await
}

/// Why a message was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// In words; names neither the URL nor anything that the receiver said.
    pub why: String,
    /// What a command printed, its beginning.
    pub output: Vec<u8>,
    /// When the receiver wants to be asked again.
    pub(crate) retry_after: Option<Duration>,
    /// Never again.
    pub(crate) is_final: bool,
}

impl Failed {
    fn new(mut why: String) -> Self {
        // Libraries quote what the receiver sent, such as every name in its certificate.
        if let Some((end, _)) = why.char_indices().nth(WHY_MAX_CHARS) {
            why.truncate(end);
            why.push('…');
        }
        Self { why, output: Vec::new(), retry_after: None, is_final: false }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl std::error::Error for Failed {}

/// One configured hook, ready for use.
#[derive(Debug)]
struct Target {
    config: config::Hook,
    webhook: Option<Webhook>,
}

impl Target {
    fn new(hook: &config::Hook, tls: &ClientConfig) -> Result<Self, https::Error> {
        let webhook = match &hook.target {
            config::HookTarget::Webhook(webhook) => Webhook::new(webhook, tls)?,
            config::HookTarget::Command(_) => None,
        };
        Ok(Self { config: hook.clone(), webhook })
    }

    async fn deliver(
        &self,
        message: &Message,
        reconnect_url: Option<&Secret>,
        now: u64,
    ) -> Result<Vec<u8>, Failed> {
        let body = message.body(reconnect_url);
        let timeout = self.config.timeout;
        match (&self.webhook, &self.config.target) {
            (Some(webhook), _) => {
                webhook.deliver(&message.id, body, now, timeout).await.map(|()| Vec::new())
            }
            (None, config::HookTarget::Command(line)) => {
                command::deliver(line, &message.kind, body, timeout).await
            }
            (None, config::HookTarget::Webhook(_)) => {
                Err(Failed::new("its url cannot be used".to_owned()))
            }
        }
    }
}
