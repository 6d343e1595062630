//! Requests as agents and attackers send them, and lists as they come back.

use super::*;

const QUERY: &str = "campaign_management-query_campaign";
const DELETE: &str = "campaign_management-delete_campaign";
const INVOKE: &str = "amazon_ads_mcp-invoke_tool";

fn rules() -> ToolRules {
    let tools = Some(vec!["*-query_*".to_owned()]);
    ToolRules { tools, deny: vec!["*-delete_*".to_owned()], ..ToolRules::default() }
}

fn read(body: &str) -> Result<ToolUse, Unreadable> {
    ToolUse::of(body.as_bytes(), &rules())
}

fn call(id: u32, name: &str, arguments: &Value) -> Value {
    let params = json!({ "name": name, "arguments": arguments });
    json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params })
}

fn verdict(body: &Value) -> (Vec<(String, bool)>, Option<Value>) {
    let asked = read(&body.to_string()).expect("readable");
    let rejection = if asked.is_allowed() { None } else { asked.rejection() };
    (asked.calls.into_iter().map(|call| (call.name, call.rejection.is_none())).collect(), rejection)
}

#[test]
fn a_call_is_judged_by_its_name() {
    assert_eq!(verdict(&call(1, QUERY, &json!({}))), (vec![(QUERY.to_owned(), true)], None));
    let (calls, rejection) = verdict(&call(7, DELETE, &json!({})));
    assert_eq!(calls, [(DELETE.to_owned(), false)]);
    let rejection = rejection.expect("a response");
    assert_eq!((&rejection["id"], &rejection["error"]["code"]), (&json!(7), &json!(-32602)));
}

#[test]
fn the_lite_server_is_judged_by_the_name_inside() {
    for (arguments, expected) in [
        (json!({ "tool_name": QUERY, "arguments": { "body": { "name": DELETE } } }), true),
        (json!({ "tool_name": QUERY, "arguments": { "name": QUERY, "max": 1 } }), true),
        (json!({ "tool_name": QUERY, "arguments": { "name": DELETE } }), false),
        (json!({ "x": QUERY, "tool": { "name": DELETE } }), false),
        (json!({ "x": QUERY, "tool": { "id": DELETE } }), false),
        (json!({ "x": QUERY, "call": { "tool": { "name": DELETE } } }), false),
        (json!({ "x": QUERY, "call": { "toolName": DELETE } }), false),
        (json!({ "x": QUERY, "call": { "Tool-Name ": DELETE } }), false),
        (json!({ "x": QUERY, "call": { "n\u{430}me": DELETE } }), false),
        (json!({ "x": QUERY, "a": {}, "b": {} }), false),
        (json!({ "x": QUERY, "tools": [{ "name": DELETE }] }), false),
        (json!({ "name": QUERY }), true),
        (json!({ "name": DELETE, "arguments": {} }), false),
        (json!({ "decoy": QUERY, "tool_name": DELETE }), false),
        (json!({ "decoy": QUERY, "tool_name": "delete campaign" }), false),
        (json!({ "tool_name": INVOKE, "arguments": { "tool_name": DELETE } }), false),
        (json!({ "tool_name": ["x"] }), false),
        (json!({}), false),
        (json!(null), false),
        (json!("x"), false),
    ] {
        for outer in [INVOKE, "invoke_tool"] {
            let (calls, _) = verdict(&call(1, outer, &arguments));
            let is_allowed = calls.iter().all(|(_, is_allowed)| *is_allowed);
            assert!(!calls.is_empty() && is_allowed == expected, "{outer} {arguments}: {calls:?}");
        }
    }
}

#[test]
fn a_batch_is_refused_whole_with_an_error_for_each_id() {
    let ping = json!({ "jsonrpc": "2.0", "id": "p", "method": "ping" });
    let note = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
    let batch = json!([call(1, QUERY, &json!({})), note, call(2, DELETE, &json!({})), ping]);
    let (_, rejection) = verdict(&batch);
    let rejection = rejection.expect("a response");
    let ids: Vec<_> = rejection.as_array().expect("a batch").iter().map(|r| &r["id"]).collect();
    assert_eq!(ids, [&json!(1), &json!(2), &json!("p")]);
    assert!(rejection[0]["error"]["message"].as_str().expect("text").starts_with("Not sent"));
    assert_eq!(rejection[1]["error"]["message"], "This tool is not allowed.");
    let (_, rejection) = verdict(&json!([call(1, QUERY, &json!({}))]));
    assert_eq!(rejection, None);
}

#[test]
fn a_batch_has_an_end() {
    let ping = r#"{"jsonrpc":"2.0","method":"ping"}"#;
    let batch = |len: usize| format!("[{}]", vec![ping; len].join(","));
    assert!(read(&batch(BATCH_MAX)).is_ok());
    assert_eq!(read(&batch(BATCH_MAX + 1)), Err(Unreadable));
    // So have the tools that one message names, each of which the audit log would have.
    let names = |len: usize| -> Value {
        let named = |n: usize| (format!("k{n}"), json!(QUERY));
        Value::Object((0..len).map(named).collect())
    };
    assert!(read(&call(1, INVOKE, &names(BATCH_MAX)).to_string()).is_ok());
    assert_eq!(read(&call(1, INVOKE, &names(BATCH_MAX + 1)).to_string()), Err(Unreadable));
    let half = call(1, INVOKE, &names(BATCH_MAX / 2 + 1));
    assert_eq!(read(&json!([half, half]).to_string()), Err(Unreadable));
}

#[test]
fn a_refused_call_without_an_id_has_no_response() {
    let note = json!({ "jsonrpc": "2.0", "method": "tools/call", "params": { "name": DELETE } });
    for body in [note.clone(), json!([note])] {
        let asked = read(&body.to_string()).expect("readable");
        assert!(!asked.is_allowed());
        assert_eq!(asked.rejection(), None);
    }
}

#[test]
fn other_methods_pass() {
    for body in [
        r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"name":"x"}}"#,
        r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"a"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{"method":"tools/call"}}"#,
    ] {
        let asked = read(body).expect("readable");
        assert!(asked.is_allowed() && asked.calls.is_empty() && !asked.lists_tools, "{body}");
    }
    let list = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
    assert!(read(list).expect("readable").lists_tools);
    assert!(read(&format!("[{list}]")).expect("readable").lists_tools);
}

#[test]
fn what_can_be_read_in_two_ways_is_unreadable() {
    let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    for body in [
        "",
        "null",
        "[]",
        "[1]",
        "{}",
        "\u{feff}{}",
        "x",
        &deep,
        r#"{"id":1,"method":"ping"} {"id":1,"method":"tools/call"}"#,
        r#"{"id":1,"method":"ping","method":"tools/call"}"#,
        r#"{"id":1,"method":"ping","meth\u006fd":"tools/call"}"#,
        r#"{"id":1,"method":"ping","Method":"tools/call"}"#,
        r#"{"id":1,"method":"ping","method ":"tools/call"}"#,
        r#"{"id":1,"result":{},"METHOD":"tools/call"}"#,
        r#"{"id":1,"method":"tools/call","params":{"name":"a-query_b","name":"a-delete_b"}}"#,
        r#"{"id":1,"method":"tools/call","params":{"name":"a-query_b","Name":"a-delete_b"}}"#,
        r#"{"id":1,"method":"tools/call","params":{"name":"a-query_b"},"params":{}}"#,
        r#"{"id":1,"method":"tools/call","params":{"name":"a-query_b"},"paramſ":{}}"#,
        r#"{"id":1,"method":"tools/call","params":["a-query_b"]}"#,
        r#"{"id":1,"method":"tools/call","params":{}}"#,
        r#"{"id":1,"method":"tools/call"}"#,
        r#"{"id":1,"method":"Tools/Call","params":{"name":"a-delete_b"}}"#,
        r#"{"id":1,"method":"tools/call\u0000","params":{"name":"a-delete_b"}}"#,
        r#"{"id":1,"method":"tools/c\u200ball","params":{"name":"a-delete_b"}}"#,
        r#"{"id":1,"method":"ｔools/call","params":{"name":"a-delete_b"}}"#,
        r#"{"id":1,"method":"tools/call ","params":{"name":"a-delete_b"}}"#,
        r#"{"id":1,"method":"tools\\/call","params":{"name":"a-delete_b"}}"#,
        r#"{"id":1,"method":"ping","method\u0000":"tools/call"}"#,
        r#"{"id":1,"method":"tools/call","params":{"name":"a-query_b","name\u007f":"a-delete_b"}}"#,
        r#"[[{"id":1,"method":"tools/call","params":{"name":"a-delete_b"}}]]"#,
        r#"{"id":1,"method":["tools/call"],"params":{"name":"a-delete_b"}}"#,
        r#"{"id":{},"method":"ping"}"#,
        r#"{"id":null,"method":"ping"}"#,
        r#"{"id":1,"method":"tools/call","params":{"name":"\ud800"}}"#,
    ] {
        assert_eq!(read(body), Err(Unreadable), "{body}");
    }
    assert_eq!(ToolUse::of(b"{\"method\":\"\xff\"}", &rules()), Err(Unreadable));
}

#[test]
fn a_list_loses_only_what_may_not_be_used() {
    let tools = json!([
        { "name": QUERY, "inputSchema": { "n": 1.50 } },
        { "name": DELETE },
        { "name": INVOKE },
        { "title": "no name" },
        "nothing",
    ]);
    let list = json!({ "id": 1, "result": { "tools": tools, "nextCursor": "c" } });
    let mut batch = json!([{ "id": 2, "result": {} }, list]);
    assert!(filter_tools(&mut batch, &rules()));
    let names: Vec<_> = batch[1]["result"]["tools"].as_array().expect("tools").iter().collect();
    assert_eq!(names.len(), 2);
    assert_eq!((&names[0]["name"], &names[1]["name"]), (&json!(QUERY), &json!(INVOKE)));
    assert_eq!(batch[1]["result"]["nextCursor"], "c");
    assert!(!filter_tools(&mut batch, &rules()), "the second time nothing is left to do");
    assert!(!filter_tools(&mut json!({ "result": { "content": [] } }), &rules()));
}
