//! The files that a configuration is read from, and whether they are still the same.
//!
//! They are compared by content, owner and mode, through every symbolic link on the way:
//! notifications end without a word when Kubernetes swaps the `..data` link of a mounted volume, and
//! never come from a network's file system.

use super::secret_ref::open;
use aws_lc_rs::digest::{Context, SHA256};
use std::{
    collections::BTreeMap,
    fmt,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};
use zeroize::Zeroizing;

/// What is read at a time; wiped afterwards.
const BLOCK_BYTES: usize = 4096;

/// More than any file that is accepted.
const FILE_MAX_BYTES: u64 = (1 << 20) + 1;

/// Each file as it was just before it was read.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ReadFiles(BTreeMap<PathBuf, FileState>);

#[derive(Clone, PartialEq, Eq)]
enum FileState {
    Regular {
        digest: Vec<u8>,
        mode: u32,
        owner: (u32, u32),
    },
    /// A pipe or a device, whose content is not looked at: reading would take it away.
    Special,
    Unreadable(io::ErrorKind),
}

impl fmt::Debug for ReadFiles {
    /// Without what a secret could be guessed by.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl ReadFiles {
    /// Notes `path`, which is about to be read.
    pub(super) fn note(&mut self, path: &Path) {
        self.0.entry(path.to_owned()).or_insert_with(|| FileState::of(path));
    }

    /// The digest of a file that was noted, if it has one.
    pub(super) fn digest(&self, path: &Path) -> Option<&[u8]> {
        match self.0.get(path)? {
            FileState::Regular { digest, .. } => Some(digest),
            _ => None,
        }
    }

    pub(super) fn extend(&mut self, others: Self) {
        for (path, state) in others.0 {
            self.0.entry(path).or_insert(state);
        }
    }

    /// The same files as they are now.
    #[must_use]
    pub fn look(&self) -> Self {
        Self(self.0.keys().map(|path| (path.clone(), FileState::of(path))).collect())
    }
}

impl FileState {
    fn of(path: &Path) -> Self {
        Self::read(path).unwrap_or_else(|error| Self::Unreadable(error.kind()))
    }

    fn read(path: &Path) -> io::Result<Self> {
        let (file, metadata) = open(path)?;
        if !metadata.is_file() {
            return Ok(Self::Special);
        }
        let mut file = file.take(FILE_MAX_BYTES);
        let (mut digest, mut block) = (Context::new(&SHA256), Zeroizing::new([0; BLOCK_BYTES]));
        loop {
            match file.read(&mut *block)? {
                0 => break,
                length => digest.update(&block[..length]),
            }
        }
        Ok(Self::Regular {
            digest: digest.finish().as_ref().to_vec(),
            mode: metadata.mode(),
            owner: (metadata.uid(), metadata.gid()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs,
        os::unix::fs::{PermissionsExt, symlink},
    };

    #[test]
    fn a_change_shows_whether_of_content_of_mode_or_of_a_link_on_the_way() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for (version, text) in [("..1", "one"), ("..2", "two"), ("..3", "two")] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("secret"), text).unwrap();
        }
        symlink("..1", at("..data")).unwrap();
        symlink("..data/secret", at("secret")).unwrap();
        let swap = |to: &str| {
            symlink(to, at("..tmp")).unwrap();
            fs::rename(at("..tmp"), at("..data")).unwrap();
        };
        let mut files = ReadFiles::default();
        files.note(&at("secret"));
        files.note(&at("missing"));
        assert_eq!(files.look(), files);
        swap("..2");
        let second = files.look();
        assert_ne!(second, files);
        swap("..3");
        assert_eq!(files.look(), second, "the same content is no change");
        fs::set_permissions(at("secret"), fs::Permissions::from_mode(0o600)).unwrap();
        assert_ne!(files.look(), second);
        let third = files.look();
        fs::write(at("missing"), "here").unwrap();
        assert_ne!(files.look(), third);
        fs::remove_file(at("..data")).unwrap();
        assert_ne!(files.look(), third);
        assert!(!format!("{:?}", files.look()).contains("one"));
    }
}
