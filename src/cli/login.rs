//! `adsproxy login`: connects an account through the browser, or by an address that is pasted.

pub(super) mod paste;
mod server;
mod show;

use super::{
    Context, ask, note, print,
    wire::{AdminRequest, failure},
};
use crate::id::{AccountId, Region};
use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use server::LoginServer;
use std::{
    io::{self, IsTerminal},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// Between two requests for the outcome of the login.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// How long the server may take to exchange the code and to read the profiles of the new grant.
const FINISH_TIMEOUT: Duration = Duration::from_secs(90);

const UNFINISHED: &str = "the login was not finished in time; nothing was changed";

#[derive(Debug, clap::Args)]
pub(super) struct Login {
    /// The account's alias
    account: AccountId,
    /// na, eu or fe [default: the account's, else where its profiles are]
    #[arg(long)]
    region: Option<Region>,
    /// The LWA application to consent to [default: the account's, else default]
    #[arg(long, value_name = "NAME")]
    application: Option<String>,
    /// Print the address only, and wait for the response
    #[arg(long, conflicts_with = "paste")]
    no_browser: bool,
    /// The browser is elsewhere: read the address it ends at, or its code
    #[arg(long)]
    paste: bool,
    /// Replace the account even if it becomes another Amazon user's
    #[arg(long)]
    yes: bool,
}

impl Login {
    pub(super) fn run(&self, context: &Context) -> anyhow::Result<()> {
        let config = context.load()?.config;
        let server = LoginServer::find(context, config, self)?;
        let outcome = if self.paste { self.paste(&server)? } else { self.browse(&server)? };
        match outcome["state"].as_str() {
            Some("connected") => print(show::connected(&outcome)),
            Some("discarded") => bail!("account {} was left as it is", self.account),
            _ => Err(failure(&outcome, "the login failed")),
        }
    }

    /// Through a browser on this machine, or one that reaches the return address.
    fn browse(&self, server: &LoginServer) -> anyhow::Result<Value> {
        let body = json!({
            "account": self.account.as_str(),
            "origin": "terminal",
            "region": self.region.map(Region::as_str),
            "application": self.application,
            "replace": self.yes.to_string(),
        });
        let begun = AdminRequest::post("/api/auth/amazon/logins", &body).within(FINISH_TIMEOUT);
        let begun = server.server.json(begun)?;
        let (url, instructions) = server.instructions(&begun["url"])?;
        note(format_args!("To connect account {}, {instructions}", self.account));
        if !self.no_browser {
            // On a thread: some browsers only come back when they are closed.
            thread::spawn(move || {
                if webbrowser::open(&url).is_err() {
                    note("No browser could be opened: open the address yourself, or say --paste.");
                }
            });
        }
        let handle = begun["login"].as_str().context("the server gave no login")?;
        let seconds = begun["expires_in"].as_u64().unwrap_or(600);
        // So long until the address is opened, and once more for the login itself.
        self.wait(server, handle, 2 * Duration::from_secs(seconds) + FINISH_TIMEOUT)
    }

    /// Waits for the outcome of the login; asks for a confirmation if that is needed.
    fn wait(&self, server: &LoginServer, handle: &str, limit: Duration) -> anyhow::Result<Value> {
        let path = format!("/api/auth/amazon/logins/{handle}");
        let mut deadline = Instant::now() + limit;
        let mut answer: Option<mpsc::Receiver<bool>> = None;
        loop {
            let outcome = match server.server.send(AdminRequest::get(&path)) {
                Ok(response) if response.status < 300 => response.said,
                // The server has dropped the login, which was too old.
                Ok(_) => bail!(UNFINISHED),
                Err(error) if Instant::now() >= deadline => return Err(error.into()),
                // A server that restarts comes back, and knows the login.
                Err(_) => Value::Null,
            };
            match (outcome["state"].as_str(), &answer) {
                (None | Some("waiting"), _) => {}
                (Some("question"), None) => {
                    deadline = Instant::now() + server.confirm_timeout;
                    answer = Some(self.ask(&outcome));
                }
                (Some("question"), Some(answer)) => {
                    if let Ok(yes) = answer.try_recv() {
                        return server.confirm(&outcome, yes);
                    }
                }
                _ => return Ok(outcome),
            }
            if Instant::now() >= deadline {
                bail!(UNFINISHED);
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// Asks in the terminal, beside the browser, whether to replace the account.
    fn ask(&self, outcome: &Value) -> mpsc::Receiver<bool> {
        let (sender, receiver) = mpsc::channel();
        note(show::question(&self.account, outcome));
        if io::stdin().is_terminal() {
            let question = format!("Replace account {}?", self.account);
            // The thread ends with the process if the browser's answer comes first.
            thread::spawn(move || sender.send(ask(&question)));
        } else {
            note("Answer in the browser; --yes answers beforehand.");
        }
        receiver
    }
}
