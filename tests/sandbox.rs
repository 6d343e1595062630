//! The emulator behaves like Amazon, and shows the faults it is told to show.

use adsproxy::{
    sandbox::{
        ACCOUNTS, ApiFault, CLIENT_ID, CLIENT_SECRET, Emulator, EmulatorOptions, ExpiresIn,
        LwaFault, Permission, RefreshRotation, Scripted, Surface, Times,
    },
    testing::{Clock, ManualClock},
};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, request::Builder};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

const REFRESH: &str = ACCOUNTS[0].1;
const SCOPE: &str = "1234567890123456";
const CAMPAIGN: &str = "application/vnd.spCampaign.v3+json";

/// An emulator and a plain client.
struct Amazon {
    emulator: Emulator,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// A whole answer.
struct Got {
    status: StatusCode,
    headers: HeaderMap,
    trailers: Option<HeaderMap>,
    body: Bytes,
}

impl Got {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is text")
    }
}

impl Amazon {
    async fn start() -> Self {
        Self::with(EmulatorOptions::default()).await
    }

    async fn with(options: EmulatorOptions) -> Self {
        let emulator = Emulator::start(options).await.expect("a loopback port is free");
        Self { emulator, client: Client::builder(TokioExecutor::new()).build_http() }
    }

    fn request(&self, method: &str, target: &str) -> Builder {
        let uri = format!("http://{}{target}", self.emulator.addr());
        Request::builder().method(method).uri(uri)
    }

    async fn try_send(
        &self,
        request: Builder,
        body: &str,
    ) -> Result<http::Response<Incoming>, hyper_util::client::legacy::Error> {
        let body = Full::new(Bytes::copy_from_slice(body.as_bytes()));
        self.client.request(request.body(body).expect("a valid request")).await
    }

    async fn send(&self, request: Builder, body: &str) -> Got {
        let (parts, body) = self.try_send(request, body).await.expect("an answer").into_parts();
        let body = body.collect().await.expect("a whole body");
        let trailers = body.trailers().cloned();
        Got { status: parts.status, headers: parts.headers, trailers, body: body.to_bytes() }
    }

    async fn token_call(&self, refresh: &str) -> Got {
        let request = self
            .request("POST", "/auth/o2/token")
            .header("content-type", "application/x-www-form-urlencoded;charset=UTF-8");
        let refresh = refresh.replace('|', "%7C");
        let body = format!(
            "grant_type=refresh_token&refresh_token={refresh}&client_id={CLIENT_ID}\
             &client_secret={CLIENT_SECRET}"
        );
        self.send(request, &body).await
    }

    async fn access_token(&self) -> String {
        let got = self.token_call(REFRESH).await;
        got.json()["access_token"].as_str().expect("a token").to_owned()
    }

    fn api(&self, method: &str, target: &str, token: &str) -> Builder {
        self.request(method, target)
            .header("authorization", format!("Bearer {token}"))
            .header("amazon-advertising-api-clientid", CLIENT_ID)
            .header("amazon-ads-clientid", CLIENT_ID)
    }

    async fn get(&self, target: &str, token: &str) -> Got {
        self.send(self.api("GET", target, token), "").await
    }

    fn scoped(&self, method: &str, target: &str, token: &str, content_type: &str) -> Builder {
        self.api(method, target, token)
            .header("amazon-advertising-api-scope", SCOPE)
            .header("content-type", content_type)
    }

    async fn switch(&self, target: &str) -> Got {
        self.send(self.request("POST", target), "").await
    }
}

#[tokio::test]
async fn a_refresh_token_buys_an_access_token_of_the_documented_shape() {
    let amazon = Amazon::start().await;
    let got = amazon.token_call(REFRESH).await;
    assert_eq!(got.status, 200);
    assert_eq!(got.headers["cache-control"], "no-store");
    let body = got.json();
    let token = body["access_token"].as_str().unwrap();
    assert!(token.starts_with("Atza|") && (350..=2048).contains(&token.len()));
    assert_eq!(body["refresh_token"], REFRESH);
    assert_eq!(body["token_type"], "bearer");
    assert_eq!(body["expires_in"], 3600);
}

#[tokio::test]
async fn form_json_and_basic_are_all_understood_but_nothing_else() {
    let amazon = Amazon::start().await;
    let post = || amazon.request("POST", "/auth/o2/token");
    let body = json!({
        "grant_type": "refresh_token", "refresh_token": REFRESH,
        "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET,
    });
    let json = post().header("content-type", "application/json");
    assert_eq!(amazon.send(json, &body.to_string()).await.status, 200);

    use base64::Engine;
    let basic = base64::prelude::BASE64_STANDARD.encode(format!("{CLIENT_ID}:{CLIENT_SECRET}"));
    let form = format!("grant_type=refresh_token&refresh_token={}", REFRESH.replace('|', "%7C"));
    let request = post()
        .header("content-type", "application/x-www-form-urlencoded")
        .header("authorization", format!("Basic {basic}"));
    assert_eq!(amazon.send(request, &form).await.status, 200);

    let got = amazon.send(post().header("content-type", "text/plain"), &form).await;
    assert_eq!(
        (got.status.as_u16(), &got.json()["error"]),
        (400, &"unsupported_grant_type".into())
    );
}

#[tokio::test]
async fn wrong_tokens_and_wrong_secrets_are_told_apart() {
    let amazon = Amazon::start().await;
    let got = amazon.token_call("Atzr|nobody").await;
    assert_eq!(got.status, 400);
    assert_eq!(got.json()["error"], "invalid_grant");
    assert!(!got.text().contains("nobody"));

    amazon.emulator.state().lwa.add_application(CLIENT_ID, &["another", "third"]);
    let got = amazon.token_call(REFRESH).await;
    assert_eq!(got.status, 401);
    assert_eq!(got.json()["error"], "invalid_client");

    amazon.emulator.state().lwa.add_application(CLIENT_ID, &["another", CLIENT_SECRET]);
    assert_eq!(amazon.token_call(REFRESH).await.status, 200);
}

#[tokio::test]
async fn rotation_kills_the_old_refresh_token_at_once_later_or_never() {
    let clock = Arc::new(ManualClock::new());
    let amazon = Amazon::with(EmulatorOptions {
        clock: Arc::clone(&clock) as Arc<dyn Clock>,
        ..EmulatorOptions::default()
    })
    .await;
    let lwa = &amazon.emulator.state().lwa;
    let renewed = async |old: &str| {
        let got = amazon.token_call(old).await;
        assert_eq!(got.status, 200, "{}", got.text());
        got.json()["refresh_token"].as_str().unwrap().to_owned()
    };

    lwa.configure(|settings| settings.rotation = RefreshRotation::OldLives);
    let second = renewed(REFRESH).await;
    assert_ne!(second, REFRESH);
    renewed(REFRESH).await;

    lwa.configure(|settings| {
        settings.rotation = RefreshRotation::OldDiesAfter(Duration::from_secs(60));
    });
    let third = renewed(&second).await;
    renewed(&second).await;
    clock.advance(Duration::from_secs(61));
    assert_eq!(amazon.token_call(&second).await.status, 400);

    lwa.configure(|settings| settings.rotation = RefreshRotation::OldDies);
    // The third was replaced while its predecessor was used again, so it died with that.
    assert_eq!(amazon.token_call(&third).await.status, 400);
    let last = lwa.grant("acme").unwrap().current().to_owned();
    let newest = renewed(&last).await;
    assert_eq!(amazon.token_call(&last).await.status, 400);
    assert_eq!(lwa.grant("acme").unwrap().current(), newest);
}

#[tokio::test]
async fn an_old_refresh_token_dies_once_the_new_one_is_used() {
    let amazon = Amazon::start().await;
    let lwa = &amazon.emulator.state().lwa;
    lwa.configure(|settings| settings.rotation = RefreshRotation::OldDiesOnceUsed);
    amazon.token_call(REFRESH).await;
    // The answer was lost as far as anybody can tell: the old one goes on working.
    let answer = amazon.token_call(REFRESH).await.json();
    let second = answer["refresh_token"].as_str().unwrap();
    assert_eq!(
        amazon.get("/v2/profiles", answer["access_token"].as_str().unwrap()).await.status,
        200
    );
    assert_eq!(amazon.token_call(REFRESH).await.status, 400, "its successor's answer was used");
    let third = amazon.token_call(second).await.json()["refresh_token"].clone();
    assert_eq!(amazon.token_call(third.as_str().unwrap()).await.status, 200);
    assert_eq!(amazon.token_call(second).await.status, 400, "its successor was used");
}

#[tokio::test]
async fn odd_token_answers_come_out_as_ordered() {
    let amazon = Amazon::start().await;
    let lwa = &amazon.emulator.state().lwa;
    for raw in ["\"3600\"", "1e400", "-1", "null"] {
        lwa.configure(|settings| settings.expires_in = ExpiresIn::Raw(raw.to_owned()));
        let got = amazon.token_call(REFRESH).await;
        assert!(got.text().contains(&format!("\"expires_in\":{raw}")), "{}", got.text());
    }
    lwa.configure(|settings| {
        settings.expires_in = ExpiresIn::Absent;
        settings.omit_refresh_token = true;
    });
    let body = amazon.token_call(REFRESH).await.json();
    assert!(body.get("expires_in").is_none() && body.get("refresh_token").is_none());

    lwa.faults.add(LwaFault::NoToken, Times::Next(1));
    assert!(amazon.token_call(REFRESH).await.json().get("access_token").is_none());
    lwa.faults.add(LwaFault::CrlfInToken, Times::Next(1));
    let token = amazon.access_token().await;
    assert!(token.contains("\r\n"));
}

#[tokio::test]
async fn the_token_endpoint_fails_in_every_known_way() {
    let amazon = Amazon::start().await;
    let faults = &amazon.emulator.state().lwa.faults;
    let cases = [
        (LwaFault::InvalidGrant, 400, "invalid_grant"),
        (LwaFault::InvalidClient, 401, "Client authentication failed"),
        (LwaFault::UnsupportedGrantType, 400, "unsupported_grant_type"),
        (LwaFault::ServerError, 500, "ServerError"),
        (LwaFault::Unavailable { retry_after: None }, 503, "<html>"),
        (LwaFault::Throttled { retry_after: Some(7) }, 429, "Rate exceeded"),
        (LwaFault::Redirect("/_elsewhere".to_owned()), 307, ""),
        (LwaFault::Echo, 400, REFRESH),
    ];
    for (fault, status, text) in cases {
        let name = format!("{fault:?}");
        faults.add(fault, Times::Next(1));
        let got = amazon.token_call(REFRESH).await;
        assert_eq!(got.status, status, "{name}");
        assert!(got.text().contains(text), "{name}: {}", got.text());
        assert_eq!(got.headers.contains_key("retry-after"), status == 429, "{name}");
        assert_eq!(got.headers.contains_key("location"), status == 307, "{name}");
    }
    faults.add(LwaFault::Oversized, Times::Next(1));
    assert!(amazon.token_call(REFRESH).await.body.len() > 64 * 1024 * 1024);
    assert_eq!(amazon.token_call(REFRESH).await.status, 200);
}

#[tokio::test]
async fn a_lost_answer_has_rotated_and_a_dropped_request_has_not() {
    let amazon = Amazon::start().await;
    let state = amazon.emulator.state();
    state.lwa.configure(|settings| settings.rotation = RefreshRotation::OldDies);
    for (fault, issued) in [(LwaFault::Drop, 0), (LwaFault::LoseResponse, 1)] {
        state.lwa.faults.add(fault, Times::Next(1));
        let request = amazon
            .request("POST", "/auth/o2/token")
            .header("content-type", "application/x-www-form-urlencoded");
        let body = format!(
            "grant_type=refresh_token&refresh_token={}&client_id={CLIENT_ID}\
             &client_secret={CLIENT_SECRET}",
            REFRESH.replace('|', "%7C")
        );
        assert!(amazon.try_send(request, &body).await.is_err());
        assert_eq!(state.record.counts().tokens_issued, issued);
    }
    assert_eq!(amazon.token_call(REFRESH).await.status, 400);
}

#[tokio::test]
async fn a_held_gate_parks_token_requests_until_it_is_released() {
    let amazon = Arc::new(Amazon::start().await);
    let gate = &amazon.emulator.state().lwa.gate;
    gate.hold();
    let calls: Vec<_> = (0..3)
        .map(|_| {
            let amazon = Arc::clone(&amazon);
            tokio::spawn(async move { amazon.token_call(REFRESH).await.status })
        })
        .collect();
    gate.until_waiting(3).await;
    assert_eq!(amazon.emulator.state().record.counts().tokens_issued, 0);
    gate.let_through(1);
    gate.release();
    for call in calls {
        assert_eq!(call.await.unwrap(), 200);
    }
    assert_eq!(gate.waiting(), 0);
}

#[tokio::test]
async fn a_code_is_redeemed_once_and_only_with_its_verifier() {
    let amazon = Amazon::start().await;
    let back = "http://localhost:8788/api/auth/amazon/callback";
    let page = format!(
        "/ap/oa?client_id={CLIENT_ID}&scope=advertising::campaign_management&response_type=code\
         &redirect_uri={back}&state=s1&code_challenge_method=S256\
         &code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
    );
    let choice = amazon.send(amazon.request("GET", &page), "").await;
    assert!(choice.text().contains("Allow as acme"));

    let consent = || amazon.request("GET", &format!("{page}&account=acme"));
    let redeem = async |code: &str, verifier: &str| {
        let request = amazon
            .request("POST", "/auth/o2/token")
            .header("content-type", "application/x-www-form-urlencoded");
        let body = format!(
            "grant_type=authorization_code&code={code}&redirect_uri={back}&client_id={CLIENT_ID}\
             &client_secret={CLIENT_SECRET}&code_verifier={verifier}"
        );
        amazon.send(request, &body).await
    };
    let code = async || {
        let got = amazon.send(consent(), "").await;
        assert_eq!(got.status, 302);
        let place = got.headers["location"].to_str().unwrap().to_owned();
        assert!(place.starts_with(back) && place.ends_with("&state=s1"), "{place}");
        let start = place.find("code=").unwrap() + 5;
        place[start..].split('&').next().unwrap().to_owned()
    };
    let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    let first = code().await;
    let got = redeem(&first, verifier).await;
    assert_eq!(got.status, 200, "{}", got.text());
    assert!(got.json()["refresh_token"].as_str().unwrap().starts_with("Atzr|"));
    assert_eq!(redeem(&first, verifier).await.json()["error"], "invalid_grant");
    assert_eq!(redeem(&code().await, "wrong").await.status, 400);
}

#[tokio::test]
async fn the_consent_page_redirects_to_loopback_only() {
    let amazon = Amazon::start().await;
    for back in ["https://evil.example/cb", "http://localhost@evil.example/", ""] {
        let page = format!(
            "/ap/oa?client_id={CLIENT_ID}&response_type=code&redirect_uri={back}&account=acme"
        );
        let got = amazon.send(amazon.request("GET", &page), "").await;
        assert_eq!(got.status, 400, "{back}");
        assert!(!got.headers.contains_key("location"));
    }
}

#[tokio::test]
async fn profiles_belong_to_the_grant_and_to_the_region_of_the_host() {
    let amazon = Amazon::start().await;
    let token = amazon.access_token().await;
    let got = amazon.get("/v2/profiles", &token).await;
    assert_eq!(got.status, 200);
    let first = &got.json()[0];
    assert_eq!(first["profileId"], 1_234_567_890_123_456_i64);
    assert_eq!(first["accountInfo"]["marketplaceStringId"], "ATVPDKIKX0DER");

    for (host, count) in [("advertising-api.amazon.com", 2), ("advertising-api-eu.amazon.com", 0)] {
        let request = amazon.api("GET", "/v2/profiles", &token).header("host", host);
        let got = amazon.send(request, "").await;
        assert_eq!(got.json().as_array().unwrap().len(), count, "{host}");
    }
    amazon.emulator.state().api.configure(|settings| settings.profiles_min = 5000);
    let got = amazon.get("/v2/profiles", &token).await;
    assert_eq!(got.json().as_array().unwrap().len(), 5000);
}

#[tokio::test]
async fn only_one_live_bearer_with_the_right_client_id_gets_in() {
    let clock = Arc::new(ManualClock::new());
    let amazon = Amazon::with(EmulatorOptions {
        clock: Arc::clone(&clock) as Arc<dyn Clock>,
        ..EmulatorOptions::default()
    })
    .await;
    let token = amazon.access_token().await;
    let refused = async |request: Builder| {
        let got = amazon.send(request, "").await;
        assert_eq!(got.status, 401);
        assert_eq!(got.json()["details"], "Authentication failed");
        assert_eq!(got.json()["code"], "401");
    };
    let bare =
        |target| amazon.request("GET", target).header("authorization", format!("Bearer {token}"));
    refused(amazon.request("GET", "/v2/profiles")).await;
    refused(bare("/v2/profiles")).await;
    refused(bare("/v2/profiles").header("amazon-advertising-api-clientid", "other")).await;
    refused(bare("/mcp").header("amazon-advertising-api-clientid", CLIENT_ID)).await;
    refused(amazon.api("GET", "/v2/profiles", &token).header("authorization", "Bearer x")).await;
    refused(amazon.api("GET", "/v2/profiles", "Atza|unknown")).await;

    assert_eq!(amazon.get("/v2/profiles", &token).await.status, 200);
    clock.advance(Duration::from_secs(3601));
    refused(amazon.api("GET", "/v2/profiles", &token)).await;
    assert_eq!(amazon.emulator.state().record.counts().unauthorized_sent, 7);
}

#[tokio::test]
async fn campaigns_are_listed_and_created_with_an_outcome_each() {
    let amazon = Amazon::start().await;
    let token = amazon.access_token().await;
    let list = "//sp/campaigns/list";
    let got = amazon.send(amazon.scoped("POST", list, &token, CAMPAIGN), "{}").await;
    assert_eq!(got.json()["totalResults"], 1);
    assert_eq!(got.headers["content-type"], CAMPAIGN);

    let body = json!({ "campaigns": [{ "name": "A" }, { "name": "A" }, {}] }).to_string();
    let request = amazon.scoped("POST", "/sp/campaigns", &token, CAMPAIGN);
    let got = amazon.send(request, &body).await;
    assert_eq!(got.status, 207);
    assert_eq!(got.json()["campaigns"]["success"].as_array().unwrap().len(), 1);
    assert_eq!(got.json()["campaigns"]["error"][0]["index"], 1);

    let got = amazon.send(amazon.scoped("POST", list, &token, "application/json"), "{}").await;
    assert_eq!(got.status, 415);
}

#[tokio::test]
async fn a_wrong_scope_is_answered_with_amazons_words() {
    let amazon = Amazon::start().await;
    let token = amazon.access_token().await;
    let cases = [
        (None, "Scope header is missing"),
        (Some("17"), "No matching advertiser found for scope"),
        (Some("2345678901234567"), "Not authorized to access scope 2345678901234567"),
    ];
    for (scope, text) in cases {
        let mut request =
            amazon.api("POST", "/sp/campaigns/list", &token).header("content-type", CAMPAIGN);
        if let Some(scope) = scope {
            request = request.header("amazon-advertising-api-scope", scope);
        }
        let got = amazon.send(request, "{}").await;
        assert_eq!((got.status.as_u16(), got.json()["details"].as_str()), (401, Some(text)));
    }
}

#[tokio::test]
async fn a_report_goes_from_request_to_download() {
    let amazon = Amazon::start().await;
    let token = amazon.access_token().await;
    let media_type = "application/vnd.createasyncreportrequest.v3+json";
    let ask = || amazon.scoped("POST", "/reporting/reports", &token, media_type);
    let body = json!({ "name": "r", "configuration": { "format": "GZIP_JSON" } }).to_string();
    let got = amazon.send(ask(), &body).await;
    assert_eq!((got.status.as_u16(), got.json()["status"].as_str()), (200, Some("PENDING")));
    let id = got.json()["reportId"].as_str().unwrap().to_owned();

    let again = amazon.send(ask(), &body).await;
    assert_eq!(again.status, 425);
    assert!(again.json()["detail"].as_str().unwrap().ends_with(&id));

    let look = || amazon.scoped("GET", &format!("/reporting/reports/{id}"), &token, CAMPAIGN);
    assert_eq!(amazon.send(look(), "").await.json()["url"], Value::Null);
    let done = amazon.send(look(), "").await.json();
    assert_eq!(done["status"], "COMPLETED");
    let redirect = amazon.get(&format!("/v2/reports/{id}/download"), &token).await;
    assert_eq!(redirect.status, 307);
    assert_eq!(redirect.headers["location"], done["url"].as_str().unwrap());

    let url = done["url"].as_str().unwrap();
    let got = amazon.send(Request::builder().uri(url), "").await;
    assert_eq!(got.status, 200);
    let rows = std::io::read_to_string(flate2::read::GzDecoder::new(&got.body[..])).unwrap();
    assert!(rows.contains("impressions"));

    let request = Request::builder().uri(url).header("authorization", "Bearer CANARY");
    let got = amazon.send(request, "").await;
    assert_eq!(got.status, 400);
    assert!(got.text().contains("Only one auth mechanism allowed"));
    assert!(got.text().contains("CANARY"), "S3 repeats what it refuses");
    let unsigned = url.split('?').next().unwrap();
    assert_eq!(amazon.send(Request::builder().uri(unsigned), "").await.status, 403);
}

#[tokio::test]
async fn amc_and_the_unified_api_answer_samples() {
    let amazon = Amazon::start().await;
    let token = amazon.access_token().await;
    assert_eq!(amazon.get("/amc/accounts", &token).await.status, 200);
    assert_eq!(amazon.get("/amc/instances", &token).await.status, 400);
    let amc = |method, target| {
        amazon
            .api(method, target, &token)
            .header("amazon-advertising-api-marketplaceid", "ATVPDKIKX0DER")
            .header("amazon-advertising-api-advertiserid", "ENTITY1")
    };
    let got = amazon.send(amc("GET", "/amc/instances"), "").await;
    assert_eq!(got.json()["instances"][0]["apiEndpoint"], "https://advertising-api.amazon.com");
    let got = amazon.send(amc("POST", "/amc/reporting/x/workflowExecutions"), "{}").await;
    assert_eq!(got.json()["status"], "PENDING");
    let query = amazon.api("POST", "/adsApi/v1/query/campaigns", &token);
    assert_eq!(amazon.send(query, "{}").await.json()["campaigns"][0]["state"], "ENABLED");
    let got = amazon.get("/no/such/path", &token).await;
    assert_eq!(got.status, 403);
    assert!(got.text().contains("missing equal-sign") && !got.text().contains(&token));
}

#[tokio::test]
async fn mcp_answers_json_and_streams_calls() {
    let amazon = Amazon::start().await;
    let token = amazon.access_token().await;
    amazon.emulator.state().api.configure(|settings| settings.mcp_interval = Duration::ZERO);
    let call = async |method: &str| {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method }).to_string();
        amazon.send(amazon.api("POST", "/mcp", &token), &body).await
    };
    let got = call("initialize").await;
    assert!(got.headers.contains_key("mcp-session-id"));
    assert_eq!(got.json()["result"]["serverInfo"]["name"], "amazon-ads-sandbox");
    assert_eq!(call("tools/list").await.json()["result"]["tools"].as_array().unwrap().len(), 4);
    assert_eq!(call("nothing").await.json()["error"]["code"], -32601);
    let got = call("tools/call").await;
    assert_eq!(got.headers["content-type"], "text/event-stream");
    assert_eq!(got.text().matches("data: ").count(), 4);
    assert_eq!(amazon.get("/mcp", &token).await.text().matches("data: ").count(), 3);
}

#[tokio::test]
async fn progress_goes_to_the_token_that_the_caller_sent_and_to_no_other() {
    let amazon = Amazon::start().await;
    let token = amazon.access_token().await;
    amazon.emulator.state().api.configure(|settings| settings.mcp_interval = Duration::ZERO);
    for progress_token in [json!("mine"), json!(7)] {
        let meta = json!({ "_meta": { "progressToken": progress_token } });
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": meta });
        let call = amazon.api("POST", "/mcp", &token);
        let events = amazon.send(call, &body.to_string()).await.text().to_owned();
        let echoed = format!("\"progressToken\":{progress_token}");
        assert_eq!(events.matches(&echoed).count(), 3, "{events}");
    }
    let silent = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call" }).to_string();
    let events = amazon.send(amazon.api("POST", "/mcp", &token), &silent).await.text().to_owned();
    assert!(!events.contains("notifications/progress"), "{events}");
}

#[tokio::test]
async fn the_test_aids_show_what_arrived() {
    let amazon = Amazon::start().await;
    let token = amazon.access_token().await;
    let request = amazon.api("PUT", "/_echo?a=%2f&b", &token).header("x-one", "1");
    let echo = amazon.send(request, "hello").await.json();
    assert_eq!((echo["method"].as_str(), echo["body_length"].as_u64()), (Some("PUT"), Some(5)));
    assert_eq!(echo["target"], "/_echo?a=%2f&b");
    let sha256 = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    assert_eq!(echo["body_sha256"], sha256);
    assert!(echo["headers"].as_array().unwrap().contains(&json!(["x-one", "1"])));

    assert_eq!(amazon.get("/_bytes/100000", &token).await.body.len(), 100_000);
    assert_eq!(amazon.get("/_status/418", &token).await.status, 418);
    assert_eq!(amazon.get("/_status/99", &token).await.status, 400);
    let got = amazon.get("/_sse?events=2&interval_ms=1", &token).await;
    assert_eq!(got.text().matches("data: ").count(), 2);
    assert_eq!(amazon.get("/_slow?ms=1&body_ms=1", &token).await.text(), "slowly\n");
    let got =
        amazon.send(amazon.api("GET", "/_trailers", &token).header("te", "trailers"), "").await;
    assert_eq!(got.trailers.unwrap()["x-checksum"], "sandbox");
    assert_eq!(amazon.send(amazon.request("GET", "/_bytes/1"), "").await.status, 401);

    let seen = amazon.emulator.state().record.requests_for(Surface::Api);
    assert_eq!((seen[0].target.as_str(), seen[0].status), ("/_echo?a=%2f&b", Some(200)));
    assert_eq!((seen[0].account.as_deref(), seen[0].generation), (Some("acme"), Some(1)));
    assert_eq!((seen[0].body_sha256.as_str(), seen[0].body_complete), (sha256, true));
    assert_eq!(seen[0].values("x-one"), ["1"]);
    assert_eq!(seen.last().unwrap().account, None);
}

#[tokio::test]
async fn answers_are_compressed_for_those_who_ask() {
    let amazon = Amazon::start().await;
    let token = amazon.access_token().await;
    amazon.emulator.state().api.configure(|settings| settings.gzip_min_bytes = 1);
    let request = amazon.api("GET", "/v2/profiles", &token).header("accept-encoding", "br, gzip");
    let got = amazon.send(request, "").await;
    assert_eq!(got.headers["content-encoding"], "gzip");
    let text = std::io::read_to_string(flate2::read::GzDecoder::new(&got.body[..])).unwrap();
    assert!(text.contains("profileId"));
    assert!(!amazon.get("/v2/profiles", &token).await.headers.contains_key("content-encoding"));
}

#[tokio::test]
async fn the_api_fails_in_every_known_way() {
    let amazon = Amazon::start().await;
    let token = amazon.access_token().await;
    let faults = &amazon.emulator.state().api.faults;
    let scripted = Scripted {
        status: StatusCode::IM_A_TEAPOT,
        headers: vec![("x-tea".to_owned(), "1".to_owned())],
        body: Bytes::from_static(b"tea"),
    };
    let mut cases = vec![
        (ApiFault::SpuriousUnauthorized, 401, r#"{"message":"Unauthorized"}"#),
        (ApiFault::AuthenticationFailed, 401, "Authentication failed"),
        (ApiFault::Throttled { retry_after: None }, 429, "Too Many Requests"),
        (ApiFault::Throttled { retry_after: Some(2) }, 429, "Too Many Requests"),
        (ApiFault::ServerError, 500, "\"code\":\"500\""),
        (ApiFault::Unavailable, 503, "\"code\":\"503\""),
        (ApiFault::Respond(scripted), 418, "tea"),
    ];
    let permissions = Permission::ALL.map(|p| (ApiFault::Permission(p), 401, p.as_str()));
    cases.extend(permissions);
    for (fault, status, text) in cases {
        let waits = matches!(fault, ApiFault::Throttled { retry_after: Some(_) });
        faults.add(fault, Times::Next(1));
        let got = amazon.get("/v2/profiles", &token).await;
        assert_eq!(got.status, status, "{text}");
        assert!(got.text().contains(text), "{text}");
        assert_eq!(got.headers.contains_key("retry-after"), waits, "{text}");
    }
    faults.add(ApiFault::Drop, Times::Next(1));
    assert!(amazon.try_send(amazon.api("GET", "/v2/profiles", &token), "").await.is_err());
    faults.add(ApiFault::Truncate, Times::Next(1));
    let got = amazon.try_send(amazon.api("GET", "/v2/profiles", &token), "").await.unwrap();
    assert!(got.into_body().collect().await.is_err());
    assert_eq!(amazon.get("/v2/profiles", &token).await.status, 200);
}

#[tokio::test]
async fn switches_over_http_expire_revoke_and_reconnect() {
    let amazon = Amazon::start().await;
    let token = amazon.access_token().await;
    assert_eq!(amazon.switch("/_sandbox/expire").await.status, 200);
    assert_eq!(amazon.get("/v2/profiles", &token).await.status, 401);
    assert_eq!(amazon.token_call(REFRESH).await.status, 200);

    assert_eq!(amazon.switch("/_sandbox/revoke?account=acme").await.status, 200);
    assert_eq!(amazon.token_call(REFRESH).await.status, 400);
    assert_eq!(amazon.token_call(ACCOUNTS[1].1).await.status, 200);
    amazon.switch("/_sandbox/reconnect?account=acme").await;
    assert_eq!(amazon.token_call(REFRESH).await.status, 200);

    amazon.switch("/_sandbox/lwa?fault=down&times=2").await;
    let codes = [
        amazon.token_call(REFRESH).await.status.as_u16(),
        amazon.token_call(REFRESH).await.status.as_u16(),
        amazon.token_call(REFRESH).await.status.as_u16(),
    ];
    assert_eq!(codes, [503, 503, 200]);
    amazon.switch("/_sandbox/rotation?mode=old-dies").await;
    amazon.switch("/_sandbox/lifetime?secs=7").await;
    let got = amazon.token_call(REFRESH).await.json();
    assert_eq!(got["expires_in"], 7);
    assert_ne!(got["refresh_token"], REFRESH);

    let shown = amazon.send(amazon.request("GET", "/_sandbox"), "").await;
    assert_eq!(shown.json()["token_lifetime_secs"], 7);
    assert!(!shown.text().contains("Atz"), "no token is shown");
}

#[tokio::test]
async fn switches_refuse_nonsense_and_web_pages() {
    let amazon = Amazon::start().await;
    for target in [
        "/_sandbox/api?fault=nothing",
        "/_sandbox/lwa?fault=down&times=often",
        "/_sandbox/revoke",
        "/_sandbox/revoke?account=nobody",
        "/_sandbox/rotation?mode=sideways",
        "/_sandbox/nothing",
    ] {
        assert_eq!(amazon.switch(target).await.status, 400, "{target}");
    }
    for (name, value) in [
        ("origin", "http://evil.example"),
        ("sec-fetch-site", "cross-site"),
        ("host", "rebound.example:80"),
    ] {
        let request = amazon.request("POST", "/_sandbox/expire").header(name, value);
        assert_eq!(amazon.send(request, "").await.status, 403, "{name}");
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_is_recorded_as_broken() {
    use tokio::io::AsyncWriteExt;
    let amazon = Amazon::start().await;
    let mut stream = tokio::net::TcpStream::connect(amazon.emulator.addr()).await.unwrap();
    let head = b"POST /_sink HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nhalf";
    stream.write_all(head).await.unwrap();
    drop(stream);
    let record = &amazon.emulator.state().record;
    while record.counts().bodies_broken == 0 {
        tokio::task::yield_now().await;
    }
    let seen = record.requests_for(Surface::Api);
    assert_eq!((seen[0].body_len, seen[0].body_complete, seen[0].status), (4, false, None));
}

#[tokio::test]
async fn an_early_refusal_comes_before_the_body() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let amazon = Amazon::start().await;
    amazon.emulator.state().api.configure(|settings| settings.responds_before_body = true);
    let mut stream = tokio::net::TcpStream::connect(amazon.emulator.addr()).await.unwrap();
    let head = b"POST /_sink HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nhalf";
    stream.write_all(head).await.unwrap();
    let mut start = [0; 12];
    stream.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 401");
}

#[tokio::test]
async fn http2_is_spoken_in_the_clear_and_over_tls() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let mut server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let amazon =
        Amazon::with(EmulatorOptions { tls: Some(Arc::new(server)), ..EmulatorOptions::default() })
            .await;

    let plain = tokio::net::TcpStream::connect(amazon.emulator.addr()).await.unwrap();
    assert_eq!(status_over_http2(plain).await, 401);

    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let mut client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.alpn_protocols = vec![b"h2".to_vec()];
    let stream = tokio::net::TcpStream::connect(amazon.emulator.tls_addr().unwrap()).await.unwrap();
    let name = "localhost".try_into().unwrap();
    let stream = tokio_rustls::TlsConnector::from(Arc::new(client)).connect(name, stream).await;
    assert_eq!(status_over_http2(stream.unwrap()).await, 401);
    assert_eq!(amazon.emulator.state().connections.accepted(), 2);
}

async fn status_over_http2<S>(stream: S) -> u16
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let handshake =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.unwrap();
    let connection = tokio::spawn(connection);
    let request = Request::get("http://localhost/v2/profiles").body(String::new()).unwrap();
    let status = sender.send_request(request).await.unwrap().status().as_u16();
    connection.abort();
    status
}

#[tokio::test]
async fn a_second_emulator_goes_on_with_the_state_of_the_first() {
    let amazon = Amazon::start().await;
    let token = amazon.access_token().await;
    let state = Arc::clone(amazon.emulator.state());
    drop(amazon);
    let emulator = Emulator::start_with(EmulatorOptions::default(), state).await.unwrap();
    let client = Client::builder(TokioExecutor::new()).build_http();
    let amazon = Amazon { emulator, client };
    assert_eq!(amazon.get("/v2/profiles", &token).await.status, 200);
}

#[tokio::test]
async fn addresses_beyond_loopback_are_refused() {
    let listen = "0.0.0.0:0".parse().unwrap();
    let error = Emulator::start(EmulatorOptions { listen, ..EmulatorOptions::default() })
        .await
        .unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
}

#[tokio::test]
async fn closing_all_connections_ends_idle_ones_too() {
    use tokio::io::AsyncReadExt;
    let amazon = Amazon::start().await;
    let connections = &amazon.emulator.state().connections;
    let mut stream = tokio::net::TcpStream::connect(amazon.emulator.addr()).await.unwrap();
    while connections.open() == 0 {
        tokio::task::yield_now().await;
    }
    connections.close_all();
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap_or(0), 0);
}
