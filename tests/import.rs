//! Accounts come over once and whole: what is added, left, replaced, refused, recorded and reported.

use crate::support::{
    extras,
    importing::{ACCESS, ONE, Scene, TWO, csv, outcomes},
    program::said,
};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    io::{Read, Write as _},
    os::unix::net::UnixListener,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

#[tokio::test]
async fn a_table_is_imported_once_and_nothing_changes_the_second_time() {
    let scene = Scene::new();
    scene.write("accounts.csv", &csv(ONE, TWO));
    let said = scene.import("accounts.csv");
    assert_eq!(said.code, Some(0), "{said:?}");
    let rows: Vec<Vec<&str>> =
        said.out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["LINE", "ACCOUNT", "OUTCOME", "REGION", "NOTE"]);
    assert_eq!(rows[1], ["2", "acme", "added", "na", "-"]);
    assert_eq!(rows[2], ["3", "shop", "added", "eu", "-"]);
    assert_eq!(said.err, "2 added\n");
    let record = scene.record("acme").await;
    assert_eq!(record.refresh_token.expose(), ONE);
    assert_eq!(record.consented_at, Some(1_767_312_000));
    assert_eq!(scene.record("shop").await.application, "default");

    let before = scene.bytes();
    let (code, records) = scene.report("--from csv accounts.csv");
    assert_eq!(
        (code, outcomes(&records)),
        (Some(0), vec![("acme", "unchanged"), ("shop", "unchanged")])
    );
    assert_eq!(scene.bytes(), before);
}

#[test]
fn a_dry_run_changes_no_byte() {
    let scene = Scene::new();
    scene.write("accounts.csv", &csv(ONE, TWO));
    let said = scene.import("--dry-run accounts.csv");
    assert_eq!(
        (said.code, said.err.as_str()),
        (Some(0), "dry run, nothing was changed: 2 added\n")
    );
    assert_eq!(scene.bytes(), BTreeMap::new(), "not even a directory");
    assert_eq!(scene.import("accounts.csv").code, Some(0));

    scene.write("accounts.csv", &format!("{}new,{ONE},fe,\nbad,,fe,\n", csv(TWO, TWO)));
    let before = scene.bytes();
    let (code, records) = scene.report("--dry-run --replace accounts.csv");
    assert_eq!(scene.bytes(), before);
    let expected =
        [("acme", "replaced"), ("bad", "rejected"), ("new", "added"), ("shop", "unchanged")];
    assert_eq!((code, outcomes(&records)), (Some(1), expected.to_vec()));
}

#[tokio::test]
async fn nothing_is_overwritten_without_replace() {
    let scene = Scene::new();
    scene.write("accounts.csv", &csv(ONE, ONE));
    assert_eq!(scene.import("accounts.csv").code, Some(0));
    scene.write("accounts.csv", &csv(TWO, ONE));
    let before = scene.bytes();
    let (code, records) = scene.report("accounts.csv");
    assert_eq!(
        (code, outcomes(&records)),
        (Some(0), vec![("acme", "differs"), ("shop", "unchanged")])
    );
    assert_eq!(records["acme"]["note"], "another refresh token; kept, --replace would take it");
    assert_eq!(scene.bytes(), before);
    let (code, records) = scene.report("--replace accounts.csv");
    assert_eq!(
        (code, outcomes(&records)),
        (Some(0), vec![("acme", "replaced"), ("shop", "unchanged")])
    );
    let record = scene.record("acme").await;
    assert_eq!(record.refresh_token.expose(), TWO);
    assert_eq!(record.previous_refresh_token, Some(ONE.into()));
    // The older one is of the same grant now, and does not come back.
    scene.write("accounts.csv", &csv(ONE, ONE));
    assert_eq!(outcomes(&scene.report("--replace accounts.csv").1)[0], ("acme", "unchanged"));
}

#[test]
fn every_change_is_in_the_audit_log_and_none_is_made_without() {
    let scene = Scene::new();
    scene.write("a.csv", &csv(ONE, TWO));
    let log = scene.home.path(".local/state/adsproxy/audit.jsonl");
    // No entry can be written where a directory is in the way.
    fs::create_dir_all(&log).expect("made");
    let said = scene.import("a.csv");
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.out.contains("it cannot be recorded"), "{said:?}");
    assert_eq!(said.out.matches("not done").count(), 2, "{said:?}");
    assert_eq!(scene.home.run("account list").out.lines().count(), 1, "nothing was imported");
    fs::remove_dir(&log).expect("removed");

    assert_eq!(scene.import("--dry-run a.csv").code, Some(0));
    assert!(!log.exists(), "nothing was done");
    assert_eq!(scene.import("a.csv").code, Some(0));
    scene.write("a.csv", &csv(ONE, ONE));
    assert_eq!(scene.import("--replace a.csv").code, Some(0));
    assert_eq!(scene.import("--replace a.csv").code, Some(0));
    let text = fs::read_to_string(&log).expect("a log");
    scene.canaries.assert_none_in("the audit log", text.as_bytes());
    let entries = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let mut recorded: Vec<String> = entries
        .filter(|entry| entry["action"] != "audit.begin")
        .map(|entry| {
            let texts =
                ["action", "account", "outcome"].map(|key| entry[key].as_str().unwrap_or("-"));
            texts.join(" ")
        })
        .collect();
    // Several accounts are worked on at once.
    recorded[..4].sort();
    let expected = [
        "account.add acme attempt",
        "account.add acme ok",
        "account.add shop attempt",
        "account.add shop ok",
        "import - ok",
        "account.change shop attempt",
        "account.change shop ok",
        "import - ok",
    ];
    assert_eq!(recorded, expected);
    assert_eq!(scene.home.run("audit verify").code, Some(0));
}

#[test]
fn a_bad_row_is_named_by_its_line_and_costs_no_other() {
    let scene = Scene::new();
    let rows = [
        format!("acme,{ONE},na,"),
        "no-token,,na,".to_owned(),
        format!("no-region,{ONE},,"),
        format!("bad-region,{ONE},{TWO},"),
        format!("bad-day,{ONE},na,tomorrow"),
        format!("too,many,{ONE},na,x"),
        format!("{TWO},shop,na,"),
        format!("access,{ACCESS},na,"),
        format!("twice,{ONE},na,"),
        format!("Twice!,{ONE},na,"),
        format!("twice,{TWO},na,"),
        format!("shop,{TWO},eu,"),
    ];
    scene.write(
        "a.csv",
        &format!("account,refresh_token,region,consented_at\n{}\n", rows.join("\n")),
    );
    let said = scene.import("a.csv");
    assert_eq!(said.code, Some(1), "{said:?}");
    let why = |line: usize| {
        let start = format!("{line} ");
        said.out.lines().find(|row| row.starts_with(&start)).expect("a row").to_owned()
    };
    for (line, part) in [
        (3, "rejected"),
        (3, "holds no refresh token"),
        (4, "names no region: say --region"),
        (5, "region is none of na, eu, fe"),
        (6, "consented_at is no day"),
        (7, "has 5 fields, the heading has 4"),
        (8, "account name looks like a secret"),
        (9, "is an access token"),
        (10, "same alias (line 12)"),
        (11, "added"),
        (12, "same alias (line 10)"),
        (13, "added"),
    ] {
        assert!(why(line).contains(part), "{part}\n{}", said.out);
    }
    assert!(said.err.ends_with("adsproxy: 9 of 12 records were rejected\n"), "{}", said.err);
    let list = scene.home.run("account list").out;
    assert!(list.contains("acme") && list.contains("shop") && list.contains("Twice"), "{list}");
    assert!(!list.contains("bad") && !list.contains("twice"), "{list}");
}

#[test]
fn of_two_records_with_one_alias_none_is_taken_because_the_other_is_of_an_unknown_client() {
    let scene = Scene::new();
    let text = format!(
        "account,refresh_token,region,client_id\nacme,{ONE},na,amzn1.application-oa2-client.other\n\
         acme,{TWO},na,\nshop,{TWO},na,\n"
    );
    scene.write("a.csv", &text);
    let said = scene.import("a.csv");
    assert_eq!(said.code, Some(1), "{said:?}");
    assert_eq!(said.out.matches("has the same alias").count(), 2, "{}", said.out);
    let list = scene.home.run("account list").out;
    assert!(list.contains("shop") && !list.contains("acme"), "{list}");
}

#[test]
fn a_name_that_is_no_alias_becomes_one_and_is_shown_beside_it() {
    let scene = Scene::new();
    let text = format!(
        "account,refresh_token\nAcme GmbH & Co,{ONE}\nAcme (GmbH) Co,{TWO}\n\"Shop, Inc.\",{TWO}\n日本,{ONE}\n"
    );
    scene.write("a.csv", &text);
    let said = scene.import("--region eu a.csv");
    assert_eq!(said.code, Some(1), "{said:?}");
    let row = said.out.lines().find(|row| row.contains("Shop-Inc. (\"Shop, Inc.\")"));
    assert!(row.is_some_and(|row| row.contains("  added  ")), "{}", said.out);
    assert_eq!(said.out.matches("has the same alias").count(), 2, "{}", said.out);
    assert!(said.out.contains("no alias can be made"), "{}", said.out);
    assert!(scene.home.run("account show Shop-Inc.").out.contains("idle"));
}

#[test]
fn five_thousand_accounts_are_imported_and_a_second_run_leaves_them() {
    let scene = Scene::new();
    let mut text = "account,refresh_token,region\n".to_owned();
    for number in 0..5000 {
        writeln!(text, "client-{number:04},{ONE}-{number},na").expect("memory");
    }
    scene.write("a.csv", &text);
    let said = scene.import("a.csv");
    assert_eq!((said.code, said.err.as_str()), (Some(0), "5000 added\n"));
    assert_eq!(said.out.lines().count(), 5001);
    let list = scene.home.run("account list").out;
    assert_eq!(list.lines().filter(|line| line.contains(" idle ")).count(), 5000);
    let before = scene.bytes();
    assert_eq!(scene.import("--replace a.csv").err, "5000 unchanged\n");
    assert_eq!(scene.bytes(), before);
}

#[test]
fn an_import_ends_at_the_first_record_that_the_server_does_not_respond_to() {
    let (out, requests) = import_forty_beside(b"");
    assert!((1..=16).contains(&requests), "as many as are worked on at once: {requests}");
    assert_eq!(out.matches("no adsproxy responds at").count(), requests, "{out}");
    assert_eq!(out.matches("it was not done").count(), 40 - requests, "{out}");
}

#[test]
fn an_import_goes_on_after_a_record_that_the_server_refuses() {
    let refusal = b"HTTP/1.1 400 Bad Request\r\n\r\n{\"detail\":\"not this one\"}";
    let (out, requests) = import_forty_beside(refusal);
    assert_eq!((requests, out.matches("not this one").count()), (40, 40), "{out}");
}

/// The table of an import of forty accounts beside a server that responds to each with `response`
/// and closes the connection, and how many requests that server had.
fn import_forty_beside(response: &'static [u8]) -> (String, usize) {
    let scene = Scene::new();
    scene.write("a.csv", &csv(ONE, TWO));
    assert_eq!(scene.import("a.csv").code, Some(0), "makes the store");
    let socket = scene.home.path(".local/state/adsproxy/control.sock");
    let listener = UnixListener::bind(socket).expect("bound");
    let requests = Arc::new(AtomicUsize::new(0));
    let counter = requests.clone();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            // Some connections only find out whether a server listens.
            if stream.read(&mut [0; 4096]).is_ok_and(|read| read > 0) {
                counter.fetch_add(1, Ordering::SeqCst);
                stream.write_all(response).expect("written");
            }
        }
    });
    let mut text = "account,refresh_token,region\n".to_owned();
    for number in 0..40 {
        writeln!(text, "client-{number},{ONE}-{number},na").expect("memory");
    }
    scene.write("b.csv", &text);
    let said = scene.import("b.csv");
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("40 of 40 records were rejected"), "{said:?}");
    (said.out, requests.load(Ordering::SeqCst))
}

#[test]
fn a_terminal_gets_a_progress_bar_and_a_pipe_gets_none() {
    if !extras::required("script") {
        return;
    }
    let scene = Scene::new();
    scene.write("a.csv", &csv(ONE, TWO));
    let program = env!("CARGO_BIN_EXE_adsproxy");
    let mut script = Command::new("script");
    script.args(["-qec", &format!("{program} import --dry-run a.csv"), "/dev/null"]);
    script.current_dir(scene.home.path("")).env("HOME", scene.home.path("")).stdin(Stdio::null());
    script.env("ADSPROXY_CONFIG", "proxy.toml");
    let said = scene.judge(said(&mut script));
    assert!(said.out.contains("#] 2/2") && said.out.contains("\r\u{1b}[K"), "{said:?}");
    let piped = scene.import("--dry-run a.csv");
    assert!(!piped.err.contains('#') && !piped.err.contains('\r'), "{piped:?}");
}
