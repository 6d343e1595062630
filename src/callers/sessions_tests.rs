//! Sessions and the key that they are issued with: none outlives it, and none comes back.

use super::*;
use crate::{
    clock::ManualClock,
    config::{CallerConfig, CallerKeyConfig, Config},
    inbound::peer::Origin,
};

const HOUR: Duration = Duration::from_secs(3600);
const MONTH: Duration = Duration::from_secs(30 * 86_400);

/// A server whose one key ends after `lifetime`, and that key.
fn server(lifetime: Option<Duration>) -> (Sessions, Arc<ManualClock>, NewKey) {
    let (clock, key) = (Arc::new(ManualClock::new()), key(KeyKind::Caller));
    let expires = lifetime.map(|lifetime| {
        let at = (clock.now().wall + lifetime).as_secs();
        jiff::Timestamp::from_second(at as i64).expect("a time")
    });
    let presented = key.presented();
    let (id, sha256) = (presented.id.to_string(), presented.digest().hex());
    let keys = vec![CallerKeyConfig { id, sha256, expires, ..CallerKeyConfig::default() }];
    let callers = vec![CallerConfig { name: "etl".to_owned(), keys, ..CallerConfig::default() }];
    let callers = Callers::new(&Config { callers, ..Config::default() });
    (Sessions::new(Store::memory().expect("a store"), callers, clock.clone()), clock, key)
}

fn key(kind: KeyKind) -> NewKey {
    NewKey::generate(kind).expect("a key")
}

/// A session of a month, as issued with `key`.
fn prepare(sessions: &Sessions, key: Option<&NewKey>) -> (NewKey, Session) {
    let request = SessionRequest {
        caller: "etl".to_owned(),
        issued_with: key.map(|key| key.presented().id),
        ttl: MONTH,
        ttl_max: MONTH,
        ..SessionRequest::default()
    };
    sessions.prepare(request).expect("a session")
}

fn with_end(mut session: Session, expires: u64) -> Session {
    session.expires = expires;
    session
}

fn is_accepted(sessions: &Sessions, clock: &ManualClock, key: &NewKey) -> bool {
    sessions.callers().of_key(key.expose(), Origin::User(7), clock.now()).is_ok()
}

#[tokio::test]
async fn a_session_ends_with_the_key_it_was_made_with_at_the_latest() {
    let (sessions, clock, key) = server(Some(HOUR));
    let end = (clock.now().wall + HOUR).as_secs();
    let (session_key, session) = prepare(&sessions, Some(&key));
    assert_eq!(session.expires, end);
    // As an older version made them.
    let (old_key, old) = prepare(&sessions, Some(&key));
    let old = with_end(old, end + MONTH.as_secs());
    // The twin: one that an operator made at the command line.
    let (own_key, own) = prepare(&sessions, None);
    for session in [&session, &old, &own] {
        sessions.keep(session).await.expect("kept");
        assert_eq!(sessions.state(session), "active");
    }
    clock.advance(HOUR - Duration::from_secs(1));
    for key in [&session_key, &old_key, &own_key] {
        assert!(is_accepted(&sessions, &clock, key));
    }
    clock.advance(Duration::from_secs(1));
    sessions.update().await;
    assert!(!is_accepted(&sessions, &clock, &session_key));
    assert!(!is_accepted(&sessions, &clock, &old_key));
    assert!(is_accepted(&sessions, &clock, &own_key));
    assert_eq!((sessions.state(&old), sessions.state(&own)), ("orphaned", "active"));
}

#[tokio::test]
async fn a_session_made_with_a_key_without_an_end_lives_as_long_as_asked() {
    let (sessions, clock, key) = server(None);
    let (_, session) = prepare(&sessions, Some(&key));
    assert_eq!(session.expires, (clock.now().wall + MONTH).as_secs());
}

#[tokio::test]
async fn sessions_of_a_revoked_key_do_not_come_back_when_its_revocation_is_forgotten() {
    let (sessions, clock, key) = server(Some(HOUR));
    let id = key.presented().id;
    let (session_key, session) = prepare(&sessions, Some(&key));
    let end = session.expires;
    // It outlives the key, as an older version made it.
    let session = with_end(session, end + MONTH.as_secs());
    sessions.keep(&session).await.expect("kept");
    sessions.revoke(id, Some(end)).await.expect("revoked");
    let mut forgotten = None;
    for day in 0..60 {
        sessions.keep_uses().await.expect("kept");
        sessions.update().await;
        assert!(!is_accepted(&sessions, &clock, &session_key), "on day {day}");
        assert!(!is_accepted(&sessions, &clock, &key), "on day {day}");
        let (_, revoked) = sessions.list().await.expect("listed");
        forgotten = forgotten.or((!revoked.contains(&id)).then_some(day));
        clock.advance(24 * HOUR);
    }
    // A week after the last that it ends.
    assert_eq!(forgotten, Some(38));
}

#[tokio::test]
async fn a_revocation_is_forgotten_a_week_after_the_end_of_its_key_and_without_one_never() {
    for (lifetime, is_forgotten) in [(Some(HOUR), true), (None, false)] {
        let (sessions, clock, key) = server(lifetime);
        let id = key.presented().id;
        let (session_key, session) = prepare(&sessions, Some(&key));
        sessions.keep(&session).await.expect("kept");
        let expires = lifetime.map(|lifetime| (clock.now().wall + lifetime).as_secs());
        sessions.revoke(id, expires).await.expect("revoked");
        for (after, is_forgotten) in [(7 * 24 * HOUR, false), (2 * HOUR, is_forgotten)] {
            clock.advance(after);
            sessions.keep_uses().await.expect("kept");
            let (_, revoked) = sessions.list().await.expect("listed");
            assert_eq!(!revoked.contains(&id), is_forgotten, "{lifetime:?} {after:?}");
            assert!(!is_accepted(&sessions, &clock, &session_key));
        }
    }
}
