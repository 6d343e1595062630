//! One access token: checked, ready for the wire, masked.

use super::slot::{self, Life, Millis};
use crate::{clock::Now, secret::Secret};
use bytes::Bytes;
use http::HeaderValue;
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// A bearer token as it goes on the wire, built once per refresh. Its header masks itself.
#[derive(Debug)]
pub struct AccessToken {
    header: HeaderValue,
    pub(super) generation: u64,
    /// Its life, kept small: there may be a hundred thousand. Milliseconds since 1970.
    expires_wall: u64,
    expires: Instant,
    lifetime: Millis,
    /// How long before its end it is due.
    buffer: Millis,
}

impl AccessToken {
    /// Checks `token` and makes the header of it; it is due `buffer` before it expires.
    pub(super) fn new(
        token: &Secret,
        generation: u64,
        life: Life,
        buffer: Duration,
    ) -> Option<Self> {
        // LWA documents at most 2048 bytes; anything but visible ASCII would be an injection.
        let text = token.expose();
        if text.is_empty() || text.len() > 8192 || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return None;
        }
        // Wiped with its last copy: the libraries' buffers are theirs.
        let bytes = [b"Bearer ", text.as_bytes()].concat().into_boxed_slice();
        let bytes = Zeroizing::new(bytes);
        let mut header = HeaderValue::from_maybe_shared(Bytes::from_owner(bytes)).ok()?;
        header.set_sensitive(true);
        let (expires_wall, expires, lifetime) = life.parts();
        let buffer = Millis::of(buffer);
        Some(Self { header, generation, expires_wall, expires, lifetime, buffer })
    }

    /// From when to when it is good.
    pub(super) fn life(&self) -> Life {
        Life::of_parts((self.expires_wall, self.expires, self.lifetime))
    }

    /// The value of `Authorization`.
    pub fn header(&self) -> &HeaderValue {
        &self.header
    }

    /// The token alone, for commands that print it. Every use of this is a place to review.
    pub fn expose(&self) -> &str {
        let header = self.header.to_str().unwrap_or_default();
        header.strip_prefix("Bearer ").unwrap_or_default()
    }

    /// How long it will be accepted; zero once it has expired.
    pub fn expires_in(&self, now: Now) -> Duration {
        self.life().remaining(now)
    }

    /// The number of this token in its account's history.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn is_fresh(&self, now: Now) -> bool {
        let life = self.life();
        !slot::passed(life.due(self.buffer.time()), now) && !life.is_expired(now)
    }
}
