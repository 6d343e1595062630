//! `adsproxy import`: brings accounts over from what is in use now. Never shows a secret.
//!
//! A source becomes drafts (raw values by record), these become entries (checked), these become
//! plans (with region and application), and plans are carried out one account at a time, each
//! under its lock. A record that fails at any of these steps is reported and costs no other.

mod apply;
mod batch;
mod csv;
mod document;
mod entry;
mod env;
mod fernet;
mod fields;
mod hints;
mod input;
mod name;
mod progress;
mod python_ad_api;
mod rejection;
mod report;
mod resolve;
mod source;
mod yaml;

use super::{Cli, Context, account::store_to_change, print, region};
use crate::{
    audit::Audit,
    clock::{Clock, SystemClock},
    config::{Config, environment::Environment},
    id::{AccountId, Region},
    store::{self, CredentialStore},
};
use anyhow::{Context as _, bail};
use apply::{Importer, Journal};
use batch::Planned;
use clap::CommandFactory;
use entry::{Entry, Reading, Rejected};
use fields::Draft;
use hints::Hints;
use rejection::Rejection;
use report::Row;
use resolve::{Defaults, Plan};
use source::{Found, Source};
use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

/// Lines for the configuration that are shown to a person.
const TABLES_MAX: usize = 10;

/// Bring accounts over from what you run now
#[derive(Debug, clap::Args)]
#[command(after_help = FORMATS)]
pub(super) struct Import {
    /// The file to read; `-` is standard input
    file: Option<PathBuf>,
    /// What to read [default: by the name and the content of FILE]
    #[arg(long, value_enum, value_name = "SOURCE", hide_possible_values = true)]
    from: Option<Source>,
    /// Only tell what would be done
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
  env            $AD_API_REFRESH_TOKEN, _CLIENT_ID, _CLIENT_SECRET, _PROFILE_ID; or $AMAZON_…
  python-ad-api  credentials.yml of python-amazon-ad-api, by default where that looks for it
  csv            a table with a heading; delimiter , ; or tab
  json           an object, a list, JSON Lines, or an object with accounts as its keys
  legacy         the same, with tokens encrypted by Fernet under $FERNET_KEY (or several: a,b)

Columns and keys, in any spelling (refresh_token, refreshToken, Refresh Token):
  account, refresh_token; and if known region (na, eu, fe or a marketplace), application,
  profile_id, consented_at, client_id, client_secret, access_token, expires_at, updated_at,
  token_type

Exit code 1 if any record is rejected; the others are imported all the same.";

/// What came out of an import.
struct Done {
    rows: Vec<Row>,
    hints: Hints,
    source: Source,
    /// Whether the audit log took the entry that ends it.
    recorded: Result<(), Rejection>,
}

impl Import {
    pub(super) fn run(&self, context: &Context) -> anyhow::Result<()> {
        self.check_usage();
        let config = context.load()?.config;
        let store = self.open_store(&config)?;
        let found = source::find(self.from, self.file.as_deref(), &context.environment)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let done = runtime.block_on(self.import(context, &config, store, found))?;
        self.tell(&done)
    }

    /// What clap cannot know: which source needs a file.
    fn check_usage(&self) {
        use clap::error::ErrorKind::{ArgumentConflict, MissingRequiredArgument};
        let (kind, message) = match (self.from, &self.file) {
            (None, None) => (MissingRequiredArgument, "say what to import: FILE or --from"),
            (Some(Source::Env), Some(_)) => (ArgumentConflict, "--from env reads no file"),
            (Some(Source::Csv | Source::Json | Source::Legacy), None) => {
                (MissingRequiredArgument, "say which FILE to read; `-` is standard input")
            }
            _ => return,
        };
        Cli::command().error(kind, message).exit()
    }

    /// A dry run makes no store where there is none.
    fn open_store(&self, config: &Config) -> anyhow::Result<Arc<dyn CredentialStore>> {
        if !self.dry_run || !config.store.kind.seals() || config.store.path.exists() {
            return store_to_change(config);
        }
        store::seal::KeyRing::fetch(&config.encryption, &config.store.path)
            .context("cannot open the store")?;
        Ok(Arc::new(store::MemoryStore::new()))
    }

    async fn import(
        &self,
        context: &Context,
        config: &Config,
        store: Arc<dyn CredentialStore>,
        found: Found,
    ) -> anyhow::Result<Done> {
        let environment = &context.environment;
        let region = match self.region {
            Some(region) => Some(region),
            None => source::marketplace(found.source, environment)?,
        };
        let defaults = Defaults { region, application: self.application.as_deref() };
        if defaults.application.is_some_and(|name| !config.applications.contains_key(name)) {
            bail!("--application: {}", resolve::unknown_application(config));
        }
        let mut known: BTreeSet<AccountId> = config.accounts.keys().cloned().collect();
        known.extend(store.list().await.context("cannot read the store")?);
        let read = self.read(found.drafts, found.source, environment, &known)?;
        let planned = batch::plan(&read, config, &defaults);
        let seeds = config.accounts.iter();
        let audit = Audit::beside(&*store, config, Arc::new(SystemClock))?;
        let importer = Arc::new(Importer {
            store,
            journal: Journal::new(audit),
            applications: config.applications.keys().cloned().collect(),
            seeds: seeds.filter_map(|(k, v)| Some((k.clone(), v.refresh_token.clone()?))).collect(),
            replace: self.replace,
            dry_run: self.dry_run,
            now: SystemClock.now().unix(),
        });
        let rows = batch::rows(&read, &planned, &importer).await;
        let changes = rows.iter().filter(|row| row.is_change()).count();
        let recorded = match changes > 0 && !self.dry_run {
            true => importer.journal.done(found.source.as_str(), changes).await,
            false => Ok(()),
        };
        let plans: Vec<&Plan> = planned.iter().filter_map(Planned::plan).collect();
        let entries = read.iter().zip(&planned);
        let refused: Vec<_> = entries
            .filter_map(|(entry, planned)| Some((entry.as_ref().ok()?, planned.refusal()?)))
            .collect();
        let hints = Hints::new(found.family, config, &plans, &refused);
        Ok(Done { rows, hints, source: found.source, recorded })
    }

    fn read(
        &self,
        drafts: Vec<Draft>,
        source: Source,
        environment: &Environment,
        known: &BTreeSet<AccountId>,
    ) -> anyhow::Result<Vec<Result<Entry, Rejected>>> {
        if self.account.is_some() && drafts.len() > 1 {
            bail!("--account is the name of an only record, and here are {}", drafts.len());
        }
        let keys = match source {
            Source::Legacy => {
                Some(source::fernet_keys(self.fernet_key_file.as_deref(), environment)?)
            }
            _ => None,
        };
        // As python-amazon-ad-api calls the account that its caller does not name.
        let unnamed = match source {
            Source::Env => Some("default".parse()?),
            _ => None,
        };
        let reading = Reading {
            keys: keys.as_ref(),
            known,
            account: self.account.as_ref(),
            unnamed: unnamed.as_ref(),
            now: SystemClock.now().unix(),
        };
        Ok(drafts.into_iter().map(|draft| reading.read(draft)).collect())
    }

    fn tell(&self, done: &Done) -> anyhow::Result<()> {
        let Done { rows, hints, source, recorded } = done;
        if self.json {
            print(report::document(rows, hints, source.as_str(), self.dry_run))?;
        } else {
            print(report::text(rows))?;
            for note in &hints.notes {
                eprintln!("note: {note}");
            }
            let lines = hints.configuration(TABLES_MAX);
            if !lines.is_empty() {
                eprintln!("\nAdd to the configuration:\n\n{lines}");
            }
        }
        eprintln!("{}", report::summary(rows, self.dry_run));
        match rows.iter().filter(|row| row.is_rejected()).count() {
            0 => Ok(recorded.clone().context("cannot record that the import ended")?),
            rejected => bail!("{rejected} of {} records were rejected", rows.len()),
        }
    }
}
