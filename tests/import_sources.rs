//! Accounts come over from every source: as its own program reads it, and nothing broken.

use crate::support::{
    extras,
    importing::{ACCESS, CLIENT_SECRET, ONE, OTHER_ID, OTHER_SECRET, Scene, TWO, csv},
};
use adsproxy::testing::{Clock, SystemClock};
use serde_json::{Value, json};
use std::{
    fs,
    io::Write as _,
    process::{Command, Stdio},
    time::Duration,
};

#[tokio::test]
async fn the_environment_of_python_amazon_ad_api_is_one_account() {
    let scene = Scene::new();
    let variables = [
        ("AD_API_REFRESH_TOKEN", ONE),
        ("AD_API_CLIENT_ID", "id"),
        ("AD_API_CLIENT_SECRET", CLIENT_SECRET),
        ("AD_API_PROFILE_ID", "123456"),
        ("AD_API_DEFAULT_MARKETPLACE", "JP"),
    ];
    let said = scene.import_with("--from env", &variables);
    assert_eq!(said.code, Some(0), "{said:?}");
    let lines = "[accounts.default]\nregion = \"fe\"\nheaders = { \"Amazon-Advertising-API-Scope\" = \"123456\" }\n";
    assert!(said.err.contains(lines), "{}", said.err);
    assert_eq!(scene.record("default").await.refresh_token.expose(), ONE);
    // A flag names it, and wins over the variable.
    let said = scene.import_with("--from env --account shop --region eu", &variables);
    assert!(said.out.contains("shop") && said.out.contains("eu"), "{said:?}");

    // The lines that were shown are right: with them there is nothing left to add.
    let config = fs::read_to_string(scene.home.path("proxy.toml")).expect("the configuration");
    scene.write("proxy.toml", &format!("{config}\n{lines}"));
    let said = scene.import_with("--from env", &variables);
    assert_eq!((said.code, said.err.as_str()), (Some(0), "1 unchanged\n"));
}

#[test]
fn an_environment_without_one_certain_account_is_refused() {
    let scene = Scene::new();
    let application = [("AMAZON_CLIENT_ID", OTHER_ID), ("AMAZON_CLIENT_SECRET", OTHER_SECRET)];
    let said = scene.import_with("--from env --region na", &application);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("there is no account to import"), "{said:?}");
    assert!(said.err.contains("client_secret = { env = \"AMAZON_CLIENT_SECRET\" }"), "{said:?}");
    let both = [("AD_API_REFRESH_TOKEN", ONE), ("AMAZON_REFRESH_TOKEN", TWO)];
    let said = scene.import_with("--from env --region na", &both);
    assert!(said.code == Some(1) && said.err.contains("unset the one"), "{said:?}");
}

#[test]
fn another_application_is_named_and_never_stored_or_shown() {
    let scene = Scene::new();
    let text = json!([
        { "account": "acme", "refresh_token": ONE, "client_id": OTHER_ID, "client_secret": OTHER_SECRET },
        { "account": "shop", "refresh_token": TWO, "client_id": "id", "client_secret": OTHER_SECRET },
    ]);
    scene.write("a.json", &text.to_string());
    let said = scene.import("--region na a.json");
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.out.contains("no configured application has its client id"), "{}", said.out);
    assert!(said.err.contains("[applications.NAME]\nclient_id = \"…\""), "{}", said.err);
    assert!(said.err.contains("client_secret = { file = \"…\" }"), "{}", said.err);
    let note = "the client secret beside account shop is none of those configured";
    assert!(said.err.contains(note), "{}", said.err);
    for (path, bytes) in scene.bytes() {
        scene.canaries.assert_none_in(&path, &bytes);
    }
    // Even if it is asked for: the grant would be shown to another application.
    let said = scene.import("--region na --application default a.json");
    assert!(said.out.contains("its client id is not that of application \"default\""), "{said:?}");
    let said = scene.import("--region na --application none a.json");
    assert!(said.code == Some(1) && said.err.contains("configured: default"), "{said:?}");
}

#[test]
fn json_comes_in_every_shape_and_from_standard_input() {
    for text in [
        json!({ "account": "acme", "refreshToken": ONE, "region": "na" }).to_string(),
        json!([{ "alias": "acme", "refresh_token": ONE, "region": "NA" }]).to_string(),
        json!({ "acme": { "refresh_token": ONE, "region": "US" } }).to_string(),
        json!({ "accounts": { "acme": { "refresh_token": ONE, "region": "na" } } }).to_string(),
        format!("{}\n", json!({ "name": "acme", "refresh_token": ONE, "marketplace": "CA" })),
    ] {
        let scene = Scene::new();
        for (arguments, outcome) in [("import -", "added"), ("import --from json -", "unchanged")] {
            let said = scene.judge(scene.home.run_with_input(arguments, &text));
            assert_eq!(said.code, Some(0), "{text}\n{said:?}");
            assert!(said.out.contains(&format!("acme     {outcome}")), "{said:?}");
        }
    }
}

#[test]
fn a_token_that_standard_input_brings_late_is_as_good_as_it_is_then() {
    let scene = Scene::new();
    let mut command = scene.home.command("import --from json -");
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    // Long enough for a clock of whole seconds.
    std::thread::sleep(Duration::from_secs(2));
    let record = json!({
        "account": "acme", "region": "na", "refresh_token": ONE, "access_token": ACCESS,
        "expires_at": unix_now() + 3600,
    });
    child.stdin.take().expect("piped").write_all(record.to_string().as_bytes()).expect("written");
    let output = child.wait_with_output().expect("it ends");
    let out = String::from_utf8(output.stdout).expect("text");
    assert!(out.contains("with its access token"), "{out}");
}

#[test]
fn a_source_that_cannot_be_used_is_refused_without_being_quoted() {
    let scene = Scene::new();
    let memory = "[lwa]\nclient_id = \"id\"\nclient_secret = { file = \"~/secret\" }\n[store]\nkind = \"memory\"\n";
    scene.write("memory.toml", memory);
    scene.write("no-heading.csv", &format!("acme,{ONE},na\n"));
    scene.write("text", ONE);
    scene.write("broken.json", &format!("[{{\"refresh_token\": \"{ONE}\""));
    scene.write(
        "mixed.json",
        &json!([{"refresh_token": ONE}, {"refresh_token": TOKEN}]).to_string(),
    );
    scene.write("broken.yml", &format!("a: '{ONE}\n"));
    scene.write("empty.csv", "account,refresh_token\n");
    scene.write("a.csv", &csv(ONE, TWO));
    for (arguments, code, part) in [
        ("", 2, "say what to import"),
        ("--from csv", 2, "say which FILE"),
        ("--from env text", 1, "line 1 is no NAME=value"),
        ("--from xml a.csv", 2, "--from"),
        ("none.csv", 1, "cannot open none.csv"),
        ("no-heading.csv", 1, "must be a heading"),
        ("text", 1, "say --from"),
        ("broken.json", 1, "not JSON: line 1"),
        ("mixed.json", 1, "some are not"),
        ("broken.yml", 1, "not YAML: line"),
        ("empty.csv", 1, "there is no account"),
        ("--from python-ad-api", 1, ".config/python-ad-api/credentials.yml"),
        ("--config memory.toml a.csv", 1, "keeps nothing between processes"),
        ("/dev/zero", 1, "more than 64 MiB"),
    ] {
        let said = scene.import(arguments);
        assert_eq!(said.code, Some(code), "{arguments}: {said:?}");
        assert!(said.err.contains(part) && said.out.is_empty(), "{arguments}: {said:?}");
    }
    assert_eq!(scene.home.run("account list").out.lines().count(), 1);
}

#[test]
fn a_file_that_others_may_read_is_used_with_a_warning() {
    let scene = Scene::new();
    for (mode, warns) in [(0o644, true), (0o640, false), (0o600, false)] {
        scene.home.write("a.csv", &csv(ONE, TWO), mode);
        let said = scene.import("a.csv");
        assert_eq!(said.code, Some(0), "{said:?}");
        assert_eq!(said.err.contains("warning: a.csv is open to every user"), warns, "{said:?}");
    }
}

/// Made once by `cryptography` 50.0.2 under `KEY`; holds `ONE`.
const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZmZlZGNiYTk4NzY1NDMyMTA=";
const TOKEN: &str = "gAAAAABrARQBzhee70fZziYDCELaQJV136L9cDj2c-0hrkDkRWNTUomkEF743n4JmDgacLmyPYxoFkcWjnrXBn_qQzlRO6fgrfFmA9_HVagttJwc5RYiTu0=";

#[tokio::test]
async fn the_legacy_store_opens_with_its_key_and_with_no_other() {
    let scene = Scene::new();
    scene.write(
        "legacy.json",
        &json!({ "refresh_token": TOKEN, "token_type": "bearer" }).to_string(),
    );
    let import = |arguments: &str, key: &str| {
        let arguments = format!("{arguments} --region na --account acme legacy.json");
        scene.import_with(&arguments, &[("FERNET_KEY", key)])
    };
    let other = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let said = import("", other);
    assert!(said.code == Some(1) && said.out.contains("no key of FERNET_KEY fits"), "{said:?}");
    for (key, part) in [("", "$FERNET_KEY"), ("CANARY", "Fernet key 1 of 1 is not 32 bytes")] {
        let said = import("", key);
        assert!(said.code == Some(1) && said.err.contains(part), "{said:?}");
    }
    assert_eq!(scene.home.run("account list").out.lines().count(), 1);
    let said = import("", &format!("{other}, {KEY}"));
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(scene.record("acme").await.refresh_token.expose(), ONE);

    scene.write("key", &format!("{KEY}\n"));
    let said = import("--fernet-key-file key", other);
    assert!(said.code == Some(0) && said.out.contains("unchanged"), "{said:?}");
    scene.write("legacy.json", &json!({ "refresh_token": ONE }).to_string());
    let said = import("--from legacy", KEY);
    assert!(said.out.contains("refresh_token is not encrypted: say --from json"), "{said:?}");
    let said = scene.import("--from json --region na --account x legacy.json");
    assert_eq!(said.code, Some(0), "{said:?}");
}

#[test]
fn a_legacy_token_that_was_altered_is_refused_and_the_others_are_not() {
    let scene = Scene::new();
    let (version, cut) = (TOKEN.replacen('g', "f", 1), &TOKEN[..TOKEN.len() - 24]);
    let swapped = format!(
        "{}{}{}",
        &TOKEN[..50],
        if &TOKEN[50..51] == "A" { "B" } else { "A" },
        &TOKEN[51..]
    );
    let lines: String = [swapped.as_str(), cut, &version, "%", TOKEN]
        .iter()
        .enumerate()
        .map(|(number, token)| {
            json!({ "account": format!("a{number}"), "refresh_token": token }).to_string() + "\n"
        })
        .collect();
    scene.write("legacy.jsonl", &lines);
    let said = scene.import_with("--from legacy --region na legacy.jsonl", &[("FERNET_KEY", KEY)]);
    assert_eq!(said.code, Some(1), "{said:?}");
    let rows: Vec<&str> = said.out.lines().skip(1).collect();
    for (row, part) in
        rows.iter().zip(["or it was altered", "cut off", "version", "base64", "added"])
    {
        assert!(row.contains(part), "{part}\n{}", said.out);
    }
    assert!(said.err.contains("4 of 5 records were rejected"), "{said:?}");
}

#[tokio::test]
async fn a_file_that_the_real_cryptography_package_made_is_imported() {
    let Some(mut python) = extras::python() else { return };
    let scene = Scene::new();
    let (new, old) = (KEY, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
    let now = unix_now();
    let records = json!([
        {
            "account": "acme", "region": "na", "refresh_token": ONE, "access_token": ACCESS,
            "expires_at": now + 1800, "updated_at": now - 1800, "token_type": "bearer",
        },
        {
            "account": "shop", "region": "EU", "refresh_token": TWO, "access_token": ACCESS,
            "expires_at": "2026-01-01T00:00:00", "updated_at": "2026-01-01T00:00:00+00:00",
            "token_type": "Bearer", "rotate_from": old,
        },
    ]);
    python.arg("tests/sdk/legacy_store.py").arg(format!("{new},{old}"));
    scene.write("legacy.json", &fed(&mut python, &records.to_string()));
    let said = scene.import_with("legacy.json", &[("FERNET_KEY", &format!("{new},{old}"))]);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.out.contains("with its access token"), "{}", said.out);
    assert!(said.out.contains("without its access token, which has expired"), "{}", said.out);
    let acme = scene.record("acme").await;
    let token = acme.access_token.expect("taken over");
    assert_eq!((acme.refresh_token.expose(), token.token.expose()), (ONE, ACCESS));
    assert_eq!((token.issued_at, token.expires_at), (now - 1800, now + 1800));
    let shop = scene.record("shop").await;
    assert_eq!((shop.refresh_token.expose(), shop.access_token), (TWO, None));
}

#[tokio::test]
async fn credentials_yml_is_read_as_python_amazon_ad_api_reads_it() {
    let Some(mut python) = extras::python() else { return };
    let scene = Scene::new();
    let text = format!(
        "version: '1.0'\n\nshared: &app\n  client_id: id\n  client_secret: {CLIENT_SECRET}\n  \
         refresh_token: \"{ONE}\"\n  profile_id: 42\n\ndefault:\n  refresh_token: '{ONE}'\n  \
         client_id: id\n  client_secret: '{CLIENT_SECRET}'\n  profile_id: '9007199254740993'\n\n\
         germany:\n  <<: *app\n  refresh_token: {TWO}   # quoted or not\n  profile_id: 43\n"
    );
    scene.write(".config/python-ad-api/credentials.yml", &text);
    let names = ["shared", "default", "germany"];
    python.arg("tests/sdk/read_credentials.py").args(names).env("HOME", scene.home.path(""));
    python.env_remove("XDG_CONFIG_HOME");
    let theirs: Value = serde_json::from_str(&fed(&mut python, "")).expect("JSON");
    let (code, records) = scene.report("--from python-ad-api --region eu");
    assert_eq!((code, records.len()), (Some(0), 3), "{records:?}");
    for name in names {
        let record = scene.record(name).await;
        assert_eq!(record.refresh_token.expose(), theirs[name]["refresh_token"], "{name}");
        let profile = match &theirs[name]["profile_id"] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        assert_eq!(records[name]["profile_id"], profile, "{name}");
    }
    // The region is the caller's business there: without a flag it is asked for.
    let scene = Scene::new();
    scene.write("credentials.yml", &text);
    let said = scene.import("credentials.yml");
    assert!(said.code == Some(1) && said.out.contains("say --region"), "{said:?}");
}

/// What `command` prints for `input`.
fn fed(command: &mut Command, input: &str) -> String {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).current_dir(env!("CARGO_MANIFEST_DIR"));
    let mut child = command.spawn().expect("it starts");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("written");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{:?}", output.status);
    String::from_utf8(output.stdout).expect("text")
}

fn unix_now() -> u64 {
    SystemClock.now().unix()
}
