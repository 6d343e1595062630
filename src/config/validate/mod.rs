//! `File` to `Config`: every rule beyond the kind of a value, all violations at once.
//!
//! Each section has a function that returns its part. A wrong value is reported and
//! replaced by some other one; the caller discards the result.

mod audit;
mod credentials;
mod hooks;
mod listen;

use super::{
    Config, Log, LogFormat, Replay, Store, StoreKind, Tls, Upstream,
    document::{Document, KeyPath, show},
    environment::Environment,
    file::{self, File},
    load::Addresses,
    log_filter,
    problem::Problem,
    value::{COUNT_MAX, Seconds},
};
use crate::trusted_path;
use http::Uri;
use std::{fmt::Display, path::PathBuf, time::Duration};

/// Checks `file`. `removed` names keys already known to be wrong: what they lack is no new error.
pub(super) fn validate(
    file: &File,
    document: &Document<'_>,
    environment: &Environment,
    removed: Vec<KeyPath>,
) -> Verdict {
    let mut check = Check::new(document, environment, removed);
    let listen = check.listen(&file.listen);
    let proxy = check.proxy(&file.proxy);
    let guard = check.guard(&file.guard);
    let upstream = check.upstream(&file.upstream);
    let ca_file = file.tls.ca_file.as_ref();
    let tls = Tls { ca_file: ca_file.map(|path| check.readable(&["tls", "ca_file"], path)) };
    let replay = check.replay(&file.replay);
    let store = check.store(&file.store);
    let encryption = check.encryption(&file.encryption, store.kind);
    let audit = check.audit(&file.audit, &store, !file.encryption.keys.is_empty());
    let log = check.log(&file.log);
    let applications = check.applications(file);
    let accounts = check.accounts(file);
    let hooks = check.hooks(&file.hooks);
    check.outbox(&file.outbox);
    let config = listen.map(|listen| Config {
        source: document.source().cloned(),
        listen,
        proxy,
        guard,
        applications,
        upstream,
        tls,
        token: file.token.clone(),
        replay,
        limits: file.limits.clone(),
        store,
        encryption,
        audit,
        accounts,
        hooks,
        outbox: file.outbox.clone(),
        login: file.login.clone(),
        log,
        metrics: file.metrics.clone(),
    });
    Verdict { config, problems: check.problems, warnings: check.warnings }
}

/// What came of a validation.
pub(super) struct Verdict {
    /// Of use only without problems.
    pub(super) config: Option<Config>,
    pub(super) problems: Vec<Problem>,
    /// What is not wrong but unwise.
    pub(super) warnings: Vec<Problem>,
}

/// The addresses at which the server is asked about itself, or what is wrong with them.
pub(super) fn addresses(
    file: &File,
    document: &Document<'_>,
    environment: &Environment,
    removed: Vec<KeyPath>,
) -> Result<Addresses, Vec<Problem>> {
    let spoilt = removed.iter().any(|key| key[0] == "listen");
    let mut check = Check::new(document, environment, removed);
    let admin = check.socket_address(&["listen", "admin"], &file.listen.admin);
    let health = file.listen.health.as_ref();
    let health = health.and_then(|text| check.socket_address(&["listen", "health"], text));
    let proxy = check.proxy_addresses(&file.listen);
    let tls = file.listen.tls.is_some();
    match admin {
        Some(admin) if check.problems.is_empty() && !spoilt => {
            Ok(Addresses { proxy, tls, admin, health })
        }
        _ => Err(check.problems),
    }
}

/// The violations so far, and what is needed to find more.
struct Check<'a> {
    document: &'a Document<'a>,
    environment: &'a Environment,
    removed: Vec<KeyPath>,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl<'a> Check<'a> {
    fn new(
        document: &'a Document<'a>,
        environment: &'a Environment,
        removed: Vec<KeyPath>,
    ) -> Self {
        Self { document, environment, removed, problems: Vec::new(), warnings: Vec::new() }
    }

    /// Notes what is unwise about the value at `key`.
    fn warn(&mut self, key: &[&str], message: impl Display) {
        let message = format!("{}: {message}", show(key));
        self.warnings.push(Problem { place: self.document.place(key), message, help: None });
    }

    fn fail(&mut self, key: &[&str], message: impl Display) {
        self.fail_with(key, message, None);
    }

    /// Notes what is wrong with the value at `key`, unless it is not the one that was written.
    fn fail_with(&mut self, key: &[&str], message: impl Display, help: Option<String>) {
        let replaced = |removed: &KeyPath| begins_with(key, removed);
        if !self.removed.iter().any(replaced) {
            let message = format!("{}: {message}", show(key));
            self.problems.push(Problem { place: self.document.place(key), message, help });
        }
    }

    /// Notes that there is nothing at `key`, unless something was: it was wrong, and is reported.
    fn lacks(&mut self, key: &[&str], message: impl Display, help: Option<String>) {
        if !self.removed.iter().any(|removed| begins_with(removed, key)) {
            self.fail_with(key, message, help);
        }
    }

    fn count(&mut self, key: &[&str], value: u64, range: std::ops::RangeInclusive<u64>) -> usize {
        if !range.contains(&value) {
            let (least, most) = range.into_inner();
            self.fail(key, format_args!("{value} is not between {least} and {most}"));
        }
        usize::try_from(value).unwrap_or(usize::MAX)
    }

    /// A time that must pass before something is given up: 0 would give up everything.
    fn timeout(&mut self, key: &[&str], value: Seconds) -> Duration {
        if value.0.is_zero() {
            self.fail(key, "must be more than 0 seconds");
        }
        value.0
    }

    fn path(&mut self, key: &[&str], text: &str) -> PathBuf {
        if text.is_empty() {
            self.fail(key, "is empty");
        }
        self.environment.expand(text).unwrap_or_else(|| {
            self.fail(key, format_args!("cannot find {text}: `~` needs HOME to be set"));
            PathBuf::from(text)
        })
    }

    /// A file that is there, can be read, and cannot be changed by another user.
    fn readable(&mut self, key: &[&str], text: &str) -> PathBuf {
        let path = self.path(key, text);
        if let Err(untrusted) = trusted_path::verify(&path) {
            self.fail(key, untrusted);
            return path;
        }
        match std::fs::File::open(&path).and_then(|file| file.metadata()) {
            Ok(metadata) if metadata.is_dir() => {
                self.fail(key, format_args!("{} is not a file", path.display()));
            }
            Ok(_) => {}
            Err(error) => {
                let why = trusted_path::explain_denied(&path, &error);
                self.fail(key, format_args!("cannot read {}: {error}{why}", path.display()));
            }
        }
        path
    }

    /// An https URL, or an http one of this machine.
    fn url(&mut self, key: &[&str], text: &str) -> Uri {
        match parse_url(text) {
            Ok(uri) => uri,
            Err(message) => {
                self.fail(key, message);
                Uri::default()
            }
        }
    }

    fn upstream(&mut self, file: &file::Upstream) -> Upstream {
        const COUNTS: [&str; 2] = ["upstream", "connections_max"];
        let hosts = [
            ("na", &file.na),
            ("eu", &file.eu),
            ("fe", &file.fe),
            ("mcp_na", &file.mcp_na),
            ("mcp_eu", &file.mcp_eu),
            ("mcp_fe", &file.mcp_fe),
        ];
        let [na, eu, fe, mcp_na, mcp_eu, mcp_fe] = hosts.map(|(name, text)| {
            let key = ["upstream", name];
            let uri = self.url(&key, text);
            if uri.path_and_query().is_some_and(|path| path != "/") {
                self.fail(&key, "must not have a path: the caller's is used");
            }
            uri
        });
        Upstream {
            api: [na, eu, fe],
            mcp: [mcp_na, mcp_eu, mcp_fe],
            ca_file: file
                .ca_file
                .as_ref()
                .map(|path| self.readable(&["upstream", "ca_file"], path)),
            connect_timeout: self
                .timeout(&["upstream", "connect_timeout_secs"], file.connect_timeout_secs),
            response_header_timeout: self.timeout(
                &["upstream", "response_header_timeout_secs"],
                file.response_header_timeout_secs,
            ),
            response_idle_timeout: self.timeout(
                &["upstream", "response_idle_timeout_secs"],
                file.response_idle_timeout_secs,
            ),
            idle_timeout: self.timeout(&["upstream", "idle_timeout_secs"], file.idle_timeout_secs),
            connections_max: self.count(&COUNTS, file.connections_max, 1..=COUNT_MAX),
            http2: file.http2,
        }
    }

    fn replay(&mut self, file: &Replay) -> Replay {
        let directory = file.directory.as_ref().map(|path| {
            let key = ["replay", "directory"];
            let path = self.path(&key, &path.to_string_lossy());
            if !path.is_dir() {
                self.fail(&key, format_args!("{} is not a directory", path.display()));
            }
            path
        });
        Replay { directory, ..file.clone() }
    }

    fn store(&mut self, file: &file::Store) -> Store {
        let kind = match file.kind.as_str() {
            "memory" => StoreKind::Memory,
            "file" => StoreKind::File,
            "keyring" if cfg!(feature = "keyring") => StoreKind::Keyring,
            "keyring" => {
                let message = "this adsproxy was built without the feature \"keyring\"";
                self.fail(&["store", "kind"], message);
                StoreKind::Memory
            }
            "postgres" => {
                let message = "\"postgres\" is not built yet; \
                               there are \"memory\", \"file\" and \"keyring\"";
                self.fail(&["store", "kind"], message);
                StoreKind::Memory
            }
            other => {
                let message = format!("{other:?} is none of \"memory\", \"file\" and \"keyring\"");
                self.fail(&["store", "kind"], message);
                StoreKind::Memory
            }
        };
        let path = match kind {
            StoreKind::File | StoreKind::Keyring => self.path(&["store", "path"], &file.path),
            // Not used, so a missing HOME is no error.
            StoreKind::Memory => {
                self.environment.expand(&file.path).unwrap_or_else(|| file.path.clone().into())
            }
        };
        Store { kind, path }
    }

    fn log(&mut self, file: &file::Log) -> Log {
        if let Err(error) = log_filter::check(&file.filter) {
            self.fail(&["log", "filter"], error);
        }
        let format = file.format.as_deref().and_then(|format| match format {
            "text" => Some(LogFormat::Text),
            "json" => Some(LogFormat::Json),
            other => {
                let message = format!("{other:?} is neither \"text\" nor \"json\"");
                self.fail(&["log", "format"], message);
                None
            }
        });
        Log { filter: file.filter.clone(), format, access: file.access }
    }
}

fn begins_with(key: &[impl AsRef<str>], start: &[impl AsRef<str>]) -> bool {
    key.len() >= start.len() && key.iter().zip(start).all(|(a, b)| a.as_ref() == b.as_ref())
}

/// Checks the scheme and the authority of a URL.
fn parse_url(text: &str) -> Result<Uri, String> {
    // The text may hold a password, so no message repeats it.
    if text.contains('#') {
        return Err("must not have a fragment".into());
    }
    let uri: Uri = text.parse().map_err(|error| format!("is no URL: {error}"))?;
    let Some(authority) = uri.authority() else {
        return Err("is no URL: it must begin with https://".into());
    };
    if authority.as_str().contains('@') {
        return Err("must not have a user name or password in it".into());
    }
    if authority.host().is_empty() {
        return Err("has no host".into());
    }
    match uri.scheme_str() {
        Some("https") => Ok(uri),
        Some("http") if is_loopback(authority.host()) => Ok(uri),
        Some("http") => Err("must begin with https://; http:// is for this machine only \
                             (localhost, 127.0.0.1, [::1])"
            .into()),
        _ => Err("must begin with https://".into()),
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || address.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}
