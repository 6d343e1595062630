//! Other callers while the process runs: who is as before stays the same, who is gone has ended.

use super::*;
use crate::{
    callers::{
        Callers,
        key::{KeyKind, NewKey},
    },
    clock::{Clock, ManualClock},
    config::{CallerKeyConfig, RulesConfig},
    inbound::peer::Origin,
    metrics::Metrics,
};
use std::collections::HashSet;

fn caller(name: &str, key: &NewKey, read_only: bool) -> CallerConfig {
    let presented = key.presented();
    let (id, sha256) = (presented.id.to_string(), presented.digest().hex());
    CallerConfig {
        name: name.to_owned(),
        keys: vec![CallerKeyConfig { id, sha256, ..CallerKeyConfig::default() }],
        rules: RulesConfig { read_only, ..RulesConfig::default() },
        ..CallerConfig::default()
    }
}

fn config(callers: &[CallerConfig]) -> Config {
    Config { callers: callers.to_vec(), ..Config::default() }
}

fn replace(callers: &Callers, config: &Config, revoked: &HashSet<KeyId>) {
    let issuers = Issuers::idle(&[], &Metrics::default());
    let next = Configured::new(config, issuers, Some(&callers.configured()));
    callers.replace(Arc::new(next), &[], revoked);
}

#[test]
fn who_is_as_before_stays_the_same_and_who_is_gone_has_ended() {
    let now = ManualClock::new().now();
    let [kept, gone, narrowed] = [(); 3].map(|()| NewKey::generate(KeyKind::Caller).unwrap());
    let first = [
        caller("kept", &kept, false),
        caller("gone", &gone, false),
        caller("narrowed", &narrowed, false),
    ];
    let callers = Callers::new(&config(&first));
    let of = |key: &NewKey| callers.of_key(key.expose(), Origin::User(7), now);
    let [one, two, three] = [&kept, &gone, &narrowed].map(|key| of(key).unwrap());
    let next = [caller("kept", &kept, false), caller("narrowed", &narrowed, true)];
    replace(&callers, &config(&next), &HashSet::new());
    assert!(Arc::ptr_eq(&of(&kept).unwrap(), &one) && !one.has_ended(now));
    assert!(of(&gone).is_err() && two.has_ended(now));
    assert!(of(&narrowed).unwrap().rules.is_read_only());
    assert!(!three.has_ended(now), "what is open ends with what it began with");
}

#[test]
fn a_key_that_was_revoked_stays_so_whatever_becomes_of_its_caller() {
    let now = ManualClock::new().now();
    let key = NewKey::generate(KeyKind::Caller).unwrap();
    let callers = Callers::new(&config(&[caller("a", &key, false)]));
    let revoked = HashSet::from([key.presented().id]);
    callers.publish(&[], &revoked);
    assert!(callers.of_key(key.expose(), Origin::User(7), now).is_err());
    replace(&callers, &config(&[caller("a", &key, true)]), &revoked);
    assert!(callers.of_key(key.expose(), Origin::User(7), now).is_err());
}

#[test]
fn an_end_that_is_brought_forward_ends_what_is_open_and_the_sessions_too() {
    let now = ManualClock::new().now();
    let (hour, day) = (Duration::from_secs(3600), Duration::from_secs(86_400));
    let [early, other, of_early, of_other] =
        [KeyKind::Caller, KeyKind::Caller, KeyKind::Session, KeyKind::Session]
            .map(|kind| NewKey::generate(kind).unwrap());
    let ending = |name: &str, key: &NewKey, after: Duration| {
        let mut caller = caller(name, key, false);
        let at = (now.wall + after).as_secs();
        caller.keys[0].expires = Some(jiff::Timestamp::from_second(at as i64).unwrap());
        caller
    };
    let session = |key: &NewKey, with: &NewKey| KnownSession {
        id: key.presented().id,
        digest: key.presented().digest(),
        caller: "other".to_owned(),
        user: None,
        tenant: None,
        issued_with: Some(with.presented().id),
        accounts: None,
        read_only: false,
        expires: now.wall + day,
    };
    let callers =
        Callers::new(&config(&[ending("early", &early, day), ending("other", &other, day)]));
    let sessions = [session(&of_early, &early), session(&of_other, &other)];
    callers.publish(&sessions, &HashSet::new());
    let of = |key: &NewKey, now| callers.of_key(key.expose(), Origin::User(7), now);
    let open = [&early, &of_early, &other, &of_other].map(|key| of(key, now).unwrap());
    let next = config(&[ending("early", &early, hour), ending("other", &other, day)]);
    let issuers = Issuers::idle(&[], &Metrics::default());
    let next = Arc::new(Configured::new(&next, issuers, Some(&callers.configured())));
    assert_eq!(open[0].expires(), Some(now.wall + day), "it is not in force yet");
    callers.replace(next, &sessions, &HashSet::new());
    let (before, after) = (now.plus(hour - Duration::from_secs(1)), now.plus(hour));
    for (key, principal) in [&early, &of_early].into_iter().zip(&open) {
        assert!(of(key, before).is_ok() && !principal.has_ended(before));
        assert!(of(key, after).is_err() && principal.has_ended(after));
    }
    for (key, principal) in [&other, &of_other].into_iter().zip(&open[2..]) {
        assert!(Arc::ptr_eq(&of(key, after).unwrap(), principal), "as before");
        assert!(of(key, now.plus(day)).is_err());
    }
}

#[test]
fn whether_everybody_is_asked_and_tokens_are_read_changes_too() {
    let callers = Callers::new(&config(&[]));
    assert!(!callers.configured().is_required && !callers.reads_tokens());
    let mut next = config(&[]);
    next.auth.required = true;
    let issuer = crate::config::IssuerConfig { name: "i".to_owned(), ..Default::default() };
    let issuers = Issuers::idle(&[issuer], &Metrics::default());
    let before = callers.jwt_epoch.load(std::sync::atomic::Ordering::Relaxed);
    let configured = Configured::new(&next, issuers, Some(&callers.configured()));
    callers.replace(Arc::new(configured), &[], &HashSet::new());
    assert!(callers.configured().is_required && callers.reads_tokens());
    let after = callers.jwt_epoch.load(std::sync::atomic::Ordering::Relaxed);
    assert_ne!(before, after, "workers forget the tokens that they have verified");
}
