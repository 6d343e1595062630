//! Tampering of every kind, in a log of ten thousand lines and in one of several files.

use super::*;
use crate::audit::{
    Action as Did, Actor, Audit, Entry,
    tests::{audit, record_all},
};
use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};
use tempfile::TempDir;

const LINES: usize = 10_000;

fn entry(count: u64) -> Entry {
    let account = "acme".parse().expect("an alias");
    Entry::new(Actor::Server, Did::TokenRefresh).account(&account).generation(count)
}

/// A log of so many lines, written without a sync for each.
fn log_of(lines: usize) -> TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    fill(&audit(dir.path(), &["k1"], 0, 0), lines as u64 - 1);
    dir
}

fn fill(log: &Audit, entries: u64) {
    let entries: Vec<Entry> = (0..entries).map(entry).collect();
    record_all(log, &entries);
}

fn check(dir: &TempDir) -> AuditReport {
    audit(dir.path(), &["k1"], 0, 0).verify().expect("readable")
}

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).expect("read").lines().map(str::to_owned).collect()
}

fn write(path: &Path, lines: &[String]) {
    fs::write(path, lines.join("\n") + "\n").expect("written");
}

#[test]
fn an_untouched_log_is_clean() {
    let dir = log_of(LINES);
    let report = check(&dir);
    assert!(report.is_clean(), "{:?}", report.findings);
    assert_eq!((report.entries, report.files), (LINES as u64, 1));
    assert_eq!(report.keys, BTreeSet::from(["k1".to_owned()]));
    assert!(report.notes.is_empty());
}

type Change = fn(&mut Vec<String>);

/// Each kind of tampering: what is done, which line (from 1) is named, and as what.
const TAMPERINGS: &[(&str, Change, u64, &str)] = &[
    ("edit a word", |l| l[4_999] = l[4_999].replace("acme", "evil"), 5_000, CHANGED.1),
    ("edit the last", |l| l[9_999] = l[9_999].replace("acme", "evil"), 10_000, CHANGED.1),
    ("edit the first", |l| l[0] = l[0].replace("\"segment\":1", "\"segment\":2"), 1, CHANGED.1),
    (
        "edit a number",
        |l| l[4_999] = l[4_999].replace("\"generation\":4998", "\"generation\":1"),
        5_000,
        CHANGED.1,
    ),
    ("add a space", |l| l[4_999] = l[4_999].replacen("\":\"", "\": \"", 1), 5_000, CHANGED.1),
    ("edit a MAC", |l| swap_char_of_mac(&mut l[4_999]), 5_000, CHANGED.1),
    ("garble", |l| l[4_999] = "{}".into(), 5_000, NO_ENTRY.1),
    ("empty a line", |l| l[4_999].clear(), 5_000, NO_ENTRY.1),
    ("delete one", |l| drop(l.remove(4_999)), 5_000, "entry 5000 is missing before it"),
    (
        "delete many",
        |l| drop(l.drain(999..1_999)),
        1_000,
        "entries 1000 to 1999 are missing before it",
    ),
    ("delete the first", |l| drop(l.remove(0)), 1, "the first line is missing"),
    ("swap two", |l| l.swap(4_999, 5_000), 5_000, "entry 5000 is missing before it"),
    (
        "swap two far apart",
        |l| l.swap(999, 4_999),
        1_000,
        "entries 1000 to 4999 are missing before it",
    ),
    (
        "move one down",
        |l| {
            let one = l.remove(999);
            l.insert(4_999, one)
        },
        1_000,
        "entry 1000 is missing before it",
    ),
    (
        "move one up",
        |l| {
            let one = l.remove(4_999);
            l.insert(999, one)
        },
        1_000,
        "entries 1000 to 4999 are missing before it",
    ),
    (
        "repeat one",
        |l| l.insert(4_999, l[99].clone()),
        5_000,
        "entry 100 is there already, or is forged",
    ),
    (
        "copy a part",
        |l| {
            let part = l[99..199].to_vec();
            l.splice(4_999..4_999, part);
        },
        5_000,
        "entry 100 is there already, or is forged",
    ),
    (
        "forge one",
        |l| {
            let one = l[4_999].replace("acme", "evil");
            l.insert(4_999, one)
        },
        5_000,
        CHANGED.1,
    ),
    (
        "forge at the end",
        |l| {
            let one = l[9_999].replace("\"seq\":10000", "\"seq\":10001");
            l.push(one)
        },
        10_001,
        CHANGED.1,
    ),
    (
        "cut off one",
        |l| l.truncate(9_999),
        9_999,
        "the end is cut off: entry 10000 is missing after it",
    ),
    (
        "cut off half",
        |l| l.truncate(5_000),
        5_000,
        "the end is cut off: entries 5001 to 10000 are missing after it",
    ),
    (
        "name another key",
        |l| l[4_999] = l[4_999].replace("\"key\":\"k1\"", "\"key\":\"k9\""),
        5_000,
        "cannot be checked: the key \"k9\" is not in the store",
    ),
];

fn swap_char_of_mac(line: &mut String) {
    let at = line.len() - 20;
    let other = if line.as_bytes()[at] == b'A' { "B" } else { "A" };
    line.replace_range(at..=at, other);
}

#[test]
fn every_kind_of_tampering_is_found_in_ten_thousand_lines_within_a_second() {
    let dir = log_of(LINES);
    let path = dir.path().join("audit.jsonl");
    let whole = lines(&path);
    assert_eq!(whole.len(), LINES);
    let mut slowest = Duration::ZERO;
    for (what, change, line, message) in TAMPERINGS {
        let mut changed = whole.clone();
        change(&mut changed);
        write(&path, &changed);
        let began = Instant::now();
        let report = check(&dir);
        slowest = slowest.max(began.elapsed());
        let first = report.findings.first().unwrap_or_else(|| panic!("{what}: not found"));
        assert_eq!((Path::new(&first.file), first.line), (&*path, *line), "{what}: {first}");
        assert!(first.message.starts_with(message), "{what}: {first}");
        let count = report.findings.len();
        assert!(count <= 3, "{what}: {count} findings, {:?}", &report.findings[..4]);
    }
    eprintln!("slowest of {}: {slowest:?}", TAMPERINGS.len());
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
}

#[test]
fn what_was_moved_is_told_apart_from_what_was_deleted() {
    let dir = log_of(100);
    let path = dir.path().join("audit.jsonl");
    let mut changed = lines(&path);
    changed.swap(49, 50);
    write(&path, &changed);
    let [missing, moved] = &check(&dir).findings[..] else { panic!("two findings") };
    assert_eq!((missing.kind, &*missing.message), ("missing", "entry 50 is missing before it"));
    assert_eq!((moved.kind, &*moved.message), ("moved", "entry 50 does not stand in its place"));
}

/// A log of several files.
fn log_of_files(entries: u64) -> TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let log = audit(dir.path(), &["k1"], 2048, 0);
    (0..12).for_each(|_| fill(&log, entries));
    dir
}

fn archived(dir: &TempDir, number: u64) -> std::path::PathBuf {
    dir.path().join(format!("audit.{number:06}.jsonl"))
}

#[test]
fn files_that_were_removed_exchanged_copied_or_cut_are_found() {
    type Change = fn(&TempDir);
    let changes: [(&str, Change, &str, u64); 7] = [
        ("no first", |d| fs::remove_file(archived(d, 1)).expect("removed"), "files_missing", 2),
        ("no second", |d| fs::remove_file(archived(d, 2)).expect("removed"), "files_missing", 3),
        (
            "cut",
            |d| {
                let mut cut = lines(&archived(d, 1));
                cut.pop();
                write(&archived(d, 1), &cut);
            },
            "missing",
            2,
        ),
        (
            "copied",
            |d| _ = fs::copy(archived(d, 1), archived(d, 2)).expect("copied"),
            "foreign_file",
            2,
        ),
        (
            "copied to a new place",
            |d| _ = fs::copy(archived(d, 1), archived(d, 9)).expect("copied"),
            "foreign_file",
            9,
        ),
        (
            "of another log",
            |d| {
                let other = log_of_files(3);
                fs::copy(archived(&other, 2), archived(d, 2)).expect("copied");
            },
            "foreign_file",
            2,
        ),
        (
            "grown at its end",
            |d| {
                let mut bytes = fs::read(archived(d, 2)).expect("read");
                bytes.extend_from_slice(b"{\"v\":1");
                fs::write(archived(d, 2), bytes).expect("written");
            },
            "no_entry",
            2,
        ),
    ];
    for (what, change, kind, number) in changes {
        let dir = log_of_files(4);
        assert!(check(&dir).is_clean());
        assert!(archived(&dir, 3).exists());
        change(&dir);
        let report = check(&dir);
        let first = report.findings.first().unwrap_or_else(|| panic!("{what}: not found"));
        assert_eq!(first.kind, kind, "{what}: {first}");
        assert_eq!(Path::new(&first.file), archived(&dir, number), "{what}: {first}");
    }
}

#[test]
fn files_that_were_taken_elsewhere_leave_their_numbers_behind() {
    let dir = log_of_files(4);
    let moved = tempfile::tempdir().expect("a directory");
    let numbers: Vec<u64> = (1..).take_while(|&number| archived(&dir, number).exists()).collect();
    for &number in &numbers {
        fs::rename(archived(&dir, number), archived(&moved, number)).expect("moved");
    }
    let log = audit(dir.path(), &["k1"], 2048, 0);
    (0..12).for_each(|_| fill(&log, 4));
    let [missing] = &check(&dir).findings[..] else { panic!("one finding") };
    let files = format!("files number 1 to {} are missing before it", numbers.len());
    assert_eq!((missing.kind, &missing.message), ("files_missing", &files));
    for number in numbers {
        fs::rename(archived(&moved, number), archived(&dir, number)).expect("moved back");
    }
    assert!(check(&dir).is_clean());
}

#[test]
fn the_head_is_missed_and_its_changes_are_found() {
    let dir = log_of(10);
    let head = dir.path().join("audit.head");
    let right = fs::read(&head).expect("read");
    let kind = |dir: &TempDir| check(dir).findings.first().expect("found").kind;
    fs::write(&head, "{}").expect("written");
    assert_eq!(kind(&dir), "head_changed");
    fs::remove_file(&head).expect("removed");
    assert_eq!(kind(&dir), "head_missing");
    let other = log_of(10);
    fs::copy(other.path().join("audit.head"), &head).expect("copied");
    // The times are those of a clock that stands still, so make the logs differ.
    fill(&audit(other.path(), &["k1"], 0, 0), 1);
    fs::copy(other.path().join("audit.head"), &head).expect("copied");
    assert_eq!(kind(&dir), "cut_off");
    fs::write(&head, right).expect("written");
    assert!(check(&dir).is_clean());
}

#[test]
fn a_log_that_was_written_anew_with_other_entries_does_not_fit_the_head() {
    let (dir, other) = (log_of(10), tempfile::tempdir().expect("a directory"));
    let log = audit(other.path(), &["k1"], 0, 0);
    (100..110).for_each(|count| log.record(&entry(count)).expect("recorded"));
    fs::copy(other.path().join("audit.jsonl"), dir.path().join("audit.jsonl")).expect("copied");
    let findings = check(&dir).findings;
    assert_eq!(findings.first().expect("found").kind, "head_of_another_log");
}

#[test]
fn lines_of_a_key_that_is_missing_are_reported_once_and_the_others_checked() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = |keys: &[&str]| audit(dir.path(), keys, 2048, 0);
    (0..6).for_each(|_| fill(&at(&["old"]), 4));
    fill(&at(&["new", "old"]), 4);
    let both = at(&["new", "old"]).verify().expect("readable");
    assert!(both.is_clean(), "{:?}", both.findings);
    assert_eq!(Vec::from_iter(&both.keys), ["new", "old"]);
    let new = at(&["new"]).verify().expect("readable");
    let kinds: Vec<_> = new.findings.iter().map(|found| found.kind).collect();
    assert_eq!(kinds, ["key_missing"]);
}

#[test]
fn another_key_under_the_same_id_verifies_nothing() {
    let dir = log_of(5);
    let path = dir.path().join("audit.jsonl");
    let text = fs::read_to_string(&path).expect("read").replace("\"key\":\"k1\"", "\"key\":\"k2\"");
    fs::write(&path, text).expect("written");
    assert!(!audit(dir.path(), &["k2"], 0, 0).verify().expect("readable").is_clean());
}
