//! `adsproxy healthcheck` and `adsproxy wait`: is the running server ready?

use super::{CommandFailure, Context, duration, server::Server, wire::AdminRequest};
use crate::config::load;
use anyhow::{Context as _, bail};
use std::{
    io, thread,
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
    let server = Server::ready_at(context, &load::addresses(&context.options())?)?;
    match status(&server).with_context(|| format!("no adsproxy answers at {server}"))? {
        200 => Ok(()),
        status => bail!("adsproxy at {server} is not ready: it responds with {status}"),
    }
}

fn status(server: &Server) -> io::Result<u16> {
    server.send(AdminRequest::get("/readyz")).map(|response| response.status)
}

impl Wait {
    pub(super) fn run(&self, context: &Context) -> anyhow::Result<()> {
        let addresses = load::addresses(&context.options())?;
        let deadline = Instant::now() + self.max;
        loop {
            let server = Server::ready_at(context, &addresses);
            let last = match server.as_ref().map(status) {
                Ok(Ok(200)) => return Ok(()),
                Ok(Ok(status)) => format!("it responds with {status}"),
                Ok(Err(error)) => error.to_string(),
                Err(error) => error.to_string(),
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let (waited, admin) = (self.max, &addresses.admin);
                let at = server.map_or(admin.to_string(), |server| server.to_string());
                bail!(CommandFailure::unavailable(format!(
                    "adsproxy at {at} was not ready within {waited:?}: {last}"
                )));
            }
            thread::sleep(INTERVAL.min(left));
        }
    }
}
