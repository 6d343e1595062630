//! Imported accounts are served by a server that runs already, with the tokens they brought.

use crate::support::{
    extras,
    grants::open_store,
    program::Said,
    proxy::{
        ACME_REFRESH, Answer, GLOBEX_REFRESH, Proxy, Setup, amazon, assert_no_secret, write_private,
    },
};
use adsproxy::{
    sandbox::{CLIENT_ID, CLIENT_SECRET, Emulator, RefreshRotation},
    testing::{Clock, Region, SystemClock},
};
use http::Method;
use serde_json::{Value, json};
use std::{
    io::Write as _,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// In which a running server uses what was imported.
const SOON: Duration = Duration::from_secs(3);
const FERNET_KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZmZlZGNiYTk4NzY1NDMyMTA=";

#[tokio::test(flavor = "multi_thread")]
async fn a_running_server_serves_what_is_imported_and_what_replaces_it() {
    let amazon = amazon().await;
    let lwa = &amazon.state().lwa;
    for name in ["one", "two", "three"] {
        lwa.add_grant(name, CLIENT_ID, &format!("Atzr|{name}"), vec![]);
    }
    let proxy = Proxy::with(&amazon, file_store());
    let heading = "account,refresh_token,region\n";
    write(&proxy, "a.csv", &format!("{heading}shop,Atzr|one,na\nstall,Atzr|two,eu\n"));
    assert_eq!(ask(&proxy, "shop").await.status, 404, "it is not imported yet");
    import(&proxy, "a.csv", &[]);
    served_soon(&proxy, "shop", "one").await;
    served_soon(&proxy, "stall", "two").await;

    write(&proxy, "a.csv", &format!("{heading}shop,Atzr|three,na\n"));
    import(&proxy, "a.csv", &[]);
    tokio::time::sleep(SOON).await;
    assert_eq!(served_as(&ask(&proxy, "shop").await), "one", "without --replace");
    import(&proxy, "--replace a.csv", &[]);
    served_soon(&proxy, "shop", "three").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_command_put_in_place_is_served_when_the_command_has_ended() {
    let amazon = amazon().await;
    for name in ["one", "two", "three"] {
        amazon.state().lwa.add_grant(name, CLIENT_ID, &format!("Atzr|{name}"), vec![]);
    }
    let proxy = Proxy::with(&amazon, file_store());
    let add = |grant: &str, arguments: &str| {
        let said = said_for(&mut command(&proxy, arguments), grant);
        assert_eq!(said.code, Some(0), "{said:?}");
    };
    add("Atzr|one", "account add shop --region na");
    assert_eq!(served_as(&ask(&proxy, "shop").await), "one");
    add("Atzr|two", "account add shop --replace");
    assert_eq!(served_as(&ask(&proxy, "shop").await), "two");

    let table = |grant: &str| {
        let names = (1..=40).map(|number| format!("stall-{number},Atzr|{grant},eu\n"));
        format!("account,refresh_token,region\n{}", names.collect::<String>())
    };
    assert_eq!(ask(&proxy, "stall-40").await.status, 404, "it is not imported yet");
    write(&proxy, "a.csv", &table("two"));
    import(&proxy, "a.csv", &[]);
    for number in 1..=40 {
        assert_eq!(served_as(&ask(&proxy, &format!("stall-{number}")).await), "two");
    }
    write(&proxy, "a.csv", &table("three"));
    import(&proxy, "--replace a.csv", &[]);
    for number in 1..=40 {
        assert_eq!(served_as(&ask(&proxy, &format!("stall-{number}")).await), "three");
    }
    // The server rejects the last one of these, and serves the other all the same.
    write(&proxy, "b.csv", "account,refresh_token,region\nkiosk,Atzr|one,eu\nnowhere,Atzr|two,\n");
    let said = said_for(&mut command(&proxy, "import b.csv"), "");
    assert_eq!(said.code, Some(1), "{said:?}");
    assert_eq!(served_as(&ask(&proxy, "kiosk").await), "one");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_rotated_since_is_unchanged() {
    let amazon = amazon().await;
    let lwa = &amazon.state().lwa;
    lwa.configure(|settings| settings.rotation = RefreshRotation::OldDies);
    lwa.add_grant("one", CLIENT_ID, "Atzr|one", vec![]);
    let toml = "[token]\nforced_refresh_min_interval_secs = 0\n".to_owned();
    let proxy = Proxy::with(&amazon, Setup { toml, ..file_store() });
    write(&proxy, "a.csv", "account,refresh_token,region\nshop,Atzr|one,na\n");
    import(&proxy, "a.csv", &[]);
    served_soon(&proxy, "shop", "one").await;
    for _ in 0..3 {
        lwa.expire_access_tokens(Some("one"));
        assert_eq!(served_as(&ask(&proxy, "shop").await), "one");
    }
    let said = import(&proxy, "--replace a.csv", &[]);
    assert!(said.err.contains("1 unchanged"), "{said:?}");
    lwa.expire_access_tokens(Some("one"));
    assert_eq!(served_as(&ask(&proxy, "shop").await), "one");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_moves_while_its_refresh_waits_stays_moved_and_loses_no_token() {
    let amazon = amazon().await;
    let lwa = &amazon.state().lwa;
    lwa.configure(|settings| settings.rotation = RefreshRotation::OldDies);
    lwa.add_grant("one", CLIENT_ID, "Atzr|one", vec![]);
    lwa.add_grant("two", CLIENT_ID, "Atzr|two", vec![]);
    let toml = "[token]\nforced_refresh_min_interval_secs = 0\nlwa_timeout_secs = 60\n".to_owned();
    let proxy = Proxy::with(&amazon, Setup { toml, ..file_store() });
    let heading = "account,refresh_token,region\n";
    write(&proxy, "a.csv", &format!("{heading}shop,Atzr|one,na\n"));
    import(&proxy, "a.csv", &[]);
    served_soon(&proxy, "shop", "one").await;
    let shop = "shop".parse().expect("an alias");
    let record =
        async || open_store(&proxy).load(&shop).await.expect("it reads").expect("a record");
    for (gate, region) in [(&lwa.gate, Region::Eu), (&lwa.responses, Region::Fe)] {
        write(&proxy, "a.csv", &format!("{heading}shop,Atzr|one,{region}\n"));
        lwa.expire_access_tokens(Some("one"));
        let before = record().await;
        gate.hold();
        let moved_meanwhile = async {
            gate.until_waiting(1).await;
            let said = import(&proxy, "--replace a.csv", &[]);
            gate.release();
            said
        };
        let (_, said) = tokio::join!(ask(&proxy, "shop"), moved_meanwhile);
        assert!(said.err.contains("1 replaced"), "{said:?}");
        served_soon(&proxy, "shop", "one").await;
        let record = record().await;
        assert_eq!((record.region, record.epoch), (region, before.epoch));
        assert_eq!(record.refresh_token.expose(), lwa.grant("one").expect("a grant").current());
        assert_ne!(record.refresh_token, before.refresh_token, "it has rotated");
    }

    // The twin: another grant is no move, and what the refresh brings of the old one is void.
    write(&proxy, "a.csv", &format!("{heading}shop,Atzr|two,na\n"));
    lwa.expire_access_tokens(Some("one"));
    lwa.responses.hold();
    let replaced_meanwhile = async {
        lwa.responses.until_waiting(1).await;
        import(&proxy, "--replace a.csv", &[]);
        lwa.responses.release();
    };
    tokio::join!(ask(&proxy, "shop"), replaced_meanwhile);
    served_soon(&proxy, "shop", "two").await;
    assert_eq!(record().await.region, Region::Na);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_access_token_that_lives_is_used_without_a_refresh() {
    let amazon = amazon().await;
    amazon.state().lwa.add_grant("one", CLIENT_ID, "Atzr|one", vec![]);
    let proxy = Proxy::with(&amazon, file_store());
    let token = access_token(&amazon, "Atzr|one").await;
    let record = |expires_in: u64| {
        json!({
            "account": "shop", "region": "na", "refresh_token": "Atzr|one", "access_token": token,
            "expires_at": SystemClock.now().unix() + expires_in,
        })
    };
    write(&proxy, "a.json", &record(3000).to_string());
    let calls = amazon.state().record.counts().token_calls;
    import(&proxy, "a.json", &[]);
    served_soon(&proxy, "shop", "one").await;
    assert_eq!(amazon.state().record.counts().token_calls, calls, "no refresh was needed");

    // The twin: one that has expired is dropped, and the first request needs a refresh.
    let mut other = record(0);
    other["account"] = json!("stall");
    write(&proxy, "a.json", &other.to_string());
    import(&proxy, "a.json", &[]);
    served_soon(&proxy, "stall", "one").await;
    assert_eq!(amazon.state().record.counts().token_calls, calls + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_legacy_store_of_the_real_cryptography_package_is_served() {
    let Some(mut python) = extras::python() else { return };
    let amazon = amazon().await;
    for name in ["one", "two"] {
        amazon.state().lwa.add_grant(name, CLIENT_ID, &format!("Atzr|{name}"), vec![]);
    }
    let proxy = Proxy::with(&amazon, file_store());
    let token = access_token(&amazon, "Atzr|one").await;
    let now = SystemClock.now().unix();
    let records = json!([
        {
            "account": "shop", "region": "na", "refresh_token": "Atzr|one", "access_token": token,
            "expires_at": now + 3000, "updated_at": now, "token_type": "bearer",
        },
        {
            "account": "stall", "region": "eu", "refresh_token": "Atzr|two", "access_token": token,
            "expires_at": "2026-01-01T00:00:00Z", "updated_at": now, "token_type": "bearer",
        },
    ]);
    python.arg("tests/sdk/legacy_store.py").arg(FERNET_KEY);
    python.current_dir(env!("CARGO_MANIFEST_DIR"));
    let made = said_for(&mut python, &records.to_string());
    assert_eq!(made.code, Some(0), "{}", made.err);
    assert!(!made.out.contains("Atzr|") && !made.out.contains("Atza|"), "all tokens are encrypted");
    write(&proxy, "legacy.json", &made.out);
    let calls = amazon.state().record.counts().token_calls;
    import(&proxy, "--from legacy legacy.json", &[("FERNET_KEY", FERNET_KEY)]);
    served_soon(&proxy, "shop", "one").await;
    assert_eq!(amazon.state().record.counts().token_calls, calls, "its access token lives");
    served_soon(&proxy, "stall", "two").await;
    assert_eq!(amazon.state().record.counts().token_calls, calls + 1, "this one's does not");
}

/// What LWA gives for `refresh_token`.
async fn access_token(amazon: &Emulator, refresh_token: &str) -> String {
    let form = format!(
        "grant_type=refresh_token&refresh_token={}&client_id={CLIENT_ID}&client_secret={CLIENT_SECRET}",
        refresh_token.replace('|', "%7C"),
    );
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let request = client.post(format!("http://{}/auth/o2/token", amazon.addr()));
    let request = request.header("Content-Type", "application/x-www-form-urlencoded").body(form);
    let answer = request.send().await.expect("an answer").bytes().await.expect("a body");
    let answer: Value = serde_json::from_slice(&answer).expect("JSON");
    answer["access_token"].as_str().expect("a token").to_owned()
}

async fn ask(proxy: &Proxy, account: &str) -> Answer {
    proxy.send(proxy.request(Method::GET, "/_echo").header("X-Ads-Account", account)).await
}

fn served_as(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["account"].as_str().expect("an account").to_owned()
}

/// Polls until `account` is served with the grant of `owner`.
async fn served_soon(proxy: &Proxy, account: &str, owner: &str) {
    let started = Instant::now();
    loop {
        let answer = ask(proxy, account).await;
        if answer.status == 200 && served_as(&answer) == owner {
            return;
        }
        assert!(started.elapsed() < SOON * 2, "{account} is not soon served as {owner}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn write(proxy: &Proxy, name: &str, text: &str) {
    write_private(&proxy.dir.path().join(name), text);
}

/// Runs `adsproxy import` beside the server, on its configuration; it must succeed.
fn import(proxy: &Proxy, arguments: &str, variables: &[(&str, &str)]) -> Said {
    let mut command = command(proxy, &format!("import {arguments}"));
    let said = said_for(command.envs(variables.iter().copied()), "");
    for text in [&said.out, &said.err] {
        assert_no_secret("what import said", text.as_bytes());
    }
    assert_eq!(said.code, Some(0), "{said:?}");
    said
}

/// The program beside the server, on its configuration.
fn command(proxy: &Proxy, arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_adsproxy"));
    command
        .args(["--config", "proxy.toml"])
        .args(arguments.split(' '))
        .current_dir(proxy.dir.path())
        .env("CLIENT_SECRET", CLIENT_SECRET)
        .env("ACME_REFRESH", ACME_REFRESH)
        .env("GLOBEX_REFRESH", GLOBEX_REFRESH);
    command
}

/// What `command` says for `input`.
fn said_for(command: &mut Command, input: &str) -> Said {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    // A command that reads nothing may have ended already.
    let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
    child.wait_with_output().expect("it ends").into()
}

fn file_store() -> Setup {
    Setup { file_store: true, ..Setup::default() }
}
