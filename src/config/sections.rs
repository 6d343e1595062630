//! The sections whose values need nothing but themselves to be checked: read straight into their
//! types, each key once with its default and its check.

use super::{file::MIB, value};
use serde::{Deserialize, Serialize};
use std::{path::PathBuf, time::Duration};

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// One table of the file: field, type, default, key, and the module of `value` that checks it.
macro_rules! checked {
    ($(#[$doc:meta])* $name:ident {
        $($(#[$field_doc:meta])* $field:ident: $type:ty = $default:expr,
            $key:literal as $with:literal;)*
    }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name {
            $($(#[$field_doc])* #[serde(rename = $key, with = $with)] pub $field: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }

        #[cfg(test)]
        impl $name {
            pub(crate) const KEYS: &[&str] = &[$($key,)*];
        }
    };
}

checked! {
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

checked! {
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

checked! {
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

checked! {
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

checked! {
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

checked! {
    /// `[metrics]`
    Metrics {
        /// Accounts with series of their own; the rest are only counted.
        account_labels_max: usize = 200, "account_labels_max" as "value::count_or_none";
    }
}
