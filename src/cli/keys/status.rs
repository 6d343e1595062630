//! `adsproxy key status` and `key retire`: what needs which key.

use super::{audit, print, table};
use crate::{
    audit::{Action, Actor, Entry},
    config::Config,
    error_chain::chain,
    store::{CredentialStore as _, FileStore},
};
use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What needs one key.
#[derive(Debug, Default)]
struct Uses {
    /// Accounts whose records it sealed.
    records: Vec<String>,
    /// Accounts whose records hold a fingerprint of the first version, made with it.
    fingerprints: Vec<String>,
    /// What else is sealed or authenticated with it.
    others: Vec<String>,
}

impl Uses {
    fn is_needed(&self) -> bool {
        !(self.records.is_empty() && self.fingerprints.is_empty() && self.others.is_empty())
    }
}

/// Everything that is sealed.
#[derive(Debug, Default)]
struct Inventory {
    uses: BTreeMap<String, Uses>,
    /// Accounts whose records do not open, and why.
    unreadable: Vec<(String, String)>,
    unfinished_rotation: Option<String>,
}

impl Inventory {
    async fn take(config: &Config, store: &FileStore) -> anyhow::Result<Self> {
        let mut found = Self::default();
        for account in store.list().await? {
            match store.key_use(&account).await {
                Ok(None) => continue,
                Ok(Some(key_use)) => {
                    found.of(key_use.key_id).records.push(account.to_string());
                    if let Some(id) = key_use.fingerprint_key_id {
                        found.of(id).fingerprints.push(account.to_string());
                    }
                }
                // Below, it does not open either.
                Err(error) if error.is_lasting() => {}
                Err(error) => return Err(error.into()),
            }
            if let Err(error) = store.load(&account).await {
                found.unreadable.push((account.to_string(), chain(&error)));
            }
        }
        for id in audit(config, store)?.keys_needed()? {
            found.of(id).others.push("audit log".to_owned());
        }
        for (id, count) in store.notes_by_key().await? {
            found.of(id).others.push(format!("{count} notes of logins, links and profiles"));
        }
        found.unfinished_rotation = store.unfinished_rotation().await?;
        Ok(found)
    }

    fn of(&mut self, id: String) -> &mut Uses {
        self.uses.entry(id).or_default()
    }

    fn needs(&self, id: &str) -> bool {
        self.uses.get(id).is_some_and(Uses::is_needed)
    }
}

pub(super) async fn run(config: &Config, store: &FileStore, as_json: bool) -> anyhow::Result<()> {
    let found = Inventory::take(config, store).await?;
    if as_json {
        return print(format!("{:#}\n", to_json(store, &found)));
    }
    let ids: Vec<&str> = store.ring().ids().collect();
    let mut rows = vec![["KEY", "STATE", "RECORDS", "OTHER USES"].map(str::to_owned)];
    let none = Uses::default();
    let missing = found.uses.keys().map(String::as_str).filter(|id| !ids.contains(id));
    for id in ids.iter().copied().chain(missing) {
        let uses = found.uses.get(id).unwrap_or(&none);
        let others = uses.fingerprints.len() + uses.others.len();
        rows.push([
            id.to_owned(),
            state(store, &ids, id, uses).replace('_', " "),
            uses.records.len().to_string(),
            others.to_string(),
        ]);
    }
    let mut text = table(&rows);
    for (account, error) in &found.unreadable {
        text.push_str(&format!("\n{account} does not open: {error}"));
    }
    if !found.unreadable.is_empty() {
        text.push('\n');
    }
    if let Some(to) = &found.unfinished_rotation {
        text.push_str(&format!(
            "\nA rotation to key {to} is under way or was interrupted: `adsproxy key rotate` \
             finishes it.\n"
        ));
    }
    print(text)
}

/// `seals`, `opens`, `unused`, `not_configured` or `wrong_passphrase`.
fn state(store: &FileStore, configured: &[&str], id: &str, uses: &Uses) -> &'static str {
    let ring = store.ring();
    match configured.contains(&id) {
        false => "not_configured",
        true if ring.lacks(id).is_some() => "wrong_passphrase",
        true if id == ring.sealing_key_id() => "seals",
        true if uses.is_needed() => "opens",
        true => "unused",
    }
}

fn to_json(store: &FileStore, found: &Inventory) -> Value {
    let configured: Vec<&str> = store.ring().ids().collect();
    let none = Uses::default();
    let missing = found.uses.keys().map(String::as_str).filter(|id| !configured.contains(id));
    let keys: Vec<Value> = configured
        .iter()
        .copied()
        .chain(missing)
        .map(|id| {
            let uses = found.uses.get(id).unwrap_or(&none);
            json!({
                "id": id,
                "state": state(store, &configured, id, uses),
                "records": uses.records,
                "fingerprints": uses.fingerprints,
                "others": uses.others,
            })
        })
        .collect();
    let unreadable: Vec<Value> = found
        .unreadable
        .iter()
        .map(|(account, error)| json!({ "account": account, "error": error }))
        .collect();
    json!({
        "version": 1,
        "keys": keys,
        "unreadable": unreadable,
        "unfinished_rotation": found.unfinished_rotation,
    })
}

pub(super) async fn retire(config: &Config, store: &FileStore, id: &str) -> anyhow::Result<()> {
    let found = Inventory::take(config, store).await?;
    if id == store.ring().sealing_key_id() {
        bail!("key {id} is the first of encryption.keys and seals: put another in front first");
    }
    if let Some(to) = &found.unfinished_rotation {
        bail!("a rotation to key {to} is not finished: run `adsproxy key rotate`");
    }
    if found.needs(id) {
        let uses = &found.uses[id];
        bail!(
            "key {id} is still needed, by {} records, {} fingerprints and {} other things: \
             run `adsproxy key rotate`; `adsproxy key status --json` names them",
            uses.records.len(),
            uses.fingerprints.len(),
            uses.others.len(),
        );
    }
    let (sealing, check) = store.ring().sealing_check();
    for process in store.processes().await? {
        if !process.has(sealing, check) || process.seals_with(id) {
            bail!(
                "the server with process id {} still seals with key {id}: give it the new list of \
                 keys and restart it, then `adsproxy key rotate`",
                process.pid
            );
        }
    }
    // Nobody can tell which key a record needs that is damaged as a whole.
    if let Some((account, error)) = found.unreadable.first() {
        bail!("the record of {account} does not open ({error}): mend or remove it first");
    }
    if !store.ring().ids().any(|known| known == id) {
        return print(format!("key {id} is not in encryption.keys, and nothing needs it\n"));
    }
    let entry = Entry::new(Actor::cli(), Action::KeyRetire).about(id);
    audit(config, store)?.record(&entry).context("the key was not retired")?;
    print(format!(
        "nothing needs key {id}: take it out of encryption.keys and restart the servers. Keep the \
         key\nitself as long as you keep backups of the store that were made before the rotation.\n"
    ))
}
