//! Says whether another user could change what a path leads to, as ssh does for its own files:
//! every entry from `/` down belongs to us or root, and no other user may write it.
//!
//! A sticky directory such as `/tmp` passes: its entries are judged by their owners. In a container
//! the owner of a mount is trusted like root, who mounted it, and so is the pod's `fsGroup`.

use rustix::{
    fs::{FileType, RawMode, Stat},
    process::{getegid, geteuid, getgroups},
};
use std::{
    collections::VecDeque,
    ffi::OsString,
    fs, io,
    path::{Component, Path, PathBuf},
};

/// The kernel's own limit.
const SYMLINKS_MAX: u32 = 40;

/// FUSE in `statfs`: any user can mount one and show any owner in it.
const FUSE_MAGIC: i64 = 0x6573_5546;

const GROUP_WRITE: RawMode = 0o020;
const OTHERS_WRITE: RawMode = 0o002;
const STICKY: RawMode = 0o1000;

/// Why a path is not trusted.
#[derive(Debug, thiserror::Error)]
pub enum UntrustedPath {
    #[error("other users can change {path} (mode {mode:04o}): run `chmod go-w {path}`")]
    Writable { path: PathBuf, mode: u32 },
    #[error("{path} is a symbolic link, which is not followed: put a directory in its place")]
    SymbolicLink { path: PathBuf },
    #[error(
        "{path} belongs to user {owner}, and this is user {user}: {}",
        Platform::here().advice_for_owner(.path, *.owner, *.user)
    )]
    ForeignOwner { path: PathBuf, owner: u32, user: u32 },
}

/// Where this process runs: what to do about a file's mode or owner depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Platform {
    /// A host, or a container without a marker.
    Host,
    /// A Docker, Compose or Podman container.
    Container,
    /// A Kubernetes pod.
    Pod,
}

impl Platform {
    pub fn here() -> Self {
        let exists = |marker: &&str| Path::new(marker).exists();
        if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
            Self::Pod
        } else if ["/.dockerenv", "/run/.containerenv"].iter().any(exists) {
            Self::Container
        } else {
            Self::Host
        }
    }

    /// How to keep other users from reading the secret at `path`.
    pub fn advice_for_exposed(self, path: &Path) -> String {
        match self {
            Self::Pod => {
                "set `defaultMode: 0440` on the volume and `fsGroup` on the pod".to_owned()
            }
            Self::Container if path.starts_with("/run/secrets") => {
                "run the container as the owner of the file on the host (compose: `user: \"UID\"`) \
                 and `chmod 600` it there; in a swarm give the secret `uid` and `mode: 0400`"
                    .to_owned()
            }
            Self::Host | Self::Container => format!("run `chmod 600 {}`", path.display()),
        }
    }

    /// How `user` can read the file at `path`, which belongs to `owner`.
    pub fn advice_for_owner(self, path: &Path, owner: u32, user: u32) -> String {
        let path = path.display();
        match self {
            Self::Pod => "mount it as a volume of the pod, with `fsGroup` set".to_owned(),
            Self::Container => {
                format!("run the container as user {owner} (compose: `user: \"{owner}\"`)")
            }
            Self::Host => format!("run adsproxy as user {owner}, or `chown {user} {path}`"),
        }
    }
}

/// What to add to `error` where the owner of `path` is why it cannot be read; else nothing.
pub fn explain_denied(path: &Path, error: &io::Error) -> String {
    let found = rustix::fs::stat(path).ok();
    let found = found.filter(|_| error.kind() == io::ErrorKind::PermissionDenied);
    let user = geteuid().as_raw();
    let Some(found) = found.filter(|found| found.st_uid != user) else { return String::new() };
    let (owner, mode) = (found.st_uid, found.st_mode & 0o7777);
    let advice = Platform::here().advice_for_owner(path, owner, user);
    format!(" (it belongs to user {owner}, mode {mode:04o}, and this is user {user}: {advice})")
}

/// Checks that only this user, root and the owners that root trusts can change what `path` leads to.
///
/// What does not exist, or cannot be looked at, is no error here: opening it has the better one.
///
/// # Errors
/// The first entry on the way that another user can change.
pub fn verify(path: &Path) -> Result<(), UntrustedPath> {
    let Ok(path) = std::path::absolute(path) else { return Ok(()) };
    let mut walk = Walk { at: PathBuf::from("/"), trusted: vec![geteuid().as_raw(), 0], device: 0 };
    let mut rest: VecDeque<OsString> = components(&path).collect();
    let Ok(root) = rustix::fs::stat("/") else { return Ok(()) };
    walk.device = root.st_dev;
    walk.judge(&root)?;
    let mut symlinks = 0;
    while let Some(name) = rest.pop_front() {
        if name == ".." {
            walk.at.pop();
            continue;
        }
        walk.at.push(name);
        let Ok(found) = rustix::fs::lstat(&walk.at) else { return Ok(()) };
        walk.judge(&found)?;
        if FileType::from_raw_mode(found.st_mode) != FileType::Symlink {
            continue;
        }
        symlinks += 1;
        let Ok(target) = fs::read_link(&walk.at) else { return Ok(()) };
        if symlinks > SYMLINKS_MAX {
            return Ok(());
        }
        walk.at.pop();
        if target.is_absolute() {
            walk.at = PathBuf::from("/");
        }
        for name in components(&target).collect::<Vec<_>>().into_iter().rev() {
            rest.push_front(name);
        }
    }
    Ok(())
}

/// The names in `path`, `..` included.
fn components(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

/// How far a path was followed.
struct Walk {
    at: PathBuf,
    /// The users whose entries are accepted.
    trusted: Vec<u32>,
    /// The device of the entry before: another one begins a mount.
    device: u64,
}

impl Walk {
    fn judge(&mut self, found: &Stat) -> Result<(), UntrustedPath> {
        let (mode, kind) = (found.st_mode, FileType::from_raw_mode(found.st_mode));
        let is_mount = found.st_dev != self.device && kind != FileType::Symlink;
        self.device = found.st_dev;
        let root_mounted = is_mount && Platform::here() != Platform::Host && !is_fuse(&self.at);
        if root_mounted {
            self.trusted.push(found.st_uid);
        }
        if !self.trusted.contains(&found.st_uid) {
            return Err(UntrustedPath::ForeignOwner {
                path: self.at.clone(),
                owner: found.st_uid,
                user: geteuid().as_raw(),
            });
        }
        let is_open = match kind {
            // The mode of a symlink has no meaning, and a device keeps no data.
            FileType::Symlink | FileType::CharacterDevice => false,
            FileType::Directory if mode & STICKY != 0 => false,
            FileType::Directory if root_mounted => false,
            _ => {
                mode & OTHERS_WRITE != 0
                    || (mode & GROUP_WRITE != 0 && !is_private_group(found.st_gid, &self.at))
            }
        };
        if is_open {
            let mode = mode & 0o7777;
            return Err(UntrustedPath::Writable { path: self.at.clone(), mode });
        }
        Ok(())
    }
}

/// Says whether `group` has no other member: it is the one made with our user, and no access list
/// hides behind it; or a group of the pod (`fsGroup`), which the kubelet gives to volumes.
fn is_private_group(group: u32, path: &Path) -> bool {
    if Platform::here() != Platform::Host
        && getgroups().is_ok_and(|groups| groups.iter().any(|g| g.as_raw() == group))
    {
        return true;
    }
    let is_own = group == geteuid().as_raw() && group == getegid().as_raw();
    let has_members = |line: &str| {
        let mut fields = line.split(':').skip(2);
        fields.next() == Some(&group.to_string()) && fields.next().is_some_and(|m| !m.is_empty())
    };
    let list = fs::read_to_string("/etc/group").unwrap_or_default();
    let access_list =
        rustix::fs::getxattr(path, "system.posix_acl_access", &mut [0_u8; 0][..]).is_ok();
    is_own && !access_list && !list.lines().any(has_members)
}

fn is_fuse(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|system| system.f_type == FUSE_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{Gid, Uid, chown};
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// A directory with `sub/file`, both ours alone.
    fn tree() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let sub = directory.path().join("sub");
        fs::create_dir(&sub).unwrap();
        let file = sub.join("file");
        fs::write(&file, "x").unwrap();
        chmod(&file, 0o600);
        (directory, sub, file)
    }

    #[test]
    fn what_only_we_can_change_is_trusted() {
        let (_directory, sub, file) = tree();
        for mode in [0o400, 0o600, 0o644, 0o444, 0o664] {
            chmod(&file, mode);
            verify(&file).unwrap();
        }
        verify(&sub).unwrap();
        verify(&sub.join("not/there")).unwrap();
        verify(Path::new("/dev/null")).unwrap();
        verify(Path::new("Cargo.toml")).unwrap();
    }

    #[test]
    fn what_others_may_write_is_not_trusted() {
        let (_directory, sub, file) = tree();
        for mode in [0o666, 0o602, 0o646] {
            chmod(&file, mode);
            let error = verify(&file).unwrap_err().to_string();
            assert!(error.contains("chmod go-w") && error.contains("file (mode 06"), "{error}");
        }
        chmod(&file, 0o600);
        chmod(&sub, 0o777);
        assert!(verify(&file).unwrap_err().to_string().contains("sub (mode 0777)"));
        // In a sticky directory no other user can replace our file.
        chmod(&sub, 0o1777);
        verify(&file).unwrap();
    }

    #[test]
    fn a_symlink_is_followed_to_where_others_may_write() {
        let (directory, sub, file) = tree();
        let link = directory.path().join("link");
        symlink("sub/../sub/file", &link).unwrap();
        verify(&link).unwrap();
        chmod(&sub, 0o777);
        assert!(verify(&link).is_err());
        chmod(&sub, 0o700);
        chmod(&file, 0o666);
        assert!(verify(&link).is_err());
        let circle = directory.path().join("circle");
        symlink("circle", &circle).unwrap();
        verify(&circle).unwrap();
    }

    /// A Kubernetes Secret: root's files behind root's links in a sticky directory.
    #[test]
    fn a_secret_volume_is_trusted() {
        let directory = tempfile::tempdir().unwrap();
        let volume = directory.path().join("volume");
        fs::create_dir_all(volume.join("..2026_11")).unwrap();
        fs::write(volume.join("..2026_11/key"), "x").unwrap();
        chmod(&volume.join("..2026_11/key"), 0o440);
        symlink("..2026_11", volume.join("..data")).unwrap();
        symlink("..data/key", volume.join("key")).unwrap();
        chmod(&volume, 0o3777);
        verify(&volume.join("key")).unwrap();
    }

    /// Only root can give files away.
    #[test]
    fn what_belongs_to_another_user_is_not_trusted() {
        let (_directory, sub, file) = tree();
        let other = (Some(Uid::from_raw(54_321)), Some(Gid::from_raw(54_321)));
        if chown(&file, other.0, other.1).is_err() {
            return;
        }
        let error = verify(&file).unwrap_err().to_string();
        assert!(error.contains("belongs to user 54321"), "{error}");
        let denied = explain_denied(&file, &io::ErrorKind::PermissionDenied.into());
        assert!(denied.contains("user 54321, mode 0600, and this is user 0: run"), "{denied}");
        assert_eq!(explain_denied(&file, &io::ErrorKind::NotFound.into()), "");
        chown(&file, Some(Uid::ROOT), Some(Gid::from_raw(54_321))).unwrap();
        chmod(&file, 0o640);
        verify(&file).unwrap();
        chmod(&file, 0o660);
        assert!(verify(&file).is_err(), "a group with other members");
        chmod(&file, 0o600);
        chown(&sub, other.0, other.1).unwrap();
        assert!(verify(&file).is_err(), "the directory decides what is in it");
    }

    #[test]
    fn advice_fits_where_it_is_given() {
        let secret = Path::new("/run/secrets/key");
        for (platform, exposed, owner) in [
            (Platform::Host, "chmod 600 /run/secrets/key", "chown 7"),
            (Platform::Container, "compose", "user: \"5\""),
            (Platform::Pod, "defaultMode: 0440", "fsGroup"),
        ] {
            assert!(platform.advice_for_exposed(secret).contains(exposed));
            assert!(platform.advice_for_owner(secret, 5, 7).contains(owner));
        }
        let other = Platform::Container.advice_for_exposed(Path::new("/etc/key"));
        assert!(other.contains("chmod 600 /etc/key"));
    }
}
