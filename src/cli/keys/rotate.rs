//! `adsproxy key rotate`: seals every record anew with the first key.

use crate::{
    audit::{Action, Actor, Audit, Entry},
    cli::{note, print},
    engine::keys::concluded,
    error_chain::chain,
    store::{Store, rotate::Rotation},
};
use anyhow::{Context as _, bail};
use std::io::{self, IsTerminal};

/// The whole way from an old key to a new one.
pub(super) const HOW: &str = "\
To change the key that seals the store:
  1. adsproxy key init --path ~/.config/adsproxy/key-2   makes a new one
  2. Put its line in front of the old one in encryption.keys, for every server
     on this store, and restart them in any order. They go on sealing with the
     old key until all of them have the new one.
  3. adsproxy key rotate                                 fails no request
  4. adsproxy key status                                 nothing needs the old one
  5. Take the old line out and restart the servers.
A rotation that was interrupted is finished by the next `key rotate`, or by a
server when it starts.";

pub(super) async fn run(store: &Store, audit: &Audit) -> anyhow::Result<()> {
    let rotation = Rotation::prepare(store).await?;
    let key = store.ring().sealing_key_id();
    let entry = Entry::new(Actor::cli(), Action::KeyRotate).about(key);
    audit.record(&entry.clone().attempt()).context("nothing was changed")?;
    let is_shown = io::stderr().is_terminal();
    let progress = |done, all| {
        if is_shown {
            eprint!("\r{done} of {all} records{}", if done == all { "\n" } else { "" });
        }
    };
    let done = rotation.run(progress).await;
    audit.record(&concluded(entry, &done))?;
    let report = done?;
    print(format!(
        "{} of {} records sealed anew with key {key}; {} had it already\n",
        report.resealed,
        report.records,
        report.records.saturating_sub(report.resealed + report.failed.len()),
    ))?;
    for (account, error) in &report.failed {
        note(format_args!("{account}: {}", chain(error)));
    }
    match (report.failed.len(), report.entries_left) {
        (0, 0) => Ok(()),
        (failed, 0) => bail!("{failed} records are as they were"),
        (failed, left) => bail!(
            "{failed} records are as they were, and {left} other entries are still sealed with an \
             old key, because a server lacks the new one that has just started: restart that \
             server with the new list of keys, then rotate again"
        ),
    }
}
