//! Who may change the directory of a store, and what is in it.

use crate::{
    durable_file,
    trusted_path::{self, UntrustedPath},
};
use std::{
    fs::{self, Metadata},
    os::unix::fs::MetadataExt as _,
    path::Path,
};

/// Checks that other users can change neither the directory nor what is in it. Root may work on the
/// store of a service: what it writes belongs to that service's user.
pub(super) fn check_trust(directory: &Path) -> Result<(), UntrustedPath> {
    let found = fs::metadata(directory).ok();
    let owner = found.as_ref().map_or(0, Metadata::uid);
    if owner == 0 || !rustix::process::geteuid().is_root() {
        trusted_path::verify(directory)?;
    } else {
        let real = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
        trusted_path::verify(durable_file::parent(&real))?;
    }
    let inside = fs::read_dir(directory).into_iter().flatten().flatten();
    let inside = inside.filter_map(|entry| Some((entry.path(), entry.metadata().ok()?)));
    let itself = found.into_iter().map(|found| (directory.to_owned(), found));
    for (path, found) in itself.chain(inside) {
        if found.is_symlink() && path.is_dir() {
            return Err(UntrustedPath::SymbolicLink { path });
        }
        if !found.is_dir() {
            continue;
        }
        let mode = found.mode() & 0o7777;
        let user = rustix::process::geteuid().as_raw();
        if ![0, owner, user].contains(&found.uid()) {
            return Err(UntrustedPath::ForeignOwner { path, owner: found.uid(), user });
        }
        // A group counts below; above, `verify` has judged the directory itself.
        if mode & 0o002 != 0 && mode & 0o1000 == 0 {
            return Err(UntrustedPath::Writable { path, mode });
        }
    }
    Ok(())
}

/// Says whether `path` is a directory; a link to one is not followed. What root does in the store
/// of a service must not reach beyond it.
pub(super) fn is_directory(path: &Path) -> Result<bool, UntrustedPath> {
    let found = fs::symlink_metadata(path).ok();
    match found.is_some_and(|found| found.is_symlink()) {
        true => Err(UntrustedPath::SymbolicLink { path: path.to_owned() }),
        false => Ok(path.is_dir()),
    }
}
