//! What a server owes the others on its store: it says which keys it has, and finishes a rotation
//! that was interrupted.

use crate::{
    audit::{self, Action, Actor, Audit, Entry},
    config::Config,
    error_chain::chain,
    store::{
        self, CredentialStore, FileStore, Presence,
        rotate::{self, Rotation},
        seal::NotOpened,
    },
};
use parking_lot::Mutex;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tracing::{error, info, warn};

/// How long a rotation that could not be finished is left alone.
const PAUSE: Duration = Duration::from_secs(30);

/// Says which keys this process has, for as long as the result lives. A disk that refuses is no
/// reason not to serve.
pub(super) fn announce(store: &dyn CredentialStore) -> Option<Presence> {
    match store.sealed()?.announce() {
        Ok(presence) => Some(presence),
        Err(error) => {
            warn!(error = %chain(&error), "cannot tell other processes which keys this one has");
            None
        }
    }
}

/// Names the keys that records need and this process lacks, and finishes an interrupted rotation.
pub(super) async fn look_after(
    store: Arc<dyn CredentialStore>,
    config: Arc<Config>,
    audit: Audit,
    presence: Arc<Mutex<Option<Presence>>>,
) {
    let Some(sealed) = store.sealed() else { return };
    name_missing(sealed).await;
    // A rotation must not overlook this process because the disk was full when it began.
    while presence.lock().is_none() {
        tokio::time::sleep(PAUSE).await;
        *presence.lock() = announce(&*store);
    }
    let store = sealed;
    loop {
        match finish(store, &config, &audit).await {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) => {
                let error = chain(&error);
                warn!(error, "an interrupted rotation of keys cannot be finished yet");
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Why an interrupted rotation cannot be finished now.
#[derive(Debug, thiserror::Error)]
enum Unfinished {
    #[error(transparent)]
    Refused(#[from] rotate::Refusal),
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(transparent)]
    Audit(#[from] audit::Error),
}

/// Finishes an interrupted rotation; says whether nothing is left to do.
async fn finish(store: &FileStore, config: &Config, audit: &Audit) -> Result<bool, Unfinished> {
    if !store.must_finish_rotation().await? {
        return Ok(true);
    }
    let rotation = Rotation::prepare(store).await?;
    let entry = Entry::new(Actor::Server, Action::KeyRotate).about(store.ring().sealing_key_id());
    audit.write(entry.clone().attempt()).await?;
    let done = rotation.run(&config.accounts, |_, _| ()).await;
    audit.write(concluded(entry, &done)).await?;
    let report = done?;
    let log = audit.clone();
    // What remains of it, `key status` shows and the next `key rotate` does.
    let anchored = tokio::task::spawn_blocking(move || log.reanchor()).await;
    if let Ok(Err(error)) = anchored {
        warn!(error = %chain(&error), "the audit log still needs the old key");
    }
    let (records, resealed) = (report.records, report.resealed);
    info!(records, resealed, "an interrupted rotation of keys was finished");
    for (account, error) in &report.failed {
        let account = account.as_str();
        warn!(account, error = %chain(error), "the record was not sealed anew");
    }
    Ok(report.failed.iter().all(|(_, error)| error.is_lasting()))
}

/// `entry` with how a rotation ended.
pub(crate) fn concluded(entry: Entry, done: &Result<rotate::Report, store::Error>) -> Entry {
    match done {
        Ok(report) if report.failed.is_empty() => entry.ok().count(report.resealed as u64),
        Ok(report) => entry.failed("records_left").count(report.resealed as u64),
        Err(_) => entry.failed("store_failed"),
    }
}

async fn name_missing(store: &FileStore) {
    let mut needed: BTreeMap<(String, NotOpened), usize> = BTreeMap::new();
    for account in store.list().await.unwrap_or_default() {
        let Ok(Some(found)) = store.key_use(&account).await else { continue };
        if let Some(why) = store.ring().lacks(&found.key_id) {
            *needed.entry((found.key_id, why)).or_default() += 1;
        }
    }
    for ((key, why), records) in needed {
        error!(key, records, "these accounts are sealed and wait for their key: {why}");
    }
}
