//! `adsproxy status`: the accounts of the running server and their tokens.

mod layout;

use super::{
    Context, Failure, account, duration, note, print,
    session::unknown,
    table::{escaped, plain},
    wire::{AdminRequest, Server},
};
use crate::{config::load, id::AccountId};
use anyhow::bail;
use layout::{Look, text};
use serde_json::Value;
use std::{
    io::{self, IsTerminal},
    thread,
    time::Duration,
};

/// Clears the terminal and begins at its top.
const CLEAR: &str = "\x1b[H\x1b[2J\x1b[3J";

/// Show the accounts of the running server and their tokens
#[derive(Debug, clap::Args)]
pub(super) struct Status {
    /// Only these accounts
    accounts: Vec<AccountId>,
    /// Print the server's answer as JSON
    #[arg(long)]
    json: bool,
    /// Show it again and again, every 2s or as long as told
    #[arg(short, long, value_name = "DURATION", num_args = 0..=1, default_missing_value = "2s",
        value_parser = duration::parse)]
    watch: Option<Duration>,
    /// Read the store instead, where no server runs
    #[arg(long, conflicts_with_all = ["watch", "accounts"])]
    offline: bool,
}

impl Status {
    pub(super) fn run(&self, context: &Context) -> anyhow::Result<()> {
        if self.offline {
            return account::AccountVerb::List { json: self.json }.run(context);
        }
        let server = server(context)?;
        let terminal = io::stdout().is_terminal();
        let no_color = context.environment.non_empty("NO_COLOR").is_some();
        let look = || {
            let (width, height) = window();
            Look { coloured: terminal && !no_color, width, height }
        };
        let Some(interval) = self.watch else {
            let answer = self.ask(&server)?;
            self.show(&answer, &look())?;
            let dead = dead(&answer);
            let all_well = dead.is_empty();
            return if all_well {
                Ok(())
            } else {
                Err(Failure::reauthorization_required(&dead).into())
            };
        };
        loop {
            let clear = if terminal && !self.json { CLEAR } else { "" };
            print(clear)?;
            // A server that restarts is no reason to stop looking.
            match self.ask(&server) {
                Ok(answer) => self.show(&answer, &look())?,
                Err(error) => note(format_args!("{error:#}")),
            }
            thread::sleep(interval.max(Duration::from_millis(100)));
        }
    }

    /// The server's response, with the wanted accounts alone.
    fn ask(&self, server: &Server) -> anyhow::Result<Value> {
        let mut answer = server.json(&AdminRequest::get("/status"))?;
        if let Some(all) = answer["accounts"].as_array_mut().filter(|_| !self.accounts.is_empty()) {
            let is = |account: &Value, alias: &AccountId| account["account"] == alias.as_str();
            let is_known = |alias: &&AccountId| all.iter().any(|account| is(account, alias));
            if let Some(alias) = self.accounts.iter().find(|alias| !is_known(alias)) {
                bail!(unknown(alias));
            }
            all.retain(|account| self.accounts.iter().any(|alias| is(account, alias)));
        }
        Ok(answer)
    }

    fn show(&self, answer: &Value, look: &Look) -> anyhow::Result<()> {
        print(match (self.json, self.watch) {
            // One line each, so that a program can tell them apart.
            (true, Some(_)) => escaped(&format!("{answer}\n")),
            (true, None) => escaped(&format!("{answer:#}\n")),
            (false, _) => text(answer, look),
        })
    }
}

/// The control socket of the running server, else its admin listener. This needs no secret of the
/// configuration.
fn server(context: &Context) -> anyhow::Result<Server> {
    let control = context.load().ok().and_then(|loaded| Server::find(context, &loaded.config).ok());
    if let Some(server) = control.flatten() {
        return Ok(server);
    }
    let addresses = load::addresses(&context.options())?;
    Ok(Server::Listener(addresses.admin))
}

/// The terminal's characters in a line and lines; none if this is none.
fn window() -> (Option<usize>, Option<usize>) {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok();
    let known = |cells: u16| (cells > 0).then_some(usize::from(cells));
    (size.and_then(|size| known(size.ws_col)), size.and_then(|size| known(size.ws_row)))
}

/// The accounts whose grants are dead.
fn dead(answer: &Value) -> Vec<String> {
    let accounts = answer["accounts"].as_array().into_iter().flatten();
    let dead = accounts.filter(|account| account["reauthorization_required"] == true);
    dead.map(|account| plain(account["account"].as_str().unwrap_or_default())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_dead_grants_are_called_dead() {
        let answer = json!({ "accounts": [
            { "account": "acme", "reauthorization_required": false },
            { "account": "globex", "reauthorization_required": true },
        ] });
        assert_eq!(dead(&answer), ["globex"]);
        assert!(dead(&json!({})).is_empty() && dead(&json!(7)).is_empty());
    }
}
