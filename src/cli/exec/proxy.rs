//! The process that serves a command's private proxy for as long as the command lives.

use super::{PrivateAccess, Report};
use crate::{
    app,
    audit::Action,
    cli::{CommandFailure, Context, exit_code, private::PrivateProxy},
    id::AccountId,
};
use anyhow::Context as _;
use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{Pid, PidfdFlags, pidfd_open, setsid},
    stdio::dup2_stderr,
};
use std::{
    fs::File,
    io::{self, Write},
    os::fd::OwnedFd,
    process::Command,
};
use tokio::signal::unix::{SignalKind, signal};

/// Serve the private proxy of a process (internal)
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ExecProxy {
    alias: AccountId,
    /// The process that becomes the command.
    #[arg(long)]
    process: u32,
    /// What it will be, for the audit log.
    #[arg(long)]
    program: String,
    /// Start the one that serves, and end.
    #[arg(long)]
    detach: bool,
}

impl ExecProxy {
    /// One for this process, which will be `program`; started in two steps.
    pub(super) fn new(alias: &AccountId, program: String) -> Self {
        Self { alias: alias.clone(), process: std::process::id(), program, detach: true }
    }

    /// This program as that process.
    pub(super) fn command(&self, context: &Context) -> Command {
        // The very program that runs, also when another was installed meanwhile.
        let mut command = Command::new("/proc/self/exe");
        command.arg("exec-proxy").arg(self.alias.as_str());
        command.args(["--process", &self.process.to_string()]);
        command.arg(format!("--program={}", self.program));
        command.args(self.detach.then_some("--detach"));
        if let Some(path) = &context.global.config {
            command.arg("--config").arg(path);
        }
        if let Some(format) = context.global.log_format {
            command.args(["--log-format", format.as_str()]);
        }
        command
    }

    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<()> {
        if self.detach {
            // It is not waited for: it belongs to init when this process has ended.
            let server = Self { detach: false, ..self.clone() };
            server.command(context).spawn().context("cannot start the private proxy")?;
            return Ok(());
        }
        let (process, proxy) = match self.serve(context) {
            Ok(serving) => serving,
            Err(error) => {
                return report(&Err(CommandFailure::new(exit_code(&error), format!("{error:#}"))));
            }
        };
        report(&Ok(PrivateAccess {
            origin: proxy.origin(),
            bearer: proxy.key.bearer(),
            secret_variables: proxy.secret_variables.clone(),
        }))?;
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
        let proxy = PrivateProxy::start(context, &self.alias)?;
        proxy.record(&self.alias, Action::Exec, &self.program)?;
        Ok((process, proxy))
    }
}

fn report(report: &Report) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(report)?)?;
    Ok(out.flush()?)
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
