//! Fuzzes the files of the directory, and the URL of the database.

use super::files::{header, name};
#[cfg(feature = "postgres")]
use super::postgres::connect::{is_encrypted, parse};
use crate::fuzz::text;

/// A header is a line of at most 128 bytes; every key has a file name of its own, which is no path.
pub fn file(input: &[u8]) {
    if let Some((read, at)) = header::parse_header(input) {
        assert!(at <= 128 && input[at - 1] == b'\n');
        let mut again = serde_json::to_vec(&read).expect("numbers");
        again.push(b'\n');
        let (again, end) = header::parse_header(&again).expect("it was written");
        assert_eq!((again.version, again.expires_at_ms), (read.version, read.expires_at_ms));
        assert!(end <= 128);
    }
    let Some(text) = text(input) else { return };
    let file = name::encode(text);
    assert_eq!(name::decode(&file).as_deref(), Some(text));
    assert!(!file.starts_with('.') && !file.contains(['/', '\0']), "{file}");
    assert!(name::decode(text).is_none_or(|key| name::encode(&key) == text));
}

/// No URL that is accepted leads to another machine without TLS.
#[cfg(feature = "postgres")]
pub fn url(input: &[u8]) {
    let Some(Ok(parsed)) = text(input).map(parse) else { return };
    let Ok(false) = is_encrypted(&parsed.config, parsed.mode.as_deref(), false) else { return };
    let is_remote = |host: &tokio_postgres::config::Host| match host {
        tokio_postgres::config::Host::Unix(_) => false,
        tokio_postgres::config::Host::Tcp(name) => name.contains("example"),
    };
    let addresses = parsed.config.get_hostaddrs();
    assert!(addresses.iter().all(|address| address.is_loopback()), "{addresses:?}");
    assert!(!addresses.is_empty() || !parsed.config.get_hosts().iter().any(is_remote));
}
