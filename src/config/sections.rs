//! The sections of the configuration file: each key once, with its default and its check.
//! `proxy.example.toml` explains every key.

use super::{
    HookTarget, LogFormat, Material, ProxyAddress, StoreKind, secret_ref::SecretRefs,
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

/// One table of the file: field, type, default, key, and the module of `value` that reads it.
/// Behind `+` is what the table says once the configuration is loaded.
macro_rules! section {
    ($(#[$doc:meta])* $name:ident {
        $($(#[$field_doc:meta])* $field:ident: $type:ty = $default:expr,
            $key:literal as $with:literal;)*
        $(+ $(#[$made_doc:meta])* $made:ident: $made_type:ty = $made_default:expr;)*
    }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name {
            $($(#[$field_doc])* #[serde(rename = $key, with = $with)] pub $field: $type,)*
            $($(#[$made_doc])* #[serde(skip)] pub $made: $made_type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* $($made: $made_default,)* }
            }
        }
    };
}

section! {
    /// `[listen]`
    Listen {
        /// The data plane's addresses; at least one. `localhost` is both loopback addresses.
        proxy: Vec<ProxyAddress> = parse_proxy("localhost:8787").unwrap_or_default(),
            "proxy" as "value::proxy_addresses";
        /// Health, metrics, and the admin API.
        admin: SocketAddr = ([127, 0, 0, 1], 8788).into(), "admin" as "value::tcp";
        /// Health and metrics only, read-only; may be any address.
        health: Option<SocketAddr> = None, "health" as "value::tcp_if_any";
        /// Permits a proxy or admin listener beyond loopback without caller authentication.
        unsafe_allow_unauthenticated: bool = false,
            "unsafe_allow_unauthenticated" as "value::plain";
        /// Serves the TCP addresses of `proxy` over TLS.
        tls: Option<ListenTls> = None, "tls" as "value::plain";
    }
}

section! {
    /// `[listen.tls]`: PEM files, read again when their content changes.
    ListenTls {
        /// The certificate chain, leaf first.
        cert_file: PathBuf = PathBuf::new(), "cert_file" as "value::plain";
        /// The private key; should not be readable by others.
        key_file: PathBuf = PathBuf::new(), "key_file" as "value::plain";
    }
}

section! {
    /// `[proxy]`
    Proxy {
        /// Worker threads; never 0 once loaded (0 in the file means one per core).
        workers: usize = 0, "workers" as "value::workers";
        /// The account of a request that names none.
        default_account: Option<AccountId> = None, "default_account" as "value::account_if_any";
        /// How long a stopping server waits for requests in flight.
        drain_timeout: Duration = secs(25), "drain_timeout_secs" as "value::seconds";
    }
}

section! {
    /// `[guard]`
    Guard {
        /// Host names (lower case, without port) accepted beside the loopback names.
        allowed_hosts: Vec<String> = Vec::new(), "allowed_hosts" as "value::hosts";
        /// Origins of pages, as a browser sends them, accepted beside our own.
        allowed_origins: Vec<String> = Vec::new(), "allowed_origins" as "value::origins";
    }
}

section! {
    /// `[lwa]` or `[applications.<name>]`: one LWA security profile.
    Application {
        /// The public identifier, sent as `Amazon-Advertising-API-ClientId`.
        client_id: String = String::new(), "client_id" as "value::client_id";
        /// Where those secrets are found.
        client_secret: SecretRefs = SecretRefs::default(), "client_secret" as "value::plain";
        /// The token endpoint.
        token_url: Uri = Uri::from_static(ads::TOKEN_URL), "token_url" as "value::url";
        /// Other hosts of the same endpoint, tried when a connection to the one before fails.
        fallback_token_urls: Vec<Uri> = ads::FALLBACK_TOKEN_URLS.map(Uri::from_static).to_vec(),
            "fallback_token_urls" as "value::urls";
        /// The consent page.
        authorize_url: Uri = Uri::from_static(ads::AUTHORIZE_URL), "authorize_url" as "value::url";
        /// Where consent returns to: by default the admin listener's default address.
        redirect_uri: String = "http://localhost:8788/api/auth/amazon/callback".to_owned(),
            "redirect_uri" as "value::url_text";
        /// What is asked for.
        scopes: Vec<String> = vec![ads::SCOPE.to_owned()], "scopes" as "value::texts";
        /// Where a refresh token is given back (RFC 7009); Amazon has no such endpoint.
        revocation_url: Option<Uri> = None, "revocation_url" as "value::url_if_any";
        + /// All live secrets, tried in order; at least one.
        client_secrets: Vec<Secret> = Vec::new();
    }
}

section! {
    /// `[upstream]`: Amazon's hosts, scheme and authority only, and how we speak to them.
    Upstream {
        na: Uri = Uri::from_static(ads::API[0]), "na" as "value::base_url";
        eu: Uri = Uri::from_static(ads::API[1]), "eu" as "value::base_url";
        fe: Uri = Uri::from_static(ads::API[2]), "fe" as "value::base_url";
        mcp_na: Uri = Uri::from_static(ads::MCP[0]), "mcp_na" as "value::base_url";
        mcp_eu: Uri = Uri::from_static(ads::MCP[1]), "mcp_eu" as "value::base_url";
        mcp_fe: Uri = Uri::from_static(ads::MCP[2]), "mcp_fe" as "value::base_url";
        /// Roots trusted for these hosts alone, PEM.
        ca_file: Option<PathBuf> = None, "ca_file" as "value::plain";
        /// TCP connect, egress proxy and TLS handshake together.
        connect_timeout: Duration = secs(10), "connect_timeout_secs" as "value::timeout";
        /// From the last byte of the request to the head of the response.
        response_header_timeout: Duration = secs(75),
            "response_header_timeout_secs" as "value::timeout";
        /// The longest gap inside the body of a response that is no event stream.
        response_idle_timeout: Duration = secs(300),
            "response_idle_timeout_secs" as "value::timeout";
        /// How long an unused connection is kept.
        idle_timeout: Duration = secs(50), "idle_timeout_secs" as "value::timeout";
        /// Open connections per host, all workers together; shared out evenly, rounded up.
        connections_max: usize = 2048, "connections_max" as "value::count";
        /// Offer HTTP/2 to TLS upstreams by ALPN.
        http2: bool = true, "http2" as "value::plain";
    }
}

impl Upstream {
    /// The API's hosts by region.
    #[must_use]
    pub fn api(&self) -> [&Uri; 3] {
        [&self.na, &self.eu, &self.fe]
    }

    /// The MCP hosts by region.
    #[must_use]
    pub fn mcp(&self) -> [&Uri; 3] {
        [&self.mcp_na, &self.mcp_eu, &self.mcp_fe]
    }
}

section! {
    /// `[tls]`
    Tls {
        /// Roots trusted for every connection that we open, PEM.
        ca_file: Option<PathBuf> = None, "ca_file" as "value::plain";
    }
}

section! {
    /// `[token]`
    Token {
        /// How long before expiry a request starts a refresh.
        refresh_buffer: Duration = secs(300), "refresh_buffer_secs" as "value::seconds";
        /// How long before expiry the background refresher acts.
        background_lead: Duration = secs(900), "background_lead_secs" as "value::seconds";
        /// Background refreshes under way at once.
        background_concurrency: usize = 8, "background_concurrency" as "value::count";
        /// The least time between two forced refreshes of one account.
        forced_refresh_min_interval: Duration = secs(30),
            "forced_refresh_min_interval_secs" as "value::seconds";
        /// The longest a request waits for a token.
        wait_timeout: Duration = secs(30), "wait_timeout_secs" as "value::timeout";
        /// Requests of one account that may wait for a token at once.
        waiters_max: usize = 16384, "waiters_max" as "value::count";
        /// Calls to LWA under way at once.
        lwa_concurrency: usize = 16, "lwa_concurrency" as "value::count";
        /// LWA: connecting.
        lwa_connect_timeout: Duration = secs(5), "lwa_connect_timeout_secs" as "value::timeout";
        /// LWA: one whole call.
        lwa_timeout: Duration = secs(10), "lwa_timeout_secs" as "value::timeout";
        /// LWA: attempts per refresh.
        lwa_attempts_max: u32 = 3, "lwa_attempts_max" as "value::attempts";
    }
}

section! {
    /// `[replay]`
    Replay {
        /// Replays after a 401.
        max_replays: u32 = 2, "max_replays" as "value::replays";
        /// Captured in memory per request, bytes.
        memory_max_bytes: u64 = MIB, "memory_max_bytes" as "value::plain";
        /// Captured per request in all, bytes; beyond `memory_max_bytes` in an unlinked file.
        disk_max_bytes: u64 = 64 * MIB, "disk_max_bytes" as "value::plain";
        /// All captures together, bytes.
        total_max_bytes: u64 = 256 * MIB, "total_max_bytes" as "value::plain";
        /// Where capture files are made; the system's temporary directory if none.
        directory: Option<PathBuf> = None, "directory" as "value::plain";
    }
}

section! {
    /// `[limits]`
    Limits {
        /// Open caller connections.
        connections_max: usize = 16384, "connections_max" as "value::count";
        /// Requests in flight, all workers together; shared out evenly, rounded up.
        in_flight_max: usize = 16384, "in_flight_max" as "value::count";
        /// Request line and header lines together, bytes.
        header_max_bytes: usize = 64 << 10, "header_max_bytes" as "value::header_bytes";
        /// Header lines.
        headers_max: usize = 100, "headers_max" as "value::header_lines";
        /// A request body, bytes; 0 for no cap.
        body_max_bytes: u64 = 0, "body_max_bytes" as "value::plain";
        /// Streams at once on one HTTP/2 connection.
        http2_streams_max: u32 = 128, "http2_streams_max" as "value::streams";
        /// The TLS handshake of a caller.
        handshake_timeout: Duration = secs(10), "handshake_timeout_secs" as "value::timeout";
        /// From accept to the first byte of a request.
        first_byte_timeout: Duration = secs(30), "first_byte_timeout_secs" as "value::timeout";
        /// From a request's first byte to the end of its header.
        header_timeout: Duration = secs(30), "header_timeout_secs" as "value::timeout";
        /// Between two requests on one connection.
        idle_timeout: Duration = secs(75), "idle_timeout_secs" as "value::timeout";
        /// Grace before `body_min_bytes_per_sec` is asked of a caller that keeps us waiting.
        body_timeout: Duration = secs(60), "body_timeout_secs" as "value::timeout";
        /// Slowest acceptable upload while we wait for the caller.
        body_min_bytes_per_sec: u64 = 500, "body_min_bytes_per_sec" as "value::plain";
        /// How long a caller may leave a response unread.
        write_timeout: Duration = secs(60), "write_timeout_secs" as "value::timeout";
    }
}

section! {
    /// `[store]`
    Store {
        /// What keeps the grants.
        kind: StoreKind = StoreKind::File, "kind" as "value::store_kind";
        /// The directory of the file store.
        path: PathBuf = "~/.local/state/adsproxy".into(), "path" as "value::plain";
    }
}

section! {
    /// `[encryption]`
    Encryption {
        /// The key ring: the first key seals, all of them open.
        keys: Vec<EncryptionKey> = Vec::new(), "keys" as "value::plain";
    }
}

section! {
    /// One master key.
    EncryptionKey {
        /// Names the key in every record it sealed.
        id: String = String::new(), "id" as "value::plain";
        /// Where its 32 bytes are found; a key has this, or a passphrase, or is in the keyring.
        secret: SecretRefs = SecretRefs::default(), "secret" as "value::plain";
        /// Where its passphrase is found.
        passphrase: SecretRefs = SecretRefs::default(), "passphrase" as "value::plain";
        + /// What it is made of.
        material: Material = Material::Keyring;
    }
}

impl EncryptionKey {
    /// A key whose 32 bytes are `secret`, base64.
    #[must_use]
    pub fn new(id: &str, secret: Secret) -> Self {
        Self { id: id.to_owned(), material: Material::Secret(secret), ..Self::default() }
    }
}

section! {
    /// `[audit]`
    Audit {
        /// The log; its older parts and its head lie beside it. None: no log is kept.
        path: Option<PathBuf> = None, "path" as "value::plain";
        /// The log goes on in a new file when this one would grow beyond it, bytes; 0: never.
        max_bytes: u64 = 16 * MIB, "max_bytes" as "value::plain";
        /// Older files that are kept; 0: all.
        keep: usize = 0, "keep" as "value::count_or_none";
        /// How old a file is at least before it is removed because of `keep`.
        keep_at_least: Duration = secs(7 * 86_400), "keep_days" as "value::days";
    }
}

section! {
    /// `[accounts.<alias>]`
    Account {
        /// Which API host, unless a request says otherwise; there is no default.
        region: Region = Region::Na, "region" as "value::region";
        /// Which of the applications its grant belongs to.
        application: String = super::DEFAULT_APPLICATION.to_owned(),
            "application" as "value::plain";
        refresh_token_ref: SecretRefs = SecretRefs::default(), "refresh_token" as "value::plain";
        /// Added to a request that lacks them.
        headers: Vec<(HeaderName, HeaderValue)> = Vec::new(), "headers" as "value::headers";
        + /// Seeds the account's record in the store.
        refresh_token: Option<Secret> = None;
    }
}

section! {
    /// One of `[[hooks]]`: a receiver of events.
    Hook {
        /// Names it in the log, in the outbox and for commands; no two are alike.
        name: String = String::new(), "name" as "value::plain";
        url: Secret = Secret::from(""), "url" as "value::hook_url";
        secret: SecretRefs = SecretRefs::default(), "secret" as "value::plain";
        command: Vec<String> = Vec::new(), "command" as "value::texts";
        /// The events it receives, by default all but successful refreshes; at least one.
        events: Vec<Kind> = Kind::ALL[1..].to_vec(), "events" as "value::events";
        /// The longest one attempt may take.
        timeout: Duration = secs(10), "timeout_secs" as "value::timeout";
        unsafe_allow_private_addresses: bool = false,
            "unsafe_allow_private_addresses" as "value::plain";
        + /// How events are delivered.
        target: HookTarget = HookTarget::Command(Vec::new());
    }
}

section! {
    /// `[outbox]`
    Outbox {
        /// Messages that wait for their delivery.
        messages_max: usize = 10_000, "messages_max" as "value::count";
        /// Messages that were given up and are kept.
        dead_letters_max: usize = 1_000, "dead_letters_max" as "value::count";
        /// The least time before a failed delivery is tried again.
        retry_min: Duration = secs(5), "retry_min_secs" as "value::timeout";
        /// The longest such time.
        retry_max: Duration = secs(3600), "retry_max_secs" as "value::timeout";
        /// Attempts at one message before it is given up.
        attempts_max: u32 = 40, "attempts_max" as "value::deliveries";
        /// How old a message may become before it is given up.
        give_up: Duration = secs(86_400), "give_up_after_secs" as "value::timeout";
    }
}

section! {
    /// `[login]`
    Login {
        /// How long a person may take to consent.
        timeout: Duration = secs(600), "timeout_secs" as "value::timeout";
        /// How long the question whether to replace an account waits for its confirmation.
        confirm_timeout: Duration = secs(600), "confirm_timeout_secs" as "value::timeout";
        /// How long a reconnect link works.
        reconnect_link: Duration = secs(604_800), "reconnect_link_secs" as "value::timeout";
        /// Logins under way at once.
        pending_max: usize = 3000, "pending_max" as "value::count";
    }
}

section! {
    /// `[log]`
    Log {
        /// `tracing` filter directives.
        filter: String = "info".to_owned(), "filter" as "value::filter";
        /// If none, text on a terminal and JSON otherwise.
        format: Option<LogFormat> = None, "format" as "value::format";
        /// One line per request.
        access: bool = true, "access" as "value::plain";
    }
}

section! {
    /// `[metrics]`
    Metrics {
        /// Accounts with series of their own; the rest are only counted.
        account_labels_max: usize = 200, "account_labels_max" as "value::count_or_none";
    }
}
