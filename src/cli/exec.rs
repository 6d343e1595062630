//! `adsproxy exec`: runs a command with a proxy of its own.
//!
//! The process that was started becomes the command, as the name says: signals, job control, exit
//! code and terminal are the command's own, with nothing in between that would have to imitate
//! them. The proxy runs in a second process, which watches the first and goes when it is gone,
//! however that ends. It is started over an intermediate one, so that the command has no child that
//! it knows nothing of.

mod keeper;

pub(super) use keeper::Keeper;

use super::{Context, Failure, access::Access, import, region};
use crate::id::{AccountId, Region};
use anyhow::{Context as _, anyhow};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    io::{self, BufRead, BufReader},
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
};

/// Run a command with a private proxy for one account, gone when the command ends
#[derive(Debug, clap::Args)]
#[command(override_usage = "adsproxy exec [OPTIONS] <ALIAS> -- <COMMAND> [ARGUMENT]...")]
pub(super) struct Exec {
    /// Another region than the account's: na, eu, fe or a marketplace
    #[arg(long, value_parser = region::flag)]
    region: Option<Region>,
    /// Also set AD_API_* of python-amazon-ad-api, with this advertiser profile
    #[arg(long, value_name = "ID")]
    profile: Option<u64>,
    /// Its alias
    alias: AccountId,
    /// The command and its arguments
    #[arg(
        value_name = "COMMAND",
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    command: Vec<OsString>,
}

/// What the keeper says once it serves, or when it cannot: one line of JSON on a pipe that only
/// the two of them hold.
#[derive(Debug, Serialize, Deserialize)]
enum Report {
    Serves { origin: String, bearer: String, secret_variables: BTreeSet<String> },
    Failed { error: String, code: u8 },
}

impl Exec {
    pub(super) fn run(&self, context: &Context) -> anyhow::Result<()> {
        let [program, arguments @ ..] = self.command.as_slice() else {
            return Err(anyhow!("there is no command to run"));
        };
        let report = self.start_keeper(context, program)?;
        let Report::Serves { origin, bearer, secret_variables } = report else {
            let Report::Failed { error, code } = report else {
                unreachable!("two kinds of report")
            };
            return Err(Failure::Reported { error, code }.into());
        };
        let (account, region, profile) = (&self.alias, self.region, self.profile);
        let access = Access { origin, account, region, bearer, profile };
        let known = |name: &str| context.environment.get(name).map(str::to_owned);
        let mut command = Command::new(program);
        command.args(arguments);
        // The command has the proxy instead.
        let of_other_clients = import::secret_variables();
        for name in secret_variables.iter().chain(&of_other_clients) {
            command.env_remove(name);
        }
        command.envs(access.variables(known));
        let error = command.exec();
        let code = if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 };
        let error = format!("cannot run {}: {error}", program.display());
        Err(Failure::Reported { error, code }.into())
    }

    /// Starts the proxy's process and waits until it serves.
    fn start_keeper(&self, context: &Context, program: &OsStr) -> anyhow::Result<Report> {
        let name = Path::new(program).file_name().unwrap_or(program);
        let keeper = Keeper::new(&self.alias, name.to_string_lossy().into_owned());
        let mut starter = keeper.command(context);
        starter.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut starter = starter.spawn().context("cannot start the private proxy")?;
        let mut line = String::new();
        if let Some(pipe) = starter.stdout.take() {
            BufReader::new(pipe).read_line(&mut line)?;
        }
        starter.wait()?;
        // Not the parser's own words: they may quote the line.
        serde_json::from_str(&line)
            .map_err(|_| anyhow!("the private proxy ended before it was ready"))
    }
}
