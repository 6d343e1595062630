//! `adsproxy wait`: returns as soon as the running server is ready.

use super::{Context, Failure, duration, wire};
use crate::config::load;
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
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration::parse)]
    max: Duration,
}

impl Wait {
    pub(super) fn run(&self, context: &Context) -> anyhow::Result<()> {
        let addresses = load::addresses(&context.options())?;
        let address = addresses.health.unwrap_or(addresses.admin);
        let deadline = Instant::now() + self.max;
        loop {
            let last = wire::get(address, "/readyz");
            if matches!(last, Ok((200, _))) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let last = match last {
                    Ok((status, _)) => format!("it answers {status}"),
                    Err(error) => error.to_string(),
                };
                let waited = self.max;
                return Err(Failure::unavailable(format!(
                    "adsproxy at {address} was not ready within {waited:?}: {last}"
                ))
                .into());
            }
            thread::sleep(INTERVAL.min(deadline.saturating_duration_since(Instant::now())));
        }
    }
}
