//! `adsproxy caller add` and `rotate`: a key is shown once, and the lines that accept it are right.

use crate::support::program::{Home, Said};
use adsproxy::testing::{KeyKind, PresentedKey};
use serde_json::Value;

/// A configuration with `more`, which `check-config` accepts.
fn configured(more: &str) -> Home {
    let home = Home::new();
    home.write("secret", "a-secret", 0o600);
    let toml = format!(
        "[lwa]\nclient_id = \"amzn1.application-oa2-client.example\"\n\
         client_secret = {{ file = \"./secret\" }}\n[store]\nkind = \"memory\"\n{more}\n"
    );
    home.write("proxy.toml", &toml, 0o600);
    home
}

fn json(said: &Said) -> Value {
    assert_eq!(said.code, Some(0), "{said:?}");
    serde_json::from_str(&said.out).unwrap_or_else(|_| panic!("{said:?}"))
}

/// The configuration that `lines` of TOML make.
fn keys_of(lines: &str) -> Vec<toml::Value> {
    let document: toml::Table = lines.parse().expect("TOML");
    let caller = document
        .get("callers")
        .map_or(&document, |callers| callers[0].as_table().expect("a table"));
    caller["keys"].as_array().expect("keys").clone()
}

#[test]
fn the_lines_that_are_printed_accept_the_key_that_is_printed() {
    let home = Home::new();
    let line = "caller add reports --account acme --account eu-* --read-only --tenant t1 --operator \
                --expires 2037-03-01 --json";
    let said = json(&home.run(line));
    let key = PresentedKey::parse(said["key"].as_str().expect("a key")).expect("well-formed");
    assert_eq!(key.kind, KeyKind::Caller);
    assert_eq!(said["id"], key.id.as_str());
    let lines = said["config"].as_str().expect("lines");
    let keys = keys_of(lines);
    assert_eq!(keys[0]["id"].as_str(), Some(key.id.as_str()));
    assert_eq!(keys[0]["sha256"].as_str(), Some(key.digest().hex().as_str()));
    assert_eq!(keys[0]["expires"].as_str(), Some("2037-03-01T00:00:00Z"));
    let document: toml::Table = lines.parse().expect("TOML");
    let caller = &document["callers"][0];
    assert_eq!(caller["accounts"].as_array().map(Vec::len), Some(2));
    for (name, value) in
        [("read_only", true.into()), ("operator", true.into()), ("tenant", "t1".into())]
    {
        assert_eq!(caller.get(name), Some::<&toml::Value>(&value), "{name}");
    }
    assert!(!lines.contains(said["key"].as_str().expect("a key")));
    let checked = configured(lines).run("check-config");
    assert_eq!(checked.code, Some(0), "{checked:?}");
}

#[test]
fn nothing_is_written_and_the_key_is_shown_once() {
    let home = configured("");
    let before = std::fs::read_to_string(home.path("proxy.toml")).expect("a file");
    let said = home.run("caller add reports");
    assert_eq!(said.code, Some(0), "{said:?}");
    let keys: Vec<&str> =
        said.out.split_whitespace().filter(|word| word.starts_with("adsk_")).collect();
    let [key] = keys[..] else { panic!("{said:?}") };
    assert!(PresentedKey::parse(key).is_ok());
    assert!(said.out.contains("./proxy.toml; a server that runs"), "{said:?}");
    assert_eq!(std::fs::read_to_string(home.path("proxy.toml")).expect("a file"), before);
    let files = std::fs::read_dir(home.path("")).expect("a directory").count();
    assert_eq!(files, 2, "the configuration and the secret");
}

#[test]
fn the_first_caller_can_be_made_for_a_configuration_that_asks_for_one() {
    let home = configured("[listen]\nproxy = [\"0.0.0.0:8787\"]");
    assert_eq!(home.run("check-config").code, Some(78));
    let said = home.run("caller add reports");
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.err.contains("is not right yet"), "{said:?}");
}

#[test]
fn a_caller_that_is_there_is_not_made_again() {
    let block = json(&Home::new().run("caller add reports --json"))["config"].clone();
    let home = configured(block.as_str().expect("lines"));
    let said = home.run("caller add reports");
    assert_eq!(said.code, Some(1));
    assert!(said.err.contains("caller rotate reports"), "{said:?}");
    assert_eq!(home.run("caller add others").code, Some(0));
}

#[test]
fn a_rotation_keeps_the_old_keys_for_the_overlap_and_no_longer_than_they_had() {
    let keys = "[[callers]]\nname = \"reports\"\nkeys = [\n\
                { id = \"aaaaaaaa\", sha256 = \"@\", created = \"2026-01-01\" },\n\
                { id = \"bbbbbbbb\", sha256 = \"@\", expires = \"2026-01-02\" },\n]"
        .replace('@', &"0".repeat(64));
    let home = configured(&keys);
    let said = json(&home.run("caller rotate reports --overlap 1h --json"));
    let new = PresentedKey::parse(said["key"].as_str().expect("a key")).expect("well-formed");
    let keys = keys_of(said["config"].as_str().expect("lines"));
    let ids: Vec<_> = keys.iter().filter_map(|key| key["id"].as_str()).collect();
    assert_eq!(ids, [new.id.as_str(), "aaaaaaaa"], "the one that is over is left out");
    assert!(keys[0].get("expires").is_none());
    assert_eq!(keys[1]["created"].as_str(), Some("2026-01-01T00:00:00Z"));
    let end: jiff::Timestamp =
        keys[1]["expires"].as_str().expect("an end").parse().expect("a time");
    let left = end.as_second() - jiff::Timestamp::now().as_second();
    assert!((3500..=3600).contains(&left), "{left}");

    let none = json(&home.run("caller rotate reports --overlap 0 --json"));
    assert_eq!(keys_of(none["config"].as_str().expect("lines")).len(), 1);
    let unknown = home.run("caller rotate nobody");
    assert_eq!(unknown.code, Some(1));
    assert!(unknown.err.contains("configured: reports"), "{unknown:?}");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let home = Home::new();
    for arguments in [
        "caller",
        "caller add",
        "caller add a/b",
        "caller add reports --account a/b",
        "caller add reports --account=",
        "caller add reports --tenant a~b",
        "caller add reports --expires 2020-01-01",
        "caller add reports --expires soon",
        "caller rotate reports --overlap soon",
    ] {
        let said = home.run(arguments);
        assert_eq!(said.code, Some(2), "{arguments}: {said:?}");
    }
}
