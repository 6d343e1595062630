//! `adsproxy doctor`: checks everything that could keep adsproxy from working, and says how to
//! fix what does. Changes nothing, shows no secret.
//!
//! Every check has a time limit of its own, and those that wait for others run side by side.

mod finding;
mod grants;
mod network;
mod place;
mod ports;
mod profiles;

use super::{Context, Failure, print, wire::Server};
use crate::id::AccountId;
use finding::{Finding, Level, Report};
use std::{collections::BTreeSet, io::IsTerminal, sync::Arc};

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
        let report = self.examine(context)?;
        let stdout = std::io::stdout();
        let no_color = context.environment.non_empty("NO_COLOR").is_some();
        print(match self.json {
            true => report.json(),
            false => report.text(stdout.is_terminal() && !no_color),
        })?;
        let error = match report.count(Level::Error) {
            0 => return Ok(()),
            1 => "one thing is wrong".to_owned(),
            errors => format!("{errors} things are wrong"),
        };
        Err(Failure::Reported { error, code: report.exit_code() }.into())
    }

    fn examine(&self, context: &Context) -> anyhow::Result<Report> {
        let mut report = Report::default();
        let loaded = match context.load() {
            Ok(loaded) => loaded,
            Err(failure) => {
                // What anyhow shows: the chain of causes.
                let text = format!("{:#}", anyhow::Error::from(failure));
                let fix = "correct it, or begin with the lines that `adsproxy key init` prints; \
                           `adsproxy check-config` checks the configuration alone";
                report.add(Finding::error("config", text).fix(fix).code(78));
                return Ok(report);
            }
        };
        let config = &loaded.config;
        report.extend(place::config(&loaded));
        report.extend(place::redirects(config));
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(async {
            let (ports, store) = tokio::join!(ports::check(config), place::store(config));
            report.extend(ports);
            report.extend(store);
        });
        if self.offline {
            report.add(Finding::skipped("network", "not checked, because of --offline"));
            return Ok(report);
        }
        let store = grants::store(config);
        let known = runtime.block_on(grants::known(config, store.as_deref()));
        report.extend(runtime.block_on(network::check(config, &known, &context.environment)));
        // Without a store there is no grant to check.
        if report.has_error("store") || report.has_error("key") {
            report.add(Finding::skipped("grant", "not checked without a store"));
            return Ok(report);
        }
        let wanted: BTreeSet<AccountId> = self.accounts.iter().cloned().collect();
        let config = Arc::new(loaded.config);
        let found = match Server::find(context, &config) {
            Ok(server) => runtime.block_on(grants::check(&config, store, server, &known, &wanted)),
            Err(error) => {
                let fix = "run this as the user of the server, or as root";
                vec![Finding::error("grant", format!("{error:#}")).fix(fix)]
            }
        };
        report.extend(found);
        // A name server or a disk that hangs must not hold the end.
        runtime.shutdown_background();
        Ok(report)
    }
}
