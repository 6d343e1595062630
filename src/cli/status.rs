//! `adsproxy status`: the accounts of the running server and their tokens.

mod layout;

use super::{
    Context, Failure, account, duration, print,
    table::plain,
    wire::{Ask, Server},
};
use crate::config::load;
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
    /// Print the server's answer as JSON
    #[arg(long)]
    json: bool,
    /// Show it again and again, every 2s or as long as told
    #[arg(short, long, value_name = "DURATION", num_args = 0..=1, default_missing_value = "2s",
        value_parser = duration::parse)]
    watch: Option<Duration>,
    /// Read the store instead, where no server runs
    #[arg(long, conflicts_with = "watch")]
    offline: bool,
}

impl Status {
    pub(super) fn run(&self, context: &Context) -> anyhow::Result<()> {
        if self.offline {
            return account::Verb::List { json: self.json }.run(context);
        }
        let server = server(context)?;
        let terminal = io::stdout().is_terminal();
        let no_color = context.environment.non_empty("NO_COLOR").is_some();
        let look = |width| Look { coloured: terminal && !no_color, width };
        let Some(interval) = self.watch else {
            let answer = ask(&server)?;
            self.show(&answer, &look(width()))?;
            let dead = dead(&answer);
            let all_well = dead.is_empty();
            return if all_well {
                Ok(())
            } else {
                Err(Failure::ReauthorizationRequired(dead).into())
            };
        };
        loop {
            let clear = if terminal && !self.json { CLEAR } else { "" };
            print(clear)?;
            // A server that restarts is no reason to stop looking.
            match ask(&server) {
                Ok(answer) => self.show(&answer, &look(width()))?,
                Err(error) => eprintln!("{error:#}"),
            }
            thread::sleep(interval.max(Duration::from_millis(100)));
        }
    }

    fn show(&self, answer: &Value, look: &Look) -> anyhow::Result<()> {
        print(match (self.json, self.watch) {
            // One line each, so that a program can tell them apart.
            (true, Some(_)) => format!("{answer}\n"),
            (true, None) => format!("{answer:#}\n"),
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
    let addresses = load::addresses(&context.options()).map_err(Failure::from)?;
    Ok(Server::Listener(addresses.admin))
}

fn ask(server: &Server) -> anyhow::Result<Value> {
    server.json(&Ask { path: "/status", ..Ask::default() })
}

/// The terminal's width; none if this is none.
fn width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    (size.ws_col > 0).then_some(usize::from(size.ws_col))
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
        assert_eq!(
            Failure::ReauthorizationRequired(dead(&answer)).to_string(),
            "not connected, or no longer: globex; connect again with\n  adsproxy login globex"
        );
        assert!(dead(&json!({})).is_empty() && dead(&json!(7)).is_empty());
    }
}
