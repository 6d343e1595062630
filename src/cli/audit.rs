//! `adsproxy audit`: shows the audit log, and checks that nobody changed it.

use super::{
    Context, print,
    table::{plain, table},
};
use crate::{
    audit::{
        Audit, AuditKeys, Report,
        tail::{Shown, Tail},
    },
    clock::SystemClock,
    config::Config,
    id::AccountId,
    store::Store,
};
use anyhow::{Context as _, bail};
use serde_json::Value;
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
pub(super) enum Verb {
    /// Show the last entries of the audit log
    Tail(ShowTail),
    /// Check that nobody changed the audit log; exits with 1 if somebody did, and names the line
    Verify {
        /// A log, or one of its older files on its own [default: the configured log]
        path: Option<PathBuf>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Show the last entries of the audit log
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
    /// Print the lines as they are in the log
    #[arg(long)]
    json: bool,
}

impl Verb {
    pub(super) fn run(&self, context: &Context) -> anyhow::Result<()> {
        let config = context.load()?.config;
        match self {
            Self::Tail(tail) => tail.run(&config),
            Self::Verify { path, json } => verify(&config, path.as_deref(), *json),
        }
    }
}

fn configured(config: &Config) -> anyhow::Result<&Path> {
    config.audit.path.as_deref().context(
        "no audit log is kept: store.kind = \"memory\" has no place for one; set audit.path",
    )
}

impl ShowTail {
    fn run(&self, config: &Config) -> anyhow::Result<()> {
        let mut tail = Tail::new(configured(config)?, self.account.clone());
        let mut shown = tail.last(self.lines)?;
        loop {
            for entry in &shown {
                print(if self.json { format!("{}\n", entry.json) } else { line(entry) })?;
            }
            if !self.follow {
                return Ok(());
            }
            std::thread::sleep(FOLLOW_INTERVAL);
            shown = tail.added()?;
        }
    }
}

/// One entry for a person: when, who, what, on which account, with which outcome, and the rest.
fn line(entry: &Shown) -> String {
    let text = |name: &str| match &entry.members[name] {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let named = |name: &str, label: &str| match text(name) {
        value if value.is_empty() => value,
        value => format!("{label}={value}"),
    };
    let user = if text("user").is_empty() { text("uid") } else { text("user") };
    let actor = if user.is_empty() { text("actor") } else { format!("{}:{user}", text("actor")) };
    let [account, reason] = [text("account"), text("reason")];
    let outcome = match reason.is_empty() {
        true => text("outcome"),
        false => format!("{}:{reason}", text("outcome")),
    };
    let rest = [
        named("generation", "generation"),
        named("about", "about"),
        named("count", "count"),
        named("request_id", "request"),
    ];
    let first = [text("time"), actor, text("action"), account, outcome];
    let cells = first.iter().map(|cell| plain(cell));
    let rest = rest.iter().filter(|cell| !cell.is_empty()).map(|cell| plain(cell));
    cells.chain(rest).collect::<Vec<_>>().join("  ") + "\n"
}

fn verify(config: &Config, path: Option<&Path>, json: bool) -> anyhow::Result<()> {
    let report = check(config, path)?;
    if json {
        print(format!("{:#}\n", report.to_json()))?;
    } else {
        print(told(&report))?;
    }
    match report.is_clean() {
        true => Ok(()),
        false => bail!("the audit log is not as adsproxy wrote it"),
    }
}

fn check(config: &Config, path: Option<&Path>) -> anyhow::Result<Report> {
    let configured = match path {
        None => Some(configured(config)?),
        Some(_) => config.audit.path.as_deref(),
    };
    let path = path.or(configured).context("say which file")?;
    let is_configured = configured.is_some_and(|configured| is_same(configured, path));
    // A log has its head beside it. One of its files alone has not, and is checked as far as it
    // goes; the configured log is never taken for such a file.
    if !is_configured && !path.with_extension("head").exists() {
        let store = Store::open(&config.store, &config.encryption);
        let keys = store.context("cannot open the store")?.audit_keys(false)?;
        return Ok(Audit::verify_part(path, &AuditKeys::new(&keys))?);
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

fn told(report: &Report) -> String {
    let mut text = String::new();
    for finding in report.findings.iter().take(FINDINGS_MAX) {
        text += &format!("{finding}\n");
    }
    if report.findings.len() > FINDINGS_MAX {
        text += &format!("and {} more\n", report.findings.len() - FINDINGS_MAX);
    }
    for note in &report.notes {
        text += &format!("note: {note}\n");
    }
    let verdict = if report.is_clean() { "clean" } else { "CHANGED" };
    let rows = [
        ["log".to_owned(), verdict.to_owned()],
        ["entries".to_owned(), report.entries.to_string()],
        ["files".to_owned(), report.files.to_string()],
        ["keys".to_owned(), Vec::from_iter(report.keys.iter().map(String::as_str)).join(", ")],
    ];
    text + &table(&rows)
}
