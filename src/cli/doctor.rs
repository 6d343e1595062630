//! `adsproxy doctor`: looks at everything that could keep adsproxy from working, and says how to
//! mend what does. Never shows a secret.
//!
//! Every check has a time limit of its own, and those that wait for others run side by side.

mod finding;
mod grants;
mod network;
mod place;
mod ports;

use super::{Context, Failure, print};
use crate::id::AccountId;
use finding::{Finding, Level, Report};
use std::{collections::BTreeSet, io::IsTerminal};

/// Check configuration, files, network and grants, and say how to mend what is wrong
#[derive(Debug, clap::Args)]
pub(super) struct Doctor {
    /// The accounts to look at [default: all]
    #[arg(value_name = "ALIAS")]
    accounts: Vec<AccountId>,
    /// Ask nobody: neither Amazon nor name servers
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
                let mend = "mend it, or begin with the lines that `adsproxy key init` prints; \
                            `adsproxy check-config` looks at the configuration alone";
                report.add(Finding::error("config", text).mend(mend).code(78));
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
            report.add(Finding::skipped("network", "not asked, because of --offline"));
            return Ok(report);
        }
        report.extend(runtime.block_on(network::check(config, &context.environment)));
        // Without a store there is no grant to look at.
        if report.has_error("store") || report.has_error("key") {
            report.add(Finding::skipped("grant", "not looked at without a store"));
            return Ok(report);
        }
        let wanted: BTreeSet<AccountId> = self.accounts.iter().cloned().collect();
        report.extend(grants::check(context, &runtime, &wanted));
        // A name server or a disk that hangs must not hold the end.
        runtime.shutdown_background();
        Ok(report)
    }
}
