//! The dashboard in a real headless Chromium: the whole way with and without script, live pages, and what
//! other sites can do with it.

use crate::support::{
    browser::{Browser, Page, site},
    callers::OPERATOR,
    dashboard::Visitor,
    login::{INITECH, login_setup},
    proxy::{Proxy, Setup, amazon, eventually},
    receiver::SECRET,
};
use adsproxy::sandbox::Emulator;
use serde_json::{Value, json};

/// Every page that needs no name.
pub const PAGES: [&str; 8] = [
    "/dashboard",
    "/dashboard/accounts/acme",
    "/dashboard/connect",
    "/dashboard/requests",
    "/dashboard/callers",
    "/dashboard/health",
    "/dashboard/audit",
    "/dashboard/api",
];

/// A server, and a browser at its dashboard.
pub struct World {
    pub amazon: Emulator,
    pub proxy: Proxy,
    pub browser: Browser,
}

impl World {
    /// None if the calling test is to be left out.
    pub async fn start(toml: &str) -> Option<Self> {
        let env = vec![("HOOK_SECRET".to_owned(), SECRET.to_owned())];
        let setup = Setup { toml: toml.to_owned(), env, file_store: true, ..Setup::default() };
        let browser = Browser::start()?;
        let amazon = amazon().await;
        let proxy = Proxy::with(&amazon, login_setup(&amazon, setup));
        Some(Self { amazon, proxy, browser })
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://localhost:{}{path}", self.proxy.admin.port())
    }

    pub fn open(&mut self, path: &str) -> Page {
        let url = self.url(path);
        self.browser.open("anna", &url)
    }

    /// Signs in by the form, and is at `path` then.
    pub fn sign_in(&mut self, path: &str) -> Page {
        self.open(path);
        let script = format!("document.getElementById('key').value = {}; 0", json!(OPERATOR.key));
        self.browser.eval("anna", &script);
        self.browser.click("anna", "Sign in")
    }

    /// An operator in another browser, made of requests.
    pub async fn visitor(&self) -> Visitor {
        Visitor::with_key(self.proxy.admin, &OPERATOR.key).await
    }

    pub fn text(&mut self) -> String {
        let text = self.browser.eval("anna", "document.body ? document.body.innerText : ''");
        text.as_str().expect("a text").to_owned()
    }
}

/// A page of the dashboard that nothing complained about.
pub fn is_good(page: &Page, title: &str) {
    assert_eq!((page.status, page.title.as_str()), (200, title), "{page:?}");
    assert!(page.messages.is_empty(), "{page:?}");
    assert_eq!(page.cookies, "", "no script reads the cookie");
}

/// From the sign-in to the end of an account, as a person goes.
async fn whole_way(world: &mut World, has_script: bool) {
    world.browser.set_script("anna", has_script);
    let page = world.sign_in("/dashboard");
    is_good(&page, "Accounts · adsproxy");
    assert!(page.text.contains("acme") && page.text.contains("globex"), "{page:?}");
    let page = world.browser.click("anna", "Connect an account");
    is_good(&page, "Connect an account · adsproxy");
    world
        .browser
        .eval("anna", &format!("document.getElementById('account').value = '{INITECH}'; 0"));
    let page = world.browser.click("anna", "Continue at Amazon");
    assert_eq!(page.title, "Sandbox consent", "{page:?}");
    let page = world.browser.click("anna", &format!("Allow as {INITECH}"));
    assert!(page.status == 200 && page.text.contains("is connected"), "{page:?}");
    let page = world.browser.click("anna", "Back to the dashboard");
    is_good(&page, "Accounts · adsproxy");
    assert!(page.text.contains(INITECH) && page.text.contains("na 1"), "{page:?}");
    let page = world.browser.click("anna", INITECH);
    is_good(&page, &format!("{INITECH} · adsproxy"));
    assert!(page.text.contains("3456789012345678") && page.text.contains("Initech"), "{page:?}");
    assert!(page.text.contains("JPY"), "{page:?}");
    let page = world.browser.click("anna", "Refresh now");
    is_good(&page, &format!("Refresh {INITECH}? · adsproxy"));
    let page = world.browser.click("anna", "Refresh now");
    is_good(&page, &format!("{INITECH} · adsproxy"));
    assert!(page.text.contains("There is a good access token"), "{page:?}");
    let page = world.browser.click("anna", "Disconnect");
    is_good(&page, &format!("Disconnect {INITECH}? · adsproxy"));
    let page = world.browser.click("anna", "Disconnect");
    is_good(&page, "Accounts · adsproxy");
    assert!(!page.text.contains(INITECH), "{page:?}");
    world.open("/dashboard/callers");
    world.browser.eval("anna", "document.getElementById('note').value = 'for tests'; 0");
    let page = world.browser.click("anna", "Make it");
    is_good(&page, "The new session · adsproxy");
    let key = page.text.split_whitespace().find(|word| word.starts_with("adss_")).expect("a key");
    let id = key[5..13].to_owned();
    let page = world.browser.click("anna", "Back to the callers");
    assert!(page.text.contains(&id) && !page.text.contains(key) && page.text.contains("for tests"));
    let page = world.browser.click("anna", &format!("End {id}"));
    is_good(&page, &format!("End session {id}? · adsproxy"));
    let page = world.browser.click("anna", "End");
    assert!(!page.text.contains(&id), "{page:?}");
    let page = world.browser.click("anna", "Sign out");
    is_good(&page, "Sign in · adsproxy");
    let page = world.open("/dashboard");
    is_good(&page, "Sign in · adsproxy");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_way_works_with_script_and_without() {
    for has_script in [true, false] {
        let Some(mut world) = World::start("").await else { return };
        whole_way(&mut world, has_script).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_an_account_is_shown_without_a_reload() {
    let Some(mut world) = World::start("").await else { return };
    world.sign_in("/dashboard/requests");
    assert!(world.text().contains("No request has come"), "{}", world.text());
    world.browser.eval("anna", "window.mark = 1");
    assert_eq!(world.proxy.get("/v2/profiles").await.status, 200);
    eventually("the request is shown", || world.text().contains("/v2/profiles")).await;
    assert_eq!(world.browser.eval("anna", "window.mark"), 1, "it is the same page");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_page_goes_to_the_sign_in_when_its_session_has_ended() {
    let Some(mut world) = World::start("").await else { return };
    world.sign_in("/dashboard");
    let cookies = world.browser.cookies("anna");
    let cookie =
        |one: &Value| Some(format!("{}={}", one["name"].as_str()?, one["value"].as_str()?));
    let cookies: Vec<_> = cookies.iter().filter_map(cookie).collect();
    let visitor = Visitor { admin: world.proxy.admin, cookie: cookies.join("; ") };
    assert_eq!(visitor.post("/dashboard/sign-out", &[]).await.status, 303);
    eventually("the page to sign in", || world.text().contains("Key of an operator")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_token_counts_down_and_nothing_moves() {
    let Some(mut world) = World::start("").await else { return };
    assert_eq!(world.proxy.get("/v2/profiles").await.status, 200);
    world.browser.set_script("anna", false);
    world.sign_in("/dashboard/accounts/acme");
    assert!(world.text().contains("in 59 min") || world.text().contains("in 60 min"));
    world.browser.set_script("anna", true);
    world.open("/dashboard/accounts/acme");
    let look = "(() => { const time = document.querySelector('time[data-until]'); \
        return [time.textContent, time.getBoundingClientRect().width, time.title] })()";
    let first = world.browser.eval("anna", look);
    let is_counted = first[0].as_str().is_some_and(|text| text.ends_with(" s"));
    assert!(is_counted && first[2].as_str().is_some_and(|utc| utc.ends_with('Z')), "{first}");
    eventually("a second less", || world.browser.eval("anna", look)[0] != first[0]).await;
    let next = world.browser.eval("anna", look);
    assert_eq!(next[1], first[1], "as wide as before: {first} {next}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_site_or_port_neither_frames_nor_sends_nor_reads() {
    let Some(mut world) = World::start("").await else { return };
    world.sign_in("/dashboard");
    let here = world.url("/dashboard");
    let disconnect = world.url("/dashboard/accounts/acme/disconnect");
    let html = format!(
        "<title>other</title><a href='{here}'>go</a><iframe src='{here}'></iframe>\
         <form method=post action='{disconnect}'><button>send</button></form>"
    );
    let other = site(html);
    for host in ["localhost", "evil.test"] {
        let url = format!("http://{host}:{}/", other.port());
        world.browser.open("anna", &url);
        let frames = "document.querySelector('iframe').contentDocument === null";
        assert_eq!(world.browser.eval("anna", frames), true, "{host}: nothing of ours is in it");
        let read = format!(
            "fetch({}, {{credentials: 'include'}}).then(() => 'read', () => 'no')",
            json!(here)
        );
        assert_eq!(world.browser.eval("anna", &read), "no", "{host}");
        let page = world.browser.click("anna", "send");
        assert_eq!(page.status, 403, "{host}: {page:?}");
        world.browser.open("anna", &url);
        let page = world.browser.click("anna", "go");
        is_good(&page, "Accounts · adsproxy");
        assert!(page.text.contains("acme"), "a link changes nothing, and leads here: {page:?}");
    }
    let status = world.proxy.ask_admin("/api/v1/accounts/acme");
    assert!(!status.contains("not_connected"), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_the_browser_kept_is_not_shown_after_the_sign_out() {
    let Some(mut world) = World::start("").await else { return };
    world.sign_in("/dashboard/audit");
    world.open("/dashboard");
    world.browser.click("anna", "Sign out");
    world.browser.eval("anna", "history.back(); 0");
    eventually("the page to sign in", || {
        let text = world.text();
        text.contains("Key of an operator") && !text.contains("acme")
    })
    .await;
}
