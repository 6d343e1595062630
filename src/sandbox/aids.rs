//! Operations that Amazon does not have, for tests of what lies in between.
//!
//! `ANY /_echo` shows the request, `/_sink` only takes it, `/_bytes/{n}` returns n bytes,
//! `/_sse?events=&interval_ms=` an event stream, `/_slow?ms=&body_ms=` late, `/_trailers` with
//! trailers, `/_status/{code}` with that status.

use super::{
    ads::{Call, classic},
    record::{header_pairs, target},
    response::{Body, HandlerResult, feed, json, send_bytes, set, whole},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body::Frame;
use serde_json::json;
use std::time::Duration;
use tokio::time::sleep;

/// Responds with the test aid called `aid`.
pub(super) async fn respond(call: &Call<'_>, aid: &str, value: Option<&str>) -> HandlerResult {
    let number = value.and_then(|value| value.parse::<u64>().ok());
    Ok(match (aid, number) {
        ("_echo", _) => echo(call),
        ("_sink", _) => json(StatusCode::OK, &json!({ "length": call.body.len })),
        ("_bytes", Some(size)) => bytes(size),
        ("_status", Some(code)) => status(code),
        ("_sse", _) => {
            let count = call.query.number("events", 3);
            let texts = (1..=count).map(|n| format!("event {n} of {count}")).collect();
            events(texts, Duration::from_millis(call.query.number("interval_ms", 100)))
        }
        ("_slow", _) => {
            sleep(Duration::from_millis(call.query.number("ms", 1000))).await;
            slow_body(Duration::from_millis(call.query.number("body_ms", 0)))
        }
        ("_trailers", _) => trailers(),
        _ => classic(StatusCode::NOT_FOUND, "Not Found"),
    })
}

/// A stream of one event per text; the first at once, the others `interval` apart.
pub(super) fn events(texts: Vec<String>, interval: Duration) -> Response<Body> {
    let mut response = feed(StatusCode::OK, "text/event-stream", move |sender| async move {
        for (index, text) in texts.into_iter().enumerate() {
            if index > 0 {
                sleep(interval).await;
            }
            let event = Frame::data(Bytes::from(format!("event: message\ndata: {text}\n\n")));
            if sender.send(Ok(event)).await.is_err() {
                return;
            }
        }
    });
    set(&mut response, header::CACHE_CONTROL, "no-cache");
    response
}

fn echo(call: &Call<'_>) -> Response<Body> {
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
    json(StatusCode::OK, &body)
}

fn bytes(size: u64) -> Response<Body> {
    let mut response = feed(StatusCode::OK, "application/octet-stream", move |sender| async move {
        send_bytes(&sender, b'x', size).await;
    });
    set(&mut response, header::CONTENT_LENGTH, &size.to_string());
    response
}

fn slow_body(pause: Duration) -> Response<Body> {
    feed(StatusCode::OK, "text/plain", move |sender| async move {
        if sender.send(Ok(Frame::data(Bytes::from_static(b"slow")))).await.is_ok() {
            sleep(pause).await;
            // A reader that gave up has dropped the body: there is nothing left to send.
            drop(sender.send(Ok(Frame::data(Bytes::from_static(b"ly\n")))).await);
        }
    })
}

fn trailers() -> Response<Body> {
    const NAME: HeaderName = HeaderName::from_static("x-checksum");
    let mut response = feed(StatusCode::OK, "text/plain", |sender| async move {
        let fields = HeaderMap::from_iter([(NAME, HeaderValue::from_static("sandbox"))]);
        if sender.send(Ok(Frame::data(Bytes::from_static(b"body\n")))).await.is_ok() {
            drop(sender.send(Ok(Frame::trailers(fields))).await);
        }
    });
    set(&mut response, header::TRAILER, NAME.as_str());
    response
}

fn status(code: u64) -> Response<Body> {
    let status = u16::try_from(code).ok().and_then(|code| StatusCode::from_u16(code).ok());
    match status.filter(|status| !status.is_informational()) {
        Some(status) if status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED => {
            whole(status, "", Bytes::new())
        }
        Some(status) => json(status, &json!({ "status": status.as_u16() })),
        None => classic(StatusCode::BAD_REQUEST, "no such status"),
    }
}
