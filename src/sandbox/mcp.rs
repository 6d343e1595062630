//! The MCP server: JSON-RPC over Streamable HTTP, calls served as event streams.

use super::{
    ads::{Call, classic},
    aids::events,
    form::random_uuid,
    response::{Body, json, set, whole},
};
use bytes::Bytes;
use http::{HeaderName, Method, Response, StatusCode};
use serde_json::{Value, json};

/// Responds with `/mcp` and `/mcp/lite`.
pub(super) fn respond(call: &Call<'_>) -> Response<Body> {
    match call.parts.method {
        Method::GET => stream(call, None),
        Method::POST => message(call),
        Method::DELETE => whole(StatusCode::NO_CONTENT, "", Bytes::new()),
        _ => classic(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed"),
    }
}

fn message(call: &Call<'_>) -> Response<Body> {
    let Some(message) = call.json().filter(|message| message["method"].is_string()) else {
        let error = json!({ "code": -32700, "message": "Parse error" });
        let body = json!({ "jsonrpc": "2.0", "id": null, "error": error });
        return json(StatusCode::BAD_REQUEST, &body);
    };
    if message.get("id").is_none() {
        return whole(StatusCode::ACCEPTED, "", Bytes::new());
    }
    match message["method"].as_str().unwrap_or_default() {
        "initialize" => {
            let mut response = result(&message, &initialized(&message));
            let name = HeaderName::from_static("mcp-session-id");
            set(&mut response, name, &random_uuid());
            response
        }
        "ping" => result(&message, &json!({})),
        "tools/list" => result(&message, &json!({ "tools": [tool()] })),
        "tools/call" => stream(call, Some(&message)),
        _ => {
            let error = json!({ "code": -32601, "message": "Method not found" });
            let body = json!({ "jsonrpc": "2.0", "id": message["id"], "error": error });
            json(StatusCode::OK, &body)
        }
    }
}

fn result(message: &Value, result: &Value) -> Response<Body> {
    let body = json!({ "jsonrpc": "2.0", "id": message["id"], "result": result });
    json(StatusCode::OK, &body)
}

fn initialized(message: &Value) -> Value {
    let version = message["params"]["protocolVersion"].as_str().unwrap_or("2025-06-18");
    json!({
        "protocolVersion": version,
        "capabilities": { "logging": {}, "tools": { "listChanged": false } },
        "serverInfo": { "name": "amazon-ads-sandbox", "version": env!("CARGO_PKG_VERSION") },
    })
}

fn tool() -> Value {
    json!({
        "name": "campaign_management-query_campaign",
        "description": "Lists campaigns.",
        "inputSchema": { "type": "object", "properties": {} },
    })
}

/// Progress at the configured pace; a call ends with its result.
fn stream(call: &Call<'_>, message: Option<&Value>) -> Response<Body> {
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
        Some(token) => {
            let params = json!({ "progressToken": token, "progress": step, "total": total });
            ("notifications/progress", params)
        }
        None => {
            let params = json!({ "level": "info", "data": format!("step {step} of {total}") });
            ("notifications/message", params)
        }
    };
    json!({ "jsonrpc": "2.0", "method": method, "params": params })
}
