//! An entry of the audit log that is about a request of the data plane leads to the line of that
//! request, by an id that no caller chooses.

use crate::support::proxy::{Proxy, Setup, amazon, eventually};
use http::Method;
use serde_json::Value;
use std::{collections::BTreeSet, fs};

/// The lines of `text` that hold `part`.
fn lines(text: &str, part: &str) -> Vec<Value> {
    let lines = text.lines().filter(|line| line.contains(part));
    lines.filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn refreshes(proxy: &Proxy) -> Vec<Value> {
    let log = proxy.dir.path().join("store/audit.jsonl");
    lines(&fs::read_to_string(log).unwrap_or_default(), "\"token.refresh\"")
}

fn access(proxy: &Proxy) -> Vec<Value> {
    lines(&proxy.log(), "adsproxy::access")
}

fn is_ours(id: &Value) -> bool {
    id.as_str().is_some_and(|id| id.len() == 16 && id.bytes().all(|b| b.is_ascii_hexdigit()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_names_the_servers_own_id_of_its_request_and_so_does_the_access_line() {
    let amazon = amazon().await;
    let proxy = Proxy::with(&amazon, Setup { file_store: true, ..Setup::default() });
    for account in ["acme", "globex"] {
        let request = proxy.request(Method::GET, "/v2/profiles").header("X-Ads-Account", account);
        let answer = proxy.send(request.header("X-Request-Id", "chosen")).await;
        assert_eq!(answer.headers["x-ads-proxy-request-id"], "chosen");
    }
    eventually("both are recorded", || refreshes(&proxy).len() >= 2).await;
    // A stranger beside it may send the same id, and has no account.
    let is_mine = |line: &Value| line["request_id"] == "chosen" && line["account"].is_string();
    let mine = || access(&proxy).into_iter().filter(is_mine);
    eventually("both are logged", || mine().count() >= 2).await;
    let mut ids = BTreeSet::new();
    for entry in refreshes(&proxy) {
        assert_eq!(entry["request_id"], "chosen", "{entry}");
        let id = &entry["server_request_id"];
        assert!(is_ours(id) && ids.insert(id.to_string()), "{entry}");
        let lines: Vec<_> = mine().filter(|line| line["server_request_id"] == *id).collect();
        assert_eq!((lines.len(), &lines[0]["account"]), (1, &entry["account"]), "{entry}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_brings_no_id_has_the_servers_own_alone() {
    let amazon = amazon().await;
    let proxy = Proxy::with(&amazon, Setup { file_store: true, ..Setup::default() });
    let answer = proxy.get("/v2/profiles").await;
    let id = Value::from(answer.headers["x-ads-proxy-request-id"].to_str().expect("ASCII"));
    assert!(is_ours(&id));
    eventually("it is recorded", || !refreshes(&proxy).is_empty()).await;
    let logged = || access(&proxy).into_iter().find(|line| line["request_id"] == id);
    eventually("it is logged", || logged().is_some()).await;
    for line in [refreshes(&proxy).remove(0), logged().expect("a line")] {
        assert_eq!((&line["request_id"], &line["server_request_id"]), (&id, &Value::Null));
    }
}
