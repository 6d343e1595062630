//! `adsproxy key`: makes, rotates and shows the keys that seal the store.

mod init;
mod rotate;
mod status;

use super::{Context, print, table::table, wire::block_on};
use crate::{audit::Audit, clock::SystemClock, store::Store};
use anyhow::{Context as _, bail};
use std::sync::Arc;

#[derive(Debug, clap::Subcommand)]
pub(in crate::cli) enum KeyVerb {
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

impl KeyVerb {
    pub(super) fn run(&self, context: &Context) -> anyhow::Result<()> {
        if let Self::Init(init) = self {
            return init.run(context);
        }
        let config = context.load()?.config;
        if !config.store.kind.seals() {
            bail!("store.kind = \"memory\" seals nothing: there is no key to look after");
        }
        let store = Store::open(&config.store, &config.encryption);
        let store = store.context("cannot open the store")?;
        let audit = Audit::of_store(&store, &config.audit, Arc::new(SystemClock));
        block_on(async {
            match self {
                Self::Init(_) => Ok(()),
                Self::Rotate => rotate::run(&store, &audit).await,
                Self::Status { json } => status::run(&store, *json).await,
                Self::Retire { id } => status::retire(&store, &audit, id).await,
            }
        })?
    }
}
