//! Many callers at once: bare sockets, so that ten thousand of them cost the test little.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{Mutex, MutexGuard, Semaphore},
    task::JoinSet,
};

/// Connections that are being opened at once: fewer than a listener's backlog.
const OPENING_MAX: usize = 128;
const REQUEST: &[u8] = b"GET /v2/profiles HTTP/1.1\r\nHost: localhost\r\nX-Ads-Account: acme\r\n\
    Connection: close\r\n\r\n";

/// One crowd at a time: two would not fit under the limit of file descriptors.
static TURN: Mutex<()> = Mutex::const_new(());

/// Callers that sent their request and have not read the answer.
pub struct Crowd(Vec<TcpStream>);

/// Waits for the right to gather a crowd, and takes all the file descriptors there may be.
pub async fn turn() -> MutexGuard<'static, ()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let files = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files }).expect("raised");
    TURN.lock().await
}

impl Crowd {
    /// Opens `count` connections and sends a request for `acme` on each.
    pub async fn gather(addr: SocketAddr, count: usize) -> Self {
        let places = Arc::new(Semaphore::new(OPENING_MAX));
        let mut opening = JoinSet::new();
        for _ in 0..count {
            let place = places.clone().acquire_owned().await.expect("never closed");
            opening.spawn(async move {
                let mut stream = TcpStream::connect(addr).await.expect("a connection");
                stream.write_all(REQUEST).await.expect("the request is written");
                drop(place);
                stream
            });
        }
        Self(opening.join_all().await)
    }

    /// Reads every answer to its end; the number of answers by status and `X-Ads-Proxy-Error`.
    /// Status 0 is a connection that ended without one.
    pub async fn answers(self) -> BTreeMap<(u16, String), usize> {
        let mut reading = JoinSet::new();
        for mut stream in self.0 {
            reading.spawn(async move {
                let mut answer = Vec::new();
                let ended = stream.read_to_end(&mut answer).await;
                let text = String::from_utf8_lossy(&answer).into_owned();
                if ended.is_err() { (0, text) } else { (status(&text), error(&text)) }
            });
        }
        let mut answers = BTreeMap::new();
        while let Some(answer) = reading.join_next().await {
            *answers.entry(answer.expect("no panic")).or_default() += 1;
        }
        answers
    }
}

/// `count` answers of Amazon's with status 200, and no others.
pub fn all_served(count: usize) -> BTreeMap<(u16, String), usize> {
    BTreeMap::from([((200, String::new()), count)])
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

fn error(answer: &str) -> String {
    let head = answer.split("\r\n\r\n").next().unwrap_or_default();
    let line = head.lines().find_map(|line| line.strip_prefix("x-ads-proxy-error: "));
    line.unwrap_or_default().to_owned()
}
