//! Keeps every durable thing, sealed and bound to its place: grants, logins under way, keys' check
//! values, instances, the outbox.
//!
//! Two layers: a [`backend`] keeps opaque entries, the [`Store`] above seals and opens them and
//! knows no backend. Only this module sees ciphertext. What cannot be opened is an error and stays
//! where it is: nothing here ever clears what it cannot read. It knows neither Login with Amazon
//! nor when a token is due. A new kind of durable thing is one line in [`Space`].

#![allow(missing_docs, reason = "public for the behaviour tests only")]

mod audit_log;
pub mod backend;
mod copy;
mod credential;
mod entries;
mod error;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod grants;
mod instances;
pub mod keyring;
mod mark;
mod passphrase;
mod record;
pub mod ring;
pub mod rotate;
pub mod seal;
mod unknown;

pub use self::{
    audit_log::{AuditSecrets, KeptStart},
    backend::{Expected, LINES_PAGE, LoggedLine, SharedLog, Version},
    credential::{ConsentId, Credential, Epoch, StoredAccessToken},
    entries::{Entries, Item, Limit, Space},
    error::{Damage, Error},
    grants::{Began, ClaimedGrant, Lease},
    instances::{Instance, InstanceInfo},
    mark::{FoundMarks, Mark, Marks, UnopenedMark},
    record::Versioned,
    ring::{KeyError, KeyRing, generate_key},
    seal::{Key, fingerprint},
    unknown::UnknownFields,
};

use crate::{
    clock::{Clock as _, SystemClock},
    config,
    secret::Secret,
};
use backend::{Backend, Hints, Memory};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::{collections::HashSet, fmt::Write as _, path::PathBuf, sync::Arc};
use zeroize::Zeroizing;

#[derive(Clone, Debug)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    backend: Box<dyn Backend>,
    ring: KeyRing,
    id: Mutex<Option<Arc<str>>>,
    recorded: Mutex<HashSet<String>>,
    counts: Mutex<entries::Counts>,
    /// Of a store that is not kept: the keys of its audit log.
    audit_keys: Option<AuditSecrets>,
}

#[derive(Serialize, Deserialize)]
struct Identity {
    id: String,
}

impl Store {
    /// Opens the configured store and checks its keys; makes its directory if there is none.
    pub fn open(
        store: &config::StoreConfig,
        encryption: &config::Encryption,
    ) -> Result<Self, Error> {
        if !store.kind.seals() {
            // An error is reported where an audit log is wanted.
            let audit_keys = ring::derived_audit_keys(encryption).unwrap_or_default();
            return Self::with(Box::<Memory>::default(), KeyRing::ephemeral()?, Some(audit_keys));
        }
        let backend = backend::open(store)?;
        let ring = KeyRing::fetch(encryption, &*backend)?;
        backend.prepare()?;
        Self::with(backend, ring, None)
    }

    /// The same, as it is: nothing that is missing is made. Also returns the schema of a database.
    pub fn examine(
        store: &config::StoreConfig,
        encryption: &config::Encryption,
    ) -> Result<(Self, Option<backend::Schema>), Error> {
        if !store.kind.seals() {
            return Ok((Self::open(store, encryption)?, None));
        }
        let backend = backend::open(store)?;
        let schema = backend.schema()?;
        let ring = KeyRing::fetch(encryption, &*backend)?;
        Ok((Self::with(backend, ring, None)?, schema))
    }

    /// Makes the schema of a database what this program wants; returns it as it was before, none
    /// for a store that has no schema.
    ///
    /// # Errors
    /// `SchemaTooNew`; `Database` above all if the role may not.
    pub fn migrate(store: &config::StoreConfig) -> Result<Option<backend::Schema>, Error> {
        match store.kind.seals() {
            true => backend::open(store)?.migrate(),
            false => Ok(None),
        }
    }

    /// Checks what [`Store::open`] checks, and changes nothing.
    pub fn check(
        store: &config::StoreConfig,
        encryption: &config::Encryption,
    ) -> Result<(), Error> {
        match store.kind.seals() {
            true => KeyRing::fetch(encryption, &*backend::open(store)?).map(|_| ()),
            false => Ok(()),
        }
    }

    pub fn new(backend: Box<dyn Backend>, ring: KeyRing) -> Result<Self, Error> {
        Self::with(backend, ring, None)
    }

    /// A store that ends with the process.
    pub fn memory() -> Result<Self, Error> {
        Self::new(Box::<Memory>::default(), KeyRing::ephemeral()?)
    }

    fn with(
        backend: Box<dyn Backend>,
        ring: KeyRing,
        audit_keys: Option<AuditSecrets>,
    ) -> Result<Self, Error> {
        let inner = Inner {
            backend,
            ring,
            id: Mutex::default(),
            recorded: Mutex::default(),
            counts: Mutex::default(),
            audit_keys,
        };
        inner.known_id()?;
        Ok(Self(Arc::new(inner)))
    }

    /// Makes the store of the configuration ready for key `id` to be made of `passphrase`; false
    /// if it was ready before.
    pub fn prepare_passphrase(
        store: &config::StoreConfig,
        id: &str,
        passphrase: &Secret,
    ) -> Result<bool, Error> {
        passphrase::prepare(&*backend::open(store)?, id, passphrase)
    }

    pub fn ring(&self) -> &KeyRing {
        &self.0.ring
    }

    /// Hints that grants may have changed, where other servers give some. The first call begins to
    /// listen for them.
    pub fn hints(&self) -> Hints {
        self.0.backend.hints()
    }

    /// Says whether hints arrive; none if they are not to. Blocks for some seconds.
    pub fn prove_hints(&self) -> Option<Result<(), Error>> {
        self.0.backend.prove_hints()
    }

    /// Runs blocking `work` off the async threads. Once begun it runs to its end, also if its
    /// caller leaves.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let inner = self.0.clone();
        // A panic, or a runtime that is going down: for the caller, work that did not happen.
        tokio::task::spawn_blocking(move || work(&inner)).await.unwrap_or_else(|error| {
            let (action, path) = ("finish the work on", PathBuf::from("the store"));
            Err(Error::Io { action, path, source: std::io::Error::other(error) })
        })
    }

    /// The same with what is at `key`.
    async fn at<T: Send + 'static>(
        &self,
        key: &str,
        work: impl FnOnce(&Inner, &str) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let key = key.to_owned();
        self.run(move |inner| work(inner, &key)).await
    }
}

impl Inner {
    fn now_ms() -> u64 {
        u64::try_from(SystemClock.now().wall.as_millis()).unwrap_or(u64::MAX)
    }

    /// The store's id; none if nothing was kept yet.
    fn known_id(&self) -> Result<Option<Arc<str>>, Error> {
        let mut id = self.id.lock();
        if id.is_none() {
            let identity = match self.backend.read_clear::<Identity>(Space::Meta, IDENTITY) {
                Err(Error::Damaged { cause, .. }) => return Err(Error::Identity(cause)),
                identity => identity?,
            };
            *id = identity.map(|identity| identity.id.into());
        }
        Ok(id.clone())
    }

    /// The store's id, which is made with the first thing that is kept.
    ///
    /// # Errors
    /// `Identity` where there are records, and the id that they were sealed under is lost: with a new
    /// one a restored file would open none of what is kept from now on.
    fn id(&self) -> Result<Arc<str>, Error> {
        if let Some(id) = self.known_id()? {
            return Ok(id);
        }
        for space in [Space::Accounts, Space::AuditKeys] {
            // Another process may have made the id and a record since.
            if !self.backend.list(space.as_str())?.is_empty() && self.known_id()?.is_none() {
                return Err(Error::Identity(Damage::NoEntry));
            }
        }
        let identity = Identity { id: random_hex()? };
        match self.backend.put_clear(Space::Meta, IDENTITY, &identity, Expected::Absent) {
            Err(Error::Conflict) => {}
            made => made?,
        }
        // The one that came first.
        Ok(self.known_id()?.expect("it was made"))
    }

    /// The key that seals what is at `key`: the first that every running instance has, the first of
    /// all if they have none in common: what is sealed with a key that others lack can be had again
    /// with that key, what is not kept is lost.
    ///
    /// If it cannot be said what they have, the key that sealed what is there now, which some of them
    /// may have written.
    fn sealing_key(&self, space: Space, key: &str) -> Result<&Key, Error> {
        // Where there is no choice, nothing is asked.
        if self.ring.keys().nth(1).is_none() {
            self.record_key(self.ring.first())?;
            return Ok(self.ring.first());
        }
        let sealing = match self.instances() {
            Ok(others) => self.ring.first_that(|key| others.iter().all(|other| other.has(key))),
            Err(_) => {
                let now = self.envelope(space, key).ok().flatten().map(|now| now.key_id);
                self.ring.first_that(|key| now.as_ref() == Some(&key.id))
            }
        };
        self.record_key(sealing)?;
        Ok(sealing)
    }

    /// Keeps the check value of a key, before it seals for the first time.
    fn record_key(&self, Key { id, record, .. }: &Key) -> Result<(), Error> {
        if self.recorded.lock().contains(id) {
            return Ok(());
        }
        match self.backend.put_clear(Space::Keys, id, record, Expected::Absent) {
            Err(Error::Conflict) => {
                let known = ring::known(&*self.backend, id)?;
                if known.is_some_and(|known| known.check != record.check) {
                    return Err(KeyError::Wrong(id.to_owned()).into());
                }
            }
            kept => kept?,
        }
        self.recorded.lock().insert(id.clone());
        Ok(())
    }
}

fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, Error> {
    let mut bytes = Zeroizing::new([0; N]);
    aws_lc_rs::rand::fill(&mut *bytes).map_err(|_| Error::Random)?;
    Ok(bytes)
}

/// 16 random bytes, hexadecimal.
pub(crate) fn random_hex() -> Result<String, Error> {
    Ok(random::<16>()?.iter().fold(String::with_capacity(32), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("writing to a String cannot fail");
        hex
    }))
}

const IDENTITY: &str = "store";

#[cfg(test)]
#[path = "store_tests.rs"]
pub(crate) mod tests;
