//! Reports changes of grants and tokens to hooks: signed webhooks and local commands.
//!
//! An event is queued without blocking, written to the store as one message per hook, and only then
//! sent, until it is taken or given up: at least once, whichever process is killed in between. All
//! of it runs on the control runtime with a bound on everything, so that a receiver that is slow,
//! hostile or gone delays neither a request nor a refresh. It knows no tokens; what it needs to make
//! a link for reconnecting an account it is handed.

mod address;
mod command;
mod message;
pub mod outbox;
mod run;
mod schedule;
mod sign;
mod webhook;

pub use message::{Message, rfc3339};
pub use outbox::Outbox;

use crate::{
    clock::Clock,
    config::{self, Config, HookTarget},
    https,
    id::AccountId,
    metrics::Metrics,
    secret::Secret,
    store::Store,
};
use run::Runner;
use rustls::ClientConfig;
use std::{pin::Pin, sync::Arc, time::Duration};
use tokio::{
    runtime::Handle,
    sync::watch,
    task::{JoinHandle, JoinSet},
};
use webhook::WebhookClient;

/// So much is kept of why a message was not taken: it is written down with the message.
const WHY_MAX_CHARS: usize = 500;

/// Makes a link by which the account can be connected again. None if there can be no such link.
pub type Reconnect =
    Arc<dyn Fn(AccountId) -> Pin<Box<dyn Future<Output = Option<Secret>> + Send>> + Send + Sync>;

/// What hooks work with.
pub struct HookContext {
    pub clock: Arc<dyn Clock>,
    pub metrics: Arc<Metrics>,
    pub store: Store,
    pub reconnect: Reconnect,
    /// Where everything runs.
    pub control: Handle,
}

/// The running hooks; they stop when this is dropped.
#[derive(Debug)]
pub struct Hooks {
    /// Where events are reported to them.
    pub(crate) outbox: Arc<Outbox>,
    stop: watch::Sender<bool>,
    runner: JoinHandle<()>,
}

impl Hooks {
    /// Delivers what waits in the outbox and what is reported from now on. None if no hook is
    /// configured.
    ///
    /// # Errors
    /// When no TLS client can be made.
    pub fn start(config: &Config, with: HookContext) -> Result<Option<Self>, https::Error> {
        if config.hooks.is_empty() {
            return Ok(None);
        }
        let tls = https::client_config(config.other_roots(), false)?;
        let destinations = config.hooks.iter().map(|hook| Destination::new(hook, &tls));
        let destinations = destinations.map(|one| one.map(Arc::new)).collect::<Result<_, _>>()?;
        let outbox = Arc::new(Outbox::new(config, &with));
        let control = with.control.clone();
        let runner = Runner {
            destinations,
            outbox: outbox.clone(),
            is_in_memory: !config.store.kind.seals(),
            with: Arc::new(with),
            deliveries: JoinSet::new(),
        };
        let stop = watch::Sender::new(false);
        let runner = control.spawn(runner.run(stop.subscribe()));
        Ok(Some(Self { outbox, stop, runner }))
    }

    /// Writes down what was reported until now and waits for the deliveries under way; without an
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

/// Tries once to deliver `message` to `hook`, for `adsproxy hooks test`. Returns what a command
/// printed.
pub async fn attempt(
    hook: &config::HookConfig,
    tls: &ClientConfig,
    message: &Message,
    now: u64,
) -> Result<Vec<u8>, DeliveryError> {
    let destination = Destination::new(hook, tls);
    let destination = destination.map_err(|error| DeliveryError::new(error.to_string()))?;
    destination.deliver(message, None, now).await
}

/// Why a message was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct DeliveryError {
    /// In words; names neither the URL nor anything that the receiver said.
    pub why: String,
    /// What a command printed, its beginning.
    pub output: Vec<u8>,
    /// When the receiver wants to be asked again.
    pub(crate) retry_after: Option<Duration>,
    /// Never again.
    pub(crate) is_final: bool,
}

impl DeliveryError {
    fn new(mut why: String) -> Self {
        // Libraries quote what the receiver sent, such as every name in its certificate.
        if let Some((end, _)) = why.char_indices().nth(WHY_MAX_CHARS) {
            why.truncate(end);
            why.push('…');
        }
        Self { why, output: Vec::new(), retry_after: None, is_final: false }
    }
}

/// One configured hook, ready for use.
enum Destination {
    Webhook(WebhookClient, Duration),
    Command(Vec<String>, Duration),
}

impl Destination {
    fn new(hook: &config::HookConfig, tls: &ClientConfig) -> Result<Self, https::Error> {
        Ok(match &hook.target {
            HookTarget::Webhook(webhook) => {
                let client = WebhookClient::new(webhook, tls, address::system())?;
                Self::Webhook(client, hook.timeout)
            }
            HookTarget::Command(line) => Self::Command(line.clone(), hook.timeout),
        })
    }

    async fn deliver(
        &self,
        message: &Message,
        reconnect_url: Option<&Secret>,
        now: u64,
    ) -> Result<Vec<u8>, DeliveryError> {
        let body = message.body(reconnect_url);
        match self {
            Self::Webhook(client, timeout) => {
                client.deliver(&message.id, body, now, *timeout).await.map(|()| Vec::new())
            }
            Self::Command(line, timeout) => {
                command::deliver(line, &message.kind, body, *timeout).await
            }
        }
    }
}
