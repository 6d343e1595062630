//! A hostile directory, such as a cloned repository: what lies in it decides nothing.

use crate::support::{
    program::Home,
    proxy::{Setup, amazon, write_config},
};
use adsproxy::sandbox::CLIENT_SECRET;
use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// No command without a server takes that long.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Every command that reads a configuration.
const COMMANDS: [&str; 27] = [
    "serve",
    "check-config",
    "login acme",
    "logout acme --yes",
    "account list",
    "account show acme",
    "account add other --region na",
    "account remove acme --yes",
    "import accounts.json",
    "token acme",
    "curl /v2/profiles --account acme",
    "env acme",
    "exec acme -- true",
    "status",
    "status --offline",
    "doctor",
    "doctor --offline",
    "key status",
    "key rotate",
    "audit tail",
    "audit verify",
    "hooks list",
    "hooks test ops",
    "healthcheck",
    "wait --timeout 1s",
    "completions bash",
    "man",
];

/// A directory whose files name a host, secrets and programs of the attacker's choice.
struct Hostile {
    directory: TempDir,
    host: TcpListener,
}

impl Hostile {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let host = TcpListener::bind("127.0.0.1:0").expect("a port");
        host.set_nonblocking(true).expect("a listener");
        let address = host.local_addr().expect("an address");
        let marker = directory.path().join("ran");
        let program = directory.path().join("page");
        fs::write(&program, format!("#!/bin/sh\ntouch {}\n", marker.display())).expect("a program");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("its mode");
        let toml = format!(
            "[listen]\nproxy = [\"127.0.0.1:0\"]\nadmin = \"{address}\"\n\
             [lwa]\nclient_id = \"hostile\"\nclient_secret = {{ env = \"SECRET_OF_THE_USER\" }}\n\
             token_url = \"http://{address}/auth/o2/token\"\n\
             [upstream]\nna = \"http://{address}\"\n\
             [store]\nkind = \"memory\"\n\
             [accounts.acme]\nregion = \"na\"\nrefresh_token = {{ file = \"/etc/hostname\" }}\n\
             [[hooks]]\nname = \"ops\"\ncommand = [{program:?}]\n"
        );
        for (name, text) in [
            ("proxy.toml", toml.as_str()),
            ("adsproxy.toml", toml.as_str()),
            (".env", "ADSPROXY_CONFIG=proxy.toml\n"),
            ("control.sock", ""),
        ] {
            fs::write(directory.path().join(name), text).expect("a file");
        }
        Self { directory, host }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Files without an end: whatever opens one waits for ever.
    fn endless() -> Self {
        let hostile = Self::new();
        for name in ["proxy.toml", "adsproxy.toml", ".env", "control.sock"] {
            let path = hostile.path().join(name);
            fs::remove_file(&path).expect("removed");
            let mode = rustix_mode();
            rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0)
                .expect("a pipe");
        }
        hostile
    }

    fn assert_untouched(&self, command: &str) {
        assert!(self.host.accept().is_err(), "{command} called the host of the directory");
        assert!(!self.path().join("ran").exists(), "{command} ran the program of the directory");
    }
}

fn rustix_mode() -> rustix::fs::Mode {
    rustix::fs::Mode::from_raw_mode(0o644)
}

/// Runs `arguments` in `hostile` for the user of `home`; the exit code and standard error.
fn run(hostile: &Hostile, home: &Path, arguments: &str) -> (Option<i32>, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_adsproxy"))
        .args(arguments.split(' '))
        .current_dir(hostile.path())
        .env_clear()
        .env("HOME", home)
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("SECRET_OF_THE_USER", "CANARY")
        .env("CLIENT_SECRET", CLIENT_SECRET)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let deadline = Instant::now() + TIMEOUT;
    let stderr = child.stderr.take().expect("a pipe");
    let reader = std::thread::spawn(|| std::io::read_to_string(stderr).expect("text"));
    loop {
        if let Some(status) = child.try_wait().expect("a child") {
            return (status.code(), reader.join().expect("text"));
        }
        if Instant::now() > deadline {
            child.kill().expect("a child");
            panic!("`{arguments}` does not end: {:?}", reader.join());
        }
        std::thread::yield_now();
    }
}

#[test]
fn no_request_no_file_read_no_program_run_without_a_configuration_elsewhere() {
    let home = tempfile::tempdir().expect("a home");
    for hostile in [Hostile::new(), Hostile::endless()] {
        for command in COMMANDS {
            let (code, said) = run(&hostile, home.path(), command);
            hostile.assert_untouched(command);
            assert!(!said.contains("CANARY"), "{said}");
            if said.contains("no configuration found") {
                assert!(matches!(code, Some(78)), "{command} {code:?} {said}");
                assert!(said.contains("pass --config proxy.toml"), "{command}: {said}");
            }
        }
        let (code, said) = run(&hostile, home.path(), "serve");
        assert!(code == Some(78) && said.contains("no configuration found"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_users_own_configuration_is_the_one_that_counts() {
    let amazon = amazon().await;
    let home = tempfile::tempdir().expect("a home");
    let directory = home.path().join(".config/adsproxy");
    fs::create_dir_all(&directory).expect("a directory");
    write_config(&directory, &amazon, &Setup::default());
    let hostile = Hostile::new();
    for command in ["check-config", "token acme", "doctor --offline", "account list"] {
        run(&hostile, home.path(), command);
        hostile.assert_untouched(command);
    }
    let (code, said) = run(&hostile, home.path(), "check-config");
    assert!(!said.contains("pass --config"), "{code:?} {said}");
}

/// The directory is trusted once its user says so, by name; not when others may change it.
#[test]
fn a_named_file_is_taken_unless_others_may_change_it() {
    let home = Home::new();
    home.write(
        "own/proxy.toml",
        "[lwa]\nclient_id = \"id\"\nclient_secret = { file = \"own/s\" }\n[store]\nkind = \"memory\"\n",
        0o644,
    )
    .write("own/s", "secret", 0o600);
    let check = || home.run("check-config --config own/proxy.toml");
    let chmod = |name: &str, mode| {
        fs::set_permissions(home.path(name), fs::Permissions::from_mode(mode)).expect("a mode");
    };
    assert_eq!(check().code, Some(0), "{:?}", check());
    for (name, open, closed) in
        [("own/proxy.toml", 0o666, 0o644), ("own/s", 0o622, 0o600), ("own", 0o777, 0o755)]
    {
        chmod(name, open);
        let said = check();
        assert_eq!(said.code, Some(78), "{name}: {said:?}");
        assert!(said.err.contains("chmod go-w"), "{name}: {said:?}");
        for command in ["serve", "token acme", "status", "doctor --offline"] {
            let said = home.run(&format!("{command} --config own/proxy.toml"));
            assert_ne!(said.code, Some(0), "{command}: {said:?}");
        }
        chmod(name, closed);
    }
    chmod("own", 0o1777);
    assert_eq!(check().code, Some(0), "a sticky directory: {:?}", check());
}
