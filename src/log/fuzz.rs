//! Fuzz target of the escapes of the log: what is written is one line, and reads back as it was.

use super::escape::{Escaping, finish_json, is_harmful, push_json};
use crate::fuzz::{Target, text};
use std::fmt::Write as _;

pub const TARGETS: &[Target] = &[Target {
    name: "log_escape",
    run: escape,
    seeds: &["/sp/campaigns", "a\"b\\c\n\t\u{1b}[31m\u{9b}é\u{202e}gpj", "\\u0041\u{2028}"],
}];

fn escape(input: &[u8]) {
    let Some(text) = text(input) else { return };
    let mut json = b"\"".to_vec();
    push_json(&mut json, text);
    json.push(b'"');
    assert_eq!(serde_json::from_slice::<String>(&json).expect("a string"), text);
    let finished = finish_json(serde_json::to_string(text).expect("a string").as_bytes());
    assert_eq!(serde_json::from_slice::<String>(&finished).expect("a string"), text);
    let mut plain = String::new();
    write!(Escaping(&mut plain), "{text}").expect("a string takes all");
    for line in [String::from_utf8(json), String::from_utf8(finished), Ok(plain)] {
        assert!(!line.expect("text").contains(is_harmful));
    }
}
