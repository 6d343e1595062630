//! Fuzz targets of what Amazon says of throttling, and of places in lists that requests name.

use super::{ScopePlace, reply::ThrottleReply};
use crate::{
    fuzz::{Target, fields, text},
    provider::ads::Service,
};
use http::StatusCode;
use std::time::Duration;

pub const TARGETS: &[Target] = &[
    Target {
        name: "throttle_reply",
        run: reply,
        seeds: &[
            "4\nretry-after: 2",
            "4\nretry-after: Fri, 20 Nov 2026 00:00:07 GMT\ndate: Fri, 20 Nov 2026 00:00:00 GMT",
            "4\nretry-after: 2\nx-amzn-errortype: AccessDeniedException:x",
            "m\nretry-after: Friday, 20-Nov-26 00:00:07 GMT\ncontent-type: text/html; charset=utf-8",
            "5\nretry-after: Fri Nov 20 00:00:07 2026",
        ],
    },
    Target { name: "throttle_place", run: place, seeds: &["1795132800-7", "0-0"] },
];

/// 2026-11-20 00:00:00 UTC.
const WALL: Duration = Duration::from_secs(1_795_132_800);

/// Only a 429 or 5xx says anything, and a wait is asked for where the field is.
fn reply(input: &[u8]) {
    let Some((first, rest)) = input.split_first() else { return };
    let Some(headers) = fields(rest.split(|byte| *byte == b'\n')) else { return };
    let status = match first {
        b'2' => StatusCode::OK,
        b'5' => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::TOO_MANY_REQUESTS,
    };
    let service = if *first == b'm' { Service::Mcp } else { Service::Api };
    let reply = ThrottleReply::of(status, &headers, service, WALL);
    assert_eq!(reply.is_some(), status != StatusCode::OK);
    let Some(reply) = reply else { return };
    assert!(reply.retry_after.is_none() || headers.contains_key("retry-after"));
    assert!(!reply.is_throttling() || status == StatusCode::TOO_MANY_REQUESTS);
    assert!(reply.asked().is_none_or(|wait| !wait.is_zero()));
}

fn place(input: &[u8]) {
    let Some(place) = text(input).and_then(|text| text.parse::<ScopePlace>().ok()) else { return };
    assert_eq!(place.to_string().parse::<ScopePlace>().ok(), Some(place));
}
