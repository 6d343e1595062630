//! What a grant gives access to: profiles here, elsewhere, none, or only to look at.

use super::{Finding, grants::Client, store::Known};
use crate::{
    error_chain::chain,
    forward::headers,
    id::{AccountId, Region},
    secret::Secret,
};
use http::HeaderValue;
use http_body_util::{BodyExt, Limited};
use serde::Deserialize;
use std::{collections::BTreeSet, time::Duration};

/// For one request to the Ads API.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// 5,000 profiles, Amazon's most, are 2 MB.
const RESPONSE_MAX_BYTES: usize = 16 << 20;

impl Client {
    /// What the grant gives access to, found out by at most four requests.
    pub(super) async fn profiles(&self, account: &Known, token: &Secret) -> Finding {
        let (id, own) = (&account.id, account.region);
        let here = match self.list(account, own, "view", token).await {
            Ok(here) => here,
            Err(finding) => return finding,
        };
        let scope = account.scope.as_ref().and_then(|scope| scope.parse::<i64>().ok());
        let has_it =
            |list: &BTreeSet<i64>| scope.map_or(!list.is_empty(), |scope| list.contains(&scope));
        let text = format!("{id}: {own} {}", here.len());
        if has_it(&here) {
            let editable = self.list(account, own, "edit", token).await;
            if editable.is_ok_and(|list| !has_it(&list)) {
                let fix = "have the advertiser give the Amazon user who consented the editor role; \
                           until then writes get a 401";
                let text = format!("{text}, viewer role: they can be read only");
                return Finding::warning("profiles", text, fix);
            }
            return Finding::ok("profiles", text);
        }
        let mut elsewhere = None;
        for region in Region::ALL.into_iter().filter(|region| *region != own) {
            let list = self.list(account, region, "view", token).await.unwrap_or_default();
            elsewhere = elsewhere.or(has_it(&list).then_some(region));
        }
        judge_missing(id, &text, !here.is_empty(), scope, elsewhere)
    }

    /// The ids of the profiles in `region` that the grant may `view` or `edit`.
    async fn list(
        &self,
        account: &Known,
        region: Region,
        level: &str,
        token: &Secret,
    ) -> Result<BTreeSet<i64>, Finding> {
        let failed = |why: &str| failed(&account.id, region, why);
        let host = self.config.upstream.api()[region as usize];
        let base = host.to_string();
        let url = format!("{}/v2/profiles?accessLevel={level}", base.trim_end_matches('/'));
        let application = self.config.applications.get(&account.application);
        let header = |text: &str| HeaderValue::from_str(text).ok();
        let bearer = header(&format!("Bearer {}", token.expose()));
        let client_id = application.and_then(|application| header(&application.client_id));
        let (Some(mut bearer), Some(client_id)) = (bearer, client_id) else {
            return Err(failed("the token or the client id is no header"));
        };
        bearer.set_sensitive(true);
        let request = self.ways.api.client(host).get(url).timeout(REQUEST_TIMEOUT);
        let response = request.headers(headers::of_our_own(&bearer, &client_id)).send().await;
        let response = response.map_err(|error| failed(&chain(&error.without_url())))?;
        let status = response.status();
        let body = Limited::new(reqwest::Body::from(response), RESPONSE_MAX_BYTES).collect().await;
        let body = body.map_err(|_| failed("its response broke off or is too large"))?.to_bytes();
        if !status.is_success() {
            return Err(judge_refusal(&account.id, region, status.as_u16(), &body));
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct ListedProfile {
            profile_id: i64,
        }
        let list: Vec<ListedProfile> =
            serde_json::from_slice(&body).map_err(|_| failed("its response is no list"))?;
        Ok(list.into_iter().map(|profile| profile.profile_id).collect())
    }
}

fn failed(id: &AccountId, region: Region, why: &str) -> Finding {
    let fix = "repair the connection to that region's host, or try again later";
    Finding::error("profiles", format!("{id}: {region} failed ({why})"), fix)
}

/// Shows status and code of a refusal. Not its text: it may echo what was sent.
fn judge_refusal(id: &AccountId, region: Region, status: u16, body: &[u8]) -> Finding {
    let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let code = body["code"].as_str().filter(|code| code.len() < 64);
    let code = code.map(|code| format!(", {code}")).unwrap_or_default();
    match status {
        401 | 403 => not_approved(id, &format!("{region}: status {status}{code}")),
        _ => failed(id, region, &format!("status {status}{code}")),
    }
}

pub(super) fn not_approved(id: &AccountId, why: &str) -> Finding {
    Finding::error(
        "profiles",
        format!("{id}: the client id is not approved for the Ads API ({why})"),
        "apply for access to the Amazon Ads API and have this security profile assigned to it; the \
         grant itself is good",
    )
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
    fn look_alikes_are_told_apart() {
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
        let text = |status| judge_refusal(&id, Region::Na, status, b"").text;
        for status in [401, 403] {
            assert!(text(status).contains("not approved"), "{status}");
        }
        assert!(text(500).contains("failed"));
    }

    #[test]
    fn a_refusal_shows_its_code_and_no_text() {
        let id: AccountId = "acme".parse().expect("an alias");
        let body = br#"{"code":"UNAUTHORIZED","details":"CANARY"}"#;
        let shown = judge_refusal(&id, Region::Na, 403, body).text;
        assert!(shown.ends_with("(na: status 403, UNAUTHORIZED)"), "{shown}");
        let shown = judge_refusal(&id, Region::Na, 500, b"CANARY").text;
        assert!(shown.ends_with("(status 500)"), "{shown}");
    }
}
