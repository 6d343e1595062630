//! What goes back to the caller: Amazon's response as it came, or one of ours, marked as such.

use super::{
    error::{Error, METHODS},
    exchange::Exchange,
    exchange_body::ExchangeBody,
};
use crate::{
    inbound::request_id::REQUEST_ID,
    problem::{ERROR, PROXY_STATUS},
    provider::ads::Service,
};
use bytes::Bytes;
use http::{
    HeaderValue, Response, StatusCode, Version,
    header::{ALLOW, CONNECTION, WWW_AUTHENTICATE},
};

/// The code that marks a 401 of Amazon's which goes on as a 403.
const UNAUTHORIZED: &str = "upstream_unauthorized";

/// A 401 that is Amazon's final response. On `/mcp` it goes on as a marked 403 with its body, because
/// MCP clients begin a login at a 401 and never come back.
pub fn unauthorized(
    mut response: Response<ExchangeBody>,
    service: Service,
    exchange: &mut Exchange,
) -> Response<ExchangeBody> {
    if service == Service::Mcp {
        exchange.error = Some(UNAUTHORIZED);
        *response.status_mut() = StatusCode::FORBIDDEN;
        let headers = response.headers_mut();
        headers.remove(WWW_AUTHENTICATE);
        headers.insert(ERROR.clone(), HeaderValue::from_static(UNAUTHORIZED));
        let status = "adsproxy; error=http_request_denied; received-status=401";
        headers.insert(PROXY_STATUS.clone(), HeaderValue::from_static(status));
    }
    response
}

pub fn problem(error: &Error, request_id: &HeaderValue) -> Response<Bytes> {
    let mut response = error.problem().respond(request_id);
    match error {
        // Where the next request begins is uncertain.
        Error::AmbiguousFraming => {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Error::MethodRejected => {
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(METHODS));
        }
        _ => {}
    }
    response
}

/// Binds `response` to its exchange, which ends when the body does.
pub fn finish(
    mut response: Response<ExchangeBody>,
    mut exchange: Box<Exchange>,
) -> Response<ExchangeBody> {
    exchange.responded(&response);
    *response.version_mut() = Version::HTTP_11;
    response.headers_mut().insert(REQUEST_ID.clone(), exchange.request_id.clone());
    response.body_mut().exchange = Some(exchange);
    response
}
