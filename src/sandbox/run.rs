//! `adsproxy sandbox`: the emulator with the real proxy in front of it.

use super::{ACCOUNTS, CLIENT_ID, CLIENT_SECRET, Emulator, LwaSettings, Options, banner::banner};
use crate::{
    app::App,
    config::{
        Config,
        load::{self, Override},
    },
};
use anyhow::Context;
use std::{
    io::{self, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    time::Duration,
};
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
    // In this order: the proxy goes before what it talks to.
    app: App,
    emulator: Emulator,
    _runtime: Runtime,
}

impl Sandbox {
    /// Starts the emulator and the proxy in front of it; port 0 takes a free one, and
    /// `overrides` go before the sandbox's own configuration.
    ///
    /// # Errors
    /// When a port is taken, or the proxy does not start.
    pub fn start(options: &RunOptions, overrides: &[Override]) -> anyhow::Result<Self> {
        let proxy = free_port(options.port, "--port")?;
        // Known before the server starts: Amazon sends browsers back to it.
        let admin = chosen(free_port(options.admin_port, "--admin-port")?)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("sandbox")
            .enable_all()
            .build()
            .context("cannot start a runtime for the emulator")?;
        let emulator = runtime.block_on(start(options))?;
        let config = config(proxy, admin, emulator.addr(), lifetime(options), overrides)?;
        let app = App::start(config).context("cannot start the proxy")?;
        Ok(Self { app, emulator, _runtime: runtime })
    }

    /// The proxy's address.
    #[must_use]
    pub fn proxy_address(&self) -> &str {
        self.app.proxy_addresses().first().map_or("", String::as_str)
    }

    /// The emulator.
    #[must_use]
    pub fn emulator(&self) -> &Emulator {
        &self.emulator
    }
}

/// Runs the sandbox until it is told to stop.
///
/// # Errors
/// As [`Sandbox::start`].
pub fn run(options: &RunOptions, overrides: &[Override]) -> anyhow::Result<()> {
    let sandbox = Sandbox::start(options, overrides)?;
    let (admin, emulator) = (sandbox.app.admin_address(), sandbox.emulator.addr());
    let text = banner(sandbox.proxy_address(), admin, emulator, lifetime(options));
    // A reader that went away, such as `head`, is no reason to stop.
    let _ = writeln!(io::stdout().lock(), "{text}");
    // What was cut off at the end does not matter here.
    let _ = sandbox.app.wait_for_signal_and_drain();
    Ok(())
}

async fn start(options: &RunOptions) -> anyhow::Result<Emulator> {
    let lwa = LwaSettings { token_lifetime: lifetime(options), ..LwaSettings::default() };
    let listen = loopback(options.emulator_port);
    Emulator::start(Options { listen, lwa, ..Options::default() })
        .await
        .with_context(|| taken(options.emulator_port, "--emulator-port"))
}

fn lifetime(options: &RunOptions) -> Duration {
    Duration::from_secs(options.token_lifetime_secs)
}

/// Looks whether a port is free, so that the complaint can name the flag.
fn free_port(port: u16, flag: &str) -> anyhow::Result<SocketAddr> {
    let addr = loopback(port);
    if port != 0 {
        TcpListener::bind(addr).with_context(|| taken(port, flag))?;
    }
    Ok(addr)
}

/// The address, with a free port in place of 0.
fn chosen(addr: SocketAddr) -> anyhow::Result<SocketAddr> {
    if addr.port() != 0 {
        return Ok(addr);
    }
    Ok(TcpListener::bind(addr).and_then(|listener| listener.local_addr())?)
}

fn taken(port: u16, flag: &str) -> String {
    format!("cannot listen on port {port}: choose another one with {flag}")
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// The proxy's configuration: everything at its default but where Amazon is, and what a short token
/// life asks for. Neither files nor the process's variables have a say: it always works.
fn config(
    proxy: SocketAddr,
    admin: SocketAddr,
    emulator: SocketAddr,
    lifetime: Duration,
    overrides: &[Override],
) -> anyhow::Result<Config> {
    let secrets = [("client_secret", CLIENT_SECRET)];
    let secrets = secrets.into_iter().chain(ACCOUNTS.map(|(alias, refresh, _)| (alias, refresh)));
    let secrets = secrets.map(|(name, secret)| (name.to_owned(), secret.to_owned())).collect();
    let text = text(proxy, admin, emulator, lifetime);
    let loaded = load::parse(Some("sandbox".into()), &text, &secrets, overrides);
    Ok(loaded.context("cannot configure the proxy")?.config)
}

fn text(proxy: SocketAddr, admin: SocketAddr, emulator: SocketAddr, lifetime: Duration) -> String {
    let mut text = format!(
        r#"
[listen]
proxy = ["{proxy}"]
admin = "{admin}"

[lwa]
client_id = "{CLIENT_ID}"
client_secret = {{ env = "client_secret" }}
token_url = "http://{emulator}/auth/o2/token"
authorize_url = "http://{emulator}/ap/oa"
redirect_uri = "http://localhost:{callback}/api/auth/amazon/callback"

[token]
# A quarter and a half of the lifetime: with Amazon's hour the defaults are 5 and 15 minutes.
refresh_buffer_secs = {buffer}
background_lead_secs = {lead}
# Short, so that `expire` can be tried again and again.
forced_refresh_min_interval_secs = 1

[store]
kind = "memory"

[upstream]
"#,
        callback = admin.port(),
        buffer = lifetime.as_secs_f64() / 4.0,
        lead = lifetime.as_secs_f64() / 2.0,
    );
    for host in ["na", "eu", "fe", "mcp_na", "mcp_eu", "mcp_fe"] {
        text.push_str(&format!("{host} = \"http://{emulator}\"\n"));
    }
    for ((alias, ..), region) in ACCOUNTS.into_iter().zip(["na", "eu"]) {
        let token = format!("refresh_token = {{ env = \"{alias}\" }}");
        text.push_str(&format!("[accounts.{alias}]\nregion = \"{region}\"\n{token}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proxy_has_the_products_defaults_whatever_a_token_lives() {
        let (proxy, admin, emulator) = (loopback(1), loopback(2), loopback(3));
        let secret = [("S".to_owned(), "s".to_owned())].into_iter().collect();
        let least =
            "lwa = { client_id = 'c', client_secret = { env = 'S' } }\nstore.kind = 'memory'";
        let product = load::parse(Some("p".into()), least, &secret, &[]).expect("valid").config;
        for secs in [1, 2, 120, 86_400] {
            let lifetime = Duration::from_secs(secs);
            let config = config(proxy, admin, emulator, lifetime, &[]).expect("valid");
            assert_eq!(format!("{:?}", config.limits), format!("{:?}", product.limits));
            assert_eq!(format!("{:?}", config.replay), format!("{:?}", product.replay));
            assert_eq!(format!("{:?}", config.guard), format!("{:?}", product.guard));
            assert_eq!(config.proxy.drain_timeout, product.proxy.drain_timeout);
            assert_eq!(config.token.background_lead, lifetime / 2);
        }
    }

    #[test]
    fn a_flag_goes_before_the_sandboxs_own_configuration() {
        let format =
            Override { flag: "--log-format", key: &["log", "format"], value: "json".to_owned() };
        let (proxy, admin, emulator) = (loopback(1), loopback(2), loopback(3));
        let config = config(proxy, admin, emulator, Duration::from_secs(60), &[format]);
        assert_eq!(config.expect("valid").log.format, Some(crate::config::LogFormat::Json));
    }
}
