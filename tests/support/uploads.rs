//! Upstreams that do not take an upload to its end, and a proxy in front of one.

use super::proxy::{Proxy, Setup, amazon, upstream};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

const TOO_LARGE: &[u8] =
    b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 9\r\nconnection: close\r\n\r\ntoo large";

/// What Amazon does with an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amazon {
    /// Takes no connection.
    Refuses,
    /// Reads half of the body and closes.
    ClosesMidUpload,
    /// Answers 413 after the head and closes, the body unread.
    AnswersEarly,
    /// Reads the head and nothing more.
    NeverReads,
}

pub const ALL: [Amazon; 4] =
    [Amazon::Refuses, Amazon::ClosesMidUpload, Amazon::AnswersEarly, Amazon::NeverReads];

impl Amazon {
    /// The status that the caller is due.
    pub fn due(self) -> u16 {
        match self {
            Self::Refuses | Self::ClosesMidUpload => 502,
            Self::AnswersEarly => 413,
            Self::NeverReads => 504,
        }
    }
}

/// Ends its accepting thread when dropped.
pub struct Uploads {
    addr: SocketAddr,
    ended: Arc<AtomicBool>,
}

impl Uploads {
    pub fn start(amazon: Amazon) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = listener.local_addr().expect("an address");
        let ended = Arc::new(AtomicBool::new(false));
        let end = ended.clone();
        if amazon == Amazon::Refuses {
            // The port stays refused: nothing binds a port of the ephemeral range on purpose.
            drop(listener);
            return Self { addr, ended };
        }
        thread::spawn(move || {
            let mut unread = Vec::new();
            for stream in listener.incoming().map_while(Result::ok) {
                if end.load(Ordering::Relaxed) {
                    return;
                }
                if amazon == Amazon::NeverReads {
                    unread.push(stream);
                } else {
                    thread::spawn(move || serve(stream, amazon));
                }
            }
        });
        Self { addr, ended }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }
}

impl Drop for Uploads {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.addr);
    }
}

fn serve(mut stream: TcpStream, amazon: Amazon) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match stream.read(&mut byte) {
            Ok(1..) => head.push(byte[0]),
            _ => return,
        }
    }
    if amazon == Amazon::AnswersEarly {
        let _ = stream.write_all(TOO_LARGE);
        return;
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let half = length.map_or(0, |length| length.parse::<u64>().expect("a length") / 2);
    let _ = std::io::copy(&mut stream.take(half), &mut std::io::sink());
}

/// A proxy with its token already, whose uploads go to `uploads`.
pub async fn before(uploads: &Uploads) -> Proxy {
    let amazon = amazon().await;
    let toml = format!(
        "[proxy]\nworkers = 1\n{}",
        upstream(&uploads.url(), "response_header_timeout_secs = 1")
    );
    let proxy = Proxy::with(&amazon, Setup { toml, ..Setup::default() });
    // The token is here before LWA leaves.
    let eager = proxy.request(http::Method::GET, "/").header("X-Ads-Account", "acme");
    assert!(proxy.send(eager).await.status.as_u16() > 400);
    proxy
}

/// A stop right after the last response takes less than a second and is a success.
pub fn assert_stops_at_once(proxy: &mut Proxy) {
    let began = Instant::now();
    proxy.signal("TERM");
    assert_eq!(proxy.wait().code(), Some(0), "{}", proxy.log());
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}
