//! Callers, their keys and sessions: shown, issued and ended. The configuration is not written here.

use super::{
    AskPage, Frame,
    browsers::{self, BrowserRow},
    page, redirect,
    rules::RulesForm,
};
use crate::{
    admin::{
        AdminCall,
        arguments::Arguments,
        caller_bodies::{CallerDetails, NewSession, SessionDetails},
        callers,
        respond::{Handled, Reply},
        sessions,
    },
    login::LoginError,
    problem::Code,
};
use askama::Template;
use http::StatusCode;

pub(super) const HERE: &str = "/dashboard/callers";
/// Callers and sessions on the page.
const LIMIT: &str = "200";

#[derive(Template)]
#[template(path = "callers.html")]
struct CallersPage {
    frame: Frame,
    callers: Vec<CallerDetails>,
    sessions: Vec<SessionDetails>,
    browsers: Vec<BrowserRow>,
    /// The visitor has others than this one.
    others: bool,
    /// There are more browsers than are shown.
    has_more_browsers: bool,
    /// Whether there are more than are shown.
    has_more: bool,
    /// Every key and session may be ended, and sessions be made for every caller.
    may_change: bool,
    /// The lifetimes that a session may have, in seconds and in words; empty where the visitor makes none.
    lifetimes: Vec<(u64, &'static str)>,
    rules: Option<RulesForm>,
}

#[derive(Template)]
#[template(path = "issued.html")]
struct IssuedPage {
    frame: Frame,
    made: NewSession,
}

pub(in crate::admin) async fn show(call: AdminCall) -> Handled {
    let query = Arguments::of_pairs(&[("limit", LIMIT)]);
    let callers = callers::page(&call, &query).await?;
    let sessions = sessions::page(&call, &query).await?;
    let (browsers, has_more_browsers) = browsers::rows(&call).await?;
    let may_change = call.sees_all() && call.may_change();
    let template = CallersPage {
        frame: call.frame("Callers", "callers"),
        has_more: callers.next_cursor.is_some() || sessions.next_cursor.is_some(),
        callers: callers.callers,
        sessions: sessions.sessions,
        others: browsers.iter().any(|one| one.is_own && !one.is_this),
        browsers,
        has_more_browsers,
        may_change,
        lifetimes: lifetimes(&call, may_change),
        rules: RulesForm::of(&call)?,
    };
    page(StatusCode::OK, &template)
}

fn lifetimes(call: &AdminCall, may_change: bool) -> Vec<(u64, &'static str)> {
    let all = [(3600, "one hour"), (28_800, "eight hours"), (86_400, "a day")];
    match sessions::own_ttl_max(call) {
        _ if may_change => all.to_vec(),
        Some(max) => {
            let mut fit = all.to_vec();
            fit.retain(|(secs, _)| *secs <= max.as_secs());
            if fit.is_empty() { vec![(max.as_secs(), "as long as it may")] } else { fit }
        }
        None => Vec::new(),
    }
}

/// Makes a session. The page is the one place that has its key, so there is no redirect.
pub(in crate::admin) async fn issue(mut call: AdminCall) -> Handled {
    if let Some(sign_in) = call.demand_fresh(HERE) {
        return Ok(sign_in);
    }
    // An empty field is none.
    if call.form.any("account").is_none() {
        call.form = std::mem::take(&mut call.form).without("account").0;
    }
    let made = sessions::make(&call).await?;
    page(StatusCode::OK, &IssuedPage { frame: call.frame("The new session", "callers"), made })
}

/// Asks whether to end what the path names.
fn ask(call: &AdminCall, noun: &str, verb: &'static str, what: &str) -> Handled {
    let (id, name) = (&call.segment, call.segment.clone());
    let directory = if noun == "key" { "keys" } else { "sessions" };
    let path = if noun == "key" { "revoke" } else { "end" };
    let template = AskPage {
        frame: call.frame(&format!("{verb} {noun} {name}?"), "callers"),
        what: vec![what.to_owned()],
        action: format!("/dashboard/{directory}/{id}/{path}"),
        fields: Vec::new(),
        button: verb,
        is_dangerous: true,
        back: HERE.to_owned(),
    };
    page(StatusCode::OK, &template)
}

pub(in crate::admin) async fn ask_end(call: AdminCall) -> Handled {
    ask(&call, "session", "End", "Its key is accepted no more, on open connections too.")
}

pub(in crate::admin) async fn end(call: AdminCall) -> Handled {
    sessions::end_named(&call).await?.map(|_| redirect(HERE)).ok_or_else(missing)
}

pub(in crate::admin) async fn ask_revoke(call: AdminCall) -> Handled {
    if let Some(sign_in) = demand_fresh(&call) {
        return Ok(sign_in);
    }
    ask(
        &call,
        "key",
        "Revoke",
        "The key is accepted no more, and the sessions made with it end. The configuration stays as \
         it is: remove the key there, too.",
    )
}

pub(in crate::admin) async fn revoke(call: AdminCall) -> Handled {
    if let Some(sign_in) = demand_fresh(&call) {
        return Ok(sign_in);
    }
    callers::revoke_key(&call).await?.map(|_| redirect(HERE)).ok_or_else(missing)
}

fn demand_fresh(call: &AdminCall) -> Option<Reply> {
    call.demand_fresh(&format!("/dashboard/keys/{}/revoke", call.segment))
}

fn missing() -> LoginError {
    LoginError::new(Code::NotFound, "there is none of this id any more")
}
