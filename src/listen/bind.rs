//! Binds the data plane's addresses, once per worker.

use super::inherited::InheritedSockets;
use crate::config::ListenAddress;
use rustix::{
    fs::{FileType, FlockOperation, Mode, OFlags},
    io::Errno,
};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::{
    fmt, io,
    net::SocketAddr,
    os::unix::net::{UnixListener, UnixStream},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 4096;
/// How often a lock that another start holds is asked for, and the pause between.
const LOCK_ATTEMPTS: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(20);
/// The longest path of a Unix socket's address, bytes; the zero at its end not counted.
const ADDRESS_MAX_BYTES: usize = 107;

#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}{hint}")]
pub struct BindError {
    address: String,
    hint: &'static str,
    #[source]
    source: io::Error,
}

impl BindError {
    pub fn new(address: impl fmt::Display, source: io::Error) -> Self {
        let hint = match source.kind() {
            io::ErrorKind::AddrInUse => " (another program uses it: stop that, or choose another)",
            io::ErrorKind::PermissionDenied => " (ports below 1024 need a privilege)",
            _ => "",
        };
        Self { address: address.to_string(), hint, source }
    }
}

/// A bound socket of one worker.
#[derive(Debug)]
pub enum Bound {
    Tcp(std::net::TcpListener),
    Unix(UnixListener),
}

#[derive(Debug)]
pub struct Sockets {
    pub workers: Vec<Vec<Bound>>,
    /// `127.0.0.1:8787` or `unix:/path`, in the order of the configuration.
    pub addresses: Vec<String>,
    /// The files of the Unix sockets.
    pub files: Vec<SocketFile>,
}

/// The file of a Unix socket; removed when dropped.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode: a successor may have put its own socket there by then.
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            // It may be gone already; nothing is lost.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = std::fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

/// Binds `addresses`; sockets that were passed to the process are taken out of `inherited`.
pub fn bind(
    addresses: &[ListenAddress],
    workers: usize,
    inherited: &mut InheritedSockets,
) -> Result<Sockets, BindError> {
    let mut sockets = Sockets {
        workers: (0..workers).map(|_| Vec::new()).collect(),
        addresses: Vec::new(),
        files: Vec::new(),
    };
    for address in addresses {
        let bound = match address {
            ListenAddress::Tcp(address) => {
                tcp(*address, &mut sockets).map(|bound| vec![ListenAddress::Tcp(bound)])
            }
            ListenAddress::Unix(path) => unix(path, &mut sockets).map(|()| vec![address.clone()]),
            ListenAddress::Inherited(name) => {
                inherited.take(name).and_then(|passed| share(&passed, &mut sockets))
            }
        };
        let bound = bound.map_err(|error| BindError::new(address, error))?;
        sockets.addresses.extend(bound.iter().map(ListenAddress::to_string));
    }
    Ok(sockets)
}

/// One socket per worker; the kernel spreads connections over them.
fn tcp(address: SocketAddr, sockets: &mut Sockets) -> io::Result<SocketAddr> {
    // SO_REUSEPORT would let us share a port with an adsproxy that runs already, and half of the
    // requests would go there: a plain bind finds out.
    if address.port() != 0 {
        drop(listening(address, false)?);
    }
    let mut address = address;
    for worker in &mut sockets.workers {
        let listener: std::net::TcpListener = listening(address, true)?.into();
        // Port 0: the others take the port the first one got.
        address = listener.local_addr()?;
        worker.push(Bound::Tcp(listener));
    }
    Ok(address)
}

fn listening(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        // `[::]` serves IPv4 too, as users of Railway and Fly expect.
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::from(address))?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// One socket that all workers accept from.
fn unix(path: &Path, sockets: &mut Sockets) -> io::Result<()> {
    let (listener, file) = unix_listener(path, Mode::from_raw_mode(0o660))?;
    sockets.files.push(file);
    for worker in &mut sockets.workers {
        worker.push(Bound::Unix(listener.try_clone()?));
    }
    Ok(())
}

/// Sockets that all workers accept from. Their files are of who made them.
fn share(passed: &[Bound], sockets: &mut Sockets) -> io::Result<Vec<ListenAddress>> {
    for worker in &mut sockets.workers {
        for socket in passed {
            worker.push(socket.try_clone()?);
        }
    }
    Ok(passed.iter().filter_map(Bound::address).collect())
}

/// A socket at `path`, of `mode`, in place of one that no process listens on any more.
pub fn unix_listener(path: &Path, mode: Mode) -> io::Result<(UnixListener, SocketFile)> {
    let short = ShortPath::of(path)?;
    // Two that start at once must not each remove the other's socket as stale.
    let directory = open_directory(path)?;
    lock(&directory)?;
    remove_stale(path, &short)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // The file gets the mode of the socket, less the umask, which other threads share: so it is
    // the owner's alone until its mode is set, and takes no connection before it listens.
    rustix::fs::fchmod(&socket, Mode::from_raw_mode(0o600))?;
    socket.bind(&SockAddr::unix(&short.path)?)?;
    let file = SocketFile { path: path.to_owned(), identity: identity(path)? };
    rustix::fs::chmod(&short.path, mode)?;
    socket.set_nonblocking(true)?;
    socket.listen(BACKLOG)?;
    Ok((socket.into(), file))
}

/// Locks a directory for a start. A process that holds the lock for ever must not stop it.
fn lock(directory: &OwnedFd) -> io::Result<()> {
    for _ in 0..LOCK_ATTEMPTS {
        match rustix::fs::flock(directory, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => thread::sleep(LOCK_PAUSE),
            locked => return Ok(locked?),
        }
    }
    let text = "another process holds a lock (flock) on the directory of the socket";
    Err(io::Error::new(io::ErrorKind::WouldBlock, text))
}

/// The path of a socket, however long: an address has room for 107 bytes only.
#[derive(Debug)]
pub struct ShortPath {
    /// Valid as long as this value.
    pub path: PathBuf,
    /// Keeps the path valid.
    _directory: Option<OwnedFd>,
}

impl ShortPath {
    /// The same place by a path that fits an address.
    pub fn of(path: &Path) -> io::Result<Self> {
        if path.as_os_str().len() <= ADDRESS_MAX_BYTES {
            return Ok(Self { path: path.to_owned(), _directory: None });
        }
        let directory = open_directory(path)?;
        let name = path.file_name().unwrap_or_default();
        let short = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
        Ok(Self { path: short, _directory: Some(directory) })
    }
}

fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(directory.unwrap_or(Path::new(".")), flags, Mode::empty())?)
}

/// Removes a socket that no process listens on any more. Anything else at the path stays.
fn remove_stale(path: &Path, short: &ShortPath) -> io::Result<()> {
    let Ok(found) = rustix::fs::lstat(path) else { return Ok(()) };
    if FileType::from_raw_mode(found.st_mode) != FileType::Socket {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file at this path"));
    }
    match UnixStream::connect(&short.path) {
        Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_socket_has_its_mode_whatever_the_umask_and_the_umask_is_not_touched() {
        let directory = tempfile::tempdir().expect("a directory");
        for mode in [0o660, 0o600] {
            let path = directory.path().join(mode.to_string());
            let bound = unix_listener(&path, Mode::from_raw_mode(mode)).expect("a socket");
            let found = std::fs::metadata(&path).expect("a file").permissions().mode();
            assert_eq!(found & 0o777, mode);
            UnixStream::connect(&path).expect("it listens");
            drop(bound);
            assert!(!path.exists());
        }
        let code = include_str!("bind.rs").split("#[cfg(test)]").next().expect("code");
        assert!(!code.contains("umask("));
    }

    #[test]
    fn a_directory_that_another_process_keeps_locked_is_an_error_and_no_wait_for_ever() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("socket");
        let held = open_directory(&path).expect("a directory");
        rustix::fs::flock(&held, FlockOperation::LockExclusive).expect("a lock");
        let mode = Mode::from_raw_mode(0o600);
        let error = unix_listener(&path, mode).expect_err("it is locked");
        assert!(error.kind() == io::ErrorKind::WouldBlock && !path.exists(), "{error}");
        drop(held);
        unix_listener(&path, mode).expect("the lock is gone");
    }
}
