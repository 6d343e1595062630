//! `caller issue` and `caller revoke`: sessions, and the end of them and of keys.

use super::{add, admin};
use crate::cli::{
    Context, duration, note, print,
    table::{plain, span},
    wire::{AdminRequest, failure},
};
use anyhow::bail;
use serde_json::{Value, json};
use std::time::Duration;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct IssueSession {
    /// The caller that it may do at most as much as
    #[arg(value_name = "NAME", value_parser = add::name)]
    caller: String,
    /// How long it lives, at most 24h
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    ttl: Duration,
    /// An account it may use, * is any text [default: its caller's]; repeatable
    #[arg(long = "account", value_name = "GLOB", value_parser = add::glob)]
    accounts: Vec<String>,
    /// It may only read
    #[arg(long)]
    read_only: bool,
    /// What it is for, as `caller list` shows it
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct RevokeKey {
    /// The id of a session or key: the 8 characters behind adss_ or adsk_
    id: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl IssueSession {
    pub(super) fn run(&self, context: &Context) -> anyhow::Result<()> {
        let server = admin(context, context.load()?.config)?;
        let mut body = json!({
            "caller": self.caller,
            "ttl_secs": self.ttl.as_secs(),
            "read_only": self.read_only,
        });
        if !self.accounts.is_empty() {
            body["accounts"] = json!(self.accounts);
        }
        if let Some(note) = &self.note {
            body["note"] = json!(note);
        }
        let said = server.json(AdminRequest::post("/api/v1/sessions", &body))?;
        if self.json {
            return print(format!("{said:#}\n"));
        }
        let text = |name: &str| plain(said[name].as_str().unwrap_or_default());
        // A script takes the key alone.
        print(format!("{}\n", text("key")))?;
        note(format_args!(
            "session {} of caller {} ends in {}; earlier with `adsproxy caller revoke {}`",
            text("id"),
            text("caller"),
            span(self.ttl.as_secs()),
            text("id"),
        ));
        Ok(())
    }
}

impl RevokeKey {
    pub(super) fn run(&self, context: &Context) -> anyhow::Result<()> {
        let id = add::id_of(&self.id)?;
        let server = admin(context, context.load()?.config)?;
        for path in ["/api/v1/sessions", "/api/v1/callers/keys"] {
            let response = server.response(AdminRequest::delete(&format!("{path}/{id}")))?;
            match response.status {
                404 => continue,
                200 if self.json => return print(format!("{:#}\n", response.said)),
                200 => return print(told(&response.said)),
                status => {
                    let otherwise = format!("adsproxy at {server} responds with {status}");
                    return Err(failure(&response.said, &otherwise));
                }
            }
        }
        bail!("there is no session and no key {id}; `adsproxy caller list` lists them")
    }
}

/// What became of it, for a person.
fn told(said: &Value) -> String {
    let text = |name: &str| plain(said[name].as_str().unwrap_or_default());
    let (id, caller) = (text("id"), text("caller"));
    if said["kind"] == "session" {
        return format!("session {id} has ended\n");
    }
    format!(
        "key {id} of caller {caller} is not accepted any more\n\
         Take its line out of the configuration: {{ id = \"{id}\", … }} in `keys` of {caller}.\n"
    )
}
