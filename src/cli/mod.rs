//! The command line: verbs, their flags and help, and what each failure exits with.

mod accept;
mod access;
mod account;
mod audit;
mod caller;
mod check;
mod copy;
mod curl;
#[cfg(feature = "dashboard")]
mod dashboard;
mod day;
mod doctor;
mod duration;
mod env;
mod exec;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod hooks;
mod import;
mod keys;
mod login;
mod logout;
mod man;
mod migrate;
mod pages;
mod policy;
mod private;
mod ready;
mod region;
mod server;
mod status;
mod table;
mod token;
mod version;
mod wire;

use crate::{
    app,
    config::{
        LogFormat,
        load::{self, Environment, LoadError, Loaded, Options, Override},
    },
    https::EgressError,
    id::AccountId,
    store::{self, KeyError},
    trusted_path::UntrustedPath,
};
use anyhow::bail;
use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    io::{self, BufRead, IsTerminal, Write},
    path::PathBuf,
};

/// adsproxy: an authenticating reverse proxy for the Amazon Advertising API.
#[derive(Debug, Parser)]
#[command(name = "adsproxy", version, long_version = version::LONG, after_help = MORE_HELP)]
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
    Account(account::AccountVerb),
    /// Show the audit log, check that it was not changed
    #[command(subcommand)]
    Audit(audit::AuditVerb),
    /// Bring accounts over from what you run now
    Import(import::Import),
    Token(token::Token),
    Curl(Box<curl::Curl>),
    Env(env::Env),
    Exec(exec::Exec),
    #[command(hide = true)]
    ExecProxy(exec::ExecProxy),
    /// Show the accounts of the running server and their tokens
    Status(status::Status),
    #[cfg(feature = "dashboard")]
    Dashboard(dashboard::Dashboard),
    Doctor(doctor::Doctor),
    /// Make, rotate and show the keys that seal the store
    #[command(subcommand)]
    Key(keys::KeyVerb),
    Migrate(migrate::Migrate),
    /// Move what a store keeps into another
    #[command(subcommand)]
    Store(copy::StoreVerb),
    /// Make keys and sessions for those who call, list and revoke them
    #[command(subcommand)]
    Caller(caller::CallerVerb),
    /// Say what a caller may do
    #[command(subcommand)]
    Policy(policy::PolicyVerb),
    /// Look at what waits for hooks, send it again, try a hook
    #[command(subcommand)]
    Hooks(hooks::HookVerb),
    /// Exit with 0 if the running server is ready, else with 1
    Healthcheck,
    Wait(ready::Wait),
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

/// A failure that a caller of the program distinguishes by its exit code.
#[derive(Debug, thiserror::Error, Serialize, Deserialize)]
#[error("{text}")]
struct CommandFailure {
    text: String,
    code: u8,
}

impl CommandFailure {
    fn new(code: u8, text: impl Into<String>) -> Self {
        Self { text: text.into(), code }
    }

    /// No server or upstream responds.
    fn unavailable(text: impl Into<String>) -> Self {
        Self::new(69, text)
    }

    /// No server of ours responds at `place`.
    fn no_server(place: impl fmt::Display, error: &io::Error) -> Self {
        Self::unavailable(format!(
            "no adsproxy responds at {place} (is `adsproxy serve` running? `adsproxy status \
             --offline` reads the store): {error}"
        ))
    }

    /// What an error code of ours is for the command line.
    fn of_code(code: &str, alias: &AccountId, text: String) -> Self {
        match code {
            "reauthorization_required" => Self::reauthorization_required(&[alias]),
            "token_unavailable" | "overloaded" | "upstream_unreachable" | "upstream_timeout" => {
                Self::unavailable(text)
            }
            _ => Self::new(1, text),
        }
    }

    /// Accounts that must be connected in a browser.
    fn reauthorization_required<T: fmt::Display>(accounts: &[T]) -> Self {
        let names: Vec<String> = accounts.iter().map(ToString::to_string).collect();
        let (names, commands) = (names.join(", "), names.join("\n  adsproxy login "));
        let text = "not connected, or no longer:";
        Self::new(77, format!("{text} {names}; connect again with\n  adsproxy login {commands}"))
    }
}

/// The exit code for `error`.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    match error.downcast_ref::<CommandFailure>() {
        Some(failure) => failure.code,
        None if error.chain().any(is_configuration) => 78,
        None => 1,
    }
}

/// Whether a cause lies in the configuration, or in who can change the store.
fn is_configuration(cause: &(dyn std::error::Error + 'static)) -> bool {
    // A keyring that is locked is no mistake in the configuration.
    let key = cause.downcast_ref::<KeyError>();
    key.is_some_and(|key| !matches!(key, KeyError::Keyring(..)))
        || cause.downcast_ref::<store::Error>().is_some_and(store::Error::is_configuration)
        || cause.is::<LoadError>()
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
        Verb::Serve => {
            let (loaded, options) = (context.load()?, context.options());
            drop(context);
            app::serve(loaded, options)
        }
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
        Verb::ExecProxy(verb) => verb.run(&context),
        Verb::Status(verb) => verb.run(&context),
        #[cfg(feature = "dashboard")]
        Verb::Dashboard(verb) => verb.run(&context),
        Verb::Doctor(verb) => verb.run(&context),
        Verb::Key(verb) => verb.run(&context),
        Verb::Migrate(verb) => verb.run(&context),
        Verb::Store(verb) => verb.run(&context),
        Verb::Caller(verb) => verb.run(&context),
        Verb::Policy(verb) => verb.run(&context),
        Verb::Hooks(verb) => verb.run(&context),
        Verb::Healthcheck => ready::healthcheck(&context),
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
        let of_flag = |format: LogFormat| Override {
            flag: "--log-format",
            key: &["log", "format"],
            value: format.as_str().to_owned(),
        };
        self.global.log_format.map(of_flag).into_iter().collect()
    }

    fn options(&self) -> Options {
        Options {
            path: self.global.config.clone(),
            environment: self.environment.clone(),
            overrides: self.overrides(),
        }
    }

    fn load(&self) -> anyhow::Result<Loaded> {
        load::load(&self.options()).map_err(|error| match error {
            LoadError::NotFound { .. } => {
                CommandFailure::new(78, format!("{error}\n\n{NEXT_STEPS}")).into()
            }
            error => error.into(),
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
    Ok(ask(&format!("Forget the refresh token of account {alias}? Amazon does not show it again.")))
}

/// Asks `question` on the terminal: is the answer a yes?
fn ask(question: &str) -> bool {
    eprint!("{question} [y/N] ");
    let mut line = String::new();
    let read = io::stdin().lock().read_line(&mut line);
    read.is_ok() && matches!(line.trim(), "y" | "Y" | "yes")
}

/// Writes a line to standard error. A reader that went away is no failure, and no panic as with
/// `eprintln!`.
fn note(text: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

fn print(text: impl AsRef<[u8]>) -> anyhow::Result<()> {
    write(&mut io::stdout().lock(), text.as_ref()).map(drop)
}

/// Writes at once. False if the reader went away, such as `head`, which is no failure.
fn write(to: &mut dyn Write, bytes: &[u8]) -> anyhow::Result<bool> {
    match to.write_all(bytes).and_then(|()| to.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error.into()),
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
    fn exit_codes_distinguish_failures() {
        let source = io::Error::from(io::ErrorKind::ConnectionRefused);
        for (error, code) in [
            (LoadError::Invalid(Vec::new()).into(), 78),
            (CommandFailure::no_server("127.0.0.1:1", &source).into(), 69),
            (CommandFailure::unavailable("lwa").into(), 69),
            (CommandFailure::reauthorization_required(&["acme"]).into(), 77),
            (anyhow::anyhow!("anything else"), 1),
        ] {
            assert_eq!(exit_code(&error), code, "{error}");
        }
        assert_eq!(
            CommandFailure::reauthorization_required(&["acme", "globex"]).to_string(),
            "not connected, or no longer: acme, globex; connect again with\n  \
             adsproxy login acme\n  adsproxy login globex"
        );
    }
}
