//! Sessions: keys that end by themselves, may do at most what their caller may, and are in no file.

use crate::support::{
    callers::TestCaller,
    load::Load,
    program::{Said, said},
    proxy::{
        ACME_REFRESH, Answer, GLOBEX_REFRESH, Proxy, Setup, amazon, assert_no_secret, eventually,
    },
    socket::Wire,
};
use adsproxy::{
    sandbox::{CLIENT_SECRET, Emulator},
    testing::{KeyKind, NewKey, PresentedKey},
};
use serde_json::Value;
use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

/// Servers of one store know of a revocation after this.
const NEWS: Duration = Duration::from_secs(1);

/// A server with a file store that asks everybody, with `callers`.
fn server(amazon: &Emulator, callers: &[&TestCaller]) -> Proxy {
    let tables: String = callers.iter().map(|caller| caller.toml.as_str()).collect();
    let toml = tables + "\n[auth]\nrequired = true\n";
    Proxy::with(amazon, Setup { toml, file_store: true, ..Setup::default() })
}

fn run(proxy: &Proxy, arguments: &str) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_adsproxy"));
    command.arg("--config").arg(proxy.dir.path().join("proxy.toml"));
    command.args(arguments.split_whitespace());
    command.env("CLIENT_SECRET", CLIENT_SECRET);
    command.env("ACME_REFRESH", ACME_REFRESH).env("GLOBEX_REFRESH", GLOBEX_REFRESH);
    let said = said(&mut command);
    assert_no_secret("the output", format!("{said:?}").as_bytes());
    said
}

/// The key of a session that `caller issue` makes.
fn issue(proxy: &Proxy, arguments: &str) -> String {
    let said = run(proxy, &format!("caller issue {arguments}"));
    assert_eq!(said.code, Some(0), "{said:?}");
    let key = said.out.trim_end().to_owned();
    assert_eq!(PresentedKey::parse(&key).expect("a key").kind, KeyKind::Session);
    assert!(!said.err.contains(&key));
    key
}

fn id(key: &str) -> String {
    PresentedKey::parse(key).expect("a key").id.to_string()
}

fn ask(proxy: &Proxy, target: &str, key: &str) -> Answer {
    let head = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nX-Ads-Key: {key}\r\n\r\n");
    Wire::open(proxy.addr).send(head).answer()
}

fn status(proxy: &Proxy, key: &str) -> u16 {
    ask(proxy, "/a/acme/_sink", key).status.as_u16()
}

/// The answer without what differs from request to request.
fn shape(answer: &Answer) -> (u16, String) {
    let id = answer.headers["x-ads-proxy-request-id"].to_str().expect("ASCII");
    (answer.status.as_u16(), answer.text().replace(id, "ID"))
}

/// All that the files below `directory` hold.
fn contents(directory: &Path) -> Vec<u8> {
    let mut all = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            all.extend(contents(&path));
        } else if path.is_file() {
            all.extend(fs::read(&path).unwrap_or_default());
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_does_at_most_what_its_caller_may() {
    let amazon = amazon().await;
    let caller = TestCaller::new("etl", "accounts = [\"acme\"]");
    let other = TestCaller::new("other", "");
    let proxy = server(&amazon, &[&caller, &other]);
    let missing = shape(&ask(&proxy, "/a/nobody/_sink", &caller.key));
    let session = issue(&proxy, "etl --ttl 1h");
    assert_eq!(status(&proxy, &session), 200);
    assert_eq!(shape(&ask(&proxy, "/a/globex/_sink", &session)), missing);
    // What it asks for beyond its caller it does not get.
    let wider = issue(&proxy, "etl --ttl 1h --account globex --account *");
    assert_eq!(shape(&ask(&proxy, "/a/globex/_sink", &wider)), missing);
    assert_eq!(status(&proxy, &wider), 200);
    let narrower = issue(&proxy, "other --ttl 1h --account glob*");
    assert_eq!(ask(&proxy, "/a/globex/_sink", &narrower).status, 200);
    assert_eq!(shape(&ask(&proxy, "/a/acme/_sink", &narrower)), missing);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_shrinks_with_its_caller_and_ends_with_it() {
    let amazon = amazon().await;
    let (caller, gone) = (TestCaller::new("etl", ""), TestCaller::new("gone", ""));
    let proxy = server(&amazon, &[&caller, &gone]);
    let (session, orphan) = (issue(&proxy, "etl --ttl 1h"), issue(&proxy, "gone --ttl 1h"));
    assert_eq!((status(&proxy, &session), status(&proxy, &orphan)), (200, 200));
    let path = proxy.dir.path().join("proxy.toml");
    let toml = fs::read_to_string(&path).expect("a file").replace(&gone.toml, "");
    let toml = toml.replace("name = \"etl\"", "name = \"etl\"\naccounts = [\"globex\"]");
    fs::write(&path, toml).expect("a file");
    let proxy = proxy.restart();
    assert_eq!(ask(&proxy, "/a/globex/_sink", &session).status, 200, "it outlives a restart");
    assert_eq!(status(&proxy, &session), 404);
    assert_eq!(status(&proxy, &orphan), 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_reaches_the_other_servers_of_the_store_within_a_second() {
    let amazon = amazon().await;
    let caller = TestCaller::new("etl", "");
    let one = server(&amazon, &[&caller]);
    let two = Proxy::twin(&one);
    let never = NewKey::generate(KeyKind::Session).expect("a key");
    let rejected = shape(&ask(&one, "/a/acme/_sink", never.expose()));
    for _ in 0..5 {
        let load = Load::measure();
        let session = issue(&one, "etl --ttl 1h");
        assert_eq!(status(&one, &session), 200, "at once, where it was issued");
        eventually("the other server knows it", || status(&two, &session) == 200).await;
        let revoked = run(&one, &format!("caller revoke {}", id(&session)));
        let began = Instant::now();
        assert!(revoked.out.starts_with("session "), "{revoked:?}");
        assert_eq!(shape(&ask(&one, "/a/acme/_sink", &session)), rejected, "as one never made");
        // The polls for it have used up the mistakes of this address, so it may be 429.
        eventually("the other server rejects it", || status(&two, &session) != 200).await;
        let (took, slack) = (began.elapsed(), load.slack());
        assert!(took < NEWS + slack, "{took:?}, and the machine was late by {slack:?}");
        let again = run(&one, &format!("caller revoke {}", id(&session)));
        assert_eq!(again.code, Some(1));
        assert!(again.err.contains("no session and no key"), "{again:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_stays_revoked_on_every_server() {
    let amazon = amazon().await;
    let caller = TestCaller::new("etl", "");
    let one = server(&amazon, &[&caller]);
    let two = Proxy::twin(&one);
    assert_eq!((status(&one, &caller.key), status(&two, &caller.key)), (200, 200));
    let revoked = run(&one, &format!("caller revoke {}", &caller.key));
    assert!(revoked.out.contains("Take its line out of the configuration"), "{revoked:?}");
    assert_eq!(status(&one, &caller.key), 403);
    eventually("the other server rejects it", || status(&two, &caller.key) == 403).await;
    assert_eq!(status(&one.restart(), &caller.key), 403);
    let listed = run(&two, "caller list");
    assert!(listed.out.contains("revoked"), "{listed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_by_the_clock() {
    let amazon = amazon().await;
    let caller = TestCaller::new("etl", "");
    let proxy = server(&amazon, &[&caller]);
    let session = issue(&proxy, "etl --ttl 4s");
    assert_eq!(status(&proxy, &session), 200);
    eventually("it has ended", || status(&proxy, &session) == 403).await;
    for (arguments, why) in [
        ("etl --ttl 0", "from 1 second to 24 hours"),
        ("etl --ttl 25h", "from 1 second to 24 hours"),
        ("nobody --ttl 1h", "no caller \"nobody\""),
    ] {
        let said = run(&proxy, &format!("caller issue {arguments}"));
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(said.err.contains(why), "{said:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_a_store_without_a_server_is_known_to_the_next_server() {
    let amazon = amazon().await;
    let caller = TestCaller::new("etl", "");
    let mut proxy = server(&amazon, &[&caller]);
    proxy.kill();
    let (session, ended) =
        (issue(&proxy, "etl --ttl 1h --note nightly"), issue(&proxy, "etl --ttl 1h"));
    assert_eq!(run(&proxy, &format!("caller revoke adss_{}", id(&ended))).code, Some(0));
    let list: Value = serde_json::from_str(&run(&proxy, "caller list --json").out).expect("JSON");
    assert_eq!(list["sessions"][0]["note"], "nightly");
    assert_eq!(list["sessions"].as_array().map(Vec::len), Some(1));
    assert_eq!(list["callers"][0]["keys"][0]["state"], "active");
    let proxy = proxy.restart();
    assert_eq!((status(&proxy, &session), status(&proxy, &ended)), (200, 403));
    let used = || run(&proxy, "caller list --json").out;
    eventually("its use is known", || {
        let list: Value = serde_json::from_str(&used()).expect("JSON");
        list["sessions"][0]["last_used"].is_string()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_in_no_file_no_log_and_no_list_and_what_was_done_is_on_record() {
    let amazon = amazon().await;
    let caller = TestCaller::new("etl", "");
    let proxy = server(&amazon, &[&caller]);
    let session = issue(&proxy, "etl --ttl 1h --account acme --read-only");
    assert_eq!(status(&proxy, &session), 200);
    let mut wrong = session.clone();
    wrong.replace_range(20..21, if &session[20..21] == "a" { "b" } else { "a" });
    assert_eq!(status(&proxy, &wrong), 403);
    let listed = run(&proxy, "caller list --json");
    assert_eq!(run(&proxy, &format!("caller revoke {}", id(&session))).code, Some(0));
    assert_eq!(run(&proxy, &format!("caller revoke {}", id(&caller.key))).code, Some(0));
    let audit = run(&proxy, "audit tail --json -n 100");
    for (action, id) in [
        ("session.issue", id(&session)),
        ("session.revoke", id(&session)),
        ("key.revoke", id(&caller.key)),
    ] {
        let mut lines = audit.out.lines().filter(|line| line.contains(&format!("\"{action}\"")));
        let is_told = |line: &str| line.contains(&id) && line.contains("\"caller\":\"etl\"");
        assert!(lines.any(|line| is_told(line) && line.contains("\"uid\"")), "{}", audit.out);
    }
    let metrics = proxy.metrics();
    let stored = contents(&proxy.dir.path().join("store"));
    for key in [&session, &wrong, &caller.key] {
        let secret = &key[13..45];
        for (place, text) in [
            ("the list", listed.out.as_bytes()),
            ("the audit log", audit.out.as_bytes()),
            ("the log", proxy.log().as_bytes()),
            ("metrics", metrics.as_bytes()),
            ("the store", &stored),
        ] {
            let found = text.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{place} holds a key");
        }
    }
    let digest = PresentedKey::parse(&session).expect("a key").digest().hex();
    assert!(!listed.out.contains(&digest));
}
