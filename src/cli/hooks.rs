//! `adsproxy hooks`: lists what waits and what was given up, queues it again, sends a test.

use super::{
    Context, note, print,
    server::{OwnServer, Server},
    table::{configured, plain, table_of},
    wire::AdminRequest,
};
use crate::{
    clock::{Clock, SystemClock},
    config::{Config, HookTarget},
    hooks::{self, Message, rfc3339},
    https,
};
use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::runtime::Builder;

/// The store may have thousands of messages, each written with the disk's pace.
const TIMEOUT: Duration = Duration::from_secs(600);

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
            Self::List { dead, json } => list(&outbox(context, config)?, *dead, *json),
            Self::Resend { id, .. } => resend(&outbox(context, config)?, id.as_deref()),
            Self::Test { name } => {
                let runtime = Builder::new_current_thread().enable_all().build()?;
                let result = runtime.block_on(test(&config, name));
                // A name server that hangs must not hold the exit.
                runtime.shutdown_background();
                result
            }
        }
    }
}

/// The running server, else the store, opened in this process, which delivers nothing itself.
fn outbox(context: &Context, mut config: Config) -> anyhow::Result<Server> {
    if let Some(server) = Server::find(context, &config)? {
        return Ok(server);
    }
    if !config.store.kind.seals() {
        bail!(
            "no running server was found; with store.kind = \"memory\" messages wait in the server's \
             memory, which a command reaches by the control socket in $XDG_RUNTIME_DIR alone"
        );
    }
    config.hooks.clear();
    Ok(Server::Own(OwnServer::open(config, "error")?))
}

fn list(server: &Server, dead_only: bool, as_json: bool) -> anyhow::Result<()> {
    let mut said = server.json(AdminRequest::get("/api/v1/outbox").within(TIMEOUT))?;
    let mut messages: Vec<Value> = serde_json::from_value(said["messages"].take())?;
    messages.retain(|message| message["state"] == "dead" || !dead_only);
    if as_json {
        let document = json!({ "version": 1, "messages": messages });
        return print(format!("{document:#}\n"));
    }
    if messages.is_empty() {
        return print("no messages\n");
    }
    for message in &mut messages {
        message["event"] = message["type"].take();
        message["since"] = message["at"].as_u64().map(rfc3339).into();
    }
    let columns = ["id", "hook", "event", "account", "since", "state", "attempts", "last_error"];
    print(table_of(columns, &messages))
}

fn resend(server: &Server, id: Option<&str>) -> anyhow::Result<()> {
    let body = json!({ "id": id, "all": id.is_none() });
    let request = AdminRequest::post("/api/v1/outbox/resend", &body).within(TIMEOUT);
    let count = server.json(request)?["queued"].as_u64().unwrap_or(0);
    if count == 0 && id.is_none() {
        return print("nothing was given up\n");
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
