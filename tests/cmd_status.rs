//! `adsproxy status` and `adsproxy wait`: what the running server says, once or live.

use crate::support::{
    commands::Commands,
    program::said,
    proxy::{Proxy, Setup, amazon},
};
use std::{
    io::{BufRead, BufReader},
    process::Stdio,
    time::Instant,
};

fn beside(proxy: &Proxy, commands: &Commands) {
    commands.edit("admin = \"127.0.0.1:0\"", &format!("admin = \"{}\"", proxy.admin));
}

#[tokio::test(flavor = "multi_thread")]
async fn is_shown_again_and_again_and_outlives_a_server() {
    let amazon = amazon().await;
    let mut proxy = Proxy::start(&amazon);
    let commands = Commands::new(&amazon, &Setup::default());
    beside(&proxy, &commands);
    let mut child = commands
        .command("status --json --watch 100ms")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut out = BufReader::new(child.stdout.take().expect("piped"));
    let mut generation = || {
        let mut line = String::new();
        out.read_line(&mut line).expect("a line");
        let status: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        status["accounts"][0]["generation"].as_u64().expect("a number")
    };
    assert_eq!(generation(), 0);
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    while generation() != 1 {}
    proxy.kill();
    let mut err = BufReader::new(child.stderr.take().expect("piped"));
    let mut line = String::new();
    err.read_line(&mut line).expect("a line");
    assert!(line.contains("no adsproxy responds"), "{line}");
    assert!(child.try_wait().expect("a child of ours").is_none(), "it goes on looking");
    child.kill().expect("killed");
    child.wait().expect("it ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_is_plain_without_a_terminal_and_the_store_is_read_offline() {
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    let commands = Commands::with_store(&amazon);
    beside(&proxy, &commands);
    let table = commands.run("status");
    assert_eq!(table.code, Some(0), "{table:?}");
    let lines: Vec<&str> = table.out.lines().collect();
    assert!(lines[1].starts_with("ACCOUNT") && lines[2].starts_with("acme"), "{}", table.out);
    assert!(!table.out.contains('\x1b'), "no colours in a pipe");
    drop(proxy);
    let gone = commands.run("status");
    assert_eq!((gone.code, gone.out.as_str()), (Some(69), ""));
    assert!(gone.err.contains("status --offline"), "{}", gone.err);
    let offline = commands.run("status --offline --json");
    let accounts: serde_json::Value = serde_json::from_str(&offline.out).expect("JSON");
    assert_eq!(accounts[0]["account"], "acme");
    assert_eq!(commands.run("status --offline --watch").code, Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_ends_when_the_server_is_ready_or_the_time_is_over() {
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    let commands = Commands::new(&amazon, &Setup::default());
    beside(&proxy, &commands);
    assert_eq!(commands.run("wait").code, Some(0));
    drop(proxy);
    let began = Instant::now();
    let said = said(&mut commands.command("wait --max 300ms"));
    assert_eq!(said.code, Some(69), "{said:?}");
    assert!(began.elapsed().as_millis() >= 300 && said.err.contains("300ms"), "{said:?}");
    assert_eq!(commands.run("wait --max never").code, Some(2));
}
