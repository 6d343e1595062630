//! All records together: what is planned for each, and that it is carried out.

use super::{
    apply::{Applied, Importer},
    entry::{Entry, Rejected},
    progress::Progress,
    rejection::Rejection,
    report::Row,
    resolve::{Defaults, Plan, Rival, rivals},
};
use crate::config::Config;
use std::sync::Arc;
use tokio::task::JoinSet;

/// Accounts that are worked on at once: mostly they wait for the disk.
const CONCURRENCY: usize = 16;

/// What is to be done about a record.
pub(super) enum Planned {
    /// It cannot be read.
    Unreadable,
    /// It says what another one says.
    Same(usize),
    Refused(Rejection),
    Apply(Box<Plan>),
}

impl Planned {
    pub(super) fn plan(&self) -> Option<&Plan> {
        match self {
            Self::Apply(plan) => Some(plan),
            _ => None,
        }
    }

    pub(super) fn refusal(&self) -> Option<&Rejection> {
        match self {
            Self::Refused(why) => Some(why),
            _ => None,
        }
    }
}

/// Decides on every record, before any is carried out.
pub(super) fn plan(
    read: &[Result<Entry, Rejected>],
    config: &Config,
    defaults: &Defaults<'_>,
) -> Vec<Planned> {
    let entries: Vec<(usize, &Entry)> = read
        .iter()
        .enumerate()
        .filter_map(|(index, entry)| Some((index, entry.as_ref().ok()?)))
        .collect();
    let rivals = rivals(&entries);
    let place = |(index, entry): (usize, &Result<Entry, Rejected>)| {
        let Ok(entry) = entry else { return Planned::Unreadable };
        match rivals.get(&index) {
            Some(Rival::Same(other)) => Planned::Same(*other),
            Some(Rival::Other(line)) => Planned::Refused(Rejection::Collision(*line)),
            None => match Plan::new(entry.clone(), config, defaults) {
                Ok(plan) => Planned::Apply(Box::new(plan)),
                Err(why) => Planned::Refused(why),
            },
        }
    };
    read.iter().enumerate().map(place).collect()
}

/// Carries out what is planned; one row per record, in their order.
pub(super) async fn rows(
    read: &[Result<Entry, Rejected>],
    planned: &[Planned],
    importer: &Arc<Importer>,
) -> Vec<Row> {
    let work = planned.iter().enumerate();
    let work = work.filter_map(|(index, planned)| Some((index, planned.plan()?.clone())));
    let mut done = apply_all(importer, work.collect(), planned.len()).await;
    let row = |(index, (entry, planned)): (usize, (&Result<Entry, Rejected>, &Planned))| {
        let entry = match entry {
            Ok(entry) => entry,
            Err(rejected) => return Row::of_rejected(rejected),
        };
        match (planned, done[index].take()) {
            (Planned::Refused(why), _) => Row::of_refused(entry, why),
            (_, Some(Err(why))) => Row::of_refused(entry, &why),
            (_, Some(Ok(applied))) => Row::of_applied(entry, &applied),
            (Planned::Same(other), None) => match &read[*other] {
                Ok(other) => Row::of_same(entry, other),
                Err(other) => Row::of_rejected(other),
            },
            (_, None) => Row::of_refused(entry, &Rejection::Store("it was not done".to_owned())),
        }
    };
    read.iter().zip(planned).enumerate().map(row).collect()
}

/// Several accounts at a time; what became of each is at its index of `total`.
async fn apply_all(
    importer: &Arc<Importer>,
    work: Vec<(usize, Plan)>,
    total: usize,
) -> Vec<Option<Result<Applied, Rejection>>> {
    let mut done: Vec<Option<Result<Applied, Rejection>>> = (0..total).map(|_| None).collect();
    let mut progress = Progress::new(work.len());
    let mut tasks = JoinSet::new();
    let mut work = work.into_iter();
    loop {
        while tasks.len() < CONCURRENCY
            && let Some((index, plan)) = work.next()
        {
            let importer = Arc::clone(importer);
            tasks.spawn(async move { (index, importer.apply(&plan).await) });
        }
        match tasks.join_next().await {
            Some(Ok((index, applied))) => done[index] = Some(applied),
            // Its row will say that it was not done.
            Some(Err(_)) => {}
            None => return done,
        }
        progress.step();
    }
}
