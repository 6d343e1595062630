//! `adsproxy logout`: forgets an account's grant here, and says where Amazon forgets it.

use super::{
    Context, confirmed, note, print,
    server::{OwnServer, Server},
    table::plain,
    wire::AdminRequest,
};
use crate::{id::AccountId, provider::ads::CONSENT_MANAGEMENT_URL};
use anyhow::bail;
use serde_json::json;
use std::time::Duration;

/// A revocation may take a call to Amazon.
const TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug, clap::Args)]
pub(super) struct Logout {
    /// The account's alias
    account: AccountId,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

impl Logout {
    pub(super) fn run(&self, context: &Context) -> anyhow::Result<()> {
        let config = context.load()?.config;
        if !self.yes && !confirmed(&self.account)? {
            bail!("nothing was changed");
        }
        let is_memory = !config.store.kind.seals();
        let server = match Server::find(context, &config)? {
            Some(server) => server,
            None if is_memory => Server::at(context, &config.listen.admin)?,
            None => Server::Own(OwnServer::open(config, "error")?),
        };
        let body = json!({ "account": self.account.as_str() });
        let request = AdminRequest::post("/api/auth/amazon/logout", &body);
        let done = server.json(request.within(TIMEOUT))?;
        let account = &self.account;
        let mut text = format!("account {account} logged out; a running server forgets it, too\n");
        if done["revoked"] == true {
            text.push_str("the grant was revoked\n");
        } else {
            text.push_str(&format!(
                "Amazon still knows the consent: the advertiser revokes it at \
                 {CONSENT_MANAGEMENT_URL}\n"
            ));
        }
        print(text)?;
        if done["in_config"] == true {
            let when = if is_memory { "at the next start" } else { "once it changes" };
            note(format_args!(
                "note: accounts.{account}.refresh_token is still in the configuration, and will be \
                 used again {when}: remove it there"
            ));
        }
        if let Some(error) = done["revocation_error"].as_str() {
            bail!("the grant could not be revoked at lwa.revocation_url: {}", plain(error));
        }
        Ok(())
    }
}
