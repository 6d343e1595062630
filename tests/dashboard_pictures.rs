//! Pictures of every page of the dashboard for `docs/dashboard.md`, and what a reader would notice in them:
//! nothing jumps, nothing comes from elsewhere, nothing is wider than its window.
//!
//! `ADSPROXY_WRITE_SNAPSHOT=1` takes the pictures of the documentation anew.

use crate::support::{
    browser::{Browser, Page},
    callers::{OPERATOR, TestCaller},
    login::{INITECH, beside, log_in, login_setup},
    proxy::{Proxy, Setup, amazon},
};
use serde_json::json;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Pages that an address opens.
const PAGES: [(&str, &str); 13] = [
    ("accounts", "/dashboard"),
    ("account", "/dashboard/accounts/initech"),
    ("connect", "/dashboard/connect"),
    ("requests", "/dashboard/requests"),
    ("callers", "/dashboard/callers"),
    (
        "rules",
        "/dashboard/callers?rules=%5B%5Bcallers%5D%5D+reports&method=POST&path=%2Fsp%2Fcampaigns&account=acme#rules",
    ),
    ("health", "/dashboard/health"),
    ("audit", "/dashboard/audit"),
    ("api", "/dashboard/api"),
    ("disconnect", "/dashboard/accounts/acme/disconnect"),
    ("revoke", "/dashboard/keys/{key}/revoke"),
    ("error", "/dashboard/accounts/missing"),
    ("sign-in", "/dashboard/sign-in"),
];

/// A look: its name, how wide its window is, whether it is dark.
const LOOKS: [(&str, u32, bool); 3] =
    [("light", 1100, false), ("dark", 1100, true), ("phone", 390, false)];

/// The two accounts of the sandbox, one that an advertiser has connected, one whose grant is dead, and some
/// requests.
async fn world(amazon: &adsproxy::sandbox::Emulator) -> Proxy {
    let reports = TestCaller::new("reports", "accounts = [\"acme\"]\nread_only = true");
    let dead = "[accounts.initrode]\nregion = \"eu\"\nrefresh_token = { env = \"DEAD\" }\n";
    let env = vec![("DEAD".to_owned(), "Atzr|no-grant-of-amazons".to_owned())];
    let toml = [&reports.toml, dead].concat();
    let setup = Setup { toml, env, file_store: true, ..Setup::default() };
    let proxy = Proxy::with(amazon, login_setup(amazon, setup));
    assert_eq!(log_in(proxy.admin, INITECH, INITECH).await.status, 200);
    for (account, path) in [
        ("acme", "/v2/profiles"),
        ("globex", "/v2/profiles"),
        ("initrode", "/v2/profiles"),
        ("acme", "/sp/campaigns/extended"),
        (INITECH, "/v2/profiles"),
        (INITECH, "/sp/campaigns/extended"),
    ] {
        let request = proxy.request(http::Method::GET, path).header("x-ads-account", account);
        let status = proxy.send(request).await.status;
        assert_ne!(status, 502, "{account}{path}");
    }
    proxy
}

fn sign_in(browser: &mut Browser, url: &str) {
    browser.open("anna", url);
    let script = format!("document.getElementById('key').value = {}; 0", json!(OPERATOR.key));
    browser.eval("anna", &script);
    browser.click("anna", "Sign in");
}

/// Takes pictures of pages, and looks for them in the documentation.
struct Camera {
    browser: Browser,
    /// The page that shows them.
    text: String,
    scratch: tempfile::TempDir,
}

impl Camera {
    /// Pictures of the page that is shown, in each look.
    fn take(&mut self, name: &str, page: &Page) {
        let messages = page.messages.iter().filter(|one| !is_expected(one, page.status));
        assert_eq!(messages.count(), 0, "{page:?}");
        let kept = docs().join("dashboard");
        let is_wanted = std::env::var_os("ADSPROXY_WRITE_SNAPSHOT").is_some();
        for (look, width, dark) in LOOKS {
            self.browser.set_width("anna", width);
            self.browser.set_dark("anna", dark);
            let file = format!("{name}-{look}.webp");
            let taken = if is_wanted { kept.join(&file) } else { self.scratch.path().join(&file) };
            self.browser.picture("anna", &taken);
            for path in [taken, kept.join(&file)] {
                let picture = fs::read(&path).expect("a picture");
                assert!(picture.starts_with(b"RIFF") && picture.len() > 2_000, "{path:?}");
            }
            let is_shown = self.text.contains(&format!("dashboard/{file}"));
            assert!(is_shown, "docs/dashboard.md shows {file}");
        }
        self.browser.set_width("anna", LOOKS[0].1);
    }
}

/// What the browser says of a failure that is meant, and of the icon that the sandbox's page, which was
/// the last one, does not have.
fn is_expected(message: &str, status: u64) -> bool {
    let is_icon = message.contains("401 (Unauthorized)");
    is_icon || (status != 200 && message.contains(&status.to_string()))
}

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_is_in_the_documentation_light_dark_and_on_a_telephone() {
    let Some(mut browser) = Browser::start() else { return };
    let amazon = amazon().await;
    let proxy = world(&amazon).await;
    let url = |path: &str| format!("http://localhost:{}{path}", proxy.admin.port());
    sign_in(&mut browser, &url("/dashboard"));
    let text = fs::read_to_string(docs().join("dashboard.md")).expect("the page");
    let scratch = tempfile::tempdir().expect("a directory");
    let mut camera = Camera { browser, text, scratch };
    for (name, path) in PAGES {
        let path = path.replace("{key}", &OPERATOR.key[5..13]);
        let page = camera.browser.open("anna", &url(&path));
        assert_eq!(page.status, if name == "error" { 404 } else { 200 }, "{page:?}");
        camera.take(name, &page);
    }
    camera.browser.open("anna", &url("/dashboard/callers"));
    let page = camera.browser.click("anna", "Make it");
    assert_eq!((page.status, &*page.title), (200, "The new session · adsproxy"), "{page:?}");
    camera.take("issued", &page);
    // What an advertiser sees, in a browser without a sign-in.
    camera.browser.click("anna", "Sign out");
    let link = beside(&proxy).reconnect_link(&INITECH.parse().expect("an id")).await;
    let link = link.expect("a link").expose().to_owned();
    let page = camera.browser.open("anna", &link);
    assert_eq!(page.status, 200, "{page:?}");
    camera.take("reconnect", &page);
    camera.browser.click("anna", "Continue to Amazon");
    let page = camera.browser.click("anna", "Deny");
    assert_eq!(page.status, 403, "{page:?}");
    camera.take("reconnect-denied", &page);
    camera.browser.open("anna", &link);
    camera.browser.click("anna", "Continue to Amazon");
    let page = camera.browser.click("anna", "Allow as initech");
    assert!(page.status == 200 && page.text.contains("connected anew"), "{page:?}");
    camera.take("reconnected", &page);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_page_jumps_or_loads_anything_from_elsewhere() {
    let Some(mut browser) = Browser::start() else { return };
    let amazon = amazon().await;
    let proxy = world(&amazon).await;
    let url = |path: &str| format!("http://localhost:{}{path}", proxy.admin.port());
    sign_in(&mut browser, &url("/dashboard"));
    // Long enough for what a script changes: times in the reader's zone, a countdown, a live part.
    let shifts = "new Promise(done => { let sum = 0; \
        new PerformanceObserver(list => { for (const one of list.getEntries()) sum += one.value; }) \
        .observe({ type: 'layout-shift', buffered: true }); setTimeout(() => done(sum), 2500) })";
    let others = "performance.getEntriesByType('resource').map(one => one.name) \
        .filter(name => !name.startsWith(location.origin + '/')).concat( \
        [...document.querySelectorAll('[src], link[href]')].map(one => one.src || one.href) \
        .filter(name => !name.startsWith(location.origin + '/')))";
    for (name, path) in PAGES {
        let path = path.replace("{key}", &OPERATOR.key[5..13]);
        let page = browser.open("anna", &url(&path));
        assert!(page.messages.iter().all(|one| is_expected(one, page.status)), "{page:?}");
        let shift = browser.eval("anna", shifts).as_f64().expect("a number");
        // The bound that Chromium's own audits call good is 0.1.
        assert!(shift < 0.02, "{name} jumps: {shift}");
        assert_eq!(browser.eval("anna", others), json!([]), "{name}");
    }
    let script = "document.querySelector('main').insertAdjacentHTML('beforebegin', \
        '<p style=\"height: 600px\">x</p>'); 0";
    browser.open("anna", &url("/dashboard"));
    browser.eval("anna", script);
    let shift = browser.eval("anna", shifts).as_f64().expect("a number");
    assert!(shift > 0.02, "the twin: {shift}");
}
