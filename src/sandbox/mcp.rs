//! The MCP server: JSON-RPC over Streamable HTTP, calls served as event streams.

use super::{
    ads::{ApiCall, classic},
    aids::events,
    response::{EmulatorResponse, With, json, whole},
    text::random_uuid,
};
use serde_json::{Value, json};

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

fn message(call: &ApiCall<'_>) -> EmulatorResponse {
    let message = call.json().unwrap_or_default();
    let Some(method) = message["method"].as_str() else {
        let error = json!({ "code": -32700, "message": "Parse error" });
        return json(400, rpc(&Value::Null, "error", &error));
    };
    if message.get("id").is_none() {
        return whole(202, "", "");
    }
    let result = match method {
        "initialize" => json!({
            "protocolVersion": message["params"]["protocolVersion"].as_str().unwrap_or("2025-06-18"),
            "capabilities": { "logging": {}, "tools": { "listChanged": false } },
            "serverInfo": { "name": "amazon-ads-sandbox", "version": env!("CARGO_PKG_VERSION") },
        }),
        "ping" => json!({}),
        "tools/list" => json!({ "tools": [{
            "name": "campaign_management-query_campaign",
            "description": "Lists campaigns.",
            "inputSchema": { "type": "object", "properties": {} },
        }] }),
        "tools/call" => return stream(call, Some(&message)),
        _ => {
            let error = json!({ "code": -32601, "message": "Method not found" });
            return json(200, rpc(&message["id"], "error", &error));
        }
    };
    let reply = json(200, rpc(&message["id"], "result", &result));
    match method {
        "initialize" => reply.with("mcp-session-id", &random_uuid()),
        _ => reply,
    }
}

fn rpc(id: &Value, kind: &str, value: &Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, kind: value })
}

/// Progress at the configured pace; a call ends with its result.
fn stream(call: &ApiCall<'_>, message: Option<&Value>) -> EmulatorResponse {
    let token = message.and_then(|message| message.pointer("/params/_meta/progressToken"));
    let mut texts: Vec<_> = (1..=STEPS).map(|step| notification(token, step).to_string()).collect();
    if let Some(message) = message {
        let content = json!([{ "type": "text", "text": "Sandbox campaign" }]);
        let result = json!({ "content": content, "isError": false });
        texts.push(rpc(&message["id"], "result", &result).to_string());
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
