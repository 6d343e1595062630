//! `adsproxy hooks`: what waits for hooks and what was given up, asking for it again, a test.

use super::{
    Context, print,
    table::{plain, table},
};
use crate::{
    audit::{Action, Actor, Audit, Entry},
    clock::{Clock, SystemClock},
    config::{Config, HookTarget},
    hooks::{
        self, Message,
        outbox::{self, Dead},
    },
    https,
};
use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

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
        match self {
            Self::List { dead, json } => list(&outbox_of(&config)?, *dead, *json),
            Self::Resend { id, .. } => resend(&config, id.as_deref()),
            Self::Test { name } => test(&config, name),
        }
    }
}

fn outbox_of(config: &Config) -> anyhow::Result<PathBuf> {
    hooks::directory(&config.store).context(
        "with store.kind = \"memory\" messages wait in the server's memory, where no command \
         sees them; adsproxy_hook_outbox_messages and adsproxy_hook_dropped_total count them",
    )
}

fn list(root: &Path, dead_only: bool, as_json: bool) -> anyhow::Result<()> {
    let waiting = if dead_only { Vec::new() } else { outbox::waiting(root)? };
    let dead = outbox::dead(root)?;
    if as_json {
        let entries = waiting.iter().map(|message| entry("waiting", message));
        let dead = dead.iter().map(|dead| match &dead.message {
            Some(message) => entry("dead", message),
            None => json!({ "state": "unreadable", "file": dead.path() }),
        });
        let messages: Vec<Value> = entries.chain(dead).collect();
        return print(format!("{:#}\n", json!({ "version": 1, "messages": messages })));
    }
    if waiting.is_empty() && dead.is_empty() {
        return print("no messages\n");
    }
    let heading = ["ID", "HOOK", "EVENT", "ACCOUNT", "SINCE", "STATE", "ATTEMPTS", "LAST ERROR"];
    let mut rows = vec![heading.map(str::to_owned)];
    rows.extend(waiting.iter().map(|message| row("waiting", message)));
    rows.extend(dead.iter().map(|dead| match &dead.message {
        Some(message) => row("dead", message),
        None => {
            let mut row: [String; 8] = Default::default();
            (row[0], row[5]) = (dead.path().display().to_string(), "unreadable".to_owned());
            row
        }
    }));
    print(table(&rows))
}

/// No part of it is a secret: links for reconnecting are made when a message is sent.
fn entry(state: &str, message: &Message) -> Value {
    json!({
        "id": message.id,
        "hook": message.hook,
        "type": message.kind,
        "account": message.account,
        "at": message.at,
        "queued_at": message.queued_at,
        "state": state,
        "attempts": message.attempts,
        "last_error": message.last_error,
    })
}

fn row(state: &str, message: &Message) -> [String; 8] {
    [
        message.id.clone(),
        message.hook.clone(),
        message.kind.clone(),
        message.account.clone().unwrap_or_default(),
        hooks::rfc3339(message.at),
        state.to_owned(),
        message.attempts.to_string(),
        message.last_error.clone().unwrap_or_default(),
    ]
}

fn resend(config: &Config, id: Option<&str>) -> anyhow::Result<()> {
    let root = &outbox_of(config)?;
    let mut dead: Vec<Dead> = outbox::dead(root)?;
    if let Some(id) = id {
        dead.retain(|dead| dead.message.as_ref().is_some_and(|message| message.id == id));
        if dead.is_empty() {
            bail!(
                "no message that was given up has the id {:?}; see `adsproxy hooks list --dead`",
                id
            );
        }
    }
    if dead.is_empty() {
        return print("nothing was given up\n");
    }
    let entry = Entry::new(Actor::cli(), Action::HookResend).count(dead.len() as u64);
    let entry = id.into_iter().fold(entry, Entry::about);
    let audit = Audit::new(config, Arc::new(SystemClock))?;
    audit.record(&entry).context("nothing was queued")?;
    let count = outbox::resend(root, &dead, SystemClock.now().unix())?;
    let s = if count == 1 { "" } else { "s" };
    print(format!("{count} message{s} queued; a running server delivers within seconds\n"))
}

fn test(config: &Config, name: &str) -> anyhow::Result<()> {
    let Some(hook) = config.hooks.iter().find(|hook| hook.name == name) else {
        let known: Vec<&str> = config.hooks.iter().map(|hook| hook.name.as_str()).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        bail!("there is no hook {name:?}; configured: {known}");
    };
    let tls = https::client_config(config.other_roots(), false)?;
    let now = SystemClock.now();
    let message = Message::test(name, now)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(hooks::attempt(hook, &tls, &message, now.unix()));
    // A name server that hangs must not hold the exit.
    runtime.shutdown_background();
    let output = match &result {
        Ok(output) => output,
        Err(failed) => &failed.output,
    };
    for line in String::from_utf8_lossy(output).lines() {
        eprintln!("{name}: {}", plain(line));
    }
    result.with_context(|| format!("hook {name} was not told"))?;
    let how = match hook.target {
        HookTarget::Webhook(_) => "took",
        HookTarget::Command(_) => "ran and took",
    };
    print(format!("{name} {how} the message {}\n", message.id))
}
