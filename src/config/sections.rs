//! The sections of the configuration file: each key once, with its default and its check.
//! `proxy.example.toml` explains every key.

use super::{
    AdminAddress, HookTarget, LogFormat, Material, ProxyAddress, StoreKind,
    reader::{Field, Reader, Section},
    text::*,
    value::*,
};
use crate::{
    event::Kind,
    id::{AccountId, Region},
    provider::ads,
    secret::Secret,
};
use http::{HeaderName, HeaderValue, Uri};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};
use toml::Table;

pub(super) const MIB: u64 = 1 << 20;

/// Bytes, or anything else without a bound.
const ANY: Whole = Whole(0, u64::MAX);
const COUNT: Whole = Whole(1, COUNT_MAX);
const COUNT_OR_NONE: Whole = Whole(0, COUNT_MAX);

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The tables of the file: field, key if it has another name, type, default, and how its value is
/// read. Behind `+` is what is made of the table when loaded.
macro_rules! sections {
    (@key $field:ident) => { stringify!($field) };
    (@key $field:ident $key:literal) => { $key };
    ($($(#[$doc:meta])* $name:ident {
        $($(#[$field_doc:meta])* $field:ident $(as $key:literal)?:
            $type:ty = $default:expr, $kind:expr;)*
        $(+ $(#[$made_doc:meta])* $made:ident: $made_type:ty = $made_default:expr;)*
    })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
            $($(#[$made_doc])* pub $made: $made_type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* $($made: $made_default,)* }
            }
        }

        impl Section for $name {
            const KEYS: &'static [&'static str] = &[$(sections!(@key $field $($key)?)),*];

            fn read(reader: &mut Reader<'_>, at: &[&str]) -> Self {
                let mut section = Self::default();
                reader.unknown_keys(at, Self::KEYS);
                $(reader.field(at, sections!(@key $field $($key)?), &$kind, &mut section.$field);)*
                section
            }

            fn write(&self) -> Table {
                let mut table = Table::new();
                $(if let Some(value) = $kind.write(&self.$field) {
                    table.insert(sections!(@key $field $($key)?).to_owned(), value);
                })*
                table
            }
        }
    )*};
}

sections! {
    /// The whole configuration.
    Config {
        listen: Listen = Listen::default(), Sub;
        proxy: Proxy = Proxy::default(), Sub;
        guard: GuardConfig = GuardConfig::default(), Sub;
        /// Once loaded, it is the application named `default`, and this is none.
        lwa: Option<ApplicationConfig> = None, Opt(Sub);
        /// LWA applications by name.
        applications: BTreeMap<String, ApplicationConfig> = BTreeMap::new(), Named(parse_name);
        upstream: Upstream = Upstream::default(), Sub;
        tls: Tls = Tls::default(), Sub;
        token: Token = Token::default(), Sub;
        replay: Replay = Replay::default(), Sub;
        limits: Limits = Limits::default(), Sub;
        store: StoreConfig = StoreConfig::default(), Sub;
        encryption: Encryption = Encryption::default(), Sub;
        audit: AuditConfig = AuditConfig::default(), Sub;
        accounts: BTreeMap<AccountId, AccountConfig> = BTreeMap::new(), Named(parse_account);
        hooks: Vec<HookConfig> = Vec::new(), Tables;
        outbox: OutboxConfig = OutboxConfig::default(), Sub;
        login: LoginConfig = LoginConfig::default(), Sub;
        log: LogConfig = LogConfig::default(), Sub;
        metrics: MetricsConfig = MetricsConfig::default(), Sub;
        + /// The file it came from, if there was one.
        source: Option<PathBuf> = None;
    }

    /// `[listen]`
    Listen {
        /// The data plane's addresses; at least one. `localhost` is both loopback addresses.
        proxy: Vec<ProxyAddress> = parse_proxy("localhost:8787").unwrap_or_default(), Addresses;
        /// Health, metrics, and the admin API.
        admin: AdminAddress = AdminAddress::Tcp(([127, 0, 0, 1], 8788).into()), Text(parse_admin);
        /// Health and metrics only, read-only; may be any address.
        health: Option<SocketAddr> = None, Opt(Text(parse_tcp));
        unsafe_allow_unauthenticated: bool = false, Flag;
        tls: Option<ListenTls> = None, Opt(Sub);
    }

    /// `[listen.tls]`: PEM files, read again when their content changes.
    ListenTls {
        cert_file: PathBuf = PathBuf::new(), FilePath;
        /// The private key; should not be readable by others.
        key_file: PathBuf = PathBuf::new(), FilePath;
    }

    /// `[proxy]`
    Proxy {
        /// Worker threads; never 0 once loaded (0 in the file means one per core).
        workers: usize = 0, Whole(0, 1024);
        default_account: Option<AccountId> = None, Opt(Text(parse_account));
        drain_timeout as "drain_timeout_secs": Duration = secs(25), Seconds;
    }

    /// `[guard]`
    GuardConfig {
        /// Host names (lower case, without port) accepted beside the loopback names.
        allowed_hosts: Vec<String> = Vec::new(), List(parse_host);
        /// Origins of pages, as a browser sends them, accepted beside our own.
        allowed_origins: Vec<String> = Vec::new(), List(parse_origin);
    }

    /// `[lwa]` or `[applications.<name>]`: one LWA security profile.
    ApplicationConfig {
        client_id: String = String::new(), Text(parse_client_id);
        /// All live secrets, tried in order; at least one.
        client_secrets as "client_secret": Vec<Secret> = Vec::new(), Secrets;
        token_url: Uri = Uri::from_static(ads::TOKEN_URL), Text(parse_url);
        fallback_token_urls: Vec<Uri> = ads::FALLBACK_TOKEN_URLS.map(Uri::from_static).to_vec(),
            List(parse_url);
        authorize_url: Uri = Uri::from_static(ads::AUTHORIZE_URL), Text(parse_url);
        /// Where consent returns to: by default the admin listener's default address.
        redirect_uri: String = "http://localhost:8788/api/auth/amazon/callback".to_owned(),
            Text(parse_url_text);
        scopes: Vec<String> = vec![ads::SCOPE.to_owned()], List(any_text);
        /// Where a refresh token is given back (RFC 7009); Amazon has no such endpoint.
        revocation_url: Option<Uri> = None, Opt(Text(parse_url));
    }

    /// `[upstream]`: Amazon's hosts, scheme and authority only, and how we speak to them.
    Upstream {
        na: Uri = Uri::from_static(ads::API[0]), Text(parse_base_url);
        eu: Uri = Uri::from_static(ads::API[1]), Text(parse_base_url);
        fe: Uri = Uri::from_static(ads::API[2]), Text(parse_base_url);
        mcp_na: Uri = Uri::from_static(ads::MCP[0]), Text(parse_base_url);
        mcp_eu: Uri = Uri::from_static(ads::MCP[1]), Text(parse_base_url);
        mcp_fe: Uri = Uri::from_static(ads::MCP[2]), Text(parse_base_url);
        ca_file: Option<PathBuf> = None, Opt(FilePath);
        /// TCP connect, egress proxy and TLS handshake together.
        connect_timeout as "connect_timeout_secs": Duration = secs(10), Timeout;
        /// From the last byte of the request to the head of the response.
        response_header_timeout as "response_header_timeout_secs": Duration = secs(75), Timeout;
        /// The longest gap inside the body of a response that is no event stream.
        response_idle_timeout as "response_idle_timeout_secs": Duration = secs(300), Timeout;
        idle_timeout as "idle_timeout_secs": Duration = secs(50), Timeout;
        /// Open connections per host, all workers together; shared out evenly, rounded up.
        connections_max: usize = 2048, COUNT;
        http2: bool = true, Flag;
    }

    /// `[tls]`
    Tls {
        ca_file: Option<PathBuf> = None, Opt(FilePath);
    }

    /// `[token]`
    Token {
        /// How long before expiry a request starts a refresh.
        refresh_buffer as "refresh_buffer_secs": Duration = secs(300), Seconds;
        background_lead as "background_lead_secs": Duration = secs(900), Seconds;
        background_concurrency: usize = 8, COUNT;
        forced_refresh_min_interval as "forced_refresh_min_interval_secs": Duration = secs(30),
            Seconds;
        wait_timeout as "wait_timeout_secs": Duration = secs(30), Timeout;
        waiters_max: usize = 16384, COUNT;
        lwa_concurrency: usize = 16, COUNT;
        lwa_connect_timeout as "lwa_connect_timeout_secs": Duration = secs(5), Timeout;
        lwa_timeout as "lwa_timeout_secs": Duration = secs(10), Timeout;
        lwa_attempts_max: u32 = 3, Whole(1, 100);
    }

    /// `[replay]`
    Replay {
        max_replays: u32 = 2, Whole(0, 10);
        /// Captured in memory per request, bytes.
        memory_max_bytes: u64 = MIB, ANY;
        /// Captured per request in all, bytes; beyond `memory_max_bytes` in an unlinked file.
        disk_max_bytes: u64 = 64 * MIB, ANY;
        /// All captures together, bytes.
        total_max_bytes: u64 = 256 * MIB, ANY;
        /// Where capture files are made; the system's temporary directory if none.
        directory: Option<PathBuf> = None, Opt(FilePath);
    }

    /// `[limits]`
    Limits {
        connections_max: usize = 16384, COUNT;
        /// Requests in flight, all workers together; shared out evenly, rounded up.
        in_flight_max: usize = 16384, COUNT;
        /// Request line and header lines together, bytes.
        header_max_bytes: usize = 64 << 10, Whole(8192, 16 << 20);
        headers_max: usize = 100, Whole(1, 10_000);
        /// A request body, bytes; 0 for no cap.
        body_max_bytes: u64 = 0, ANY;
        http2_streams_max: u32 = 128, Whole(1, 65_536);
        handshake_timeout as "handshake_timeout_secs": Duration = secs(10), Timeout;
        /// From accept to the first byte of a request.
        first_byte_timeout as "first_byte_timeout_secs": Duration = secs(30), Timeout;
        /// From a request's first byte to the end of its header.
        header_timeout as "header_timeout_secs": Duration = secs(30), Timeout;
        idle_timeout as "idle_timeout_secs": Duration = secs(75), Timeout;
        /// Grace before `body_min_bytes_per_sec` is asked of a caller that keeps us waiting.
        body_timeout as "body_timeout_secs": Duration = secs(60), Timeout;
        /// Slowest acceptable upload while we wait for the caller.
        body_min_bytes_per_sec: u64 = 500, ANY;
        write_timeout as "write_timeout_secs": Duration = secs(60), Timeout;
    }

    /// `[store]`
    StoreConfig {
        kind: StoreKind = StoreKind::File, Text(parse_store_kind);
        path: PathBuf = "~/.local/state/adsproxy".into(), FilePath;
    }

    /// `[encryption]`
    Encryption {
        /// The key ring: the first key seals, all of them open.
        keys: Vec<EncryptionKey> = Vec::new(), Tables;
    }

    /// One master key.
    EncryptionKey {
        id: String = String::new(), Text(any_text);
        secret: Option<Secret> = None, OneSecret;
        passphrase: Option<Secret> = None, OneSecret;
        + material: Material = Material::Keyring;
    }

    /// `[audit]`
    AuditConfig {
        /// The log; its older parts and its head lie beside it. None: no log is kept.
        path: Option<PathBuf> = None, Opt(FilePath);
        /// The log goes on in a new file when this one would grow beyond it, bytes; 0: never.
        max_bytes: u64 = 16 * MIB, ANY;
        /// Older files that are kept; 0: all.
        keep: usize = 0, COUNT_OR_NONE;
        /// How old a file is at least before it is removed because of `keep`.
        keep_at_least as "keep_days": Duration = secs(7 * 86_400), Days;
    }

    /// `[accounts.<alias>]`
    AccountConfig {
        /// Which API host, unless a request says otherwise; there is no default.
        region: Region = Region::Na, Text(parse_region);
        application: String = super::DEFAULT_APPLICATION.to_owned(), Text(any_text);
        /// Seeds the account's record in the store.
        refresh_token: Option<Secret> = None, Refresh;
        headers: Vec<(HeaderName, HeaderValue)> = Vec::new(), Headers;
    }

    /// One of `[[hooks]]`: a receiver of events.
    HookConfig {
        /// Names it in the log, in the outbox and for commands; no two are alike.
        name: String = String::new(), Text(any_text);
        url: Secret = Secret::from(""), HookUrl;
        secrets as "secret": Vec<Secret> = Vec::new(), Secrets;
        command: Vec<String> = Vec::new(), List(any_text);
        /// The events it receives, by default all but successful refreshes; at least one.
        events: Vec<Kind> = Kind::ALL[1..].to_vec(), List(parse_event);
        timeout as "timeout_secs": Duration = secs(10), Timeout;
        unsafe_allow_private_addresses: bool = false, Flag;
        + target: HookTarget = HookTarget::Command(Vec::new());
    }

    /// `[outbox]`
    OutboxConfig {
        messages_max: usize = 10_000, COUNT;
        dead_letters_max: usize = 1_000, COUNT;
        retry_min as "retry_min_secs": Duration = secs(5), Timeout;
        retry_max as "retry_max_secs": Duration = secs(3600), Timeout;
        attempts_max: u32 = 40, Whole(1, 1000);
        give_up as "give_up_after_secs": Duration = secs(86_400), Timeout;
    }

    /// `[login]`
    LoginConfig {
        timeout as "timeout_secs": Duration = secs(600), Timeout;
        /// How long the question whether to replace an account waits for its confirmation.
        confirm_timeout as "confirm_timeout_secs": Duration = secs(600), Timeout;
        reconnect_link as "reconnect_link_secs": Duration = secs(604_800), Timeout;
        pending_max: usize = 3000, COUNT;
    }

    /// `[log]`
    LogConfig {
        filter: String = "info".to_owned(), Text(parse_filter);
        /// If none, text on a terminal and JSON otherwise.
        format: Option<LogFormat> = None, Opt(Text(parse_format));
        access: bool = true, Flag;
    }

    /// `[metrics]`
    MetricsConfig {
        /// Accounts with series of their own; the rest are only counted.
        account_labels_max: usize = 200, COUNT_OR_NONE;
    }
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
