//! What waits for hooks, and what was given up, for `adsproxy hooks list` and `hooks resend`.

use super::{
    AdminCall,
    respond::{Handled, json},
};
use crate::{
    audit::Action,
    error_chain::chain,
    hooks::{Message, outbox},
    login::LoginError,
    problem::{Code, Problem},
};
use serde_json::{Value, json};
use std::error::Error;

/// Every message in the store, the dead letters last. No part of one is a secret: links for
/// reconnecting are made when a message is sent.
pub(super) async fn list(call: AdminCall) -> Handled {
    let messages = messages(&call).await?;
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

/// Every message, the dead letters last.
pub(super) async fn messages(call: &AdminCall) -> Result<Vec<Message>, LoginError> {
    let mut messages = outbox::list(call.logins.engine.store()).await.map_err(failed)?;
    messages.sort_by_key(|message| message.is_dead);
    Ok(messages)
}

/// What the store says of a message, and no advice that an account would need.
fn failed(error: impl Error + Send + Sync + 'static) -> LoginError {
    LoginError { detail: chain(&error).into(), ..LoginError::of(Code::StoreFailed, error) }
}

/// Queues the dead letter `id` again, or `all` of them; says how many it were.
pub(super) async fn resend(call: AdminCall) -> Handled {
    let (id, all) = (call.form.one("id")?, call.form.flag("all")?);
    if id.is_some() == (all == Some(true)) {
        return Err(LoginError::bad_request("name a message by its id, or say all"));
    }
    if let Some(queued) = queue_again(&call, id.as_deref()).await? {
        return Ok(json(&json!({ "queued": queued })));
    }
    let detail = format!(
        "no message that was given up has the id {:?}; see `adsproxy hooks list --dead`",
        id.unwrap_or_default()
    );
    let problem = Problem { detail: &detail, ..Code::NotFound.problem() };
    Ok(problem.respond(&call.request_id))
}

/// Queues the dead letter `id` again, or all of them, and returns how many it were; none if there is
/// no such letter.
pub(super) async fn queue_again(
    call: &AdminCall,
    id: Option<&str>,
) -> Result<Option<usize>, LoginError> {
    let (logins, engine) = (&call.logins, &call.logins.engine);
    let mut dead = outbox::list(engine.store()).await.map_err(failed)?;
    dead.retain(|message| message.is_dead && id.is_none_or(|id| message.id == id));
    if id.is_some() && dead.is_empty() {
        return Ok(None);
    }
    if !dead.is_empty() {
        let entry = logins.entry_of(Action::HookResend).count(dead.len() as u64);
        engine.audit().write(id.iter().fold(entry, |entry, id| entry.about(id))).await?;
    }
    let (engine, now) = (engine.clone(), engine.clock().now().unix());
    // To the end, also where the command is stopped: the entry says how many.
    let queue = async move {
        let mut queued = 0;
        for message in &dead {
            let resent = outbox::resend(engine.store(), message, now).await;
            queued += usize::from(resent.map_err(failed)?);
        }
        Ok(queued)
    };
    Ok(Some(logins.spawn(queue).await?))
}
