//! Master keys in a real keyring: gnome-keyring on a session bus of its own.

use crate::support::{
    extras,
    program::{Home, Said, said},
};
#[cfg(feature = "sandbox")]
use crate::support::{login, proxy};
#[cfg(feature = "sandbox")]
use adsproxy::sandbox::{CLIENT_ID, CLIENT_SECRET};
use std::{
    fs,
    os::unix::{fs::PermissionsExt, net::UnixListener},
    process::Command,
    time::{Duration, Instant},
};

/// Longer than the keyring is waited for, and than a busy machine takes on top.
const TIMEOUT: Duration = Duration::from_secs(45);

/// Starts the keyring with a file that holds its password, and waits until it is there.
const START: &str = "\
start() { input=$1; shift
  gnome-keyring-daemon --foreground --components=secrets \"$@\" <$input >/dev/null 2>&1 & daemon=$!
  for i in $(seq 200); do
    dbus-send --session --print-reply --dest=org.freedesktop.DBus / \\
      org.freedesktop.DBus.NameHasOwner string:org.freedesktop.secrets 2>/dev/null |
      grep -q true && break
    sleep 0.05
  done
}
";

fn can_run() -> bool {
    ["dbus-run-session", "gnome-keyring-daemon", "dbus-send"].into_iter().all(extras::required)
}

/// A home whose configuration wants key `desk` from the keyring.
fn home() -> Home {
    let home = Home::new();
    home.write("secret", "s", 0o600);
    home.write("password", "password", 0o600);
    home.write("token", "Atzr|CANARY-of-the-keyring", 0o600);
    let toml = "[lwa]\nclient_id = \"id\"\nclient_secret = { file = \"~/secret\" }\n\
        [store]\nkind = \"keyring\"\npath = \"~/store\"\n\
        [encryption]\nkeys = [{ id = \"desk\" }]\n";
    home.write("proxy.toml", toml, 0o600);
    fs::create_dir(home.path("run")).expect("a directory");
    fs::set_permissions(home.path("run"), fs::Permissions::from_mode(0o700)).expect("its mode");
    home
}

/// Runs `script` in a session of its own. `$A` is the program, `start` starts the keyring.
fn session(home: &Home, script: &str) -> Said {
    let mut command = Command::new("dbus-run-session");
    let script =
        format!("{START}\n{script}\ncode=$?; kill -CONT $daemon; kill $daemon; exit $code");
    command.args(["--", "sh", "-c", &script]).current_dir(home.path("."));
    command.env_clear().env("HOME", home.path(".")).env("XDG_RUNTIME_DIR", home.path("run"));
    command.env("PATH", std::env::var_os("PATH").expect("a path"));
    command.env("ADSPROXY_CONFIG", "proxy.toml");
    command.env("A", env!("CARGO_BIN_EXE_adsproxy"));
    let said = said(&mut command);
    assert!(!format!("{said:?}").contains("CANARY"));
    said
}

const UNLOCKED: &str = "start password --unlock\n";
const ADD: &str = "$A account add acme --region na --refresh-token-file token";

#[test]
fn a_key_in_an_unlocked_keyring_seals_and_is_never_replaced() {
    if !can_run() {
        return;
    }
    let home = home();
    let none = session(&home, &format!("{UNLOCKED} {ADD}"));
    assert!(none.code == Some(1) && none.err.contains("key init --keyring"), "{none:?}");
    assert!(!home.path("store/accounts/acme.json").exists(), "no key is made silently");

    let made = session(&home, &format!("{UNLOCKED} $A key init --keyring --id desk && {ADD}"));
    assert_eq!(made.code, Some(0), "{made:?}");
    assert!(made.out.contains("keys = [{ id = \"desk\" }]"), "{made:?}");
    let again = session(&home, &format!("{UNLOCKED} $A key init --keyring --id desk"));
    assert!(again.code == Some(1) && again.err.contains("already"), "{again:?}");

    let listed = session(&home, &format!("{UNLOCKED} $A account list --json && $A key status"));
    assert!(listed.out.contains("\"idle\"") && listed.out.contains("desk  seals"), "{listed:?}");
    // Into the keyring from a file: the new one in front, then rotate.
    assert_eq!(home.run("key init --path file --id file").code, Some(0));
    let toml = fs::read_to_string(home.path("proxy.toml")).expect("a configuration");
    let file = "[{ id = \"file\", secret = { file = \"~/file\" } }, ";
    home.write("proxy.toml", &toml.replace("keys = [", &format!("keys = {file}")), 0o600);
    let moved = session(&home, &format!("{UNLOCKED} $A key rotate && $A key retire desk"));
    assert_eq!(moved.code, Some(0), "{moved:?}");
}

#[test]
fn a_locked_keyring_is_an_error_that_says_how_to_unlock_it() {
    if !can_run() {
        return;
    }
    let home = home();
    let made = session(&home, &format!("{UNLOCKED} $A key init --keyring --id desk && {ADD}"));
    assert_eq!(made.code, Some(0), "{made:?}");
    let record = fs::read(home.path("store/accounts/acme.json")).expect("a record");
    for command in ["account list", "key rotate", "serve", "key init --keyring --id desk"] {
        let started = Instant::now();
        let locked = session(&home, &format!("start /dev/null\n $A {command}"));
        assert!(started.elapsed() < TIMEOUT);
        assert_eq!(locked.code, Some(1), "{command}: {locked:?}");
        assert!(locked.err.contains("is locked") && locked.err.contains("--unlock"), "{locked:?}");
    }
    assert_eq!(fs::read(home.path("store/accounts/acme.json")).expect("a record"), record);
    let unlocked = session(&home, &format!("{UNLOCKED} $A account list"));
    assert!(unlocked.out.contains("idle"), "{unlocked:?}");
}

#[test]
fn without_a_bus_the_error_says_what_is_missing() {
    let home = home();
    let absent = home.run("account list");
    assert_eq!(absent.code, Some(1), "{absent:?}");
    assert!(absent.err.contains("no keyring can be reached"), "{absent:?}");
    assert!(absent.err.contains("D-Bus session bus"), "{absent:?}");
}

#[test]
fn a_keyring_that_never_answers_is_given_up() {
    // A bus that takes the connection and says nothing.
    let home = home();
    let socket = home.path("bus");
    let _silent = UnixListener::bind(&socket).expect("a socket");
    let mut command = home.command("account list");
    command.env("DBUS_SESSION_BUS_ADDRESS", format!("unix:path={}", socket.display()));
    let bus = std::thread::spawn(move || {
        let started = Instant::now();
        (said(&mut command), started.elapsed())
    });
    if can_run() {
        // The real service on a real bus, stopped.
        let home = self::home();
        let started = Instant::now();
        let hung = session(&home, &format!("{UNLOCKED} kill -STOP $daemon; $A account list"));
        assert!(started.elapsed() < TIMEOUT);
        assert!(hung.code == Some(1) && hung.err.contains("no response within"), "{hung:?}");
    }
    let (silent, took) = bus.join().expect("no panic");
    assert!(took < TIMEOUT);
    assert!(silent.code == Some(1) && silent.err.contains("no response within"), "{silent:?}");
}

/// The key is asked for once: a server goes on when the keyring is locked or gone, and saves.
#[cfg(feature = "sandbox")]
#[tokio::test(flavor = "multi_thread")]
async fn a_server_has_its_key_from_the_keyring_and_outlives_it() {
    if !can_run() || !extras::required("curl") {
        return;
    }
    let amazon = proxy::amazon().await;
    let (here, home) = (format!("http://{}", amazon.addr()), home());
    let (listen, admin) = (login::free_address(), login::free_address());
    home.write("secret", CLIENT_SECRET, 0o600);
    home.write("token", proxy::ACME_REFRESH, 0o600);
    let toml = fs::read_to_string(home.path("proxy.toml")).expect("a configuration");
    let lwa = format!("client_id = \"{CLIENT_ID}\"\ntoken_url = \"{here}/auth/o2/token\"");
    let more = format!(
        "[listen]\nproxy = [\"{listen}\"]\nadmin = \"{admin}\"\n[upstream]\nna = \"{here}\"\n"
    );
    home.write("proxy.toml", &(toml.replace("client_id = \"id\"", &lwa) + &more), 0o600);
    let script = format!(
        "{UNLOCKED}
        ask() {{ curl -sf -H 'X-Ads-Account: acme' http://{listen}/v2/profiles >/dev/null; }}
        $A key init --keyring --id desk >/dev/null && {ADD} || exit
        $A serve 2>log & server=$!; trap 'kill $server 2>/dev/null' EXIT
        $A wait && ask && cp store/accounts/acme.json before || exit
        kill $daemon; wait $daemon
        curl -sf -X POST {here}/_sandbox/expire >/dev/null && ask || exit
        kill -TERM $server; wait $server"
    );
    let said = tokio::task::spawn_blocking(move || (session(&home, &script), home)).await;
    let (said, home) = said.expect("no panic");
    let log = fs::read(home.path("log")).expect("a log");
    assert_eq!(said.code, Some(0), "{said:?}\n{}", String::from_utf8_lossy(&log));
    let read = |file: &str| fs::read(home.path(file)).expect("a record");
    assert_ne!(read("before"), read("store/accounts/acme.json"), "saved without the keyring");
    for text in [&log, &read("store/accounts/acme.json"), &read("store/audit.jsonl")] {
        proxy::assert_no_secret("what it leaves", text);
    }
}
