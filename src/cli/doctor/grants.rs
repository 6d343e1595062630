//! Whether each grant still gives a token, how long its consent lasts, and what it gives access to.
//!
//! The running server gives the token, or a server in this process, over a store in its memory.
//! Nothing is stored, with one exception: a refresh token that was rotated by the check replaces
//! the one it has made invalid.

use super::{Finding, joined, store::Known};
use crate::{
    audit::{Action, Actor, Audit, Entry},
    cli::{
        exit_code, note,
        server::{OwnServer, Server, unknown},
    },
    clock::{Clock, SystemClock},
    config::Config,
    error_chain::chain,
    grants::Grants,
    https::LwaHttp,
    id::{AccountId, Region},
    login::profiles::{self, ProfilesError},
    store::{self, Credential, Lease, Store, Versioned},
    token::consent::{WARN_DAYS, days_left},
};
use http::HeaderValue;
use serde_json::Value;
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::{
    sync::Semaphore,
    task::spawn_blocking,
    time::{Instant, timeout_at},
};

/// For all accounts together.
const TIMEOUT: Duration = Duration::from_secs(40);
const CONCURRENCY: usize = 8;
/// For the lease of an account, and longer than Login with Amazon is waited for.
const LEASE: Duration = Duration::from_secs(15);

/// What grants are checked with. Cheap to clone.
#[derive(Clone)]
pub(super) struct GrantChecks {
    config: Arc<Config>,
    /// None without a store.
    grants: Option<Grants>,
    server: Server,
    api: LwaHttp,
}

impl GrantChecks {
    pub(super) fn new(
        config: Arc<Config>,
        store: Option<Store>,
        server: Server,
        api: LwaHttp,
    ) -> Self {
        let grants = store.map(|store| {
            let audit = Audit::of_store(&store, &config.audit, Arc::new(SystemClock));
            Grants::new(store, audit)
        });
        Self { config, grants, server, api }
    }

    /// Checks the `wanted` accounts, or all of them.
    pub(super) async fn run(self, known: Vec<Known>, wanted: &[AccountId]) -> Vec<Finding> {
        let is_unknown = |id: &&AccountId| known.iter().all(|account| account.id != **id);
        let mut findings: Vec<Finding> = wanted
            .iter()
            .filter(is_unknown)
            .map(|id| Finding::error("grant", unknown(id), "look for a misspelling"))
            .collect();
        if known.is_empty() && findings.is_empty() {
            let fix = "`adsproxy login ALIAS` or `adsproxy account add ALIAS` makes one";
            findings.push(Finding::warning("grant", "there are no accounts", fix));
        }
        let deadline = Instant::now() + TIMEOUT;
        let places = Arc::new(Semaphore::new(CONCURRENCY));
        let chosen = known.into_iter().filter(|one| wanted.is_empty() || wanted.contains(&one.id));
        let checks = chosen.map(|account| {
            let (this, places) = (self.clone(), places.clone());
            tokio::spawn(async move {
                let examined = async {
                    let _place = places.acquire().await;
                    this.examine(&account).await.unwrap_or_else(|finding| vec![finding])
                };
                timeout_at(deadline, examined).await.unwrap_or_else(|_| {
                    let text = format!("{}: not checked within {TIMEOUT:?}", account.id);
                    let fix = format!("check it alone: `adsproxy doctor {}`", account.id);
                    vec![Finding::warning("grant", text, fix)]
                })
            })
        });
        findings.extend(joined(checks.collect()).await);
        findings
    }

    /// One grant, and if it is alive, its profiles.
    async fn examine(&self, account: &Known) -> Result<Vec<Finding>, Finding> {
        let id = &account.id;
        let token = match (&self.server, &self.grants) {
            (Server::Own(own), Some(grants)) => self.refresh(id, own, grants).await?,
            _ => self.token(id).await?,
        };
        let days = account.consented_at.map(|at| days_left(at, SystemClock.now().unix()));
        let profiles = self.profiles(account, &token).await.unwrap_or_else(|finding| finding);
        Ok(vec![judge_consent(id, days), profiles])
    }

    async fn token(&self, id: &AccountId) -> Result<Value, Finding> {
        let (server, alias) = (self.server.clone(), id.clone());
        let token = spawn_blocking(move || server.token(&alias, None, false)).await;
        let error = match token.unwrap_or_else(|error| Err(error.into())) {
            Ok(token) => return Ok(token),
            Err(error) => error,
        };
        let (code, mut text) = (exit_code(&error), format!("{error:#}"));
        let fix = match code {
            77 => {
                text =
                    "it is not connected, or its consent is gone: withdrawn, older than a year, \
                        or given to another application"
                        .to_owned();
                &format!("connect it again: `adsproxy login {id}`")
            }
            69 => "repair the connection to login with amazon, then run this again",
            _ if !text.contains("client secret") => {
                "do what it says; `adsproxy status` shows the account's state"
            }
            _ => {
                "compare client_id and client_secret with the security profile; `adsproxy status` \
                 shows the account's state"
            }
        };
        Err(Finding::error("grant", format!("{id}: {text}"), fix).code(code))
    }

    /// Refreshes the account's grant, leased so that no other process does meanwhile. A record that
    /// cannot be read is an error: what is saved later must not replace it.
    async fn refresh(
        &self,
        id: &AccountId,
        own: &OwnServer,
        grants: &Grants,
    ) -> Result<Value, Finding> {
        let copies = &own.logins.engine.with.grants;
        let (lease, found) = copy(id, grants.store(), copies).await.map_err(|error| {
            let text = format!("{id}: not tried: {}", chain(&error));
            Finding::error("grant", text, "`adsproxy account show` has the state")
        })?;
        let token = self.token(id).await?;
        let kept = match copies.store().load(id).await {
            Ok(Some(record)) => self.keep_rotated(grants, &record, found, lease.as_ref()).await,
            read => read.map(drop),
        };
        if let Err(error) = kept {
            let error = chain(&error);
            note(format_args!("warning: the new refresh token of {id} is not saved: {error}"));
        }
        Ok(token)
    }

    /// Saves `record` if its refresh token is another one than before.
    async fn keep_rotated(
        &self,
        grants: &Grants,
        record: &Credential,
        found: Option<Versioned<Credential>>,
        lease: Option<&Lease>,
    ) -> Result<(), store::Error> {
        let configured = self.config.accounts.get(&record.account);
        let seed = configured.and_then(|account| account.refresh_token.as_ref());
        let found_token = found.as_ref().map(|one| &one.value.refresh_token);
        let previous = found.as_ref().and_then(|one| one.value.previous_refresh_token.as_ref());
        if [seed, found_token, previous].contains(&Some(&record.refresh_token)) {
            return Ok(());
        }
        let entry = Entry::new(Actor::cli(), Action::TokenRefresh).account(&record.account);
        let entry = entry.generation(record.generation);
        let began = found.as_ref().map(Versioned::began);
        grants.update_and_record(record, began, lease, entry).await
    }

    /// What the grant gives access to, found out by at most four requests.
    async fn profiles(&self, account: &Known, token: &Value) -> Result<Finding, Finding> {
        let (id, own) = (&account.id, account.region);
        let here = self.list(id, own, "view", token).await?;
        let scope = account.scope.as_ref().and_then(|scope| scope.parse::<i64>().ok());
        let has_it =
            |list: &BTreeSet<i64>| scope.map_or(!list.is_empty(), |scope| list.contains(&scope));
        let text = format!("{id}: {own} {}", here.len());
        if has_it(&here) {
            let editable = self.list(id, own, "edit", token).await;
            if editable.is_ok_and(|list| !has_it(&list)) {
                let fix = "have the advertiser give the Amazon user who consented the editor role; \
                           until then writes get a 401";
                let text = format!("{text}, viewer role: they can be read only");
                return Err(Finding::warning("profiles", text, fix));
            }
            return Ok(Finding::ok("profiles", text));
        }
        let mut elsewhere = None;
        for region in Region::ALL.into_iter().filter(|region| *region != own) {
            let list = self.list(id, region, "view", token).await.unwrap_or_default();
            elsewhere = elsewhere.or(has_it(&list).then_some(region));
        }
        Err(judge_missing(id, &text, !here.is_empty(), scope, elsewhere))
    }

    /// The ids of the profiles in `region` that the grant may `view` or `edit`.
    async fn list(
        &self,
        id: &AccountId,
        region: Region,
        level: &str,
        token: &Value,
    ) -> Result<BTreeSet<i64>, Finding> {
        let text = |name: &str| token[name].as_str().unwrap_or_default();
        let bearer = profiles::bearer(&text("access_token").into());
        let bearer = bearer.unwrap_or_else(|| HeaderValue::from_static(""));
        let host = self.config.upstream.api()[region as usize];
        let list = profiles::list(&self.api, host, &bearer, text("client_id"), level).await;
        let list = list.map_err(|error| judge_refusal(id, region, &error))?;
        Ok(list.iter().map(|profile| profile.id).collect())
    }
}

/// Leases the account's record and copies it without its access token, so that a new one is
/// fetched. No lease: there is no record, only the configuration has a refresh token.
async fn copy(
    id: &AccountId,
    store: &Store,
    copies: &Grants,
) -> Result<(Option<Lease>, Option<Versioned<Credential>>), store::Error> {
    let lease = match store.lease_grant(id, LEASE, LEASE).await {
        Err(store::Error::Conflict) => None,
        lease => Some(lease?),
    };
    let found = store.grant(id).await?;
    if let Some(found) = &found {
        let record = Credential { access_token: None, ..found.value.clone() };
        copies.update(&record, None, None).await?;
    }
    Ok((lease, found))
}

fn judge_consent(id: &AccountId, days: Option<i64>) -> Finding {
    match days {
        None => Finding::ok("grant", format!("{id}: gives a token; its consent is not dated")),
        Some(days) if days > WARN_DAYS => {
            Finding::ok("grant", format!("{id}: gives a token; consent for {days} days more"))
        }
        Some(days) => Finding::warning(
            "grant",
            format!("{id}: gives a token, but its consent ends in {days} days"),
            format!("have the advertiser consent again: `adsproxy login {id}`"),
        ),
    }
}

fn judge_refusal(id: &AccountId, region: Region, error: &ProfilesError) -> Finding {
    let (text, fix) = match error {
        ProfilesError::Refused { status: 401 | 403, .. } => (
            format!("the client id is not approved for the Ads API ({region}: {error})"),
            "apply for access to the Amazon Ads API and have this security profile assigned to it; \
             the grant itself is good",
        ),
        _ => (
            format!("{region} failed ({error})"),
            "repair the connection to that region's host, or try again later",
        ),
    };
    Finding::error("profiles", format!("{id}: {text}"), fix)
}

/// The profile is not here, or there is none at all.
fn judge_missing(
    id: &AccountId,
    text: &str,
    has_others: bool,
    scope: Option<i64>,
    elsewhere: Option<Region>,
) -> Finding {
    let set = |region| format!("set region = \"{region}\" for the account");
    let (what, fix) = match (scope, elsewhere) {
        (Some(scope), Some(region)) => (format!("and profile {scope} is in {region}"), set(region)),
        (None, Some(region)) => (format!("its profiles are in {region}"), set(region)),
        (Some(scope), None) if has_others => (
            format!("and profile {scope} is none of them"),
            "take one of `GET /v2/profiles` for Amazon-Advertising-API-Scope".to_owned(),
        ),
        (_, None) => (
            "no profile in any region".to_owned(),
            format!(
                "the grant is good, but the Amazon user who consented manages no advertiser: have \
                 the right user consent with `adsproxy login {id}`"
            ),
        ),
    };
    Finding::warning("profiles", format!("{text}, {what}"), fix)
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Level, *};

    #[test]
    fn consents_are_distinguished_by_the_days_that_are_left() {
        let id: AccountId = "acme".parse().expect("an alias");
        for (days, level, words) in [
            (Some(31), Level::Ok, "31 days"),
            (Some(30), Level::Warning, "30 days"),
            (None, Level::Ok, "not dated"),
        ] {
            let finding = judge_consent(&id, days);
            assert_eq!(finding.level, level, "{finding:?}");
            assert!(finding.text.contains(words), "{finding:?}");
        }
    }

    #[test]
    fn look_alikes_are_distinguished() {
        let id: AccountId = "acme".parse().expect("an alias");
        let eu = Some(Region::Eu);
        for (has_others, scope, elsewhere, words) in [
            (false, None, eu, "profiles are in eu"),
            (true, Some(7), eu, "7 is in eu"),
            (true, Some(7), None, "none of them"),
            (false, Some(7), None, "no profile in any"),
            (false, None, None, "no profile in any"),
        ] {
            let finding = judge_missing(&id, "acme: na", has_others, scope, elsewhere);
            assert_eq!(finding.level, Level::Warning, "{finding:?}");
            assert!(finding.text.contains(words), "{finding:?}");
        }
        for (status, words) in [(401, "not approved"), (403, "not approved"), (500, "failed")] {
            let error = ProfilesError::Refused { status, code: String::new() };
            assert!(judge_refusal(&id, Region::Na, &error).text.contains(words), "{status}");
        }
    }
}
