//! `adsproxy caller`: keys and sessions of those who call.

mod add;
mod list;
mod session;

pub(super) use add::id_of;

use super::{Context, server::Server};
use crate::config::Config;
use anyhow::bail;

#[derive(Debug, clap::Subcommand)]
pub(super) enum CallerVerb {
    /// Make a key for a new caller; prints it once, and the lines for the configuration
    Add(add::AddCaller),
    /// List callers, their keys and their sessions
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make another key for a caller; the old ones go on for a while
    Rotate(add::RotateCaller),
    /// Make a key that ends by itself and may do at most what its caller may
    Issue(session::IssueSession),
    /// End a session or a key, on open connections too
    Revoke(session::RevokeKey),
}

impl CallerVerb {
    pub(super) fn run(&self, context: &Context) -> anyhow::Result<()> {
        match self {
            Self::Add(verb) => verb.run(context),
            Self::List { json } => list::run(context, *json),
            Self::Rotate(verb) => verb.run(context),
            Self::Issue(verb) => verb.run(context),
            Self::Revoke(verb) => verb.run(context),
        }
    }
}

/// The running server, else the store, opened in this process.
pub(super) fn admin(context: &Context, config: Config) -> anyhow::Result<Server> {
    if !config.store.kind.seals() {
        let Some(server) = Server::find(context, &config)? else {
            bail!(
                "no running server was found; with store.kind = \"memory\" sessions are in the \
                 server's memory, which a command reaches by the control socket in \
                 $XDG_RUNTIME_DIR alone"
            );
        };
        return Ok(server);
    }
    Server::find_or_open(context, config)
}
