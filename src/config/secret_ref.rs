//! Where a secret comes from: an environment variable or a file, never the configuration itself.

use super::environment::Environment;
use crate::{
    secret::Secret,
    trusted_path::{self, Platform, UntrustedPath},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{
    fmt,
    fs::{File, Metadata},
    io::Read,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};
use zeroize::Zeroizing;

/// What a masked secret looks like in output.
pub(crate) const MASK: &str = "***";

/// Secrets are short; whatever is longer than this is some other file.
const FILE_MAX_BYTES: u64 = 64 * 1024;

/// One place a secret is kept at.
#[derive(Debug, Clone)]
pub(crate) enum SecretRef {
    /// The value of an environment variable.
    Env(String),
    /// The content of a file.
    File(String),
}

/// One reference, or a list of them; none at all if the key is absent.
#[derive(Debug, Clone, Default)]
pub struct SecretRefs {
    /// In order of use.
    pub(crate) refs: Vec<SecretRef>,
    /// Says whether it was written as a list.
    pub(crate) listed: bool,
}

/// Why a secret could not be had. Never holds a part of it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("environment variable {0} is not set")]
    Unset(String),
    #[error("environment variable {0} is empty")]
    EmptyVariable(String),
    #[error("cannot find {0}: `~` needs HOME to be set")]
    NoHome(String),
    #[error("cannot read {path}: {source}{}", trusted_path::explain_denied(.path, .source))]
    Unreadable {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Untrusted(#[from] UntrustedPath),
    #[error("{0} is not a file")]
    NotAFile(PathBuf),
    #[error("{0} is empty")]
    EmptyFile(PathBuf),
    #[error("{0} holds more than {FILE_MAX_BYTES} bytes, which no secret does")]
    TooLong(PathBuf),
    #[error("{0} is not text")]
    NotText(PathBuf),
    #[error("{0} holds a line break or another control character inside the secret")]
    ControlCharacter(String),
}

/// A secret, and what is wrong with the place it was found at.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) secret: Secret,
    /// Present if the file is open to every user.
    pub(crate) exposed: Option<Exposed>,
}

/// A file that every user of this machine may read.
#[derive(Debug)]
pub(crate) struct Exposed {
    path: PathBuf,
    mode: u32,
}

impl Exposed {
    /// Judges the file at `path`. Devices and pipes are not checked: they keep no data.
    pub(crate) fn judge(path: &Path, metadata: &Metadata) -> Option<Self> {
        let mode = metadata.permissions().mode() & 0o7777;
        let exposed = metadata.is_file() && mode & 0o004 != 0;
        exposed.then(|| Self { path: path.to_owned(), mode })
    }
}

impl fmt::Display for Exposed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (path, mode) = (self.path.display(), self.mode);
        write!(
            f,
            "{path} is open to every user of this machine (mode {mode:04o}): {}",
            Platform::here().advice_for_exposed(&self.path)
        )
    }
}

impl Error {
    /// Says whether the secret was never put there.
    pub(crate) fn is_absence(&self) -> bool {
        match self {
            Self::Unset(_) | Self::EmptyVariable(_) | Self::EmptyFile(_) => true,
            Self::Unreadable { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
            _ => false,
        }
    }
}

impl SecretRef {
    /// Fetches the secret.
    pub(crate) fn resolve(&self, environment: &Environment) -> Result<Found, Error> {
        let (found, place) = match self {
            Self::Env(name) => match environment.get(name) {
                None => return Err(Error::Unset(name.clone())),
                Some(value) => {
                    let secret = Secret::from_source(value);
                    if secret.is_empty() {
                        return Err(Error::EmptyVariable(name.clone()));
                    }
                    (Found { secret, exposed: None }, format!("environment variable {name}"))
                }
            },
            Self::File(path) => {
                let path = environment.expand(path).ok_or_else(|| Error::NoHome(path.clone()))?;
                let place = path.display().to_string();
                (read(path)?, place)
            }
        };
        if found.secret.expose().chars().any(char::is_control) {
            return Err(Error::ControlCharacter(place));
        }
        Ok(found)
    }
}

fn read(path: PathBuf) -> Result<Found, Error> {
    trusted_path::verify(&path)?;
    let unreadable = |source| Error::Unreadable { path: path.clone(), source };
    // The mode is asked of the opened file, so that it is the mode of what is read.
    let file = File::open(&path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if metadata.is_dir() {
        return Err(Error::NotAFile(path));
    }
    let exposed = Exposed::judge(&path, &metadata);
    // Sized in advance: a vector that grows would leave copies of the secret behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(FILE_MAX_BYTES as usize + 1));
    file.take(FILE_MAX_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_MAX_BYTES {
        return Err(Error::TooLong(path));
    }
    let Ok(text) = std::str::from_utf8(&bytes) else { return Err(Error::NotText(path)) };
    let secret = Secret::from_source(text);
    if secret.is_empty() {
        return Err(Error::EmptyFile(path));
    }
    Ok(Found { secret, exposed })
}

impl Serialize for SecretRefs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match (self.listed, self.refs.is_empty()) {
            (true, _) => serializer.collect_seq(self.refs.iter().map(|_| MASK)),
            (false, true) => serializer.serialize_none(),
            (false, false) => serializer.serialize_str(MASK),
        }
    }
}

/// As it is written: exactly one of the two.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    env: Option<String>,
    file: Option<String>,
}

const EXPECTED: &str = "a reference such as { env = \"NAME\" } or { file = \"/path\" }";

impl<'de> Deserialize<'de> for SecretRefs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = SecretRefs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{EXPECTED}, or a list of them")
            }

            fn visit_str<E: de::Error>(self, _: &str) -> Result<SecretRefs, E> {
                Err(inline())
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<SecretRefs, A::Error> {
                Ok(SecretRefs { refs: vec![from_map(map)?], listed: false })
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<SecretRefs, A::Error> {
                let mut refs = Vec::new();
                while let Some(item) = seq.next_element::<SecretRefs>()? {
                    if item.listed {
                        return Err(de::Error::custom("is a list inside of a list"));
                    }
                    refs.extend(item.refs);
                }
                Ok(SecretRefs { refs, listed: true })
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

fn from_map<'de, A: de::MapAccess<'de>>(map: A) -> Result<SecretRef, A::Error> {
    let written = Written::deserialize(de::value::MapAccessDeserializer::new(map))?;
    match (written.env, written.file) {
        (Some(name), None) => Ok(SecretRef::Env(name)),
        (None, Some(path)) => Ok(SecretRef::File(path)),
        (Some(_), Some(_)) => {
            Err(de::Error::custom("a secret comes from `env` or from `file`, not from both"))
        }
        (None, None) => Err(de::Error::custom(format!("write {EXPECTED}"))),
    }
}

/// The value itself is not part of the message: it may be a live secret.
fn inline<E: de::Error>() -> E {
    E::custom(format!("a secret is never written into the configuration; write {EXPECTED}"))
}

#[cfg(test)]
mod tests {
    use super::*;
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
            let text = found.exposed.as_ref().unwrap().to_string();
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
    fn says_which_file_is_missing_or_a_directory() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("none").to_str().unwrap().to_owned();
        let error = resolved(&SecretRef::File(missing.clone())).unwrap_err();
        assert!(error.contains(&missing), "{error}");
        let path = directory.path().to_str().unwrap().to_owned();
        assert!(resolved(&SecretRef::File(path)).unwrap_err().contains("not a file"));
        let error = resolved(&SecretRef::File("~/secret".into())).unwrap_err();
        assert!(error.contains("HOME"), "{error}");
    }
}
