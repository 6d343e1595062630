//! Fuzz target of the lines of the log, its checkpoint and its start: none is taken that we did not write.

use super::{
    chain::{AuditKeys, Checkpoint, Line, START, complete_lines},
    chain_start::FoundStart,
};
use crate::fuzz::{Target, text};
use std::sync::LazyLock;
use zeroize::Zeroizing;

pub const TARGETS: &[Target] = &[Target { name: "audit_line", run: line, seeds: LINES }];

/// With MACs of another key.
const LINES: &[&str] = &[
    "{\"v\":1,\"seq\":1,\"time\":\"2026-11-20T00:00:00.000Z\",\"actor\":\"audit\",\"action\":\"log.start\",\
     \"outcome\":\"ok\",\"segment\":1,\"prev\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\",\"key\":\"k1\",\
     \"mac\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"}",
    "{\"v\":1,\"seq\":7,\"last\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\",\"key\":\"k1\",\
     \"mac\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"}",
    "{\"chain\":\"a\",\"from\":1,\"from_last\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\",\"seq\":7,\
     \"last\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\",\"closed\":true,\"key\":\"k1\",\
     \"mac\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"}",
];

static KEYS: LazyLock<AuditKeys> =
    LazyLock::new(|| AuditKeys::new(&vec![("k1".to_owned(), Zeroizing::new([7; 32]))]));

fn line(input: &[u8]) {
    for line in complete_lines(input).chain([input]) {
        let Some(line) = Line::parse(line) else { continue };
        assert!(line.verify(&KEYS, START).is_err(), "a forged line is taken");
        let _ = (line.tip(), line.follows());
    }
    assert!(!matches!(Checkpoint::of(input, &KEYS), Checkpoint::Valid(_)), "a forged checkpoint");
    let Some(text) = text(input) else { return };
    assert!(!matches!(FoundStart::of(text, "a", &KEYS), FoundStart::Valid(_)), "a forged start");
}
