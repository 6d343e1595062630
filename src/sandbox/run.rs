//! `adsproxy sandbox`: the emulator with the real proxy in front of it.

use super::{
    Emulator, LwaSettings, Options,
    banner::banner,
    home::{Addresses, Home},
};
use crate::{app::App, config::load::Override};
use anyhow::Context;
use std::{
    io::{self, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    time::Duration,
};
use tokio::runtime::Runtime;

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

#[derive(Debug)]
pub struct Sandbox {
    // Dropped in this order: the proxy before what it uses.
    app: App,
    emulator: Emulator,
    home: Home,
    _runtime: Runtime,
}

impl Sandbox {
    /// Starts the emulator and the proxy in front of it; port 0 takes a free one, and
    /// `overrides` go before the sandbox's own configuration.
    ///
    /// # Errors
    /// When a port is taken, or the proxy does not start.
    pub fn start(options: &RunOptions, overrides: &[Override]) -> anyhow::Result<Self> {
        let proxy = free(options.port, "--port")?;
        let admin = free(options.admin_port, "--admin-port")?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("sandbox")
            .enable_all()
            .build()
            .context("cannot start a runtime for the emulator")?;
        let token_lifetime = Duration::from_secs(options.token_lifetime_secs);
        let emulator = Emulator::start(Options {
            listen: loopback(options.emulator_port),
            lwa: LwaSettings { token_lifetime, ..LwaSettings::default() },
            ..Options::default()
        });
        let emulator = runtime.block_on(emulator);
        let emulator = emulator.with_context(|| taken(options.emulator_port, "--emulator-port"))?;
        let home = Home::create().context("cannot create a temporary directory")?;
        let addresses = Addresses { proxy, admin, emulator: emulator.addr() };
        let config = home.configure(addresses, token_lifetime, overrides)?;
        let app = App::start(config).context("cannot start the proxy")?;
        Ok(Self { app, emulator, home, _runtime: runtime })
    }

    /// The configuration of the proxy, for commands beside it.
    pub fn config_path(&self) -> PathBuf {
        self.home.config_path()
    }

    pub fn proxy_address(&self) -> &str {
        self.app.proxy_addresses().first().map_or("", String::as_str)
    }

    pub fn emulator(&self) -> &Emulator {
        &self.emulator
    }
}

/// Runs the sandbox until a signal stops it.
///
/// # Errors
/// As [`Sandbox::start`].
pub fn run(options: &RunOptions, overrides: &[Override]) -> anyhow::Result<()> {
    let sandbox = Sandbox::start(options, overrides)?;
    let (admin, emulator) = (sandbox.app.admin_address(), sandbox.emulator.addr());
    let config = sandbox.config_path();
    let text =
        banner(sandbox.proxy_address(), admin, emulator, options.token_lifetime_secs, &config);
    // A reader that went away, such as `head`, is no reason to stop.
    let _ = writeln!(io::stdout().lock(), "{text}");
    // What was cut off at the end does not matter here.
    let _ = sandbox.app.wait_for_signal_and_drain();
    Ok(())
}

/// A port that is free now: the given one, or any in place of 0. Found out before the server
/// starts, because the configuration has it and the complaint names the flag.
fn free(port: u16, flag: &str) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(loopback(port)).with_context(|| taken(port, flag))?;
    Ok(listener.local_addr()?)
}

fn taken(port: u16, flag: &str) -> String {
    format!("cannot listen on port {port}: choose another one with {flag}")
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}
