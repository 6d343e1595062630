//! Whether each grant still gives a token, how long its consent lasts, and what it gives access to.
//!
//! Asks Login with Amazon and the Ads API directly. Nothing is stored, with one exception: a
//! refresh token that was rotated by the check replaces the one it has made invalid. Beside a running
//! server, that server gives the token.

use super::{Finding, profiles::not_approved};
use crate::{
    cli::{
        exit_code,
        session::{Wish, from_server, unknown},
        wire::Server,
    },
    clock::{Clock, SystemClock},
    config::{Config, DEFAULT_APPLICATION, StoreKind},
    error_chain::chain,
    https::{self, LwaHttp},
    id::{AccountId, Region},
    lwa::{self, Application, Granted, LwaClient},
    secret::Secret,
    store::{self, Credential, CredentialStore, Epoch, Lock, StoredAccessToken},
    token::consent::days_left,
};
use anyhow::Context as _;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout_at},
};

/// For all accounts together.
const TIMEOUT: Duration = Duration::from_secs(40);
const CONCURRENCY: usize = 8;
/// A consent that ends within so many days is a warning.
const EXPIRING_DAYS: i64 = 30;
/// One account as configuration and store know it.
#[derive(Clone)]
pub(super) struct Known {
    pub(super) id: AccountId,
    pub(super) region: Region,
    pub(super) application: String,
    /// The profile in the configured default header.
    pub(super) scope: Option<String>,
    seed: Option<Secret>,
    record: Option<Credential>,
}

/// The store, if it outlives this process and exists.
pub(super) fn store(config: &Config) -> Option<Arc<dyn CredentialStore>> {
    let lasts = config.store.kind != StoreKind::Memory && config.store.path.exists();
    lasts.then(|| store::open(&config.store, &config.encryption).ok()).flatten()
}

/// Every account; one whose record cannot be read is a finding of the store's.
pub(super) async fn known(
    config: &Config,
    store: Option<&dyn CredentialStore>,
) -> BTreeMap<AccountId, Known> {
    let mut known = BTreeMap::new();
    let mut ids: BTreeSet<AccountId> = config.accounts.keys().cloned().collect();
    if let Some(store) = store {
        ids.extend(store.list().await.unwrap_or_default());
    }
    for id in ids {
        let configured = config.accounts.get(&id);
        let record = match store {
            Some(store) => store.load(&id).await.ok().flatten(),
            None => None,
        };
        let region = configured.map(|one| one.region).or(record.as_ref().map(|one| one.region));
        let application = configured.map(|one| one.application.clone());
        let application = application.or(record.as_ref().map(|one| one.application.clone()));
        let is_scope = |name: &str| name.eq_ignore_ascii_case("Amazon-Advertising-API-Scope");
        let scope = configured.and_then(|one| {
            let header = one.headers.iter().find(|(name, _)| is_scope(name.as_str()))?;
            header.1.to_str().ok().map(str::to_owned)
        });
        let seed = configured.and_then(|one| one.refresh_token.clone());
        let Some(region) = region else { continue };
        let application = application.unwrap_or_else(|| DEFAULT_APPLICATION.to_owned());
        known.insert(id.clone(), Known { id, region, application, scope, seed, record });
    }
    known
}

/// Checks the `wanted` accounts, or all of them.
pub(super) async fn check(
    config: &Arc<Config>,
    store: Option<Arc<dyn CredentialStore>>,
    server: Option<Server>,
    known: &BTreeMap<AccountId, Known>,
    wanted: &BTreeSet<AccountId>,
) -> Vec<Finding> {
    let mut findings: Vec<Finding> = wanted
        .iter()
        .filter(|id| !known.contains_key(*id))
        .map(|id| Finding::error("grant", unknown(id)).fix("look for a misspelling"))
        .collect();
    let accounts = known.values().filter(|one| wanted.is_empty() || wanted.contains(&one.id));
    let accounts: Vec<Known> = accounts.cloned().collect();
    if accounts.is_empty() && findings.is_empty() {
        let fix = "`adsproxy login ALIAS` or `adsproxy account add ALIAS` makes one";
        findings.push(Finding::warning("grant", "there are no accounts").fix(fix));
    }
    let client = match Client::new(config, store, server) {
        Ok(client) => client,
        Err(error) => {
            let fix = "look at the configured CA file and the machine's certificates";
            findings.push(Finding::error("grant", format!("{error:#}")).fix(fix));
            return findings;
        }
    };
    let deadline = Instant::now() + TIMEOUT;
    let mut checks = JoinSet::new();
    let (mut done, mut next) = (BTreeMap::new(), accounts.iter().cloned());
    loop {
        while checks.len() < CONCURRENCY
            && let Some(account) = next.next()
        {
            let client = client.clone();
            checks.spawn(async move { (account.id.clone(), client.examine(&account).await) });
        }
        match timeout_at(deadline, checks.join_next()).await {
            Ok(Some(Ok((id, found)))) => drop(done.insert(id, found)),
            Ok(Some(Err(_))) => {}
            Ok(None) | Err(_) => break,
        }
    }
    let missed = accounts.len() - done.len();
    findings.extend(done.into_values().flatten());
    if missed > 0 {
        let text = format!("{missed} accounts were not checked within {TIMEOUT:?}");
        let fix = "name the accounts to check: `adsproxy doctor ALIAS`";
        findings.push(Finding::warning("grant", text).fix(fix));
    }
    findings
}

/// What checks go through.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) config: Arc<Config>,
    store: Option<Arc<dyn CredentialStore>>,
    server: Option<Arc<Server>>,
    pub(super) http: LwaHttp,
    lwa: LwaClient,
}

impl Client {
    fn new(
        config: &Arc<Config>,
        store: Option<Arc<dyn CredentialStore>>,
        server: Option<Server>,
    ) -> anyhow::Result<Self> {
        let (connect, total) = (config.token.lwa_connect_timeout, config.token.lwa_timeout);
        let http =
            |roots| anyhow::Ok(LwaHttp::new(&*https::client_config(roots, true)?, connect, total)?);
        let lwa = http(config.other_roots()).context("cannot set up TLS towards Amazon")?;
        let http = http(config.upstream_roots()).context("cannot set up TLS towards Amazon")?;
        let (config, server) = (config.clone(), server.map(Arc::new));
        Ok(Self { config, store, server, lwa: LwaClient::new(lwa), http })
    }

    /// One grant, and if it is alive, its profiles.
    async fn examine(&self, account: &Known) -> Vec<Finding> {
        let id = &account.id;
        let token = match &self.server {
            Some(server) => ask_server(server, id).await,
            None => match self.hold(account).await {
                Ok((_lock, record)) => match self.refresh(account, record).await {
                    Ok(granted) => Ok(granted.access_token),
                    Err(None) => Err(dead(id, "it is not connected")),
                    Err(Some(error)) => Err(judge_refusal(id, &account.application, error)),
                },
                Err(error) => {
                    let text = format!("{id}: not tried: {}", chain(&error));
                    Err(Finding::error("grant", text).fix("`adsproxy account show` has the state"))
                }
            },
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

    /// The account's record, held against a process that would refresh the same token meanwhile.
    /// A record that cannot be read is an error: what is saved later must not replace it.
    async fn hold(
        &self,
        account: &Known,
    ) -> Result<(Option<Lock>, Option<Credential>), store::Error> {
        let Some(store) = &self.store else { return Ok((None, None)) };
        let lock = store.lock(&account.id).await?;
        Ok((Some(lock), store.load(&account.id).await?))
    }

    /// Refreshes once, and saves only what was rotated. `None`: there is no refresh token.
    async fn refresh(
        &self,
        account: &Known,
        record: Option<Credential>,
    ) -> Result<Granted, Option<lwa::Error>> {
        let configured = self.config.applications.get(&account.application).ok_or(None)?;
        let application = Application::new(&account.application, configured);
        let is_seeded = |record: &Credential| match (&account.seed, &self.store) {
            (Some(seed), Some(store)) => {
                record.seed.as_ref().is_some_and(|known| store.fingerprint_matches(known, seed))
            }
            _ => true,
        };
        let record = record.filter(is_seeded);
        if record.as_ref().is_some_and(|record| record.reauthorization_required) {
            return Err(Some(lwa::Error::InvalidGrant));
        }
        let current = record.as_ref().map(|record| &record.refresh_token);
        let current = current.or(account.seed.as_ref()).filter(|token| !token.is_empty());
        let previous = record.as_ref().and_then(|record| record.previous_refresh_token.as_ref());
        let mut outcome = Err(None);
        for token in current.into_iter().chain(previous) {
            let attempts = self.config.token.lwa_attempts_max;
            outcome = self.lwa.refresh(&application, token, attempts).await.map_err(Some);
            if !matches!(outcome, Err(Some(lwa::Error::InvalidGrant))) {
                if let Ok(granted) = &outcome {
                    self.keep_rotated(account, record.as_ref(), token, granted).await;
                }
                break;
            }
        }
        outcome
    }

    async fn keep_rotated(
        &self,
        account: &Known,
        record: Option<&Credential>,
        used: &Secret,
        granted: &Granted,
    ) {
        let (Some(store), Some(rotated)) = (&self.store, &granted.refresh_token) else { return };
        if rotated == used {
            return;
        }
        let issued_at = SystemClock.now().unix();
        let expires_at = issued_at + granted.expires_in.as_secs();
        let token = granted.access_token.clone();
        let record = Credential {
            // The same consent.
            epoch: record.map_or_else(Epoch::random, |record| record.epoch),
            account: account.id.clone(),
            application: account.application.clone(),
            region: account.region,
            refresh_token: rotated.clone(),
            previous_refresh_token: Some(used.clone()),
            access_token: Some(StoredAccessToken { token, issued_at, expires_at }),
            generation: record.map_or(0, |record| record.generation) + 1,
            consented_at: record.and_then(|record| record.consented_at),
            updated_at: issued_at,
            reauthorization_required: false,
            seed: match (record, &account.seed) {
                (Some(record), _) => record.seed.clone(),
                (None, seed) => seed.as_ref().map(|seed| store.fingerprint(seed)),
            },
        };
        if let Err(error) = store.save(&record).await {
            eprintln!(
                "warning: the new refresh token of {} is not saved: {}",
                account.id,
                chain(&error)
            );
        }
    }
}

/// The token that the running server has, or fetches.
async fn ask_server(server: &Arc<Server>, id: &AccountId) -> Result<Secret, Finding> {
    let (server, alias) = (server.clone(), id.clone());
    let wish = Wish { least: Duration::ZERO, must: false, discloses: false };
    let asked = tokio::task::spawn_blocking(move || from_server(&server, &alias, wish)).await;
    let error = match asked {
        Ok(Ok(token)) => return Ok(token.secret),
        Ok(Err(error)) => error,
        Err(_) => anyhow::anyhow!("the running server was not asked"),
    };
    let fix = match exit_code(&error) {
        77 => return Err(dead(id, "it is not connected, or its consent is gone")),
        69 => "repair the connection to login with amazon, then run this again",
        _ => {
            "compare client_id and client_secret with the security profile; `adsproxy status` shows \
              the account's state"
        }
    };
    Err(Finding::error("grant", format!("{id}: {error:#}")).fix(fix).code(exit_code(&error)))
}

fn dead(id: &AccountId, why: &str) -> Finding {
    let fix = format!("connect it again: `adsproxy login {id}`");
    Finding::error("grant", format!("{id}: {why}")).fix(fix).code(77)
}

fn judge_refusal(id: &AccountId, application: &str, error: lwa::Error) -> Finding {
    match error {
        lwa::Error::InvalidGrant => dead(
            id,
            "its consent is gone: withdrawn, older than a year, or given to another application",
        ),
        lwa::Error::InvalidClient => {
            let text = format!(
                "{id}: Login with Amazon rejects the client id or secret of application {application}"
            );
            Finding::error("grant", text)
                .fix("compare client_id and client_secret with the security profile")
        }
        lwa::Error::UnauthorizedClient => {
            not_approved(id, "unauthorized_client of Login with Amazon")
        }
        error => {
            let text = format!("{id}: Login with Amazon gives no token: {}", chain(&error));
            let fix = "repair the connection to login with amazon, then run this again";
            Finding::error("grant", text).fix(fix).code(69)
        }
    }
}

fn judge_consent(id: &AccountId, days: Option<i64>) -> Finding {
    match days {
        None => Finding::ok("grant", format!("{id}: gives a token; its consent is not dated")),
        Some(days) if days > EXPIRING_DAYS => {
            Finding::ok("grant", format!("{id}: gives a token; consent for {days} days more"))
        }
        Some(days) => {
            let text = format!("{id}: gives a token, but its consent ends in {days} days");
            let fix = format!("have the advertiser consent again: `adsproxy login {id}`");
            Finding::warning("grant", text).fix(fix)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Level, *};

    #[test]
    fn refusals_and_consents_are_told_apart() {
        let id: AccountId = "acme".parse().expect("an alias");
        for (finding, level, words) in [
            (judge_refusal(&id, "x", lwa::Error::InvalidGrant), Level::Error, "consent is gone"),
            (judge_refusal(&id, "x", lwa::Error::UnauthorizedClient), Level::Error, "not approved"),
            (judge_refusal(&id, "x", lwa::Error::InvalidClient), Level::Error, "id or secret"),
            (judge_consent(&id, Some(31)), Level::Ok, "31 days"),
            (judge_consent(&id, Some(30)), Level::Warning, "30 days"),
        ] {
            assert_eq!(finding.level, level, "{finding:?}");
            assert!(finding.text.contains(words), "{finding:?}");
        }
    }
}
