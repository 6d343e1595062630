//! Redirects of Amazon: never followed, and changed only where they lead back to Amazon's API.

use crate::support::proxy::{Answer, Proxy, Setup, amazon};
use adsproxy::sandbox::{ApiFault, Emulator, Scripted, Times};
use http::{Method, StatusCode};

const S3: &str = "https://offline-report-storage-us-east-1-prod.s3.amazonaws.com/r/1.gz?\
                  X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Expires=3600&X-Amz-Signature=0a%2Fb%3D";

/// What the caller gets when Amazon redirects `path` to `location`.
async fn redirected(
    amazon: &Emulator,
    proxy: &Proxy,
    (status, path, location): (u16, &str, &str),
) -> Answer {
    let headers = vec![("Location".to_owned(), location.to_owned())];
    let status = StatusCode::from_u16(status).expect("a status");
    let answer = Scripted { status, headers, body: "moved".into() };
    amazon.state().api.faults.add(ApiFault::Respond(answer), Times::Next(1));
    let mut request = proxy.request(Method::POST, path);
    if !path.starts_with("/a/") {
        request = request.header("X-Ads-Account", "acme");
    }
    let before = amazon.state().record.counts().api_calls;
    let answer = proxy.send(request.body("{}")).await;
    assert_eq!((answer.status, answer.text().as_str()), (status, "moved"));
    assert_eq!(amazon.state().record.counts().api_calls, before + 1, "followed {location}");
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn no_redirect_is_followed_and_foreign_places_pass_unchanged() {
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    let port = amazon.addr().port();
    let places = [
        S3.to_owned(),
        "https://evil.test/steal".to_owned(),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        "//evil.test/x".to_owned(),
        // Another name, another port, another scheme: not the upstream.
        format!("http://localhost:{port}/v2/reports"),
        format!("https://127.0.0.1:{port}/v2/reports"),
        "http://127.0.0.1:1/v2/reports".to_owned(),
        "relative/path".to_owned(),
        "?query=only".to_owned(),
        "no url at all".to_owned(),
    ];
    for path in ["/v2/reports/1/download", "/a/acme/v2/reports/1/download"] {
        for status in [300, 301, 302, 303, 307, 308] {
            for place in &places {
                let answer = redirected(&amazon, &proxy, (status, path, place)).await;
                assert_eq!(answer.headers["location"], place.as_str(), "{status} {path}");
            }
        }
    }
    assert_eq!(amazon.state().record.counts().s3_calls, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_to_the_same_upstream_leads_back_to_the_proxy() {
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    let here = format!("http://{}", amazon.addr());
    let tails = ["/v1/reports/a%2Fb?x=1&y=%20", "//double/slash", "/", "/x#fragment"];
    for status in [201, 301, 302, 303, 307, 308] {
        for tail in tails {
            let place = format!("{here}{tail}");
            let by_path = (status, "/a/acme/v2/x", place.as_str());
            let answer = redirected(&amazon, &proxy, by_path).await;
            assert_eq!(answer.headers["location"], format!("/a/acme{tail}").as_str());
            let by_header = (status, "/v2/x", place.as_str());
            let answer = redirected(&amazon, &proxy, by_header).await;
            // Two slashes at the start would name a host.
            let expected = if tail.starts_with("//") { format!("/.{tail}") } else { tail.into() };
            assert_eq!(answer.headers["location"], expected.as_str());
        }
    }
    // The region is part of the prefix and stays; a path without a host is Amazon's as well.
    let answer = redirected(&amazon, &proxy, (307, "/a/acme@eu/v2/x", &format!("{here}/y"))).await;
    assert_eq!(answer.headers["location"], "/a/acme@eu/y");
    let answer = redirected(&amazon, &proxy, (307, "/a/acme/v2/x", "/y?z")).await;
    assert_eq!(answer.headers["location"], "/a/acme/y?z");
    let answer = redirected(&amazon, &proxy, (307, "/v2/x", "/y?z")).await;
    assert_eq!(answer.headers["location"], "/y?z");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rewritten_redirect_can_be_followed_by_the_caller() {
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    let place = format!("http://{}/_echo?step=2", amazon.addr());
    let answer = redirected(&amazon, &proxy, (307, "/a/acme/_echo?step=1", &place)).await;
    let location = answer.headers["location"].to_str().expect("ASCII");
    let answer = proxy.send(proxy.request(Method::POST, location).body("{}")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["target"], "/_echo?step=2");
    assert_eq!(answer.json()["account"], "acme");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_is_downloaded_from_the_presigned_place_without_our_token() {
    let amazon = amazon().await;
    amazon.state().api.configure(|api| api.report_polls = 0);
    let proxy = Proxy::with(&amazon, Setup::default());
    let scope = adsproxy::sandbox::ACCOUNTS[0].2;
    let request = |method: Method, path: &str| {
        let request = proxy.request(method, path).header("X-Ads-Account", "acme");
        request.header("Amazon-Advertising-API-Scope", scope)
    };
    let body = r#"{"reportDate":"20261120","metrics":"clicks"}"#;
    let made = proxy.send(request(Method::POST, "/sd/campaigns/report").body(body)).await;
    let id = made.json()["reportId"].as_str().expect("an id").to_owned();
    let path = format!("/v2/reports/{id}/download");
    let answer = proxy.send(request(Method::GET, &path)).await;
    assert_eq!(answer.status, 307, "{}", answer.text());
    let place = answer.headers["location"].to_str().expect("ASCII").to_owned();
    assert!(place.contains("/_s3/") && place.contains("X-Amz-Signature="), "{place}");
    let file = reqwest::Client::builder().no_proxy().build().expect("a client").get(place);
    let file = file.send().await.expect("an answer");
    assert_eq!(file.status(), 200);
    assert_eq!(file.bytes().await.expect("a file")[..2], [0x1f, 0x8b]);
    assert_eq!(amazon.state().record.counts().s3_calls, 1);
}
