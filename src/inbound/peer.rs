//! The other end of a connection, and what is known of the connection before a request comes.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

/// What is known of a connection, for as long as it lives: what a service is handed beside each of
/// its requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionInfo {
    pub peer: Peer,
    /// Whether the listener has an address beyond loopback, whatever the peer's address is: a
    /// program in front of us connects from this machine on behalf of any other.
    pub is_exposed: bool,
    /// The certificate that the caller has proved to be its own.
    pub certificate: Option<Arc<ClientCertificate>>,
}

/// A certificate that a CA of `listen.tls.client_ca_file` has signed, read once per connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The subject alternative names: URIs as they are, DNS names in lower case.
    pub names: Box<[Box<str>]>,
    /// Its end, since the Unix epoch: a connection may outlive it.
    pub not_after: Duration,
}

impl ClientCertificate {
    /// Whether it has ended at `wall`, the time since the Unix epoch. Each request asks: the
    /// handshake was then.
    pub fn is_expired(&self, wall: Duration) -> bool {
        wall > self.not_after
    }
}

impl ConnectionInfo {
    pub fn new(peer: Peer, is_exposed: bool) -> Self {
        Self { peer, is_exposed, certificate: None }
    }
}

/// The peer of a connection, as the system reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    Tcp(SocketAddr),
    /// The user and group of a process as it was when it connected to a Unix socket.
    Unix {
        uid: u32,
        gid: u32,
    },
}

/// What counts as one peer where each has a share of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// An IPv4 address, or the network part of an IPv6 address: one host has all of its /64.
    Address(IpAddr),
    User(u32),
}

impl Peer {
    pub fn origin(&self) -> Origin {
        match self {
            Self::Unix { uid, .. } => Origin::User(*uid),
            Self::Tcp(address) => Origin::Address(match address.ip().to_canonical() {
                IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
                address @ IpAddr::V4(_) => address,
            }),
        }
    }

    /// The user of a Unix socket's peer. The address of a TCP connection is no credential.
    pub fn uid(&self) -> Option<u32> {
        if let Self::Unix { uid, .. } = self { Some(*uid) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_one_origin_whatever_addresses_it_takes() {
        let origin = |text: &str| Peer::Tcp(text.parse().expect("an address")).origin();
        assert_eq!(origin("10.0.0.1:1"), origin("10.0.0.1:2"));
        assert_eq!(origin("10.0.0.1:1"), origin("[::ffff:10.0.0.1]:1"), "over a dual-stack socket");
        assert_eq!(origin("[2001:db8::1]:1"), origin("[2001:db8::ffff:2]:1"));
        assert_ne!(origin("10.0.0.1:1"), origin("10.0.0.2:1"));
        assert_ne!(origin("[2001:db8::1]:1"), origin("[2001:db8:0:1::1]:1"));
    }
}
