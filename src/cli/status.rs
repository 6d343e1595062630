//! `adsproxy status`: the accounts of the running server and their tokens.

mod layout;

use super::{
    CommandFailure, Context, account, duration, note, print,
    server::{Server, unknown},
    table::{escaped, plain},
    wire::AdminRequest,
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
    /// Print the server's response as JSON
    #[arg(long)]
    json: bool,
    /// Show it again and again, every 2s or at this interval
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
        let coloured = terminal && context.environment.non_empty("NO_COLOR").is_none();
        let Some(interval) = self.watch else {
            let said = self.ask(&server)?;
            self.show(&said, coloured)?;
            return match dead(&said).as_slice() {
                [] => Ok(()),
                dead => bail!(CommandFailure::reauthorization_required(dead)),
            };
        };
        loop {
            print(if terminal && !self.json { CLEAR } else { "" })?;
            // A server that restarts is no reason to stop looking.
            match self.ask(&server) {
                Ok(said) => self.show(&said, coloured)?,
                Err(error) => note(format_args!("{error:#}")),
            }
            thread::sleep(interval.max(Duration::from_millis(100)));
        }
    }

    /// The server's response, with the wanted accounts alone.
    fn ask(&self, server: &Server) -> anyhow::Result<Value> {
        let mut said = server.json(AdminRequest::get("/status"))?;
        if let Some(all) = said["accounts"].as_array_mut().filter(|_| !self.accounts.is_empty()) {
            let is = |account: &Value, alias: &AccountId| account["account"] == alias.as_str();
            let is_known = |alias: &&AccountId| all.iter().any(|account| is(account, alias));
            if let Some(alias) = self.accounts.iter().find(|alias| !is_known(alias)) {
                bail!(unknown(alias));
            }
            all.retain(|account| self.accounts.iter().any(|alias| is(account, alias)));
        }
        Ok(said)
    }

    fn show(&self, said: &Value, coloured: bool) -> anyhow::Result<()> {
        print(match (self.json, self.watch) {
            // One line each, so that a program can separate them.
            (true, Some(_)) => escaped(&format!("{said}\n")),
            (true, None) => escaped(&format!("{said:#}\n")),
            (false, _) => {
                let size = rustix::termios::tcgetwinsize(io::stdout()).ok();
                let known = |cells: u16| (cells > 0).then_some(usize::from(cells));
                let width = size.and_then(|size| known(size.ws_col));
                let height = size.and_then(|size| known(size.ws_row));
                text(said, &Look { coloured, width, height })
            }
        })
    }
}

/// The control socket of the running server, else its admin listener. This needs no secret of the
/// configuration.
pub(super) fn server(context: &Context) -> anyhow::Result<Server> {
    let config = load::addresses(&context.options())?;
    match Server::find(context, &config).ok().flatten() {
        Some(server) => Ok(server),
        None => Server::at(context, &config.listen.admin),
    }
}

/// The accounts whose grants are dead.
fn dead(said: &Value) -> Vec<String> {
    let accounts = said["accounts"].as_array().into_iter().flatten();
    let dead = accounts.filter(|account| account["reauthorization_required"] == true);
    dead.map(|account| plain(account["account"].as_str().unwrap_or_default())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_dead_grants_are_called_dead() {
        let said = json!({ "accounts": [
            { "account": "acme", "reauthorization_required": false },
            { "account": "globex", "reauthorization_required": true },
        ] });
        assert_eq!(dead(&said), ["globex"]);
        assert!(dead(&json!({})).is_empty() && dead(&json!(7)).is_empty());
    }
}
