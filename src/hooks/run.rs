//! The one task that takes messages from the intake to the outbox to the hooks.

use super::{
    Failed, Reconnect, Surroundings, Target,
    intake::Intake,
    message::Message,
    outbox::{self, Outbox},
    schedule::{Key, Schedule, Verdict},
};
use crate::{
    clock::Clock,
    config::{self, Config},
    error_chain::chain,
    event::Kind,
    metrics::{Dropped, HookOutcome, Metrics},
};
use std::{future, sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    task::{JoinSet, spawn_blocking},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use tracing::{info, warn};

/// How often it is looked for what others left behind.
const ADOPT_INTERVAL: Duration = Duration::from_secs(2);

/// Losses are told this often at most.
const WARN_INTERVAL: Duration = Duration::from_secs(60);

/// How one attempt ended: at which hook, with which message.
type Done = (usize, Key, Result<(), Failed>);

pub(super) struct Runner {
    targets: Vec<Arc<Target>>,
    /// As many as targets, in the same order.
    schedules: Vec<Schedule>,
    /// None if messages wait in memory only.
    outbox: Option<Arc<Outbox>>,
    intake: Arc<Intake>,
    limits: config::Outbox,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    reconnect: Option<Reconnect>,
    deliveries: JoinSet<Done>,
    /// The newest order that was given out: two messages never have the same.
    last_order: u64,
    dead_letters: usize,
    warned: Option<Instant>,
}

impl Runner {
    pub(super) fn new(
        config: &Config,
        targets: Vec<Target>,
        outbox: Option<Arc<Outbox>>,
        intake: Arc<Intake>,
        with: Surroundings,
    ) -> Self {
        Self {
            schedules: targets.iter().map(|_| Schedule::new(&config.outbox)).collect(),
            targets: targets.into_iter().map(Arc::new).collect(),
            outbox,
            intake,
            limits: config.outbox.clone(),
            clock: with.clock,
            metrics: with.metrics,
            reconnect: with.reconnect,
            deliveries: JoinSet::new(),
            last_order: 0,
            dead_letters: 0,
            warned: None,
        }
    }

    /// Runs until told to stop.
    pub(super) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut adopt = interval(ADOPT_INTERVAL);
        adopt.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.start();
            let due = self.schedules.iter().filter_map(|one| one.next_due(Instant::now())).min();
            let intake = self.intake.clone();
            tokio::select! {
                () = intake.changed() => self.accept().await,
                Some(done) = self.deliveries.join_next() => self.settle(done).await,
                () = at(due) => {}
                _ = adopt.tick() => self.look_after().await,
                _ = stop.changed() => break,
            }
        }
        self.accept().await;
        if self.outbox.is_none() {
            self.start();
        }
        while let Some(done) = self.deliveries.join_next().await {
            self.settle(done).await;
        }
        if let Some(outbox) = self.outbox.take().and_then(Arc::into_inner) {
            let _ = spawn_blocking(move || outbox.close()).await;
        }
    }

    /// Writes down what was told, for every hook that wants to know.
    async fn accept(&mut self) {
        let mut messages = Vec::new();
        let (events, number) = self.intake.take();
        for event in events {
            for (hook, target) in self.targets.iter().enumerate() {
                if !target.config.events.contains(&event.kind) {
                    continue;
                }
                let now = self.clock.now();
                match Message::new(&event, &target.config.name, now) {
                    Ok(mut message) => {
                        self.last_order = message.order.max(self.last_order + 1);
                        message.order = self.last_order;
                        messages.push((hook, message));
                    }
                    Err(error) => warn!(%error, "an event cannot be told to hooks"),
                }
            }
        }
        for (hook, message) in messages {
            self.make_room().await;
            self.put(&message).await;
            self.schedules[hook].insert(message, self.clock.now(), Instant::now());
        }
        self.intake.written(number);
        self.count();
    }

    /// Lets the least message go as long as there are too many.
    async fn make_room(&mut self) {
        let mut lost = 0;
        while self.schedules.iter().map(Schedule::len).sum::<usize>() >= self.limits.messages_max {
            let least = Kind::TokenRefreshed.as_str();
            let victims = self.schedules.iter().enumerate();
            let victims = victims.filter_map(|(hook, one)| Some((one.victim(least)?, hook)));
            // Refreshes before everything else, the oldest of them first.
            let victim = victims.min_by(|((a_least, a), _), ((b_least, b), _)| {
                b_least.cmp(a_least).then_with(|| a.cmp(b))
            });
            let Some(((_, key), hook)) = victim else { break };
            if let Some(message) = self.schedules[hook].remove(&key) {
                self.forget(&message).await;
            }
            lost += 1;
        }
        self.tell_lost(Dropped::OutboxFull, lost);
    }

    /// Starts what is due.
    fn start(&mut self) {
        for (hook, schedule) in self.schedules.iter_mut().enumerate() {
            for message in schedule.start(Instant::now()) {
                let target = self.targets[hook].clone();
                let (clock, reconnect) = (self.clock.clone(), self.reconnect.clone());
                let key = (message.order, message.id.clone());
                self.deliveries.spawn(async move {
                    // A task of its own, so that a panic is a failed attempt and no silence.
                    let delivery = tokio::spawn(deliver(target, message, clock, reconnect));
                    let result = delivery.await.unwrap_or_else(|_| {
                        Err(Failed::new("its delivery broke off inside adsproxy".to_owned()))
                    });
                    (hook, key, result)
                });
            }
        }
    }

    /// Takes note of how an attempt ended.
    async fn settle(&mut self, done: Result<Done, tokio::task::JoinError>) {
        let Ok((hook, key, result)) = done else { return };
        let now = self.clock.now();
        let verdict =
            self.schedules[hook].settle(&key, result.as_ref().map(|_| ()), now, Instant::now());
        match verdict {
            None => {}
            Some(Verdict::Delivered(message)) => {
                self.metrics.hooks.delivery(HookOutcome::Delivered);
                info!(hook = message.hook, event = message.kind, id = message.id, "hook told");
                self.forget(&message).await;
            }
            Some(Verdict::Again(message)) => {
                self.metrics.hooks.delivery(HookOutcome::Failed);
                let (attempts, error) = (message.attempts, message.last_error.as_deref());
                let Message { hook, kind: event, id, .. } = &message;
                warn!(hook, event, id, attempts, error, "hook not told, to be tried again");
                self.put(&message).await;
            }
            Some(Verdict::Dead(message)) => self.bury(message).await,
        }
        for message in self.schedules[hook].expired(now) {
            self.bury(message).await;
        }
        self.count();
    }

    async fn bury(&mut self, mut message: Message) {
        self.metrics.hooks.delivery(HookOutcome::Dead);
        message.last_error.get_or_insert_with(|| "its receiver fails".to_owned());
        let (attempts, error) = (message.attempts, message.last_error.clone());
        let Message { hook, kind: event, id, .. } = &message;
        warn!(
            hook,
            event, id, attempts, error, "hook not told, given up: see `adsproxy hooks list`"
        );
        let keep = self.limits.dead_letters_max;
        let lost = match self.disk(move |outbox| outbox.bury(&message, keep)).await {
            Some(Ok(lost)) => lost,
            // The message is still in the queue, and with the next process.
            Some(Err(error)) => return self.tell_write_failure(&error),
            // Nobody could ever ask for it.
            None => 1,
        };
        self.dead_letters = (self.dead_letters + 1).saturating_sub(lost);
        self.tell_lost(Dropped::DeadLettersFull, lost);
    }

    /// Takes over what others left behind, and looks how many dead letters there are.
    async fn look_after(&mut self) {
        let adopted = self.disk(|outbox| {
            let mut adopted = Vec::new();
            let result = outbox.adopt(&mut adopted);
            Ok((adopted, result, outbox.dead_count()))
        });
        let Some(Ok((adopted, result, dead))) = adopted.await else { return };
        if let Err(error) = result {
            warn!(error = %chain(&error), "cannot take over messages to hooks");
        }
        self.dead_letters = dead.unwrap_or(self.dead_letters);
        for message in adopted {
            let hook = self.targets.iter().position(|target| target.config.name == message.hook);
            match hook {
                Some(hook) => {
                    self.schedules[hook].insert(message, self.clock.now(), Instant::now());
                }
                None => {
                    let error = Some("no hook has this name any more".to_owned());
                    self.bury(Message { last_error: error, ..message }).await;
                }
            }
        }
        self.make_room().await;
        self.count();
    }

    /// Keeps a message on disk. If that fails it waits in memory all the same.
    async fn put(&mut self, message: &Message) {
        let message = message.clone();
        if let Some(Err(error)) = self.disk(move |outbox| outbox.put(&message)).await {
            self.tell_write_failure(&error);
        }
    }

    async fn forget(&mut self, message: &Message) {
        let message = message.clone();
        if let Some(Err(error)) = self.disk(move |outbox| outbox.remove(&message)).await {
            self.tell_write_failure(&error);
        }
    }

    /// Works on the outbox off the async threads. None if there is none.
    async fn disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Outbox) -> Result<T, outbox::Error> + Send + 'static,
    ) -> Option<Result<T, outbox::Error>> {
        let outbox = self.outbox.clone()?;
        // It is cut off only when the runtime goes down.
        spawn_blocking(move || work(&outbox)).await.ok()
    }

    fn tell_write_failure(&self, error: &outbox::Error) {
        self.metrics.hooks.write_failed();
        warn!(error = %chain(error), "a message to a hook cannot be kept on disk");
    }

    fn tell_lost(&mut self, why: Dropped, count: usize) {
        self.metrics.hooks.dropped(why, count as u64);
        let quiet = self.warned.is_some_and(|warned| warned.elapsed() < WARN_INTERVAL);
        if count > 0 && !quiet {
            self.warned = Some(Instant::now());
            warn!(reason = why.as_str(), count, "messages to hooks were lost");
        }
    }

    fn count(&self) {
        self.metrics.hooks.waiting(self.schedules.iter().map(Schedule::len).sum());
        self.metrics.hooks.dead_letters(self.dead_letters);
    }
}

async fn deliver(
    target: Arc<Target>,
    message: Message,
    clock: Arc<dyn Clock>,
    reconnect: Option<Reconnect>,
) -> Result<(), Failed> {
    let account = message.account.as_ref().and_then(|account| account.parse().ok());
    let url = match (reconnect, account) {
        (Some(reconnect), Some(account))
            if message.kind == Kind::ReauthorizationRequired.as_str() =>
        {
            reconnect(account).await
        }
        _ => None,
    };
    target.deliver(&message, url.as_ref(), clock.now().unix()).await.map(|_| ())
}

/// Waits until `due`, for ever if there is no such time.
async fn at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => future::pending().await,
    }
}
