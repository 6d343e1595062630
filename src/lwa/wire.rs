//! LWA's request and response bodies.

use super::Error;
use crate::secret::Secret;
use http::StatusCode;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::Value;
use std::time::Duration;
use zeroize::Zeroizing;

/// What LWA's tokens live when its response does not say, or says nonsense.
const USUAL_LIFETIME: Duration = Duration::from_secs(3600);
/// Nothing LWA says makes a token live longer than this.
const LIFETIME_MAX: Duration = Duration::from_secs(86_400);

/// What a successful response grants.
#[derive(Debug)]
pub struct GrantedToken {
    pub access_token: Secret,
    /// The refresh token to use from now on; `None` where the response had none or an empty one.
    pub refresh_token: Option<Secret>,
    /// How long the access token lives: 1 s to a day.
    pub expires_in: Duration,
    /// What was consented to, where the response says.
    pub scope: Option<String>,
}

/// A response, read whole.
pub(super) struct RawResponse {
    pub(super) status: StatusCode,
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Zeroizing<Vec<u8>>,
}

#[derive(Deserialize)]
struct TokenResponse {
    access_token: Option<String>,
    refresh_token: Option<String>,
    expires_in: Option<Value>,
    scope: Option<String>,
}

#[derive(Deserialize)]
struct ErrorResponse {
    error: String,
    #[serde(default)]
    error_description: String,
}

/// A form with the pairs `own` and the client's. `|` in tokens is percent-encoded.
pub(super) fn form(own: &[(&str, &str)], client_id: &str, secret: &Secret) -> Secret {
    let client = [("client_id", client_id), ("client_secret", secret.expose())];
    // Room for all of it at once: a text that grows leaves copies behind.
    let mut form = String::with_capacity(32 * 1024);
    for (name, value) in own.iter().chain(&client) {
        if !form.is_empty() {
            form.push('&');
        }
        form.push_str(name);
        form.push('=');
        percent_encode(value, &mut form);
    }
    Secret::new(form)
}

/// Everything but RFC 3986's unreserved characters.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Appends `text` to `out`, everything but unreserved characters percent-encoded.
pub fn percent_encode(text: &str, out: &mut String) {
    out.extend(utf8_percent_encode(text, ESCAPED));
}

/// Reads the response to a refresh.
pub(super) fn granted(response: &RawResponse) -> Result<GrantedToken, Error> {
    match response.status {
        StatusCode::OK => parse(&response.body).map_err(Error::BadResponse),
        _ => Err(rejection(response)),
    }
}

/// Reads the response to a code, whose description of an error says which parameter is wrong;
/// nothing of it goes further than here.
pub(super) fn granted_for_code(response: &RawResponse) -> Result<GrantedToken, Error> {
    if response.status.is_client_error()
        && let Ok(said) = serde_json::from_slice::<ErrorResponse>(&response.body)
    {
        let is_about = |what: &str| said.error_description.contains(what);
        match said.error.as_str() {
            "invalid_grant" | "invalid_request" if is_about("redirect_uri") => {
                return Err(Error::RedirectMismatch);
            }
            "invalid_request" if is_about("invalid parameter : code") => {
                return Err(Error::CodeExpired);
            }
            _ => {}
        }
    }
    granted(response)
}

pub(super) fn revoked(response: &RawResponse) -> Result<(), Error> {
    match response.status {
        StatusCode::OK => Ok(()),
        _ => Err(rejection(response)),
    }
}

fn rejection(response: &RawResponse) -> Error {
    const KNOWN: [&str; 9] = [
        "invalid_grant",
        "invalid_client",
        "unauthorized_client",
        "invalid_request",
        "invalid_scope",
        "unsupported_grant_type",
        "access_denied",
        "ServerError",
        "server_error",
    ];
    let (status, retry_after) = (response.status.as_u16(), response.retry_after);
    let refused = |code| Error::Refused { status, code, retry_after };
    let Ok(said) = serde_json::from_slice::<ErrorResponse>(&response.body) else {
        // A gateway in front of LWA responds with pages of its own when LWA is down.
        let error = refused("unknown");
        return if error.is_transient() { error } else { Error::NotLwa { status } };
    };
    match KNOWN.into_iter().find(|known| *known == said.error).unwrap_or("unknown") {
        "invalid_grant" if response.status.is_client_error() => Error::InvalidGrant,
        "invalid_client" if response.status.is_client_error() => Error::InvalidClient,
        "unauthorized_client" if response.status.is_client_error() => Error::UnauthorizedClient,
        code => refused(code),
    }
}

fn parse(body: &[u8]) -> Result<GrantedToken, &'static str> {
    // The parser's message could quote the response, so it is dropped.
    let said: TokenResponse = serde_json::from_slice(body).map_err(|_| "it is not JSON")?;
    let access_token = said.access_token.ok_or("it holds no access token")?;
    if !is_token(&access_token) {
        return Err("its access token is not one");
    }
    let refresh_token = said.refresh_token.filter(|token| !token.is_empty());
    if refresh_token.as_deref().is_some_and(|token| !is_token(token)) {
        return Err("its refresh token is not one");
    }
    Ok(GrantedToken {
        access_token: Secret::new(access_token),
        refresh_token: refresh_token.map(Secret::new),
        expires_in: lifetime(said.expires_in.as_ref()),
        scope: said.scope,
    })
}

/// Visible ASCII only: anything else could break out of a header line.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.len() <= 8192 && text.bytes().all(|b| b.is_ascii_graphic())
}

/// Reads `expires_in` however it is spelled. What cannot be a lifetime counts as the usual one:
/// a token believed too long costs one 401, a token believed dead costs a refresh per request.
fn lifetime(value: Option<&Value>) -> Duration {
    let seconds = match value {
        Some(Value::Number(number)) => number.as_f64(),
        Some(Value::String(text)) => text.trim().parse().ok(),
        _ => None,
    };
    match seconds {
        Some(seconds) if seconds >= 1.0 => {
            Duration::from_secs_f64(seconds.min(LIFETIME_MAX.as_secs_f64()))
        }
        _ => USUAL_LIFETIME,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(expires_in: &str) -> f64 {
        let answer = format!(r#"{{"access_token":"Atza|x","expires_in":{expires_in}}}"#);
        parse(answer.as_bytes()).expect("a grant").expires_in.as_secs_f64()
    }

    #[test]
    fn odd_lifetimes_neither_overflow_nor_loop() {
        for (text, expected) in [
            ("3600", 3600.0),
            ("\"3600\"", 3600.0),
            ("3600.5", 3600.5),
            ("1", 1.0),
            ("0", 3600.0),
            ("-5", 3600.0),
            ("1000000000000000000", 86_400.0),
            ("1e300", 86_400.0),
            ("\"soon\"", 3600.0),
            ("\"NaN\"", 3600.0),
            ("null", 3600.0),
            ("[]", 3600.0),
        ] {
            assert!((seconds(text) - expected).abs() < 0.001, "{text}");
        }
    }

    #[test]
    fn an_absent_or_empty_refresh_token_is_none() {
        for text in ["", r#","refresh_token":"""#, r#","refresh_token":null"#] {
            let answer = format!(r#"{{"access_token":"Atza|x"{text}}}"#);
            assert!(parse(answer.as_bytes()).expect("a grant").refresh_token.is_none());
        }
    }

    #[test]
    fn refuses_tokens_that_could_break_a_header_line() {
        for token in ["a\\r\\nEvil: 1", "", "a b", "a\\u0000", "ü"] {
            let answer = format!(r#"{{"access_token":"{token}"}}"#);
            assert!(parse(answer.as_bytes()).is_err(), "{token}");
        }
        for answer in ["", "<html>", "{}", "[]", r#"{"access_token":1}"#] {
            assert!(parse(answer.as_bytes()).is_err(), "{answer}");
        }
    }

    fn response(status: u16, body: &str) -> RawResponse {
        let status = StatusCode::from_u16(status).expect("a status");
        RawResponse { status, retry_after: None, body: Zeroizing::new(body.into()) }
    }

    #[test]
    fn only_the_documented_pairs_of_status_and_code_are_final() {
        let body =
            |code: &str| format!(r#"{{"error":"{code}","error_description":"Atzr|CANARY"}}"#);
        let outcome =
            |status: u16, text: &str| granted(&response(status, text)).expect_err("no success");
        assert!(matches!(outcome(400, &body("invalid_grant")), Error::InvalidGrant));
        assert!(matches!(outcome(401, &body("invalid_client")), Error::InvalidClient));
        for (status, text) in [
            (500, body("invalid_grant")),
            (500, body("ServerError")),
            (429, String::new()),
            (503, "<html>".into()),
        ] {
            let error = outcome(status, &text);
            assert!(error.is_transient(), "{status}");
            assert!(!format!("{error} {error:?}").contains("CANARY"));
        }
        for (status, code) in [(400, "unsupported_grant_type"), (403, "anything_new")] {
            let error = outcome(status, &body(code));
            assert!(matches!(error, Error::Refused { .. }) && !error.is_transient(), "{error}");
        }
        for (status, text) in [(307, ""), (403, "<html>Atzr|CANARY"), (404, "{}")] {
            assert!(matches!(outcome(status, text), Error::NotLwa { .. }), "{status}");
        }
        let error = outcome(400, &body("unauthorized_client"));
        assert!(matches!(error, Error::UnauthorizedClient), "it is not invalid_client");
    }

    #[test]
    fn a_refused_code_tells_why_and_a_refresh_is_read_as_ever() {
        for (error, text, expected) in [
            ("unauthorized_client", "", None),
            ("invalid_request", "an invalid parameter : code", Some("the code has expired")),
            ("invalid_grant", "redirect_uri", Some("the return address differs")),
            ("invalid_grant", "an invalid grant parameter : code", None),
            ("invalid_request", "missing a required parameter : code", None),
            ("invalid_client", "", None),
        ] {
            let body = format!(r#"{{"error":"{error}","error_description":"CANARY {text}"}}"#);
            let response = response(400, &body);
            let of_refresh = granted(&response).expect_err("refused").to_string();
            assert!(of_refresh.contains(error), "{of_refresh}");
            let of_code = granted_for_code(&response).expect_err("refused").to_string();
            assert_eq!(of_code, expected.unwrap_or(&of_refresh), "{error} {text}");
        }
    }

    #[test]
    fn the_form_encodes_everything_but_unreserved_characters() {
        let own = [("grant_type", "refresh_token"), ("refresh_token", "Atzr|a")];
        let asked = form(&own, "id", &"s&=+ ü".into());
        let expected = "grant_type=refresh_token&refresh_token=Atzr%7Ca&client_id=id\
                        &client_secret=s%26%3D%2B%20%C3%BC";
        assert_eq!(asked.expose(), expected);
    }
}
