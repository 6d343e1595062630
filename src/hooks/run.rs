//! The one task that takes messages from the outbox to the hooks.

use super::{
    DeliveryError, Destination, HookContext,
    message::Message,
    outbox::{Others, Outbox},
};
use crate::{error_chain::chain, event::Kind};
use std::{future, sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use tracing::warn;

/// How often messages of other processes are looked for.
const TAKE_OVER_INTERVAL: Duration = Duration::from_secs(2);

pub(super) struct Runner {
    /// As many as the outbox has hooks, in the same order.
    pub(super) destinations: Vec<Arc<Destination>>,
    pub(super) outbox: Arc<Outbox>,
    /// The outbox ends with the process.
    pub(super) is_in_memory: bool,
    pub(super) with: Arc<HookContext>,
    /// Each ends with the number of its hook and the name of its message.
    pub(super) deliveries: JoinSet<(usize, String, Result<(), DeliveryError>)>,
}

impl Runner {
    pub(super) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let outbox = self.outbox.clone();
        let mut take_over = interval(TAKE_OVER_INTERVAL);
        take_over.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut others = Others::default();
        loop {
            outbox.write().await;
            self.start();
            outbox.count();
            tokio::select! {
                () = outbox.changed.notified() => {}
                Some(Ok((hook, name, result))) = self.deliveries.join_next() => {
                    outbox.record(hook, &name, result.as_ref().copied());
                }
                () = at(outbox.next_due()) => {}
                _ = take_over.tick() => {
                    if let Err(error) = outbox.take_over(&mut others).await {
                        warn!(error = %chain(&error), "cannot take over messages to hooks");
                    }
                }
                _ = stop.changed() => break,
            }
        }
        outbox.write().await;
        if self.is_in_memory {
            self.start();
        }
        while let Some(Ok((hook, name, result))) = self.deliveries.join_next().await {
            outbox.record(hook, &name, result.as_ref().copied());
        }
        outbox.write().await;
    }

    /// Starts what is due.
    fn start(&mut self) {
        for (hook, message) in self.outbox.start() {
            let (destination, with) = (self.destinations[hook].clone(), self.with.clone());
            self.deliveries.spawn(async move {
                let name = message.name();
                // A task of its own, so that a panic is a failed attempt, too.
                let delivery = tokio::spawn(deliver(destination, message, with));
                let result = delivery.await.unwrap_or_else(|_| {
                    Err(DeliveryError::new("its delivery broke off inside adsproxy".to_owned()))
                });
                (hook, name, result)
            });
        }
    }
}

async fn deliver(
    destination: Arc<Destination>,
    message: Message,
    with: Arc<HookContext>,
) -> Result<(), DeliveryError> {
    let account = message.account.as_ref().and_then(|account| account.parse().ok());
    let url = match account {
        Some(account) if message.kind == Kind::ReauthorizationRequired.as_str() => {
            (with.reconnect)(account).await
        }
        _ => None,
    };
    destination.deliver(&message, url.as_ref(), with.clock.now().unix()).await.map(drop)
}

/// Waits until `due`, for ever if there is no such time.
async fn at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => future::pending().await,
    }
}
