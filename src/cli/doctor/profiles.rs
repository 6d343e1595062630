//! What a grant gives access to: profiles here, elsewhere, none, or only to look at.

use super::{
    Finding,
    grants::{Client, Known},
};
use crate::{
    error_chain::chain,
    forward::headers,
    id::{AccountId, Region},
    secret::Secret,
};
use http::HeaderValue;
use serde::Deserialize;
use std::{collections::BTreeSet, time::Duration};

/// For one request to the Ads API.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// 5,000 profiles, Amazon's most, are 2 MB.
const RESPONSE_MAX_BYTES: usize = 16 << 20;

/// The ids of the profiles that a request returned, or why not.
type Profiles = Result<BTreeSet<i64>, Refusal>;

/// Why the Ads API returned no profiles.
#[derive(Debug)]
struct Refusal {
    status: Option<u16>,
    text: String,
}

impl Refusal {
    fn new(text: &str) -> Self {
        Self { status: None, text: text.to_owned() }
    }
}

impl Client {
    /// What the grant gives access to, told apart by at most four requests.
    pub(super) async fn profiles(&self, account: &Known, token: &Secret) -> Finding {
        let (id, own) = (&account.id, account.region);
        let here = match self.ask(account, own, "view", token).await {
            Ok(here) => here,
            Err(refusal) => return judge_api(id, own, &refusal),
        };
        let scope = account.scope.as_ref().and_then(|scope| scope.parse::<i64>().ok());
        let is_missing = scope.is_some_and(|scope| !here.contains(&scope));
        if here.is_empty() || is_missing {
            let others = Region::ALL.into_iter().filter(|region| *region != own);
            let mut elsewhere = None;
            for region in others {
                let list = self.ask(account, region, "view", token).await.unwrap_or_default();
                let is_there = scope.map_or(!list.is_empty(), |scope| list.contains(&scope));
                elsewhere = elsewhere.or(is_there.then_some(region));
            }
            return judge_missing(id, own, here.len(), scope, elsewhere);
        }
        let editable = self.ask(account, own, "edit", token).await;
        let count = here.len();
        let text = format!("{id}: {own} {count}");
        let view_only = editable.map_or(0, |editable| match scope {
            Some(scope) => usize::from(!editable.contains(&scope)),
            None if editable.is_empty() => count,
            None => 0,
        });
        match view_only {
            0 => Finding::ok("profiles", text),
            _ => {
                Finding::warning("profiles", format!("{text}, viewer role: they can be read only"))
                    .fix(
                        "have the advertiser give the Amazon user who consented the editor role; \
                      until then writes get a 401",
                    )
            }
        }
    }

    async fn ask(&self, account: &Known, region: Region, level: &str, token: &Secret) -> Profiles {
        let host = self.config.upstream.api[region as usize].clone();
        let base = host.to_string();
        let url = format!("{}/v2/profiles?accessLevel={level}", base.trim_end_matches('/'));
        let client_id = self.config.applications.get(&account.application);
        let client_id = client_id.map(|application| application.client_id.as_str());
        let header = |text: &str| HeaderValue::from_str(text).ok();
        let bearer = header(&format!("Bearer {}", token.expose()));
        let (Some(mut bearer), Some(client_id)) = (bearer, client_id.and_then(header)) else {
            return Err(Refusal::new("the token or the client id is no header"));
        };
        bearer.set_sensitive(true);
        let request = self.http.client(&host).get(url);
        let request = request.headers(headers::of_our_own(&bearer, &client_id));
        let mut response = request
            .timeout(REQUEST_TIMEOUT)
            .send()
            .await
            .map_err(|error| Refusal::new(&chain(&error.without_url())))?;
        let status = response.status();
        let mut body = Vec::new();
        while let Ok(Some(chunk)) = response.chunk().await {
            if body.len() + chunk.len() > RESPONSE_MAX_BYTES {
                return Err(Refusal::new("its response is too large"));
            }
            body.extend_from_slice(&chunk);
        }
        if !status.is_success() {
            return Err(Refusal {
                status: Some(status.as_u16()),
                text: code(status.as_u16(), &body),
            });
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Profile {
            profile_id: i64,
        }
        let list: Vec<Profile> =
            serde_json::from_slice(&body).map_err(|_| Refusal::new("its response is no list"))?;
        Ok(list.into_iter().map(|profile| profile.profile_id).collect())
    }
}

/// Status and code of a refusal. Not its text: it may echo what was sent.
fn code(status: u16, body: &[u8]) -> String {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    match body["code"].as_str() {
        Some(code) if code.len() < 64 => format!("status {status}, {code}"),
        _ => format!("status {status}"),
    }
}

pub(super) fn not_approved(id: &AccountId, why: &str) -> Finding {
    let text = format!("{id}: the client id is not approved for the Ads API ({why})");
    Finding::error("profiles", text).fix(
        "apply for access to the Amazon Ads API and have this security profile assigned to it; the \
         grant itself is good",
    )
}

fn judge_api(id: &AccountId, region: Region, refusal: &Refusal) -> Finding {
    match refusal.status {
        Some(401 | 403) => not_approved(id, &format!("{region}: {}", refusal.text)),
        _ => Finding::error("profiles", format!("{id}: {region} failed ({})", refusal.text))
            .fix("repair the connection to that region's host, or try again later"),
    }
}

/// The profile is not here, or there is none at all.
fn judge_missing(
    id: &AccountId,
    own: Region,
    count: usize,
    scope: Option<i64>,
    elsewhere: Option<Region>,
) -> Finding {
    let text = format!("{id}: {own} {count}");
    match (scope, elsewhere) {
        (Some(scope), Some(region)) => {
            Finding::warning("profiles", format!("{text}, and profile {scope} is in {region}"))
                .fix(format!("set region = \"{region}\" for the account"))
        }
        (None, Some(region)) => {
            Finding::warning("profiles", format!("{text}, its profiles are in {region}"))
                .fix(format!("set region = \"{region}\" for the account"))
        }
        (Some(scope), None) if count > 0 => {
            Finding::warning("profiles", format!("{text}, and profile {scope} is none of them"))
                .fix("take one of `GET /v2/profiles` for Amazon-Advertising-API-Scope")
        }
        (_, None) => {
            Finding::warning("profiles", format!("{text}, no profile in any region")).fix(format!(
                "the grant is good, but the Amazon user who consented manages no advertiser: have \
                 the right user consent with `adsproxy login {id}`"
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Level, *};

    #[test]
    fn look_alikes_are_told_apart() {
        let id: AccountId = "acme".parse().expect("an alias");
        let eu = Some(Region::Eu);
        for (count, scope, elsewhere, words) in [
            (0, None, eu, "profiles are in eu"),
            (2, Some(7), eu, "7 is in eu"),
            (2, Some(7), None, "none of them"),
            (0, Some(7), None, "no profile in any"),
            (0, None, None, "no profile in any"),
        ] {
            let finding = judge_missing(&id, Region::Na, count, scope, elsewhere);
            assert_eq!(finding.level, Level::Warning, "{finding:?}");
            assert!(finding.text.contains(words), "{finding:?}");
        }
        let refusal = |status| Refusal { status, text: "status".to_owned() };
        let text = |status| judge_api(&id, Region::Na, &refusal(status)).text;
        for status in [401, 403] {
            assert!(text(Some(status)).contains("not approved"), "{status}");
        }
        assert!(text(Some(500)).contains("failed") && text(None).contains("failed"));
    }

    #[test]
    fn a_refusal_shows_its_code_and_no_text() {
        let body = br#"{"code":"UNAUTHORIZED","details":"CANARY"}"#;
        assert_eq!(code(403, body), "status 403, UNAUTHORIZED");
        assert_eq!(code(500, b"CANARY"), "status 500");
    }
}
