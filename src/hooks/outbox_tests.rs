//! What is kept, taken over, given up and asked for again, by processes that are stores of their own.

use super::*;
use crate::{
    clock::ManualClock,
    config::{Encryption, EncryptionKey, HookConfig, HookTarget, StoreKind},
};
use std::path::Path;

fn store(dir: &Path) -> Store {
    let config = config::StoreConfig {
        kind: StoreKind::File,
        path: dir.join("store"),
        ..Default::default()
    };
    let key =
        EncryptionKey::new("k1", Secret::from("AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="));
    Store::open(&config, &Encryption { keys: vec![key] }).expect("it opens")
}

/// An outbox with one hook, as a process of its own has it.
fn outbox(dir: &Path) -> Outbox {
    let state = OutboxState { schedules: vec![Schedule::new(&limits())], ..OutboxState::default() };
    Outbox {
        store: store(dir),
        hooks: vec![HookConfig {
            name: "hook".to_owned(),
            target: HookTarget::Command(vec!["/bin/true".to_owned()]),
            events: vec![Kind::Expiring, Kind::TokenRefreshed],
            timeout: Duration::from_secs(1),
            ..HookConfig::default()
        }],
        limits: limits(),
        clock: Arc::new(ManualClock::new()),
        metrics: Metrics::new(&config::MetricsConfig { account_labels_max: 5 }, Arc::default()),
        state: Mutex::new(state),
        writing: tokio::sync::Mutex::default(),
        changed: Notify::new(),
    }
}

fn limits() -> config::OutboxConfig {
    config::OutboxConfig {
        messages_max: 3,
        dead_letters_max: 2,
        retry_min: Duration::from_secs(1),
        retry_max: Duration::from_secs(1000),
        attempts_max: 1,
        give_up: Duration::from_secs(86_400),
    }
}

async fn taken_over(outbox: &Outbox) -> usize {
    outbox.take_over(&mut Others::default()).await.expect("the store works");
    outbox.state.lock().waiting()
}

/// The times of the events that wait in the store.
async fn waiting(outbox: &Outbox) -> Vec<u64> {
    let messages = list(&outbox.store).await.expect("listed");
    messages.iter().filter(|message| !message.is_dead).map(|message| message.at).collect()
}

#[tokio::test]
async fn what_a_process_left_is_taken_over_once_and_in_order() {
    let dir = tempfile::tempdir().expect("a directory");
    let first = outbox(dir.path());
    for at in [1, 2] {
        first.push(&Event::new(Kind::Expiring, at));
    }
    first.push(&Event::new(Kind::Recovered, 9));
    first.flush().await;
    let second = outbox(dir.path());
    assert_eq!(taken_over(&second).await, 0, "its owner lives");
    assert_eq!(waiting(&second).await, [1, 2], "what no hook receives is not kept");
    drop(first);
    let third = outbox(dir.path());
    assert_eq!(taken_over(&second).await, 2);
    assert_eq!(taken_over(&third).await, 0, "it has a new owner");
    let sent = second.start();
    assert_eq!(sent[0].1.at, 1);
    second.record(0, &sent[0].1.name(), Ok(()));
    second.write().await;
    drop(second);
    assert_eq!(taken_over(&third).await, 1);
    assert_eq!(waiting(&third).await, [2]);
}

#[tokio::test]
async fn nothing_is_sent_that_the_store_was_not_offered() {
    let dir = tempfile::tempdir().expect("a directory");
    let outbox = outbox(dir.path());
    outbox.push(&Event::new(Kind::Expiring, 1));
    assert_eq!(outbox.start(), []);
    outbox.write().await;
    assert_eq!(outbox.start().len(), 1);
}

#[tokio::test]
async fn of_too_many_messages_the_oldest_refresh_goes_and_then_the_oldest() {
    let dir = tempfile::tempdir().expect("a directory");
    let outbox = outbox(dir.path());
    let events = [Kind::Expiring, Kind::TokenRefreshed, Kind::TokenRefreshed, Kind::Expiring];
    for (at, kind) in (1..).zip(events) {
        outbox.push(&Event::new(kind, at));
    }
    outbox.write().await;
    assert_eq!(waiting(&outbox).await, [1, 3, 4]);
    for at in [5, 6] {
        outbox.push(&Event::new(Kind::Expiring, at));
    }
    outbox.write().await;
    assert_eq!(waiting(&outbox).await, [4, 5, 6]);
}

#[tokio::test]
async fn dead_letters_are_kept_up_to_a_bound_and_can_be_sent_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let outbox = outbox(dir.path());
    for at in [1, 2, 3] {
        outbox.push(&Event::new(Kind::Expiring, at));
        outbox.write().await;
        let (hook, message) = outbox.start().remove(0);
        let failed = DeliveryError::new("responded with 500".to_owned());
        outbox.record(hook, &message.name(), Err(&failed));
        outbox.write().await;
    }
    let letters = list(&outbox.store).await.expect("listed");
    assert_eq!(letters.iter().map(|letter| letter.at).collect::<Vec<_>>(), [2, 3]);
    assert!(letters.iter().all(|letter| letter.is_dead && letter.attempts == 1));
    let mut others = Others::default();
    outbox.take_over(&mut others).await.expect("the store works");
    assert_eq!(outbox.state.lock().dead.len(), 2);

    let command = store(dir.path());
    assert!(resend(&command, &letters[0], 77).await.expect("queued"));
    assert!(!resend(&command, &letters[0], 77).await.expect("looked at"), "it is no dead letter");
    outbox.take_over(&mut others).await.expect("the store works");
    assert_eq!(outbox.state.lock().dead.len(), 1);
    let again = &list(&command).await.expect("listed")[0];
    assert_eq!((again.attempts, again.queued_at, &again.id), (0, 77, &letters[0].id));
    assert!(!again.is_dead && again.owner.is_some() && outbox.is_own(&again.name()));
}

#[tokio::test]
async fn a_message_for_a_hook_that_is_gone_is_a_dead_letter() {
    let dir = tempfile::tempdir().expect("a directory");
    let first = outbox(dir.path());
    first.push(&Event::new(Kind::Expiring, 1));
    first.write().await;
    drop(first);
    let mut second = outbox(dir.path());
    second.hooks[0].name = "other".to_owned();
    assert_eq!(taken_over(&second).await, 0);
    second.write().await;
    let letters = list(&second.store).await.expect("listed");
    assert!(letters[0].is_dead && letters[0].last_error.as_deref().unwrap().contains("no hook"));
}

#[tokio::test]
async fn a_store_that_takes_nothing_stops_no_message() {
    let dir = tempfile::tempdir().expect("a directory");
    let outbox = outbox(dir.path());
    // A file where the directory of the space should be.
    std::fs::write(dir.path().join("store/outbox"), "").expect("written");
    outbox.push(&Event::new(Kind::Expiring, 1));
    outbox.write().await;
    assert_eq!(outbox.start().len(), 1);
}
