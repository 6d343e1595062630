//! Advertiser profiles, as `GET /v2/profiles` shows them.

use crate::id::Region;
use serde_json::{Value, json};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// Amazon's number; may exceed 2^53.
    pub id: i64,
    pub country: Country,
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
    /// Region, code, currency, time zone and marketplace id.
    fn facts(self) -> (Region, &'static str, &'static str, &'static str, &'static str) {
        match self {
            Self::Us => (Region::Na, "US", "USD", "America/Los_Angeles", "ATVPDKIKX0DER"),
            Self::Ca => (Region::Na, "CA", "CAD", "America/Los_Angeles", "A2EUQ1WTGCTBG2"),
            Self::Uk => (Region::Eu, "UK", "GBP", "Europe/London", "A1F83G8C2ARO7P"),
            Self::De => (Region::Eu, "DE", "EUR", "Europe/Paris", "A1PA6795UKMFR9"),
            Self::Jp => (Region::Fe, "JP", "JPY", "Asia/Tokyo", "A1VC38T7YXB528"),
        }
    }
}

impl Profile {
    pub fn seller(id: i64, country: Country, name: &str) -> Self {
        Self { id, country, name: name.to_owned() }
    }

    /// The region whose API host serves the profile.
    pub(super) fn region(&self) -> Region {
        self.country.facts().0
    }

    pub(super) fn marketplace(&self) -> &'static str {
        self.country.facts().4
    }

    pub(super) fn to_json(&self) -> Value {
        let (_, code, currency, timezone, marketplace) = self.country.facts();
        json!({
            "profileId": self.id,
            "countryCode": code,
            "currencyCode": currency,
            "dailyBudget": 999_999_999.0,
            "timezone": timezone,
            "accountInfo": {
                "marketplaceStringId": marketplace,
                "id": format!("A{:X}", self.id),
                "type": "seller",
                "name": self.name,
                "validPaymentMethod": true,
            },
        })
    }
}
