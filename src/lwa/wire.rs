//! LWA's request and response bodies.

use super::Error;
use crate::secret::Secret;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::Value;
use std::{fmt, time::Duration};

/// What LWA's tokens live when its answer does not say, or says nonsense.
const USUAL_LIFETIME: Duration = Duration::from_secs(3600);
/// Nothing LWA says makes a token live longer than this.
const LIFETIME_MAX: Duration = Duration::from_secs(86_400);

/// A successful answer.
pub struct Granted {
    /// The new access token.
    pub access_token: Secret,
    /// The refresh token to use from now on; `None` where the answer had none or an empty one.
    pub refresh_token: Option<Secret>,
    /// How long the access token lives: 1 s to a day.
    pub expires_in: Duration,
    /// What was consented to, where the answer tells.
    pub scope: Option<String>,
}

impl fmt::Debug for Granted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Granted").field("expires_in", &self.expires_in).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Answer {
    access_token: Option<String>,
    refresh_token: Option<String>,
    expires_in: Option<Value>,
    scope: Option<String>,
}

/// What a token is asked for with.
pub(super) enum Grant<'a> {
    /// A refresh token.
    Refresh(&'a Secret),
    /// The code of a consent.
    Code { code: &'a Secret, verifier: &'a Secret, redirect_uri: &'a str },
}

/// The form of a token request. `|` in the tokens is percent-encoded.
pub(super) fn form(client_id: &str, secret: &Secret, grant: &Grant<'_>) -> Secret {
    let client = [("client_id", client_id), ("client_secret", secret.expose())];
    match grant {
        Grant::Refresh(token) => {
            let own = [("grant_type", "refresh_token"), ("refresh_token", token.expose())];
            encode(own.into_iter().chain(client))
        }
        Grant::Code { code, verifier, redirect_uri } => {
            let own = [
                ("grant_type", "authorization_code"),
                ("code", code.expose()),
                ("redirect_uri", redirect_uri),
                ("code_verifier", verifier.expose()),
            ];
            encode(own.into_iter().chain(client))
        }
    }
}

/// The form of a revocation (RFC 7009).
pub(super) fn revocation_form(client_id: &str, secret: &Secret, token: &Secret) -> Secret {
    let own = [("token", token.expose()), ("token_type_hint", "refresh_token")];
    let client = [("client_id", client_id), ("client_secret", secret.expose())];
    encode(own.into_iter().chain(client))
}

fn encode<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Secret {
    // Room for all of it at once: a text that grows leaves copies behind.
    let mut form = String::with_capacity(32 * 1024);
    for (name, value) in pairs {
        if !form.is_empty() {
            form.push('&');
        }
        form.push_str(name);
        form.push('=');
        percent_encode(value, &mut form);
    }
    Secret::new(form)
}

/// Why LWA does not take a code, where its answer says more than a refresh's would.
///
/// Its description tells which parameter is wrong; nothing of it goes further than here.
pub(super) fn code_error(grant: &Grant<'_>, answer: &[u8]) -> Option<Error> {
    #[derive(Deserialize)]
    struct Failed {
        error: String,
        #[serde(default)]
        error_description: String,
    }
    let Grant::Code { .. } = grant else { return None };
    let Failed { error, error_description } = serde_json::from_slice(answer).ok()?;
    let is_about = |what: &str| error_description.contains(what);
    match error.as_str() {
        "unauthorized_client" => Some(Error::UnauthorizedClient),
        "invalid_grant" | "invalid_request" if is_about("redirect_uri") => {
            Some(Error::RedirectMismatch)
        }
        "invalid_request" if is_about("invalid parameter : code") => Some(Error::CodeExpired),
        _ => None,
    }
}

/// Everything but RFC 3986's unreserved characters.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Appends `text` to `out`, everything but unreserved characters percent-encoded.
pub fn percent_encode(text: &str, out: &mut String) {
    out.extend(utf8_percent_encode(text, ESCAPED));
}

/// Reads a 200 answer.
pub(super) fn granted(answer: &[u8]) -> Result<Granted, &'static str> {
    // The parser's message could quote the answer, so it is dropped.
    let answer: Answer = serde_json::from_slice(answer).map_err(|_| "it is not JSON")?;
    let access_token = answer.access_token.ok_or("it holds no access token")?;
    if !is_token(&access_token) {
        return Err("its access token is not one");
    }
    let refresh_token = answer.refresh_token.filter(|token| !token.is_empty());
    if refresh_token.as_deref().is_some_and(|token| !is_token(token)) {
        return Err("its refresh token is not one");
    }
    Ok(Granted {
        access_token: Secret::new(access_token),
        refresh_token: refresh_token.map(Secret::new),
        expires_in: lifetime(answer.expires_in.as_ref()),
        scope: answer.scope,
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

/// The error code of a failed response: none if it has none, `unknown` if LWA does not document it.
pub(super) fn error_code(body: &[u8]) -> Option<&'static str> {
    #[derive(Deserialize)]
    struct Failed {
        error: String,
    }
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
    let failed: Failed = serde_json::from_slice(body).ok()?;
    Some(KNOWN.into_iter().find(|known| *known == failed.error).unwrap_or("unknown"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(expires_in: &str) -> f64 {
        let answer = format!(r#"{{"access_token":"Atza|x","expires_in":{expires_in}}}"#);
        granted(answer.as_bytes()).expect("a grant").expires_in.as_secs_f64()
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
            assert!(granted(answer.as_bytes()).expect("a grant").refresh_token.is_none());
        }
    }

    #[test]
    fn refuses_tokens_that_could_break_a_header_line() {
        for token in ["a\\r\\nEvil: 1", "", "a b", "a\\u0000", "ü"] {
            let answer = format!(r#"{{"access_token":"{token}"}}"#);
            assert!(granted(answer.as_bytes()).is_err(), "{token}");
        }
        for answer in ["", "<html>", "{}", "[]", r#"{"access_token":1}"#] {
            assert!(granted(answer.as_bytes()).is_err(), "{answer}");
        }
    }

    #[test]
    fn a_refused_code_tells_why_and_a_refresh_is_read_as_ever() {
        let (code, verifier) = (Secret::from("c"), Secret::from("v"));
        let of_code =
            Grant::Code { code: &code, verifier: &verifier, redirect_uri: "http://localhost/" };
        let of_refresh = Grant::Refresh(&code);
        let why = |grant, error: &str, text: &str| {
            let answer = format!(r#"{{"error":"{error}","error_description":"CANARY {text}"}}"#);
            code_error(grant, answer.as_bytes()).map(|error| error.to_string())
        };
        for (error, text, expected) in [
            ("unauthorized_client", "", Some("unauthorized_client")),
            ("invalid_request", "an invalid parameter : code", Some("the code has expired")),
            ("invalid_grant", "redirect_uri", Some("the return address differs")),
            ("invalid_grant", "an invalid grant parameter : code", None),
            ("invalid_request", "missing a required parameter : code", None),
            ("invalid_client", "", None),
        ] {
            assert_eq!(why(&of_code, error, text).as_deref(), expected, "{error} {text}");
            assert_eq!(why(&of_refresh, error, text), None);
        }
    }

    #[test]
    fn the_form_encodes_everything_but_unreserved_characters() {
        let token = "Atzr|a".into();
        let asked = form("id", &"s&=+ ü".into(), &Grant::Refresh(&token));
        let expected = "grant_type=refresh_token&refresh_token=Atzr%7Ca&client_id=id\
                        &client_secret=s%26%3D%2B%20%C3%BC";
        assert_eq!(asked.expose(), expected);
    }
}
