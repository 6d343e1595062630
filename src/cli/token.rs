//! `adsproxy token`: hands out an account's access token, on standard output and nowhere else.

use super::{Context, duration, note, print, server::Server};
use crate::{
    clock::{Clock, SystemClock},
    hooks::rfc3339,
    id::AccountId,
};
use anyhow::bail;
use serde_json::Value;
use std::{
    io::{self, IsTerminal},
    time::Duration,
};
use zeroize::Zeroizing;

/// Of the JSON; it goes up when a field changes its meaning or goes away.
const VERSION: u32 = 1;

/// Print an access token of an account; for tools that cannot use the proxy
#[derive(Debug, clap::Args)]
pub(super) struct Token {
    /// Its alias
    alias: AccountId,
    /// Print the whole header: `curl -H "$(adsproxy token acme --header)" …`
    #[arg(long, conflicts_with = "json")]
    header: bool,
    /// Print JSON with the time it expires
    #[arg(long)]
    json: bool,
    /// Fail unless it lives this long, such as 10m; refreshes if need be
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    min_ttl: Option<Duration>,
    /// Print nothing; exit with 77 or 69 if no token can be had
    #[arg(long, conflicts_with_all = ["header", "json"])]
    check: bool,
}

impl Token {
    pub(super) fn run(&self, context: &Context) -> anyhow::Result<()> {
        let config = context.load()?.config;
        // What it has to save, to record and to send is done before the token is printed.
        let token =
            Server::find_or_open(context, config)?.token(&self.alias, self.min_ttl, !self.check)?;
        let left = Duration::from_secs(token["expires_in_secs"].as_u64().unwrap_or(0));
        if let Some(least) = self.min_ttl.filter(|least| left < *least) {
            bail!(
                "the access token of {} lives for {} s more, which is less than {} s: Amazon's \
                 live an hour at most, and a refresh brings no longer one",
                self.alias,
                left.as_secs(),
                least.as_secs()
            );
        }
        if self.check {
            return Ok(());
        }
        if io::stdout().is_terminal() {
            note("warning: this is a secret, good for acting for the advertiser");
        }
        print(&*self.show(token, left))
    }

    fn show(&self, mut token: Value, left: Duration) -> Zeroizing<String> {
        let bare = token["access_token"].as_str().unwrap_or_default();
        if self.header {
            return Zeroizing::new(format!("Authorization: Bearer {bare}\n"));
        }
        if !self.json {
            return Zeroizing::new(format!("{bare}\n"));
        }
        token["version"] = VERSION.into();
        token["token_type"] = "bearer".into();
        token["expires_at"] = rfc3339(SystemClock.now().plus(left).unix()).into();
        Zeroizing::new(format!("{token:#}\n"))
    }
}
