//! Callers with MCP rules: the tools that they may call and see, and the account they are pinned to.

use crate::support::{
    callers::TestCaller,
    extras,
    proxy::{Answer, Proxy, Setup, amazon, eventually},
    socket::{Act, Upstream, Wire},
    wire,
};
use adsproxy::sandbox::{ApiFault, Emulator, SeenRequest, Surface, Times};
use flate2::{Compression, write::GzEncoder};
use http::Method;
use serde_json::{Value, json};
use std::{
    fs,
    io::Write as _,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::sync::mpsc;

const QUERY: &str = "campaign_management-query_campaign";
const CREATE: &str = "campaign_management-create_campaign";
const DELETE: &str = "campaign_management-delete_campaign";
const INVOKE: &str = "amazon_ads_mcp-invoke_tool";
const RULES: &str = "tools = [\"*-query_*\", \"reporting-*\"]\ndeny = [\"*-delete_*\"]";
const JSON: &str = "Content-Type: application/json\r\n";

/// An agent with `rules`, and a proxy in front of the emulator that knows it.
async fn agent(rules: &str, more: &str) -> (Emulator, TestCaller, Proxy) {
    let amazon = amazon().await;
    amazon.state().api.configure(|api| api.mcp_interval = Duration::ZERO);
    let caller = TestCaller::new("agent", rules);
    let toml = format!("{more}{}", caller.toml);
    let proxy = Proxy::with(&amazon, Setup { toml, ..Setup::default() });
    (amazon, caller, proxy)
}

fn post(proxy: &Proxy, path: &str, lines: &str, body: impl AsRef<[u8]>) -> Answer {
    let body = body.as_ref();
    let head = format!(
        "POST /a/acme{path} HTTP/1.1\r\nHost: localhost\r\n{lines}Content-Length: {}\r\n\r\n",
        body.len()
    );
    Wire::open(proxy.addr).send([head.as_bytes(), body].concat()).answer()
}

fn call(id: u32, name: &str, arguments: &Value) -> Value {
    let params = json!({ "name": name, "arguments": arguments });
    json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params })
}

fn list(id: u32) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "method": "tools/list" })
}

fn seen(amazon: &Emulator) -> Vec<SeenRequest> {
    let seen = amazon.state().record.requests_for(Surface::Api);
    amazon.state().record.clear();
    seen
}

fn names(list: &Value) -> Vec<&str> {
    let tools = list["result"]["tools"].as_array().expect("tools").iter();
    tools.map(|tool| tool["name"].as_str().expect("a name")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_lists_and_calls_only_what_it_may_and_goes_on_after_an_error() {
    if extras::node().is_none() {
        return;
    }
    let (amazon, caller, proxy) = agent(RULES, "").await;
    let run = |path: &str, calls: &[&str]| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tools/clients/agent.js");
        let mut node = extras::node().expect("it was here");
        node.args([script, &proxy.url(path), &caller.key]).args(calls);
        let output = node.output().expect("the agent runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said} {}", String::from_utf8_lossy(&output.stderr));
        said
    };
    assert_eq!(
        run("/a/acme/mcp", &[QUERY, DELETE, CREATE, QUERY]),
        format!(
            "tools {QUERY} reporting-create_report\n\
             result Sandbox campaign, by {QUERY}\n\
             error McpError -32602 MCP error -32602: This tool is not allowed.\n\
             error McpError -32602 MCP error -32602: This tool is not allowed.\n\
             result Sandbox campaign, by {QUERY}\n"
        )
    );
    let invoke = |name: &str| format!("{INVOKE}={name}");
    assert_eq!(
        run("/a/acme/mcp/lite", &[&invoke(QUERY), &invoke(DELETE), &invoke(QUERY)]),
        format!(
            "tools amazon_ads_mcp-search_tools amazon_ads_mcp-describe_tools {INVOKE}\n\
             result Sandbox campaign, by {QUERY}\n\
             error McpError -32602 MCP error -32602: This tool is not allowed.\n\
             result Sandbox campaign, by {QUERY}\n"
        )
    );
    let bodies: Vec<_> = seen(&amazon).into_iter().map(|seen| seen.body).collect();
    assert!(bodies.iter().any(|body| body.windows(QUERY.len()).any(|at| at == QUERY.as_bytes())));
    assert!(!format!("{bodies:?}").contains(DELETE), "a denied call reached Amazon");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_call_is_an_error_of_the_protocol_and_never_reaches_amazon() {
    let (amazon, caller, proxy) = agent(RULES, "").await;
    let lines = caller.line() + JSON;
    let lite = json!({ "tool_name": DELETE, "arguments": {} });
    for body in [call(7, DELETE, &json!({})), call(7, CREATE, &json!({})), call(7, INVOKE, &lite)] {
        let answer = post(&proxy, "/mcp", &lines, body.to_string());
        assert_eq!((answer.status.as_u16(), answer.error()), (200, Some("caller_rejected")));
        assert_eq!(answer.headers["content-type"], "application/json");
        let error = json!({ "code": -32602, "message": "This tool is not allowed." });
        assert_eq!(answer.json(), json!({ "jsonrpc": "2.0", "id": 7, "error": error }));
    }
    let note = json!({ "jsonrpc": "2.0", "method": "tools/call", "params": { "name": DELETE } });
    let answer = post(&proxy, "/mcp", &lines, note.to_string());
    assert_eq!((answer.status.as_u16(), answer.error()), (403, Some("caller_rejected")));
    assert!(seen(&amazon).is_empty());
    let answer = post(&proxy, "/mcp", &lines, call(8, QUERY, &json!({})).to_string());
    assert!(answer.text().contains("Sandbox campaign"), "{}", answer.text());
    assert_eq!(seen(&amazon).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_with_a_denied_call_is_refused_whole_and_another_one_passes() {
    let (amazon, caller, proxy) = agent(RULES, "").await;
    let lines = caller.line() + JSON;
    let batch = json!([call(1, QUERY, &json!({})), call(2, DELETE, &json!({})), list(3)]);
    let answer = post(&proxy, "/mcp", &lines, batch.to_string()).json();
    let ids: Vec<_> = answer.as_array().expect("a batch").iter().map(|one| &one["id"]).collect();
    assert_eq!(ids, [&json!(1), &json!(2), &json!(3)]);
    assert!(answer.as_array().expect("a batch").iter().all(|one| one["error"].is_object()));
    assert!(seen(&amazon).is_empty());
    let batch = json!([call(1, QUERY, &json!({})), list(2)]);
    let answer = post(&proxy, "/mcp", &lines, batch.to_string()).json();
    assert_eq!(names(&answer[1]), [QUERY, "reporting-create_report"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_may_only_read_calls_only_tools_that_read() {
    let (_amazon, caller, proxy) = agent("read_only = true", "").await;
    let lines = caller.line() + JSON;
    let answer = post(&proxy, "/mcp", &lines, list(1).to_string());
    assert_eq!(names(&answer.json()), [QUERY, "reporting-create_report"]);
    for (name, is_allowed) in [
        (QUERY, true),
        ("reporting-create_report", true),
        (CREATE, false),
        (DELETE, false),
        ("campaign_management-do_something", false),
    ] {
        let answer = post(&proxy, "/mcp", &lines, call(1, name, &json!({})).to_string());
        assert_eq!(answer.error().is_none(), is_allowed, "{name}: {}", answer.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_for_certain_is_rejected_where_there_are_tool_rules() {
    let (amazon, caller, proxy) = agent(RULES, "[replay]\nmemory_max_bytes = 4096\n").await;
    let free = Proxy::with(&amazon, Setup::default());
    let good = call(1, QUERY, &json!({})).to_string();
    let twice = format!("{},\"method\":\"ping\"}}", &good[..good.len() - 1]);
    let renamed = good.replace("\"name\"", "\"name\":\"a-query_b\",\"name\"");
    let long = call(1, QUERY, &json!({ "text": "x".repeat(8192) })).to_string();
    let gzip = {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(good.as_bytes()).expect("memory");
        gzip.finish().expect("memory")
    };
    let encoded = format!("{JSON}Content-Encoding: gzip\r\n");
    let types = format!("{JSON}{JSON}");
    for (what, lines, body) in [
        ("a method twice", JSON, twice.as_bytes()),
        ("a name twice", JSON, renamed.as_bytes()),
        ("no JSON", JSON, b"tools/call"),
        ("too long", JSON, long.as_bytes()),
        ("no type", "", good.as_bytes()),
        ("another type", "Content-Type: text/plain\r\n", good.as_bytes()),
        ("two types", types.as_str(), good.as_bytes()),
        ("another charset", "Content-Type: application/json; charset=utf-7\r\n", good.as_bytes()),
        ("encoded", encoded.as_str(), &gzip),
        ("nothing", JSON, b""),
    ] {
        let answer = post(&proxy, "/mcp", &(caller.line() + lines), body);
        let got = (answer.status.as_u16(), answer.error());
        if what == "too long" {
            assert_eq!(got, (413, Some("body_too_large")), "{what}");
        } else {
            assert_eq!(got, (403, Some("caller_rejected")), "{what}");
            let text = answer.json()["detail"].to_string();
            assert!(text.contains("The rules of this caller"), "{what}: {text}");
        }
        assert!(seen(&amazon).is_empty(), "{what}");
        // Without rules nothing is read.
        assert_eq!(post(&free, "/mcp", lines, body).error(), None, "{what}");
        assert_eq!(seen(&amazon).len(), 1, "{what}");
    }
    for method in ["GET", "DELETE", "PUT"] {
        let head = format!("{method} /a/acme/mcp HTTP/1.1\r\nHost: localhost\r\n{}", caller.line());
        let with_body = format!("{head}{JSON}Content-Length: {}\r\n\r\n{good}", good.len());
        let answer = Wire::open(proxy.addr).send(with_body).answer();
        assert_eq!(answer.error(), Some("caller_rejected"), "{method}");
        let answer = Wire::open(proxy.addr).send(format!("{head}\r\n")).answer();
        assert_eq!(answer.error().is_none(), method != "PUT", "{method}");
    }
    let chunked = format!(
        "POST /a/acme/mcp HTTP/1.1\r\nHost: localhost\r\n{}{JSON}Expect: 100-continue\r\n\
         Transfer-Encoding: chunked\r\n\r\n",
        caller.line()
    );
    let mut wire = Wire::open(proxy.addr);
    wire.send(chunked).read_some("HTTP/1.1 100 Continue\r\n\r\n".len());
    let answer = wire.send(format!("{:x}\r\n{good}\r\n0\r\n\r\n", good.len())).answer();
    assert!(answer.text().contains("Sandbox campaign"), "in pieces: {}", answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mcp_server_has_one_spelling_for_who_has_tool_rules_or_pins() {
    let delete = call(1, DELETE, &json!({})).to_string();
    let pins = "mcp = { profile = \"42\" }";
    for rules in [RULES, "deny = [\"*-delete_*\"]", pins] {
        let (amazon, caller, proxy) = agent(rules, "").await;
        let free = Proxy::with(&amazon, Setup::default());
        for path in
            ["//mcp", "/mcp//lite", "/MCP", "/Mcp/lite?x", "/mcp;x", "/%6dcp", "/mcp%2flite"]
        {
            let answer = post(&proxy, path, &(caller.line() + JSON), &delete);
            let got = (answer.status.as_u16(), answer.error());
            assert_eq!(got, (403, Some("caller_rejected")), "{rules} {path}");
            assert!(seen(&amazon).is_empty(), "{rules} {path}");
            post(&free, path, JSON, &delete);
            assert!(!seen(&amazon).is_empty(), "without rules {path} goes as it is");
        }
    }
    let (amazon, caller, proxy) = agent(RULES, "").await;
    let query = call(1, QUERY, &json!({})).to_string();
    for path in ["/mcp?x=1", "/mcp/lite?a=//b;c", "/mcp?"] {
        let answer = post(&proxy, path, &(caller.line() + JSON), &delete);
        assert_eq!(answer.json()["error"]["code"], -32602, "{path}");
        assert!(seen(&amazon).is_empty(), "{path}");
        assert_eq!(post(&proxy, path, &(caller.line() + JSON), &query).error(), None, "{path}");
        assert_eq!(seen(&amazon).len(), 1, "{path}");
    }
    for body in [format!("[[{delete}]]"), format!("[{query},[{delete}]]")] {
        let answer = post(&proxy, "/mcp", &(caller.line() + JSON), &body);
        assert_eq!(answer.error(), Some("caller_rejected"), "{body}");
        assert!(seen(&amazon).is_empty(), "{body}");
    }
}

/// What the log says of the refusal of a request.
async fn refusal_in_log(proxy: &Proxy, answer: &Answer) -> Value {
    let id = answer.headers["x-ads-proxy-request-id"].to_str().expect("ASCII").to_owned();
    let found = || {
        let lines = proxy.log();
        let lines = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut lines = lines.filter(|line| line["request_id"] == id.as_str());
        lines.find(|line| line["message"] == "a rule of the caller refuses the request")
    };
    eventually("the refusal is logged", || found().is_some()).await;
    found().expect("a line")
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_read_which_line_refuses_a_tool_and_the_agent_does_not() {
    let (_amazon, caller, proxy) = agent(RULES, "").await;
    let lines = caller.line() + JSON;
    let by = |name: &str| call(1, INVOKE, &json!({ "tool_name": name }));
    let listed = format!("tools = [\"*-query_*\", \"reporting-*\", \"{CREATE}\"]");
    let (none, canary) = (Value::Null, "x y canary");
    for (body, rule, allow, tool) in [
        (call(1, DELETE, &json!({})), "deny", json!("deny = []"), json!(DELETE)),
        (by(DELETE), "deny", json!("deny = []"), json!(DELETE)),
        (call(1, CREATE, &json!({})), "tools", json!(listed), json!(CREATE)),
        (json!([list(1), call(2, DELETE, &json!({}))]), "deny", json!("deny = []"), json!(DELETE)),
        (call(1, INVOKE, &json!({})), "tools", none.clone(), json!(INVOKE)),
        (by(INVOKE), "tools", none.clone(), json!(INVOKE)),
        (call(1, canary, &json!({})), "tools", none.clone(), none.clone()),
        (json!({ "method": 7, "id": canary }), "tools", none.clone(), none.clone()),
    ] {
        let answer = post(&proxy, "/mcp", &lines, body.to_string());
        assert_eq!(answer.error(), Some("caller_rejected"), "{body}");
        let said = refusal_in_log(&proxy, &answer).await;
        let got = (&said["caller"], &said["rule"], &said["allow"], &said["tool"]);
        assert_eq!(got, (&json!("agent"), &json!(rule), &allow, &tool), "{body}: {said}");
        assert!(said["why"].as_str().is_some_and(|why| why.len() > 10), "{said}");
        for secret in ["deny", "tools", "*", "reporting", "campaign"] {
            assert!(!answer.text().contains(secret), "{secret}: {}", answer.text());
        }
    }
    assert!(!proxy.log().contains("canary"), "what is no name is not logged");
    let head = format!("PUT /a/acme/mcp HTTP/1.1\r\nHost: localhost\r\n{}\r\n", caller.line());
    let answer = Wire::open(proxy.addr).send(head).answer();
    assert_eq!(refusal_in_log(&proxy, &answer).await["rule"], "tools");
    // The twin: of what is allowed the log has no such line.
    let refusals = || proxy.log().matches("refuses the request").count();
    let before = refusals();
    assert_eq!(post(&proxy, "/mcp", &lines, call(1, QUERY, &json!({})).to_string()).error(), None);
    let answer = post(&proxy, "/mcp", &lines, call(1, DELETE, &json!({})).to_string());
    refusal_in_log(&proxy, &answer).await;
    assert_eq!(refusals(), before + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_read_that_an_agent_with_pins_spells_the_mcp_server_otherwise() {
    let (_amazon, caller, proxy) = agent("mcp = { profile = \"42\" }", "").await;
    let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" }).to_string();
    let answer = post(&proxy, "/MCP", &(caller.line() + JSON), &ping);
    assert_eq!(answer.error(), Some("caller_rejected"));
    let said = refusal_in_log(&proxy, &answer).await;
    assert_eq!((&said["rule"], &said["caller"]), (&json!("path"), &json!("agent")));
    assert!(said["why"].as_str().is_some_and(|why| why.contains("mcp")), "{said}");
    assert!(!answer.text().contains("mcp") && !answer.text().contains("42"), "{}", answer.text());
    assert_eq!(post(&proxy, "/mcp", &(caller.line() + JSON), &ping).error(), None);
}

/// A proxy in front of an upstream that answers every request with `response`.
async fn before(response: impl Into<Vec<u8>>) -> (TestCaller, Proxy, Upstream, Emulator) {
    let amazon = amazon().await;
    let caller = TestCaller::new("agent", RULES);
    let response = response.into();
    let upstream = Upstream::start(move |head| {
        assert!(!head.contains("accept-encoding"), "{head}");
        Act::SayAndClose(response.clone())
    });
    let toml = caller.toml.clone();
    let setup = Setup { upstream: Some(upstream.url()), toml, ..Setup::default() };
    let proxy = Proxy::with(&amazon, setup);
    (caller, proxy, upstream, amazon)
}

fn full_list() -> Value {
    let tools = [QUERY, CREATE, DELETE, "reporting-create_report"];
    let tools: Vec<_> = tools.iter().map(|name| json!({ "name": name })).collect();
    json!({ "jsonrpc": "2.0", "id": 1, "result": { "tools": tools, "nextCursor": "c" } })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_loses_what_may_not_be_used_whether_json_or_an_event() {
    let list_text = full_list().to_string();
    let json_head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        list_text.len()
    );
    let lines = |caller: &TestCaller| caller.line() + JSON + "Accept-Encoding: gzip\r\n";
    let (caller, proxy, _upstream, _amazon) = before(format!("{json_head}{list_text}")).await;
    let answer = post(&proxy, "/mcp", &lines(&caller), list(1).to_string());
    assert_eq!(names(&answer.json()), [QUERY, "reporting-create_report"]);
    assert_eq!(answer.json()["result"]["nextCursor"], "c");
    assert_eq!(answer.headers["content-length"], answer.body.len().to_string().as_str());

    // What lists nothing passes as it came, however it is written.
    let odd = ": ping\r\n\r\nevent: message\nid: 7\ndata: {\"a\" :  1.50}\n\nretry: 10\r\r";
    let stream = format!("{odd}event: message\nid: 8\ndata: {list_text}\n\n{odd}");
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
    let (caller, proxy, _upstream, _amazon) = before(format!("{head}{stream}")).await;
    // The list may be of another request: a stream is taken up again with GET.
    let get = format!(
        "GET /a/acme/mcp HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{}\r\n",
        lines(&caller)
    );
    let resumed = Wire::open(proxy.addr).send(get).answer();
    let asked = post(&proxy, "/mcp", &lines(&caller), call(1, QUERY, &json!({})).to_string());
    for answer in [resumed, asked] {
        let text = answer.text();
        let (before, rest) = text.split_once("event: message\nid: 8\ndata: ").expect("the event");
        let (event, behind) = rest.split_once("\n\n").expect("the end of the event");
        assert_eq!((before, behind), (odd, odd));
        let event: Value = serde_json::from_str(event).expect("JSON");
        assert_eq!(names(&event), [QUERY, "reporting-create_report"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_cannot_be_read_does_not_pass() {
    let list_text = full_list().to_string();
    for (what, fields, body) in [
        ("encoded", "Content-Type: application/json\r\nContent-Encoding: br\r\n", &*list_text),
        ("no JSON", "Content-Type: application/json\r\n", "{\"tools\""),
        ("encoded stream", "Content-Type: text/event-stream\r\nContent-Encoding: gzip\r\n", "x"),
    ] {
        let len = body.len();
        let response = format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {len}\r\n\r\n{body}");
        let (caller, proxy, _upstream, _amazon) = before(response).await;
        let answer = post(&proxy, "/mcp", &(caller.line() + JSON), list(1).to_string());
        let got = (answer.status.as_u16(), answer.error());
        assert_eq!(got, (502, Some("upstream_unreachable")), "{what}");
        assert!(!answer.text().contains(DELETE), "{what}");
    }
    // An error of Amazon's is no list.
    let refused = "HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnope";
    let (caller, proxy, _upstream, _amazon) = before(refused).await;
    let answer = post(&proxy, "/mcp", &(caller.line() + JSON), list(1).to_string());
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (404, "nope"));
}

#[tokio::test(flavor = "multi_thread")]
async fn pins_choose_the_account_and_what_the_agent_says_of_it_is_gone() {
    let pins = "mcp = { profile = \"42\", account = \"amzn1.ours\" }";
    let (amazon, caller, proxy) = agent(pins, "").await;
    let other = Proxy::with(&amazon, Setup::default());
    let own = "Amazon-Ads-AI-Account-Selection-Mode: DYNAMIC\r\nAmazon-Ads-AccountID: theirs\r\n\
               Amazon-Ads-Account-ID: theirs\r\nAmazon-Ads-Manager-AccountID: theirs\r\n\
               Amazon_Ads_AccountID: theirs\r\nAmazon-Advertising-API-Scope: 7\r\n\
               Connection: Amazon-Ads-AI-Account-Selection-Mode\r\n";
    let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" }).to_string();
    let lines = format!("{}{JSON}{own}", caller.line());
    for path in ["/mcp", "/mcp/lite", "/mcp?x=1"] {
        assert_eq!(post(&proxy, path, &lines, &ping).error(), None);
        let seen = seen(&amazon).remove(0);
        let value = |name: &str| seen.values(name).join(",");
        assert_eq!(value("amazon-ads-ai-account-selection-mode"), "FIXED", "{path}");
        assert_eq!(value("amazon-advertising-api-scope"), "42");
        assert_eq!(value("amazon-ads-accountid"), "amzn1.ours");
        assert!(!format!("{:?}", seen.headers).contains("theirs"), "{:?}", seen.headers);
    }
    // Elsewhere, and for other callers, nothing changes.
    post(&proxy, "/_sink", &lines, "");
    post(&other, "/mcp", &format!("{JSON}{own}"), &ping);
    for seen in seen(&amazon) {
        assert_eq!(seen.values("amazon-advertising-api-scope"), ["7"]);
        assert_eq!(seen.values("amazon-ads-manager-accountid"), ["theirs"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_log_names_the_tool_and_what_became_of_the_call() {
    let amazon = amazon().await;
    amazon.state().api.configure(|api| api.mcp_interval = Duration::ZERO);
    let (caller, free) = (TestCaller::new("agent", RULES), TestCaller::new("free", ""));
    let toml = caller.toml.clone() + &free.toml;
    let proxy = Proxy::with(&amazon, Setup { toml, file_store: true, ..Setup::default() });
    for (caller, name) in [(&free, CREATE), (&caller, QUERY), (&caller, "x y Atza|canary")] {
        let body = call(1, name, &json!({})).to_string();
        post(&proxy, "/mcp", &(caller.line() + "X-Request-Id: chosen\r\n" + JSON), body);
    }
    let log = proxy.dir.path().join("store/audit.jsonl");
    let calls = || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        let entries = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        entries.filter(|entry| entry["action"] == "tool.call").collect::<Vec<_>>()
    };
    eventually("both calls are recorded", || calls().len() >= 2).await;
    let calls = calls();
    assert_eq!(calls.len(), 2, "{calls:?}");
    for (entry, outcome) in calls.iter().zip(["ok", "failed"]) {
        assert_eq!(entry["outcome"], outcome, "{entry}");
        assert_eq!((&entry["account"], &entry["user"]), (&json!("acme"), &json!("agent")));
        assert_eq!(
            (&entry["actor"], &entry["key_id"]),
            (&json!("caller"), &json!(caller.key[..13]))
        );
        assert_eq!(entry["request_id"], "chosen", "the caller's own");
        let own = entry["server_request_id"].as_str().expect("one that no caller chooses");
        let own = format!("\"server_request_id\":\"{own}\"");
        eventually("its line is found", || proxy.log().contains(&own)).await;
    }
    assert_eq!(calls[0]["about"], QUERY);
    assert_eq!(calls[1]["reason"], "caller_rejected");
    assert!(calls[1]["about"].as_str().is_some_and(|name| name.starts_with("sha256:")));
}

#[tokio::test(flavor = "multi_thread")]
async fn events_pass_one_by_one_although_they_are_looked_at() {
    let amazon = amazon().await;
    let caller = TestCaller::new("agent", RULES);
    let (next, wanted) = mpsc::channel::<()>(1);
    let upstream = wire::Upstream::serve({
        let wanted = Arc::new(Mutex::new(Some(wanted)));
        move |mut wire: wire::Wire| {
            let wanted = wanted.clone();
            async move {
                wire.try_head().await;
                let Some(mut wanted) = wanted.lock().expect("no panic").take() else { return };
                let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
                wire.send(head).await;
                for n in 0..3 {
                    // In pieces, and each only once the caller has the one before.
                    wire.send("event: message\nda").await;
                    wire.send(format!("ta: {{\"n\":{n}}}\n\n")).await;
                    wanted.recv().await;
                }
            }
        }
    })
    .await;
    let toml = caller.toml.clone();
    let setup = Setup { upstream: Some(upstream.url()), toml, ..Setup::default() };
    let proxy = Proxy::with(&amazon, setup);
    let request = proxy.request(Method::GET, "/a/acme/mcp").header("X-Ads-Key", &caller.key);
    let mut answer = request.send().await.expect("an answer");
    for n in 0..3 {
        let mut event = Vec::new();
        while !event.ends_with(b"\n\n") {
            event.extend(answer.chunk().await.expect("a body").expect("an event"));
        }
        let expected = format!("event: message\ndata: {{\"n\":{n}}}\n\n");
        assert_eq!(String::from_utf8_lossy(&event), expected);
        next.send(()).await.expect("the upstream waits");
    }
    assert_eq!(answer.chunk().await.expect("an end in order"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn over_http2_and_after_a_401_a_call_is_judged_and_sent_in_the_same_way() {
    let (amazon, caller, proxy) = agent(RULES, "").await;
    let client = reqwest::Client::builder().no_proxy().http2_prior_knowledge();
    let client = client.build().expect("a client");
    let ask = async |name: &str| {
        let request = client.post(proxy.url("/a/acme/mcp")).header("X-Ads-Key", &caller.key);
        let request = request.header("Content-Type", "application/json");
        let request = request.body(call(1, name, &json!({})).to_string());
        proxy.send(request).await
    };
    amazon.state().api.faults.add(ApiFault::AuthenticationFailed, Times::Next(1));
    let answer = ask(QUERY).await;
    assert!(answer.text().contains("Sandbox campaign"), "{}", answer.text());
    assert_eq!(seen(&amazon).len(), 2);
    assert_eq!(ask(DELETE).await.error(), Some("caller_rejected"));
    assert!(seen(&amazon).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_calls_of_a_tool_are_one_entry_with_their_number_and_others_one_each() {
    let amazon = amazon().await;
    amazon.state().api.configure(|api| api.mcp_interval = Duration::ZERO);
    let caller = TestCaller::new("agent", RULES);
    let toml = caller.toml.clone();
    let proxy = Proxy::with(&amazon, Setup { toml, file_store: true, ..Setup::default() });
    let batch = |name: &str, number: u32| {
        let calls = (0..number).map(|id| call(id, name, &json!({})));
        let body = Value::Array(calls.collect()).to_string();
        post(&proxy, "/mcp", &(caller.line() + JSON), body)
    };
    assert_eq!(batch(DELETE, 100).error(), Some("caller_rejected"));
    assert_eq!(batch(DELETE, 100).error(), Some("caller_rejected"));
    batch(QUERY, 5);
    let log = proxy.dir.path().join("store/audit.jsonl");
    // At its end a server writes what it has counted.
    let _proxy = proxy.restart();
    let text = fs::read_to_string(&log).expect("a log");
    let entries = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let of = |name: &str| {
        let entries = entries.clone().filter(|it| it["about"] == name);
        entries.collect::<Vec<_>>()
    };
    let [first, more] = &of(DELETE)[..] else { panic!("{text}") };
    assert_eq!((&first["reason"], &first["count"]), (&json!("caller_rejected"), &Value::Null));
    assert_eq!((&more["reason"], &more["count"]), (&json!("caller_rejected"), &json!(199)));
    assert_eq!(more["key_id"], json!(caller.key[..13]));
    assert_eq!(of(QUERY).len(), 5, "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_in_the_place_of_a_tool_is_in_no_log() {
    let (amazon, caller, proxy) = agent("tools = [\"*\"]\ndeny = [\"adss_*\"]", "").await;
    let refused = caller.key.replace("adsk_", "adss_");
    for name in [&refused, &caller.key] {
        post(&proxy, "/mcp", &(caller.line() + JSON), call(1, name, &json!({})).to_string());
    }
    assert_eq!(seen(&amazon).len(), 1, "what the rules allow is Amazon's to judge");
    eventually("both are logged", || proxy.log().matches("url.path").count() >= 2).await;
    let shown = format!("{}[masked]", &refused[..13]);
    assert!(proxy.log().contains(&shown), "{}", proxy.log());
    assert!(!proxy.log().contains(&refused[13..45]), "{}", proxy.log());
}
