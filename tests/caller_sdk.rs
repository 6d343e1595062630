//! SDKs that can set nothing but a token, with a caller's key in its place.

use crate::support::{
    callers::TestCaller,
    extras,
    proxy::{Answer, Proxy, Setup, amazon, eventually},
    socket::Wire,
};
use http::Method;
use std::{path::Path, time::Instant};

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

#[tokio::test(flavor = "multi_thread")]
async fn wrong_keys_in_forms_and_paths_count_and_the_right_one_is_served_all_the_same() {
    let amazon = amazon().await;
    let (caller, stranger) = (TestCaller::new("one", ""), TestCaller::new("two", ""));
    let toml = caller.toml.clone() + REQUIRED;
    let in_path = format!("/k/{}/v2/profiles", stranger.key);
    for is_form in [true, false] {
        let proxy = Proxy::with(&amazon, Setup { toml: toml.clone(), ..Setup::default() });
        let mut codes = Vec::new();
        // One more is an honest mistake for each three seconds that a busy machine takes.
        while codes.len() < 200 && codes.last() != Some(&429) {
            let answer = match is_form {
                true => refresh(&proxy, &format!("Atzr|{}", stranger.key)).await,
                false => proxy.get(&in_path).await,
            };
            codes.push(answer.status.as_u16());
        }
        assert!(codes.len() > 20 && codes[..20].iter().all(|code| *code == 403), "{codes:?}");
        assert_eq!(codes.last(), Some(&429), "{codes:?}");
        assert_eq!(refresh(&proxy, &format!("Atzr|{}", caller.key)).await.status, 200);
    }
}

/// Begins a form that does not come.
fn stall(proxy: &Proxy, line: &str) -> Wire {
    let mut wire = Wire::open(proxy.addr);
    wire.send(format!(
        "POST /auth/o2/token HTTP/1.1\r\nHost: localhost\r\n{line}Content-Length: 9\r\n\r\n"
    ));
    wire
}

#[tokio::test(flavor = "multi_thread")]
async fn forms_that_do_not_come_end_soon_and_hold_a_small_part_of_the_places() {
    let amazon = amazon().await;
    let caller = TestCaller::new("one", "");
    let more = "[proxy]\nworkers = 1\n[limits]\nin_flight_max = 64\n";
    let toml = format!("{}{REQUIRED}{more}", caller.toml);
    for line in [String::new(), caller.line()] {
        let proxy = Proxy::with(&amazon, Setup { toml: toml.clone(), ..Setup::default() });
        let began = Instant::now();
        let mut stalled: Vec<Wire> = (0..60).map(|_| stall(&proxy, &line)).collect();
        let answers: Vec<_> = stalled.iter_mut().map(Wire::answer).collect();
        let took = began.elapsed();
        assert!(took.as_secs() < 15, "{took:?}");
        let overloaded = answers.iter().filter(|it| it.error() == Some("overloaded")).count();
        let waited = answers.len() - overloaded;
        // On a slow machine the first have ended before the last come.
        assert!(overloaded > 0 && waited >= 16, "{waited} waited");
        // The twin: one form after the other has a place, and they came back.
        for _ in 0..40 {
            assert_eq!(refresh(&proxy, &caller.key).await.status, 200);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forms_of_a_caller_that_do_not_come_keep_no_form_of_others_out() {
    let amazon = amazon().await;
    let (caller, other) = (TestCaller::new("one", ""), TestCaller::new("two", ""));
    let more = "[proxy]\nworkers = 1\n[limits]\nin_flight_max = 64\n";
    let toml = format!("{}{}{REQUIRED}{more}", caller.toml, other.toml);
    let proxy = Proxy::with(&amazon, Setup { toml, ..Setup::default() });
    let stalled: Vec<Wire> = (0..16).map(|_| stall(&proxy, &caller.line())).collect();
    eventually("they wait", || proxy.metric("adsproxy_in_flight_requests") >= 16.0).await;
    assert_eq!(refresh(&proxy, &other.key).await.status, 200);
    drop(stalled);
}

#[tokio::test(flavor = "multi_thread")]
async fn forms_of_one_address_that_do_not_come_keep_no_form_of_another_address_out() {
    let amazon = amazon().await;
    let caller = TestCaller::new("one", "");
    let more = "[proxy]\nworkers = 1\n[limits]\nin_flight_max = 64\n";
    let toml = format!("{}{REQUIRED}{more}", caller.toml);
    let proxy = Proxy::with(&amazon, Setup { toml, ..Setup::default() });
    let stalled: Vec<_> = (0..16)
        .map(|_| {
            let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
            socket.bind(([127, 0, 0, 2], 0).into()).expect("another address");
            socket.connect(proxy.addr)
        })
        .collect();
    let mut open = Vec::new();
    for connecting in stalled {
        let stream = connecting.await.expect("a connection").into_std().expect("a stream");
        stream.set_nonblocking(false).expect("set");
        let mut wire = Wire::over(stream);
        wire.send("POST /auth/o2/token HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n");
        open.push(wire);
    }
    eventually("they wait", || proxy.metric("adsproxy_in_flight_requests") >= 16.0).await;
    // Its key is in the form: before that is read, nothing but the address is known.
    assert_eq!(refresh(&proxy, &caller.key).await.status, 200);
    drop(open);
}
