//! Names that were checked once: account id, region, application name.

use crate::named::named;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::{fmt, str::FromStr, sync::Arc};

/// The id of an account: `[<tenant>~]<alias>`. Cheap to clone.
///
/// Both parts have the form `[A-Za-z0-9][A-Za-z0-9._-]{0,63}`, so an id can stand in a file name, a
/// label and a log line as it is, and no id of a tenant is an alias.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema)]
pub struct AccountId(#[schemars(with = "String")] Arc<str>);

impl AccountId {
    /// The longest tenant or alias, in bytes.
    pub const PART_MAX_LEN: usize = 64;

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The account that `tenant` means by `alias`; without a tenant, the one of no tenant.
    ///
    /// # Errors
    /// `InvalidAccountId` unless `alias` is one part of an id: a `~` in it names no other tenant.
    pub fn of(tenant: Option<&Tenant>, alias: &str) -> Result<Self, InvalidAccountId> {
        if !Self::is_alias(alias) {
            return Err(InvalidAccountId);
        }
        Ok(match tenant {
            Some(Tenant(tenant)) => Self(format!("{tenant}~{alias}").into()),
            None => Self(alias.into()),
        })
    }

    fn parts(&self) -> (Option<&str>, &str) {
        self.0
            .split_once('~')
            .map_or((None, self.as_str()), |(tenant, alias)| (Some(tenant), alias))
    }

    /// Whose account it is.
    pub fn tenant(&self) -> Option<&str> {
        self.parts().0
    }

    /// The id without its tenant: what a caller of that tenant calls the account.
    pub fn alias(&self) -> &str {
        self.parts().1
    }

    /// Says whether `text` is spelled like an id.
    pub fn is_id(text: &str) -> bool {
        let (tenant, alias) = text.split_once('~').map_or((None, text), |(t, a)| (Some(t), a));
        Self::is_alias(alias) && tenant.is_none_or(Self::is_alias)
    }

    /// Says whether `text` is spelled like an alias, or a tenant: like one part of an id.
    pub fn is_alias(text: &str) -> bool {
        let bytes = text.as_bytes();
        bytes.len() <= Self::PART_MAX_LEN
            && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    }
}

/// Whose accounts these are: the first part of their ids. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Tenant(Arc<str>);

impl Tenant {
    /// The tenant as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `account` is one of this tenant's.
    pub fn owns(&self, account: &AccountId) -> bool {
        account.tenant() == Some(self.as_str())
    }
}

impl FromStr for Tenant {
    type Err = InvalidTenant;

    fn from_str(text: &str) -> Result<Self, InvalidTenant> {
        if AccountId::is_alias(text) { Ok(Self(text.into())) } else { Err(InvalidTenant) }
    }
}

impl TryFrom<String> for Tenant {
    type Error = InvalidTenant;

    fn try_from(text: String) -> Result<Self, InvalidTenant> {
        text.parse()
    }
}

impl From<Tenant> for String {
    fn from(tenant: Tenant) -> Self {
        tenant.as_str().to_owned()
    }
}

impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that is not a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a tenant is 1 to 64 letters, digits, '.', '_' or '-', and begins with a letter or digit")]
pub struct InvalidTenant;

/// The alias of a placeholder, which replaces a token where an SDK insists on one: `Atza|acme`,
/// `Atzr|acme`, also with the bar percent-encoded.
pub fn placeholder_alias<'a>(token: &'a str, kind: &str) -> Option<&'a str> {
    placeholder_text(token, kind).filter(|name| AccountId::is_id(name))
}

/// What stands in the place of a placeholder's alias.
pub fn placeholder_text<'a>(token: &'a str, kind: &str) -> Option<&'a str> {
    let rest = token.strip_prefix(kind)?;
    rest.strip_prefix('|').or_else(|| rest.strip_prefix("%7C")).or_else(|| rest.strip_prefix("%7c"))
}

impl FromStr for AccountId {
    type Err = InvalidAccountId;

    fn from_str(text: &str) -> Result<Self, InvalidAccountId> {
        if Self::is_id(text) { Ok(Self(text.into())) } else { Err(InvalidAccountId) }
    }
}

impl Serialize for AccountId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for AccountId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl std::borrow::Borrow<str> for AccountId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that is not an account alias.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "an account alias is 1 to 64 letters, digits, '.', '_' or '-', and begins with a letter or digit"
)]
pub struct InvalidAccountId;

named! {
    /// One of Amazon's three API regions.
    #[derive(PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
    #[serde(rename_all = "lowercase")]
    pub enum Region {
        /// North America.
        Na = "na",
        /// Europe, the Middle East and India.
        Eu = "eu",
        /// Japan, Australia and Singapore.
        Fe = "fe",
    }
}

impl FromStr for Region {
    type Err = InvalidRegion;

    fn from_str(text: &str) -> Result<Self, InvalidRegion> {
        Self::from_name(text).ok_or(InvalidRegion)
    }
}

/// A text that is not a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a region is one of na, eu, fe")]
pub struct InvalidRegion;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_aliases_of_the_documented_alphabet() {
        for alias in ["a", "acme", "Acme-1.de_x", "0", &"x".repeat(64)] {
            assert!(alias.parse::<AccountId>().is_ok(), "{alias}");
            assert!(AccountId::is_alias(alias), "{alias}");
        }
    }

    #[test]
    fn an_id_may_have_a_tenant_and_is_no_alias_then() {
        let longest = ["t".repeat(64), "x".repeat(64)].join("~");
        for id in ["t1~acme", "org_2.x~Acme-1", longest.as_str()] {
            assert!(id.parse::<AccountId>().is_ok(), "{id}");
            assert!(!AccountId::is_alias(id), "{id}");
        }
        for id in ["~acme", "t1~", "~", "a~b~c", "t1~.acme", ".t~acme", &"x".repeat(130)] {
            assert!(id.parse::<AccountId>().is_err(), "{id}");
        }
    }

    #[test]
    fn a_tenant_means_its_own_account_by_an_alias_and_no_other() {
        let tenant: Tenant = "t1".parse().unwrap();
        let own = AccountId::of(Some(&tenant), "acme").unwrap();
        assert_eq!((own.as_str(), own.tenant(), own.alias()), ("t1~acme", Some("t1"), "acme"));
        assert_eq!(own, "t1~acme".parse().unwrap());
        let bare = AccountId::of(None, "acme").unwrap();
        assert_eq!((bare.as_str(), bare.tenant(), bare.alias()), ("acme", None, "acme"));
        assert!(tenant.owns(&own) && !tenant.owns(&bare));
        for others in ["t~acme", "t11~acme", "T1~acme", "t1.x~acme"] {
            assert!(!tenant.owns(&others.parse().unwrap()), "{others}");
        }
        for alias in ["t2~acme", "t1~acme", "~acme", "", "a/b", &"x".repeat(65)] {
            assert!(AccountId::of(Some(&tenant), alias).is_err(), "{alias}");
            assert!(AccountId::of(None, alias).is_err(), "{alias}");
        }
        for text in ["", "t1~", "a~b", ".t", "user|7", "ä", &"x".repeat(65)] {
            assert!(text.parse::<Tenant>().is_err(), "{text}");
        }
    }

    #[test]
    fn refuses_everything_else() {
        for alias in ["", ".acme", "-a", "_a", "a b", "a/b", "ä", "a@eu", "a\n", &"x".repeat(65)] {
            assert!(alias.parse::<AccountId>().is_err(), "{alias}");
        }
    }

    #[test]
    fn regions_are_lower_case_and_exact() {
        assert_eq!("eu".parse(), Ok(Region::Eu));
        for text in ["EU", "", "us", "eu "] {
            assert!(text.parse::<Region>().is_err(), "{text}");
        }
    }
}
