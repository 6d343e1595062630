//! One worker thread's counters.

use super::troubles::{CallTrouble, TroubleCounts};
use crate::{
    id::{AccountId, Region},
    named::named,
    provider::operations::OperationClass,
};
use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

named! {
    /// What an upstream 401 turned out to be.
    pub enum Upstream401 {
        /// The access token was no longer good.
        Expired = "expired",
        /// The token was good: Amazon's gateway erred.
        Spurious = "spurious",
        /// The account may not do this; no other token would help.
        Permission = "permission",
    }
}

named! {
    /// What kind of 429 or 5xx Amazon sent.
    pub enum ThrottleKind {
        /// A 429 that says in how many seconds to come back.
        RetryAfterSeconds = "retry_after_seconds",
        /// A 429 that says at what time to come back.
        RetryAfterDate = "retry_after_date",
        NoRetryAfter = "no_retry_after",
        /// A 429 about a missing permission: no wait clears it.
        AccessDenied = "access_denied",
        /// A 429 page of the gateway in front of the MCP server: no wait clears it.
        GatewayHtml = "gateway_html",
        /// A 5xx that says when to come back.
        ServerErrorRetryAfter = "server_error_retry_after",
        ServerError = "server_error",
    }
}

named! {
    /// How the replay of a request ended.
    pub enum ReplayOutcome {
        /// Amazon responded with something else than 401.
        Succeeded = "succeeded",
        /// Amazon responded with 401 again.
        StillUnauthorized = "still_unauthorized",
        /// The request was not, or not wholly, captured.
        NotReplayable = "not_replayable",
        /// There was no token, or Amazon could not be reached.
        Failed = "failed",
    }
}

named! {
    /// A configured limit that was hit.
    pub enum LimitHit {
        Connections = "connections",
        InFlight = "in_flight",
        /// Size or number of header lines.
        Headers = "headers",
        /// Size of a request body.
        Body = "body",
        /// Requests waiting for one account's token.
        Waiters = "waiters",
        /// Captured bytes in memory, one request.
        CaptureMemory = "capture_memory",
        /// Captured bytes on disk, one request.
        CaptureDisk = "capture_disk",
        /// Captured bytes of all requests.
        CaptureTotal = "capture_total",
        UpstreamConnections = "upstream_connections",
        /// A connection to Amazon took too long.
        ConnectTimeout = "connect_timeout",
        /// Amazon did not respond in time.
        ResponseHeaderTimeout = "response_header_timeout",
        /// Amazon paused for too long within a response.
        ResponseIdleTimeout = "response_idle_timeout",
        /// A request's header took too long.
        HeaderTimeout = "header_timeout",
        /// No request came on an open connection.
        IdleTimeout = "idle_timeout",
        /// A request's body came too slowly.
        BodyTimeout = "body_timeout",
        /// A response was not read.
        WriteTimeout = "write_timeout",
        /// No byte came on a new connection.
        FirstByteTimeout = "first_byte_timeout",
        /// A caller's TLS handshake took too long.
        HandshakeTimeout = "handshake_timeout",
        /// A call that Amazon would have throttled (`throttling.enforce`).
        UpstreamThrottled = "upstream_throttled",
    }
}

/// The values of `code_class`; the last one takes impossible codes.
pub(super) const CODE_CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "other"];

/// Upper bounds of the histogram's buckets, microseconds; a last one without bound follows.
pub(super) const BOUNDS_MICROS: [u64; 17] = [
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    120_000_000,
    300_000_000,
];

/// Counts of one worker thread.
///
/// Only that thread writes, so a plain load and store count without a bus lock: a second
/// writing thread would lose counts. The alignment keeps two workers off one cache line (two
/// lines, for processors that fetch pairs).
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct WorkerMetrics {
    pub(super) requests: [AtomicU64; CODE_CLASSES.len()],
    pub(super) duration: Histogram,
    pub(super) in_flight: AtomicU64,
    pub(super) connections: AtomicU64,
    pub(super) upstream_connections: AtomicU64,
    pub(super) upstream_401: [AtomicU64; Upstream401::ALL.len()],
    pub(super) replays: [AtomicU64; ReplayOutcome::ALL.len()],
    pub(super) limits: [AtomicU64; LimitHit::ALL.len()],
    pub(super) redacted: AtomicU64,
    pub(super) throttled: ThrottleCounts,
    pub(super) troubles: TroubleCounts,
}

/// By region, class and kind.
pub(super) type ThrottleCounts =
    [[[AtomicU64; ThrottleKind::ALL.len()]; OperationClass::ALL.len()]; Region::ALL.len()];

impl WorkerMetrics {
    pub fn request(&self, status: u16, duration: Duration) {
        let class = match status {
            100..=599 => usize::from(status / 100 - 1),
            _ => CODE_CLASSES.len() - 1,
        };
        bump(&self.requests[class]);
        self.duration.observe(duration);
    }

    pub fn in_flight_inc(&self) {
        bump(&self.in_flight);
    }

    pub fn in_flight_dec(&self) {
        drop_one(&self.in_flight);
    }

    pub fn upstream_401(&self, class: Upstream401) {
        bump(&self.upstream_401[class as usize]);
    }

    /// Counts a replay, or one that could not be.
    pub fn replay(&self, outcome: ReplayOutcome) {
        bump(&self.replays[outcome as usize]);
    }

    /// Counts a response that quoted an access token.
    pub fn response_redacted(&self) {
        bump(&self.redacted);
    }

    /// Counts a 429 or 5xx of Amazon's.
    pub fn throttled(&self, region: Region, class: OperationClass, kind: ThrottleKind) {
        bump(&self.throttled[region as usize][class as usize][kind as usize]);
    }

    /// Counts what happened to a call of `account`.
    pub fn trouble(&self, account: &AccountId, class: OperationClass, what: CallTrouble) {
        self.troubles.add(account, class, what);
    }

    pub fn limit(&self, limit: LimitHit) {
        bump(&self.limits[limit as usize]);
    }

    pub fn connection_opened(&self) {
        bump(&self.connections);
    }

    pub fn connection_closed(&self) {
        drop_one(&self.connections);
    }

    pub fn upstream_connection_opened(&self) {
        bump(&self.upstream_connections);
    }
}

fn bump(cell: &AtomicU64) {
    add(cell, 1);
}

fn add(cell: &AtomicU64, by: u64) {
    cell.store(cell.load(Relaxed).wrapping_add(by), Relaxed);
}

fn drop_one(cell: &AtomicU64) {
    cell.store(cell.load(Relaxed).saturating_sub(1), Relaxed);
}

/// A histogram of durations with one writer; more than one would lose counts.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    pub(super) buckets: [AtomicU64; BOUNDS_MICROS.len() + 1],
    pub(super) sum_micros: AtomicU64,
}

impl Histogram {
    pub(super) fn observe(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        bump(&self.buckets[BOUNDS_MICROS.partition_point(|&bound| bound < micros)]);
        add(&self.sum_micros, micros);
    }

    /// Adds what `other` counted.
    pub(super) fn add(&self, other: &Self) {
        for (total, part) in self.buckets.iter().zip(&other.buckets) {
            add(total, part.load(Relaxed));
        }
        add(&self.sum_micros, other.sum_micros.load(Relaxed));
    }
}
