//! What lies in a backend for a sealed entry: which store and key it belongs to, and the sealed
//! text.

use super::{
    Damage,
    passphrase::KdfParameters,
    ring::{KeyRing, NotOpened},
    seal::{FORMAT_VERSION, Place},
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// A text before it is sealed, wiped on drop.
pub(super) type Plain = Zeroizing<Vec<u8>>;

/// The JSON of `value`, in a buffer that leaves no copies behind.
pub(super) fn to_plain(value: &impl Serialize) -> Plain {
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
    let mut count = Count(0);
    serde_json::to_writer(&mut count, value).expect("texts and numbers are JSON");
    // Room for all of it at once: a buffer that grows leaves copies behind.
    let mut plain = Zeroizing::new(Vec::with_capacity(count.0));
    serde_json::to_writer(&mut *plain, value).expect("texts and numbers are JSON");
    plain
}

/// A sealed entry. A field more or less is another format version.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Envelope {
    format: u64,
    store: String,
    /// Whose it is, if it is an account's; authenticated by the sealed text.
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

#[derive(Debug)]
pub(super) enum Closed {
    Damaged(Damage),
    NotOpened { key_id: String, cause: NotOpened },
}

impl Envelope {
    /// Seals `plain` for `place` with the ring's first key.
    pub(super) fn seal(
        place: Place<'_>,
        account: Option<&str>,
        plain: &[u8],
        ring: &KeyRing,
    ) -> Result<Self, super::Error> {
        Ok(Self {
            format: FORMAT_VERSION,
            store: place.store.to_owned(),
            account: account.map(str::to_owned),
            key_id: ring.sealing_key_id().to_owned(),
            kdf: ring.kdf().cloned(),
            sealed: ring.seal(place, plain)?,
        })
    }

    /// Opens it, if it was sealed for `place`.
    pub(super) fn open(&self, place: Place<'_>, ring: &KeyRing) -> Result<Plain, Closed> {
        if self.store != place.store {
            return Err(Closed::Damaged(Damage::OtherStore(self.store.clone())));
        }
        let closed = |cause| Closed::NotOpened { key_id: self.key_id.clone(), cause };
        ring.open(place, &self.key_id, &self.sealed).map_err(closed)
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(self).expect("texts and numbers are JSON");
        bytes.push(b'\n');
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, Damage> {
        match serde_json::from_slice::<Format>(bytes).map_err(Damage::syntax)?.format {
            FORMAT_VERSION => serde_json::from_slice(bytes).map_err(Damage::syntax),
            other => Err(Damage::Version(other)),
        }
    }
}
