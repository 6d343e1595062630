//! strace on a running proxy: it kills, or makes calls fail, at a chosen system call.

use super::proxy::Proxy;
use std::{
    fs,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};
use tempfile::NamedTempFile;

/// A tracer; lets go of the proxy when dropped.
pub struct Strace {
    tracer: Child,
    /// The proxy.
    pid: u32,
    log: NamedTempFile,
}

impl Strace {
    /// Traces `proxy` with `arguments` (`-P path`, `-e inject=…`); returns once every thread of it
    /// is traced.
    pub fn attach(proxy: &Proxy, arguments: &[String]) -> Self {
        let log = NamedTempFile::new().expect("a temporary file");
        let pid = proxy.pid();
        let mut tracer = Command::new("strace")
            .args(["-f", "-qq", "-y", "-s", "65536", "-o"])
            .arg(log.path())
            .args(arguments)
            .args(["-p", &pid.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("strace runs");
        let deadline = Instant::now() + Duration::from_secs(20);
        while !is_traced(pid) {
            let ended = tracer.try_wait().expect("a child of ours");
            assert!(ended.is_none(), "strace ended: {ended:?}");
            assert!(Instant::now() < deadline, "strace does not attach");
            thread::sleep(Duration::from_millis(1));
        }
        Self { tracer, pid, log }
    }

    /// Lets go of the proxy, which runs on unless it was killed; what was traced.
    pub fn detach(mut self) -> String {
        self.end();
        fs::read_to_string(self.log.path()).expect("strace's log")
    }

    /// Ends the tracer that started `pid` (`strace -D`); returns once it is gone.
    pub fn let_go(pid: u32) {
        let mut signal = "-TERM";
        let mut patience = Instant::now();
        while let Some(tracer) = tracer(&format!("/proc/{pid}/status")) {
            if Instant::now() >= patience {
                let _ = Command::new("kill").args([signal, &tracer]).stderr(Stdio::null()).status();
                signal = "-KILL";
                patience = Instant::now() + Duration::from_secs(1);
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// A tracer that is told to let go while its tracee dies waits forever (strace 6.1): it is
    /// told only if the proxy lives, and killed if it does not end.
    fn end(&mut self) {
        let pid = self.tracer.id().to_string();
        let signal = |name: &str| {
            let _ = Command::new("kill").args([name, &pid]).stderr(Stdio::null()).status();
        };
        if self.is_alive() {
            signal("-TERM");
        }
        let deadline = Instant::now() + Duration::from_secs(2);
        while self.tracer.try_wait().expect("a child of ours").is_none() {
            if Instant::now() > deadline {
                signal("-KILL");
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Whether the proxy runs.
    fn is_alive(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        state.is_some_and(|state| !"ZX".contains(state))
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        self.end();
    }
}

/// Whether every thread of the process has a tracer.
fn is_traced(pid: u32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    threads.flatten().all(|thread| tracer(&format!("{}/status", thread.path().display())).is_some())
}

/// The process that traces another one.
fn tracer(status: &str) -> Option<String> {
    let status = fs::read_to_string(status).ok()?;
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"))?.trim();
    (tracer != "0").then(|| tracer.to_owned())
}

/// A system call that was traced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub thread: String,
    pub name: String,
    /// The file it is about.
    pub path: String,
    /// Everything after the opening parenthesis.
    pub rest: String,
}

/// Reads a log of `strace -f -y`, calls in the order in which they began.
pub fn calls(log: &str) -> Vec<Call> {
    log.lines().filter_map(call).collect()
}

fn call(line: &str) -> Option<Call> {
    let (thread, text) = line.split_once(' ')?;
    let (name, rest) = text.trim_start().split_once('(')?;
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return None;
    }
    let by_name = rest.starts_with("AT_FDCWD") || rest.starts_with('"');
    let path = match by_name {
        true => rest.split('"').nth(1)?,
        false => rest.split_once('<')?.1.split_once('>')?.0,
    };
    let path = path.strip_suffix(" (deleted)").unwrap_or(path);
    let own = str::to_owned;
    Some(Call { thread: own(thread), name: own(name), path: own(path), rest: own(rest) })
}
