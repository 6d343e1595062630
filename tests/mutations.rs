//! Mutated requests by the thousand: none ends it, none confuses it.

use crate::support::{
    proxy::{Proxy, amazon, eventually},
    socket::Wire,
};
use std::{
    thread,
    time::{Duration, Instant},
};

/// A small generator of repeatable randomness (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("small")
    }
}

fn mutate(random: &mut Random) -> Vec<u8> {
    const SEEDS: [&str; 7] = [
        "GET /_sink?fuzz=1 HTTP/1.1\r\nHost: localhost\r\nX-Ads-Account: acme\r\n\r\n",
        "POST /a/acme/_sink HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n12345",
        "POST /_sink HTTP/1.1\r\nHost: localhost\r\nX-Ads-Account: acme\r\n\
         Transfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n0\r\nX: y\r\n\r\n",
        "POST /a/acme/auth/o2/token HTTP/1.1\r\nHost: localhost\r\nContent-Length: 61\r\n\
         Content-Type: application/x-www-form-urlencoded\r\n\r\n\
         grant_type=refresh_token&refresh_token=Atzr%7Cacme&client_id=",
        "PUT /_sink HTTP/1.1\r\nHost: [::1]:80\r\nX-Ads-Account: globex\r\nX-Ads-Region: eu\r\n\
         Connection: close, x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x05\x01\x05\0\0\0\x01AAAAA",
        "HEAD /a/acme@eu/_bytes/10 HTTP/1.0\r\nHost: localhost\r\nAuthorization: Bearer Atza|acme\r\n\r\n",
    ];
    const PIECES: [&[u8]; 22] = [
        b"\r\n",
        b"\r",
        b"\n",
        b"\0",
        b" ",
        b":",
        b",",
        b"\r\n ",
        b"\xff",
        b"%",
        b"/",
        b"//",
        b"..",
        b"Content-Length: 3\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Host: localhost\r\n",
        b"X-Ads-Account: acme\r\n",
        b"Expect: 100-continue\r\n",
        b"Connection: close\r\n",
        b"HTTP/1.1",
        b"HTTP/1.0",
        b"@",
    ];
    let mut input = SEEDS[random.below(SEEDS.len())].as_bytes().to_vec();
    for _ in 0..=random.below(6) {
        let at = random.below(input.len() + 1);
        match random.below(6) {
            0 if at < input.len() => input[at] = random.next().to_le_bytes()[0],
            1 if at < input.len() => input[at] ^= 1 << random.below(8),
            2 => {
                let piece = PIECES[random.below(PIECES.len())];
                input.splice(at..at, piece.iter().copied());
            }
            3 => {
                let end = (at + random.below(20)).min(input.len());
                input.drain(at..end);
            }
            4 => {
                let end = (at + random.below(60)).min(input.len());
                let copy = input[at..end].to_vec();
                input.splice(at..at, copy);
            }
            _ => input.truncate(at.max(1)),
        }
        if input.is_empty() {
            input.push(b'G');
        }
    }
    input
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_thousand_mutated_requests_neither_end_nor_confuse_it() {
    const THREADS: u64 = 4;
    const EACH: usize = 5_000;
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    Wire::open(proxy.addr).ask_honestly("before");
    let (addr, before) = (proxy.addr, proxy.memory());
    let threads: Vec<_> = (0..THREADS)
        .map(|seed| {
            thread::spawn(move || {
                let mut random = Random(seed);
                let mut answered = 0;
                for round in 0..EACH {
                    let input = mutate(&mut random);
                    let mut wire = Wire::open(addr);
                    wire.send(&input).finish();
                    answered += usize::from(wire.rest().starts_with(b"HTTP/1.1 "));
                    if round % 500 == 0 {
                        Wire::open(addr).ask_honestly(&format!("{seed}-{round}"));
                    }
                }
                answered
            })
        })
        .collect();
    let answered: usize = threads.into_iter().map(|run| run.join().expect("no thread fails")).sum();
    println!("{answered} of {} inputs were answered", THREADS * EACH as u64);
    assert!(answered > 5_000, "most inputs are near enough to HTTP for an answer: {answered}");
    Wire::open(proxy.addr).ask_honestly("after");
    eventually("nothing is left of them", || {
        // The connection that asks is one on another listener.
        proxy.metric("adsproxy_in_flight_requests") == 0.0
            && proxy.metric("adsproxy_connections") == 0.0
    })
    .await;
    let grown = proxy.memory().saturating_sub(before);
    assert!(grown < 96 << 20, "memory grew by {grown} bytes");
    let slowest = Duration::from_secs(1);
    let started = Instant::now();
    Wire::open(proxy.addr).ask_honestly("quick");
    assert!(started.elapsed() < slowest);
}
