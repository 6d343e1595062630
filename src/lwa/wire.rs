//! LWA's request and response bodies.

use super::Error;
use crate::secret::Secret;
use http::StatusCode;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::{collections::HashMap, time::Duration};
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

impl RawResponse {
    fn text(&self) -> Zeroizing<String> {
        // Room for a replacement of every byte: a text that grows leaves copies behind.
        let mut text = Zeroizing::new(String::with_capacity(3 * self.body.len()));
        for chunk in self.body.utf8_chunks() {
            text.push_str(chunk.valid());
            if !chunk.invalid().is_empty() {
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        text
    }
}

/// The members of a JSON object. Each is read by itself: one of a wrong type costs no other, above
/// all not a rotated refresh token. Of a member that comes twice the last counts.
#[derive(Deserialize)]
#[serde(transparent)]
struct Members<'a>(#[serde(borrow)] HashMap<String, &'a RawValue>);

impl<'a> Members<'a> {
    fn of(json: &'a str) -> Option<Self> {
        // The parser's messages could quote the response, so they are dropped.
        serde_json::from_str(json).ok()
    }

    /// The member `name`, if it is there and of this type.
    fn get<T: Deserialize<'a>>(&self, name: &str) -> Option<T> {
        serde_json::from_str(self.0.get(name)?.get()).ok()
    }
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
        StatusCode::OK => parse(&response.text()).map_err(Error::BadResponse),
        _ => Err(rejection(response)),
    }
}

/// Reads the response to a code, whose description of an error says which parameter is wrong;
/// nothing of it goes further than here.
pub(super) fn granted_for_code(response: &RawResponse) -> Result<GrantedToken, Error> {
    if response.status.is_client_error()
        && let Some(said) = Members::of(&response.text())
    {
        let description: String = said.get("error_description").unwrap_or_default();
        match said.get::<String>("error").as_deref() {
            Some("invalid_grant" | "invalid_request") if description.contains("redirect_uri") => {
                return Err(Error::RedirectMismatch);
            }
            Some("invalid_request") if description.contains("invalid parameter : code") => {
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
    let said = Members::of(&response.text()).and_then(|said| said.get::<String>("error"));
    let Some(said) = said else {
        // A gateway in front of LWA responds with pages of its own when LWA is down.
        let error = refused("unknown");
        return if error.is_transient() { error } else { Error::NotLwa { status } };
    };
    match KNOWN.into_iter().find(|known| *known == said).unwrap_or("unknown") {
        "invalid_grant" if response.status.is_client_error() => Error::InvalidGrant,
        "invalid_client" if response.status.is_client_error() => Error::InvalidClient,
        "unauthorized_client" if response.status.is_client_error() => Error::UnauthorizedClient,
        code => refused(code),
    }
}

fn parse(json: &str) -> Result<GrantedToken, &'static str> {
    let said = Members::of(json).ok_or("it is not a JSON object")?;
    let access_token: Secret = said.get("access_token").ok_or("it holds no access token")?;
    if !is_token(&access_token) {
        return Err("its access token is not one");
    }
    let refresh_token = match said.0.get("refresh_token").map(|json| json.get()) {
        None | Some("null" | "\"\"") => None,
        Some(_) => {
            Some(said.get("refresh_token").filter(is_token).ok_or("its refresh token is not one")?)
        }
    };
    let expires_in = lifetime(said.0.get("expires_in").map_or("", |json| json.get()));
    Ok(GrantedToken { access_token, refresh_token, expires_in, scope: said.get("scope") })
}

/// Visible ASCII only: anything else could break out of a header line.
fn is_token(token: &Secret) -> bool {
    let text = token.expose();
    !text.is_empty() && text.len() <= 8192 && text.bytes().all(|b| b.is_ascii_graphic())
}

/// Reads `expires_in`, a number or a text with one. What cannot be a lifetime counts as the usual one:
/// a token believed too long costs one 401, a token believed dead costs a refresh per request.
fn lifetime(json: &str) -> Duration {
    match json.trim_matches('"').trim().parse::<f64>() {
        Ok(seconds) if seconds >= 1.0 => {
            Duration::from_secs_f64(seconds.min(LIFETIME_MAX.as_secs_f64()))
        }
        _ => USUAL_LIFETIME,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(expires_in: &str) -> f64 {
        let response = format!(r#"{{"access_token":"Atza|x","expires_in":{expires_in}}}"#);
        parse(&response).expect("a grant").expires_in.as_secs_f64()
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
            let response = format!(r#"{{"access_token":"Atza|x"{text}}}"#);
            assert!(parse(&response).expect("a grant").refresh_token.is_none());
        }
    }

    #[test]
    fn no_other_member_costs_a_rotated_refresh_token() {
        for (others, lifetime, scope) in [
            ("", 3600, None),
            (r#""expires_in":1e999"#, 86_400, None),
            (r#""expires_in":[60],"scope":null"#, 3600, None),
            (r#""expires_in":" 60","scope":["profile"]"#, 60, None),
            (
                r#""expires_in":60,"expires_in":"90","scope":7,"scope":"profile""#,
                90,
                Some("profile"),
            ),
            (r#""scope":"\ud800","token_type":"bearer","token_type":{}"#, 3600, None),
            (r#""access_token":"Atza|first","scope":"""#, 3600, Some("")),
        ] {
            let own = r#""access_token":"Atza|x","refresh_token":"Atzr|new""#;
            let separator = if others.is_empty() { "" } else { "," };
            let granted = parse(&format!("{{{others}{separator}{own}}}")).expect(others);
            assert_eq!(granted.refresh_token, Some("Atzr|new".into()), "{others}");
            assert_eq!(granted.access_token, "Atza|x".into(), "{others}");
            assert_eq!(granted.expires_in.as_secs(), lifetime, "{others}");
            assert_eq!(granted.scope.as_deref(), scope, "{others}");
        }
        let mangled = response(200, "");
        let body = b"{\"access_token\":\"Atza|x\",\"refresh_token\":\"Atzr|new\",\"x\":\"\xff\"}";
        let mangled = RawResponse { body: Zeroizing::new(body.to_vec()), ..mangled };
        let granted = granted(&mangled).expect("a grant");
        assert_eq!(granted.refresh_token, Some("Atzr|new".into()), "text that is not UTF-8");
    }

    #[test]
    fn a_refresh_token_that_is_not_one_is_not_taken_for_an_absent_one() {
        for token in ["7", "[]", r#""a b""#, r#"" ""#] {
            let response = format!(r#"{{"access_token":"Atza|x","refresh_token":{token}}}"#);
            assert_eq!(parse(&response).expect_err(token), "its refresh token is not one");
        }
    }

    #[test]
    fn a_code_is_read_whatever_describes_it() {
        for others in
            [r#""error_description":null"#, r#""error_description":"a","error_description":7"#]
        {
            let response = response(400, &format!(r#"{{"error":"invalid_grant",{others}}}"#));
            assert!(matches!(granted(&response), Err(Error::InvalidGrant)), "{others}");
            assert!(matches!(granted_for_code(&response), Err(Error::InvalidGrant)), "{others}");
        }
    }

    #[test]
    fn refuses_tokens_that_could_break_a_header_line() {
        for token in ["a\\r\\nEvil: 1", "", "a b", "a\\u0000", "ü"] {
            let response = format!(r#"{{"access_token":"{token}"}}"#);
            assert!(parse(&response).is_err(), "{token}");
        }
        for response in ["", "<html>", "{}", "[]", r#"{"access_token":1}"#] {
            assert!(parse(response).is_err(), "{response}");
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
