//! Responds to SDKs that insist on refreshing by themselves: LWA's token endpoint without LWA.
//!
//! No network call and never a real token: what it hands out is the placeholder bearer that
//! selects the account, or that holds the caller's own key.

use super::{
    Worker,
    error::Error,
    exchange::Exchange,
    respond::ExchangeBody,
    select::{Prefix, header_alias},
    view::View,
};
use crate::{
    caller_body::CallerBody,
    callers::{Principal, Unauthenticated, credential::is_key},
    forward::body::BodyError,
    id::{AccountId, placeholder_alias, placeholder_text},
    inbound::fields::Fields,
    problem::Code,
};
use http::{
    HeaderMap, HeaderValue, Method, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE},
    request::Parts,
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

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

impl Worker {
    pub(super) async fn token_endpoint(
        &self,
        head: &Parts,
        fields: &Fields<'_>,
        principal: Result<Option<Arc<Principal>>, Unauthenticated>,
        body: &mut Option<CallerBody>,
        exchange: &mut Exchange,
    ) -> Result<Response<ExchangeBody>, Error> {
        match principal {
            Ok(_) | Err(Unauthenticated::Missing) => {}
            Err(error) => return Err(error.into()),
        }
        // Borrowed, so that the rest of a form that is too long can be read to its end elsewhere.
        let Some(body) = body else { return Err(BodyError::Incomplete.into()) };
        let collect = Limited::new(body, FORM_MAX_BYTES).collect();
        let form = match self.deadlines.within(FORM_TIMEOUT, collect).await {
            Some(Ok(form)) => TokenForm::read(&head.headers, &form.to_bytes()),
            Some(Err(error)) if error.is::<LengthLimitError>() => {
                return Err(Error::Rejected(Code::BodyTooLarge));
            }
            Some(Err(_)) => return Err(BodyError::Incomplete.into()),
            None => return Err(BodyError::TooSlow.into()),
        };
        let key = form.key();
        let principal = match (principal, key) {
            (Ok(Some(known)), Some(_)) if known.is_presented() => {
                return Err(Unauthenticated::Several.into());
            }
            // An SDK that refreshes by itself can say its key nowhere else.
            (_, Some(key)) => Some(self.shared.callers.of_key(key, self.shared.clock.now())?),
            (principal, None) => principal?,
        };
        exchange.principal.clone_from(&principal);
        if let Some(principal) = &principal {
            principal.take(exchange.began).map_err(Error::TooManyRequests)?;
        }
        let in_path = Prefix::of(&head.uri)?.map(|prefix| prefix.alias);
        let in_header = header_alias(fields)?;
        if in_path.zip(in_header).is_some_and(|(path, header)| path != header) {
            return Err(Error::Rejected(Code::AccountConflict));
        }
        let table = self.shared.directory.load();
        let default = self.shared.config.proxy.default_account.as_ref();
        let view = View { table: &table, principal: principal.as_deref(), default };
        let (status, body) = token_response(&form, in_path.or(in_header), view)?;
        let mut response = Response::new(ExchangeBody::ours(body.to_string().into()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json;charset=UTF-8"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(response)
    }
}

fn token_response(
    form: &TokenForm,
    in_path: Option<&str>,
    view: View<'_>,
) -> Result<(StatusCode, Value), Error> {
    if form.grant_type.as_deref().is_some_and(|kind| kind != "refresh_token") {
        let text = "The authorization grant type is not supported by the authorization server";
        return Ok(lwa_error("unsupported_grant_type", text));
    }
    let sent = form.refresh_token.as_deref();
    let in_token = sent.and_then(|token| placeholder_alias(token, "Atzr"));
    let in_token = in_token.filter(|_| form.key().is_none());
    // A token that names no known account is no selector: beside a path it may be anything.
    let known = in_token.filter(|name| view.find(name).is_some());
    if in_path.zip(known).is_some_and(|(path, token)| path != token) {
        return Err(Error::Rejected(Code::AccountConflict));
    }
    let default = view.default.filter(|_| view.principal.is_none()).map(AccountId::as_str);
    let alias = in_path.or(in_token).or(default);
    let bearer = match (form.key(), alias) {
        (Some(key), None) => Some(key),
        (key, Some(alias)) => view.find(alias).map(|_| key.unwrap_or(alias)),
        (None, None) => None,
    };
    let Some(bearer) = bearer else {
        let text = "The request has an invalid grant parameter : refresh_token. \
                    User may have revoked or didn't grant the permission.";
        return Ok(lwa_error("invalid_grant", text));
    };
    let grant = json!({
        "access_token": format!("Atza|{bearer}"),
        "refresh_token": sent.map_or_else(|| format!("Atzr|{bearer}"), str::to_owned),
        "token_type": "bearer",
        "expires_in": 3600,
    });
    Ok((StatusCode::OK, grant))
}

fn lwa_error(error: &str, description: &str) -> (StatusCode, Value) {
    (StatusCode::BAD_REQUEST, json!({ "error_description": description, "error": error }))
}

/// What of a token request matters here. Client id and secret are not looked at.
#[derive(Default, Deserialize)]
struct TokenForm {
    grant_type: Option<String>,
    refresh_token: Option<String>,
}

impl TokenForm {
    /// The caller's key, where it stands for the refresh token.
    fn key(&self) -> Option<&str> {
        let token = self.refresh_token.as_deref()?;
        Some(placeholder_text(token, "Atzr").unwrap_or(token)).filter(|text| is_key(text))
    }

    fn read(headers: &HeaderMap, body: &[u8]) -> Self {
        let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        if kind.is_some_and(|kind| kind.to_ascii_lowercase().contains("json")) {
            return serde_json::from_slice(body).unwrap_or_default();
        }
        let mut form = Self::default();
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
