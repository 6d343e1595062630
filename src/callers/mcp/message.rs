//! JSON-RPC messages of MCP: which tools a request calls, and lists of tools on their way back.
//!
//! A request is read so that no other reader can read it otherwise: a member that comes twice, or is
//! spelled like one that matters, makes it unreadable.

use super::{ToolRules, runs_another};
use crate::callers::json;
use serde_json::{Map, Value, json};

/// JSON-RPC's "invalid params", which MCP prescribes for a tool that is not there.
const NOT_ALLOWED: i32 = -32602;

/// The most messages of a batch: each call has an entry in the audit log.
const BATCH_MAX: usize = 100;

/// It is no JSON-RPC, or can be read in two ways.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body is no JSON-RPC message that can be read in one way only")]
pub struct Unreadable;

/// What a request's body asks for.
#[derive(Debug, Default, PartialEq)]
pub struct ToolUse {
    /// The tools that are called, each with whether it may be; one that cannot be read has no name.
    pub calls: Vec<ToolCall>,
    /// Whether it asks for the list of tools.
    pub lists_tools: bool,
    is_batch: bool,
    /// Of all requests that want a response, and whether each is refused.
    ids: Vec<(Value, bool)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolCall {
    pub name: String,
    pub is_allowed: bool,
}

impl ToolUse {
    /// Reads the body of a request to the MCP server.
    ///
    /// # Errors
    /// `Unreadable` where it cannot be said for certain what is asked for.
    pub fn of(body: &[u8], rules: &ToolRules) -> Result<Self, Unreadable> {
        let body = json::value(body).ok_or(Unreadable)?;
        let mut asked = Self::default();
        match body {
            Value::Array(messages) if (1..=BATCH_MAX).contains(&messages.len()) => {
                asked.is_batch = true;
                messages.iter().try_for_each(|message| asked.read(message, rules))?;
            }
            message => asked.read(&message, rules)?,
        }
        Ok(asked)
    }

    pub fn is_allowed(&self) -> bool {
        self.calls.iter().all(|call| call.is_allowed)
    }

    /// The response to a request of which nothing is sent on. None if it wants none.
    pub fn refusal(&self) -> Option<Value> {
        let respond = |(id, is_refused): &(Value, bool)| {
            let text = if *is_refused {
                "This tool is not allowed."
            } else {
                "Not sent: a tool that this batch calls is not allowed."
            };
            json!({ "jsonrpc": "2.0", "id": id, "error": { "code": NOT_ALLOWED, "message": text } })
        };
        let mut responses: Vec<Value> = self.ids.iter().map(respond).collect();
        match self.is_batch {
            true => (!responses.is_empty()).then_some(Value::Array(responses)),
            false => responses.pop(),
        }
    }

    fn read(&mut self, message: &Value, rules: &ToolRules) -> Result<(), Unreadable> {
        let message = message.as_object().ok_or(Unreadable)?;
        let method = match member(message, "method")? {
            Some(Value::String(method)) => method.as_str(),
            Some(_) => return Err(Unreadable),
            // A response to a request of the server's.
            None if message.contains_key("result") || message.contains_key("error") => {
                return Ok(());
            }
            None => return Err(Unreadable),
        };
        let id = match member(message, "id")? {
            None => None,
            Some(id @ (Value::String(_) | Value::Number(_))) => Some(id.clone()),
            Some(_) => return Err(Unreadable),
        };
        let params = member(message, "params")?;
        let calls_before = self.calls.len();
        match method {
            "tools/call" => self.read_call(params, rules)?,
            "tools/list" => self.lists_tools = true,
            // Spelled like one of these, for a server that does not mind.
            _ if matches!(
                method.trim().to_ascii_lowercase().as_str(),
                "tools/call" | "tools/list"
            ) =>
            {
                return Err(Unreadable);
            }
            _ => {}
        }
        let is_refused = self.calls[calls_before..].iter().any(|call| !call.is_allowed);
        self.ids.extend(id.map(|id| (id, is_refused)));
        Ok(())
    }

    fn read_call(&mut self, params: Option<&Value>, rules: &ToolRules) -> Result<(), Unreadable> {
        let params = params.and_then(Value::as_object).ok_or(Unreadable)?;
        let Some(Value::String(name)) = member(params, "name")? else { return Err(Unreadable) };
        let mut call = |name: &str, is_allowed| {
            self.calls.push(ToolCall { name: name.to_owned(), is_allowed });
        };
        if !runs_another(name) {
            call(name, rules.check(name).is_ok());
            return Ok(());
        }
        // Amazon does not say under which key the name is. So each text beside the inner tool's own
        // arguments, which are an object, must be the name of a tool that may be called.
        let arguments = member(params, "arguments")?.and_then(Value::as_object);
        let texts = arguments.into_iter().flat_map(Map::values).filter_map(Value::as_str);
        let is_allowed = rules.check(name).is_ok();
        let mut inner = texts.peekable();
        if inner.peek().is_none() || !is_allowed {
            call(name, false);
            return Ok(());
        }
        inner.for_each(|inner| call(inner, !runs_another(inner) && rules.check(inner).is_ok()));
        Ok(())
    }
}

/// The member `name` of a message; a name that a lenient reader could take for it is an error.
fn member<'a>(object: &'a Map<String, Value>, name: &str) -> Result<Option<&'a Value>, Unreadable> {
    let is_similar =
        |key: &String| !key.is_ascii() || (key != name && key.trim().eq_ignore_ascii_case(name));
    if object.keys().any(is_similar) {
        return Err(Unreadable);
    }
    Ok(object.get(name))
}

/// Removes from `response`, a message or a batch, the tools that may not be used. Says whether it is
/// changed.
pub fn filter_tools(response: &mut Value, rules: &ToolRules) -> bool {
    if let Value::Array(messages) = response {
        return messages
            .iter_mut()
            .fold(false, |changed, message| changed | filter_tools(message, rules));
    }
    let Some(Value::Array(tools)) = response.pointer_mut("/result/tools") else { return false };
    let before = tools.len();
    tools.retain(|tool| tool["name"].as_str().is_some_and(|name| rules.check(name).is_ok()));
    tools.len() != before
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
