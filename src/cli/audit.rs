//! `adsproxy audit`: shows the audit log, and checks that it was not changed.

use super::{
    Context, duration, print,
    table::{aligned, cell, table},
};
use crate::{
    audit::{
        Audit, AuditKeys, AuditReport,
        tail::{Filter, LogReader, Shown, Tail},
        verify_part,
    },
    clock::{Clock as _, SystemClock},
    config::{Config, StoreKind},
    id::AccountId,
    store::Store,
};
use anyhow::{Context as _, bail};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// How often a followed log is looked at.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(250);
/// Findings that are shown to a person.
const FINDINGS_MAX: usize = 20;

#[derive(Debug, clap::Subcommand)]
pub(super) enum AuditVerb {
    /// Show the last entries of the audit log
    Tail(ShowTail),
    /// Check that the audit log was not changed; exits with 1 if it was, and names the line
    Verify {
        /// A log, or one of its older files on its own [default: the configured log]
        path: Option<PathBuf>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct ShowTail {
    /// How many
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20)]
    lines: usize,
    /// Go on with entries as they are added
    #[arg(short, long)]
    follow: bool,
    /// Entries about this account only
    #[arg(long, value_name = "ALIAS")]
    account: Option<AccountId>,
    /// Entries of this action (`login`) or kind (`token`) only
    #[arg(long, value_name = "ACTION")]
    action: Option<String>,
    /// Entries from then on only: a time, or how long ago (`2h`)
    #[arg(long, value_name = "WHEN", value_parser = since)]
    since: Option<Duration>,
    /// Print the lines as they are in the log
    #[arg(long)]
    json: bool,
}

/// Reads a time such as `2026-11-20T09:00:00Z`, or a length of time before now; since 1970.
fn since(text: &str) -> Result<Duration, String> {
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Duration::try_from(time.as_duration()).map_err(|_| "before 1970".to_owned());
    }
    let ago = duration::parse(text).map_err(|_| {
        format!("{text:?} is neither a time (2026-11-20T09:00:00Z) nor 30m, 2h, 7d")
    })?;
    Ok(SystemClock.now().wall.saturating_sub(ago))
}

impl AuditVerb {
    pub(super) fn run(&self, context: &Context) -> anyhow::Result<()> {
        let config = context.load()?.config;
        match self {
            Self::Tail(tail) => tail.run(&config),
            Self::Verify { path, json } => verify(&config, path.as_deref(), *json),
        }
    }
}

fn configured(config: &Config) -> anyhow::Result<&Path> {
    config
        .audit
        .path
        .as_deref()
        .context("no audit log is kept: this store.kind has no place for one; set audit.path")
}

/// The log in the database of the store, if that is where it is.
fn of_database(config: &Config) -> anyhow::Result<Option<Audit>> {
    let is_there = config.audit.path.is_none() && config.store.kind == StoreKind::Postgres;
    let audit = is_there.then(|| Audit::new(config, Arc::new(SystemClock))).transpose();
    audit.context("cannot open the store")
}

impl ShowTail {
    fn run(&self, config: &Config) -> anyhow::Result<()> {
        let (account, action) = (self.account.clone(), self.action.clone());
        let filter = Filter { account, action, since: self.since, ..Filter::default() };
        let of_database = of_database(config)?.and_then(|audit| audit.reader(filter.clone()));
        let mut tail = match of_database {
            Some(reader) => reader,
            None => LogReader::Files(Tail::new(configured(config)?, filter)),
        };
        let (mut shown, mut has_more) = (tail.last(self.lines)?, false);
        let (mut rows, mut widths) = (vec![HEADING.map(str::to_owned)], [0; 6]);
        loop {
            if self.json {
                shown.iter().try_for_each(|entry| print(format!("{}\n", entry.json)))?;
            } else {
                rows.extend(shown.iter().map(row));
                print(aligned(&rows, &mut widths))?;
                rows.clear();
            }
            if !self.follow {
                return Ok(());
            }
            if !has_more {
                std::thread::sleep(FOLLOW_INTERVAL);
            }
            shown.clear();
            has_more = tail.newer(&mut |one| shown.push(one))?;
        }
    }
}

const HEADING: [&str; 6] = ["TIME", "ACTOR", "ACTION", "ACCOUNT", "OUTCOME", "DETAILS"];

/// Members that are shown where an entry has them.
const DETAILS: [&str; 11] = [
    "occurred",
    "generation",
    "about",
    "count",
    "tenant",
    "key_id",
    "session",
    "san",
    "subject",
    "request_id",
    "server_request_id",
];

/// One entry for a person.
fn row(entry: &Shown) -> [String; 6] {
    let text = |name: &str| cell(&entry.members[name]);
    let joined = |first: &str, second: &str| match text(second) {
        second if second.is_empty() => text(first),
        second => format!("{}:{second}", text(first)),
    };
    let user = if text("user").is_empty() { "uid" } else { "user" };
    let details = DETAILS.map(|name| (name.trim_end_matches("_id"), text(name)));
    let details = details.iter().filter(|(_, value)| !value.is_empty());
    let details = details.map(|(label, value)| format!("{label}={value}"));
    [
        text("time"),
        joined("actor", user),
        text("action"),
        text("account"),
        joined("outcome", "reason"),
        details.collect::<Vec<_>>().join("  "),
    ]
}

fn verify(config: &Config, path: Option<&Path>, json: bool) -> anyhow::Result<()> {
    let report = check(config, path)?;
    print(if json { format!("{:#}\n", report.to_json()) } else { summary(&report) })?;
    match report.is_clean() {
        true => Ok(()),
        false => bail!("the audit log is not as adsproxy wrote it"),
    }
}

fn check(config: &Config, path: Option<&Path>) -> anyhow::Result<AuditReport> {
    if path.is_none()
        && let Some(audit) = of_database(config)?
    {
        let report = audit.verify()?;
        if report.files == 0 {
            bail!("there is no audit log in the database yet");
        }
        return Ok(report);
    }
    let own = config.audit.path.as_deref();
    let path = path.map_or_else(|| configured(config), Ok)?;
    // A log has its head beside it. One of its files alone has not, and is checked as far as it
    // goes; the configured log is never taken for such a file.
    if !own.is_some_and(|own| is_same(own, path)) && !path.with_extension("head").exists() {
        let store = Store::open(&config.store, &config.encryption);
        let keys = store.context("cannot open the store")?.audit_keys(false)?;
        return Ok(verify_part(path, &AuditKeys::new(&keys))?);
    }
    let mut config = config.clone();
    config.audit.path = Some(path.to_owned());
    let report = Audit::new(&config, Arc::new(SystemClock))?.verify()?;
    if report.files == 0 && report.is_clean() {
        bail!("there is no audit log at {} yet", path.display());
    }
    Ok(report)
}

fn is_same(a: &Path, b: &Path) -> bool {
    a == b || a.canonicalize().ok().is_some_and(|a| b.canonicalize().is_ok_and(|b| a == b))
}

fn summary(report: &AuditReport) -> String {
    let shown = report.findings.iter().take(FINDINGS_MAX);
    let mut text: String = shown.map(|finding| format!("{finding}\n")).collect();
    if report.findings.len() > FINDINGS_MAX {
        text += &format!("and {} more\n", report.findings.len() - FINDINGS_MAX);
    }
    text.extend(report.notes.iter().map(|note| format!("note: {note}\n")));
    let verdict = if report.is_clean() { "clean" } else { "CHANGED" };
    let keys = Vec::from_iter(report.keys.iter().map(String::as_str)).join(", ");
    let rows = [
        ("log", verdict.to_owned()),
        ("entries", report.entries.to_string()),
        ("files", report.files.to_string()),
        ("keys", keys),
    ];
    text + &table(&rows.map(|(label, value)| [label.to_owned(), value]))
}
