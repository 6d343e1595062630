//! What listens where this server wants to.

use super::{Finding, joined, place::writable};
use crate::{
    cli::{
        server::{Server, reachable},
        wire::AdminRequest,
    },
    config::{Config, ListenAddress},
    inbound::request_id::REQUEST_ID,
};
use serde_json::json;
use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    time::Duration,
};
use tokio::task::spawn_blocking;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) async fn check(config: &Config) -> Vec<Finding> {
    // A request that is served, and leaves no error in the log. Over TLS none is sent.
    let alias = config.accounts.keys().next();
    let path = alias.map(|alias| format!("/a/{alias}/auth/o2/token"));
    let path = path.unwrap_or_else(|| "/.well-known/adsproxy".to_owned());
    let path = config.listen.tls.is_none().then_some(path);
    let listen = &config.listen;
    let livez = Some("/livez".to_owned());
    let others = [
        ("listen.admin", listen.admin.clone()),
        ("listen.health", listen.health.clone()),
        ("listen.public", listen.public.clone()),
    ];
    let others = others.into_iter().filter_map(|(key, at)| Some((key, at?, livez.clone())));
    let proxy = listen.proxy.iter().map(|at| ("listen.proxy", at.clone(), path.clone()));
    let checks = proxy.chain(others).map(|(key, address, path)| {
        spawn_blocking(move || {
            vec![match address {
                ListenAddress::Tcp(address) => port(key, address, path.as_deref()),
                ListenAddress::Unix(path) => {
                    let what = format!("{key} unix:{}", path.display());
                    writable("port", &what, path.parent().unwrap_or(Path::new("/")))
                }
                ListenAddress::Inherited(_) => {
                    Finding::ok("port", format!("{key} {address}: the service manager opens it"))
                }
            }]
        })
    });
    joined(checks.collect()).await
}

/// Whether adsproxy listens at `address`: its responses have a request id.
fn is_ours(address: SocketAddr, path: &str) -> bool {
    let request = match path.ends_with("token") {
        true => AdminRequest::post(path, &json!({})),
        false => AdminRequest::get(path),
    };
    let response = Server::Listener(address, None).send(request);
    response.is_ok_and(|response| response.headers.contains_key(&REQUEST_ID))
}

fn port(key: &str, address: SocketAddr, path: Option<&str>) -> Finding {
    let (at, port) = (format!("{key} {address}"), address.port());
    let taken =
        format!("end it (`ss -ltnp 'sport = :{port}'` names it), or choose another port for {key}");
    if port == 0 {
        return Finding::ok("port", format!("{at}: any free one"));
    }
    if TcpStream::connect_timeout(&reachable(address), CONNECT_TIMEOUT).is_ok() {
        return match path.map(|path| is_ours(address, path)) {
            Some(true) => Finding::ok("port", format!("{at}: adsproxy is running")),
            None => Finding::ok("port", format!("{at}: in use; over TLS it is not known by what")),
            Some(false) => {
                Finding::error("port", format!("{at} is in use by another program"), taken)
            }
        };
    }
    // Nothing listens that this could disturb.
    let Err(error) = TcpListener::bind(address) else {
        return Finding::ok("port", format!("{at}: free"));
    };
    let fix = match error.kind() {
        ErrorKind::PermissionDenied => format!("choose a port above 1023 for {key}"),
        ErrorKind::AddrNotAvailable => {
            format!("{} is no address of this machine: change {key}", address.ip())
        }
        _ => taken,
    };
    Finding::error("port", format!("{at} cannot be used: {error}"), fix)
}
