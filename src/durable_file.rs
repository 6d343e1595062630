//! Private files that survive a crash: written whole or not at all, owned by the right user.
//!
//! What root writes gets the owner of the directory, so that the service of another user can still
//! read it. Knows no other module.

use rustix::{fs::fstat, process::geteuid};
use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, fchown},
    path::Path,
};

/// Syncs `file`, which must be `len` bytes long by then: a file system that took less than it said
/// must not cost the old file.
pub fn sync_whole(file: &File, len: usize) -> io::Result<()> {
    file.sync_all()?;
    match file.metadata()?.len() == len as u64 {
        true => Ok(()),
        false => Err(io::ErrorKind::WriteZero.into()),
    }
}

/// Opens a private file to read and write; makes it, mode 0600, if it is missing. Follows no link.
pub fn open_private(path: &Path) -> io::Result<File> {
    loop {
        match private().open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            opened => return opened,
        }
        match create_private(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            created => return created,
        }
    }
}

/// Makes a private file, which must not be there yet. The mode is set as the file is made: it is
/// never wider.
pub fn create_private(path: &Path) -> io::Result<File> {
    let file = private().create_new(true).open(path)?;
    inherit_owner(&file, path).inspect_err(|_| drop(fs::remove_file(path)))?;
    Ok(file)
}

/// Opens a file to read. Follows no link.
pub fn open_to_read(path: &Path) -> io::Result<File> {
    no_follow().open(path)
}

fn private() -> OpenOptions {
    let mut options = no_follow();
    options.write(true).mode(0o600);
    options
}

fn no_follow() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed());
    options
}

/// Makes the directory `path` and those missing above it, mode 0700, each durable before the next.
pub fn make_directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let above = parent(path);
    make_directory(above)?;
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {
            inherit_owner(&File::open(path)?, path)?;
            sync_directory(above)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Makes the names in `directory` durable.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// The directory that `path` is in.
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(above) if above != Path::new("") => above,
        Some(_) => Path::new("."),
        None => Path::new("/"),
    }
}

/// Says whether `path` still names this very file.
pub fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(there) => Ok((ours.dev(), ours.ino()) == (there.dev(), there.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Gives what root has just made at `path` to the owner of the directory around it.
pub fn inherit_owner(made: &File, path: &Path) -> io::Result<()> {
    if !geteuid().is_root() {
        return Ok(());
    }
    let above = fs::metadata(parent(path))?;
    match above.uid() == fstat(made)?.st_uid {
        true => Ok(()),
        false => fchown(made, Some(above.uid()), Some(above.gid())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_private_file_is_never_opened_through_a_link() {
        let dir = tempfile::tempdir().expect("a directory");
        let (target, link) = (dir.path().join("target"), dir.path().join("link"));
        fs::write(&target, "theirs").expect("written");
        symlink(&target, &link).expect("linked");
        open_private(&link).expect_err("a link");
        create_private(&link).expect_err("a link");
        open_private(&target).expect("a file");
    }

    #[test]
    fn what_root_makes_belongs_to_the_owner_of_the_directory() {
        if !geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().expect("a directory");
        std::os::unix::fs::chown(dir.path(), Some(12_345), Some(23_456)).expect("given");
        let deep = dir.path().join("a/b");
        make_directory(&deep).expect("made");
        open_private(&deep.join("c")).expect("made");
        for path in ["a", "a/b", "a/b/c"] {
            let found = fs::metadata(dir.path().join(path)).expect("there");
            assert_eq!((found.uid(), found.gid()), (12_345, 23_456), "{path}");
        }
    }
}
