//! Whether each grant still brings a token, how long its consent lasts, and what it can see.
//!
//! Asks Login with Amazon and the Ads API for real, over a private data plane: what works here
//! works for an app.

use super::Finding;
use crate::{
    account::State,
    cli::{
        Context, exit_code,
        private::PrivateProxy,
        session::{failure, unknown},
    },
    id::{AccountId, Region},
    sync::Account,
};
use std::{collections::BTreeSet, rc::Rc, sync::Arc, time::Duration};
use tokio::{
    runtime::Runtime,
    sync::Semaphore,
    task::{JoinSet, LocalSet},
    time::{Instant, timeout, timeout_at},
};

/// For all accounts together.
const TIMEOUT: Duration = Duration::from_secs(40);
/// For one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
const CONCURRENCY: usize = 8;
/// A consent that ends within so many days is told.
const EXPIRING_DAYS: i64 = 30;

pub(super) fn check(
    context: &Context,
    runtime: &Runtime,
    wanted: &BTreeSet<AccountId>,
) -> Vec<Finding> {
    let proxy = match PrivateProxy::start(context, None) {
        Ok(proxy) => Rc::new(proxy),
        Err(error) => {
            let mend = "mend what stands above; `adsproxy serve` says the same";
            return vec![Finding::error("grant", format!("{error:#}")).mend(mend)];
        }
    };
    let table = proxy.app.engine().directory().snapshot();
    let mut findings: Vec<Finding> = wanted
        .iter()
        .filter(|alias| !table.contains_key(*alias))
        .map(|alias| Finding::error("grant", unknown(alias)).mend("look for a misspelling"))
        .collect();
    let accounts: Vec<Arc<Account>> = table
        .values()
        .filter(|account| wanted.is_empty() || wanted.contains(&account.id))
        .cloned()
        .collect();
    if accounts.is_empty() && findings.is_empty() {
        let mend = "`adsproxy login ALIAS` or `adsproxy account add ALIAS` makes one";
        findings.push(Finding::warning("grant", "there are no accounts").mend(mend));
    }
    findings.extend(runtime.block_on(LocalSet::new().run_until(all(&proxy, &accounts))));
    if let Some(proxy) = Rc::into_inner(proxy) {
        let _ = proxy.app.drain();
    }
    findings
}

async fn all(proxy: &Rc<PrivateProxy>, accounts: &[Arc<Account>]) -> Vec<Finding> {
    let places = Rc::new(Semaphore::new(CONCURRENCY));
    let mut checks = JoinSet::new();
    for (place, account) in accounts.iter().cloned().enumerate() {
        let (proxy, places) = (proxy.clone(), places.clone());
        checks.spawn_local(async move {
            let _turn = places.acquire().await;
            (place, one(&proxy, &account).await)
        });
    }
    let deadline = Instant::now() + TIMEOUT;
    let mut done = Vec::new();
    while let Ok(Some(checked)) = timeout_at(deadline, checks.join_next()).await {
        done.extend(checked.ok());
    }
    checks.shutdown().await;
    let missed = accounts.len() - done.len();
    done.sort_by_key(|(place, _)| *place);
    let mut findings: Vec<Finding> = done.into_iter().flat_map(|(_, found)| found).collect();
    if missed > 0 {
        let text = format!("{missed} accounts were not looked at within {TIMEOUT:?}");
        let mend = "name the accounts to look at: `adsproxy doctor ALIAS`";
        findings.push(Finding::warning("grant", text).mend(mend));
    }
    findings
}

/// One grant, and if it is alive, its profiles.
async fn one(proxy: &PrivateProxy, account: &Account) -> Vec<Finding> {
    let (tokens, alias) = (proxy.app.engine().tokens(), &account.id);
    // No token lives that long, so this is always a refresh.
    let refreshed =
        timeout(REQUEST_TIMEOUT, tokens.token_for(&account.holder, Duration::MAX)).await;
    let status = tokens.status(&account.holder);
    let error = match refreshed {
        Ok(Ok(_)) => {
            return vec![
                judge_consent(alias, status.consent_days_left),
                judge_profiles(account, &profiles(proxy, alias).await),
            ];
        }
        Ok(Err(error)) => failure(error, alias, status.last_error),
        Err(_) => anyhow::anyhow!("login with amazon did not answer within {REQUEST_TIMEOUT:?}"),
    };
    let mend = match exit_code(&error) {
        77 => format!("connect it again: `adsproxy login {alias}`"),
        69 => "mend the connection to login with amazon, then run this again".to_owned(),
        _ if status.state == State::Sealed => "put the key back into encryption.keys".to_owned(),
        _ => "compare client_id and client_secret with the security profile".to_owned(),
    };
    let text = match exit_code(&error) {
        77 => format!("{alias}: not connected, or the advertiser has withdrawn consent"),
        _ => format!("{alias}: {error:#}"),
    };
    vec![Finding::error("grant", text).mend(mend).code(exit_code(&error))]
}

fn judge_consent(alias: &AccountId, days: Option<i64>) -> Finding {
    match days {
        None => Finding::ok("grant", format!("{alias}: brings a token; its consent is not dated")),
        Some(days) if days > EXPIRING_DAYS => {
            Finding::ok("grant", format!("{alias}: brings a token; consent for {days} days more"))
        }
        Some(days) => {
            let text = format!("{alias}: brings a token, but its consent ends in {days} days");
            let mend = format!("have the advertiser consent again: `adsproxy login {alias}`");
            Finding::warning("grant", text).mend(mend)
        }
    }
}

/// What one region said: the number of profiles, or why there is none to tell.
type Profiles = [(Region, Result<usize, String>); 3];

async fn profiles(proxy: &PrivateProxy, alias: &AccountId) -> Profiles {
    let [na, eu, fe] = [Region::Na, Region::Eu, Region::Fe].map(|region| async move {
        let path = format!("/a/{alias}@{region}/v2/profiles?accessLevel=view");
        let counted = match timeout(REQUEST_TIMEOUT, proxy.get(&path)).await {
            Ok(Ok((200, body))) => match serde_json::from_slice::<Vec<serde_json::Value>>(&body) {
                Ok(profiles) => Ok(profiles.len()),
                Err(_) => Err("something that is no list".to_owned()),
            },
            Ok(Ok((status, body))) => Err(refusal(status, &body)),
            Ok(Err(error)) => Err(format!("{error:#}")),
            Err(_) => Err("no answer in time".to_owned()),
        };
        (region, counted)
    });
    let (na, eu, fe) = tokio::join!(na, eu, fe);
    [na, eu, fe]
}

/// The code of an answer that is an error. Not its text: it may echo what was sent.
fn refusal(status: u16, body: &[u8]) -> String {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    match body["code"].as_str() {
        Some(code) if code.len() < 64 => format!("status {status}, {code}"),
        _ => format!("status {status}"),
    }
}

fn judge_profiles(account: &Account, profiles: &Profiles) -> Finding {
    judge(&account.id, account.region, profiles)
}

fn judge(alias: &AccountId, own: Region, profiles: &Profiles) -> Finding {
    let each = profiles.iter().map(|(region, counted)| match counted {
        Ok(count) => format!("{region} {count}"),
        Err(why) => format!("{region} failed ({why})"),
    });
    let text = format!("{alias}: {}", each.collect::<Vec<_>>().join(", "));
    let here = profiles.iter().find(|(region, _)| *region == own).map(|(_, counted)| counted);
    let elsewhere = profiles.iter().find(|(_, counted)| counted.as_ref().is_ok_and(|c| *c > 0));
    match (here, elsewhere) {
        (Some(Ok(1..)), _) => Finding::ok("profiles", text),
        (Some(Err(_)) | None, _) => {
            let mend = "mend the connection to that region's host; if it answers with a status, the \
                        client id may not be approved for the Ads API";
            Finding::error("profiles", text).mend(mend)
        }
        (Some(Ok(_)), Some((region, _))) => {
            let mend = format!("its profiles are in {region}: change the account's region");
            Finding::warning("profiles", text).mend(mend)
        }
        (Some(Ok(_)), None) => {
            let mend = format!(
                "it sees no advertiser: perhaps the wrong Amazon user consented; \
                 `adsproxy login {alias}`"
            );
            Finding::warning("profiles", text).mend(mend)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Level, *};

    #[test]
    fn profiles_belong_into_the_accounts_region() {
        let alias: AccountId = "acme".parse().unwrap();
        let level = |na, eu: Result<usize, String>| {
            let profiles = [(Region::Na, na), (Region::Eu, eu), (Region::Fe, Ok(0))];
            judge(&alias, Region::Na, &profiles).level
        };
        assert_eq!(level(Ok(2), Ok(0)), Level::Ok);
        assert_eq!(level(Ok(2), Err("x".to_owned())), Level::Ok);
        assert_eq!(level(Ok(0), Ok(2)), Level::Warning);
        assert_eq!(level(Ok(0), Ok(0)), Level::Warning);
        assert_eq!(level(Err("x".to_owned()), Ok(2)), Level::Error);
    }

    #[test]
    fn a_consent_is_told_before_it_ends() {
        let alias: AccountId = "acme".parse().unwrap();
        for (days, level) in [
            (None, Level::Ok),
            (Some(31), Level::Ok),
            (Some(30), Level::Warning),
            (Some(-1), Level::Warning),
        ] {
            assert_eq!(judge_consent(&alias, days).level, level, "{days:?}");
        }
    }

    #[test]
    fn of_an_error_only_the_code_is_told() {
        assert_eq!(refusal(401, br#"{"code":"401","details":"Atza|x"}"#), "status 401, 401");
        assert_eq!(refusal(500, b"<html>Atza|x"), "status 500");
    }
}
