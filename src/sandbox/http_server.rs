//! The emulator's sockets (HTTP/1.1 and HTTP/2, with and without TLS), and the way of one request.

use super::{
    EmulatorState,
    ads::{self, ApiCall},
    consent, control, lwa,
    record::{SeenRequest, Surface},
    reports,
    response::{EmulatorResponse, HandlerResult, Stop, With},
    text::FormPairs,
};
use http::{Request, request::Parts};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use parking_lot::Mutex;
use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::watch,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

/// Connections that may wait to be accepted: a storm of callers is part of the tests.
const BACKLOG: u32 = 8192;

#[derive(Debug, Default)]
pub struct Connections {
    accepted: AtomicU64,
    /// Each open connection has a receiver.
    closing: watch::Sender<()>,
}

impl Connections {
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Relaxed)
    }

    pub fn open(&self) -> usize {
        self.closing.receiver_count()
    }

    /// Closes all connections, whatever they carry.
    pub fn close_all(&self) {
        self.closing.send_replace(());
    }
}

pub(super) fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    if !addr.ip().is_loopback() {
        let text = "the emulator listens on loopback addresses only";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

/// What every request is served from.
#[derive(Debug)]
pub(super) struct EmulatorService {
    pub(super) state: Arc<EmulatorState>,
    /// The host of presigned addresses.
    pub(super) s3_authority: String,
}

impl EmulatorService {
    /// Accepts until the task is dropped; its connections go with it.
    pub(super) async fn accept(self: Arc<Self>, listener: TcpListener, tls: Option<TlsAcceptor>) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        connections.spawn(Arc::clone(&self).connection(stream, tls.clone()));
                    }
                    // Out of file descriptors, most likely: the connections under way free some.
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                },
                Some(_) = connections.join_next() => {}
            }
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, tls: Option<TlsAcceptor>) {
        let connections = &self.state.connections;
        connections.accepted.fetch_add(1, Relaxed);
        let mut closing = connections.closing.subscribe();
        let served = async {
            // Nothing to do about a socket that is gone already.
            drop(stream.set_nodelay(true));
            match tls {
                None => self.serve(stream).await,
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        self.serve(stream).await;
                    }
                }
            }
        };
        tokio::select! {
            () = served => {}
            _ = closing.changed() => {}
        }
    }

    async fn serve<S>(self: &Arc<Self>, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let handler = service_fn(|request| {
            let service = Arc::clone(self);
            async move { service.respond(request).await }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http2().max_concurrent_streams(1000);
        // How a connection ended is what the tests look at from the other side.
        drop(builder.serve_connection(TokioIo::new(stream), handler).await);
    }

    /// Responds to one request and takes it down; an error hangs up.
    async fn respond(&self, request: Request<Incoming>) -> io::Result<EmulatorResponse> {
        let (parts, body) = request.into_parts();
        let state = &self.state;
        let surface = surface(&parts);
        let token = ads::bearer(&parts.headers);
        let sender = token.and_then(|token| state.lwa.generation(token));
        let seen = state.record.arrived(surface, &parts, sender);
        let reply = match self.handle(surface, &parts, body, &seen).await {
            Ok(reply) => reply,
            Err(Stop::Early(reply)) => *reply,
            Err(Stop::HangUp) => return Err(io::ErrorKind::ConnectionAborted.into()),
        };
        let reply = match surface {
            Surface::Api => ads::finish(&parts, &state.api.settings(), reply).await,
            _ => reply,
        };
        state.record.responded(&seen, reply.status());
        Ok(reply)
    }

    /// The way of every request; a body that breaks off gets no response.
    async fn handle(
        &self,
        surface: Surface,
        parts: &Parts,
        body: Incoming,
        seen: &Mutex<SeenRequest>,
    ) -> HandlerResult {
        let (state, settings) = (&self.state, self.state.api.settings());
        let mut owner = None;
        if surface == Surface::Api && settings.responds_before_body {
            owner = Some(ads::authenticate(state, parts).await.map_err(closing)?);
        }
        let body = state.record.receive(seen, body).await.ok_or(Stop::HangUp)?;
        match surface {
            Surface::Token => lwa::token(state, parts, &body).await,
            Surface::Revoke => lwa::revoke(state, parts, &body),
            Surface::S3 => Ok(reports::stored(parts, &body, state.lwa.now())),
            Surface::Consent => Ok(consent::page(state, &parts.uri)),
            Surface::Control => Ok(control::respond(state, parts)),
            Surface::Api => {
                let (account, grant) = match owner {
                    Some(owner) => owner,
                    None => ads::authenticate(state, parts).await?,
                };
                let query = FormPairs::of_query(&parts.uri);
                let call =
                    ApiCall { service: self, parts, query, body, seen, account, grant, settings };
                ads::respond(&call).await
            }
        }
    }
}

/// As servers do that leave a body unread: the connection is of no more use.
fn closing(stop: Stop) -> Stop {
    match stop {
        Stop::Early(reply) => reply.with("connection", "close").into(),
        Stop::HangUp => stop,
    }
}

fn surface(parts: &Parts) -> Surface {
    match (parts.method.as_str(), parts.uri.path()) {
        ("POST", "/auth/o2/token") => Surface::Token,
        ("POST", "/auth/o2/revoke") => Surface::Revoke,
        ("GET", "/ap/oa") => Surface::Consent,
        (_, path) if path.starts_with("/_s3/") => Surface::S3,
        (_, path) if path == "/_sandbox" || path.starts_with("/_sandbox/") => Surface::Control,
        _ => Surface::Api,
    }
}
