//! Who can reach us: listeners, workers, accepted host names.

use super::Check;
use crate::config::{Listen, ListenTls, Proxy, ProxyAddress, file, secret_ref::Exposed};
use std::{net::SocketAddr, num::NonZeroUsize, path::PathBuf, thread};

const WORKERS_MAX: u64 = 1024;

/// The kernel's own limit for the path of a Unix socket.
const SOCKET_PATH_MAX: usize = 107;

impl Check<'_> {
    pub(super) fn listen(&mut self, file: &file::Listen) -> Option<Listen> {
        let mut proxy = Vec::new();
        for (index, text) in file.proxy.0.iter().enumerate() {
            let index = index.to_string();
            let key = ["listen", "proxy", index.as_str()];
            let Some(address) = self.proxy_address(&key, text) else { continue };
            if let ProxyAddress::Tcp(tcp) = address {
                self.stay_private(&key, tcp, file.unsafe_allow_unauthenticated);
            }
            if proxy.contains(&address) && !matches!(address, ProxyAddress::Tcp(a) if a.port() == 0)
            {
                self.fail(&key, format_args!("{text} is listed twice"));
            }
            proxy.push(address);
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

    /// The addresses alone, for those who only want to be told them.
    pub(super) fn proxy_addresses(&mut self, file: &file::Listen) -> Vec<ProxyAddress> {
        let addresses = file.proxy.0.iter().enumerate().filter_map(|(index, text)| {
            self.proxy_address(&["listen", "proxy", index.to_string().as_str()], text)
        });
        addresses.collect()
    }

    fn proxy_address(&mut self, key: &[&str], text: &str) -> Option<ProxyAddress> {
        let Some(path) = text.strip_prefix("unix:") else {
            return self.socket_address(key, text).map(ProxyAddress::Tcp);
        };
        let path = self.path(key, path);
        if path.is_relative() {
            self.fail(key, "the path of a Unix socket must begin with / or ~");
        } else if path.as_os_str().len() > SOCKET_PATH_MAX {
            let message = format!("the path of a Unix socket has at most {SOCKET_PATH_MAX} bytes");
            self.fail(key, message);
        }
        Some(ProxyAddress::Unix(path))
    }

    pub(super) fn socket_address(&mut self, key: &[&str], text: &str) -> Option<SocketAddr> {
        let address = text.parse().ok();
        if address.is_none() {
            let unix = if key[1] == "proxy" { " or unix:/path" } else { "" };
            let message =
                format!("{text:?} is no address such as 127.0.0.1:8787, [::1]:8787{unix}");
            self.fail(key, message);
        }
        address
    }

    /// Whoever reaches these listeners uses the advertisers' grants.
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

    /// Host names in the form the guard compares with: lower case and without a port.
    pub(super) fn allowed_hosts(&mut self, file: &file::Guard) -> Vec<String> {
        for (index, host) in file.allowed_hosts.0.iter().enumerate() {
            let index = index.to_string();
            let key = ["guard", "allowed_hosts", index.as_str()];
            let authority = host.parse::<http::uri::Authority>();
            if !authority.is_ok_and(|authority| authority.host() == host) {
                let message =
                    format!("{host:?} is no host name: write it without scheme, port and path");
                self.fail(&key, message);
            }
        }
        file.allowed_hosts.0.iter().map(|host| host.to_ascii_lowercase()).collect()
    }
}
