//! Tokens: one call to LWA however many wait, and none where none helps.

use crate::support::proxy::{Proxy, amazon};

#[tokio::test(flavor = "multi_thread")]
async fn a_request_gets_the_accounts_token() {
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    let answer = proxy.get("/v2/profiles").await;
    assert_eq!(answer.status, 200);
    assert_eq!(amazon.state().record.counts().token_calls, 1);
}
