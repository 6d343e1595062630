//! `account add` takes what can be a refresh token, and asks Login with Amazon what it is.

use crate::support::{
    commands::Commands,
    program::{Said, said},
    proxy::{ACME_REFRESH, amazon, assert_no_secret, write_private},
};
use adsproxy::sandbox::{CLIENT_ID, LwaFault, RefreshRotation, Scripted, Times};
use http::StatusCode;
use std::fs;

/// `account add shop` with `token` from a file.
fn add(commands: &Commands, token: &str, more: &str) -> Said {
    write_private(&commands.path("token"), token);
    let line = format!("account add shop --region na --refresh-token-file token {more}");
    let said = said(&mut commands.command(&line));
    assert_no_secret("what was printed", format!("{said:?}").as_bytes());
    assert!(!format!("{said:?}").contains("CANARY"), "{said:?}");
    said
}

fn is_stored(commands: &Commands) -> bool {
    commands.run("account show shop").code == Some(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_a_refresh_token_is_named_and_not_stored() {
    let amazon = amazon().await;
    let commands = Commands::with_store(&amazon);
    for (token, why) in [
        ("", "empty"),
        ("Atza|CANARY", "access token (Atza|)"),
        ("\"Atzr|CANARY\"", "quotes"),
        ("amzn1.oa2-cs.v1.CANARY", "application"),
        ("amzn1.application-oa2-client.CANARY", "application"),
        ("Bearer Atzr|CANARY", "one line"),
        ("{\"refresh_token\":\"Atzr|CANARY\"}", "adsproxy import"),
        ("hello", "too short"),
    ] {
        let said = add(&commands, token, "--verify");
        assert!(said.code == Some(1) && said.err.contains(why), "{token}: {said:?}");
    }
    assert!(!is_stored(&commands));
    assert_eq!(amazon.state().record.counts().token_calls, 0, "nothing was asked");
    let said = add(&commands, "CANARY-of-an-unusual-kind", "");
    assert!(said.code == Some(0) && said.err.contains("does not begin with"), "{said:?}");
    // The ends of a file are no part of what is in it.
    let said = add(&commands, &format!("\u{feff}{ACME_REFRESH}\r\n\n"), "--replace --verify");
    assert_eq!(said.code, Some(0), "{said:?}");
}

/// What a proxy on the way responds with, as if it were Login with Amazon.
fn html_page() -> LwaFault {
    LwaFault::Respond(Scripted {
        status: StatusCode::FORBIDDEN,
        headers: vec![("content-type".into(), "text/html".into())],
        body: "<html>sorry</html>".into(),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_refreshed_once_and_only_a_living_grant_is_stored() {
    let amazon = amazon().await;
    let commands = Commands::with_store(&amazon);
    let lwa = &amazon.state().lwa;
    lwa.add_grant("shop", CLIENT_ID, "Atzr|shop-grant", vec![]);
    let said = add(&commands, "Atzr|nobodys", "--verify");
    assert!(said.code == Some(1) && said.err.contains("invalid_grant"), "{said:?}");
    for (fault, code, why) in [
        (LwaFault::InvalidClient, 1, "client id or client secret"),
        (LwaFault::UnauthorizedClient, 1, "approved for the Ads API"),
        // Neither of these is an outage: to try again would not help.
        (LwaFault::UnsupportedGrantType, 1, "refuses the token request"),
        (html_page(), 1, "lwa.token_url"),
        (LwaFault::Unavailable { retry_after: None }, 69, "--no-verify"),
    ] {
        lwa.faults.add(fault, Times::Forever);
        let said = add(&commands, "Atzr|shop-grant", "--verify");
        assert!(said.code == Some(code) && said.err.contains(why), "{said:?}");
        lwa.faults.clear();
    }
    assert!(!is_stored(&commands));
    // Rotated by that very refresh: the new token is the one that is kept, with its access token.
    lwa.configure(|settings| settings.rotation = RefreshRotation::OldDies);
    let calls = amazon.state().record.counts().token_calls;
    let said = add(&commands, "Atzr|shop-grant", "--verify");
    assert!(said.code == Some(0) && said.out.contains("accepts its grant"), "{said:?}");
    assert_eq!(commands.run("curl shop /v2/profiles --fail").code, Some(0));
    assert_eq!(amazon.state().record.counts().token_calls, calls + 1);
    lwa.expire_access_tokens(None);
    assert_eq!(commands.run("curl shop /v2/profiles --fail").code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_terminal_nothing_is_asked_unless_wanted() {
    let amazon = amazon().await;
    let commands = Commands::with_store(&amazon);
    for more in ["", "--no-verify --replace", "--verify --no-verify --replace"] {
        assert_eq!(add(&commands, "Atzr|nobodys", more).code, Some(0), "{more}");
    }
    assert_eq!(amazon.state().record.counts().token_calls, 0);
    fs::remove_file(commands.path("token")).expect("removed");
}
