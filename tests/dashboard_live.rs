//! Live pages: what is sent and when, to whom, how many streams there are, and when they end.

use crate::support::{
    callers::{OPERATOR, TestCaller},
    dashboard::{PageEvents, Visitor, send},
    login::ask,
    proxy::{Proxy, Setup, amazon, eventually},
    world::World,
};
use adsproxy::sandbox::Emulator;
use http::Method;
use std::time::{Duration, Instant};

async fn server(toml: &str) -> (Emulator, Proxy) {
    let amazon = amazon().await;
    let setup = Setup { toml: toml.to_owned(), file_store: true, ..Setup::default() };
    let proxy = Proxy::with(&amazon, setup);
    (amazon, proxy)
}

async fn signed_in(proxy: &Proxy) -> Visitor {
    Visitor::with_key(proxy.admin, &OPERATOR.key).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_begins_with_the_parts_of_its_page_and_goes_on_with_those_that_changed() {
    let (_amazon, proxy) = server("").await;
    let visitor = signed_in(&proxy).await;
    let mut requests = PageEvents::of(&visitor, "/dashboard/requests");
    assert!(requests.head.contains("cache-control: no-store"), "{}", requests.head);
    let first = requests.until("No request has come");
    assert!(first.starts_with("retry: 3000\nevent: time\ndata: "), "{first}");
    assert!(first.contains("event: part\ndata: [\"requests\",\""), "{first}");
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    let next = requests.until("/v2/profiles");
    assert!(next.contains("[\"requests\",\""), "{next}");
    let mut accounts = PageEvents::of(&visitor, "/dashboard");
    accounts.until("2 accounts.");
    let refreshed = visitor.post("/dashboard/accounts/globex/disconnect", &[]).await;
    assert_eq!(refreshed.status, 303, "{}", refreshed.text);
    let changed = accounts.until("Not connected");
    assert!(changed.contains("[\"accounts\",\""), "{changed}");
    for path in ["/dashboard/callers", "/dashboard/api"] {
        let page = PageEvents::open(&visitor, path, "");
        assert!(page.status == 200 && page.head.contains("text/html"), "{path}: {}", page.head);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_log_is_followed_unless_something_is_searched_for_in_it() {
    let (_amazon, proxy) = server("").await;
    let visitor = signed_in(&proxy).await;
    let mut searched = PageEvents::of(&visitor, "/dashboard/audit?account=acme");
    let mut log = PageEvents::of(&visitor, "/dashboard/audit");
    log.until("[\"entries\",");
    assert_eq!(visitor.post("/dashboard/accounts/globex/disconnect", &[]).await.status, 303);
    let added = log.until(">logout<");
    assert!(added.contains("[\"entries\","), "{added}");
    assert_eq!(visitor.post("/dashboard/sign-out", &[]).await.status, 303);
    searched.until("[\"check\",");
    let rest = searched.rest();
    assert!(!rest.contains("entries") && rest.ends_with("event: end\ndata: 1\n\n"), "{rest}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_on_which_nothing_happens_says_so_before_a_proxy_ends_it() {
    let (_amazon, proxy) = server("").await;
    let visitor = signed_in(&proxy).await;
    let mut stream = PageEvents::of(&visitor, "/dashboard/audit?account=acme");
    stream.until("[\"check\",");
    let (began, _) = (Instant::now(), stream.until("\n\n:\n\n"));
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_for_a_session_and_for_the_pages_of_its_own_origin() {
    let (_amazon, proxy) = server("").await;
    let visitor = signed_in(&proxy).await;
    let stranger = Visitor { cookie: "x=y".to_owned(), ..visitor.clone() };
    assert_eq!(PageEvents::open(&stranger, "/dashboard", "").status, 401);
    let origin = "Origin: http://localhost:1\r\n";
    for lines in ["Sec-Fetch-Site: same-site\r\n", "Sec-Fetch-Site: cross-site\r\n", origin] {
        assert_eq!(PageEvents::open(&visitor, "/dashboard", lines).status, 403, "{lines}");
    }
    let own = "Sec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: cors\r\n";
    assert_eq!(PageEvents::open(&visitor, "/dashboard", own).status, 200, "the twin");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_its_session_and_others_go_on() {
    let second = TestCaller::new("second", "operator = true");
    let (_amazon, proxy) = server(&second.toml).await;
    let (visitor, other) = (signed_in(&proxy).await, signed_in(&proxy).await);
    let with_key = Visitor::with_key(proxy.admin, &second.key).await;
    let [out, revoked] = [&visitor, &with_key].map(|one| PageEvents::of(one, "/dashboard"));
    let mut going_on = PageEvents::of(&other, "/dashboard/requests");
    let began = Instant::now();
    assert_eq!(visitor.post("/dashboard/sign-out", &[]).await.status, 303);
    let said = out.rest();
    assert!(said.ends_with("event: end\ndata: 1\n\n"), "{said}");
    let id = &second.key[5..13];
    assert_eq!(other.post(&format!("/dashboard/keys/{id}/revoke"), &[]).await.status, 303);
    assert!(revoked.rest().ends_with("event: end\ndata: 1\n\n"));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    going_on.until("/v2/profiles");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_stream_has_nothing_that_is_anothers() {
    let amazon = amazon().await;
    let world = World::start(&amazon);
    let visitor = Visitor::with_key(world.proxy.admin, &world.tenant.key).await;
    let mut streams = ["/dashboard", "/dashboard/requests", "/dashboard/health"]
        .map(|path| PageEvents::of(&visitor, path));
    let neighbour = Visitor::with_key(world.proxy.admin, &world.neighbour.key).await;
    let mut theirs = PageEvents::of(&neighbour, "/dashboard/requests");
    let send_as = async |key: &str, account: &str, path: &str| {
        let request = world.proxy.request(Method::GET, path).header("x-ads-key", key);
        world.proxy.send(request.header("x-ads-account", account)).await.status
    };
    assert_eq!(send_as(&world.neighbour.key, "other", "/v2/profiles?zebra").await, 200);
    theirs.until("other");
    assert_eq!(send_as(&world.tenant.key, "shop", "/_bytes/7").await, 200);
    let mut said = streams[1].until("/_bytes/7");
    let out = visitor.post("/dashboard/sign-out", &[]).await;
    assert_eq!(out.status, 303, "{}", out.text);
    said.extend(streams.into_iter().map(PageEvents::rest));
    for word in ["other", "acme", "globex", "of-b", "b~", "a~shop", "/v2/profiles"] {
        assert!(!said.contains(word), "{word}: {said}");
    }
    assert!(said.contains("shop") && said.contains("of-a"), "the twin: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_has_few_streams_and_the_next_gets_the_place_of_one_that_ended() {
    let (_amazon, proxy) = server("").await;
    let (visitor, other) = (signed_in(&proxy).await, signed_in(&proxy).await);
    let mut streams: Vec<_> =
        (0..4).map(|_| PageEvents::of(&visitor, "/dashboard/requests")).collect();
    let refused = PageEvents::open(&visitor, "/dashboard/requests", "");
    assert!(
        refused.status == 429 && refused.head.contains("too_many_requests"),
        "{}",
        refused.head
    );
    assert_eq!(visitor.get("/dashboard/requests").await.status, 200, "pages are no streams");
    assert_eq!(PageEvents::open(&other, "/dashboard", "").status, 200, "another session's");
    streams.pop();
    eventually("a place is free", || {
        PageEvents::open(&visitor, "/dashboard/requests", "").status == 200
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_does_not_wait_for_streams() {
    let (_amazon, mut proxy) = server("").await;
    let visitor = signed_in(&proxy).await;
    let streams = ["/dashboard", "/dashboard/requests"].map(|path| PageEvents::of(&visitor, path));
    assert_eq!(ask(proxy.admin, Method::GET, "/readyz", &[]).await.status, 200);
    let began = Instant::now();
    proxy.signal("TERM");
    assert_eq!(proxy.wait().code(), Some(0), "{}", proxy.log());
    // What is asked for as a whole may take five seconds.
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    for stream in streams {
        stream.rest();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_drains_gives_no_stream_and_still_shows_its_pages() {
    let amazon = amazon().await;
    let setup = Setup {
        toml: "[proxy]\nshutdown_delay_secs = 30\n".to_owned(),
        file_store: true,
        ..Setup::default()
    };
    let proxy = Proxy::with(&amazon, setup);
    let visitor = signed_in(&proxy).await;
    let open = PageEvents::of(&visitor, "/dashboard");
    proxy.signal("TERM");
    open.rest();
    let refused = PageEvents::open(&visitor, "/dashboard", "");
    assert!(refused.status == 503 && refused.head.contains("draining"), "{}", refused.head);
    let cookie = [("cookie", visitor.cookie.as_str())];
    let page = send(proxy.admin, Method::GET, "/dashboard/health", &cookie, &[]).await;
    assert!(page.status == 200 && page.text.contains("draining"), "{}", page.text);
}
