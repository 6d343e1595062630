//! `adsproxy key status` and `key retire`: what needs which key.

use super::{print, table};
use crate::{
    audit::{Action, Actor, Audit, Entry},
    store::Store,
};
use anyhow::{Context as _, bail};
use serde_json::{Value, json};

/// The keys of the configuration in their order, then those that are only in the store.
pub(super) async fn run(store: &Store, as_json: bool) -> anyhow::Result<()> {
    let found = store.key_uses().await?;
    let ring = store.ring();
    let missing = found.keys.keys().map(String::as_str).filter(|id| !ring.has(id));
    let keys = ring.ids().chain(missing).map(|id| {
        let uses = found.keys.get(id);
        let state = match ring.has(id) {
            false => "not_configured",
            true if id == ring.sealing_key_id() => "seals",
            true if uses.is_some() => "opens",
            true => "unused",
        };
        (id, state, uses.cloned().unwrap_or_default())
    });
    if as_json {
        let keys = keys.map(|(id, state, uses)| {
            json!({ "id": id, "state": state, "records": uses.accounts, "others": uses.entries })
        });
        let unreadable = found.unreadable.iter();
        let unreadable =
            unreadable.map(|(account, error)| json!({ "account": account, "error": error }));
        let document = json!({
            "version": 1,
            "keys": keys.collect::<Value>(),
            "unreadable": unreadable.collect::<Value>(),
            "unfinished_rotation": found.unfinished_rotation,
        });
        return print(format!("{document:#}\n"));
    }
    let mut cells = vec![["KEY", "STATE", "RECORDS", "OTHER USES"].map(str::to_owned)];
    cells.extend(keys.map(|(id, state, uses)| {
        let (records, entries) = (uses.accounts.len().to_string(), uses.entries.to_string());
        [id.to_owned(), state.replace('_', " "), records, entries]
    }));
    let mut text = table(&cells);
    for (account, error) in &found.unreadable {
        text += &format!("\n{account} does not open: {error}\n");
    }
    if let Some(to) = &found.unfinished_rotation {
        text += &format!(
            "\nA rotation to key {to} is under way or was interrupted: `adsproxy key rotate` \
             finishes it.\n"
        );
    }
    print(text)
}

pub(super) async fn retire(store: &Store, audit: &Audit, id: &str) -> anyhow::Result<()> {
    let found = store.key_uses().await?;
    if id == store.ring().sealing_key_id() {
        bail!("key {id} is the first of encryption.keys and seals: put another in front first");
    }
    if let Some(to) = &found.unfinished_rotation {
        bail!("a rotation to key {to} is not finished: run `adsproxy key rotate`");
    }
    if let Some(uses) = found.keys.get(id) {
        bail!(
            "key {id} is still needed, by {} records and {} other entries: run `adsproxy key \
             rotate`; `adsproxy key status --json` names them",
            uses.accounts.len(),
            uses.entries,
        );
    }
    let sealing = store.ring().first();
    for instance in store.instances().await? {
        if !instance.has(sealing) || instance.seals_with(id) {
            bail!(
                "the server with process id {} still seals with key {id}: give it the new list of \
                 keys and restart it, then `adsproxy key rotate`",
                instance.pid
            );
        }
    }
    // It cannot be said which key a record needs that is damaged as a whole.
    if let Some((account, error)) = found.unreadable.first() {
        bail!("the record of {account} does not open ({error}): restore or remove it first");
    }
    if !store.ring().has(id) {
        return print(format!("key {id} is not in encryption.keys, and nothing needs it\n"));
    }
    let entry = Entry::new(Actor::cli(), Action::KeyRetire).about(id);
    audit.record(&entry).context("the key was not retired")?;
    print(format!(
        "nothing needs key {id}: take it out of encryption.keys and restart the servers. Keep the \
         key\nitself as long as you keep backups of the store that were made before the rotation.\n"
    ))
}
