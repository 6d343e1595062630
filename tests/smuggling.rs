//! Smuggling: every body has one length, and no byte of it is ever taken for a request.

use crate::support::{
    proxy::{Proxy, Setup, amazon, eventually},
    socket::{Wire, assert_own, honest, raw},
};
use adsproxy::sandbox::{Emulator, SeenRequest, Surface};

fn seen(amazon: &Emulator) -> Vec<SeenRequest> {
    amazon.state().record.requests_for(Surface::Api)
}

/// How a spelling may be taken.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Taken {
    /// 400, and the connection ends.
    Refused,
    /// One request with one clean framing, whose body is empty.
    Empty,
    /// The same, and the connection ends (RFC 9112 section 6.1): the length beside the chunks is
    /// never looked at.
    EmptyAndClosed,
    /// One clean request with five bytes of body.
    Five,
}

/// Sends a request in which a hidden one follows the framing lines, and judges what came of it.
fn smuggle(proxy: &Proxy, amazon: &Emulator, lines: &str, taken: Taken) {
    amazon.state().record.clear();
    // By chunks the first body is empty, by Content-Length it is `0\r\n\r\n`. What is left is a
    // request that names no account: only a desynchronized upstream would ever see it.
    let hidden = "GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let request = format!(
        "POST /_sink HTTP/1.1\r\nHost: localhost\r\nX-Ads-Account: acme\r\n{lines}\r\n\
         0\r\n\r\n{hidden}"
    );
    let mut wire = Wire::open(proxy.addr);
    wire.send(request);
    let answer = wire.answer();
    let seen = seen(amazon);
    let shown = lines.escape_debug().to_string();
    assert!(seen.iter().all(|seen| seen.target == "/_sink"), "smuggled: {shown}");
    match taken {
        Taken::Refused => {
            assert_eq!(
                (answer.status.as_u16(), answer.error()),
                (400, Some("bad_request")),
                "{shown}"
            );
            assert!(seen.is_empty(), "{shown} reached Amazon");
            assert!(wire.is_closed(), "{shown} kept its connection");
        }
        Taken::Empty | Taken::EmptyAndClosed | Taken::Five => {
            assert_eq!(answer.status, 200, "{shown}: {}", answer.text());
            assert_eq!(seen.len(), 1, "{shown}");
            let length = if taken == Taken::Five { 5 } else { 0 };
            assert_eq!((seen[0].body_len, seen[0].body_complete), (length, true), "{shown}");
            let framings =
                seen[0].values("transfer-encoding").len() + seen[0].values("content-length").len();
            assert!(framings <= 1, "{shown}: {:?}", seen[0].headers);
            let chunked = seen[0].values("transfer-encoding");
            assert!(chunked.is_empty() || chunked == ["chunked"], "{shown}: {chunked:?}");
            // What is left is a request of its own, which names no account.
            if taken == Taken::EmptyAndClosed {
                assert!(wire.is_closed(), "{shown} kept its connection");
            } else {
                assert_eq!(wire.answer().error(), Some("account_required"), "{shown}");
            }
        }
    }
    Wire::open(proxy.addr).ask_honestly("after");
}

#[tokio::test(flavor = "multi_thread")]
async fn dressed_transfer_encodings_are_refused_or_become_one_clean_request() {
    use Taken::{Empty, EmptyAndClosed, Refused};
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    let rows = [
        ("Transfer-Encoding: chunked\r\n", Empty),
        ("transfer-encoding:chunked\r\n", Empty),
        ("Transfer-Encoding: Chunked\r\n", Empty),
        ("TRANSFER-ENCODING: CHUNKED\r\n", Empty),
        ("Transfer-Encoding:  chunked \t\r\n", Empty),
        ("Transfer-Encoding:\tchunked\r\n", Empty),
        ("Transfer-Encoding: identity\r\n", Refused),
        ("Transfer-Encoding: gzip\r\n", Refused),
        ("Transfer-Encoding: gzip, chunked\r\n", Refused),
        ("Transfer-Encoding: chunked, gzip\r\n", Refused),
        ("Transfer-Encoding: chunked, chunked\r\n", Refused),
        ("Transfer-Encoding: identity, chunked\r\n", Refused),
        ("Transfer-Encoding: chunked, identity\r\n", Refused),
        ("Transfer-Encoding: ,chunked\r\n", Refused),
        ("Transfer-Encoding: chunked,\r\n", Refused),
        ("Transfer-Encoding: chunked;q=1\r\n", Refused),
        ("Transfer-Encoding: \"chunked\"\r\n", Refused),
        ("Transfer-Encoding: 'chunked'\r\n", Refused),
        ("Transfer-Encoding: xchunked\r\n", Refused),
        ("Transfer-Encoding: chunkedx\r\n", Refused),
        ("Transfer-Encoding: chunk\r\n", Refused),
        ("Transfer-Encoding:\r\n", Refused),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", Refused),
        ("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n", Refused),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", Refused),
        ("Transfer-Encoding : chunked\r\n", Refused),
        (" Transfer-Encoding: chunked\r\n", Refused),
        ("Transfer-Encoding: chunked\r\n \r\n", Refused),
        ("Transfer-Encoding:\r\n chunked\r\n", Refused),
        ("Transfer-Encoding\r\n: chunked\r\n", Refused),
        ("X: y\rTransfer-Encoding: chunked\r\n", Refused),
        ("Transfer-Encoding: \x0bchunked\r\n", Refused),
        ("Transfer-Encoding: chunked\0\r\n", Refused),
        ("Transfer-Encoding: \u{a0}chunked\r\n", Refused),
        // With a length beside it: never both, whatever their order.
        ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", EmptyAndClosed),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", EmptyAndClosed),
        ("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", EmptyAndClosed),
        ("Content-Length: 5\r\nTransfer-Encoding: identity\r\n", Refused),
        ("Content-Length: 5\r\nTransfer-Encoding: xchunked\r\n", Refused),
        ("Transfer-Encoding: chunked\r\nContent-Length: x\r\n", EmptyAndClosed),
        // A look-alike is not the field; it is dropped, and the length counts.
        ("Content-Length: 5\r\nTransfer_Encoding: chunked\r\n", Taken::Five),
        ("Content-Length: 5\r\nX-Transfer-Encoding: chunked\r\n", Taken::Five),
    ];
    for (lines, taken) in rows {
        smuggle(&proxy, &amazon, lines, taken);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dressed_content_lengths_are_refused_or_become_one_clean_request() {
    use Taken::{Five, Refused};
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    let rows = [
        ("Content-Length: 5\r\n", Five),
        ("content-length:5\r\n", Five),
        ("Content-Length:  5 \t\r\n", Five),
        ("Content-Length: 05\r\n", Five),
        ("Content-Length: 5\r\nContent_Length: 999\r\n", Five),
        ("Content-Length: +5\r\n", Refused),
        ("Content-Length: -5\r\n", Refused),
        ("Content-Length: 5.0\r\n", Refused),
        ("Content-Length: 5e0\r\n", Refused),
        ("Content-Length: 0x5\r\n", Refused),
        ("Content-Length: 5,\r\n", Refused),
        ("Content-Length: ,5\r\n", Refused),
        ("Content-Length: 5 5\r\n", Refused),
        ("Content-Length: 5, 6\r\n", Refused),
        ("Content-Length: \"5\"\r\n", Refused),
        ("Content-Length: five\r\n", Refused),
        ("Content-Length:\r\n", Refused),
        ("Content-Length: 5\r\nContent-Length: 6\r\n", Refused),
        ("Content-Length: 0\r\nContent-Length: 5\r\n", Refused),
        ("Content-Length: 18446744073709551616\r\n", Refused),
        ("Content-Length: 99999999999999999999999999\r\n", Refused),
        ("Content-Length : 5\r\n", Refused),
        (" Content-Length: 5\r\n", Refused),
        ("Content-Length:\r\n 5\r\n", Refused),
        ("Content-Length: 5\r\n 6\r\n", Refused),
        ("Content-Length: 5\0\r\n", Refused),
        ("Content-Length: \u{665}\r\n", Refused),
    ];
    for (lines, taken) in rows {
        smuggle(&proxy, &amazon, lines, taken);
    }
    // The same length twice is one length to the parser; to Amazon it is one, too.
    amazon.state().record.clear();
    let lines =
        "Host: localhost\r\nX-Ads-Account: acme\r\nContent-Length: 5\r\nContent-Length: 5\r\n";
    let mut wire = Wire::open(proxy.addr);
    let answer = wire.send(raw("POST /_sink HTTP/1.1", lines)).send("12345").answer();
    assert_eq!(answer.status, 200);
    assert_eq!(seen(&amazon)[0].values("content-length"), ["5"]);
    wire.ask_honestly("after");
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_chunks_end_the_request_and_its_connection() {
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    let head = "POST /_sink HTTP/1.1\r\nHost: localhost\r\nX-Ads-Account: acme\r\n\
        Transfer-Encoding: chunked\r\n\r\n";
    let bodies = [
        "x\r\nabc\r\n0\r\n\r\n",
        "-1\r\na\r\n0\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
        "3\r\nabcdef\r\n0\r\n\r\n",
        "3\nabc\r\n0\r\n\r\n",
        "3 x\r\nabc\r\n0\r\n\r\n",
        "3\r\nabc\n0\r\n\r\n",
        "\r\n0\r\n\r\n",
        "3;\n\r\nabc\r\n0\r\n\r\n",
        "3\r\nabc\r\n0\r\nX: a\0b\r\n\r\n",
    ];
    for body in bodies {
        amazon.state().record.clear();
        let mut wire = Wire::open(proxy.addr);
        wire.send(format!("{head}{body}{}", honest("behind")));
        let shown = body.escape_debug().to_string();
        let answer = wire.answer();
        assert_eq!(
            (answer.status.as_u16(), answer.error()),
            (400, Some("bad_request")),
            "{shown}: {}",
            answer.text()
        );
        assert!(wire.rest().is_empty(), "{shown} kept its connection");
        assert!(!seen(&amazon).iter().any(|seen| seen.body_complete), "{shown}");
        Wire::open(proxy.addr).ask_honestly("after");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_shorter_than_announced_are_never_taken_for_whole() {
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    let good = "Host: localhost\r\nX-Ads-Account: acme\r\n";
    let rows = [
        format!("POST /_sink HTTP/1.1\r\n{good}Content-Length: 10\r\n\r\n12345"),
        format!("POST /_sink HTTP/1.1\r\n{good}Content-Length: 10\r\n\r\n"),
        format!(
            "POST /_sink HTTP/1.1\r\n{good}Content-Length: 900000\r\n\r\n{}",
            "x".repeat(800_000)
        ),
        format!("POST /_sink HTTP/1.1\r\n{good}Transfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n"),
        format!("POST /_sink HTTP/1.1\r\n{good}Transfer-Encoding: chunked\r\n\r\n5\r\n123"),
        format!("POST /_sink HTTP/1.1\r\n{good}Transfer-Encoding: chunked\r\n\r\n0\r\n"),
    ];
    for request in rows {
        amazon.state().record.clear();
        let shown: String = request.chars().take(120).collect();
        let mut wire = Wire::open(proxy.addr);
        let answer = wire.send(&request).finish().try_answer();
        if let Some(answer) = answer {
            assert_eq!(answer.error(), Some("bad_request"), "{shown:?}");
        }
        assert!(wire.is_closed(), "{shown:?}");
        let seen = seen(&amazon);
        assert!(seen.iter().all(|seen| !seen.body_complete), "{shown:?} was taken for whole");
        Wire::open(proxy.addr).ask_honestly("after");
    }
    eventually("no request is left in flight", || {
        proxy.metric("adsproxy_in_flight_requests") == 0.0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_request_behind_an_early_refusal_is_never_read_out_of_the_body() {
    let amazon = amazon().await;
    let toml = "[limits]\nbody_max_bytes = 100000\n".to_owned();
    let proxy = Proxy::with(&amazon, Setup { toml, ..Setup::default() });
    let inner = honest("inner");
    for (target, account, length, status) in [
        ("/_sink", "nobody", inner.len(), 404),
        ("/_sink", "nobody", 90_000, 404),
        ("/_sink", "acme", 1 << 20, 413),
    ] {
        amazon.state().record.clear();
        let mut wire = Wire::open(proxy.addr);
        wire.send(format!(
            "POST {target} HTTP/1.1\r\nHost: localhost\r\nX-Ads-Account: {account}\r\n\
             Content-Length: {length}\r\n\r\n"
        ));
        assert_eq!(wire.answer().status.as_u16(), status);
        // The body comes late, and holds a request.
        let mut body = inner.repeat(length / inner.len() + 1);
        body.truncate(length);
        wire.send(body).send(honest("second"));
        if let Ok(Some(answer)) = wire.read_answer() {
            assert_own(&answer, "second");
        }
        let read = seen(&amazon).iter().any(|seen| seen.target.contains("inner"));
        assert!(!read, "a body was read as a request");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_early_refusal_reaches_a_caller_that_is_still_sending() {
    let amazon = amazon().await;
    let toml = "[limits]\nbody_max_bytes = 100000\n".to_owned();
    let proxy = Proxy::with(&amazon, Setup { toml, ..Setup::default() });
    let good = "Host: localhost\r\nX-Ads-Account: acme\r\n";
    let body = vec![b'x'; 16 << 20];
    let mut chunked = format!("{:x}\r\n", body.len()).into_bytes();
    chunked.extend_from_slice(&body);
    chunked.extend_from_slice(b"\r\n0\r\n\r\n");
    let rows = [
        (format!("POST /_sink HTTP/1.1\r\n{good}Content-Length: {}\r\n", body.len()), &body, 413),
        (format!("POST /_sink HTTP/1.1\r\n{good}Transfer-Encoding: chunked\r\n"), &chunked, 413),
        (
            format!(
                "POST /_sink HTTP/1.1\r\nHost: evil.test\r\nContent-Length: {}\r\n",
                body.len()
            ),
            &body,
            403,
        ),
        ("POST /_sink HTTP/1.1\r\nbad head\r\n".to_owned(), &body, 400),
    ];
    for (head, body, status) in rows {
        for _ in 0..5 {
            // Sends everything before it reads, as simple callers do.
            let mut wire = Wire::open(proxy.addr);
            wire.send(format!("{head}\r\n")).send(body.as_slice());
            let answer = wire.read_answer().ok().flatten();
            let told = answer.map(|answer| answer.status.as_u16());
            assert_eq!(told, Some(status), "{head}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_get_their_own_answers_in_order() {
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    let mut wire = Wire::open(proxy.addr);
    let requests: String = (0..50).map(|n| honest(&n.to_string())).collect();
    wire.send(requests);
    for n in 0..50 {
        assert_own(&wire.answer(), &n.to_string());
    }
    // Good, refused, good: a refusal has its place in the order, too.
    let refused = "GET /_sink HTTP/1.1\r\nHost: evil.test\r\n\r\n";
    wire.send(format!("{}{refused}{}", honest("a"), honest("b")));
    assert_own(&wire.answer(), "a");
    assert_eq!(wire.answer().error(), Some("caller_rejected"));
    assert_own(&wire.answer(), "b");
}
