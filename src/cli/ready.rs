//! `adsproxy healthcheck` and `adsproxy wait`: is the running server ready?

use super::{Context, Failure, duration, wire};
use crate::config::load;
use anyhow::{Context as _, bail};
use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

/// How often the server is asked.
const INTERVAL: Duration = Duration::from_millis(100);

/// Wait until the running server is ready
#[derive(Debug, clap::Args)]
pub(super) struct Wait {
    /// Give up after this long, with exit code 69
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration::parse)]
    max: Duration,
}

/// Exits with 0 or 1, as probes want it: a server that is not there has no exit code of its own.
pub(super) fn healthcheck(context: &Context) -> anyhow::Result<()> {
    let address = address(context)?;
    let answered = wire::get(address, "/readyz");
    match answered.with_context(|| format!("no adsproxy answers at {address}"))? {
        (200, _) => Ok(()),
        (status, _) => bail!("adsproxy at {address} is not ready: it responds with {status}"),
    }
}

impl Wait {
    pub(super) fn run(&self, context: &Context) -> anyhow::Result<()> {
        let address = address(context)?;
        let deadline = Instant::now() + self.max;
        loop {
            let last = match wire::get(address, "/readyz") {
                Ok((200, _)) => return Ok(()),
                Ok((status, _)) => format!("it responds with {status}"),
                Err(error) => error.to_string(),
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let waited = self.max;
                bail!(Failure::unavailable(format!(
                    "adsproxy at {address} was not ready within {waited:?}: {last}"
                )));
            }
            thread::sleep(INTERVAL.min(left));
        }
    }
}

fn address(context: &Context) -> anyhow::Result<SocketAddr> {
    let addresses = load::addresses(&context.options())?;
    Ok(addresses.health.unwrap_or(addresses.admin))
}
