//! `adsproxy store accept`: uses records that were restored from a backup, as they are.

use super::{Context, print, wire::block_on};
use crate::{
    audit::{Actor, Audit},
    clock::{Clock as _, SystemClock},
    error_chain::chain,
    grants::Grants,
    id::AccountId,
    store::Store,
};
use anyhow::{Context as _, bail};
use std::{collections::BTreeMap, sync::Arc};

/// Accepts those of `accounts` that servers refuse; all of them if none is named.
pub(super) fn run(context: &Context, accounts: &[AccountId]) -> anyhow::Result<()> {
    let config = context.load()?.config;
    let store = Store::open(&config.store, &config.encryption).context("cannot open the store")?;
    let audit = Audit::of_store(&store, &config.audit, Arc::new(SystemClock));
    let grants = Grants::new(store.clone(), audit);
    block_on(async {
        let marks: BTreeMap<_, _> = store.marks(None).await?.into_iter().collect();
        if let Some(unknown) = accounts.iter().find(|account| !marks.contains_key(*account)) {
            bail!("nothing is known of an older record of {unknown}");
        }
        let (mut accepted, mut failed) = (0, 0);
        for (account, mark) in &marks {
            if !accounts.is_empty() && !accounts.contains(account) {
                continue;
            }
            let now = SystemClock.now().unix();
            match grants.accept(account, mark, Actor::cli(), now).await {
                Ok(true) => {
                    accepted += 1;
                    print(format!("{account}: its record is used as it is\n"))?;
                }
                Ok(false) => {}
                Err(error) => {
                    failed += 1;
                    print(format!("{account}: {}\n", chain(&error)))?;
                }
            }
        }
        match (accepted, failed) {
            (0, 0) => print("no record is older than one that was there\n"),
            (_, 0) => Ok(()),
            (_, failed) => bail!("{failed} records could not be accepted"),
        }
    })?
}
