//! What is appended after what was found at the end of the log.

use super::*;
use crate::audit::{Actor, Audit, Entry, tests::audit};
use std::{os::unix::fs::PermissionsExt as _, path::Path};
use tempfile::TempDir;

fn directory() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

fn entry(count: u64) -> Entry {
    Entry::new(Actor::Server, Action::TokenRefresh).count(count)
}

/// `keys`' log without a limit.
fn open(dir: &TempDir, keys: &[&str]) -> Audit {
    audit(dir.path(), keys, 0, 0)
}

fn text(dir: &TempDir, name: &str) -> String {
    fs::read_to_string(dir.path().join(name)).expect("a file")
}

/// The names of the log's actions, file by file.
fn actions(dir: &TempDir, name: &str) -> Vec<String> {
    let text = text(dir, name);
    let lines = text.lines().map(|line| Line::parse(line.as_bytes()).expect("a line"));
    lines.map(|line| line.action).collect()
}

#[test]
fn entries_follow_each_other_and_are_private() {
    let dir = directory();
    let log = open(&dir, &["k1"]);
    for count in 1..=3 {
        log.record(&entry(count)).expect("recorded");
    }
    // As another process would.
    open(&dir, &["k1"]).record(&entry(4)).expect("recorded");
    let text = text(&dir, "audit.jsonl");
    let mut before = START;
    for (index, text) in text.lines().enumerate() {
        assert!(index == 0 || text.contains(&format!("\"count\":{index},")), "{text}");
        let line = Line::parse(text.as_bytes()).expect("a line");
        line.verify(&crate::audit::tests::keys(&["k1"]), before).expect("in the chain");
        before = line.tip();
        assert_eq!(before.seq, index as u64 + 1);
    }
    assert_eq!(text.lines().count(), 5);
    for name in ["audit.jsonl", "audit.head"] {
        let mode = fs::metadata(dir.path().join(name)).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn a_log_that_is_off_takes_everything_and_makes_nothing() {
    Audit::off().record(&entry(1)).expect("nothing to do");
    assert_eq!(Audit::off().path(), None);
}

#[test]
fn an_unfinished_entry_is_cut_off_and_told() {
    let dir = directory();
    let log = open(&dir, &["k1"]);
    log.record(&entry(1)).expect("recorded");
    let path = dir.path().join("audit.jsonl");
    let whole = fs::read(&path).expect("read");
    for torn in [&b"{\"v\":1,\"seq"[..], &[0; 300]] {
        fs::write(&path, [&whole, torn].concat()).expect("written");
        open(&dir, &["k1"]).record(&entry(2)).expect("recorded");
        assert_eq!(
            actions(&dir, "audit.jsonl")[1..],
            ["token.refresh", "audit.repair", "token.refresh"]
        );
        let repair = text(&dir, "audit.jsonl").lines().nth(2).expect("a line").to_owned();
        assert!(repair.contains(&format!("\"count\":{}", torn.len())), "{repair}");
        fs::remove_file(dir.path().join("audit.head")).expect("removed");
        fs::remove_file(&path).expect("removed");
        open(&dir, &["k1"]).record(&entry(1)).expect("recorded");
    }
}

#[test]
fn a_written_but_unacknowledged_entry_is_kept() {
    let dir = directory();
    let log = open(&dir, &["k1"]);
    log.record(&entry(1)).expect("recorded");
    let head = fs::read(dir.path().join("audit.head")).expect("read");
    log.record(&entry(2)).expect("recorded");
    log.record(&entry(3)).expect("recorded");
    fs::write(dir.path().join("audit.head"), head).expect("written");
    log.record(&entry(4)).expect("recorded");
    assert_eq!(actions(&dir, "audit.jsonl").len(), 5, "no damage was seen");
}

#[test]
fn a_changed_end_is_told_in_a_file_of_its_own() {
    type Change = fn(&Path, &mut Vec<u8>);
    let changes: [(&str, Change); 6] = [
        ("end_cut_off", |_, log| {
            let second = log.iter().position(|&b| b == b'\n').expect("a line") + 1;
            log.truncate(second);
        }),
        ("end_cut_off", |_, log| log.clear()),
        ("end_unreadable", |_, log| log.extend_from_slice(b"not ours\n")),
        ("end_forged", |_, log| {
            let last = complete_lines(log).next_back().expect("a line").to_vec();
            let forged = String::from_utf8(last).expect("text").replace("\"seq\":3", "\"seq\":4");
            log.extend_from_slice(forged.as_bytes());
            log.push(b'\n');
        }),
        ("head_missing", |head, _| fs::remove_file(head).expect("removed")),
        ("head_invalid", |head, _| fs::write(head, "{}").expect("written")),
    ];
    for (reason, change) in changes {
        let dir = directory();
        let log = open(&dir, &["k1"]);
        log.record(&entry(1)).expect("recorded");
        log.record(&entry(2)).expect("recorded");
        let path = dir.path().join("audit.jsonl");
        let mut bytes = fs::read(&path).expect("read");
        change(&dir.path().join("audit.head"), &mut bytes);
        fs::write(&path, bytes).expect("written");
        log.record(&entry(3)).expect("recorded all the same");
        let expected = ["audit.begin", "audit.damage", "token.refresh"];
        assert_eq!(actions(&dir, "audit.jsonl"), expected, "{reason}");
        assert!(text(&dir, "audit.jsonl").contains(reason), "{reason}");
    }
}
