//! The audit log over HTTP: its entries newest first, page by page.

use super::{
    AdminCall,
    arguments::Arguments,
    bodies::{AuditEntry, AuditPage},
    paging::Paging,
    respond::Handled,
};
use crate::{audit::tail::Filter, login::LoginError, problem::Code};
use serde_json::Value;

/// Entries on a page, unless the request says otherwise.
const LIST_LIMIT: usize = 100;

/// The entries of the configured log; none if no log is kept.
pub(super) async fn list(call: AdminCall) -> Handled {
    Ok(call.json(&page(&call, &call.query).await?))
}

/// The page that `query` asks for.
pub(super) async fn page(call: &AdminCall, query: &Arguments) -> Result<AuditPage, LoginError> {
    let paging = Paging::<u64>::of(query, LIST_LIMIT)?;
    let filter = Filter {
        account: query.one("account")?.map(|_| call.id_in(query)).transpose()?,
        action: query.one("action")?,
        actor: query.one("actor")?,
        before: paging.after,
        since: None,
    };
    let audit = call.logins.engine.audit();
    let Some(mut reader) = audit.reader(filter) else {
        return Ok(AuditPage { entries: Vec::new(), next_cursor: None });
    };
    // A search may read all of the log: one reader at a time.
    let _turn = call.admin.0.audit_reader.lock().await;
    let count = paging.limit + 1;
    let read = tokio::task::spawn_blocking(move || reader.last(count)).await;
    let read = read.map_err(|_| LoginError::from(Code::Internal))??;
    let (page, next_cursor) = paging.take(read.into_iter().rev(), |entry| entry.seq.to_string());
    let entries = page.into_iter().filter_map(|entry| match entry.members {
        Value::Object(members) => Some(AuditEntry(members)),
        _ => None,
    });
    Ok(AuditPage { entries: entries.collect(), next_cursor })
}
