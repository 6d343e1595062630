//! Finds the sources of the configuration, reads them, and collects every error in them.
//!
//! A flag beats the environment, the environment beats the file, the file beats the defaults.

pub use super::environment::Environment;
pub use super::problem::{Place, Problem};

use super::{
    Config, ProxyAddress,
    document::{Document, Reading},
    file::File,
    validate,
};
use crate::trusted_path::{self, UntrustedPath};
use std::{
    collections::BTreeSet,
    fmt,
    io::{self, Read},
    net::SocketAddr,
    path::{Path, PathBuf},
};
use toml::de::DeValue;

const FILE_NAME: &str = "proxy.toml";
const SYSTEM_DIRECTORY: &str = "/etc/adsproxy";

/// Far above any configuration written by hand.
const FILE_MAX_BYTES: u64 = 1 << 20;

/// Where to look.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `--config`.
    pub path: Option<PathBuf>,
    /// The variables to read.
    pub environment: Environment,
    /// Flags that set a key.
    pub overrides: Vec<Override>,
}

/// A flag that sets a key.
#[derive(Debug, Clone)]
pub struct Override {
    /// The flag as it is typed.
    pub flag: &'static str,
    /// The key, such as `["log", "format"]`.
    pub key: &'static [&'static str],
    /// Its value, a string.
    pub value: String,
}

/// A configuration without errors.
#[derive(Debug)]
pub struct Loaded {
    /// What it says.
    pub config: Config,
    /// The file it came from, if there was one.
    pub source: Option<PathBuf>,
    /// What is not wrong but unwise, in the order of the file.
    pub warnings: Vec<Problem>,
    /// The environment variables that hold secrets, in use or not: no program that we start
    /// inherits them.
    pub secret_variables: BTreeSet<String>,
    pub(super) file: File,
}

impl Loaded {
    /// Every value in effect as TOML, with secrets masked. Keys without a value are absent.
    #[must_use]
    pub fn effective(&self) -> String {
        toml::to_string(&self.file).expect("a table of texts, numbers and tables is valid TOML")
    }
}

/// Why there is no configuration.
#[derive(Debug)]
pub enum LoadError {
    /// There is no configuration.
    NotFound {
        /// The files that do not exist, in the order they were looked for.
        searched: Vec<PathBuf>,
    },
    /// Another user could change the file.
    Untrusted(UntrustedPath),
    /// The file is there, or was asked for, but cannot be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Everything that is wrong, in the order of the file.
    Invalid(Vec<Problem>),
}

impl std::error::Error for LoadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable { source, .. } => Some(source),
            Self::NotFound { .. } | Self::Untrusted(_) | Self::Invalid(_) => None,
        }
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound { searched } => {
                f.write_str("no configuration found; looked for")?;
                searched.iter().try_for_each(|path| write!(f, "\n  {}", path.display()))?;
                if Path::new(FILE_NAME).symlink_metadata().is_ok() {
                    let text = "the current directory is not searched; for the proxy.toml in it, \
                                pass --config proxy.toml";
                    write!(f, "\n{text}")?;
                }
                Ok(())
            }
            Self::Untrusted(reason) => {
                write!(f, "the configuration is refused: {reason}")
            }
            Self::Unreadable { path, source } => {
                write!(f, "cannot read the configuration file {}", path.display())?;
                f.write_str(&trusted_path::explain_denied(path, source))
            }
            Self::Invalid(problems) => {
                let (count, s) = (problems.len(), if problems.len() == 1 { "" } else { "s" });
                write!(f, "{count} error{s} in the configuration")?;
                problems.iter().try_for_each(|problem| write!(f, "\n\n{problem}"))
            }
        }
    }
}

/// Reads the configuration.
///
/// # Errors
/// `NotFound` if no file exists and no variable is a key, `Untrusted` if another user could change
/// the file, `Unreadable` if it cannot be read, else `Invalid` with every problem.
pub fn load(options: &Options) -> Result<Loaded, LoadError> {
    let (source, text) = sources(options)?;
    parse(source, &text, &options.environment, &options.overrides)
}

/// Reads `text` as the content of the file `source`, which need not exist.
///
/// # Errors
/// `Invalid` with every problem.
pub fn parse(
    source: Option<PathBuf>,
    text: &str,
    environment: &Environment,
    overrides: &[Override],
) -> Result<Loaded, LoadError> {
    let (mut document, syntax, mut problems) =
        overlaid(source.as_deref(), text, environment, overrides);

    let Reading { file, problems: misfits, removed } = document.read();
    problems.extend(misfits.into_iter().filter(|misfit| !on_a_line_of(&syntax, misfit)));
    // What is missing may be in a part that could not be read.
    let file = file.filter(|_| syntax.is_empty());
    problems.extend(syntax);
    if let Some(mut file) = file {
        file.settle();
        let mut verdict = validate::validate(&file, &document, environment, removed);
        problems.extend(verdict.problems);
        if let Some(config) = verdict.config.filter(|_| problems.is_empty()) {
            verdict.warnings.extend(environment.unknown());
            verdict.warnings.sort_by(|a, b| a.place.cmp(&b.place));
            let mut secret_variables = document.secret_variables();
            secret_variables.extend(environment.secret_names());
            return Ok(Loaded {
                config,
                source,
                warnings: verdict.warnings,
                secret_variables,
                file,
            });
        }
    }
    problems.sort_by(|a, b| a.place.cmp(&b.place));
    Err(LoadError::Invalid(problems))
}

/// Where the server of a configuration is found.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// `listen.proxy`.
    pub proxy: Vec<ProxyAddress>,
    /// Whether the TCP addresses of `proxy` speak TLS.
    pub tls: bool,
    /// `listen.admin`.
    pub admin: SocketAddr,
    /// `listen.health`.
    pub health: Option<SocketAddr>,
}

/// Reads the addresses alone, for those who only ask the server: they may not read its secrets.
/// Without any configuration it is the default address, where the sandbox is found too.
///
/// # Errors
/// `Untrusted` and `Unreadable` as with `load`, `Invalid` if the addresses are wrong or the file is no TOML.
pub fn addresses(options: &Options) -> Result<Addresses, LoadError> {
    let (source, text) = match sources(options) {
        Err(LoadError::NotFound { .. }) => (None, String::new()),
        found => found?,
    };
    let (mut document, syntax, _) =
        overlaid(source.as_deref(), &text, &options.environment, &options.overrides);
    if !syntax.is_empty() {
        return Err(LoadError::Invalid(syntax));
    }
    let Reading { file, problems, removed } = document.read();
    let Some(file) = file else { return Err(LoadError::Invalid(problems)) };
    validate::addresses(&file, &document, &options.environment, removed)
        .map_err(|wrong| LoadError::Invalid(if wrong.is_empty() { problems } else { wrong }))
}

/// The file, if there is one, and its text; none at all is fine if the environment says enough.
fn sources(options: &Options) -> Result<(Option<PathBuf>, String), LoadError> {
    match find(options)? {
        Found::File(path, text) => Ok((Some(path), text)),
        Found::Nothing(_) if options.environment.is_configuration() => Ok((None, String::new())),
        Found::Nothing(searched) => Err(LoadError::NotFound { searched }),
    }
}

/// The tree of all sources, with the file's syntax errors and the environment's mistakes.
fn overlaid<'i>(
    source: Option<&Path>,
    text: &'i str,
    environment: &'i Environment,
    overrides: &'i [Override],
) -> (Document<'i>, Vec<Problem>, Vec<Problem>) {
    let (mut document, syntax) = match source {
        Some(path) => Document::parse(path.to_owned(), text),
        None => (Document::empty(), Vec::new()),
    };
    let problems = environment.lay_over(&mut document);
    for flag in overrides {
        let keys: Vec<String> = flag.key.iter().map(|&key| key.to_owned()).collect();
        let value = DeValue::String(flag.value.clone().into());
        document.insert(&keys, value, Place::Flag(flag.flag.to_owned()));
    }
    (document, syntax, problems)
}

/// What is left of a line with a syntax error often has a second error that is none.
fn on_a_line_of(syntax: &[Problem], misfit: &Problem) -> bool {
    let line = |problem: &Problem| match &problem.place {
        Place::Line(at) => Some(at.line),
        Place::Variable(_) | Place::Flag(_) | Place::Whole(_) => None,
    };
    line(misfit).is_some() && syntax.iter().any(|error| line(error) == line(misfit))
}

enum Found {
    File(PathBuf, String),
    Nothing(Vec<PathBuf>),
}

fn find(options: &Options) -> Result<Found, LoadError> {
    let environment = &options.environment;
    let named = environment.non_empty("ADSPROXY_CONFIG").map(PathBuf::from);
    if let Some(path) = options.path.clone().or(named) {
        return Ok(Found::File(path.clone(), read(&path)?));
    }
    // Not the current directory: a cloned repository must not name our hosts, hooks and secrets.
    let directories = environment.config_directory().into_iter().chain([SYSTEM_DIRECTORY.into()]);
    let searched: Vec<PathBuf> = directories.map(|directory| directory.join(FILE_NAME)).collect();
    for path in &searched {
        match read(path) {
            Ok(text) => return Ok(Found::File(path.clone(), text)),
            Err(LoadError::Unreadable { source, .. })
                if source.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Found::Nothing(searched))
}

fn read(path: &Path) -> Result<String, LoadError> {
    trusted_path::verify(path).map_err(LoadError::Untrusted)?;
    let text = || {
        let mut text = String::new();
        std::fs::File::open(path)?.take(FILE_MAX_BYTES + 1).read_to_string(&mut text)?;
        if text.len() as u64 > FILE_MAX_BYTES {
            return Err(io::Error::other(format!("it is larger than {FILE_MAX_BYTES} bytes")));
        }
        Ok(text)
    };
    text().map_err(|source| LoadError::Unreadable { path: path.to_owned(), source })
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
