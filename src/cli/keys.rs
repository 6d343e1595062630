//! `adsproxy key`: makes, rotates and shows the keys that seal the store.

mod init;
mod rotate;
mod status;

use super::{Context, print, table::table};
use crate::{
    audit::Audit,
    clock::SystemClock,
    config::{Config, load::Loaded},
    store::Store,
};
use anyhow::{Context as _, bail};
use std::sync::Arc;

#[derive(Debug, clap::Subcommand)]
pub(in crate::cli) enum Verb {
    /// Make a new key and print the lines that use it; never overwrites one
    Init(init::Init),
    /// Seal every record anew with the first key, while servers run
    #[command(after_help = rotate::HOW)]
    Rotate,
    /// Show which keys there are and what needs them
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Say whether a key may be taken out of the configuration: exits with 1 if not
    Retire {
        /// The key's id
        id: String,
    },
}

impl Verb {
    pub(super) fn run(&self, context: &Context) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        match self {
            Self::Init(init) => init.run(context),
            Self::Rotate => {
                let (config, store) = sealed_store(context)?;
                runtime.block_on(rotate::run(&config, &store))
            }
            Self::Status { json } => {
                let (_, store) = sealed_store(context)?;
                runtime.block_on(status::run(&store, *json))
            }
            Self::Retire { id } => {
                let (config, store) = sealed_store(context)?;
                runtime.block_on(status::retire(&config, &store, id))
            }
        }
    }
}

fn sealed_store(context: &Context) -> anyhow::Result<(Config, Store)> {
    let Loaded { config, .. } = context.load()?;
    if !config.store.kind.seals() {
        bail!("store.kind = \"memory\" seals nothing: there is no key to look after");
    }
    let store = Store::open(&config.store, &config.encryption).context("cannot open the store")?;
    Ok((config, store))
}

fn audit(config: &Config, store: &Store) -> Audit {
    Audit::of_store(store, &config.audit, Arc::new(SystemClock))
}
