//! The browsers that are signed in to the dashboard: who sees which, who ends which, how many there
//! may be, and that all servers of one store have the same ones.

use crate::support::{
    callers::{OPERATOR, TestCaller},
    dashboard::{Visitor, send, try_sign_in},
    login::{Reply, ask},
    postgres::database,
    proxy::{Proxy, Setup, amazon},
};
use adsproxy::sandbox::Emulator;
use aws_lc_rs::digest::{SHA256, digest};
use http::Method;
use std::time::{Duration, Instant};

const HERE: &str = "/dashboard/callers";
const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0";

async fn server(callers: &[&TestCaller]) -> (Emulator, Proxy) {
    let amazon = amazon().await;
    let toml = callers.iter().map(|caller| caller.toml.as_str()).collect();
    let proxy = Proxy::with(&amazon, Setup { toml, file_store: true, ..Setup::default() });
    (amazon, proxy)
}

/// The names of the browsers that a page has a button to end.
fn names(page: &str) -> Vec<String> {
    let ends = page.split("action=\"/dashboard/browsers/").skip(1);
    ends.filter_map(|rest| rest.split_once("/end\"")).map(|(name, _)| name.to_owned()).collect()
}

/// Signs in with a key, in Firefox.
async fn in_firefox(proxy: &Proxy, key: &str) -> Visitor {
    let fields = [("user-agent", FIREFOX)];
    let reply =
        send(proxy.admin, Method::POST, "/dashboard/sign-in", &fields, &[("key", key)]).await;
    Visitor::of(proxy.admin, &reply)
}

async fn end(visitor: &Visitor, name: &str) -> Reply {
    visitor.post(&format!("/dashboard/browsers/{name}/end"), &[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_visitor_sees_the_own_browsers_and_ends_one_or_all_others() {
    let [a, b] = ["a", "b"]
        .map(|name| TestCaller::new(&format!("of-{name}"), &format!("tenant = \"{name}\"")));
    let (_amazon, proxy) = server(&[&a, &b]).await;
    let first = in_firefox(&proxy, &a.key).await;
    let second = Visitor::with_key(proxy.admin, &a.key).await;
    let third = Visitor::with_key(proxy.admin, &a.key).await;
    let other = Visitor::with_key(proxy.admin, &b.key).await;
    let page = second.page(HERE).await;
    assert!(page.contains("Firefox on Linux") && page.contains("(this one)"), "{page}");
    assert!(!page.contains("of-b"), "{page}");
    let listed = names(&page);
    assert_eq!(listed.len(), 2, "not the one that looks: {page}");
    for visitor in [&first, &second, &third, &other] {
        let (_, value) = visitor.cookie.split_once('=').expect("a value");
        let (_, secret) = value.split_once('.').expect("a secret");
        let hash = digest(&SHA256, secret.as_bytes());
        let hash: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(!page.contains(secret) && !page.contains(&hash), "{page}");
    }
    let (_, firefox) = page.split_once("Firefox on Linux</th>").expect("a row");
    let gone = names(firefox).remove(0);
    let ended = end(&second, &gone).await;
    assert_eq!((ended.status.as_u16(), ended.location()), (303, HERE));
    assert!(!first.is_signed_in().await, "it has ended");
    assert!(
        second.is_signed_in().await && third.is_signed_in().await && other.is_signed_in().await
    );
    assert_eq!(end(&second, &gone).await.status, 404);
    assert_eq!(second.post("/dashboard/browsers/end", &[]).await.status, 303);
    assert!(second.is_signed_in().await && !third.is_signed_in().await);
    assert!(other.is_signed_in().await, "the twin: another visitor's");
    assert!(!second.page(HERE).await.contains("End my other browsers"), "there are none");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_sees_and_ends_all_and_a_tenants_user_no_other() {
    let a = TestCaller::new("of-a", "tenant = \"a\"");
    let auditor = TestCaller::new("auditor", "operator = true\nread_only = true");
    let (_amazon, proxy) = server(&[&a, &auditor]).await;
    let (user, operator) =
        (in_firefox(&proxy, &a.key).await, Visitor::with_key(proxy.admin, &OPERATOR.key).await);
    let third = Visitor::with_key(proxy.admin, &OPERATOR.key).await;
    let page = operator.page(HERE).await;
    let listed = names(&page);
    assert!(page.contains(&format!("of-a (adsk_{})", &a.key[5..13])), "{page}");
    assert_eq!(listed.len(), 2, "{page}");
    let of_third = third.cookie.split_once('=').expect("a value").1.split('.').next().expect("one");
    let refused = end(&user, of_third).await;
    assert_eq!(refused.status, 404, "what is another's is not there: {}", refused.text);
    assert_eq!(end(&user, "signins").await.status, 404);
    assert!(third.is_signed_in().await);
    let of_user = user.cookie.split_once('=').expect("a value").1.split('.').next().expect("one");
    assert!(listed.iter().any(|name| name == of_user));
    let auditor = Visitor::with_key(proxy.admin, &auditor.key).await;
    let page = auditor.page(HERE).await;
    assert!(page.contains("of-a") && names(&page).is_empty(), "it sees, and may only read: {page}");
    assert_eq!(end(&auditor, of_user).await.status, 404);
    assert!(user.is_signed_in().await);
    assert_eq!(end(&operator, of_user).await.status, 303);
    assert!(!user.is_signed_in().await && third.is_signed_in().await);
    let log = ask(proxy.admin, Method::GET, "/api/v1/audit?action=dashboard.sign_out", &[]).await;
    assert!(log.text.contains(&a.key[..13]), "whose it was is on record: {}", log.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_visitor_that_may_only_read_ends_its_own_and_no_form_without_its_token_ends_any() {
    let reader = TestCaller::new("reader", "tenant = \"a\"\nread_only = true");
    let (_amazon, proxy) = server(&[&reader]).await;
    let first = Visitor::with_key(proxy.admin, &reader.key).await;
    let second = Visitor::with_key(proxy.admin, &reader.key).await;
    let name = names(&second.page(HERE).await).remove(0);
    let path = format!("/dashboard/browsers/{name}/end");
    let csrf = first.csrf().await;
    for (path, form) in [
        (path.as_str(), vec![]),
        (path.as_str(), vec![("csrf", csrf.as_str())]),
        ("/dashboard/browsers/end", vec![]),
        ("/dashboard/browsers/end", vec![("csrf", csrf.as_str())]),
    ] {
        let fields = [("cookie", second.cookie.as_str())];
        let reply = send(proxy.admin, Method::POST, path, &fields, &form).await;
        assert_eq!(reply.status, 403, "{path}: {}", reply.text);
    }
    assert!(first.is_signed_in().await);
    // A cookie of which only the name is known is nobody's, and ends nothing by a sign-in either.
    let (cookie, _) = first.cookie.split_once('.').expect("a secret");
    let forged = Visitor { cookie: format!("{cookie}.x"), ..first.clone() };
    assert!(!forged.is_signed_in().await);
    let fields = [("cookie", forged.cookie.as_str())];
    let form = [("key", reader.key.as_str())];
    send(proxy.admin, Method::POST, "/dashboard/sign-in", &fields, &form).await;
    assert!(first.is_signed_in().await);
    assert_eq!(end(&second, &name).await.status, 303, "the twin");
    assert!(!first.is_signed_in().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_good_sign_ins_ends_the_oldest_of_the_same_visitor_and_no_others() {
    let a = TestCaller::new("of-a", "tenant = \"a\"");
    let (_amazon, proxy) = server(&[&a]).await;
    let operator = Visitor::with_key(proxy.admin, &OPERATOR.key).await;
    let mut all = Vec::new();
    for _ in 0..103 {
        all.push(Visitor::with_key(proxy.admin, &a.key).await);
    }
    assert!(operator.is_signed_in().await, "the twin: another visitor's");
    let mut live = 0;
    for visitor in &all {
        live += usize::from(visitor.is_signed_in().await);
    }
    assert_eq!(live, 100);
    assert!(all[102].is_signed_in().await, "the last one is among them");
    assert_eq!(names(&all[102].page(HERE).await).len(), 99);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_whose_file_is_damaged_hides_no_other() {
    let (_amazon, proxy) = server(&[]).await;
    let visitor = Visitor::with_key(proxy.admin, &OPERATOR.key).await;
    for _ in 0..2 {
        Visitor::with_key(proxy.admin, &OPERATOR.key).await;
    }
    let shown = names(&visitor.page(HERE).await);
    assert_eq!(shown.len(), 2);
    let file = proxy.dir.path().join(format!("store/browsers/{}.json", shown[0]));
    std::fs::write(file, "x").expect("written");
    assert_eq!(names(&visitor.page(HERE).await), shown[1..]);
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_on_one_server_is_one_on_the_other_and_so_is_the_sign_out() {
    let Some(database) = database() else { return };
    let amazon = amazon().await;
    let one = Proxy::with(&amazon, Setup { database: Some(database), ..Setup::default() });
    let two = one.twin_of_login();
    let reply = try_sign_in(one.admin, &[("key", &OPERATOR.key)]).await;
    let on_one = Visitor::of(one.admin, &reply);
    // The two have ports of their own, which the names of their cookies hold.
    let (_, value) = on_one.cookie.split_once('=').expect("a value");
    let cookie = format!("adsproxy_dashboard_{}={value}", two.admin.port());
    let on_two = Visitor { admin: two.admin, cookie };
    assert!(on_one.is_signed_in().await && on_two.is_signed_in().await);
    assert_eq!(on_two.csrf().await, on_one.csrf().await, "a form of one may go to the other");
    let other = Visitor::with_key(two.admin, &OPERATOR.key).await;
    let began = Instant::now();
    assert_eq!(on_two.post("/dashboard/sign-out", &[]).await.status, 303);
    assert!(!on_one.is_signed_in().await, "at once");
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert!(other.is_signed_in().await, "the twin");
    let third = Visitor::with_key(one.admin, &OPERATOR.key).await;
    assert_eq!(third.post("/dashboard/sign-out", &[("everywhere", "1")]).await.status, 303);
    assert!(!other.is_signed_in().await, "everywhere is on the other server, too");
}
