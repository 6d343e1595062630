//! What a tenant's user does on the dashboard beside its accounts: reads its own entries of the audit log,
//! makes sessions of its own, reads profiles at Amazon.

use crate::support::{
    callers::{OPERATOR, TestCaller},
    dashboard::{Visitor, send},
    proxy::{Proxy, Setup, amazon},
    signer::TestIssuer,
};
use adsproxy::sandbox::Emulator;
use http::Method;
use serde_json::json;

const ACCOUNTS: &str = "[accounts.\"a~shop\"]\nregion = \"na\"\nrefresh_token = { env = \"ACME_REFRESH\" }\n\
     [accounts.\"b~zebra\"]\nregion = \"eu\"\nrefresh_token = { env = \"GLOBEX_REFRESH\" }\n";

async fn server(toml: &str) -> (Emulator, Proxy) {
    let amazon = amazon().await;
    let toml = [toml, ACCOUNTS].concat();
    let proxy = Proxy::with(&amazon, Setup { toml, file_store: true, ..Setup::default() });
    (amazon, proxy)
}

fn of_tenant(tenant: &str, more: &str) -> TestCaller {
    TestCaller::new(&format!("of-{tenant}"), &format!("tenant = \"{tenant}\"\n{more}"))
}

/// The rows of the audit log on a page.
fn entries(page: &str) -> Vec<&str> {
    let table = page.split_once("aria-label=\"Audit log\"").map_or("", |(_, table)| table);
    let body = table.split("</tbody>").next().expect("a table");
    body.split("<tr>").skip(2).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_reads_the_entries_of_its_accounts_and_not_which_operator_acted() {
    let [a, b] = ["a", "b"].map(|name| of_tenant(name, ""));
    let (_amazon, proxy) = server(&[&*a.toml, &b.toml].concat()).await;
    let operator = Visitor::with_key(proxy.admin, &OPERATOR.key).await;
    let [mine, other] = [&a, &b].map(|caller| &caller.key);
    let (mine, other) =
        (Visitor::with_key(proxy.admin, mine).await, Visitor::with_key(proxy.admin, other).await);
    for (visitor, path) in [
        (&other, "/dashboard/accounts/zebra/disconnect"),
        (&mine, "/dashboard/accounts/shop/disconnect"),
        (&operator, "/dashboard/accounts/a~shop/disconnect"),
        (&operator, "/dashboard/accounts/acme/disconnect"),
    ] {
        assert_eq!(visitor.post(path, &[]).await.status, 303, "{path}");
    }
    let page = mine.page("/dashboard/audit").await;
    // Each logout is there before and after it was done.
    let mut rows = entries(&page);
    rows.retain(|row| !row.contains("attempt"));
    assert!(rows[0].contains("logout") && rows[0].contains("shop"), "{rows:?}");
    assert!(rows[1].contains("logout") && rows[1].contains("of-a"), "by its own caller: {rows:?}");
    let signed_in = |row: &&str| row.contains("dashboard.sign_in") && row.contains("of-a");
    assert_eq!(rows.iter().filter(|row| signed_in(row)).count(), 1, "{rows:?}");
    let of_operator = &OPERATOR.key[5..13];
    for word in
        ["of-b", "zebra", "acme", "globex", "a~", of_operator, "server.start", "rel=\"next\""]
    {
        assert!(!rows.concat().contains(word) && !page.contains("Older"), "{word}: {rows:?}");
    }
    assert!(!page.contains("name=\"actor\"") && !page.contains("Verify"), "{page}");
    let all = operator.page("/dashboard/audit").await;
    assert!(
        ["zebra", "acme", of_operator].iter().all(|word| all.contains(word)),
        "the twin: {all}"
    );
    let page = mine.page("/dashboard/audit?account=shop&action=logout").await;
    assert_eq!(entries(&page).len(), 4, "{page}");
    for query in ["account=zebra", "account=acme", "account=missing", "action=login"] {
        let page = mine.page(&format!("/dashboard/audit?{query}")).await;
        assert!(entries(&page).is_empty(), "{query}: {page}");
    }
    let page = mine.page("/dashboard/accounts/shop").await;
    assert!(entries(&page).len() >= 2 && !page.contains(of_operator), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_makes_and_ends_sessions_of_its_own_where_its_issuer_allows_it() {
    for (more, may) in [("session_ttl_max_secs = 3600\n", true), ("", false)] {
        let issuer = TestIssuer::named("app", &format!("tenant_claim = [\"org_id\"]\n{more}"));
        let (_amazon, proxy) = server(&issuer.toml).await;
        let visitor = async |user: &str| {
            let token = issuer.token(json!({ "sub": user, "org_id": "a" }));
            let bearer = format!("Bearer {token}");
            let fields = [("authorization", bearer.as_str())];
            let reply = send(proxy.admin, Method::POST, "/dashboard/sign-in", &fields, &[]).await;
            Visitor::of(proxy.admin, &reply)
        };
        let (user, other) = (visitor("user-1").await, visitor("user-2").await);
        let page = user.page("/dashboard/callers").await;
        assert_eq!(page.contains("Make a session"), may, "{page}");
        assert!(!page.contains("For the caller") && !page.contains("eight hours"), "{page}");
        let form = [("ttl_secs", "3600"), ("account", ""), ("note", "mine"), ("read_only", "true")];
        let made = user.post("/dashboard/sessions", &form).await;
        assert_eq!(made.status, if may { 200 } else { 403 }, "{}", made.text);
        if !may {
            continue;
        }
        let (_, rest) = made.text.split_once("adss_").expect("a key");
        let id = &rest[..8];
        let key = format!("adss_{}", rest.split('<').next().expect("its end"));
        let get = || {
            let request =
                proxy.request(Method::GET, "/v2/profiles").header("x-ads-account", "shop");
            proxy.send(request.header("x-ads-key", &key))
        };
        assert_eq!(get().await.status, 200);
        let end = format!("/dashboard/sessions/{id}/end");
        assert!(!other.page("/dashboard/callers").await.contains(id));
        assert_eq!(other.post(&end, &[]).await.status, 404, "it is another user's");
        let named = [("ttl_secs", "3600"), ("caller", "tests")];
        assert_eq!(user.post("/dashboard/sessions", &named).await.status, 403);
        assert!(user.page("/dashboard/callers").await.contains(&format!("/sessions/{id}/end")));
        assert_eq!(user.post(&end, &[]).await.status, 303);
        assert_eq!(get().await.status, 403);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_may_only_read_sees_no_button() {
    let reader = TestCaller::new("reader", "operator = true\nread_only = true");
    let (_amazon, proxy) = server(&reader.toml).await;
    let visitor = Visitor::with_key(proxy.admin, &reader.key).await;
    for path in ["/dashboard/callers", "/dashboard/accounts/a~shop", "/dashboard/audit"] {
        let page = visitor.page(path).await;
        let main = page.split_once("<main").expect("a page").1;
        for word in ["Revoke", "Make a session", "Read profiles", "Disconnect", "Verify"] {
            assert!(!main.contains(word), "{path}: {main}");
        }
        let twin = Visitor::with_key(proxy.admin, &OPERATOR.key).await.page(path).await;
        assert!(["Revoke", "Disconnect", "Verify"].iter().any(|it| twin.contains(it)), "{twin}");
    }
    assert_eq!(visitor.post("/dashboard/sessions", &[("caller", "reader")]).await.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn profiles_of_a_configured_account_are_read_by_a_button_and_shown_then() {
    let caller = of_tenant("a", "");
    let (_amazon, proxy) = server(&caller.toml).await;
    let visitor = Visitor::with_key(proxy.admin, &caller.key).await;
    let page = visitor.page("/dashboard/accounts/shop").await;
    assert!(page.contains("Not known.") && page.contains("Read profiles"), "{page}");
    let before = visitor.page("/dashboard").await;
    assert!(!before.contains("<td>na 1"), "{before}");
    let read = visitor.post("/dashboard/accounts/shop/profiles", &[]).await;
    assert_eq!(
        (read.status.as_u16(), read.location()),
        (303, "/dashboard/accounts/shop?done=profiles")
    );
    let page = visitor.page(read.location()).await;
    assert!(
        !page.contains("Not known.") && page.contains("The profiles are those of now."),
        "{page}"
    );
    assert!(visitor.page("/dashboard").await.contains("<td>na "), "{before}");
    assert_eq!(visitor.post("/dashboard/accounts/zebra/profiles", &[]).await.status, 404);
    // With the grant goes what is known of it.
    assert_eq!(visitor.post("/dashboard/accounts/shop/disconnect", &[]).await.status, 303);
    let failed = visitor.post("/dashboard/accounts/shop/profiles", &[]).await;
    assert_eq!(failed.status, 403, "{}", failed.text);
    assert!(visitor.page("/dashboard/accounts/shop").await.contains("Not known."));
}
