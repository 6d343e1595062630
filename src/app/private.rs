//! A data plane for one command alone: its only caller is a session that ends with it.

use super::{App, Error, supervisor::Managed};
use crate::{
    callers::{KnownSession, key::NewKey},
    clock::SystemClock,
    config::{CallerConfig, Config, ListenAddress, RulesConfig},
    id::AccountId,
};
use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

/// The caller of a private data plane.
const PRIVATE_CALLER: &str = "exec";

/// A data plane for one command alone: no admin and no health listener, and one account.
#[derive(Debug, Clone)]
pub struct CommandProxy {
    /// The only account.
    pub account: AccountId,
    /// What every request must bring.
    pub key: NewKey,
    /// Requests may only read.
    pub read_only: bool,
    /// The control socket of the running server, which tokens come from.
    pub server: Option<PathBuf>,
}

impl CommandProxy {
    /// Makes `config` one that asks everybody, and knows the command alone.
    fn make_only_caller(&self, config: &mut Config) {
        let accounts = Some(vec![self.account.to_string()]);
        let rules = RulesConfig { accounts, read_only: self.read_only, ..RulesConfig::default() };
        let name = PRIVATE_CALLER.to_owned();
        config.callers = vec![CallerConfig { name, rules, ..CallerConfig::default() }];
        config.issuers.clear();
        config.auth.required = true;
        config.proxy.default_account = None;
    }

    /// The session of the command, which lives as long as its data plane.
    pub(super) fn session(&self) -> KnownSession {
        let key = self.key.presented();
        KnownSession {
            id: key.id,
            digest: key.digest(),
            caller: PRIVATE_CALLER.to_owned(),
            user: None,
            tenant: None,
            issued_with: None,
            accounts: None,
            read_only: self.read_only,
            expires: Duration::MAX,
        }
    }
}

impl App {
    /// Starts a data plane on a free port of loopback that accepts only requests with the key.
    pub fn start_private(mut config: Config, private: CommandProxy) -> Result<Self, Error> {
        config.listen.proxy = vec![ListenAddress::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)))];
        config.listen.tls = None;
        config.proxy.workers = 1;
        private.make_only_caller(&mut config);
        App::launch(config, Arc::new(SystemClock), Some(private), Managed::default())
    }
}
