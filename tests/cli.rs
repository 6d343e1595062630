//! The commands as a user runs them.

use crate::support::program::{Home, said};
use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

const START_TIMEOUT: Duration = Duration::from_secs(30);

/// A home with a key, a store and one application.
fn home_with_store() -> Home {
    let home = Home::new();
    let made = home.run("key init");
    assert_eq!(made.code, Some(0), "{made:?}");
    let (_, lines) = made.out.split_once("\n\n").expect("the lines to add");
    let application = "[lwa]\nclient_id = \"id\"\nclient_secret = { file = \"~/secret\" }\n";
    home.write("secret", "CANARY-client-secret\n", 0o600);
    home.write("proxy.toml", &format!("{application}{lines}"), 0o644);
    home
}

#[test]
fn key_init_makes_a_private_key_and_prints_lines_that_work() {
    let home = home_with_store();
    let key = home.path(".config/adsproxy/key");
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&key), 0o600);
    assert_eq!(mode(key.parent().unwrap()), 0o700);
    let checked = home.run("check-config");
    assert_eq!(checked.code, Some(0), "{checked:?}");
}

#[test]
fn key_init_never_overwrites() {
    let home = Home::new();
    let first = home.run("key init --path key");
    assert_eq!(first.code, Some(0), "{first:?}");
    assert!(first.out.contains("file = \"~/key\""), "{first:?}");
    let key = fs::read_to_string(home.path("key")).unwrap();
    assert!(!first.out.contains(key.trim()) && key.len() == 45, "{first:?}");

    let second = home.run("key init --path key");
    assert_eq!(second.code, Some(1), "{second:?}");
    assert!(second.err.contains("exists already and was left as it is"), "{second:?}");
    assert_eq!(fs::read_to_string(home.path("key")).unwrap(), key);

    std::os::unix::fs::symlink("nowhere", home.path("link")).unwrap();
    assert_eq!(home.run("key init --path link").code, Some(1));
    assert!(!home.path("nowhere").exists());
}

#[test]
fn two_keys_are_never_the_same() {
    let home = Home::new();
    for name in ["a", "b"] {
        assert_eq!(home.run(&format!("key init --path {name}")).code, Some(0));
    }
    assert_ne!(fs::read(home.path("a")).unwrap(), fs::read(home.path("b")).unwrap());
}

#[test]
fn without_configuration_the_next_steps_are_explained() {
    let home = Home::new();
    for arguments in ["", "serve", "check-config", "account list"] {
        let said = home.run(arguments);
        assert_eq!(said.code, Some(78), "{said:?}");
        for part in [
            "looked for\n  /",
            ".config/adsproxy/proxy.toml\n  /etc/adsproxy/proxy.toml\n",
            "adsproxy sandbox",
            "adsproxy key init",
            "[lwa]",
            "[accounts.acme]",
        ] {
            assert!(said.err.contains(part), "{part}\n{}", said.err);
        }
    }
}

#[test]
fn the_lines_that_serve_prints_are_a_configuration() {
    let home = Home::new();
    let said = home.run("serve");
    let (_, after) = said.err.split_once("that `key init` printed:\n").unwrap();
    let (lines, _) = after.split_once("\n  3. ").unwrap();
    home.write("proxy.toml", lines, 0o644);
    assert_eq!(home.run("key init").code, Some(0));
    let mut command = home.command("check-config");
    command.env("AMAZON_CLIENT_SECRET", "x").env("ACME_REFRESH_TOKEN", "y");
    let checked = crate::support::program::said(&mut command);
    assert_eq!(checked.code, Some(0), "{checked:?}");
}

#[test]
fn wrong_usage_exits_with_2() {
    let home = Home::new();
    for arguments in [
        "frobnicate",
        "--log-format xml",
        "account",
        "account add",
        "account add not/an/alias --region na",
        "account add acme --region moon",
        "account add acme --region na --consented-at 20121231",
        "account add acme --region na --consented-at yesterday",
        "account add acme --region na --consented-at 2999-01-01",
        "key",
        "completions nosh",
    ] {
        let said = home.run(arguments);
        assert_eq!(said.code, Some(2), "{arguments}: {said:?}");
    }
}

/// The help of `command` and of all below it, as a user sees it.
#[cfg(feature = "sandbox")]
fn transcript(home: &Home, command: &clap::Command, path: &str, text: &mut String) {
    let said = home.run(&format!("{path} --help"));
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{path}");
    text.push_str(&format!("$ adsproxy{path} --help\n{}\n", said.out));
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        transcript(home, verb, &format!("{path} {}", verb.get_name()), text);
    }
}

#[test]
#[cfg(feature = "sandbox")]
fn help_is_as_written_down() {
    let command = <adsproxy::Cli as clap::CommandFactory>::command();
    let mut text = String::new();
    transcript(&Home::new(), &command, "", &mut text);
    let is = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("help.txt");
    fs::write(&is, &text).unwrap();
    let lines = text.lines().chain([""]).zip(include_str!("help.txt").lines().chain([""]));
    for (is_line, line) in lines {
        assert_eq!(is_line, line, "if it is meant: cp {} tests/help.txt", is.display());
    }
    assert!(text.lines().all(|line| line.chars().count() <= 100), "a line is too long to read");
}

#[test]
fn help_and_completions_know_every_command() {
    let home = Home::new();
    let help = home.run("--help");
    assert_eq!(help.code, Some(0));
    for verb in [
        "serve",
        "check-config",
        "account",
        "import",
        "status",
        "key",
        "store",
        "caller",
        "policy",
        "healthcheck",
        "completions",
        "man",
        "token",
        "curl",
        "env",
        "exec",
        "doctor",
        "wait",
    ] {
        assert!(help.out.contains(&format!("\n  {verb} ")), "{verb}\n{}", help.out);
        for shell in ["bash", "zsh", "fish"] {
            let script = home.run(&format!("completions {shell}"));
            assert!(script.out.contains(verb), "{shell} {verb}");
        }
    }
}

#[test]
fn the_completions_complete() {
    let home = Home::new();
    home.write("completions", &home.run("completions bash").out, 0o644);
    let ask = "source ./completions; COMP_WORDS=(adsproxy account re); COMP_CWORD=2; \
        _adsproxy adsproxy re account; echo \"${COMPREPLY[*]}\"";
    let mut bash = std::process::Command::new("bash");
    let said = said(bash.args(["--norc", "-c", ask]).current_dir(home.path("")));
    assert_eq!((said.out.as_str(), said.code), ("remove\n", Some(0)), "{said:?}");
}

#[test]
fn accounts_are_added_shown_and_removed_without_showing_a_secret() {
    let home = home_with_store();
    let added = home.run_with_input("account add acme --region eu", "Atzr|CANARY-token\n");
    assert_eq!(added.code, Some(0), "{added:?}");

    let listed = home.run("account list");
    let columns: Vec<Vec<&str>> =
        listed.out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(columns[1], ["acme", "idle", "eu", "default", "no", "yes", "-"], "{listed:?}");
    let json: serde_json::Value =
        serde_json::from_str(&home.run("account list --json").out).unwrap();
    assert_eq!(json[0]["account"], "acme");
    let shown = home.run("account show acme");
    assert!(shown.out.contains("idle"), "{shown:?}");

    let kept = home.run("account remove acme");
    assert_eq!(kept.code, Some(1), "{kept:?}");
    assert!(kept.err.contains("--yes"), "{kept:?}");
    let removed = home.run("account remove acme --yes");
    assert_eq!(removed.code, Some(0), "{removed:?}");
    assert!(home.run("account list").out.starts_with("no accounts"));
    for missing in ["account show acme", "account remove acme --yes"] {
        assert_eq!(home.run(missing).code, Some(1));
    }
    for said in [added, listed, shown, kept, removed] {
        assert!(!format!("{said:?}").contains("CANARY"), "{said:?}");
    }
}

#[test]
fn an_account_is_replaced_only_when_told() {
    let home = home_with_store();
    home.write("token", "Atzr|CANARY-one\n", 0o600);
    let add = "account add acme --region na --refresh-token-file token";
    assert_eq!(home.run(add).code, Some(0));
    let again = home.run(add);
    assert_eq!(again.code, Some(1));
    assert!(again.err.contains("say --replace"), "{again:?}");
    let replaced = home.run_with_input("account add acme --replace", "Atzr|CANARY-two");
    assert_eq!(replaced.code, Some(0), "{replaced:?}");
    assert!(replaced.out.contains("replaced"), "{replaced:?}");
    let shown = home.run("account list");
    assert!(shown.out.contains("idle   na"), "the region is kept: {shown:?}");
}

#[test]
fn what_is_no_refresh_token_is_refused_and_nothing_is_stored() {
    let home = home_with_store();
    let long = "a".repeat(9000);
    for input in ["", "\n", "two words", "two\nlines", &long, "Atzr|acme"] {
        let said = home.run_with_input("account add acme --region na", input);
        assert_eq!(said.code, Some(1), "{said:?}");
    }
    assert!(home.run("account list").out.starts_with("no accounts"));
}

#[test]
fn a_refresh_token_that_everybody_can_read_is_taken_with_a_warning() {
    let home = home_with_store();
    for (mode, warned) in [(0o644, true), (0o600, false)] {
        home.write("token", "Atzr|CANARY", mode);
        let said = home.run("account add acme --region na --refresh-token-file token --replace");
        assert_eq!(said.code, Some(0), "{said:?}");
        assert_eq!(said.err.contains("chmod 600"), warned, "{said:?}");
        assert!(!said.err.contains("CANARY"), "{said:?}");
    }
}

#[test]
fn the_server_starts_with_secrets_that_everybody_can_read_and_says_so_once() {
    let home = home_with_store();
    home.write("secret", "CANARY-client-secret\n", 0o644);
    let log = home.path("log");
    let server = serve_logging(&home, "", Stdio::from(fs::File::create(&log).unwrap()));
    let log = wait_for(&log, "every user of this machine");
    drop(server);
    assert_eq!(log.matches("is open to every user of this machine").count(), 1, "{log}");
    assert!(log.contains("lwa.client_secret") && !log.contains("CANARY"), "{log}");
}

#[test]
fn the_first_line_of_the_log_says_what_runs_with_what() {
    let home = home_with_store();
    let log = home.path("log");
    let server = serve_logging(&home, "", Stdio::from(fs::File::create(&log).unwrap()));
    let log = wait_for(&log, "listening");
    drop(server);
    let first: serde_json::Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
    assert_eq!(first["message"], "adsproxy starts");
    assert_eq!(first["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!((&first["config"], &first["store"]), (&"./proxy.toml".into(), &"file".into()));
    assert!(first["path"].as_str().unwrap().ends_with(".local/state/adsproxy"), "{first}");
    let listening = log.lines().find(|line| line.contains("\"listening\"")).unwrap();
    assert!(listening.contains("\"proxy\":\"127.0.0.1:"), "{listening}");
}

#[test]
fn an_account_needs_a_region_and_an_application_that_exists() {
    let home = home_with_store();
    let said = home.run_with_input("account add acme", "Atzr|x");
    assert!(said.err.contains("--region na, eu or fe"), "{said:?}");
    let said = home.run_with_input("account add acme --region na --application other", "Atzr|x");
    assert!(said.err.contains("no application \"other\"; configured: default"), "{said:?}");
}

#[test]
fn a_memory_store_has_no_accounts_to_change() {
    let home = home_with_store();
    let file = fs::read_to_string(home.path("proxy.toml")).unwrap();
    let more = "[store]\nkind = \"memory\"\n[accounts.acme]\nregion = \"fe\"\n";
    home.write("proxy.toml", &format!("{file}{more}"), 0o644);
    let said = home.run_with_input("account add other --region na", "Atzr|x");
    assert_eq!(said.code, Some(1));
    assert!(said.err.contains("accounts.<alias>.refresh_token"), "{said:?}");
    let listed = home.run("account list");
    assert!(listed.out.contains("not_connected  fe"), "{listed:?}");
}

#[test]
fn without_a_server_status_exits_with_69_and_healthcheck_with_1() {
    let home = Home::new();
    let address = unused_address();
    home.write("proxy.toml", &format!("[listen]\nadmin = \"{address}\"\n"), 0o644);
    let status = home.run("status");
    assert_eq!(status.code, Some(69), "{status:?}");
    assert!(status.err.contains(&format!("no adsproxy responds at {address}")), "{status:?}");
    assert_eq!(home.run("status --json").code, Some(69));
    let health = home.run("healthcheck");
    assert_eq!(health.code, Some(1), "{health:?}");
}

#[test]
fn healthcheck_asks_the_health_listener_first() {
    let home = Home::new();
    for (answer, code) in [("200 OK", 0), ("503 Service Unavailable", 1), ("404 Not Found", 1)] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let health = listener.local_addr().unwrap();
        let admin = unused_address();
        let listen = format!("[listen]\nadmin = \"{admin}\"\nhealth = \"{health}\"\n");
        home.write("proxy.toml", &listen, 0o644);
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                asked.extend(byte);
            }
            write!(stream, "HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n").unwrap();
            String::from_utf8(asked).unwrap()
        });
        let said = home.run("healthcheck");
        assert_eq!(said.code, Some(code), "{said:?}");
        assert!(server.join().unwrap().starts_with("GET /readyz HTTP/1.1\r\n"));
    }
}

/// `adsproxy serve`; ends with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts `adsproxy serve` with `accounts` in the configuration of `home`.
fn serve(home: &Home, accounts: &str) -> Server {
    serve_logging(home, accounts, Stdio::null())
}

/// The same, with the log going to `log`.
fn serve_logging(home: &Home, accounts: &str, log: Stdio) -> Server {
    let file = fs::read_to_string(home.path("proxy.toml")).unwrap();
    let admin = unused_address();
    // No refresh reaches Amazon from here: there is no token to refresh with.
    let listen = format!("[listen]\nproxy = [\"127.0.0.1:0\"]\nadmin = \"{admin}\"\n");
    home.write("proxy.toml", &format!("{listen}{file}{accounts}"), 0o644);
    let mut serve = home.command("serve");
    let mut server = Server(serve.stdout(Stdio::null()).stderr(log).spawn().expect("it starts"));
    let deadline = Instant::now() + START_TIMEOUT;
    while home.run("healthcheck").code != Some(0) {
        assert!(server.0.try_wait().unwrap().is_none(), "the server ended");
        assert!(Instant::now() < deadline, "the server is not ready");
    }
    server
}

#[test]
fn status_and_healthcheck_see_the_running_server() {
    let home = home_with_store();
    let _server = serve(&home, "");
    let status = home.run("status");
    assert_eq!(status.code, Some(0), "{status:?}");
    assert!(status.out.starts_with("adsproxy ") && status.out.ends_with("no accounts\n"));
    assert_eq!(status.err, "");
}

#[test]
fn status_exits_with_77_while_an_account_is_not_connected() {
    let home = home_with_store();
    let _server = serve(&home, "[accounts.acme]\nregion = \"fe\"\n");
    let status = home.run("status");
    assert_eq!(status.code, Some(77), "{status:?}");
    assert!(status.out.contains("\nacme "), "{status:?}");
    assert!(status.err.contains("adsproxy login acme"), "{status:?}");
    // Who asks for the status needs none of the server's secrets.
    fs::remove_file(home.path("secret")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&home.run("status --json").out).unwrap();
    assert_eq!(json["accounts"][0]["region"], "fe");
}

#[test]
fn a_grant_that_ends_soon_is_shown_and_warned_of_once() {
    let home = home_with_store();
    let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
    let add = |alias: &str, more: &str| {
        let line = format!("account add {alias} --region na {more}");
        let said = home.run_with_input(&line, "Atzr|CANARY");
        assert_eq!(said.code, Some(0), "{said:?}");
    };
    let long_ago = today.checked_sub(jiff::ToSpan::days(340)).unwrap();
    add("old", &format!("--consented-at {long_ago}"));
    add("new", &format!("--consented-at {today}"));
    add("unknown", "");
    let left = |json: &serde_json::Value| -> Vec<Option<i64>> {
        json.as_array().unwrap().iter().map(|one| one["consent_days_left"].as_i64()).collect()
    };
    let list = serde_json::from_str(&home.run("account list --json").out).unwrap();
    assert_eq!(left(&list), [Some(365), Some(25), None]);
    assert!(home.run("account show old").out.contains("consent days left  25"));

    let log = home.path("log");
    let _server = serve_logging(&home, "", Stdio::from(fs::File::create(&log).unwrap()));
    let warnings = wait_for(&log, "ends 365 days after consent");
    assert_eq!(warnings.matches("365 days").count(), 1, "{warnings}");
    assert!(warnings.contains("old") && warnings.contains("25"), "{warnings}");
    let json: serde_json::Value = serde_json::from_str(&home.run("status --json").out).unwrap();
    assert_eq!(left(&json["accounts"]), [Some(365), Some(25), None]);

    add("old", &format!("--replace --consented-at {today}"));
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        let json: serde_json::Value = serde_json::from_str(&home.run("status --json").out).unwrap();
        if left(&json["accounts"]) == [Some(365), Some(365), None] {
            break;
        }
        assert!(Instant::now() < deadline, "{json}");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn output_into_a_closed_pipe_is_no_crash() {
    let home = Home::new();
    let program = env!("CARGO_BIN_EXE_adsproxy");
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", &format!("{program} completions bash | true; {program} --version")]);
    let said = said(shell.current_dir(home.path("")));
    assert!(!said.err.contains("panicked"), "{said:?}");
}

/// The log once it contains `part`: another thread writes it than the one that answers.
fn wait_for(log: &std::path::Path, part: &str) -> String {
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        let text = fs::read_to_string(log).unwrap();
        if text.contains(part) {
            return text;
        }
        assert!(Instant::now() < deadline, "{part} was not logged:\n{text}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// An address of this machine that nobody listens on.
fn unused_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
