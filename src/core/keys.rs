//! What a server owes the others on its store: it says which keys it has, and finishes a rotation
//! that was interrupted.

use crate::{
    config::Config,
    error_chain::chain,
    store::{CredentialStore, FileStore, Presence, seal::NotOpened},
};
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
pub(super) async fn look_after(store: Arc<dyn CredentialStore>, config: Arc<Config>) {
    let Some(store) = store.sealed() else { return };
    name_missing(store).await;
    loop {
        match store.finish_rotation(&config.accounts).await {
            Ok(None) => return,
            Ok(Some(report)) => {
                let (records, resealed) = (report.records, report.resealed);
                info!(records, resealed, "an interrupted rotation of keys was finished");
                for (account, error) in &report.failed {
                    let account = account.as_str();
                    warn!(account, error = %chain(error), "the record was not sealed anew");
                }
                if report.failed.iter().all(|(_, error)| error.is_lasting()) {
                    return;
                }
            }
            Err(refusal) => {
                let error = chain(&refusal);
                warn!(error, "an interrupted rotation of keys cannot be finished yet");
            }
        }
        tokio::time::sleep(PAUSE).await;
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
