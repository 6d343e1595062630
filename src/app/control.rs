//! The control socket: the admin API for commands. The user of the peer is the credential: the
//! server's own and root are served.

use crate::{
    admin::Admin,
    config::Config,
    error_chain::chain,
    inbound::peer::ConnectionInfo,
    listen::bind::{ShortPath, SocketFile, unix_listener},
};
use rustix::fs::Mode;
use std::{
    io::{self, ErrorKind},
    os::unix::{fs::MetadataExt, net::UnixListener as StdListener},
    path::{Path, PathBuf},
};
use tokio::net::UnixStream;
use tracing::{info, warn};

const FILE_NAME: &str = "control.sock";

/// A place where the socket may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ControlSocket {
    pub(crate) path: PathBuf,
    /// The directory belongs to one store; else to all programs of a user.
    pub(crate) is_of_store: bool,
}

/// Where the socket may be, best place first. `runtime` is `$XDG_RUNTIME_DIR`.
pub(crate) fn places(config: &Config, runtime: Option<&Path>) -> Vec<ControlSocket> {
    let store = config.store.directory();
    let runtime = runtime.filter(|path| path.is_absolute());
    let place = |directory: &Path, is_of_store| ControlSocket {
        path: directory.join(FILE_NAME),
        is_of_store,
    };
    let store = store.map(|directory| place(directory, true));
    store.into_iter().chain(runtime.map(|directory| place(directory, false))).collect()
}

/// Binds the first place that can be. Without one the server serves all the same: commands then
/// work beside it.
pub(super) fn bind(config: &Config) -> Option<(StdListener, SocketFile)> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    for ControlSocket { path, .. } in places(config, runtime.as_deref()) {
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

/// The service of a connection: none for a user who may not connect.
pub(super) fn service(admin: Admin) -> impl Fn(&ConnectionInfo) -> Option<Admin> {
    move |info| is_allowed(info).then(|| admin.of_connection(info))
}

/// Whether the user of a connection is the server's own or root.
pub(super) fn is_allowed(info: &ConnectionInfo) -> bool {
    let Some(uid) = info.peer.uid() else { return false };
    if !may_connect(uid) {
        warn!(uid, "a user who is neither the server's nor root was refused");
    }
    may_connect(uid)
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
        Ok(short) => UnixStream::connect(&short.path).await,
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
    // Only root works beside the service of another user: a directory that another user made in
    // the place of ours must not get what is meant for our server.
    let is_service = server == owner && rustix::process::geteuid().is_root();
    if !is_service && !may_connect(server) {
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
