//! The configuration: read, checked, and with its secrets fetched. Nothing after this module checks
//! a value again.
//!
//! `load` finds the sources (flag, `environment`, file, default), `document` lays them over each
//! other and reads the result into the `sections`, whose values `value` and `text` check;
//! `validate` checks what concerns more than one value, and fetches what `secret_ref` refers to.
//! Every `problem` is collected.

mod document;
pub mod environment;
pub mod load;
pub mod log_filter;
pub mod problem;
pub mod reload;
pub mod secret_ref;
#[allow(missing_docs, reason = "proxy.example.toml explains every key")]
mod sections;
mod text;
mod validate;
mod value;

pub use sections::{
    AccountConfig, ApplicationConfig, AuditConfig, Encryption, EncryptionKey, GuardConfig,
    HookConfig, Limits, Listen, ListenTls, LogConfig, LoginConfig, MetricsConfig, OutboxConfig,
    Proxy, Replay, StoreConfig, Tls, Token, Upstream,
};

use crate::{id::AccountId, secret::Secret};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
};

/// The whole configuration.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The file it came from, if there was one.
    #[serde(skip)]
    pub source: Option<PathBuf>,
    /// Where we listen.
    pub listen: Listen,
    /// The data plane's shape.
    pub proxy: Proxy,
    /// Which hosts and origins are accepted.
    pub guard: GuardConfig,
    /// Once loaded, the application named `default`.
    lwa: Option<ApplicationConfig>,
    /// LWA applications by name; `[lwa]` is the one named `default`.
    pub applications: BTreeMap<String, ApplicationConfig>,
    /// Amazon's API hosts and how we speak to them.
    pub upstream: Upstream,
    /// TLS connections to every destination.
    pub tls: Tls,
    /// When tokens are refreshed.
    pub token: Token,
    /// How much of a request is kept for a replay.
    pub replay: Replay,
    /// What a caller may use up.
    pub limits: Limits,
    /// Where grants are kept.
    pub store: StoreConfig,
    /// Keys that seal the store: the first seals, all open.
    pub encryption: Encryption,
    /// The audit log: who did what.
    pub audit: AuditConfig,
    /// Accounts named in the configuration.
    #[serde(with = "value::accounts")]
    pub accounts: BTreeMap<AccountId, AccountConfig>,
    /// Receivers of events about grants and tokens.
    pub hooks: Vec<HookConfig>,
    /// Events that wait for their delivery.
    pub outbox: OutboxConfig,
    /// How accounts are connected.
    pub login: LoginConfig,
    /// What is written to standard error.
    pub log: LogConfig,
    /// What `/metrics` shows.
    pub metrics: MetricsConfig,
}

impl Config {
    /// The files of extra roots for Amazon's API hosts.
    pub fn upstream_roots(&self) -> Vec<&Path> {
        self.tls.ca_file.iter().chain(&self.upstream.ca_file).map(PathBuf::as_path).collect()
    }

    /// The files of extra roots for Login with Amazon and for hooks.
    pub fn other_roots(&self) -> Vec<&Path> {
        self.tls.ca_file.iter().map(PathBuf::as_path).collect()
    }
}

/// The name of the application described by `[lwa]`.
pub const DEFAULT_APPLICATION: &str = "default";

/// The path that consent returns to, unless `redirect_uri` has another.
pub const CALLBACK_PATH: &str = "/api/auth/amazon/callback";

/// Whether `path` can be that of a return address: the admin listener has no page of its own there.
pub fn is_callback_path(path: &str) -> bool {
    const PAGES: [&str; 7] =
        ["/", "/livez", "/readyz", "/startupz", "/healthz", "/metrics", "/status"];
    path == CALLBACK_PATH || !(PAGES.contains(&path) || path.starts_with("/api/"))
}

/// One address of the data plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProxyAddress {
    /// A TCP address; port 0 takes a free one.
    Tcp(SocketAddr),
    /// A Unix socket, made with mode 0660.
    Unix(PathBuf),
}

impl fmt::Display for ProxyAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Where the admin listener is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminAddress {
    /// A TCP address; port 0 takes a free one.
    Tcp(SocketAddr),
    /// A Unix socket, made with mode 0660.
    Unix(PathBuf),
    /// There is none: commands use the control socket.
    Off,
}

impl AdminAddress {
    /// Its TCP address, if it has one.
    pub fn tcp(&self) -> Option<SocketAddr> {
        if let Self::Tcp(address) = self { Some(*address) } else { None }
    }
}

impl fmt::Display for AdminAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Off => f.write_str("off"),
        }
    }
}

/// `store.kind`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreKind {
    /// Nothing outlives the process.
    Memory,
    /// A directory on this machine.
    File,
    /// The same, with master keys in the keyring of the operating system.
    Keyring,
}

impl StoreKind {
    /// Says whether it seals what it keeps, and so needs a key.
    pub fn seals(self) -> bool {
        self != Self::Memory
    }

    /// As it is configured.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::File => "file",
            Self::Keyring => "keyring",
        }
    }
}

/// Where a master key comes from.
#[derive(Debug, Clone)]
pub enum Material {
    /// 32 bytes, base64.
    Secret(Secret),
    /// Made of a passphrase, with a salt that is kept in the store.
    Passphrase(Secret),
    /// In the keyring of the operating system, under the key's id.
    Keyring,
}

/// How a hook's events are delivered.
#[derive(Debug, Clone)]
pub enum HookTarget {
    /// By an HTTPS request.
    Webhook(Webhook),
    /// By a local program: its absolute path and its arguments.
    Command(Vec<String>),
}

/// A receiver of signed requests.
#[derive(Debug, Clone)]
pub struct Webhook {
    /// Where it is; a secret with many receivers.
    pub url: Secret,
    /// Each signs, so that one can be replaced; at least one.
    pub secrets: Vec<Secret>,
    /// Permits addresses that the Internet does not route.
    pub unsafe_allow_private_addresses: bool,
}

/// `log.format`
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One readable line per event.
    Text,
    /// One JSON object per line.
    Json,
}

impl LogFormat {
    /// As it is configured.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

#[cfg(test)]
mod example_tests;
