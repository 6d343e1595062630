//! Responds to SDKs that insist on refreshing by themselves: LWA's token endpoint without LWA.
//!
//! No network call and never a real token: what it hands out is the placeholder bearer that
//! selects the account.

use super::{
    error::Error,
    respond::{ReplyBody, token_endpoint},
    select::{header_alias, prefix_alias},
};
use crate::{
    caller_body::CallerBody,
    deadline::Deadlines,
    forward::body::BodyError,
    id::{AccountId, placeholder_alias},
    inbound::fields::Fields,
    sync::Table,
};
use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode, header::CONTENT_TYPE, request::Parts};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::{Value, json};
use std::{rc::Rc, time::Duration};

const PATH: &str = "/auth/o2/token";
/// The largest form that is read, bytes.
const FORM_MAX_BYTES: usize = 64 * 1024;
/// How long a form may take to arrive.
const FORM_TIMEOUT: Duration = Duration::from_secs(30);

/// Whether a request is for the shim, also below `/a/<alias>`.
pub fn is_token_request(head: &Parts) -> bool {
    if head.method != Method::POST {
        return false;
    }
    let Some(prefix) = head.uri.path().strip_suffix(PATH) else { return false };
    prefix.is_empty() || prefix.strip_prefix("/a/").is_some_and(|name| !name.contains('/'))
}

pub async fn respond(
    head: &Parts,
    fields: &Fields<'_>,
    body: &mut Option<CallerBody>,
    table: &Table,
    default: Option<&AccountId>,
    deadlines: &Rc<Deadlines>,
) -> Result<Response<ReplyBody>, Error> {
    // Borrowed, so that the rest of a form that is too long can be read to its end elsewhere.
    let Some(body) = body else { return Err(body_error(BodyError::Incomplete)) };
    let collect = Limited::new(body, FORM_MAX_BYTES).collect();
    let collected = deadlines.within(FORM_TIMEOUT, collect).await;
    let form = match collected {
        Some(Ok(form)) => form.to_bytes(),
        Some(Err(error)) if error.is::<LengthLimitError>() => return Err(Error::BodyTooLarge),
        Some(Err(_)) => return Err(body_error(BodyError::Incomplete)),
        None => return Err(body_error(BodyError::TooSlow)),
    };
    let in_path = prefix_alias(&head.uri)?;
    let in_header = header_alias(fields)?;
    if let (Some(path), Some(header)) = (in_path, in_header)
        && path != header
    {
        return Err(Error::AccountConflict);
    }
    let form = TokenForm::read(&head.headers, &form);
    let (status, body) = token_response(&form, in_path.or(in_header), table, default)?;
    Ok(token_endpoint(status, Bytes::from(body.to_string())))
}

fn body_error(error: BodyError) -> Error {
    Error::Forward(crate::forward::Error::Body(error))
}

fn token_response(
    form: &TokenForm,
    in_path: Option<&str>,
    table: &Table,
    default: Option<&AccountId>,
) -> Result<(StatusCode, Value), Error> {
    if form.grant_type.as_deref().is_some_and(|kind| kind != "refresh_token") {
        let text = "The authorization grant type is not supported by the authorization server";
        return Ok(lwa_error("unsupported_grant_type", text));
    }
    let sent = form.refresh_token.as_deref();
    let in_token = sent.and_then(|token| placeholder_alias(token, "Atzr"));
    // A token that names no known account is no selector: beside a path it may be anything.
    if let (Some(path), Some(token)) = (in_path, in_token)
        && path != token
        && table.contains_key(token)
    {
        return Err(Error::AccountConflict);
    }
    let alias = in_path.or(in_token).or(default.map(AccountId::as_str));
    match alias.filter(|alias| table.contains_key(*alias)) {
        Some(alias) => Ok((
            StatusCode::OK,
            json!({
                "access_token": format!("Atza|{alias}"),
                "refresh_token": sent.map_or_else(|| format!("Atzr|{alias}"), str::to_owned),
                "token_type": "bearer",
                "expires_in": 3600,
            }),
        )),
        None => Ok(lwa_error(
            "invalid_grant",
            "The request has an invalid grant parameter : refresh_token. \
             User may have revoked or didn't grant the permission.",
        )),
    }
}

fn lwa_error(error: &str, description: &str) -> (StatusCode, Value) {
    (StatusCode::BAD_REQUEST, json!({ "error_description": description, "error": error }))
}

/// What of a token request matters here. Client id and secret are not looked at.
#[derive(Default)]
struct TokenForm {
    grant_type: Option<String>,
    refresh_token: Option<String>,
}

impl TokenForm {
    fn read(headers: &HeaderMap, body: &[u8]) -> Self {
        let json = headers
            .get(CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok())
            .is_some_and(|kind| kind.to_ascii_lowercase().contains("json"));
        let mut form = Self::default();
        if json {
            let value: Value = serde_json::from_slice(body).unwrap_or_default();
            let text = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
            form.grant_type = text("grant_type");
            form.refresh_token = text("refresh_token");
            return form;
        }
        for (name, value) in form_urlencoded::parse(body) {
            match &*name {
                "grant_type" => form.grant_type = Some(value.into_owned()),
                "refresh_token" => form.refresh_token = Some(value.into_owned()),
                _ => {}
            }
        }
        form
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: &str, body: &str) -> (Option<String>, Option<String>) {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, kind.parse().expect("a value"));
        let form = TokenForm::read(&headers, body.as_bytes());
        (form.grant_type, form.refresh_token)
    }

    #[test]
    fn reads_forms_and_json() {
        let expected = (Some("refresh_token".to_owned()), Some("Atzr|a b".to_owned()));
        let form = "grant_type=refresh_token&client_secret=s&refresh_token=Atzr%7Ca+b";
        assert_eq!(read("application/x-www-form-urlencoded;charset=UTF-8", form), expected);
        let json = r#"{"grant_type":"refresh_token","refresh_token":"Atzr|a b"}"#;
        assert_eq!(read("application/json", json), expected);
    }

    #[test]
    fn nonsense_is_an_empty_form() {
        for (kind, body) in [
            ("application/json", "{"),
            ("application/json", "[1]"),
            ("text/plain", "\u{0}%%%=&&="),
            ("application/x-www-form-urlencoded", ""),
        ] {
            assert_eq!(read(kind, body), (None, None), "{kind} {body}");
        }
    }

    #[test]
    fn is_asked_at_the_endpoint_and_below_a_prefix_only() {
        let asked = |method: Method, uri: &str| {
            let request = http::Request::builder().method(method).uri(uri).body(());
            is_token_request(&request.expect("a request").into_parts().0)
        };
        assert!(asked(Method::POST, "/auth/o2/token"));
        assert!(asked(Method::POST, "/a/acme/auth/o2/token?x"));
        assert!(asked(Method::POST, "/a/acme@eu/auth/o2/token"));
        assert!(!asked(Method::GET, "/auth/o2/token"));
        assert!(!asked(Method::POST, "/x/auth/o2/token"));
        assert!(!asked(Method::POST, "/a/acme/x/auth/o2/token"));
        assert!(!asked(Method::POST, "/auth/o2/token/"));
    }
}
