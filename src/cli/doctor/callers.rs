//! The callers of the configuration: keys that end soon, have ended or are not used, and callers
//! that nothing is known by.

use super::Finding;
use crate::{
    callers::{Callers, key::KeyId, sessions::Sessions},
    cli::table::span,
    clock::{Clock as _, SystemClock},
    config::{CallerConfig, CallerKeyConfig, Config},
    store::Store,
};
use std::{collections::HashMap, sync::Arc};

const DAY: u64 = 86_400;
/// A key that ends within this is to be changed now.
const SOON: u64 = 30 * DAY;
/// A key that was not used for so long is likely forgotten.
const UNUSED: u64 = 90 * DAY;

pub(super) async fn check(config: &Config, store: Option<&Store>) -> Vec<Finding> {
    if config.callers.is_empty() {
        return Vec::new();
    }
    let mut uses = HashMap::new();
    if let Some(store) = store {
        let sessions = Sessions::new(store.clone(), Callers::new(config), Arc::new(SystemClock));
        // That the store cannot be read is a finding already.
        uses = sessions.uses().await.unwrap_or_default();
    }
    judge(&config.callers, &uses, SystemClock.now().unix())
}

fn judge(callers: &[CallerConfig], uses: &HashMap<KeyId, u64>, now: u64) -> Vec<Finding> {
    let mut findings = Vec::new();
    for caller in callers {
        let keys = caller.keys.iter();
        findings.extend(keys.filter_map(|key| judge_key(&caller.name, key, uses, now)));
        let is_known = !(caller.unix_uids.is_empty()
            && caller.unix_gids.is_empty()
            && caller.mtls_san.is_empty());
        let has_key = caller.keys.iter().any(|key| key.expires.is_none_or(|at| seconds(at) > now));
        if !is_known && !has_key {
            let text = format!("nothing that is accepted proves to be caller {}", caller.name);
            let fix = match caller.keys.is_empty() {
                true => {
                    "give it `keys`, unix_uids, unix_gids or mtls_san, or take it out".to_owned()
                }
                false => format!("run `adsproxy caller rotate {}`, or take it out", caller.name),
            };
            findings.push(Finding::warning("callers", text, fix));
        }
    }
    if findings.is_empty() {
        let (callers, keys) =
            (callers.len(), callers.iter().map(|it| it.keys.len()).sum::<usize>());
        findings.push(Finding::ok("callers", format!("{callers} callers with {keys} keys")));
    }
    findings
}

fn judge_key(
    caller: &str,
    key: &CallerKeyConfig,
    uses: &HashMap<KeyId, u64>,
    now: u64,
) -> Option<Finding> {
    let id = &key.id;
    let take_out = format!("take {{ id = \"{id}\", … }} out of `keys` of {caller}");
    let warning = |what: String, fix: String| {
        let text = format!("key {id} of caller {caller} {what}");
        Some(Finding::warning("callers", text, fix))
    };
    if let Some(expires) = key.expires.map(seconds) {
        if expires <= now {
            return warning("has expired".to_owned(), take_out);
        }
        if expires <= now + SOON {
            let fix = format!("run `adsproxy caller rotate {caller}` and change it");
            return warning(format!("expires in {}", span(expires - now)), fix);
        }
    }
    let used = uses.get(&id.parse().ok()?)?;
    let ago = now.saturating_sub(*used);
    (ago >= UNUSED).then(|| warning(format!("was used last {} ago", span(ago)), take_out))?
}

fn seconds(at: jiff::Timestamp) -> u64 {
    u64::try_from(at.as_second()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_795_132_800;

    fn key(id: &str, expires: Option<u64>) -> CallerKeyConfig {
        let expires = expires.map(|at| jiff::Timestamp::from_second(at as i64).expect("a time"));
        CallerKeyConfig { id: id.to_owned(), expires, ..CallerKeyConfig::default() }
    }

    /// What is found about one caller with `keys`, the second of which was used 91 days ago.
    fn found(keys: Vec<CallerKeyConfig>, unix_uids: Vec<u32>) -> Vec<String> {
        let name = "reports".to_owned();
        let caller = CallerConfig { name, keys, unix_uids, ..CallerConfig::default() };
        let uses = [("aaaaaaaa", NOW - DAY), ("bbbbbbbb", NOW - 91 * DAY)];
        let uses = uses.map(|(id, at)| (id.parse().expect("an id"), at));
        let findings = judge(&[caller], &uses.into(), NOW);
        findings.into_iter().map(|finding| finding.text).collect()
    }

    #[test]
    fn keys_that_end_or_are_not_used_and_callers_without_any_are_found() {
        let fine = ["1 callers with 1 keys"];
        assert_eq!(found(vec![key("aaaaaaaa", None)], vec![]), fine);
        assert_eq!(found(vec![key("aaaaaaaa", Some(NOW + SOON + 1))], vec![]), fine);
        assert_eq!(found(vec![key("cccccccc", None)], vec![]), fine, "its use is not known");
        assert_eq!(found(vec![], vec![7]), ["1 callers with 0 keys"]);
        let soon = found(vec![key("aaaaaaaa", Some(NOW + 3 * DAY))], vec![]);
        assert_eq!(soon, ["key aaaaaaaa of caller reports expires in 3d 0h"]);
        let unused = found(vec![key("bbbbbbbb", None)], vec![]);
        assert_eq!(unused, ["key bbbbbbbb of caller reports was used last 91d 0h ago"]);
        let nothing = "nothing that is accepted proves to be caller reports";
        let ended = found(vec![key("aaaaaaaa", Some(NOW))], vec![]);
        assert_eq!(ended, ["key aaaaaaaa of caller reports has expired", nothing]);
        assert_eq!(found(vec![], vec![]), [nothing]);
    }
}
