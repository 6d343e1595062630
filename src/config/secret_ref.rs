//! Where a secret comes from: an environment variable or a file, never the configuration itself.

use super::{environment::Environment, reader::ConfigEntry};
use crate::{
    id::placeholder_alias,
    secret::{RefreshToken, Secret},
    trusted_path::{self, Platform, UntrustedPath},
};
use rustix::fs::OFlags;
use std::{
    fs::{File, Metadata, OpenOptions},
    io::{self, Read},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt},
    path::{Path, PathBuf},
};
use toml::de::DeValue;
use zeroize::Zeroizing;

/// What a masked secret looks like in output.
pub(crate) const MASK: &str = "***";

/// What a reference looks like.
pub(super) const REFERENCE: &str = "a reference such as { env = \"NAME\" } or { file = \"/path\" }";

/// Secrets are short; whatever is longer than this is some other file.
const FILE_MAX_BYTES: u64 = 65_536;

/// One place a secret is kept at.
#[derive(Debug, Clone)]
pub(crate) enum SecretRef {
    /// The value of an environment variable.
    Env(String),
    /// The content of a file.
    File(String),
}

/// Why a secret could not be had. Never holds a part of it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("environment variable {0} is not set")]
    Unset(String),
    #[error("{0} is empty")]
    Empty(String),
    #[error("cannot find {0}: `~` needs HOME to be set")]
    NoHome(String),
    #[error("cannot read {path}: {source}{}", trusted_path::explain_denied(.path, .source))]
    Unreadable {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Untrusted(#[from] UntrustedPath),
    #[error("{0} {1}")]
    NoSecret(String, &'static str),
}

/// A secret, and what is wrong with the place it was found at.
#[derive(Debug)]
pub(crate) struct FoundSecret {
    pub(crate) secret: Secret,
    /// What to say of a file that is open to every user.
    pub(crate) exposed: Option<String>,
}

/// What to say of the file at `path` if every user of this machine may read it. Devices and pipes
/// are not checked: they keep no data.
pub(crate) fn exposed(path: &Path, metadata: &Metadata) -> Option<String> {
    let mode = metadata.permissions().mode() & 0o7777;
    (metadata.is_file() && mode & 0o004 != 0).then(|| {
        let (shown, advice) = (path.display(), Platform::here().advice_for_exposed(path));
        format!("{shown} is open to every user of this machine (mode {mode:04o}): {advice}")
    })
}

impl Error {
    /// Says whether the secret was never put there.
    pub(crate) fn is_absence(&self) -> bool {
        let is_missing = |source: &io::Error| source.kind() == io::ErrorKind::NotFound;
        matches!(self, Self::Unset(_) | Self::Empty(_))
            || matches!(self, Self::Unreadable { source, .. } if is_missing(source))
    }
}

impl SecretRef {
    /// Reads a reference, if `value` can be one. A wrong value is no part of the message: it may be
    /// a live secret.
    pub(super) fn parse(value: &DeValue<'_>) -> Option<Result<Self, String>> {
        let table = match value {
            DeValue::Table(table) => table,
            DeValue::String(_) => {
                let never = "a secret is never written into the configuration";
                return Some(Err(format!("{never}; write {REFERENCE}")));
            }
            _ => return Some(Err(format!("expected {REFERENCE}, or a list of them"))),
        };
        let text = |key| table.get(key)?.get_ref().as_str().map(str::to_owned);
        Some(match (text("env"), text("file")) {
            (Some(_), Some(_)) => {
                Err("a secret comes from `env` or from `file`, not from both".to_owned())
            }
            (Some(name), None) if table.len() == 1 => Ok(Self::Env(name)),
            (None, Some(path)) if table.len() == 1 => Ok(Self::File(path)),
            _ => Err(format!("write {REFERENCE}")),
        })
    }

    /// Fetches the secret.
    pub(crate) fn resolve(&self, environment: &Environment) -> Result<FoundSecret, Error> {
        let (found, place) = match self {
            Self::Env(name) => {
                let value = environment.get(name).ok_or_else(|| Error::Unset(name.clone()))?;
                let found = FoundSecret { secret: Secret::from_source(value), exposed: None };
                (found, format!("environment variable {name}"))
            }
            Self::File(path) => {
                let path = environment.expand(path).ok_or_else(|| Error::NoHome(path.clone()))?;
                (read(&path)?, path.display().to_string())
            }
        };
        if found.secret.is_empty() {
            return Err(Error::Empty(place));
        }
        if found.secret.expose().chars().any(char::is_control) {
            let why = "holds a line break or another control character inside the secret";
            return Err(Error::NoSecret(place, why));
        }
        Ok(found)
    }
}

/// Opens `path` without waiting: a reload would be held up by a pipe until something is written.
pub(super) fn open(path: &Path) -> io::Result<(File, Metadata)> {
    let no_wait = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(no_wait).open(path)?;
    // The mode is asked of the opened file, so that it is the mode of what is read.
    let metadata = file.metadata()?;
    Ok((file, metadata))
}

fn read(path: &Path) -> Result<FoundSecret, Error> {
    trusted_path::verify(path)?;
    let unreadable = |source| Error::Unreadable { path: path.to_owned(), source };
    let no_secret = |why| Error::NoSecret(path.display().to_string(), why);
    let (file, metadata) = open(path).map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(no_secret("is not a file: a secret is read from a regular one"));
    }
    // Sized in advance: a vector that grows would leave copies of the secret behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(FILE_MAX_BYTES as usize + 1));
    file.take(FILE_MAX_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_MAX_BYTES {
        return Err(no_secret("holds more than 65536 bytes, which no secret does"));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| no_secret("is not text"))?;
    Ok(FoundSecret { secret: Secret::from_source(text), exposed: exposed(path, &metadata) })
}

/// One secret, or a list of them in order of use: references, which are followed at once.
pub(super) fn secrets(mut entry: ConfigEntry<'_, '_>) -> Option<Vec<Secret>> {
    let found = match entry.value {
        DeValue::Array(items) if items.is_empty() => return entry.reject("the list is empty"),
        DeValue::Array(items) => entry.items(items, secret),
        _ => vec![secret(entry.reborrow())?],
    };
    entry.reader.referred.insert(entry.at.join("."), found.clone());
    Some(found)
}

/// Fetches the secret of one reference.
fn secret(mut entry: ConfigEntry<'_, '_>) -> Option<Secret> {
    let expected = format!("{REFERENCE}, or a list of them");
    let reference = entry.reborrow().take(&expected, SecretRef::parse)?;
    let ConfigEntry { reader, at, .. } = entry;
    if !reader.follows_references {
        reader.is_wrong(at);
        return None;
    }
    if let SecretRef::Env(name) = &reference {
        reader.secret_variables.insert(name.clone());
    }
    if let SecretRef::File(path) = &reference
        && let Some(path) = reader.environment.expand(path)
    {
        reader.files.note(&path);
    }
    // It opens the whole store, and adsproxy makes it with the right mode.
    let is_master_key = at[0] == "encryption";
    match reference.resolve(reader.environment) {
        Ok(found) => {
            match found.exposed {
                Some(exposed) if is_master_key => reader.fail(at, exposed),
                Some(exposed) => reader.warn(at, exposed),
                None => {}
            }
            Some(found.secret)
        }
        Err(error) if is_master_key && at.ends_with(&["secret"]) && error.is_absence() => {
            reader.reject(at, format!("{error}\n`adsproxy key init` makes a key"))
        }
        Err(error) => reader.reject(at, error),
    }
}

/// One secret where a list makes no sense.
pub(super) fn one_secret(entry: ConfigEntry<'_, '_>) -> Option<Secret> {
    match entry.value.is_array() {
        true => entry.reject("takes one secret, not a list"),
        false => secrets(entry)?.pop(),
    }
}

/// What LWA can have issued.
pub(super) fn refresh_token(mut entry: ConfigEntry<'_, '_>) -> Option<Secret> {
    let token = match RefreshToken::parse(&one_secret(entry.reborrow())?) {
        Ok(token) => token,
        Err(error) => return entry.reject(error),
    };
    let ConfigEntry { reader, at, .. } = entry;
    if !token.is_usual {
        reader.warn(at, RefreshToken::UNUSUAL);
    }
    // Taken for a new one, it would replace the real one in the store.
    let named = placeholder_alias(token.secret.expose(), "Atzr");
    if named.is_some_and(|named| reader.document.contains(&["accounts", named])) {
        let message = "holds a placeholder of adsproxy's own, which `adsproxy exec` and `env` set: \
                       start from a shell without it";
        reader.fail(at, message);
    }
    Some(token.secret)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, Mode, mkfifoat};
    use std::fs;

    fn environment() -> Environment {
        let variables = [
            ("SECRET", "s3cret"),
            ("ENDED", "s3cret\r\n"),
            ("MARKED", "\u{feff}s3cret"),
            ("EMPTY", "\n"),
            ("LINES", "a\nb\n"),
        ];
        variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    fn file(content: &[u8], mode: u32) -> (tempfile::TempDir, SecretRef) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let reference = SecretRef::File(path.to_str().unwrap().to_owned());
        (directory, reference)
    }

    fn resolved(reference: &SecretRef) -> Result<String, String> {
        match reference.resolve(&environment()) {
            Ok(found) => Ok(found.secret.expose().to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn line_ends_and_byte_order_marks_never_count() {
        for (name, secret) in [("SECRET", "s3cret"), ("ENDED", "s3cret"), ("MARKED", "s3cret")] {
            assert_eq!(resolved(&SecretRef::Env(name.into())).unwrap(), secret);
        }
        for content in ["s3cret", "s3cret\n", "s3cret\r\n", "s3cret\n\n", "\u{feff}s3cret\n"] {
            let (_directory, reference) = file(content.as_bytes(), 0o600);
            assert_eq!(resolved(&reference).unwrap(), "s3cret");
        }
    }

    #[test]
    fn names_the_variable_that_is_unset_empty_or_broken() {
        for (name, part) in [("NONE", "not set"), ("EMPTY", "is empty"), ("LINES", "line break")] {
            let error = resolved(&SecretRef::Env(name.into())).unwrap_err();
            assert!(error.contains(name) && error.contains(part), "{error}");
        }
    }

    #[test]
    fn refuses_files_that_hold_no_secret() {
        let long = vec![b'a'; FILE_MAX_BYTES as usize + 1];
        for (content, part) in [
            (&b""[..], "is empty"),
            (b"\n", "is empty"),
            (b"a\nb\n", "line break"),
            (b"\xff\xfe", "not text"),
            (&long, "more than"),
        ] {
            let (_directory, reference) = file(content, 0o600);
            let error = resolved(&reference).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn says_how_to_close_a_file_that_is_open_to_others() {
        for mode in [0o644, 0o604] {
            let (_directory, reference) = file(b"CANARY", mode);
            let found = reference.resolve(&environment()).unwrap();
            let text = found.exposed.clone().unwrap();
            assert!(text.contains("chmod 600"), "{text}");
            assert!(!format!("{text}{found:?}").contains("CANARY"));
        }
    }

    #[test]
    fn refuses_a_file_that_others_may_write() {
        for mode in [0o602, 0o666] {
            let (_directory, reference) = file(b"CANARY", mode);
            let error = resolved(&reference).unwrap_err();
            assert!(error.contains("chmod go-w") && !error.contains("CANARY"), "{error}");
        }
    }

    #[test]
    fn has_nothing_against_a_file_its_group_can_read() {
        for mode in [0o400, 0o440, 0o600, 0o640] {
            let (_directory, reference) = file(b"s3cret", mode);
            let found = reference.resolve(&environment()).unwrap();
            assert!(found.secret.expose() == "s3cret" && found.exposed.is_none(), "{mode:o}");
        }
    }

    #[test]
    fn says_which_file_is_missing_a_directory_or_a_pipe() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("none").to_str().unwrap().to_owned();
        let error = resolved(&SecretRef::File(missing.clone())).unwrap_err();
        assert!(error.contains(&missing), "{error}");
        let path = directory.path().to_str().unwrap().to_owned();
        assert!(resolved(&SecretRef::File(path)).unwrap_err().contains("not a file"));
        let pipe = directory.path().join("pipe");
        mkfifoat(CWD, &pipe, Mode::from_raw_mode(0o600)).unwrap();
        let pipe = SecretRef::File(pipe.to_str().unwrap().to_owned());
        assert!(resolved(&pipe).unwrap_err().contains("not a file"), "and does not wait for it");
        let error = resolved(&SecretRef::File("~/secret".into())).unwrap_err();
        assert!(error.contains("HOME"), "{error}");
    }
}
