//! `adsproxy token`: hands out an account's access token, on standard output and nowhere else.

use super::{
    Context, duration, note, print,
    session::{self, HandedToken, Wish},
};
use crate::{
    clock::{Clock, SystemClock},
    id::AccountId,
};
use anyhow::bail;
use serde_json::json;
use std::{
    io::{self, IsTerminal},
    time::Duration,
};
use zeroize::Zeroizing;

/// Of the JSON; it goes up when a field changes its meaning or goes away.
const VERSION: u32 = 1;

/// What is wished for without `--min-ttl`: enough for a command or two.
const WISHED: Duration = Duration::from_secs(300);

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
        let least = self.min_ttl.unwrap_or(WISHED);
        let wish = Wish { least, must: self.min_ttl.is_some(), discloses: !self.check };
        let token = session::token(context, &self.alias, wish)?;
        if let Some(least) = self.min_ttl.filter(|least| token.expires_in < *least) {
            bail!(
                "the access token of {} lives for {} s more, which is less than {} s: Amazon's \
                 live an hour at most, and a refresh brings no longer one",
                self.alias,
                token.expires_in.as_secs(),
                least.as_secs()
            );
        }
        if self.check {
            return Ok(());
        }
        if io::stdout().is_terminal() {
            note("warning: this is a secret, good for acting for the advertiser");
        }
        print(&*self.show(&token))
    }

    fn show(&self, token: &HandedToken) -> Zeroizing<String> {
        let bare = token.secret.expose();
        if self.header {
            return Zeroizing::new(format!("Authorization: Bearer {bare}\n"));
        }
        if !self.json {
            return Zeroizing::new(format!("{bare}\n"));
        }
        let expires_at = SystemClock.now().plus(token.expires_in).unix();
        let expires_at = i64::try_from(expires_at).ok();
        let expires_at = expires_at.and_then(|unix| jiff::Timestamp::from_second(unix).ok());
        let object = json!({
            "version": VERSION,
            "account": self.alias.as_str(),
            "access_token": bare,
            "token_type": "bearer",
            "expires_at": expires_at.map(|time| time.to_string()),
            "expires_in_secs": token.expires_in.as_secs(),
            "generation": token.generation,
            "client_id": token.client_id,
        });
        Zeroizing::new(format!("{object:#}\n"))
    }
}
