//! Receivers that are slow, hostile, elsewhere, or not where they were a moment ago.

use super::{super::address, *};
use crate::secret::Secret;
use std::{
    net::IpAddr,
    sync::atomic::{AtomicUsize, Ordering},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

const LIMIT: Duration = Duration::from_secs(20);

fn webhook(url: &str, allow_private: bool, lookup: Lookup) -> WebhookClient {
    let config = config::Webhook {
        url: Secret::from(url),
        secrets: vec![Secret::from("a raw secret of some length")],
        unsafe_allow_private_addresses: allow_private,
    };
    let tls = https::client_config(None, false).expect("TLS");
    WebhookClient::new(&config, &tls, lookup).expect("a client")
}

async fn deliver(webhook: &WebhookClient, limit: Duration) -> Result<(), DeliveryError> {
    webhook.deliver("msg_1", Zeroizing::new(b"{}".to_vec()), 1_795_132_800, limit).await
}

/// Answers one connection with `answer` over and over, `times` times, and counts connections.
async fn receiver(answer: &'static [u8], times: usize) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let port = listener.local_addr().expect("an address").port();
    let count = Arc::new(AtomicUsize::new(0));
    let seen = count.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            seen.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let mut head = [0; 4096];
                let _ = stream.read(&mut head).await;
                for _ in 0..times {
                    if stream.write_all(answer).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    (port, count)
}

/// Always resolves to `addresses`, one after the other, the last for ever.
fn scripted(addresses: &'static [&'static str]) -> (Lookup, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let lookup: Lookup = Arc::new(move |_| {
        let number = count.fetch_add(1, Ordering::SeqCst).min(addresses.len() - 1);
        let address: IpAddr = addresses[number].parse().expect("an address");
        Box::pin(async move { Ok(vec![address]) })
    });
    (lookup, asked)
}

#[tokio::test]
async fn private_addresses_get_no_connection_under_any_spelling() {
    let (port, connections) = receiver(b"HTTP/1.1 200 x\r\ncontent-length: 0\r\n\r\n", 1).await;
    for host in [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
        "localhost",
        "0.0.0.0",
        "169.254.169.254",
    ] {
        let url = format!("http://{host}:{port}/");
        let failed = deliver(&webhook(&url, false, address::system()), LIMIT).await.unwrap_err();
        assert!(failed.why.contains("private"), "{host}: {}", failed.why);
    }
    assert_eq!(connections.load(Ordering::SeqCst), 0);
    let url = format!("http://127.0.0.1:{port}/");
    deliver(&webhook(&url, true, address::system()), LIMIT).await.expect("allowed");
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_name_that_changes_its_address_after_it_was_checked_gains_nothing() {
    let (port, connections) = receiver(b"HTTP/1.1 200 x\r\ncontent-length: 0\r\n\r\n", 1).await;
    // Public when asked first, loopback from then on. The public one is a place without hosts.
    let (lookup, asked) = scripted(&["192.0.3.1", "127.0.0.1"]);
    let url = format!("http://rebind.example:{port}/");
    let webhook = webhook(&url, false, lookup);
    let first = deliver(&webhook, Duration::from_millis(300)).await.unwrap_err();
    assert!(!first.why.contains("private"), "{}", first.why);
    assert_eq!(asked.load(Ordering::SeqCst), 1, "what was checked is what is connected to");
    for _ in 0..3 {
        let failed = deliver(&webhook, LIMIT).await.unwrap_err();
        assert!(failed.why.contains("private"), "{}", failed.why);
    }
    assert_eq!(connections.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_redirect_is_a_failure_and_leads_nowhere() {
    let (inner, connections) = receiver(b"HTTP/1.1 200 x\r\ncontent-length: 0\r\n\r\n", 1).await;
    let location: &'static str = Box::leak(
        format!(
            "HTTP/1.1 307 x\r\nlocation: http://127.0.0.1:{inner}/\r\ncontent-length: 0\r\n\r\n"
        )
        .into_boxed_str(),
    );
    let (port, _) = receiver(location.as_bytes(), 1).await;
    let webhook = webhook(&format!("http://127.0.0.1:{port}/"), true, address::system());
    let failed = deliver(&webhook, LIMIT).await.unwrap_err();
    assert_eq!(failed.why, "responded with 307");
    assert_eq!(connections.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_endless_answer_is_not_read() {
    let head = b"HTTP/1.1 200 x\r\ncontent-length: 99999999999\r\n\r\n................";
    let (port, _) = receiver(head, 1 << 20).await;
    let webhook = webhook(&format!("http://127.0.0.1:{port}/"), true, address::system());
    deliver(&webhook, LIMIT).await.expect("its status is enough");
}

#[tokio::test]
async fn silence_and_drops_end_at_the_deadline() {
    for (answer, times) in [(&b""[..], 0), (b"HTTP/1.1 200 x\r\na: b", 1)] {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let port = listener.local_addr().expect("an address").port();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let _ = stream.read(&mut [0; 4096]).await;
            for _ in 0..times {
                let _ = stream.write_all(answer).await;
            }
            // Never closes, never ends its head.
            loop {
                let _ = stream.write_all(answer.get(..1).unwrap_or_default()).await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let webhook = webhook(&format!("http://127.0.0.1:{port}/"), true, address::system());
        let failed = deliver(&webhook, Duration::from_millis(300)).await.unwrap_err();
        assert!(failed.why.contains("no response within"), "{}", failed.why);
    }
}

#[tokio::test]
async fn no_error_shows_the_url() {
    let (port, _) = receiver(b"no HTTP at all\r\n\r\n", 1).await;
    let url = format!("http://127.0.0.1:{port}/CANARY?CANARY=CANARY");
    let webhook = webhook(&url, true, address::system());
    let failed = deliver(&webhook, LIMIT).await.unwrap_err();
    assert!(!failed.why.contains("CANARY"), "{}", failed.why);
}

#[test]
fn statuses_are_judged_and_retry_after_is_read_in_both_forms() {
    let judged = |status: u16, retry: Option<&'static str>| {
        let retry = retry.map(|text| (header::RETRY_AFTER, HeaderValue::from_static(text)));
        let headers: HeaderMap = retry.into_iter().collect();
        judge(StatusCode::from_u16(status).unwrap(), &headers, 784_111_717)
    };
    for status in [200, 201, 202, 204] {
        assert_eq!(judged(status, None), Ok(()));
    }
    for status in [301, 307, 400, 401, 404, 429, 500, 503] {
        let failed = judged(status, None).unwrap_err();
        assert!(!failed.is_final && failed.retry_after.is_none(), "{status}");
    }
    assert!(judged(410, None).unwrap_err().is_final);
    let seconds =
        |text| judged(503, Some(text)).unwrap_err().retry_after.map(|wait| wait.as_secs());
    assert_eq!(seconds("120"), Some(120));
    assert_eq!(seconds("Sun, 06 Nov 1994 08:49:37 GMT"), Some(60));
    assert_eq!(seconds("Sun, 06 Nov 1994 08:00:00 GMT"), Some(0));
    for odd in ["", "-1", "soon", "1.5"] {
        assert_eq!(seconds(odd), None, "{odd}");
    }
}

#[test]
fn what_a_receiver_makes_libraries_say_is_kept_short() {
    let names = "DnsName(\"ä.example\"), ".repeat(10_000);
    let failed = DeliveryError::new(format!("certificate is only valid for {names}"));
    assert!(failed.why.starts_with("certificate is only valid for DnsName"));
    assert!(failed.why.ends_with('…') && failed.why.len() < 1024, "{}", failed.why.len());
    assert_eq!(DeliveryError::new("responded with 500".to_owned()).why, "responded with 500");
}
