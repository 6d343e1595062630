//! The other end of a connection.

use std::net::{IpAddr, SocketAddr};

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
