//! A reverse proxy as people put it in front of a server: it has a public name, and asks nobody.

use http::{HeaderValue, Request, Response, header::HOST};
use hyper::{body::Incoming, client, server, service::service_fn};
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use tokio::{
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
};

/// What becomes of the name that the request was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostField {
    Kept,
    /// The server's address takes its place, as nginx has it by default.
    Replaced,
}

/// Forwards every request on a connection of its own, as from the proxy's machine. Ends when dropped.
pub struct ReverseProxy {
    pub addr: SocketAddr,
    task: AbortHandle,
}

impl ReverseProxy {
    /// In front of the server at `to`.
    pub async fn start(to: SocketAddr, host: HostField) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, peer)) = listener.accept().await {
                let forward = service_fn(move |request| forward(request, to, host, peer));
                let serve = server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), forward);
                connections.spawn(serve);
                while connections.try_join_next().is_some() {}
            }
        });
        Self { addr, task: task.abort_handle() }
    }
}

impl Drop for ReverseProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(
    mut request: Request<Incoming>,
    to: SocketAddr,
    host: HostField,
    peer: SocketAddr,
) -> hyper::Result<Response<Incoming>> {
    let fields = request.headers_mut();
    let named = fields.get(HOST).cloned().unwrap_or_else(|| HeaderValue::from_static("none"));
    if host == HostField::Replaced {
        fields.insert(HOST, value(&to.to_string()));
    }
    fields.append("x-forwarded-host", named);
    fields.append("x-forwarded-for", value(&peer.ip().to_string()));
    fields.append("x-forwarded-proto", HeaderValue::from_static("http"));
    fields.append("forwarded", value(&format!("for={}", peer.ip())));
    fields.append("via", HeaderValue::from_static("1.1 front"));
    let stream = TcpStream::connect(to).await.expect("the server listens");
    let (mut sender, connection) = client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    sender.send_request(request).await
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("visible ASCII")
}
