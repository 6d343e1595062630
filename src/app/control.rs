//! The control socket: the admin API for commands. The user of the peer is the credential: the
//! server's own and root are served.

use crate::{
    admin::Admin,
    config::{Config, StoreKind},
    error_chain::chain,
    listen::bind::{ShortPath, SocketFile, unix_listener},
};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::fs::Mode;
use std::{
    io::{self, ErrorKind},
    os::unix::{fs::MetadataExt, net::UnixListener as StdListener},
    path::{Path, PathBuf},
    pin::pin,
    time::Duration,
};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::watch,
    task::JoinSet,
    time::sleep,
};
use tracing::{info, warn};

const FILE_NAME: &str = "control.sock";
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause after a failed accept, so that a lack of descriptors does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A place where the socket may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) path: PathBuf,
    /// The directory belongs to one store; else to all programs of a user.
    pub(crate) is_of_store: bool,
}

/// Where the socket may be, best place first. `runtime` is `$XDG_RUNTIME_DIR`.
pub(crate) fn places(config: &Config, runtime: Option<&Path>) -> Vec<Place> {
    let store = (config.store.kind != StoreKind::Memory).then_some(config.store.path.as_path());
    let runtime = runtime.filter(|path| path.is_absolute());
    let place =
        |directory: &Path, is_of_store| Place { path: directory.join(FILE_NAME), is_of_store };
    let store = store.map(|directory| place(directory, true));
    store.into_iter().chain(runtime.map(|directory| place(directory, false))).collect()
}

/// `$XDG_RUNTIME_DIR` of this process.
pub(crate) fn runtime_directory() -> Option<PathBuf> {
    std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from)
}

/// Binds the first place that can be. Without one the server serves all the same: commands then
/// work beside it.
pub(super) fn bind(config: &Config) -> Option<(StdListener, SocketFile)> {
    for Place { path, .. } in places(config, runtime_directory().as_deref()) {
        let shown = path.display();
        match unix_listener(&path, Mode::from_raw_mode(0o600)) {
            Ok(bound) => {
                info!(path = %shown, "commands reach this server by its control socket");
                return Some(bound);
            }
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                info!(path = %shown, "another server of this store has the control socket");
                return None;
            }
            Err(error) => warn!(path = %shown, error = %chain(&error), "no control socket here"),
        }
    }
    None
}

/// Serves until `stop` is true; requests under way are finished.
pub(super) async fn serve(listener: UnixListener, admin: Admin, mut stop: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stopped(&mut stop) => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted.and_then(|(stream, _)| Ok((stream.peer_cred()?.uid(), stream))) {
            Ok((uid, stream)) if may_connect(uid) => {
                let (service, stop) = (admin.of_user(uid), stop.clone());
                connections.spawn(connection(stream, service, stop));
            }
            Ok((uid, _)) => warn!(uid, "a user who is neither the server's nor root was refused"),
            Err(error) => {
                warn!(%error, "a connection to the control socket failed");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    while connections.join_next().await.is_some() {}
}

async fn connection(stream: UnixStream, service: Admin, mut stop: watch::Receiver<bool>) {
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service)
    );
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the control socket broke");
    }
}

/// Returns once `stop` is true or its sender is gone.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // The guard inside must not live across an await.
    let _stop = stop.wait_for(|stop| *stop).await.is_ok();
}

fn may_connect(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}

/// Connects a command to the server whose socket is at `path`; none if no server listens there.
///
/// # Errors
/// When a server listens there that this user may not use, or that is not of a user who may
/// write in the directory.
pub(crate) async fn connect(path: &Path) -> io::Result<Option<UnixStream>> {
    let stream = match ShortPath::of(path) {
        Ok(short) => UnixStream::connect(short.path()).await,
        Err(error) => Err(error),
    };
    let stream = match stream {
        Ok(stream) => stream,
        Err(error)
            if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let owner = std::fs::metadata(path.parent().unwrap_or(Path::new(".")))?.uid();
    let server = stream.peer_cred()?.uid();
    if server != owner && !may_connect(server) {
        let why = "another user than the owner of the directory listens there";
        return Err(io::Error::new(ErrorKind::PermissionDenied, why));
    }
    Ok(Some(stream))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const OWNER_ONLY: Mode = Mode::from_raw_mode(0o600);

    #[tokio::test]
    async fn the_socket_is_the_owners_alone_and_goes_with_the_server() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE_NAME);
        assert!(connect(&path).await.unwrap().is_none(), "no server yet");
        let (_listener, file) = unix_listener(&path, OWNER_ONLY).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert!(connect(&path).await.unwrap().is_some());
        drop(file);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_dead_servers_socket_is_replaced_and_a_live_ones_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE_NAME);
        let (listener, file) = unix_listener(&path, OWNER_ONLY).unwrap();
        let error = unix_listener(&path, OWNER_ONLY).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        std::mem::forget(file);
        drop(listener);
        assert!(path.exists() && connect(&path).await.unwrap().is_none(), "as after a kill -9");
        let (_listener, _file) = unix_listener(&path, OWNER_ONLY).unwrap();
        assert!(connect(&path).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn a_directory_of_any_depth_will_do() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("d".repeat(200)).join("e".repeat(200));
        std::fs::create_dir_all(&deep).unwrap();
        let path = deep.join(FILE_NAME);
        let (_listener, file) = unix_listener(&path, OWNER_ONLY).unwrap();
        assert!(connect(&path).await.unwrap().is_some());
        drop(file);
        assert!(!path.exists());
    }
}
