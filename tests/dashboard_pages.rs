//! What the pages of the dashboard show: of thousands of accounts the worst first, page by page.

use crate::support::{
    callers::{OPERATOR, TestCaller},
    dashboard::Visitor,
    load::TEST_TIMEOUT,
    login::ask,
    proxy::{Proxy, Setup, amazon},
};
use http::Method;
use std::{
    fmt::Write,
    time::{Duration, Instant},
};

/// So many accounts that no advertiser has consented to, beside two that work.
const MANY: usize = 4998;

fn many() -> String {
    (0..MANY).fold(String::new(), |mut toml, number| {
        writeln!(toml, "[accounts.shop-{number:04}]\nregion = \"eu\"").expect("a String");
        toml
    })
}

/// The names of the accounts on a page, in order.
fn names(page: &str) -> Vec<&str> {
    let links = page.split("<th scope=\"row\"><a href=\"/dashboard/accounts/").skip(1);
    links.map(|link| link.split('"').next().expect("a name")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_accounts_come_page_by_page_the_worst_first() {
    let amazon = amazon().await;
    let proxy = Proxy::with(&amazon, Setup { toml: many(), ..Setup::default() });
    let visitor = Visitor::with_key(proxy.admin, &OPERATOR.key).await;
    let page = visitor.page("/dashboard").await;
    assert!(page.len() < 100 * 1024, "{} bytes", page.len());
    assert!(page.contains("5000 accounts.") && page.contains("Page 1 of 100"), "{page}");
    assert_eq!(names(&page).len(), 50);
    let next = "href=\"/dashboard?page=2\"";
    assert!(page.contains(next) && !page.contains("rel=\"prev\""), "{page}");
    let last = visitor.page("/dashboard?page=100").await;
    assert!(names(&last).len() == 50 && !last.contains("rel=\"next\""), "{last}");
    let beyond = visitor.page("/dashboard?page=999999").await;
    assert_eq!(names(&beyond), names(&last));
    let found = visitor.page("/dashboard?q=SHOP-012&state=not_connected").await;
    assert_eq!(names(&found).len(), 10, "{found}");
    assert!(found.contains("10 found"), "{found}");
    let none = visitor.page("/dashboard?q=%3Cb%3E").await;
    assert!(none.contains("No account fits") && none.contains("&lt;b&gt;"), "{none}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_must_be_fixed_is_first_and_has_its_button() {
    let amazon = amazon().await;
    let toml = "[accounts.zz]\nregion = \"na\"\nrefresh_token = { env = \"DEAD\" }\n".to_owned();
    let env = vec![("DEAD".to_owned(), "Atzr|no-grant-of-amazons".to_owned())];
    let proxy = Proxy::with(&amazon, Setup { toml, env, ..Setup::default() });
    let request = proxy.request(http::Method::GET, "/v2/profiles").header("x-ads-account", "zz");
    assert_eq!(proxy.send(request).await.status, 403);
    let visitor = Visitor::with_key(proxy.admin, &OPERATOR.key).await;
    let page = visitor.page("/dashboard").await;
    assert_eq!(names(&page).first(), Some(&"zz"), "{page}");
    assert!(page.contains("1 must be fixed"), "{page}");
    assert!(page.contains("href=\"/dashboard/connect?account=zz\">Reconnect"), "{page}");
    let page = visitor.page("/dashboard/accounts/zz").await;
    assert!(page.contains("Must reconnect") && page.contains("must consent again"), "{page}");
    let missing = visitor.get("/dashboard/accounts/none").await;
    assert_eq!(missing.status, 404, "{}", missing.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_may_only_read_sees_no_button_and_changes_nothing() {
    let amazon = amazon().await;
    let reader = TestCaller::new("reader", "tenant = \"t\"\nread_only = true");
    let account =
        "[accounts.\"t~shop\"]\nregion = \"na\"\nrefresh_token = { env = \"ACME_REFRESH\" }\n";
    let toml = [&reader.toml, account].concat();
    let proxy = Proxy::with(&amazon, Setup { toml, file_store: true, ..Setup::default() });
    let visitor = Visitor::with_key(proxy.admin, &reader.key).await;
    let page = visitor.page("/dashboard/accounts/shop").await;
    assert!(page.contains("shop") && !page.contains("Disconnect"), "{page}");
    let reply = visitor.post("/dashboard/accounts/shop/disconnect", &[]).await;
    assert_eq!(reply.status, 403, "{}", reply.text);
    assert_eq!(visitor.post("/dashboard/sign-out", &[]).await.status, 303, "the twin");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_line_that_would_allow_a_request_is_shown_and_does_so_once_it_is_pasted() {
    let amazon = amazon().await;
    let rules = "accounts = [\"acme\"]\nread_only = true";
    let (reports, team) =
        (TestCaller::new("reports", rules), TestCaller::new("team", "tenant = \"t\""));
    let toml = [&reports.toml, &*team.toml].concat();
    let proxy = Proxy::with(&amazon, Setup { toml, file_store: true, ..Setup::default() });
    let visitor = Visitor::with_key(proxy.admin, &OPERATOR.key).await;
    let asked = |method: &str, path: &str, account: &str| {
        let mut query = form_urlencoded::Serializer::new("/dashboard/callers?".to_owned());
        query.append_pair("rules", "[[callers]] reports").append_pair("method", method);
        query.append_pair("path", path).append_pair("account", account).finish()
    };
    let page = visitor.page(&asked("post", "/sp/campaigns/list?x=1", "acme")).await;
    assert!(page.contains("Allowed.") && !page.contains("Refused"), "{page}");
    assert!(page.contains("accounts = [&quot;acme&quot;]\nread_only = true\n"), "{page}");
    let page = visitor.page(&asked("", "/<b>x", "globex")).await;
    assert!(page.contains("Refused") && !page.contains("<b>x"), "{page}");
    let path = asked("POST", "/sp/campaigns", "acme");
    let page = visitor.page(&path).await;
    assert!(page.contains("Refused") && page.contains("of the class write"), "{page}");
    let (_, rest) = page.split_once("The line that would allow it\">").expect("a line");
    let line = rest.split("</pre>").next().expect("its end");
    let file = proxy.dir.path().join("proxy.toml");
    let before = std::fs::read_to_string(&file).expect("a configuration");
    assert_eq!(before.matches("read_only = true").count(), 1, "the page writes nothing");
    std::fs::write(&file, before.replace("read_only = true", line)).expect("written");
    let deadline = Instant::now() + TEST_TIMEOUT;
    while !visitor.page(&path).await.contains("Allowed.") {
        assert!(Instant::now() < deadline, "the line has no effect");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for (wrong, why) in [
        (asked("P ST", "/x", ""), "is no method"),
        (asked("GET", "x", ""), "The path begins with /"),
        (asked("GET", "/x", "a'b"), "a&#39;b"),
    ] {
        let page = visitor.page(&wrong).await;
        let alert = page.split_once("role=\"alert\"").expect("what is wrong").1;
        assert!(alert.split("</p>").next().expect("its end").contains(why), "{page}");
        assert!(!page.contains("Allowed.") && !page.contains("Refused"), "{page}");
    }
    let team = Visitor::with_key(proxy.admin, &team.key).await;
    let page = team.page(&path).await;
    assert!(!page.contains("Allowed.") && !page.contains("What may a caller do"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn default_headers_are_lines_to_copy() {
    let amazon = amazon().await;
    let toml = "[accounts.shop]\nregion = \"na\"\nrefresh_token = { env = \"ACME_REFRESH\" }\n\
        headers = { Amazon-Advertising-API-Scope = \"12\", Amazon-Ads-AccountId = \"x\" }\n";
    let proxy = Proxy::with(&amazon, Setup { toml: toml.to_owned(), ..Setup::default() });
    let visitor = Visitor::with_key(proxy.admin, &OPERATOR.key).await;
    let page = visitor.page("/dashboard/accounts/shop").await.to_ascii_lowercase();
    let (_, rest) = page.split_once("aria-label=\"header lines\">").expect("the lines");
    let mut lines: Vec<&str> = rest.split("</pre>").next().expect("an end").lines().collect();
    lines[1..].sort_unstable();
    let wanted =
        ["x-ads-account: shop", "amazon-ads-accountid: x", "amazon-advertising-api-scope: 12"];
    assert_eq!(lines, wanted);
    let page = visitor.page("/dashboard/accounts/globex").await;
    assert!(page.contains("X-Ads-Account: globex\n</pre>"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_the_api_has_what_the_document_says_of_each_operation() {
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    let visitor = Visitor::with_key(proxy.admin, &OPERATOR.key).await;
    let page = visitor.page("/dashboard/api").await;
    let document = ask(proxy.admin, Method::GET, "/openapi.json", &[]).await.json();
    let mut seen = 0;
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("methods") {
            let id = operation["operationId"].as_str().expect("an id");
            let (_, rest) = page.split_once(&format!("<details id=\"{id}\">")).expect("it");
            let part = rest.split("</details>").next().expect("a first part");
            assert!(part.contains(&format!("{} {path}</code>", method.to_uppercase())), "{part}");
            for argument in operation["parameters"].as_array().expect("a list") {
                let [name, place] = ["name", "in"].map(|it| argument[it].as_str().expect("a text"));
                assert!(part.contains(&format!("<code>{name}</code> ({place}) ")), "{part}");
            }
            let success = operation["responses"].as_object().expect("responses");
            let success = success.iter().find(|(status, _)| status.starts_with('2'));
            let bodies = [&operation["requestBody"], success.expect("a success").1];
            for body in bodies {
                let schema = &body["content"]["application/json"]["schema"];
                let name = schema["$ref"].as_str().unwrap_or("#/none").trim_start_matches('#');
                let members = document.pointer(name).and_then(|it| it["properties"].as_object());
                for name in members.into_iter().flat_map(|all| all.keys()) {
                    assert!(part.contains(&format!("<code>{name}</code></th>")), "{name}: {part}");
                    seen += 1;
                }
            }
        }
    }
    assert!(seen > 60, "{seen}");
    // Members of members, and of each outcome.
    for name in ["accounts[].state", "accounts[].last_error", "profiles.na[].id", "advice"] {
        assert!(page.contains(&format!("<code>{name}</code></th>")), "{name}: {page}");
    }
    assert!(page.contains("<td>&quot;discarded&quot;</td>"), "{page}");
    assert!(page.len() < 150 * 1024, "{}", page.len());
}
