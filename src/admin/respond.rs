//! The responses of the admin and health listeners that are no problem documents.

use crate::{
    login::LoginError,
    problem::{Code, Problem},
};
use bytes::Bytes;
use http::{
    HeaderValue, Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE},
};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use parking_lot::Mutex;
use serde::Serialize;
use std::{convert::Infallible, sync::Arc};

pub(super) type Reply = Response<Bytes>;
pub(super) type Handled = Result<Reply, LoginError>;
/// What goes out.
pub(super) type ReplyBody = UnsyncBoxBody<Bytes, Infallible>;

/// The body that a response has in the place of its own: one that goes on.
#[derive(Clone)]
struct Streamed(Arc<Mutex<Option<ReplyBody>>>);

/// A response whose body goes on.
#[cfg_attr(not(feature = "dashboard"), expect(dead_code, reason = "only pages are live"))]
pub(super) fn stream(content_type: &'static str, body: ReplyBody) -> Reply {
    let mut response = reply(StatusCode::OK, content_type, String::new());
    response.extensions_mut().insert(Streamed(Arc::new(Mutex::new(Some(body)))));
    response
}

/// The response as it goes out.
pub(super) fn sent(reply: Reply) -> Response<ReplyBody> {
    let (mut parts, whole) = reply.into_parts();
    let streamed = parts.extensions.remove::<Streamed>().and_then(|it| it.0.lock().take());
    Response::from_parts(parts, streamed.unwrap_or_else(|| Full::new(whole).boxed_unsync()))
}

pub(super) fn reply(status: StatusCode, content_type: &'static str, body: String) -> Reply {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

pub(super) fn text(status: StatusCode, body: impl Into<String>) -> Reply {
    reply(status, "text/plain; charset=utf-8", body.into())
}

pub(super) fn json(body: &impl Serialize) -> Reply {
    json_with(StatusCode::OK, body)
}

pub(super) fn json_with(status: StatusCode, body: &impl Serialize) -> Reply {
    let body = serde_json::to_string(body).expect("it is plain JSON");
    reply(status, "application/json", body)
}

/// All that the public listener says of what it does not serve.
pub(super) fn nothing(id: &HeaderValue) -> Reply {
    Problem { detail: "There is nothing at this path.", ..Code::NotFound.problem() }.respond(id)
}

/// Nothing is at the path, or other `methods` are.
pub(super) fn no_route(methods: &str, id: &HeaderValue) -> Reply {
    if methods.is_empty() {
        let detail = "There is nothing at this path. GET / lists the paths.";
        return Problem { detail, ..Code::NotFound.problem() }.respond(id);
    }
    let detail = format!("This path takes {methods}. GET / lists the paths.");
    let problem = Problem { detail: &detail, ..Code::MethodNotAllowed.problem() };
    let mut response = problem.respond(id);
    if let Ok(methods) = HeaderValue::try_from(methods) {
        response.headers_mut().insert(ALLOW, methods);
    }
    response
}
