//! The report: a row for each record, what is left to do by hand, a bar while it runs. Holds no
//! secret, and neither client ids nor client secrets, only where they are.

use super::{
    plan::Plan,
    record::{Entry, Raw, looks_secret},
};
use crate::{
    cli::table::table,
    config::{Config, DEFAULT_APPLICATION},
    id::{AccountId, Region},
};
use serde::Serialize;
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Write as _,
    io::{self, IsTerminal, Write as _},
    time::{Duration, Instant},
};

/// The form of the JSON report.
const VERSION: u32 = 1;
/// Tables for the configuration that are shown to a person.
const TABLES_MAX: usize = 10;
/// Unused names that are shown.
const UNUSED_MAX: usize = 20;
const SCOPE: &str = "Amazon-Advertising-API-Scope";
const BAR_WIDTH: usize = 40;
const BAR_PAUSE: Duration = Duration::from_millis(100);

/// What became of a record, in the order in which they are counted out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Outcome {
    Added,
    Replaced,
    Unchanged,
    /// The store has something else and was left as it is.
    Differs,
    Rejected,
}

impl Outcome {
    const ALL: [(Self, &str); 5] = [
        (Self::Added, "added"),
        (Self::Replaced, "replaced"),
        (Self::Unchanged, "unchanged"),
        (Self::Differs, "differs"),
        (Self::Rejected, "rejected"),
    ];

    fn as_str(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

/// What became of one record.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) line: Option<usize>,
    pub(super) name: Option<String>,
    pub(super) account: Option<String>,
    pub(super) outcome: Outcome,
    pub(super) region: Option<&'static str>,
    pub(super) application: Option<String>,
    pub(super) profile_id: Option<String>,
    #[serde(serialize_with = "some_text")]
    pub(super) note: String,
}

impl Default for Row {
    /// Rejected, until something else becomes of it.
    fn default() -> Self {
        let (line, name, account, region) = (None, None, None, None);
        let (application, profile_id, note) = (None, None, String::new());
        let outcome = Outcome::Rejected;
        Self { line, name, account, outcome, region, application, profile_id, note }
    }
}

fn some_text<S: serde::Serializer>(text: &str, to: S) -> Result<S::Ok, S::Error> {
    Some(text).filter(|text| !text.is_empty()).serialize(to)
}

impl Row {
    fn cells(&self) -> [String; 5] {
        let name = self.name.as_deref().unwrap_or_default();
        let account = match &self.account {
            Some(account) if account == name => account.clone(),
            Some(account) => format!("{account} ({name:?})"),
            None => name.to_owned(),
        };
        [
            self.line.map(|line| line.to_string()).unwrap_or_default(),
            account,
            self.outcome.as_str().to_owned(),
            self.region.unwrap_or_default().to_owned(),
            self.note.clone(),
        ]
    }
}

/// The whole report.
pub(super) struct Report {
    pub(super) rows: Vec<Row>,
    pub(super) source: &'static str,
    pub(super) dry_run: bool,
    /// Whole sentences without a full stop.
    pub(super) notes: Vec<String>,
    /// Tables for the configuration, one for each thing.
    pub(super) tables: Vec<String>,
}

impl Report {
    /// How many records became `outcome`.
    pub(super) fn count(&self, outcome: Outcome) -> usize {
        self.rows.iter().filter(|row| row.outcome == outcome).count()
    }

    /// The rows as a table.
    pub(super) fn text(&self) -> String {
        let mut cells = vec![["LINE", "ACCOUNT", "OUTCOME", "REGION", "NOTE"].map(str::to_owned)];
        cells.extend(self.rows.iter().map(Row::cells));
        table(&cells)
    }

    /// What goes to standard error, the sum in its last line.
    pub(super) fn remarks(&self, with_notes: bool) -> String {
        let mut text = String::new();
        if with_notes {
            for note in &self.notes {
                let _ = writeln!(text, "note: {note}");
            }
            if !self.tables.is_empty() {
                let lines = self.configuration(TABLES_MAX);
                let _ = writeln!(text, "\nAdd to the configuration:\n\n{lines}");
            }
        }
        let counts = Outcome::ALL.map(|(outcome, name)| (self.count(outcome), name));
        let counts = counts.iter().filter(|(count, _)| *count > 0);
        let counts: Vec<String> = counts.map(|(count, name)| format!("{count} {name}")).collect();
        let prefix = if self.dry_run { "dry run, nothing was changed: " } else { "" };
        let _ = writeln!(text, "{prefix}{}", counts.join(", "));
        text
    }

    pub(super) fn json(&self) -> String {
        let counts = Outcome::ALL.map(|(outcome, name)| (name, self.count(outcome)));
        let document = json!({
            "version": VERSION,
            "source": self.source,
            "dry_run": self.dry_run,
            "summary": BTreeMap::from(counts),
            "records": self.rows,
            "notes": self.notes,
            "configuration": self.configuration(usize::MAX),
        });
        format!("{document:#}\n")
    }

    /// The lines to add to the configuration, at most `max` tables of them.
    fn configuration(&self, max: usize) -> String {
        let shown = self.tables.len().min(max);
        let mut text = self.tables[..shown].join("\n");
        if shown < self.tables.len() {
            let more = self.tables.len() - shown;
            let _ = write!(text, "\n# … and {more} more; `--json` has all of them\n");
        }
        text
    }

    /// Adds what is left to do by hand: where an application is missing, what looks odd, the default
    /// headers, which are the configuration's and not the store's.
    pub(super) fn advise(
        &mut self,
        config: &Config,
        prefix: Option<&str>,
        raws: &[Raw],
        entries: &[Option<Entry>],
        plans: &HashMap<usize, Plan>,
    ) {
        let entry = |index: &usize| entries[*index].as_ref();
        let mut unknown: BTreeMap<&str, Vec<&Entry>> = BTreeMap::new();
        let mut owners: BTreeMap<&str, BTreeSet<&AccountId>> = BTreeMap::new();
        let mut odd = BTreeSet::new();
        let mut strangers = BTreeMap::new();
        let in_order: BTreeMap<&usize, &Plan> = plans.iter().collect();
        for (index, plan) in in_order {
            let (Some(entry), plan) = (entry(index), plan) else { continue };
            let Plan::Apply { region, application } = plan else {
                if let (Plan::UnknownClient, Some(client_id)) = (plan, &entry.client_id) {
                    unknown.entry(client_id.expose()).or_default().push(entry);
                }
                continue;
            };
            owners.entry(entry.refresh_token.expose()).or_default().insert(&entry.alias);
            if !entry.refresh_token.expose().starts_with("Atzr|") {
                odd.insert(entry.alias.as_str());
            }
            let name = application.as_deref().unwrap_or(DEFAULT_APPLICATION);
            if let (Some(secret), Some(_), Some(known)) =
                (&entry.client_secret, &entry.client_id, config.applications.get(name))
                && !known.client_secrets.contains(secret)
            {
                strangers.entry(name).or_insert(&entry.alias);
            }
            self.tables.extend(scope(config, entry, *region, application.as_deref()));
        }
        let unknown = unknown.values().map(|entries| application(prefix, entries));
        self.tables.splice(0..0, unknown);
        self.notes.extend(strangers.into_iter().map(|(name, alias)| {
            format!(
                "the client secret beside account {alias} is none of those configured for \
                 application {name:?}: if it is a newer one, add it to the list in client_secret"
            )
        }));
        let sharing: usize = owners.values().map(BTreeSet::len).filter(|count| *count > 1).sum();
        if sharing > 0 {
            self.notes.push(format!(
                "{sharing} accounts share their refresh token with another one: one account is \
                 enough for a grant, callers choose the profile with {SCOPE}"
            ));
        }
        if !odd.is_empty() {
            let names = listed(odd.into_iter().map(str::to_owned));
            self.notes.push(format!(
                "the refresh token does not begin with Atzr|, as Amazon's do, of: {names}"
            ));
        }
        let unused: BTreeSet<&String> = raws.iter().flat_map(|raw| &raw.unused).collect();
        if !unused.is_empty() {
            let shown = |name: &String| match looks_secret(name) {
                true => "a name that looks like a secret".to_owned(),
                false => format!("{name:?}"),
            };
            self.notes.push(format!("not used: {}", listed(unused.into_iter().map(shown))));
        }
    }
}

/// At most so many names, with commas between.
fn listed(names: impl ExactSizeIterator<Item = String>) -> String {
    let more = names.len().saturating_sub(UNUSED_MAX);
    let shown = names.take(UNUSED_MAX).collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{shown} and {more} more") } else { shown }
}

/// The table of an application that is not configured, and is that of `entries`.
fn application(prefix: Option<&str>, entries: &[&Entry]) -> String {
    let Some(first) = entries.first() else { return String::new() };
    let line = first.line.map(|line| format!(", line {line}")).unwrap_or_default();
    let more = match entries.len() - 1 {
        0 => String::new(),
        more => format!(", and of {more} more"),
    };
    let (client_id, secret) = match prefix {
        Some(prefix) => (
            format!("the value of ${prefix}CLIENT_ID"),
            format!("{{ env = \"{prefix}CLIENT_SECRET\" }}"),
        ),
        None => (
            format!("the client id of that account{line}"),
            "{ file = \"…\" }   # a file of mode 0600 with the client secret from there".to_owned(),
        ),
    };
    format!(
        "# The application of {}{more}; [lwa] if you have only this one.\n[applications.NAME]\n\
         client_id = \"…\"   # {client_id}\nclient_secret = {secret}\n",
        first.alias,
    )
}

/// The table with an account's profile as a default header, unless that is configured.
fn scope(
    config: &Config,
    entry: &Entry,
    region: Option<Region>,
    application: Option<&str>,
) -> Option<String> {
    let profile = entry.profile_id.as_ref()?;
    let alias = &entry.alias;
    let header = format!("headers = {{ \"{SCOPE}\" = \"{profile}\" }}\n");
    let key = match alias.as_str().contains('.') {
        true => format!("\"{alias}\""),
        false => alias.to_string(),
    };
    match config.accounts.get(alias) {
        Some(known) if known.headers.iter().any(|(name, _)| *name == SCOPE) => None,
        Some(_) => Some(format!("# Into [accounts.{key}]:\n# {header}")),
        None => {
            let region = region.map_or("…", Region::as_str);
            let application = application.filter(|name| *name != DEFAULT_APPLICATION);
            let application = application.map(|name| format!("application = {name:?}\n"));
            let application = application.unwrap_or_default();
            Some(format!("[accounts.{key}]\nregion = \"{region}\"\n{application}{header}"))
        }
    }
}

/// How far the work is, on a terminal's standard error. Cleared away when dropped.
pub(super) struct Progress {
    total: usize,
    done: usize,
    is_shown: bool,
    drawn_at: Option<Instant>,
}

impl Progress {
    /// Of `total` steps none is done.
    pub(super) fn new(total: usize) -> Self {
        Self { total, done: 0, is_shown: io::stderr().is_terminal(), drawn_at: None }
    }

    /// One more step is done.
    pub(super) fn step(&mut self) {
        self.done += 1;
        let is_due = self.drawn_at.is_none_or(|at| at.elapsed() >= BAR_PAUSE);
        if self.is_shown && (is_due || self.done == self.total) {
            self.drawn_at = Some(Instant::now());
            let bar = "#".repeat(self.done * BAR_WIDTH / self.total.max(1));
            let (done, total) = (self.done, self.total);
            // A terminal that went away is no reason to stop.
            let _ = write!(io::stderr(), "\r[{bar:<BAR_WIDTH$}] {done}/{total}\x1b[K");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.drawn_at.is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
