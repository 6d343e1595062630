//! What waits for hooks, and what was given up, for `adsproxy hooks list` and `hooks resend`.

use super::{
    AdminCall,
    respond::{Handled, json},
};
use crate::{
    audit::{Action, Entry},
    hooks::outbox,
    login::LoginError,
    problem::{Code, Problem},
};
use serde_json::{Value, json};

/// Every message in the store, the dead letters last. No part of one is a secret: links for
/// reconnecting are made when a message is sent.
pub(super) async fn list(call: AdminCall) -> Handled {
    let mut messages = outbox::list(call.logins.engine.store()).await?;
    messages.sort_by_key(|message| message.is_dead);
    let messages = messages.iter().map(|message| {
        json!({
            "id": message.id,
            "hook": message.hook,
            "type": message.kind,
            "account": message.account,
            "at": message.at,
            "queued_at": message.queued_at,
            "state": if message.is_dead { "dead" } else { "waiting" },
            "attempts": message.attempts,
            "last_error": message.last_error,
        })
    });
    Ok(json(&json!({ "messages": messages.collect::<Value>() })))
}

/// Queues the dead letter `id` again, or `all` of them; says how many it were.
pub(super) async fn resend(call: AdminCall) -> Handled {
    let (id, all) = (call.form.one("id")?, call.form.one("all")?);
    if id.is_some() == (all.as_deref() == Some("true")) {
        return Err(LoginError::bad_request("name a message by its id, or say all"));
    }
    let (logins, engine) = (&call.logins, &call.logins.engine);
    let mut dead = outbox::list(engine.store()).await?;
    dead.retain(|message| message.is_dead && id.as_ref().is_none_or(|id| message.id == *id));
    if let (Some(id), true) = (&id, dead.is_empty()) {
        let detail = format!(
            "no message that was given up has the id {id:?}; see `adsproxy hooks list --dead`"
        );
        let problem = Problem { detail: &detail, ..Code::NotFound.problem() };
        return Ok(problem.respond(&call.request_id));
    }
    let mut queued = 0;
    if !dead.is_empty() {
        let entry = Entry::new(logins.actor.clone(), Action::HookResend);
        let entry = entry.request_id(&logins.request_id).count(dead.len() as u64);
        engine.audit().write(id.iter().fold(entry, |entry, id| entry.about(id))).await?;
    }
    let now = engine.clock().now().unix();
    for message in &dead {
        queued += usize::from(outbox::resend(engine.store(), message, now).await?);
    }
    Ok(json(&json!({ "queued": queued })))
}
