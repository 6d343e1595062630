//! `adsproxy migrate`: makes the schema of the database what this program wants.

use super::{Context, print};
use crate::{
    config::load,
    store::{Store, backend::Schema},
};

/// Make the tables of the store in a database, or what they lack
///
/// It needs store.url alone, and no keys; ADSPROXY_STORE__URL names another role.
#[derive(Debug, clap::Args)]
pub(super) struct Migrate;

impl Migrate {
    pub(super) fn run(&self, context: &Context) -> anyhow::Result<()> {
        let store = load::store(&context.options())?;
        let done = match Store::migrate(&store)? {
            Some(before) => said(&before),
            None => format!("store.kind is \"{}\", which has no tables", store.kind),
        };
        print(format!("{done}\n"))
    }
}

fn said(Schema { name, version, known }: &Schema) -> String {
    match version {
        0 => format!("schema {name:?}: its tables were made, version {known}"),
        version if version < known => {
            format!("schema {name:?}: was of version {version}, is of version {known} now")
        }
        version => format!("schema {name:?} is of version {version}: nothing to do"),
    }
}
