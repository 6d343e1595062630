//! The audit log, newest first, and whether it is as it was written.

use super::{
    Frame, account::AuditLine, audit_tail::LEN, check::LogChecksState, page,
    tenant_audit::OwnEntries,
};
use crate::{
    admin::{
        AdminCall,
        arguments::Arguments,
        audit_log,
        bodies::{AuditEntry, AuditPage},
        respond::Handled,
    },
    login::LoginError,
    problem::Code,
};
use askama::Template;
use http::StatusCode;
use serde_json::Value;

#[derive(Template)]
#[template(path = "audit.html")]
struct AuditLogPage {
    frame: Frame,
    is_kept: bool,
    /// Of all, and not of one tenant.
    is_whole: bool,
    /// Nothing is searched for: what is added is shown.
    is_tail: bool,
    may_change: bool,
    check: LogChecksState,
    lines: Vec<AuditLine>,
    account: String,
    action: String,
    actor: String,
    next: Option<String>,
}

pub(in crate::admin) async fn show(call: AdminCall) -> Handled {
    if !call.sees_all() {
        return show_own(&call).await;
    }
    let text = |name: &str| call.query.any(name).unwrap_or_default();
    let [account, action, actor, cursor] = ["account", "action", "actor", "cursor"].map(text);
    let query = [("account", &*account), ("action", &*action), ("actor", &*actor)];
    let paged = [query.as_slice(), &[("cursor", &*cursor)]].concat();
    let is_tail = cursor.is_empty() && query.iter().all(|(_, value)| value.is_empty());
    let found = match call.is_live() {
        true if is_tail => tail(&call).await?,
        // A stream reports the check only.
        true => AuditPage { entries: Vec::new(), next_cursor: None },
        false => audit_log::page(&call, &Arguments::of_pairs(&paged)).await?,
    };
    let next = found.next_cursor.map(|cursor| {
        let mut address = form_urlencoded::Serializer::new("/dashboard/audit?".to_owned());
        let given = query.iter().filter(|(_, value)| !value.is_empty());
        address.extend_pairs(given).append_pair("cursor", &cursor).finish()
    });
    let template = AuditLogPage {
        frame: call.frame("Audit", "audit"),
        is_whole: true,
        may_change: call.may_change(),
        check: call.admin.0.live.checks.state(),
        is_tail,
        is_kept: call.logins.engine.audit().is_on(),
        lines: found.entries.iter().map(|entry| AuditLine::of(&entry.0)).collect(),
        account,
        action,
        actor,
        next,
    };
    page(StatusCode::OK, &template)
}

/// What a tenant may see. Its lines stay as they are until the page is loaded again.
async fn show_own(call: &AdminCall) -> Handled {
    let text = |name: &str| call.query.any(name).unwrap_or_default();
    let (account, action) = (text("account"), text("action"));
    let wanted = match account.is_empty() {
        true => None,
        false => Some(call.id_in(&call.query)?),
    };
    let own = OwnEntries { account: wanted, action: action.clone() };
    let template = AuditLogPage {
        frame: call.frame("Audit", "audit"),
        is_whole: false,
        may_change: false,
        check: LogChecksState::default(),
        is_tail: false,
        is_kept: call.logins.engine.audit().is_on(),
        lines: own.read(call).await?,
        account,
        action,
        actor: String::new(),
        next: None,
    };
    page(StatusCode::OK, &template)
}

/// The latest entries, for a stream.
async fn tail(call: &AdminCall) -> Result<AuditPage, LoginError> {
    let audit = call.logins.engine.audit().clone();
    let mut tail = call.admin.0.live.audit.clone().lock_owned().await;
    let latest = tokio::task::spawn_blocking(move || tail.latest(&audit)).await;
    let latest = latest.map_err(|_| LoginError::from(Code::Internal))??;
    let oldest = latest.last().filter(|_| latest.len() == LEN);
    let next_cursor = oldest.map(|oldest| oldest.seq.to_string());
    let entries = latest.into_iter().filter_map(|entry| match entry.members {
        Value::Object(members) => Some(AuditEntry(members)),
        _ => None,
    });
    Ok(AuditPage { entries: entries.collect(), next_cursor })
}
