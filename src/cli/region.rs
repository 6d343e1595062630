//! Which region a text means: its name, a marketplace, or an API host.

use crate::id::Region;

/// Marketplaces of each region. Source: Amazon's API overview, as of September 2025.
const MARKETPLACES: [(Region, &[&str]); 3] = [
    (Region::Na, &["US", "CA", "MX", "BR"]),
    (
        Region::Eu,
        &[
            "UK", "GB", "FR", "IT", "ES", "DE", "NL", "AE", "PL", "TR", "EG", "SA", "SE", "BE",
            "IN", "ZA", "IE",
        ],
    ),
    (Region::Fe, &["JP", "AU", "SG"]),
];

const HOSTS: [(Region, &str); 6] = [
    (Region::Na, "advertising-api.amazon.com"),
    (Region::Eu, "advertising-api-eu.amazon.com"),
    (Region::Fe, "advertising-api-fe.amazon.com"),
    (Region::Na, "advertising-ai.amazon.com"),
    (Region::Eu, "advertising-ai-eu.amazon.com"),
    (Region::Fe, "advertising-ai-fe.amazon.com"),
];

/// As [`parse`], for flags.
pub(super) fn flag(text: &str) -> Result<Region, &'static str> {
    parse(text).ok_or("a region is na, eu or fe, or a marketplace such as US, DE, JP")
}

/// The region whose API or MCP host this is.
pub(super) fn of_host(host: &str) -> Option<Region> {
    let host = host.strip_suffix(":443").unwrap_or(host);
    let known = HOSTS.iter().find(|(_, known)| host.eq_ignore_ascii_case(known));
    known.map(|(region, _)| *region)
}

/// The region that `text` means.
pub(super) fn parse(text: &str) -> Option<Region> {
    if let Ok(region) = text.to_ascii_lowercase().parse() {
        return Some(region);
    }
    let host = text.trim_start_matches("https://").trim_end_matches('/');
    if let Some(region) = of_host(host) {
        return Some(region);
    }
    let is_marketplace = |names: &[&str]| names.iter().any(|name| text.eq_ignore_ascii_case(name));
    MARKETPLACES.iter().find(|(_, names)| is_marketplace(names)).map(|(region, _)| *region)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_has_many_names() {
        for (text, region) in [
            ("na", Region::Na),
            ("EU", Region::Eu),
            ("us", Region::Na),
            ("DE", Region::Eu),
            ("jp", Region::Fe),
            ("https://advertising-api-fe.amazon.com/", Region::Fe),
            ("advertising-api.amazon.com", Region::Na),
        ] {
            assert_eq!(parse(text), Some(region), "{text}");
        }
        for text in ["", "europe", "XX", "advertising-api.amazon.com.example.com", "eu "] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
