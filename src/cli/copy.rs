//! `adsproxy store`: moves what a store keeps into another.

use super::{Context, accept, print};
use crate::{
    audit::{Action, Actor, Audit, Entry},
    clock::SystemClock,
    config::{AuditConfig, Config, StoreConfig, StoreKind},
    error_chain::chain,
    id::AccountId,
    secret::Secret,
    store::Store,
};
use anyhow::{Context as _, bail};
use std::{fmt, path::PathBuf, str::FromStr, sync::Arc};

#[derive(Debug, clap::Subcommand)]
pub(super) enum StoreVerb {
    /// Copy all that a store keeps into another, while no server runs on either
    #[command(after_help = HOW)]
    Copy(CopyStore),
    /// Use records as they are that were restored from a backup, and that servers refuse
    Accept {
        /// Which accounts
        #[arg(value_name = "ACCOUNT", required_unless_present = "all")]
        accounts: Vec<AccountId>,
        /// All of which records are older than ones that were there
        #[arg(long, conflicts_with = "accounts")]
        all: bool,
    },
}

const HOW: &str = "\
Each entry is sealed anew for the other store, read back and compared. The source stays as it is.
A copy that was interrupted goes on when it is run again. A target that holds other grants is
refused.

The keys are those of encryption.keys. `file` is the directory store.path; `postgres` is the
database of store.url, or of $DATABASE_URL, and its schema store.schema.";

#[derive(Debug, clap::Args)]
pub(super) struct CopyStore {
    /// Where from: `file`, `file:PATH` or `postgres`
    #[arg(long, value_name = "STORE")]
    from: StorePlace,
    /// Where to: `file`, `file:PATH` or `postgres`
    #[arg(long, value_name = "STORE")]
    to: StorePlace,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum StorePlace {
    /// The configured directory, or another one.
    File(Option<PathBuf>),
    Postgres,
}

impl FromStr for StorePlace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "file" => Ok(Self::File(None)),
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(Some(path.into()))),
            None if text == "postgres" && cfg!(feature = "postgres") => Ok(Self::Postgres),
            None if text == "postgres" => Err("this adsproxy was built without it".to_owned()),
            Some(("postgres" | "postgresql", _)) => {
                Err("a URL is no argument, which others can see: set DATABASE_URL".to_owned())
            }
            _ => Err("is none of `file`, `file:PATH` and `postgres`".to_owned()),
        }
    }
}

impl fmt::Display for StorePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File(_) => "file",
            Self::Postgres => "postgres",
        })
    }
}

impl StorePlace {
    /// The store there, as `config` says it otherwise.
    fn config(&self, context: &Context, config: &Config) -> anyhow::Result<StoreConfig> {
        let mut store = config.store.clone();
        match self {
            Self::File(path) => {
                store.kind = StoreKind::File;
                store.path = path.clone().unwrap_or(store.path);
            }
            Self::Postgres => {
                store.kind = StoreKind::Postgres;
                let given = context.environment.get("DATABASE_URL");
                store.url = store.url.or(given.map(Secret::from));
                if store.url.is_none() {
                    bail!("which database? Set DATABASE_URL, or store.url");
                }
            }
        }
        Ok(store)
    }
}

impl StoreVerb {
    pub(super) fn run(&self, context: &Context) -> anyhow::Result<()> {
        match self {
            Self::Copy(copy) => copy.run(context),
            Self::Accept { accounts, .. } => accept::run(context, accounts),
        }
    }
}

impl CopyStore {
    fn run(&self, context: &Context) -> anyhow::Result<()> {
        let config = context.load()?.config;
        let [from, to] = [&self.from, &self.to].map(|place| place.config(context, &config));
        let (from, to) = (from?, to?);
        if self.from != StorePlace::Postgres && !from.path.is_dir() {
            bail!("{} is no directory with a store", from.path.display());
        }
        let source = Store::open(&from, &config.encryption).context("cannot open the source")?;
        let target =
            source.open_target(&to, &config.encryption).context("cannot open the target")?;
        let report = source.copy_to(&target)?;
        if report.copied > 0 {
            // In the log of the store that is used from now on.
            let is_configured = to.kind == config.store.kind
                && (self.to == StorePlace::Postgres || to.path == config.store.path);
            let path = match is_configured {
                true => config.audit.path.clone(),
                false => to.directory().map(|directory| directory.join("audit.jsonl")),
            };
            let audit = AuditConfig { path, ..config.audit.clone() };
            let entry = Entry::new(Actor::cli(), Action::StoreCopy).about(&self.from.to_string());
            let audit = Audit::of_store(&target, &audit, Arc::new(SystemClock));
            audit.record(&entry.count(report.copied as u64))?;
        }
        let mut said = format!(
            "{} grants and {} other entries are in both stores and equal; {} were copied now\n",
            report.grants,
            report.entries - report.grants,
            report.copied
        );
        for error in &report.unopened {
            said += &format!("not copied: {}\n", chain(error));
        }
        print(said)?;
        match report.unopened.len() {
            0 => Ok(()),
            count => bail!("{count} grants do not open and were not copied"),
        }
    }
}
