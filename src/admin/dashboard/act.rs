//! What is done to one account: each asks once on a page of its own, and then is a form.

use super::{AskPage, HOME, page, redirect};
use crate::{
    admin::{AdminCall, accounts::refresh_now, respond::Handled},
    login::LoginError,
    problem::Code,
};
use http::StatusCode;

pub(in crate::admin) async fn ask_refresh(call: AdminCall) -> Handled {
    let name = call.name_of(&call.view()?.account);
    let template = AskPage {
        frame: call.frame(&format!("Refresh {name}?"), "accounts"),
        what: vec![
            "Login with Amazon is asked for a new access token now. Calls go on meanwhile."
                .to_owned(),
        ],
        action: format!("/dashboard/accounts/{name}/refresh"),
        fields: Vec::new(),
        button: "Refresh now",
        is_dangerous: false,
        back: account(&name),
    };
    page(StatusCode::OK, &template)
}

/// Fetches a new access token, at most one per `token.forced_refresh_min_interval_secs`.
pub(in crate::admin) async fn refresh(call: AdminCall) -> Handled {
    let account_of = call.account(&call.id_in_path()?)?;
    refresh_now(&call.logins, &account_of).await.map_err(|error| {
        let code = crate::proxy::Error::Token(error).problem().code;
        LoginError::from(code)
    })?;
    Ok(redirect(&format!("{}?done=refresh", account(&call.name_of(account_of.id())))))
}

/// Reads the account's profiles at Amazon: those of a configured or an imported grant are not known
/// otherwise, and others may have changed since the consent.
pub(in crate::admin) async fn read_profiles(call: AdminCall) -> Handled {
    let id = call.account(&call.id_in_path()?)?.id().clone();
    call.logins.read_profiles(&id).await?;
    call.admin.0.live.profiles.forget(&id);
    Ok(redirect(&format!("{}?done=profiles", account(&call.name_of(&id)))))
}

pub(in crate::admin) async fn ask_disconnect(call: AdminCall) -> Handled {
    let name = call.name_of(&call.view()?.account);
    let here = format!("/dashboard/accounts/{name}/disconnect");
    if let Some(sign_in) = call.demand_fresh(&here) {
        return Ok(sign_in);
    }
    let template = AskPage {
        frame: call.frame(&format!("Disconnect {name}?"), "accounts"),
        what: vec![
            "The stored grant is forgotten, and calls for this account fail from now on."
                .to_owned(),
            "Amazon does not show the refresh token again: the advertiser must consent again."
                .to_owned(),
        ],
        action: here,
        fields: Vec::new(),
        button: "Disconnect",
        is_dangerous: true,
        back: account(&name),
    };
    page(StatusCode::OK, &template)
}

pub(in crate::admin) async fn disconnect(call: AdminCall) -> Handled {
    let id = call.id_in_path()?;
    let here = format!("/dashboard/accounts/{}/disconnect", call.name_of(&id));
    if let Some(sign_in) = call.demand_fresh(&here) {
        return Ok(sign_in);
    }
    call.logins.logout(&id).await?;
    Ok(match call.account(&id) {
        Ok(_) => redirect(&account(&call.name_of(&id))),
        Err(error) if error.code == Code::UnknownAccount => redirect(HOME),
        Err(error) => return Err(error),
    })
}

fn account(name: &str) -> String {
    format!("/dashboard/accounts/{name}")
}
