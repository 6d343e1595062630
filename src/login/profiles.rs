//! Whom one became: the advertiser profiles that a grant may look at, in every region that answers.

use crate::{config::Upstream, forward::headers, https::LwaHttp, id::Region, secret::Secret};
use http::{HeaderValue, StatusCode, Uri};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, time::Duration};

/// How long a region may take: somebody waits for the page.
const TIMEOUT: Duration = Duration::from_secs(8);
/// 5,000 profiles, Amazon's most, are 2 MB.
const ANSWER_MAX_BYTES: usize = 4 << 20;
/// What is asked: all that the user may see, not only what it may change.
const PATH: &str = "/v2/profiles?accessLevel=view";

/// One advertiser profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// Amazon's number for it.
    pub id: i64,
    /// The country of its marketplace.
    pub country: String,
    /// The advertiser's name.
    pub name: String,
    /// `seller`, `vendor` or `agency`.
    pub kind: String,
}

/// The profiles of one grant, by region; none for a region that did not answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "ByRegion", into = "ByRegion")]
pub struct Found(pub [Option<Vec<Profile>>; 3]);

/// As it is written: a region that did not answer is null.
#[derive(Serialize, Deserialize)]
struct ByRegion {
    na: Option<Vec<Profile>>,
    eu: Option<Vec<Profile>>,
    fe: Option<Vec<Profile>>,
}

impl From<ByRegion> for Found {
    fn from(ByRegion { na, eu, fe }: ByRegion) -> Self {
        Self([na, eu, fe])
    }
}

impl From<Found> for ByRegion {
    fn from(Found([na, eu, fe]): Found) -> Self {
        Self { na, eu, fe }
    }
}

impl Found {
    /// Every region that answered, with its profiles; one that two regions tell counts once.
    #[must_use]
    pub fn regions(&self) -> Vec<(Region, Vec<&Profile>)> {
        let mut told = BTreeSet::new();
        let answered = Region::ALL.into_iter().zip(&self.0);
        let answered = answered.filter_map(|(region, list)| Some((region, list.as_ref()?)));
        answered
            .map(|(region, list)| {
                (region, list.iter().filter(|profile| told.insert(profile.id)).collect())
            })
            .collect()
    }

    /// The region with the most profiles; none if there is no profile.
    #[must_use]
    pub fn home(&self) -> Option<Region> {
        let counted = self.regions().into_iter().map(|(region, list)| (list.len(), region));
        // Of equals the first: North America.
        let most = counted.filter(|(count, _)| *count > 0).rev().max_by_key(|(count, _)| *count);
        most.map(|(_, region)| region)
    }

    /// Whether both are the same user's, as far as can be told: by the regions both answered. None
    /// where there is nothing to compare.
    pub(super) fn is_same(&self, other: &Self) -> Option<bool> {
        let ids = |list: &[Profile]| list.iter().map(|one| one.id).collect::<BTreeSet<_>>();
        let mut seen = None;
        for (one, two) in self.0.iter().zip(&other.0) {
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
#[must_use]
pub fn is_deceptive(c: char) -> bool {
    let turns = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}');
    c.is_control() || turns || matches!(c, '\u{2028}' | '\u{2029}' | '\u{2066}'..='\u{2069}')
}

/// One profile as Amazon spells it, less what nobody looks at.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spelled {
    profile_id: i64,
    #[serde(default)]
    country_code: String,
    #[serde(default)]
    account_info: Info,
}

#[derive(Default, Deserialize)]
struct Info {
    #[serde(default)]
    name: String,
    #[serde(default, rename = "type")]
    kind: String,
}

/// Asks every region at once whose profiles `bearer` may see.
pub(super) async fn of_grant(
    http: &LwaHttp,
    upstream: &Upstream,
    bearer: &HeaderValue,
    client_id: &str,
) -> Found {
    let Ok(client_id) = HeaderValue::from_str(client_id) else { return Found::default() };
    let [na, eu, fe] = upstream.api.each_ref().map(|host| ask(http, host, bearer, &client_id));
    let (na, eu, fe) = tokio::join!(na, eu, fe);
    Found([na, eu, fe])
}

/// The bearer header of an access token that was just issued.
pub(super) fn bearer(access_token: &Secret) -> Option<HeaderValue> {
    let mut header = HeaderValue::from_str(&format!("Bearer {}", access_token.expose())).ok()?;
    header.set_sensitive(true);
    Some(header)
}

async fn ask(
    http: &LwaHttp,
    host: &Uri,
    bearer: &HeaderValue,
    client_id: &HeaderValue,
) -> Option<Vec<Profile>> {
    let url = format!("{}{PATH}", host.to_string().trim_end_matches('/'));
    let request = http.client(host).get(url).headers(headers::of_our_own(bearer, client_id));
    let answer = read(request.timeout(TIMEOUT)).await;
    if let Err(why) = &answer {
        tracing::info!(host = host.host(), why, "a region does not tell its profiles");
    }
    answer.ok()
}

async fn read(request: reqwest::RequestBuilder) -> Result<Vec<Profile>, &'static str> {
    let mut response = request.send().await.map_err(|_| "no answer")?;
    if response.status() != StatusCode::OK {
        return Err("it answered no 200");
    }
    let mut text = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|_| "its answer broke off")? {
        if text.len() + chunk.len() > ANSWER_MAX_BYTES {
            return Err("its answer is too long");
        }
        text.extend_from_slice(&chunk);
    }
    let list: Vec<Spelled> = serde_json::from_slice(&text).map_err(|_| "its answer is no list")?;
    let profile = |Spelled { profile_id, country_code, account_info }| Profile {
        id: profile_id,
        country: country_code,
        name: account_info.name,
        kind: account_info.kind,
    };
    Ok(list.into_iter().map(profile).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(ids: &[i64]) -> Option<Vec<Profile>> {
        let profile =
            |&id| Profile { id, country: "US".into(), name: "n".into(), kind: "seller".into() };
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
            let (one, two) = (Found(one), Found(two));
            assert_eq!(one.is_same(&two), same, "{one:?} {two:?}");
            assert_eq!(two.is_same(&one), same);
        }
    }

    #[test]
    fn the_home_is_where_most_profiles_are_and_each_is_shown_once() {
        assert_eq!(Found([list(&[]), list(&[1]), None]).home(), Some(Region::Eu));
        assert_eq!(Found([list(&[]), list(&[]), list(&[])]).home(), None);
        assert_eq!(Found::default().home(), None);
        let everywhere = Found([list(&[1, 2]), list(&[1, 2]), list(&[2, 3])]);
        let shown: Vec<_> =
            everywhere.regions().iter().map(|(region, list)| (*region, list.len())).collect();
        assert_eq!(shown, [(Region::Na, 2), (Region::Eu, 0), (Region::Fe, 1)]);
        assert_eq!(everywhere.home(), Some(Region::Na));
    }
}
