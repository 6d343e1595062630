//! What listens where this server wants to.

use super::{Finding, joined, place::writable};
use crate::{
    cli::wire::{self, AdminRequest, Server},
    config::{Config, ProxyAddress},
};
use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    time::Duration,
};
use tokio::task::spawn_blocking;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How adsproxy is recognised at an address.
#[derive(Clone)]
enum Sign {
    /// Over TLS it cannot be.
    None,
    /// By its response for the placeholder token of this alias: such a request is served, and
    /// leaves no error in the log.
    Placeholder(Option<String>),
    /// By its metrics.
    Metrics,
}

impl Sign {
    /// None if that cannot be known.
    fn is_at(&self, address: SocketAddr) -> Option<bool> {
        let alias = match self {
            Self::None => return None,
            Self::Placeholder(alias) => alias.as_deref(),
            Self::Metrics => None,
        };
        let path = match (self, alias) {
            (_, Some(alias)) => format!("/a/{alias}/auth/o2/token"),
            (Self::Metrics, None) => "/metrics".to_owned(),
            (_, None) => "/.well-known/adsproxy".to_owned(),
        };
        let request = match alias {
            Some(_) => AdminRequest::post(&path, &serde_json::json!({})),
            None => AdminRequest::get(&path),
        };
        let Ok(answer) = wire::send(&Server::Listener(address), &request) else {
            return Some(false);
        };
        let body = answer.json();
        Some(match (self, alias) {
            // A server with another configuration does not know the alias.
            (_, Some(alias)) => {
                body["access_token"] == format!("Atza|{alias}") || body["error"] == "invalid_grant"
            }
            (Self::Metrics, None) => answer.body.expose().contains("adsproxy_build_info"),
            (_, None) => body["code"] == "not_found",
        })
    }
}

pub(super) async fn check(config: &Config) -> Vec<Finding> {
    let alias = config.accounts.keys().next().map(ToString::to_string);
    let proxy = if config.listen.tls.is_some() { Sign::None } else { Sign::Placeholder(alias) };
    let mut findings = Vec::new();
    let mut listeners = Vec::new();
    for address in &config.listen.proxy {
        match address {
            ProxyAddress::Tcp(address) => listeners.push(("listen.proxy", *address, proxy.clone())),
            ProxyAddress::Unix(path) => {
                let what = format!("listen.proxy unix:{}", path.display());
                findings.push(writable("port", &what, path.parent().unwrap_or(Path::new("/"))));
            }
        }
    }
    listeners.push(("listen.admin", config.listen.admin, Sign::Metrics));
    listeners.extend(config.listen.health.map(|at| ("listen.health", at, Sign::Metrics)));
    let checks = listeners
        .into_iter()
        .map(|(key, address, sign)| spawn_blocking(move || vec![port(key, address, &sign)]));
    findings.extend(joined(checks.collect()).await);
    findings
}

fn port(key: &str, address: SocketAddr, sign: &Sign) -> Finding {
    let (at, port) = (format!("{key} {address}"), address.port());
    let taken =
        format!("end it (`ss -ltnp 'sport = :{port}'` names it), or choose another port for {key}");
    if port == 0 {
        return Finding::ok("port", format!("{at}: any free one"));
    }
    if TcpStream::connect_timeout(&wire::reachable(address), CONNECT_TIMEOUT).is_ok() {
        return match sign.is_at(address) {
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
