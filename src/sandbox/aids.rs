//! Operations that Amazon does not have, for tests of what lies in between.
//!
//! `ANY /_echo` shows the request, `/_sink` only takes it, `/_bytes/{n}` returns n bytes,
//! `/_sse?events=&interval_ms=` an event stream, `/_slow?ms=&body_ms=` late, `/_trailers` with
//! trailers, `/_status/{code}` with that status.

use super::{
    ads::{ApiCall, classic},
    response::{EmulatorResponse, With, after, json, repeated, stream, whole},
};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::Frame;
use serde_json::json;
use std::time::Duration;
use tokio::time::sleep;

const CHECKSUM: HeaderName = HeaderName::from_static("x-checksum");

pub(super) async fn respond(call: &ApiCall<'_>, aid: &str, value: &str) -> EmulatorResponse {
    let number = value.parse::<usize>().ok();
    let asked = |name, default| call.query.number(name).unwrap_or(default);
    match (aid, number) {
        ("_echo", _) => echo(call),
        ("_sink", _) => json(200, json!({ "length": call.seen.lock().body_len })),
        ("_bytes", Some(size)) => {
            let reply = stream("application/octet-stream", repeated(b'x', size));
            reply.with("content-length", value)
        }
        ("_status", Some(status @ (204 | 304))) => whole(status as u16, "", ""),
        ("_status", Some(status @ 200..=999)) => json(status as u16, json!({ "status": status })),
        ("_status", Some(_)) => classic(400, "no such status"),
        ("_sse", _) => {
            let count = asked("events", 3);
            let texts = (1..=count).map(move |n| format!("event {n} of {count}"));
            events(texts, Duration::from_millis(asked("interval_ms", 100)))
        }
        ("_slow", _) => {
            sleep(Duration::from_millis(asked("ms", 1000))).await;
            let pause = Duration::from_millis(asked("body_ms", 0));
            stream("text/plain", [after(Duration::ZERO, "slow"), after(pause, "ly\n")])
        }
        ("_trailers", _) => {
            let fields = HeaderMap::from_iter([(CHECKSUM, HeaderValue::from_static("sandbox"))]);
            let trailers = (Duration::ZERO, Ok(Frame::trailers(fields)));
            let reply = stream("text/plain", [after(Duration::ZERO, "body\n"), trailers]);
            reply.with("trailer", CHECKSUM.as_str())
        }
        _ => classic(404, "Not Found"),
    }
}

/// A stream of one event per text; the first at once, the others `interval` apart.
pub(super) fn events<I>(texts: I, interval: Duration) -> EmulatorResponse
where
    I: IntoIterator<Item = String>,
    I::IntoIter: Send + Unpin + 'static,
{
    let frames = texts.into_iter().enumerate().map(move |(index, text)| {
        let pause = if index == 0 { Duration::ZERO } else { interval };
        after(pause, format!("event: message\ndata: {text}\n\n"))
    });
    stream("text/event-stream", frames).with("cache-control", "no-cache")
}

fn echo(call: &ApiCall<'_>) -> EmulatorResponse {
    let seen = call.seen.lock();
    let mut headers = seen.headers.clone();
    for (_, value) in headers.iter_mut().filter(|(name, _)| name == "authorization") {
        // Enough to see what kind of token it was; the echo must not disclose the token.
        *value = value.chars().take("Bearer Atza|".len()).chain(['\u{2026}']).collect();
    }
    let body = json!({
        "method": seen.method,
        "target": seen.target,
        "version": format!("{:?}", seen.version),
        "headers": headers,
        "account": call.account,
        "body_length": seen.body_len,
        "body_sha256": seen.body_sha256,
        "has_trailers": seen.has_trailers,
    });
    json(200, body)
}
