//! The audit log over HTTP: its entries newest first, page by page.

use super::{
    AdminCall,
    bodies::{AuditEntry, AuditPage},
    paging::Paging,
    respond::Handled,
};
use crate::{
    audit::tail::{Filter, Tail},
    login::LoginError,
    problem::Code,
};
use serde_json::Value;

/// Entries on a page, unless the request says otherwise.
const LIST_LIMIT: usize = 100;

/// The entries of the configured log; none if no log is kept.
pub(super) async fn list(call: AdminCall) -> Handled {
    let (query, paging) = (&call.query, Paging::<u64>::of(&call.query, LIST_LIMIT)?);
    let filter = Filter {
        account: query.one("account")?.map(|_| call.id_in(query)).transpose()?,
        action: query.one("action")?,
        actor: query.one("actor")?,
        before: paging.after,
        since: None,
    };
    let audit = call.logins.engine.audit();
    let Some(path) = audit.path().map(ToOwned::to_owned) else {
        return Ok(call.json(&AuditPage { entries: Vec::new(), next_cursor: None }));
    };
    // Files are read whole: one reader at a time.
    let _turn = call.admin.0.audit_reader.lock().await;
    let count = paging.limit + 1;
    let read = tokio::task::spawn_blocking(move || Tail::new(&path, filter).last(count)).await;
    let read = read.map_err(|_| LoginError::from(Code::Internal))??;
    let (page, next_cursor) = paging.take(read.into_iter().rev(), |entry| entry.seq.to_string());
    let entries = page.into_iter().filter_map(|entry| match entry.members {
        Value::Object(members) => Some(AuditEntry(members)),
        _ => None,
    });
    Ok(call.json(&AuditPage { entries: entries.collect(), next_cursor }))
}
