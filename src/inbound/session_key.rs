//! The key of a private listener: on a machine with several users, only the command that was given
//! it is served.
//!
//! Most SDKs take a base URL or a token and nothing else, so the key comes in either: as the
//! path prefix `/k/<key>` in front of everything, or as the placeholder bearer `Atza|<key>`.

use super::{fields::bearer_text, guard::GuardRejection};
use crate::{id::placeholder_alias, secret::Secret};
use http::{HeaderMap, Uri, header::AUTHORIZATION, uri::PathAndQuery};

#[derive(Debug, Clone)]
pub struct SessionKey(Secret);

#[derive(Debug, thiserror::Error)]
#[error("the system's random generator failed")]
pub struct NoRandom;

impl SessionKey {
    /// Makes a key that cannot be guessed: 128 random bits.
    pub fn generate() -> Result<Self, NoRandom> {
        let mut bytes = [0; 16];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| NoRandom)?;
        Ok(Self(Secret::new(format!("{:032x}", u128::from_ne_bytes(bytes)))))
    }

    /// The prefix of every path: `/k/<key>`.
    pub fn path_prefix(&self) -> String {
        format!("/k/{}", self.0.expose())
    }

    /// The placeholder token that opens the listener: `Atza|<key>`.
    pub fn bearer(&self) -> String {
        format!("Atza|{}", self.0.expose())
    }

    /// Finds the key in `headers` or `uri`, and removes it from `uri`: no later part sees it.
    pub fn remove_from(&self, uri: &mut Uri, headers: &HeaderMap) -> Result<(), GuardRejection> {
        let whole = uri.path_and_query().map_or("/", PathAndQuery::as_str);
        if let Some(behind) = whole.strip_prefix("/k/") {
            let end = behind.find(['/', '?']).unwrap_or(behind.len());
            let (key, rest) = behind.split_at(end);
            if !self.is(key) {
                return Err(GuardRejection::SessionKey);
            }
            let slash = if rest.starts_with('/') { "" } else { "/" };
            let mut parts = uri.clone().into_parts();
            let rest = format!("{slash}{rest}").parse().map_err(|_| GuardRejection::SessionKey)?;
            parts.path_and_query = Some(rest);
            *uri = Uri::from_parts(parts).map_err(|_| GuardRejection::SessionKey)?;
            return Ok(());
        }
        let mut bearers = headers.get_all(AUTHORIZATION).iter().filter_map(bearer_text);
        let is_key = |token| placeholder_alias(token, "Atza").is_some_and(|key| self.is(key));
        if bearers.any(is_key) { Ok(()) } else { Err(GuardRejection::SessionKey) }
    }

    /// Compares in constant time.
    fn is(&self, key: &str) -> bool {
        self.0 == Secret::from(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    const KEY: &str = "00112233445566778899aabbccddeeff";

    fn remove_from(target: &str, authorization: &[&str]) -> Result<String, GuardRejection> {
        let mut uri = target.parse().expect("a target");
        let mut headers = HeaderMap::new();
        for value in authorization {
            headers.append(AUTHORIZATION, HeaderValue::from_str(value).expect("a value"));
        }
        SessionKey(Secret::from(KEY)).remove_from(&mut uri, &headers).map(|()| uri.to_string())
    }

    #[test]
    fn the_key_in_the_path_is_taken_off_and_the_rest_stays_byte_for_byte() {
        for (behind, rest) in [
            ("/a/acme/v2/profiles?x=%2F", "/a/acme/v2/profiles?x=%2F"),
            ("//double//", "//double//"),
            ("", "/"),
            ("?q", "/?q"),
            ("/k/other", "/k/other"),
        ] {
            assert_eq!(remove_from(&format!("/k/{KEY}{behind}"), &[]).as_deref(), Ok(rest));
        }
        let full = format!("http://localhost:1/k/{KEY}/v2");
        assert_eq!(remove_from(&full, &[]).as_deref(), Ok("http://localhost:1/v2"), "HTTP/2");
    }

    #[test]
    fn the_key_as_placeholder_token_opens_too() {
        for bearer in [format!("Bearer Atza|{KEY}"), format!("bearer  Atza%7C{KEY} ")] {
            assert_eq!(remove_from("/v2/profiles", &[&bearer]).as_deref(), Ok("/v2/profiles"));
            assert!(remove_from("/v2/profiles", &["Basic x", &bearer]).is_ok());
        }
    }

    #[test]
    fn who_has_no_key_or_a_wrong_one_is_refused() {
        let wrong = "f".repeat(32);
        let bearer = format!("Bearer Atza|{KEY}");
        for (target, authorization) in [
            ("/v2/profiles".to_owned(), None),
            (format!("/k/{wrong}/v2"), None),
            // A wrong key is wrong, whatever comes with it.
            (format!("/k/{wrong}/v2"), Some(bearer.as_str())),
            (format!("/k/{}/v2", &KEY[..31]), None),
            (format!("/k/{KEY}0/v2"), None),
            (format!("/k//{KEY}"), None),
            (format!("/K/{KEY}/v2"), None),
            (format!("/x/k/{KEY}/v2"), None),
            (format!("/v2?k={KEY}"), None),
            ("/v2".to_owned(), Some("Bearer Atza|")),
            ("/v2".to_owned(), Some("Bearer Atza|acme")),
            ("/v2".to_owned(), Some(KEY)),
        ] {
            let values: Vec<&str> = authorization.into_iter().collect();
            let refused = remove_from(&target, &values);
            assert_eq!(refused, Err(GuardRejection::SessionKey), "{target} {authorization:?}");
        }
    }

    #[test]
    fn keys_differ_and_are_not_shown() {
        let [one, two] = [(); 2].map(|()| SessionKey::generate().expect("random bytes"));
        assert_ne!(one.path_prefix(), two.path_prefix());
        assert_eq!(one.path_prefix().len(), "/k/".len() + 32);
        assert!(!format!("{one:?}").contains(&one.path_prefix()[3..]));
    }
}
