//! Messages that wait, in memory and in the store: what was reported once is delivered, whichever
//! process is killed in between.
//!
//! A message in the store names its owner, the one process that delivers it. When that process has
//! ended, another one replaces the name by its own, which the store lets only one do; a command
//! hands messages to a server by naming no owner. Dead letters are messages in the same space that
//! no process delivers. If the store takes no messages, they wait in memory.

use super::{
    DeliveryError, HookContext,
    message::Message,
    schedule::{AttemptEnd, Schedule},
};
use crate::{
    clock::Clock,
    config::{self, Config},
    error_chain::chain,
    event::{Event, Kind},
    metrics::{Dropped, HookOutcome, Metrics},
    secret::Secret,
    store::{self, Expected, Item, Space, Store, Version, backend::SeenEntries},
};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};
use tracing::{info, warn};

/// The longest that a refresh waits for the store to take messages.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
/// So many messages that were delivered or given up are remembered, the latest.
const ENDED_MAX: usize = 1000;
/// Losses are logged this often at most.
const WARN_INTERVAL: Duration = Duration::from_secs(60);

/// The messages of this process.
#[derive(Debug)]
pub struct Outbox {
    store: Store,
    hooks: Vec<config::HookConfig>,
    limits: config::OutboxConfig,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    state: Mutex<OutboxState>,
    /// Held by the one task that writes to the store.
    writing: tokio::sync::Mutex<()>,
    /// Something is new.
    pub(super) changed: Notify,
}

#[derive(Debug, Default)]
struct OutboxState {
    /// As many as hooks, in the same order.
    schedules: Vec<Schedule>,
    /// What the store does not have yet, by name; none: to be deleted.
    unwritten: BTreeMap<String, Option<Message>>,
    /// Names of dead letters, oldest first.
    dead: BTreeSet<String>,
    /// Messages that this process delivered or gave up, the latest last.
    ended: VecDeque<Message>,
    /// The newest order that was given out: two messages never have the same.
    last_order: u64,
    warned: Option<Instant>,
}

impl OutboxState {
    fn remember(&mut self, message: Message) {
        if self.ended.len() == ENDED_MAX {
            self.ended.pop_front();
        }
        self.ended.push_back(message);
    }

    fn waiting(&self) -> usize {
        self.schedules.iter().map(|schedule| schedule.waiting.len()).sum()
    }
}

/// What a process knows of messages in the store that are not its own.
#[derive(Debug, Default)]
pub(super) struct Others {
    seen: SeenEntries,
    owners: BTreeMap<String, Option<String>>,
}

impl Outbox {
    pub(super) fn new(config: &Config, with: &HookContext) -> Self {
        let schedules = config.hooks.iter().map(|_| Schedule::new(&config.outbox)).collect();
        Self {
            store: with.store.clone(),
            hooks: config.hooks.clone(),
            limits: config.outbox.clone(),
            clock: with.clock.clone(),
            metrics: with.metrics.clone(),
            state: Mutex::new(OutboxState { schedules, ..OutboxState::default() }),
            writing: tokio::sync::Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// Queues a message for each hook that receives such events. The runner writes and sends it.
    pub(crate) fn push(&self, event: &Event) {
        let mut state = self.state.lock();
        for (hook, config) in self.hooks.iter().enumerate() {
            if config.events.contains(&event.kind) {
                let mut message = Message::new(event, &config.name, self.clock.now());
                message.order = message.order.max(state.last_order + 1);
                state.last_order = message.order;
                state.unwritten.insert(message.name(), Some(message.clone()));
                self.insert(&mut state, hook, message);
            }
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Waits until the store has what was queued so far, for a second at most: a disk that hangs
    /// must not hold up a refresh.
    pub(crate) async fn flush(&self) {
        let _ = timeout(FLUSH_TIMEOUT, self.write()).await;
    }

    /// Brings the store up to date. What it refuses waits in memory all the same.
    ///
    /// # Cancel safety
    /// Safe: what was under way is written again.
    pub(super) async fn write(&self) {
        let _turn = self.writing.lock().await;
        loop {
            let next =
                self.state.lock().unwritten.first_key_value().map(|(n, m)| (n.clone(), m.clone()));
            let Some((name, message)) = next else { return };
            let written = match &message {
                Some(message) => self.put(message.clone(), Expected::Any).await.map(drop),
                None => self.store.entries(Space::Outbox).delete(&name).await.map(drop),
            };
            if let Err(error) = written {
                self.metrics.hooks.write_failed();
                warn!(error = %chain(&error), "a message to a hook cannot be kept on disk");
            }
            let mut state = self.state.lock();
            if state.unwritten.get(&name) == Some(&message) {
                state.unwritten.remove(&name);
            }
        }
    }

    /// Writes `message` as this process's own; none if the store holds another than `expected`.
    async fn put(
        &self,
        mut message: Message,
        expected: Expected,
    ) -> Result<Option<Message>, store::Error> {
        message.owner = match message.is_dead {
            true => None,
            false => Some(self.store.owner().await?),
        };
        Ok(put(&self.store, &message, expected).await?.then_some(message))
    }

    /// Adds a message to a schedule; if there are too many, the least of all goes: the oldest
    /// refresh, else the oldest.
    fn insert(&self, state: &mut OutboxState, hook: usize, message: Message) {
        let mut lost = 0;
        while state.waiting() >= self.limits.messages_max {
            let candidates = state.schedules.iter().enumerate().filter_map(|(hook, schedule)| {
                Some((schedule.eviction_candidate(Kind::TokenRefreshed.as_str())?, hook))
            });
            let Some(((_, name), hook)) = candidates.min() else { break };
            state.schedules[hook].remove(&name);
            state.unwritten.insert(name, None);
            lost += 1;
        }
        state.schedules[hook].insert(message, self.clock.now(), Instant::now());
        self.report_lost(state, Dropped::OutboxFull, lost);
    }

    /// The messages to send now, each with the number of its hook: those that are due and written.
    pub(super) fn start(&self) -> Vec<(usize, Message)> {
        let OutboxState { schedules, unwritten, .. } = &mut *self.state.lock();
        let mut started = Vec::new();
        for (hook, schedule) in schedules.iter_mut().enumerate() {
            let messages = schedule.start(Instant::now(), |name| unwritten.contains_key(name));
            started.extend(messages.into_iter().map(|message| (hook, message)));
        }
        started
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        let state = self.state.lock();
        state.schedules.iter().filter_map(|schedule| schedule.next_due(Instant::now())).min()
    }

    /// What this process has sent, or is to send, about `account`: the latest `count` messages, the
    /// newest first, and whether each still waits.
    pub(crate) fn of_account(&self, account: &str, count: usize) -> Vec<(Message, bool)> {
        let state = self.state.lock();
        let ended = state.ended.iter().map(|message| (message, false));
        let waiting = state.schedules.iter().flat_map(Schedule::messages);
        let all = waiting.map(|message| (message, true)).chain(ended);
        let mut found: Vec<(Message, bool)> = all
            .filter(|(message, _)| message.account.as_deref() == Some(account))
            .map(|(message, waits)| (message.clone(), waits))
            .collect();
        found.sort_by_key(|(message, _)| std::cmp::Reverse(message.order));
        found.truncate(count);
        found
    }

    /// Records how an attempt ended.
    pub(super) fn record(&self, hook: usize, name: &str, result: Result<(), &DeliveryError>) {
        let now = self.clock.now();
        let state = &mut *self.state.lock();
        match state.schedules[hook].record(name, result, now, Instant::now()) {
            None => {}
            Some(AttemptEnd::Delivered(message)) => {
                self.metrics.hooks.delivery(HookOutcome::Delivered);
                info!(hook = message.hook, event = message.kind, id = message.id, "hook delivered");
                state.unwritten.insert(name.to_owned(), None);
                state.remember(message);
            }
            Some(AttemptEnd::Again(message)) => {
                self.metrics.hooks.delivery(HookOutcome::Failed);
                let Message { hook, kind: event, id, attempts, last_error, .. } = &message;
                let error = last_error.as_deref();
                warn!(hook, event, id, attempts, error, "hook not delivered, to be tried again");
                state.unwritten.insert(name.to_owned(), Some(message));
            }
            Some(AttemptEnd::Dead(message)) => self.give_up(state, message),
        }
        for message in state.schedules[hook].expired(now) {
            self.give_up(state, message);
        }
    }

    /// Makes `message` a dead letter, of which the oldest go if there are too many.
    fn give_up(&self, state: &mut OutboxState, mut message: Message) {
        self.metrics.hooks.delivery(HookOutcome::Dead);
        message.is_dead = true;
        message.last_error.get_or_insert_with(|| "its receiver fails".to_owned());
        let Message { hook, kind: event, id, attempts, last_error, .. } = &message;
        let error = last_error.as_deref();
        let next = "see `adsproxy hooks list`";
        warn!(hook, event, id, attempts, error, next, "hook not delivered, dead-lettered");
        state.dead.insert(message.name());
        state.remember(message.clone());
        state.unwritten.insert(message.name(), Some(message));
        let mut lost = 0;
        while state.dead.len() > self.limits.dead_letters_max {
            state.unwritten.extend(state.dead.pop_first().map(|oldest| (oldest, None)));
            lost += 1;
        }
        self.report_lost(state, Dropped::DeadLettersFull, lost);
    }

    /// Takes over the messages of processes that have ended, and records dead letters that came or
    /// went.
    pub(super) async fn take_over(&self, others: &mut Others) -> Result<(), store::Error> {
        let changed = self.store.entries(Space::Outbox).changed(&mut others.seen).await?;
        let mut names = changed.into_iter();
        while let Some(name) = names.next() {
            if self.is_own(&name) {
                continue;
            }
            others.owners.remove(&name);
            self.state.lock().dead.remove(&name);
            match read(&self.store, &name).await {
                Ok(Some((message, _))) if message.is_dead => {
                    self.state.lock().dead.insert(name);
                }
                Ok(Some((message, _))) => drop(others.owners.insert(name, message.owner)),
                Ok(None) => {}
                Err(error) => {
                    std::iter::once(name).chain(names).for_each(|name| others.seen.repeat(&name));
                    return Err(error);
                }
            }
        }
        let mut alive = HashMap::from([(None, false)]);
        for owner in others.owners.values().flatten() {
            let is_known = alive.contains_key(&Some(owner.clone()));
            if !is_known {
                alive.insert(Some(owner.clone()), self.store.is_alive(owner).await?);
            }
        }
        let left = others.owners.iter().filter(|(_, owner)| !alive[*owner]);
        let left: Vec<String> = left.map(|(name, _)| name.clone()).collect();
        for name in left {
            others.owners.remove(&name);
            if let Some((message, version)) = read(&self.store, &name).await?
                && !message.is_dead
                && let Some(message) = self.put(message, Expected::Version(version)).await?
            {
                self.queue(message);
            }
        }
        Ok(())
    }

    fn is_own(&self, name: &str) -> bool {
        let state = self.state.lock();
        state.unwritten.contains_key(name)
            || state.schedules.iter().any(|schedule| schedule.waiting.contains_key(name))
    }

    fn queue(&self, mut message: Message) {
        let mut state = self.state.lock();
        match self.hooks.iter().position(|hook| hook.name == message.hook) {
            Some(hook) => self.insert(&mut state, hook, message),
            None => {
                message.last_error = Some("no hook has this name any more".to_owned());
                self.give_up(&mut state, message);
            }
        }
    }

    fn report_lost(&self, state: &mut OutboxState, why: Dropped, count: usize) {
        self.metrics.hooks.dropped(why, count as u64);
        let is_quiet = state.warned.is_some_and(|warned| warned.elapsed() < WARN_INTERVAL);
        if count > 0 && !is_quiet {
            state.warned = Some(Instant::now());
            warn!(reason = why.as_str(), count, "messages to hooks were lost");
        }
    }

    /// Brings the gauges up to date.
    pub(super) fn count(&self) {
        let state = self.state.lock();
        self.metrics.hooks.waiting(state.waiting());
        self.metrics.hooks.dead_letters(state.dead.len());
    }
}

/// Every message in the store, oldest first.
pub async fn list(store: &Store) -> Result<Vec<Message>, store::Error> {
    let mut messages = Vec::new();
    for name in store.entries(Space::Outbox).names().await? {
        messages.extend(read(store, &name).await?.map(|(message, _)| message));
    }
    Ok(messages)
}

/// Queues a dead letter anew, for the next server that looks. False if there is none of this id.
pub async fn resend(store: &Store, letter: &Message, now: u64) -> Result<bool, store::Error> {
    let Some((message, version)) = read(store, &letter.name()).await? else { return Ok(false) };
    if !message.is_dead {
        return Ok(false);
    }
    let message = Message {
        queued_at: now,
        attempts: 0,
        not_before: 0,
        last_error: None,
        is_dead: false,
        ..message
    };
    put(store, &message, Expected::Version(version)).await
}

async fn put(store: &Store, message: &Message, expected: Expected) -> Result<bool, store::Error> {
    let text = serde_json::to_string(message).expect("texts and numbers are valid JSON");
    // Not the account's: the message that it was removed or died outlives it.
    let item = Item { account: None, expires_at_ms: None, text: Secret::new(text) };
    store.entries(Space::Outbox).replace(&message.name(), &item, expected).await
}

/// None if it is gone, or no message.
async fn read(store: &Store, name: &str) -> Result<Option<(Message, Version)>, store::Error> {
    let found = store.entries(Space::Outbox).read(name).await?;
    Ok(found.and_then(|(item, version)| {
        let message: Message = serde_json::from_str(item.text.expose()).ok()?;
        (message.name() == name).then_some((message, version))
    }))
}

#[cfg(test)]
#[path = "outbox_tests.rs"]
mod tests;
