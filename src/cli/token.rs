//! `adsproxy token`: hands out an account's access token, on standard output and nowhere else.

use super::{Context, duration, print, session::Session};
use crate::{id::AccountId, token::AccessToken};
use anyhow::bail;
use serde_json::json;
use std::{
    io::{self, IsTerminal},
    time::Duration,
};
use zeroize::Zeroizing;

/// Of the JSON; it goes up when a field changes its meaning or goes away.
const VERSION: u32 = 1;

/// What is wished for where nobody asks for more: enough for a command or two.
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
        let mut session = Session::open(context, &self.alias)?;
        let token = session.token(self.min_ttl.unwrap_or(WISHED), self.min_ttl.is_some())?;
        let left = token.expires_in(session.now());
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
        session.record_disclosure(&token)?;
        if io::stdout().is_terminal() {
            eprintln!("warning: this is a secret; whoever sees it can act for the advertiser");
        }
        print(&*self.show(&token, left, &session))
    }

    fn show(&self, token: &AccessToken, left: Duration, session: &Session) -> Zeroizing<String> {
        let bare = token.expose();
        if self.header {
            return Zeroizing::new(format!("Authorization: Bearer {bare}\n"));
        }
        if !self.json {
            return Zeroizing::new(format!("{bare}\n"));
        }
        let expires_at = session.now().plus(left).unix();
        let expires_at = i64::try_from(expires_at).ok();
        let expires_at = expires_at.and_then(|unix| jiff::Timestamp::from_second(unix).ok());
        let object = json!({
            "version": VERSION,
            "account": self.alias.as_str(),
            "access_token": bare,
            "token_type": "bearer",
            "expires_at": expires_at.map(|time| time.to_string()),
            "expires_in_secs": left.as_secs(),
            "generation": token.generation(),
            "client_id": session.client_id(),
        });
        Zeroizing::new(format!("{object:#}\n"))
    }
}
