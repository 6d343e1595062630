//! Connects an account: asks which one, and sends the browser to Amazon's consent page.

use super::{Frame, page_with, redirect};
use crate::{
    admin::{AdminCall, oauth::login_request, respond::Handled},
    id::Region,
    login::LoginError,
    problem::Code,
};
use askama::Template;
use http::{StatusCode, Uri};

#[derive(Template)]
#[template(path = "connect.html")]
struct ConnectPage {
    frame: Frame,
    account: String,
    /// There is such an account, whose settings count.
    is_known: bool,
    regions: Vec<&'static str>,
    /// Those to choose from; empty where there is no choice.
    applications: Vec<String>,
}

pub(in crate::admin) async fn ask(call: AdminCall) -> Handled {
    let account = call.query.one("account")?.unwrap_or_default();
    let config = call.logins.engine.config();
    let is_known = !account.is_empty() && call.account(&call.id_in(&call.query)?).is_ok();
    let title = match is_known {
        true => format!("Connect {account}?"),
        false => "Connect an account".to_owned(),
    };
    let has_choice = call.sees_all() && config.applications.len() > 1;
    let template = ConnectPage {
        frame: call.frame(&title, "accounts"),
        account,
        is_known,
        regions: Region::ALL.map(Region::as_str).to_vec(),
        applications: config.applications.keys().filter(|_| has_choice).cloned().collect(),
    };
    page_with(StatusCode::OK, &template, &origins(&call))
}

/// Where the form leads on to: the return address's host, which sets the cookie of the login, and
/// Amazon. Browsers check each redirect of a form against the policy of its page.
fn origins(call: &AdminCall) -> String {
    let config = call.logins.engine.config();
    let applications = config.applications.values();
    let mut origins: Vec<_> = applications
        .flat_map(|it| [it.redirect_uri.parse::<Uri>().ok(), Some(it.authorize_url.clone())])
        .flatten()
        .filter_map(|uri| Some(format!(" {}://{}", uri.scheme_str()?, uri.authority()?)))
        .collect();
    origins.sort();
    origins.dedup();
    origins.concat()
}

pub(in crate::admin) async fn begin(call: AdminCall) -> Handled {
    let (id, request) = login_request(&call, &call.form, "dashboard")?;
    let name = call.name_of(&id);
    // Another user's consent would replace what works.
    let replaces = call.account(&id).is_ok_and(|account| {
        let view = call.logins.engine.tokens().status(account.id());
        view.is_some_and(|view| !view.state.needs_login())
    });
    if replaces
        && let Some(sign_in) = call.demand_fresh(&format!("/dashboard/connect?account={name}"))
    {
        return Ok(sign_in);
    }
    if call.logins.engine.config().applications.is_empty() {
        return Err(LoginError::from(Code::ApplicationRejected));
    }
    let lifetime = call.logins.engine.config().login.timeout;
    let (url, _) = call.logins.link(&id, &request, lifetime).await?;
    Ok(redirect(url.expose()))
}
