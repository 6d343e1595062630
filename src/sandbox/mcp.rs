//! The MCP server: JSON-RPC over Streamable HTTP, calls served as event streams.

use super::{
    ads::{ApiCall, classic},
    aids::events,
    form::random_uuid,
    response::{Emulated, With, empty, json},
};
use serde_json::{Value, json};

/// Responds to `/mcp` and `/mcp/lite`.
pub(super) fn respond(call: &ApiCall<'_>, method: &str) -> Emulated {
    match method {
        "GET" => stream(call, None),
        "POST" => message(call),
        "DELETE" => empty(204),
        _ => classic(405, "Method Not Allowed"),
    }
}

fn message(call: &ApiCall<'_>) -> Emulated {
    let Some(message) = call.json().filter(|message| message["method"].is_string()) else {
        let error = json!({ "code": -32700, "message": "Parse error" });
        return json(400, json!({ "jsonrpc": "2.0", "id": null, "error": error }));
    };
    let Some(id) = message.get("id") else { return empty(202) };
    let result = |result: Value| json(200, json!({ "jsonrpc": "2.0", "id": id, "result": result }));
    match message["method"].as_str().unwrap_or_default() {
        "initialize" => result(initialized(&message)).with("mcp-session-id", &random_uuid()),
        "ping" => result(json!({})),
        "tools/list" => result(json!({ "tools": [{
            "name": "campaign_management-query_campaign",
            "description": "Lists campaigns.",
            "inputSchema": { "type": "object", "properties": {} },
        }] })),
        "tools/call" => stream(call, Some(&message)),
        _ => {
            let error = json!({ "code": -32601, "message": "Method not found" });
            json(200, json!({ "jsonrpc": "2.0", "id": id, "error": error }))
        }
    }
}

fn initialized(message: &Value) -> Value {
    let version = message["params"]["protocolVersion"].as_str().unwrap_or("2025-06-18");
    json!({
        "protocolVersion": version,
        "capabilities": { "logging": {}, "tools": { "listChanged": false } },
        "serverInfo": { "name": "amazon-ads-sandbox", "version": env!("CARGO_PKG_VERSION") },
    })
}

/// Progress at the configured pace; a call ends with its result.
fn stream(call: &ApiCall<'_>, message: Option<&Value>) -> Emulated {
    let total = call.settings.mcp_events;
    let token = message.and_then(|message| message.pointer("/params/_meta/progressToken"));
    let notice = |step| notification(token, step, total).to_string();
    let mut texts: Vec<_> = (1..=total).map(notice).collect();
    if let Some(message) = message {
        let content = json!([{ "type": "text", "text": "Sandbox campaign" }]);
        let result = json!({ "content": content, "isError": false });
        texts.push(json!({ "jsonrpc": "2.0", "id": message["id"], "result": result }).to_string());
    }
    events(texts, call.settings.mcp_interval)
}

/// Progress for the caller that asked for it by a token; a log message for others.
fn notification(token: Option<&Value>, step: u64, total: u64) -> Value {
    let (method, params) = match token {
        Some(token) => (
            "notifications/progress",
            json!({ "progressToken": token, "progress": step, "total": total }),
        ),
        None => (
            "notifications/message",
            json!({ "level": "info", "data": format!("step {step} of {total}") }),
        ),
    };
    json!({ "jsonrpc": "2.0", "method": method, "params": params })
}
