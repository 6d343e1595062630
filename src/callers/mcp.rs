//! Which MCP tools a caller may use: names against globs, and Amazon's names of tools that only read.

pub mod message;

use super::glob::matches_name as matches;
use crate::{
    config::{McpPins, RulesConfig},
    provider::ads,
};
use http::{HeaderName, HeaderValue};
use std::sync::Arc;

/// A tool of the lite server that searches or describes tools: of use to whoever may use any.
const LITE_READERS: [&str; 2] = ["amazon_ads_mcp-search_tools", "amazon_ads_mcp-describe_tools"];
/// The tool of the lite server that runs another one.
const LITE_INVOKE: &str = "invoke_tool";

/// The tool rules of a caller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToolRules {
    /// Globs; none: every tool.
    pub tools: Option<Vec<String>>,
    /// Globs that win over `tools`, whatever the case of letters.
    pub deny: Vec<String>,
    /// Only tools that change nothing.
    pub read_only: bool,
}

/// The header fields that fix a caller's requests to the MCP server to one account; none: what the
/// caller says.
pub fn pins(config: Option<&McpPins>) -> Arc<[(HeaderName, HeaderValue)]> {
    let Some(McpPins { profile, account, manager }) = config else { return Arc::default() };
    let ids =
        [(&ads::PROFILE, profile), (&ads::MCP_ACCOUNT, account), (&ads::MCP_MANAGER, manager)];
    // The configuration has checked that they are such values.
    let ids = ids
        .into_iter()
        .filter_map(|(name, id)| Some((name.clone(), HeaderValue::from_str(id.as_deref()?).ok()?)));
    [(ads::MCP_MODE.clone(), ads::MCP_MODE_FIXED.clone())].into_iter().chain(ids).collect()
}

/// Why a tool may not be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToolRefusal {
    /// A glob of `deny` matches.
    Denied,
    /// No glob of `tools` does.
    NotListed,
    /// It may change something, and the caller may only read.
    Writes,
    /// No tool is called like that.
    Malformed,
}

impl ToolRules {
    /// None if there is no rule: nothing is read then.
    pub fn new(config: &RulesConfig) -> Option<Arc<Self>> {
        let RulesConfig { tools, deny, read_only, .. } = config;
        let rules = Self { tools: tools.clone(), deny: deny.clone(), read_only: *read_only };
        (rules != Self::default()).then(|| Arc::new(rules))
    }

    /// `rules`, and only tools that read.
    pub fn only_reading(rules: Option<&Self>) -> Arc<Self> {
        Arc::new(Self { read_only: true, ..rules.cloned().unwrap_or_default() })
    }

    /// Whether the caller may use the tool `name`.
    pub fn check(&self, name: &str) -> Result<(), ToolRefusal> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
        if name.is_empty() || name.len() > 128 || !name.bytes().all(allowed) {
            return Err(ToolRefusal::Malformed);
        }
        let lower = name.to_ascii_lowercase();
        if self.deny.iter().any(|glob| matches(&glob.to_ascii_lowercase(), &lower)) {
            return Err(ToolRefusal::Denied);
        }
        // What it runs is checked for itself.
        if LITE_READERS.contains(&name) || runs_another(name) {
            return Ok(());
        }
        if self.tools.as_ref().is_some_and(|tools| !tools.iter().any(|glob| matches(glob, name))) {
            return Err(ToolRefusal::NotListed);
        }
        if self.read_only && !only_reads(name) {
            return Err(ToolRefusal::Writes);
        }
        Ok(())
    }
}

/// Whether the tool runs the one that its arguments name.
fn runs_another(name: &str) -> bool {
    name.to_ascii_lowercase().ends_with(LITE_INVOKE)
}

/// Whether the tool `name` changes nothing: Amazon calls its tools `<namespace>-<verb>_<thing>`. To
/// make a report counts as reading. A name that is not known here is that of a writer.
///
/// Source: lists of the tools in public repositories, read 2026-11-29.
pub fn only_reads(name: &str) -> bool {
    let Some((namespace, action)) = name.split_once('-') else { return false };
    let verb = action.split('_').next().unwrap_or_default();
    match namespace {
        "reporting" if action.ends_with("_report") && verb == "create" => true,
        "eligibility" => matches!(action, "product_list" | "programs"),
        _ => {
            matches!(verb, "check" | "describe" | "get" | "list" | "query" | "retrieve" | "search")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(tools: Option<&[&str]>, deny: &[&str], read_only: bool) -> ToolRules {
        let owned = |globs: &[&str]| globs.iter().map(|glob| (*glob).to_owned()).collect();
        ToolRules { tools: tools.map(owned), deny: owned(deny), read_only }
    }

    #[test]
    fn deny_wins_and_what_is_not_listed_is_refused() {
        let rules = rules(Some(&["*-query_*", "reporting-*"]), &["*-delete_*"], false);
        for (name, expected) in [
            ("campaign_management-query_campaign", Ok(())),
            ("reporting-create_report", Ok(())),
            ("reporting-delete_report", Err(ToolRefusal::Denied)),
            ("reporting-DELETE_report", Err(ToolRefusal::Denied)),
            ("campaign_management-create_campaign", Err(ToolRefusal::NotListed)),
            ("campaign_management-Query_campaign", Err(ToolRefusal::NotListed)),
            ("amazon_ads_mcp-search_tools", Ok(())),
            ("amazon_ads_mcp-invoke_tool", Ok(())),
            ("", Err(ToolRefusal::Malformed)),
            ("reporting-x y", Err(ToolRefusal::Malformed)),
            ("reporting-\u{17f}", Err(ToolRefusal::Malformed)),
        ] {
            assert_eq!(rules.check(name), expected, "{name}");
        }
        let all = super::ToolRules::default();
        assert!(all.check("campaign_management-delete_campaign").is_ok());
    }

    #[test]
    fn a_list_of_tools_to_deny_covers_the_lite_server_too() {
        let rules = rules(None, &["amazon_ads_mcp-invoke*"], false);
        assert_eq!(rules.check("amazon_ads_mcp-invoke_tool"), Err(ToolRefusal::Denied));
        assert_eq!(rules.check("amazon_ads_mcp-search_tools"), Ok(()));
        assert_eq!(rules.check("campaign_management-create_campaign"), Ok(()));
    }

    #[test]
    fn a_session_that_may_only_read_keeps_the_rules_of_its_caller() {
        let rules = rules(Some(&["campaign_management-*"]), &["*_target"], false);
        let session = ToolRules::only_reading(Some(&rules));
        for (name, expected) in [
            ("campaign_management-query_campaign", Ok(())),
            ("campaign_management-create_campaign", Err(ToolRefusal::Writes)),
            ("campaign_management-query_target", Err(ToolRefusal::Denied)),
            ("reporting-create_report", Err(ToolRefusal::NotListed)),
        ] {
            assert_eq!(session.check(name), expected, "{name}");
        }
        let free = ToolRules::only_reading(None);
        assert_eq!(free.check("x-delete_y"), Err(ToolRefusal::Writes));
        assert_eq!(ToolRules::new(&RulesConfig::default()), None, "nothing is read");
    }

    #[test]
    fn pins_fix_the_mode_and_name_one_account() {
        assert!(pins(None).is_empty());
        let some = |text: &str| Some(text.to_owned());
        let config = McpPins { profile: some("1"), account: None, manager: some("m") };
        let pins = pins(Some(&config));
        let pins: Vec<_> =
            pins.iter().map(|(name, id)| (name.as_str(), id.to_str().expect("text"))).collect();
        assert_eq!(
            pins,
            [
                ("amazon-ads-ai-account-selection-mode", "FIXED"),
                ("amazon-advertising-api-scope", "1"),
                ("amazon-ads-manager-accountid", "m"),
            ]
        );
    }

    /// Names that were seen with Amazon's server.
    #[test]
    fn only_known_readers_read() {
        for name in [
            "account_management-query_advertiser_account",
            "ads_accounts-get_ads_account",
            "ads_accounts-list_ads_accounts",
            "amazon_ads_mcp-describe_tools",
            "billing-list_invoices",
            "campaign_management-check_product_eligibility",
            "campaign_management-query_target",
            "eligibility-product_list",
            "eligibility-programs",
            "reporting-create_campaign_report",
            "reporting-create_report",
            "reporting-retrieve_report",
            "user_invitation-get",
        ] {
            assert!(only_reads(name), "{name}");
        }
        for name in [
            "account_management-update_account_timezone",
            "amazon_ads_mcp-invoke_tool",
            "billing-pay_invoices",
            "campaign_management-create_campaign",
            "campaign_management-create_report",
            "campaign_management-delete_target",
            "campaign_management-dsp_create_conversion_tracking_products",
            "campaign_management-update_target_bid",
            "campaign_management-getaway_campaign",
            "reporting-delete_report",
            "reporting-create_schedule",
            "query_campaign",
            "query",
            "",
        ] {
            assert!(!only_reads(name), "{name}");
        }
    }

    #[test]
    fn a_star_covers_any_characters_and_a_question_mark_one() {
        for (glob, text, expected) in [
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*-query_*", "x-query_", true),
            ("*-query_*", "x-query", false),
            ("*ab*ab", "abxab", true),
            ("*ab*ab", "ab", false),
            ("a*b*c*d", "a-bb-cc-d", true),
            ("reporting-*", "xreporting-a", false),
        ] {
            assert_eq!(matches(glob, text), expected, "{glob} {text}");
        }
        assert!(!matches(&"a*".repeat(60), &"a".repeat(59)));
    }
}
