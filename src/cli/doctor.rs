//! `adsproxy doctor`: checks everything that could keep adsproxy from working, and says how to
//! fix what does. Changes nothing, shows no secret.
//!
//! A check is a function that returns findings. Those that wait for others run side by side, each
//! with a time limit of its own.

mod finding;
mod grants;
mod network;
mod place;
mod ports;
mod profiles;
mod store;

use super::{CommandFailure, Context, print, wire::Server};
use crate::{config::load::Loaded, id::AccountId};
use finding::{Finding, errors};
use std::{io::IsTerminal, sync::Arc};
use tokio::task::JoinHandle;

/// Check configuration, files, network and grants, and say how to fix what is wrong
#[derive(Debug, clap::Args)]
pub(super) struct Doctor {
    /// The accounts to check [default: all]
    #[arg(value_name = "ALIAS")]
    accounts: Vec<AccountId>,
    /// Send nothing, neither to Amazon nor to name servers
    #[arg(long)]
    offline: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Doctor {
    pub(super) fn run(&self, context: &Context) -> anyhow::Result<()> {
        let findings = match context.load() {
            Ok(loaded) => self.examine_loaded(context, loaded)?,
            Err(error) => {
                let fix = "correct it, or begin with the lines that `adsproxy key init` prints; \
                           `adsproxy check-config` checks the configuration alone";
                vec![Finding::error("config", format!("{error:#}"), fix).code(78)]
            }
        };
        let no_color = context.environment.non_empty("NO_COLOR").is_some();
        print(match self.json {
            true => finding::json(&findings),
            false => finding::text(&findings, std::io::stdout().is_terminal() && !no_color),
        })?;
        let error = match errors(&findings).count() {
            0 => return Ok(()),
            1 => "one thing is wrong".to_owned(),
            errors => format!("{errors} things are wrong"),
        };
        Err(CommandFailure::new(finding::exit_code(&findings), error).into())
    }

    fn examine_loaded(&self, context: &Context, loaded: Loaded) -> anyhow::Result<Vec<Finding>> {
        let server = Server::find(context, &loaded.config);
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let findings = runtime.block_on(self.examine(context, loaded, server));
        // A name server or a disk that hangs must not hold the end.
        runtime.shutdown_background();
        Ok(findings)
    }

    /// Every check, in the order of the report.
    async fn examine(
        &self,
        context: &Context,
        loaded: Loaded,
        server: anyhow::Result<Option<Server>>,
    ) -> Vec<Finding> {
        let mut findings = place::config(&loaded);
        let config = Arc::new(loaded.config);
        findings.extend(place::redirects(&config));
        let (ports, (stored, accounts)) =
            tokio::join!(ports::check(&config), store::check(&config));
        let is_readable = errors(&stored).next().is_none();
        findings.extend(ports);
        findings.extend(stored);
        if self.offline {
            findings.push(Finding::skipped("network", "not checked, because of --offline"));
            return findings;
        }
        let (reached, ways) = network::check(&config, &accounts.known, &context.environment).await;
        findings.extend(reached);
        findings.extend(match (ways, server) {
            _ if !is_readable => vec![Finding::skipped("grant", "not checked without a store")],
            (None, _) => vec![Finding::skipped("grant", "not checked without TLS")],
            (_, Err(error)) => {
                let fix = "run this as the user of the server, or as root";
                vec![Finding::error("grant", format!("{error:#}"), fix)]
            }
            (Some(ways), Ok(server)) => {
                let store = accounts.store;
                let client = grants::Client::new(config, store, server, ways);
                grants::check(client, accounts.known, &self.accounts).await
            }
        });
        findings
    }
}

/// What checks that run side by side find, in the order of `checks`.
async fn joined(checks: Vec<JoinHandle<Vec<Finding>>>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for check in checks {
        findings.extend(check.await.unwrap_or_default());
    }
    findings
}
