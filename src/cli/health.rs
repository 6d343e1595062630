//! `adsproxy healthcheck`: is the running server ready?

use super::{Context, wire};
use crate::config::load;
use anyhow::{Context as _, bail};

pub(super) fn run(context: &Context) -> anyhow::Result<()> {
    let addresses = load::addresses(&context.options())?;
    let address = addresses.health.unwrap_or(addresses.admin);
    // A probe wants 0 or 1: a server that is not there has no exit code of its own.
    let (status, _) = wire::get(address, "/readyz")
        .with_context(|| format!("no adsproxy answers at {address}"))?;
    if status != 200 {
        bail!("adsproxy at {address} is not ready: it responds with {status}");
    }
    Ok(())
}
