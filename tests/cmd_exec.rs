//! `adsproxy exec`: a command with a private proxy, which no other program can use and which ends with it.

use crate::support::{
    commands::Commands,
    extras,
    program::{said, with_default_signals},
    proxy::{ACME_PROFILE, ACME_REFRESH, amazon, ask, assert_no_secret, eventually},
};
use adsproxy::{
    sandbox::{CLIENT_SECRET, LwaFault, Surface, Times},
    testing::{KeyKind, PresentedKey},
};
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::SocketAddr,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

/// The program as `exec acme -- sh -c <script>`.
fn shell(commands: &Commands, script: &str) -> Command {
    let mut command = commands.command("exec acme -- sh -c");
    command.arg(script);
    with_default_signals(command)
}

/// Host and port of a base URL, and its path.
fn parts(base: &str) -> (SocketAddr, String) {
    let rest = base.strip_prefix("http://").expect("an address");
    let (address, path) = rest.split_once('/').expect("a path");
    (address.parse().expect("an address"), format!("/{path}"))
}

/// Starts a command that prints its base URL and then waits for a line.
fn waiting(commands: &Commands) -> (Child, SocketAddr, String) {
    let script = "echo $ADS_API_BASE_URL; read line; exit 7";
    let mut child = shell(commands, script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut line = String::new();
    let mut out = BufReader::new(child.stdout.take().expect("piped"));
    out.read_line(&mut line).expect("a line");
    let (address, path) = parts(line.trim_end());
    (child, address, path)
}

fn status_of(address: SocketAddr, target: &str, fields: &str) -> String {
    let answer = ask(address, &format!("GET {target} HTTP/1.1\r\nHost: {address}{fields}"));
    answer.split(' ').nth(1).unwrap_or_default().to_owned()
}

fn is_open(address: SocketAddr) -> bool {
    std::net::TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
}

fn kill(signal: &str, child: &Child) {
    let sent = Command::new("kill").args([signal, &child.id().to_string()]).status();
    assert!(sent.expect("kill runs").success());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_serves_the_one_account_to_holders_of_the_key_and_ends_with_the_command() {
    let amazon = amazon().await;
    let commands = Commands::with_store(&amazon);
    let (mut child, address, base) = waiting(&commands);
    assert!(address.ip().is_loopback());
    let key = base.strip_prefix("/k/").and_then(|rest| rest.strip_suffix("/a/acme"));
    let key = key.expect("a key and an account");
    assert_eq!(PresentedKey::parse(key).expect("a key").kind, KeyKind::Session);
    assert_eq!(status_of(address, &format!("{base}/v2/profiles"), ""), "200");
    let bearer = format!("\r\nAuthorization: Bearer Atza|{key}");
    assert_eq!(status_of(address, "/v2/profiles", &bearer), "200", "the key as a token");
    let shim =
        format!("POST {base}/auth/o2/token HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0");
    assert!(ask(address, &shim).contains("Atza|acme"));

    let seen = amazon.state().record.requests_for(Surface::Api).len();
    let other = "0".repeat(32);
    for (target, fields) in [
        ("/v2/profiles".to_owned(), String::new()),
        ("/a/acme/v2/profiles".to_owned(), String::new()),
        ("/v2/profiles".to_owned(), "\r\nX-Ads-Account: acme".to_owned()),
        ("/v2/profiles".to_owned(), "\r\nAuthorization: Bearer Atza|acme".to_owned()),
        ("/v2/profiles".to_owned(), format!("\r\nAuthorization: Bearer Atza|{other}")),
        (format!("/k/{other}/a/acme/v2/profiles"), bearer.clone()),
        (format!("/k/{}/v2/profiles", &key[..31]), String::new()),
    ] {
        assert_eq!(status_of(address, &target, &fields), "403", "{target} {fields}");
    }
    // The key opens neither other accounts nor another machine's page.
    assert_eq!(status_of(address, &format!("/k/{key}/a/globex/v2/profiles"), ""), "404");
    let evil = "\r\nOrigin: https://evil.test";
    assert_eq!(status_of(address, &format!("{base}/v2/profiles"), evil), "403");
    let requests = amazon.state().record.requests_for(Surface::Api);
    assert_eq!(requests.len(), seen, "none of these reached Amazon");
    assert!(requests.iter().all(|request| !format!("{request:?}").contains(key)));

    child.stdin.take().expect("piped").write_all(b"\n").expect("written");
    assert_eq!(child.wait().expect("it ends").code(), Some(7), "the command's own exit code");
    eventually("the proxy is gone", || !is_open(address)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_may_only_read_changes_nothing() {
    let amazon = amazon().await;
    let commands = Commands::with_store(&amazon);
    let script = "for path in sp/campaigns/list sp/campaigns; do curl -s -o answer \\\n\
                  -w '%{http_code}\\n' -X POST -d '{}' $ADS_API_BASE_URL/$path; done";
    let run = |options: &str| {
        let mut command = commands.command(&format!("exec {options} acme -- sh -c"));
        said(command.arg(script)).out
    };
    let (free, bound) = (run(""), run("--read-only"));
    let [list, write] = free.lines().collect::<Vec<_>>()[..] else { panic!("{free}") };
    assert!(list != "403" && write != "403", "{free}");
    assert_eq!(bound, format!("{list}\n403\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_goes_however_the_command_ends() {
    let amazon = amazon().await;
    let commands = Commands::with_store(&amazon);
    for (signal, number) in [("-TERM", 15), ("-INT", 2), ("-HUP", 1), ("-QUIT", 3), ("-KILL", 9)] {
        let (mut child, address, _) = waiting(&commands);
        assert!(is_open(address));
        kill(signal, &child);
        let ended = child.wait().expect("it ends");
        assert_eq!(ended.signal(), Some(number), "the command is what was started");
        eventually("the proxy is gone", || !is_open(address)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_reach_the_command_itself_and_only_once() {
    let amazon = amazon().await;
    let commands = Commands::with_store(&amazon);
    let script = "trap 'echo int' INT; trap 'echo winch' WINCH; trap 'echo term; exit 3' TERM; \
                  echo ready; while :; do sleep 0.05; done";
    let mut child = shell(&commands, script).stdout(Stdio::piped()).spawn().expect("it runs");
    let mut out = BufReader::new(child.stdout.take().expect("piped"));
    let mut next = || {
        let mut line = String::new();
        out.read_line(&mut line).expect("a line");
        line.trim_end().to_owned()
    };
    assert_eq!(next(), "ready");
    for (signal, word) in [("-INT", "int"), ("-WINCH", "winch"), ("-INT", "int")] {
        kill(signal, &child);
        assert_eq!(next(), word);
    }
    kill("-TERM", &child);
    let mut rest = String::new();
    out.read_to_string(&mut rest).expect("text");
    assert_eq!(rest, "term\n");
    assert_eq!(child.wait().expect("it ends").code(), Some(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_command_goes_on_with_its_proxy() {
    let amazon = amazon().await;
    let commands = Commands::with_store(&amazon);
    let (mut child, address, base) = waiting(&commands);
    kill("-STOP", &child);
    assert_eq!(status_of(address, &format!("{base}/v2/profiles"), ""), "200");
    kill("-CONT", &child);
    child.stdin.take().expect("piped").write_all(b"\n").expect("written");
    assert_eq!(child.wait().expect("it ends").code(), Some(7));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_gets_placeholders_and_none_of_the_secrets() {
    let amazon = amazon().await;
    let commands = Commands::with_store(&amazon);
    let real = [
        ("AD_API_CLIENT_ID", "x"),
        ("AD_API_CLIENT_SECRET", CLIENT_SECRET),
        ("AD_API_REFRESH_TOKEN", ACME_REFRESH),
    ];
    let mut command = commands.command("exec acme --region eu -- env");
    command.envs(real).env("HTTP_PROXY", "http://127.0.0.1:9").env("NO_PROXY", ".corp");
    command.env("KEPT", "as it is");
    let said = said(&mut command);
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
    assert_no_secret("the environment", said.out.as_bytes());
    let value = |name: &str| {
        let line = said.out.lines().find_map(|line| line.strip_prefix(&format!("{name}=")));
        line.map(str::to_owned)
    };
    for gone in ["CLIENT_SECRET", "ACME_REFRESH", "GLOBEX_REFRESH"] {
        assert_eq!(value(gone), None);
    }
    assert_eq!(value("KEPT").as_deref(), Some("as it is"));
    assert_eq!(value("AD_API_CLIENT_SECRET").as_deref(), Some("adsproxy"));
    assert_eq!(value("NO_PROXY").as_deref(), Some(".corp,127.0.0.1,localhost,::1"));
    let base = value("AMAZON_ADS_API_BASE_URL").expect("set");
    assert!(base.ends_with("/a/acme@eu"), "{base}");
    assert_eq!(value("AMAZON_ADS_TOKEN_URL"), Some(format!("{base}/auth/o2/token")));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_has_no_child_that_it_did_not_start() {
    let amazon = amazon().await;
    let commands = Commands::with_store(&amazon);
    let said = said(&mut shell(&commands, "cat /proc/$$/task/$$/children"));
    // Its one child is the `cat` itself.
    assert_eq!(said.out.split_whitespace().count(), 1, "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn standard_streams_are_the_commands_own() {
    let amazon = amazon().await;
    let commands = Commands::with_store(&amazon);
    let mut child = shell(&commands, "cat; echo problem >&2")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    child.stdin.take().expect("piped").write_all(b"\0bytes\n").expect("written");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.stdout, b"\0bytes\n");
    assert_eq!(output.stderr, b"problem\n", "adsproxy itself says nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_run_says_why_before_anything_runs() {
    let amazon = amazon().await;
    let commands = Commands::with_store(&amazon);
    let not_found = commands.run("exec acme -- no-such-program");
    assert_eq!(not_found.code, Some(127), "{not_found:?}");
    assert_eq!(commands.run("exec acme -- /etc/passwd").code, Some(126));
    let unknown = commands.run("exec nobody -- true");
    assert!(unknown.code == Some(1) && unknown.err.contains("no account nobody"), "{unknown:?}");
    amazon.state().lwa.revoke("acme");
    assert_eq!(commands.run("token acme").code, Some(77));
    assert_eq!(commands.run("exec acme -- true").code, Some(77), "its death is known");
    for usage in ["exec", "exec acme", "exec acme --", "exec a/b -- true"] {
        assert_eq!(commands.run(usage).code, Some(2), "{usage}");
    }
    let key = commands.path("key");
    fs::write(&key, "no key").expect("a file");
    let broken = commands.run("exec globex -- true");
    assert!(broken.code != Some(0) && broken.err.starts_with("adsproxy: "), "{broken:?}");
    // LWA may be back by the time the command asks.
    let fresh = Commands::with_store(&amazon);
    amazon.state().lwa.faults.add(LwaFault::ServerError, Times::Forever);
    assert_eq!(fresh.run("exec globex true").code, Some(0), "also without --");
}

fn script(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk").join(name).display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn python_amazon_ad_api_works_with_credentials_in_the_code_or_in_the_environment() {
    let Some(python) = extras::python() else { return };
    let amazon = amazon().await;
    amazon.state().lwa.configure(|lwa| lwa.token_lifetime = Duration::from_secs(1));
    let commands = Commands::with_store(&amazon);
    let profile = ACME_PROFILE.to_string();
    for (way, options) in [("code", vec![]), ("env", vec!["--profile", profile.as_str()])] {
        let mut command = commands.command("exec");
        command.args(options).args(["acme", "--"]).arg(python.get_program());
        command.arg(script("exec_client.py")).arg(way);
        // An egress proxy that does not exist: loopback must not go there.
        command.env("HTTP_PROXY", "http://127.0.0.1:9").env("http_proxy", "http://127.0.0.1:9");
        let said = said(&mut command);
        assert_eq!(said.code, Some(0), "{way}: {said:?}");
        assert_eq!(said.out, "profiles 2\ncampaigns 1\n", "{way}: {said:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_and_node_need_the_base_url_only() {
    let amazon = amazon().await;
    let commands = Commands::with_store(&amazon);
    if let Some(python) = extras::python() {
        let code = "import os, requests\n\
                    answer = requests.get(os.environ['ADS_API_BASE_URL'] + '/v2/profiles')\n\
                    print(answer.status_code, len(answer.json()))";
        let mut command = commands.command("exec acme --");
        command.arg(python.get_program()).args(["-c", code]).env("ALL_PROXY", "http://127.0.0.1:9");
        let said = said(&mut command);
        assert_eq!(said.out, "200 2\n", "{said:?}");
    }
    if extras::required("node") {
        let code = "const answer = await fetch(process.env.ADS_API_BASE_URL + '/v2/profiles');\n\
                    console.log(answer.status, (await answer.json()).length);";
        let mut command = commands.command("exec acme -- node --input-type=module -e");
        let said = said(command.arg(code));
        assert_eq!(said.out, "200 2\n", "{said:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_variable_that_could_hold_a_secret_of_ours_reaches_the_command() {
    let amazon = amazon().await;
    let commands = Commands::with_store(&amazon);
    let mut command = commands.command("exec acme -- env");
    let names = [
        "AMAZON_CLIENT_SECRET",
        "AMAZON_REFRESH_TOKEN",
        "AMAZON_ADS_REFRESH_TOKEN",
        "AD_API_REFRESH_TOKEN",
        "LWA_CLIENT_SECRET",
        "FERNET_KEY",
    ];
    for name in names {
        command.env(name, "CANARY");
    }
    command.env("AMAZON_REGION", "kept");
    let said = said(&mut command);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(!said.out.contains("CANARY"), "{}", said.out);
    assert!(said.out.contains("AMAZON_REGION=kept"), "{}", said.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_captures_the_streams_is_done_when_the_command_is() {
    let amazon = amazon().await;
    let commands = Commands::with_store(&amazon);
    // A process that outlives the command keeps a connection to the proxy open.
    let script = "address=${ADS_API_BASE_URL#http://}; address=${address%%/*}; \
                  exec 3<>/dev/tcp/${address%:*}/${address#*:}; sleep 5 >/dev/null 2>&1 & \
                  date +%s%N";
    let mut command = commands.command("exec acme -- bash -c");
    let said = said(command.arg(script));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time");
    let ended: u128 = said.out.trim().parse().expect("nanoseconds");
    let late = Duration::from_nanos(u64::try_from(now.as_nanos() - ended).expect("not long"));
    assert!(late < Duration::from_millis(700), "{late:?} {said:?}");
}
