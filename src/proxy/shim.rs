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
    metrics::LimitHit,
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
/// How long a form may take to arrive: who sends it may be known by it alone.
const FORM_TIMEOUT: Duration = Duration::from_secs(3);
/// The part of a worker's places where one party may wait with a form.
const FORM_PART: usize = 16;
/// No fewer than so many, unless that is more than half.
const FORMS_MIN: usize = 16;
/// The part where all may wait that are known by their addresses only.
const UNKNOWN_PART: usize = 4;

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
        let known = principal.as_ref().ok().and_then(Option::as_deref);
        let form = self.token_form(head, known, body, exchange).await?;
        let key = form.key();
        let principal = match (principal, key) {
            (Ok(Some(known)), Some(_)) if known.is_presented() => {
                return Err(Unauthenticated::Several.into());
            }
            // An SDK that refreshes by itself can say its key nowhere else.
            (_, Some(key)) => {
                let now = self.shared.clock.now();
                Some(self.shared.callers.of_key(key, exchange.origin, now)?)
            }
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
        let default = exchange.settings.config().proxy.default_account.as_ref();
        let view = View { table: &table, principal: principal.as_deref(), default };
        let (status, body) = token_response(&form, in_path.or(in_header), view)?;
        let mut response = Response::new(ExchangeBody::ours(body.to_string().into()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json;charset=UTF-8"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(response)
    }

    /// Reads the form of a request of `known`.
    async fn token_form(
        &self,
        head: &Parts,
        known: Option<&Principal>,
        body: &mut Option<CallerBody>,
        exchange: &Exchange,
    ) -> Result<TokenForm, Error> {
        let max = FormsMax::of(exchange.settings.in_flight_max);
        let (_places, is_full) = match known {
            Some(known) => {
                let place = self.forms.enter(known);
                let is_full = place.requests() > max.party;
                ([Some(place), None], is_full)
            }
            None => {
                let [own, all] = self.forms.enter_unknown(exchange.origin);
                let is_full = own.requests() > max.address || all.requests() > max.unknown;
                ([Some(own), Some(all)], is_full)
            }
        };
        if is_full {
            self.metrics.limit(LimitHit::InFlight);
            return Err(Error::Overloaded(
                "As many forms for the token endpoint are awaited as may be (a small part of \
                 limits.in_flight_max). Try again later.",
            ));
        }
        // Borrowed, so that the rest of a form that is too long can be read to its end elsewhere.
        let Some(body) = body else { return Err(BodyError::Incomplete.into()) };
        let collect = Limited::new(body, FORM_MAX_BYTES).collect();
        match self.deadlines.within(FORM_TIMEOUT, collect).await {
            Some(Ok(form)) => Ok(TokenForm::read(&head.headers, &form.to_bytes())),
            Some(Err(error)) if error.is::<LengthLimitError>() => {
                Err(Error::Rejected(Code::BodyTooLarge))
            }
            Some(Err(_)) => Err(BodyError::Incomplete.into()),
            None => Err(BodyError::TooSlow.into()),
        }
    }
}

/// How many forms are awaited.
#[derive(Debug, PartialEq, Eq)]
struct FormsMax {
    /// Of one tenant, or caller without one.
    party: usize,
    /// Of one address whose senders are not known: it leaves room for others.
    address: usize,
    /// Of all of those.
    unknown: usize,
}

impl FormsMax {
    /// For a worker with `in_flight_max` places.
    fn of(in_flight_max: usize) -> Self {
        let half = in_flight_max.div_ceil(2);
        let party = (in_flight_max / FORM_PART).max(FORMS_MIN).min(half);
        let unknown = (in_flight_max / UNKNOWN_PART).max(2 * FORMS_MIN).min(half);
        Self { party, address: party.min(unknown.div_ceil(2)), unknown }
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
    fn forms_have_a_small_part_of_the_places_and_never_most_of_few() {
        let parts = [16384, 256, 64, 20, 8, 1].map(|places| {
            let FormsMax { party, address, unknown } = FormsMax::of(places);
            [party, address, unknown]
        });
        let expected =
            [[1024, 1024, 4096], [16, 16, 64], [16, 16, 32], [10, 5, 10], [4, 2, 4], [1, 1, 1]];
        assert_eq!(parts, expected);
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
