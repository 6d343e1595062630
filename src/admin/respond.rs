//! The responses of the admin and health listeners that are no problem documents.

use crate::login::LoginError;
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header::CONTENT_TYPE};
use serde::Serialize;

pub(super) type Reply = Response<Bytes>;
pub(super) type Handled = Result<Reply, LoginError>;

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
