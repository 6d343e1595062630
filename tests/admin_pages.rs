//! Long lists of the admin API, page by page: while entries come in between, each that was there is on
//! one page, and on one only.

use crate::support::{
    callers::{OPERATOR, TestCaller},
    commands::Commands,
    login::{ask, ask_with, log_in, proxy},
    proxy::{Proxy, Setup, amazon},
};
use http::Method;
use serde_json::{Value, json};
use std::fmt::Write as _;

async fn page(proxy: &Proxy, path: &str) -> Value {
    let reply = ask(proxy.admin, Method::GET, path, &[]).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    reply.json()
}

/// The texts `name` of a list.
fn texts(list: &Value, name: &str) -> Vec<String> {
    let list = list.as_array().expect("a list");
    list.iter().map(|one| one[name].as_str().expect("a text").to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_that_are_connected_meanwhile_move_no_other_to_another_page() {
    let amazon = amazon().await;
    let mut toml = String::new();
    for number in 0..7 {
        let source = "region = \"na\"\nrefresh_token = { env = \"ACME_REFRESH\" }";
        writeln!(toml, "[accounts.m-{number}]\n{source}").expect("a text");
    }
    let proxy = proxy(&amazon, Setup { toml, file_store: true, ..Setup::default() });
    let (mut seen, mut pages) = (Vec::new(), 0);
    let mut path = "/api/v1/accounts?limit=3".to_owned();
    loop {
        let page = page(&proxy, &path).await;
        seen.extend(texts(&page["accounts"], "account"));
        pages += 1;
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/api/v1/accounts?limit=3&cursor={cursor}");
        // One that belongs to a page before, one that belongs to the last.
        for account in [format!("a-new-{pages}"), format!("z-new-{pages}")] {
            let reply = log_in(proxy.admin, &account, "globex").await;
            assert_eq!(reply.json()["state"], "connected", "{}", reply.text);
        }
    }
    let mut expected = vec!["acme".to_owned(), "globex".to_owned()];
    expected.extend((0..7).map(|number| format!("m-{number}")));
    expected.extend((1..pages).map(|number| format!("z-new-{number}")));
    assert_eq!(seen, expected);
    assert!(pages >= 4, "{pages}");
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_of_the_audit_log_that_are_written_meanwhile_move_no_other_to_another_page() {
    let amazon = amazon().await;
    let caller = TestCaller::new("etl", "");
    let toml = caller.toml.clone();
    let proxy = proxy(&amazon, Setup { toml, file_store: true, ..Setup::default() });
    let issue = async || {
        let body = json!({ "caller": "etl", "ttl_secs": 600 }).to_string();
        let fields = [("content-type", "application/json")];
        let path = "/api/v1/sessions";
        let reply = ask_with(proxy.admin, Method::POST, path, &fields, body).await;
        assert_eq!(reply.status, 201, "{}", reply.text);
        reply.json()["id"].as_str().expect("an id").to_owned()
    };
    let mut issued = Vec::new();
    for _ in 0..7 {
        issued.insert(0, issue().await);
    }
    let list = "/api/v1/audit?action=session.issue&limit=3";
    let (mut seen, mut pages, mut path) = (Vec::new(), 0, list.to_owned());
    loop {
        let page = page(&proxy, &path).await;
        let entries = page["entries"].as_array().expect("a list");
        seen.extend(entries.iter().map(Value::to_string));
        pages += 1;
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("{list}&cursor={cursor}");
        issue().await;
    }
    // That it was tried and that it was done.
    assert_eq!((seen.len(), pages), (14, 5), "{seen:?}");
    for (entry, id) in seen.iter().zip(issued.iter().flat_map(|id| [id, id])) {
        assert!(entry.contains(id), "{id} is not in {entry}");
    }
    seen.dedup();
    assert_eq!(seen.len(), 14);
    // The twin: from the beginning, the entries that came meanwhile are there.
    let first = page(&proxy, list).await;
    assert!(!seen.contains(&first["entries"][0].to_string()), "{first}");
}

/// The ids of sessions on all pages, of which each has up to `limit`; `between` runs after each.
async fn sessions_on_pages(
    proxy: &Proxy,
    key: &str,
    limit: usize,
    mut between: impl AsyncFnMut(usize),
) -> (Vec<String>, usize) {
    let list = format!("/api/v1/sessions?limit={limit}");
    let (mut seen, mut pages, mut path) = (Vec::new(), 0, list.clone());
    loop {
        let reply = ask(proxy.admin, Method::GET, &path, &[("x-ads-key", key)]).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        let page = reply.json();
        let ids = texts(&page["sessions"], "id");
        assert!(ids.len() <= limit, "{page}");
        seen.extend(ids);
        pages += 1;
        let Some(cursor) = page["next_cursor"].as_str() else { return (seen, pages) };
        path = format!("{list}&cursor={cursor}");
        between(pages).await;
    }
}

async fn issue(proxy: &Proxy, caller: &str) -> (String, String) {
    let body = json!({ "caller": caller, "ttl_secs": 600 }).to_string();
    let fields = [("content-type", "application/json")];
    let reply = ask_with(proxy.admin, Method::POST, "/api/v1/sessions", &fields, body).await;
    assert_eq!(reply.status, 201, "{}", reply.text);
    let text = |name: &str| reply.json()[name].as_str().expect("a text").to_owned();
    (text("id"), text("key"))
}

async fn end(proxy: &Proxy, id: &str) {
    let path = format!("/api/v1/sessions/{id}");
    let reply = ask(proxy.admin, Method::DELETE, &path, &[]).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_come_and_go_meanwhile_move_no_other_to_another_page() {
    let amazon = amazon().await;
    let etl = TestCaller::new("etl", "");
    let toml = etl.toml.clone();
    let proxy = proxy(&amazon, Setup { toml, file_store: true, ..Setup::default() });
    let mut made = Vec::new();
    for _ in 0..9 {
        made.push(issue(&proxy, "etl").await.0);
    }
    let operator = &OPERATOR.key;
    let (order, pages) = sessions_on_pages(&proxy, operator, 1000, async |_| {}).await;
    assert_eq!((order.len(), pages), (9, 1));
    let mut come = Vec::new();
    // The last of a page that was read ends, of which the cursor is, and so does one of a page to come.
    let (seen, pages) = sessions_on_pages(&proxy, operator, 2, async |page| {
        if page == 1 {
            end(&proxy, &order[1]).await;
            end(&proxy, &order[5]).await;
        }
        come.push(issue(&proxy, "etl").await.0);
    })
    .await;
    let old: Vec<_> = seen.iter().filter(|id| !come.contains(id)).cloned().collect();
    let mut expected = order.clone();
    expected.remove(5);
    assert_eq!(old, expected, "each that was there is on one page, in order");
    assert!(pages >= 4, "{pages}");
    // The twin: from the beginning, the new ones are there and those that went are not.
    let (now, _) = sessions_on_pages(&proxy, operator, 3, async |_| {}).await;
    assert_eq!(now.len(), 7 + come.len());
    assert!(come.iter().all(|id| now.contains(id)) && !now.contains(&order[1]));
    for wrong in ["?cursor=x", "?cursor=7", "?limit=0", "?limit=1001"] {
        let path = format!("/api/v1/sessions{wrong}");
        let reply = ask(proxy.admin, Method::GET, &path, &[]).await;
        assert_eq!((reply.status.as_u16(), reply.code().as_str()), (400, "bad_request"), "{wrong}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_sees_its_own_callers_and_sessions_on_its_pages() {
    let amazon = amazon().await;
    let [one, two, free] = [("one", "tenant = \"t1\""), ("two", "tenant = \"t2\""), ("free", "")]
        .map(|(name, more)| TestCaller::new(name, more));
    let sibling = TestCaller::new("sibling", "tenant = \"t1\"");
    let callers = [&one, &two, &free, &sibling];
    let toml = callers.map(|caller| caller.toml.as_str()).concat();
    let proxy = proxy(&amazon, Setup { toml, file_store: true, ..Setup::default() });
    let mut own = Vec::new();
    for _ in 0..3 {
        own.push(issue(&proxy, "one").await);
        for other in ["two", "free", "sibling"] {
            issue(&proxy, other).await;
        }
    }
    let (mut seen, pages) = sessions_on_pages(&proxy, &one.key, 2, async |_| {}).await;
    seen.sort();
    let mut expected: Vec<_> = own.iter().map(|(id, _)| id.clone()).collect();
    expected.sort();
    assert_eq!((seen, pages), (expected, 2));
    // A session of the tenant sees itself.
    let (seen, _) = sessions_on_pages(&proxy, &own[0].1, 2, async |_| {}).await;
    assert_eq!(seen, [own[0].0.clone()]);
    let names = async |key: &str| {
        let mut names = Vec::new();
        let mut path = "/api/v1/callers?limit=1".to_owned();
        loop {
            let page = ask(proxy.admin, Method::GET, &path, &[("x-ads-key", key)]).await.json();
            names.extend(texts(&page["callers"], "name"));
            let Some(cursor) = page["next_cursor"].as_str() else { return names };
            path = format!("/api/v1/callers?limit=1&cursor={cursor}");
        }
    };
    assert_eq!(names(&one.key).await, ["one", "sibling"]);
    assert_eq!(names(&OPERATOR.key).await, ["free", "one", "sibling", "tests", "two"]);
    for path in ["/api/v1/callers", "/api/v1/sessions"] {
        let reply = ask(proxy.admin, Method::GET, path, &[("x-ads-key", &free.key)]).await;
        assert_eq!(reply.status, 403, "who has no tenant and is no operator: {}", reply.text);
        let reply = ask(proxy.admin, Method::GET, path, &[("x-ads-key", &one.key)]).await;
        assert!(!reply.text.contains("two") && !reply.text.contains("made_by"), "{}", reply.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_reads_every_page() {
    let amazon = amazon().await;
    let mut toml = String::new();
    for number in 0..1_200 {
        writeln!(toml, "[[callers]]\nname = \"c-{number:04}\"\nunix_uids = [{}]", 50_000 + number)
            .expect("a text");
    }
    let commands = Commands::new(&amazon, &Setup { toml, file_store: true, ..Setup::default() });
    let said = commands.run("caller list --json");
    assert_eq!(said.code, Some(0), "{said:?}");
    let list: Value = serde_json::from_str(&said.out).expect("JSON");
    let names = texts(&list["callers"], "name");
    assert_eq!((names.len(), names[0].as_str()), (1_201, "c-0000"));
    assert!(names.is_sorted() && names.contains(&"tests".to_owned()));
}
