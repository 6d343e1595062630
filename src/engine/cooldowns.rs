//! Shares with the other servers of a database what Amazon throttles, where hopeless calls are not sent.
//!
//! While the database is down, each server goes by what it has heard itself.

use crate::{
    clock::{Clock, Now},
    error_chain::chain,
    secret::Secret,
    store::{self, Item, Limit, Space, Store, backend::SeenEntries},
    throttling::{SharedWait, Throttling},
};
use std::{sync::Arc, time::Duration};
use tokio::time::{MissedTickBehavior, interval};
use tracing::warn;

/// How often the store is asked for what others were throttled for.
const FOLLOW_INTERVAL: Duration = Duration::from_secs(1);
/// Waits that a server writes between two looks; the others are sent later.
const WRITES_MAX: usize = 20;
/// Waits that are kept at a time; what comes beyond stays with its server.
const KEPT_MAX: usize = 1000;

/// Shares until dropped; ends at once where there is nothing to share, or no other server.
pub(super) async fn share(throttling: Arc<Throttling>, store: Store, clock: Arc<dyn Clock>) {
    if !throttling.is_enforced() || !store.is_shared() {
        return;
    }
    throttling.share();
    let (mut seen, mut is_failing) = (SeenEntries::default(), false);
    let mut looks = interval(FOLLOW_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut outgoing, mut writes_left) = (Vec::new(), WRITES_MAX);
    loop {
        let is_look = tokio::select! {
            _ = looks.tick() => true,
            () = throttling.until_outgoing(), if writes_left > 0 => false,
        };
        if is_look {
            writes_left = WRITES_MAX;
        }
        let room = writes_left.saturating_sub(outgoing.len());
        outgoing.extend(throttling.take_outgoing(room, clock.now()));
        let done = async {
            while let Some(wait) = outgoing.last() {
                write(&store, wait, clock.now()).await?;
                outgoing.pop();
                writes_left = writes_left.saturating_sub(1);
            }
            if is_look { read(&store, &mut seen, &throttling, &*clock).await } else { Ok(()) }
        };
        match done.await {
            Ok(()) => is_failing = false,
            Err(error) => {
                // With the next look what is left is tried again.
                writes_left = 0;
                if !std::mem::replace(&mut is_failing, true) {
                    let error = chain(&error);
                    warn!(error, "cannot share what Amazon throttles: each server goes by itself");
                }
            }
        }
    }
}

/// Writes a wait that is not over by now, unless there are too many.
async fn write(store: &Store, wait: &SharedWait, now: Now) -> Result<(), store::Error> {
    let now_ms = u64::try_from(now.wall.as_millis()).unwrap_or(u64::MAX);
    if wait.until_ms <= now_ms {
        return Ok(());
    }
    let text = serde_json::to_string(wait).expect("texts and numbers are JSON");
    let (text, expires_at_ms) = (Secret::new(text), Some(wait.until_ms));
    let (item, limit) =
        (Item { account: None, expires_at_ms, text }, Limit { max: KEPT_MAX, now_ms });
    match store.entries(Space::Throttled).put(&wait.name(), &item, limit).await {
        Err(store::Error::Full) => Ok(()),
        written => written,
    }
}

async fn read(
    store: &Store,
    seen: &mut SeenEntries,
    throttling: &Throttling,
    clock: &dyn Clock,
) -> Result<(), store::Error> {
    let changed = store.entries(Space::Throttled).changed_items(seen).await?;
    for (_, item) in changed {
        let wait = item.and_then(|item| serde_json::from_str(item.text.expose()).ok());
        if let Some(wait) = wait {
            throttling.learn(&wait, clock.now());
        }
    }
    Ok(())
}
