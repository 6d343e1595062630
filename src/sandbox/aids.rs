//! Operations that Amazon does not have, for tests of what lies in between.
//!
//! `ANY /_echo` shows the request, `/_sink` only takes it, `/_bytes/{n}` returns n bytes,
//! `/_sse?events=&interval_ms=` an event stream, `/_slow?ms=&body_ms=` late, `/_trailers` with
//! trailers, `/_status/{code}` with that status.

use super::{
    ads::{ApiCall, classic},
    record::{header_pairs, target},
    response::{Emulated, With, empty, feed, json, send, send_bytes},
};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::Frame;
use serde_json::json;
use std::time::Duration;
use tokio::time::sleep;

/// Responds with the test aid called `aid`.
pub(super) async fn respond(call: &ApiCall<'_>, aid: &str, value: Option<&str>) -> Emulated {
    let number = value.and_then(|value| value.parse::<u64>().ok());
    match (aid, number) {
        ("_echo", _) => echo(call),
        ("_sink", _) => json(200, json!({ "length": call.body.len })),
        ("_bytes", Some(size)) => {
            let reply = feed("application/octet-stream", move |sender| async move {
                send_bytes(&sender, b'x', size).await;
            });
            reply.with("content-length", &size.to_string())
        }
        ("_status", Some(code)) => match u16::try_from(code) {
            Ok(code @ (204 | 304)) => empty(code),
            Ok(code @ 200..=999) => json(code, json!({ "status": code })),
            _ => classic(400, "no such status"),
        },
        ("_sse", _) => {
            let count = call.query.number("events", 3);
            let texts = (1..=count).map(|n| format!("event {n} of {count}")).collect();
            events(texts, call.query.millis("interval_ms", 100))
        }
        ("_slow", _) => {
            sleep(call.query.millis("ms", 1000)).await;
            let pause = call.query.millis("body_ms", 0);
            feed("text/plain", move |sender| async move {
                if send(&sender, "slow").await {
                    sleep(pause).await;
                    send(&sender, "ly\n").await;
                }
            })
        }
        ("_trailers", _) => trailers(),
        _ => classic(404, "Not Found"),
    }
}

/// A stream of one event per text; the first at once, the others `interval` apart.
pub(super) fn events(texts: Vec<String>, interval: Duration) -> Emulated {
    let reply = feed("text/event-stream", move |sender| async move {
        for (index, text) in texts.into_iter().enumerate() {
            if index > 0 {
                sleep(interval).await;
            }
            if !send(&sender, format!("event: message\ndata: {text}\n\n")).await {
                return;
            }
        }
    });
    reply.with("cache-control", "no-cache")
}

fn echo(call: &ApiCall<'_>) -> Emulated {
    let mut headers = header_pairs(&call.parts.headers);
    for (_, value) in headers.iter_mut().filter(|(name, _)| name == "authorization") {
        // Enough to tell what kind of token it was; the echo must not disclose the token.
        *value = value.chars().take("Bearer Atza|".len()).chain(['\u{2026}']).collect();
    }
    let body = json!({
        "method": call.parts.method.as_str(),
        "target": target(call.parts),
        "version": format!("{:?}", call.parts.version),
        "headers": headers,
        "account": call.account,
        "body_length": call.body.len,
        "body_sha256": call.body.sha256,
        "has_trailers": call.body.has_trailers,
    });
    json(200, body)
}

fn trailers() -> Emulated {
    const NAME: HeaderName = HeaderName::from_static("x-checksum");
    let reply = feed("text/plain", |sender| async move {
        let fields = HeaderMap::from_iter([(NAME, HeaderValue::from_static("sandbox"))]);
        if send(&sender, "body\n").await {
            drop(sender.send(Ok(Frame::trailers(fields))).await);
        }
    });
    reply.with("trailer", NAME.as_str())
}
