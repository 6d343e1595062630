//! The latest requests of the data plane, without body, query and secret.

use super::{Frame, page};
use crate::{
    admin::{
        AdminCall,
        arguments::Arguments,
        bodies::{RequestEntry, RequestPage},
        requests,
        respond::Handled,
    },
    login::LoginError,
};
use askama::Template;
use http::StatusCode;

#[derive(Template)]
#[template(path = "requests.html")]
struct RequestsPage {
    frame: Frame,
    requests: Vec<RequestEntry>,
    account: String,
    status: String,
    sender: String,
    next: Option<String>,
    is_filtered: bool,
}

pub(in crate::admin) async fn show(call: AdminCall) -> Handled {
    let text = |name: &str| call.query.any(name).unwrap_or_default();
    let [account, status, sender, cursor] = ["account", "status", "caller", "cursor"].map(text);
    let query = [("account", &*account), ("status", &*status), ("caller", &*sender)];
    let paged = [query.as_slice(), &[("cursor", &*cursor)]].concat();
    let found = list(&call, &paged)?;
    let next = found.next_cursor.map(|cursor| {
        let mut address = form_urlencoded::Serializer::new("/dashboard/requests?".to_owned());
        let given = query.iter().filter(|(_, value)| !value.is_empty());
        address.extend_pairs(given).append_pair("cursor", &cursor).finish()
    });
    let template = RequestsPage {
        frame: call.frame("Requests", "requests"),
        requests: found.requests,
        is_filtered: query.iter().any(|(_, value)| !value.is_empty()),
        account,
        status,
        sender,
        next,
    };
    page(StatusCode::OK, &template)
}

/// The requests that `query` asks for, with the names that the reader knows accounts by.
pub(super) fn list(call: &AdminCall, query: &[(&str, &str)]) -> Result<RequestPage, LoginError> {
    let mut found = requests::page(call, &Arguments::of_pairs(query))?;
    for one in &mut found.requests {
        let id = one.account.as_ref().and_then(|account| account.parse().ok());
        one.account = id.map(|id| call.name_of(&id));
    }
    Ok(found)
}
