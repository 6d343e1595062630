//! The data plane with a stranger beside each request: nothing is different but what it is told, that
//! there is no such account.

use crate::support::{
    proxy::{Proxy, amazon},
    stranger::{VARIABLE, sent},
};
use std::process::Command;

/// Files about what a request is and what becomes of it.
const FILES: [&str; 8] = [
    "selection::",
    "replay_on_401::",
    "replay_bodies::",
    "header_hygiene::",
    "lwa_shim::",
    "token_refresh::",
    "grant_death::",
    "bad_input::",
];

/// What counts connections, requests or lines, of which a second caller makes more.
const SKIPPED: [&str; 2] = ["heads_that_are_no_http", "long_heads_get_a_marked_431"];

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_is_beside_a_request_where_one_is_asked_for() {
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    let before = sent();
    assert_eq!(proxy.get("/_sink").await.status, 200);
    let is_asked_for = std::env::var_os(VARIABLE).is_some();
    assert_eq!(sent() > before, is_asked_for);
}

/// Run in a process of its own, which is this one with a variable.
#[test]
fn the_data_plane_behaves_the_same_with_a_stranger_beside_each_request() {
    if std::env::var_os(VARIABLE).is_some() {
        return;
    }
    let mut again = Command::new(std::env::current_exe().expect("this program"));
    again.args(FILES).arg("stranger::a_stranger").env(VARIABLE, "1");
    again.args(SKIPPED.iter().flat_map(|name| ["--skip", name]));
    let said = again.output().expect("it runs");
    let text = String::from_utf8_lossy(&said.stdout);
    assert!(said.status.success(), "{text}\n{}", String::from_utf8_lossy(&said.stderr));
    assert!(
        text.contains("a_stranger_is_beside_a_request_where_one_is_asked_for ... ok"),
        "{text}"
    );
}
