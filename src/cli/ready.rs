//! `adsproxy healthcheck` and `adsproxy wait`: is the running server ready?

use super::{CommandFailure, Context, duration, server::Server, wire::AdminRequest};
use crate::config::{Listen, ListenAddress, load};
use anyhow::{Context as _, bail};
use std::{
    thread,
    time::{Duration, Instant},
};

/// How often the server is asked.
const INTERVAL: Duration = Duration::from_millis(100);

/// Wait until the running server is ready
#[derive(Debug, clap::Args)]
pub(super) struct Wait {
    /// Give up after this long, with exit code 69
    #[arg(long, alias = "max", value_name = "DURATION", default_value = "30s", value_parser = duration::parse)]
    timeout: Duration,
}

/// Exits with 0 or 1, as probes want it: a server that is not there has no exit code of its own.
pub(super) fn healthcheck(context: &Context) -> anyhow::Result<()> {
    ask(context, &load::addresses(&context.options())?.listen)
}

fn ask(context: &Context, addresses: &Listen) -> anyhow::Result<()> {
    let server = match addresses.health.as_ref().and_then(ListenAddress::tcp) {
        Some(health) => Server::Listener(health, None),
        None => Server::at(context, &addresses.admin)?,
    };
    let response = server.send(AdminRequest::get("/readyz"));
    match response.with_context(|| format!("no adsproxy responds at {server}"))?.status {
        200 => Ok(()),
        status => bail!("adsproxy at {server} is not ready: it responds with {status}"),
    }
}

impl Wait {
    pub(super) fn run(&self, context: &Context) -> anyhow::Result<()> {
        let addresses = load::addresses(&context.options())?.listen;
        let deadline = Instant::now() + self.timeout;
        while let Err(error) = ask(context, &addresses) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let text = format!("not ready within {:?}: {error:#}", self.timeout);
                bail!(CommandFailure::unavailable(text));
            }
            thread::sleep(INTERVAL.min(left));
        }
        Ok(())
    }
}
