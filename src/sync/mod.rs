//! Accounts known to this process: their region, default headers and token.
//!
//! `enroll` fills the table from the configuration and the store and follows the store.
//! The table is replaced as a whole; workers read a snapshot of it without a lock. It may have a
//! hundred thousand accounts: an account is found by one hash and no second one for its token, and
//! takes as little memory as it can.

mod consent;
pub mod enroll;
mod load;
mod reconfigure;
mod records;
mod running;
mod table;

pub use table::Table;

use crate::{
    config,
    id::{AccountId, Region},
    lwa::Application,
    token::TokenState,
};
use arc_swap::ArcSwap;
use http::{HeaderName, HeaderValue};
use std::sync::Arc;

type DefaultHeaders = Vec<(HeaderName, HeaderValue)>;

/// One account as a request needs it: everything is built once.
#[derive(Debug)]
pub struct Account {
    /// Which API host, unless the request says otherwise.
    pub region: Region,
    /// Few have some.
    headers: Option<Box<DefaultHeaders>>,
    application: Arc<Application>,
    /// Its token. One that was replaced since has none: it is then found by id.
    pub token: Arc<TokenState>,
}

impl Account {
    /// An account as configured; one that only the store knows has no headers.
    pub fn new(
        token: Arc<TokenState>,
        region: Region,
        application: Arc<Application>,
        config: Option<&config::AccountConfig>,
    ) -> Self {
        let headers = config.map(|config| config.headers.clone()).filter(|it| !it.is_empty());
        let headers = headers.map(Box::new);
        Self { region, headers, application, token }
    }

    pub fn id(&self) -> &AccountId {
        &self.token.id
    }

    /// Added to a request that lacks them.
    pub fn headers(&self) -> &[(HeaderName, HeaderValue)] {
        self.headers.as_deref().map_or(&[], Vec::as_slice)
    }

    pub fn client_id(&self) -> &str {
        self.application.client_id()
    }

    /// The application's client id as a header value.
    pub fn client_id_header(&self) -> &HeaderValue {
        self.application.client_id_header()
    }
}

/// The current table, shared by all that look into it; workers cache it.
pub type Directory = Arc<ArcSwap<Table>>;
