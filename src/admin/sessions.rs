//! Sessions: issued, listed and ended. The key of a new one is in the response, and nowhere else.

use super::{
    AdminCall,
    respond::{Handled, json, json_with},
};
use crate::{
    audit::Action,
    callers::{
        Proof,
        key::KeyId,
        sessions::{Session, SessionError, SessionRequest},
    },
    hooks::rfc3339,
    login::LoginError,
    problem::{Code, Problem},
};
use http::StatusCode;
use serde_json::{Value, json};
use std::time::Duration;

/// What a request for a session may say. What it does not know would make a session wider than asked.
const MEMBERS: [&str; 6] = ["caller", "ttl_secs", "account", "accounts", "read_only", "note"];

pub(super) async fn issue(call: AdminCall) -> Handled {
    if call.principal.as_ref().is_some_and(|it| matches!(it.proof, Proof::Session(_))) {
        // It would outlive the one that made it.
        return Err(LoginError::new(Code::CallerRejected, "a session makes no session"));
    }
    let request = request_of(&call)?;
    let (sessions, logins) = (&call.admin.0.sessions, &call.logins);
    let (key, session) = sessions.prepare(request).map_err(failed)?;
    let entry = logins.entry_of(Action::SessionIssue).about(session.id.as_str());
    let entry = entry.caller(&session.caller);
    let keep = async { sessions.keep(&session).await.map_err(failed) };
    logins.engine.audit().around(entry, "store_failed", keep).await?;
    let mut said = shown(&session, None);
    said["key"] = key.expose().into();
    Ok(json_with(StatusCode::CREATED, &said))
}

fn failed(error: SessionError) -> LoginError {
    match error {
        SessionError::Store(error) => error.into(),
        SessionError::Random(error) => LoginError::of(Code::Internal, error),
        SessionError::Full => LoginError::new(Code::Overloaded, error.to_string()),
        error => LoginError::bad_request(error),
    }
}

fn request_of(call: &AdminCall) -> Result<SessionRequest, LoginError> {
    let form = &call.form;
    form.only(&MEMBERS)?;
    let named = form.one("caller")?;
    let caller = named.ok_or_else(|| LoginError::bad_request("the request names no caller"))?;
    let config = call.logins.engine.config();
    if !config.callers.iter().any(|known| known.name == caller) {
        let why = format!("there is no caller {caller:?} in the configuration");
        return Err(LoginError::bad_request(why));
    }
    let ttl = form.one("ttl_secs")?.and_then(|text| text.parse().ok());
    let ttl = ttl.ok_or_else(|| LoginError::bad_request("ttl_secs is a number of seconds"))?;
    let accounts = [form.all("account"), form.all("accounts")].concat();
    let read_only = match form.one("read_only")?.as_deref() {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(LoginError::bad_request("read_only is true or false")),
    };
    Ok(SessionRequest {
        caller,
        tenant: None,
        issued_with: call.principal.as_ref().and_then(|it| match it.proof {
            Proof::Key(id) => Some(id),
            _ => None,
        }),
        ttl: Duration::from_secs(ttl),
        accounts: Some(accounts).filter(|accounts| !accounts.is_empty()),
        read_only,
        note: form.one("note")?,
    })
}

/// The sessions that have not ended, the newest first.
pub(super) async fn list(call: AdminCall) -> Handled {
    let sessions = &call.admin.0.sessions;
    let (mut open, _) = sessions.list().await?;
    open.sort_by_key(|session| (std::cmp::Reverse(session.created), session.id));
    let uses = sessions.uses().await?;
    let open = open.iter().map(|session| shown(session, uses.get(&session.id).copied()));
    Ok(json(&json!({ "sessions": open.collect::<Value>() })))
}

/// Ends a session.
pub(super) async fn end(call: AdminCall) -> Handled {
    let (sessions, logins) = (&call.admin.0.sessions, &call.logins);
    let id: Option<KeyId> = call.segment.parse().ok();
    let (open, _) = sessions.list().await?;
    let Some(session) = open.into_iter().find(|session| Some(session.id) == id) else {
        let detail = "There is no such session; GET /api/v1/sessions lists them.";
        return Ok(Problem { detail, ..Code::NotFound.problem() }.respond(&call.request_id));
    };
    let entry = logins.entry_of(Action::SessionRevoke).about(session.id.as_str());
    let entry = entry.caller(&session.caller);
    let end = async { sessions.end(session.id).await.map_err(LoginError::from) };
    logins.engine.audit().around(entry, "store_failed", end).await?;
    Ok(json(&json!({ "kind": "session", "id": session.id, "caller": session.caller })))
}

/// A session without its digest.
fn shown(session: &Session, last_used: Option<u64>) -> Value {
    json!({
        "id": session.id,
        "caller": session.caller,
        "tenant": session.tenant,
        "accounts": session.accounts,
        "read_only": session.read_only,
        "created": rfc3339(session.created),
        "expires": rfc3339(session.expires),
        "last_used": last_used.map(rfc3339),
        "note": session.note,
    })
}
