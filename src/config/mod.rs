//! The configuration: read, checked, and with its secrets fetched. Nothing after this module checks
//! a value again.
//!
//! `load` finds the sources (flag, `environment`, file, default) and lays them over each other in
//! one `document`. The `reader` reads it into the `sections`, whose values `value` and `text` check
//! and `secret_ref` fetches; `validate` checks what concerns more than one value. Every `problem`
//! is collected.

mod document;
pub mod environment;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
pub mod load;
pub mod log_filter;
pub mod problem;
mod read_files;
mod reader;
pub mod reload;
pub mod secret_ref;
#[allow(missing_docs, reason = "proxy.example.toml explains every key")]
mod sections;
#[allow(missing_docs, reason = "docs/telemetry.md explains every variable")]
pub mod telemetry;
mod text;
mod validate;
mod value;

#[allow(unused_imports, reason = "who uses some of them follows")]
pub use sections::{
    AccountConfig, ApplicationConfig, AuditConfig, AuthConfig, CallerConfig, CallerKeyConfig,
    Config, DashboardConfig, Encryption, EncryptionKey, GuardConfig, HookConfig, IssuerConfig,
    JwksConfig, Limits, Listen, ListenTls, LogConfig, McpPins, MetricsConfig, OidcConfig,
    OutboxConfig, Replay, RulesConfig, StoreConfig, TenantsConfig, Token, Upstream,
};

use crate::{named::named, secret::Secret};
use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
};

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

/// Where something listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    /// A TCP address; port 0 takes a free one.
    Tcp(SocketAddr),
    /// A Unix socket, made with mode 0660.
    Unix(PathBuf),
    /// The sockets of this name that the service manager passes to the process.
    Inherited(String),
}

impl ListenAddress {
    /// The TCP address, if it is one.
    pub fn tcp(&self) -> Option<SocketAddr> {
        if let Self::Tcp(address) = self { Some(*address) } else { None }
    }

    /// Whether no other machine can reach it, as far as the configuration says.
    pub fn is_private(&self) -> bool {
        self.tcp().is_none_or(|address| address.ip().to_canonical().is_loopback())
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Inherited(name) => write!(f, "systemd:{name}"),
        }
    }
}

/// `listen.admin` as it is written: without an address it is `off`.
pub(crate) fn admin_text(address: &Option<ListenAddress>) -> String {
    address.as_ref().map_or_else(|| "off".to_owned(), ListenAddress::to_string)
}

named! {
    /// `listen.tls.client_auth`
    pub enum ClientAuth {
        /// A caller without a certificate is served as far as it has another credential.
        Optional = "optional",
        /// No connection without a certificate.
        Required = "required",
    }
}

named! {
    /// `store.kind`
    pub enum StoreKind {
        /// Nothing outlives the process.
        Memory = "memory",
        /// A directory on this machine.
        File = "file",
        /// The same, with master keys in the keyring of the operating system.
        Keyring = "keyring",
        /// A database that several servers share.
        Postgres = "postgres",
    }
}

impl StoreKind {
    /// Says whether it seals what it keeps, and so needs a key.
    pub fn seals(self) -> bool {
        self != Self::Memory
    }
}

impl StoreConfig {
    /// The directory that it keeps everything in, if it does.
    pub fn directory(&self) -> Option<&Path> {
        matches!(self.kind, StoreKind::File | StoreKind::Keyring).then_some(&*self.path)
    }

    /// What tells it from other stores of this user, without a secret; none if it keeps nothing.
    pub(crate) fn place(&self) -> Option<String> {
        match self.kind {
            StoreKind::Memory => None,
            StoreKind::File | StoreKind::Keyring => Some(self.path.to_string_lossy().into_owned()),
            StoreKind::Postgres => Some(format!("postgres:{}", self.schema)),
        }
    }
}

named! {
    /// What signs JWTs: algorithms with a public key only.
    pub enum JwtAlgorithm {
        Rs256 = "RS256",
        Rs384 = "RS384",
        Rs512 = "RS512",
        Ps256 = "PS256",
        Ps384 = "PS384",
        Ps512 = "PS512",
        Es256 = "ES256",
        Es384 = "ES384",
        EdDsa = "EdDSA",
    }
}

/// Where a master key comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum Material {
    /// 32 bytes, base64.
    Secret(Secret),
    /// Made of a passphrase, with a salt that is kept in the store.
    Passphrase(Secret),
    /// In the keyring of the operating system, under the key's id.
    Keyring,
}

/// How a hook's events are delivered.
#[derive(Debug, Clone, PartialEq)]
pub enum HookTarget {
    /// By an HTTPS request.
    Webhook(Webhook),
    /// By a local program: its absolute path and its arguments.
    Command(Vec<String>),
}

/// A receiver of signed requests.
#[derive(Debug, Clone, PartialEq)]
pub struct Webhook {
    /// Where it is; a secret with many receivers.
    pub url: Secret,
    /// Each signs, so that one can be replaced; at least one.
    pub secrets: Vec<Secret>,
    /// Permits addresses that the Internet does not route.
    pub unsafe_allow_private_addresses: bool,
}

named! {
    /// `log.format`
    #[derive(clap::ValueEnum)]
    pub enum LogFormat {
        /// One readable line per event.
        Text = "text",
        /// One JSON object per line.
        Json = "json",
    }
}

#[cfg(test)]
mod example_tests;
