//! HTTP/1.1 by hand over any stream, for tests that look at the connection itself.

use super::stranger;
use std::{
    any::Any,
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
};

/// One connection, kept alive.
pub struct Wire<S> {
    stream: BufReader<S>,
}

/// An answer with a `Content-Length`.
pub struct Reply {
    pub status: u16,
    /// The field lines in lower case.
    pub head: String,
    pub body: Vec<u8>,
}

impl<S: Read + Write + Any> Wire<S> {
    pub fn new(stream: S) -> Self {
        Self { stream: BufReader::new(stream) }
    }

    pub fn stream(&self) -> &S {
        self.stream.get_ref()
    }

    pub fn write(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        let stream = self.stream.get_mut();
        if let Some(Ok(addr)) = (stream as &dyn Any).downcast_ref().map(TcpStream::peer_addr) {
            stranger::send_raw(addr, bytes.as_ref());
        }
        stream.write_all(bytes.as_ref())?;
        stream.flush()
    }

    /// Sends a `GET` for `acme` and reads the answer.
    pub fn get(&mut self, path: &str) -> io::Result<Reply> {
        self.write(format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nX-Ads-Account: acme\r\n\r\n"
        ))?;
        self.reply()
    }

    /// Reads an answer. A connection that ends before it is an error.
    pub fn reply(&mut self) -> io::Result<Reply> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.stream.read_line(&mut head)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        head.make_ascii_lowercase();
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or(io::ErrorKind::InvalidData)?;
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.map_or(0, |length| length.parse().expect("a length"))];
        self.stream.read_exact(&mut body)?;
        Ok(Reply { status, head, body })
    }

    /// Says whether the other side has ended the connection; waits for the read timeout.
    pub fn is_closed(&mut self) -> bool {
        match self.stream.read(&mut [0]) {
            Ok(read) => read == 0,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }
}
