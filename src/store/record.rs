//! Sealed records: what lies in a backend of one, and its ways in and out.
//!
//! A record is bound to its store, space and key. It names the key that sealed it, and the account
//! it goes with, so that both are known without opening it.

use super::{
    Damage, Error, Expected, Inner, Space, Version,
    backend::{RawEntry, Write},
    passphrase::KdfParameters,
    seal::{FORMAT_VERSION, Key, SealContext},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

/// A text before it is sealed, wiped on drop.
pub(super) type Plain = Zeroizing<Vec<u8>>;

/// A sealed record. A field more or less is another format version.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Envelope {
    format: u64,
    store: String,
    /// The account it is deleted with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) account: Option<String>,
    pub(super) key_id: String,
    /// How the key is made of a passphrase, if it is: no file of its own can be lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) kdf: Option<KdfParameters>,
    sealed: String,
}

/// Read before anything else: a newer format may have other fields.
#[derive(Deserialize)]
struct Format {
    format: u64,
}

impl Envelope {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Damage> {
        match serde_json::from_slice::<Format>(bytes)?.format {
            FORMAT_VERSION => Ok(serde_json::from_slice(bytes)?),
            other => Err(Damage::Version(other)),
        }
    }
}

/// A record that was opened, and what it goes with.
#[derive(PartialEq, Eq)]
pub(super) struct Opened {
    pub(super) bytes: Plain,
    pub(super) account: Option<String>,
    pub(super) expires_at_ms: Option<u64>,
}

/// Something that was read, and from which write it comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned<T> {
    pub value: T,
    pub version: Version,
}

impl Inner {
    /// What lies under a key, unopened.
    pub(super) fn envelope(&self, space: Space, key: &str) -> Result<Option<Envelope>, Error> {
        let entry = self.backend.get(space.as_str(), key)?;
        entry.map(|entry| parse(space, key, &entry)).transpose()
    }

    pub(super) fn get<T: DeserializeOwned>(
        &self,
        space: Space,
        key: &str,
    ) -> Result<Option<Versioned<T>>, Error> {
        let Some(entry) = self.backend.get(space.as_str(), key)? else { return Ok(None) };
        let (value, version) = (self.open(space, key, &entry)?.0, entry.version);
        Ok(Some(Versioned { value, version }))
    }

    /// A record as it was before it was sealed.
    pub(super) fn opened(&self, space: Space, key: &str) -> Result<Option<Opened>, Error> {
        let Some(entry) = self.backend.get(space.as_str(), key)? else { return Ok(None) };
        let envelope = parse(space, key, &entry)?;
        let bytes = self.unseal(space, key, &envelope)?;
        let (account, expires_at_ms) = (envelope.account, entry.expires_at_ms);
        Ok(Some(Opened { bytes, account, expires_at_ms }))
    }

    /// Opens a record that was read, and returns the account that it names, too.
    pub(super) fn open<T: DeserializeOwned>(
        &self,
        space: Space,
        key: &str,
        entry: &RawEntry,
    ) -> Result<(T, Option<String>), Error> {
        let envelope = parse(space, key, entry)?;
        let plain = self.unseal(space, key, &envelope)?;
        let value = serde_json::from_slice(&plain);
        Ok((value.map_err(|error| damaged(space, key, error.into()))?, envelope.account))
    }

    fn unseal(&self, space: Space, key: &str, envelope: &Envelope) -> Result<Plain, Error> {
        self.unseal_field(space, key, field(space), envelope)
    }

    pub(super) fn unseal_field(
        &self,
        space: Space,
        key: &str,
        field: &str,
        envelope: &Envelope,
    ) -> Result<Plain, Error> {
        let store = self.known_id()?.unwrap_or_default();
        if *envelope.store != *store {
            let (record, store) = (space.name_of(key), envelope.store.clone());
            return Err(Error::OtherStore { record, store });
        }
        let context = SealContext { store: &store, space, key, field };
        self.ring.open(context, &envelope.key_id, &envelope.sealed).map_err(|cause| Error::Sealed {
            record: space.name_of(key),
            key_id: envelope.key_id.clone(),
            cause,
        })
    }

    /// Seals the bytes of `write` and keeps them; `account` is what the record goes with.
    pub(super) fn put(
        &self,
        space: Space,
        key: &str,
        account: Option<String>,
        write: Write<'_>,
    ) -> Result<Version, Error> {
        let is_marked = space == Space::Accounts && self.backend.keeps_marks();
        self.put_with(space, key, account, write, is_marked)
    }

    fn put_with(
        &self,
        space: Space,
        key: &str,
        account: Option<String>,
        write: Write<'_>,
        is_marked: bool,
    ) -> Result<Version, Error> {
        let sealing = self.sealing_key(space, key)?;
        let sealed = self.sealed(sealing, space, key, field(space), write.bytes)?;
        let bytes = to_json(&Envelope { account, ..sealed });
        let sealed = Write { bytes: &bytes, ..write };
        if is_marked && let Some(mark) = self.seal_mark(sealing, key, write.bytes)? {
            return self.backend.put_marked(space.as_str(), key, &sealed, &mark);
        }
        self.backend.put(space.as_str(), key, &sealed)
    }

    /// `plain` in its envelope.
    pub(super) fn sealed(
        &self,
        sealing: &Key,
        space: Space,
        key: &str,
        field: &str,
        plain: &[u8],
    ) -> Result<Envelope, Error> {
        let store = self.id()?;
        let context = SealContext { store: &store, space, key, field };
        Ok(Envelope {
            format: FORMAT_VERSION,
            store: store.to_string(),
            account: None,
            key_id: sealing.id.clone(),
            kdf: sealing.record.kdf.clone(),
            sealed: sealing.seal(context, plain)?,
        })
    }

    /// Seals a record anew if it is not sealed with the first key; says whether it was. What is
    /// written or taken meanwhile is looked at again.
    pub(super) fn reseal(&self, space: Space, key: &str) -> Result<bool, Error> {
        let ours = self.ring.sealing_key_id();
        loop {
            let Some(entry) = self.backend.get(space.as_str(), key)? else { return Ok(false) };
            let envelope = parse(space, key, &entry)?;
            if envelope.key_id == ours {
                return Ok(false);
            }
            let bytes = &self.unseal(space, key, &envelope)?;
            let (expires_at_ms, expected) = (entry.expires_at_ms, Expected::Version(entry.version));
            let write = Write { bytes, expires_at_ms, expected, fence: None };
            // A record that was set back stays behind its mark.
            match self.put_with(space, key, envelope.account, write, false) {
                Err(Error::Conflict) => continue,
                written => written?,
            };
            let is_old = self.envelope(space, key)?.is_some_and(|now| now.key_id != ours);
            let (record, key_id) = (space.name_of(key), ours.to_owned());
            return if is_old { Err(Error::OldKey { record, key_id }) } else { Ok(true) };
        }
    }
}

fn parse(space: Space, key: &str, entry: &RawEntry) -> Result<Envelope, Error> {
    Envelope::parse(&entry.bytes).map_err(|cause| damaged(space, key, cause))
}

pub(super) fn damaged(space: Space, key: &str, cause: Damage) -> Error {
    Error::Damaged { record: space.name_of(key), cause }
}

fn field(space: Space) -> &'static str {
    if space == Space::Accounts { "grant" } else { "entry" }
}

/// The JSON of `value`, in a buffer that leaves no copies behind, and the end of the line.
pub(super) fn to_json(value: &impl Serialize) -> Plain {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(1);
    serde_json::to_writer(&mut count, value).expect("texts and numbers are JSON");
    // Room for all of it at once: a buffer that grows leaves copies behind.
    let mut plain = Zeroizing::new(Vec::with_capacity(count.0));
    serde_json::to_writer(&mut *plain, value).expect("texts and numbers are JSON");
    plain.push(b'\n');
    plain
}
