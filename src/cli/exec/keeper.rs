//! The process that serves a command's private proxy for as long as the command lives.

use super::Report;
use crate::{
    app,
    audit::Action,
    cli::{Context, exit_code, private::PrivateProxy},
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
pub(crate) struct Keeper {
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

impl Keeper {
    /// One for this process, which will be `program`; started in two steps.
    pub(super) fn new(alias: &AccountId, program: String) -> Self {
        Self { alias: alias.clone(), process: std::process::id(), program, detach: true }
    }

    /// This program as that keeper.
    pub(super) fn command(&self, context: &Context) -> Command {
        // The very program that runs, also when another was installed meanwhile.
        let mut command = Command::new("/proc/self/exe");
        command.arg("exec-keeper").arg(self.alias.as_str());
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
            let keeper = Self { detach: false, ..self.clone() };
            keeper.command(context).spawn().context("cannot start the private proxy")?;
            return Ok(());
        }
        // The process exists: it waits for the report.
        let serving = self.watch().and_then(|process| {
            app::harden();
            // Ctrl-C and the end of the terminal are the command's business.
            let _ = setsid();
            let proxy = PrivateProxy::start(context, Some(&self.alias))?;
            proxy.record(&self.alias, Action::Exec, &self.program)?;
            Ok((process, proxy))
        });
        let (process, proxy) = match serving {
            Ok(serving) => serving,
            Err(error) => {
                let code = exit_code(&error);
                return report(&Report::Failed { error: format!("{error:#}"), code });
            }
        };
        report(&Report::Serves {
            origin: proxy.origin(),
            bearer: proxy.key.bearer(),
            secret_variables: proxy.secret_variables.clone(),
        })?;
        wait_for_end(process)?;
        // It is the command's: a program that captures it waits until it is closed.
        silence_stderr();
        let _ = proxy.app.drain();
        Ok(())
    }

    fn watch(&self) -> anyhow::Result<OwnedFd> {
        let process = i32::try_from(self.process).ok().and_then(Pid::from_raw);
        let process = process.context("there is no such process")?;
        pidfd_open(process, PidfdFlags::empty())
            .context("cannot watch the command (this needs Linux 5.3)")
    }
}

fn report(report: &Report) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(report)?;
    line.push(b'\n');
    let mut out = io::stdout().lock();
    out.write_all(&line)?;
    Ok(out.flush()?)
}

fn silence_stderr() {
    if let Ok(null) = File::options().write(true).open("/dev/null") {
        let _ = dup2_stderr(&null);
    }
}

/// Returns when the process has ended, or on SIGTERM.
fn wait_for_end(process: OwnedFd) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let ended = tokio::task::spawn_blocking(move || watch_until_end(&process));
        tokio::select! {
            ended = ended => ended??,
            _ = terminate.recv() => {}
        }
        anyhow::Ok(())
    })?;
    runtime.shutdown_background();
    Ok(())
}

/// A descriptor of a process can be read when the process has ended.
fn watch_until_end(process: &OwnedFd) -> rustix::io::Result<()> {
    let mut events = [PollFd::new(process, PollFlags::IN)];
    rustix::io::retry_on_intr(|| poll(&mut events, None)).map(drop)
}
