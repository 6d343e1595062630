//! What servers on one PostgreSQL share besides tokens: logins, links, sessions, messages to hooks and
//! the audit log.

use crate::support::{
    callers::TestCaller,
    load::Load,
    login::{INITECH, ask, ask_with, at_amazon, begin, come_back, consent, exchanges, login_setup},
    postgres::database,
    program::{Said, said},
    proxy::{ACME_REFRESH, GLOBEX_REFRESH, Proxy, Setup, amazon, assert_no_secret, eventually},
    receiver::{Manner, Receiver, SECRET},
    socket::Wire,
};
use adsproxy::{
    sandbox::{CLIENT_SECRET, Emulator},
    testing::PresentedKey,
};
use http::Method;
use serde_json::Value;
use std::{collections::BTreeSet, process::Command, time::Instant};

/// Servers know of a revocation after this.
const NEWS: std::time::Duration = std::time::Duration::from_secs(1);

/// Two servers on one database, each with an admin listener; none if the test is to be left out.
fn pair(amazon: &Emulator, toml: &str) -> Option<(Proxy, Proxy)> {
    let env = vec![("HOOK_SECRET".to_owned(), SECRET.to_owned())];
    let setup =
        Setup { toml: toml.to_owned(), database: Some(database()?), env, ..Setup::default() };
    let one = Proxy::with(amazon, login_setup(amazon, setup));
    let two = one.twin_of_login();
    Some((one, two))
}

fn run(proxy: &Proxy, arguments: &str) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_adsproxy"));
    command.arg("--config").arg(proxy.dir.path().join("proxy.toml"));
    command.args(arguments.split_whitespace()).env_remove("XDG_RUNTIME_DIR");
    command.env("CLIENT_SECRET", CLIENT_SECRET).env("HOOK_SECRET", SECRET);
    command.env("ACME_REFRESH", ACME_REFRESH).env("GLOBEX_REFRESH", GLOBEX_REFRESH);
    let said = said(&mut command);
    assert_no_secret("the output", format!("{said:?}").as_bytes());
    said
}

async fn sees(proxy: &Proxy, account: &str) -> u16 {
    let request = proxy.request(Method::GET, "/v2/profiles").header("X-Ads-Account", account);
    proxy.send(request).await.status.as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_one_server_begins_ends_on_another() {
    let amazon = amazon().await;
    let Some((one, two)) = pair(&amazon, "") else { return };
    let begun = begin(one.admin, INITECH).await;
    let path = consent(&begun, INITECH).await;
    let done = come_back(two.admin, &path, &begun.cookie).await;
    assert_eq!(done.status, 200, "{}", done.text);
    let again = come_back(one.admin, &path, &begun.cookie).await;
    assert_eq!(again.code(), "state_unknown", "it ended on the other one");
    assert_eq!(exchanges(&amazon), 1);
    eventually("the first server knows the account", || one.ask_admin("/status").contains(INITECH))
        .await;
    assert_eq!((sees(&one, INITECH).await, sees(&two, INITECH).await), (200, 200));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_of_one_server_works_once_on_another_and_the_first_says_how_it_ended() {
    let amazon = amazon().await;
    let Some((one, two)) = pair(&amazon, "") else { return };
    let fields = [("content-type", "application/json")];
    let wish = format!(r#"{{"account":"{INITECH}"}}"#);
    let link = ask_with(one.admin, Method::POST, "/api/auth/amazon/logins", &fields, wish).await;
    assert_eq!(link.status, 201, "{}", link.text);
    let link = link.json();
    let url: http::Uri = link["url"].as_str().expect("a link").parse().expect("an address");
    let path = url.path_and_query().expect("a path").as_str();
    let outcome = format!("/api/auth/amazon/logins/{}", link["login"].as_str().expect("a login"));
    let html = [("accept", "text/html")];
    let sent = ask(two.admin, Method::GET, path, &html).await;
    assert_eq!(sent.status, 303, "{}", sent.text);
    let back = at_amazon(sent.location(), &format!("account={INITECH}")).await;
    let done = come_back(one.admin, &back, &sent.cookie()).await;
    assert_eq!(done.json()["state"], "connected", "{}", done.text);
    for server in [&one, &two] {
        assert_ne!(ask(server.admin, Method::GET, path, &html).await.status, 303, "it worked once");
        let said = ask(server.admin, Method::GET, &outcome, &[]).await;
        assert_eq!(said.json()["state"], "connected", "{}", said.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_one_server_opens_another_and_ends_there_within_a_second() {
    let amazon = amazon().await;
    let caller = TestCaller::new("etl", "");
    let toml = caller.toml.clone() + "\n[auth]\nrequired = true\n";
    let Some((one, two)) = pair(&amazon, &toml) else { return };
    let status = |proxy: &Proxy, key: &str| {
        let head =
            format!("GET /a/acme/_sink HTTP/1.1\r\nHost: localhost\r\nX-Ads-Key: {key}\r\n\r\n");
        Wire::open(proxy.addr).send(head).answer().status.as_u16()
    };
    for _ in 0..3 {
        let load = Load::measure();
        let issued = run(&one, "caller issue etl --ttl 1h");
        assert_eq!(issued.code, Some(0), "{issued:?}");
        let key = issued.out.trim_end();
        let id = PresentedKey::parse(key).expect("a key").id.to_string();
        for server in [&one, &two] {
            eventually("the server knows it", || status(server, key) == 200).await;
        }
        let revoked = run(&one, &format!("caller revoke {id}"));
        let began = Instant::now();
        assert!(revoked.out.starts_with("session "), "{revoked:?}");
        eventually("the other server rejects it", || status(&two, key) != 200).await;
        let (took, slack) = (began.elapsed(), load.slack());
        assert!(took < NEWS + slack, "{took:?}, and the machine was late by {slack:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_to_a_hook_is_delivered_once_whichever_server_has_it() {
    let (amazon, receiver) = (amazon().await, Receiver::start().await);
    receiver.be(Manner::Status(503));
    let hook = receiver.hook("ops", r#"events = ["token.refreshed"]"#);
    let toml = format!(
        "{hook}[outbox]\nretry_min_secs = 0.05\nretry_max_secs = 0.2\n\
         [token]\nforced_refresh_min_interval_secs = 0\n"
    );
    let Some((one, two)) = pair(&amazon, &toml) else { return };
    for (server, account) in [(&one, "acme"), (&two, "globex")].repeat(4) {
        amazon.state().lwa.expire_access_tokens(Some(account));
        assert_eq!(sees(server, account).await, 200);
    }
    // Both look at what they may take over meanwhile.
    eventually("both try", || receiver.all().len() > 30).await;
    let ids: BTreeSet<_> = receiver.all().iter().map(|one| one.id().to_owned()).collect();
    receiver.be(Manner::Status(204));
    let waiting = |proxy: &Proxy| proxy.metric("adsproxy_hook_outbox_messages");
    eventually("nothing waits", || waiting(&one) + waiting(&two) == 0.0).await;
    let taken: Vec<_> = receiver.taken().iter().map(|one| one.id().to_owned()).collect();
    let once: BTreeSet<_> = taken.iter().cloned().collect();
    assert_eq!(taken.len(), once.len(), "none of them twice");
    assert!(ids.is_subset(&once) && once.len() >= 8, "{}", once.len());
}

/// Changes of the log by SQL, in `{log}`: what is done, and which kind of finding says so.
const TAMPERINGS: [(&str, &str, &str); 8] = [
    ("edit", "UPDATE {log} SET line = replace(line, '\"acme\"', '\"evil\"')", "changed"),
    ("delete a line", "DELETE FROM {log} WHERE number = 3", "missing"),
    ("delete the first", "DELETE FROM {log} WHERE number = 1", "no_beginning"),
    (
        "cut off the end",
        "DELETE FROM {log} a WHERE number = (SELECT max(number) FROM {log} b WHERE a.chain = b.chain)",
        "cut_off",
    ),
    (
        "exchange two lines",
        "UPDATE {log} SET number = CASE number WHEN 2 THEN -3 ELSE -2 END WHERE number IN (2, 3);
         UPDATE {log} SET number = -number WHERE number < 0",
        "moved",
    ),
    (
        "repeat a line",
        "INSERT INTO {log} (chain, number, line) SELECT chain, 1000, line FROM {log} WHERE number = 2",
        "repeated",
    ),
    ("rename a chain", "UPDATE {log} SET chain = 'other' || chain", "foreign_chain"),
    ("delete a chain", "DELETE FROM {log}", "cut_off"),
];

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_log_has_a_chain_per_server_and_every_change_by_sql_is_found() {
    let amazon = amazon().await;
    let every_401 = "[token]\nforced_refresh_min_interval_secs = 0\n";
    let Some((one, two)) = pair(&amazon, every_401) else { return };
    for (server, account) in [(&one, "acme"), (&two, "globex")].repeat(3) {
        amazon.state().lwa.expire_access_tokens(Some(account));
        assert_eq!(sees(server, account).await, 200);
    }
    let refreshes = |text: &str| text.matches("token.refresh").count();
    eventually("each server sees the entries of both", || {
        [&one, &two].iter().all(|server| refreshes(&server.ask_admin("/api/v1/audit")) == 6)
    })
    .await;
    // Page by page, each entry once.
    let (mut cursor, mut pages) = (String::new(), Vec::new());
    loop {
        let page =
            ask(two.admin, Method::GET, &format!("/api/v1/audit?limit=4{cursor}"), &[]).await;
        let page = page.json();
        pages.extend(page["entries"].as_array().expect("entries").iter().map(Value::to_string));
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(refreshes(&pages.join("\n")), 6);
    assert_eq!(pages.len(), pages.iter().collect::<BTreeSet<_>>().len());
    let tail = run(&one, "audit tail -n 100 --json");
    let entries: Vec<Value> =
        tail.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let count = |action: &str| entries.iter().filter(|entry| entry["action"] == action).count();
    assert_eq!((count("server.start"), count("audit.begin")), (2, 2), "{}", tail.out);
    assert_eq!(refreshes(&run(&one, "audit tail --account acme").out), 3);

    let verify = || run(&one, "audit verify --json");
    let report: Value = serde_json::from_str(&verify().out).expect("JSON");
    assert_eq!((&report["clean"], &report["files"]), (&true.into(), &2.into()), "{report}");
    // They write no more.
    for server in [&one, &two] {
        server.signal("STOP");
    }
    let (url, schema) = one.database().expect("a database");
    let of_schema = |text: &str| {
        let text = text.replace("{log}", &format!("\"{schema}\".audit"));
        text.replace("{copy}", &format!("\"{schema}\".copy"))
    };
    let restore = "DELETE FROM {log};
                   INSERT INTO {log} OVERRIDING SYSTEM VALUE SELECT * FROM {copy}";
    sql(&url, &of_schema("CREATE TABLE {copy} AS TABLE {log}")).await;
    for (what, statement, kind) in TAMPERINGS {
        sql(&url, &of_schema(statement)).await;
        let said = verify();
        assert_eq!(said.code, Some(1), "{what}: {said:?}");
        let report: Value = serde_json::from_str(&said.out).expect("JSON");
        let found: Vec<_> = report["findings"].as_array().expect("findings").to_vec();
        assert!(found.iter().any(|one| one["kind"] == kind), "{what}: {report}");
        assert!(found.iter().all(|one| one["file"].as_str().expect("text").starts_with("chain ")));
        sql(&url, &of_schema(restore)).await;
        assert_eq!(verify().code, Some(0), "{what} was undone");
    }
    for server in [&one, &two] {
        server.signal("CONT");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_only_add_to_the_audit_log_suffices() {
    let amazon = amazon().await;
    let Some((owner, _)) = pair(&amazon, "") else { return };
    let (url, schema) = owner.database().expect("a database");
    let role = format!("of {schema}");
    let statements = include_str!("../docs/postgres.md");
    let grants = statements.split("```sql").nth(1).and_then(|rest| rest.split("```").next());
    let grants =
        grants.expect("statements").replace("SCHEMA adsproxy", &format!("SCHEMA \"{schema}\""));
    let grants = grants.replace("adsproxy.audit", &format!("\"{schema}\".audit"));
    let grants = grants.replace("TO proxy", &format!("TO \"{role}\""));
    let grants = grants.replace("FROM proxy", &format!("FROM \"{role}\""));
    sql(&url, &format!("CREATE ROLE \"{role}\" LOGIN; {grants}")).await;
    let its_url = url.replace("adsproxy@", &format!("{}@", role.replace(' ', "%20")));
    let database = Some((its_url.clone(), schema.clone()));
    let proxy = Proxy::with(&amazon, Setup { database, ..Setup::default() });
    assert_eq!(sees(&proxy, "acme").await, 200);
    eventually("it is on record", || proxy.ask_admin("/api/v1/audit").contains("token.refresh"))
        .await;
    for statement in ["DELETE FROM {log}", "TRUNCATE {log}", "UPDATE {log} SET line = ''"] {
        let statement = statement.replace("{log}", &format!("\"{schema}\".audit"));
        let refused = try_sql(&its_url, &statement).await.expect_err("refused");
        assert!(refused.contains("permission denied"), "{statement}: {refused}");
    }
}

/// Runs statements.
async fn sql(url: &str, statements: &str) {
    let done = try_sql(url, statements).await;
    done.unwrap_or_else(|error| panic!("{statements}: {error}"));
}

/// Runs statements that may be refused.
async fn try_sql(url: &str, statements: &str) -> Result<(), String> {
    let (client, connection) =
        tokio_postgres::connect(url, tokio_postgres::NoTls).await.expect("a connection");
    tokio::spawn(connection);
    let done = client.batch_execute(statements).await;
    done.map_err(|error| error.as_db_error().expect("of the server").to_string())
}
