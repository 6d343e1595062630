//! The latest requests of the data plane, newest first, page by page.

use super::{
    AdminCall,
    arguments::Arguments,
    bodies::{RequestEntry, RequestPage},
    paging::Paging,
    respond::Handled,
};
use crate::{
    audit::rfc3339,
    id::AccountId,
    login::LoginError,
    problem::Code,
    recent::{RecentRequest, RequestFacts, RequestPlace},
};

/// Requests on a page, unless the request says otherwise.
const LIST_LIMIT: usize = 100;

/// Which of them are asked for.
struct RequestFilter {
    account: Option<AccountId>,
    status: Option<(u16, u16)>,
    caller: Option<String>,
    error: Option<String>,
}

/// A tenant sees what its own callers sent for its own accounts; an operator sees all.
pub(super) async fn list(call: AdminCall) -> Handled {
    Ok(call.json(&page(&call, &call.query)?))
}

/// The page that `query` asks for.
pub(super) fn page(call: &AdminCall, query: &Arguments) -> Result<RequestPage, LoginError> {
    let paging = Paging::<RequestPlace>::of(query, LIST_LIMIT)?;
    let filter = match RequestFilter::of(call, query) {
        Ok(filter) => filter,
        // Of another tenant, or of none: nothing was sent for it.
        Err(error) if error.code == Code::UnknownAccount => {
            return Ok(RequestPage { requests: Vec::new(), next_cursor: None });
        }
        Err(error) => return Err(error),
    };
    let found = call.logins.engine.requests.list(|one| filter.takes(one) && sees(call, one));
    let rest = found.into_iter().filter(|(at, _)| paging.after.is_none_or(|after| *at < after));
    let (page, next_cursor) = paging.take(rest, |(at, _)| at.to_string());
    let requests = page.iter().map(|(_, request)| describe(request)).collect();
    Ok(RequestPage { requests, next_cursor })
}

impl RequestFilter {
    fn of(call: &AdminCall, query: &Arguments) -> Result<Self, LoginError> {
        Ok(Self {
            status: query.one("status")?.map(|text| statuses(&text)).transpose()?,
            caller: query.one("caller")?,
            error: query.one("error")?,
            account: query.one("account")?.map(|_| call.id_in(query)).transpose()?,
        })
    }

    fn takes(&self, one: &RequestFacts<'_>) -> bool {
        let is = |wanted: Option<&str>, has: Option<&str>| wanted.is_none() || wanted == has;
        is(self.account.as_ref().map(AccountId::as_str), one.account)
            && is(self.caller.as_deref(), one.caller)
            && is(self.error.as_deref(), one.error)
            && self.status.is_none_or(|(first, last)| (first..=last).contains(&one.status))
    }
}

fn sees(call: &AdminCall, one: &RequestFacts<'_>) -> bool {
    let is_seen = |account: &str| account.parse().is_ok_and(|id| call.sees(&id));
    call.sees_all() || one.is_tenants_own && one.account.is_some_and(is_seen)
}

/// The first and the last status that `text` means: `404`, `5xx`.
fn statuses(text: &str) -> Result<(u16, u16), LoginError> {
    let is_number = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
    let class = text.strip_suffix("xx").filter(|class| class.len() == 1);
    let range = match class {
        Some(class) => class.parse().ok().map(|class: u16| (class * 100, class * 100 + 99)),
        None if is_number => text.parse().ok().map(|status| (status, status)),
        None => None,
    };
    let known = range.filter(|(first, _)| (100..600).contains(first));
    known
        .ok_or_else(|| LoginError::bad_request("status is one such as 404, or a class such as 5xx"))
}

fn describe(request: &RecentRequest) -> RequestEntry {
    let facts = request.facts();
    let text = |text: Option<&str>| text.map(str::to_owned);
    RequestEntry {
        time: rfc3339(facts.wall),
        method: facts.method.to_owned(),
        path: facts.path.to_owned(),
        account: text(facts.account),
        region: facts.region,
        caller: text(facts.caller),
        status: facts.status,
        error: facts.error,
        replays: facts.replays,
        duration_ms: facts.duration.as_micros() as f64 / 1000.0,
        bytes_in: facts.bytes_in,
        bytes_out: facts.bytes_out,
        request_id: facts.request_id.to_owned(),
        amazon_request_id: text(facts.amazon_request_id),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_one_or_a_class() {
        for (text, range) in [("404", (404, 404)), ("5xx", (500, 599)), ("1xx", (100, 199))] {
            assert_eq!(statuses(text).expect("valid"), range);
        }
        for wrong in
            ["", "xx", "0xx", "6xx", "50x", "5XX", "+5xx", "99", "600", "4040", "+40", "\u{e9}xx"]
        {
            assert!(statuses(wrong).is_err(), "{wrong}");
        }
    }
}
