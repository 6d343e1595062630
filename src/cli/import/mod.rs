//! `adsproxy import`: brings accounts over from what is in use now. Never shows a secret.
//!
//! A source gives raw records. These become entries: checked, with a region and an application. An
//! entry is applied to its account in the store. A record that fails at any of these steps is
//! reported and costs no other.

mod advice;
mod apply;
mod fernet;
mod formats;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod plan;
mod record;
mod report;
mod source;
mod tree;

use super::{Cli, Context, account::writer::GrantWriter, note, print, region, wire::block_on};
use crate::{
    audit::{self, Action, Actor},
    clock::{Clock, SystemClock},
    grants::given::Replace,
    id::{AccountId, Region},
};
use advice::advice;
use anyhow::{Context as _, bail};
use apply::Importer;
use clap::CommandFactory;
use record::RecordReader;
use report::ImportReport;
pub(super) use source::secret_variables;
use source::{Source, SourceKind};
use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

#[derive(Debug, clap::Args)]
#[command(after_help = FORMATS)]
pub(super) struct Import {
    /// The file to read; `-` is standard input
    file: Option<PathBuf>,
    /// What to read [default: by the name and the content of FILE]
    #[arg(long, value_enum, value_name = "SOURCE", hide_possible_values = true)]
    from: Option<SourceKind>,
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
        let mut importer = Importer::open(context, context.load()?.config.into(), self.dry_run)?;
        let source = Source::read(self.from, self.file.as_deref(), &context.environment)?;
        // What standard input comes from may take its time.
        importer.now = SystemClock.now().unix();
        if self.account.is_some() && source.raws.len() > 1 {
            bail!("--account is the name of an only record, and here are {}", source.raws.len());
        }
        block_on(self.import(context, &Arc::new(importer), source))?
    }

    /// What clap cannot know: which source needs a file.
    fn check_usage(&self) {
        let message = match (self.from, &self.file) {
            (None, None) => "say what to import: FILE or --from",
            (Some(SourceKind::Csv | SourceKind::Json | SourceKind::Legacy), None) => {
                "say which FILE to read; `-` is standard input"
            }
            _ => return,
        };
        Cli::command().error(clap::error::ErrorKind::MissingRequiredArgument, message).exit()
    }

    async fn import(
        &self,
        context: &Context,
        importer: &Arc<Importer>,
        source: Source,
    ) -> anyhow::Result<()> {
        let (config, application) = (&importer.config, self.application.as_deref());
        if application.is_some_and(|name| !config.applications.contains_key(name)) {
            bail!("--application: {}", plan::unknown_application(config));
        }
        let mut known: BTreeSet<AccountId> = config.accounts.keys().cloned().collect();
        known.extend(importer.store.grants().await.context("cannot read the store")?);
        let keys = (source.kind == SourceKind::Legacy)
            .then(|| source::fernet_keys(self.fernet_key_file.as_deref(), &context.environment));
        let reader = RecordReader {
            keys: keys.transpose()?,
            known,
            account: self.account.as_ref(),
            // As python-amazon-ad-api calls the account that its caller does not name.
            unnamed: (source.kind == SourceKind::Env).then_some("default"),
            config,
            region: self.region.or(source.region),
            application,
            replace: if self.replace { Replace::Differing } else { Replace::Never },
            now: importer.now,
        };
        let mut records: Vec<_> = source.raws.iter().map(|raw| reader.read(raw)).collect();
        // First: of two records with one alias, that one cannot be resolved does not make the other
        // one right.
        plan::settle_duplicates(&mut records);
        reader.resolve_all(&mut records);
        let (notes, tables) = advice(config, &source, &records);

        importer.apply_all(&mut records).await;
        let (source, dry_run) = (source.kind.name(), self.dry_run);
        let report = ImportReport { records, source, dry_run, notes, tables };
        let [added, replaced, _, _, rejected] = report.counts().map(|(_, count)| count);
        let changes = (added + replaced) as u64;
        let entry = audit::Entry::new(Actor::cli(), Action::Import).about(&report.source);
        let recorded = match importer.writer.as_ref().map(GrantWriter::audit) {
            Some(audit) if changes > 0 => audit.write(entry.count(changes)).await,
            _ => Ok(()),
        };
        if self.json {
            print(report.json())?;
            note(report.sum());
        } else {
            print(report.text())?;
            note(report.remarks() + &report.sum());
        }
        match rejected {
            0 => recorded.context("cannot record that the import ended"),
            rejected => bail!("{rejected} of {} records were rejected", report.records.len()),
        }
    }
}
