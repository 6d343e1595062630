//! Bytes on a socket: a caller that can send anything, and an upstream that can answer anything.

use super::{
    proxy::{Answer, judge},
    stranger,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

/// How long an answer may take before a test gives up.
const TIMEOUT: Duration = Duration::from_secs(20);

/// One connection of a caller that writes what it likes.
pub struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// Where the proxy is, if over TCP.
    addr: Option<SocketAddr>,
}

impl Wire {
    pub fn open(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).expect("a connection");
        stream.set_nodelay(true).expect("an option");
        Self { addr: Some(addr), ..Self::over(stream) }
    }

    /// A connection made otherwise.
    pub fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
        stream.set_write_timeout(Some(TIMEOUT)).expect("a timeout");
        Self { stream, buffer: Vec::new(), addr: None }
    }

    /// Writes; the proxy may have closed already.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        if let Some(addr) = self.addr {
            stranger::send_raw(addr, bytes.as_ref());
        }
        let _ = self.stream.write_all(bytes.as_ref());
        self
    }

    /// As `send`, but says whether the proxy still takes it.
    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Says that nothing more will come.
    pub fn finish(&mut self) -> &mut Self {
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
        self
    }

    /// The next answer, judged; none if the connection ends before its first byte.
    ///
    /// Fails if it ends within one.
    pub fn try_answer(&mut self) -> Option<Answer> {
        self.read_answer().expect("a whole answer")
    }

    /// The next answer, judged.
    pub fn answer(&mut self) -> Answer {
        self.try_answer().expect("an answer, not the end of the connection")
    }

    /// The next answer, or how it broke off.
    pub fn read_answer(&mut self) -> io::Result<Option<Answer>> {
        let head = loop {
            match find(&self.buffer, b"\r\n\r\n") {
                Some(at) => break self.buffer.drain(..at + 4).collect::<Vec<u8>>(),
                None if !self.fill()? => {
                    let between = self.buffer.is_empty();
                    return if between { Ok(None) } else { Err(cut()) };
                }
                None => {}
            }
        };
        let (status, headers) = parse_head(&head);
        if status.is_informational() {
            return self.read_answer();
        }
        let body = self.body(status, &headers)?;
        let answer = Answer { status, headers, body };
        judge(&answer);
        Ok(Some(answer))
    }

    /// Sends an honest request, whose answer must be its own.
    pub fn ask_honestly(&mut self, mark: &str) {
        self.send(honest(mark));
        assert_own(&self.answer(), mark);
    }

    /// Whether nothing more comes, and the connection has ended.
    pub fn is_closed(&mut self) -> bool {
        match self.fill() {
            Ok(more) => !more && self.buffer.is_empty(),
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }

    /// Whether the connection ends without a reset and without another byte.
    pub fn ends_in_order(&mut self) -> bool {
        matches!(self.fill(), Ok(false)) && self.buffer.is_empty()
    }

    /// Takes about as many bytes off the socket, for later.
    pub fn read_some(&mut self, bytes: usize) {
        let enough = self.buffer.len() + bytes;
        while self.buffer.len() < enough && matches!(self.fill(), Ok(true)) {}
    }

    /// Everything until the end of the connection.
    pub fn rest(&mut self) -> Vec<u8> {
        while matches!(self.fill(), Ok(true)) {}
        std::mem::take(&mut self.buffer)
    }

    /// The stream itself.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    fn body(&mut self, status: StatusCode, headers: &HeaderMap) -> io::Result<Vec<u8>> {
        if status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED {
            return Ok(Vec::new());
        }
        if headers.contains_key("transfer-encoding") {
            return self.chunks();
        }
        match headers.get("content-length") {
            Some(length) => self.take(length.to_str().expect("ASCII").parse().expect("a number")),
            None => Ok(self.rest()),
        }
    }

    fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let size = self.line()?;
            let size = usize::from_str_radix(size.trim(), 16).expect("a chunk size");
            if size == 0 {
                while !self.line()?.trim().is_empty() {}
                return Ok(body);
            }
            body.extend(self.take(size)?);
            self.take(2)?;
        }
    }

    fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(at) = find(&self.buffer, b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..at + 2).collect();
                return Ok(String::from_utf8_lossy(&line).into_owned());
            }
            if !self.fill()? {
                return Err(cut());
            }
        }
    }

    fn take(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < length {
            if !self.fill()? {
                return Err(cut());
            }
        }
        Ok(self.buffer.drain(..length).collect())
    }

    /// Reads on; false at the end.
    fn fill(&mut self) -> io::Result<bool> {
        let mut buf = [0; 64 * 1024];
        let read = self.stream.read(&mut buf)?;
        self.buffer.extend_from_slice(&buf[..read]);
        Ok(read > 0)
    }
}

fn cut() -> io::Error {
    io::ErrorKind::UnexpectedEof.into()
}

/// A request whose header lines are all the test's.
pub fn raw(line: &str, lines: &str) -> Vec<u8> {
    format!("{line}\r\n{lines}\r\n").into_bytes()
}

/// A request for `acme` whose answer nobody else's is like.
pub fn honest(mark: &str) -> String {
    let size = own_size(mark);
    format!(
        "GET /_bytes/{size}?honest={mark} HTTP/1.1\r\nHost: localhost\r\n\
         X-Ads-Account: acme\r\n\r\n"
    )
}

/// Fails unless `answer` is that to `honest(mark)`.
pub fn assert_own(answer: &Answer, mark: &str) {
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.body.len(), own_size(mark), "the answer to {mark} is another one");
}

/// A size per mark.
fn own_size(mark: &str) -> usize {
    mark.bytes().fold(7, |size, byte| (size * 31 + usize::from(byte)) % 9973)
}

/// Where `needle` begins in `hay`.
pub fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    hay.windows(needle.len()).position(|window| window == needle)
}

fn parse_head(head: &[u8]) -> (StatusCode, HeaderMap) {
    let text = String::from_utf8_lossy(head);
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status line");
    let status = StatusCode::from_bytes(status.as_bytes()).expect("a status");
    let mut headers = HeaderMap::new();
    for line in lines.filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':').expect("a header line");
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
        headers.append(name, HeaderValue::from_str(value.trim()).expect("a value"));
    }
    (status, headers)
}

/// What a scripted upstream does with one request.
pub enum Act {
    /// Writes this and keeps the connection.
    Say(Vec<u8>),
    /// Writes this and closes the connection.
    SayAndClose(Vec<u8>),
    /// Says nothing for as long as the proxy waits.
    Nothing,
}

/// An upstream that answers bytes that no HTTP library would.
pub struct Upstream {
    pub addr: SocketAddr,
    requests: Arc<AtomicUsize>,
    ended: Arc<AtomicBool>,
}

impl Upstream {
    /// Answers every request (its head, without body) with what `script` says.
    pub fn start(script: impl Fn(&str) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = listener.local_addr().expect("an address");
        let (requests, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (script, counter, end) = (Arc::new(script), requests.clone(), ended.clone());
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if end.load(Ordering::Relaxed) {
                    return;
                }
                let (script, counter) = (script.clone(), counter.clone());
                thread::spawn(move || serve(stream, script.as_ref(), &counter));
            }
        });
        Self { addr, requests, ended }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Requests that have arrived.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // Wakes the accepting thread, which then ends.
        let _ = TcpStream::connect(self.addr);
    }
}

fn serve(mut stream: TcpStream, script: &dyn Fn(&str) -> Act, requests: &AtomicUsize) {
    let mut buffer = Vec::new();
    let mut buf = [0; 16 * 1024];
    loop {
        let Ok(read @ 1..) = stream.read(&mut buf) else { return };
        buffer.extend_from_slice(&buf[..read]);
        while let Some(at) = find(&buffer, b"\r\n\r\n") {
            let head: Vec<u8> = buffer.drain(..at + 4).collect();
            requests.fetch_add(1, Ordering::SeqCst);
            let written = match script(&String::from_utf8_lossy(&head)) {
                Act::Say(bytes) => stream.write_all(&bytes).is_ok(),
                Act::SayAndClose(bytes) => {
                    let _ = stream.write_all(&bytes);
                    false
                }
                Act::Nothing => true,
            };
            if !written {
                return;
            }
        }
    }
}
