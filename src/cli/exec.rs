//! `adsproxy exec`: runs a command with a proxy of its own.
//!
//! The process that was started becomes the command, as the name says: signals, job control, exit
//! code and terminal are the command's own, with nothing in between that would have to imitate
//! them. The proxy runs in a second process, which watches the first and goes when it is gone,
//! however that ends. It is started over an intermediate one, so that the command has no child that
//! it knows nothing of.

use super::{CommandFailure, Context, access::Access, exit_code, import, private::PrivateProxy};
use crate::{app, audit::Action, id::AccountId};
use anyhow::{Context as _, anyhow, bail};
use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{Pid, PidfdFlags, pidfd_open, setsid},
    stdio::dup2_stderr,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, BufRead, BufReader, Write},
    os::{fd::OwnedFd, unix::process::CommandExt},
    path::Path,
    process::{Command, Stdio},
};
use tokio::signal::unix::{SignalKind, signal};

/// Run a command with a private proxy for one account, gone when the command ends
#[derive(Debug, clap::Args)]
#[command(override_usage = "adsproxy exec [OPTIONS] <ALIAS> -- <COMMAND> [ARGUMENT]...")]
pub(super) struct Exec {
    #[command(flatten)]
    access: Access,
    /// Let the command only read: queries, reports and exports, but no changes
    #[arg(long)]
    read_only: bool,
    /// The command and its arguments
    #[arg(
        value_name = "COMMAND",
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    command: Vec<OsString>,
}

/// Serve the private proxy of a process (internal)
#[derive(Debug, Clone, clap::Args)]
pub(super) struct ExecProxy {
    alias: AccountId,
    /// The process that becomes the command.
    #[arg(long)]
    process: u32,
    /// What it will be, for the audit log.
    #[arg(long)]
    program: String,
    #[arg(long)]
    read_only: bool,
    /// Start the one that serves, and end.
    #[arg(long)]
    detach: bool,
}

/// What the proxy's process reports once it serves, or when it cannot: one line of JSON on a pipe
/// that only the two of them hold.
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
        let proxy = ExecProxy {
            alias: self.access.alias.clone(),
            process: std::process::id(),
            program: name.to_string_lossy().into_owned(),
            read_only: self.read_only,
            detach: true,
        };
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

impl ExecProxy {
    /// This program as that process.
    fn command(&self, context: &Context) -> Command {
        // The very program that runs, also when another was installed meanwhile.
        let mut command = Command::new("/proc/self/exe");
        command.arg("exec-proxy").arg(self.alias.as_str());
        command.args(["--process", &self.process.to_string()]);
        command.arg(format!("--program={}", self.program));
        command.args(self.read_only.then_some("--read-only"));
        command.args(self.detach.then_some("--detach"));
        if let Some(path) = &context.global.config {
            command.arg("--config").arg(path);
        }
        if let Some(format) = context.global.log_format {
            command.args(["--log-format", format.as_str()]);
        }
        command
    }

    pub(super) fn run(&self, context: &Context) -> anyhow::Result<()> {
        if self.detach {
            // It is not waited for: it belongs to init when this process has ended.
            let server = Self { detach: false, ..self.clone() };
            server.command(context).spawn().context("cannot start the private proxy")?;
            return Ok(());
        }
        let serving = self.serve(context);
        let report: Report = match &serving {
            Ok((_, proxy)) => Ok(PrivateAccess {
                origin: proxy.origin(),
                bearer: format!("Atza|{}", proxy.key.expose()),
                secret_variables: proxy.secret_variables.clone(),
            }),
            Err(error) => Err(CommandFailure::new(exit_code(error), format!("{error:#}"))),
        };
        writeln!(io::stdout(), "{}", serde_json::to_string(&report)?)?;
        io::stdout().flush()?;
        let Ok((process, proxy)) = serving else { return Ok(()) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(end_of(process))?;
        runtime.shutdown_background();
        // It is the command's: a program that captures it waits until it is closed.
        if let Ok(null) = File::options().write(true).open("/dev/null") {
            let _ = dup2_stderr(&null);
        }
        let _ = proxy.app.drain();
        Ok(())
    }

    fn serve(&self, context: &Context) -> anyhow::Result<(OwnedFd, PrivateProxy)> {
        // The process exists: it waits for the report.
        let process = i32::try_from(self.process).ok().and_then(Pid::from_raw);
        let process = process.context("there is no such process")?;
        let process = pidfd_open(process, PidfdFlags::empty())
            .context("cannot watch the command (this needs Linux 5.3)")?;
        app::harden();
        // Ctrl-C and the end of the terminal are the command's business.
        let _ = setsid();
        let proxy = PrivateProxy::start(context, &self.alias, self.read_only)?;
        proxy.record(&self.alias, Action::Exec, &self.program)?;
        Ok((process, proxy))
    }
}

/// Returns when the process has ended, or on SIGTERM.
async fn end_of(process: OwnedFd) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    // The descriptor of a process can be read when the process has ended.
    let ended = tokio::task::spawn_blocking(move || {
        let mut events = [PollFd::new(&process, PollFlags::IN)];
        rustix::io::retry_on_intr(|| poll(&mut events, None))
    });
    tokio::select! {
        ended = ended => drop(ended??),
        _ = terminate.recv() => {}
    }
    Ok(())
}
