//! Who listens where this server wants to.

use super::Finding;
use crate::{
    cli::wire::{self, Ask, Server},
    config::{Config, ProxyAddress},
};
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

    /// Whether adsproxy listens there; none if that cannot be known. `alias` is an account of its
    /// configuration: a request for its placeholder token is served, and leaves no error in its log.
    fn is_ours(self, address: SocketAddr, alias: Option<&str>) -> Option<bool> {
        let ask = |ask: &Ask<'_>| {
            let answer = wire::send(&Server::Listener(address), ask).ok()?;
            Some((answer.json(), answer.body))
        };
        match self {
            Self::Proxy { tls: true } => None,
            Self::Proxy { tls: false } => {
                let path = match alias {
                    Some(alias) => format!("/a/{alias}/auth/o2/token"),
                    None => "/.well-known/adsproxy".to_owned(),
                };
                let json = alias.map(|_| "{}".to_owned());
                let answer = ask(&Ask { json, path: &path, ..Ask::default() });
                Some(answer.is_some_and(|(body, _)| match alias {
                    // A server with another configuration does not know the alias.
                    Some(alias) => {
                        body["access_token"] == format!("Atza|{alias}")
                            || body["error"] == "invalid_grant"
                    }
                    None => body["code"] == "not_found",
                }))
            }
            Self::Admin | Self::Health => {
                let answer = ask(&Ask { path: "/metrics", ..Ask::default() });
                Some(answer.is_some_and(|(_, body)| body.expose().contains("adsproxy_build_info")))
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
    let alias = config.accounts.keys().next().map(ToString::to_string);
    let mut checks: JoinSet<(usize, Finding)> = JoinSet::new();
    for (place, (surface, address)) in surfaces.into_iter().enumerate() {
        let alias = alias.clone();
        checks.spawn_blocking(move || (place, port(surface, address, alias.as_deref())));
    }
    let mut ports = checks.join_all().await;
    ports.sort_by_key(|(place, _)| *place);
    findings.extend(ports.into_iter().map(|(_, finding)| finding));
    findings
}

fn port(surface: Surface, address: SocketAddr, alias: Option<&str>) -> Finding {
    let key = surface.key();
    if address.port() == 0 {
        return Finding::ok("port", format!("{key} {address}: any free one"));
    }
    if TcpStream::connect_timeout(&wire::reachable(address), CONNECT_TIMEOUT).is_ok() {
        return match surface.is_ours(address, alias) {
            Some(true) => Finding::ok("port", format!("{key} {address}: adsproxy is running")),
            None => {
                let text = format!("{key} {address}: in use; over TLS it cannot be told by whom");
                Finding::ok("port", text)
            }
            Some(false) => {
                let text = format!("{key} {address} is in use by another program");
                Finding::error("port", text).fix(taken(key, address))
            }
        };
    }
    // Nobody is there to be disturbed.
    match TcpListener::bind(address) {
        Ok(_) => Finding::ok("port", format!("{key} {address}: free")),
        Err(error) => {
            let fix = match error.kind() {
                ErrorKind::PermissionDenied => format!("choose a port above 1023 for {key}"),
                ErrorKind::AddrNotAvailable => {
                    format!("{} is no address of this machine: change {key}", address.ip())
                }
                _ => taken(key, address),
            };
            Finding::error("port", format!("{key} {address} cannot be used: {error}")).fix(fix)
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
        .fix(format!("make {directory} for the user that runs adsproxy, or change listen.proxy"))
}
