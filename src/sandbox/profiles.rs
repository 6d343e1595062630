//! Advertiser profiles, as `GET /v2/profiles` shows them.

use crate::id::Region;
use serde_json::{Value, json};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// Amazon's number for it; may exceed 2^53.
    pub id: i64,
    pub country: Country,
    /// `seller`, `vendor` or `agency`.
    pub kind: &'static str,
    /// The advertiser's name.
    pub name: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Country {
    Us,
    Ca,
    Uk,
    De,
    Jp,
}

impl Country {
    /// The region whose API host serves it.
    pub fn region(self) -> Region {
        match self {
            Self::Us | Self::Ca => Region::Na,
            Self::Uk | Self::De => Region::Eu,
            Self::Jp => Region::Fe,
        }
    }

    /// Code, currency, time zone and marketplace id.
    fn facts(self) -> [&'static str; 4] {
        match self {
            Self::Us => ["US", "USD", "America/Los_Angeles", "ATVPDKIKX0DER"],
            Self::Ca => ["CA", "CAD", "America/Los_Angeles", "A2EUQ1WTGCTBG2"],
            Self::Uk => ["UK", "GBP", "Europe/London", "A1F83G8C2ARO7P"],
            Self::De => ["DE", "EUR", "Europe/Paris", "A1PA6795UKMFR9"],
            Self::Jp => ["JP", "JPY", "Asia/Tokyo", "A1VC38T7YXB528"],
        }
    }
}

impl Profile {
    pub fn seller(id: i64, country: Country, name: &str) -> Self {
        Self { id, country, kind: "seller", name: name.to_owned() }
    }

    /// The profile as Amazon spells it.
    pub(super) fn to_json(&self) -> Value {
        let [country, currency, timezone, marketplace] = self.country.facts();
        // An entity for vendors, a merchant token otherwise.
        let prefix = if self.kind == "vendor" { "ENTITY" } else { "A" };
        json!({
            "profileId": self.id,
            "countryCode": country,
            "currencyCode": currency,
            "dailyBudget": 999_999_999.0,
            "timezone": timezone,
            "accountInfo": {
                "marketplaceStringId": marketplace,
                "id": format!("{prefix}{:X}", self.id),
                "type": self.kind,
                "name": self.name,
                "validPaymentMethod": true,
            },
        })
    }

    pub(super) fn marketplace(&self) -> &'static str {
        self.country.facts()[3]
    }
}
