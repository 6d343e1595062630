//! Secrets come out nowhere: not in logs at their loudest, not in metrics, answers, errors, core
//! dumps or `Debug`.

use crate::support::{
    canary::Canaries,
    proxy::{Answer, Proxy, Setup, upstream, write_private},
};
use adsproxy::{
    sandbox::{
        ApiFault, CLIENT_ID, Emulator, EmulatorOptions, LwaFault, Permission, RefreshRotation,
        Scripted, Surface, Times,
    },
    testing::{
        Actor, Application, Audit, Authority, Clock, Credential, Dependencies, Grants, KnownGrant,
        LwaClient, LwaHttp, Metrics, Place, Reports, Store, StoredAccessToken, SystemClock,
        TokenManager, client_config,
        load::{self, Options as LoadOptions},
    },
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{Method, StatusCode};
use std::{
    fs,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

/// Characters that every encoding writes differently.
const CLIENT_SECRET: &str = r#"amzn1.oa2-cs.v1."CANARY" \ + / = & % secret"#;
const ACME_REFRESH: &str = r#"Atzr|CANARY "refresh" \ + / = & % of acme"#;
const GLOBEX_REFRESH: &str = "Atzr|CANARY-refresh-token-of-globex";
/// What callers send and what is theirs alone.
const CALLER_TOKEN: &str = "CANARY-token-of-the-caller";
const CALLER_KEY: &str = "CANARY-api-key-of-the-caller";
const CALLER_COOKIE: &str = "CANARY-cookie-of-the-caller";
const CALLER_QUERY: &str = "CANARY-in-a-query-string";
const CALLER_BODY: &str = "CANARY-in-a-request-body";
/// What Amazon answers.
const ANSWER_BODY: &str = "CANARY-in-an-answers-body";
const BAD_ACCESS: &str = "Atza|CANARY-access-token-in-a-broken-answer";

/// How many ways LWA fails in.
const LWA_FAULTS: usize = 8;

struct Scene {
    amazon: Emulator,
    proxy: Proxy,
    canaries: Canaries,
    clients: [reqwest::Client; 2],
}

/// An emulator whose secrets are the canaries, and a proxy that logs all it can.
async fn scene(tls: bool) -> Scene {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("made");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let ca_file = directory.path().join("ca.pem");
    fs::write(&ca_file, made.cert.pem()).expect("written");
    let key = made.signing_key.serialize_der().try_into().expect("a key");
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut server = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("a pair");
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let options = EmulatorOptions { tls: Some(Arc::new(server)), ..EmulatorOptions::default() };
    let amazon = Emulator::start(options).await.expect("the emulator starts");
    let lwa = &amazon.state().lwa;
    lwa.add_application(CLIENT_ID, &[CLIENT_SECRET]);
    for (account, refresh) in [("acme", ACME_REFRESH), ("globex", GLOBEX_REFRESH)] {
        let profiles = lwa.grant(account).expect("a demo account").profiles;
        lwa.add_grant(account, CLIENT_ID, refresh, profiles);
    }
    lwa.configure(|settings| settings.rotation = RefreshRotation::OldLives);

    let env = [
        ("RUST_LOG", "trace"),
        ("CLIENT_SECRET", CLIENT_SECRET),
        ("ACME_REFRESH", ACME_REFRESH),
        ("GLOBEX_REFRESH", GLOBEX_REFRESH),
    ];
    let mut setup = Setup {
        file_store: true,
        env: env.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
        toml: "[token]\nforced_refresh_min_interval_secs = 0.01".to_owned(),
        ..Setup::default()
    };
    // A failed refresh is remembered, so each fault of LWA needs accounts of its own.
    for number in 0..2 * LWA_FAULTS {
        let refresh = "{ env = \"GLOBEX_REFRESH\" }";
        setup.toml +=
            &format!("\n[accounts.a{number}]\nregion = \"eu\"\nrefresh_token = {refresh}");
    }
    if tls {
        let url = format!("https://localhost:{}", amazon.tls_addr().expect("TLS").port());
        setup.token_url = Some(format!("{url}/auth/o2/token"));
        setup.toml += &format!("\n{}", upstream(&url, &format!("[tls]\nca_file = {ca_file:?}")));
    }
    let proxy = Proxy::with(&amazon, setup);
    let client = || reqwest::Client::builder().no_proxy();
    let clients = [client(), client().http2_prior_knowledge()];
    let clients = clients.map(|builder| builder.build().expect("a client"));
    let mut canaries = Canaries::default();
    for canary in [CLIENT_SECRET, ACME_REFRESH, GLOBEX_REFRESH, BAD_ACCESS] {
        canaries.add(canary);
    }
    for canary in [CALLER_TOKEN, CALLER_KEY, CALLER_COOKIE, CALLER_QUERY, CALLER_BODY, ANSWER_BODY]
    {
        canaries.add(canary);
    }
    Scene { amazon, proxy, canaries, clients }
}

impl Scene {
    /// A request with secrets of the caller's wherever it can carry one.
    async fn send(&self, client: &reqwest::Client, account: &str, path: &str) -> Answer {
        let url = self.proxy.url(&format!("{path}?api_key={CALLER_QUERY}"));
        let request = client
            .post(url)
            .header("X-Ads-Account", account)
            .bearer_auth(CALLER_TOKEN)
            .header("X-Api-Key", CALLER_KEY)
            .header("Cookie", format!("session={CALLER_COOKIE}"))
            .body(CALLER_BODY);
        let answer = self.proxy.send(request).await;
        self.settle().await;
        answer
    }

    /// Makes everything go wrong that can be answered; returns the answers.
    async fn everything(&self, round: usize) -> Vec<Answer> {
        let client = &self.clients[round];
        let state = self.amazon.state();
        let scripted = |status, body: &str| Scripted {
            status,
            headers: vec![("content-type".into(), "application/json".into())],
            body: Bytes::from(body.to_owned()),
        };
        let mut answers = vec![self.send(client, "acme", "/_sink").await];
        state.lwa.expire_access_tokens(None);
        answers.push(self.send(client, "acme", "/_sink").await);
        assert!(answers.iter().all(|answer| answer.status == 200));
        for fault in [
            ApiFault::Permission(Permission::ScopeMissing),
            ApiFault::SpuriousUnauthorized,
            ApiFault::ServerError,
            ApiFault::Drop,
            ApiFault::Respond(scripted(StatusCode::BAD_REQUEST, ANSWER_BODY)),
        ] {
            state.api.faults.add(fault, Times::Next(1));
            answers.push(self.send(client, "acme", "/_sink").await);
            state.api.faults.clear();
        }
        let broken =
            format!("{{\"access_token\":\"{BAD_ACCESS}\",\"refresh_token\":\"{BAD_ACCESS}");
        let faults = [
            LwaFault::Echo,
            LwaFault::InvalidClient,
            LwaFault::CrlfInToken,
            LwaFault::NoToken,
            LwaFault::LoseResponse,
            LwaFault::Redirect(format!("https://localhost:1/?{CALLER_QUERY}")),
            LwaFault::Respond(scripted(StatusCode::OK, &broken)),
            LwaFault::Respond(scripted(StatusCode::IM_A_TEAPOT, BAD_ACCESS)),
        ];
        assert_eq!(faults.len(), LWA_FAULTS);
        for (number, fault) in faults.into_iter().enumerate() {
            let calls = state.record.counts().token_calls;
            state.lwa.faults.add(fault, Times::Forever);
            let account = format!("a{}", round * LWA_FAULTS + number);
            answers.push(self.send(client, &account, "/_sink").await);
            state.lwa.faults.clear();
            assert!(state.record.counts().token_calls > calls, "LWA was asked");
        }
        for (account, path) in [("nobody", "/_sink"), ("a, b", "/_sink"), ("acme", "/a/globex/x")] {
            answers.push(self.send(client, account, path).await);
        }
        let form = format!(
            "grant_type=refresh_token&refresh_token=Atzr%7Cacme&client_secret={CALLER_KEY}"
        );
        let shim = client.request(Method::POST, self.proxy.url("/auth/o2/token"));
        let kind = "application/x-www-form-urlencoded";
        let shim = shim.header("content-type", kind).body(form);
        answers.push(self.proxy.send(shim).await);
        answers
    }

    /// Waits until no more is logged: a request brings a hundred lines of trace, and the log loses
    /// what comes faster than it can be written.
    async fn settle(&self) {
        let mut logged = 0;
        while logged < self.proxy.log().len() {
            logged = self.proxy.log().len();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Adds the tokens that were made on the way.
    fn learn_tokens(&mut self) {
        for account in ["acme", "globex"] {
            let grant = self.amazon.state().lwa.grant(account).expect("a demo account");
            self.canaries.add(grant.current());
        }
        let mut access = 0;
        for seen in self.amazon.state().record.requests_for(Surface::Api) {
            for value in seen.values("authorization") {
                self.canaries.add(value.strip_prefix("Bearer ").expect("a bearer token"));
                access += 1;
            }
        }
        assert!(access > 10);
    }
}

/// An HTTP/2 connection with one request of these fields, as they are.
fn http2(fields: &[(&str, &str)]) -> Vec<u8> {
    // `:method: GET`, `:scheme: http`, then literals.
    let mut block = vec![0x82, 0x86];
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).expect("short"));
            block.extend(text.as_bytes());
        }
    }
    let length = u8::try_from(block.len()).expect("short");
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
    bytes.extend([0, 0, length, 1, 5, 0, 0, 0, 1]);
    bytes.extend(block);
    bytes
}

/// Requests that do not come as far as an answer of ours.
async fn malformed(scene: &Scene) {
    let path = format!("/_sink?api_key={CALLER_QUERY}");
    let good = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nX-Api-Key: {CALLER_KEY}\r\n");
    for bytes in [
        http2(&[(":authority", "localhost"), (":path", &format!("{path}\"< >"))]),
        http2(&[(":authority", &format!("{CALLER_TOKEN}@@")), (":path", &path)]),
        http2(&[(":authority", "localhost"), (":path", &path), ("te", CALLER_KEY)]),
        http2(&[(":authority", "localhost"), (":path", &path), ("connection", CALLER_KEY)]),
        format!("{good}\r\n").replace(" HTTP", "\"< > HTTP").into_bytes(),
        format!("{good}Broken {CALLER_TOKEN}: 1\r\n\r\n").into_bytes(),
        format!("{good}Content-Length: {CALLER_TOKEN}\r\n\r\n").into_bytes(),
        format!("{good}Connection: {CALLER_TOKEN}\r\nTE: {CALLER_TOKEN}\r\n\r\n").into_bytes(),
        format!("{good}Host: {CALLER_TOKEN}.test\r\n\r\n").into_bytes(),
    ] {
        // Answered, reset or closed: other tests care.
        scene.proxy.raw(&bytes, Duration::from_millis(200));
        scene.settle().await;
    }
}

async fn nothing_leaks(tls: bool) {
    let mut scene = scene(tls).await;
    let mut answers = Vec::new();
    for round in [0, 1] {
        answers.extend(scene.everything(round).await);
    }
    malformed(&scene).await;
    scene.amazon.state().lwa.revoke("acme");
    let dead = scene.send(&scene.clients[0], "acme", "/_sink").await;
    assert_eq!(dead.error(), Some("reauthorization_required"));
    answers.push(dead);
    scene.learn_tokens();
    let canaries = &scene.canaries;
    for answer in &answers {
        let head = format!("{:?}", answer.headers);
        canaries.assert_none_in("a header", head.as_bytes());
        // Amazon's own body is passed on, and only that.
        if answer.text() != ANSWER_BODY {
            canaries.assert_none_in("a body", &answer.body);
        }
    }
    let codes: Vec<_> = answers.iter().filter_map(Answer::error).collect();
    for code in ["upstream_unreachable", "token_unavailable", "application_rejected"] {
        assert!(codes.contains(&code), "{code} is not among {codes:?}");
    }
    for page in ["/metrics", "/status", "/readyz?verbose", "/"] {
        canaries.assert_none_in(page, scene.proxy.ask_admin(page).as_bytes());
    }
    let dropped = scene.proxy.metric("adsproxy_log_dropped_total");
    scene.proxy.signal("TERM");
    assert_eq!(scene.proxy.wait().code(), Some(0));
    let log = scene.proxy.log();
    assert!(log.contains(r#""level":"TRACE""#), "it was loud");
    // On a busy machine the queue of the log may have been full for a moment.
    let logged = f64::from(u32::try_from(log.lines().count()).expect("not that many"));
    assert!(dropped < logged / 50.0, "{dropped} lines were lost of {logged}");
    canaries.assert_none_in("the log", log.as_bytes());
    for file in files(scene.proxy.dir.path()) {
        canaries.assert_none_in(&file.0, &file.1);
    }
}

/// Every file below `directory`, by name.
fn files(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push((path.display().to_string(), fs::read(&path).expect("read")));
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_leaves_at_trace_level_whatever_goes_wrong() {
    nothing_leaks(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_leaves_at_trace_level_over_tls_and_http_2() {
    nothing_leaks(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_start_does_not_repeat_a_secret() {
    let amazon = crate::support::proxy::amazon().await;
    let mut canaries = Canaries::default();
    let secret = "CANARY-of-a-bad-configuration";
    canaries.add(secret);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("secret");
    write_private(&file, secret);
    for (toml, code) in [
        // Secrets where only a reference to one may stand.
        (format!("[applications.x]\nclient_id = \"x\"\nclient_secret = \"{secret}\""), 78),
        (format!("[accounts.x]\nregion = \"na\"\nrefresh_token = \"{secret}\""), 78),
        (format!("[encryption]\nkeys = [{{ id = \"k\", secret = \"{secret}\" }}]"), 78),
        // A slip of the pen on such a line.
        (format!("[applications.x]\nclient_secret = \"{secret}"), 78),
        (format!("[applications.x]\nclient_secrett = \"{secret}\""), 78),
        (format!("[accounts.x]\nrefresh_token = {{ value = \"{secret}\" }}"), 78),
        // A key that is none, in its own file.
        (format!("[encryption]\nkeys = [{{ id = \"k\", secret = {{ file = {file:?} }} }}]"), 78),
        (format!("[listen.tls]\ncert_file = {file:?}\nkey_file = {file:?}"), 1),
    ] {
        let (found, said) =
            Proxy::refused(&amazon, &Setup { toml: toml.clone(), ..Setup::default() });
        canaries.assert_none_in(&toml, said.as_bytes());
        assert!(!said.is_empty() && found != 0, "{said}");
        // What kind of failure it is, the command line tells.
        assert!(found == code || found == 1, "{found} for {toml}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_leaves_no_core() {
    let amazon = crate::support::proxy::amazon().await;
    let mut proxy = Proxy::start(&amazon);
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    let limits = fs::read_to_string(format!("/proc/{}/limits", proxy.pid())).expect("limits");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("a line");
    let limits: Vec<_> = core.split_whitespace().skip(4).take(2).collect();
    assert_eq!(limits, ["0", "0"], "{core}");
    // Also where an operator raised the limit again.
    let raised = Command::new("prlimit")
        .args(["--core=unlimited:unlimited", "--pid", &proxy.pid().to_string()])
        .stderr(Stdio::null())
        .status();
    let was_raised = raised.is_ok_and(|status| status.success());
    proxy.signal("ABRT");
    let status = proxy.wait();
    assert_eq!(status.signal(), Some(6), "raised: {was_raised}");
    assert!(!status.core_dumped());
}

#[tokio::test(flavor = "multi_thread")]
async fn debug_shows_no_secret_of_any_type_that_holds_one() {
    let mut canaries = Canaries::default();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let key = STANDARD.encode(*b"CANARY of 32 bytes for this test");
    let access = "Atza|CANARY-access-token";
    let write = |name: &str, secret: &str| {
        let path = directory.path().join(name);
        write_private(&path, secret);
        format!("{{ file = {path:?} }}")
    };
    for secret in [CLIENT_SECRET, ACME_REFRESH, &key, access, GLOBEX_REFRESH] {
        canaries.add(secret);
    }
    let (client, refresh, key) =
        (write("client", CLIENT_SECRET), write("refresh", ACME_REFRESH), write("key", &key));
    let path = directory.path().join("proxy.toml");
    let store_path = directory.path().join("store");
    let toml = format!(
        "[lwa]\nclient_id = \"id\"\nclient_secret = {client}\n\
         [store]\npath = {store_path:?}\n[encryption]\nkeys = [{{ id = \"k\", secret = {key} }}]\n\
         [accounts.acme]\nregion = \"na\"\nrefresh_token = {refresh}\n"
    );
    fs::write(&path, toml).expect("written");
    let loaded = load::load(&LoadOptions { path: Some(path), ..LoadOptions::default() });
    let loaded = loaded.expect("a good configuration");
    let config = &loaded.config;
    assert_eq!(config.applications["default"].client_secrets[0].expose(), CLIENT_SECRET);

    let clock = Arc::new(SystemClock);
    let now = clock.now().unix();
    let record = Credential {
        epoch: adsproxy::testing::Epoch::random(),
        account: "acme".parse().expect("an alias"),
        application: "default".into(),
        region: adsproxy::testing::Region::Na,
        refresh_token: ACME_REFRESH.into(),
        previous_refresh_token: Some(GLOBEX_REFRESH.into()),
        access_token: Some(StoredAccessToken {
            token: access.into(),
            issued_at: now,
            expires_at: now + 3600,
        }),
        generation: 1,
        consented_at: None,
        updated_at: now,
        reauthorization_required: false,
        seed: None,
        unknown: Default::default(),
    };
    let store = Store::open(&config.store, &config.encryption).expect("a store");
    let tls = client_config(None, false).expect("TLS");
    let second = Duration::from_secs(1);
    let lwa = LwaClient::new(LwaHttp::new(&tls, second, second).expect("a client"));
    let metrics = Metrics::new(&config.metrics, Arc::default());
    let control = tokio::runtime::Handle::current();
    let reports = Reports::new(Audit::off(), Actor::Server, control.clone());
    let with = Dependencies {
        clock,
        lwa: lwa.clone(),
        grants: Grants::new(store.clone(), Audit::off()),
        metrics,
        reports,
        control,
    };
    let tokens = TokenManager::new(&config.token, with);
    let application = Arc::new(Application::new("default", &config.applications["default"]));
    let (id, grant) = (record.account.clone(), KnownGrant::Record(record.clone()));
    let (region, authority) = (record.region, Authority::Record);
    let place = Place { region, application: application.clone(), authority };
    let state = tokens.new_state(&id, place, grant);
    tokens.set_states([state.clone()]);
    let token = tokens.token(&id).await.expect("a token");
    assert_eq!(token.header().to_str().expect("ASCII"), format!("Bearer {access}"));

    let shown = [
        format!("{loaded:?} {loaded:#?} {}", loaded.effective),
        format!("{record:?} {record:#?}"),
        format!("{application:?} {lwa:?} {store:?}"),
        format!("{tokens:?} {state:?} {token:?} {:?}", token.header()),
        format!("{:?}", tokens.status(&id)),
    ];
    for text in &shown {
        canaries.assert_none_in("Debug", text.as_bytes());
    }
    for text in [&shown[0], &shown[1], &shown[2]] {
        assert!(text.contains("[redacted]"), "{text}");
    }
}
