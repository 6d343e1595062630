//! The sections of the configuration file: each key once, with its default and its check.
//! `proxy.example.toml` explains every key.

use super::{
    AdminAddress, HookTarget, LogFormat, Material, ProxyAddress, StoreKind, secret_ref::SecretRefs,
    text::parse_proxy, value,
};
use crate::{
    event::Kind,
    id::{AccountId, Region},
    provider::ads,
    secret::Secret,
};
use http::{HeaderName, HeaderValue, Uri};
use serde::{Deserialize, Serialize};
use std::{net::SocketAddr, path::PathBuf, time::Duration};

pub(super) const MIB: u64 = 1 << 20;

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The tables of the file: field, key if it has another name, type, default, and what of `value`
/// reads it if the type does not say enough. Behind `+` is what is made of the table when loaded.
macro_rules! sections {
    ($($(#[$doc:meta])* $name:ident {
        $($(#[$field_doc:meta])* $field:ident $(as $key:literal)?:
            $type:ty = $default:expr $(, $with:literal)?;)*
        $(+ $(#[$made_doc:meta])* $made:ident: $made_type:ty = $made_default:expr;)*
    })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name {
            $($(#[$field_doc])* #[serde($(rename = $key,)? $(with = $with)?)] pub $field: $type,)*
            $($(#[$made_doc])* #[serde(skip)] pub $made: $made_type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* $($made: $made_default,)* }
            }
        }
    )*};
}

sections! {
    /// `[listen]`
    Listen {
        /// The data plane's addresses; at least one. `localhost` is both loopback addresses.
        proxy: Vec<ProxyAddress> = parse_proxy("localhost:8787").unwrap_or_default(),
            "value::proxy_addresses";
        /// Health, metrics, and the admin API.
        admin: AdminAddress = AdminAddress::Tcp(([127, 0, 0, 1], 8788).into()), "value::admin";
        /// Health and metrics only, read-only; may be any address.
        health: Option<SocketAddr> = None, "value::tcp_if_any";
        unsafe_allow_unauthenticated: bool = false;
        tls: Option<ListenTls> = None;
    }

    /// `[listen.tls]`: PEM files, read again when their content changes.
    ListenTls {
        cert_file: PathBuf = PathBuf::new();
        /// The private key; should not be readable by others.
        key_file: PathBuf = PathBuf::new();
    }

    /// `[proxy]`
    Proxy {
        /// Worker threads; never 0 once loaded (0 in the file means one per core).
        workers: usize = 0, "value::workers";
        default_account: Option<AccountId> = None, "value::account_if_any";
        drain_timeout as "drain_timeout_secs": Duration = secs(25), "value::seconds";
    }

    /// `[guard]`
    GuardConfig {
        /// Host names (lower case, without port) accepted beside the loopback names.
        allowed_hosts: Vec<String> = Vec::new(), "value::hosts";
        /// Origins of pages, as a browser sends them, accepted beside our own.
        allowed_origins: Vec<String> = Vec::new(), "value::origins";
    }

    /// `[lwa]` or `[applications.<name>]`: one LWA security profile.
    ApplicationConfig {
        client_id: String = String::new(), "value::client_id";
        client_secret: SecretRefs = SecretRefs::default();
        token_url: Uri = Uri::from_static(ads::TOKEN_URL), "value::url";
        fallback_token_urls: Vec<Uri> = ads::FALLBACK_TOKEN_URLS.map(Uri::from_static).to_vec(),
            "value::urls";
        authorize_url: Uri = Uri::from_static(ads::AUTHORIZE_URL), "value::url";
        /// Where consent returns to: by default the admin listener's default address.
        redirect_uri: String = "http://localhost:8788/api/auth/amazon/callback".to_owned(),
            "value::url_text";
        scopes: Vec<String> = vec![ads::SCOPE.to_owned()], "value::texts";
        /// Where a refresh token is given back (RFC 7009); Amazon has no such endpoint.
        revocation_url: Option<Uri> = None, "value::url_if_any";
        + /// All live secrets, tried in order; at least one.
        client_secrets: Vec<Secret> = Vec::new();
    }

    /// `[upstream]`: Amazon's hosts, scheme and authority only, and how we speak to them.
    Upstream {
        na: Uri = Uri::from_static(ads::API[0]), "value::base_url";
        eu: Uri = Uri::from_static(ads::API[1]), "value::base_url";
        fe: Uri = Uri::from_static(ads::API[2]), "value::base_url";
        mcp_na: Uri = Uri::from_static(ads::MCP[0]), "value::base_url";
        mcp_eu: Uri = Uri::from_static(ads::MCP[1]), "value::base_url";
        mcp_fe: Uri = Uri::from_static(ads::MCP[2]), "value::base_url";
        ca_file: Option<PathBuf> = None;
        /// TCP connect, egress proxy and TLS handshake together.
        connect_timeout as "connect_timeout_secs": Duration = secs(10), "value::timeout";
        /// From the last byte of the request to the head of the response.
        response_header_timeout as "response_header_timeout_secs": Duration = secs(75),
            "value::timeout";
        /// The longest gap inside the body of a response that is no event stream.
        response_idle_timeout as "response_idle_timeout_secs": Duration = secs(300),
            "value::timeout";
        idle_timeout as "idle_timeout_secs": Duration = secs(50), "value::timeout";
        /// Open connections per host, all workers together; shared out evenly, rounded up.
        connections_max: usize = 2048, "value::count";
        http2: bool = true;
    }

    /// `[tls]`
    Tls {
        ca_file: Option<PathBuf> = None;
    }

    /// `[token]`
    Token {
        /// How long before expiry a request starts a refresh.
        refresh_buffer as "refresh_buffer_secs": Duration = secs(300), "value::seconds";
        background_lead as "background_lead_secs": Duration = secs(900), "value::seconds";
        background_concurrency: usize = 8, "value::count";
        forced_refresh_min_interval as "forced_refresh_min_interval_secs": Duration = secs(30),
            "value::seconds";
        wait_timeout as "wait_timeout_secs": Duration = secs(30), "value::timeout";
        waiters_max: usize = 16384, "value::count";
        lwa_concurrency: usize = 16, "value::count";
        lwa_connect_timeout as "lwa_connect_timeout_secs": Duration = secs(5), "value::timeout";
        lwa_timeout as "lwa_timeout_secs": Duration = secs(10), "value::timeout";
        lwa_attempts_max: u32 = 3, "value::attempts";
    }

    /// `[replay]`
    Replay {
        max_replays: u32 = 2, "value::replays";
        /// Captured in memory per request, bytes.
        memory_max_bytes: u64 = MIB;
        /// Captured per request in all, bytes; beyond `memory_max_bytes` in an unlinked file.
        disk_max_bytes: u64 = 64 * MIB;
        /// All captures together, bytes.
        total_max_bytes: u64 = 256 * MIB;
        /// Where capture files are made; the system's temporary directory if none.
        directory: Option<PathBuf> = None;
    }

    /// `[limits]`
    Limits {
        connections_max: usize = 16384, "value::count";
        /// Requests in flight, all workers together; shared out evenly, rounded up.
        in_flight_max: usize = 16384, "value::count";
        /// Request line and header lines together, bytes.
        header_max_bytes: usize = 64 << 10, "value::header_bytes";
        headers_max: usize = 100, "value::header_lines";
        /// A request body, bytes; 0 for no cap.
        body_max_bytes: u64 = 0;
        http2_streams_max: u32 = 128, "value::streams";
        handshake_timeout as "handshake_timeout_secs": Duration = secs(10), "value::timeout";
        /// From accept to the first byte of a request.
        first_byte_timeout as "first_byte_timeout_secs": Duration = secs(30), "value::timeout";
        /// From a request's first byte to the end of its header.
        header_timeout as "header_timeout_secs": Duration = secs(30), "value::timeout";
        idle_timeout as "idle_timeout_secs": Duration = secs(75), "value::timeout";
        /// Grace before `body_min_bytes_per_sec` is asked of a caller that keeps us waiting.
        body_timeout as "body_timeout_secs": Duration = secs(60), "value::timeout";
        /// Slowest acceptable upload while we wait for the caller.
        body_min_bytes_per_sec: u64 = 500;
        write_timeout as "write_timeout_secs": Duration = secs(60), "value::timeout";
    }

    /// `[store]`
    StoreConfig {
        kind: StoreKind = StoreKind::File, "value::store_kind";
        path: PathBuf = "~/.local/state/adsproxy".into();
    }

    /// `[encryption]`
    Encryption {
        /// The key ring: the first key seals, all of them open.
        keys: Vec<EncryptionKey> = Vec::new();
    }

    /// One master key.
    EncryptionKey {
        id: String = String::new();
        secret: SecretRefs = SecretRefs::default();
        passphrase: SecretRefs = SecretRefs::default();
        + material: Material = Material::Keyring;
    }

    /// `[audit]`
    AuditConfig {
        /// The log; its older parts and its head lie beside it. None: no log is kept.
        path: Option<PathBuf> = None;
        /// The log goes on in a new file when this one would grow beyond it, bytes; 0: never.
        max_bytes: u64 = 16 * MIB;
        /// Older files that are kept; 0: all.
        keep: usize = 0, "value::count_or_none";
        /// How old a file is at least before it is removed because of `keep`.
        keep_at_least as "keep_days": Duration = secs(7 * 86_400), "value::days";
    }

    /// `[accounts.<alias>]`
    AccountConfig {
        /// Which API host, unless a request says otherwise; there is no default.
        region: Region = Region::Na, "value::region";
        application: String = super::DEFAULT_APPLICATION.to_owned();
        refresh_token_ref as "refresh_token": SecretRefs = SecretRefs::default();
        headers: Vec<(HeaderName, HeaderValue)> = Vec::new(), "value::headers";
        + /// Seeds the account's record in the store.
        refresh_token: Option<Secret> = None;
    }

    /// One of `[[hooks]]`: a receiver of events.
    HookConfig {
        /// Names it in the log, in the outbox and for commands; no two are alike.
        name: String = String::new();
        url: Secret = Secret::from(""), "value::hook_url";
        secret: SecretRefs = SecretRefs::default();
        command: Vec<String> = Vec::new(), "value::texts";
        /// The events it receives, by default all but successful refreshes; at least one.
        events: Vec<Kind> = Kind::ALL[1..].to_vec(), "value::events";
        timeout as "timeout_secs": Duration = secs(10), "value::timeout";
        unsafe_allow_private_addresses: bool = false;
        + target: HookTarget = HookTarget::Command(Vec::new());
    }

    /// `[outbox]`
    OutboxConfig {
        messages_max: usize = 10_000, "value::count";
        dead_letters_max: usize = 1_000, "value::count";
        retry_min as "retry_min_secs": Duration = secs(5), "value::timeout";
        retry_max as "retry_max_secs": Duration = secs(3600), "value::timeout";
        attempts_max: u32 = 40, "value::deliveries";
        give_up as "give_up_after_secs": Duration = secs(86_400), "value::timeout";
    }

    /// `[login]`
    LoginConfig {
        timeout as "timeout_secs": Duration = secs(600), "value::timeout";
        /// How long the question whether to replace an account waits for its confirmation.
        confirm_timeout as "confirm_timeout_secs": Duration = secs(600), "value::timeout";
        reconnect_link as "reconnect_link_secs": Duration = secs(604_800), "value::timeout";
        pending_max: usize = 3000, "value::count";
    }

    /// `[log]`
    LogConfig {
        filter: String = "info".to_owned(), "value::filter";
        /// If none, text on a terminal and JSON otherwise.
        format: Option<LogFormat> = None, "value::format";
        access: bool = true;
    }

    /// `[metrics]`
    MetricsConfig {
        /// Accounts with series of their own; the rest are only counted.
        account_labels_max: usize = 200, "value::count_or_none";
    }
}

impl Upstream {
    /// The API's hosts by region.
    pub fn api(&self) -> [&Uri; 3] {
        [&self.na, &self.eu, &self.fe]
    }

    /// The MCP hosts by region.
    pub fn mcp(&self) -> [&Uri; 3] {
        [&self.mcp_na, &self.mcp_eu, &self.mcp_fe]
    }
}

impl EncryptionKey {
    /// A key whose 32 bytes are `secret`, base64.
    pub fn new(id: &str, secret: Secret) -> Self {
        Self { id: id.to_owned(), material: Material::Secret(secret), ..Self::default() }
    }
}
