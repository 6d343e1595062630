//! What Amazon answers when it does not answer with a grant: each has its page, nothing changes.

use crate::support::{
    canary::Canaries,
    login::{
        Begun, INITECH, Reply, ask, at_amazon, begin, begin_with, come_back, come_back_in_browser,
        consent, exchanges, proxy,
    },
    proxy::{Proxy, Setup, amazon, eventually},
};
use adsproxy::{
    sandbox::{Emulator, EmulatorOptions, LwaFault, Scripted, Times},
    testing::ManualClock,
};
use http::{Method, StatusCode};
use std::{sync::Arc, time::Duration};

/// A proxy in front of an Amazon, and a login that the Amazon was asked for.
struct Asked {
    amazon: Emulator,
    proxy: Proxy,
    begun: Begun,
}

impl Asked {
    async fn new() -> Self {
        Self::with(Setup { file_store: true, ..Setup::default() }).await
    }

    async fn with(setup: Setup) -> Self {
        Self::at(amazon().await, setup).await
    }

    async fn at(amazon: Emulator, setup: Setup) -> Self {
        let proxy = proxy(&amazon, setup);
        let begun = begin(proxy.admin, INITECH).await;
        Self { amazon, proxy, begun }
    }

    /// Comes back from Amazon with `path`, as a browser.
    async fn page(&self, path: &str) -> Reply {
        come_back_in_browser(self.proxy.admin, path, &self.begun.cookie).await
    }

    /// Consents, comes back and gets this page; nothing was connected.
    async fn ends_with(&self, status: u16, code: &str) -> Reply {
        let path = consent(&self.begun, INITECH).await;
        self.page_is(&path, status, code).await
    }

    async fn page_is(&self, path: &str, status: u16, code: &str) -> Reply {
        let page = self.page(path).await;
        assert_eq!(page.status.as_u16(), status, "{}", page.text);
        assert!(page.text.contains(&format!("({code})")), "{}", page.text);
        assert!(!self.proxy.ask_admin("/status").contains(INITECH), "nothing was connected");
        page
    }

    fn fails(&self, fault: LwaFault) {
        self.amazon.state().lwa.faults.add(fault, Times::Forever);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denial_says_so_and_costs_no_token_request() {
    let login = Asked::new().await;
    let path = at_amazon(&login.begun.auth_url, "deny=1").await;
    let page = login.page_is(&path, 403, "access_denied").await;
    assert!(page.text.contains("Access not permitted."), "{}", page.text);
    assert_eq!(exchanges(&login.amazon), 0);
    let again = login.page(&path).await;
    assert!(again.text.contains("(state_unknown)"), "a denial uses the state up, too");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_description_is_shown_escaped_and_only_of_a_login_of_ours() {
    let login = Asked::new().await;
    let evil = "%3Cscript%3Ealert(1)%3C/script%3E%22%27%0d%0aSet-Cookie:%20a=b";
    let callback = "/api/auth/amazon/callback?error=access_denied";
    let forged = format!("{callback}&error_description={evil}&state={}", "A".repeat(43));
    let page = login.page(&forged).await;
    assert!(!page.text.contains("alert"), "of a stranger nothing is repeated: {}", page.text);
    let own = format!("{callback}&error_description={evil}&state={}", login.begun.state);
    let page = login.page_is(&own, 403, "access_denied").await;
    assert!(page.text.contains("&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#39;"));
    assert!(!page.headers.contains_key("set-cookie") || !page.text.contains("\r\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_scope_has_its_page() {
    let lwa = "scopes = [\"advertising::campaign_managment\"]\n".to_owned();
    let login = Asked::with(Setup { lwa, file_store: true, ..Setup::default() }).await;
    let path = at_amazon(&login.begun.auth_url, "account=initech").await;
    let page = login.page_is(&path, 400, "scope_unknown").await;
    assert!(page.text.contains("advertising::campaign_managment"), "{}", page.text);
    assert_eq!(exchanges(&login.amazon), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_that_is_not_approved_has_its_page() {
    let login = Asked::new().await;
    login.amazon.state().lwa.configure(|settings| settings.is_approved = false);
    let path = at_amazon(&login.begun.auth_url, "account=initech").await;
    login.page_is(&path, 403, "application_not_approved").await;
    assert_eq!(exchanges(&login.amazon), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_that_the_token_endpoint_does_not_approve_has_its_page() {
    let login = Asked::new().await;
    login.fails(LwaFault::UnauthorizedClient);
    login.ends_with(403, "application_not_approved").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_return_address_is_named_letter_for_letter() {
    let login = Asked::new().await;
    login.amazon.state().lwa.configure(|settings| {
        settings.return_urls = Some(vec!["http://localhost:1/elsewhere".to_owned()]);
    });
    // Amazon itself never comes back then; a program that is told so by it does.
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let refused = client.get(&login.begun.auth_url).send().await.expect("an answer");
    assert_eq!(refused.status(), 400);
    assert!(refused.text().await.expect("text").contains("bad-redirect-uri"));
    let state = &login.begun.state;
    let path = format!(
        "/api/auth/amazon/callback?error=invalid_request&error_description=Bad+redirect_uri&state={state}"
    );
    let page = login.page_is(&path, 400, "redirect_uri_mismatch").await;
    let own = format!("http://localhost:{}/api/auth/amazon/callback", login.proxy.admin.port());
    assert!(page.text.contains(&own), "{}", page.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_return_address_that_differs_at_the_token_endpoint_has_the_same_page() {
    let login = Asked::new().await;
    let body = r#"{"error":"invalid_grant","error_description":"The request has an invalid grant parameter : redirect_uri"}"#;
    login.fails(LwaFault::Respond(Scripted {
        status: StatusCode::BAD_REQUEST,
        headers: vec![("content-type".into(), "application/json".into())],
        body: body.into(),
    }));
    login.ends_with(400, "redirect_uri_mismatch").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_code_has_its_page() {
    let clock = Arc::new(ManualClock::new());
    let options = EmulatorOptions { clock: clock.clone(), ..EmulatorOptions::default() };
    let amazon = Emulator::start(options).await.expect("the emulator starts");
    let login = Asked::at(amazon, Setup { file_store: true, ..Setup::default() }).await;
    let path = consent(&login.begun, INITECH).await;
    clock.advance(Duration::from_secs(301));
    login.page_is(&path, 400, "code_late").await;
    assert_eq!(exchanges(&login.amazon), 1, "Amazon is asked once, not again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reused_code_has_its_page_and_does_not_reach_amazon_again() {
    let login = Asked::new().await;
    let path = consent(&login.begun, INITECH).await;
    let first = login.page(&path).await;
    assert_eq!(first.status, 200, "{}", first.text);
    let second = begin(login.proxy.admin, "second").await;
    let again = path.replace(&login.begun.state, &second.state);
    let reply = come_back(login.proxy.admin, &again, &second.cookie).await;
    assert_eq!((reply.status.as_u16(), reply.code().as_str()), (400, "code_reused"));
    assert_eq!(exchanges(&login.amazon), 1);
    assert!(!login.proxy.ask_admin("/status").contains("\"second\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_a_code_has_its_page() {
    let login = Asked::new().await;
    let path = format!("/api/auth/amazon/callback?state={}", login.begun.state);
    login.page_is(&path, 400, "code_missing").await;
    assert_eq!(exchanges(&login.amazon), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_endpoint_that_hangs_has_its_page() {
    let toml = "[token]\nlwa_timeout_secs = 0.5\nlwa_connect_timeout_secs = 0.4\n".to_owned();
    let login = Asked::with(Setup { toml, file_store: true, ..Setup::default() }).await;
    login.fails(LwaFault::Hang);
    login.ends_with(504, "lwa_timeout").await;
    assert_eq!(exchanges(&login.amazon), 1, "a code is sent once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_endpoint_that_fails_is_asked_once() {
    for fault in [
        LwaFault::ServerError,
        LwaFault::Unavailable { retry_after: Some(1) },
        LwaFault::Throttled { retry_after: None },
        LwaFault::Drop,
    ] {
        let login = Asked::new().await;
        login.fails(fault);
        login.ends_with(502, "lwa_unavailable").await;
        assert_eq!(exchanges(&login.amazon), 1, "a code is sent once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_of_the_token_endpoint_is_not_followed() {
    let elsewhere = amazon().await;
    let login = Asked::new().await;
    login.fails(LwaFault::Redirect(format!("http://{}/auth/o2/token", elsewhere.addr())));
    login.ends_with(502, "lwa_answer").await;
    assert!(elsewhere.state().record.requests().is_empty(), "the code went elsewhere");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_no_grant_has_its_page() {
    for fault in [LwaFault::NoToken, LwaFault::CrlfInToken, LwaFault::Oversized] {
        let login = Asked::new().await;
        login.fails(fault);
        login.ends_with(502, "lwa_answer").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_a_refresh_token_connects_nothing() {
    let login = Asked::new().await;
    let body = r#"{"access_token":"Atza|short","token_type":"bearer","expires_in":3600}"#;
    login.fails(LwaFault::Respond(Scripted {
        status: StatusCode::OK,
        headers: vec![("content-type".into(), "application/json".into())],
        body: body.into(),
    }));
    login.ends_with(502, "lwa_answer").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_client_secret_has_its_page() {
    let login = Asked::new().await;
    login.fails(LwaFault::InvalidClient);
    login.ends_with(502, "application_rejected").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn less_than_was_asked_for_connects_nothing() {
    let login = Asked::new().await;
    login.amazon.state().lwa.configure(|settings| {
        settings.granted_scope = Some("profile".to_owned());
    });
    login.ends_with(403, "scope_missing").await;
    assert_eq!(exchanges(&login.amazon), 0);
    // The older name of the same scope is the same scope.
    login.amazon.state().lwa.configure(|settings| {
        settings.granted_scope = Some("profile cpc_advertising:campaign_management".to_owned());
    });
    let begun = begin(login.proxy.admin, INITECH).await;
    let back = consent(&begun, INITECH).await;
    assert_eq!(come_back(login.proxy.admin, &back, &begun.cookie).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_in_a_request_chooses_where_a_browser_is_sent() {
    let login = Asked::new().await;
    let admin = login.proxy.admin;
    let own = format!(
        "redirect_uri=http%3A%2F%2Flocalhost%3A{}%2Fapi%2Fauth%2Famazon%2Fcallback",
        admin.port()
    );
    for more in [
        "redirect_uri=https://evil.test/",
        "return_to=https://evil.test/",
        "next=//evil.test",
        "authorize_url=https://evil.test/",
        "state=mine",
        "code_challenge_method=plain",
    ] {
        let begun = begin_with(admin, &format!("account=acme&{more}")).await;
        assert!(
            begun.auth_url.contains(&own) && !begun.auth_url.contains("evil"),
            "{}",
            begun.auth_url
        );
        assert!(begun.state != "mine" && begun.auth_url.contains("code_challenge_method=S256"));
    }
    let fields = [
        ("accept", "text/html"),
        ("x-forwarded-host", "evil.test"),
        ("forwarded", "host=evil.test"),
    ];
    let path = "/api/auth/amazon/login?account=acme&next=//evil.test";
    let sent = ask(admin, Method::GET, path, &fields).await;
    assert_eq!(sent.status, 303);
    assert!(sent.location().starts_with(&format!("http://{}/ap/oa?", login.amazon.addr())));
    assert!(sent.location().contains(&own));
    let back = consent(&login.begun, INITECH).await;
    let done = login.page(&format!("{back}&next=https://evil.test/")).await;
    assert!(done.status == 200 && !done.headers.contains_key("location"));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_name_no_account_or_a_wrong_one_begin_nothing() {
    let login = Asked::new().await;
    for (query, code) in [
        ("", "account_required"),
        ("account=", "account_required"),
        ("account=acme&account=globex", "bad_request"),
        ("account=../acme", "bad_request"),
        ("account=%3Cscript%3E", "bad_request"),
        ("account=new&region=mars", "bad_request"),
        ("account=acme&region=fe", "bad_request"),
        ("account=new&application=none", "bad_request"),
        ("account=acme&reconnect=x", "link_used"),
    ] {
        let path = format!("/api/auth/amazon/login?{query}");
        let reply = ask(login.proxy.admin, Method::GET, &path, &[]).await;
        assert_eq!(reply.code(), code, "{query}");
        assert!(reply.status.is_client_error() && !reply.headers.contains_key("set-cookie"));
        let page = ask(login.proxy.admin, Method::GET, &path, &[("accept", "text/html")]).await;
        assert!(page.text.contains(&format!("({code})")), "{}", page.text);
    }
    for method in [Method::POST, Method::HEAD, Method::PUT] {
        for path in ["/api/auth/amazon/login?account=acme", "/api/auth/amazon/callback"] {
            let reply = ask(login.proxy.admin, method.clone(), path, &[]).await;
            assert_eq!(reply.status, 405, "{method} {path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_of_a_login_shows_anywhere() {
    let toml = "[log]\nfilter = \"trace\"\n".to_owned();
    let login = Asked::with(Setup { toml, file_store: true, ..Setup::default() }).await;
    // The endpoint repeats everything it was sent.
    login.amazon.state().lwa.faults.add(LwaFault::Echo, Times::Next(1));
    let path = consent(&login.begun, INITECH).await;
    let failed = login.page(&path).await;
    assert_eq!(failed.status, 502, "{}", failed.text);
    let second = begin(login.proxy.admin, INITECH).await;
    let back = consent(&second, INITECH).await;
    let done = come_back(login.proxy.admin, &back, &second.cookie).await;
    assert_eq!(done.status, 200, "{}", done.text);
    let mut canaries = Canaries::default();
    for (begun, path) in [(&login.begun, &path), (&second, &back)] {
        let code =
            path.split("code=").nth(1).and_then(|rest| rest.split('&').next()).expect("a code");
        let value = begun.cookie.split('=').nth(1).expect("a value");
        for secret in [begun.state.as_str(), code, value] {
            canaries.add(secret);
        }
    }
    for seen in login.amazon.state().record.requests_for(adsproxy::sandbox::Surface::Token) {
        let form = String::from_utf8_lossy(&seen.body).into_owned();
        let verifier = form.split("code_verifier=").nth(1).and_then(|rest| rest.split('&').next());
        if let Some(verifier) = verifier {
            canaries.add(verifier);
        }
    }
    let grant = login.amazon.state().lwa.grant(INITECH).expect("a grant");
    canaries.add(grant.current());
    eventually("the log tells of the login", || login.proxy.log().contains("account connected"))
        .await;
    canaries.assert_none_in("the log", login.proxy.log().as_bytes());
    canaries.assert_none_in("a page", failed.text.as_bytes());
    canaries.assert_none_in("an answer", done.text.as_bytes());
    canaries.assert_none_in("the metrics", login.proxy.metrics().as_bytes());
    canaries.assert_none_in("the status", login.proxy.ask_admin("/status").as_bytes());
    // A socket has no content.
    for file in walk(login.proxy.dir.path()).into_iter().filter(|file| file.is_file()) {
        let content = std::fs::read(&file).expect("a file");
        canaries.assert_none_in(&file.display().to_string(), &content);
    }
}

fn walk(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(walk(&path));
        } else if path.is_file() {
            // Not the control socket.
            files.push(path);
        }
    }
    files
}
