//! `adsproxy sandbox`: the emulator with the real proxy in front of it, configured by files in a
//! temporary directory, which also has the secrets and the store.

use super::{
    ACCOUNTS, CLIENT_ID, CLIENT_SECRET, Emulator, EmulatorOptions, banner::banner,
    text::random_bytes,
};
use crate::{
    app::App,
    callers::key::{KeyKind, NewKey},
    config::{
        Config,
        load::{self, Environment, Override},
    },
};
use anyhow::Context;
use base64::{Engine, prelude::BASE64_STANDARD};
use std::{
    fs::{self, Permissions},
    io::{self, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
    time::Duration,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// The file for `$ADSPROXY_CONFIG`.
const CONFIG_FILE: &str = "proxy.toml";
/// How often the sandbox starts where a free port that it found is taken before it is bound.
const ATTEMPTS: u32 = 10;

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

impl RunOptions {
    fn takes_any(&self) -> bool {
        [self.port, self.admin_port, self.emulator_port].contains(&0)
    }
}

#[derive(Debug)]
pub struct Sandbox {
    // Dropped in this order: the proxy before what it uses.
    app: App,
    emulator: Emulator,
    home: TempDir,
    /// An operator's.
    key: NewKey,
    _runtime: Runtime,
}

impl Sandbox {
    /// Starts the emulator and the proxy in front of it; port 0 takes a free one, and
    /// `overrides` go before the sandbox's own configuration.
    pub fn start(options: &RunOptions, overrides: &[Override]) -> anyhow::Result<Self> {
        let mut attempts = 1;
        loop {
            match free_addresses(options).and_then(|free| Self::start_at(free, options, overrides))
            {
                // Another program may take a free port before it is bound here.
                Err(error) if attempts < ATTEMPTS && options.takes_any() && is_taken(&error) => {
                    attempts += 1;
                }
                started => return started,
            }
        }
    }

    /// The addresses of proxy, admin and emulator are known before anything starts: all are in
    /// the configuration.
    fn start_at(
        [proxy, admin, listen]: [SocketAddr; 3],
        options: &RunOptions,
        overrides: &[Override],
    ) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("sandbox")
            .enable_all()
            .build()
            .context("cannot start a runtime for the emulator")?;
        let lifetime = Duration::from_secs(options.token_lifetime_secs);
        let emulator = EmulatorOptions { listen, ..EmulatorOptions::default() };
        let emulator =
            runtime.block_on(Emulator::start(emulator)).context("cannot start the emulator")?;
        emulator.state().lwa.configure(|settings| settings.token_lifetime = lifetime);
        let home = create_home().context("cannot create a temporary directory")?;
        let key = NewKey::generate(KeyKind::Caller)?;
        let addresses = [proxy, admin, listen];
        let config = configure(home.path(), addresses, lifetime, &key, overrides)?;
        let app = App::start(config).context("cannot start the proxy")?;
        Ok(Self { app, emulator, home, key, _runtime: runtime })
    }
}

/// Runs the sandbox until a signal stops it.
pub fn run(options: &RunOptions, overrides: &[Override]) -> anyhow::Result<()> {
    let Sandbox { app, emulator, home, key, _runtime } = Sandbox::start(options, overrides)?;
    let proxy = app.proxy_addresses().first().map_or("", String::as_str);
    let lifetime = options.token_lifetime_secs;
    let admin = app.admin_address().context("the sandbox has no admin listener")?;
    let (key, config) = (key.expose(), home.path().join(CONFIG_FILE));
    let text = banner(proxy, admin, key, emulator.addr(), lifetime, &config);
    // A reader that went away, such as `head`, is no reason to stop.
    let _ = writeln!(io::stdout().lock(), "{text}");
    // What was cut off at the end does not matter here.
    let _ = app.serve_until_stopped(|| tracing::warn!("restart to apply a changed configuration"));
    Ok(())
}

/// The addresses of ports that are free now; fails with the name of the flag if one is taken.
fn free_addresses(options: &RunOptions) -> anyhow::Result<[SocketAddr; 3]> {
    // All are held until each is known: no port is found twice.
    let bind = |port: u16, flag: &str| {
        bind(port).and_then(|socket| Ok((socket.local_addr()?, socket))).with_context(|| {
            format!("cannot listen on port {port}: choose another one with {flag}")
        })
    };
    let proxy = bind(options.port, "--port")?;
    let admin = bind(options.admin_port, "--admin-port")?;
    let emulator = bind(options.emulator_port, "--emulator-port")?;
    Ok([proxy.0, admin.0, emulator.0])
}

/// Port 0 takes a free one that the system gives to no connection: those are above 32,767.
fn bind(port: u16) -> io::Result<TcpListener> {
    let mut attempts = 1;
    loop {
        let any = 16_384 + u16::from_ne_bytes(random_bytes()) % 16_384;
        let chosen = if port == 0 { any } else { port };
        match TcpListener::bind((Ipv4Addr::LOCALHOST, chosen)) {
            Err(_) if port == 0 && attempts < ATTEMPTS => attempts += 1,
            bound => return bound,
        }
    }
}

/// Whether an address that was to be bound is in use.
fn is_taken(error: &anyhow::Error) -> bool {
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    causes.any(|cause| cause.kind() == io::ErrorKind::AddrInUse)
}

/// Creates the directory, with the key of the store and the secrets of the demo accounts.
fn create_home() -> io::Result<TempDir> {
    let mode = Permissions::from_mode(0o700);
    let home = tempfile::Builder::new().prefix("adsproxy-sandbox-").permissions(mode).tempdir()?;
    write(&home.path().join("key"), &BASE64_STANDARD.encode(random_bytes::<32>()))?;
    write(&home.path().join("client-secret"), CLIENT_SECRET)?;
    for (alias, refresh_token, _) in ACCOUNTS {
        write(&home.path().join(format!("{alias}.refresh-token")), refresh_token)?;
    }
    Ok(home)
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).open(path)?.write_all(text.as_bytes())
}

/// Writes the configuration for the addresses of proxy, admin and emulator, and reads it as the
/// server does. Neither other files nor the process's variables take part: the sandbox starts
/// wherever it is run.
fn configure(
    home: &Path,
    addresses: [SocketAddr; 3],
    token_lifetime: Duration,
    key: &NewKey,
    overrides: &[Override],
) -> anyhow::Result<Config> {
    let (path, text) = (home.join(CONFIG_FILE), text(home, addresses, token_lifetime, key));
    write(&path, &text).context("cannot write the configuration")?;
    let loaded = load::parse(Some(path), &text, &Environment::default(), overrides);
    Ok(loaded.context("cannot configure the proxy")?.config)
}

/// Everything at its default but where Amazon is, and what a short token life asks for.
fn text(home: &Path, addresses: [SocketAddr; 3], token_lifetime: Duration, key: &NewKey) -> String {
    let [proxy, admin, emulator] = addresses;
    let key = key.presented();
    let path = |name: &str| toml::Value::from(home.join(name).to_string_lossy().as_ref());
    let mut text = format!(
        r#"# Made by `adsproxy sandbox`, removed when it ends.
[listen]
proxy = ["{proxy}"]
admin = "{admin}"

[lwa]
client_id = "{CLIENT_ID}"
client_secret = {{ file = {client_secret} }}
token_url = "http://{emulator}/auth/o2/token"
authorize_url = "http://{emulator}/ap/oa"
revocation_url = "http://{emulator}/auth/o2/revoke"
redirect_uri = "http://localhost:{callback}/api/auth/amazon/callback"

[token]
# A quarter and a half of the lifetime: with Amazon's hour the defaults are 5 and 15 minutes.
refresh_buffer_secs = {buffer}
background_lead_secs = {lead}
# Short, so that `expire` can be tried again and again.
forced_refresh_min_interval_secs = 1

[store]
kind = "file"
path = {store}

[encryption]
keys = [{{ id = "sandbox", secret = {{ file = {seal} }} }}]

# The curl lines to try need no key.
[auth]
required = false

# Its key is printed at the start.
[[callers]]
name = "operator"
keys = [{{ id = "{key_id}", sha256 = "{key_sha256}" }}]
operator = true

# Every event goes to a file in this directory.
[[hooks]]
name = "log"
command = ["/usr/bin/tee", "-a", {events}]

[upstream]
"#,
        client_secret = path("client-secret"),
        callback = admin.port(),
        buffer = token_lifetime.as_secs_f64() / 4.0,
        lead = token_lifetime.as_secs_f64() / 2.0,
        store = path("store"),
        seal = path("key"),
        key_id = key.id,
        key_sha256 = key.digest().hex(),
        events = path("events.jsonl"),
    );
    for host in ["na", "eu", "fe", "mcp_na", "mcp_eu", "mcp_fe"] {
        text.push_str(&format!("{host} = \"http://{emulator}\"\n"));
    }
    for ((alias, ..), region) in ACCOUNTS.into_iter().zip(["na", "eu"]) {
        let token = path(&format!("{alias}.refresh-token"));
        text.push_str(&format!(
            "\n[accounts.{alias}]\nregion = \"{region}\"\nrefresh_token = {{ file = {token} }}\n"
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: RunOptions =
        RunOptions { port: 0, admin_port: 0, emulator_port: 0, token_lifetime_secs: 60 };

    #[test]
    fn free_ports_differ_and_one_that_is_taken_meanwhile_is_noticed() {
        let free = free_addresses(&ANY).expect("free ports");
        assert!(free[0] != free[1] && free[1] != free[2] && free[0] != free[2]);
        let _other = TcpListener::bind(free[0]).expect("still free");
        let taken = RunOptions { port: free[0].port(), ..ANY };
        let error = free_addresses(&taken).expect_err("taken");
        assert!(is_taken(&error) && error.to_string().contains("--port"), "{error:#}");
        assert!(!is_taken(&anyhow::anyhow!("another error")));
    }

    fn configured(token_lifetime: Duration, overrides: &[Override]) -> Config {
        let addresses = [1, 2, 3].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let home = create_home().expect("a directory");
        let key = NewKey::generate(KeyKind::Caller).expect("a key");
        configure(home.path(), addresses, token_lifetime, &key, overrides).expect("valid")
    }

    #[test]
    fn the_proxy_has_the_products_defaults_whatever_a_token_lives() {
        let secret = [("S".to_owned(), "s".to_owned())].into_iter().collect();
        let least =
            "lwa = { client_id = 'c', client_secret = { env = 'S' } }\nstore.kind = 'memory'";
        let product = load::parse(Some("p".into()), least, &secret, &[]).expect("valid").config;
        for secs in [1, 2, 120, 86_400] {
            let lifetime = Duration::from_secs(secs);
            let config = configured(lifetime, &[]);
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
        let config = configured(Duration::from_secs(60), &[format]);
        assert_eq!(config.log.format, Some(crate::config::LogFormat::Json));
    }

    #[test]
    fn only_the_owner_can_read_the_directory_and_it_goes_with_the_sandbox() {
        let home = create_home().expect("a directory");
        let path = home.path().to_owned();
        let mode = |path: &Path| path.metadata().expect("it is there").permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&path.join("key"))), (0o700, 0o600));
        drop(home);
        assert!(!path.exists());
    }
}
