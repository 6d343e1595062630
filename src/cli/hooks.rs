//! `adsproxy hooks`: lists what waits and what was given up, queues it again, sends a test.

use super::{
    Context, note, print,
    table::{configured, plain, table_of},
};
use crate::{
    audit::{Action, Actor, Audit, Entry},
    clock::{Clock, SystemClock},
    config::{Config, HookTarget},
    hooks::{self, Message, outbox},
    https,
    store::Store,
};
use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use std::sync::Arc;

#[derive(Debug, clap::Subcommand)]
pub(super) enum HookVerb {
    /// List the messages that wait for a hook and those that were given up
    List {
        /// Only those that were given up
        #[arg(long)]
        dead: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Queue messages that were given up anew; the running server delivers them
    Resend {
        /// The message's id, as `list` shows it
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        id: Option<String>,
        /// All of them
        #[arg(long)]
        all: bool,
    },
    /// Send a hook an event of type hook.test, now and from here
    Test {
        /// The hook's name
        name: String,
    },
}

impl HookVerb {
    pub(super) fn run(&self, context: &Context) -> anyhow::Result<()> {
        let config = context.load()?.config;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let result = runtime.block_on(async {
            match self {
                Self::List { dead, json } => list(&store_of(&config)?, *dead, *json).await,
                Self::Resend { id, .. } => resend(&config, id.as_deref()).await,
                Self::Test { name } => test(&config, name).await,
            }
        });
        // A name server that hangs must not hold the exit.
        runtime.shutdown_background();
        result
    }
}

fn store_of(config: &Config) -> anyhow::Result<Store> {
    if !config.store.kind.seals() {
        bail!(
            "with store.kind = \"memory\" messages wait in the server's memory, where no command \
             sees them; adsproxy_hook_outbox_messages and adsproxy_hook_dropped_total count them"
        );
    }
    Store::open(&config.store, &config.encryption).context("cannot open the store")
}

async fn list(store: &Store, dead_only: bool, as_json: bool) -> anyhow::Result<()> {
    let mut messages = outbox::list(store).await?;
    messages.retain(|message| message.is_dead || !dead_only);
    messages.sort_by_key(|message| message.is_dead);
    let entries: Vec<Value> = messages.iter().map(entry).collect();
    if as_json {
        return print(format!("{:#}\n", json!({ "version": 1, "messages": entries })));
    }
    if messages.is_empty() {
        return print("no messages\n");
    }
    let columns = ["id", "hook", "event", "account", "since", "state", "attempts", "last_error"];
    let shown = messages.iter().zip(entries).map(|(message, mut entry)| {
        entry["event"] = message.kind.as_str().into();
        entry["since"] = hooks::rfc3339(message.at).into();
        entry
    });
    print(table_of(columns, &shown.collect::<Vec<_>>()))
}

/// No part of it is a secret: links for reconnecting are made when a message is sent.
fn entry(message: &Message) -> Value {
    json!({
        "id": message.id,
        "hook": message.hook,
        "type": message.kind,
        "account": message.account,
        "at": message.at,
        "queued_at": message.queued_at,
        "state": if message.is_dead { "dead" } else { "waiting" },
        "attempts": message.attempts,
        "last_error": message.last_error,
    })
}

async fn resend(config: &Config, id: Option<&str>) -> anyhow::Result<()> {
    let store = store_of(config)?;
    let mut dead = outbox::list(&store).await?;
    dead.retain(|message| message.is_dead && id.is_none_or(|id| message.id == id));
    if dead.is_empty() {
        let Some(id) = id else { return print("nothing was given up\n") };
        bail!("no message that was given up has the id {id:?}; see `adsproxy hooks list --dead`");
    }
    let entry = Entry::new(Actor::cli(), Action::HookResend).count(dead.len() as u64);
    let entry = id.into_iter().fold(entry, Entry::about);
    let audit = Audit::of_store(&store, &config.audit, Arc::new(SystemClock));
    audit.record(&entry).context("nothing was queued")?;
    let (mut count, now) = (0, SystemClock.now().unix());
    for message in &dead {
        count += usize::from(outbox::resend(&store, message, now).await?);
    }
    let s = if count == 1 { "" } else { "s" };
    print(format!("{count} message{s} queued; a running server delivers within seconds\n"))
}

async fn test(config: &Config, name: &str) -> anyhow::Result<()> {
    let Some(hook) = config.hooks.iter().find(|hook| hook.name == name) else {
        let known = configured(config.hooks.iter().map(|hook| &hook.name));
        bail!("there is no hook {name:?}; {known}");
    };
    let tls = https::client_config(config.other_roots(), false)?;
    let now = SystemClock.now();
    let message = Message::test(name, now);
    let result = hooks::attempt(hook, &tls, &message, now.unix()).await;
    let output = result.as_ref().unwrap_or_else(|failed| &failed.output);
    for line in String::from_utf8_lossy(output).lines() {
        note(format_args!("{name}: {}", plain(line)));
    }
    result.with_context(|| format!("the message was not delivered to hook {name}"))?;
    let how = match hook.target {
        HookTarget::Webhook(_) => "took",
        HookTarget::Command(_) => "ran and took",
    };
    print(format!("{name} {how} the message {}\n", message.id))
}
