//! Which message goes out next. Pure: no IO, no clock of its own.
//!
//! Messages of one account go to one hook in their order: a later one waits while an earlier one
//! is under way, and through its first failures. After those it may overtake: one message that a
//! receiver chokes on must not hold back what happens to its account for a day. A receiver that
//! fails several times in a row is left alone for a while as a whole, so that a long outage costs
//! little however much waits.

use super::{DeliveryError, message::Message};
use crate::{backoff::Backoff, clock::Now, config};
use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};
use tokio::time::Instant;

/// Deliveries to one hook under way at once.
pub(super) const CONCURRENCY: usize = 4;

/// Through so many failures a message keeps those behind it waiting.
const ORDERED_ATTEMPTS: u32 = 3;

/// So many failures in a row, and the hook as a whole is left alone for a while.
const FAILURES_MAX: u32 = 3;

/// And no longer than this, so that its recovery is noticed.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Everything that waits for one hook, by name of message: first queued, first sent.
#[derive(Debug)]
pub(super) struct Schedule {
    limits: config::OutboxConfig,
    pub(super) waiting: BTreeMap<String, Waiting>,
    under_way: usize,
    failures: u32,
    pause: Backoff,
    paused_until: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct Waiting {
    message: Message,
    due: Instant,
    under_way: bool,
}

/// What came of an attempt to deliver a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum AttemptEnd {
    Delivered(Message),
    /// To be tried again.
    Again(Message),
    /// Given up.
    Dead(Message),
}

impl Schedule {
    /// What waits, the first queued first.
    pub(super) fn messages(&self) -> impl Iterator<Item = &Message> {
        self.waiting.values().map(|waiting| &waiting.message)
    }

    pub(super) fn new(limits: &config::OutboxConfig) -> Self {
        Self {
            pause: Backoff::new(limits.retry_min, limits.retry_max.min(PAUSE_MAX)),
            limits: limits.clone(),
            waiting: BTreeMap::new(),
            under_way: 0,
            failures: 0,
            paused_until: None,
        }
    }

    /// Adds a message, new or taken over.
    pub(super) fn insert(&mut self, message: Message, now: Now, instant: Instant) {
        // A wall clock that was set back must not make it wait for hours.
        let wait = Duration::from_secs(message.not_before.saturating_sub(now.unix()));
        let due = instant + wait.min(self.limits.give_up.max(self.limits.retry_max));
        self.waiting.insert(message.name(), Waiting { message, due, under_way: false });
    }

    /// The messages to send now, without those that are `held`; each is under way until its
    /// attempt is recorded.
    pub(super) fn start(
        &mut self,
        instant: Instant,
        is_held: impl Fn(&str) -> bool,
    ) -> Vec<Message> {
        if self.paused_until.is_some_and(|until| until > instant) {
            return Vec::new();
        }
        // A receiver in trouble is asked with one message.
        let most = if self.failures >= FAILURES_MAX { 1 } else { CONCURRENCY };
        let mut started = Vec::new();
        let mut held: HashSet<Option<&str>> = HashSet::new();
        for (name, waiting) in &mut self.waiting {
            if self.under_way >= most {
                break;
            }
            let Waiting { message, due, under_way } = waiting;
            let account = message.account.as_deref();
            if held.contains(&account) {
                continue;
            }
            if *under_way {
                held.insert(account);
            } else if *due <= instant && !is_held(name) {
                held.insert(account);
                *under_way = true;
                self.under_way += 1;
                started.push(message.clone());
            } else if message.attempts <= ORDERED_ATTEMPTS {
                held.insert(account);
            }
        }
        started
    }

    /// When to look again, unless an attempt ends before; none if nothing waits for time.
    pub(super) fn next_due(&self, instant: Instant) -> Option<Instant> {
        if let Some(until) = self.paused_until.filter(|until| *until > instant) {
            return (!self.waiting.is_empty()).then_some(until);
        }
        let waiting = self.waiting.values().filter(|waiting| !waiting.under_way);
        // What is due and was not started waits for something that is under way.
        waiting.map(|waiting| waiting.due).filter(|due| *due > instant).min()
    }

    /// Records how an attempt ended. None if the message is not known any more.
    pub(super) fn record(
        &mut self,
        name: &str,
        result: Result<(), &DeliveryError>,
        now: Now,
        instant: Instant,
    ) -> Option<AttemptEnd> {
        let waiting = self.waiting.get_mut(name).filter(|waiting| waiting.under_way)?;
        self.under_way -= 1;
        waiting.under_way = false;
        let Err(failed) = result else {
            self.failures = 0;
            self.paused_until = None;
            self.pause.reset();
            return self.remove(name).map(AttemptEnd::Delivered);
        };
        let message = &mut waiting.message;
        message.attempts = message.attempts.saturating_add(1);
        message.last_error = Some(failed.why.clone());
        let age = Duration::from_secs(now.unix().saturating_sub(message.queued_at));
        let given_up = failed.is_final
            || message.attempts >= self.limits.attempts_max
            || age >= self.limits.give_up;
        let wait = wait(&self.limits, message.attempts).max(failed.retry_after.unwrap_or_default());
        let wait = wait.min(self.limits.give_up.max(self.limits.retry_max));
        message.not_before = now.plus(wait).unix();
        waiting.due = instant + wait;
        let message = message.clone();
        self.failures = self.failures.saturating_add(1);
        if self.failures >= FAILURES_MAX {
            let asked = failed.retry_after.unwrap_or_default().min(PAUSE_MAX);
            self.paused_until = Some(instant + self.pause.next().max(asked));
        }
        if given_up {
            self.waiting.remove(name);
            return Some(AttemptEnd::Dead(message));
        }
        Some(AttemptEnd::Again(message))
    }

    /// The message that is missed least if one has to go: the oldest of `least`, else the oldest of
    /// all, which sorts behind it; never one that is under way.
    pub(super) fn eviction_candidate(&self, least: &str) -> Option<(bool, String)> {
        let idle = self.waiting.iter().filter(|(_, waiting)| !waiting.under_way);
        idle.map(|(name, waiting)| (waiting.message.kind != least, name))
            .min()
            .map(|(is_other, name)| (is_other, name.clone()))
    }

    pub(super) fn remove(&mut self, name: &str) -> Option<Message> {
        self.waiting.remove(name).map(|waiting| waiting.message)
    }

    /// Takes out what has waited too long while its receiver was left alone.
    pub(super) fn expired(&mut self, now: Now) -> Vec<Message> {
        if self.failures < FAILURES_MAX {
            return Vec::new();
        }
        let limit = self.limits.give_up.as_secs();
        let mut expired = Vec::new();
        self.waiting.retain(|_, Waiting { message, under_way, .. }| {
            let is_kept = *under_way || now.unix().saturating_sub(message.queued_at) < limit;
            if !is_kept {
                expired.push(message.clone());
            }
            is_kept
        });
        expired
    }
}

/// How long to wait after so many failed attempts.
fn wait(limits: &config::OutboxConfig, attempts: u32) -> Duration {
    let mut backoff = Backoff::new(limits.retry_min, limits.retry_max);
    // Beyond this the interval is at its longest, whatever the bounds.
    (0..attempts.clamp(1, 64)).map(|_| backoff.next()).last().unwrap_or(limits.retry_min)
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
