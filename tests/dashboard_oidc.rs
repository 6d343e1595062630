//! Signing in to the dashboard by a real OpenID provider: the whole way in a browser, whom it signs in,
//! and which responses sign nobody in.

use crate::dashboard_fit::{axe, violations};
use crate::support::{
    browser::{Browser, Page},
    commands::Commands,
    dashboard::{Visitor, send},
    issuer::RealIssuer,
    login::{Reply, ask, client, free_address},
    proxy::{Proxy, Setup, amazon},
};
use adsproxy::{
    sandbox::{CLIENT_ID, CLIENT_SECRET, Emulator},
    testing::{App, Clock as _, ManualClock, load},
};
use http::Method;
use reqwest::{Url, header::SET_COOKIE};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

const CALLBACK: &str = "/dashboard/oidc/callback";
const TENANTS: &str = "audience = [\"adsproxy\"]\ntenant_claim = [\"org_id\"]";
/// A client with a secret, and one operator.
const WEB: &str = "client_id = \"web\"\nclient_secret = { env = \"OIDC_SECRET\" }\n\
    operators = [\"boss\"]";
const ACCOUNTS: &str = "[accounts.\"a~shop\"]\nregion = \"na\"\nrefresh_token = { env = \"ACME_REFRESH\" }\n\
    [accounts.\"b~zebra\"]\nregion = \"eu\"\nrefresh_token = { env = \"GLOBEX_REFRESH\" }\n";

struct World {
    issuer: RealIssuer,
    proxy: Proxy,
    _amazon: Emulator,
}

/// A sign-in that a browser has begun.
#[derive(Clone)]
struct Begun {
    /// The provider's page.
    url: String,
    cookie: String,
}

impl World {
    /// With further keys of the issuer, and those of the client; none if the test is to be left out.
    async fn start(issuer: &str, oidc: &str) -> Option<Self> {
        let setup = Setup { file_store: true, ..Setup::default() };
        Self::with(issuer, oidc, setup).await
    }

    async fn with(issuer: &str, oidc: &str, setup: Setup) -> Option<Self> {
        let admin = free_address();
        let back = format!("http://localhost:{}{CALLBACK}", admin.port());
        let real = RealIssuer::for_people(&back)?;
        let amazon = amazon().await;
        let toml =
            format!("{}{ACCOUNTS}[dashboard.oidc]\nissuer = \"op\"\n{oidc}\n", real.toml(issuer));
        let env = vec![("OIDC_SECRET".to_owned(), "s3cret of web".to_owned())];
        let setup = Setup { toml, env, admin: Some(admin), ..setup };
        let proxy = Proxy::with(&amazon, setup);
        // Else its first sign-in could come before the keys.
        for _ in 0..500 {
            if real.fetches().await > 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Some(Self { issuer: real, proxy, _amazon: amazon })
    }

    fn url(&self, path: &str) -> String {
        format!("http://localhost:{}{path}", self.proxy.admin.port())
    }

    async fn try_begin(&self, form: &[(&str, &str)]) -> Reply {
        send(self.proxy.admin, Method::POST, "/dashboard/oidc", &[], form).await
    }

    async fn begin_with(&self, form: &[(&str, &str)]) -> Begun {
        let page = self.try_begin(form).await;
        assert_eq!(page.status, 200, "{}", page.text);
        let refresh = page.headers["refresh"].to_str().expect("ASCII");
        let url = refresh.strip_prefix("0; url=").expect("an address").to_owned();
        assert!(page.text.contains(&url.replace('&', "&amp;")), "without script there is a link");
        Begun { url, cookie: page.cookie() }
    }

    async fn begin(&self) -> Begun {
        self.begin_with(&[]).await
    }

    /// Brings a response of the provider back.
    async fn come_back(&self, response: &str, cookie: &str) -> Reply {
        let path = response.strip_prefix(&self.url("")).expect("an address of ours");
        send(self.proxy.admin, Method::GET, path, &[("cookie", cookie)], &[]).await
    }

    /// The whole way of `user`; what it ends in.
    async fn sign_in(&self, user: &str) -> Reply {
        let begun = self.begin().await;
        let response = AtProvider::default().sign_in(&begun.url, user, &self.url(CALLBACK)).await;
        self.come_back(&response, &begun.cookie).await
    }

    async fn visitor(&self, user: &str) -> Visitor {
        Visitor::of(self.proxy.admin, &self.sign_in(user).await)
    }
}

/// A browser at the provider, made of requests: its cookies by name and path.
#[derive(Default)]
struct AtProvider(BTreeMap<(String, String), String>);

impl AtProvider {
    async fn request(&mut self, method: Method, url: &Url, form: &[(&str, &str)]) -> Reply {
        let held = self.0.iter().filter(|((_, path), _)| url.path().starts_with(&**path));
        let cookies: Vec<_> = held.map(|((name, _), value)| format!("{name}={value}")).collect();
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let request = client().request(method, url.clone()).header("cookie", cookies.join("; "));
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let response = request.body(body).send().await.expect("the provider responds");
        let (status, headers) = (response.status(), response.headers().clone());
        for line in headers.get_all(SET_COOKIE) {
            let mut parts = line.to_str().expect("ASCII").split(';').map(str::trim);
            let (name, value) = parts.next().and_then(|it| it.split_once('=')).expect("a cookie");
            let path = parts.find_map(|it| it.strip_prefix("path=")).unwrap_or("/");
            let key = (name.to_owned(), path.to_owned());
            match value {
                "" => drop(self.0.remove(&key)),
                value => drop(self.0.insert(key, value.to_owned())),
            }
        }
        Reply { status, headers, text: response.text().await.expect("text") }
    }

    /// Signs in as `user` at `url` and agrees to all; the address that it is sent `back` to.
    async fn sign_in(&mut self, url: &str, user: &str, back: &str) -> String {
        let mut url = Url::parse(url).expect("an address");
        let (mut method, mut form) = (Method::GET, Vec::new());
        for _ in 0..12 {
            let reply = self.request(method, &url, &form).await;
            (method, form) = (Method::GET, Vec::new());
            if reply.status.is_redirection() {
                url = url.join(reply.location()).expect("an address");
                if url.as_str().starts_with(back) {
                    return url.into();
                }
                continue;
            }
            let action =
                reply.text.split("action=\"").nth(1).and_then(|rest| rest.split('"').next());
            url = Url::parse(action.expect("a form")).expect("an address");
            method = Method::POST;
            form = match reply.text.contains("value=\"login\"") {
                true => vec![("prompt", "login"), ("login", user), ("password", "x")],
                false => vec![("prompt", "consent")],
            };
        }
        panic!("the provider sends nobody back");
    }
}

/// `response` with the argument `name` as `value`, or without it.
fn with(response: &str, name: &str, value: Option<&str>) -> String {
    let mut url = Url::parse(response).expect("an address");
    let others: Vec<(String, String)> =
        url.query_pairs().into_owned().filter(|(other, _)| other != name).collect();
    let mut query = url.query_pairs_mut();
    query.clear().extend_pairs(others);
    if let Some(value) = value {
        query.append_pair(name, value);
    }
    drop(query);
    url.into()
}

/// The page to sign in, which says why the sign-in failed.
fn is_refused(reply: &Reply, status: u16, why: &str) {
    assert_eq!(reply.status, status, "{}", reply.text);
    assert!(reply.text.contains(why), "{why} in {}", reply.text);
    assert!(reply.text.contains("Sign in with op"), "the button is there again: {}", reply.text);
    let cookies = reply.headers.get_all(SET_COOKIE).iter();
    let cookies: Vec<_> = cookies.map(|line| line.to_str().expect("ASCII")).collect();
    let is_removal = |line: &&str| line.starts_with("adsproxy_oidc_") && line.contains("Max-Age=0");
    assert!(cookies.iter().all(is_removal), "{cookies:?}");
}

struct InBrowser {
    world: World,
    browser: Browser,
}

impl InBrowser {
    fn open(&mut self, path: &str) -> Page {
        let url = self.world.url(path);
        self.browser.open("anna", &url)
    }

    /// Goes to the provider by the button.
    fn leave(&mut self) {
        self.browser.click_through("anna", "Sign in with op", "Sign-in");
    }

    fn sign_in(&mut self, user: &str) -> Page {
        let fill = format!(
            "document.querySelector('[name=login]').value = {}; \
             document.querySelector('[name=password]').value = 'x'; 0",
            json!(user)
        );
        self.browser.eval("anna", &fill);
        self.browser.click("anna", "Sign-in")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_way_works_in_a_browser_with_script_and_without() {
    for has_script in [true, false] {
        let Some(browser) = Browser::start() else { return };
        let Some(world) = World::start(TENANTS, WEB).await else { return };
        let mut it = InBrowser { world, browser };
        it.browser.set_script("anna", has_script);
        let page = it.open("/dashboard/accounts/shop");
        assert_eq!(page.title, "Sign in · adsproxy");
        if let Some(axe) = axe().filter(|_| has_script) {
            assert_eq!(violations(&mut it.browser, &axe), [""; 0]);
        }
        it.leave();
        it.sign_in("a-user");
        let page = it.browser.click("anna", "Continue");
        assert_eq!((page.status, &*page.title), (200, "shop · adsproxy"), "{page:?}");
        assert!(page.text.contains("a-user (op)") && page.messages.is_empty(), "{page:?}");
        assert_eq!(page.cookies, "", "no script reads a cookie");
        let cookies = it.browser.cookies("anna");
        let ours = |cookie: &&Value| cookie["domain"] == "localhost";
        assert_eq!(cookies.iter().filter(ours).count(), 1, "that of the way is gone: {cookies:?}");
        // The provider knows the person, and asks all the same where a fresh sign-in is needed.
        it.open("/dashboard/sign-in?next=/dashboard/callers");
        it.browser.click_through("anna", "Sign in with op", "(this one)");
        it.open("/dashboard/sign-in?next=/dashboard/callers&fresh=1");
        it.leave();
        let page = it.sign_in("a-user");
        assert!(page.text.contains("(this one)"), "signed in again: {page:?}");
        let page = it.browser.click("anna", "Sign out");
        assert_eq!(page.title, "Sign in · adsproxy", "{page:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_person_denies_is_said_and_the_button_is_there_again() {
    let Some(browser) = Browser::start() else { return };
    let Some(world) = World::start(TENANTS, WEB).await else { return };
    let mut it = InBrowser { world, browser };
    it.open("/dashboard");
    it.leave();
    let page = it.browser.click("anna", "[ Cancel ]");
    assert_eq!((page.status, &*page.title), (403, "Sign in · adsproxy"), "{page:?}");
    assert!(page.text.contains("op denied access"), "{page:?}");
    assert!(page.text.contains("“End-User aborted interaction” (access_denied)"), "{page:?}");
    it.leave();
    it.sign_in("boss");
    let page = it.browser.click("anna", "Continue");
    assert!(page.text.contains("acme") && page.text.contains("boss (op)"), "the twin: {page:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_sees_the_own_tenant_and_an_operator_that_is_listed_all() {
    let Some(world) = World::start(TENANTS, WEB).await else { return };
    let (a, b) = (world.visitor("a-user").await, world.visitor("b-user").await);
    for (visitor, own, others) in [(&a, "shop", "zebra"), (&b, "zebra", "shop")] {
        let page = visitor.page("/dashboard").await;
        assert!(page.contains(own), "{page}");
        for other in [others, "acme", "globex"] {
            assert!(!page.contains(other), "{other} in {page}");
            let reply = visitor.get(&format!("/dashboard/accounts/{other}")).await;
            assert_eq!(reply.status, 404, "{}", reply.text);
        }
        let log = visitor.page("/dashboard/audit").await;
        assert!(log.contains("dashboard.sign_in") && !log.contains(others), "{log}");
        assert!(!log.contains("boss") && !log.contains("server.start"), "{log}");
    }
    let boss = world.visitor("boss").await;
    let page = boss.page("/dashboard").await;
    assert!(["shop", "zebra", "acme", "globex"].iter().all(|it| page.contains(it)), "{page}");
    assert!(boss.page("/dashboard/audit").await.contains("dashboard.sign_in"));
    // Nobody else is one, whatever the name looks like.
    let other = world.sign_in("Boss").await;
    is_refused(&other, 403, "names no tenant of yours");
    let log =
        ask(world.proxy.admin, Method::GET, "/api/v1/audit?action=dashboard.sign_in", &[]).await;
    assert!(log.text.contains("\"subject\":\"a-user\""), "{}", log.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_the_dashboard_is_not_for_is_told_the_own_subject() {
    let none = "audience = [\"adsproxy\"]\ntenant_claim = []";
    let Some(world) = World::start(none, "client_id = \"public\"").await else { return };
    let reply = world.sign_in("<img src=x>").await;
    is_refused(&reply, 403, "op calls you &quot;&lt;img src=x&gt;&quot;");
    assert!(!reply.text.contains("<img"), "{}", reply.text);
    // The twin: the issuer's own rules may say that its users are operators.
    let Some(world) =
        World::start(&format!("{none}\noperator = true"), "client_id = \"public\"").await
    else {
        return;
    };
    assert!(world.visitor("anybody").await.page("/dashboard").await.contains("acme"));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_client_is_known_by_the_one_way_that_the_provider_has_for_it() {
    let secret = "client_secret = { env = \"OIDC_SECRET\" }";
    for (client, secret, is_known) in
        [("web", secret, true), ("post", secret, true), ("public", "", true), ("post", "", false)]
    {
        let oidc = format!("client_id = \"{client}\"\n{secret}\n");
        let Some(world) = World::start(TENANTS, &oidc).await else { return };
        let reply = world.sign_in("a-user").await;
        match is_known {
            true => assert_eq!(reply.status, 303, "{client}: {}", reply.text),
            false => is_refused(&reply, 502, "check client_id and client_secret"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_counts_once_and_in_the_browser_that_asked_for_it() {
    let Some(world) = World::start(TENANTS, WEB).await else { return };
    let begun = world.begin().await;
    let response = AtProvider::default().sign_in(&begun.url, "a-user", &world.url(CALLBACK)).await;
    let other = world.begin().await;
    let state = |begun: &Begun| {
        let url = Url::parse(&begun.url).expect("an address");
        url.query_pairs().find(|(name, _)| name == "state").expect("a state").1.into_owned()
    };
    let value = begun.cookie.split_once('=').expect("a value").1;
    let doubled = format!("{response}&state={}", state(&begun));
    for (response, cookie, status, why) in [
        (response.clone(), String::new(), 403, "another browser"),
        (response.clone(), other.cookie.clone(), 403, "another browser"),
        (response.clone(), format!("{}; {}x", begun.cookie, begun.cookie), 403, "another browser"),
        (response.clone(), format!("adsproxy_oidc={value}"), 403, "another browser"),
        (with(&response, "state", None), begun.cookie.clone(), 400, "belongs to no sign-in"),
        (with(&response, "state", Some("x")), begun.cookie.clone(), 400, "belongs to no sign-in"),
        (doubled, begun.cookie.clone(), 400, "belongs to no sign-in"),
        // Login CSRF: the response to a sign-in of the attacker's in the browser of another person.
        (
            with(&response, "state", Some(&state(&other))),
            begun.cookie.clone(),
            403,
            "another browser",
        ),
    ] {
        is_refused(&world.come_back(&response, &cookie).await, status, why);
    }
    let head = response.strip_prefix(&world.url("")).expect("an address of ours");
    let head = send(world.proxy.admin, Method::HEAD, head, &[("cookie", &begun.cookie)], &[]).await;
    assert_eq!(head.status, 405, "what only looks at the address ends nothing");
    // The code of one sign-in in another one's response: PKCE binds them.
    let swapped = with(&response, "state", Some(&state(&other)));
    is_refused(&world.come_back(&swapped, &other.cookie).await, 403, "does not accept its code");
    let begun = world.begin().await;
    let response = AtProvider::default().sign_in(&begun.url, "a-user", &world.url(CALLBACK)).await;
    let done = world.come_back(&response, &begun.cookie).await;
    assert_eq!(done.location(), "/dashboard", "the twin");
    assert!(Visitor::of(world.proxy.admin, &done).is_signed_in().await);
    is_refused(&world.come_back(&response, &begun.cookie).await, 400, "it was used already");
    assert!(!world.proxy.log().contains(&state(&begun)), "no state in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_token_counts_if_it_is_of_this_sign_in_for_this_client_and_for_now() {
    let Some(world) = World::start(TENANTS, WEB).await else { return };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    for (claims, why) in [
        (json!({ "nonce": "other" }), "is not accepted"),
        (json!({ "nonce": null }), "is not accepted"),
        (json!({ "aud": "adsproxy" }), "is not accepted"),
        (json!({ "aud": ["web", "other"] }), "is not accepted"),
        (json!({ "azp": "other" }), "is not accepted"),
        (json!({ "iss": "https://evil.example.com" }), "is not accepted"),
        (json!({ "exp": now - 60 }), "is not accepted"),
        (json!({ "sub": null }), "is not accepted"),
        (json!({ "org_id": "no/name" }), "names no tenant"),
    ] {
        world.issuer.claim(&claims).await;
        is_refused(&world.sign_in("a-user").await, 403, why);
    }
    world.issuer.claim(&json!({ "org_id": "b" })).await;
    let visitor = world.visitor("a-user").await;
    assert!(visitor.page("/dashboard").await.contains("zebra"), "the twin: the token decides");
    world.issuer.claim(&json!({ "auth_time": now - 3600 })).await;
    let begun = world.begin_with(&[("fresh", "1")]).await;
    let response = AtProvider::default().sign_in(&begun.url, "a-user", &world.url(CALLBACK)).await;
    let reply = world.come_back(&response, &begun.cookie).await;
    is_refused(&reply, 403, "did not ask you to sign in again");
    let log = world.proxy.log();
    for cause in ["its nonce", "another audience", "another party", "has expired"] {
        assert!(log.contains(cause), "{cause}");
    }
    assert!(!log.contains("s3cret") && !log.contains("eyJ"), "no secret and no token: {log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_of_another_issuer_and_errors_of_the_provider_are_refused_in_plain_words() {
    let Some(world) = World::start(TENANTS, WEB).await else { return };
    for (iss, is_good) in
        [(Some("https://evil.example.com"), false), (None, false), (Some("own"), true)]
    {
        let begun = world.begin().await;
        let response =
            AtProvider::default().sign_in(&begun.url, "a-user", &world.url(CALLBACK)).await;
        let iss = if is_good { Some(&*world.issuer.url) } else { iss };
        let reply = world.come_back(&with(&response, "iss", iss), &begun.cookie).await;
        match is_good {
            true => assert_eq!(reply.status, 303, "{}", reply.text),
            false => is_refused(&reply, 403, "is not one of op"),
        }
    }
    for (error, words, why) in [
        ("access_denied", "<script>alert(1)</script>", "It says: “&lt;script&gt;alert(1)"),
        ("login_required", "", "wants you to sign in there first"),
        ("server_error", "", "does not work. Try again"),
        ("invalid_scope", "", "check dashboard.oidc"),
        ("<b>", "", "op rejected the sign-in. (&lt;b&gt;)"),
    ] {
        let begun = world.begin().await;
        let state = Url::parse(&begun.url).expect("an address");
        let state =
            state.query_pairs().find(|(name, _)| name == "state").expect("one").1.into_owned();
        let mut url = Url::parse(&world.url(CALLBACK)).expect("an address");
        url.query_pairs_mut()
            .extend_pairs([
                ("state", state.as_str()),
                ("error", error),
                ("error_description", words),
            ])
            .append_pair("iss", &world.issuer.url);
        let reply = world.come_back(url.as_str(), &begun.cookie).await;
        is_refused(&reply, 403, why);
        assert!(!reply.text.contains("<script>alert"), "{}", reply.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_down_gets_a_clear_page_and_is_asked_again_later() {
    let Some(world) = World::start(TENANTS, WEB).await else { return };
    world.issuer.tell("down").await;
    let began = Instant::now();
    for _ in 0..20 {
        is_refused(&world.try_begin(&[]).await, 502, "op cannot be reached");
    }
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert!(world.proxy.log().contains("sign-in by an OpenID provider failed"));
    world.issuer.tell("up").await;
    let until = Instant::now() + Duration::from_secs(20);
    while world.try_begin(&[]).await.status != 200 {
        assert!(Instant::now() < until, "it is asked again");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let begun = world.begin_with(&[("next", "/dashboard/api")]).await;
    let response = AtProvider::default().sign_in(&begun.url, "a-user", &world.url(CALLBACK)).await;
    world.issuer.tell("down").await;
    let reply = world.come_back(&response, &begun.cookie).await;
    is_refused(&reply, 502, "op does not respond");
    assert!(reply.text.contains("value=\"/dashboard/api\""), "where to go is kept: {}", reply.text);
    world.issuer.tell("up").await;
    assert_eq!(world.sign_in("a-user").await.status, 303, "the twin");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_hangs_is_given_up_once_for_all_who_wait() {
    let Some(world) = World::start(TENANTS, WEB).await else { return };
    world.issuer.tell("hang").await;
    let began = Instant::now();
    let all = tokio::join!(world.try_begin(&[]), world.try_begin(&[]), world.try_begin(&[]));
    for reply in [all.0, all.1, all.2] {
        is_refused(&reply, 504, "op does not respond");
    }
    assert!(began.elapsed() < Duration::from_secs(14), "{:?}", began.elapsed());
    assert!(world.proxy.ask_admin("/livez").contains(" 200 "), "nothing else waits");
    world.issuer.tell("up").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_secret_is_named_and_a_change_of_the_configuration_ends_what_was_begun() {
    let Some(world) = World::start(TENANTS, WEB).await else { return };
    let boss = world.visitor("boss").await;
    let begun = world.begin().await;
    let response = AtProvider::default().sign_in(&begun.url, "boss", &world.url(CALLBACK)).await;
    let reload = async |from: &str, to: &str| {
        Commands::of(&world.proxy).edit(from, to);
        let reloaded = ask(world.proxy.admin, Method::POST, "/api/v1/reload", &[]).await;
        assert_eq!(reloaded.status, 200, "{}", reloaded.text);
    };
    reload("client_id = \"web\"", "client_id = \"public\"").await;
    is_refused(&world.come_back(&response, &begun.cookie).await, 409, "was changed");
    is_refused(&world.sign_in("boss").await, 502, "check client_id and client_secret");
    assert!(boss.is_signed_in().await);
    reload("operators = [\"boss\"]", "operators = [\"chief\"]").await;
    assert!(!boss.is_signed_in().await, "an operator is one as long as the list says so");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_one_address_takes_a_share_and_a_form_of_another_page_begins_nothing() {
    let Some(world) = World::start(TENANTS, WEB).await else { return };
    let admin = world.proxy.admin;
    let page = send(admin, Method::GET, "/dashboard/sign-in", &[], &[]).await;
    assert!(page.text.contains("action=\"/dashboard/oidc\""), "{}", page.text);
    // The provider leads back to another name: the cookie must be one of that.
    let by_address = format!("127.0.0.1:{}", admin.port());
    let fields = [("host", by_address.as_str())];
    let page = send(admin, Method::GET, "/dashboard/sign-in?fresh=1", &fields, &[]).await;
    let link =
        format!("href=\"{}\"", world.url("/dashboard/sign-in?next=%2Fdashboard&amp;fresh=1"));
    assert!(page.text.contains(&link) && !page.text.contains("/dashboard/oidc"), "{}", page.text);
    let origin = format!("http://{by_address}");
    let fields = [("host", by_address.as_str()), ("origin", origin.as_str())];
    let reply = send(admin, Method::POST, "/dashboard/oidc", &fields, &[]).await;
    assert_eq!(reply.status, 400, "{}", reply.text);
    let reply =
        send(admin, Method::POST, "/dashboard/oidc", &[("origin", "http://evil.test")], &[]);
    assert_eq!(reply.await.status, 403);
    let mut begun = 0;
    let last = loop {
        let reply = world.try_begin(&[]).await;
        if reply.status != 200 {
            break reply;
        }
        begun += 1;
        assert!(begun < 1000, "a flood is stopped");
    };
    is_refused(&last, 429, "Wait a minute");
    assert!(begun >= 60, "{begun}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_under_way_ends_after_ten_minutes() {
    let (admin, dir) = (free_address(), tempfile::tempdir().expect("a directory"));
    let own = format!("http://localhost:{}", admin.port());
    let Some(issuer) = RealIssuer::for_people(&format!("{own}{CALLBACK}")) else { return };
    let secret = dir.path().join("secret");
    fs::write(&secret, CLIENT_SECRET).expect("a file");
    fs::set_permissions(&secret, Permissions::from_mode(0o600)).expect("private");
    let toml = format!(
        "[listen]\nproxy = [\"127.0.0.1:0\"]\nadmin = \"{admin}\"\n[proxy]\nworkers = 1\n\
         [lwa]\nclient_id = {CLIENT_ID:?}\nclient_secret = {{ file = {secret:?} }}\n\
         [store]\nkind = \"memory\"\n{}[dashboard.oidc]\nissuer = \"op\"\nclient_id = \"public\"\n",
        issuer.toml(TENANTS)
    );
    let path = dir.path().join("proxy.toml");
    fs::write(&path, toml).expect("a file");
    let options = load::Options { path: Some(path), ..load::Options::default() };
    let config = load::load(&options).expect("a configuration").config;
    let clock = Arc::new(ManualClock::new());
    let app = tokio::task::block_in_place(|| App::start_with(config, clock.clone()));
    let app = app.expect("it starts");
    for (seconds, status, why) in [(599, 403, "op denied access"), (600, 400, "ten minutes")] {
        let page = send(admin, Method::POST, "/dashboard/oidc", &[], &[]).await;
        assert_eq!(page.status, 200, "{}", page.text);
        let refresh = page.headers["refresh"].to_str().expect("ASCII");
        let (_, state) = refresh.split_once("&state=").expect("a state");
        let state = state.split('&').next().expect("one");
        clock.set_wall(clock.now().wall + Duration::from_secs(seconds));
        let iss = form_urlencoded::byte_serialize(issuer.url.as_bytes()).collect::<String>();
        let path = format!("{CALLBACK}?state={state}&error=access_denied&iss={iss}");
        let cookie = page.cookie();
        let reply = send(admin, Method::GET, &path, &[("cookie", &cookie)], &[]).await;
        is_refused(&reply, status, why);
    }
    assert!(tokio::task::block_in_place(|| app.drain()));
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_that_one_server_begins_ends_once_on_another() {
    let Some(database) = crate::support::postgres::database() else { return };
    let setup = Setup { database: Some(database), ..Setup::default() };
    let Some(world) = World::with(TENANTS, WEB, setup).await else { return };
    let two = world.proxy.twin_of_login();
    let begun = world.begin().await;
    let response = AtProvider::default().sign_in(&begun.url, "boss", &world.url(CALLBACK)).await;
    let path = response.strip_prefix(&world.url("")).expect("an address of ours");
    let fields = [("cookie", begun.cookie.as_str())];
    let done = send(two.admin, Method::GET, path, &fields, &[]).await;
    assert!(Visitor::of(two.admin, &done).is_signed_in().await);
    is_refused(&world.come_back(&response, &begun.cookie).await, 400, "it was used already");
}
