//! `/openapi.json`: the document that the server serves is the one in the tree, and the server keeps
//! what it says.

use crate::support::proxy::{Proxy, amazon};
use serde_json::Value;
use std::{collections::BTreeSet, fs};

const SNAPSHOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/openapi.json");
/// Set, the snapshot is written instead.
const WRITE: &str = "ADSPROXY_WRITE_SNAPSHOT";

fn document(proxy: &Proxy) -> String {
    let response = proxy.ask_admin("/openapi.json");
    let (head, body) = response.split_once("\r\n\r\n").expect("a response");
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("application/json"), "{head}");
    body.to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_is_the_one_in_the_tree() {
    let amazon = amazon().await;
    let served = document(&Proxy::start(&amazon));
    if std::env::var_os(WRITE).is_some() {
        fs::write(SNAPSHOT, &served).expect("written");
    }
    let kept = fs::read_to_string(SNAPSHOT).expect("a file of ours");
    assert!(served == kept, "run this test with {WRITE}=1, and look at what it changes");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_names_every_route_but_those_of_the_control_socket() {
    let amazon = amazon().await;
    let document: Value = serde_json::from_str(&document(&Proxy::start(&amazon))).expect("JSON");
    assert_eq!(document["openapi"], "3.1.0");
    let mut named = BTreeSet::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            named.insert((method.to_uppercase(), path.clone()));
            let (audience, responses) = (&operation["x-audience"], &operation["responses"]);
            let is_operate = audience == "operate";
            assert_eq!(responses.get("401").is_some(), is_operate, "{method} {path}");
            let security = operation["security"].as_array().expect("a list");
            assert_eq!(!security.is_empty(), is_operate, "{method} {path}");
            assert!(operation["operationId"].is_string() && operation["summary"].is_string());
        }
    }
    let routes = adsproxy::testing::ROUTES.iter();
    let is_page = |path: &str| path.starts_with("/dashboard");
    let routes = routes.filter(|it| it.audience.as_str() != "local" && !is_page(it.path));
    let served = routes.map(|route| (route.method.to_string(), route.path.to_owned()));
    assert_eq!(named, served.collect());
}
