//! `adsproxy doctor`: checks everything that could keep adsproxy from working, and says how to
//! fix what does. Changes nothing, shows no secret.
//!
//! A check is a function that returns findings. Those that wait for others run side by side, each
//! with a time limit of its own.

mod callers;
mod finding;
mod grants;
mod network;
mod place;
mod ports;
mod store;

use super::{
    CommandFailure, Context, print,
    server::{OwnServer, Server},
    table::cell,
    wire::AdminRequest,
};
use crate::{
    config::{Config, StoreKind, load::Loaded},
    id::AccountId,
};
use finding::{Finding, errors};
use grants::GrantChecks;
use std::{io::IsTerminal, sync::Arc};
use tokio::{runtime::Builder, task::JoinHandle};

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
            Ok(loaded) => self.examine(context, loaded)?,
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

    /// Every check, in the order of the report.
    fn examine(&self, context: &Context, loaded: Loaded) -> anyhow::Result<Vec<Finding>> {
        let mut findings = place::config(&loaded);
        let config = Arc::new(loaded.config);
        findings.extend(place::redirects(&config));
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let (ports, (stored, store, known)) =
            runtime.block_on(async { tokio::join!(ports::check(&config), store::check(&config)) });
        let is_readable = errors(&stored).next().is_none();
        findings.extend(ports);
        findings.extend(stored);
        findings.extend(runtime.block_on(callers::check(&config, store.as_ref())));
        findings.extend(Server::find(context, &config).ok().flatten().and_then(|it| pending(&it)));
        if self.offline {
            findings.push(Finding::skipped("network", "not checked, because of --offline"));
            return Ok(findings);
        }
        let reach = network::check(&config, &known, &context.environment);
        let (reached, api) = runtime.block_on(reach);
        findings.extend(reached);
        let server = Server::find(context, &config);
        let server = server.and_then(|found| found.map_or_else(|| own(&config), Ok));
        match (api, &server) {
            _ if !is_readable => {
                findings.push(Finding::skipped("grant", "not checked without a store"))
            }
            (None, _) => findings.push(Finding::skipped("grant", "not checked without TLS")),
            (_, Err(error)) => {
                let fix = "run this as the user of the server, or as root";
                findings.push(Finding::error("grant", format!("{error:#}"), fix));
            }
            (Some(api), Ok(server)) => {
                let checks = GrantChecks::new(config, store, server.clone(), api);
                let checked = checks.run(known, &self.accounts);
                findings.extend(runtime.block_on(checked));
            }
        }
        // A name server or a disk that hangs must not hold the end.
        runtime.shutdown_background();
        Ok(findings)
    }
}

/// What of the configuration the running server has not applied.
fn pending(server: &Server) -> Option<Finding> {
    let said = server.json(AdminRequest::get("/status")).ok()?;
    let keys: Vec<_> = said["restart_required"].as_array()?.iter().map(cell).collect();
    let text = format!("the running server has not applied: {}", keys.join(", "));
    (!keys.is_empty()).then(|| Finding::warning("config", text, "restart it"))
}

/// A server in this process, over a store in its memory: what it refreshes is not stored.
fn own(config: &Config) -> anyhow::Result<Server> {
    let mut config = config.clone();
    config.store.kind = StoreKind::Memory;
    config.audit.path = None;
    config.hooks.clear();
    Ok(Server::Own(OwnServer::open(config, "off")?))
}

/// What checks that run side by side find, in the order of `checks`.
async fn joined(checks: Vec<JoinHandle<Vec<Finding>>>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for check in checks {
        findings.extend(check.await.unwrap_or_default());
    }
    findings
}
