//! Commands that work without a running server, on a configuration and a store of their own.

use super::{
    callers::OPERATOR,
    program::{Said, said},
    proxy::{ACME_REFRESH, GLOBEX_REFRESH, Proxy, Setup, assert_no_secret, write_config},
};
use adsproxy::sandbox::{CLIENT_SECRET, Emulator};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};
use tempfile::TempDir;

/// A directory with `proxy.toml`, and the environment that it wants.
pub struct Commands(Arc<TempDir>);

impl Commands {
    pub fn new(amazon: &Emulator, setup: &Setup) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        write_config(dir.path(), amazon, setup);
        Self(Arc::new(dir))
    }

    /// With the file store, as most people have it.
    pub fn with_store(amazon: &Emulator) -> Self {
        Self::new(amazon, &Setup { file_store: true, ..Setup::default() })
    }

    /// Beside the server `proxy`.
    pub fn of(proxy: &Proxy) -> Self {
        Self(proxy.dir.clone())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Replaces `from` in the configuration, which must be there.
    pub fn edit(&self, from: &str, to: &str) {
        let path = self.path("proxy.toml");
        let text = fs::read_to_string(&path).expect("a configuration");
        assert!(text.contains(from), "{from} is not in {text}");
        fs::write(path, text.replace(from, to)).expect("a configuration");
    }

    /// The program with `arguments`, separated by spaces.
    pub fn command(&self, arguments: &str) -> Command {
        let mut command = bare(self.0.path(), arguments);
        command
            .env("ADSPROXY_KEY", &OPERATOR.key)
            .env("CLIENT_SECRET", CLIENT_SECRET)
            .env("ACME_REFRESH", ACME_REFRESH)
            .env("GLOBEX_REFRESH", GLOBEX_REFRESH);
        command
    }

    /// Runs it; what it says on standard error never holds a secret.
    pub fn run(&self, arguments: &str) -> Said {
        let said = said(&mut self.command(arguments));
        assert_no_secret("standard error", said.err.as_bytes());
        said
    }
}

fn bare(dir: &Path, arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_adsproxy"));
    command.args(arguments.split_whitespace());
    command.current_dir(dir).env_clear().env("HOME", dir).env("ADSPROXY_CONFIG", "proxy.toml");
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).stdin(Stdio::null());
    command
}
