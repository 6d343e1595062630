//! Responses of our own, on every listener: one problem document (RFC 9457), in Amazon's shape too,
//! and the one table of codes.
//!
//! Public texts are fixed per code: what went wrong inside goes to the log only, and no text holds a
//! secret or what Amazon sent. Never a 401 on the data plane: SDKs refresh and loop on it.

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
    /// What happened: whole sentences on the data plane, else a clause as of an error.
    pub text: &'static str,
    /// The title of the page that a browser gets; empty where there is none.
    pub title: &'static str,
    /// What a person does now; empty where there is no page.
    pub advice: &'static str,
}

/// Defines `Code` and its rows: name, code, status, origin, proxy status; text; title and advice.
macro_rules! table {
    ($($code:ident $name:literal $status:ident $origin:ident $proxy_status:literal $text:literal
       $(page $title:literal $advice:literal)?;)*) => {
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
            title: concat!($($title)?),
            advice: concat!($($advice)?),
        }),*];
    };
}

table! {
    AccountRequired "account_required" BAD_REQUEST Caller "http_request_error"
        "The request names no account. Send the header X-Ads-Account: <alias>, or the placeholder \
         token Authorization: Bearer Atza|<alias>, which every client can send. A base URL that \
         ends in /a/<alias> works unless the client drops its path, as some do for paths that \
         begin with a slash."
        page "Which account?" "Name an account, for example ?account=acme.";
    AccountConflict "account_conflict" BAD_REQUEST Caller "http_request_error"
        "The request names two different accounts.";
    BadRequest "bad_request" BAD_REQUEST Caller "http_request_error"
        "The request is malformed."
        page "Not understood" "Correct the request and try again.";
    CallerRejected "caller_rejected" FORBIDDEN Caller "http_request_denied"
        "The Host or Origin of this request is not accepted (guard.allowed_hosts, \
         guard.allowed_origins).";
    NotFound "not_found" NOT_FOUND Proxy "http_request_denied"
        "adsproxy serves no OAuth endpoint and no page here: it authenticates to Amazon by itself, and \
         needs no login or client registration.";
    UnknownAccount "unknown_account" NOT_FOUND Caller "http_request_denied"
        "There is no such account, or it is not yours to use. See: adsproxy account list."
        page "No such account" "Compare with `adsproxy account list`.";
    ReauthorizationRequired "reauthorization_required" FORBIDDEN Lwa "http_request_denied"
        "The advertiser's consent is missing, revoked or expired. Connect the account again: run \
         adsproxy login <alias>, or set a new accounts.<alias>.refresh_token.";
    ApplicationRejected "application_rejected" BAD_GATEWAY Lwa "proxy_configuration_error"
        "Login with Amazon rejects the client id or client secret. Check [lwa] in the configuration."
        page "Wrong client id or secret" "Check lwa.client_id and lwa.client_secret \
         against the security profile.";
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
    UpstreamThrottled "upstream_throttled" TOO_MANY_REQUESTS Proxy "http_request_denied"
        "Amazon throttles calls of this kind for this profile at the moment, and this one would \
         only be throttled too (throttling.enforce). Try again after Retry-After.";
    HeadersTooLarge "headers_too_large" REQUEST_HEADER_FIELDS_TOO_LARGE Caller "http_request_error"
        "The request header is larger than allowed (limits.header_max_bytes, limits.headers_max).";
    // From here on of the admin listener alone: on the data plane SDKs would refresh and loop.
    AuthenticationRequired "authentication_required" UNAUTHORIZED Caller "http_request_denied"
        "This request needs a credential that is accepted here: a key of an operator, or of a \
         caller of the account's tenant, as X-Ads-Key or Authorization: Bearer.";
    MethodNotAllowed "method_not_allowed" METHOD_NOT_ALLOWED Caller "http_request_error"
        "This path takes other methods. GET / lists the paths.";
    TooManyRequests "too_many_requests" TOO_MANY_REQUESTS Caller "http_request_error"
        "Too many changes, or links that do not work, came from there. Try again later, or use the \
         commands of adsproxy, which have no such limit.";
    ConfigurationRejected "configuration_rejected" UNPROCESSABLE_ENTITY Proxy
        "proxy_configuration_error"
        "The configuration cannot be read again, and the old one stays in force.";
    // Why a login cannot go on.
    StateMissing "state_missing" BAD_REQUEST Caller "http_request_error"
        "the response has no state, so it belongs to no login"
        page "Not a login of ours" "Begin the login again, and follow the link it gives to the \
         end.";
    ParameterDoubled "parameter_doubled" BAD_REQUEST Caller "http_request_error"
        "the response has a parameter more than once"
        page "Not a login of ours" "Begin the login again; if this comes back, something between \
         Amazon and here changes addresses.";
    StateUnknown "state_unknown" BAD_REQUEST Caller "http_request_error"
        "this response belongs to no login under way: it was used already, is too old, or was \
         never asked for"
        page "This login is over" "Begin the login again. A login ends with its first response; \
         loading its last page again does not repeat it.";
    StateExpired "state_expired" BAD_REQUEST Caller "http_request_error"
        "this login took longer than it may"
        page "This took too long" "Begin the login again, and finish it within login.timeout_secs \
         (ten minutes by default).";
    OtherBrowser "other_browser" FORBIDDEN Caller "http_request_error"
        "this login was begun in another browser, or this one did not keep its cookie"
        page "Another browser" "Finish the login in the browser it was begun in, and let that \
         browser keep cookies for this address. If you did not begin this login, close this page: \
         another person wanted you to connect their account.";
    ConfigurationChanged "configuration_changed" CONFLICT Proxy "http_request_error"
        "the configuration of the application was changed since this login was begun"
        page "Begin again" "Begin the login again.";
    LinkUsed "link_used" GONE Caller "http_request_error"
        "this link was used already, or is too old"
        page "This link is over" "Ask for a new link, or begin a login: `adsproxy login`.";
    AccessDenied "access_denied" FORBIDDEN Caller "http_request_error"
        "access was denied on Amazon's page"
        page "Access was denied" "Nothing was changed. To connect the account, begin again and \
         allow access.";
    RedirectUriMismatch "redirect_uri_mismatch" BAD_REQUEST Lwa "http_request_error"
        "amazon does not know the return address"
        page "Wrong return address" "Add exactly this address, letter for letter, to the Allowed \
         Return URLs of the security profile in Amazon's developer console, or set \
         lwa.redirect_uri to one that is there.";
    RedirectPortTaken "redirect_port_taken" SERVICE_UNAVAILABLE Proxy "proxy_internal_error"
        "another program listens at the return address and may get Amazon's response"
        page "The return address is not safe" "Stop that program, or name an address instead of \
         localhost in lwa.redirect_uri: http://127.0.0.1 and the same port and path, which the \
         security profile must list too.";
    ScopeUnknown "scope_unknown" BAD_REQUEST Lwa "http_request_error"
        "amazon does not know the scope for this application"
        page "Unknown scope" "Check lwa.scopes. Amazon also says this of an application that is \
         not yet approved for the Ads API.";
    ScopeMissing "scope_missing" FORBIDDEN Caller "http_request_error"
        "the consent does not cover every scope"
        page "Not enough was allowed" "Nothing was changed. Begin again and allow all that is \
         asked for.";
    NotApproved "application_not_approved" FORBIDDEN Lwa "http_request_error"
        "amazon has not approved this application for the Ads API"
        page "Application not approved" "Apply for access to the Ads API at \
         https://advertising.amazon.com/API/docs, with this security profile; approval takes some \
         days.";
    NothingCameBack "code_missing" BAD_REQUEST Caller "http_request_error"
        "the response has neither a code nor an error"
        page "Nothing came back" "Begin the login again.";
    TooLate "code_late" BAD_REQUEST Caller "http_request_error"
        "the code has expired: amazon's codes live five minutes"
        page "Too late" "Begin the login again, and finish it without a pause.";
    UsedAlready "code_reused" BAD_REQUEST Caller "http_request_error"
        "the code was used already, or was made for another login"
        page "Used already" "Begin the login again: a code works once.";
    AmazonFailed "amazon_failed" BAD_GATEWAY Lwa "proxy_internal_error"
        "amazon could not finish the consent"
        page "Amazon had a problem" "Begin again in a minute.";
    LwaTimeout "lwa_timeout" GATEWAY_TIMEOUT Lwa "proxy_internal_error"
        "login with amazon did not respond in time"
        page "Amazon does not respond" "Nothing was changed. Begin again in a minute.";
    LwaUnavailable "lwa_unavailable" BAD_GATEWAY Lwa "proxy_internal_error"
        "login with amazon cannot be reached, or fails"
        page "Amazon cannot be reached" "Nothing was changed. Begin again in a minute; `adsproxy \
         status` shows whether refreshes fail, too.";
    LwaInvalidResponse "lwa_answer" BAD_GATEWAY Lwa "proxy_internal_error"
        "login with amazon sent a response that is no grant"
        page "Not a response of Amazon's" "Check lwa.token_url, and whether a proxy on the way \
         responds in Amazon's place.";
    TooManyLogins "too_many_logins" SERVICE_UNAVAILABLE Proxy "proxy_internal_error"
        "there are as many logins under way as there may be (login.pending_max)"
        page "Too many logins" "Try again in a few minutes.";
    TooManyAccounts "too_many_accounts" FORBIDDEN Caller "http_request_denied"
        "there are as many accounts as one tenant may connect (tenants.accounts_max)"
        page "Too many accounts" "Nothing was changed. Disconnect another account first, or ask \
         the operator for more.";
    QuestionGone "question_gone" BAD_REQUEST Caller "http_request_error"
        "this question was answered already, or waited too long for its answer"
        page "This question is over" "`adsproxy account show` shows the state of the account.";
    AccountChanged "account_changed" CONFLICT Caller "http_request_error"
        "the account was connected by another login in the meantime"
        page "Changed meanwhile" "Nothing was changed. Check with `adsproxy account show` whether \
         the account is as it should be; if not, begin again.";
    StoreSealed "store_sealed" SERVICE_UNAVAILABLE Proxy "proxy_internal_error"
        "the account's record cannot be decrypted"
        page "The account is sealed" "Put the key of its record back into encryption.keys and \
         restart, or give the account up with `adsproxy logout`; then begin again.";
    StoreFailed "store_failed" SERVICE_UNAVAILABLE Proxy "proxy_internal_error"
        "the store does not work; the log says why"
        page "The store does not work" "What was there before is still in place. Fix the store, \
         then begin again.";
    NotSaved "store_failed" SERVICE_UNAVAILABLE Proxy "proxy_internal_error"
        "the store cannot keep the new grant; the log says why"
        page "The store does not work" "What was there before is still in place. Fix the store, \
         then begin again.";
    AuditFailed "audit_failed" SERVICE_UNAVAILABLE Proxy "proxy_internal_error"
        "the audit log cannot be written, and no change is made without an entry"
        page "The audit log does not work" "What was there before is still in place. Fix the \
         audit log (the server's own log says what is wrong), then begin again.";
    Internal "internal" INTERNAL_SERVER_ERROR Proxy "proxy_internal_error"
        "the program cannot go on"
        page "Something broke" "Begin the login again.";
}

impl Code {
    pub fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    /// The document with the usual status and text.
    pub fn problem(self) -> Problem<'static> {
        let Row { status, text, .. } = *self.row();
        Problem { status, code: self, title: "", detail: text, retry_after_secs: None, more: None }
    }
}

/// What a response of our own says.
#[derive(Clone, Debug)]
pub struct Problem<'a> {
    pub status: StatusCode,
    pub code: Code,
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
        let Row { code, proxy_status, .. } = *self.code.row();
        let id = request_id.to_str().unwrap_or_default();
        let mut body = json!({
            "type": "about:blank",
            "title": title,
            "status": self.status.as_u16(),
            "detail": self.detail,
            "code": code,
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
        headers.insert(ERROR.clone(), HeaderValue::from_static(code));
        let proxy_status = format!("adsproxy; error={proxy_status}");
        if let Ok(proxy_status) = HeaderValue::try_from(proxy_status) {
            headers.insert(PROXY_STATUS.clone(), proxy_status);
        }
        if let Some(seconds) = self.retry_after_secs {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_and_its_row_are_found_by_each_other_and_one_is_a_401() {
        for (at, row) in TABLE.iter().enumerate() {
            let twins = TABLE.iter().filter(|other| other.code == row.code);
            // A store that fails, and one that keeps no new grant, are one to a program.
            let expected = if row.code == "store_failed" { 2 } else { 1 };
            assert_eq!(twins.count(), expected, "{at}");
            let is_401 = row.status == StatusCode::UNAUTHORIZED;
            assert_eq!(is_401, row.code == "authentication_required", "{at}");
            assert_eq!(row.title.is_empty(), row.advice.is_empty(), "{at}");
        }
        assert_eq!(Code::Internal as usize + 1, TABLE.len());
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
