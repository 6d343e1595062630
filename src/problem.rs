//! Responses of our own, on every listener: one problem document (RFC 9457), in Amazon's shape too,
//! and the one table of codes.
//!
//! Public texts are fixed per code: what went wrong inside goes to the log only. Never a 401 on the
//! data plane: SDKs refresh and loop on it.

use crate::inbound::request_id::REQUEST_ID;
use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER},
};
use serde_json::{Value, json};

/// The field that marks a response of our own; its value is the code.
pub static ERROR: HeaderName = HeaderName::from_static("x-ads-proxy-error");
/// RFC 9209.
pub static PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// Whose fault an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorOrigin {
    Caller,
    Proxy,
    /// Login with Amazon's, or the grant's.
    Lwa,
    /// The Ads API's, or the way to it.
    Upstream,
}

/// One row of the table of codes.
#[derive(Debug)]
pub struct Row {
    pub code: &'static str,
    pub status: StatusCode,
    pub origin: ErrorOrigin,
    /// RFC 9209 section 2.3.
    pub proxy_status: &'static str,
    pub text: &'static str,
}

macro_rules! table {
    ($($code:ident $name:literal $status:ident $origin:ident $proxy_status:literal $text:literal;)*) => {
        /// A stable code; [`TABLE`] says what it means.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Code { $($code),* }

        /// The whole table, in the order of [`Code`].
        pub static TABLE: &[Row] = &[$(Row {
            code: $name,
            status: StatusCode::$status,
            origin: ErrorOrigin::$origin,
            proxy_status: $proxy_status,
            text: $text,
        }),*];
    };
}

table! {
    AccountRequired "account_required" BAD_REQUEST Caller "http_request_error"
        "The request names no account. Send the header X-Ads-Account: <alias>, or the placeholder \
         token Authorization: Bearer Atza|<alias>, which every client can send. A base URL that \
         ends in /a/<alias> works unless the client drops its path, as some do for paths that \
         begin with a slash.";
    AccountConflict "account_conflict" BAD_REQUEST Caller "http_request_error"
        "The request names two different accounts.";
    BadRequest "bad_request" BAD_REQUEST Caller "http_request_error"
        "The request is malformed.";
    CallerRejected "caller_rejected" FORBIDDEN Caller "http_request_denied"
        "The Host or Origin of this request is not accepted (guard.allowed_hosts, \
         guard.allowed_origins).";
    NotFound "not_found" NOT_FOUND Proxy "http_request_denied"
        "adsproxy serves no OAuth endpoint here: it authenticates to Amazon by itself, and needs no \
         login or client registration.";
    UnknownAccount "unknown_account" NOT_FOUND Caller "http_request_denied"
        "There is no such account, or it is not yours to use. See: adsproxy account list.";
    ReauthorizationRequired "reauthorization_required" FORBIDDEN Lwa "http_request_denied"
        "The advertiser's consent is missing, revoked or expired. Connect the account again: run \
         adsproxy login <alias>, or set a new accounts.<alias>.refresh_token and restart.";
    ApplicationRejected "application_rejected" BAD_GATEWAY Lwa "proxy_configuration_error"
        "Login with Amazon rejects the client id or client secret. Check [lwa] in the configuration.";
    TokenUnavailable "token_unavailable" SERVICE_UNAVAILABLE Lwa "proxy_internal_error"
        "There is no valid access token and Login with Amazon cannot be reached. Try again later.";
    Overloaded "overloaded" SERVICE_UNAVAILABLE Proxy "http_request_denied"
        "A limit of the proxy is hit. Try again later.";
    Draining "draining" SERVICE_UNAVAILABLE Proxy "http_request_denied"
        "The proxy is shutting down. Try again.";
    UpstreamUnreachable "upstream_unreachable" BAD_GATEWAY Upstream "connection_terminated"
        "The Amazon Ads API could not be reached, or broke off before it responded.";
    UpstreamTimeout "upstream_timeout" GATEWAY_TIMEOUT Upstream "http_response_timeout"
        "The Amazon Ads API did not respond in time.";
    BodyTooLarge "body_too_large" PAYLOAD_TOO_LARGE Caller "http_request_error"
        "The request body is larger than allowed (limits.body_max_bytes).";
    HeadersTooLarge "headers_too_large" REQUEST_HEADER_FIELDS_TOO_LARGE Caller "http_request_error"
        "The request header is larger than allowed (limits.header_max_bytes, limits.headers_max).";
}

impl Code {
    pub fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    /// The document with the usual status and text.
    pub fn problem(self) -> Problem<'static> {
        let Row { status, code, text, .. } = *self.row();
        Problem { status, code, detail: text, ..Problem::default() }
    }
}

/// What a response of our own says.
#[derive(Clone, Debug, Default)]
pub struct Problem<'a> {
    pub status: StatusCode,
    /// The stable code, which need not be in [`TABLE`].
    pub code: &'a str,
    /// A title; empty: the status' own name.
    pub title: &'a str,
    /// What happened and what to do. No secret is in it.
    pub detail: &'a str,
    /// When to try again; sent as one second at least.
    pub retry_after_secs: Option<u64>,
    /// Fields beyond the usual ones: a JSON object.
    pub more: Option<Value>,
}

impl Problem<'_> {
    /// The whole response, marked as ours.
    pub fn respond(mut self, request_id: &HeaderValue) -> Response<Bytes> {
        let title = match self.title {
            "" => self.status.canonical_reason().unwrap_or_default(),
            title => title,
        };
        let id = request_id.to_str().unwrap_or_default();
        let mut body = json!({
            "type": "about:blank",
            "title": title,
            "status": self.status.as_u16(),
            "detail": self.detail,
            "code": self.code,
            "details": self.detail,
            "message": self.detail,
            "requestId": id,
            "request_id": id,
        });
        if let (Some(body), Some(Value::Object(mut more))) =
            (body.as_object_mut(), self.more.take())
        {
            body.append(&mut more);
        }
        let mut response = Response::new(Bytes::from(body.to_string()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(REQUEST_ID.clone(), request_id.clone());
        if let Ok(code) = HeaderValue::from_str(self.code) {
            headers.insert(ERROR.clone(), code);
        }
        let proxy_status = format!("adsproxy; error={}", self.proxy_status());
        if let Ok(proxy_status) = HeaderValue::try_from(proxy_status) {
            headers.insert(PROXY_STATUS.clone(), proxy_status);
        }
        if let Some(seconds) = self.retry_after_secs {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        response
    }

    fn proxy_status(&self) -> &'static str {
        match TABLE.iter().find(|row| row.code == self.code) {
            Some(row) => row.proxy_status,
            None if self.status.is_server_error() => "proxy_internal_error",
            None => "http_request_error",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_and_its_row_are_found_by_each_other_and_none_is_a_401() {
        for (at, row) in TABLE.iter().enumerate() {
            let twins = TABLE.iter().filter(|other| other.code == row.code);
            assert!(twins.count() == 1 && row.status != StatusCode::UNAUTHORIZED, "{at}");
        }
        assert_eq!(Code::HeadersTooLarge as usize + 1, TABLE.len());
        assert_eq!(Code::HeadersTooLarge.row().code, "headers_too_large");
    }

    #[test]
    fn a_response_says_in_every_way_that_it_is_ours() {
        let id = HeaderValue::from_static("id-1");
        let more = Some(json!({ "advice": "wait" }));
        let problem = Problem { retry_after_secs: Some(0), more, ..Code::Draining.problem() };
        let response = problem.respond(&id);
        let field = |name: &str| response.headers()[name].to_str().expect("ASCII");
        assert_eq!(response.status(), 503);
        assert_eq!(
            ["x-ads-proxy-error", "proxy-status", "retry-after", "x-ads-proxy-request-id"]
                .map(field),
            ["draining", "adsproxy; error=http_request_denied", "1", "id-1"]
        );
        let body: Value = serde_json::from_slice(response.body()).expect("a document");
        assert_eq!(
            [&body["code"], &body["requestId"], &body["advice"]],
            ["draining", "id-1", "wait"]
        );
    }
}
