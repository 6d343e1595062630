//! `adsproxy doctor`: every check with what it praises and what it complains of.

use crate::support::{
    commands::Commands,
    login::free_address,
    program::said,
    proxy::{Proxy, Setup, amazon, assert_no_secret, upstream},
    secure::secure_amazon,
};
use adsproxy::sandbox::{ApiFault, Emulator, LwaFault, RefreshRotation, Scripted, Times};
use serde_json::Value;
use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt,
    thread,
};

/// The doctor's findings, and whether it called all well. Checks that every complaint says how to
/// fix it and that no secret is shown.
fn examine(commands: &Commands, more: &str) -> (bool, Vec<Value>) {
    read(&commands.run(&format!("doctor --json {more}")))
}

fn read(said: &crate::support::program::Said) -> (bool, Vec<Value>) {
    assert_no_secret("the report", said.out.as_bytes());
    let report: Value = serde_json::from_str(&said.out).unwrap_or_else(|_| panic!("{said:?}"));
    assert_eq!(report["version"], 1);
    let findings = report["findings"].as_array().expect("a list").clone();
    for finding in &findings {
        let complains = finding["level"] == "warning" || finding["level"] == "error";
        assert_eq!(finding["fix"].is_string(), complains, "{finding}");
    }
    let well = report["ok"] == true;
    // The exit code says what kind of thing is wrong, if all errors are of one kind.
    let wrong = |check| findings.iter().all(|f| f["level"] != "error" || f["check"] == check);
    match well {
        true => assert_eq!(said.code, Some(0), "{said:?}"),
        false if wrong("config") => assert_eq!(said.code, Some(78), "{said:?}"),
        false if wrong("grant") => assert!(matches!(said.code, Some(1 | 69 | 77)), "{said:?}"),
        false => assert_eq!(said.code, Some(1), "{said:?}"),
    }
    (well, findings)
}

/// The levels of all findings of `check`.
fn levels<'a>(findings: &'a [Value], check: &str) -> Vec<&'a str> {
    let of_check = findings.iter().filter(|finding| finding["check"] == check);
    of_check.filter_map(|finding| finding["level"].as_str()).collect()
}

/// Asserts that `check` complains with `level`, in words that hold `words`.
fn complains(findings: &[Value], check: &str, level: &str, words: &str) {
    let found = findings.iter().any(|finding| {
        finding["check"] == check
            && finding["level"] == level
            && finding.to_string().contains(words)
    });
    assert!(found, "no {level} of {check} with {words:?} in {findings:#?}");
}

/// A configuration that has nothing to complain of.
fn healthy(amazon: &Emulator) -> Commands {
    let commands = Commands::with_store(amazon);
    redirect(&commands, "http://localhost:8788/api/auth/amazon/callback");
    commands.edit("admin = \"127.0.0.1:0\"", "admin = \"127.0.0.1:8788\"");
    // A port that another test or a person may use is no subject here.
    commands.edit("admin = \"127.0.0.1:8788\"", &format!("admin = \"127.0.0.1:{}\"", free_port()));
    let text = fs::read_to_string(commands.path("proxy.toml")).expect("a configuration");
    let port = text.split("admin = \"127.0.0.1:").nth(1).and_then(|rest| rest.split('"').next());
    commands.edit("localhost:8788", &format!("localhost:{}", port.expect("a port")));
    // An operator is configured, and other programs need no key: that is decided.
    commands.edit("[lwa]\n", "[auth]\nrequired = false\n\n[lwa]\n");
    commands
}

fn redirect(commands: &Commands, to: &str) {
    commands.edit("[lwa]\n", &format!("[lwa]\nredirect_uri = \"{to}\"\n"));
}

fn free_port() -> u16 {
    free_address().port()
}

#[tokio::test(flavor = "multi_thread")]
async fn all_is_well_where_all_is_well() {
    let amazon = amazon().await;
    let commands = healthy(&amazon);
    let (well, findings) = examine(&commands, "");
    assert!(well, "{findings:#?}");
    assert!(findings.iter().all(|finding| finding["level"] == "ok"), "{findings:#?}");
    for check in ["config", "redirect", "port", "store", "egress", "tls", "clock"] {
        assert!(!levels(&findings, check).is_empty(), "{check} in {findings:#?}");
    }
    assert_eq!(levels(&findings, "grant"), ["ok", "ok"], "acme and globex");
    assert_eq!(levels(&findings, "profiles"), ["ok", "ok"]);
    // Where the store is made, there is more to check. The doctor does not make it.
    assert_eq!(commands.run("token acme --check").code, Some(0));
    let (well, findings) = examine(&commands, "acme");
    assert!(well, "{findings:#?}");
    assert_eq!(levels(&findings, "key"), ["ok"]);
    assert_eq!(levels(&findings, "space"), ["ok"]);
    assert_eq!(levels(&findings, "grant"), ["ok"], "acme alone");
    let text = commands.run("doctor --offline");
    assert!(text.code == Some(0) && text.out.starts_with("ok       config"), "{text:?}");
    assert!(!text.out.contains('\x1b') && !text.out.contains("clock"), "{text:?}");
    complains(&examine(&commands, "nobody").1, "grant", "error", "no account nobody");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_configuration_is_the_first_thing_reported() {
    let amazon = amazon().await;
    let commands = healthy(&amazon);
    commands.edit("[lwa]\n", "[lwa]\nclient_idd = \"x\"\n");
    let (well, findings) = examine(&commands, "");
    assert!(!well);
    assert_eq!(findings.len(), 1);
    complains(&findings, "config", "error", "client_idd");
    fs::remove_file(commands.path("proxy.toml")).expect("removed");
    complains(&examine(&commands, "").1, "config", "error", "proxy.toml");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_too_open_are_reported() {
    let amazon = amazon().await;
    let commands = healthy(&amazon);
    assert_eq!(commands.run("token acme").code, Some(0), "makes the store");
    let chmod = |name: &str, mode| {
        let path = commands.path(name);
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
    };
    assert_eq!(levels(&examine(&commands, "--offline").1, "modes"), Vec::<&str>::new());
    let cases = [
        ("proxy.toml", 0o666, "config", "chmod go-w", 0o600),
        ("store", 0o755, "modes", "chmod 0700", 0o700),
    ];
    for (name, open, check, fix, closed) in cases {
        chmod(name, open);
        let (well, findings) = examine(&commands, "--offline");
        assert!(!well, "{name}");
        complains(&findings, check, "error", fix);
        chmod(name, closed);
    }
    let record = fs::read_dir(commands.path("store/accounts")).expect("a store");
    let record = record.filter_map(Result::ok).find(|entry| entry.path().is_file());
    let record = record.expect("a record").file_name().into_string().expect("text");
    chmod(&format!("store/accounts/{record}"), 0o644);
    complains(&examine(&commands, "--offline").1, "modes", "error", &record);
    chmod(&format!("store/accounts/{record}"), 0o600);
    chmod("key", 0o604);
    complains(&examine(&commands, "--offline").1, "config", "error", "chmod 600");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_and_a_damaged_record_are_reported() {
    let amazon = amazon().await;
    let commands = healthy(&amazon);
    assert_eq!(commands.run("token acme").code, Some(0), "makes the store");
    let key = fs::read_to_string(commands.path("key")).expect("a key");
    crate::support::proxy::write_private(&commands.path("key"), &key.replace('H', "I"));
    let (well, findings) = examine(&commands, "--offline");
    assert!(!well);
    complains(&findings, "key", "error", "encryption.keys");
    let (_, findings) = examine(&commands, "");
    assert_eq!(levels(&findings, "grant"), ["skipped"], "no grant is asked without its key");
    crate::support::proxy::write_private(&commands.path("key"), "short");
    complains(&examine(&commands, "--offline").1, "config", "error", "key init");
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_are_reported_as_free_ours_or_taken() {
    let amazon = amazon().await;
    let commands = healthy(&amazon);
    let proxy = Proxy::start(&amazon);
    let text = fs::read_to_string(commands.path("proxy.toml")).expect("a configuration");
    let admin = text.split("admin = \"").nth(1).and_then(|rest| rest.split('"').next());
    let admin = admin.expect("an address").to_owned();
    commands.edit("127.0.0.1:0\"]", &format!("{}\"]", proxy.addr));
    commands.edit("\nadmin = ", &format!("\nhealth = \"{}\"\nadmin = ", proxy.admin));
    let (well, findings) = examine(&commands, "--offline");
    assert!(well, "{findings:#?}");
    complains(&findings, "port", "ok", &format!("{}: adsproxy is running", proxy.addr));
    complains(&findings, "port", "ok", &format!("{}: adsproxy is running", proxy.admin));
    complains(&findings, "port", "ok", "free");

    let taken: SocketAddr = admin.parse().expect("an address");
    let listener = TcpListener::bind(taken).expect("it was free");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let _ = (&stream).write_all(b"SSH-2.0-other\r\n");
        }
    });
    let (well, findings) = examine(&commands, "--offline");
    assert!(!well);
    complains(&findings, "port", "error", "listen.admin");
    complains(&findings, "port", "error", "another program");
    let foreign = healthy(&amazon);
    foreign.edit("127.0.0.1:0\"]", &format!("{}\"]", amazon.addr()));
    complains(&examine(&foreign, "--offline").1, "port", "error", "another program");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_that_leads_elsewhere_is_reported() {
    let amazon = amazon().await;
    let commands = Commands::with_store(&amazon);
    redirect(&commands, "http://localhost:1/api/auth/amazon/callback");
    let (well, findings) = examine(&commands, "--offline");
    assert!(well, "who never logs in here does not miss it");
    complains(&findings, "redirect", "warning", "listen.admin");
}

/// Answers every request with this `Date`.
fn clock_at(date: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut head = BufReader::new(&stream).lines();
            while head.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            let answer = format!(
                "HTTP/1.1 400 x\r\nDate: {date}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
            let _ = (&stream).write_all(answer.as_bytes());
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_wrong_is_reported() {
    let amazon = amazon().await;
    let with = |date| {
        let token_url = Some(format!("http://{}/auth/o2/token", clock_at(date)));
        Commands::new(&amazon, &Setup { token_url, ..Setup::default() })
    };
    let (_, findings) = examine(&with("Fri, 20 Nov 2020 00:00:00 GMT"), "nobody");
    complains(&findings, "clock", "error", "timedatectl");
    let (_, findings) = examine(&with("not a date"), "nobody");
    complains(&findings, "clock", "warning", "no date");
    let (_, findings) = examine(&Commands::new(&amazon, &Setup::default()), "nobody");
    assert_eq!(levels(&findings, "clock"), ["ok"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_that_cannot_be_reached_are_reported() {
    let amazon = amazon().await;
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let toml = upstream(&nobody, "connect_timeout_secs = 2");
    let commands = Commands::new(&amazon, &Setup { toml, ..Setup::default() });
    let (well, findings) = examine(&commands, "");
    assert!(!well);
    complains(&findings, "tls", "error", &nobody["http://".len()..]);
    complains(&findings, "profiles", "error", "acme");
    assert_eq!(levels(&findings, "clock"), ["ok"], "lwa is there");

    let toml = upstream("https://no-such-host.invalid", "");
    let commands = Commands::new(&amazon, &Setup { toml, ..Setup::default() });
    let (_, findings) = examine(&commands, "nobody");
    complains(&findings, "dns", "error", "no-such-host.invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_and_the_egress_proxy_are_looked_at() {
    let (amazon, ca) = secure_amazon(true).await;
    let port = amazon.tls_addr().expect("TLS").port();
    let url = format!("https://localhost:{port}");
    let trusted = upstream(&url, &format!("ca_file = {:?}", ca.path()));
    let commands = Commands::new(&amazon, &Setup { toml: trusted, ..Setup::default() });
    let (well, findings) = examine(&commands, "");
    complains(&findings, "tls", "ok", "TCP and TLS");
    complains(&findings, "dns", "ok", "localhost");
    assert!(
        levels(&findings, "profiles").iter().all(|level| *level == "ok"),
        "{well} {findings:#?}"
    );

    let toml = upstream(&url, "");
    let commands = Commands::new(&amazon, &Setup { toml, ..Setup::default() });
    let (_, findings) = examine(&commands, "nobody");
    complains(&findings, "tls", "error", "tls.ca_file");

    let mut command = commands.command("doctor --json nobody");
    command.env("HTTPS_PROXY", "http://user:CANARY-password@127.0.0.1:9");
    let said = said(&mut command);
    assert!(!said.out.contains("CANARY") && !said.err.contains("CANARY"), "{said:?}");
    let (_, findings) = read(&said);
    complains(&findings, "egress", "ok", "127.0.0.1:9");
    complains(&findings, "tls", "error", "HTTPS_PROXY");
    let mut command = commands.command("doctor --json nobody");
    command.env("HTTPS_PROXY", "http://127.0.0.1:9").env("NO_PROXY", "*");
    complains(
        &read(&crate::support::program::said(&mut command)).1,
        "egress",
        "warning",
        "NO_PROXY",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn grants_that_bring_no_token_are_distinguished() {
    let amazon = amazon().await;
    let commands = healthy(&amazon);
    amazon.state().lwa.revoke("globex");
    let (well, findings) = examine(&commands, "");
    assert!(!well);
    assert_eq!(levels(&findings, "grant"), ["ok", "error"]);
    complains(&findings, "grant", "error", "login globex");
    amazon.state().lwa.faults.add(LwaFault::ServerError, Times::Forever);
    complains(&examine(&commands, "acme").1, "grant", "error", "connection to login");
    amazon.state().lwa.faults.clear();
    amazon.state().lwa.faults.add(LwaFault::InvalidClient, Times::Forever);
    complains(&examine(&commands, "acme").1, "grant", "error", "client_secret");
    amazon.state().lwa.faults.clear();
    amazon.state().api.faults.add(ApiFault::ServerError, Times::Forever);
    complains(&examine(&commands, "acme").1, "profiles", "error", "status 500");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_consent_is_reported() {
    let amazon = amazon().await;
    let commands = healthy(&amazon);
    let long_ago = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(24 * 350);
    let day = long_ago.to_zoned(jiff::tz::TimeZone::UTC).strftime("%Y-%m-%d").to_string();
    let token = commands.path("token");
    fs::write(&token, adsproxy::sandbox::ACCOUNTS[0].1).expect("a file");
    let added = commands.run(&format!(
        "account add acme --consented-at {day} --refresh-token-file {}",
        token.display()
    ));
    assert_eq!(added.code, Some(0), "{added:?}");
    let (well, findings) = examine(&commands, "acme");
    assert!(well, "{findings:#?}");
    complains(&findings, "grant", "warning", "consent ends in");
}

/// Every file below the store, with its content.
fn store_of(commands: &Commands) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    let mut directories = vec![commands.path("store")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten() {
            let path = entry.expect("an entry").path();
            match path.is_dir() {
                true => directories.push(path),
                false => files.push((path.display().to_string(), fs::read(&path).expect("a file"))),
            }
        }
    }
    // Who works on an account is no content.
    files.retain(|(name, _)| !name.contains("/leases/") && !name.contains("/owners/"));
    files.sort();
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_stored_but_a_token_that_was_rotated() {
    let amazon = amazon().await;
    let commands = healthy(&amazon);
    assert_eq!(commands.run("token acme --check").code, Some(0), "makes the store");
    let before = store_of(&commands);
    assert!(!before.is_empty());
    let said = commands.run("doctor");
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{said:?}");
    assert!(store_of(&commands) == before, "doctor wrote into the store");
    // A rotated token that were not saved would be the end of the grant.
    amazon.state().lwa.configure(|settings| settings.rotation = RefreshRotation::OldDies);
    let refreshes = || {
        let log = fs::read_to_string(commands.path("store/audit.jsonl")).expect("a log");
        let of_acme = |line: &&str| line.contains("\"token.refresh\"") && line.contains("\"acme\"");
        log.lines().filter(of_acme).count()
    };
    let known = refreshes();
    assert_eq!(commands.run("doctor acme").code, Some(0));
    assert!(store_of(&commands) != before);
    assert_eq!(refreshes(), known + 1, "the audit log has the one that was saved");
    amazon.state().lwa.expire_access_tokens(None);
    assert_eq!(commands.run("curl acme /v2/profiles --fail").code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_cannot_be_read_is_named_with_its_own_advice_and_left_as_it_is() {
    let amazon = amazon().await;
    let commands = healthy(&amazon);
    assert_eq!(commands.run("token acme --check").code, Some(0), "makes the store");
    let store = store_of(&commands);
    let (record, _) = store.iter().find(|(name, _)| name.contains("/acme")).expect("a record");
    fs::write(record, "no record").expect("written");
    // A refresh would rotate, and what it brings would replace the record.
    amazon.state().lwa.configure(|settings| settings.rotation = RefreshRotation::OldDies);
    let (before, calls) = (store_of(&commands), amazon.state().record.counts().tokens_issued);
    let (well, findings) = examine(&commands, "acme");
    assert!(!well);
    complains(&findings, "key", "error", "acme");
    complains(&findings, "key", "error", "restore the record from a backup");
    assert_eq!(levels(&findings, "grant"), ["skipped"]);
    assert!(store_of(&commands) == before, "doctor wrote into the store");
    assert_eq!(amazon.state().record.counts().tokens_issued, calls);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_hosts_that_the_accounts_need_are_looked_up() {
    let amazon = amazon().await;
    let toml = format!("[upstream]\nna = \"{0}\"\neu = \"{0}\"\n", base_of(&amazon))
        + "fe = \"https://no-such-host.invalid\"\nmcp_na = \"https://neither-this.invalid\"\n";
    let commands = Commands::new(&amazon, &Setup { toml, ..Setup::default() });
    let (_, findings) = examine(&commands, "acme");
    assert!(!format!("{findings:?}").contains("invalid"), "{findings:#?}");
}

fn base_of(amazon: &Emulator) -> String {
    format!("http://{}", amazon.addr())
}

#[tokio::test(flavor = "multi_thread")]
async fn look_alikes_are_distinguished() {
    let amazon = amazon().await;
    let commands = healthy(&amazon);
    let answer = |status: u16, body: &str| {
        let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
        let body = bytes::Bytes::from(body.to_owned());
        let status = http::StatusCode::from_u16(status).expect("a status");
        let fault = ApiFault::Respond(Scripted { status, headers, body });
        amazon.state().api.faults.add(fault, Times::Next(1));
    };
    let list = r#"[{"profileId":1}]"#;
    for (answers, level, words) in [
        (vec![(403, r#"{"code":"UNAUTHORIZED"}"#)], "error", "not approved for the Ads API"),
        (vec![(401, "{}")], "error", "not approved for the Ads API"),
        (vec![(200, "[]"), (200, "[]"), (200, "[]")], "warning", "no profile in any region"),
        (vec![(200, "[]"), (200, list), (200, "[]")], "warning", "its profiles are in"),
        (vec![(200, list), (200, "[]")], "warning", "viewer role"),
        (vec![(200, list), (200, list)], "ok", " 1"),
    ] {
        // The clock's request to the token endpoint comes first.
        answer(400, "{}");
        answers.into_iter().for_each(|(status, body)| answer(status, body));
        let (_, findings) = examine(&commands, "acme");
        complains(&findings, "profiles", level, words);
        assert_eq!(levels(&findings, "grant"), ["ok"], "the grant is good: {words}");
        amazon.state().api.faults.clear();
    }
    amazon.state().lwa.revoke("acme");
    let (_, findings) = examine(&commands, "acme");
    complains(&findings, "grant", "error", "consent is gone");
    assert!(levels(&findings, "profiles").is_empty());
}
