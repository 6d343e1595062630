//! Remembers what arrived: counters for all requests, the last ones in full.

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, Version, request::Parts};
use http_body::Frame;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use parking_lot::Mutex;
use serde::Serialize;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

/// Bytes of each body kept for looking at; length and hash cover all of it.
const BODY_KEPT_MAX_BYTES: usize = 16 * 1024;
/// Bytes of a body that the emulated operations look at: Amazon's batches are about 1 MB.
const BODY_READ_MAX_BYTES: usize = 2 * 1024 * 1024;
/// Requests remembered in full.
const REQUESTS_MAX: usize = 4096;
/// Distinct paths counted; what comes later is counted as `other`.
const PATHS_MAX: usize = 1000;

/// Which of the emulated services a request was for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Surface {
    Token,
    Revoke,
    Consent,
    /// The Ads API, the MCP server and the test aids.
    #[default]
    Api,
    S3,
    Control,
}

#[derive(Debug, Clone, Default)]
pub struct SeenRequest {
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

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CallCounts {
    pub token_calls: u64,
    pub tokens_issued: u64,
    /// Requests to the API, the MCP server and the test aids.
    pub api_calls: u64,
    pub api_calls_by_path: BTreeMap<String, u64>,
    /// Downloads from the presigned host.
    pub s3_calls: u64,
    pub unauthorized_sent: u64,
    pub bodies_broken: u64,
}

#[derive(Debug, Default)]
pub struct RequestRecord(Mutex<RequestLog>);

#[derive(Debug, Default)]
struct RequestLog {
    counts: CallCounts,
    last: VecDeque<Arc<Mutex<SeenRequest>>>,
}

impl RequestRecord {
    pub fn counts(&self) -> CallCounts {
        self.0.lock().counts.clone()
    }

    /// The last requests, oldest first.
    pub fn requests(&self) -> Vec<SeenRequest> {
        self.0.lock().last.iter().map(|seen| seen.lock().clone()).collect()
    }

    /// The last requests for `surface`, oldest first.
    pub fn requests_for(&self, surface: Surface) -> Vec<SeenRequest> {
        let mut requests = self.requests();
        requests.retain(|seen| seen.surface == surface);
        requests
    }

    pub fn clear(&self) {
        *self.0.lock() = RequestLog::default();
    }

    /// Takes down the head of a request, sent with the token of `owner`.
    pub(super) fn arrived(
        &self,
        surface: Surface,
        parts: &Parts,
        owner: Option<(String, u64)>,
    ) -> Arc<Mutex<SeenRequest>> {
        let (account, generation) = owner.unzip();
        let seen = Arc::new(Mutex::new(SeenRequest {
            surface,
            method: parts.method.to_string(),
            target: target(parts),
            version: parts.version,
            headers: header_pairs(&parts.headers),
            account,
            generation,
            ..SeenRequest::default()
        }));
        let RequestLog { counts, last } = &mut *self.0.lock();
        counts.token_calls += u64::from(surface == Surface::Token);
        counts.s3_calls += u64::from(surface == Surface::S3);
        if surface == Surface::Api {
            counts.api_calls += 1;
            let (paths, path) = (&mut counts.api_calls_by_path, parts.uri.path());
            let is_counted = paths.len() < PATHS_MAX || paths.contains_key(path);
            *paths.entry(if is_counted { path } else { "other" }.to_owned()).or_default() += 1;
        }
        if last.len() == REQUESTS_MAX {
            last.pop_front();
        }
        last.push_back(Arc::clone(&seen));
        seen
    }

    /// Reads a body to its end, and takes it down; none if it broke off. Returns its beginning,
    /// which is enough for every emulated operation.
    pub(super) async fn receive(
        &self,
        seen: &Mutex<SeenRequest>,
        mut body: Incoming,
    ) -> Option<Bytes> {
        let (mut start, mut digest) = (Vec::new(), Context::new(&SHA256));
        let (mut len, mut complete, mut has_trailers) = (0, true, false);
        // The test aids look at length and hash only, and take uploads of any size.
        let is_aid = seen.lock().target.starts_with("/_");
        let keep = if is_aid { BODY_KEPT_MAX_BYTES } else { BODY_READ_MAX_BYTES };
        while let Some(frame) = body.frame().await {
            match frame.map(Frame::into_data) {
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
        self.0.lock().counts.bodies_broken += u64::from(!complete);
        let mut seen = seen.lock();
        // Copied: a slice would keep the whole body alive.
        seen.body = Bytes::copy_from_slice(&start[..start.len().min(BODY_KEPT_MAX_BYTES)]);
        seen.body_sha256 = digest.finish().as_ref().iter().map(|b| format!("{b:02x}")).collect();
        (seen.body_len, seen.body_complete, seen.has_trailers) = (len, complete, has_trailers);
        complete.then(|| start.into())
    }

    pub(super) fn responded(&self, seen: &Mutex<SeenRequest>, status: StatusCode) {
        let mut seen = seen.lock();
        seen.status = Some(status.as_u16());
        let is_unauthorized = seen.surface == Surface::Api && status == StatusCode::UNAUTHORIZED;
        drop(seen);
        self.0.lock().counts.unauthorized_sent += u64::from(is_unauthorized);
    }

    pub(super) fn issued(&self) {
        self.0.lock().counts.tokens_issued += 1;
    }
}

/// Field names and values as an ordered list; values one character per byte.
fn header_pairs(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| bytes.iter().copied().map(char::from).collect::<String>();
    headers.iter().map(|(name, value)| (name.to_string(), text(value.as_bytes()))).collect()
}

/// The request target as it was sent: HTTP/2 splits it, so only its path counts there.
fn target(parts: &Parts) -> String {
    match (parts.version, parts.uri.path_and_query()) {
        (Version::HTTP_2, Some(target)) => target.to_string(),
        _ => parts.uri.to_string(),
    }
}
