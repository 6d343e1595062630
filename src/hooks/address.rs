//! Which addresses a webhook may go to: those that the Internet routes, unless the configuration allows more.
//!
//! The check is made where the connection is made, on the very addresses it will use: a name is
//! resolved once, here, so the address that is checked is the one that is connected to.
//! What slips through this list would let a chosen receiver reach the cloud's metadata
//! service, the admin listener or other machines of the network.
//!
//! Source: the IANA special-purpose address registries (read 2026-11-21).

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::Arc,
    time::Duration,
};
use tokio::time::timeout;

/// A machine behind an egress proxy may have no name server that responds.
const PROXIED_LOOKUP_TIMEOUT: Duration = Duration::from_secs(1);

/// Asks for the addresses of a name.
pub(super) type Lookup = Arc<
    dyn Fn(String) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>> + Send + Sync,
>;

/// Every address of the receiver is one that a webhook may not go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "its address is a private one; set unsafe_allow_private_addresses = true if that is intended"
)]
pub struct PrivateAddress;

/// Says whether the Internet routes `address`.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    !matches!(
        address.octets(),
        // This network, private, shared (carrier NAT), loopback, link-local (metadata services).
        [0 | 10 | 127, ..] | [100, 64..=127, ..] | [169, 254, ..]
            | [172, 16..=31, ..] | [192, 168, ..]
            // Protocol assignments, documentation, 6to4 relays, benchmarks.
            | [192, 0, 0 | 2, _] | [192, 88, 99, _] | [198, 18..=19, ..]
            | [198, 51, 100, _] | [203, 0, 113, _]
            // Multicast, reserved, broadcast.
            | [224..=255, ..]
    )
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    match segments {
        // IPv4 in disguise: mapped, and what a NAT64 gateway will make of it.
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            is_public_v4(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)))
        }
        // Protocol assignments (Teredo among them), documentation, 6to4.
        [0x2001, second, ..] if second < 0x200 || second == 0xdb8 => false,
        [0x2002, ..] | [0x3fff, 0..=0xfff, ..] => false,
        // Everything else that is routed is global unicast.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

/// Resolves names for webhooks, and keeps to itself what they may not connect to.
#[derive(Clone)]
pub(super) struct Guarded {
    pub(super) lookup: Lookup,
    pub(super) allow_private: bool,
}

impl Guarded {
    /// Checks a host that this machine does not resolve: one that is an address already, or whose
    /// address an egress proxy will look up, as far as this machine knows it.
    pub(super) async fn check(&self, host: &str, is_proxied: bool) -> Result<(), PrivateAddress> {
        let found = match host.trim_start_matches('[').trim_end_matches(']').parse() {
            Ok(address) => vec![address],
            Err(_) if is_proxied => {
                let lookup = timeout(PROXIED_LOOKUP_TIMEOUT, (self.lookup)(host.to_owned()));
                lookup.await.ok().and_then(Result::ok).unwrap_or_default()
            }
            Err(_) => return Ok(()),
        };
        let is_allowed = |&address| self.allow_private || is_public(address);
        if found.is_empty() || found.iter().any(is_allowed) { Ok(()) } else { Err(PrivateAddress) }
    }
}

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let Self { lookup, allow_private } = self.clone();
        Box::pin(async move {
            let mut found = lookup(name.as_str().to_owned()).await?;
            found.retain(|address| allow_private || is_public(*address));
            if found.is_empty() {
                return Err(PrivateAddress.into());
            }
            let addresses = found.into_iter().map(|address| SocketAddr::new(address, 0));
            Ok(Box::new(addresses) as Addrs)
        })
    }
}

/// The machine's own resolver.
pub(super) fn system() -> Lookup {
    Arc::new(|name| {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name, 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_routed_is_not_public() {
        for address in [
            "0.0.0.0",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::7f00:1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:10::1",
            "2001:1ff::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
            "3fff:fff::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_public(address.parse().expect(address)), "{address}");
        }
    }

    #[test]
    fn what_is_routed_is_public() {
        for address in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.1",
            "100.63.255.255",
            "100.128.0.1",
            "126.0.0.1",
            "128.0.0.1",
            "169.253.1.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "192.167.1.1",
            "198.17.0.1",
            "198.20.0.1",
            "223.255.255.255",
            "::ffff:1.1.1.1",
            "64:ff9b::101:101",
            "2001:200::1",
            "2001:4860:4860::8888",
            "2606:4700::1111",
            "2a00:1450::1",
            "3ffe::1",
        ] {
            assert!(is_public(address.parse().expect(address)), "{address}");
        }
    }

    #[tokio::test]
    async fn an_address_for_a_name_is_checked_too() {
        let guarded = |allow_private| Guarded { lookup: system(), allow_private };
        for (host, checked) in [
            ("127.0.0.1", Err(PrivateAddress)),
            ("[::1]", Err(PrivateAddress)),
            ("[::ffff:10.0.0.1]", Err(PrivateAddress)),
            ("169.254.169.254", Err(PrivateAddress)),
            ("1.1.1.1", Ok(())),
            ("[2606:4700::1111]", Ok(())),
            ("example.com", Ok(())),
        ] {
            for is_proxied in [false, host != "example.com"] {
                assert_eq!(guarded(false).check(host, is_proxied).await, checked, "{host}");
                assert_eq!(guarded(true).check(host, is_proxied).await, Ok(()), "{host}");
            }
        }
    }

    #[tokio::test]
    async fn a_name_that_is_known_as_private_is_not_for_an_egress_proxy_either() {
        let guarded = |found: Option<&'static str>, allow_private| {
            let lookup: Lookup = Arc::new(move |_| {
                let found = found.map(|text| vec![text.parse().unwrap()]);
                Box::pin(async move { found.ok_or_else(|| io::ErrorKind::NotFound.into()) })
            });
            Guarded { lookup, allow_private }
        };
        for (found, allow_private, expected) in [
            (Some("169.254.169.254"), false, Err(PrivateAddress)),
            (Some("169.254.169.254"), true, Ok(())),
            (Some("1.1.1.1"), false, Ok(())),
            // Only the proxy knows it.
            (None, false, Ok(())),
        ] {
            let checked = guarded(found, allow_private).check("receiver.example", true).await;
            assert_eq!(checked, expected, "{found:?}");
        }
    }

    #[tokio::test]
    async fn only_public_addresses_of_a_name_are_used() {
        let addresses = |found: &'static [&'static str], allow_private| async move {
            let found: Vec<IpAddr> = found.iter().map(|text| text.parse().unwrap()).collect();
            let lookup: Lookup = Arc::new(move |_| {
                let found = found.clone();
                Box::pin(async move { Ok(found) })
            });
            let name = "receiver.example".parse().unwrap();
            let found = Guarded { lookup, allow_private }.resolve(name).await;
            found.map(|all| all.map(|address| address.ip().to_string()).collect::<Vec<_>>()).ok()
        };
        assert_eq!(addresses(&["10.0.0.1", "1.1.1.1"], false).await.unwrap(), ["1.1.1.1"]);
        assert!(addresses(&["10.0.0.1", "::1"], false).await.is_none());
        assert!(addresses(&[], false).await.is_none());
        assert_eq!(addresses(&["10.0.0.1"], true).await.unwrap(), ["10.0.0.1"]);
    }
}
