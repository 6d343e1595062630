//! The accounts: one table that shows whether all is well, the worst first.

use super::{
    Frame,
    account_list::{AccountList, ListedAccounts},
    page,
    words::{self, Until, Urgency},
};
use crate::{
    account::{AccountView, State},
    admin::{AdminCall, respond::Handled},
    id::AccountId,
    login::LoginError,
};
use askama::Template;
use http::StatusCode;
use std::time::Duration;

/// Accounts on a page.
const PAGE_LEN: usize = 50;

#[derive(Template)]
#[template(path = "accounts.html")]
struct AccountsPage {
    frame: Frame,
    rows: Vec<AccountRow>,
    /// How many accounts are in sight, and how many of them fit the search.
    total: usize,
    found: usize,
    broken: usize,
    warned: usize,
    search: String,
    states: Vec<(&'static str, &'static str, bool)>,
    number: usize,
    pages: usize,
    before: Option<String>,
    after: Option<String>,
    has_tenants: bool,
    may_change: bool,
}

struct AccountRow {
    name: String,
    tenant: Option<String>,
    region: &'static str,
    application: String,
    /// How many in which region; empty if not known.
    profiles: String,
    state: &'static str,
    class: &'static str,
    expires: Option<Until>,
    consent_days_left: Option<i64>,
    trouble: Option<String>,
    remedy: Option<(&'static str, String)>,
}

pub(in crate::admin) async fn show(call: AdminCall) -> Handled {
    let search = call.query.one("q")?.unwrap_or_default();
    let state = call.query.one("state")?.and_then(|name| State::from_name(&name));
    let number = call.query.number("page")?.unwrap_or(1).max(1);
    let listed = call.listed_accounts();
    let views = listed.worst_first().filter(|view| call.sees(&view.account));
    let mut views: Vec<&AccountView> = views.collect();
    let total = views.len();
    let count = |urgency| views.iter().filter(|view| words::urgency(view) == urgency).count();
    let (broken, warned) = (count(Urgency::Broken), count(Urgency::Warning));
    let wanted = search.to_ascii_lowercase();
    views.retain(|view| {
        state.is_none_or(|state| view.state == state)
            && call.name_of(&view.account).to_ascii_lowercase().contains(&wanted)
    });
    let (found, pages) = (views.len(), views.len().div_ceil(PAGE_LEN).max(1));
    let number = usize::try_from(number).unwrap_or(pages).min(pages);
    let shown: Vec<&AccountView> =
        views.into_iter().skip((number - 1) * PAGE_LEN).take(PAGE_LEN).collect();
    let ids: Vec<AccountId> = shown.iter().map(|view| view.account.clone()).collect();
    let profiles = call.admin.0.live.profiles.of(&call.logins, &ids).await;
    let rows: Vec<AccountRow> =
        shown.into_iter().zip(profiles).map(|(view, its)| row(&call, view, its)).collect();
    let link = |number: usize| address(&search, state, number);
    let template = AccountsPage {
        frame: call.frame("Accounts", "accounts"),
        may_change: call.may_change(),
        has_tenants: rows.iter().any(|row| row.tenant.is_some()),
        rows,
        total,
        found,
        broken,
        warned,
        states: State::ALL.map(|it| (it.as_str(), words::state(it), state == Some(it))).to_vec(),
        number,
        pages,
        before: (number > 1).then(|| link(number - 1)),
        after: (number < pages).then(|| link(number + 1)),
        search,
    };
    page(StatusCode::OK, &template)
}

fn address(search: &str, state: Option<State>, number: usize) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    if !search.is_empty() {
        query.append_pair("q", search);
    }
    if let Some(state) = state {
        query.append_pair("state", state.as_str());
    }
    query.append_pair("page", &number.to_string());
    format!("/dashboard?{}", query.finish())
}

fn row(call: &AdminCall, view: &AccountView, profiles: String) -> AccountRow {
    let (name, now) = (call.name_of(&view.account), call.logins.engine.clock().now().wall);
    AccountRow {
        tenant: tenant(call, &view.account),
        region: view.region.as_str(),
        application: view.application.clone(),
        profiles,
        state: words::state(view.state),
        class: words::urgency(view).class(),
        expires: view.expires_in.map(|left| Until::of(left, now)),
        consent_days_left: view.consent_days_left,
        trouble: words::trouble(view),
        remedy: words::remedy(view, &name).filter(|_| call.may_change()),
        name,
    }
}

/// The tenant of an account, where the accounts of several are in sight.
fn tenant(call: &AdminCall, id: &AccountId) -> Option<String> {
    id.tenant().filter(|_| call.sees_all()).map(ToString::to_string)
}

impl AdminCall {
    /// Every account, whether in sight or not; for a stream as it was a moment ago.
    pub(super) fn listed_accounts(&self) -> ListedAccounts {
        let age_max = if self.is_live() { AccountList::AGE_MAX } else { Duration::ZERO };
        self.admin.0.live.accounts.load(&self.logins.engine, age_max)
    }

    /// Whether pages show what changes something.
    pub(super) fn may_change(&self) -> bool {
        self.principal.as_ref().is_none_or(|principal| !principal.rules.is_read_only())
    }

    /// The account that the path names, as it is now.
    pub(super) fn view(&self) -> Result<AccountView, LoginError> {
        let account = self.account(&self.id_in_path()?)?;
        let view = self.logins.engine.tokens().status(account.id());
        view.ok_or_else(|| LoginError::unknown_account(account.id()))
    }
}
