//! `adsproxy import`: brings accounts over from what is in use now. Never shows a secret.
//!
//! A source gives raw records, these become entries (checked), these get a plan (region and
//! application), and plans are carried out one account at a time, each under its lock. A record
//! that fails at any of these steps is reported and costs no other.

mod apply;
mod fernet;
mod formats;
mod plan;
mod record;
mod report;
mod source;
mod yaml;

use super::{Cli, Context, account::store_to_change, print, region};
use crate::{
    audit::Audit,
    clock::{Clock, SystemClock},
    config::Config,
    id::{AccountId, Region},
    store::{self, CredentialStore},
};
use anyhow::{Context as _, bail};
use apply::{Applied, Importer};
use clap::CommandFactory;
use plan::{Defaults, Plan};
use record::{Entry, Reading, Rejection};
use report::{Outcome, Progress, Report, Row};
pub(super) use source::secret_variables;
use source::{Found, Source};
use std::{
    collections::{BTreeSet, HashMap},
    path::PathBuf,
    sync::Arc,
};
use tokio::task::JoinSet;

/// Accounts that are worked on at once: mostly they wait for the disk.
const CONCURRENCY: usize = 16;

/// Bring accounts over from what you run now
#[derive(Debug, clap::Args)]
#[command(after_help = FORMATS)]
pub(super) struct Import {
    /// The file to read; `-` is standard input
    file: Option<PathBuf>,
    /// What to read [default: by the name and the content of FILE]
    #[arg(long, value_enum, value_name = "SOURCE", hide_possible_values = true)]
    from: Option<Source>,
    /// Show what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Replace what the store holds where it differs
    #[arg(long)]
    replace: bool,
    /// na, eu, fe or a marketplace; for accounts that name none
    #[arg(long, value_parser = region::flag)]
    region: Option<Region>,
    /// The application of grants that name none [default: by client id]
    #[arg(long, value_name = "NAME")]
    application: Option<String>,
    /// The alias of the only account
    #[arg(long, value_name = "ALIAS")]
    account: Option<AccountId>,
    /// Read the legacy store's keys from this file, not $FERNET_KEY
    #[arg(long, value_name = "PATH")]
    fernet_key_file: Option<PathBuf>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

const FORMATS: &str = "\
Sources:
  env            the environment, or a file such as .env: AD_API_REFRESH_TOKEN, _CLIENT_ID,
                 _CLIENT_SECRET, _PROFILE_ID; or AMAZON_…, AMAZON_ADS_…, AMAZON_ADVERTISING_…,
                 ADS_API_…, LWA_…; in a file also without any of these
  python-ad-api  credentials.yml of python-amazon-ad-api, by default where that looks for it
  csv            a table with a heading; delimiter , ; or tab
  json           an object, a list, JSON Lines, or an object with accounts as its keys
  legacy         the same, with tokens encrypted by Fernet under $FERNET_KEY (or several: a,b)

Columns and keys, in any spelling (refresh_token, refreshToken, Refresh Token):
  account, refresh_token; and if known region (na, eu, fe or a marketplace), application,
  profile_id, consented_at, client_id, client_secret, access_token, expires_at, updated_at,
  token_type. Client ids and secrets go into the configuration; they are compared, not stored.

Exit code 1 if any record is rejected; the others are imported all the same.";

impl Import {
    pub(super) fn run(&self, context: &Context) -> anyhow::Result<()> {
        self.check_usage();
        let config = context.load()?.config;
        let store = self.open_store(&config)?;
        let found = source::find(self.from, self.file.as_deref(), &context.environment)?;
        if self.account.is_some() && found.raws.len() > 1 {
            bail!("--account is the name of an only record, and here are {}", found.raws.len());
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (report, recorded) = runtime.block_on(self.import(context, &config, store, found))?;
        print(if self.json { report.json() } else { report.text() })?;
        eprint!("{}", report.remarks(!self.json));
        match report.count(Outcome::Rejected) {
            0 => {
                recorded.map_err(anyhow::Error::msg).context("cannot record that the import ended")
            }
            rejected => bail!("{rejected} of {} records were rejected", report.rows.len()),
        }
    }

    /// What clap cannot know: which source needs a file.
    fn check_usage(&self) {
        let message = match (self.from, &self.file) {
            (None, None) => "say what to import: FILE or --from",
            (Some(Source::Csv | Source::Json | Source::Legacy), None) => {
                "say which FILE to read; `-` is standard input"
            }
            _ => return,
        };
        Cli::command().error(clap::error::ErrorKind::MissingRequiredArgument, message).exit()
    }

    /// A dry run makes no store where there is none.
    fn open_store(&self, config: &Config) -> anyhow::Result<Arc<dyn CredentialStore>> {
        if !self.dry_run || !config.store.kind.seals() || config.store.path.exists() {
            return store_to_change(config);
        }
        store::Store::check(&config.store, &config.encryption).context("cannot open the store")?;
        Ok(Arc::new(store::Store::memory()?))
    }

    async fn import(
        &self,
        context: &Context,
        config: &Config,
        store: Arc<dyn CredentialStore>,
        found: Found,
    ) -> anyhow::Result<(Report, Result<(), Rejection>)> {
        let defaults = Defaults {
            region: self.region.or(found.region),
            application: self.application.as_deref(),
        };
        if defaults.application.is_some_and(|name| !config.applications.contains_key(name)) {
            bail!("--application: {}", plan::unknown_application(config.applications.keys()));
        }
        let mut known: BTreeSet<AccountId> = config.accounts.keys().cloned().collect();
        known.extend(store.list().await.context("cannot read the store")?);
        let keys = (found.source == Source::Legacy)
            .then(|| source::fernet_keys(self.fernet_key_file.as_deref(), &context.environment));
        let keys = keys.transpose()?;
        let now = SystemClock.now().unix();
        let reading = Reading {
            keys: keys.as_ref(),
            known: &known,
            account: self.account.as_ref(),
            // As python-amazon-ad-api calls the account that its caller does not name.
            unnamed: (found.source == Source::Env).then_some("default"),
            now,
        };
        let read = found.raws.iter().map(|raw| reading.read(raw));
        let (mut rows, entries): (Vec<Row>, Vec<Option<Entry>>) = read.unzip();
        let plans = plan::plan(&entries, config, &defaults);
        let seeds = config.accounts.iter();
        let importer = Arc::new(Importer {
            audit: Audit::beside(&*store, config, Arc::new(SystemClock))?,
            store,
            unrecorded: parking_lot::Mutex::default(),
            applications: config.applications.keys().cloned().collect(),
            seeds: seeds.filter_map(|(k, v)| Some((k.clone(), v.refresh_token.clone()?))).collect(),
            replace: self.replace,
            dry_run: self.dry_run,
            now,
        });
        carry_out(&importer, &entries, &plans, &mut rows).await;
        let source = found.source.as_str();
        let mut report =
            Report { rows, source, dry_run: self.dry_run, notes: Vec::new(), tables: Vec::new() };
        let changes = report.count(Outcome::Added) + report.count(Outcome::Replaced);
        let recorded = match changes > 0 && !self.dry_run {
            true => importer.finish(source, changes).await,
            false => Ok(()),
        };
        report.advise(config, found.prefix, &found.raws, &entries, &plans);
        Ok((report, recorded))
    }
}

/// Carries out every plan, several at a time, and fills in the rows.
async fn carry_out(
    importer: &Arc<Importer>,
    entries: &[Option<Entry>],
    plans: &HashMap<usize, Plan>,
    rows: &mut [Row],
) {
    let mut work = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let (row, Some(entry)) = (&mut rows[index], entry) else { continue };
        match plans.get(&index) {
            Some(Plan::Apply { region, application }) => {
                "it was not done".clone_into(&mut row.note);
                work.push((index, entry.clone(), *region, application.clone()));
            }
            Some(Plan::Same(other)) => {
                row.outcome = Outcome::Unchanged;
                let line = entries[*other].as_ref().and_then(|other| other.line);
                row.note = line.map(|line| format!("the same as line {line}")).unwrap_or_default();
            }
            Some(Plan::UnknownClient) => {
                "no configured application has its client id: add one, see below"
                    .clone_into(&mut row.note);
            }
            Some(Plan::Reject(why)) => row.note = why.to_string(),
            None => {}
        }
    }
    let mut progress = Progress::new(work.len());
    let mut tasks = JoinSet::new();
    let mut work = work.into_iter();
    loop {
        while tasks.len() < CONCURRENCY
            && let Some((index, entry, region, application)) = work.next()
        {
            let importer = Arc::clone(importer);
            tasks.spawn(async move { (index, importer.apply(&entry, region, application).await) });
        }
        match tasks.join_next().await {
            Some(Ok((index, applied))) => fill_in(&mut rows[index], applied),
            // Its row says that it was not done.
            Some(Err(_)) => {}
            None => return,
        }
        progress.step();
    }
}

fn fill_in(row: &mut Row, applied: Result<Applied, Rejection>) {
    match applied {
        Err(why) => row.note = why.into_owned(),
        Ok(applied) => {
            row.outcome = applied.outcome;
            row.region = Some(applied.region.as_str());
            row.application = Some(applied.application);
            row.note = applied.notes.join(", ");
            if applied.outcome == Outcome::Differs {
                row.note.push_str("; kept, --replace would take it");
            }
        }
    }
}
