//! The vocabulary of all sources: which name stands for what, and what one record says.

use super::rejection::Rejection;
use crate::secret::Secret;
use std::collections::BTreeMap;

/// What a source may say about an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Field {
    Account,
    RefreshToken,
    AccessToken,
    ExpiresAt,
    UpdatedAt,
    TokenType,
    Region,
    Application,
    ProfileId,
    ConsentedAt,
    ClientId,
    ClientSecret,
}

/// A record's values. All of them are secrets: a column may hold what its name does not say.
pub(super) type Values = BTreeMap<Field, Secret>;

/// One record as it stands in a source.
#[derive(Debug)]
pub(super) struct Draft {
    /// Where it begins, counted from 1; none in a source without lines.
    pub(super) line: Option<usize>,
    /// The key that it stands under.
    pub(super) key: Option<String>,
    /// What it says, or why it cannot be read.
    pub(super) values: Result<Values, Rejection>,
}

impl Field {
    /// What `name` stands for, however it is written: `Refresh Token`, `refreshToken`, …
    pub(super) fn of(name: &str) -> Option<Self> {
        let plain = name.chars().filter(char::is_ascii_alphanumeric);
        let plain: String = plain.map(|c| c.to_ascii_lowercase()).collect();
        Some(match plain.as_str() {
            "account" | "alias" | "accountname" | "accountalias" | "name" => Self::Account,
            "refreshtoken" => Self::RefreshToken,
            "accesstoken" => Self::AccessToken,
            "expiresat" | "expiry" | "accesstokenexpiresat" => Self::ExpiresAt,
            "updatedat" => Self::UpdatedAt,
            "tokentype" => Self::TokenType,
            "region" | "apiregion" | "marketplace" | "endpoint" => Self::Region,
            "application" | "app" => Self::Application,
            "profileid" | "profile" | "amazonadvertisingapiscope" => Self::ProfileId,
            "consentedat" | "consentdate" | "consent" | "authorizedat" => Self::ConsentedAt,
            "clientid" => Self::ClientId,
            "clientsecret" => Self::ClientSecret,
            _ => return None,
        })
    }

    /// The name to write it by.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Account => "account",
            Self::RefreshToken => "refresh_token",
            Self::AccessToken => "access_token",
            Self::ExpiresAt => "expires_at",
            Self::UpdatedAt => "updated_at",
            Self::TokenType => "token_type",
            Self::Region => "region",
            Self::Application => "application",
            Self::ProfileId => "profile_id",
            Self::ConsentedAt => "consented_at",
            Self::ClientId => "client_id",
            Self::ClientSecret => "client_secret",
        }
    }
}

/// Collects the values of one record, of which each may be said once.
#[derive(Default)]
pub(super) struct Collector(Values);

impl Collector {
    /// Takes `text` for `field`; nothing, and what databases write for nothing, is left out.
    pub(super) fn add(&mut self, field: Field, text: &str) -> Result<(), Rejection> {
        let text = text.trim();
        if matches!(text, "" | "null" | "NULL" | "None") {
            return Ok(());
        }
        match self.0.insert(field, Secret::from(text)) {
            None => Ok(()),
            Some(_) => Err(Rejection::SaidTwice(field.as_str())),
        }
    }

    pub(super) fn finish(self) -> Values {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_known_however_it_is_written() {
        for name in ["refresh_token", "Refresh Token", "refreshToken", "REFRESH-TOKEN"] {
            assert_eq!(Field::of(name), Some(Field::RefreshToken), "{name}");
        }
        for name in ["", "token", "refresh", "id", "Atzr|x"] {
            assert_eq!(Field::of(name), None, "{name}");
        }
    }

    #[test]
    fn every_field_is_known_by_its_own_name() {
        use Field::*;
        for field in [Account, RefreshToken, AccessToken, ExpiresAt, UpdatedAt, TokenType] {
            assert_eq!(Field::of(field.as_str()), Some(field));
        }
        for field in [Region, Application, ProfileId, ConsentedAt, ClientId, ClientSecret] {
            assert_eq!(Field::of(field.as_str()), Some(field));
        }
    }

    #[test]
    fn nothing_is_no_value_and_two_values_are_one_too_many() {
        let mut collector = Collector::default();
        for nothing in ["", "  ", "null", "NULL", "None"] {
            collector.add(Field::Region, nothing).expect("nothing");
        }
        collector.add(Field::Region, " eu ").expect("a value");
        assert_eq!(collector.add(Field::Region, "na"), Err(Rejection::SaidTwice("region")));
        assert_eq!(collector.finish()[&Field::Region].expose(), "na");
    }
}
