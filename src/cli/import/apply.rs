//! Puts accounts into the store, several at a time, each with its audit entry.

use super::{
    record::ImportEntry,
    report::{ImportRecord, OUTCOMES, overwrite, show_progress},
};
use crate::{
    cli::{
        CommandFailure, Context,
        account::{
            store_to_change,
            writer::{GrantWriter, Unrecorded},
        },
    },
    clock::{Clock, SystemClock},
    config::Config,
    grants::given::{GivenOutcome, GivenResult},
    store::Store,
};
use anyhow::Context as _;
use std::{path::Path, sync::Arc};
use tokio::task::JoinSet;

/// Accounts that are worked on at once: mostly they wait for the disk.
const CONCURRENCY: usize = 16;

/// Decides on every record and carries it out.
pub(super) struct Importer {
    /// None: nothing is to be changed.
    pub(super) writer: Option<GrantWriter>,
    pub(super) store: Store,
    pub(super) config: Arc<Config>,
    /// Seconds since 1970.
    pub(super) now: u64,
}

impl Importer {
    /// One that changes nothing in a dry run; that makes no store where there is none, either.
    pub(super) fn open(
        context: &Context,
        config: Arc<Config>,
        dry_run: bool,
    ) -> anyhow::Result<Self> {
        let (writer, store) = if !dry_run {
            let writer = GrantWriter::open(context, config.clone())?;
            let store = writer.store.clone();
            (Some(writer), store)
        } else if config.store.directory().is_none_or(Path::exists) {
            (None, store_to_change(&config)?)
        } else {
            Store::check(&config.store, &config.encryption).context("cannot open the store")?;
            (None, Store::memory()?)
        };
        Ok(Self { writer, store, config, now: SystemClock.now().unix() })
    }

    /// Carries out every record that has an entry. Ends at the first change that cannot be
    /// recorded, or that the server does not respond to.
    pub(super) async fn apply_all(self: &Arc<Self>, records: &mut [ImportRecord]) {
        let mut work = Vec::new();
        for (index, record) in records.iter_mut().enumerate() {
            if let Some(entry) = record.entry.take() {
                "it was not done".clone_into(&mut record.note);
                work.push((index, entry));
            }
        }
        let (mut finished, total) = (0, work.len());
        let mut tasks = JoinSet::new();
        let mut work = work.into_iter();
        loop {
            // The last one waits for the others: a running server uses all when it is in place.
            while tasks.len() < CONCURRENCY
                && (work.len() > 1 || tasks.is_empty())
                && let Some((index, entry)) = work.next()
            {
                let (importer, more) = (Arc::clone(self), work.len() > 0);
                tasks.spawn(async move { (index, importer.apply(&entry, more).await) });
            }
            let Some(done) = tasks.join_next().await else { break };
            finished += 1;
            show_progress(finished, total);
            // The record of a task that panicked says that it was not done.
            let Ok((index, applied)) = done else { continue };
            let record = &mut records[index];
            match applied {
                Ok((given, note)) => {
                    record.outcome = OUTCOMES[given.outcome as usize];
                    record.region = Some(given.region.as_str());
                    record.application = Some(given.application);
                    record.note = note;
                }
                Err(error) => {
                    let why = if error.is::<Unrecorded>() {
                        "not done, because it cannot be recorded: "
                    } else {
                        ""
                    };
                    record.note = format!("{why}{error:#}");
                    if error.is::<Unrecorded>() || error.is::<CommandFailure>() {
                        // Every further one may wait as long, for the log or for the server.
                        work = Vec::new().into_iter();
                    }
                }
            }
        }
        if finished > 0 {
            overwrite("");
        }
    }

    /// Has the account's grant put in place, or only decides on it; returns a note for the report, too.
    async fn apply(
        &self,
        entry: &ImportEntry,
        more: bool,
    ) -> anyhow::Result<(GivenResult, String)> {
        let given = &entry.given;
        let done = match &self.writer {
            Some(writer) => writer.give(&entry.alias, given, Some("import"), more).await?,
            None => {
                let existing = self.store.load(&entry.alias).await?;
                given.decide(&self.config, &entry.alias, existing.as_ref(), self.now)?
            }
        };
        let note = match (done.outcome, entry.had_access_token, &entry.given.access_token) {
            (GivenOutcome::Added, true, None) => "without its access token, which has expired",
            (GivenOutcome::Added, true, Some(_)) => "with its access token",
            (GivenOutcome::Unchanged, ..) if done.is_dead => {
                "its grant is dead: --replace tries it again"
            }
            (GivenOutcome::Differs, ..) => {
                let note = format!("{}; kept, --replace would take it", done.differences);
                return Ok((done, note));
            }
            _ => &done.differences,
        };
        let note = note.to_owned();
        Ok((done, note))
    }
}
