//! The sections of the configuration file: each key once, with its default and its check.
//! `proxy.example.toml` explains every key.

use super::{
    ClientAuth, JwtAlgorithm, ListenAddress, LogFormat, Material, StoreKind,
    reader::{ConfigReader, Section},
    secret_ref::{one_secret, refresh_token, secrets},
    telemetry::TelemetryConfig,
    text::*,
    value::*,
};
use crate::{
    event::Kind,
    id::{AccountId, Region, Tenant},
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
use toml::Value;

pub(super) const MIB: u64 = 1 << 20;

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The tables of the file: field, key if it has another name, type, default, how its value is
/// read, and behind `=>` how it is shown if its type does not say. Behind `*` is a section whose keys
/// stand among these, behind `+` what is made of the table when loaded.
macro_rules! sections {
    (@key $field:ident) => { stringify!($field) };
    (@key $field:ident $key:literal) => { $key };
    (@shown $value:expr) => { Displayed::shown($value) };
    (@shown $value:expr, $shown:ident) => { $shown($value) };
    ($($(#[$doc:meta])* $name:ident {
        $($(#[$field_doc:meta])* $field:ident $(as $key:literal)?:
            $type:ty = $default:expr, $read:expr $(=> $shown:ident)?;)*
        $(* $(#[$part_doc:meta])* $part:ident: $part_type:ty;)*
        $(+ $(#[$made_doc:meta])* $made:ident: $made_type:ty = $made_default:expr;)*
    })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
            $($(#[$part_doc])* pub $part: $part_type,)*
            $($(#[$made_doc])* pub $made: $made_type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self {
                    $($field: $default,)*
                    $($part: <$part_type>::default(),)*
                    $($made: $made_default,)*
                }
            }
        }

        impl Section for $name {
            fn keys() -> Vec<&'static str> {
                let own: Vec<&'static str> = vec![$(sections!(@key $field $($key)?)),*];
                [own, $(<$part_type>::keys(),)*].concat()
            }

            fn read_known(reader: &mut ConfigReader<'_>, at: &[&str]) -> Self {
                #[allow(unused_mut, reason = "a section may have no keys of its own")]
                let mut section = Self::default();
                $(reader.field(at, sections!(@key $field $($key)?), $read, &mut section.$field);)*
                $(section.$part = <$part_type>::read_known(reader, at);)*
                section
            }
        }

        impl Displayed for $name {
            fn shown(&self) -> Option<Value> {
                let entries = [$((
                    sections!(@key $field $($key)?),
                    sections!(@shown &self.$field $(, $shown)?),
                )),*];
                let entries = entries.into_iter().map(|(key, value)| Some((key.to_owned(), value?)));
                #[allow(unused_mut, reason = "few sections have a part")]
                let mut table: toml::Table = entries.flatten().collect();
                $(if let Some(Value::Table(part)) = self.$part.shown() {
                    table.extend(part);
                })*
                Some(Value::Table(table))
            }
        }
    )*};
}

mod callers;
mod dashboard;
mod hooks;
mod login;

pub use callers::{
    AuthConfig, CallerConfig, CallerKeyConfig, IssuerConfig, JwksConfig, McpPins, RulesConfig,
    TenantsConfig,
};
pub use dashboard::{DashboardConfig, OidcConfig};
pub use hooks::{HookConfig, OutboxConfig};
pub use login::LoginConfig;

sections! {
    /// The whole configuration.
    Config {
        listen: Listen = Listen::default(), table;
        proxy: Proxy = Proxy::default(), table;
        guard: GuardConfig = GuardConfig::default(), table;
        auth: AuthConfig = AuthConfig::default(), table;
        /// Once loaded, it is the application named `default`, and this is none.
        lwa: Option<ApplicationConfig> = None, opt(table);
        /// LWA applications by name.
        applications: BTreeMap<String, ApplicationConfig> = BTreeMap::new(), named(parse_name);
        upstream: Upstream = Upstream::default(), table;
        throttling: ThrottlingConfig = ThrottlingConfig::default(), table;
        tls: Tls = Tls::default(), table;
        token: Token = Token::default(), table;
        replay: Replay = Replay::default(), table;
        limits: Limits = Limits::default(), table;
        store: StoreConfig = StoreConfig::default(), table;
        encryption: Encryption = Encryption::default(), table;
        audit: AuditConfig = AuditConfig::default(), table;
        accounts: BTreeMap<AccountId, AccountConfig> = BTreeMap::new(), named(parse_account);
        callers: Vec<CallerConfig> = Vec::new(), tables;
        issuers: Vec<IssuerConfig> = Vec::new(), tables;
        tenants: TenantsConfig = TenantsConfig::default(), table;
        hooks: Vec<HookConfig> = Vec::new(), tables;
        outbox: OutboxConfig = OutboxConfig::default(), table;
        login: LoginConfig = LoginConfig::default(), table;
        dashboard: DashboardConfig = DashboardConfig::default(), table;
        log: LogConfig = LogConfig::default(), table;
        metrics: MetricsConfig = MetricsConfig::default(), table;
        + /// The file it came from, if there was one.
        source: Option<PathBuf> = None;
        + /// From the variables of OpenTelemetry.
        telemetry: TelemetryConfig = TelemetryConfig::default();
    }

    /// `[listen]`
    Listen {
        /// The data plane's addresses; at least one. `localhost` is both loopback addresses.
        proxy: Vec<ListenAddress> = parse_proxy("localhost:8787").unwrap_or_default(), addresses;
        /// Health, metrics, and the admin API. None: commands use the control socket.
        admin: Option<ListenAddress> = Some(ListenAddress::Tcp(([127, 0, 0, 1], 8788).into())),
            address(parse_admin) => shown_admin;
        /// What a browser from the Internet must reach, and nothing else.
        public: Option<ListenAddress> = None, opt(address(parse_beside));
        /// Health and metrics only, read-only; may be any address.
        health: Option<ListenAddress> = None, opt(address(parse_beside));
        unsafe_allow_unauthenticated: bool = false, flag;
        tls: Option<ListenTls> = None, opt(table);
    }

    /// `[listen.tls]`: PEM files, read again when their content changes.
    ListenTls {
        cert_file: PathBuf = PathBuf::new(), any;
        /// The private key; should not be readable by others.
        key_file: PathBuf = PathBuf::new(), any;
        /// The CAs whose certificates callers prove who they are with. None: callers are not asked.
        client_ca_file: Option<PathBuf> = None, opt(any);
        client_auth: ClientAuth = ClientAuth::Optional, text(parse_client_auth);
    }

    /// `[proxy]`
    Proxy {
        /// Worker threads; never 0 once loaded (0 in the file means one per core).
        workers: usize = 0, whole(0, 1024);
        default_account: Option<AccountId> = None, opt(text(parse_account));
        drain_timeout as "drain_timeout_secs": Duration = secs(25), seconds;
        /// From SIGTERM to the end of accepting.
        shutdown_delay as "shutdown_delay_secs": Duration = secs(0), seconds;
    }

    /// `[guard]`
    GuardConfig {
        /// Host names (lower case, without port) accepted beside the loopback names.
        allowed_hosts: Vec<String> = Vec::new(), list(parse_host);
        /// Origins of pages, as a browser sends them, accepted beside our own.
        allowed_origins: Vec<String> = Vec::new(), list(parse_origin);
    }

    /// `[lwa]` or `[applications.<name>]`: one LWA security profile.
    ApplicationConfig {
        client_id: String = String::new(), text(parse_client_id);
        /// All live secrets, tried in order; at least one.
        client_secrets as "client_secret": Vec<Secret> = Vec::new(), secrets => shown_secrets;
        token_url: Uri = Uri::from_static(ads::TOKEN_URL), text(parse_url);
        fallback_token_urls: Vec<Uri> = ads::FALLBACK_TOKEN_URLS.map(Uri::from_static).to_vec(),
            list(parse_url);
        authorize_url: Uri = Uri::from_static(ads::AUTHORIZE_URL), text(parse_url);
        /// Where consent returns to: by default the admin listener's default address.
        redirect_uri: String = "http://localhost:8788/api/auth/amazon/callback".to_owned(),
            text(parse_url_text);
        scopes: Vec<String> = vec![ads::SCOPE.to_owned()], list(any_text);
        /// Where a refresh token is given back (RFC 7009); Amazon has no such endpoint.
        revocation_url: Option<Uri> = None, opt(text(parse_url));
    }

    /// `[upstream]`: Amazon's hosts, scheme and authority only, and how we speak to them.
    Upstream {
        na: Uri = Uri::from_static(ads::API[0]), text(parse_base_url);
        eu: Uri = Uri::from_static(ads::API[1]), text(parse_base_url);
        fe: Uri = Uri::from_static(ads::API[2]), text(parse_base_url);
        mcp_na: Uri = Uri::from_static(ads::MCP[0]), text(parse_base_url);
        mcp_eu: Uri = Uri::from_static(ads::MCP[1]), text(parse_base_url);
        mcp_fe: Uri = Uri::from_static(ads::MCP[2]), text(parse_base_url);
        ca_file: Option<PathBuf> = None, opt(any);
        /// TCP connect, egress proxy and TLS handshake together.
        connect_timeout as "connect_timeout_secs": Duration = secs(10), timeout;
        /// From the last byte of the request to the head of the response.
        response_header_timeout as "response_header_timeout_secs": Duration = secs(75), timeout;
        /// The longest gap inside the body of a response that is no event stream.
        response_idle_timeout as "response_idle_timeout_secs": Duration = secs(300), timeout;
        idle_timeout as "idle_timeout_secs": Duration = secs(50), timeout;
        /// Open connections per host, all workers together; shared out evenly, rounded up.
        connections_max: usize = 2048, count;
        http2: bool = true, flag;
    }

    /// `[throttling]`
    ThrottlingConfig {
        /// Whether calls that Amazon would only throttle get a response of ours.
        enforce: bool = false, flag;
    }

    /// `[tls]`
    Tls {
        ca_file: Option<PathBuf> = None, opt(any);
    }

    /// `[token]`
    Token {
        /// How long before expiry a request starts a refresh.
        refresh_buffer as "refresh_buffer_secs": Duration = secs(300), seconds;
        background_lead as "background_lead_secs": Duration = secs(900), seconds;
        background_concurrency: usize = 8, count;
        forced_refresh_min_interval as "forced_refresh_min_interval_secs": Duration = secs(30),
            seconds;
        wait_timeout as "wait_timeout_secs": Duration = secs(30), timeout;
        waiters_max: usize = 16384, count;
        lwa_concurrency: usize = 16, count;
        lwa_connect_timeout as "lwa_connect_timeout_secs": Duration = secs(5), timeout;
        lwa_timeout as "lwa_timeout_secs": Duration = secs(10), timeout;
        lwa_attempts_max: u32 = 3, whole(1, 100);
    }

    /// `[replay]`
    Replay {
        max_replays: u32 = 2, whole(0, 10);
        /// Captured in memory per request, bytes.
        memory_max_bytes: u64 = MIB, bytes;
        /// Captured per request in all, bytes; beyond `memory_max_bytes` in an unlinked file.
        disk_max_bytes: u64 = 64 * MIB, bytes;
        /// All captures together, bytes.
        total_max_bytes: u64 = 256 * MIB, bytes;
        /// Where capture files are made; the system's temporary directory if none.
        directory: Option<PathBuf> = None, opt(any);
    }

    /// `[limits]`
    Limits {
        connections_max: usize = 16384, count;
        /// Requests in flight, all workers together; shared out evenly, rounded up.
        in_flight_max: usize = 16384, count;
        /// Request line and header lines together, bytes.
        header_max_bytes: usize = 64 << 10, whole(8192, 16 << 20);
        headers_max: usize = 100, whole(1, 10_000);
        /// A request body, bytes; 0 for no cap.
        body_max_bytes: u64 = 0, bytes;
        http2_streams_max: u32 = 128, whole(1, 65_536);
        handshake_timeout as "handshake_timeout_secs": Duration = secs(10), timeout;
        /// From accept to the first byte of a request.
        first_byte_timeout as "first_byte_timeout_secs": Duration = secs(30), timeout;
        /// From a request's first byte to the end of its header.
        header_timeout as "header_timeout_secs": Duration = secs(30), timeout;
        idle_timeout as "idle_timeout_secs": Duration = secs(75), timeout;
        /// Grace before `body_min_bytes_per_sec` is asked of a caller that keeps us waiting.
        body_timeout as "body_timeout_secs": Duration = secs(60), timeout;
        /// Slowest acceptable upload while we wait for the caller.
        body_min_bytes_per_sec: u64 = 500, bytes;
        write_timeout as "write_timeout_secs": Duration = secs(60), timeout;
    }

    /// `[store]`
    StoreConfig {
        kind: StoreKind = StoreKind::File, text(parse_store_kind);
        path: PathBuf = "~/.local/state/adsproxy".into(), any;
        /// Of a database: it may hold a password.
        url: Option<Secret> = None, opt(one_secret);
        listen_url: Option<Secret> = None, opt(one_secret);
        schema: String = "adsproxy".to_owned(), any;
        ca_file: Option<PathBuf> = None, opt(any);
        unsafe_allow_plaintext: bool = false, flag;
    }

    /// `[encryption]`
    Encryption {
        /// The key ring: the first key seals, all of them open.
        keys: Vec<EncryptionKey> = Vec::new(), tables;
    }

    /// One master key.
    EncryptionKey {
        id: String = String::new(), any;
        secret: Option<Secret> = None, opt(one_secret);
        passphrase: Option<Secret> = None, opt(one_secret);
        + material: Material = Material::Keyring;
    }

    /// `[audit]`
    AuditConfig {
        /// The log; its older parts and its head lie beside it. None: no log is kept.
        path: Option<PathBuf> = None, opt(any);
        /// The log goes on in a new file when this one would grow beyond it, bytes; 0: never.
        max_bytes: u64 = 16 * MIB, bytes;
        /// Older files that are kept; 0: all.
        keep: usize = 0, count_or_none;
        /// How old a file is at least before it is removed because of `keep`.
        keep_at_least as "keep_days": Duration = secs(7 * 86_400), days => shown_days;
        /// How long entries are kept in a database; zero: for ever.
        keep_rows as "table_keep_days": Duration = secs(0), days => shown_days;
    }

    /// `[accounts.<alias>]`
    AccountConfig {
        /// Which API host, unless a request says otherwise; there is no default.
        region: Region = Region::Na, text(parse_region);
        application: String = super::DEFAULT_APPLICATION.to_owned(), any;
        /// Seeds the account's record in the store.
        refresh_token: Option<Secret> = None, opt(refresh_token);
        headers: Vec<(HeaderName, HeaderValue)> = Vec::new(), headers => shown_headers;
    }

    /// `[log]`
    LogConfig {
        filter: String = "info".to_owned(), text(parse_filter);
        /// If none, text on a terminal and JSON otherwise.
        format: Option<LogFormat> = None, opt(text(parse_format));
        access: bool = true, flag;
    }

    /// `[metrics]`
    MetricsConfig {
        /// Accounts with series of their own; the rest are only counted.
        account_labels_max: usize = 200, count_or_none;
    }
}

impl Config {
    /// Whether callers can show who they are.
    pub fn has_callers(&self) -> bool {
        !(self.callers.is_empty() && self.issuers.is_empty())
    }

    /// The files of extra roots for Amazon's API hosts.
    pub fn upstream_roots(&self) -> Vec<&Path> {
        self.tls.ca_file.iter().chain(&self.upstream.ca_file).map(PathBuf::as_path).collect()
    }

    /// The files of extra roots for Login with Amazon and for hooks.
    pub fn other_roots(&self) -> Vec<&Path> {
        self.tls.ca_file.iter().map(PathBuf::as_path).collect()
    }
}

impl Listen {
    /// The TCP address of the admin listener, if it has one.
    pub fn admin_tcp(&self) -> Option<SocketAddr> {
        self.admin.as_ref()?.tcp()
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
