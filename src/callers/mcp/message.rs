//! JSON-RPC messages of MCP: which tools a request calls, and lists of tools on their way back.
//!
//! A request is read so that no other reader can read it otherwise: a member that comes twice, or is
//! spelled like one that matters, makes it unreadable.

use super::{ToolRejection, ToolRules, runs_another};
use crate::{callers::json, inbound::path_key::masked};
use serde_json::{Map, Value, json};

/// JSON-RPC's "invalid params", which MCP prescribes for a tool that is not there.
const NOT_ALLOWED: i32 = -32602;

/// The most messages, and the most calls, of a body: each call has an entry in the audit log.
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
    /// A key in its place is masked: operators read it.
    pub name: String,
    /// Why it may not be.
    pub rejection: Option<ToolRejection>,
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
        // One message can name many tools.
        if asked.calls.len() > BATCH_MAX {
            return Err(Unreadable);
        }
        Ok(asked)
    }

    pub fn is_allowed(&self) -> bool {
        self.refused().next().is_none()
    }

    /// The calls that may not be, each with why.
    pub fn refused(&self) -> impl Iterator<Item = (&str, ToolRejection)> {
        self.calls.iter().filter_map(|call| Some((call.name.as_str(), call.rejection?)))
    }

    /// The response to a request of which nothing is sent on. None if it wants none.
    pub fn rejection(&self) -> Option<Value> {
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
            // A server that drops or folds other characters could read another method.
            Some(Value::String(method)) if method.bytes().all(is_of_methods) => method.as_str(),
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
            _ if matches!(method.to_ascii_lowercase().as_str(), "tools/call" | "tools/list") => {
                return Err(Unreadable);
            }
            _ => {}
        }
        let is_refused = self.calls[calls_before..].iter().any(|call| call.rejection.is_some());
        self.ids.extend(id.map(|id| (id, is_refused)));
        Ok(())
    }

    fn read_call(&mut self, params: Option<&Value>, rules: &ToolRules) -> Result<(), Unreadable> {
        let params = params.and_then(Value::as_object).ok_or(Unreadable)?;
        let Some(Value::String(name)) = member(params, "name")? else { return Err(Unreadable) };
        let mut call = |name: &str, verdict: Result<(), ToolRejection>| {
            self.calls.push(ToolCall { name: masked(name).into_owned(), rejection: verdict.err() });
        };
        let outer = rules.check(name);
        if outer.is_err() || !runs_another(name) {
            call(name, outer);
            return Ok(());
        }
        let arguments = member(params, "arguments")?.and_then(Value::as_object);
        let inner = arguments.and_then(inner_names).unwrap_or_default();
        if inner.is_empty() {
            call(name, Err(ToolRejection::Hidden));
        }
        inner.into_iter().for_each(|inner| call(inner, rules.check_inside(inner)));
        Ok(())
    }
}

/// All that may be the name of the tool that another one runs with `arguments`; none where it could
/// be elsewhere.
///
/// Amazon does not say under which key the name is. So each text must be one, beside the inner tool's
/// own arguments: at most one object, in which what is called like a tool's name must be one, too.
fn inner_names(arguments: &Map<String, Value>) -> Option<Vec<&str>> {
    let mut names: Vec<&str> = arguments.values().filter_map(Value::as_str).collect();
    // Without a text, the name could only be in the object.
    if names.is_empty() || arguments.values().any(Value::is_array) {
        return None;
    }
    let mut objects = arguments.iter().filter_map(|(key, value)| Some((key, value.as_object()?)));
    let Some((key, own)) = objects.next() else { return Some(names) };
    if objects.next().is_some() || may_name_tool(key) {
        return None;
    }
    for (_, value) in own.iter().filter(|(key, _)| may_name_tool(key)) {
        names.push(value.as_str()?);
    }
    Some(names)
}

/// Whether a reader could look for a tool's name under `key`.
fn may_name_tool(key: &str) -> bool {
    let letters = key.bytes().filter(u8::is_ascii_alphanumeric);
    let letters = letters.map(|b| b.to_ascii_lowercase()).collect::<Vec<_>>();
    !key.is_ascii() || matches!(&*letters, b"name" | b"tool" | b"toolname")
}

/// Whether methods of MCP may have the character.
fn is_of_methods(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"_/.$-".contains(&b)
}

/// The member `name` of a message; a name that a lenient reader could take for it is an error.
fn member<'a>(object: &'a Map<String, Value>, name: &str) -> Result<Option<&'a Value>, Unreadable> {
    let is_odd = |key: &str| !key.bytes().all(|b| matches!(b, b' '..=b'~'));
    let is_similar =
        |key: &String| is_odd(key) || (key != name && key.trim().eq_ignore_ascii_case(name));
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
