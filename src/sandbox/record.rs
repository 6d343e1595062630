//! Remembers what arrived: counters for all requests, the last ones in full.

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, Version, request::Parts};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use parking_lot::Mutex;
use serde::Serialize;
use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write,
};

/// Bytes of each body kept for looking at; length and hash cover all of it.
pub(super) const BODY_KEPT_MAX_BYTES: usize = 16 * 1024;
/// Requests remembered in full.
const REQUESTS_MAX: usize = 4096;
/// Distinct paths counted; what comes later is counted as `other`.
const PATHS_MAX: usize = 1000;

/// Which of the emulated services a request was for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Surface {
    Token,
    Revoke,
    /// The consent page.
    Consent,
    /// The Ads API, the MCP server and the test aids.
    #[default]
    Api,
    /// Presigned downloads.
    S3,
    /// `/_sandbox`.
    Control,
}

/// One request as it arrived.
#[derive(Debug, Clone, Default)]
pub struct SeenRequest {
    /// The place among all requests, from 0.
    number: u64,
    surface: Surface,
    pub method: String,
    /// The request target, byte for byte.
    pub target: String,
    pub version: Version,
    /// Field names in lower case and values (one character per byte), repeats included.
    pub headers: Vec<(String, String)>,
    /// The first 16 KiB of the body.
    pub body: Bytes,
    pub body_len: u64,
    /// The body's SHA-256, lower-case hexadecimal; empty until the body has ended.
    pub body_sha256: String,
    /// Whether the body came to its announced end.
    pub body_complete: bool,
    pub has_trailers: bool,
    /// Whose access token the request carried.
    pub account: Option<String>,
    /// The number of that token in its account's history, from 1.
    pub generation: Option<u64>,
    /// The status sent; none while it is under way or if the connection was dropped.
    pub status: Option<u16>,
}

impl SeenRequest {
    /// Every value of the field `name` (lower case).
    pub fn values(&self, name: &str) -> Vec<&str> {
        let named = self.headers.iter().filter(|(have, _)| have == name);
        named.map(|(_, value)| value.as_str()).collect()
    }
}

/// How often things happened.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CallCounts {
    pub token_calls: u64,
    /// Access tokens issued.
    pub tokens_issued: u64,
    /// Requests to the API, the MCP server and the test aids.
    pub api_calls: u64,
    pub api_calls_by_path: BTreeMap<String, u64>,
    /// Downloads from the presigned host.
    pub s3_calls: u64,
    /// 401s that the API sent.
    pub unauthorized_sent: u64,
    /// Request bodies that broke off.
    pub bodies_broken: u64,
}

/// The memory of what arrived.
#[derive(Debug, Default)]
pub struct RequestRecord(Mutex<RequestLog>);

#[derive(Debug, Default)]
struct RequestLog {
    counts: CallCounts,
    next: u64,
    last: VecDeque<SeenRequest>,
}

impl RequestRecord {
    pub fn counts(&self) -> CallCounts {
        self.0.lock().counts.clone()
    }

    /// The last requests, oldest first.
    pub fn requests(&self) -> Vec<SeenRequest> {
        self.0.lock().last.iter().cloned().collect()
    }

    /// The last requests for `surface`, oldest first.
    pub fn requests_for(&self, surface: Surface) -> Vec<SeenRequest> {
        let memory = self.0.lock();
        memory.last.iter().filter(|seen| seen.surface == surface).cloned().collect()
    }

    /// Forgets requests and counters; numbers go on.
    pub fn clear(&self) {
        let mut memory = self.0.lock();
        memory.last.clear();
        memory.counts = CallCounts::default();
    }

    /// Takes down the head of a request; returns its number.
    pub(super) fn arrived(
        &self,
        surface: Surface,
        parts: &Parts,
        owner: Option<(String, u64)>,
    ) -> u64 {
        let (account, generation) = owner.unzip();
        let mut memory = self.0.lock();
        memory.counts.count(surface, parts.uri.path());
        let number = memory.next;
        memory.next += 1;
        if memory.last.len() == REQUESTS_MAX {
            memory.last.pop_front();
        }
        memory.last.push_back(SeenRequest {
            number,
            surface,
            method: parts.method.to_string(),
            target: target(parts),
            version: parts.version,
            headers: header_pairs(&parts.headers),
            account,
            generation,
            ..SeenRequest::default()
        });
        number
    }

    /// Adds what the body was.
    pub(super) fn received(&self, number: u64, body: &ReceivedBody) {
        let mut memory = self.0.lock();
        memory.counts.bodies_broken += u64::from(!body.complete);
        if let Some(seen) = memory.find(number) {
            // Copied: a slice would keep the whole body alive.
            let kept = body.start.len().min(BODY_KEPT_MAX_BYTES);
            seen.body = Bytes::copy_from_slice(&body.start[..kept]);
            seen.body_len = body.len;
            seen.body_sha256.clone_from(&body.sha256);
            seen.body_complete = body.complete;
            seen.has_trailers = body.has_trailers;
        }
    }

    /// Adds the status sent.
    pub(super) fn responded(&self, number: u64, surface: Surface, status: StatusCode) {
        let mut memory = self.0.lock();
        let unauthorized = surface == Surface::Api && status == StatusCode::UNAUTHORIZED;
        memory.counts.unauthorized_sent += u64::from(unauthorized);
        if let Some(seen) = memory.find(number) {
            seen.status = Some(status.as_u16());
        }
    }

    /// Counts an access token.
    pub(super) fn issued(&self) {
        self.0.lock().counts.tokens_issued += 1;
    }
}

impl RequestLog {
    fn find(&mut self, number: u64) -> Option<&mut SeenRequest> {
        let first = self.last.front()?.number;
        let index = usize::try_from(number.checked_sub(first)?).ok()?;
        self.last.get_mut(index)
    }
}

impl CallCounts {
    fn count(&mut self, surface: Surface, path: &str) {
        self.token_calls += u64::from(surface == Surface::Token);
        self.s3_calls += u64::from(surface == Surface::S3);
        if surface == Surface::Api {
            self.api_calls += 1;
            let paths = &mut self.api_calls_by_path;
            let is_counted = paths.len() < PATHS_MAX || paths.contains_key(path);
            *paths.entry(if is_counted { path } else { "other" }.to_owned()).or_default() += 1;
        }
    }
}

/// A request body after it was read.
pub(super) struct ReceivedBody {
    /// The beginning, enough for every emulated operation.
    pub(super) start: Bytes,
    pub(super) len: u64,
    pub(super) sha256: String,
    pub(super) complete: bool,
    pub(super) has_trailers: bool,
}

impl ReceivedBody {
    /// Reads `body` to its end; keeps its first `keep` bytes.
    pub(super) async fn read(mut body: Incoming, keep: usize) -> Self {
        let (mut start, mut digest) = (Vec::new(), Context::new(&SHA256));
        let (mut len, mut complete, mut has_trailers) = (0, true, false);
        while let Some(frame) = body.frame().await {
            match frame.map(http_body::Frame::into_data) {
                Ok(Ok(data)) => {
                    len += data.len() as u64;
                    digest.update(&data);
                    let room = keep.saturating_sub(start.len());
                    start.extend_from_slice(&data[..data.len().min(room)]);
                }
                Ok(Err(_)) => has_trailers = true,
                Err(_) => {
                    complete = false;
                    break;
                }
            }
        }
        let sha256 = digest.finish().as_ref().iter().fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").expect("writing to a String cannot fail");
            hex
        });
        Self { start: start.into(), len, sha256, complete, has_trailers }
    }
}

/// Field names and values as an ordered list; values one character per byte.
pub(super) fn header_pairs(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| bytes.iter().copied().map(char::from).collect::<String>();
    headers.iter().map(|(name, value)| (name.to_string(), text(value.as_bytes()))).collect()
}

/// The request target as it was sent: HTTP/2 splits it, so only its path counts there.
pub(super) fn target(parts: &Parts) -> String {
    match (parts.version, parts.uri.path_and_query()) {
        (Version::HTTP_2, Some(target)) => target.to_string(),
        _ => parts.uri.to_string(),
    }
}
