//! Accounts known to this process: their region, default headers and token.
//!
//! `enroll` fills the table from the configuration and the store and follows the store.
//! The table is replaced as a whole; workers read a snapshot of it without a lock.

mod consent;
pub mod enroll;

use crate::{
    config,
    id::{AccountId, Region},
    lwa::Application,
};
use arc_swap::ArcSwap;
use http::{HeaderName, HeaderValue};
use std::{collections::BTreeMap, sync::Arc};

/// One account as a request needs it: everything is built once.
#[derive(Debug)]
pub struct Account {
    pub id: AccountId,
    /// Which API host, unless the request says otherwise.
    pub region: Region,
    /// Added to a request that lacks them.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The application's client id as a header value.
    pub client_id: HeaderValue,
}

impl Account {
    /// An account as configured; one that only the store knows has no headers.
    pub fn new(
        id: &AccountId,
        region: Region,
        application: &Application,
        config: Option<&config::AccountConfig>,
    ) -> Self {
        Self {
            id: id.clone(),
            region,
            headers: config.map(|config| config.headers.clone()).unwrap_or_default(),
            client_id: HeaderValue::from_str(application.client_id())
                .expect("the configuration accepts only client ids that fit a header"),
        }
    }

    pub fn client_id(&self) -> &str {
        self.client_id.to_str().expect("it was made of text")
    }
}

/// Accounts by alias. A few comparisons are cheaper than one hash that resists attackers.
pub type Table = BTreeMap<AccountId, Arc<Account>>;

/// The current table, shared by all that look into it; workers cache it.
pub type Directory = Arc<ArcSwap<Table>>;
