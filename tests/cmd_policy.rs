//! `adsproxy policy explain`: which rule refuses a request, and the line that would allow it.

use crate::support::program::{Home, Said};
use serde_json::{Value, json};

/// A configuration with three callers and an issuer.
fn configured() -> Home {
    let home = Home::new();
    home.write("secret", "a-secret", 0o600);
    let digest = "0".repeat(64);
    let toml = format!(
        r#"
[lwa]
client_id = "amzn1.application-oa2-client.example"
client_secret = {{ file = "./secret" }}
[store]
kind = "memory"
[accounts.acme]
region = "na"
refresh_token = {{ file = "./secret" }}
headers = {{ "Amazon-Advertising-API-Scope" = "12" }}
[accounts."t1~shop"]
region = "na"
refresh_token = {{ file = "./secret" }}
headers = {{ "Amazon-Advertising-API-Scope" = "99" }}
[[callers]]
name = "reports"
keys = [{{ id = "7Fh2kQ9x", sha256 = "{digest}" }}, {{ id = "00000000", sha256 = "{digest}", expires = "2020-01-01" }}]
accounts = ["acme", "eu-*"]
read_only = true
[[callers]]
name = "paths"
unix_uids = [1]
paths = ["/reporting/*"]
methods = ["GET", "POST"]
[[callers]]
name = "profiles"
unix_uids = [2]
profiles = ["12"]
[[callers]]
name = "agent"
unix_uids = [3]
tools = ["*-query_*"]
deny = ["*-delete_*", "amazon_ads_mcp-invoke*"]
[[callers]]
name = "reader"
unix_uids = [4]
read_only = true
paths = ["/mcp"]
[[issuers]]
name = "clerk"
issuer = "https://clerk.example.com"
audience = ["adsproxy"]
profiles = ["12"]
tenants = ["t*"]
"#
    );
    home.write("proxy.toml", &toml, 0o600);
    home
}

fn explain(home: &Home, line: &str) -> Value {
    let said: Said = home.run(&format!("policy explain --json {line}"));
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{line}: {said:?}");
    serde_json::from_str(&said.out).unwrap_or_else(|_| panic!("{said:?}"))
}

#[test]
fn a_refusal_names_the_rule_and_the_line_that_would_allow_it() {
    let home = configured();
    for (line, rule, allow) in [
        ("--caller reports POST /sp/campaigns", "read_only", "read_only = false"),
        (
            "--caller reports --account us-1 GET /v2/profiles",
            "accounts",
            r#"accounts = ["acme", "eu-*", "us-1"]"#,
        ),
        ("--key-id 7Fh2kQ9x POST /billing/invoices/pay", "read_only", "read_only = false"),
        ("--key-id 00000000 GET /v2/profiles", "keys", "adsproxy caller rotate reports"),
        ("--caller paths GET /history", "paths", r#"paths = ["/reporting/*", "/history"]"#),
        (
            "--caller paths delete /reporting/reports/1",
            "methods",
            r#"methods = ["GET", "POST", "DELETE"]"#,
        ),
        ("--issuer clerk --tenant x GET /sp/x", "tenants", r#"tenants = ["t*", "x"]"#),
        ("--caller profiles --profile 34 GET /sp/x", "profiles", r#"profiles = ["12", "34"]"#),
    ] {
        let said = explain(&home, line);
        assert_eq!(said["allowed"], false, "{line}: {said}");
        assert_eq!((&said["rule"], &said["allow"]), (&rule.into(), &allow.into()), "{line}");
    }
}

#[test]
fn what_no_line_would_allow_has_none() {
    let home = configured();
    for line in [
        "--caller paths GET /reporting/%2e%2e/sp",
        "--caller reports GET //v2/profiles",
        "--caller profiles GET /v2/profiles",
        "--caller profiles GET /sp/campaigns",
        "--caller profiles --profile 12 POST /mcp",
        "--issuer clerk --tenant t1 GET /managerAccounts",
    ] {
        let said = explain(&home, line);
        assert_eq!((&said["allowed"], &said["allow"]), (&false.into(), &Value::Null), "{line}");
        assert!(said["reason"].as_str().is_some_and(|reason| reason.len() > 10), "{said}");
    }
}

#[test]
fn what_is_allowed_is_shown_with_its_class() {
    let home = configured();
    for (line, operation) in [
        ("--caller reports --account eu-1 POST /sp/campaigns/list", "read"),
        ("--caller reports --account acme POST /reporting/reports", "report"),
        ("--caller paths POST /reporting/anything?x=/../y", "write"),
        ("--caller profiles --profile 12 PUT /sp/campaigns", "write"),
        ("--caller reports POST /mcp", "mcp"),
    ] {
        let said = explain(&home, line);
        assert_eq!((&said["allowed"], &said["rule"]), (&true.into(), &Value::Null), "{line}");
        assert_eq!(said["operation"], operation, "{line}");
    }
}

#[test]
fn the_headers_of_the_account_count_and_a_tenant_means_its_own() {
    let home = configured();
    let said = explain(&home, "--caller profiles --account acme GET /sp/campaigns");
    assert_eq!(said["allowed"], true, "{said}");
    let said = explain(&home, "--issuer clerk --tenant t1 --account shop GET /sp/campaigns");
    assert_eq!((&said["allowed"], &said["rule"]), (&false.into(), &"profiles".into()));
    assert_eq!((&said["issuer"], &said["tenant"]), (&"clerk".into(), &"t1".into()));
}

#[test]
fn without_json_it_is_for_a_person() {
    let home = configured();
    let said = home.run("policy explain --caller reports POST /recommendations/apply");
    assert_eq!(
        said.out,
        "refused    by [[callers]] reports\n\
         operation  write\n\
         rule       read_only: the operation writes, or is not known to only read\n\
         to allow   read_only = false\n",
        "{said:?}"
    );
    let said = home.run("policy explain --caller reports POST /recommendations/list");
    assert_eq!(said.out, "allowed    by [[callers]] reports\noperation  read\n", "{said:?}");
}

#[test]
fn a_tool_is_judged_on_both_servers_with_the_line_that_refuses_it() {
    let home = configured();
    let (query, create) = ("campaign_management-query_target", "campaign_management-create_target");
    let deny = r#"deny = ["*-delete_*"]"#;
    for (caller, tool, rule, allow, lite, lite_allow) in [
        ("agent", query, None, None, Some("deny"), Some(deny.to_owned())),
        (
            "agent",
            create,
            Some("tools"),
            Some(format!(r#"tools = ["*-query_*", "{create}"]"#)),
            Some("deny"),
            Some(deny.to_owned()),
        ),
        (
            "agent",
            "x-Delete_y",
            Some("deny"),
            Some(r#"deny = ["amazon_ads_mcp-invoke*"]"#.to_owned()),
            Some("deny"),
            Some(deny.to_owned()),
        ),
        ("agent", "amazon_ads_mcp-search_tools", None, None, Some("deny"), Some(deny.to_owned())),
        ("agent", "no/name", Some("tools"), None, Some("deny"), Some(deny.to_owned())),
        (
            "reader",
            create,
            Some("read_only"),
            Some("read_only = false".to_owned()),
            Some("paths"),
            Some(r#"paths = ["/mcp", "/mcp/lite"]"#.to_owned()),
        ),
        (
            "reader",
            query,
            None,
            None,
            Some("paths"),
            Some(r#"paths = ["/mcp", "/mcp/lite"]"#.to_owned()),
        ),
        (
            "reports",
            create,
            Some("read_only"),
            Some("read_only = false".to_owned()),
            Some("read_only"),
            Some("read_only = false".to_owned()),
        ),
        (
            "paths",
            query,
            Some("paths"),
            Some(r#"paths = ["/reporting/*", "/mcp"]"#.to_owned()),
            Some("paths"),
            Some(r#"paths = ["/reporting/*", "/mcp/lite"]"#.to_owned()),
        ),
    ] {
        let argument = tool;
        let said = explain(&home, &format!("--caller {caller} --tool {argument}"));
        for (verdict, rule, allow) in [(&said, rule, allow), (&said["lite"], lite, lite_allow)] {
            assert_eq!(verdict["allowed"], rule.is_none(), "{caller} {tool}: {said}");
            assert_eq!(
                (&verdict["rule"], &verdict["allow"]),
                (&json!(rule), &json!(allow)),
                "{said}"
            );
        }
        assert_eq!((&said["operation"], &said["tool"]), (&json!("mcp"), &json!(argument)));
    }
    let said = explain(&home, "--caller profiles --tool x-y");
    assert_eq!((&said["rule"], &said["lite"]["rule"]), (&json!("profiles"), &json!("profiles")));
}

#[test]
fn the_verdicts_of_a_tool_are_for_a_person_too() {
    let home = configured();
    let said = home.run("policy explain --caller agent --tool x-query_y");
    assert_eq!(
        said.out,
        "allowed    by [[callers]] agent\n\
         operation  mcp\n\
         tool       x-query_y on /mcp\n\
         \n\
         refused    by [[callers]] agent\n\
         operation  mcp\n\
         tool       x-query_y on /mcp/lite, by invoke_tool\n\
         rule       deny: the tool is one of [\"*-delete_*\", \"amazon_ads_mcp-invoke*\"]\n\
         to allow   deny = [\"*-delete_*\"]\n",
        "{said:?}"
    );
    for line in [
        "--caller agent --tool x GET /mcp",
        "--caller agent --tool",
        "--tool x",
        "--caller agent GET",
    ] {
        assert_eq!(home.run(&format!("policy explain {line}")).code, Some(2), "{line}");
    }
}

#[test]
fn who_is_not_there_is_named_with_those_who_are() {
    let home = configured();
    for (line, text) in [
        ("--caller nobody GET /x", "reports, paths, profiles, agent, reader"),
        ("--key-id 1234abcd GET /x", "1234abcd"),
        ("--issuer nobody GET /x", "clerk"),
        ("--caller reports GET x", "begins with /"),
        ("--caller reports --account a/b GET /x", "--account"),
    ] {
        let said = home.run(&format!("policy explain {line}"));
        assert_eq!((said.code, said.out.as_str()), (Some(1), ""), "{line}");
        assert!(said.err.contains(text), "{line}: {said:?}");
    }
    for line in ["GET /x", "--caller a --issuer b GET /x", "--caller a --tenant t GET /x"] {
        assert_eq!(home.run(&format!("policy explain {line}")).code, Some(2), "{line}");
    }
}
