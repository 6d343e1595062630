//! Which MCP tools a caller may use: names against globs, and Amazon's names of tools that only read.

pub mod message;

use super::{
    denial::{Denial, ReadOnlyBecause, list},
    glob::matches_name as matches,
};
use crate::{
    config::{McpPins, RulesConfig},
    inbound::path_key::masked,
    provider::ads,
};
use http::{HeaderName, HeaderValue};
use std::sync::Arc;

/// A tool of the lite server that searches or describes tools: of use to whoever may use any.
const LITE_READERS: [&str; 2] = ["amazon_ads_mcp-search_tools", "amazon_ads_mcp-describe_tools"];
/// The tool of the lite server that runs another one.
const LITE_INVOKE: &str = "invoke_tool";
/// Its whole name.
const LITE_INVOKE_NAME: &str = "amazon_ads_mcp-invoke_tool";

/// The tool rules of a caller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToolRules {
    /// Globs; none: every tool.
    pub tools: Option<Vec<String>>,
    /// Globs that win over `tools`, whatever the case of letters.
    pub deny: Vec<String>,
    /// Only tools that change nothing.
    read_only: Option<ReadOnlyBecause>,
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

/// Why a tool may not be used, or a request that may call one is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToolRejection {
    /// A glob of `deny` matches.
    Denied,
    /// No glob of `tools` does.
    NotListed,
    /// It may change something, and the caller may only read.
    Writes,
    /// No tool is called like that.
    Malformed,
    /// It runs another tool, which is not named in a way that all readers understand alike.
    Hidden,
    /// A tool that runs another one is run by one.
    Nested,
    /// The request cannot be read for certain.
    Unreadable,
}

impl ToolRules {
    /// None if there is no rule: nothing is read then.
    pub fn new(config: &RulesConfig) -> Option<Arc<Self>> {
        let RulesConfig { tools, deny, read_only, .. } = config;
        let read_only = read_only.then_some(ReadOnlyBecause::Rule);
        let rules = Self { tools: tools.clone(), deny: deny.clone(), read_only };
        (rules != Self::default()).then(|| Arc::new(rules))
    }

    /// `rules`, and only tools that read.
    pub fn of_reading_session(rules: Option<&Self>) -> Arc<Self> {
        let mut rules = rules.cloned().unwrap_or_default();
        rules.read_only = rules.read_only.or(Some(ReadOnlyBecause::Session));
        Arc::new(rules)
    }

    /// Whether the caller may use the tool `name`.
    pub fn check(&self, name: &str) -> Result<(), ToolRejection> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
        if name.is_empty() || name.len() > 128 || !name.bytes().all(allowed) {
            return Err(ToolRejection::Malformed);
        }
        if self.denies(name) {
            return Err(ToolRejection::Denied);
        }
        // What it runs is checked for itself.
        if LITE_READERS.contains(&name) || runs_another(name) {
            return Ok(());
        }
        if self.tools.as_ref().is_some_and(|tools| !tools.iter().any(|glob| matches(glob, name))) {
            return Err(ToolRejection::NotListed);
        }
        if self.read_only.is_some() && !only_reads(name) {
            return Err(ToolRejection::Writes);
        }
        Ok(())
    }

    /// Whether the caller may have the tool `name` run by one that runs others.
    pub fn check_inside(&self, name: &str) -> Result<(), ToolRejection> {
        if runs_another(name) { Err(ToolRejection::Nested) } else { self.check(name) }
    }

    /// Why the tool `name` is refused, if it is; `is_lite` where the lite server's `invoke_tool` is
    /// to run it.
    pub fn explain(&self, name: &str, is_lite: bool) -> Option<Denial> {
        let refused = |tool: &str, verdict: Result<(), ToolRejection>| {
            verdict.err().map(|rejection| self.denial(rejection, tool))
        };
        match is_lite {
            false => refused(name, self.check(name)),
            true => refused(LITE_INVOKE_NAME, self.check(LITE_INVOKE_NAME))
                .or_else(|| refused(name, self.check_inside(name))),
        }
    }

    fn denies(&self, name: &str) -> bool {
        self.deny.iter().any(|glob| denied_by(glob, name))
    }

    /// Why the tool `name` is refused. Names it only in the line that would allow it.
    pub fn denial(&self, rejection: ToolRejection, name: &str) -> Denial {
        let texts = |globs: &[String]| list(&globs.iter().map(String::as_str).collect::<Vec<_>>());
        let because = |why: &str| Denial { rule: self.key(), why: why.to_owned(), allow: None };
        match rejection {
            ToolRejection::Denied => {
                let rest = self.deny.iter().filter(|glob| !denied_by(glob, name)).cloned();
                let allow = Some(format!("deny = {}", texts(&rest.collect::<Vec<_>>())));
                let why = format!("the tool is one of {}", texts(&self.deny));
                Denial { rule: "deny", why, allow }
            }
            ToolRejection::NotListed => {
                let listed = self.tools.clone().unwrap_or_default();
                let why = format!("the tool is none of {}", texts(&listed));
                let allow = [listed, vec![masked(name).into_owned()]].concat();
                Denial { rule: "tools", why, allow: Some(format!("tools = {}", texts(&allow))) }
            }
            ToolRejection::Writes => {
                let because = self.read_only.unwrap_or(ReadOnlyBecause::Rule);
                because.denial("the tool writes, or is not known to only read")
            }
            ToolRejection::Malformed => because("no tool has such a name"),
            ToolRejection::Hidden => because("which tool invoke_tool is to run is not certain"),
            ToolRejection::Nested => because("invoke_tool is to run a tool that runs another one"),
            ToolRejection::Unreadable => {
                because("what the request calls cannot be read for certain")
            }
        }
    }

    /// A key of the configuration for which requests are read.
    fn key(&self) -> &'static str {
        match self {
            Self { tools: Some(_), .. } => "tools",
            Self { deny, .. } if !deny.is_empty() => "deny",
            _ => "read_only",
        }
    }
}

fn denied_by(glob: &str, name: &str) -> bool {
    matches(&glob.to_ascii_lowercase(), &name.to_ascii_lowercase())
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
        let read_only = read_only.then_some(ReadOnlyBecause::Rule);
        ToolRules { tools: tools.map(owned), deny: owned(deny), read_only }
    }

    #[test]
    fn deny_wins_and_what_is_not_listed_is_refused() {
        let rules = rules(Some(&["*-query_*", "reporting-*"]), &["*-delete_*"], false);
        for (name, expected) in [
            ("campaign_management-query_campaign", Ok(())),
            ("reporting-create_report", Ok(())),
            ("reporting-delete_report", Err(ToolRejection::Denied)),
            ("reporting-DELETE_report", Err(ToolRejection::Denied)),
            ("campaign_management-create_campaign", Err(ToolRejection::NotListed)),
            ("campaign_management-Query_campaign", Err(ToolRejection::NotListed)),
            ("amazon_ads_mcp-search_tools", Ok(())),
            ("amazon_ads_mcp-invoke_tool", Ok(())),
            ("", Err(ToolRejection::Malformed)),
            ("reporting-x y", Err(ToolRejection::Malformed)),
            ("reporting-\u{17f}", Err(ToolRejection::Malformed)),
        ] {
            assert_eq!(rules.check(name), expected, "{name}");
        }
        let all = super::ToolRules::default();
        assert!(all.check("campaign_management-delete_campaign").is_ok());
    }

    #[test]
    fn a_list_of_tools_to_deny_covers_the_lite_server_too() {
        let rules = rules(None, &["amazon_ads_mcp-invoke*"], false);
        assert_eq!(rules.check("amazon_ads_mcp-invoke_tool"), Err(ToolRejection::Denied));
        assert_eq!(rules.check("amazon_ads_mcp-search_tools"), Ok(()));
        assert_eq!(rules.check("campaign_management-create_campaign"), Ok(()));
    }

    #[test]
    fn a_session_that_may_only_read_keeps_the_rules_of_its_caller() {
        let rules = rules(Some(&["campaign_management-*"]), &["*_target"], false);
        let session = ToolRules::of_reading_session(Some(&rules));
        for (name, expected) in [
            ("campaign_management-query_campaign", Ok(())),
            ("campaign_management-create_campaign", Err(ToolRejection::Writes)),
            ("campaign_management-query_target", Err(ToolRejection::Denied)),
            ("reporting-create_report", Err(ToolRejection::NotListed)),
        ] {
            assert_eq!(session.check(name), expected, "{name}");
        }
        let free = ToolRules::of_reading_session(None);
        assert_eq!(free.check("x-delete_y"), Err(ToolRejection::Writes));
        assert_eq!(ToolRules::new(&RulesConfig::default()), None, "nothing is read");
    }

    #[test]
    fn a_refusal_names_the_line_that_refuses_and_one_that_would_allow() {
        let both = rules(Some(&["a-*"]), &["*-Delete_*", "*_x"], false);
        let session = ToolRules::of_reading_session(Some(&both));
        let own = rules(None, &[], true);
        let why = |rules: &ToolRules, name: &str| {
            let rejection = rules.check(name).expect_err("refused");
            let Denial { rule, why, allow } = rules.denial(rejection, name);
            (rule, why, allow)
        };
        let line = |line: &str| Some(line.to_owned());
        let (rule, text, allow) = why(&both, "a-delete_b");
        assert_eq!((rule, allow), ("deny", line(r#"deny = ["*_x"]"#)));
        assert_eq!(text, r#"the tool is one of ["*-Delete_*", "*_x"]"#);
        assert_eq!(why(&both, "a-delete_x").2, line("deny = []"));
        let (rule, text, allow) = why(&both, "b-get");
        assert_eq!((rule, allow), ("tools", line(r#"tools = ["a-*", "b-get"]"#)));
        assert_eq!(text, r#"the tool is none of ["a-*"]"#);
        assert_eq!(
            (why(&own, "a-b").0, why(&own, "a-b").2),
            ("read_only", line("read_only = false"))
        );
        let (rule, text, allow) = why(&session, "a-create_b");
        assert!(rule == "read_only" && text.contains("session") && allow.is_none(), "{text}");
        let (rule, text, allow) = why(&both, "Atza|canary");
        assert!(rule == "tools" && allow.is_none() && !text.contains("canary"), "{text}");
    }

    #[test]
    fn the_lite_server_needs_both_tools() {
        let no_invoke = rules(None, &["*-invoke*"], false);
        assert_eq!(no_invoke.explain("a-get", true).expect("refused").rule, "deny");
        assert_eq!(no_invoke.explain("a-get", false), None);
        let listed = rules(Some(&["a-*"]), &[], false);
        assert_eq!(listed.explain("a-get", true), None);
        assert_eq!(listed.explain("b-get", true).expect("refused").rule, "tools");
        let nested = listed.explain("a-invoke_tool", true).expect("refused");
        assert!(nested.why.contains("runs another"), "{nested}");
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
