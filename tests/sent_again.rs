//! What is sent again when a pooled connection dies: requests that are safe to repeat, once.

use crate::support::{
    proxy::{Proxy, Setup, amazon},
    socket,
    wire::{Upstream, Wire, field},
};
use parking_lot::Mutex;
use std::sync::Arc;

/// What an upstream does with the second request of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Second {
    /// Reads it and closes.
    Closes,
    /// Closes within the head of its response.
    ClosesInHead,
    /// Responds with something else than HTTP.
    Garbles,
}

/// An upstream that serves the first request of each connection, and what it was sent.
async fn upstream(second: Second, firsts: usize) -> (Upstream, Arc<Mutex<Vec<String>>>) {
    let heads = Arc::new(Mutex::new(Vec::new()));
    let (seen, connections) = (heads.clone(), Arc::new(Mutex::new(0)));
    let serve = move |mut wire: Wire| {
        let (seen, connections) = (seen.clone(), connections.clone());
        async move {
            let number = {
                let mut connections = connections.lock();
                *connections += 1;
                *connections
            };
            for request in 0.. {
                let Some(head) = wire.try_head().await else { return };
                let length =
                    field(&head, "content-length").map_or(0, |l| l.parse().expect("a size"));
                wire.exactly(length).await;
                seen.lock().push(head.lines().next().unwrap_or_default().to_owned());
                if request == 0 && number <= firsts {
                    wire.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
                    continue;
                }
                return match second {
                    Second::Closes => {}
                    Second::ClosesInHead => wire.send("HTTP/1.1 20").await,
                    Second::Garbles => wire.send("garbage\r\n\r\n").await,
                };
            }
        }
    };
    (Upstream::serve(serve).await, heads)
}

/// Sends `/first` and then `request` to a proxy in front of `upstream`; the second status and how
/// often `request` has arrived.
async fn second(
    (upstream, heads): (Upstream, Arc<Mutex<Vec<String>>>),
    method: &str,
    body: &str,
) -> (u16, usize) {
    let amazon = amazon().await;
    let toml = "[proxy]\nworkers = 1\n".to_owned();
    let proxy =
        Proxy::with(&amazon, Setup { upstream: Some(upstream.url()), toml, ..Setup::default() });
    let mut caller = socket::Wire::open(proxy.addr);
    let lines = "Host: localhost\r\nX-Ads-Account: acme\r\n";
    assert_eq!(caller.send(format!("GET /first HTTP/1.1\r\n{lines}\r\n")).answer().status, 200);
    let length =
        if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    caller.send(format!("{method} /second HTTP/1.1\r\n{lines}{length}\r\n{body}"));
    let mut response = caller.stream().try_clone().expect("a handle");
    let mut start = [0; 12];
    std::io::Read::read_exact(&mut response, &mut start).expect("a status line");
    let status = String::from_utf8_lossy(&start)[9..].parse().expect("a status");
    let arrived = heads.lock().iter().filter(|line| line.contains("/second")).count();
    (status, arrived)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_safe_request_without_a_body_is_sent_again_when_its_connection_dies_unheard() {
    for method in ["GET", "HEAD", "OPTIONS"] {
        let upstream = upstream(Second::Closes, usize::MAX).await;
        assert_eq!(second(upstream, method, "").await, (200, 2), "{method}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_have_changed_something_is_sent_once() {
    for (method, body) in
        [("POST", ""), ("POST", "{}"), ("PUT", ""), ("PATCH", ""), ("DELETE", ""), ("GET", "{}")]
    {
        let upstream = upstream(Second::Closes, usize::MAX).await;
        assert_eq!(second(upstream, method, body).await, (502, 1), "{method} {body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_has_begun_is_not_asked_for_again() {
    for manner in [Second::ClosesInHead, Second::Garbles] {
        let upstream = upstream(manner, usize::MAX).await;
        assert_eq!(second(upstream, "GET", "").await, (502, 1), "{manner:?}");
    }
}

/// The connection that it is sent again on is a fresh one, and its death is final.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_sent_again_once() {
    let upstream = upstream(Second::Closes, 1).await;
    assert_eq!(second(upstream, "GET", "").await, (502, 2));
}
