//! Which servers run on a store, and which keys each of them has.
//!
//! A record must not be sealed with a key that another running server lacks: it would take the
//! account for sealed. So every server registers its keys as long as it lives.

use super::{Error, Expected, Inner, Key, KeyRing, Space, Store};
use serde::{Deserialize, Serialize};
use std::fs;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceInfo {
    /// Its number, in its own namespace.
    pub pid: u32,
    /// Its machine or container; none where the system does not say.
    #[serde(default)]
    pub host: Option<String>,
    /// The build; none of one that is older than this member.
    #[serde(default)]
    pub version: Option<String>,
    keys: Vec<KeyName>,
}

/// A key that an instance has. The check value differs between keys of one id and reveals none of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct KeyName {
    id: String,
    check: String,
}

impl InstanceInfo {
    pub(super) fn of(ring: &KeyRing) -> Self {
        let name = |key: &Key| KeyName { id: key.id.clone(), check: key.record.check.clone() };
        Self {
            pid: std::process::id(),
            host: host(),
            version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            keys: ring.keys().map(name).collect(),
        }
    }

    /// Whether it is this very process.
    #[cfg_attr(not(feature = "dashboard"), allow(dead_code, reason = "only pages ask for it"))]
    pub fn is_this_process(&self) -> bool {
        self.pid == std::process::id() && self.host == host()
    }

    pub fn seals_with(&self, id: &str) -> bool {
        self.keys.first().is_some_and(|key| key.id == id)
    }

    pub fn has(&self, key: &Key) -> bool {
        self.keys.iter().any(|one| one.id == key.id && one.check == key.record.check)
    }
}

/// The name of this machine, or of the container that the process is in.
fn host() -> Option<String> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

/// Registers this process with the store, until it is dropped or the process ends.
#[derive(Debug)]
pub struct Instance {
    store: Store,
    owner: String,
}

impl Drop for Instance {
    fn drop(&mut self) {
        // An entry that stays is removed by the next process that looks.
        let backend = &self.store.0.backend;
        let _ = backend.delete(Space::Instances.as_str(), &self.owner, Expected::Any);
    }
}

impl Store {
    /// Registers this process and its keys, for as long as the result lives. A server does so,
    /// since others may write what it must be able to read. Blocks.
    pub fn register(&self) -> Result<Instance, Error> {
        let owner = self.0.backend.owner()?;
        let info = InstanceInfo::of(self.ring());
        self.0.backend.put_clear(Space::Instances, &owner, &info, Expected::Any)?;
        Ok(Instance { store: self.clone(), owner })
    }

    /// The name of this process as an owner of entries, alive as long as the store is open.
    pub async fn owner(&self) -> Result<String, Error> {
        self.run(|inner| inner.backend.owner()).await
    }

    pub async fn is_alive(&self, owner: &str) -> Result<bool, Error> {
        self.at(owner, |inner, owner| inner.backend.is_alive(owner)).await
    }

    /// The servers that run on the store, this one included if it has registered.
    pub async fn instances(&self) -> Result<Vec<InstanceInfo>, Error> {
        self.run(Inner::instances).await
    }
}

impl Inner {
    /// The live instances. Removes those of processes that were killed.
    pub(super) fn instances(&self) -> Result<Vec<InstanceInfo>, Error> {
        let live = self.backend.live(Space::Instances.as_str())?;
        // One of another version cannot be judged.
        Ok(live.iter().filter_map(|entry| serde_json::from_slice(&entry.bytes).ok()).collect())
    }
}
