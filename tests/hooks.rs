//! Hooks of the real process: what they are told, how it is signed, and whom they may not be.

use crate::support::{
    canary::Canaries,
    extras,
    grants::{connect_anew, open_store},
    proxy::{ACME_REFRESH, GLOBEX_REFRESH, Proxy, Setup, amazon, assert_no_secret, eventually},
    receiver::{Manner, Received, Receiver, SECRET, verify},
};
use adsproxy::{
    sandbox::{CLIENT_SECRET, Emulator, LwaFault, Times},
    testing::{Secret, list_outbox},
};
use http::Method;
use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    process::Stdio,
    time::{Duration, Instant, SystemTime},
};

/// Every event there is.
const EVERYTHING: &str = r#"events = ["token.refreshed", "token.refresh_failed",
    "grant.reauthorization_required", "grant.recovered", "grant.expiring", "application.rejected",
    "store.degraded"]"#;

/// Retries that a test can wait for.
const QUICK: &str = "[outbox]\nretry_min_secs = 0.05\nretry_max_secs = 0.2\n\
    [token]\nforced_refresh_min_interval_secs = 0\n";

fn setup(hooks: &str) -> Setup {
    let env = vec![("HOOK_SECRET".to_owned(), SECRET.to_owned())];
    Setup { toml: format!("{hooks}{QUICK}"), file_store: true, env, ..Setup::default() }
}

async fn start(amazon: &Emulator, hooks: &str) -> Proxy {
    Proxy::with(amazon, setup(hooks))
}

fn of<'a>(all: &'a [Received], kind: &str) -> Vec<&'a Received> {
    all.iter().filter(|one| one.kind() == kind).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_dies_and_comes_back_is_told_once_each_and_in_order() {
    let (amazon, receiver) = (amazon().await, Receiver::start().await);
    let proxy = start(&amazon, &receiver.hook("ops", EVERYTHING)).await;
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    amazon.state().lwa.revoke("acme");
    for _ in 0..3 {
        assert_eq!(proxy.get("/v2/profiles").await.error(), Some("reauthorization_required"));
    }
    let refresh_token = amazon.state().lwa.consent_again("acme").expect("a grant");
    connect_anew(&proxy, |record| {
        record.refresh_token = Secret::new(refresh_token);
        record.previous_refresh_token = None;
        record.reauthorization_required = false;
    })
    .await;
    // Nobody asks for a token of an account that was connected anew but a request.
    while proxy.get("/v2/profiles").await.status != 200 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    eventually("a recovery", || receiver.kinds().iter().any(|kind| kind == "grant.recovered"))
        .await;
    let taken = receiver.taken();
    let acme: Vec<String> = taken
        .iter()
        .filter(|one| one.json()["data"]["account"] == "acme")
        .map(Received::kind)
        .filter(|kind| kind != "token.refresh_failed")
        .collect();
    assert_eq!(
        acme,
        ["token.refreshed", "grant.reauthorization_required", "token.refreshed", "grant.recovered"]
    );
    let death = &of(&taken, "grant.reauthorization_required")[0].json();
    assert_eq!(death["data"]["reason"], "invalid_grant");
    assert_eq!(death["data"]["application"], "default");
    assert_eq!(death["data"]["generation"], 1);
    let time = death["timestamp"].as_str().expect("a time");
    assert!(time.len() == 20 && time.ends_with('Z'), "{time}");
    assert_eq!(of(&taken, "grant.recovered")[0].json()["data"]["generation"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_application_and_failed_refreshes_are_told() {
    let (amazon, receiver) = (amazon().await, Receiver::start().await);
    let proxy = start(&amazon, &receiver.hook("ops", "")).await;
    amazon.state().lwa.faults.add(LwaFault::InvalidClient, Times::Forever);
    assert_eq!(proxy.get("/v2/profiles").await.error(), Some("application_rejected"));
    eventually("both", || receiver.kinds().len() >= 2).await;
    let taken = receiver.taken();
    let rejected = of(&taken, "application.rejected")[0].json();
    assert_eq!(rejected["data"]["application"], "default");
    assert_eq!(rejected["data"]["reason"], "invalid_client");
    assert!(!of(&taken, "token.refresh_failed").is_empty());
    assert!(of(&taken, "token.refreshed").is_empty(), "only if asked for");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consent_that_ends_soon_is_told() {
    let (amazon, receiver) = (amazon().await, Receiver::start().await);
    let proxy = start(&amazon, &receiver.hook("ops", "")).await;
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    connect_anew(&proxy, |record| record.consented_at = Some(now.as_secs() - 345 * 86_400)).await;
    eventually("a warning", || receiver.kinds().iter().any(|kind| kind == "grant.expiring")).await;
    let taken = receiver.taken();
    let expiring = of(&taken, "grant.expiring")[0].json();
    assert_eq!(expiring["data"]["days_left"], 20);
    assert_eq!(expiring["data"]["account"], "acme");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_is_told_what_it_asked_for_and_no_more() {
    let (amazon, receiver) = (amazon().await, Receiver::start().await);
    let other = Receiver::start().await;
    let hooks = receiver.hook("refreshes", r#"events = ["token.refreshed"]"#)
        + &other.hook("deaths", r#"events = ["grant.reauthorization_required"]"#);
    let proxy = start(&amazon, &hooks).await;
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    amazon.state().lwa.revoke("acme");
    proxy.get("/v2/profiles").await;
    eventually("a death", || !other.kinds().is_empty()).await;
    eventually("a refresh", || !receiver.kinds().is_empty()).await;
    assert!(other.kinds().iter().all(|kind| kind == "grant.reauthorization_required"));
    assert!(receiver.kinds().iter().all(|kind| kind == "token.refreshed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn both_secrets_sign_while_one_is_replaced() {
    let (amazon, receiver) = (amazon().await, Receiver::start().await);
    let hook = receiver.hook("ops", EVERYTHING).replace(
        r#"{ env = "HOOK_SECRET" }"#,
        r#"[{ env = "NEW_SECRET" }, { env = "HOOK_SECRET" }]"#,
    );
    let mut setup = setup(&hook);
    setup.env.push(("NEW_SECRET".into(), "CANARY-the-next-secret-of-this-hook".into()));
    let proxy = Proxy::with(&amazon, setup);
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    eventually("a message", || !receiver.kinds().is_empty()).await;
    // The receiver has verified it with the old one already.
    let signatures = receiver.all()[0].headers["webhook-signature"].clone();
    assert_eq!(signatures.split(' ').count(), 2, "{signatures}");
    assert!(!proxy.log().contains("CANARY-the-next-secret"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reference_library_verifies_what_we_sign() {
    let Some(mut python) = extras::python() else { return };
    let (amazon, receiver) = (amazon().await, Receiver::start().await);
    let proxy = start(&amazon, &receiver.hook("ops", EVERYTHING)).await;
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    eventually("a message", || !receiver.kinds().is_empty()).await;
    let received = &receiver.all()[0];
    let script = "
import json, sys
from standardwebhooks.webhooks import Webhook, WebhookVerificationError
given = json.load(sys.stdin)
webhook = Webhook(given['secret'])
print(webhook.verify(given['body'].encode(), given['headers'])['type'])
for spoilt in (given['body'].replace('acme', 'acne'), given['body'] + ' '):
    try:
        webhook.verify(spoilt.encode(), given['headers'])
    except WebhookVerificationError:
        print('refused')
";
    let mut child = python
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python runs");
    let given = serde_json::json!({
        "secret": SECRET,
        "headers": received.headers,
        "body": String::from_utf8(received.body.clone()).expect("text"),
    });
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(given.to_string().as_bytes()).expect("written");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "token.refreshed\nrefused\nrefused\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_receivers_delay_neither_requests_nor_other_receivers() {
    let (amazon, good) = (amazon().await, Receiver::start().await);
    let mut hooks = good.hook("good", EVERYTHING);
    let mut bad = Vec::new();
    let location = "HTTP/1.1 307 x\r\nlocation: http://169.254.169.254/latest/meta-data\r\n\
        content-length: 0\r\n\r\n";
    for (number, manner) in
        [Manner::Hang, Manner::Drip, Manner::Huge, Manner::Close, Manner::Head(location.into())]
            .into_iter()
            .enumerate()
    {
        let receiver = Receiver::start().await;
        receiver.be(manner);
        let keys = format!("{EVERYTHING}\ntimeout_secs = 1");
        hooks.push_str(&receiver.hook(&format!("bad-{number}"), &keys));
        bad.push(receiver);
    }
    let proxy = start(&amazon, &hooks).await;
    let before = proxy.memory();
    for _ in 0..20 {
        amazon.state().lwa.expire_access_tokens(Some("acme"));
        let began = Instant::now();
        assert_eq!(proxy.get("/v2/profiles").await.status, 200);
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    }
    eventually("all of them", || of(&good.taken(), "token.refreshed").len() >= 20).await;
    eventually("every bad one was asked", || bad.iter().all(|one| one.connections() > 0)).await;
    eventually("its hook is told", || proxy.log().contains("no response within 1s")).await;
    let grown = proxy.memory().saturating_sub(before);
    assert!(grown < 48 << 20, "{grown} bytes");
    // 64 MiB are no failure: their status says enough, and nobody reads on.
    let log = proxy.log();
    let mut huge = log.lines().filter(|line| line.contains(r#""hook":"bad-2""#)).peekable();
    assert!(huge.peek().is_some() && huge.all(|line| line.contains("hook delivered")), "{log}");
    assert!(proxy.log().contains("responded with 307"));
}

#[tokio::test(flavor = "multi_thread")]
async fn private_addresses_get_no_connection_unless_allowed() {
    let (amazon, receiver) = (amazon().await, Receiver::start().await);
    let port = receiver.addr.port();
    let mut hooks = String::new();
    // By names and spellings that the configuration cannot see through.
    for (number, host) in
        ["0x7f000001", "2130706433", "127.1", "[::ffff:127.0.0.1]"].iter().enumerate()
    {
        hooks.push_str(&format!(
            "[[hooks]]\nname = \"h{number}\"\nurl = \"https://{host}:{port}/\"\n\
             secret = {{ env = \"HOOK_SECRET\" }}\n{EVERYTHING}\n"
        ));
    }
    let (code, said) = Proxy::refused(&amazon, &setup(&hooks));
    assert_eq!(code, 78, "{said}");
    assert!(said.contains("is on this machine") && said.contains("unsafe_allow"), "{said}");
    let hooks = hooks.replace("[::ffff:127.0.0.1]", "0177.0.0.1");
    let proxy = start(&amazon, &hooks).await;
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    for number in 0..4 {
        let refused = format!("\"hook\":\"h{number}\"");
        eventually("a refusal", || {
            proxy.log().lines().any(|line| line.contains(&refused) && line.contains("private"))
        })
        .await;
    }
    assert_eq!(receiver.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_in_what_hooks_get_or_in_what_is_kept_for_them() {
    let (amazon, receiver) = (amazon().await, Receiver::start().await);
    receiver.be(Manner::Status(500));
    let hook = receiver.hook("ops", EVERYTHING);
    let hook = hook.replace("/ops\"", "/CANARY-of-the-path?key=CANARY-of-the-query\"");
    let mut setup = setup(&hook);
    setup.toml.push_str("[log]\nfilter = \"trace\"\n");
    let proxy = Proxy::with(&amazon, setup);
    // LWA repeats the secrets it was sent; nobody else may.
    amazon.state().lwa.faults.add(LwaFault::Echo, Times::Next(2));
    for _ in 0..4 {
        proxy.get("/v2/profiles").await;
    }
    amazon.state().lwa.revoke("acme");
    proxy.get("/v2/profiles").await;
    eventually("some attempts", || receiver.all().len() >= 4).await;
    let mut canaries = Canaries::default();
    let grant = amazon.state().lwa.grant("acme").expect("a grant").current().to_owned();
    for secret in [ACME_REFRESH, GLOBEX_REFRESH, CLIENT_SECRET, SECRET, &grant] {
        canaries.add(secret);
    }
    canaries.add(&SECRET["whsec_".len()..]);
    for received in receiver.all() {
        canaries.assert_none_in("a body", &received.body);
        assert_no_secret("a body", &received.body);
        canaries.assert_none_in("the headers", format!("{:?}", received.headers).as_bytes());
    }
    for secret in ["CANARY-of-the-path", "CANARY-of-the-query"] {
        canaries.add(secret);
    }
    canaries.assert_none_in("the log", proxy.log().as_bytes());
    canaries.assert_none_in("the metrics", proxy.metrics().as_bytes());
    // Opened with the server's key: what is sealed shows no canary anyway.
    let messages = list_outbox(&open_store(&proxy)).await.expect("an outbox");
    assert!(!messages.is_empty());
    canaries.assert_none_in("the outbox", format!("{messages:?}").as_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_gets_the_event_and_nothing_else() {
    let amazon = amazon().await;
    let scratch = tempfile::tempdir().expect("a directory");
    let script = scratch.path().join("hook");
    let seen = scratch.path().join("seen");
    let text = format!(
        "#!/bin/sh\nset -e\n(env; echo; cat) > {0}.tmp\nls -l /proc/self/fd > {0}.fds\n\
         echo CANARY-of-the-output\nmv {0}.tmp {0}\n",
        seen.display()
    );
    fs::write(&script, text).expect("a script");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("its mode");
    let hook = format!(
        "[[hooks]]\nname = \"page\"\ncommand = [{script:?}]\n\
         events = [\"grant.reauthorization_required\"]\n"
    );
    let proxy = start(&amazon, &hook).await;
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    amazon.state().lwa.revoke("acme");
    proxy.get("/v2/profiles").await;
    eventually("it ran", || seen.exists()).await;
    let text = fs::read_to_string(&seen).expect("text");
    let (environment, input) = text.split_once("\n\n").expect("two parts");
    for line in environment.lines() {
        let name = line.split('=').next().expect("a name");
        assert!(
            ["PATH", "ADSPROXY_EVENT", "PWD", "_", "OLDPWD", "SHLVL"].contains(&name),
            "{line}"
        );
    }
    assert!(environment.contains("ADSPROXY_EVENT=grant.reauthorization_required"));
    let input: serde_json::Value = serde_json::from_str(input).expect("JSON");
    assert_eq!(input["type"], "grant.reauthorization_required");
    assert_eq!(input["data"]["account"], "acme");
    let fds = fs::read_to_string(seen.with_extension("fds")).expect("text");
    assert!(!fds.contains("socket:") && !fds.contains("store"), "{fds}");
    eventually("its end is seen", || {
        proxy.metric("adsproxy_hook_deliveries_total{outcome=\"delivered\"}") >= 1.0
    })
    .await;
    assert!(!proxy.log().contains("CANARY-of-the-output"));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_hooks_there_is_no_outbox() {
    let amazon = amazon().await;
    let proxy = start(&amazon, "").await;
    let request = proxy.request(Method::GET, "/v2/profiles").header("X-Ads-Account", "globex");
    assert_eq!(proxy.send(request).await.status, 200);
    assert!(!proxy.dir.path().join("store/outbox").exists());
}

#[test]
fn the_receivers_own_check_can_fail() {
    let received = Received {
        headers: [
            ("webhook-id", "x"),
            ("webhook-timestamp", "1"),
            ("webhook-signature", "v1,AA=="),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into(),
        body: b"{}".to_vec(),
        manner: Manner::Close,
    };
    assert!(std::panic::catch_unwind(|| verify(&received)).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_death_comes_with_a_link_that_brings_the_account_back() {
    use crate::support::login;
    let (amazon, receiver) = (amazon().await, Receiver::start().await);
    let proxy = login::proxy(&amazon, setup(&receiver.hook("ops", EVERYTHING)));
    assert_eq!(login::log_in(proxy.admin, "new", login::INITECH).await.status, 200);
    let ask = || {
        let request = proxy.request(Method::GET, "/v2/profiles").header("X-Ads-Account", "new");
        proxy.send(request)
    };
    assert_eq!(ask().await.status, 200);
    amazon.state().lwa.revoke(login::INITECH);
    assert_eq!(ask().await.error(), Some("reauthorization_required"));
    let kind = "grant.reauthorization_required";
    eventually("the death is told", || receiver.kinds().iter().any(|one| one == kind)).await;
    let told = of(&receiver.taken(), kind)[0].json();
    let link: http::Uri =
        told["data"]["reconnect_url"].as_str().expect("a link").parse().expect("an address");
    let path = &format!("{}&continue=true", link.path_and_query().expect("a path"));
    let html = [("accept", "text/html")];
    let sent = login::ask(proxy.admin, Method::GET, path, &html).await;
    let back = login::at_amazon(sent.location(), "account=initech").await;
    let done = login::come_back_in_browser(proxy.admin, &back, &sent.cookie()).await;
    assert!(done.status == 200 && done.text.contains("connected anew"), "{}", done.text);
    assert_eq!(ask().await.status, 200);
    eventually("the recovery is told", || {
        receiver.kinds().iter().any(|one| one == "grant.recovered")
    })
    .await;
    assert_eq!(login::ask(proxy.admin, Method::GET, path, &html).await.status, 410);
    assert!(!proxy.log().contains("reconnect="), "the link is for the receiver alone");
}
