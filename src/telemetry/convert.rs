//! Makes messages of OTLP from what was noted: names and attributes by the conventions for HTTP.
//!
//! No query string, no header value, no body and no token is in what was noted, but for the id of a
//! request, which the log has too.
//!
//! Source: <https://opentelemetry.io/docs/specs/semconv/http/http-spans/> v1.37.0 (read 2026-11-29).

use super::{
    otlp::{
        AttributeValue, AttributeValueKind, KeyValue, Link, Span, SpanKind, SpanStatus, StatusCode,
    },
    queue::Finished,
    refresh::FinishedRefresh,
    request::{AttemptTrace, FinishedRequest, RequestTrace},
};
use crate::{clock::Now, recent::RequestFacts, trace_context::SpanContext};
use http::Uri;
use std::time::Duration;

/// What the conventions call a method that is none of HTTP's.
const OTHER: &str = "_OTHER";
const METHODS: [&str; 9] =
    ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"];

/// The spans of what has ended.
pub(super) fn spans(finished: &Finished) -> Vec<Span> {
    match finished {
        Finished::Request(request) => request_spans(request),
        Finished::Refresh(refresh) => vec![refresh_span(refresh)],
    }
}

fn request_spans(request: &FinishedRequest) -> Vec<Span> {
    let (trace, facts) = (&request.trace, request.request.facts());
    let ended = facts.wall.saturating_add(facts.duration);
    let last = trace.attempts.len().saturating_sub(1);
    let attempts = trace.attempts.iter().enumerate().map(|(number, attempt)| {
        let ended = match attempt.response {
            Some((_, at)) if number < last => at.wall,
            _ => ended,
        };
        attempt_span(trace, &facts, number, (attempt, ended))
    });
    [server_span(trace, &facts, ended)].into_iter().chain(attempts).collect()
}

fn server_span(trace: &RequestTrace, facts: &RequestFacts<'_>, ended: Duration) -> Span {
    let mut attributes = Attributes::default();
    attributes.method(facts.method);
    attributes.text("url.path", facts.path);
    attributes.number("http.response.status_code", facts.status.into());
    attributes.number("http.request.body.size", facts.bytes_in);
    attributes.number("http.response.body.size", facts.bytes_out);
    attributes.optional("adsproxy.account", facts.account);
    attributes.optional("adsproxy.caller", facts.caller);
    attributes.optional("adsproxy.region", facts.region.map(|region| region.as_str()));
    attributes.text("adsproxy.request_id", facts.request_id);
    attributes.optional("aws.request_id", facts.amazon_request_id);
    attributes.number("adsproxy.replays", facts.replays.into());
    // By the conventions, a caller's mistake is no error of the server's.
    let is_error = facts.status >= 500;
    let status = facts.status.to_string();
    let error = facts.error.or(Some(status.as_str()).filter(|_| is_error));
    attributes.optional("error.type", error);
    Span {
        parent_span_id: trace.parent.map(|parent| parent.span_id.to_vec()).unwrap_or_default(),
        name: known(facts.method).unwrap_or("HTTP").to_owned(),
        attributes: attributes.0,
        status: failed(is_error),
        ..span(SpanKind::Server, trace.span, facts.wall, ended)
    }
}

fn attempt_span(
    trace: &RequestTrace,
    facts: &RequestFacts<'_>,
    number: usize,
    (attempt, ended): (&AttemptTrace, Duration),
) -> Span {
    let mut attributes = Attributes::default();
    attributes.method(facts.method);
    if let Some((host, path)) = &trace.upstream {
        attributes.text("url.full", &url(host, path));
        attributes.text("server.address", host.host().unwrap_or_default());
        attributes.number("server.port", port(host).into());
    }
    if number > 0 {
        attributes.number("http.request.resend_count", number as u64);
    }
    let error = match attempt.response {
        Some((status, _)) => {
            attributes.number("http.response.status_code", status.into());
            (status >= 400).then(|| status.to_string())
        }
        // Without our own error, the caller has left before the response.
        None => Some(facts.error.unwrap_or("cancelled").to_owned()),
    };
    attributes.optional("error.type", error.as_deref());
    attributes.optional("adsproxy.unauthorized", attempt.class.map(|class| class.as_str()));
    Span {
        parent_span_id: trace.span.span_id.to_vec(),
        name: known(facts.method).unwrap_or("HTTP").to_owned(),
        attributes: attributes.0,
        status: failed(error.is_some()),
        ..span(SpanKind::Client, trace.span.with(attempt.span_id, true), attempt.began.wall, ended)
    }
}

fn refresh_span(refresh: &FinishedRefresh) -> Span {
    let facts = &refresh.facts;
    let mut attributes = Attributes::default();
    attributes.text("adsproxy.account", &refresh.account);
    attributes.text("adsproxy.refresh.trigger", facts.trigger.as_str());
    attributes.text("adsproxy.refresh.outcome", facts.outcome.as_str());
    attributes.optional("error.type", facts.error);
    let link = |request: &SpanContext| Link {
        trace_id: request.trace_id.to_vec(),
        span_id: request.span_id.to_vec(),
        flags: request.flags(),
    };
    let Now { wall, .. } = facts.began;
    Span {
        name: "refresh token".to_owned(),
        attributes: attributes.0,
        links: refresh.requests.spans.iter().map(link).collect(),
        dropped_links_count: refresh.requests.more,
        status: failed(facts.error.is_some()),
        ..span(SpanKind::Internal, refresh.span, wall, wall.saturating_add(facts.took))
    }
}

fn span(kind: SpanKind, context: SpanContext, began: Duration, ended: Duration) -> Span {
    Span {
        trace_id: context.trace_id.to_vec(),
        span_id: context.span_id.to_vec(),
        flags: context.flags(),
        kind: kind.into(),
        start_time_unix_nano: nanos(began),
        // The clock may have been set back meanwhile.
        end_time_unix_nano: nanos(ended.max(began)),
        ..Span::default()
    }
}

fn failed(is_error: bool) -> Option<SpanStatus> {
    is_error.then(|| SpanStatus { code: StatusCode::Error.into() })
}

pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn known(method: &str) -> Option<&'static str> {
    METHODS.into_iter().find(|known| *known == method)
}

/// Without a query string.
fn url(host: &Uri, path: &str) -> String {
    let (scheme, authority) = (host.scheme_str().unwrap_or_default(), host.authority());
    format!("{scheme}://{}{path}", authority.map_or("", |it| it.as_str()))
}

fn port(host: &Uri) -> u16 {
    let default = if host.scheme_str() == Some("http") { 80 } else { 443 };
    host.port_u16().unwrap_or(default)
}

/// Attributes in the making.
#[derive(Default)]
pub(super) struct Attributes(pub(super) Vec<KeyValue>);

impl Attributes {
    pub(super) fn text(&mut self, key: &str, value: &str) {
        self.add(key, AttributeValueKind::String(value.to_owned()));
    }

    fn optional(&mut self, key: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(key, value);
        }
    }

    fn number(&mut self, key: &str, value: u64) {
        self.add(key, AttributeValueKind::Int(i64::try_from(value).unwrap_or(i64::MAX)));
    }

    fn method(&mut self, method: &str) {
        self.text("http.request.method", known(method).unwrap_or(OTHER));
    }

    fn add(&mut self, key: &str, value: AttributeValueKind) {
        let value = Some(AttributeValue { value: Some(value) });
        self.0.push(KeyValue { key: key.to_owned(), value });
    }
}
