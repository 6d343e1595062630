//! Logins in a real browser: its cookies, its origins, its redirects, its content policy.

use crate::support::{
    browser::{Browser, Page, site},
    login::{INITECH, INITECH_PROFILE, ask_with, begin, consent, exchanges, free_address, proxy},
    proxy::{ACME_PROFILE, Proxy, Setup, amazon},
};
use adsproxy::sandbox::{Emulator, LwaFault, Times};
use http::Method;

/// A browser, and a proxy that it can log in to.
struct World {
    amazon: Emulator,
    proxy: Proxy,
    browser: Browser,
}

impl World {
    /// None if the calling test is to be left out.
    async fn start() -> Option<Self> {
        let browser = Browser::start()?;
        let amazon = amazon().await;
        let proxy = proxy(&amazon, Setup { file_store: true, ..Setup::default() });
        Some(Self { amazon, proxy, browser })
    }

    /// A link that an operator has asked for.
    async fn login(&self, account: &str) -> String {
        let body = format!("{{\"account\":\"{account}\"}}");
        let fields = [("content-type", "application/json")];
        let path = "/api/auth/amazon/logins";
        let reply = ask_with(self.proxy.admin, Method::POST, path, &fields, body).await;
        reply.json()["url"].as_str().expect("a link").to_owned()
    }

    fn url(&self, path: &str) -> String {
        format!("http://localhost:{}{path}", self.proxy.admin.port())
    }

    /// Opens a login of `account` and gets to the consent page.
    async fn go_to_amazon(&mut self, who: &str, account: &str) {
        let url = self.login(account).await;
        let page = self.browser.open(who, &url);
        assert_eq!(page.title, "Sandbox consent", "{page:?}");
        assert!(page.url.starts_with(&format!("http://{}/ap/oa?", self.amazon.addr())));
    }
}

/// Ours, whole, with its style and nothing that the browser complains about.
fn is_ours(page: &Page, status: u64) {
    assert_eq!(page.status, status, "{page:?}");
    assert!(page.title.ends_with(" - adsproxy"), "{page:?}");
    let complaints: Vec<_> = page.messages.iter().filter(|one| !one.contains("favicon")).collect();
    let refusals =
        complaints.iter().filter(|one| !one.contains("the server responded with a status"));
    assert_eq!(refusals.count(), 0, "{complaints:?}");
    assert!(page.cookies.is_empty(), "scripts see no cookie: {}", page.cookies);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_connects_an_account() {
    let Some(mut world) = World::start().await else { return };
    world.go_to_amazon("anna", INITECH).await;
    let waiting = world.browser.cookies("anna");
    assert_eq!(waiting.len(), 1, "{waiting:?}");
    assert_eq!(
        (waiting[0]["httpOnly"].as_bool(), waiting[0]["sameSite"].as_str()),
        (Some(true), Some("Lax"))
    );
    let page = world.browser.click("anna", "Allow as initech");
    is_ours(&page, 200);
    assert!(page.text.contains("initech is connected"), "{}", page.text);
    assert!(page.text.contains(&INITECH_PROFILE.to_string()) && page.text.contains("Initech"));
    assert!(world.browser.cookies("anna").is_empty(), "the cookie went with the login");
    let styled = world.browser.eval("anna", "getComputedStyle(document.body).maxWidth");
    assert_ne!(styled, "none", "the content policy lets our style in");
    // Loading the last page anew repeats nothing.
    let page = world.browser.open("anna", &page.url);
    is_ours(&page, 400);
    assert!(page.text.contains("This login is over"), "{}", page.text);
    assert_eq!(exchanges(&world.amazon), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_denies() {
    let Some(mut world) = World::start().await else { return };
    world.go_to_amazon("anna", INITECH).await;
    let page = world.browser.click("anna", "Deny");
    is_ours(&page, 403);
    assert!(page.text.contains("Access was denied") && page.text.contains("Access not permitted."));
    assert_eq!(exchanges(&world.amazon), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_elses_answer_is_refused_in_the_victims_browser() {
    let Some(mut world) = World::start().await else { return };
    // The attacker begins a login, consents as themself, and sends the victim the last link.
    let theirs = begin(world.proxy.admin, "acme").await;
    let link = world.url(&consent(&theirs, INITECH).await);
    let page = world.browser.open("victim", &link);
    is_ours(&page, 403);
    assert!(page.text.contains("Another browser"), "{}", page.text);
    // Nor while the victim is logging in to the same account.
    world.go_to_amazon("victim", "acme").await;
    let page = world.browser.open_in_tab("victim", "b", &link);
    is_ours(&page, 403);
    assert_eq!(exchanges(&world.amazon), 0);
    let page = world.browser.click("victim", "Allow as acme");
    is_ours(&page, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_browsers_do_not_share_a_login() {
    let Some(mut world) = World::start().await else { return };
    world.go_to_amazon("anna", "one").await;
    let consent = world.browser.eval("anna", "[...document.querySelectorAll('a')][2].href");
    // Carried over to bert's browser, the consent page works, but its answer belongs to anna.
    let page = world.browser.open("bert", consent.as_str().expect("a link"));
    is_ours(&page, 403);
    let page = world.browser.click("anna", "Allow as initech");
    is_ours(&page, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wrong_amazon_user_is_noticed_and_turned_down() {
    let Some(mut world) = World::start().await else { return };
    world.go_to_amazon("anna", "acme").await;
    let page = world.browser.click("anna", "Allow as initech");
    is_ours(&page, 200);
    assert!(page.title.starts_with("Replace acme?"), "{page:?}");
    for id in [ACME_PROFILE, INITECH_PROFILE] {
        assert!(page.text.contains(&id.to_string()), "{}", page.text);
    }
    let page = world.browser.click("anna", "No, keep it");
    is_ours(&page, 200);
    assert!(page.text.contains("Nothing was changed"), "{}", page.text);
    let answer = world.proxy.get("/v2/profiles").await;
    assert!(answer.text().contains(&ACME_PROFILE.to_string()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_replaces_an_account_on_purpose() {
    let Some(mut world) = World::start().await else { return };
    world.go_to_amazon("anna", "acme").await;
    world.browser.click("anna", "Allow as initech");
    // Its page names no referrer, so the browser calls the form's origin `null`.
    let page = world.browser.click("anna", "Yes, replace acme");
    is_ours(&page, 200);
    assert!(page.text.contains("acme is connected"), "{}", page.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_tabs_log_in_beside_each_other() {
    let Some(mut world) = World::start().await else { return };
    let (one, two) = (world.login("one").await, world.login("two").await);
    world.browser.open_in_tab("anna", "a", &one);
    world.browser.open_in_tab("anna", "b", &two);
    let page = world.browser.click_in_tab("anna", "b", "Allow as globex");
    assert!(page.text.contains("two is connected"), "{}", page.text);
    let page = world.browser.click_in_tab("anna", "a", "Allow as initech");
    assert!(page.text.contains("one is connected"), "{}", page.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_restarts_while_the_person_reads() {
    let Some(mut world) = World::start().await else { return };
    world.go_to_amazon("anna", INITECH).await;
    world.proxy.kill();
    world.proxy = world.proxy.restart();
    let page = world.browser.click("anna", "Allow as initech");
    is_ours(&page, 200);
    assert!(page.text.contains("initech is connected"), "{}", page.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn amazon_fails_and_the_page_says_so() {
    let Some(mut world) = World::start().await else { return };
    world.go_to_amazon("anna", INITECH).await;
    world.amazon.state().lwa.faults.add(LwaFault::ServerError, Times::Forever);
    let page = world.browser.click("anna", "Allow as initech");
    is_ours(&page, 502);
    assert!(page.text.contains("Amazon cannot be reached"), "{}", page.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_description_is_text() {
    let Some(mut world) = World::start().await else { return };
    world.go_to_amazon("anna", INITECH).await;
    let state = world.browser.eval("anna", "new URLSearchParams(location.search).get('state')");
    let evil = "%3Cimg%20src%3Dx%20onerror%3D%22document.title%3D'owned'%22%3E";
    let url = world.url(&format!(
        "/api/auth/amazon/callback?error=access_denied&error_description={evil}&state={}",
        state.as_str().expect("a state")
    ));
    let page = world.browser.open("anna", &url);
    is_ours(&page, 403);
    assert!(page.text.contains("<img src=x"), "{}", page.text);
    assert_eq!(world.browser.eval("anna", "document.images.length"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_site_can_neither_begin_nor_frame_nor_answer() {
    let Some(mut world) = World::start().await else { return };
    let login = world.url("/api/auth/amazon/login?account=acme");
    let confirm = world.url("/api/auth/amazon/confirm");
    let evil = site(format!(
        "<a href='{login}'>begin</a><iframe src='{login}'></iframe><img src='{login}'>\
         <form method=post action='{confirm}'><input name=token value=x><input name=answer value=yes>\
         <button>answer</button></form>"
    ));
    let evil = format!("http://evil.test:{}/", evil.port());
    world.browser.open("anna", &evil);
    let page = world.browser.click("anna", "begin");
    assert!(page.status == 403 && page.text.contains("caller_rejected"), "{page:?}");
    world.browser.open("anna", &evil);
    let page = world.browser.click("anna", "answer");
    assert!(page.status == 403 && page.text.contains("caller_rejected"), "{page:?}");
    assert!(world.browser.cookies("anna").is_empty(), "no login was begun");
    let dead = free_address();
    // The rebound name reaches the listener, which does not answer to it.
    let rebound = format!("http://evil.test:{}/status", world.proxy.admin.port());
    let page = world.browser.open("anna", &rebound);
    assert!(page.status == 403 && !page.text.contains("acme"), "{page:?} {dead}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reconnect_link_works_from_a_mail_on_another_site() {
    let Some(mut world) = World::start().await else { return };
    let link = world.login(INITECH).await;
    let mail = site(format!("<a href='{link}'>connect</a><iframe src='{link}'></iframe>"));
    world.browser.open("anna", &format!("http://evil.test:{}/", mail.port()));
    let page = world.browser.click("anna", "connect");
    assert_eq!(page.title, "Sandbox consent", "{page:?}");
    let page = world.browser.click("anna", "Allow as initech");
    is_ours(&page, 200);
    let page = world.browser.open("anna", &link);
    is_ours(&page, 410);
}
