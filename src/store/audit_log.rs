//! What the store keeps for the audit log: its keys, and of a log that servers share the checkpoints and
//! the starts of its chains.

use super::{
    Error, Expected, Inner, Item, KeyError, SharedLog, Space, Store, Version, backend::Write,
    random_hex,
};
use crate::secret::Secret;
use std::time::Duration;
use zeroize::Zeroizing;

/// Ids and keys for the audit log; the first signs.
pub type AuditSecrets = Vec<(String, Zeroizing<[u8; 32]>)>;

/// The right to remove old lines of the shared log, which one server has at a time. It ends when it
/// is dropped, at its deadline, or with the process.
#[derive(Debug)]
pub struct ExpiryLease {
    store: Store,
    fence: u64,
}

impl Drop for ExpiryLease {
    fn drop(&mut self) {
        let _ = self.store.0.backend.release(Space::Meta.as_str(), EXPIRY, self.fence);
    }
}

/// A start that is kept, a text of its own authenticity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptStart {
    pub text: String,
    pub version: Version,
}

impl Store {
    /// The keys of the audit log; `make`: one is made if none is there or can be opened. Blocks.
    ///
    /// # Errors
    /// `Io`, `Random`; `Key` for a store that keeps nothing, if no encryption key is configured.
    pub fn audit_keys(&self, make: bool) -> Result<AuditSecrets, Error> {
        match &self.0.audit_keys {
            Some(keys) if keys.is_empty() => return Err(KeyError::None.into()),
            Some(keys) => return Ok(keys.clone()),
            None => {}
        }
        // Newest first.
        let mut names: Vec<u64> =
            self.0.names(Space::AuditKeys)?.iter().filter_map(|name| name.parse().ok()).collect();
        names.sort_unstable_by(|one, other| other.cmp(one));
        let mut keys = Vec::new();
        for name in names.iter().map(u64::to_string) {
            let found = self.0.entry(Space::AuditKeys, &name)?;
            let bytes = found.and_then(|(item, _)| parse_hex(item.text.expose()));
            keys.extend(bytes.map(|bytes| (name, bytes)));
        }
        if keys.is_empty() && make {
            let name = names.first().map_or(1, |newest| newest + 1).to_string();
            let text = Secret::new(random_hex()? + &random_hex()?);
            let item = Item { account: None, expires_at_ms: None, text };
            match self.0.put_entry(Space::AuditKeys, &name, &item, Expected::Absent) {
                // Another server was faster.
                Ok(()) | Err(Error::Conflict) => return self.audit_keys(false),
                Err(error) => return Err(error),
            }
        }
        Ok(keys)
    }

    /// The log that the servers of the store share, where it keeps one.
    pub fn shared_log(&self) -> Option<&dyn SharedLog> {
        self.0.backend.shared_log()
    }

    /// Keeps the checkpoint of a chain of that log, a text of its own authenticity. Blocks.
    pub fn put_checkpoint(&self, chain: &str, text: &str) -> Result<(), Error> {
        let (bytes, expected) = (text.as_bytes(), Expected::Any);
        let write = Write { bytes, expires_at_ms: None, expected, fence: None };
        self.0.backend.put(Space::AuditHeads.as_str(), chain, &write).map(drop)
    }

    /// The checkpoint of a chain. Blocks.
    pub fn checkpoint(&self, chain: &str) -> Result<Option<String>, Error> {
        let found = self.0.backend.get(Space::AuditHeads.as_str(), chain)?;
        Ok(found.map(|entry| String::from_utf8_lossy(&entry.bytes).into_owned()))
    }

    /// From where on a chain of that log is there, where its older lines were removed. Blocks.
    pub fn chain_start(&self, chain: &str) -> Result<Option<KeptStart>, Error> {
        let found = self.0.backend.get(Space::AuditStarts.as_str(), chain)?;
        Ok(found.map(|entry| KeptStart {
            text: String::from_utf8_lossy(&entry.bytes).into_owned(),
            version: entry.version,
        }))
    }

    /// Keeps the start of a chain in the place of `before`. Blocks.
    ///
    /// # Errors
    /// `Conflict` if another one is there by now.
    pub fn put_chain_start(
        &self,
        chain: &str,
        text: &str,
        before: Option<&KeptStart>,
    ) -> Result<(), Error> {
        let expected = before.map_or(Expected::Absent, |kept| Expected::Version(kept.version));
        let write = Write { bytes: text.as_bytes(), expires_at_ms: None, expected, fence: None };
        self.0.backend.put(Space::AuditStarts.as_str(), chain, &write).map(drop)
    }

    /// The chains that have a checkpoint or a start. Blocks.
    pub fn known_chains(&self) -> Result<Vec<String>, Error> {
        let mut chains = self.0.names(Space::AuditHeads)?;
        chains.extend(self.0.names(Space::AuditStarts)?);
        chains.sort_unstable();
        chains.dedup();
        Ok(chains)
    }

    /// Deletes what is kept of a chain of which no line is left: the start last, which says so. Blocks.
    pub fn forget_chain(&self, chain: &str) -> Result<(), Error> {
        for space in [Space::AuditHeads, Space::AuditStarts] {
            self.0.backend.delete(space.as_str(), chain, Expected::Any)?;
        }
        Ok(())
    }

    /// Leases the right to remove old lines of the shared log for `ttl`; none if another server has it.
    /// Blocks.
    pub fn lease_expiry(&self, ttl: Duration) -> Result<Option<ExpiryLease>, Error> {
        let (inner, meta) = (&self.0, Space::Meta.as_str());
        match inner.backend.put_clear(Space::Meta, EXPIRY, &(), Expected::Absent) {
            Ok(()) | Err(Error::Conflict) => {}
            Err(error) => return Err(error),
        }
        match inner.backend.lease(meta, EXPIRY, Inner::now_ms(), ttl) {
            Ok(granted) => Ok(Some(ExpiryLease { store: self.clone(), fence: granted.fence })),
            Err(Error::Held { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn parse_hex(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let mut bytes = Zeroizing::new([0; 32]);
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

/// What is leased by the server that removes old lines.
const EXPIRY: &str = "expiry";
