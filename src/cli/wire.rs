//! Asks the running server: one request over a connection of its own.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

const TIMEOUT: Duration = Duration::from_secs(3);

/// An answer about 10,000 accounts has a few megabytes.
const ANSWER_MAX_BYTES: usize = 64 << 20;

const PART_BYTES: usize = 64 << 10;

/// A request to the admin API.
#[derive(Debug, Default)]
pub(super) struct Ask<'a> {
    /// `GET` where there is no body, else `POST`.
    pub(super) json: Option<String>,
    /// Path and query.
    pub(super) path: &'a str,
    /// The value of `Cookie`.
    pub(super) cookie: Option<&'a str>,
    /// How long the answer may take.
    pub(super) patience: Option<Duration>,
}

/// What came back.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    head: String,
    pub(super) body: String,
}

impl Answer {
    /// The first value of a field.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        let lines = self.head.split("\r\n").skip(1);
        let mut fields = lines.filter_map(|line| line.split_once(':'));
        fields.find(|(have, _)| have.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}

/// Returns the status and the body.
pub(super) fn get(address: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let answer = send(address, &Ask { path, ..Ask::default() })?;
    Ok((answer.status, answer.body))
}

/// Sends a request and returns what comes back.
pub(super) fn send(address: SocketAddr, ask: &Ask<'_>) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&reachable(address), TIMEOUT)?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    // Version 1.0: the answer is never in chunks, and the connection ends with it. The host is a
    // name that the server accepts from this machine, whatever address it listens on.
    let method = if ask.json.is_some() { "POST" } else { "GET" };
    let cookie = ask.cookie.map(|cookie| format!("Cookie: {cookie}\r\n")).unwrap_or_default();
    let body = ask.json.as_deref().unwrap_or_default();
    let length = match ask.json {
        Some(_) => {
            format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len())
        }
        None => String::new(),
    };
    let request = format!(
        "{method} {} HTTP/1.0\r\nHost: localhost\r\nAccept: application/json\r\n\
         {cookie}{length}\r\n{body}",
        ask.path
    );
    // In one piece: a server that has read enough may answer and close at once.
    stream.write_all(request.as_bytes())?;
    let answer = read_until(&mut stream, Instant::now() + ask.patience.unwrap_or(TIMEOUT))?;
    let answer = String::from_utf8(answer).unwrap_or_default();
    parse(&answer).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "this is no HTTP"))
}

/// Reads to the end, which must come before `deadline`: whoever else has the port may send a byte
/// now and then for ever.
fn read_until(stream: &mut TcpStream, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut answer = Vec::new();
    let mut part = vec![0; PART_BYTES];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the answer takes too long"));
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut part) {
            Ok(0) => return Ok(answer),
            Ok(read) => answer.extend_from_slice(&part[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if answer.len() > ANSWER_MAX_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is too long"));
        }
    }
}

/// A listener on every address is reached on this machine's own.
pub(super) fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        other => other,
    };
    SocketAddr::new(ip, address.port())
}

fn parse(answer: &str) -> Option<Answer> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.split("\r\n").next()?;
    Some(Answer { status: status.parse().ok()?, head: head.to_owned(), body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_status_and_body() {
        let answer = "HTTP/1.1 503 Service Unavailable\r\na: b\r\n\r\nnot\r\n\r\nok";
        let read = parse(answer).unwrap();
        assert_eq!((read.status, read.body.as_str()), (503, "not\r\n\r\nok"));
        assert_eq!((read.field("A"), read.field("b")), (Some("b"), None));
        let read = parse("HTTP/1.0 200\r\na: b\r\n\r\n").unwrap();
        assert_eq!((read.status, read.body.as_str()), (200, ""));
    }

    #[test]
    fn who_sends_a_byte_now_and_then_is_not_waited_for() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut other, _) = listener.accept().unwrap();
        std::thread::spawn(move || {
            while other.write_all(b"x").is_ok() {
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let deadline = Instant::now() + Duration::from_millis(100);
        assert!(read_until(&mut stream, deadline).is_err());
    }

    #[test]
    fn what_is_no_http_is_no_answer() {
        for answer in ["", "SSH-2.0-x\r\n\r\n", "HTTP/1.1 abc x\r\n\r\n", "HTTP/1.1 200 OK\r\n"] {
            assert_eq!(parse(answer), None, "{answer}");
        }
    }

    #[test]
    fn listeners_on_every_address_are_asked_on_loopback() {
        for (listens, asked) in
            [("0.0.0.0:1", "127.0.0.1:1"), ("[::]:1", "[::1]:1"), ("10.0.0.1:1", "10.0.0.1:1")]
        {
            assert_eq!(reachable(listens.parse().unwrap()), asked.parse().unwrap());
        }
    }
}
