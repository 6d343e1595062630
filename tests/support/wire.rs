//! HTTP/1.1 by hand, on both sides of the proxy: what no library would send, or would hide.

use super::{load::TEST_TIMEOUT, stranger};
use std::{
    future::Future,
    io,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};

/// One connection, spoken to in bytes.
pub struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// Where the proxy is, if at the other end.
    addr: Option<SocketAddr>,
}

impl Wire {
    pub async fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).await.expect("a connection");
        Self { addr: Some(addr), ..Self::new(stream) }
    }

    fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("an option");
        Self { stream, buffer: Vec::new(), addr: None }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).await.expect("written");
    }

    /// As `send`, for a peer that may have left.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        if let Some(addr) = self.addr {
            stranger::send_bytes(addr, bytes.as_ref()).await;
        }
        timeout(TEST_TIMEOUT, self.stream.write_all(bytes.as_ref())).await.expect("written in time")
    }

    /// Everything up to an empty line, without it.
    pub async fn head(&mut self) -> String {
        self.try_head().await.expect("a head")
    }

    /// As `head`; none if the connection ends instead.
    pub async fn try_head(&mut self) -> Option<String> {
        let head = self.until(b"\r\n\r\n").await?;
        Some(String::from_utf8(head).expect("a head is text"))
    }

    /// One chunk of a chunked body; empty at its end.
    pub async fn chunk(&mut self) -> Vec<u8> {
        let size = self.until(b"\r\n").await.expect("a chunk");
        let size = String::from_utf8(size).expect("a chunk's size");
        let size = usize::from_str_radix(&size, 16).expect("a chunk's size");
        if size == 0 {
            return Vec::new();
        }
        let chunk = self.exactly(size).await;
        assert_eq!(self.exactly(2).await, b"\r\n");
        chunk
    }

    /// A whole chunked body without trailers.
    pub async fn chunked(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let chunk = self.chunk().await;
            if chunk.is_empty() {
                assert_eq!(self.exactly(2).await, b"\r\n");
                return body;
            }
            body.extend(chunk);
        }
    }

    pub async fn exactly(&mut self, size: usize) -> Vec<u8> {
        while self.buffer.len() < size {
            assert!(self.fill().await, "the connection ends after {} bytes", self.buffer.len());
        }
        self.buffer.drain(..size).collect()
    }

    /// Sends no more; what the peer sends can still be read.
    pub async fn finish(&mut self) {
        self.stream.shutdown().await.expect("shut down");
    }

    /// Everything until the peer closes.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.fill().await {}
        std::mem::take(&mut self.buffer)
    }

    /// Whether nothing comes for so long, not even an end.
    pub async fn is_silent_for(&mut self, pause: Duration) -> bool {
        self.buffer.is_empty() && timeout(pause, self.fill()).await.is_err()
    }

    async fn until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            let found = self.buffer.windows(end.len()).position(|window| window == end);
            if let Some(at) = found {
                let mut found: Vec<u8> = self.buffer.drain(..at + end.len()).collect();
                found.truncate(at);
                return Some(found);
            }
            if !self.fill().await {
                return None;
            }
        }
    }

    /// Reads on; false at the end, also at a rude one.
    async fn fill(&mut self) -> bool {
        let mut part = vec![0; 64 * 1024];
        let read = timeout(TEST_TIMEOUT, self.stream.read(&mut part)).await.expect("bytes in time");
        let size = read.unwrap_or(0);
        self.buffer.extend_from_slice(&part[..size]);
        size > 0
    }
}

/// The value of field `name` (lower case) in a head.
pub fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (have, value) = line.split_once(':')?;
        have.eq_ignore_ascii_case(name).then_some(value.trim())
    })
}

/// An upstream that answers as a test spells it out, one call of its function per connection.
pub struct Upstream {
    addr: SocketAddr,
    _accepting: JoinSet<()>,
}

impl Upstream {
    pub async fn serve<F, A>(answer: F) -> Self
    where
        F: Fn(Wire) -> A + Send + 'static,
        A: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let addr = listener.local_addr().expect("an address");
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(answer(Wire::new(stream)));
            }
        });
        Self { addr, _accepting: accepting }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }
}
