//! What the terminal shows of a login: the account, and the profiles that it gives access to.

use crate::{
    cli::table::{plain, table},
    id::{AccountId, Region},
    login::{GrantProfiles, profiles::AdvertiserProfile},
};
use serde::Deserialize;
use serde_json::Value;

/// So many profiles of a region are shown.
const SHOWN_MAX: usize = 50;

/// The account that was connected, and its profiles.
pub(super) fn connected(outcome: &Value) -> String {
    let text = |name: &str| plain(outcome[name].as_str().unwrap_or_default());
    let how = if outcome["replaced"] == true { "connected anew" } else { "connected" };
    let guess = match outcome["region_is_guess"] == true {
        true => "no region showed a profile, so the region is a guess: --region says another\n",
        false => "",
    };
    format!(
        "account {} {how}: region {}, application {}\n{guess}{}",
        text("account"),
        text("region"),
        text("application"),
        profiles(&outcome["profiles"]),
    )
}

/// What a yes would change.
pub(super) fn question(account: &AccountId, outcome: &Value) -> String {
    let before = match &outcome["before"] {
        Value::Null => "not known\n".to_owned(),
        before => profiles(before),
    };
    format!(
        "This is, or may be, another Amazon user than account {account} has now.\n\nNow:\n\
         {before}\nAfter a yes:\n{}",
        profiles(&outcome["now"]),
    )
}

fn profiles(found: &Value) -> String {
    let found = GrantProfiles::deserialize(found).unwrap_or_default();
    let regions = found.regions();
    let mut rows = vec![["REGION", "PROFILE", "COUNTRY", "NAME", "TYPE"].map(str::to_owned)];
    let mut notes = String::new();
    for region in Region::ALL {
        let Some((_, list)) = regions.iter().find(|(responded, _)| *responded == region) else {
            notes.push_str(&format!("region {region} did not list its profiles\n"));
            continue;
        };
        rows.extend(list.iter().take(SHOWN_MAX).map(|profile| {
            let AdvertiserProfile { id, country, name, kind, .. } = *profile;
            [region.to_string(), id.to_string(), country.clone(), name.clone(), kind.clone()]
        }));
        if list.len() > SHOWN_MAX {
            notes.push_str(&format!("region {region} has {} more\n", list.len() - SHOWN_MAX));
        }
    }
    if rows.len() == 1 {
        return format!("no profiles\n{notes}");
    }
    table(&rows) + &notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn profiles_stand_in_a_table_once_and_cannot_steer_the_terminal() {
        let one = json!({ "id": 7, "country": "US", "name": "evil\u{1b}[2J", "kind": "seller" });
        let two = json!({ "id": 8, "country": "DE", "name": "", "kind": "vendor" });
        let outcome = json!({
            "account": "acme", "region": "na", "application": "default", "replaced": true,
            "profiles": { "na": [one], "eu": [one, two], "fe": null },
        });
        let expected = "\
account acme connected anew: region na, application default
REGION  PROFILE  COUNTRY  NAME      TYPE
na      7        US       evil\u{fffd}[2J  seller
eu      8        DE       -         vendor
region fe did not list its profiles
";
        assert_eq!(connected(&outcome), expected);
    }

    #[test]
    fn a_question_shows_both_sides() {
        let account = "acme".parse().unwrap();
        let now = json!({ "na": [], "eu": [], "fe": [] });
        let text = question(&account, &json!({ "before": null, "now": now }));
        assert!(
            text.contains("Now:\nnot known\n") && text.ends_with("After a yes:\nno profiles\n")
        );
    }
}
