//! `adsproxy sandbox`: the emulator with the real proxy in front of it.

use super::{Emulator, EmulatorOptions, banner::banner, home};
use crate::{app::App, config::load::Override};
use anyhow::Context;
use std::{
    io::{self, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    time::Duration,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// What `adsproxy sandbox` takes.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct RunOptions {
    /// Port of the proxy; 0 takes a free one
    #[arg(long, default_value_t = 8787, value_name = "PORT")]
    pub port: u16,
    /// Port of health and metrics
    #[arg(long, default_value_t = 8788, value_name = "PORT")]
    pub admin_port: u16,
    /// Port of the emulated Amazon
    #[arg(long, default_value_t = 8789, value_name = "PORT")]
    pub emulator_port: u16,
    /// How long an access token lives, up to a day
    #[arg(long, default_value_t = 120, value_name = "SECONDS",
        value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub token_lifetime_secs: u64,
}

/// The running sandbox.
#[derive(Debug)]
pub struct Sandbox {
    // Dropped in this order: the proxy before what it uses.
    app: App,
    emulator: Emulator,
    home: TempDir,
    _runtime: Runtime,
}

impl Sandbox {
    /// Starts the emulator and the proxy in front of it; port 0 takes a free one, and
    /// `overrides` go before the sandbox's own configuration.
    ///
    /// # Errors
    /// When a port is taken, or the proxy does not start.
    pub fn start(options: &RunOptions, overrides: &[Override]) -> anyhow::Result<Self> {
        // Known before the server starts: both are in the configuration.
        let proxy = free(options.port, "--port")?;
        let admin = free(options.admin_port, "--admin-port")?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("sandbox")
            .enable_all()
            .build()
            .context("cannot start a runtime for the emulator")?;
        let lifetime = Duration::from_secs(options.token_lifetime_secs);
        let listen = loopback(options.emulator_port);
        let emulator = runtime
            .block_on(Emulator::start(EmulatorOptions { listen, ..EmulatorOptions::default() }))
            .with_context(|| taken(options.emulator_port, "--emulator-port"))?;
        emulator.state().lwa.configure(|settings| settings.token_lifetime = lifetime);
        let home = home::create().context("cannot create a temporary directory")?;
        let addresses = [proxy, admin, emulator.addr()];
        let config = home::configure(home.path(), addresses, lifetime, overrides)?;
        let app = App::start(config).context("cannot start the proxy")?;
        Ok(Self { app, emulator, home, _runtime: runtime })
    }
}

/// Runs the sandbox until a signal stops it.
///
/// # Errors
/// As [`Sandbox::start`].
pub fn run(options: &RunOptions, overrides: &[Override]) -> anyhow::Result<()> {
    let Sandbox { app, emulator, home, _runtime } = Sandbox::start(options, overrides)?;
    let proxy = app.proxy_addresses().first().map_or("", String::as_str);
    let lifetime = options.token_lifetime_secs;
    let admin = app.admin_address().context("the sandbox has no admin listener")?;
    let text = banner(proxy, admin, emulator.addr(), lifetime, &home::config_path(home.path()));
    // A reader that went away, such as `head`, is no reason to stop.
    let _ = writeln!(io::stdout().lock(), "{text}");
    // What was cut off at the end does not matter here.
    let _ = app.wait_for_signal_and_drain();
    Ok(())
}

/// The address of a port that is free now; fails with the name of the flag if it is taken.
fn free(port: u16, flag: &str) -> anyhow::Result<SocketAddr> {
    let found = TcpListener::bind(loopback(port)).and_then(|listener| listener.local_addr());
    found.with_context(|| taken(port, flag))
}

fn taken(port: u16, flag: &str) -> String {
    format!("cannot listen on port {port}: choose another one with {flag}")
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}
