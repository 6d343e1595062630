//! Whether each grant still gives a token, how long its consent lasts, and what it gives access to.
//!
//! Asks Login with Amazon and the Ads API directly. Nothing is stored, with one exception: a
//! refresh token that was rotated by the check replaces the one it has made invalid. Beside a running
//! server, that server gives the token.

use super::{Finding, joined, network::Ways, profiles::not_approved, store::Known};
use crate::{
    audit::{Action, Actor, Audit, Entry},
    cli::{
        exit_code, note,
        session::{Wish, from_server, unknown},
        wire::Server,
    },
    clock::{Clock, SystemClock},
    config::Config,
    error_chain::chain,
    grants::Grants,
    id::AccountId,
    lwa::{self, Application, GrantedToken, LwaClient, LwaFailure},
    secret::Secret,
    store::{self, Credential, Lease, Store, StoredAccessToken, Versioned, fingerprint},
    token::consent::{WARN_DAYS, days_left},
};
use std::{sync::Arc, time::Duration};
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

/// Checks the `wanted` accounts, or all of them.
pub(super) async fn check(client: Client, known: Vec<Known>, wanted: &[AccountId]) -> Vec<Finding> {
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
        let (client, places) = (client.clone(), places.clone());
        tokio::spawn(async move {
            let examined = async {
                let _place = places.acquire().await;
                client.examine(&account).await
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

/// What checks go through.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) config: Arc<Config>,
    grants: Option<Grants>,
    server: Option<Server>,
    pub(super) ways: Ways,
}

impl Client {
    pub(super) fn new(
        config: Arc<Config>,
        store: Option<Store>,
        server: Option<Server>,
        ways: Ways,
    ) -> Self {
        let grants = store.map(|store| {
            let audit = Audit::of_store(&store, &config.audit, Arc::new(SystemClock));
            Grants::new(store, audit)
        });
        Self { config, grants, server, ways }
    }

    /// One grant, and if it is alive, its profiles.
    async fn examine(&self, account: &Known) -> Vec<Finding> {
        let id = &account.id;
        let token = match &self.server {
            Some(server) => ask_server(server.clone(), id.clone()).await,
            None => self.refresh(account).await,
        };
        match token {
            Ok(token) => {
                let consented_at = account.record.as_ref().and_then(|record| record.consented_at);
                let days = consented_at.map(|at| days_left(at, SystemClock.now().unix()));
                vec![judge_consent(id, days), self.profiles(account, &token).await]
            }
            Err(finding) => vec![finding],
        }
    }

    async fn refresh(&self, account: &Known) -> Result<Secret, Finding> {
        let id = &account.id;
        let (lease, found) = self.lease(id).await.map_err(|error| {
            let text = format!("{id}: not tried: {}", chain(&error));
            Finding::error("grant", text, "`adsproxy account show` has the state")
        })?;
        match self.ask_lwa(account, found, lease.as_ref()).await {
            Ok(granted) => Ok(granted.access_token),
            Err(None) => Err(dead(id, "it is not connected")),
            Err(Some(error)) => Err(judge_refusal(id, &account.application, &error)),
        }
    }

    /// The account's record, leased so that no other process refreshes it meanwhile. A record that
    /// cannot be read is an error: what is saved later must not replace it.
    async fn lease(
        &self,
        id: &AccountId,
    ) -> Result<(Option<Lease>, Option<Versioned<Credential>>), store::Error> {
        let Some(grants) = &self.grants else { return Ok((None, None)) };
        let lease = match grants.store().lease_grant(id, LEASE, LEASE).await {
            // There is no record: only the configuration has a refresh token.
            Err(store::Error::Conflict) => None,
            lease => Some(lease?),
        };
        Ok((lease, grants.store().grant(id).await?))
    }

    /// Refreshes once, and saves only what was rotated. `None`: there is no refresh token.
    async fn ask_lwa(
        &self,
        account: &Known,
        found: Option<Versioned<Credential>>,
        lease: Option<&Lease>,
    ) -> Result<GrantedToken, Option<lwa::Error>> {
        let configured = self.config.applications.get(&account.application).ok_or(None)?;
        let application = Application::new(&account.application, configured);
        let seed = account.seed.as_ref();
        let is_seeded = |found: &Versioned<Credential>| {
            seed.is_none_or(|seed| found.value.seed.as_ref() == Some(&fingerprint(seed)))
        };
        let found = found.filter(is_seeded);
        let record = found.as_ref().map(|found| &found.value);
        if record.is_some_and(|record| record.reauthorization_required) {
            return Err(Some(lwa::Error::InvalidGrant));
        }
        let current = record.map(|record| &record.refresh_token);
        let current = current.or(seed).filter(|token| !token.is_empty());
        let previous = record.and_then(|record| record.previous_refresh_token.as_ref());
        let lwa = LwaClient::new(self.ways.lwa.clone());
        let mut outcome = Err(None);
        for token in current.into_iter().chain(previous) {
            let attempts = self.config.token.lwa_attempts_max;
            outcome = lwa.refresh(&application, token, attempts).await.map_err(Some);
            if let (Ok(granted), Some(grants)) = (&outcome, &self.grants)
                && let Some(rotated) = granted.refresh_token.as_ref().filter(|new| *new != token)
            {
                let tokens = (token, rotated, granted);
                let kept = self.keep_rotated(grants, account, found.as_ref(), lease, tokens).await;
                if let Err(error) = kept {
                    let (id, error) = (&account.id, chain(&error));
                    note(format_args!(
                        "warning: the new refresh token of {id} is not saved: {error}"
                    ));
                }
            }
            if !matches!(outcome, Err(Some(lwa::Error::InvalidGrant))) {
                break;
            }
        }
        outcome
    }

    /// Saves the refresh token that has replaced `used`.
    async fn keep_rotated(
        &self,
        grants: &Grants,
        account: &Known,
        found: Option<&Versioned<Credential>>,
        lease: Option<&Lease>,
        (used, rotated, granted): (&Secret, &Secret, &GrantedToken),
    ) -> Result<(), store::Error> {
        let now = SystemClock.now().unix();
        let found = match found {
            Some(found) => found.clone(),
            None => {
                let config = self.config.accounts.get(&account.id);
                let (Some(config), Some(seed)) = (config, &account.seed) else { return Ok(()) };
                let seeded = grants.seed(&account.id, config, seed, now).await?;
                seeded.map_err(|unwritten| unwritten.error)?;
                let Some(found) = grants.store().grant(&account.id).await? else { return Ok(()) };
                found
            }
        };
        let record = Credential {
            refresh_token: rotated.clone(),
            previous_refresh_token: Some(used.clone()),
            access_token: Some(StoredAccessToken {
                token: granted.access_token.clone(),
                issued_at: now,
                expires_at: now + granted.expires_in.as_secs(),
            }),
            generation: found.value.generation + 1,
            updated_at: now,
            ..found.value.clone()
        };
        let entry = Entry::new(Actor::cli(), Action::TokenRefresh).account(&account.id);
        let entry = entry.generation(record.generation);
        grants.update_and_record(&record, found.began(), lease, entry).await
    }
}

/// The token that the running server has, or fetches.
async fn ask_server(server: Server, id: AccountId) -> Result<Secret, Finding> {
    let wish = Wish { least: Duration::ZERO, must: false, discloses: false };
    let alias = id.clone();
    let asked = spawn_blocking(move || from_server(&server, &alias, wish)).await;
    let error = match asked.unwrap_or_else(|error| Err(error.into())) {
        Ok(token) => return Ok(token.secret),
        Err(error) => error,
    };
    let fix = match exit_code(&error) {
        77 => return Err(dead(&id, "it is not connected, or its consent is gone")),
        69 => RECONNECT_FIX,
        _ => {
            "compare client_id and client_secret with the security profile; `adsproxy status` \
              shows the account's state"
        }
    };
    Err(Finding::error("grant", format!("{id}: {error:#}"), fix).code(exit_code(&error)))
}

const RECONNECT_FIX: &str = "repair the connection to login with amazon, then run this again";

fn dead(id: &AccountId, why: &str) -> Finding {
    let fix = format!("connect it again: `adsproxy login {id}`");
    Finding::error("grant", format!("{id}: {why}"), fix).code(77)
}

fn judge_refusal(id: &AccountId, application: &str, error: &lwa::Error) -> Finding {
    match error {
        lwa::Error::InvalidGrant => dead(
            id,
            "its consent is gone: withdrawn, older than a year, or given to another application",
        ),
        lwa::Error::InvalidClient => {
            let what = "Login with Amazon rejects the client id or secret of application";
            let fix = "compare client_id and client_secret with the security profile";
            Finding::error("grant", format!("{id}: {what} {application}"), fix)
        }
        lwa::Error::UnauthorizedClient => {
            not_approved(id, "unauthorized_client of Login with Amazon")
        }
        error => {
            let text = format!("{id}: Login with Amazon gives no token: {}", chain(error));
            match error.failure() {
                LwaFailure::Unreachable => Finding::error("grant", text, RECONNECT_FIX).code(69),
                lasting => Finding::error("grant", text, lasting.advice()),
            }
        }
    }
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

#[cfg(test)]
mod tests {
    use super::{super::finding::Level, *};

    #[test]
    fn refusals_and_consents_are_distinguished() {
        let id: AccountId = "acme".parse().expect("an alias");
        let refused = |error| judge_refusal(&id, "x", &error);
        for (finding, level, words) in [
            (refused(lwa::Error::InvalidGrant), Level::Error, "consent is gone"),
            (refused(lwa::Error::UnauthorizedClient), Level::Error, "not approved"),
            (refused(lwa::Error::InvalidClient), Level::Error, "id or secret"),
            (refused(lwa::Error::NotLwa { status: 403 }), Level::Error, "status 403"),
            (judge_consent(&id, Some(31)), Level::Ok, "31 days"),
            (judge_consent(&id, Some(30)), Level::Warning, "30 days"),
        ] {
            assert_eq!(finding.level, level, "{finding:?}");
            assert!(finding.text.contains(words), "{finding:?}");
        }
    }
}
