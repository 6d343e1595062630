//! The program itself, run in a home directory of its own with no variable of ours.

use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};
use tempfile::TempDir;

/// A home directory, which is the working directory too.
pub struct Home(TempDir);

/// What the program said.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Home {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str, mode: u32) -> &Self {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).expect("a directory");
        fs::write(&path, text).expect("a file");
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("its mode");
        self
    }

    /// The program with `arguments`, separated by spaces; its configuration is `proxy.toml`, once
    /// that is written.
    pub fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_adsproxy"));
        command.args(arguments.split_whitespace());
        command.current_dir(self.0.path()).env_clear().env("HOME", self.0.path());
        if self.path("proxy.toml").exists() {
            command.env("ADSPROXY_CONFIG", "./proxy.toml");
        }
        command.stdin(Stdio::null());
        command
    }

    pub fn run(&self, arguments: &str) -> Said {
        said(&mut self.command(arguments))
    }

    /// Runs with `input` on standard input.
    pub fn run_with_input(&self, arguments: &str, input: &str) -> Said {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        // It may have refused, and closed its input, before it read anything.
        let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
        let output = child.wait_with_output().expect("it ends");
        output.into()
    }
}

pub fn said(command: &mut Command) -> Said {
    command.output().expect("the program starts").into()
}

impl From<std::process::Output> for Said {
    fn from(output: std::process::Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).expect("text"),
            err: String::from_utf8(output.stderr).expect("text"),
        }
    }
}

/// `command` with the signals of a terminal: where the tests run in the background, some are
/// ignored.
#[cfg(feature = "sandbox")]
pub fn with_default_signals(command: Command) -> Command {
    let resets = |env: &mut Command| env.arg("true").status().is_ok_and(|status| status.success());
    if !resets(Command::new("env").arg("--default-signal")) {
        return command;
    }
    let mut anew = Command::new("env");
    anew.arg("--default-signal").arg(command.get_program()).args(command.get_args());
    anew.current_dir(command.get_current_dir().expect("a directory")).env_clear();
    anew.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    anew
}
