//! A running `adsproxy sandbox`: the whole program before its own emulator.

use super::{
    load::TEST_TIMEOUT,
    program::{Said, said},
};
use std::{
    fs::{self, File},
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// The program. It ends with the test.
pub struct Sandbox {
    child: Child,
    pub proxy: SocketAddr,
    pub admin: SocketAddr,
    pub emulator: SocketAddr,
    /// The operator's, as printed.
    pub key: String,
    /// What the last line of the banner exports.
    pub config: PathBuf,
    directory: TempDir,
}

impl Sandbox {
    pub fn start(token_lifetime_secs: u32) -> Self {
        Self::start_with(token_lifetime_secs, &[], &[])
    }

    /// With further arguments and variables.
    pub fn start_with(token_lifetime_secs: u32, arguments: &[&str], env: &[(&str, &str)]) -> Self {
        let mut log = String::new();
        // Ports are chosen before they are bound: another process may take one in between.
        for _ in 0..5 {
            match Self::try_start(token_lifetime_secs, arguments, env) {
                Ok(sandbox) => return sandbox,
                Err(said) if said.contains("Address already in use") => log = said,
                Err(said) => panic!("the sandbox ended:\n{said}"),
            }
        }
        panic!("no free port:\n{log}")
    }

    fn try_start(
        token_lifetime_secs: u32,
        arguments: &[&str],
        env: &[(&str, &str)],
    ) -> Result<Self, String> {
        let directory = memory().expect("a temporary directory");
        let file = |name| File::create(directory.path().join(name)).expect("a file");
        let mut child = Command::new(env!("CARGO_BIN_EXE_adsproxy"))
            .args(["sandbox", "--port", "0", "--admin-port", "0", "--emulator-port", "0"])
            .args(["--token-lifetime-secs", &token_lifetime_secs.to_string()])
            .args(arguments)
            .current_dir(directory.path())
            .env("TMPDIR", directory.path())
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(file("banner"))
            .stderr(file("log"))
            .spawn()
            .expect("the binary of this build");
        let deadline = Instant::now() + TEST_TIMEOUT;
        let read = |name| fs::read_to_string(directory.path().join(name)).unwrap_or_default();
        while !read("banner").contains("export ADSPROXY_CONFIG='") {
            if child.try_wait().expect("a child of ours").is_some() {
                return Err(read("log"));
            }
            assert!(Instant::now() < deadline, "the sandbox does not start\n{}", read("log"));
            // Another process: there is nothing to wait on but its output.
            thread::sleep(Duration::from_millis(20));
        }
        let banner = read("banner");
        let word = |part: &str| {
            let line = banner.lines().find(|line| line.starts_with(part)).expect("a line");
            line.split_whitespace().nth(1).expect("a second word")
        };
        let address = |part: &str| {
            let url = word(part);
            url.strip_prefix("http://").expect("a URL").parse().expect("an address")
        };
        let (_, config) = banner.split_once("export ADSPROXY_CONFIG='").expect("the last line");
        let config = config.trim_end().trim_end_matches('\'').into();
        let (proxy, admin) = (address("proxy"), address("admin"));
        let (emulator, key) = (address("emulator"), word("key").to_owned());
        Ok(Self { child, proxy, admin, emulator, key, config, directory })
    }

    pub fn banner(&self) -> String {
        fs::read_to_string(self.directory.path().join("banner")).expect("a file")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// The end of the log, for the text of a failure.
    pub fn log_end(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().rev().take(8).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// How many access tokens `account` has had.
    pub fn generation(&self, account: &str) -> u64 {
        let said = self.adsproxy("status --json");
        let body = said.out;
        let status: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        let accounts = status["accounts"].as_array().expect("a list");
        let account = accounts.iter().find(|one| one["account"] == account);
        account.and_then(|account| account["generation"].as_u64()).expect("a number")
    }

    /// `command` beside the sandbox, as in a shell with the exported line and this build's program.
    pub fn beside<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let program = PathBuf::from(env!("CARGO_BIN_EXE_adsproxy"));
        let programs = program.parent().expect("a directory").display();
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .current_dir(self.directory.path())
            .env_clear()
            .env("PATH", format!("{programs}:{path}"))
            .env("HOME", self.directory.path())
            .env("ADSPROXY_CONFIG", &self.config)
            .stdin(Stdio::null())
    }

    /// One of our commands beside the sandbox, its arguments separated by spaces.
    pub fn adsproxy(&self, arguments: &str) -> Said {
        let mut command = Command::new(env!("CARGO_BIN_EXE_adsproxy"));
        said(self.beside(command.args(arguments.split_whitespace())))
    }

    /// Lines for a shell beside the sandbox.
    pub fn shell(&self, lines: &str) -> Said {
        said(self.beside(Command::new("timeout").args(["60", "sh", "-c", lines])))
    }

    /// Runs a client that must succeed; returns what it printed.
    pub fn run(&self, command: &mut Command) -> String {
        let said = said(command.current_dir(self.directory.path()));
        let Said { code, out, err } = said;
        assert_eq!(code, Some(0), "{command:?}\n{out}\n{err}\nsandbox:\n{}", self.log_end());
        out
    }

    /// Ends it as Ctrl-C does; returns its exit code.
    pub fn stop(&mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it runs");
        self.child.wait().expect("a child of ours").code()
    }
}

/// A directory in memory where there is one: tokens that live for seconds outlast no slow disk.
fn memory() -> std::io::Result<TempDir> {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Status and body of a small response; none if there is no server.
pub fn get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").ok()?;
    let mut response = String::new();
    stream.read_to_string(&mut response).ok()?;
    let (head, body) = response.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}
