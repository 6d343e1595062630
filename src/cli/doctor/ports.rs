//! Who listens where this server wants to.

use super::Finding;
use crate::{
    cli::wire,
    config::{Config, ProxyAddress},
};
use serde_json::Value;
use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    time::Duration,
};
use tokio::task::JoinSet;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Something that only adsproxy answers, and how to recognise it.
#[derive(Debug, Clone, Copy)]
enum Surface {
    Proxy { tls: bool },
    Admin,
    Health,
}

impl Surface {
    fn key(self) -> &'static str {
        match self {
            Self::Proxy { .. } => "listen.proxy",
            Self::Admin => "listen.admin",
            Self::Health => "listen.health",
        }
    }

    /// Whether adsproxy answers there; none if that cannot be told.
    fn is_ours(self, address: SocketAddr) -> Option<bool> {
        let code = |body: &str| serde_json::from_str(body).map(|body: Value| body["code"].clone());
        match self {
            Self::Proxy { tls: true } => None,
            // No alias: refused before anything is forwarded.
            Self::Proxy { tls: false } => {
                let answer = wire::get(address, "/a/!/");
                Some(answer.is_ok_and(|(status, body)| {
                    status == 400 && code(&body).is_ok_and(|code| code == "bad_request")
                }))
            }
            Self::Admin | Self::Health => {
                let answer = wire::get(address, "/metrics");
                Some(answer.is_ok_and(|(_, body)| body.contains("adsproxy_build_info")))
            }
        }
    }
}

pub(super) async fn check(config: &Config) -> Vec<Finding> {
    let tls = config.listen.tls.is_some();
    let mut findings = Vec::new();
    let mut surfaces = Vec::new();
    for address in &config.listen.proxy {
        match address {
            ProxyAddress::Tcp(address) => surfaces.push((Surface::Proxy { tls }, *address)),
            ProxyAddress::Unix(path) => findings.push(socket(path)),
        }
    }
    surfaces.push((Surface::Admin, config.listen.admin));
    surfaces.extend(config.listen.health.map(|address| (Surface::Health, address)));
    let mut checks: JoinSet<(usize, Finding)> = JoinSet::new();
    for (place, (surface, address)) in surfaces.into_iter().enumerate() {
        checks.spawn_blocking(move || (place, port(surface, address)));
    }
    let mut ports = checks.join_all().await;
    ports.sort_by_key(|(place, _)| *place);
    findings.extend(ports.into_iter().map(|(_, finding)| finding));
    findings
}

fn port(surface: Surface, address: SocketAddr) -> Finding {
    let key = surface.key();
    if address.port() == 0 {
        return Finding::ok("port", format!("{key} {address}: any free one"));
    }
    if TcpStream::connect_timeout(&wire::reachable(address), CONNECT_TIMEOUT).is_ok() {
        return match surface.is_ours(address) {
            Some(true) => Finding::ok("port", format!("{key} {address}: adsproxy is running")),
            None => {
                let text = format!("{key} {address}: in use; over TLS it cannot be told by whom");
                Finding::ok("port", text)
            }
            Some(false) => {
                let text = format!("{key} {address} is in use by another program");
                Finding::error("port", text).mend(taken(key, address))
            }
        };
    }
    // Nobody is there to be disturbed.
    match TcpListener::bind(address) {
        Ok(_) => Finding::ok("port", format!("{key} {address}: free")),
        Err(error) => {
            let mend = match error.kind() {
                ErrorKind::PermissionDenied => format!("choose a port above 1023 for {key}"),
                ErrorKind::AddrNotAvailable => {
                    format!("{} is no address of this machine: change {key}", address.ip())
                }
                _ => taken(key, address),
            };
            Finding::error("port", format!("{key} {address} cannot be used: {error}")).mend(mend)
        }
    }
}

fn taken(key: &str, address: SocketAddr) -> String {
    let port = address.port();
    format!("end it (`ss -ltnp 'sport = :{port}'` names it), or choose another port for {key}")
}

fn socket(path: &Path) -> Finding {
    let shown = path.display();
    let directory = path.parent().unwrap_or(Path::new("/"));
    if rustix::fs::access(directory, rustix::fs::Access::WRITE_OK).is_ok() {
        return Finding::ok(
            "port",
            format!("listen.proxy unix:{shown}: its directory is writable"),
        );
    }
    let directory = directory.display();
    Finding::error("port", format!("listen.proxy unix:{shown}: {directory} cannot be written"))
        .mend(format!("make {directory} for the user that runs adsproxy, or change listen.proxy"))
}
