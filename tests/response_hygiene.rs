//! Response hygiene: what Amazon says comes back whole, alone and in nobody else's name.

use crate::support::{
    proxy::{Proxy, Setup, amazon},
    socket::{Act, Upstream, Wire, assert_own, honest},
};
use adsproxy::sandbox::Emulator;
use flate2::{
    Compression,
    write::{GzEncoder, ZlibEncoder},
};
use std::io::Write;

fn get(target: &str, lines: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nX-Ads-Account: acme\r\n{lines}\r\n")
}

/// A proxy in front of an upstream that answers bytes of the test's.
fn scripted(
    amazon: &Emulator,
    script: impl Fn(&str) -> Act + Send + Sync + 'static,
) -> (Proxy, Upstream) {
    let upstream = Upstream::start(script);
    let setup = Setup { upstream: Some(upstream.url()), ..Setup::default() };
    (Proxy::with(amazon, setup), upstream)
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_lose_hop_by_hop_fields_and_what_only_we_may_say() {
    let amazon = amazon().await;
    let (proxy, _upstream) = scripted(&amazon, |_| {
        let answer = "HTTP/1.1 200 Fine\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\n\
            Keep-Alive: timeout=5\r\nProxy-Connection: x\r\nProxy-Authenticate: Basic\r\n\
            TE: x\r\nUpgrade: x\r\nX-Ads-Proxy-Error: forged\r\nX-Ads-Proxy-Request-Id: forged\r\n\
            x-ads-proxy-anything: forged\r\nX-Kept: 1\r\nx-kept: 2\r\nSet-Cookie: a=1\r\n\
            Set-Cookie: b=2\r\nClear-Site-Data: \"*\"\r\nServer: Amazon\r\nContent-Type: text/x\r\nContent-Length: 2\r\n\r\nok";
        Act::Say(answer.into())
    });
    let answer = Wire::open(proxy.addr).send(get("/", "X-Request-Id: mine\r\n")).answer();
    assert_eq!((answer.status.as_u16(), answer.body.as_slice()), (200, &b"ok"[..]));
    let mut names: Vec<_> = answer
        .headers
        .iter()
        .map(|(name, value)| format!("{name}={}", value.to_str().expect("ASCII")))
        .collect();
    names.sort();
    let expected = [
        "content-length=2",
        "content-type=text/x",
        "server=Amazon",
        "x-ads-proxy-request-id=mine",
        "x-kept=1",
        "x-kept=2",
    ];
    assert_eq!(names, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_answers_become_a_502_and_harm_no_other_request() {
    let amazon = amazon().await;
    let names = ["x"; 17].join(",");
    let many = format!("HTTP/1.1 200 OK\r\nConnection: {names}\r\nContent-Length: 0\r\n\r\n");
    let bad: [&[u8]; 17] = [
        many.as_bytes(),
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-Split: a\rSet-Cookie: evil=1\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-Nul: a\0b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-Bell: a\x07b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-Folded: a\r\n b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX Y: a\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-Y : a\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 9999 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/3 200 OK\r\n\r\n",
        b"hello\r\n\r\n",
        b"",
    ];
    let bad: Vec<Vec<u8>> = bad.iter().map(|answer| answer.to_vec()).collect();
    let count = bad.len();
    let (proxy, _upstream) = scripted(&amazon, move |head| own_or(head, &bad));
    for number in 0..count {
        let answer = Wire::open(proxy.addr).send(get(&format!("/bad/{number}"), "")).answer();
        let told = (answer.status.as_u16(), answer.error());
        assert_eq!(told, (502, Some("upstream_unreachable")), "answer {number}");
        five_honest_requests(&proxy);
    }
}

/// Answers `/bad/<n>` with the n-th of `bad`, and honest requests each with their own.
fn own_or(head: &str, bad: &[Vec<u8>]) -> Act {
    let target = head.split(' ').nth(1).unwrap_or_default();
    if let Some(number) = target.strip_prefix("/bad/") {
        let number: usize = number.parse().expect("a number");
        return Act::SayAndClose(bad[number].clone());
    }
    Act::Say(own(target))
}

fn own(target: &str) -> Vec<u8> {
    let size = target.strip_prefix("/_bytes/").and_then(|rest| rest.split('?').next());
    let size: usize = size.and_then(|size| size.parse().ok()).expect("an honest request");
    let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n").into_bytes();
    answer.resize(answer.len() + size, b'x');
    answer
}

/// Whatever came before, the next requests get their own answers.
fn five_honest_requests(proxy: &Proxy) {
    let mut wire = Wire::open(proxy.addr);
    for number in 0..5 {
        wire.ask_honestly(&format!("poison-{number}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_cut_short_are_seen_to_be_cut() {
    let amazon = amazon().await;
    let bad: Vec<Vec<u8>> = [
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nha",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nx\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n",
    ]
    .map(Into::into)
    .into();
    let count = bad.len();
    let (proxy, _upstream) = scripted(&amazon, move |head| own_or(head, &bad));
    for number in 0..count {
        let mut wire = Wire::open(proxy.addr);
        wire.send(get(&format!("/bad/{number}"), ""));
        // Else not one byte came, or less than announced.
        if let Ok(Some(answer)) = wire.read_answer() {
            assert_eq!(answer.status, 502, "{number} was taken for whole");
        }
        five_honest_requests(&proxy);
    }
    // An old server's answer without a length ends with its connection, and is whole.
    let (proxy, _upstream) =
        scripted(&amazon, |_| Act::SayAndClose(b"HTTP/1.0 200 OK\r\n\r\nuntil the end".to_vec()));
    assert_eq!(Wire::open(proxy.addr).send(get("/", "")).answer().body, b"until the end");
}

/// RFC 9112 section 6.3: the chunks say where it ends, and nothing behind it is to be believed.
#[tokio::test(flavor = "multi_thread")]
async fn chunks_win_over_a_length_beside_them_and_the_connection_ends() {
    let amazon = amazon().await;
    let script = |head: &str| {
        let target = head.split(' ').nth(1).unwrap_or_default();
        let lines = match target {
            "/both" => "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "/other-way" => "transfer-encoding: chunked\r\ncontent-length: 5\r\n",
            "/chunks" => "Transfer-Encoding: chunked\r\n",
            _ => return Act::Say(own(target)),
        };
        let chunks = "14\r\ntwenty bytes, whole.\r\n0\r\n\r\n";
        Act::Say(format!("HTTP/1.1 200 OK\r\n{lines}\r\n{chunks}").into())
    };
    let upstream = Upstream::start(script);
    let toml = "[proxy]\nworkers = 1\n".to_owned();
    let setup = Setup { upstream: Some(upstream.url()), toml, ..Setup::default() };
    let proxy = Proxy::with(&amazon, setup);
    let opened = "adsproxy_upstream_connections_opened_total";
    for (target, closes) in [("/both", true), ("/other-way", true), ("/chunks", false)] {
        let mut wire = Wire::open(proxy.addr);
        let answer = wire.send(get(target, "")).answer();
        assert_eq!(answer.text(), "twenty bytes, whole.", "{target}");
        assert!(!answer.headers.contains_key("content-length"), "{target}");
        let before = proxy.metric(opened);
        wire.ask_honestly("next");
        assert_eq!(proxy.metric(opened) > before, closes, "{target}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_behind_an_answer_reach_no_other_request() {
    let amazon = amazon().await;
    let glued = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
    let answers: Vec<String> = [
        format!("HTTP/1.1 204 No Content\r\n\r\n{glued}"),
        "HTTP/1.1 204 No Content\r\nContent-Length: 6\r\n\r\npoison".into(),
        format!("HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\n{glued}"),
        format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok{glued}"),
        format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n{glued}{glued}"),
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{glued}"),
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokpoison".into(),
        format!("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\n{{}}{glued}"),
    ]
    .into();
    let count = answers.len();
    let script = move |head: &str| {
        let target = head.split(' ').nth(1).unwrap_or_default();
        match target.strip_prefix("/glued/") {
            // The connection stays open: it looks as good as any other.
            Some(number) => {
                Act::Say(answers[number.parse::<usize>().expect("a number")].clone().into())
            }
            None => Act::Say(own(target)),
        }
    };
    let (proxy, _upstream) = scripted(&amazon, script);
    for number in 0..count {
        for _ in 0..5 {
            let request = get(&format!("/glued/{number}"), "");
            let answer = Wire::open(proxy.addr).send(request).answer();
            assert!(!answer.text().contains("poison"), "{number}");
            five_honest_requests(&proxy);
        }
    }
    // Pipelined behind it, on the same connection of the caller.
    let mut wire = Wire::open(proxy.addr);
    wire.send(format!("{}{}", get("/glued/3", ""), honest("pipelined")));
    assert_eq!(wire.answer().body, b"ok");
    assert_own(&wire.answer(), "pipelined");
}

/// Amazon's gateway repeats an `Authorization` that it does not understand.
#[tokio::test(flavor = "multi_thread")]
async fn an_error_that_quotes_our_token_reaches_the_caller_without_it() {
    let amazon = amazon().await;
    let (proxy, _upstream) = scripted(&amazon, |head| {
        let token = head.split("authorization: ").nth(1).expect("a token");
        let token = token.split("\r\n").next().expect("a line");
        let target = head.split(' ').nth(1).expect("a target");
        let percent = token.replace('|', "%7C");
        let json = token.replace('|', "\\u007c");
        let text = format!("{{\"message\":\"'{token}' and '{percent}' and '{json}'\"}}");
        Act::Say(quoting(target, &text))
    });
    let targets =
        ["/400/plain", "/401/plain", "/403/chunked", "/404/gzip", "/422/deflate", "/403/field"];
    let mut redacted = 0.0;
    for target in targets {
        let mut wire = Wire::open(proxy.addr);
        let answer = wire.send(get(target, "")).answer();
        assert_eq!(answer.status.as_str(), &target[1..4]);
        let shown = format!("{:?} {}", answer.headers, answer.text());
        assert!(shown.contains("'Bearer [redacted]'"), "{target}: {shown}");
        for start in ["Atza%7C", "Atza\\u007c", "Atza|"] {
            assert!(!shown.contains(&format!("{start}Iw")), "{target}: {shown}");
        }
        assert!(!answer.headers.contains_key("content-encoding"), "{target}");
        let before =
            std::mem::replace(&mut redacted, proxy.metric("adsproxy_redacted_responses_total"));
        assert!(redacted > before, "{target} is not counted");
        // The connection serves on.
        wire.ask_honestly("after");
    }
}

fn quoting(target: &str, text: &str) -> Vec<u8> {
    let mut parts = target[1..].split('/');
    let (status, form) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let head = format!("HTTP/1.1 {status} No\r\nContent-Type: application/json\r\n");
    let with = |line: &str, body: &[u8]| {
        let head = format!("{head}{line}Content-Length: {}\r\n\r\n", body.len());
        [head.as_bytes(), body].concat()
    };
    match form {
        "plain" => with("", text.as_bytes()),
        "field" => with(&format!("X-Amzn-ErrorMessage: {text}\r\n"), b"{}"),
        "chunked" => {
            let chunks = text.as_bytes().chunks(7);
            let chunks = chunks.flat_map(|chunk| {
                [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat()
            });
            let head = format!("{head}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
            head.into_iter().chain(chunks).chain(*b"0\r\n\r\n").collect()
        }
        "gzip" => {
            let mut zip = GzEncoder::new(Vec::new(), Compression::default());
            zip.write_all(text.as_bytes()).expect("memory");
            with("Content-Encoding: gzip\r\n", &zip.finish().expect("memory"))
        }
        "deflate" => {
            let mut zip = ZlibEncoder::new(Vec::new(), Compression::default());
            zip.write_all(text.as_bytes()).expect("memory");
            with("Content-Encoding: deflate\r\n", &zip.finish().expect("memory"))
        }
        _ => own(target),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_that_quotes_no_token_stays_as_it_came_trailers_included() {
    let amazon = amazon().await;
    let mut zip = GzEncoder::new(Vec::new(), Compression::default());
    zip.write_all(b"{\"message\":\"'Atza|other'\"}").expect("memory");
    let zipped = zip.finish().expect("memory");
    let body = zipped.clone();
    let (proxy, _upstream) = scripted(&amazon, move |head| {
        if head.starts_with("GET /trailers") {
            let answer = "HTTP/1.1 400 No\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n\
                2\r\nno\r\n0\r\nx-sum: 7\r\n\r\n";
            return Act::Say(answer.into());
        }
        let head = format!(
            "HTTP/1.1 400 No\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        Act::Say([head.as_bytes(), &body].concat())
    });
    let answer = Wire::open(proxy.addr).send(get("/", "")).answer();
    assert_eq!(
        (answer.headers["content-encoding"].as_bytes(), answer.body),
        (&b"gzip"[..], zipped)
    );
    let lines = "TE: trailers\r\nConnection: close\r\n";
    let answer = Wire::open(proxy.addr).send(get("/trailers", lines)).rest();
    let answer = String::from_utf8(answer).expect("text");
    assert!(answer.ends_with("2\r\nno\r\n0\r\nx-sum: 7\r\n\r\n"), "{answer}");
    let counted = proxy.metric("adsproxy_redacted_responses_total");
    assert!(counted < 0.5, "{counted}");
}
