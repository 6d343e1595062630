//! What only commands of the server's own user and of root may do, over the control socket: read
//! which server this is and end it, take access tokens and have it recorded what they are for, put and
//! remove grants.

use super::{
    AdminCall,
    accounts::{cause, describe, exchange, failed},
    respond::{Handled, Reply, json, json_with, text},
};
use crate::{
    audit::Action,
    config::{Config, admin_text},
    grants::given::GivenGrant,
    id::AccountId,
    login::LoginError,
    problem::{Code, Problem},
    token::Error,
};
use http::StatusCode;
use serde_json::{Value, json};
use std::time::Duration;

/// Where commands with a data plane of their own take tokens, as from Login with Amazon.
pub const TOKEN_PATH: &str = "/auth/o2/token";

pub(super) async fn server(call: AdminCall) -> Handled {
    Ok(json(&describe_server(&call.logins.engine.config())))
}

/// Names the store and the admin listener: by these a command knows its own server.
pub fn describe_server(config: &Config) -> Value {
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "store": config.store.place(),
        "admin": admin_text(&config.listen.admin),
    })
}

/// An access token that lives for `min_ttl_secs` more, or the one there is unless it `must`.
pub(super) async fn token(call: AdminCall) -> Handled {
    let (account, form) = (call.account(&call.id_in_path()?)?, &call.form);
    let seconds = form.number("min_ttl_secs")?.unwrap_or(0);
    let must = form.flag("must")?.unwrap_or(false);
    let engine = &call.logins.engine;
    let token = match engine.tokens().token_for(account.id(), Duration::from_secs(seconds)).await {
        Err(Error::Unavailable { .. }) if !must => engine.tokens().token(account.id()).await,
        outcome => outcome,
    };
    let token = match token {
        Ok(token) => token,
        Err(error) => return Ok(failed(error, describe(engine, &account), &call.request_id)),
    };
    // A command hands out no token that lives too short.
    let is_short = token.expires_in(engine.clock().now()) < Duration::from_secs(seconds);
    if let Some(purpose) = form.one("purpose")?.filter(|_| !(must && is_short)) {
        let entry = call.logins.entry(Action::TokenDisclose, account.id()).about(&purpose);
        engine.audit().write(entry.generation(token.generation())).await?;
    }
    Ok(json(&json!({
        "account": account.id().as_str(),
        "access_token": token.expose(),
        "expires_in_secs": token.expires_in(engine.clock().now()).as_secs(),
        "generation": token.generation(),
        "client_id": account.client_id(),
    })))
}

/// Ends the server as SIGTERM does, but at once: for Jobs, whose app has no other way to end a container
/// beside its own. Its response does not wait for the end.
pub(super) async fn quit(call: AdminCall) -> Handled {
    let health = &call.admin.0.health;
    if health.reload.get().is_none() {
        let detail = "This process is no server that could end.";
        return Ok(Problem { detail, ..Code::NotFound.problem() }.respond(&call.request_id));
    }
    let entry = call.logins.entry_of(Action::ServerStop).about("quitquitquit").attempt();
    // A full disk must not keep the process.
    let _ = call.logins.engine.audit().write(entry).await;
    health.request_stop();
    Ok(text(StatusCode::OK, "draining\n"))
}

fn given_in(call: &AdminCall) -> Result<GivenGrant, LoginError> {
    let given = GivenGrant::parse(|name| call.form.any(name));
    given.ok_or_else(|| LoginError::bad_request("this is no grant"))
}

/// Says what would become of a grant, for `account add`. A route of its own: what a server does not
/// know must not put the grant into the store.
pub(super) async fn check(call: AdminCall) -> Handled {
    Ok(json(&call.logins.check(&call.id_in_path()?, &given_in(&call)?).await?))
}

/// Puts a grant that a person brings into the store, for `account add` and `import`.
pub(super) async fn give(call: AdminCall) -> Handled {
    let (id, given, form) = (call.id_in_path()?, given_in(&call)?, &call.form);
    let (about, more) = (form.one("about")?, form.flag("more")?.unwrap_or(false));
    Ok(json(&call.logins.give(&id, &given, about.as_deref(), more).await?))
}

/// Forgets what the store has of an account, for `account remove`.
pub(super) async fn remove(call: AdminCall) -> Handled {
    call.logins.remove(&call.id_in_path()?).await?;
    Ok(json(&json!({})))
}

/// Records that a program is given access to an account.
pub(super) async fn disclosure(call: AdminCall) -> Handled {
    let (account, form) = (call.account(&call.id_in_path()?)?, &call.form);
    let action = match form.one("action")?.as_deref() {
        Some("exec") => Action::Exec,
        Some("token.disclose") => Action::TokenDisclose,
        _ => return Err(LoginError::bad_request("action is exec or token.disclose")),
    };
    let about = form.one("about")?.unwrap_or_default();
    let entry = call.logins.entry(action, account.id()).about(&about);
    call.logins.engine.audit().write(entry).await?;
    Ok(json(&json!({})))
}

/// Login with Amazon's token endpoint for the data plane of a command: its refresh token is
/// `Atzr|<account>`, and `Atzr|<account>|<generation>` once it has had the token of that generation,
/// which a further request rejects.
pub(super) async fn oauth_token(call: AdminCall) -> Handled {
    let named = call.form.one("refresh_token")?.unwrap_or_default();
    let (alias, rejected) = parse(&named);
    let engine = &call.logins.engine;
    let account = alias.parse().ok().and_then(|id: AccountId| call.account(&id).ok());
    let Some(account) = account else {
        return Ok(lwa_error(StatusCode::BAD_REQUEST, "invalid_grant"));
    };
    Ok(match exchange(engine, &account, rejected, cause(&call.logins)).await {
        Ok(token) => json(&json!({
            "access_token": token.expose(),
            "refresh_token": format!("Atzr|{}|{}", account.id(), token.generation()),
            "token_type": "bearer",
            "expires_in": token.expires_in(engine.clock().now()).as_secs(),
        })),
        Err(Error::NotConnected | Error::ReauthorizationRequired) => {
            lwa_error(StatusCode::BAD_REQUEST, "invalid_grant")
        }
        Err(Error::ApplicationRejected { .. }) => {
            lwa_error(StatusCode::UNAUTHORIZED, "invalid_client")
        }
        Err(error @ (Error::Unavailable { .. } | Error::TooManyWaiters)) => {
            failed(error, json!({ "error": "temporarily_unavailable" }), &call.request_id)
        }
    })
}

fn parse(refresh_token: &str) -> (&str, Option<u64>) {
    let named = refresh_token.strip_prefix("Atzr|").unwrap_or_default();
    match named.split_once('|') {
        Some((alias, generation)) => (alias, generation.parse().ok()),
        None => (named, None),
    }
}

/// An error as Login with Amazon words it.
fn lwa_error(status: StatusCode, error: &str) -> Reply {
    json_with(status, &json!({ "error": error }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commands_refresh_token_names_the_account_and_the_token_it_rejects() {
        assert_eq!(parse("Atzr|acme"), ("acme", None));
        assert_eq!(parse("Atzr|acme|7"), ("acme", Some(7)));
        assert_eq!(parse("Atzr|a.c-m_e|x"), ("a.c-m_e", None));
        assert_eq!(parse("Atza|acme").0, "");
    }
}
