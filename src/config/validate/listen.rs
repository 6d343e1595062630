//! How requests arrive: listeners, workers, accepted host names.

use super::Check;
use crate::config::{Guard, Listen, ListenTls, Proxy, ProxyAddress, file, secret_ref::Exposed};
use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    num::NonZeroUsize,
    path::PathBuf,
    thread,
};

const WORKERS_MAX: u64 = 1024;

/// The kernel's own limit for the path of a Unix socket.
const SOCKET_PATH_MAX: usize = 107;

impl Check<'_> {
    pub(super) fn listen(&mut self, file: &file::Listen) -> Option<Listen> {
        let mut proxy = Vec::new();
        for (index, text) in file.proxy.0.iter().enumerate() {
            let index = index.to_string();
            let key = ["listen", "proxy", index.as_str()];
            for address in self.proxy_address(&key, text) {
                if let ProxyAddress::Tcp(tcp) = address {
                    self.stay_private(&key, tcp, file.unsafe_allow_unauthenticated);
                }
                let is_any = matches!(address, ProxyAddress::Tcp(tcp) if tcp.port() == 0);
                if proxy.contains(&address) && !is_any {
                    self.fail(&key, format_args!("{text} is listed twice"));
                }
                proxy.push(address);
            }
        }
        if file.proxy.0.is_empty() {
            self.lacks(&["listen", "proxy"], "needs at least one address", None);
        }

        let admin = self.socket_address(&["listen", "admin"], &file.admin);
        if let Some(admin) = admin {
            self.stay_private(&["listen", "admin"], admin, file.unsafe_allow_unauthenticated);
        }
        let health = file.health.as_ref();
        let health = health.and_then(|text| self.socket_address(&["listen", "health"], text));
        self.no_port_twice(&proxy, admin, health);
        Some(Listen {
            proxy,
            admin: admin?,
            health,
            tls: file.tls.as_ref().and_then(|tls| self.listen_tls(tls)),
            unsafe_allow_unauthenticated: file.unsafe_allow_unauthenticated,
        })
    }

    /// The addresses alone, without the rules for listening on them.
    pub(super) fn proxy_addresses(&mut self, file: &file::Listen) -> Vec<ProxyAddress> {
        let addresses = file.proxy.0.iter().enumerate().flat_map(|(index, text)| {
            self.proxy_address(&["listen", "proxy", index.to_string().as_str()], text)
        });
        addresses.collect()
    }

    fn proxy_address(&mut self, key: &[&str], text: &str) -> Vec<ProxyAddress> {
        let Some(path) = text.strip_prefix("unix:") else {
            let first = self.socket_address(key, text);
            let second = first.filter(|address| is_localhost(text) && address.port() != 0);
            let second =
                second.map(|address| SocketAddr::from((Ipv6Addr::LOCALHOST, address.port())));
            let both = first.into_iter().chain(second.filter(|_| has_ipv6_loopback()));
            return both.map(ProxyAddress::Tcp).collect();
        };
        let path = self.path(key, path);
        if path.is_relative() {
            self.fail(key, "the path of a Unix socket must begin with / or ~");
        } else if path.as_os_str().len() > SOCKET_PATH_MAX {
            let message = format!("the path of a Unix socket has at most {SOCKET_PATH_MAX} bytes");
            self.fail(key, message);
        }
        vec![ProxyAddress::Unix(path)]
    }

    pub(super) fn socket_address(&mut self, key: &[&str], text: &str) -> Option<SocketAddr> {
        let port = text.strip_prefix("localhost:").and_then(|port| port.parse::<u16>().ok());
        let localhost = port.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let address = localhost.or_else(|| text.parse().ok());
        if address.is_none() {
            let unix = if key[1] == "proxy" { " or unix:/path" } else { "" };
            let message = format!("{text:?} is no address such as localhost:8787, [::]:8787{unix}");
            self.fail(key, message);
        }
        address
    }

    /// A caller that reaches these listeners uses the advertisers' grants.
    fn stay_private(&mut self, key: &[&str], address: SocketAddr, allowed: bool) {
        if address.ip().to_canonical().is_loopback() {
            return;
        }
        let message = format!(
            "{address} can be reached from other machines, and callers are not authenticated"
        );
        if allowed {
            return self.warn(key, message);
        }
        let help = "listen on 127.0.0.1, or, if something else keeps strangers out, add:\n\
                    [listen]\n\
                    unsafe_allow_unauthenticated = true\n\
                    [guard]\n\
                    allowed_hosts = [\"name.that.callers.use\"]";
        self.fail_with(key, message, Some(help.to_owned()));
    }

    fn no_port_twice(
        &mut self,
        proxy: &[ProxyAddress],
        admin: Option<SocketAddr>,
        health: Option<SocketAddr>,
    ) {
        let is_proxy = |address: SocketAddr| {
            address.port() != 0 && proxy.contains(&ProxyAddress::Tcp(address))
        };
        if admin.is_some_and(is_proxy) {
            self.fail(&["listen", "admin"], "is an address of listen.proxy too");
        }
        if health.is_some_and(is_proxy) {
            self.fail(&["listen", "health"], "is an address of listen.proxy too");
        }
        if health.is_some_and(|address| address.port() != 0 && admin == health) {
            self.fail(&["listen", "health"], "is the address of listen.admin too");
        }
    }

    fn listen_tls(&mut self, file: &file::ListenTls) -> Option<ListenTls> {
        let mut path = |name: &str, text: &Option<String>| -> Option<PathBuf> {
            let key = ["listen", "tls", name];
            if text.is_none() {
                let message = "is missing: TLS needs a certificate and its private key";
                self.lacks(&key, message, None);
            }
            text.as_ref().map(|text| self.readable(&key, text))
        };
        let cert_file = path("cert_file", &file.cert_file);
        let key_file = path("key_file", &file.key_file)?;
        let metadata = std::fs::metadata(&key_file).ok();
        if let Some(exposed) = metadata.and_then(|metadata| Exposed::judge(&key_file, &metadata)) {
            self.warn(&["listen", "tls", "key_file"], exposed);
        }
        Some(ListenTls { cert_file: cert_file?, key_file })
    }

    pub(super) fn proxy(&mut self, file: &file::Proxy) -> Proxy {
        let workers = self.count(&["proxy", "workers"], file.workers, 0..=WORKERS_MAX);
        let default_account = file.default_account.as_ref().and_then(|alias| {
            let parsed = alias.parse();
            if let Err(error) = &parsed {
                self.fail(&["proxy", "default_account"], format_args!("{alias:?}: {error}"));
            }
            parsed.ok()
        });
        Proxy {
            workers: match workers {
                0 => thread::available_parallelism().map_or(1, NonZeroUsize::get),
                some => some,
            },
            default_account,
            drain_timeout: file.drain_timeout_secs.0,
        }
    }

    pub(super) fn guard(&mut self, file: &file::Guard) -> Guard {
        for (index, host) in file.allowed_hosts.0.iter().enumerate() {
            let key = ["guard", "allowed_hosts", &index.to_string()];
            let authority = host.parse::<http::uri::Authority>();
            if host.contains('*') {
                self.fail(&key, format_args!("{host:?}: there are no patterns, list every host"));
            } else if !authority.is_ok_and(|authority| authority.host() == host) {
                let message =
                    format!("{host:?} is no host name: write it without scheme, port and path");
                self.fail(&key, message);
            }
        }
        let mut allowed_origins = Vec::new();
        for (index, text) in file.allowed_origins.0.iter().enumerate() {
            match parse_origin(text) {
                Ok(origin) => allowed_origins.push(origin),
                Err(message) => {
                    let key = ["guard", "allowed_origins", &index.to_string()];
                    self.fail(&key, format_args!("{text:?} {message}"));
                }
            }
        }
        // As the guard compares them.
        let hosts = file.allowed_hosts.0.iter().map(|host| host.to_ascii_lowercase());
        Guard { allowed_hosts: hosts.collect(), allowed_origins }
    }
}

fn is_localhost(text: &str) -> bool {
    text.starts_with("localhost:")
}

/// Says whether this machine has `::1`, which containers often lack.
fn has_ipv6_loopback() -> bool {
    UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

/// `text` as a browser sends it: lower case, without the default port.
fn parse_origin(text: &str) -> Result<String, &'static str> {
    let text = text.to_ascii_lowercase();
    let (rest, default_port) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
        (Some(rest), _) => (rest, ":443"),
        (_, Some(rest)) => (rest, ":80"),
        _ => return Err("is no origin such as https://app.example.com"),
    };
    if rest.contains('*') {
        return Err("is a pattern: list every origin");
    }
    match rest.parse::<http::uri::Authority>() {
        Ok(authority) if !authority.as_str().contains('@') && !authority.host().is_empty() => {
            Ok(text.strip_suffix(default_port).unwrap_or(&text).to_owned())
        }
        _ => Err("is no origin: write scheme, host and port, without a path"),
    }
}
