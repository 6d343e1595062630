//! `adsproxy exec`: runs a command with a proxy of its own.
//!
//! The process that was started becomes the command, as the name says: signals, job control, exit
//! code and terminal are the command's own, with nothing in between that would have to imitate
//! them. The proxy runs in a second process, which watches the first and goes when it is gone,
//! however that ends. It is started over an intermediate one, so that the command has no child that
//! it knows nothing of.

mod proxy;

pub(super) use proxy::ExecProxy;

use super::{CommandFailure, Context, access::Access, import};
use anyhow::{Context as _, anyhow, bail};
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
    #[command(flatten)]
    access: Access,
    /// The command and its arguments
    #[arg(
        value_name = "COMMAND",
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    command: Vec<OsString>,
}

/// What the proxy's process reports once it serves, or when it cannot: one line of JSON on a pipe that only
/// the two of them hold.
type Report = Result<PrivateAccess, CommandFailure>;

#[derive(Debug, Serialize, Deserialize)]
struct PrivateAccess {
    origin: String,
    bearer: String,
    secret_variables: BTreeSet<String>,
}

impl Exec {
    pub(super) fn run(&self, context: &Context) -> anyhow::Result<()> {
        let (program, arguments) =
            self.command.split_first().context("there is no command to run")?;
        let PrivateAccess { origin, bearer, secret_variables } =
            self.start_proxy(context, program)??;
        let mut command = Command::new(program);
        command.args(arguments);
        // The command has the proxy instead.
        for name in secret_variables.iter().chain(&import::secret_variables()) {
            command.env_remove(name);
        }
        command.envs(self.access.variables(&origin, bearer, &context.environment));
        let error = command.exec();
        let code = if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 };
        bail!(CommandFailure::new(code, format!("cannot run {}: {error}", program.display())))
    }

    /// Starts the proxy's process and waits until it serves.
    fn start_proxy(&self, context: &Context, program: &OsStr) -> anyhow::Result<Report> {
        let name = Path::new(program).file_name().unwrap_or(program);
        let proxy = ExecProxy::new(&self.access.alias, name.to_string_lossy().into_owned());
        let mut starter = proxy.command(context);
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
