//! The validated configuration. Nothing after this module checks a value again.
//!
//! `file` mirrors `proxy.example.toml` with every default, `load` finds and reads the sources
//! (flag, `environment`, file, default) into one `document` and collects every `problem`,
//! `secret_ref` says where a secret comes from, `validate` makes the types below, which can only
//! be right.

mod document;
pub mod environment;
pub mod file;
pub mod load;
pub mod log_filter;
pub mod problem;
pub mod reload;
pub mod secret_ref;
mod sections;
mod validate;
mod value;

pub use sections::{Limits, Login, Metrics, Outbox, Replay, Token};

use crate::{
    event::Kind,
    id::{AccountId, Region},
    secret::Secret,
};
use http::{HeaderName, HeaderValue, Uri};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

/// The whole configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file it came from, if there was one.
    pub source: Option<PathBuf>,
    /// Where we listen.
    pub listen: Listen,
    /// The data plane's shape.
    pub proxy: Proxy,
    /// Which hosts and origins are accepted.
    pub guard: Guard,
    /// LWA applications by name; `[lwa]` is the one named `default`.
    pub applications: BTreeMap<String, Application>,
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
    pub store: Store,
    /// Keys that seal the store: the first seals, all open.
    pub encryption: Encryption,
    /// Where it is written down who did what.
    pub audit: Audit,
    /// Accounts named in the configuration.
    pub accounts: BTreeMap<AccountId, Account>,
    /// Receivers of events about grants and tokens.
    pub hooks: Vec<Hook>,
    /// Events that wait for their delivery.
    pub outbox: Outbox,
    /// How accounts are connected.
    pub login: Login,
    /// What is written to standard error.
    pub log: Log,
    /// What `/metrics` shows.
    pub metrics: Metrics,
}

/// The name of the application described by `[lwa]`.
pub const DEFAULT_APPLICATION: &str = "default";

/// `[listen]`
#[derive(Debug, Clone)]
pub struct Listen {
    /// The data plane's addresses; at least one.
    pub proxy: Vec<ProxyAddress>,
    /// Health, metrics, and later the admin API.
    pub admin: SocketAddr,
    /// Health and metrics only, read-only; may be any address.
    pub health: Option<SocketAddr>,
    /// Serves the TCP addresses of `proxy` over TLS.
    pub tls: Option<ListenTls>,
    /// Permits a proxy or admin listener beyond loopback without caller authentication.
    pub unsafe_allow_unauthenticated: bool,
}

/// One address of the data plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProxyAddress {
    /// A TCP address; port 0 takes a free one.
    Tcp(SocketAddr),
    /// A Unix socket, made with mode 0660.
    Unix(PathBuf),
}

/// `[listen.tls]`: PEM files, read again when their content changes.
#[derive(Debug, Clone)]
pub struct ListenTls {
    /// The certificate chain, leaf first.
    pub cert_file: PathBuf,
    /// The private key; should not be readable by others.
    pub key_file: PathBuf,
}

/// `[proxy]`
#[derive(Debug, Clone)]
pub struct Proxy {
    /// Worker threads; never 0 here (0 in the file means one per core).
    pub workers: usize,
    /// The account of a request that names none.
    pub default_account: Option<AccountId>,
    /// How long a stopping server waits for requests in flight.
    pub drain_timeout: Duration,
}

/// `[guard]`
#[derive(Debug, Clone, Default)]
pub struct Guard {
    /// Host names (lower case, without port) accepted beside the loopback names.
    pub allowed_hosts: Vec<String>,
    /// Origins of pages, as a browser sends them, accepted beside our own.
    pub allowed_origins: Vec<String>,
}

/// `[lwa]` or `[applications.<name>]`: one LWA security profile.
#[derive(Debug, Clone)]
pub struct Application {
    /// The public identifier, sent as `Amazon-Advertising-API-ClientId`.
    pub client_id: String,
    /// All live secrets, tried in order; at least one.
    pub client_secrets: Vec<Secret>,
    /// The token endpoint.
    pub token_url: Uri,
    /// Other hosts of the same endpoint, tried when a connection to the one before fails.
    pub fallback_token_urls: Vec<Uri>,
    /// The consent page.
    pub authorize_url: Uri,
    /// Where consent returns to.
    pub redirect_uri: String,
    /// What is asked for.
    pub scopes: Vec<String>,
    /// Where a refresh token is given back (RFC 7009); Amazon has no such endpoint.
    pub revocation_url: Option<Uri>,
}

/// The path that consent returns to, unless `redirect_uri` has another.
pub const CALLBACK_PATH: &str = "/api/auth/amazon/callback";

/// Whether `path` can be that of a return address: the admin listener has no page of its own there.
#[must_use]
pub fn is_callback_path(path: &str) -> bool {
    const PAGES: [&str; 7] =
        ["/", "/livez", "/readyz", "/startupz", "/healthz", "/metrics", "/status"];
    path == CALLBACK_PATH || !(PAGES.contains(&path) || path.starts_with("/api/"))
}

/// `[upstream]`
#[derive(Debug, Clone)]
pub struct Upstream {
    /// API hosts by region: scheme and authority only.
    pub api: [Uri; 3],
    /// MCP hosts by region: scheme and authority only.
    pub mcp: [Uri; 3],
    /// Roots trusted for these hosts alone, PEM.
    pub ca_file: Option<PathBuf>,
    /// TCP connect, egress proxy and TLS handshake together.
    pub connect_timeout: Duration,
    /// From the last byte of the request to the head of the response.
    pub response_header_timeout: Duration,
    /// The longest gap inside the body of a response that is no event stream.
    pub response_idle_timeout: Duration,
    /// How long an unused connection is kept.
    pub idle_timeout: Duration,
    /// Open connections per host, all workers together; shared out evenly, rounded up.
    pub connections_max: usize,
    /// Offer HTTP/2 to TLS upstreams by ALPN.
    pub http2: bool,
}

/// `[tls]`
#[derive(Debug, Clone)]
pub struct Tls {
    /// Roots trusted for every connection that we open, PEM.
    pub ca_file: Option<PathBuf>,
}

impl Config {
    /// The files of extra roots for Amazon's API hosts.
    #[must_use]
    pub fn upstream_roots(&self) -> Vec<&Path> {
        self.tls.ca_file.iter().chain(&self.upstream.ca_file).map(PathBuf::as_path).collect()
    }

    /// The files of extra roots for Login with Amazon and for hooks.
    #[must_use]
    pub fn other_roots(&self) -> Vec<&Path> {
        self.tls.ca_file.iter().map(PathBuf::as_path).collect()
    }
}

/// `[store]`
#[derive(Debug, Clone)]
pub struct Store {
    /// What keeps the grants.
    pub kind: StoreKind,
    /// The directory of the file store.
    pub path: PathBuf,
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
    #[must_use]
    pub fn seals(self) -> bool {
        match self {
            Self::Memory => false,
            Self::File | Self::Keyring => true,
        }
    }

    /// As it is configured.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::File => "file",
            Self::Keyring => "keyring",
        }
    }
}

/// `[encryption]`
#[derive(Debug, Clone)]
pub struct Encryption {
    /// The key ring: the first key seals, all of them open.
    pub keys: Vec<EncryptionKey>,
}

/// One master key.
#[derive(Debug, Clone)]
pub struct EncryptionKey {
    /// Names the key in every record it sealed.
    pub id: String,
    /// What it is made of.
    pub material: Material,
}

impl EncryptionKey {
    /// A key whose 32 bytes are `secret`, base64.
    #[must_use]
    pub fn new(id: &str, secret: Secret) -> Self {
        Self { id: id.to_owned(), material: Material::Secret(secret) }
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

/// `[audit]`
#[derive(Debug, Clone)]
pub struct Audit {
    /// The log; its older parts and its head lie beside it. None: no log is kept.
    pub path: Option<PathBuf>,
    /// The log goes on in a new file when this one would grow beyond it, bytes; 0: never.
    pub max_bytes: u64,
    /// Older files that are kept; 0: all.
    pub keep: usize,
    /// How old a file is at least before it is removed because of `keep`.
    pub keep_at_least: Duration,
}

/// `[accounts.<alias>]`
#[derive(Debug, Clone)]
pub struct Account {
    /// Which API host, unless a request says otherwise.
    pub region: Region,
    /// Which of `applications` its grant belongs to.
    pub application: String,
    /// Seeds the account's record in the store.
    pub refresh_token: Option<Secret>,
    /// Added to a request that lacks them.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// One of `[[hooks]]`: a receiver of events.
#[derive(Debug, Clone)]
pub struct Hook {
    /// Names it in the log, in the outbox and for commands; no two are alike.
    pub name: String,
    /// How events are delivered.
    pub target: HookTarget,
    /// The events it receives; at least one.
    pub events: Vec<Kind>,
    /// The longest one attempt may take.
    pub timeout: Duration,
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

/// `[log]`
#[derive(Debug, Clone)]
pub struct Log {
    /// `tracing` filter directives.
    pub filter: String,
    /// Text or JSON; if none, text on a terminal and JSON otherwise.
    pub format: Option<LogFormat>,
    /// One line per request.
    pub access: bool,
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
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}
