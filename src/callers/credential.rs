//! Finds the one credential in the head of a request.

use super::{Unauthenticated, key::KeyKind};
use crate::{
    id::placeholder_text,
    inbound::fields::{Fields, bearer_token},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{
    HeaderMap, HeaderValue,
    header::{AUTHORIZATION, PROXY_AUTHORIZATION},
};
use std::borrow::Cow;

/// What a request brings to be known by, before anything of it is judged.
#[derive(Clone)]
pub enum Presented<'a> {
    None,
    /// A key, or what is in the place of one.
    Key(Cow<'a, str>),
    /// What looks like a JWT.
    Token(&'a str),
}

/// Finds the credential. A bearer that looks like none is an SDK's own; a JWT is a credential only
/// where `reads_tokens`.
///
/// # Errors
/// `Several` if there is more than one.
pub fn find<'a>(
    headers: &'a HeaderMap,
    fields: &Fields<'a>,
    reads_tokens: bool,
) -> Result<Presented<'a>, Unauthenticated> {
    let mut found = Presented::None;
    if let Some(first) = fields.key.first() {
        let key = fields.key.single(Unauthenticated::Several).map(|_| first)?;
        found = Presented::Key(key.to_str().unwrap_or_default().into());
    }
    let mut add = |credential: Option<Presented<'a>>| match (credential, &found) {
        (None, _) => Ok(()),
        (Some(credential), Presented::None) => {
            found = credential;
            Ok(())
        }
        (Some(_), _) => Err(Unauthenticated::Several),
    };
    for value in fields.authorization.values(headers, AUTHORIZATION) {
        add(bearer(value, reads_tokens))?;
    }
    for value in fields.proxy_authorization.values(headers, PROXY_AUTHORIZATION) {
        add(bearer(value, reads_tokens).or_else(|| basic(value)))?;
    }
    Ok(found)
}

/// Whether the text behind `Atza|` is a key and no alias.
pub fn is_key(text: &str) -> bool {
    KeyKind::of(text).is_some()
}

fn bearer(value: &HeaderValue, reads_tokens: bool) -> Option<Presented<'_>> {
    let token = str::from_utf8(bearer_token(value)?).ok()?;
    let key = placeholder_text(token, "Atza").unwrap_or(token);
    if is_key(key) {
        return Some(Presented::Key(key.into()));
    }
    (reads_tokens && token.starts_with("eyJ")).then_some(Presented::Token(token))
}

/// The password, or the user without one: what an HTTP client sends that has its proxy's URL.
fn basic(value: &HeaderValue) -> Option<Presented<'static>> {
    let (scheme, text) = value.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(text.trim()).ok()?).ok()?;
    let (user, password) = text.split_once(':').unwrap_or((&text, ""));
    let key = [password, user].into_iter().find(|part| is_key(part))?;
    Some(Presented::Key(key.to_owned().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a head with these lines brings.
    fn brought(
        lines: &[(&'static str, &str)],
        reads_tokens: bool,
    ) -> Result<String, Unauthenticated> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        let found = find(&headers, &Fields::of(&headers), reads_tokens)?;
        Ok(match found {
            Presented::None => "none".to_owned(),
            Presented::Key(key) => format!("key {key}"),
            Presented::Token(token) => format!("token {token}"),
        })
    }

    #[test]
    fn a_key_comes_in_any_of_four_places() {
        for line in [
            ("x-ads-key", "adsk_a"),
            ("authorization", "Bearer adsk_a"),
            ("authorization", "bearer  Atza|adsk_a"),
            ("authorization", "Bearer Atza%7Cadsk_a"),
            ("proxy-authorization", "Bearer adsk_a"),
            ("proxy-authorization", "Basic dTphZHNrX2E="),
            ("proxy-authorization", "Basic YWRza19hOg=="),
        ] {
            assert_eq!(brought(&[line], false).unwrap(), "key adsk_a", "{line:?}");
        }
        assert_eq!(brought(&[("authorization", "Bearer adss_a")], true).unwrap(), "key adss_a");
    }

    #[test]
    fn what_an_sdk_sends_of_its_own_is_none() {
        for line in [
            ("authorization", "Bearer Atza|acme"),
            ("authorization", "Bearer Atza|IwEBI"),
            ("authorization", "Bearer eyJh.e30.x"),
            ("authorization", "Basic YWRza19hOg=="),
            ("proxy-authorization", "Basic dTpw"),
            ("x-api-key", "adsk_a"),
        ] {
            assert_eq!(brought(&[line], false).unwrap(), "none", "{line:?}");
        }
    }

    #[test]
    fn a_jwt_is_a_credential_where_there_are_issuers() {
        let line = ("authorization", "Bearer eyJh.e30.x");
        assert_eq!(brought(&[line], true).unwrap(), "token eyJh.e30.x");
    }

    #[test]
    fn two_credentials_are_one_too_many_though_they_be_the_same() {
        let key = ("x-ads-key", "adsk_a");
        for other in [
            ("x-ads-key", "adsk_a"),
            ("authorization", "Bearer adsk_a"),
            ("authorization", "Bearer eyJh.e30.x"),
            ("proxy-authorization", "Bearer adsk_b"),
        ] {
            assert_eq!(brought(&[key, other], true), Err(Unauthenticated::Several), "{other:?}");
        }
        let beside = ("authorization", "Bearer Atza|acme");
        assert_eq!(brought(&[key, beside], true).unwrap(), "key adsk_a");
    }
}
