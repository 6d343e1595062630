//! `adsproxy policy explain --session`: judged as the session is, by what it was made with, its end and
//! the configuration as it is now.

use crate::support::{
    callers::TestCaller,
    commands::Commands,
    login::ask_with,
    program::Said,
    proxy::{Proxy, Setup, amazon},
    signer::TestIssuer,
};
use adsproxy::{
    sandbox::Emulator,
    testing::{KeyKind, NewKey},
};
use http::Method;
use serde_json::{Value, json};

/// A store without a server, with `callers`.
fn commands(amazon: &Emulator, callers: &[&TestCaller]) -> Commands {
    let toml: String = callers.iter().map(|caller| caller.toml.as_str()).collect();
    Commands::new(amazon, &Setup { toml, file_store: true, ..Setup::default() })
}

fn ran(commands: &Commands, line: &str) -> String {
    let said: Said = commands.run(line);
    assert_eq!((said.code, said.err.contains("adsproxy:")), (Some(0), false), "{line}: {said:?}");
    said.out
}

fn json_of(commands: &Commands, line: &str) -> Value {
    serde_json::from_str(&ran(commands, line)).expect("JSON")
}

fn issue(commands: &Commands, line: &str) -> String {
    let made = json_of(commands, &format!("caller issue --json {line}"));
    made["id"].as_str().expect("an id").to_owned()
}

fn explain(commands: &Commands, session: &str, line: &str) -> Value {
    json_of(commands, &format!("policy explain --json --session {session} {line}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_judged_as_its_caller_narrowed_by_what_it_was_made_with() {
    let amazon = amazon().await;
    let caller = TestCaller::new("etl", "tenant = \"t1\"\npaths = [\"/sp/*\", \"/mcp\"]");
    let commands = commands(&amazon, &[&caller]);
    let whole = issue(&commands, "etl --ttl 1h");
    let narrow = issue(&commands, "etl --ttl 1h --account acme --read-only");
    for (session, line, rule, allow) in [
        (&whole, "POST /sp/campaigns", Value::Null, Value::Null),
        (&whole, "--account x GET /sp/campaigns", Value::Null, Value::Null),
        (&whole, "GET /sd/x", json!("paths"), json!(r#"paths = ["/sp/*", "/mcp", "/sd/x"]"#)),
        (&narrow, "--account acme POST /sp/campaigns/list", Value::Null, Value::Null),
        (&narrow, "POST /sp/campaigns", json!("read_only"), Value::Null),
        (&narrow, "--account x GET /sp/campaigns", json!("accounts"), Value::Null),
        (&narrow, "GET /sd/x", json!("paths"), json!(r#"paths = ["/sp/*", "/mcp", "/sd/x"]"#)),
        (&narrow, "--tool x-create_y", json!("read_only"), Value::Null),
        (&narrow, "--tool x-query_y", Value::Null, Value::Null),
    ] {
        let said = explain(&commands, session, line);
        assert_eq!((&said["rule"], &said["allow"]), (&rule, &allow), "{line}: {said}");
        assert_eq!(said["allowed"], rule.is_null(), "{line}: {said}");
        let who = (&said["caller"], &said["session"], &said["tenant"]);
        assert_eq!(who, (&json!("etl"), &json!(session), &json!("t1")));
    }
    // As it is found in logs, and for a person.
    let line = format!("policy explain --session adss_{narrow} POST /sp/campaigns");
    assert_eq!(
        ran(&commands, &line),
        format!(
            "refused    by [[callers]] etl, session {narrow}\noperation  write\n\
             rule       read_only: the operation writes, or is not known to only read, and the \
             session was issued for reading only\n"
        )
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_has_ended_is_refused_with_why() {
    let amazon = amazon().await;
    let caller = TestCaller::new("etl", "");
    let commands = commands(&amazon, &[&caller]);
    let (short, ended, gone) = (
        issue(&commands, "etl --ttl 1s"),
        issue(&commands, "etl --ttl 1h"),
        issue(&commands, "etl --ttl 1h"),
    );
    ran(&commands, &format!("caller revoke {ended}"));
    let never = NewKey::generate(KeyKind::Session).expect("a key").presented().id.to_string();
    for session in [&ended, &never] {
        let said = explain(&commands, session, "GET /v2/profiles");
        assert_eq!((&said["allowed"], &said["rule"]), (&json!(false), &json!("session")), "{said}");
        assert!(said["reason"].as_str().is_some_and(|why| why.contains("no such session")));
    }
    assert_eq!(explain(&commands, &gone, "GET /v2/profiles")["allowed"], true);
    commands.edit("name = \"etl\"", "name = \"other\"");
    let said = explain(&commands, &gone, "GET /v2/profiles");
    assert!(said["reason"].as_str().is_some_and(|why| why.contains("etl is not in")), "{said}");
    commands.edit("name = \"other\"", "name = \"etl\"");
    let over = || explain(&commands, &short, "GET /v2/profiles");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while over()["allowed"] == true {
        assert!(std::time::Instant::now() < deadline, "it never ends");
    }
    assert_eq!((&over()["rule"], &over()["allowed"]), (&json!("session"), &json!(false)));
    let said = commands.run("policy explain --session x GET /v2/profiles");
    assert_eq!((said.code, said.out.as_str()), (Some(1), ""), "{said:?}");
    for line in ["--session 7Fh2kQ9x --caller etl GET /x", "--session 7Fh2kQ9x --tenant t GET /x"] {
        assert_eq!(commands.run(&format!("policy explain {line}")).code, Some(2), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_a_running_server_ends_with_the_key_or_the_permission_that_it_was_made_with() {
    let amazon = amazon().await;
    let maker = TestCaller::new("maker", "operator = true");
    let etl = TestCaller::new("etl", "");
    let issuer = TestIssuer::new("tenant_claim = [\"org_id\"]\nsession_ttl_max_secs = 600");
    let toml = [&maker.toml, &etl.toml, &issuer.toml].map(String::as_str).concat();
    let proxy = Proxy::with(&amazon, Setup { toml, file_store: true, ..Setup::default() });
    let make = async |name: &str, credential: String, body: Value| {
        let fields = [(name, credential.as_str()), ("content-type", "application/json")];
        let path = "/api/v1/sessions";
        let made = ask_with(proxy.admin, Method::POST, path, &fields, body.to_string()).await;
        assert_eq!(made.status, 201, "{}", made.text);
        made.json()["id"].as_str().expect("an id").to_owned()
    };
    let body = json!({ "caller": "etl", "ttl_secs": 600 });
    let with_key = make("x-ads-key", maker.key.clone(), body).await;
    let token = issuer.token(json!({ "sub": "user_1", "org_id": "org_1" }));
    let users = make("authorization", format!("Bearer {token}"), json!({ "ttl_secs": 600 })).await;
    let commands = Commands::of(&proxy);
    let said = explain(&commands, &users, "GET /v2/profiles");
    assert_eq!((&said["allowed"], &said["issuer"]), (&json!(true), &json!("app")), "{said}");
    assert_eq!(said["tenant"], "org_1");
    assert_eq!(explain(&commands, &with_key, "GET /v2/profiles")["allowed"], true);
    ran(&commands, &format!("caller revoke {}", &maker.key[5..13]));
    let said = explain(&commands, &with_key, "GET /v2/profiles");
    assert_eq!((&said["rule"], &said["allowed"]), (&json!("session"), &json!(false)), "{said}");
    assert!(said["reason"].as_str().is_some_and(|why| why.contains("was revoked")), "{said}");
    commands.edit("session_ttl_max_secs = 600", "tenants = [\"user_*\"]");
    let said = explain(&commands, &users, "GET /v2/profiles");
    assert_eq!(said["rule"], "session_ttl_max_secs", "{said}");
    commands.edit("tenants = [", "session_ttl_max_secs = 600\ntenants = [");
    let said = explain(&commands, &users, "GET /v2/profiles");
    let allow = json!(r#"tenants = ["user_*", "org_1"]"#);
    assert_eq!((&said["rule"], &said["allow"]), (&json!("tenants"), &allow), "{said}");
}
