//! The running server, reached by its control socket or one of its listeners: one HTTP client for
//! all commands, one request over a connection of its own.

use super::{CommandFailure, Context, table::plain};
use crate::{
    app::control,
    config::{AdminAddress, Config, Listen, StoreKind},
    secret::Secret,
};
use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{
    HeaderMap, Method, Request, Response,
    header::{ACCEPT, CONTENT_TYPE, COOKIE, HOST},
};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    runtime::Builder,
    time::timeout,
};

const TIMEOUT: Duration = Duration::from_secs(3);

/// A response about 10,000 accounts has a few megabytes.
const RESPONSE_MAX_BYTES: usize = 64 << 20;

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Server {
    /// Its control socket.
    Control(PathBuf),
    /// Its admin or health listener.
    Listener(SocketAddr),
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Control(path) => write!(f, "{}", path.display()),
            Self::Listener(address) => write!(f, "{address}"),
        }
    }
}

/// A request to the admin API: `GET`, with a body `POST`.
#[derive(Debug)]
pub(super) struct AdminRequest<'a> {
    /// Path and query.
    path: &'a str,
    json: Option<String>,
    cookie: Option<&'a str>,
    /// How long the response may take.
    timeout: Duration,
}

impl<'a> AdminRequest<'a> {
    pub(super) fn get(path: &'a str) -> Self {
        Self { path, json: None, cookie: None, timeout: TIMEOUT }
    }

    pub(super) fn post(path: &'a str, body: &Value) -> Self {
        Self { json: Some(body.to_string()), ..Self::get(path) }
    }

    pub(super) fn cookie(self, cookie: Option<&'a str>) -> Self {
        Self { cookie, ..self }
    }

    pub(super) fn within(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    fn http(&self) -> Result<Request<Full<Bytes>>, http::Error> {
        let method = if self.json.is_some() { Method::POST } else { Method::GET };
        let mut request = Request::builder()
            .method(method)
            .uri(self.path)
            // A name that the server accepts from this machine, whatever address it listens on.
            .header(HOST, "localhost")
            .header(ACCEPT, "application/json");
        if self.json.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(cookie) = self.cookie {
            request = request.header(COOKIE, cookie);
        }
        request.body(Full::from(self.json.clone().unwrap_or_default()))
    }
}

#[derive(Debug)]
pub(super) struct AdminResponse {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    /// May hold an access token.
    pub(super) body: Secret,
}

impl AdminResponse {
    /// The body as JSON; null if it is none.
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(self.body.expose()).unwrap_or_default()
    }
}

impl Server {
    /// The running server of `config`, by its control socket; none if none runs.
    ///
    /// # Errors
    /// When one runs that this user may not use: a command must not work on the store behind it.
    pub(super) fn find(context: &Context, config: &Config) -> anyhow::Result<Option<Self>> {
        let runtime = context.environment.get("XDG_RUNTIME_DIR").map(Path::new);
        for place in control::places(config, runtime) {
            let server = Self::Control(place.path);
            if server.is_listening()? && (place.is_of_store || server.is_of(config)) {
                return Ok(Some(server));
            }
        }
        Ok(None)
    }

    /// The server whose admin listener is at `address`; without one, that of the control socket.
    ///
    /// # Errors
    /// When neither is known.
    pub(super) fn at(context: &Context, address: &AdminAddress) -> anyhow::Result<Self> {
        match address {
            AdminAddress::Tcp(address) => Ok(Self::Listener(*address)),
            AdminAddress::Unix(path) => Ok(Self::Control(path.clone())),
            AdminAddress::Off => Self::find(context, &context.load()?.config)?.context(
                "listen.admin is \"off\", and no server has the control socket: start one",
            ),
        }
    }

    /// The server where it is asked whether it is ready.
    ///
    /// # Errors
    /// As [`Server::at`].
    pub(super) fn ready_at(context: &Context, addresses: &Listen) -> anyhow::Result<Self> {
        match addresses.health {
            Some(health) => Ok(Self::Listener(health)),
            None => Self::at(context, &addresses.admin),
        }
    }

    fn is_listening(&self) -> anyhow::Result<bool> {
        let Self::Control(path) = self else { return Ok(true) };
        let connected = block_on(async { control::connect(path).await })?;
        match connected {
            Ok(stream) => Ok(stream.is_some()),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => bail!(
                "a server runs, and {self} does not let this user in ({error}): run the command as \
                 the server's user or as root"
            ),
            Err(error) => Err(error).with_context(|| format!("cannot connect to {self}")),
        }
    }

    /// Whether a server whose socket is in a directory of many programs is the one of `config`.
    fn is_of(&self, config: &Config) -> bool {
        let Ok(response) = send(self, &AdminRequest::get("/api/v1/server")) else { return false };
        let server = response.json();
        let has_store = config.store.kind != StoreKind::Memory;
        let store = has_store.then(|| config.store.path.to_string_lossy());
        server["store"].as_str() == store.as_deref()
            && server["admin"] == config.listen.admin.to_string()
    }

    /// The JSON of a successful response, else what the server says instead.
    ///
    /// # Errors
    /// [`CommandFailure::no_server`] if there is no response; the detail of a problem document.
    pub(super) fn json(&self, request: &AdminRequest<'_>) -> anyhow::Result<Value> {
        let response =
            send(self, request).map_err(|error| CommandFailure::no_server(self, &error))?;
        let said = response.json();
        if response.status >= 300 || said.is_null() {
            let status = response.status;
            let detail = said["detail"].as_str().map(plain);
            bail!(detail.unwrap_or_else(|| format!("adsproxy at {self} responds with {status}")));
        }
        Ok(said)
    }
}

/// Returns the status and the body.
pub(super) fn get(server: &Server, path: &str) -> io::Result<(u16, String)> {
    let response = send(server, &AdminRequest::get(path))?;
    Ok((response.status, response.body.expose().to_owned()))
}

/// Sends a request and returns the response, whole and within its time.
pub(super) fn send(server: &Server, request: &AdminRequest<'_>) -> io::Result<AdminResponse> {
    let response = async {
        let http = request.http().map_err(io::Error::other)?;
        let response = match server {
            Server::Listener(address) => {
                exchange(TcpStream::connect(reachable(*address)).await?, http).await?
            }
            Server::Control(path) => {
                let stream = control::connect(path).await?;
                exchange(stream.ok_or(io::ErrorKind::ConnectionRefused)?, http).await?
            }
        };
        let (head, body) = response.into_parts();
        let body = Limited::new(body, RESPONSE_MAX_BYTES).collect().await;
        let body = body.map_err(io::Error::other)?.to_bytes();
        let body = Secret::new(String::from_utf8(body.into()).unwrap_or_default());
        Ok(AdminResponse { status: head.status.as_u16(), headers: head.headers, body })
    };
    block_on(async {
        timeout(request.timeout, response)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    })?
}

/// Sends `request` over `stream`, a connection of its own.
pub(super) async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> io::Result<Response<Incoming>> {
    let handshake = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(io::Error::other)?;
    tokio::spawn(connection);
    sender.send_request(request).await.map_err(io::Error::other)
}

/// Runs `future` on a runtime of its own.
pub(super) fn block_on<F: Future>(future: F) -> io::Result<F::Output> {
    Ok(Builder::new_current_thread().enable_all().build()?.block_on(future))
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read, Write},
        net::TcpListener,
        thread,
    };

    /// A program that sends `parts`, 5 ms apart, to its one client.
    fn program(parts: impl Iterator<Item = &'static str> + Send + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Server::Listener(listener.local_addr().unwrap());
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]);
            for part in parts {
                if stream.write_all(part.as_bytes()).is_err() {
                    return;
                }
                thread::sleep(Duration::from_millis(5));
            }
        });
        server
    }

    fn ask(server: &Server, millis: u64) -> io::Result<AdminResponse> {
        send(server, &AdminRequest::get("/").within(Duration::from_millis(millis)))
    }

    #[test]
    fn reads_status_fields_and_body() {
        let text = "HTTP/1.1 503 Service Unavailable\r\na: b\r\n\r\n{\"x\":1}";
        let answer = ask(&program([text].into_iter()), 5000).unwrap();
        assert_eq!((answer.status, answer.headers["A"].as_bytes()), (503, b"b".as_slice()));
        assert_eq!(answer.json()["x"], 1);
    }

    #[test]
    fn a_program_that_sends_a_byte_now_and_then_is_not_waited_for() {
        let head = ["HTTP/1.1 200 OK\r\n\r\n"].into_iter();
        let server = program(head.chain(std::iter::repeat("x")));
        assert_eq!(ask(&server, 100).unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn what_is_no_http_is_an_error() {
        for text in ["SSH-2.0-x\r\n\r\n", "HTTP/1.1 abc x\r\n\r\n", "HTTP/1.1 200 OK\r\n"] {
            assert!(ask(&program([text].into_iter()), 5000).is_err(), "{text}");
        }
    }

    #[test]
    fn listeners_on_every_address_are_reached_on_loopback() {
        for (listens, asked) in
            [("0.0.0.0:1", "127.0.0.1:1"), ("[::]:1", "[::1]:1"), ("10.0.0.1:1", "10.0.0.1:1")]
        {
            assert_eq!(reachable(listens.parse().unwrap()), asked.parse().unwrap());
        }
    }
}
