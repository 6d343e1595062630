//! The state of a login: once, in time, in its browser, for its account; whatever restarts.

use crate::support::{
    login::{
        Begun, INITECH, INITECH_PROFILE, Reply, ask, ask_with, begin, come_back,
        come_back_in_browser, consent, exchanges, free_address, log_in, proxy,
    },
    proxy::{Proxy, Setup, amazon, eventually},
};
use adsproxy::sandbox::{Emulator, Surface};
use http::Method;
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};

fn file_store() -> Setup {
    Setup { file_store: true, ..Setup::default() }
}

const CALLBACK: &str = "/api/auth/amazon/callback";

/// A proxy with a login that Amazon has answered: `path` is what the browser comes back with.
struct Answered {
    amazon: Emulator,
    proxy: Proxy,
    begun: Begun,
    path: String,
}

impl Answered {
    async fn new() -> Self {
        Self::with(file_store()).await
    }

    async fn with(setup: Setup) -> Self {
        let amazon = amazon().await;
        let proxy = proxy(&amazon, setup);
        let begun = begin(proxy.admin, INITECH).await;
        let path = consent(&begun, INITECH).await;
        Self { amazon, proxy, begun, path }
    }

    async fn come_back(&self, path: &str, cookie: &str) -> Reply {
        come_back(self.proxy.admin, path, cookie).await
    }

    /// An answer like this one is refused, and Amazon is not asked.
    async fn is_refused(&self, path: &str, cookie: &str, status: u16, code: &str) {
        let reply = self.come_back(path, cookie).await;
        assert_eq!((reply.status.as_u16(), reply.code().as_str()), (status, code), "{path}");
        let page = come_back_in_browser(self.proxy.admin, path, cookie).await;
        assert_eq!(page.status.as_u16(), status);
        assert!(page.text.contains(&format!("({code})")), "{}", page.text);
        assert_eq!(exchanges(&self.amazon), 0, "the token endpoint was asked");
    }

    /// The login itself was not harmed.
    async fn still_works(&self) {
        let reply = self.come_back(&self.path, &self.begun.cookie).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        assert_eq!(exchanges(&self.amazon), 1);
    }
}

async fn served(proxy: &Proxy, account: &str) -> bool {
    let request = proxy.request(Method::GET, "/v2/profiles").header("X-Ads-Account", account);
    let answer = proxy.send(request).await;
    answer.status == 200
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_connects_an_account_and_shows_whom_one_became() {
    let login = Answered::new().await;
    let url = &login.begun.auth_url;
    for part in ["response_type=code", "code_challenge_method=S256", "code_challenge="] {
        assert!(url.contains(part), "{url}");
    }
    assert!(login.begun.state.len() >= 43, "256 bits");
    let reply = login.come_back(&login.path, &login.begun.cookie).await;
    let json = reply.json();
    assert_eq!(
        (json["state"].as_str(), json["account"].as_str()),
        (Some("connected"), Some(INITECH))
    );
    assert_eq!(json["profiles"]["na"][0]["id"], INITECH_PROFILE);
    assert!(served(&login.proxy, INITECH).await, "at once, in the running server");
    let seen = login.amazon.state().record.requests_for(Surface::Token);
    let form = String::from_utf8_lossy(&seen[0].body).into_owned();
    assert!(
        form.contains("code_verifier=") && form.contains("redirect_uri=http%3A%2F%2Flocalhost")
    );
    let status = login.proxy.ask_admin("/status");
    assert!(status.contains(r#""consent_days_left":365"#), "{status}");
    let asked = login.amazon.state().record.requests_for(Surface::Api);
    let views = asked.iter().filter(|seen| seen.target == "/v2/profiles?accessLevel=view");
    assert_eq!(views.count(), 3, "every region is asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cookie_is_out_of_reach_and_dies_with_the_login() {
    let amazon = amazon().await;
    let proxy = proxy(&amazon, file_store());
    let reply = ask(proxy.admin, Method::GET, "/api/auth/amazon/login?account=x", &[]).await;
    let cookie = reply.headers["set-cookie"].to_str().expect("ASCII");
    for part in ["; Path=/api/auth/amazon;", "; Max-Age=600", "; HttpOnly", "; SameSite=Lax"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert!(
        !cookie.contains("Secure") && !cookie.contains(reply.json()["state"].as_str().unwrap())
    );
    let begun = begin(proxy.admin, INITECH).await;
    let done = come_back(proxy.admin, &consent(&begun, INITECH).await, &begun.cookie).await;
    let gone = done.headers["set-cookie"].to_str().expect("ASCII");
    assert!(gone.contains("Max-Age=0"), "{gone}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_or_empty_state_is_refused() {
    let login = Answered::new().await;
    let code = login.path.split("code=").nth(1).and_then(|rest| rest.split('&').next()).unwrap();
    let cookie = &login.begun.cookie;
    for path in [
        format!("{CALLBACK}?code={code}"),
        format!("{CALLBACK}?code={code}&state="),
        CALLBACK.into(),
    ] {
        login.is_refused(&path, cookie, 400, "state_missing").await;
    }
    login.still_works().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_doubled_state_or_code_is_refused() {
    let login = Answered::new().await;
    let (cookie, state) = (&login.begun.cookie, &login.begun.state);
    let twice = format!("{}&state={state}", login.path);
    login.is_refused(&twice, cookie, 400, "parameter_doubled").await;
    let other = format!("{}&%73tate=x", login.path);
    login.is_refused(&other, cookie, 400, "parameter_doubled").await;
    let codes = format!("{}&code=other", login.path);
    login.is_refused(&codes, cookie, 400, "parameter_doubled").await;
    login.still_works().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_made_up_or_tampered_state_is_refused() {
    let login = Answered::new().await;
    let state = &login.begun.state;
    let flipped = if state.starts_with('A') { "B" } else { "A" };
    let long = "A".repeat(100_000 / 4);
    for wrong in [
        format!("{flipped}{}", &state[1..]),
        state[1..].to_owned(),
        format!("{state}A"),
        state.to_lowercase(),
        "A".repeat(43),
        "..%2F..%2Faccounts%2Facme.json".to_owned(),
        "%00".to_owned(),
        long,
    ] {
        let path = login.path.replace(state.as_str(), &wrong);
        login.is_refused(&path, &login.begun.cookie, 400, "state_unknown").await;
    }
    login.still_works().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_works_once() {
    let login = Answered::new().await;
    login.still_works().await;
    let again = login.come_back(&login.path, &login.begun.cookie).await;
    assert_eq!((again.status.as_u16(), again.code().as_str()), (400, "state_unknown"));
    assert_eq!(exchanges(&login.amazon), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_come_at_once_with_one_state_one_is_served() {
    let login = Answered::new().await;
    let twin = login.proxy.twin_of_login();
    let tries = (0..16).map(|number| {
        let admin = if number % 2 == 0 { login.proxy.admin } else { twin.admin };
        let (path, cookie) = (login.path.clone(), login.begun.cookie.clone());
        tokio::spawn(async move { come_back(admin, &path, &cookie).await.status.as_u16() })
    });
    let tries: Vec<_> = tries.collect();
    let mut statuses = Vec::new();
    for one in tries {
        statuses.push(one.await.expect("no panic"));
    }
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
    assert!(statuses.iter().all(|status| [200, 400].contains(status)), "{statuses:?}");
    assert_eq!(exchanges(&login.amazon), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_dies_of_age() {
    let toml = "[login]\ntimeout_secs = 0.3\n".to_owned();
    let login = Answered::with(Setup { toml, ..file_store() }).await;
    // Its note is overdue once a login beside it is refused, which it outlives by nothing.
    let until = std::time::Instant::now() + std::time::Duration::from_millis(350);
    eventually("its time is over", || std::time::Instant::now() >= until).await;
    let late = login.come_back(&login.path, &login.begun.cookie).await;
    assert_eq!((late.status.as_u16(), late.code().as_str()), (400, "state_expired"));
    let again = login.come_back(&login.path, &login.begun.cookie).await;
    assert_eq!(again.code(), "state_unknown");
    assert_eq!(exchanges(&login.amazon), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_the_cookie_of_its_browser_is_refused() {
    let login = Answered::new().await;
    let name = login.begun.cookie.split('=').next().expect("a name").to_owned();
    let other = begin(login.proxy.admin, INITECH).await.cookie;
    let value = other.split('=').nth(1).expect("a value");
    for cookie in [
        "unrelated=1".to_owned(),
        other.clone(),
        format!("{name}="),
        format!("{name}={value}"),
        format!("{name}={}", login.begun.state),
        format!("{}x", login.begun.cookie),
    ] {
        login.is_refused(&login.path, &cookie, 403, "other_browser").await;
    }
    // Somebody may have been sent there to finish another person's login.
    assert!(login.proxy.log().contains("other_browser"), "{}", login.proxy.log());
    let audit = std::fs::read_to_string(login.proxy.dir.path().join("store/audit.jsonl"));
    let audit = audit.expect("a log");
    let refusals = audit.lines().filter(|line| line.contains("\"reason\":\"other_browser\""));
    assert_eq!(refusals.filter(|line| line.contains("\"login\"")).count(), 12, "{audit}");
    login.still_works().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_of_two_people_are_not_mixed_up() {
    let login = Answered::new().await;
    let admin = login.proxy.admin;
    let theirs = begin(admin, "theirs").await;
    // The attacker's answer in the victim's browser, and the other way round.
    login
        .is_refused(&consent(&theirs, "globex").await, &login.begun.cookie, 403, "other_browser")
        .await;
    login.is_refused(&login.path, &theirs.cookie, 403, "other_browser").await;
    login.still_works().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_injected_from_another_login_fails_the_proof_key() {
    let amazon = amazon().await;
    let proxy = proxy(&amazon, file_store());
    let (mine, theirs) = (begin(proxy.admin, "mine").await, begin(proxy.admin, "theirs").await);
    let stolen = consent(&theirs, "globex").await;
    let path = stolen.replace(&theirs.state, &mine.state);
    let reply = come_back(proxy.admin, &path, &mine.cookie).await;
    assert_eq!((reply.status.as_u16(), reply.code().as_str()), (400, "code_reused"));
    assert!(!proxy.ask_admin("/status").contains("\"mine\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_beside_each_other_do_not_disturb_each_other() {
    let amazon = amazon().await;
    let proxy = proxy(&amazon, file_store());
    let mut logins = Vec::new();
    for number in 0..8 {
        let begun = begin(proxy.admin, &format!("account-{number}")).await;
        logins.push((consent(&begun, INITECH).await, begun));
    }
    // One browser: it sends all its cookies.
    let jar: Vec<_> = logins.iter().map(|(_, begun)| begun.cookie.clone()).collect();
    let jar = jar.join("; ");
    for (path, _) in logins.iter().rev() {
        let reply = come_back(proxy.admin, path, &jar).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        assert!(!reply.headers.contains_key("set-cookie"), "the others' cookies stay");
    }
    for number in 0..8 {
        assert!(served(&proxy, &format!("account-{number}")).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_survives_a_restart_of_the_server() {
    let mut login = Answered::new().await;
    login.proxy.kill();
    login.proxy = login.proxy.restart();
    login.still_works().await;
    login.proxy = login.proxy.restart();
    let again = login.come_back(&login.path, &login.begun.cookie).await;
    assert_eq!(again.code(), "state_unknown", "also a used state stays used");
    assert!(served(&login.proxy, INITECH).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_server_on_the_same_store_may_finish_a_login() {
    let login = Answered::new().await;
    let twin = login.proxy.twin_of_login();
    let reply = come_back(twin.admin, &login.path, &login.begun.cookie).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let again = login.come_back(&login.path, &login.begun.cookie).await;
    assert_eq!(again.code(), "state_unknown");
    eventually("the first server knows the account", || {
        login.proxy.ask_admin("/status").contains(INITECH)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_on_disk_is_sealed() {
    let login = Answered::new().await;
    let notes = login.proxy.dir.path().join("store/logins");
    let files: Vec<_> =
        std::fs::read_dir(notes).expect("notes").map(|file| file.unwrap().path()).collect();
    assert_eq!(files.len(), 1);
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(files[0].metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let text = std::fs::read_to_string(&files[0]).expect("text");
    let value = login.begun.cookie.split('=').nth(1).expect("a value");
    for secret in [login.begun.state.as_str(), value, "verifier", "token_url"] {
        assert!(!text.contains(secret), "{secret}");
        assert!(!files[0].to_str().unwrap().contains(secret));
    }
    // Moved to another name or altered, it is no login any more.
    let altered = text.replace("\"account\":\"initech\"", "\"account\":\"acme\"");
    assert_ne!(altered, text);
    std::fs::write(&files[0], altered).expect("written");
    login.is_refused(&login.path, &login.begun.cookie, 400, "state_unknown").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_memory_store_connects_accounts_too() {
    let login = Answered::with(Setup::default()).await;
    login.still_works().await;
    assert!(served(&login.proxy, INITECH).await);
    assert_eq!(login.come_back(&login.path, &login.begun.cookie).await.code(), "state_unknown");
}

#[tokio::test(flavor = "multi_thread")]
async fn three_thousand_logins_wait_in_little_memory_and_no_more_are_taken() {
    let amazon = amazon().await;
    let proxy = proxy(&amazon, file_store());
    let first = begin(proxy.admin, INITECH).await;
    let before = proxy.memory();
    // The admin listener would not take so many from one address.
    let socket = proxy.dir.path().join("store/control.sock");
    let client = reqwest::Client::builder().unix_socket(socket).build().expect("a client");
    let url = "http://localhost/api/auth/amazon/login?account=";
    for number in 1..3000 {
        let reply = client.get(format!("{url}a{number}")).send().await.expect("an answer");
        assert_eq!(reply.status(), 200, "{number}");
    }
    let grown = proxy.memory().saturating_sub(before);
    println!("3,000 pending logins: {} KiB more resident", grown / 1024);
    assert!(grown < 64 << 20, "{grown} bytes");
    let refused = ask(proxy.admin, Method::GET, "/api/auth/amazon/login?account=b", &[]).await;
    assert_eq!((refused.status.as_u16(), refused.code().as_str()), (503, "too_many_logins"));
    assert!(refused.headers.contains_key("retry-after"));
    let back = consent(&first, INITECH).await;
    let reply = come_back(proxy.admin, &back, &first.cookie).await;
    assert_eq!(reply.status, 200, "the first one is still good: {}", reply.text);
    // A place is free again.
    let reply = ask(proxy.admin, Method::GET, "/api/auth/amazon/login?account=b", &[]).await;
    assert_eq!(reply.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_changed_meanwhile_ends_a_login() {
    let mut login = Answered::new().await;
    let path = login.proxy.dir.path().join("proxy.toml");
    let text = std::fs::read_to_string(&path).expect("text");
    let other = amazon().await;
    let token_url = format!("http://{}/auth/o2/token", login.amazon.addr());
    let changed = text.replace(&token_url, &format!("http://{}/auth/o2/token", other.addr()));
    assert_ne!(text, changed);
    std::fs::write(&path, changed).expect("written");
    login.proxy = login.proxy.restart();
    let reply = login.come_back(&login.path, &login.begun.cookie).await;
    assert_eq!((reply.status.as_u16(), reply.code().as_str()), (409, "configuration_changed"));
    assert_eq!(exchanges(&other), 0, "the code goes to nobody it is not for");
    assert_eq!(log_in(login.proxy.admin, INITECH, INITECH).await.code(), "code_reused");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_other_loopback_address_of_the_redirect_port_is_ours_too() {
    let amazon = amazon().await;
    let proxy = proxy(&amazon, Setup { file_store: true, ..Setup::default() });
    let other = SocketAddr::from((Ipv6Addr::LOCALHOST, proxy.admin.port()));
    let begun = begin(other, INITECH).await;
    let path = consent(&begun, INITECH).await;
    let page = come_back_in_browser(other, &path, &begun.cookie).await;
    assert_eq!(page.status, 200, "{}", page.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_in_place_of_localhost_needs_no_second_listener() {
    let amazon = amazon().await;
    let admin = free_address();
    let lwa = format!("redirect_uri = \"http://{admin}/api/auth/amazon/callback\"\n");
    let setup = Setup { lwa, admin: Some(admin), ..Setup::default() };
    let _proxy = Proxy::with(&amazon, setup);
    let other = SocketAddr::from((Ipv6Addr::LOCALHOST, admin.port()));
    assert!(TcpStream::connect(other).is_err(), "what another program binds there is not ours");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_login_begins_while_another_program_may_get_the_response() {
    let amazon = amazon().await;
    let admin = free_address();
    let other = SocketAddr::from((Ipv6Addr::LOCALHOST, admin.port()));
    let foreign = TcpListener::bind(other).expect("a free port");
    let setup = Setup { admin: Some(admin), file_store: true, ..Setup::default() };
    let proxy = proxy(&amazon, setup);
    let path = "/api/auth/amazon/login?account=initech";
    let refused = ask(admin, Method::GET, path, &[]).await;
    assert_eq!((refused.status.as_u16(), refused.code().as_str()), (503, "redirect_port_taken"));
    assert!(refused.text.contains(&other.to_string()) && refused.text.contains("127.0.0.1"));
    let fields = [("content-type", "application/json")];
    let wanted = r#"{"account":"initech"}"#.to_owned();
    let link = ask_with(admin, Method::POST, "/api/auth/amazon/logins", &fields, wanted).await;
    assert_eq!(link.code(), "redirect_port_taken");
    assert!(proxy.log().contains("another program listens"), "{}", proxy.log());
    drop(foreign);
    eventually("the address is ours", || TcpStream::connect(other).is_ok()).await;
    begin(other, INITECH).await;
    begin(admin, INITECH).await;
}
