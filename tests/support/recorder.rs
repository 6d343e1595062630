//! A server of a test that records what comes, and is as bad as it is told to be.

use std::{
    collections::BTreeMap,
    future::Future,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// A running server that behaves like `M` and records `R`; it ends when dropped.
pub struct Recorder<M, R> {
    pub addr: SocketAddr,
    record: Arc<Record<M, R>>,
    task: JoinHandle<()>,
}

/// What its connections share.
pub struct Record<M, R> {
    manner: Mutex<M>,
    received: Mutex<Vec<R>>,
    connections: AtomicUsize,
}

impl<M: Clone, R> Record<M, R> {
    /// How it behaves now.
    pub fn manner(&self) -> M {
        self.manner.lock().expect("no panic").clone()
    }

    pub fn push(&self, received: R) {
        self.received.lock().expect("no panic").push(received);
    }
}

impl<M: Clone + Send + 'static, R: Clone + Send + 'static> Recorder<M, R> {
    /// Starts with `manner`; `serve` serves one connection.
    pub async fn start<F: Future<Output = ()> + Send + 'static>(
        manner: M,
        serve: impl Fn(TcpStream, Arc<Record<M, R>>) -> F + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let addr = listener.local_addr().expect("an address");
        let (manner, received) = (Mutex::new(manner), Mutex::default());
        let record = Arc::new(Record { manner, received, connections: AtomicUsize::new(0) });
        let server = record.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                server.connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, server.clone()));
            }
        });
        Self { addr, record, task }
    }

    pub fn be(&self, manner: M) {
        *self.record.manner.lock().expect("no panic") = manner;
    }

    pub fn connections(&self) -> usize {
        self.record.connections.load(Ordering::SeqCst)
    }

    /// Everything that came, in order.
    pub fn all(&self) -> Vec<R> {
        self.record.received.lock().expect("no panic").clone()
    }
}

impl<M, R> Drop for Recorder<M, R> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A POST as it came; the names of its fields in lower case.
pub struct Post {
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Post {
    /// The next one of a connection; none at its end.
    pub async fn read(stream: &mut TcpStream) -> Option<Self> {
        let mut bytes = Vec::new();
        let end = loop {
            if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if stream.read_buf(&mut bytes).await.ok()? == 0 {
                return None;
            }
        };
        let head = std::str::from_utf8(&bytes[..end]).expect("an ASCII head");
        assert!(head.starts_with("POST "), "{head}");
        let path = head.split(' ').nth(1).expect("a path").to_owned();
        let fields = head.lines().skip(1).filter_map(|line| line.split_once(": "));
        let headers: BTreeMap<String, String> =
            fields.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
        let length: usize = headers["content-length"].parse().expect("a length");
        let mut body = bytes.split_off(end);
        while body.len() < length {
            if stream.read_buf(&mut body).await.ok()? == 0 {
                return None;
            }
        }
        Some(Self { path, headers, body })
    }
}

/// Responds with 200, and then 64 MiB.
pub async fn write_huge(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(b"HTTP/1.1 200 x\r\ncontent-length: 67108864\r\n\r\n").await?;
    let block = vec![b'x'; 1 << 20];
    for _ in 0..64 {
        stream.write_all(&block).await?;
    }
    Ok(())
}
