//! Keeps entries in this process only: nothing is written anywhere.

use super::{Backend, Error, Expected, Granted, Listed, RawEntry, Version, Write};
use parking_lot::Mutex;
use std::{collections::BTreeMap, time::Duration};

type Key = (String, String);

/// A backend that ends with the process.
#[derive(Debug, Default)]
pub struct Memory(Mutex<MemoryEntries>);

#[derive(Debug, Default)]
struct MemoryEntries {
    entries: BTreeMap<Key, RawEntry>,
    /// Fence and deadline of each lease.
    leases: BTreeMap<Key, (u64, u64)>,
    /// Counts writes and leases.
    counter: u64,
}

fn at(space: &str, key: &str) -> Key {
    (space.to_owned(), key.to_owned())
}

impl MemoryEntries {
    fn version(&self, at: &Key) -> Option<Version> {
        self.entries.get(at).map(|entry| entry.version)
    }

    fn count(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }
}

impl Backend for Memory {
    fn get(&self, space: &str, key: &str) -> Result<Option<RawEntry>, Error> {
        Ok(self.0.lock().entries.get(&at(space, key)).cloned())
    }

    fn put(&self, space: &str, key: &str, write: &Write<'_>) -> Result<Version, Error> {
        let (at, mut state) = (at(space, key), self.0.lock());
        let fence = state.leases.get(&at).map(|lease| lease.0);
        let is_fenced_off = write.fence.is_some() && write.fence != fence;
        if !write.expected.is_met_by(state.version(&at)) || is_fenced_off {
            return Err(Error::Conflict);
        }
        let version = Version(state.count());
        let (bytes, expires_at_ms) = (write.bytes.to_vec(), write.expires_at_ms);
        state.entries.insert(at, RawEntry { bytes, version, expires_at_ms });
        Ok(version)
    }

    fn take(&self, space: &str, key: &str) -> Result<Option<RawEntry>, Error> {
        Ok(self.0.lock().entries.remove(&at(space, key)))
    }

    fn delete(&self, space: &str, key: &str, expected: Expected) -> Result<bool, Error> {
        let (at, mut state) = (at(space, key), self.0.lock());
        match expected.is_met_by(state.version(&at)) {
            true => Ok(state.entries.remove(&at).is_some()),
            false => Err(Error::Conflict),
        }
    }

    fn list(&self, space: &str) -> Result<Vec<Listed>, Error> {
        let state = self.0.lock();
        let of_space = state.entries.iter().filter(|((of, _), _)| of == space);
        let listed = of_space.map(|((_, key), entry)| Listed {
            key: key.clone(),
            version: entry.version,
            expires_at_ms: entry.expires_at_ms,
        });
        Ok(listed.collect())
    }

    fn lease(&self, space: &str, key: &str, now_ms: u64, ttl: Duration) -> Result<Granted, Error> {
        let (at, mut state) = (at(space, key), self.0.lock());
        match state.leases.get(&at) {
            _ if !state.entries.contains_key(&at) => return Err(Error::Conflict),
            Some(&(_, until_ms)) if until_ms > now_ms => return Err(Error::Held { until_ms }),
            _ => {}
        }
        let ttl = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        let granted = Granted { fence: state.count(), until_ms: now_ms.saturating_add(ttl) };
        state.leases.insert(at, (granted.fence, granted.until_ms));
        Ok(granted)
    }

    fn release(&self, space: &str, key: &str, fence: u64) -> Result<(), Error> {
        if let Some(lease) = self.0.lock().leases.get_mut(&at(space, key))
            && lease.0 == fence
        {
            lease.1 = 0;
        }
        Ok(())
    }

    fn owner(&self) -> Result<String, Error> {
        Ok("this".to_owned())
    }

    fn is_alive(&self, _: &str) -> Result<bool, Error> {
        Ok(true)
    }
}
