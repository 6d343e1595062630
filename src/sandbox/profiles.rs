//! Advertiser profiles, as `GET /v2/profiles` shows them.

use crate::id::Region;
use serde_json::{Value, json};

/// One advertiser profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// Amazon's number for it; may exceed 2^53.
    pub id: i64,
    /// The marketplace's country.
    pub country: Country,
    /// `seller`, `vendor` or `agency`.
    pub kind: &'static str,
    /// The advertiser's name.
    pub name: String,
}

/// The marketplaces the emulator knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Country {
    /// United States.
    Us,
    /// Canada.
    Ca,
    /// United Kingdom.
    Uk,
    /// Germany.
    De,
    /// Japan.
    Jp,
}

/// Code, currency, time zone and marketplace id of a country.
struct Facts(&'static str, &'static str, &'static str, &'static str);

impl Country {
    /// The region whose API host serves it.
    #[must_use]
    pub fn region(self) -> Region {
        match self {
            Self::Us | Self::Ca => Region::Na,
            Self::Uk | Self::De => Region::Eu,
            Self::Jp => Region::Fe,
        }
    }

    fn facts(self) -> Facts {
        match self {
            Self::Us => Facts("US", "USD", "America/Los_Angeles", "ATVPDKIKX0DER"),
            Self::Ca => Facts("CA", "CAD", "America/Los_Angeles", "A2EUQ1WTGCTBG2"),
            Self::Uk => Facts("UK", "GBP", "Europe/London", "A1F83G8C2ARO7P"),
            Self::De => Facts("DE", "EUR", "Europe/Paris", "A1PA6795UKMFR9"),
            Self::Jp => Facts("JP", "JPY", "Asia/Tokyo", "A1VC38T7YXB528"),
        }
    }
}

impl Profile {
    /// A seller's profile.
    #[must_use]
    pub fn seller(id: i64, country: Country, name: &str) -> Self {
        Self { id, country, kind: "seller", name: name.to_owned() }
    }

    /// The profile as Amazon spells it.
    pub(super) fn to_json(&self) -> Value {
        let Facts(country, currency, timezone, marketplace) = self.country.facts();
        json!({
            "profileId": self.id,
            "countryCode": country,
            "currencyCode": currency,
            "dailyBudget": 999_999_999.0,
            "timezone": timezone,
            "accountInfo": {
                "marketplaceStringId": marketplace,
                "id": self.advertiser_id(),
                "type": self.kind,
                "name": self.name,
                "validPaymentMethod": true,
            },
        })
    }

    /// The advertiser's id: an entity for vendors, a merchant token otherwise.
    pub(super) fn advertiser_id(&self) -> String {
        let prefix = if self.kind == "vendor" { "ENTITY" } else { "A" };
        format!("{prefix}{:X}", self.id)
    }

    /// The marketplace's id.
    pub(super) fn marketplace(&self) -> &'static str {
        self.country.facts().3
    }
}
