//! The serde mirror of `proxy.example.toml`: every key once, with its default beside it.
//!
//! Nothing is checked here beyond the kind of a value; `validate` does the rest. Keys without a
//! default are `Option`s, so that serde never complains about an absence: `validate` knows better
//! which absences matter and can name them all.

use super::{
    secret_ref::{MASK, Secrets},
    sections::{Limits, Login, Metrics, Outbox, Replay, Token},
    value::Seconds,
};
use crate::provider::ads;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{collections::BTreeMap, fmt};

/// Where consent returns to: the admin listener's default address.
pub(crate) const REDIRECT_URI: &str = "http://localhost:8788/api/auth/amazon/callback";
/// The data plane's address: both loopback addresses.
pub(crate) const PROXY_ADDRESS: &str = "localhost:8787";
/// The admin listener's address.
pub(crate) const ADMIN_ADDRESS: &str = "127.0.0.1:8788";

/// The default events of a hook: all but successful refreshes.
pub(crate) const HOOK_EVENTS: [&str; 6] = [
    "token.refresh_failed",
    "grant.reauthorization_required",
    "grant.recovered",
    "grant.expiring",
    "application.rejected",
    "store.degraded",
];

pub(crate) const MIB: u64 = 1 << 20;

/// One table of the file: its keys, their types and their defaults in one place.
macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($key:ident: $type:ty = $default:expr,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub(crate) struct $name {
            $(pub(crate) $key: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($key: $default,)* }
            }
        }

        #[cfg(test)]
        impl $name {
            pub(crate) const KEYS: &[&str] = &[$(stringify!($key),)*];
        }
    };
}

section! {
    /// The whole file.
    File {
        listen: Listen = Listen::default(),
        proxy: Proxy = Proxy::default(),
        guard: Guard = Guard::default(),
        lwa: Option<Application> = None,
        applications: BTreeMap<String, Application> = BTreeMap::new(),
        upstream: Upstream = Upstream::default(),
        tls: Tls = Tls::default(),
        token: Token = Token::default(),
        replay: Replay = Replay::default(),
        limits: Limits = Limits::default(),
        store: Store = Store::default(),
        encryption: Encryption = Encryption::default(),
        audit: Audit = Audit::default(),
        accounts: BTreeMap<String, Account> = BTreeMap::new(),
        hooks: Vec<Hook> = Vec::new(),
        outbox: Outbox = Outbox::default(),
        login: Login = Login::default(),
        log: Log = Log::default(),
        metrics: Metrics = Metrics::default(),
    }
}

section! {
    /// `[listen]`
    Listen {
        proxy: List = List::of(&[PROXY_ADDRESS]),
        admin: String = ADMIN_ADDRESS.to_owned(),
        health: Option<String> = None,
        unsafe_allow_unauthenticated: bool = false,
        tls: Option<ListenTls> = None,
    }
}

section! {
    /// `[listen.tls]`
    ListenTls {
        cert_file: Option<String> = None,
        key_file: Option<String> = None,
    }
}

section! {
    /// `[proxy]`
    Proxy {
        workers: u64 = 0,
        default_account: Option<String> = None,
        drain_timeout_secs: Seconds = Seconds::of(25),
    }
}

section! {
    /// `[guard]`
    Guard {
        allowed_hosts: List = List::of(&[]),
        allowed_origins: List = List::of(&[]),
    }
}

section! {
    /// `[lwa]` and `[applications.<name>]`
    Application {
        client_id: Option<String> = None,
        client_secret: Option<Secrets> = None,
        token_url: String = ads::TOKEN_URL.to_owned(),
        fallback_token_urls: Option<List> = None,
        authorize_url: String = ads::AUTHORIZE_URL.to_owned(),
        redirect_uri: String = REDIRECT_URI.to_owned(),
        scopes: List = List::of(&[ads::SCOPE]),
        revocation_url: Option<String> = None,
    }
}

section! {
    /// `[upstream]`
    Upstream {
        na: String = ads::API[0].to_owned(),
        eu: String = ads::API[1].to_owned(),
        fe: String = ads::API[2].to_owned(),
        mcp_na: String = ads::MCP[0].to_owned(),
        mcp_eu: String = ads::MCP[1].to_owned(),
        mcp_fe: String = ads::MCP[2].to_owned(),
        ca_file: Option<String> = None,
        connect_timeout_secs: Seconds = Seconds::of(10),
        response_header_timeout_secs: Seconds = Seconds::of(75),
        response_idle_timeout_secs: Seconds = Seconds::of(300),
        idle_timeout_secs: Seconds = Seconds::of(50),
        connections_max: u64 = 2048,
        http2: bool = true,
    }
}

section! {
    /// `[tls]`
    Tls {
        ca_file: Option<String> = None,
    }
}

section! {
    /// `[store]`
    Store {
        kind: String = "file".to_owned(),
        path: String = "~/.local/state/adsproxy".to_owned(),
    }
}

section! {
    /// `[encryption]`
    Encryption {
        keys: Vec<EncryptionKey> = Vec::new(),
    }
}

section! {
    /// One of `encryption.keys`
    EncryptionKey {
        id: Option<String> = None,
        secret: Option<Secrets> = None,
        passphrase: Option<Secrets> = None,
    }
}

section! {
    /// `[audit]`
    Audit {
        path: Option<String> = None,
        max_bytes: u64 = 16 * MIB,
        keep: u64 = 0,
        keep_days: u64 = 7,
    }
}

section! {
    /// `[accounts.<alias>]`
    Account {
        region: Option<String> = None,
        application: String = super::DEFAULT_APPLICATION.to_owned(),
        refresh_token: Option<Secrets> = None,
        headers: BTreeMap<String, HeaderText> = BTreeMap::new(),
    }
}

section! {
    /// One of `[[hooks]]`
    Hook {
        name: Option<String> = None,
        url: Option<HookUrl> = None,
        secret: Option<Secrets> = None,
        command: Option<List> = None,
        events: List = List::of(&HOOK_EVENTS),
        timeout_secs: Seconds = Seconds::of(10),
        unsafe_allow_private_addresses: bool = false,
    }
}

section! {
    /// `[log]`
    Log {
        filter: String = "info".to_owned(),
        format: Option<String> = None,
        access: bool = true,
    }
}

impl File {
    /// Fills in the one default that depends on another key: other LWA hosts are a fallback for
    /// Amazon's endpoint, never for a configured endpoint.
    pub(crate) fn settle(&mut self) {
        for application in self.lwa.iter_mut().chain(self.applications.values_mut()) {
            let amazon = application.token_url == ads::TOKEN_URL;
            application.fallback_token_urls.get_or_insert_with(|| {
                if amazon { List::of(&ads::FALLBACK_TOKEN_URLS) } else { List::of(&[]) }
            });
        }
    }
}

/// A list of texts; one text is read as a list, its commas separate the items (for the
/// environment, where a list is awkward to write).
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub(crate) struct List(pub(crate) Vec<String>);

impl List {
    fn of(items: &[&str]) -> Self {
        Self(items.iter().map(|&item| item.to_owned()).collect())
    }
}

impl<'de> Deserialize<'de> for List {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = List;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of strings")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<List, E> {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                Ok(List(items.map(str::to_owned).collect()))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<List, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(List(items))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// The value of a header; a bare number will do, since most of them are Amazon's ids.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub(crate) struct HeaderText(pub(crate) String);

impl<'de> Deserialize<'de> for HeaderText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = HeaderText;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<HeaderText, E> {
                Ok(HeaderText(text.to_owned()))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<HeaderText, E> {
                Ok(HeaderText(number.to_string()))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// Where a webhook goes. Many receivers know a sender by nothing but their URL's path, so only the
/// host is ever shown.
#[derive(Clone, PartialEq, Deserialize)]
#[serde(transparent)]
pub(crate) struct HookUrl(pub(crate) String);

impl fmt::Display for HookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = self.0.find("://").map_or(0, |at| at + 3);
        match self.0[start..].find(['/', '?', '#']) {
            Some(end) => write!(f, "{}/{MASK}", &self.0[..start + end]),
            None => f.write_str(&self.0),
        }
    }
}

impl fmt::Debug for HookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl Serialize for HookUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
