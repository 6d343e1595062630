//! Everything that is Amazon's and may change on their side: hosts, names, paths, wordings, scopes,
//! marketplaces.
//!
//! Sources: Amazon's API overview, authorization and token pages, read 2026-11-20; the wordings of
//! permission errors come from public issues read on the same day.

use crate::id::Region;
use http::{HeaderName, HeaderValue};

/// API hosts, in the order of [`Region::ALL`].
pub const API: [&str; 3] = [
    "https://advertising-api.amazon.com",
    "https://advertising-api-eu.amazon.com",
    "https://advertising-api-fe.amazon.com",
];

/// MCP hosts, in the order of [`Region::ALL`].
pub const MCP: [&str; 3] = [
    "https://advertising-ai.amazon.com",
    "https://advertising-ai-eu.amazon.com",
    "https://advertising-ai-fe.amazon.com",
];

/// Login with Amazon's token endpoint.
pub const TOKEN_URL: &str = "https://api.amazon.com/auth/o2/token";
/// The same endpoint on its other hosts: tokens and grants are global.
pub const FALLBACK_TOKEN_URLS: [&str; 2] =
    ["https://api.amazon.co.uk/auth/o2/token", "https://api.amazon.co.jp/auth/o2/token"];

/// The consent page of North America, which is the default.
pub const AUTHORIZE_URL: &str = "https://www.amazon.com/ap/oa";

/// The consent page for the advertisers of `region`.
pub fn authorize_url(region: Region) -> &'static str {
    match region {
        Region::Na => AUTHORIZE_URL,
        Region::Eu => "https://eu.account.amazon.com/ap/oa",
        Region::Fe => "https://apac.account.amazon.com/ap/oa",
    }
}

/// The page on which an advertiser takes consent back.
pub const CONSENT_MANAGEMENT_URL: &str = "https://amazon.com/ap/adam";

/// Whether `host` is one of Amazon's: a link with a secret must not lead there.
pub fn is_amazon(host: &str) -> bool {
    host == "amazon.com" || host.ends_with(".amazon.com")
}

/// The scope that is asked for unless others are configured.
pub const SCOPE: &str = "advertising::campaign_management";

/// The name of a scope to compare by: one of them has a legacy name, "no difference".
pub fn canonical_scope(scope: &str) -> &str {
    if scope == "cpc_advertising:campaign_management" { SCOPE } else { scope }
}

/// The longest client id, bytes.
pub const CLIENT_ID_MAX_BYTES: usize = 100;

/// The classic client id field, set on every request.
pub static CLIENT_ID: HeaderName = HeaderName::from_static("amazon-advertising-api-clientid");
/// The client id field of Ads API v1 and MCP.
pub static ADS_CLIENT_ID: HeaderName = HeaderName::from_static("amazon-ads-clientid");

/// What fixes a request to the MCP server to one account, and the value that it has.
pub static MCP_MODE: HeaderName = HeaderName::from_static("amazon-ads-ai-account-selection-mode");
pub static MCP_MODE_FIXED: HeaderValue = HeaderValue::from_static("FIXED");
/// The account and the manager account of a request to the MCP server.
pub static MCP_ACCOUNT: HeaderName = HeaderName::from_static("amazon-ads-accountid");
pub static MCP_MANAGER: HeaderName = HeaderName::from_static("amazon-ads-manager-accountid");

/// Whether a field may choose an account at the MCP server, whichever way Amazon spells it there.
pub fn may_choose_account(name: &str) -> bool {
    name.starts_with("amazon") || name == "advertiserid"
}

/// The profile that a request is about.
pub static SCOPE_FIELD: HeaderName = HeaderName::from_static("amazon-advertising-api-scope");

/// The beginnings, in lower case, of paths whose operations do not go by [`SCOPE_FIELD`]: what they
/// read and change is named by other fields, by the path or in the body, or is all that the grant
/// gives access to.
const BESIDE_PROFILES: [&str; 13] = [
    "/accounts/",
    "/adsaccounts",
    "/amc/",
    "/billing",
    "/dsp/",
    "/invoicesummaries",
    "/manageraccounts",
    "/measurement/",
    "/mmm/",
    "/partneropportunities",
    "/testaccounts",
    "/v2/dp/",
    "/v2/profiles",
];

/// Whether an operation on `path` does not go by [`SCOPE_FIELD`], in whatever case it is spelled.
pub fn is_beside_profiles(path: &str) -> bool {
    let begins = |prefix: &&str| {
        path.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    };
    // Of version 1: accounts, managerAccounts, sellingAccounts, invitations to combine accounts.
    let is_version_1 = path.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("/adsapi/"));
    let is_of_accounts = || path.to_ascii_lowercase().contains("account");
    BESIDE_PROFILES.iter().any(begins) || is_version_1 && is_of_accounts()
}

/// Which of a region's hosts serves a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// The Ads API.
    Api,
    /// The MCP server.
    Mcp,
}

/// The service of `path`, and whether it wants [`ADS_CLIENT_ID`] too.
pub fn service(path: &str) -> (Service, bool) {
    if path == "/mcp" || path.starts_with("/mcp/") {
        (Service::Mcp, true)
    } else {
        (Service::Api, path.starts_with("/adsApi/"))
    }
}

/// Whether `path` is the MCP server's in all but the case of its letters.
pub fn is_nearly_mcp(path: &str) -> bool {
    let start = path.get(..5).unwrap_or(path);
    service(path).0 == Service::Api && service(&start.to_ascii_lowercase()).0 == Service::Mcp
}

/// Parts of Amazon's wordings for a permission that is missing, in lower case.
const PERMISSION_TEXTS: [&str; 8] = [
    "scope header is missing",
    "no matching advertiser",
    "not authorized to",
    "not authorised to",
    "does not have permission",
    "do not have permission",
    "insufficient permission",
    "access to scope",
];

/// Whether a 401 with this body, in lower case, is about a permission: no token helps.
pub fn is_permission_error(body: &str) -> bool {
    PERMISSION_TEXTS.iter().any(|permission| body.contains(permission))
}

/// Whether a 401 with this body, in lower case, is the gateway's: it comes with good tokens, too.
pub fn is_gateway_error(body: &str) -> bool {
    body.replace(' ', "") == r#"{"message":"unauthorized"}"#
}

/// The profile that a call is about.
pub static PROFILE: HeaderName = HeaderName::from_static("amazon-advertising-api-scope");

/// The class of an error, as Amazon's services name it.
pub static ERROR_TYPE: HeaderName = HeaderName::from_static("x-amzn-errortype");

/// Whether an [`ERROR_TYPE`] says that access is denied; it may come with a 429, and then no wait
/// helps (amzn/ads-advanced-tools-docs#422).
pub fn is_access_denied(error_type: &HeaderValue) -> bool {
    error_type.as_bytes().starts_with(b"AccessDeniedException")
}

/// Marketplaces of each region, as of September 2025.
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

/// The region whose API or MCP host `host` is.
pub fn region_of_host(host: &str) -> Option<Region> {
    let host = host.strip_suffix(":443").unwrap_or(host);
    let is_host = |url: &str| url["https://".len()..].eq_ignore_ascii_case(host);
    let index = |urls: &[&str; 3]| urls.iter().position(|url| is_host(url));
    index(&API).or_else(|| index(&MCP)).map(|index| Region::ALL[index])
}

/// What a region may be called, for errors.
pub const REGION_SPELLING: &str = "a region is na, eu or fe, or a marketplace such as US, DE, JP";

/// The region that `text` means: its name, a marketplace (`DE`), or an API host.
pub fn region(text: &str) -> Option<Region> {
    if let Ok(region) = text.to_ascii_lowercase().parse() {
        return Some(region);
    }
    let host = text.trim_start_matches("https://").trim_end_matches('/');
    if let Some(region) = region_of_host(host) {
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
        for (text, expected) in [
            ("na", Region::Na),
            ("EU", Region::Eu),
            ("us", Region::Na),
            ("DE", Region::Eu),
            ("jp", Region::Fe),
            ("https://advertising-api-fe.amazon.com/", Region::Fe),
            ("advertising-api.amazon.com", Region::Na),
            ("advertising-ai-eu.amazon.com:443", Region::Eu),
        ] {
            assert_eq!(region(text), Some(expected), "{text}");
        }
        for text in ["", "europe", "XX", "advertising-api.amazon.com.example.com", "eu "] {
            assert_eq!(region(text), None, "{text}");
        }
    }

    #[test]
    fn a_path_belongs_to_one_service() {
        for (path, expected) in [
            ("/mcp", (Service::Mcp, true)),
            ("/mcp/lite", (Service::Mcp, true)),
            ("/mcpx", (Service::Api, false)),
            ("/adsApi/v1/query", (Service::Api, true)),
            ("/v2/profiles", (Service::Api, false)),
        ] {
            assert_eq!(service(path), expected, "{path}");
            assert!(!is_nearly_mcp(path), "{path}");
        }
        assert!(["/MCP", "/Mcp/", "/mcP/lite"].into_iter().all(is_nearly_mcp));
        assert!(!["/MCPX", "/mc", "/", "/MC\u{e9}P"].into_iter().any(is_nearly_mcp));
    }

    #[test]
    fn what_does_not_go_by_the_profile_is_found_however_it_is_spelled() {
        for path in [
            "/v2/profiles",
            "/V2/Profiles/1",
            "/managerAccounts",
            "/adsAccounts/list",
            "/accounts/1/dsp/x",
            "/AMC/instances",
            "/billingProfiles/list",
            "/adsApi/v1/query/advertiserAccounts",
            "/adsapi/V1/query/SellingAccounts",
        ] {
            assert!(is_beside_profiles(path), "{path}");
        }
        for path in ["/sp/campaigns/list", "/v2/sp/x", "/adsApi/v1/query/campaigns", "/", "/amcx"] {
            assert!(!is_beside_profiles(path), "{path}");
        }
    }

    #[test]
    fn only_the_legacy_name_of_a_scope_is_another_name() {
        assert_eq!(canonical_scope("cpc_advertising:campaign_management"), SCOPE);
        assert_eq!(canonical_scope("profile"), "profile");
    }

    #[test]
    fn only_amazons_own_hosts_are_amazons() {
        assert!(is_amazon("amazon.com") && is_amazon("www.amazon.com"));
        assert!(!is_amazon("amazon.com.example.com") && !is_amazon("notamazon.com"));
    }
}
