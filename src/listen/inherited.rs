//! Listening sockets that a service manager has opened and passed to this process (`LISTEN_FDS`), by
//! their names.
//!
//! A port below 1024 needs no privilege then, and no connection is refused while the server restarts.
//! Source: sd_listen_fds(3), systemd.socket(5).

use super::bind::{BindError, Bound};
use crate::config::{Config, ListenAddress};
use rustix::io::{FdFlags, fcntl_setfd};
use socket2::{Domain, Socket, Type};
use std::{
    io::{self, ErrorKind},
    mem,
    net::SocketAddr,
    os::fd::OwnedFd,
};

/// The name of a socket that was passed without one.
const NO_NAME: &str = "unknown";

/// Sockets that were passed and that no listener has taken yet.
#[derive(Debug, Default)]
pub struct InheritedSockets {
    sockets: Vec<(String, Bound)>,
    may_be_exposed: bool,
}

impl InheritedSockets {
    /// Takes over what was passed to this process: none if `LISTEN_PID` is another one. To be called
    /// once, before the process opens a file. Sockets beyond loopback are for listeners that ask their
    /// callers who they are, and for those that `config` leaves open.
    ///
    /// # Errors
    /// When a number is no open file, or a file no listening stream socket.
    pub fn of_process(config: &Config) -> Result<Self, BindError> {
        let passed = sd_listen_fds::get()
            .map_err(|error| BindError::new("LISTEN_FDS", io::Error::other(error)))?;
        let mut sockets = Vec::new();
        for (name, file) in passed {
            let name = name.unwrap_or_else(|| NO_NAME.to_owned());
            let socket = take_over(file.into_std());
            let socket = socket.map_err(|error| BindError::new(shown(&name), error))?;
            sockets.push((name, socket));
        }
        let may_be_exposed = config.has_callers() || config.listen.unsafe_allow_unauthenticated;
        Ok(Self { sockets, may_be_exposed })
    }

    /// The same sockets once more.
    pub fn try_clone(&self) -> io::Result<Self> {
        let sockets = self.sockets.iter();
        let sockets = sockets.map(|(name, socket)| Ok((name.clone(), socket.try_clone()?)));
        let sockets = sockets.collect::<io::Result<_>>()?;
        Ok(Self { sockets, may_be_exposed: self.may_be_exposed })
    }

    /// The sockets of `name`, for a listener that asks its callers who they are; at least one.
    ///
    /// # Errors
    /// When none of that name was passed, or one can be reached from other machines and may not.
    pub fn take(&mut self, name: &str) -> io::Result<Vec<Bound>> {
        let found = self.take_any(name)?;
        if let Some(address) =
            found.iter().find_map(Bound::exposed).filter(|_| !self.may_be_exposed)
        {
            let text = format!(
                "{address} can be reached from other machines, and callers are not authenticated: add \
                 [[callers]] (`adsproxy caller add NAME` prints an entry)"
            );
            return Err(io::Error::new(ErrorKind::InvalidInput, text));
        }
        Ok(found)
    }

    /// The sockets of `name`, for a listener that may have any address; at least one.
    ///
    /// # Errors
    /// When none of that name was passed.
    pub fn take_any(&mut self, name: &str) -> io::Result<Vec<Bound>> {
        let all = mem::take(&mut self.sockets).into_iter();
        let (found, others): (Vec<_>, _) = all.partition(|(passed, _)| passed == name);
        self.sockets = others;
        if found.is_empty() {
            return Err(io::Error::new(ErrorKind::NotFound, self.nothing_of(name)));
        }
        Ok(found.into_iter().map(|(_, socket)| socket).collect())
    }

    fn nothing_of(&self, name: &str) -> String {
        let advice = format!("the socket unit names it with FileDescriptorName={name}");
        match self.sockets.as_slice() {
            [] => format!("no socket was passed (LISTEN_FDS); {advice}"),
            passed => {
                let names: Vec<&str> = passed.iter().map(|(name, _)| name.as_str()).collect();
                format!("no socket of this name was passed, only {}; {advice}", names.join(", "))
            }
        }
    }

    /// Makes sure that every socket has a listener.
    ///
    /// # Errors
    /// When one has none: who connects to it would wait for ever.
    pub fn finish(self) -> Result<(), BindError> {
        let Some((name, _)) = self.sockets.first() else { return Ok(()) };
        let advice = format!(
            "this socket was passed (LISTEN_FDS), and no listener takes it: add \"{}\" to \
             listen.proxy, listen.admin, listen.public or listen.health",
            shown(name)
        );
        Err(BindError::new(shown(name), io::Error::new(ErrorKind::InvalidInput, advice)))
    }
}

fn shown(name: &str) -> ListenAddress {
    ListenAddress::Inherited(name.to_owned())
}

/// Checks a file that was passed, and keeps programs that we start from inheriting it.
fn take_over(file: OwnedFd) -> io::Result<Bound> {
    if let Err(error) = fcntl_setfd(&file, FdFlags::CLOEXEC) {
        // It is none: to close its number could close another file later.
        mem::forget(file);
        return Err(error.into());
    }
    let socket = Socket::from(file);
    let is_listening = socket.r#type()? == Type::STREAM && socket.is_listener()?;
    let domain = socket.local_addr()?.domain();
    socket.set_nonblocking(true)?;
    match domain {
        Domain::UNIX if is_listening => Ok(Bound::Unix(socket.into())),
        Domain::IPV4 | Domain::IPV6 if is_listening => Ok(Bound::Tcp(socket.into())),
        _ => {
            let text = "is no listening stream socket: the socket unit needs ListenStream= and no \
                        Accept=yes";
            Err(io::Error::new(ErrorKind::InvalidInput, text))
        }
    }
}

impl Bound {
    /// Its address; none for a Unix socket without a path.
    pub fn address(&self) -> Option<ListenAddress> {
        match self {
            Self::Tcp(tcp) => tcp.local_addr().ok().map(ListenAddress::Tcp),
            Self::Unix(unix) => {
                let address = unix.local_addr().ok()?;
                address.as_pathname().map(|path| ListenAddress::Unix(path.to_owned()))
            }
        }
    }

    /// Its address, if other machines can reach it.
    fn exposed(&self) -> Option<SocketAddr> {
        let Self::Tcp(tcp) = self else { return None };
        tcp.local_addr().ok().filter(|address| !address.ip().to_canonical().is_loopback())
    }

    /// The same socket for another thread.
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Tcp(tcp) => tcp.try_clone().map(Self::Tcp),
            Self::Unix(unix) => unix.try_clone().map(Self::Unix),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        net::{TcpListener, TcpStream, UdpSocket},
        os::unix::net::UnixListener,
    };

    fn passed(names: &[&str]) -> InheritedSockets {
        let socket = || take_over(TcpListener::bind("127.0.0.1:0").unwrap().into()).unwrap();
        let sockets = names.iter().map(|name| ((*name).to_owned(), socket())).collect();
        InheritedSockets { sockets, may_be_exposed: false }
    }

    #[test]
    fn sockets_are_taken_by_name_and_each_must_be() {
        let mut sockets = passed(&["web", "admin", "web"]);
        assert_eq!(sockets.take("web").unwrap().len(), 2);
        let error = sockets.take("web").unwrap_err().to_string();
        assert!(error.contains("only admin; "), "{error}");
        let error = passed(&["admin"]).finish().unwrap_err().to_string();
        assert_eq!(error, "cannot listen on systemd:admin");
        assert_eq!(sockets.take("admin").unwrap().len(), 1);
        let error = sockets.take("admin").unwrap_err().to_string();
        assert!(error.contains("no socket was passed"), "{error}");
        sockets.finish().unwrap();
    }

    #[test]
    fn a_socket_beyond_loopback_is_for_callers_who_are_asked() {
        let open = || take_over(TcpListener::bind("0.0.0.0:0").unwrap().into()).unwrap();
        for may_be_exposed in [false, true] {
            let sockets = ["web", "health"].map(|name| (name.to_owned(), open())).into();
            let mut sockets = InheritedSockets { sockets, may_be_exposed };
            let taken = sockets.take("web");
            assert_eq!(taken.is_ok(), may_be_exposed, "{taken:?}");
            assert_eq!(sockets.take_any("health").unwrap().len(), 1, "that is for any address");
        }
    }

    #[test]
    fn only_listening_stream_sockets_are_taken_over_and_not_inherited_further() {
        let directory = tempfile::tempdir().unwrap();
        let unix = UnixListener::bind(directory.path().join("s")).unwrap();
        let unix = take_over(unix.into()).unwrap();
        assert_eq!(unix.address(), Some(ListenAddress::Unix(directory.path().join("s"))));
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let connected = TcpStream::connect(tcp.local_addr().unwrap()).unwrap();
        fcntl_setfd(&tcp, FdFlags::empty()).unwrap();
        let Bound::Tcp(tcp) = take_over(tcp.into()).unwrap() else { panic!("TCP") };
        assert!(rustix::io::fcntl_getfd(&tcp).unwrap().contains(FdFlags::CLOEXEC));
        assert_eq!(tcp.accept().map(drop).map_err(|error| error.kind()), Ok(()));
        assert_eq!(tcp.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
        for other in [
            OwnedFd::from(connected),
            UdpSocket::bind("127.0.0.1:0").unwrap().into(),
            tempfile::tempfile().unwrap().into(),
        ] {
            assert!(take_over(other).is_err());
        }
    }
}
