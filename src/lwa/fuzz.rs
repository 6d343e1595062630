//! Fuzz target of the responses of Login with Amazon.

use super::wire::{RawResponse, granted, granted_for_code, revoked};
use crate::fuzz::{Target, assert_hides};
use http::StatusCode;
use std::time::Duration;
use zeroize::Zeroizing;

pub const TARGETS: &[Target] = &[Target { name: "lwa_response", run: response, seeds: SEEDS }];

const SEEDS: &[&str] = &[
    r#"2{"access_token":"Atza|CANARY","refresh_token":"Atzr|CANARY","expires_in":3600,"scope":"a"}"#,
    r#"2{"access_token":"Atza|CANARY","refresh_token":null,"expires_in":"60.5","token_type":"bearer"}"#,
    r#"4{"error":"invalid_grant","error_description":"Atzr|CANARY redirect_uri"}"#,
    r#"4{"error":"invalid_request","error_description":"an invalid parameter : code"}"#,
    r#"4{"error":"unauthorized_client"}"#,
    "5<html>CANARY</html>",
    r#"5{"error":"ServerError"}"#,
];

/// The first byte chooses the status. A token can stand in a header line, lives a second to a day, and
/// no error shows what the response says.
fn response(input: &[u8]) {
    let Some((status, body)) = input.split_first() else { return };
    let status = match status {
        b'2' => StatusCode::OK,
        b'4' => StatusCode::BAD_REQUEST,
        b'5' => StatusCode::SERVICE_UNAVAILABLE,
        other => StatusCode::from_u16(100 + 2 * u16::from(*other)).expect("100 to 610"),
    };
    let response = RawResponse { status, retry_after: None, body: Zeroizing::new(body.to_vec()) };
    for outcome in [granted(&response), granted_for_code(&response)] {
        match outcome {
            Ok(granted) => {
                assert_hides(&format!("{:?}", (&granted.access_token, &granted.refresh_token)));
                for token in [Some(&granted.access_token), granted.refresh_token.as_ref()] {
                    let Some(token) = token.map(|token| token.expose()) else { continue };
                    assert!((1..=8192).contains(&token.len()), "{} bytes", token.len());
                    assert!(token.bytes().all(|byte| byte.is_ascii_graphic()));
                }
                let day = Duration::from_secs(86_400);
                assert!((Duration::from_secs(1)..=day).contains(&granted.expires_in));
            }
            Err(error) => assert_hides(&format!("{error} {error:?}")),
        }
    }
    if let Err(error) = revoked(&response) {
        assert_hides(&format!("{error} {error:?}"));
    }
}
