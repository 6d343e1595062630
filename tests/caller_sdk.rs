//! SDKs that can set nothing but a token, with a caller's key in its place.

use crate::support::{
    callers::TestCaller,
    extras,
    proxy::{Answer, Proxy, Setup, amazon},
};
use http::Method;
use std::path::Path;

const REQUIRED: &str = "\n[auth]\nrequired = true\n";

async fn refresh(proxy: &Proxy, refresh_token: &str) -> Answer {
    let form = format!("grant_type=refresh_token&refresh_token={refresh_token}");
    let request = proxy.request(Method::POST, "/auth/o2/token");
    proxy.send(request.header("Content-Type", "application/x-www-form-urlencoded").body(form)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn python_amazon_ad_api_works_with_a_key_as_its_access_token_and_as_its_refresh_token() {
    let Some(_) = extras::python() else { return };
    let amazon = amazon().await;
    let caller = TestCaller::new("reports", "accounts = [\"acme\"]");
    let toml = caller.toml.clone() + REQUIRED;
    let proxy = Proxy::with(&amazon, Setup { toml, ..Setup::default() });
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk/ad_api_client.py");
    for way in ["key", "shim"] {
        for (key, is_served) in [(caller.key.as_str(), true), ("unknown", false)] {
            let mut python = extras::python().expect("it was there");
            let command = python.arg(&script).args([way, &proxy.addr.to_string(), key, "0"]);
            let output = command.output().expect("a program that is here");
            let said = String::from_utf8_lossy(&output.stdout).into_owned()
                + &String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.success(), is_served, "{way}: {said}");
            assert_eq!(said.contains("profiles "), is_served, "{way}: {said}");
        }
    }
    assert!(!proxy.log().contains(&caller.key));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shim_hands_a_key_back_and_says_nothing_without_one() {
    let amazon = amazon().await;
    let (caller, stranger) = (TestCaller::new("one", ""), TestCaller::new("two", ""));
    let toml = caller.toml.clone() + REQUIRED;
    let proxy = Proxy::with(&amazon, Setup { toml, ..Setup::default() });
    let answer = refresh(&proxy, &format!("Atzr|{}", caller.key)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["access_token"], format!("Atza|{}", caller.key));
    for token in ["Atzr|acme", &format!("Atzr|{}", stranger.key), &stranger.key, "x"] {
        let answer = refresh(&proxy, token).await;
        assert_eq!((answer.status.as_u16(), answer.error()), (403, Some("caller_rejected")));
    }
}
