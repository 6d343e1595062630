//! The responses of the admin and health listeners, and their one problem document (RFC 9457).

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS},
};
use http_body_util::Full;
use serde::Serialize;
use serde_json::{Value, json};

pub(super) type Reply = Response<Full<Bytes>>;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const PROBLEM: &str = "application/problem+json";

/// A response that no cache keeps.
pub(super) fn respond(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Reply {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

pub(super) fn text(body: impl Into<Bytes>) -> Reply {
    respond(StatusCode::OK, TEXT, body)
}

/// What a type of this program says, as JSON.
pub(super) fn json_of(body: &impl Serialize) -> Reply {
    json(&serde_json::to_value(body).expect("it is plain JSON"))
}

pub(super) fn json(body: &Value) -> Reply {
    respond(StatusCode::OK, JSON, body.to_string())
}

/// A problem document; `more` has fields beyond the usual ones.
#[derive(Debug, Default)]
pub(super) struct Document<'a> {
    pub(super) status: StatusCode,
    pub(super) code: &'a str,
    /// The status' own name if empty.
    pub(super) title: &'a str,
    pub(super) detail: &'a str,
    pub(super) more: Option<Value>,
    pub(super) retry_after_secs: Option<u64>,
}

impl Document<'_> {
    /// The response; its request id is added by the listener, to body and header alike.
    pub(super) fn respond(self) -> Reply {
        let title = match self.title {
            "" => self.status.canonical_reason().unwrap_or_default(),
            title => title,
        };
        let mut body = self.more.unwrap_or_else(|| json!({}));
        for (name, value) in [
            ("type", Value::from("about:blank")),
            ("title", title.into()),
            ("status", self.status.as_u16().into()),
            ("code", self.code.into()),
            ("detail", self.detail.into()),
        ] {
            body[name] = value;
        }
        let mut response = respond(self.status, PROBLEM, body.to_string());
        response.extensions_mut().insert(Body(body));
        if let Some(seconds) = self.retry_after_secs {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        response
    }
}

/// The body of a problem document, which does not have the request's id yet.
#[derive(Debug, Clone)]
struct Body(Value);

/// Puts the id of the request into the header `name`, and into the body of a problem document.
pub(super) fn with_request_id(mut response: Reply, name: HeaderName, id: HeaderValue) -> Reply {
    if let Some(Body(mut body)) = response.extensions_mut().remove() {
        body["requestId"] = id.to_str().unwrap_or_default().into();
        *response.body_mut() = Full::new(body.to_string().into());
    }
    response.headers_mut().insert(name, id);
    response
}

/// A problem without any field of its own.
pub(super) fn problem(status: StatusCode, code: &str, detail: &str) -> Reply {
    Document { status, code, detail, ..Document::default() }.respond()
}
