//! The caller's header fields that decide something, found in one pass.
//!
//! A look-up hashes the name each time; a dozen of them cost more than reading all fields once.

use http::{HeaderMap, HeaderName, HeaderValue};

/// A field that must not come twice.
#[derive(Clone, Copy, Debug, Default)]
pub enum Field<'a> {
    #[default]
    Absent,
    One(&'a HeaderValue),
    /// Sent more than once; this is the first.
    Many(&'a HeaderValue),
}

impl<'a> Field<'a> {
    fn add(&mut self, value: &'a HeaderValue) {
        *self = match *self {
            Self::Absent => Self::One(value),
            Self::One(first) | Self::Many(first) => Self::Many(first),
        };
    }

    pub fn first(self) -> Option<&'a HeaderValue> {
        match self {
            Self::Absent => None,
            Self::One(value) | Self::Many(value) => Some(value),
        }
    }

    /// Whether it is absent, or there once with such a value.
    pub fn allows(self, is_good: impl FnOnce(&[u8]) -> bool) -> bool {
        match self {
            Self::Absent => true,
            Self::One(value) => is_good(value.as_bytes()),
            Self::Many(_) => false,
        }
    }

    /// The values of the field `name`, which this is, in their order.
    pub fn values(
        self,
        headers: &'a HeaderMap,
        name: HeaderName,
    ) -> impl Iterator<Item = &'a HeaderValue> {
        let (one, many) = match self {
            Self::Absent => (None, None),
            Self::One(value) => (Some(value), None),
            // A look-up hashes the name.
            Self::Many(_) => (None, Some(headers.get_all(name))),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    pub fn single<E>(self, rejection: E) -> Result<Option<&'a HeaderValue>, E> {
        match self {
            Self::Absent => Ok(None),
            Self::One(value) => Ok(Some(value)),
            Self::Many(_) => Err(rejection),
        }
    }
}

/// The fields, and the size of all of them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fields<'a> {
    pub host: Field<'a>,
    pub origin: Field<'a>,
    pub fetch_site: Field<'a>,
    pub user_agent: Field<'a>,
    pub account: Field<'a>,
    pub region: Field<'a>,
    pub authorization: Field<'a>,
    pub proxy_authorization: Field<'a>,
    pub key: Field<'a>,
    pub transfer_encoding: Field<'a>,
    pub content_length: Field<'a>,
    pub expect: Field<'a>,
    pub connection: Field<'a>,
    pub request_id: Field<'a>,
    /// Bytes of all lines as they came, give or take the spaces.
    pub bytes: usize,
}

impl<'a> Fields<'a> {
    pub fn of(headers: &'a HeaderMap) -> Self {
        let mut fields = Self::default();
        for (name, value) in headers {
            let name = name.as_str();
            fields.bytes += name.len() + value.len() + ": \r\n".len();
            match name {
                "host" => fields.host.add(value),
                "origin" => fields.origin.add(value),
                "sec-fetch-site" => fields.fetch_site.add(value),
                "user-agent" => fields.user_agent.add(value),
                "x-ads-account" => fields.account.add(value),
                "x-ads-region" => fields.region.add(value),
                "x-ads-key" => fields.key.add(value),
                "proxy-authorization" => fields.proxy_authorization.add(value),
                "authorization" => fields.authorization.add(value),
                "transfer-encoding" => fields.transfer_encoding.add(value),
                "content-length" => fields.content_length.add(value),
                "expect" => fields.expect.add(value),
                "connection" => fields.connection.add(value),
                "x-request-id" => fields.request_id.add(value),
                _ => {}
            }
        }
        fields
    }
}

/// The token of a bearer credential. Bytes, because a JWT is long and most look at its start only.
pub fn bearer_token(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = value.as_bytes().split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_none_from_one_from_many() {
        let mut headers = HeaderMap::new();
        headers.append("host", HeaderValue::from_static("localhost"));
        headers.append("x-ads-account", HeaderValue::from_static("a"));
        headers.append("X-Ads-Account", HeaderValue::from_static("b"));
        headers.append("x-other", HeaderValue::from_static("1"));
        let fields = Fields::of(&headers);
        assert_eq!(fields.host.single(()), Ok(Some(&HeaderValue::from_static("localhost"))));
        assert_eq!(fields.account.single(()), Err(()));
        assert_eq!(fields.account.first(), Some(&HeaderValue::from_static("a")));
        assert_eq!(fields.origin.single(()), Ok(None));
        assert_eq!(fields.bytes, "host: localhost\r\n".len() + 2 * 18 + "x-other: 1\r\n".len());
    }
}
