//! What a server does for the store it shares: it registers its keys with the other servers, names
//! missing keys, and finishes a rotation that was interrupted.

use crate::{
    audit::{Action, Actor, Audit, Entry},
    error_chain::chain,
    store::{
        self, Instance, Store,
        rotate::{Rotation, RotationReport},
    },
};
use parking_lot::Mutex;
use std::{error::Error, sync::Arc, time::Duration};
use tracing::{error, info, warn};

/// Between two attempts to register, or to finish a rotation.
const PAUSE: Duration = Duration::from_secs(30);

/// Registers this process and its keys for as long as the result lives. A disk that refuses is no
/// reason not to serve.
pub(super) fn register(store: &Store) -> Option<Instance> {
    let registered = store.register();
    registered
        .inspect_err(|error| {
            let error = chain(error);
            warn!(error, "cannot register the keys of this process with other servers");
        })
        .ok()
}

/// Logs which keys are missing, and finishes an interrupted rotation.
pub(super) async fn maintain(store: Store, audit: Audit, instance: Arc<Mutex<Option<Instance>>>) {
    log_missing(&store).await;
    // A rotation must not overlook this process because the disk was full when it began.
    while instance.lock().is_none() {
        tokio::time::sleep(PAUSE).await;
        *instance.lock() = register(&store);
    }
    loop {
        match finish(&store, &audit).await {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) => {
                let error = chain(&*error);
                warn!(error, "an interrupted rotation of keys cannot be finished yet");
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Finishes an interrupted rotation; says whether nothing is left to do.
async fn finish(store: &Store, audit: &Audit) -> Result<bool, Box<dyn Error + Send + Sync>> {
    let to = store.unfinished_rotation().await?;
    if to.is_none_or(|to| to != store.ring().sealing_key_id()) {
        return Ok(true);
    }
    let rotation = Rotation::prepare(store).await?;
    let entry = Entry::new(Actor::Server, Action::KeyRotate).about(store.ring().sealing_key_id());
    audit.write(entry.clone().attempt()).await?;
    let done = rotation.run(|_, _| ()).await;
    audit.write(concluded(entry, &done)).await?;
    let report = done?;
    let (records, resealed) = (report.records, report.resealed);
    match report.is_done() {
        true => info!(records, resealed, "an interrupted rotation of keys was finished"),
        false => {
            let left = report.entries_left;
            warn!(
                records,
                resealed, left, "an interrupted rotation of keys cannot be finished yet"
            );
        }
    }
    for (account, error) in &report.failed {
        let account = account.as_str();
        warn!(account, error = %chain(error), "the record was not sealed anew");
    }
    Ok(report.is_done())
}

/// `entry` with how a rotation ended.
pub(crate) fn concluded(entry: Entry, done: &Result<RotationReport, store::Error>) -> Entry {
    match done {
        Ok(report) if report.failed.is_empty() && report.entries_left == 0 => {
            entry.count(report.resealed as u64)
        }
        Ok(report) => entry.failed("records_left").count(report.resealed as u64),
        Err(_) => entry.failed("store_failed"),
    }
}

async fn log_missing(store: &Store) {
    let Ok(found) = store.key_uses().await else { return };
    for (key, uses) in found.keys {
        let records = uses.accounts.len();
        if records > 0 && !store.ring().has(&key) {
            error!(key, records, "these accounts are sealed: their key is not configured");
        }
    }
}
