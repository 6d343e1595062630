//! The rules of a caller, through the proxy: what each lets through, what it refuses, and that a
//! refusal does not say which.

use crate::support::{
    callers::TestCaller,
    proxy::{Answer, Proxy, Setup, amazon, eventually},
    socket::Wire,
};
use adsproxy::sandbox::{Emulator, Surface};

/// A proxy with a caller that has `rules`.
fn proxy(amazon: &Emulator, rules: &str, more: &str) -> (Proxy, TestCaller) {
    let caller = TestCaller::new("reports", rules);
    let toml = format!("{}\n[auth]\nrequired = true\n{more}", caller.toml);
    (Proxy::with(amazon, Setup { toml, ..Setup::default() }), caller)
}

fn ask(wire: &mut Wire, caller: &TestCaller, request: &str, lines: &str) -> Answer {
    let key = caller.line();
    let head = format!(
        "{request} HTTP/1.1\r\nHost: localhost\r\nX-Ads-Account: acme\r\n{key}Content-Length: 0\r\n\
         {lines}\r\n"
    );
    wire.send(head).answer()
}

/// What arrived at Amazon, as method and target.
fn arrived(amazon: &Emulator) -> Vec<String> {
    let seen = amazon.state().record.requests_for(Surface::Api);
    seen.iter().map(|request| format!("{} {}", request.method, request.target)).collect()
}

/// A refusal without its request id.
fn shape(answer: &Answer) -> (u16, Option<String>, String) {
    let id = answer.headers["x-ads-proxy-request-id"].to_str().expect("ASCII");
    let error = answer.error().map(str::to_owned);
    (answer.status.as_u16(), error, answer.text().replace(id, "ID"))
}

const SCOPE: &str = "Amazon-Advertising-API-Scope";

#[tokio::test(flavor = "multi_thread")]
async fn each_rule_lets_through_what_it_allows_and_refuses_the_rest_in_one_way() {
    let amazon = amazon().await;
    let mut texts = Vec::new();
    for (rules, allowed, refused) in [
        ("read_only = true", ("POST /sp/campaigns/list", ""), ("POST /sp/campaigns", "")),
        ("methods = [\"GET\"]", ("GET /sp/x", ""), ("POST /sp/campaigns/list", "")),
        ("paths = [\"/reporting/*\"]", ("POST /reporting/reports?x=1", ""), ("GET /sp/x", "")),
        (
            "profiles = [\"12\"]",
            ("POST /sp/campaigns", "Amazon-Advertising-API-Scope: 12\r\n"),
            ("POST /sp/campaigns", "Amazon-Advertising-API-Scope: 34\r\n"),
        ),
        ("profiles = [\"12\"]", ("GET /v2/profiles/12", ""), ("GET /v2/profiles", "")),
    ] {
        let (proxy, caller) = proxy(&amazon, rules, "");
        let mut wire = Wire::open(proxy.addr);
        amazon.state().record.clear();
        let answer = ask(&mut wire, &caller, allowed.0, allowed.1);
        assert_eq!(answer.error(), None, "{rules}: {}", answer.text());
        assert_eq!(arrived(&amazon), [allowed.0], "{rules}");
        let answer = ask(&mut wire, &caller, refused.0, refused.1);
        assert_eq!(arrived(&amazon).len(), 1, "{rules}");
        texts.push(shape(&answer));
        let rule = rules.split(' ').next().expect("a key");
        eventually("the log says which", || proxy.log().contains(&format!("\"rule\":\"{rule}\"")))
            .await;
        assert!(!answer.text().contains(rule), "the caller is told");
    }
    let (status, error, text) = &texts[0];
    assert_eq!((*status, error.as_deref()), (403, Some("caller_rejected")));
    assert!(text.contains("The rules of this caller do not allow this request."), "{text}");
    assert!(texts.iter().all(|other| other == &texts[0]), "{texts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_beyond_the_rules_is_not_there() {
    let amazon = amazon().await;
    let (proxy, caller) = proxy(&amazon, "accounts = [\"glob*\"]", "");
    let mut wire = Wire::open(proxy.addr);
    let answer = ask(&mut wire, &caller, "GET /sp/x", "");
    assert_eq!((answer.status.as_u16(), answer.error()), (404, Some("unknown_account")));
    assert!(arrived(&amazon).is_empty());
    let line = r#"accounts = [\"glob*\", \"acme\"]"#;
    eventually("operators read the line", || proxy.log().contains(line)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_can_be_read_in_two_ways_gets_nowhere() {
    let amazon = amazon().await;
    let rules = "paths = [\"/reporting/*\", \"/sp/*/list\"]\nread_only = true";
    let (proxy, caller) = proxy(&amazon, rules, "");
    let mut wire = Wire::open(proxy.addr);
    for target in [
        "/reporting/../sp/campaigns",
        "/reporting/./reports",
        "/reporting/%2e%2e/sp/campaigns",
        "/reporting/.%2E/sp/campaigns",
        "/reporting/..%2fsp%2fcampaigns",
        "/reporting/%252e%252e/sp",
        "/reporting/..;/sp",
        "/reporting//reports",
        "//reporting/reports",
        "/reporting/..%5csp",
        "/reporting\\..\\sp",
        "/reporting/%00",
        "/reporting/%c0%ae",
        "/reporting/\u{e4}",
        "/sp/..%2f..%2fbilling%2finvoices%2fpay%3f/list",
        "/sp/campaigns%2flist",
        "/SP/campaigns/list",
        "/a/acme//reporting/reports",
    ] {
        for method in ["GET", "POST"] {
            let answer = ask(&mut wire, &caller, &format!("{method} {target}"), "");
            // A target that is no URI does not come as far as the rules, and ends the connection.
            let codes = [Some("caller_rejected"), Some("bad_request")];
            assert!(codes.contains(&answer.error()), "{method} {target}: {}", answer.text());
            if answer.error() == Some("bad_request") {
                wire = Wire::open(proxy.addr);
            }
        }
    }
    assert!(arrived(&amazon).is_empty(), "{:?}", arrived(&amazon));
    for target in ["/reporting/reports/..x", "/reporting/a%7Cb", "/sp/campaigns/list"] {
        let answer = ask(&mut wire, &caller, &format!("GET {target}"), "");
        assert_eq!(answer.error(), None, "{target}");
    }
    assert_eq!(arrived(&amazon).len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_such_rules_a_path_goes_on_byte_for_byte() {
    let amazon = amazon().await;
    let (proxy, caller) = proxy(&amazon, "accounts = [\"acme\"]", "");
    let mut wire = Wire::open(proxy.addr);
    for target in ["//sp/campaigns/list", "/sp/../x", "/sp/%2e%2e;/x"] {
        let answer = ask(&mut wire, &caller, &format!("GET {target}"), "");
        assert_eq!(answer.error(), None, "{target}");
    }
    let expected = ["GET //sp/campaigns/list", "GET /sp/../x", "GET /sp/%2e%2e;/x"];
    assert_eq!(arrived(&amazon), expected);
}

/// Class, method and path of each published operation, with an id for each parameter.
fn operations() -> Vec<(String, String)> {
    let text = include_str!("data/operations-classified.tsv");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let operations: Vec<_> = lines
        .map(|line| {
            let [class, method, path, _] = line.split('\t').collect::<Vec<_>>()[..] else {
                panic!("{line}");
            };
            let mut parts = path.split('{');
            let first = parts.next().expect("a part").to_owned();
            let path = parts.fold(first, |path, part| {
                path + "amzn1.x-7" + part.split_once('}').expect("a parameter").1
            });
            (class.to_owned(), format!("{method} {path}"))
        })
        .collect();
    assert_eq!(operations.len(), 556);
    operations
}

#[tokio::test(flavor = "multi_thread")]
async fn read_only_lets_every_read_and_report_of_amazons_through_and_no_write() {
    let amazon = amazon().await;
    let (proxy, caller) = proxy(&amazon, "read_only = true", "");
    let mut wire = Wire::open(proxy.addr);
    let operations = operations();
    let mut expected = Vec::new();
    for (class, request) in &operations {
        let answer = ask(&mut wire, &caller, request, "");
        if class == "write" {
            assert_eq!(answer.error(), Some("caller_rejected"), "{request}");
        } else {
            assert_eq!(answer.error(), None, "{request}: {}", answer.text());
            expected.push(request.clone());
        }
    }
    assert_eq!(arrived(&amazon), expected);
    assert!(expected.len() > 250 && expected.len() < 350, "{}", expected.len());
    for request in ["POST /billing/invoices/pay", "POST /recommendations/apply", "POST /new/list"] {
        assert_eq!(ask(&mut wire, &caller, request, "").error(), Some("caller_rejected"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_trick_with_the_profile_reaches_another() {
    let amazon = amazon().await;
    let (proxy, caller) = proxy(&amazon, "profiles = [\"12\"]", "");
    let mut wire = Wire::open(proxy.addr);
    for lines in [
        String::new(),
        format!("{SCOPE}: 34\r\n"),
        format!("{SCOPE}: 12\r\n{SCOPE}: 34\r\n"),
        format!("{SCOPE}: 12, 34\r\n"),
        format!("{SCOPE}: 12\r\nAmazon-Ads-AccountId: other\r\n"),
        format!("{SCOPE}: 12\r\nConnection: {SCOPE}\r\n"),
        "Amazon_Advertising_API_Scope: 12\r\n".to_owned(),
    ] {
        let answer = ask(&mut wire, &caller, "GET /sp/campaigns", &lines);
        assert_eq!(answer.error(), Some("caller_rejected"), "{lines}");
    }
    assert!(arrived(&amazon).is_empty());
    let answer = ask(&mut wire, &caller, "GET /sp/campaigns", &format!("{SCOPE}: 12\r\n"));
    assert_eq!(answer.error(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_share_one_limit_of_requests_and_others_have_their_own() {
    let amazon = amazon().await;
    let other = TestCaller::new("others", "requests_per_minute = 1");
    let more = format!("[proxy]\nworkers = 2\n{}", other.toml);
    let (proxy, caller) = proxy(&amazon, "requests_per_minute = 12", &more);
    let mut served = 0;
    for _ in 0..20 {
        let answer = ask(&mut Wire::open(proxy.addr), &caller, "GET /sp/x", "");
        if answer.error().is_none() {
            served += 1;
            continue;
        }
        assert_eq!((answer.status.as_u16(), answer.error()), (429, Some("too_many_requests")));
        let after = answer.headers["retry-after"].to_str().expect("ASCII");
        assert!((1..=5).contains(&after.parse().expect("seconds")), "{after}");
    }
    // One more each five seconds, on a slow machine.
    assert!((12..=16).contains(&served), "{served}");
    assert_eq!(arrived(&amazon).len(), served);
    let mut wire = Wire::open(proxy.addr);
    assert_eq!(ask(&mut wire, &other, "GET /sp/x", "").error(), None);
    assert_eq!(ask(&mut wire, &other, "GET /sp/x", "").error(), Some("too_many_requests"));
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_wrong_keys_are_told_to_wait_and_the_right_one_is_served_all_the_same() {
    let amazon = amazon().await;
    let (proxy, caller) = proxy(&amazon, "", "");
    let wrong = TestCaller::new("unknown", "");
    let mut wire = Wire::open(proxy.addr);
    let codes: Vec<_> = (0..30)
        .map(|_| {
            let answer = ask(&mut wire, &wrong, "GET /sp/x", "");
            (answer.status.as_u16(), answer.headers.contains_key("retry-after"))
        })
        .collect();
    let rejected = codes.iter().take_while(|code| **code == (403, false)).count();
    // One more for each three seconds that a busy machine takes.
    assert!((20..=23).contains(&rejected), "{codes:?}");
    assert!(codes[rejected..].contains(&(429, true)), "{codes:?}");
    assert_eq!(ask(&mut wire, &caller, "GET /sp/x", "").error(), None);
    assert_eq!(arrived(&amazon).len(), 1);
    let key = &wrong.key;
    eventually("it is logged", || proxy.log().contains("too_many_requests")).await;
    assert!(!proxy.log().contains(key.as_str()));
}
