//! The other end of a connection.

use std::net::SocketAddr;

/// Who opened a connection, as the system says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// A TCP connection from this address.
    Tcp(SocketAddr),
    /// A connection to a Unix socket.
    Unix(UnixPeer),
}

/// A process as it was when it connected to a Unix socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnixPeer {
    /// Its id; none where the system does not say, as for a process in another namespace.
    pub pid: Option<i32>,
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
}

impl Peer {
    /// The user of a Unix socket's peer. The address of a TCP connection is no credential.
    #[must_use]
    pub fn uid(&self) -> Option<u32> {
        match self {
            Self::Tcp(_) => None,
            Self::Unix(peer) => Some(peer.uid),
        }
    }
}
