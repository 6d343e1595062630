//! Each rule with what it allows and what it refuses.

use super::*;
use crate::config::McpPins;

fn texts(texts: &[&str]) -> Option<Vec<String>> {
    Some(texts.iter().map(|text| (*text).to_owned()).collect())
}

fn rules(change: impl FnOnce(&mut RulesConfig)) -> Rules {
    let mut config = RulesConfig::default();
    change(&mut config);
    Rules::new(&config)
}

fn fields(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, HeaderValue::from_static(value));
    }
    headers
}

fn judge_with(
    rules: &Rules,
    (method, path): (&str, &str),
    headers: &HeaderMap,
    defaults: &[(HeaderName, HeaderValue)],
) -> Result<(), Denial> {
    rules.judge(&RuledRequest {
        method: &method.parse().unwrap(),
        path,
        service: ads::service(path).0,
        headers,
        defaults,
    })
}

fn judge(rules: &Rules, method: &str, path: &str) -> Result<(), Denial> {
    judge_with(rules, (method, path), &HeaderMap::new(), &[])
}

fn denied(result: Result<(), Denial>) -> (&'static str, Option<String>) {
    let denial = result.expect_err("refused");
    (denial.rule, denial.allow)
}

#[test]
fn without_rules_everything_is_allowed_however_it_is_spelled() {
    let rules = rules(|_| ());
    assert!(rules.sees("acme") && rules.sees("t1~acme"));
    for path in ["/sp/campaigns", "//a/../b", "/%2f", "/v2/profiles", "/mcp"] {
        assert_eq!(judge(&rules, "DELETE", path), Ok(()), "{path}");
    }
    assert_eq!(judge(&rules, "POST", "/MCP"), Ok(()));
    // Which accounts it may use says nothing about paths.
    let rules = self::rules(|rules| rules.accounts = texts(&["acme"]));
    assert_eq!(judge(&rules, "DELETE", "//a/../b"), Ok(()));
}

#[test]
fn an_account_is_seen_if_a_pattern_matches_and_the_session_has_it_too() {
    let rules = rules(|rules| rules.accounts = texts(&["acme", "eu-*"]));
    assert!(rules.sees("acme") && rules.sees("eu-1") && !rules.sees("us-1"));
    assert_eq!(rules.explain_account("acme"), None);
    let denial = rules.explain_account("us-1").unwrap();
    assert_eq!(denial.allow.as_deref(), Some(r#"accounts = ["acme", "eu-*", "us-1"]"#));

    let session = rules.narrowed(texts(&["eu-1", "us-1"]).as_deref(), false);
    assert!(session.sees("eu-1") && !session.sees("acme") && !session.sees("us-1"));
    assert_eq!(session.explain_account("acme").unwrap().allow, None, "no line would help");
    assert!(!rules.narrowed(Some(&[]), false).sees("acme"));
    assert!(rules.narrowed(None, false).sees("acme"));
    let nothing = self::rules(|rules| rules.accounts = Some(Vec::new()));
    assert!(!nothing.sees("acme"));
}

#[test]
fn a_caller_of_one_account_need_not_name_it() {
    let only = |globs: &[&str]| {
        let rules = rules(|rules| rules.accounts = texts(globs));
        rules.only_account().map(str::to_owned)
    };
    assert_eq!(only(&["acme"]).as_deref(), Some("acme"));
    assert_eq!(only(&["acme", "globex"]), None);
    assert_eq!(only(&["acm?"]), None);
    let session = rules(|rules| rules.accounts = texts(&["eu-*"]));
    assert_eq!(session.narrowed(texts(&["eu-1"]).as_deref(), false).only_account(), Some("eu-1"));
    assert_eq!(session.narrowed(texts(&["us-1"]).as_deref(), false).only_account(), None);
}

#[test]
fn a_method_is_allowed_if_it_is_listed() {
    let rules = rules(|rules| rules.methods = texts(&["GET"]));
    assert_eq!(judge(&rules, "GET", "/v2/profiles"), Ok(()));
    let denial = denied(judge(&rules, "POST", "/sp/campaigns/list"));
    assert_eq!(denial, ("methods", Some(r#"methods = ["GET", "POST"]"#.into())));
    // Each call of a tool is a POST, one that writes as well.
    let denial = denied(judge(&rules, "POST", "/mcp"));
    assert_eq!(denial, ("methods", Some(r#"methods = ["GET", "POST"]"#.into())));
    assert_eq!(judge(&rules, "GET", "/mcp"), Ok(()));
}

#[test]
fn no_field_makes_an_allowed_method_another_one() {
    for rules in
        [rules(|rules| rules.methods = texts(&["POST"])), rules(|rules| rules.read_only = true)]
    {
        for name in ["x-http-method-override", "x-http-method", "x-method-override"] {
            let request = ("POST", "/sp/campaigns/list");
            let result = judge_with(&rules, request, &fields(&[(name, "DELETE")]), &[]);
            assert_eq!(denied(result).1, None, "{name}");
            assert_eq!(judge_with(&rules, request, &fields(&[("x-other", "DELETE")]), &[]), Ok(()));
        }
    }
}

#[test]
fn a_path_is_allowed_if_a_pattern_matches_it() {
    let rules = rules(|rules| rules.paths = texts(&["/reporting/*", "/history"]));
    for path in ["/reporting/reports", "/reporting/reports/a-1", "/history"] {
        assert_eq!(judge(&rules, "POST", path), Ok(()), "{path}");
    }
    for (path, glob) in [
        ("/sp/campaigns/list", "/sp/campaigns/*"),
        ("/portfolios", "/portfolios"),
        ("/Reporting/reports", "/Reporting/reports"),
        ("/reporting", "/reporting"),
        ("/mcp", "/mcp"),
    ] {
        let line = format!(r#"paths = ["/reporting/*", "/history", "{glob}"]"#);
        assert_eq!(denied(judge(&rules, "POST", path)), ("paths", Some(line.clone())));
        let allowed = line.strip_prefix("paths = ").unwrap();
        let allowed: Vec<String> = serde_json::from_str(allowed).unwrap();
        let rules = self::rules(|rules| rules.paths = Some(allowed));
        assert_eq!(judge(&rules, "POST", path), Ok(()), "the line allows it");
    }
    assert_eq!(denied(judge(&rules, "GET", "/sp/*/x")).1, None, "the line would allow more");
}

#[test]
fn a_path_that_can_be_read_in_two_ways_is_refused_by_every_rule() {
    for rules in [
        rules(|rules| rules.paths = texts(&["*"])),
        rules(|rules| rules.methods = texts(&["GET"])),
        rules(|rules| rules.read_only = true),
        rules(|rules| rules.profiles = texts(&["1"])),
    ] {
        let headers = fields(&[("amazon-advertising-api-scope", "1")]);
        for path in ["/reporting/../sp", "/reporting/%2e%2e/sp", "/a%2fb", "//a", "/mcp/..;/x"] {
            let result = judge_with(&rules, ("GET", path), &headers, &[]);
            assert_eq!(denied(result), ("path", None), "{path}");
        }
        assert_eq!(judge_with(&rules, ("GET", "/sp/x"), &headers, &[]), Ok(()));
    }
}

#[test]
fn read_only_lets_lists_and_reports_through_and_no_write() {
    let rules = rules(|rules| rules.read_only = true);
    for (method, path) in [
        ("GET", "/v2/profiles"),
        ("POST", "/sp/campaigns/list"),
        ("POST", "/reporting/reports"),
        ("POST", "/mcp"),
    ] {
        assert_eq!(judge(&rules, method, path), Ok(()), "{path}");
    }
    for (method, path) in [
        ("POST", "/sp/campaigns"),
        ("PUT", "/sp/campaigns"),
        ("DELETE", "/reporting/reports/1"),
        ("POST", "/billing/invoices/pay"),
        ("POST", "/recommendations/apply"),
        ("POST", "/MCP"),
    ] {
        let denial = denied(judge(&rules, method, path));
        assert_eq!(denial, ("read_only", Some("read_only = false".into())), "{path}");
    }
    let session = self::rules(|_| ()).narrowed(None, true);
    assert_eq!(denied(judge(&session, "POST", "/sp/campaigns")), ("read_only", None));
    assert_eq!(judge(&session, "POST", "/sp/campaigns/list"), Ok(()));
}

const SCOPE: &str = "amazon-advertising-api-scope";

#[test]
fn a_profile_is_allowed_if_it_is_the_only_one_that_is_named() {
    let rules = rules(|rules| rules.profiles = texts(&["12", "34"]));
    let request = ("POST", "/sp/campaigns/list");
    let judge =
        |sent: &[(&'static str, &'static str)]| judge_with(&rules, request, &fields(sent), &[]);
    assert_eq!(judge(&[(SCOPE, "12")]), Ok(()));
    assert_eq!(judge(&[(SCOPE, "34"), ("accept", "x"), ("amazon-ads-clientid", "x")]), Ok(()));
    let line = r#"profiles = ["12", "34", "56"]"#.to_owned();
    assert_eq!(denied(judge(&[(SCOPE, "56")])), ("profiles", Some(line)));
    for sent in [
        &[][..],
        &[(SCOPE, "")],
        &[(SCOPE, "12x")],
        &[(SCOPE, "12,34")],
        &[(SCOPE, "12"), (SCOPE, "34")],
        &[(SCOPE, "12"), ("amazon-ads-accountid", "x")],
        &[(SCOPE, "12"), ("amazon-advertising-api-manager-account", "x")],
        &[(SCOPE, "12"), ("amazon-advertising-api-advertiserid", "x")],
        &[(SCOPE, "12"), ("advertiserid", "x")],
        &[(SCOPE, "12"), ("connection", "close, Amazon-Advertising-API-Scope")],
    ] {
        assert_eq!(denied(judge(sent)), ("profiles", None), "{sent:?}");
    }
}

#[test]
fn the_accounts_own_headers_count_where_the_caller_sends_none() {
    let rules = rules(|rules| rules.profiles = texts(&["12"]));
    let default = |name: &str, value| (name.parse().unwrap(), HeaderValue::from_static(value));
    let judge = |sent: &[(&'static str, &'static str)], defaults: &[_]| {
        judge_with(&rules, ("POST", "/sp/campaigns/list"), &fields(sent), defaults)
    };
    assert_eq!(judge(&[], &[default(SCOPE, "12")]), Ok(()));
    assert_eq!(judge(&[(SCOPE, "12")], &[default(SCOPE, "99")]), Ok(()));
    assert!(judge(&[], &[default(SCOPE, "99")]).is_err());
    assert!(judge(&[(SCOPE, "99")], &[default(SCOPE, "12")]).is_err());
    let own = [default(SCOPE, "12"), default("amazon-ads-accountid", "x")];
    assert_eq!(judge(&[], &own), Ok(()), "the operator chose it");
    assert_eq!(judge(&[("amazon-ads-accountid", "x")], &own), Ok(()));
    assert!(judge(&[("amazon-ads-accountid", "y")], &own).is_err());
}

#[test]
fn with_profiles_no_path_is_allowed_that_does_not_go_by_the_profile() {
    let rules = rules(|rules| rules.profiles = texts(&["12"]));
    let scope = fields(&[(SCOPE, "12")]);
    for path in [
        "/v2/profiles",
        "/V2/Profiles",
        "/v2/profiles/34",
        "/V2/profiles/12",
        "/managerAccounts",
        "/adsAccounts/list",
        "/amc/instances",
        "/accounts/1/dsp/orders",
        "/adsApi/v1/query/advertiserAccounts",
        "/mcp",
        "/mcp/lite",
    ] {
        let result = judge_with(&rules, ("GET", path), &scope, &[]);
        assert_eq!(denied(result), ("profiles", None), "{path}");
    }
    assert_eq!(judge(&rules, "GET", "/v2/profiles/12"), Ok(()));
    assert!(judge(&rules, "PUT", "/v2/profiles/12").is_err());
    for (pinned, is_allowed) in [("12", true), ("34", false)] {
        let rules = self::rules(|rules| {
            rules.profiles = texts(&["12"]);
            rules.mcp = Some(McpPins { profile: Some(pinned.into()), ..McpPins::default() });
        });
        assert_eq!(judge(&rules, "POST", "/mcp").is_ok(), is_allowed, "{pinned}");
    }
}

#[test]
fn a_denial_names_the_rule_and_the_line() {
    let rules = rules(|rules| rules.paths = texts(&["/reporting/*"]));
    assert_eq!(
        judge(&rules, "POST", "/sp/campaigns/list").unwrap_err().to_string(),
        r#"paths: the path is none of ["/reporting/*"]; to allow it: paths = ["/reporting/*", "/sp/campaigns/*"]"#
    );
}

#[test]
fn who_has_rules_of_tools_or_pins_cannot_spell_the_mcp_server_otherwise() {
    let pins = McpPins { profile: Some("1".into()), account: None, manager: None };
    for rules in [
        rules(|rules| rules.tools = texts(&["*-query_*"])),
        rules(|rules| rules.deny = vec!["*-delete_*".into()]),
        rules(|rules| rules.mcp = Some(pins)),
        rules(|_| ()).narrowed(None, true),
    ] {
        for path in ["//mcp", "/mcp;x", "/%6dcp", "/mcp%2flite", "/MCP", "/Mcp/lite", "/mcp//lite"]
        {
            assert_eq!(denied(judge(&rules, "GET", path)), ("path", None), "{path}");
        }
        for path in ["/mcp", "/mcp/lite", "/v2/profiles", "/MCPX"] {
            assert_eq!(judge(&rules, "GET", path), Ok(()), "{path}");
        }
    }
}

#[test]
fn a_denial_shows_no_key_that_is_in_the_place_of_a_name() {
    let key = format!("adsk_7Fh2kQ9x{}", "Z".repeat(38));
    let rules = rules(|rules| {
        (rules.accounts, rules.paths) = (texts(&["acme"]), texts(&["/reporting/*"]));
        rules.tools = texts(&["query"]);
    });
    let tools = rules.tools.clone().unwrap();
    for (of, named) in [(&*key, "adsk_7Fh2kQ9x[masked]"), ("other", "other")] {
        let path = judge(&rules, "GET", &format!("/{of}/x")).expect_err("refused");
        let account = rules.explain_account(of).expect("refused");
        let tool = tools.explain(of, false).expect("refused");
        for denial in [path, account, tool] {
            let text = format!("{denial:?}");
            assert!(text.contains(named) && !text.contains("ZZZ"), "{text}");
        }
    }
}
