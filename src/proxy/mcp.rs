//! Callers with tool rules at the MCP server: what they call, and which tools they see listed.

pub mod events;

use super::{
    DataPlane, caller::log_denial, error::Error, exchange::Exchange, respond::ExchangeBody,
    select::Selection,
};
use crate::{
    audit::{Action, Actor, ActorProof, Entry},
    callers::{
        Principal, Proof,
        mcp::{
            ToolRejection, ToolRules,
            message::{ToolUse, filter_tools},
        },
    },
    deadline::Deadlines,
    forward::{self, Malformed, body::Capture},
    id::{AccountId, Tenant},
    inbound::request_id::ServerRequestId,
    problem::Code,
    provider::ads::Service,
};
use events::{EVENT_MAX_BYTES, EventFilter, StreamError};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Response,
    header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE},
    request::Parts,
};
use serde_json::Value;
use std::{rc::Rc, sync::Arc, time::Duration};

/// How long a list of tools may take, once it has begun to come.
const LIST_TIMEOUT: Duration = Duration::from_secs(60);

/// What became of calls that were not sent on.
const REFUSED: &str = "caller_rejected";

/// One request of a caller with tool rules, until its response begins. Each tool that it calls is in
/// the audit log then.
pub struct ToolGate {
    rules: Arc<ToolRules>,
    asked: ToolUse,
    outcome: Result<(), &'static str>,
    data_plane: Arc<DataPlane>,
    principal: Arc<Principal>,
    account: AccountId,
    request_id: HeaderValue,
    server_request_id: Option<ServerRequestId>,
}

impl ToolGate {
    /// The gate that a request must pass; none if its caller has no tool rules, or it does not go to
    /// the MCP server.
    pub fn before(
        selection: &Selection,
        exchange: &Exchange,
        data_plane: &Arc<DataPlane>,
    ) -> Option<Box<Self>> {
        if selection.service != Service::Mcp {
            return None;
        }
        let principal = exchange.principal.as_ref()?;
        Some(Box::new(Self {
            rules: principal.rules.tools.clone()?,
            asked: ToolUse::default(),
            outcome: Err("upstream_failed"),
            data_plane: data_plane.clone(),
            principal: principal.clone(),
            account: selection.account.id().clone(),
            request_id: exchange.request_id.clone(),
            server_request_id: exchange.server_request_id,
        }))
    }

    /// Reads the whole request, and rejects one that calls a tool that it may not, or that cannot be
    /// read for certain.
    pub async fn admit(&mut self, head: &Parts, capture: Option<&Capture>) -> Result<(), Error> {
        let capture = match (&head.method, capture) {
            (&Method::POST, Some(capture)) if is_plain_json(&head.headers) => capture,
            (&Method::GET | &Method::HEAD | &Method::DELETE | &Method::OPTIONS, None) => {
                return Ok(());
            }
            _ => return Err(self.reject_unreadable()),
        };
        // What is not kept whole cannot be judged.
        let body = capture.whole().await?.ok_or(Error::Rejected(Code::BodyTooLarge))?;
        let asked = ToolUse::of(&body, &self.rules).map_err(|_| self.reject_unreadable())?;
        self.asked = asked;
        let Some((name, rejection)) = self.asked.refused().next() else { return Ok(()) };
        // A name that is none may be anything.
        let shown = (rejection != ToolRejection::Malformed).then_some(name);
        self.log(rejection, name, shown);
        self.outcome = Err(REFUSED);
        Err(Error::ToolsRejected(self.asked.rejection().map(Box::new)))
    }

    fn reject_unreadable(&self) -> Error {
        self.log(ToolRejection::Unreadable, "", None);
        Error::ToolsRejected(None)
    }

    /// Operators read in the log which rule refuses the request; its caller does not learn it.
    fn log(&self, rejection: ToolRejection, name: &str, shown: Option<&str>) {
        let denial = self.rules.denial(rejection, name);
        log_denial(&self.request_id, &self.principal, &denial, shown);
    }

    /// Takes out of the response the tools that the caller may not use, wherever it lists some.
    pub async fn pass(
        mut self: Box<Self>,
        mut response: Response<ExchangeBody>,
        deadlines: &Rc<Deadlines>,
    ) -> Result<Response<ExchangeBody>, Error> {
        let is_ok = response.status().is_success();
        self.outcome = if is_ok { Ok(()) } else { Err("upstream_rejected") };
        let headers = response.headers();
        let is_encoded = values(headers, &CONTENT_ENCODING).any(|coding| coding != b"identity");
        let is_stream = is_event_stream(headers);
        if is_ok && is_encoded && (is_stream || self.asked.lists_tools) {
            return Err(unreadable());
        }
        if is_stream {
            let rules = self.rules.clone();
            let rewrite = move |data: &[u8]| filtered(data, &rules);
            response.headers_mut().remove(CONTENT_LENGTH);
            response.body_mut().filter(EventFilter::new(Box::new(rewrite)));
        } else if is_ok && self.asked.lists_tools {
            self.filter_list(&mut response, deadlines).await?;
        }
        Ok(response)
    }

    async fn filter_list(
        &self,
        response: &mut Response<ExchangeBody>,
        deadlines: &Rc<Deadlines>,
    ) -> Result<(), Error> {
        let body = response.body_mut();
        body.read(EVENT_MAX_BYTES, LIST_TIMEOUT, deadlines).await;
        if !body.is_peeked_whole() {
            return Err(unreadable());
        }
        // `202 Accepted`: the list comes in a stream.
        if body.peeked.is_empty() {
            return Ok(());
        }
        if let Some(list) = filtered(&body.peeked, &self.rules).map_err(|_| unreadable())? {
            let len = HeaderValue::from(list.len());
            body.replace(list.into());
            response.headers_mut().insert(CONTENT_LENGTH, len);
        }
        Ok(())
    }
}

impl Drop for ToolGate {
    fn drop(&mut self) {
        let actor = actor(&self.principal);
        for call in &self.asked.calls {
            let entry = Entry::new(actor.clone(), Action::ToolCall).account(&self.account);
            let entry = entry.about(&call.name);
            let entry = entry.request_id(self.request_id.to_str().unwrap_or_default());
            let own = self.server_request_id.iter();
            let entry = own.fold(entry, |entry, id| entry.server_request_id(id.as_str()));
            let DataPlane { audit, control, .. } = &*self.data_plane;
            match self.outcome {
                Ok(()) => audit.queue(entry, control),
                Err(REFUSED) => audit.queue_refused(entry.failed(REFUSED), control),
                Err(why) => audit.queue(entry.failed(why), control),
            }
        }
    }
}

fn actor(principal: &Principal) -> Actor {
    let caller = &*principal.caller.name;
    let proof = match &principal.proof {
        Proof::Key(id) => ActorProof::key(&format!("adsk_{id}")),
        Proof::Session { id, subject } => {
            ActorProof::session(&format!("adss_{id}"), subject.as_deref())
        }
        Proof::User(uid) => ActorProof::User { uid: *uid },
        Proof::Group(gid) => ActorProof::Group { gid: *gid },
        Proof::Certificate(name) => ActorProof::certificate(name),
        Proof::Token { subject, session } => ActorProof::jwt(caller, subject, session.as_deref()),
    };
    Actor::caller(caller, principal.tenant.as_ref().map(Tenant::as_str), proof)
}

fn unreadable() -> Error {
    Error::Forward(forward::Error::Malformed(Malformed::ToolList))
}

/// What is to be sent in place of `message`, if it lists tools that may not be used.
fn filtered(message: &[u8], rules: &ToolRules) -> Result<Option<String>, StreamError> {
    let text = str::from_utf8(message).map_err(|_| StreamError::Unreadable)?;
    // No serializer escapes a letter, and most messages are no lists.
    if !text.contains("\"tools\"") {
        return Ok(None);
    }
    let mut message: Value = serde_json::from_str(text).map_err(|_| StreamError::Unreadable)?;
    Ok(filter_tools(&mut message, rules).then(|| message.to_string()))
}

/// Whether the body is JSON in UTF-8 for every reader.
fn is_plain_json(headers: &HeaderMap) -> bool {
    let mut types = values(headers, &CONTENT_TYPE);
    let (Some(one), None) = (types.next(), types.next()) else { return false };
    let mut parts = one.split(|b| *b == b';').map(<[u8]>::trim_ascii);
    let is_json = parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case(b"application/json"));
    is_json
        && parts.all(|part| part.is_empty() || part.eq_ignore_ascii_case(b"charset=utf-8"))
        && values(headers, &CONTENT_ENCODING).all(|coding| coding == b"identity")
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    values(headers, &CONTENT_TYPE).any(|kind| {
        let essence = kind.split(|b| *b == b';').next().unwrap_or_default();
        essence.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
    })
}

fn values<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h [u8]> {
    headers.get_all(name).into_iter().map(HeaderValue::as_bytes)
}
