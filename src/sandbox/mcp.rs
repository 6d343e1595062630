//! The MCP server: JSON-RPC over Streamable HTTP, calls served as event streams.

use super::{
    ads::{ApiCall, classic},
    aids::events,
    response::{EmulatorResponse, With, json, whole},
    text::random_uuid,
};
use serde_json::{Value, json};
use std::time::Duration;

/// Progress events of a stream.
const STEPS: u32 = 3;

pub(super) fn respond(call: &ApiCall<'_>, method: &str) -> EmulatorResponse {
    match method {
        "GET" => stream(call, None),
        "POST" => message(call),
        "DELETE" => whole(204, "", ""),
        _ => classic(405, "Method Not Allowed"),
    }
}

/// The regular server's tools.
const TOOLS: [&str; 4] = [
    "campaign_management-query_campaign",
    "campaign_management-create_campaign",
    "campaign_management-delete_campaign",
    "reporting-create_report",
];
/// The lite server's.
const LITE_TOOLS: [&str; 3] =
    ["amazon_ads_mcp-search_tools", "amazon_ads_mcp-describe_tools", "amazon_ads_mcp-invoke_tool"];

fn message(call: &ApiCall<'_>) -> EmulatorResponse {
    let message = call.json().unwrap_or_default();
    if let Some(messages) = message.as_array() {
        let wanted = messages.iter().filter(|message| message.get("id").is_some());
        return json(200, wanted.map(|message| reply(call, message)).collect::<Value>());
    }
    let Some(method) = message["method"].as_str() else {
        let error = json!({ "code": -32700, "message": "Parse error" });
        return json(400, rpc(&Value::Null, "error", &error));
    };
    if message.get("id").is_none() {
        return whole(202, "", "");
    }
    let accept = call.parts.headers.get("accept").map_or(&b""[..], |accept| accept.as_bytes());
    let streams = accept.windows(12).any(|part| part == b"event-stream");
    match method {
        "tools/call" => stream(call, Some(&message)),
        "tools/list" if streams => events([reply(call, &message).to_string()], Duration::ZERO),
        "initialize" => json(200, reply(call, &message)).with("mcp-session-id", &random_uuid()),
        _ => json(200, reply(call, &message)),
    }
}

fn reply(call: &ApiCall<'_>, message: &Value) -> Value {
    let result = match message["method"].as_str().unwrap_or_default() {
        "initialize" => json!({
            "protocolVersion": message["params"]["protocolVersion"].as_str().unwrap_or("2025-06-18"),
            "capabilities": { "logging": {}, "tools": { "listChanged": false } },
            "serverInfo": { "name": "amazon-ads-sandbox", "version": env!("CARGO_PKG_VERSION") },
        }),
        "ping" => json!({}),
        "tools/list" => json!({ "tools": tools(call) }),
        "tools/call" => done(message),
        _ => {
            let error = json!({ "code": -32601, "message": "Method not found" });
            return rpc(&message["id"], "error", &error);
        }
    };
    rpc(&message["id"], "result", &result)
}

fn tools(call: &ApiCall<'_>) -> Value {
    let is_lite = call.parts.uri.path().ends_with("/lite");
    let names = if is_lite { &LITE_TOOLS[..] } else { &TOOLS[..] };
    let tool = |name: &&str| {
        let description = format!("The sandbox's {name}.");
        json!({ "name": name, "description": description, "inputSchema": { "type": "object" } })
    };
    names.iter().map(tool).collect()
}

/// What a call of a tool comes to, whichever it is.
fn done(message: &Value) -> Value {
    let params = &message["params"];
    let inner = params["arguments"]["tool_name"].as_str();
    let name = inner.or(params["name"].as_str()).unwrap_or("no tool");
    let text = format!("Sandbox campaign, by {name}");
    json!({ "content": [{ "type": "text", "text": text }], "isError": false })
}

fn rpc(id: &Value, kind: &str, value: &Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, kind: value })
}

/// Progress at the configured pace; a call ends with its result.
fn stream(call: &ApiCall<'_>, message: Option<&Value>) -> EmulatorResponse {
    let token = message.and_then(|message| message.pointer("/params/_meta/progressToken"));
    let mut texts: Vec<_> = (1..=STEPS).map(|step| notification(token, step).to_string()).collect();
    if let Some(message) = message {
        texts.push(rpc(&message["id"], "result", &done(message)).to_string());
    }
    events(texts, call.settings.mcp_interval)
}

/// Progress for the caller that asked for it by a token; a log message for others.
fn notification(token: Option<&Value>, step: u32) -> Value {
    let (method, params) = match token {
        Some(token) => {
            let params = json!({ "progressToken": token, "progress": step, "total": STEPS });
            ("notifications/progress", params)
        }
        None => {
            let params = json!({ "level": "info", "data": format!("step {step} of {STEPS}") });
            ("notifications/message", params)
        }
    };
    json!({ "jsonrpc": "2.0", "method": method, "params": params })
}
