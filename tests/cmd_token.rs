//! `adsproxy token`: the bare token on standard output, and every other outcome an exit code.

use crate::support::{
    commands::Commands,
    proxy::{Proxy, Setup, amazon},
};
use adsproxy::sandbox::{Emulator, LwaFault, Scripted, Times};
use http::StatusCode;
use serde_json::Value;
use std::{fs, time::Duration};

fn lwa_calls(amazon: &Emulator) -> u64 {
    amazon.state().record.counts().token_calls
}

/// Whether the emulated API accepts `token`.
async fn is_accepted(amazon: &Emulator, token: &str) -> bool {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let answer = client
        .get(format!("http://{}/v2/profiles", amazon.addr()))
        .bearer_auth(token)
        .header("Amazon-Advertising-API-ClientId", adsproxy::sandbox::CLIENT_ID)
        .send()
        .await;
    answer.expect("an answer").status() == 200
}

#[tokio::test(flavor = "multi_thread")]
async fn prints_one_line_that_amazon_accepts_and_nothing_else() {
    let amazon = amazon().await;
    let commands = Commands::with_store(&amazon);
    let said = commands.run("token acme");
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
    let token = said.out.strip_suffix('\n').expect("a line end");
    assert!(token.starts_with("Atza|") && !token.contains(char::is_whitespace), "one line");
    assert!(is_accepted(&amazon, token).await);
    assert!(!is_accepted(&amazon, "Atza|another").await);

    let again = commands.run("token acme");
    assert_eq!(again.out, said.out, "a good token is used again");
    assert_eq!(lwa_calls(&amazon), 1);
    let header = commands.run("token acme --header");
    assert_eq!(header.out, format!("Authorization: Bearer {token}\n"));
    // The token is on standard output alone: no file holds it in the clear.
    let mut files = 0;
    for directory in ["store", "store/accounts"] {
        for entry in fs::read_dir(commands.path(directory)).expect("a store") {
            let path = entry.expect("an entry").path();
            if path.is_file() {
                files += 1;
                let text = String::from_utf8_lossy(&fs::read(&path).expect("a file")).into_owned();
                assert!(!text.contains(token), "{}", path.display());
            }
        }
    }
    assert!(files > 0, "a record at least");
}

#[tokio::test(flavor = "multi_thread")]
async fn json_is_versioned_and_says_when_it_expires() {
    let amazon = amazon().await;
    let commands = Commands::new(&amazon, &Setup::default());
    let said = commands.run("token acme --json");
    let json: Value = serde_json::from_str(&said.out).expect("JSON");
    assert_eq!(json["version"], 1);
    assert_eq!(json["account"], "acme");
    assert_eq!(json["token_type"], "bearer");
    assert_eq!(json["generation"], 1);
    assert_eq!(json["client_id"], adsproxy::sandbox::CLIENT_ID);
    let left = json["expires_in_secs"].as_u64().expect("a number");
    assert!((3500..=3600).contains(&left), "{left}");
    assert!(json["expires_at"].as_str().is_some_and(|at| at.ends_with('Z')), "{json}");
    assert!(is_accepted(&amazon, json["access_token"].as_str().expect("a token")).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn refreshes_when_less_is_left_than_asked_for() {
    let amazon = amazon().await;
    amazon.state().lwa.configure(|lwa| lwa.token_lifetime = Duration::from_secs(900));
    let commands = Commands::with_store(&amazon);
    let first = commands.run("token acme").out;
    amazon.state().lwa.configure(|lwa| lwa.token_lifetime = Duration::from_secs(3600));
    assert_eq!(commands.run("token acme --min-ttl 10m").out, first, "enough is left");
    let longer = commands.run("token acme --min-ttl 20m");
    assert!(longer.code == Some(0) && longer.out != first);
    assert_eq!(lwa_calls(&amazon), 2);
    let too_long = commands.run("token acme --min-ttl 2h");
    assert_eq!((too_long.code, too_long.out.as_str()), (Some(1), ""));
    assert!(too_long.err.contains("7200 s"), "{}", too_long.err);
    assert_eq!(commands.run("token acme --min-ttl soon").code, Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_grant_is_77_and_a_silent_lwa_69() {
    let amazon = amazon().await;
    let commands = Commands::with_store(&amazon);
    let lwa = &amazon.state().lwa;
    assert_eq!(commands.run("token acme --check").out, "", "a check prints nothing");
    lwa.faults.add(LwaFault::Unavailable { retry_after: None }, Times::Forever);
    assert_eq!(commands.run("token acme --check").code, Some(0), "the token it has still lives");
    let down = commands.run("token globex");
    assert_eq!((down.code, down.out.as_str()), (Some(69), ""), "{down:?}");
    assert_eq!(commands.run("token globex --check").code, Some(69));
    // A token that lives shorter than asked for is no answer to who asks so.
    assert_eq!(commands.run("token acme --min-ttl 2h").code, Some(69));
    lwa.faults.clear();
    lwa.revoke("globex");
    for arguments in ["token globex", "token globex --check", "token globex --json"] {
        let dead = commands.run(arguments);
        assert_eq!((dead.code, dead.out.as_str()), (Some(77), ""), "{dead:?}");
        assert!(dead.err.contains("globex"), "{dead:?}");
    }
    lwa.faults.add(LwaFault::InvalidClient, Times::Forever);
    lwa.reconnect("globex");
    let fresh = Commands::with_store(&amazon);
    let rejected = fresh.run("token globex");
    assert_eq!(rejected.code, Some(1), "{rejected:?}");
    assert!(rejected.err.contains("client id or client secret"), "{rejected:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_refusal_has_its_own_advice_and_none_is_an_outage_with_a_server_or_without() {
    let html = Scripted {
        status: StatusCode::FORBIDDEN,
        headers: vec![("content-type".into(), "text/html".into())],
        body: "<html>sorry</html>".into(),
    };
    for (fault, code, advice) in [
        (LwaFault::InvalidClient, 1, "client id or client secret"),
        (LwaFault::UnauthorizedClient, 1, "approved for the Ads API"),
        (LwaFault::UnsupportedGrantType, 1, "will refuse it again"),
        (LwaFault::Respond(html), 1, "lwa.token_url"),
        (LwaFault::Unavailable { retry_after: None }, 69, "cannot be reached"),
    ] {
        let amazon = amazon().await;
        amazon.state().lwa.faults.add(fault, Times::Forever);
        let commands = Commands::with_store(&amazon);
        let alone = commands.run("token acme");
        let proxy = Proxy::with(&amazon, Setup { file_store: true, ..Setup::default() });
        let config = proxy.dir.path().join("proxy.toml");
        let mut beside = commands.command("token acme");
        let beside = crate::support::program::said(beside.env("ADSPROXY_CONFIG", config));
        for said in [alone, beside] {
            assert_eq!(said.code, Some(code), "{said:?}");
            assert!(said.err.contains(advice), "{advice}: {said:?}");
            assert_eq!(said.err.contains("cannot be reached"), code == 69, "{said:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_accounts_and_nonsense_are_distinguished() {
    let amazon = amazon().await;
    let commands = Commands::with_store(&amazon);
    let unknown = commands.run("token nobody");
    assert_eq!(unknown.code, Some(1));
    assert!(unknown.err.contains("no account nobody"), "{}", unknown.err);
    for usage in ["token", "token a/b", "token acme --header --json", "token acme --check --json"] {
        assert_eq!(commands.run(usage).code, Some(2), "{usage}");
    }
    assert_eq!(lwa_calls(&amazon), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_and_a_command_share_one_refresh() {
    let amazon = amazon().await;
    let proxy = Proxy::with(&amazon, Setup { file_store: true, ..Setup::default() });
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    let calls = lwa_calls(&amazon);
    let commands = Commands::with_store(&amazon);
    let mut command = commands.command("token acme");
    let config = proxy.dir.path().join("proxy.toml");
    let said = crate::support::program::said(command.env("ADSPROXY_CONFIG", config));
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(is_accepted(&amazon, said.out.trim_end()).await);
    assert_eq!(lwa_calls(&amazon), calls, "the server's token is used");
}

/// The entries of the audit log that `commands` left.
fn audit(commands: &Commands) -> Vec<Value> {
    let text = fs::read_to_string(commands.path("store/audit.jsonl")).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_disclosure_is_in_the_audit_log_before_it_happens() {
    let amazon = amazon().await;
    let commands = Commands::with_store(&amazon);
    let actions = |commands: &Commands| {
        let entries = audit(commands).into_iter().filter(|entry| entry["account"] == "acme");
        let named = entries.map(|entry| format!("{} {}", entry["action"], entry["about"]));
        named.map(|named| named.replace('"', "")).collect::<Vec<_>>()
    };
    assert_eq!(commands.run("token acme --check").code, Some(0));
    assert!(!actions(&commands).iter().any(|action| action.starts_with("token.disclose")));
    for arguments in ["token acme", "curl acme /v2/profiles", "exec acme -- true"] {
        assert_eq!(commands.run(arguments).code, Some(0), "{arguments}");
    }
    let recorded = actions(&commands);
    for action in ["token.disclose token", "token.disclose curl", "exec true"] {
        assert!(recorded.iter().any(|one| one == action), "{action} in {recorded:?}");
    }
    let text = fs::read(commands.path("store/audit.jsonl")).expect("a log");
    crate::support::proxy::assert_no_secret("the audit log", &text);

    // Where nothing can be written down, nothing is handed out.
    fs::remove_file(commands.path("store/audit.jsonl")).expect("removed");
    fs::create_dir(commands.path("store/audit.jsonl")).expect("a directory in its place");
    let api_calls = amazon.state().record.counts().api_calls;
    for arguments in ["token acme", "curl acme /v2/profiles", "exec acme -- echo ran"] {
        let said = commands.run(arguments);
        assert_eq!((said.code, said.out.as_str()), (Some(1), ""), "{arguments} {said:?}");
        assert!(said.err.contains("audit log"), "{said:?}");
    }
    assert_eq!(amazon.state().record.counts().api_calls, api_calls);
}
