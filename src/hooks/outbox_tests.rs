//! What is kept, taken over, given up and asked for again.

use super::*;
use crate::clock::{Clock, ManualClock};
use std::os::unix::fs::PermissionsExt as _;

fn message(order: u64) -> Message {
    let now = ManualClock::new().now();
    Message { order, ..Message::test("hook", now).expect("random") }
}

fn adopt(outbox: &Outbox) -> Vec<Message> {
    let mut adopted = Vec::new();
    outbox.adopt(&mut adopted).expect("adopts");
    adopted
}

/// A directory and an outbox in it.
fn outbox() -> (tempfile::TempDir, PathBuf, Outbox) {
    let dir = tempfile::tempdir().expect("a directory");
    let root = dir.path().join("store/outbox");
    let outbox = Outbox::open(&root).expect("opens");
    (dir, root, outbox)
}

#[test]
fn what_a_dead_process_left_is_taken_over_once_and_in_order() {
    let (_dir, root, dead) = outbox();
    let messages = [message(2), message(1)];
    messages.iter().for_each(|message| dead.put(message).expect("kept"));
    let living = Outbox::open(&root).expect("opens");
    assert!(adopt(&living).is_empty(), "its owner lives");
    // A lock ends with its file, as it does with its process.
    drop(dead);
    let other = Outbox::open(&root).expect("opens");
    assert_eq!(adopt(&living), [messages[1].clone(), messages[0].clone()]);
    assert!(adopt(&other).is_empty());
    assert_eq!(waiting(&root).expect("listed").len(), 2);
    living.remove(&messages[0]).expect("removed");
    drop(living);
    assert_eq!(adopt(&other), [messages[1].clone()]);
}

#[test]
fn half_a_message_is_cleared_away_and_a_strange_one_kept_aside() {
    let (_dir, root, dead) = outbox();
    dead.put(&message(1)).expect("kept");
    let queue = dead.queue.clone();
    fs::write(queue.join(".msg_x.tmp"), "half").expect("written");
    fs::write(queue.join("00000000000000000009-x.json"), "{\"v\":1}").expect("written");
    drop(dead);
    let living = Outbox::open(&root).expect("opens");
    assert_eq!(adopt(&living).len(), 1);
    assert!(!queue.exists());
    let strange = super::dead(&root).expect("listed");
    assert_eq!(strange.len(), 1);
    assert!(strange[0].message.is_none());
}

#[test]
fn a_message_is_one_file_and_its_newest_state() {
    let (_dir, root, outbox) = outbox();
    let first = message(1);
    outbox.put(&first).expect("kept");
    let again = Message { attempts: 3, last_error: Some("x".to_owned()), ..first };
    outbox.put(&again).expect("kept");
    assert_eq!(waiting(&root).expect("listed"), [again]);
}

#[test]
fn dead_letters_are_kept_up_to_a_bound_and_can_be_sent_again() {
    let (_dir, root, outbox) = outbox();
    let messages = [1, 2, 3].map(|order| Message { attempts: 9, ..message(order) });
    let lost = messages.each_ref().map(|message| {
        outbox.put(message).expect("kept");
        outbox.bury(message, 2).expect("buried")
    });
    assert_eq!(lost, [0, 0, 1]);
    assert_eq!(outbox.dead_count().expect("counted"), 2);
    assert!(waiting(&root).expect("listed").is_empty());
    let letters = dead(&root).expect("listed");
    assert_eq!(letters[0].message.as_ref(), Some(&messages[1]), "the oldest was lost");
    assert_eq!(resend(&root, &letters[..1], 77).expect("queued"), 1);
    let queued = adopt(&outbox);
    assert_eq!((queued[0].attempts, queued[0].queued_at), (0, 77));
    assert_eq!(queued[0].id, messages[1].id);
    assert_eq!(outbox.dead_count().expect("counted"), 1);
}

#[test]
fn everything_is_for_its_owner_only() {
    let (dir, root, outbox) = outbox();
    outbox.put(&message(1)).expect("kept");
    let mode = |path: &Path| path.metadata().expect("there").permissions().mode() & 0o777;
    for path in [dir.path().join("store"), root.clone(), root.join("dead"), outbox.queue.clone()] {
        assert_eq!(mode(&path), 0o700, "{path:?}");
    }
    for path in [&root.join("lock"), &outbox.queue.join("lock"), &files(&outbox.queue).unwrap()[0]]
    {
        assert_eq!(mode(path), 0o600, "{path:?}");
    }
}

#[test]
fn an_outbox_that_is_not_there_holds_nothing_and_an_empty_queue_leaves_no_trace() {
    let dir = tempfile::tempdir().expect("a directory");
    let root = dir.path().join("none");
    assert!(waiting(&root).expect("listed").is_empty() && dead(&root).expect("listed").is_empty());
    assert!(!root.exists());
    Outbox::open(&root).expect("opens").close();
    assert!(queues(&root).expect("listed").is_empty());
}
