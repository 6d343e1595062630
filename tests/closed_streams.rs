//! Commands whose output is not read, cannot be written, or is cut short by Ctrl-C.

use crate::support::{
    commands::Commands,
    program::{said, with_default_signals},
    proxy::amazon,
};
use adsproxy::sandbox::{ApiFault, Emulator, Surface, Times};
use std::{
    fs::File,
    os::unix::process::ExitStatusExt,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// A configuration whose base URL `env` can print; nothing listens there.
fn with_port(amazon: &Emulator) -> Commands {
    let commands = Commands::with_store(amazon);
    commands.edit("proxy = [\"127.0.0.1:0\"]", "proxy = [\"127.0.0.1:9\"]");
    commands
}

fn spawn(mut command: Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_standard_error_changes_no_exit_code() {
    let amazon = amazon().await;
    let commands = with_port(&amazon);
    for (arguments, code) in [
        ("token nobody", 1),
        ("token", 2),
        ("curl nobody /v2/profiles", 1),
        ("curl acme /v2/profiles -v", 0),
        ("env acme", 0),
        ("exec nobody -- true", 1),
        ("status", 69),
    ] {
        let mut child = spawn(commands.command(arguments));
        drop(child.stderr.take());
        let ended = child.wait_with_output().expect("it ends");
        assert_eq!(ended.status.code(), Some(code), "{arguments}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_standard_output_is_no_failure() {
    let amazon = amazon().await;
    let commands = with_port(&amazon);
    for arguments in ["token acme", "curl acme /v2/profiles -i -w %{http_code}", "env acme"] {
        let mut child = spawn(commands.command(arguments));
        drop(child.stdout.take());
        let ended = child.wait_with_output().expect("it ends");
        let err = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(0), "{arguments}: {err}");
        assert!(!err.contains("panic"), "{arguments}: {err}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn output_that_cannot_be_written_is_a_failure() {
    let amazon = amazon().await;
    let commands = with_port(&amazon);
    for arguments in ["token acme", "curl acme /v2/profiles", "env acme", "account list"] {
        for (device, code) in [("/dev/full", 1), ("/dev/null", 0)] {
            let device = File::options().write(true).open(device).expect("a device");
            let mut command = commands.command(arguments);
            let ended = command.stdout(device).stderr(Stdio::piped()).output().expect("it runs");
            let err = String::from_utf8_lossy(&ended.stderr);
            assert_eq!(ended.status.code(), Some(code), "{arguments}: {err}");
            assert_eq!(err.contains("No space left"), code == 1, "{arguments}: {err}");
        }
    }
}

/// Sends Ctrl-C's signal; the process must end by it, and soon.
fn interrupt(mut child: Child) {
    let pid = child.id().to_string();
    said(Command::new("kill").args(["-INT", &pid]));
    let asked = Instant::now();
    let ended = child.wait().expect("it ends");
    assert_eq!(ended.signal(), Some(2), "{ended:?}");
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_ends_a_command_that_waits_for_amazon() {
    let amazon = amazon().await;
    let commands = Commands::with_store(&amazon);
    let gate = &amazon.state().lwa.gate;
    gate.hold();
    let token = spawn(with_default_signals(commands.command("token acme")));
    gate.until_waiting(1).await;
    interrupt(token);
    gate.release();

    amazon.state().api.faults.add(ApiFault::Hang, Times::Forever);
    let curl = spawn(with_default_signals(commands.command("curl acme /v2/profiles")));
    while amazon.state().record.requests_for(Surface::Api).is_empty() {
        tokio::task::yield_now().await;
    }
    interrupt(curl);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_nothing_reads_ends_with_its_reader() {
    let amazon = amazon().await;
    let commands = Commands::with_store(&amazon);
    // Far more than a pipe holds.
    let mut child = spawn(commands.command("curl acme /_bytes/50000000"));
    let full = child.stdout.take().expect("a pipe");
    while amazon.state().record.requests_for(Surface::Api).is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(child.try_wait().expect("a child of ours").is_none(), "it waits for its reader");
    drop(full);
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
}
