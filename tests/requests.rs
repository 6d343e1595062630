//! The latest requests of the data plane, as the admin API lists them: what is said of each, to whom,
//! and in which order.

use crate::support::{
    callers::{OPERATOR, TestCaller},
    load::TEST_TIMEOUT,
    proxy::{Proxy, Setup, amazon, ask, assert_no_secret},
};
use adsproxy::sandbox::{ApiFault, Times};
use serde_json::Value;
use std::{
    thread::sleep,
    time::{Duration, Instant},
};

/// Tenant `a` has `shop`, tenant `b` has `shop` and `other`.
const ACCOUNTS: &str = r#"
[accounts."a~shop"]
region = "na"
refresh_token = { env = "ACME_REFRESH" }
[accounts."b~shop"]
region = "na"
refresh_token = { env = "ACME_REFRESH" }
[accounts."b~other"]
region = "eu"
refresh_token = { env = "GLOBEX_REFRESH" }
"#;

struct World {
    proxy: Proxy,
    data: TestCaller,
    of_a: TestCaller,
    of_b: TestCaller,
}

impl World {
    fn start(amazon: &adsproxy::sandbox::Emulator, more: &str) -> Self {
        let data = TestCaller::new("data", "");
        let [of_a, of_b] = ["a", "b"]
            .map(|name| TestCaller::new(&format!("of-{name}"), &format!("tenant = \"{name}\"")));
        let tables = [&data, &of_a, &of_b].map(|caller| caller.toml.as_str()).concat();
        let toml = format!("[auth]\nrequired = true\n{ACCOUNTS}{tables}{more}");
        let proxy = Proxy::with(amazon, Setup { toml, ..Setup::default() });
        Self { proxy, data, of_a, of_b }
    }

    /// Sends a request on the data plane; its status.
    fn send(&self, caller: &TestCaller, line: &str, id: &str) -> u16 {
        let key = &caller.key;
        let head = format!(
            "{line} HTTP/1.1\r\nHost: localhost\r\nX-Ads-Key: {key}\r\nX-Request-Id: {id}\r\n\
             X-Canary: canary-header\r\nContent-Length: 0"
        );
        let said = ask(self.proxy.addr, &head);
        said.split(' ').nth(1).and_then(|status| status.parse().ok()).expect(&said)
    }

    /// What the admin API says to `caller`: the status and the body.
    fn said(&self, caller: &TestCaller, query: &str) -> (u16, String) {
        let (key, path) = (&caller.key, "/api/v1/requests");
        let head = format!("GET {path}{query} HTTP/1.1\r\nHost: localhost\r\nX-Ads-Key: {key}");
        let said = ask(self.proxy.admin, &head);
        let status = said.split(' ').nth(1).and_then(|status| status.parse().ok()).expect(&said);
        (status, said.split_once("\r\n\r\n").expect("a body").1.to_owned())
    }

    fn page(&self, caller: &TestCaller, query: &str) -> Value {
        let (status, body) = self.said(caller, query);
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).expect("JSON")
    }

    fn list(&self, caller: &TestCaller, query: &str) -> Vec<Value> {
        self.page(caller, query)["requests"].as_array().expect("a list").clone()
    }

    /// The ids of the requests that `caller` sees.
    fn ids(&self, caller: &TestCaller, query: &str) -> Vec<String> {
        ids(&self.list(caller, query))
    }

    /// Waits until an operator sees the request `id`.
    fn wait_for(&self, id: &str) -> Value {
        let deadline = Instant::now() + TEST_TIMEOUT;
        loop {
            let list = self.list(&OPERATOR, "?limit=1000");
            if let Some(found) = list.into_iter().find(|one| one["request_id"] == id) {
                return found;
            }
            assert!(Instant::now() < deadline, "{id} is never listed");
            sleep(Duration::from_millis(20));
        }
    }
}

fn ids(list: &[Value]) -> Vec<String> {
    list.iter().map(|one| one["request_id"].as_str().expect("an id").to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_listed_with_what_became_of_it_and_nothing_secret() {
    let amazon = amazon().await;
    // Also where no access line is written.
    let world = World::start(&amazon, "\n[log]\naccess = false\n");
    assert_eq!(world.send(&world.data, "GET /a/acme/v2/profiles?canary=query", "one"), 200);
    assert_eq!(world.send(&world.data, "POST /a/missing/k/canary-key/x?canary", "two"), 404);
    let one = world.wait_for("one");
    for (field, value) in [
        ("method", "GET".into()),
        ("path", "/a/acme/v2/profiles".into()),
        ("account", "acme".into()),
        ("region", "na".into()),
        ("caller", "data".into()),
        ("status", 200.into()),
        ("error", Value::Null),
        ("replays", 0.into()),
        ("bytes_in", 0.into()),
    ] {
        assert_eq!(one[field], value, "{field}");
    }
    assert!(one["amazon_request_id"].as_str().is_some_and(|id| !id.is_empty()), "{one}");
    assert!(one["bytes_out"].as_u64().is_some_and(|bytes| bytes > 10), "{one}");
    assert!(one["duration_ms"].as_f64().is_some_and(|took| took > 0.0), "{one}");
    let time: jiff::Timestamp = one["time"].as_str().expect("a time").parse().expect("RFC 3339");
    assert!((jiff::Timestamp::now().as_second() - time.as_second()).abs() < 60, "{one}");

    let two = world.wait_for("two");
    assert_eq!((&two["status"], &two["error"]), (&404.into(), &"unknown_account".into()));
    assert_eq!(two["path"], "/a/missing/k/[masked]/x");
    assert!(two["account"].is_null() && two["amazon_request_id"].is_null(), "{two}");

    let (_, all) = world.said(&OPERATOR, "");
    assert!(!all.contains("canary"), "{all}");
    assert!(!all.contains(&world.data.key), "{all}");
    assert_no_secret("the list of requests", all.as_bytes());
    assert_eq!(world.ids(&OPERATOR, "?limit=2"), ["two", "one"], "the newest is first");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_and_a_long_path_are_listed_and_the_path_is_cut() {
    let amazon = amazon().await;
    let world = World::start(&amazon, "");
    amazon.state().api.faults.add(ApiFault::SpuriousUnauthorized, Times::Next(1));
    let long = format!("GET /a/acme/v2/{}", "long".repeat(500));
    world.send(&world.data, &long, "long");
    let long = world.wait_for("long");
    assert_eq!(long["replays"], 1, "{long}");
    assert_eq!(long["path"].as_str().map(str::len), Some(512));
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_leave_what_they_name() {
    let amazon = amazon().await;
    let world = World::start(&amazon, "");
    world.send(&world.data, "GET /a/acme/v2/profiles", "good");
    world.send(&world.data, "GET /a/globex/v2/profiles", "other");
    world.send(&world.data, "GET /a/missing/v2/profiles", "none");
    world.send(&world.of_a, "GET /a/shop/v2/profiles", "tenants");
    world.send(&TestCaller::new("stranger", ""), "GET /a/acme/v2/profiles", "stranger");
    for id in ["good", "other", "none", "tenants", "stranger"] {
        world.wait_for(id);
    }
    for (query, expected) in [
        ("?account=acme", &["good"][..]),
        ("?account=a~shop", &["tenants"]),
        ("?account=shop", &[]),
        ("?status=200", &["tenants", "other", "good"]),
        ("?status=4xx", &["stranger", "none"]),
        ("?status=404", &["none"]),
        ("?status=5xx", &[]),
        ("?caller=data", &["none", "other", "good"]),
        ("?caller=of-a", &["tenants"]),
        ("?caller=nobody", &[]),
        ("?error=unknown_account", &["none"]),
        ("?error=no_such_code", &[]),
        ("?caller=data&status=2xx&account=globex", &["other"]),
        ("?caller=data&account=a~shop", &[]),
    ] {
        assert_eq!(world.ids(&OPERATOR, query), expected, "{query}");
    }
    for wrong in ["?status=x", "?status=6xx", "?status=20", "?account=..", "?limit=0", "?cursor=1"]
    {
        let (status, body) = world.said(&OPERATOR, wrong);
        assert_eq!(status, 400, "{wrong}: {body}");
        assert!(body.contains("bad_request"), "{wrong}: {body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_sees_its_own_requests_and_those_of_others_look_like_none() {
    let amazon = amazon().await;
    let world = World::start(&amazon, "");
    let World { data, of_a, of_b, .. } = &world;
    world.send(of_a, "GET /a/shop/v2/profiles", "from-a");
    world.send(of_b, "GET /a/shop/v2/profiles", "from-b");
    world.send(of_b, "GET /a/other/v2/profiles", "other-b");
    world.send(of_b, "GET /a/missing/v2/profiles", "missing-b");
    // Who works for all tenants is none of a tenant's callers.
    world.send(data, "GET /a/a~shop/v2/profiles", "from-all");
    // Each worker hands over its own, one earlier than another.
    for id in ["from-a", "from-b", "other-b", "missing-b"] {
        world.wait_for(id);
    }
    let all = world.wait_for("from-all");
    assert_eq!(world.ids(&OPERATOR, "").len(), 5);

    let seen = world.list(of_a, "");
    assert_eq!(ids(&seen), ["from-a"], "{all}");
    assert_eq!((&seen[0]["account"], &seen[0]["caller"]), (&"shop".into(), &"of-a".into()));
    assert_eq!(world.ids(of_a, "?account=shop"), ["from-a"]);
    assert_eq!(world.ids(of_b, ""), ["other-b", "from-b"]);
    let (status, nothing) = world.said(of_a, "?account=missing");
    assert_eq!((status, nothing.as_str()), (200, r#"{"next_cursor":null,"requests":[]}"#));
    for query in [
        "?account=other",
        "?account=b~other",
        "?account=a~shop",
        "?caller=of-b",
        "?caller=data",
        "?caller=missing",
        "?error=unknown_account",
        "?status=404",
    ] {
        assert_eq!(world.said(of_a, query), (200, nothing.clone()), "{query}");
    }
    let (_, said) = world.said(of_a, "");
    assert!(!said.contains('~') && !said.contains("of-b") && !said.contains("data"), "{said}");
    // A caller of the data plane that is neither an operator nor of a tenant.
    assert_eq!(world.said(data, "").0, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_hold_each_request_once_while_new_ones_come() {
    let amazon = amazon().await;
    let world = World::start(&amazon, "");
    for number in 0..23 {
        world.send(&world.data, "GET /a/acme/v2/profiles", &format!("old-{number}"));
    }
    // Each worker hands over what it has at once, but not at the same time as the others.
    for number in 0..23 {
        world.wait_for(&format!("old-{number}"));
    }
    let (mut seen, mut query) = (Vec::new(), "?limit=5".to_owned());
    let mut pages = 0;
    loop {
        let page = world.page(&OPERATOR, &query);
        seen.extend(ids(page["requests"].as_array().expect("a list")));
        pages += 1;
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        query = format!("?limit=5&cursor={cursor}");
        let new = format!("new-{pages}");
        world.send(&world.data, "GET /a/acme/v2/profiles", &new);
        world.wait_for(&new);
    }
    let expected: Vec<_> = (0..23).rev().map(|number| format!("old-{number}")).collect();
    assert_eq!((seen, pages), (expected, 5));
    // The twin: from the beginning they are there.
    assert_eq!(world.ids(&OPERATOR, "?limit=2"), ["new-4", "new-3"]);
}
