//! Fuzz targets of who calls and what it may: keys, patterns, rules, calls of tools.

use super::{
    credential::{self, Presented},
    glob::{AccountGlob, PathGlob},
    key::{KeyDigest, KeyId, PresentedKey},
    mcp::{
        ToolRules,
        message::{ToolUse, filter_tools},
    },
    rules::{RuledRequest, Rules},
    sessions::SessionPlace,
};
use crate::{
    config::RulesConfig,
    fuzz::{Target, fields, head, text},
    inbound::fields::Fields,
    provider::{
        ads::{self, Service},
        operations::{OperationClass, classify},
    },
};
use http::{HeaderMap, Method};
use percent_encoding::percent_decode_str;
use serde_json::Value;

pub const TARGETS: &[Target] = &[
    Target { name: "caller_key", run: key, seeds: KEYS },
    Target { name: "credential", run: found_credential, seeds: CREDENTIALS },
    Target {
        name: "glob",
        run: glob,
        seeds: &["eu-*\neu-west", "*a?b~*\nt1~ab", "/sp/*/list\n/sp/a/list"],
    },
    Target { name: "rules", run: rules, seeds: REQUESTS },
    Target { name: "mcp_message", run: message, seeds: MESSAGES },
    super::jwt::fuzz::TARGETS[0],
    super::jwt::fuzz::TARGETS[1],
];

const KEYS: &[&str] = &[
    "adsk_7Fh2kQ9xZQZQZQZQZQZQZQZQZQZQZQZQZQZQZQZQ3KXsOp",
    "1795132800.7Fh2kQ9x",
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
];

/// What is accepted is shown by its beginning, and with another character in any place it is no key.
fn key(input: &[u8]) {
    let Some(text) = text(input) else { return };
    if let Ok(id) = text.parse::<KeyId>() {
        assert_eq!(id.as_str(), text);
    }
    if let Ok(digest) = text.parse::<KeyDigest>() {
        assert_eq!(digest.hex(), text.to_ascii_lowercase());
        assert!(digest.hex().parse::<KeyDigest>().is_ok_and(|again| again == digest));
    }
    if let Ok(place) = text.parse::<SessionPlace>() {
        assert_eq!(place.to_string().parse::<SessionPlace>(), Ok(place));
    }
    let Ok(key) = PresentedKey::parse(text) else { return };
    assert_eq!(&text[..13], key.to_string());
    for at in 0..text.len() {
        let mut other = text.as_bytes().to_vec();
        other[at] = if other[at] == b'0' { b'1' } else { b'0' };
        let other = String::from_utf8(other).expect("ASCII");
        assert!(PresentedKey::parse(&other).is_err(), "{other} is a key, too");
    }
}

const CREDENTIALS: &[&str] = &[
    "x-ads-key: adsk_a",
    "authorization: Bearer Atza|adsk_a\nproxy-authorization: Basic dTphZHNrX2E=",
    "authorization: bearer  eyJh.e30.x\nauthorization: Bearer Atza%7cadss_a",
    "proxy-authorization: Basic YWRza19hOg==\nx-ads-key: a",
];

/// At most one credential is found, and one that is found without tokens is found with them, or is one
/// of several.
fn found_credential(input: &[u8]) {
    let Some(headers) = fields(input.split(|byte| *byte == b'\n')) else { return };
    let fields = Fields::of(&headers);
    let is_by_field = headers.contains_key("x-ads-key");
    let without = credential::find(&headers, &fields, false);
    match credential::find(&headers, &fields, true) {
        Ok(Presented::Key(key)) => {
            assert!(is_by_field || credential::is_key(&key));
            assert!(matches!(without, Ok(Presented::Key(other)) if other == key));
        }
        Ok(Presented::Token(token)) => {
            assert!(token.starts_with("eyJ") && matches!(without, Ok(Presented::None)));
        }
        Ok(Presented::None) => assert!(!is_by_field && matches!(without, Ok(Presented::None))),
        Err(_) => {}
    }
}

/// A line is the pattern, the next one the text: the fast matcher says what a slow and simple one does.
fn glob(input: &[u8]) {
    let Some((pattern, name)) = text(input).and_then(|text| text.split_once('\n')) else { return };
    if pattern.len() > 24 || name.len() > 24 {
        return;
    }
    let matches = |is_name| simple_match(pattern.as_bytes(), name.as_bytes(), is_name);
    assert_eq!(AccountGlob::new(pattern).matches(name), matches(true), "{pattern:?} {name:?}");
    assert_eq!(PathGlob::new(pattern).matches(name), matches(false), "{pattern:?} {name:?}");
}

/// By a table: `row[n]` says whether the pattern so far is all of the first `n` bytes.
fn simple_match(pattern: &[u8], text: &[u8], is_name: bool) -> bool {
    let mut row = vec![false; text.len() + 1];
    row[0] = true;
    for wanted in pattern {
        let before = row.clone();
        row[0] = before[0] && *wanted == b'*';
        for (at, byte) in text.iter().enumerate() {
            let takes = !(is_name && *byte == b'~');
            row[at + 1] = match wanted {
                b'*' => before[at + 1] || row[at] && takes,
                b'?' if is_name => before[at] && (takes || byte == wanted),
                _ => before[at] && byte == wanted,
            };
        }
    }
    row[text.len()]
}

const REQUESTS: &[&str] = &[
    "POST /sp/campaigns/list 1\namazon-advertising-api-scope: 7",
    "GET /v2/profiles/7 1",
    "POST /reporting/reports 1\nx-http-method-override: PUT\namazon-advertising-api-scope: 7",
    "GET /stores/a%7Cb%3A%40/insights 1\nconnection: Amazon-Advertising-API-Scope",
    "POST /mcp/lite 1\namazon-ads-accountid: x",
    "POST /MCP 1",
    "GET /sp/%2e%2e/billing 1",
    "GET /sp/..;/billing 1",
];

/// A path that is judged is read in one way only: the same path after the decoding and tidying that a
/// gateway may do. What may only be read does not write, and a profile that is pinned is the one sent.
fn rules(input: &[u8]) {
    let Some(head) = head(input).filter(|head| head.uri.path().starts_with('/')) else { return };
    let path = head.uri.path();
    let owned =
        |texts: &[&str]| -> Vec<String> { texts.iter().map(|it| (*it).to_owned()).collect() };
    let (service, _) = ads::service(path);
    let request =
        RuledRequest { method: &head.method, path, service, headers: &head.headers, defaults: &[] };
    let reading = Rules::new(&RulesConfig { read_only: true, ..RulesConfig::default() });
    let of_paths = Rules::new(&RulesConfig {
        paths: Some(owned(&["/sp/*", "/reporting/*", "/v2/*"])),
        methods: Some(owned(&["GET", "POST"])),
        ..RulesConfig::default()
    });
    let of_profiles =
        Rules::new(&RulesConfig { profiles: Some(owned(&["7"])), ..RulesConfig::default() });
    if reading.judge(&request).is_ok() {
        assert_one_reading(path);
        assert!(service == Service::Mcp || classify(&head.method, path) != OperationClass::Write);
        let is_mcp = |path: &str| path == "/mcp" || path.starts_with("/mcp/");
        assert_eq!(service == Service::Mcp, is_mcp(&path.to_ascii_lowercase()), "{path}");
    }
    if of_paths.judge(&request).is_ok() {
        assert_one_reading(path);
        assert!(["/sp/", "/reporting/", "/v2/"].iter().any(|start| path.starts_with(start)));
        assert!([Method::GET, Method::POST].contains(&head.method));
    }
    if of_profiles.judge(&request).is_ok() {
        assert_one_reading(path);
        assert_only_profile(&head.headers, path);
    }
}

/// Asserts that decoding and tidying `path` change nothing of its structure.
fn assert_one_reading(path: &str) {
    let decoded = percent_decode_str(path).decode_utf8().expect("UTF-8");
    let segments: Vec<_> = path.split('/').collect();
    assert_eq!(decoded.split('/').count(), segments.len(), "{path}");
    let inner = &segments[1..segments.len() - 1];
    assert!(!inner.contains(&""), "{path}");
    for segment in decoded.split('/') {
        assert!(
            !matches!(segment, "." | "..") && !segment.contains(['\\', ';', '?', '#', '%']),
            "{path}"
        );
        assert!(!segment.contains(|c: char| c.is_control() || !c.is_ascii()), "{path}");
    }
}

/// Asserts that the one scope is 7, or that its profile is asked for.
fn assert_only_profile(headers: &HeaderMap, path: &str) {
    let scopes: Vec<_> = headers.get_all(&ads::SCOPE_FIELD).iter().collect();
    assert!(scopes.iter().all(|scope| *scope == "7") && scopes.len() < 2, "{headers:?}");
    assert!(
        scopes.len() == 1 && !ads::is_beside_profiles(path) || path == "/v2/profiles/7",
        "{path}"
    );
    assert!(!headers.contains_key("advertiserid") && !headers.contains_key(&ads::MCP_ACCOUNT));
}

const MESSAGES: &[&str] = &[
    r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"campaign-query_campaign","arguments":{}}}"#,
    r#"[{"method":"tools/list","id":"a"},{"method":"tools/call","params":{"name":"amazon_ads_mcp-invoke_tool","arguments":{"tool_name":"a-list_b","parameters":{"name":"a-get_c"}}}}]"#,
    r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"a-create_b"},{"name":"a-list_b"},7]}}"#,
    r#"{"method":"TOOLS/call","Method":"tools/call","params":{"n\u0061me":"a-delete_b"}}"#,
];

/// What a lenient reader takes for a call is one that was judged; a list holds what may be used only.
fn message(input: &[u8]) {
    let config = RulesConfig {
        tools: Some(vec!["*-list_*".to_owned(), "campaign-*".to_owned()]),
        deny: vec!["*secret*".to_owned()],
        read_only: true,
        ..RulesConfig::default()
    };
    let rules = ToolRules::new(&config).expect("rules");
    let read = serde_json::from_slice::<Value>(input);
    if let Ok(asked) = ToolUse::of(input, &rules)
        && asked.is_allowed()
    {
        let read = read.as_ref().expect("JSON for one is JSON for the other");
        let messages = read.as_array().map_or(std::slice::from_ref(read), Vec::as_slice);
        messages.iter().for_each(|message| assert_allowed(message, &rules));
        assert!(asked.calls.len() <= 100 && asked.refused().next().is_none());
    } else if let Ok(asked) = ToolUse::of(input, &rules) {
        assert!(asked.refused().next().is_some());
        let _ = asked.rejection();
    }
    let Ok(mut response) = read else { return };
    filter_tools(&mut response, &rules);
    assert!(!filter_tools(&mut response, &rules), "a list is filtered once more");
    if let Some(Value::Array(tools)) = response.pointer("/result/tools") {
        let is_allowed =
            |tool: &Value| tool["name"].as_str().is_some_and(|it| rules.check(it).is_ok());
        assert!(tools.iter().all(is_allowed));
    }
}

/// Asserts that `message` calls no tool that may not be, for a reader that minds neither the case of
/// letters nor blanks.
fn assert_allowed(message: &Value, rules: &ToolRules) {
    let plain = |text: &str| text.trim().to_ascii_lowercase();
    let member = |object: &Value, name: &str| {
        let members = object.as_object().into_iter().flatten();
        members.filter(|(key, _)| plain(key) == name).map(|(_, value)| value.clone()).next_back()
    };
    let method = member(message, "method").unwrap_or_default();
    if plain(method.as_str().unwrap_or_default()) != "tools/call" {
        return;
    }
    let params = member(message, "params").unwrap_or_default();
    let name = member(&params, "name").unwrap_or_default();
    let name = name.as_str().expect("a call has a name");
    assert!(rules.check(name).is_ok(), "{name}");
    if plain(name).ends_with("invoke_tool") {
        let arguments = member(&params, "arguments").unwrap_or_default();
        let inner = arguments.as_object().into_iter().flatten().filter_map(|(_, it)| it.as_str());
        inner.for_each(|inner| assert!(rules.check_inside(inner).is_ok(), "{inner}"));
    }
}
