//! The command line: verbs, their flags and help, and what each failure exits with.

mod access;
mod account;
mod audit;
mod check;
mod curl;
mod day;
mod doctor;
mod duration;
mod env;
mod exec;
mod health;
mod hooks;
mod import;
mod keys;
mod login;
mod logout;
mod man;
mod private;
mod region;
mod session;
mod status;
mod table;
mod token;
mod wait;
mod wire;

use crate::{
    app,
    config::{
        LogFormat,
        load::{self, Environment, LoadError, Loaded, Options, Override},
    },
    https::EgressError,
    id::AccountId,
    store::KeyError,
    trusted_path::UntrustedPath,
};
use anyhow::bail;
use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use std::{
    io::{self, IsTerminal, Write},
    path::PathBuf,
};

/// adsproxy: an authenticating reverse proxy for the Amazon Advertising API.
#[derive(Debug, Parser)]
#[command(name = "adsproxy", version, after_help = MORE_HELP)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Option<Verb>,
}

/// Flags that may stand before or after the verb.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Global options")]
struct Global {
    /// The configuration file [default: the first that is found]
    #[arg(long, global = true, value_name = "PATH")]
    config: Option<PathBuf>,
    /// How log lines look [default: text on a terminal, else json]
    #[arg(long, global = true, value_name = "text|json", hide_possible_values = true)]
    log_format: Option<LogFormat>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the proxy; what happens without a command
    Serve,
    /// Try it: the proxy in front of an emulated Amazon, with demo accounts
    #[cfg(feature = "sandbox")]
    Sandbox(crate::sandbox::run::RunOptions),
    /// Name every mistake in the configuration
    CheckConfig(check::CheckConfig),
    /// Connect an account: an advertiser consents in the browser
    Login(login::Login),
    /// Forget an account's grant and tokens
    Logout(logout::Logout),
    /// Look at and change the accounts in the store
    #[command(subcommand)]
    Account(account::Verb),
    /// Show the audit log, check that it was not changed
    #[command(subcommand)]
    Audit(audit::Verb),
    /// Bring accounts over from what you run now
    Import(import::Import),
    Token(token::Token),
    Curl(Box<curl::Curl>),
    Env(env::Env),
    Exec(exec::Exec),
    #[command(hide = true)]
    ExecKeeper(exec::Keeper),
    /// Show the accounts of the running server and their tokens
    Status(status::Status),
    Doctor(doctor::Doctor),
    /// Make, rotate and show the keys that seal the store
    #[command(subcommand)]
    Key(keys::Verb),
    /// Look at what waits for hooks, send it again, try a hook
    #[command(subcommand)]
    Hooks(hooks::Verb),
    /// Exit with 0 if the running server is ready, else with 1
    Healthcheck,
    Wait(wait::Wait),
    /// Print a script that completes commands in your shell
    Completions {
        /// The shell
        shell: Shell,
    },
    Man(man::Man),
}

const MORE_HELP: &str = "\
The configuration is the first of these that exists:
  --config, $ADSPROXY_CONFIG, $XDG_CONFIG_HOME/adsproxy/proxy.toml,
  /etc/adsproxy/proxy.toml

Exit codes:
  0   done
  1   failure
  2   wrong usage
  22  `curl --fail`: the status is 400 or higher
  69  no server or upstream responds
  77  an account must be connected again
  78  wrong configuration";

/// The first steps with adsproxy.
const NEXT_STEPS: &str = "\
To try adsproxy without an Amazon account:

  adsproxy sandbox

To set it up:

  1. Run `adsproxy key init`. It makes the key that seals the stored credentials.
  2. Write ~/.config/adsproxy/proxy.toml, with the lines that `key init` printed:

       [lwa]
       client_id = \"amzn1.application-oa2-client.example\"
       client_secret = { env = \"AMAZON_CLIENT_SECRET\" }

       [encryption]
       keys = [{ id = \"main\", secret = { file = \"~/.config/adsproxy/key\" } }]

       [accounts.acme]
       region = \"na\"
       refresh_token = { env = \"ACME_REFRESH_TOKEN\" }

  3. Run `adsproxy check-config`, then `adsproxy serve`.

proxy.example.toml in the source has every key.";

/// A failure that a caller of the program tells from others by its exit code.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// There is no configuration at all.
    #[error("{0}\n\n{NEXT_STEPS}")]
    NothingConfigured(LoadError),
    /// A wrong configuration.
    #[error(transparent)]
    Config(#[from] LoadError),
    /// No server responds where it should be.
    #[error(
        "no adsproxy answers at {address} (is `adsproxy serve` running? `adsproxy status --offline` reads the store)"
    )]
    NoServer {
        /// Where it was looked for.
        address: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A service that is needed cannot be reached now.
    #[error("{0}")]
    Unavailable(String),
    /// `curl --fail`.
    #[error("the response has status {0}")]
    HttpStatus(http::StatusCode),
    /// What another process of ours failed with.
    #[error("{error}")]
    Reported {
        /// Its text.
        error: String,
        /// What it would have exited with.
        code: u8,
    },
    /// A failure without a text, with its exit code.
    #[error("")]
    Silent(u8),
    /// Accounts that must be connected again in a browser.
    #[error("{}", reauthorization(.0))]
    ReauthorizationRequired(Vec<String>),
}

fn reauthorization(accounts: &[String]) -> String {
    let commands = accounts.iter().map(|alias| format!("\n  adsproxy login {alias}"));
    format!(
        "not connected, or no longer: {}; connect again with{}",
        accounts.join(", "),
        commands.collect::<String>(),
    )
}

/// The exit code for `error`.
#[must_use]
pub fn exit_code(error: &anyhow::Error) -> u8 {
    match error.downcast_ref::<Failure>() {
        Some(Failure::NothingConfigured(_) | Failure::Config(_)) => 78,
        Some(Failure::NoServer { .. } | Failure::Unavailable(_)) => 69,
        Some(Failure::HttpStatus(_)) => 22,
        Some(Failure::Reported { code, .. } | Failure::Silent(code)) => *code,
        Some(Failure::ReauthorizationRequired(_)) => 77,
        None if error.chain().any(is_configuration) => 78,
        None => 1,
    }
}

/// Whether a cause lies in the configuration, or in who can change the store.
fn is_configuration(cause: &(dyn std::error::Error + 'static)) -> bool {
    // A keyring that is locked is no mistake in the configuration.
    let key = cause.downcast_ref::<KeyError>();
    key.is_some_and(|key| !matches!(key, KeyError::Keyring(..)))
        || cause.is::<UntrustedPath>()
        || cause.is::<EgressError>()
}

/// Does what the command line says.
///
/// # Errors
/// Whatever went wrong; `exit_code` has the code for it.
pub fn run(cli: Cli) -> anyhow::Result<()> {
    app::forbid_dumps();
    let context = Context { global: cli.global, environment: Environment::of_process() };
    match cli.verb.unwrap_or(Verb::Serve) {
        Verb::Serve => app::serve(context.load()?, &context.options()),
        #[cfg(feature = "sandbox")]
        Verb::Sandbox(_) if context.global.config.is_some() => Cli::command()
            .error(
                clap::error::ErrorKind::ArgumentConflict,
                "the sandbox brings a configuration of its own",
            )
            .exit(),
        #[cfg(feature = "sandbox")]
        Verb::Sandbox(options) => crate::sandbox::run::run(&options, &context.overrides()),
        Verb::CheckConfig(verb) => verb.run(&context),
        Verb::Login(verb) => verb.run(&context),
        Verb::Logout(verb) => verb.run(&context),
        Verb::Account(verb) => verb.run(&context),
        Verb::Audit(verb) => verb.run(&context),
        Verb::Import(verb) => verb.run(&context),
        Verb::Token(verb) => verb.run(&context),
        Verb::Curl(verb) => verb.run(&context),
        Verb::Env(verb) => verb.run(&context),
        Verb::Exec(verb) => verb.run(&context),
        Verb::ExecKeeper(verb) => verb.run(&context),
        Verb::Status(verb) => verb.run(&context),
        Verb::Doctor(verb) => verb.run(&context),
        Verb::Key(verb) => verb.run(&context),
        Verb::Hooks(verb) => verb.run(&context),
        Verb::Healthcheck => health::run(&context),
        Verb::Wait(verb) => verb.run(&context),
        Verb::Man(verb) => verb.run(),
        Verb::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "adsproxy", &mut script);
            print(&script)
        }
    }
}

/// What every verb may need.
struct Context {
    global: Global,
    environment: Environment,
}

impl Context {
    fn overrides(&self) -> Vec<Override> {
        let format = self.global.log_format.map(|format| Override {
            flag: "--log-format",
            key: &["log", "format"],
            value: format.as_str().to_owned(),
        });
        format.into_iter().collect()
    }

    fn options(&self) -> Options {
        Options {
            path: self.global.config.clone(),
            environment: self.environment.clone(),
            overrides: self.overrides(),
        }
    }

    fn load(&self) -> Result<Loaded, Failure> {
        load::load(&self.options()).map_err(|error| match error {
            LoadError::NotFound { .. } => Failure::NothingConfigured(error),
            error => Failure::Config(error),
        })
    }
}

/// Asks on the terminal whether to forget the grant of `alias`.
fn confirmed(alias: &AccountId) -> anyhow::Result<bool> {
    if !io::stdin().is_terminal() {
        bail!(
            "standard input is no terminal: confirm with --yes that account {alias} is forgotten"
        );
    }
    eprint!("Forget the refresh token of account {alias}? Amazon does not show it again. [y/N] ");
    Ok(login::read_yes())
}

/// Writes to standard output. A reader that went away, such as `head`, is no failure.
fn print(text: impl AsRef<[u8]>) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_ref()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_flags_stand_before_or_after_the_verb() {
        for line in [
            "adsproxy --config p --log-format json check-config",
            "adsproxy check-config --config p --log-format json",
            "adsproxy account list --log-format json --config p",
            "adsproxy --config p --log-format json",
        ] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(cli.global.config, Some("p".into()), "{line}");
            assert_eq!(cli.global.log_format, Some(LogFormat::Json), "{line}");
        }
        assert!(Cli::try_parse_from(["adsproxy", "--log-format", "xml"]).is_err());
    }

    #[test]
    fn without_a_verb_it_serves() {
        assert!(Cli::try_parse_from(["adsproxy"]).unwrap().verb.is_none());
        assert!(Cli::try_parse_from(["adsproxy", "frobnicate"]).is_err());
    }

    #[test]
    fn a_refresh_token_is_no_argument() {
        let line = "adsproxy account add acme --region na Atzr|token";
        assert!(Cli::try_parse_from(line.split(' ')).is_err());
        let line = "adsproxy account add acme --region na --refresh-token Atzr|token";
        assert!(Cli::try_parse_from(line.split(' ')).is_err());
    }

    #[test]
    fn exit_codes_tell_failures_apart() {
        let config = || LoadError::Invalid(Vec::new());
        let address = "127.0.0.1:1".to_owned();
        let source = io::Error::from(io::ErrorKind::ConnectionRefused);
        for (error, code) in [
            (Failure::Config(config()).into(), 78),
            (Failure::NothingConfigured(config()).into(), 78),
            (Failure::NoServer { address, source }.into(), 69),
            (Failure::Unavailable("lwa".to_owned()).into(), 69),
            (Failure::ReauthorizationRequired(Vec::new()).into(), 77),
            (anyhow::anyhow!("anything else"), 1),
        ] {
            assert_eq!(exit_code(&error), code, "{error}");
        }
    }
}
