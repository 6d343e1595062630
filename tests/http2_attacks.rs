//! HTTP/2 frames that no library would send: refused before Amazon, and bounded in number.

use crate::support::{
    proxy::{Proxy, Setup, amazon, eventually},
    socket::Wire,
};
use adsproxy::sandbox::{Emulator, SeenRequest, Surface};
use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

fn seen(amazon: &Emulator) -> Vec<SeenRequest> {
    amazon.state().record.requests_for(Surface::Api)
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const ENHANCE_YOUR_CALM: u32 = 11;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// HPACK without compression: every field a literal with a new name.
fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            integer(&mut block, text.len());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// An HPACK integer with a prefix of seven bits.
fn integer(block: &mut Vec<u8>, number: usize) {
    if number < 127 {
        return block.push(u8::try_from(number).expect("small"));
    }
    block.push(127);
    let mut rest = number - 127;
    while rest >= 128 {
        block.push(u8::try_from(rest % 128).expect("small") | 128);
        rest /= 128;
    }
    block.push(u8::try_from(rest).expect("small"));
}

const HONEST: [(&str, &str); 5] = [
    (":method", "POST"),
    (":scheme", "http"),
    (":authority", "localhost"),
    (":path", "/_sink"),
    ("x-ads-account", "acme"),
];

/// A connection on which frames are written by hand.
struct Raw(TcpStream);

impl Raw {
    fn open(addr: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(addr).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        stream.set_write_timeout(Some(Duration::from_secs(3))).expect("a timeout");
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").expect("written");
        stream.write_all(&frame(SETTINGS, 0, 0, &[])).expect("written");
        Self(stream)
    }

    fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        self.0.write_all(frame)
    }

    /// The next frame: kind, stream, payload.
    fn next(&mut self) -> io::Result<(u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let mut payload = vec![0; length as usize];
        self.0.read_exact(&mut payload)?;
        Ok((head[3], stream, payload))
    }

    /// Whether the proxy refuses `stream`, or the whole connection, before it answers it.
    fn is_refused(&mut self, stream: u32) -> bool {
        loop {
            match self.next() {
                Ok((RST_STREAM, of, _)) if of == stream => return true,
                Ok((GOAWAY, _, _)) => return true,
                Ok((HEADERS, of, payload)) if of == stream => {
                    // 400 has a place of its own in HPACK's static table.
                    return payload.first() == Some(&0x8c);
                }
                Ok(_) => {}
                Err(error) => return error.kind() != io::ErrorKind::WouldBlock,
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_that_http_1_could_not_carry_are_refused_before_amazon() {
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    let with = |extra: &[(&'static str, &'static str)]| [&HONEST[..], extra].concat();
    let instead = |name: &str, value: &'static str| {
        let mut list = HONEST.to_vec();
        list.iter_mut().filter(|field| field.0 == name).for_each(|field| field.1 = value);
        list
    };
    let without =
        |name: &str| HONEST.iter().copied().filter(|field| field.0 != name).collect::<Vec<_>>();
    let lists = [
        with(&[("x", "a\r\nx-ads-account: globex")]),
        with(&[("x", "a\nb")]),
        with(&[("x", "a\0b")]),
        with(&[("x\r\ny", "a")]),
        with(&[("x: y", "a")]),
        with(&[("X-Upper", "a")]),
        with(&[("", "a")]),
        with(&[("connection", "close")]),
        with(&[("transfer-encoding", "chunked")]),
        with(&[("upgrade", "h2c")]),
        with(&[("keep-alive", "x")]),
        with(&[("te", "gzip")]),
        with(&[(":path", "/second")]),
        with(&[(":status", "200")]),
        with(&[(":unknown", "x")]),
        with(&[("content-length", "5"), ("content-length", "6")]),
        with(&[("content-length", "x")]),
        instead(":path", "/x\r\nHost: evil.test"),
        instead(":path", "/x HTTP/1.1\r\n\r\nGET /smuggled"),
        instead(":path", ""),
        instead(":method", "GET / HTTP/1.1\r\nX: y"),
        instead(":method", ""),
        instead(":scheme", "x\r\ny"),
        instead(":authority", "localhost\r\nx: y"),
        instead(":authority", "user@localhost"),
        without(":method"),
        without(":path"),
        without(":authority"),
    ];
    for list in lists {
        let mut raw = Raw::open(proxy.addr);
        raw.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields(&list))).expect("written");
        assert!(raw.is_refused(1), "{list:?}");
        assert!(seen(&amazon).is_empty(), "{list:?} reached Amazon");
    }
    Wire::open(proxy.addr).ask_honestly("after");
}

#[tokio::test(flavor = "multi_thread")]
async fn lengths_that_do_not_match_the_data_never_pass_for_whole() {
    let amazon = amazon().await;
    let proxy = Proxy::start(&amazon);
    for (announced, sent) in [("10", 5), ("5", 10), ("0", 5), ("5", 0)] {
        amazon.state().record.clear();
        let list = [&HONEST[..], &[("content-length", announced)]].concat();
        let mut raw = Raw::open(proxy.addr);
        raw.send(&frame(HEADERS, END_HEADERS, 1, &fields(&list))).expect("written");
        raw.send(&frame(DATA, END_STREAM, 1, &vec![b'x'; sent])).expect("written");
        assert!(raw.is_refused(1), "{announced} announced, {sent} sent");
        let whole = seen(&amazon).iter().any(|seen| seen.body_complete);
        assert!(!whole, "{announced} announced, {sent} sent: taken for whole");
        Wire::open(proxy.addr).ask_honestly("after");
    }
    amazon.state().record.clear();
    let list = [&HONEST[..], &[("content-length", "5")]].concat();
    let mut raw = Raw::open(proxy.addr);
    raw.send(&frame(HEADERS, END_HEADERS, 1, &fields(&list))).expect("written");
    raw.send(&frame(DATA, END_STREAM, 1, b"12345")).expect("written");
    assert!(!raw.is_refused(1));
    assert_eq!(seen(&amazon)[0].body_len, 5);
}

/// Over HTTP/1.1 such a request would go out as an empty one before its data come.
#[tokio::test(flavor = "multi_thread")]
async fn a_length_of_zero_is_forwarded_only_once_the_stream_has_ended() {
    let amazon = amazon().await;
    let toml = "[proxy]\nworkers = 1\n".to_owned();
    let proxy = Proxy::with(&amazon, Setup { toml, ..Setup::default() });
    for (data, is_whole) in [(&b""[..], true), (b"12345", false)] {
        for expect in [&[][..], &[("expect", "100-continue")]] {
            let list = [&HONEST[..], &[("content-length", "0")], expect].concat();
            let mut raw = Raw::open(proxy.addr);
            raw.send(&frame(HEADERS, END_HEADERS, 1, &fields(&list))).expect("written");
            // The same worker has answered this one, and so has read that one's head.
            Wire::open(proxy.addr).ask_honestly("meanwhile");
            assert!(seen(&amazon).iter().all(|seen| seen.method != "POST"), "it did not wait");
            raw.send(&frame(DATA, END_STREAM, 1, data)).expect("written");
            assert_eq!(!raw.is_refused(1), is_whole, "{data:?}");
            let posts = seen(&amazon).iter().filter(|seen| seen.method == "POST").count();
            assert_eq!(posts, usize::from(is_whole), "{data:?}");
            amazon.state().record.clear();
        }
    }
}

/// What became of a flood.
#[derive(Debug)]
struct Flooded {
    /// The code of the GOAWAY that ended the connection.
    goaway: Option<u32>,
    /// Frames the proxy sent back.
    answers: usize,
}

/// Sends `frames` again and again, `count` times or until the proxy has had enough.
fn flood(proxy: &Proxy, count: u32, prelude: &[u8], frames: impl Fn(u32) -> Vec<u8>) -> Flooded {
    let mut raw = Raw::open(proxy.addr);
    let mut reader = Raw(raw.0.try_clone().expect("a handle"));
    reader.0.set_read_timeout(Some(Duration::from_secs(2))).expect("a timeout");
    let reading = std::thread::spawn(move || {
        let mut flooded = Flooded { goaway: None, answers: 0 };
        while let Ok((kind, _, payload)) = reader.next() {
            flooded.answers += 1;
            if kind == GOAWAY {
                let code = payload[4..8].try_into().expect("four bytes");
                flooded.goaway = Some(u32::from_be_bytes(code));
            }
        }
        flooded
    });
    let _ = raw.send(prelude);
    let mut batch = Vec::new();
    for number in 0..count {
        batch.extend(frames(number));
        if batch.len() > 16_384 {
            if raw.send(&batch).is_err() {
                break;
            }
            batch.clear();
        }
    }
    let _ = raw.send(&batch);
    reading.join().expect("the reader ends")
}

/// The most memory the process ever had, bytes.
fn peak(proxy: &Proxy) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", proxy.pid())).expect("status");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("VmHWM");
    let kib: u64 = line.split_whitespace().nth(1).expect("a number").parse().expect("KiB");
    kib * 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_frames_cost_little_memory_and_nobody_else_anything() {
    let amazon = amazon().await;
    let toml = "[proxy]\nworkers = 1\n".to_owned();
    let proxy = Proxy::with(&amazon, Setup { toml, ..Setup::default() });
    Wire::open(proxy.addr).ask_honestly("before");
    let before = peak(&proxy);
    let well = |what: &str| {
        let started = std::time::Instant::now();
        Wire::open(proxy.addr).ask_honestly("well");
        assert!(started.elapsed() < Duration::from_secs(5), "{what} holds the worker up");
        let grown = peak(&proxy).saturating_sub(before);
        println!("{what}: +{} KiB", grown >> 10);
        assert!(grown < 96 << 20, "{what}: memory grew by {grown} bytes");
    };
    let head = fields(&HONEST);
    let open = frame(HEADERS, END_HEADERS, 1, &head);
    let stream = |number: u32| 2 * number + 1;

    let reset = flood(&proxy, 50_000, &[], |number| {
        let mut frames = frame(HEADERS, END_HEADERS | END_STREAM, stream(number), &head);
        frames.extend(frame(RST_STREAM, 0, stream(number), &8_u32.to_be_bytes()));
        frames
    });
    assert_eq!(reset.goaway, Some(ENHANCE_YOUR_CALM), "{reset:?}");
    well("rapid reset");
    // The proxy is made to reset: a window that overflows is an error of its stream.
    let made = flood(&proxy, 50_000, &[], |number| {
        let mut frames = frame(HEADERS, END_HEADERS, stream(number), &head);
        frames.extend(frame(WINDOW_UPDATE, 0, stream(number), &[0x7f, 0xff, 0xff, 0xff]));
        frames
    });
    assert_eq!(made.goaway, Some(ENHANCE_YOUR_CALM), "{made:?}");
    well("made-you-reset");
    let unfinished = frame(HEADERS, 0, 1, &head);
    let continued = flood(&proxy, 50_000, &unfinished, |number| {
        frame(CONTINUATION, 0, 1, &fields(&[(&format!("x-{number}"), &"x".repeat(200))]))
    });
    assert_eq!(continued.goaway, Some(ENHANCE_YOUR_CALM), "{continued:?}");
    well("a head without end");
    let hollow = flood(&proxy, 50_000, &unfinished, |_| frame(CONTINUATION, 0, 1, &[]));
    assert_eq!(hollow.goaway, Some(ENHANCE_YOUR_CALM), "{hollow:?}");
    well("a head of nothing without end");
    let empty = flood(&proxy, 50_000, &open, |_| frame(DATA, 0, 1, &[]));
    assert_eq!(empty.goaway, Some(ENHANCE_YOUR_CALM), "{empty:?}");
    well("empty data");
    // Indexes one long field, then names it by one byte a time.
    let mut bomb = vec![0x40];
    integer(&mut bomb, 1);
    bomb.push(b'x');
    integer(&mut bomb, 3_000);
    bomb.resize(bomb.len() + 3_000, b'y');
    let prelude = frame(HEADERS, END_HEADERS | END_STREAM, 1, &[&head[..], &bomb].concat());
    let bombed = flood(&proxy, 500, &prelude, |number| {
        let block = [&head[..], &[0xbe; 15_000]].concat();
        frame(HEADERS, END_HEADERS | END_STREAM, stream(number + 1), &block)
    });
    assert_eq!(bombed.goaway, Some(ENHANCE_YOUR_CALM), "{bombed:?}");
    well("compression bomb");
    // Each of these is answered at its own pace, and costs its sender as much.
    let pings =
        flood(&proxy, 50_000, &[], |number| frame(PING, 0, 0, &u64::from(number).to_be_bytes()));
    assert!(pings.answers >= 50_000 || pings.goaway.is_some(), "{pings:?}");
    well("ping");
    let settings = flood(&proxy, 50_000, &[], |_| frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 255, 255]));
    assert!(settings.answers >= 50_000 || settings.goaway.is_some(), "{settings:?}");
    well("settings");
    // Frames of unknown kinds are skipped, as HTTP/2 wants it.
    flood(&proxy, 50_000, &[], |_| frame(0xfe, 0, 0, &[0; 100]));
    well("unknown frames");
}

/// Asks for `path` on a stream whose window is `window` bytes.
fn ask_through(proxy: &Proxy, path: &str, window: u32) -> Raw {
    let mut raw = Raw::open(proxy.addr);
    let setting = [&[0, 4][..], &window.to_be_bytes()].concat();
    raw.send(&frame(SETTINGS, 0, 0, &setting)).expect("written");
    let mut list = HONEST;
    list[0].1 = "GET";
    list[3].1 = path;
    raw.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields(&list))).expect("written");
    raw
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_shuts_its_windows_is_cut_off_like_one_that_does_not_read() {
    let amazon = amazon().await;
    let toml = "[proxy]\nworkers = 1\n[limits]\nwrite_timeout_secs = 1\nidle_timeout_secs = 2\n";
    let proxy = Proxy::with(&amazon, Setup { toml: toml.to_owned(), ..Setup::default() });
    Wire::open(proxy.addr).ask_honestly("before");
    // Never asked for; asked for once; and small enough for hyper to be done with it.
    let mut deaf = [("/_bytes/4000000", 0), ("/_bytes/4000000", 1), ("/_bytes/5000", 1)]
        .map(|(path, window)| ask_through(&proxy, path, window));
    let hits = || proxy.metric("adsproxy_limit_hits_total{limit=\"write_timeout\"}");
    eventually("all are cut off", || hits() == 3.0).await;
    for raw in &mut deaf {
        // None of the frames before the end carries the end of a stream.
        while let Ok((kind, _, payload)) = raw.next() {
            assert!(kind != DATA || payload.len() <= 1);
        }
    }
    eventually("none is in flight", || proxy.metric("adsproxy_in_flight_requests") == 0.0).await;
    Wire::open(proxy.addr).ask_honestly("after");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_takes_what_there_is_may_wait_and_may_be_slow() {
    let amazon = amazon().await;
    let toml = "[proxy]\nworkers = 1\n[limits]\nwrite_timeout_secs = 1\nidle_timeout_secs = 2\n";
    let proxy = Proxy::with(&amazon, Setup { toml: toml.to_owned(), ..Setup::default() });
    // An event stream that is silent for longer than a caller may be.
    let mut events = ask_through(&proxy, "/_sse?events=2&interval_ms=4000", 65_535);
    let mut slow = ask_through(&proxy, "/_bytes/2000000", 65_535);
    let mut taken = 0;
    while taken < 2_000_000 {
        let (kind, _, payload) = slow.next().expect("it goes on");
        if kind == DATA && !payload.is_empty() {
            taken += payload.len();
            std::thread::sleep(Duration::from_millis(8));
            let more = u32::try_from(payload.len()).expect("short").to_be_bytes();
            let updates = [0, 1].map(|stream| frame(WINDOW_UPDATE, 0, stream, &more)).concat();
            slow.send(&updates).expect("written");
        }
    }
    let mut text = Vec::new();
    while !String::from_utf8_lossy(&text).contains("event 2 of 2") {
        let (kind, _, payload) = events.next().expect("it goes on");
        text.extend(payload.into_iter().filter(|_| kind == DATA));
    }
    assert_eq!(proxy.metric("adsproxy_limit_hits_total{limit=\"write_timeout\"}"), 0.0);
}

/// Opens requests whose response is held, and resets each once the proxy has it; gives back how
/// many the connection took.
fn open_and_reset(raw: &mut Raw, first: u32, count: u32) -> u32 {
    open_and_reset_with(raw, &fields(&HONEST), first, count)
}

fn open_and_reset_with(raw: &mut Raw, block: &[u8], first: u32, count: u32) -> u32 {
    for number in first..first + count {
        let stream = 2 * number + 1;
        let opened = [
            frame(HEADERS, END_STREAM | END_HEADERS, stream, block),
            frame(PING, 0, 0, &u64::from(stream).to_be_bytes()),
        ];
        if raw.send(&opened.concat()).is_err() {
            return number - first;
        }
        loop {
            match raw.next() {
                // Its own PING is to be acknowledged, or the connection ends.
                Ok((PING, _, payload)) if payload == u64::from(stream).to_be_bytes() => break,
                Ok((GOAWAY, ..)) | Err(_) => return number - first,
                Ok(_) => {}
            }
        }
        let _ = raw.send(&frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
    }
    count
}

#[tokio::test(flavor = "multi_thread")]
async fn resets_before_the_response_are_counted_and_end_the_connection() {
    let amazon = amazon().await;
    let toml = "[proxy]\nworkers = 1\n".to_owned();
    let proxy = Proxy::with(&amazon, Setup { toml, ..Setup::default() });
    assert_eq!(proxy.get("/_status/200").await.status, 200);
    amazon.state().api.gate.hold();
    let mut raw = Raw::open(proxy.addr);
    let taken = open_and_reset(&mut raw, 0, 1500);
    assert!((100..300).contains(&taken), "{taken}");
    // The twin: one that resets now and then is served on.
    let mut raw = Raw::open(proxy.addr);
    assert_eq!(open_and_reset(&mut raw, 0, 50), 50);
    amazon.state().api.gate.release();
    let stream = 2 * 50 + 1;
    let block = fields(&HONEST);
    raw.send(&frame(HEADERS, END_STREAM | END_HEADERS, stream, &block)).expect("written");
    let served = loop {
        match raw.next().expect("a frame") {
            (HEADERS, of, payload) if of == stream => break payload,
            (RST_STREAM | GOAWAY, ..) => panic!("not served"),
            _ => {}
        }
    };
    // 200 has a place of its own in HPACK's static table.
    assert_eq!(served.first(), Some(&0x88));
    assert_eq!(proxy.get("/_status/200").await.status, 200);
}

/// The caller is gone, but the exchange with Amazon ends as if it were not.
#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_reset_do_not_each_cost_a_connection_to_amazon() {
    let amazon = amazon().await;
    let toml = "[proxy]\nworkers = 1\n".to_owned();
    let proxy = Proxy::with(&amazon, Setup { toml, ..Setup::default() });
    let mut late = HONEST;
    (late[0].1, late[3].1) = ("GET", "/_slow?ms=5");
    let before = seen(&amazon).len();
    for _ in 0..30 {
        let mut raw = Raw::open(proxy.addr);
        assert_eq!(open_and_reset_with(&mut raw, &fields(&late), 0, 50), 50);
    }
    eventually("Amazon has them all", || seen(&amazon).len() >= before + 1000).await;
    Wire::open(proxy.addr).ask_honestly("meanwhile");
    let opened = proxy.metric("adsproxy_upstream_connections_opened_total");
    assert!(opened < 300.0, "{opened} connections for 1500 requests");
    // What never ends is given up in the end: no connection is held for a caller that left.
    amazon.state().api.gate.hold();
    assert_eq!(open_and_reset(&mut Raw::open(proxy.addr), 0, 50), 50);
    eventually("they are in flight no more", || proxy.metric("adsproxy_in_flight_requests") == 0.0)
        .await;
    amazon.state().api.gate.until_waiting(0).await;
    amazon.state().api.gate.release();
}

/// A reset costs the proxy what a response would, not a connection to Amazon or more.
#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_reset_cost_no_more_than_those_that_are_served() {
    let amazon = amazon().await;
    let toml = "[proxy]\nworkers = 1\n".to_owned();
    let proxy = Proxy::with(&amazon, Setup { toml, ..Setup::default() });
    let block = fields(&HONEST);
    // Below the number that ends a connection.
    let rounds = 8;
    let served = || {
        let before = proxy.cpu();
        for _ in 0..rounds {
            let mut raw = Raw::open(proxy.addr);
            for number in 0..50 {
                let stream = 2 * number + 1;
                raw.send(&frame(HEADERS, END_STREAM | END_HEADERS, stream, &block))
                    .expect("written");
                while !matches!(raw.next().expect("a frame"), (HEADERS, of, _) if of == stream) {}
            }
        }
        proxy.cpu() - before
    };
    let reset = || {
        amazon.state().api.gate.hold();
        let before = proxy.cpu();
        for _ in 0..rounds {
            assert_eq!(open_and_reset(&mut Raw::open(proxy.addr), 0, 50), 50);
        }
        amazon.state().api.gate.release();
        Wire::open(proxy.addr).ask_honestly("meanwhile");
        proxy.cpu() - before
    };
    served();
    let twin = (0..3).map(|_| served()).min().expect("three rounds");
    let attack = (0..3).map(|_| reset()).min().expect("three rounds");
    println!("resets: {attack} ticks, their honest twin {twin}");
    assert!(attack <= 3 * twin + 15, "{attack} ticks, the honest twin {twin}");
}
