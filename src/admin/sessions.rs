//! Sessions: issued, listed and ended. The key of a new one is in the response, and nowhere else.
//!
//! Operators make them for callers of the configuration, and see all. A user of an issuer makes
//! its own, where the issuer's entry allows that, and sees and ends no others.

use super::{
    AdminCall,
    arguments::Arguments,
    caller_bodies::{EndedKey, NewSession, SessionDetails, SessionPage},
    paging::Paging,
    respond::Handled,
};
use crate::{
    audit::{Action, Entry},
    callers::{
        Principal, Proof,
        key::KeyId,
        sessions::{
            Session, SessionError, SessionMaker, SessionPlace, SessionRequest, SessionUser,
        },
    },
    hooks::rfc3339,
    id::Tenant,
    login::LoginError,
    problem::{Code, Problem},
};
use http::StatusCode;
use std::time::Duration;

/// Sessions on a page, unless the request says otherwise.
const LIST_LIMIT: usize = 1000;

/// What a request for a session may say. What it does not know would make a session wider than asked.
const MEMBERS: [&str; 6] = ["caller", "ttl_secs", "account", "accounts", "read_only", "note"];

pub(super) async fn issue(call: AdminCall) -> Handled {
    Ok(call.json_with(StatusCode::CREATED, &make(&call).await?))
}

/// The session that the form asks for, with its key.
pub(super) async fn make(call: &AdminCall) -> Result<NewSession, LoginError> {
    if call.principal.as_ref().is_some_and(|it| matches!(it.proof, Proof::Session { .. })) {
        // It would outlive the one that made it.
        return Err(LoginError::new(Code::CallerRejected, "a session makes no session"));
    }
    let request = request_of(call)?;
    let (sessions, logins) = (&call.admin.0.sessions, &call.logins);
    let (key, session) = sessions.prepare(request).map_err(failed)?;
    let entry = entry(call, Action::SessionIssue, &session);
    let keep = async { sessions.keep(&session).await.map_err(failed) };
    logins.engine.audit().around(entry, "store_failed", keep).await?;
    let session = details(call, &session, sessions.state(&session), None);
    Ok(NewSession { session, key: key.expose().to_owned() })
}

fn entry(call: &AdminCall, action: Action, session: &Session) -> Entry {
    let subject = session.user.as_ref().map(|user| user.subject.as_str());
    let entry = call.logins.entry_of(action).about(session.id.as_str());
    entry.caller(&session.caller).caller_subject(subject)
}

fn failed(error: SessionError) -> LoginError {
    match error {
        SessionError::Store(error) => error.into(),
        SessionError::Random(error) => LoginError::of(Code::Internal, error),
        SessionError::Full => LoginError::new(Code::Overloaded, error.to_string()),
        SessionError::OfUser => LoginError::new(Code::CallerRejected, error.to_string()),
        error => LoginError::bad_request(error),
    }
}

fn request_of(call: &AdminCall) -> Result<SessionRequest, LoginError> {
    let form = &call.form;
    form.only(&MEMBERS)?;
    let request = requested_by(call, form.one("caller")?)?;
    let ttl = form.number("ttl_secs")?;
    let ttl = ttl.ok_or_else(|| LoginError::bad_request("ttl_secs is a number of seconds"))?;
    let accounts = [form.texts("account")?, form.texts("accounts")?].concat();
    Ok(SessionRequest {
        issued_with: call.principal.as_ref().and_then(|it| match it.proof {
            Proof::Key(id) => Some(id),
            _ => None,
        }),
        made_by: Some(maker(call)),
        ttl: Duration::from_secs(ttl),
        accounts: Some(accounts).filter(|accounts| !accounts.is_empty()),
        read_only: form.flag("read_only")?.unwrap_or(false),
        note: form.one("note")?,
        ..request
    })
}

/// A request for a session of the caller `named`; without a name, or by its own, of the user itself.
fn requested_by(call: &AdminCall, named: Option<String>) -> Result<SessionRequest, LoginError> {
    let user = call.principal.as_deref().and_then(|it| match &it.proof {
        Proof::Token { subject, .. } => Some((it, subject)),
        _ => None,
    });
    match (named, user) {
        (None, Some((principal, subject))) => of_user(call, principal, subject),
        (Some(name), Some((principal, subject))) if *name == *principal.caller.name => {
            of_user(call, principal, subject)
        }
        (Some(_), _) if !call.sees_all() => Err(LoginError::new(
            Code::CallerRejected,
            "a user makes sessions for itself alone: leave out \"caller\"",
        )),
        (Some(caller), _) => {
            let config = call.logins.engine.config();
            let Some(known) = config.callers.iter().find(|known| known.name == caller) else {
                let why = format!("there is no caller {caller:?} in the configuration");
                return Err(LoginError::bad_request(why));
            };
            let ttl_max = known.session_ttl_max;
            Ok(SessionRequest { caller, ttl_max, ..SessionRequest::default() })
        }
        (None, None) => Err(LoginError::bad_request("the request names no caller")),
    }
}

fn of_user(
    call: &AdminCall,
    principal: &Principal,
    subject: &str,
) -> Result<SessionRequest, LoginError> {
    let config = call.logins.engine.config();
    let name = &*principal.caller.name;
    let issuer = config.issuers.iter().find(|issuer| issuer.name == name);
    let allowed = issuer.and_then(|issuer| Some((issuer, issuer.session_ttl_max?)));
    let Some((issuer, ttl_max)) = allowed else {
        // An operator may make others.
        let code = if call.sees_all() { Code::BadRequest } else { Code::CallerRejected };
        let why = "users of this issuer make no sessions: an operator can allow it, by \
                   session_ttl_max_secs in its [[issuers]] entry";
        return Err(LoginError::new(code, why));
    };
    Ok(SessionRequest {
        caller: name.to_owned(),
        user: Some(SessionUser { subject: subject.to_owned(), issuer: issuer.issuer.clone() }),
        tenant: principal.tenant.clone(),
        ttl_max,
        ..SessionRequest::default()
    })
}

/// The longest that the one who asks may make a session of its own for; none: it makes none.
#[cfg(feature = "dashboard")]
pub(super) fn own_ttl_max(call: &AdminCall) -> Option<Duration> {
    let principal = call.principal.as_deref()?;
    let Proof::Token { subject, .. } = &principal.proof else { return None };
    Some(of_user(call, principal, subject).ok()?.ttl_max)
}

/// Who sends the request.
fn maker(call: &AdminCall) -> SessionMaker {
    let peer = call.admin.1.as_ref().and_then(|it| it.peer.uid());
    let Some(principal) = &call.principal else {
        // The control socket's peer, or this process.
        let uid = Some(peer.unwrap_or_else(|| rustix::process::getuid().as_raw()));
        return SessionMaker { uid, ..SessionMaker::default() };
    };
    let by =
        SessionMaker { caller: Some(principal.caller.name.to_string()), ..SessionMaker::default() };
    match &principal.proof {
        Proof::Key(id) => SessionMaker { key_id: Some(format!("adsk_{id}")), ..by },
        Proof::User(_) | Proof::Group(_) => SessionMaker { uid: peer, ..by },
        Proof::Certificate(name) => SessionMaker { san: Some(name.to_string()), ..by },
        Proof::Token { subject, .. } => SessionMaker { subject: Some(subject.to_string()), ..by },
        Proof::Session { .. } => by,
    }
}

/// The sessions that have not ended, the newest first.
pub(super) async fn list(call: AdminCall) -> Handled {
    Ok(call.json(&page(&call, &call.query).await?))
}

/// The page that `query` asks for.
pub(super) async fn page(call: &AdminCall, query: &Arguments) -> Result<SessionPage, LoginError> {
    let paging = Paging::<SessionPlace>::of(query, LIST_LIMIT)?;
    let sessions = &call.admin.0.sessions;
    let (mut open, _) = sessions.list().await?;
    open.retain(|session| {
        paging.after.is_none_or(|after| after < session.place()) && is_in_sight(call, session)
    });
    open.sort_by_key(Session::place);
    let (page, next_cursor) = paging.take(open.into_iter(), |session| session.place().to_string());
    let uses = sessions.uses_of(page.iter().map(|session| session.id)).await?;
    let details = |session: &Session| {
        details(call, session, sessions.state(session), uses.get(&session.id).copied())
    };
    let sessions = page.iter().map(details).collect();
    Ok(SessionPage { sessions, next_cursor })
}

pub(super) async fn show(call: AdminCall) -> Handled {
    let Some((session, state)) = find(&call).await? else { return Ok(missing(&call)) };
    let uses = call.admin.0.sessions.uses_of([session.id].into_iter()).await?;
    Ok(call.json(&details(&call, &session, state, uses.get(&session.id).copied())))
}

/// Ends a session.
pub(super) async fn end(call: AdminCall) -> Handled {
    Ok(end_named(&call).await?.map_or_else(|| missing(&call), |ended| call.json(&ended)))
}

/// The session that the path names, which is ended now; none if there is no such session.
pub(super) async fn end_named(call: &AdminCall) -> Result<Option<EndedKey>, LoginError> {
    let (sessions, logins) = (&call.admin.0.sessions, &call.logins);
    let found = find(call).await?.filter(|(_, state)| !["expired", "revoked"].contains(state));
    let Some((session, _)) = found else { return Ok(None) };
    let entry = entry(call, Action::SessionRevoke, &session);
    let end = async { sessions.end(session.id).await.map_err(LoginError::from) };
    logins.engine.audit().around(entry, "store_failed", end).await?;
    Ok(Some(EndedKey::new("session", session.id, &session.caller)))
}

/// The session that the path names, if it is in sight, with its state.
async fn find(call: &AdminCall) -> Result<Option<(Session, &'static str)>, LoginError> {
    let Ok(id) = call.segment.parse::<KeyId>() else { return Ok(None) };
    let found = call.admin.0.sessions.get(id).await?;
    Ok(found.filter(|(session, _)| is_in_sight(call, session)))
}

fn missing(call: &AdminCall) -> super::respond::Reply {
    let detail = "There is no such session; GET /api/v1/sessions lists them.";
    Problem { detail, ..Code::NotFound.problem() }.respond(&call.request_id)
}

/// Whether the caller may see the session, and end it: its own, and to operators each.
fn is_in_sight(call: &AdminCall, session: &Session) -> bool {
    let Some(principal) = call.principal.as_deref().filter(|_| !call.sees_all()) else {
        return call.sees_all();
    };
    let is_its_callers = *session.caller == *principal.caller.name;
    match (&principal.proof, &session.user) {
        (Proof::Session { id, .. }, _) => *id == session.id,
        (Proof::Token { subject, .. }, Some(user)) => {
            let config = call.logins.engine.config();
            let is_issuers = config.issuers.iter().any(|it| it.issuer == user.issuer);
            // What the user has in another organisation is not of this one.
            is_its_callers
                && is_issuers
                && *user.subject == **subject
                && session.tenant == principal.tenant
        }
        (_, user) => is_its_callers && user.is_none(),
    }
}

/// A session without its digest.
fn details(
    call: &AdminCall,
    session: &Session,
    state: &'static str,
    last_used: Option<u64>,
) -> SessionDetails {
    // Before it was kept, a key was.
    let before = || SessionMaker {
        key_id: session.issued_with.map(|id| format!("adsk_{id}")),
        ..SessionMaker::default()
    };
    SessionDetails {
        id: session.id.to_string(),
        state,
        caller: session.caller.clone(),
        subject: session.user.as_ref().map(|user| user.subject.clone()),
        tenant: session.tenant.as_ref().map(Tenant::to_string),
        accounts: session.accounts.clone(),
        read_only: session.read_only,
        created: rfc3339(session.created),
        expires: rfc3339(session.expires),
        last_used: last_used.map(rfc3339),
        note: session.note.clone(),
        made_by: call.sees_all().then(|| session.made_by.clone().unwrap_or_else(before)),
    }
}
