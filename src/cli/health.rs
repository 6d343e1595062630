//! `adsproxy healthcheck`: is the running server ready?

use super::{Context, Failure, wire};
use crate::config::load;
use anyhow::{Context as _, bail};

pub(super) fn run(context: &Context) -> anyhow::Result<()> {
    let addresses = load::addresses(&context.options()).map_err(Failure::from)?;
    let address = addresses.health.unwrap_or(addresses.admin);
    // Whoever probes wants 0 or 1, so a server that is not there is no failure of its own kind.
    let (status, _) = wire::get(address, "/readyz")
        .with_context(|| format!("no adsproxy answers at {address}"))?;
    if status != 200 {
        bail!("adsproxy at {address} is not ready: it answered {status}");
    }
    Ok(())
}
