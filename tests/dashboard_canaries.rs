//! Markup in every field that Amazon, a caller, a user, a hook's receiver or the configuration sets: the
//! pages show it as text, at once and when a live stream brings it.

use crate::dashboard_browser::{PAGES, World};
use crate::support::{
    browser::Browser,
    dashboard::{Visitor, send},
    login::{INITECH, beside, client, log_in},
    proxy::{Proxy, Setup, amazon, eventually},
    receiver::{Manner, Receiver},
    signer::TestIssuer,
    world,
};
use adsproxy::sandbox::{ApiFault, CLIENT_ID, Country, LwaFault, Profile, Scripted, Times};
use http::{Method, StatusCode};
use serde_json::{Value, json};

const EVIL: &str = "<img src=x onerror=document.title='owned'>";
/// The same for a place between quotation marks, and without a space.
const EVIL_VALUE: &str = "\"><svg/onload=document.title='owned'>";
/// Closes the line that copies a header, and opens a script.
const EVIL_LINE: &str = "</pre><script>document.title='owned'</script>";

/// What a page holds that could be markup of others: images, scripts, whether its title is not ours,
/// attributes that run a script.
fn markup(browser: &mut Browser) -> Value {
    let look = "[document.images.length, document.scripts.length, \
        !document.title.includes('adsproxy'), \
        [...document.querySelectorAll('*')].flatMap(one => one.getAttributeNames()) \
        .filter(name => name.startsWith('on')).length]";
    browser.eval("anna", look)
}

/// Fails if the page that is shown has markup that is not ours.
fn is_clean(browser: &mut Browser, scripts: u64) {
    let place = browser.eval("anna", "location.href");
    assert_eq!(markup(browser), json!([0, scripts, false, 0]), "{place}");
}

fn scripted(status: StatusCode, body: &Value) -> Scripted {
    let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
    Scripted { status, headers, body: body.to_string().into() }
}

/// A list of profiles each of whose texts is `EVIL`.
fn evil_profiles() -> ApiFault {
    let info = json!({ "id": EVIL, "type": EVIL, "name": EVIL, "marketplaceStringId": EVIL });
    let profile = json!({
        "profileId": 77, "countryCode": EVIL, "currencyCode": EVIL, "timezone": EVIL,
        "accountInfo": info,
    });
    ApiFault::Respond(scripted(StatusCode::OK, &json!([profile])))
}

fn evil_error() -> LwaFault {
    let body = json!({ "error": EVIL, "error_description": EVIL, "message": EVIL });
    LwaFault::Respond(scripted(StatusCode::BAD_REQUEST, &body))
}

/// A user of the issuer `staff` whose name is markup.
fn evil_user(issuer: &TestIssuer) -> String {
    issuer.token(json!({ "sub": EVIL }))
}

fn staff() -> TestIssuer {
    TestIssuer::named("staff", "tenant_claim = []\noperator = true")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_configuration_a_caller_or_a_user_says_runs_on_no_page() {
    let issuer = staff();
    let toml = format!(
        "{}\n[accounts.acme.headers]\nX-Team = {line:?}\n[[callers]]\nname = \"reports\"\n\
         unix_uids = [4294967294]\npaths = [{path:?}]\n",
        issuer.toml,
        line = EVIL_LINE,
        path = format!("/{EVIL_VALUE}"),
    );
    let Some(mut world) = World::start(&toml).await else { return };
    let path = "/%3Cimg%20src=x%20onerror=document.title='owned'%3E/\"><script>document.title='owned'</script>";
    for field in ["x-request-id", "user-agent", "x-ads-account"] {
        let request = client().get(format!("http://{}{path}", world.proxy.addr));
        let request = request.header("x-ads-account", "acme").header(field, EVIL);
        request.send().await.expect("a response");
    }
    // A browser of the user whose name is markup, as the field and the subject say.
    let bearer = format!("Bearer {}", evil_user(&issuer));
    let fields = [("authorization", bearer.as_str()), ("user-agent", EVIL)];
    let reply = send(world.proxy.admin, Method::POST, "/dashboard/sign-in", &fields, &[]).await;
    let other = Visitor::of(world.proxy.admin, &reply);
    assert_eq!(other.post("/dashboard/audit/verify", &[]).await.status, 303);
    world.open("/dashboard/sign-in");
    let cookie = format!("document.cookie = '__session={}; path=/'; 0", evil_user(&issuer));
    world.browser.eval("anna", &cookie);
    world.open("/dashboard/sign-in?next=%2Fdashboard%2Fcallers");
    world.browser.click("anna", "Sign in with your company's account");
    let note = format!("document.getElementById('note').value = {}; 0", json!(EVIL));
    world.browser.eval("anna", &note);
    world.browser.click("anna", "Make it");
    is_clean(&mut world.browser, 1);
    let evil = form_urlencoded::byte_serialize(EVIL_VALUE.as_bytes()).collect::<String>();
    let rules = |name: &str, path: &str| {
        let reports = "/dashboard/callers?rules=%5B%5Bcallers%5D%5D+reports";
        match name {
            "path" => format!("{reports}&path=%2F{evil}"),
            name => format!("{reports}&path={path}&{name}={evil}"),
        }
    };
    let asked = [
        "/dashboard/callers?rules=%5B%5Bcallers%5D%5D+reports".to_owned(),
        format!("/dashboard/callers?rules={evil}"),
        rules("path", ""),
        rules("method", "%2Fsp"),
        rules("account", "%2Fsp"),
        rules("profile", "%2Fsp"),
        // What is not judged is shown again in its field.
        rules("method", ""),
        rules("account", ""),
        rules("profile", ""),
        format!("/dashboard?q={evil}"),
        format!("/dashboard?state={evil}"),
        format!("/dashboard/requests?account={evil}&status={evil}&caller={evil}"),
        format!("/dashboard/connect?account={evil}"),
        format!("/dashboard/audit?account={evil}&action={evil}&actor={evil}"),
        format!("/dashboard/sign-in?next=%2F{evil}"),
        format!("/dashboard/sign-in?link={evil}"),
        format!("/dashboard/sessions/{evil}/end"),
        format!("/dashboard/keys/{evil}/revoke"),
        format!("/dashboard/accounts/{evil}"),
    ];
    for path in PAGES.into_iter().chain(asked.iter().map(String::as_str)) {
        world.open(path);
        is_clean(&mut world.browser, 1);
    }
    // The twin: what may be shown is shown, as the text that it is.
    for (path, text) in [
        ("/dashboard/accounts/acme", EVIL_LINE),
        ("/dashboard/callers", EVIL),
        ("/dashboard/audit", EVIL),
        (asked[0].as_str(), EVIL_VALUE),
    ] {
        world.open(path);
        assert!(world.text().contains(text), "{path}: {}", world.text());
    }
    world.open(&asked[6]);
    let value = world.browser.eval("anna", "document.getElementById('method').value");
    assert_eq!(value, EVIL_VALUE);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_name_of_the_configuration_may_be_markup() {
    let amazon = amazon().await;
    for name in ["[[callers]]", "[[issuers]]", "[[hooks]]"] {
        let toml = format!("{name}\nname = {EVIL_VALUE:?}\n");
        let (_, said) = Proxy::refused(&amazon, &Setup { toml, ..Setup::default() });
        assert!(said.contains("must be 1 to 64 letters"), "{name}: {said}");
    }
    for name in ["accounts", "applications"] {
        let toml = format!("[{name}.{EVIL_VALUE:?}]\n");
        let (_, said) = Proxy::refused(&amazon, &Setup { toml, ..Setup::default() });
        assert!(said.contains("letters, digits"), "{name}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_amazon_or_a_receiver_responds_with_runs_on_no_page() {
    let receiver = Receiver::start().await;
    let length = EVIL.len();
    receiver.be(Manner::Head(format!(
        "HTTP/1.1 500 {EVIL}\r\nx-evil: {EVIL}\r\ncontent-type: text/html\r\n\
         content-length: {length}\r\n\r\n{EVIL}"
    )));
    let hook = receiver.hook("ops", "events = [\"token.refreshed\"]");
    let toml = format!("{hook}[outbox]\nattempts_max = 1\n");
    let Some(mut world) = World::start(&toml).await else { return };
    let lwa = &world.amazon.state().lwa;
    let name = Profile::seller(77, Country::Us, EVIL);
    lwa.add_grant("mallory", CLIENT_ID, "Atzr|unused-mallory", vec![name]);
    assert_eq!(world.proxy.get("/v2/profiles").await.status, 200);
    let letters = || world.proxy.metric("adsproxy_hook_dead_letters");
    eventually("a message is given up", || letters() >= 1.0).await;
    world.sign_in("/dashboard/connect?account=mallory");
    world.browser.click("anna", "Continue at Amazon");
    world.amazon.state().api.faults.add(evil_profiles(), Times::Next(3));
    let page = world.browser.click("anna", "Allow as mallory");
    assert!(page.status == 200 && page.text.contains(EVIL), "{page:?}");
    is_clean(&mut world.browser, 0);
    world.amazon.state().api.faults.clear();
    // Another consent, of which the person is asked.
    world.open("/dashboard/connect?account=mallory");
    world.browser.click("anna", "Continue at Amazon");
    let page = world.browser.click("anna", "Allow as initech");
    assert!(page.title.starts_with("Replace mallory?") && page.text.contains(EVIL), "{page:?}");
    is_clean(&mut world.browser, 0);
    // A refusal in Amazon's words.
    world.open("/dashboard/connect?account=mallory");
    world.browser.click("anna", "Continue at Amazon");
    let state = "new URLSearchParams(location.search).get('state')";
    let state = world.browser.eval("anna", state);
    let query = form_urlencoded::Serializer::new(String::new())
        .extend_pairs([
            ("error", "access_denied"),
            ("error_description", EVIL),
            ("state", state.as_str().expect("a state")),
        ])
        .finish();
    let page = world.open(&format!("/api/auth/amazon/callback?{query}"));
    assert!(page.status == 403 && page.text.contains(EVIL), "{page:?}");
    is_clean(&mut world.browser, 0);
    // A refresh that fails in LWA's words.
    world.amazon.state().lwa.faults.add(evil_error(), Times::Forever);
    world.amazon.state().lwa.expire_access_tokens(Some("acme"));
    assert_eq!(world.proxy.get("/v2/profiles").await.error(), Some("token_unavailable"));
    for path in PAGES.into_iter().chain(["/dashboard/accounts/mallory"]) {
        world.open(path);
        is_clean(&mut world.browser, 1);
    }
    assert!(world.text().contains(EVIL), "the twin: {}", world.text());
    for (path, text) in [
        ("/dashboard/health", "responded with 500"),
        ("/dashboard/accounts/acme", "The last refresh failed"),
    ] {
        world.open(path);
        assert!(world.text().contains(text), "{path}: {}", world.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_live_stream_brings_runs_on_no_page() {
    let issuer = staff();
    let receiver = Receiver::start().await;
    receiver.be(Manner::Head(format!("HTTP/1.1 503 {EVIL}\r\ncontent-length: 0\r\n\r\n")));
    let hook = receiver.hook("ops", "events = [\"token.refreshed\"]");
    let Some(mut world) = World::start(&[&*hook, &issuer.toml].concat()).await else { return };
    let bearer = format!("Bearer {}", evil_user(&issuer));
    let stay = "window.mark = 1";
    world.sign_in("/dashboard/audit");
    world.browser.eval("anna", stay);
    let fields = [("authorization", bearer.as_str()), ("user-agent", EVIL)];
    let reply = send(world.proxy.admin, Method::POST, "/dashboard/sign-in", &fields, &[]).await;
    assert_eq!(reply.status, 303, "{}", reply.text);
    // Such a name is a hash in the log.
    eventually("the entry of the sign-in", || world.text().contains("staff sha256:")).await;
    let is_same = |world: &mut World| {
        assert_eq!(world.browser.eval("anna", "window.mark"), 1, "it is the same page");
        is_clean(&mut world.browser, 1);
    };
    is_same(&mut world);
    world.open("/dashboard/requests");
    world.browser.eval("anna", stay);
    // No client would send this path: it percent-encodes the signs.
    let path = "/live/\"onload='x'/{}";
    let bearer = format!("Authorization: Bearer {}\r\n", evil_user(&issuer));
    let lines = format!("X-Ads-Account: acme\r\nUser-Agent: {EVIL}\r\n{bearer}");
    world::send(world.proxy.addr, "GET", path, &lines);
    eventually("the request", || world.text().contains(path)).await;
    is_same(&mut world);
    world.open("/dashboard/health");
    world.browser.eval("anna", stay);
    let call = world.proxy.request(Method::GET, "/_status/429").header("x-ads-account", "acme");
    let call = call.header("amazon-advertising-api-scope", EVIL);
    assert_eq!(world.proxy.send(call).await.status, StatusCode::TOO_MANY_REQUESTS);
    eventually("the limit", || !world.text().contains("Nothing is throttled now")).await;
    is_same(&mut world);
    world.open("/dashboard/accounts/acme");
    world.browser.eval("anna", stay);
    eventually("the message", || world.text().contains("responded with 503")).await;
    world.amazon.state().lwa.faults.add(evil_error(), Times::Forever);
    world.amazon.state().lwa.expire_access_tokens(Some("acme"));
    assert_eq!(world.proxy.get("/v2/profiles").await.error(), Some("token_unavailable"));
    eventually("the failure", || world.text().contains("The last refresh failed")).await;
    is_same(&mut world);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_name_of_the_company_runs_on_no_reconnect_page() {
    let toml = format!("[login]\ncompany = {EVIL:?}\n");
    let Some(mut world) = World::start(&toml).await else { return };
    let profile = Profile::seller(77, Country::Us, EVIL);
    let lwa = &world.amazon.state().lwa;
    lwa.add_grant("mallory", CLIENT_ID, "Atzr|unused-mallory", vec![profile]);
    assert_eq!(log_in(world.proxy.admin, INITECH, "mallory").await.status, 200);
    let link = beside(&world.proxy).reconnect_link(&INITECH.parse().expect("an id")).await;
    let page = world.browser.open("anna", link.expect("a link").expose());
    assert!(page.status == 200 && page.text.contains(&format!("{EVIL} asks you")), "{page:?}");
    is_clean(&mut world.browser, 0);
    let add = format!("document.body.innerHTML += {}; 0", json!(EVIL));
    world.browser.eval("anna", &add);
    assert_eq!(markup(&mut world.browser), json!([1, 0, false, 1]), "the twin");
}
