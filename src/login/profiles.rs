//! The advertiser profiles that a grant gives access to, in every region that responds.

use crate::{
    config::Upstream, error_chain::chain, forward::headers, https::LwaHttp, id::Region,
    secret::Secret,
};
use http::{HeaderValue, StatusCode, Uri};
use http_body_util::{BodyExt, Limited};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{collections::BTreeSet, time::Duration};

/// How long a region may take: a person waits for the page.
const TIMEOUT: Duration = Duration::from_secs(8);
/// 5,000 profiles, Amazon's most, are 2 MB.
const RESPONSE_MAX_BYTES: usize = 4 << 20;

/// One advertiser profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct AdvertiserProfile {
    /// Amazon's number for it.
    pub(crate) id: i64,
    /// The country of its marketplace.
    pub(crate) country: String,
    /// The advertiser's name.
    pub(crate) name: String,
    /// `seller`, `vendor` or `agency`.
    pub(crate) kind: String,
    /// Of its budgets and bids, such as `USD`; empty for one that was read before this was kept.
    #[serde(default)]
    pub(crate) currency: String,
}

/// Why a region lists no profiles; never the response's own words, which may echo what was sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProfilesError {
    #[error("status {status}{code}")]
    Refused { status: u16, code: String },
    #[error("{0}")]
    Failed(String),
}

impl From<&str> for ProfilesError {
    fn from(why: &str) -> Self {
        Self::Failed(why.to_owned())
    }
}

type Profiles = Option<Vec<AdvertiserProfile>>;

/// The profiles of one grant by region; none for a region that did not respond.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct GrantProfiles {
    pub(crate) na: Profiles,
    pub(crate) eu: Profiles,
    pub(crate) fe: Profiles,
}

impl GrantProfiles {
    /// Every region that responded, with its profiles; one that two regions list counts once.
    pub(crate) fn regions(&self) -> Vec<(Region, Vec<&AdvertiserProfile>)> {
        let mut seen = BTreeSet::new();
        let lists = [(Region::Na, &self.na), (Region::Eu, &self.eu), (Region::Fe, &self.fe)];
        let responded =
            lists.into_iter().filter_map(|(region, list)| Some((region, list.as_ref()?)));
        responded
            .map(|(region, list)| (region, list.iter().filter(|one| seen.insert(one.id)).collect()))
            .collect()
    }

    /// The region with the most profiles; none if there is no profile.
    pub(super) fn home(&self) -> Option<Region> {
        let counted = self.regions().into_iter().map(|(region, list)| (list.len(), region));
        // Of equals the first: North America.
        let most = counted.filter(|(count, _)| *count > 0).rev().max_by_key(|(count, _)| *count);
        most.map(|(_, region)| region)
    }

    /// Whether both are the same user's, by the regions that responded both times. None where there
    /// is nothing to compare.
    pub(super) fn is_same(&self, other: &Self) -> Option<bool> {
        let ids =
            |list: &[AdvertiserProfile]| list.iter().map(|one| one.id).collect::<BTreeSet<_>>();
        let mut seen = None;
        for (one, two) in [(&self.na, &other.na), (&self.eu, &other.eu), (&self.fe, &other.fe)] {
            let (Some(one), Some(two)) = (one, two) else { continue };
            let (one, two) = (ids(one), ids(two));
            if one != two {
                return Some(false);
            }
            if !one.is_empty() {
                seen = Some(true);
            }
        }
        seen
    }
}

/// Whether `c` can make a text look like another one: it moves the cursor or turns what follows.
pub(crate) fn is_deceptive(c: char) -> bool {
    let turns = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}');
    c.is_control() || turns || matches!(c, '\u{2028}' | '\u{2029}' | '\u{2066}'..='\u{2069}')
}

/// Asks every region at once which profiles `bearer` may see.
pub(super) async fn of_grant(
    http: &LwaHttp,
    upstream: &Upstream,
    bearer: &HeaderValue,
    client_id: &str,
) -> GrantProfiles {
    // All profiles that the user may see, not only those it may change.
    let [na, eu, fe] = upstream.api().map(async |host| {
        let listed = list(http, host, bearer, client_id, "view").await;
        let report = |why: &ProfilesError| {
            tracing::info!(host = host.host(), %why, "a region does not list its profiles");
        };
        listed.inspect_err(report).ok()
    });
    let (na, eu, fe) = tokio::join!(na, eu, fe);
    GrantProfiles { na, eu, fe }
}

/// The bearer header of an access token that was just issued.
pub(crate) fn bearer(access_token: &Secret) -> Option<HeaderValue> {
    let mut header = HeaderValue::from_str(&format!("Bearer {}", access_token.expose())).ok()?;
    header.set_sensitive(true);
    Some(header)
}

/// The profiles at `host` that `bearer` may at least `view` or `edit`.
pub(crate) async fn list(
    http: &LwaHttp,
    host: &Uri,
    bearer: &HeaderValue,
    client_id: &str,
    level: &str,
) -> Result<Vec<AdvertiserProfile>, ProfilesError> {
    let client_id = HeaderValue::from_str(client_id).map_err(|_| "the client id is no header")?;
    let url = format!("{}/v2/profiles?accessLevel={level}", host.to_string().trim_end_matches('/'));
    let request = http.client(host).get(url).headers(headers::of_our_own(bearer, &client_id));
    let response = request.timeout(TIMEOUT).send().await;
    let response = response.map_err(|error| ProfilesError::Failed(chain(&error.without_url())))?;
    let status = response.status();
    let body = Limited::new(reqwest::Body::from(response), RESPONSE_MAX_BYTES).collect().await;
    let body = body.map_err(|_| "its response broke off or is too large")?.to_bytes();
    if status != StatusCode::OK {
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let code = body["code"].as_str().filter(|code| code.len() < 64);
        let code = code.map(|code| format!(", {code}")).unwrap_or_default();
        return Err(ProfilesError::Refused { status: status.as_u16(), code });
    }
    let list: Vec<Value> = serde_json::from_slice(&body).map_err(|_| "its response is no list")?;
    Ok(list.iter().map(profile).collect::<Option<_>>().ok_or("a profile has no id")?)
}

fn profile(said: &Value) -> Option<AdvertiserProfile> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let info = &said["accountInfo"];
    Some(AdvertiserProfile {
        id: said["profileId"].as_i64()?,
        country: text(&said["countryCode"]),
        name: text(&info["name"]),
        kind: text(&info["type"]),
        currency: text(&said["currencyCode"]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found([na, eu, fe]: [Profiles; 3]) -> GrantProfiles {
        GrantProfiles { na, eu, fe }
    }

    fn list(ids: &[i64]) -> Profiles {
        let profile = |&id| AdvertiserProfile {
            id,
            country: "US".into(),
            name: "n".into(),
            kind: "seller".into(),
            currency: "USD".into(),
        };
        Some(ids.iter().map(profile).collect())
    }

    #[test]
    fn grants_are_compared_by_the_regions_that_answered_both_times() {
        for (one, two, same) in [
            ([list(&[1, 2]), None, None], [list(&[2, 1]), None, None], Some(true)),
            ([list(&[1]), None, None], [list(&[2]), None, None], Some(false)),
            ([list(&[1]), None, None], [list(&[1, 2]), None, None], Some(false)),
            ([list(&[1]), list(&[]), None], [list(&[1]), list(&[3]), None], Some(false)),
            ([list(&[1]), None, None], [list(&[1]), list(&[3]), None], Some(true)),
            ([list(&[1]), None, None], [None, list(&[3]), None], None),
            ([list(&[]), None, None], [list(&[]), None, None], None),
            ([None, None, None], [None, None, None], None),
        ] {
            let (one, two) = (found(one), found(two));
            assert_eq!(one.is_same(&two), same, "{one:?} {two:?}");
            assert_eq!(two.is_same(&one), same);
        }
    }

    #[test]
    fn a_profile_that_was_kept_without_its_currency_is_read() {
        let kept = r#"{"id":7,"country":"DE","name":"n","kind":"vendor"}"#;
        let kept: AdvertiserProfile = serde_json::from_str(kept).expect("a profile");
        assert_eq!((kept.id, kept.currency.as_str()), (7, ""));
        let said =
            serde_json::json!({ "profileId": 7, "countryCode": "DE", "currencyCode": "EUR" });
        assert_eq!(profile(&said).expect("a profile").currency, "EUR");
    }

    #[test]
    fn the_home_is_where_most_profiles_are_and_each_is_shown_once() {
        assert_eq!(found([list(&[]), list(&[1]), None]).home(), Some(Region::Eu));
        assert_eq!(found([list(&[]), list(&[]), list(&[])]).home(), None);
        assert_eq!(GrantProfiles::default().home(), None);
        let everywhere = found([list(&[1, 2]), list(&[1, 2]), list(&[2, 3])]);
        let shown: Vec<_> =
            everywhere.regions().iter().map(|(region, list)| (*region, list.len())).collect();
        assert_eq!(shown, [(Region::Na, 2), (Region::Eu, 0), (Region::Fe, 1)]);
        assert_eq!(everywhere.home(), Some(Region::Na));
    }
}
