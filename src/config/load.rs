//! Finds the sources of the configuration, reads them, and collects every error in them.
//!
//! A flag beats the environment, the environment beats the file, the file beats the defaults.

pub use super::environment::Environment;
pub use super::problem::{ConfigProblem, Provenance};
pub use super::read_files::ReadFiles;

use super::{
    Config,
    document::Document,
    reader::{ConfigReader, Section as _},
    telemetry,
    value::{Displayed as _, table},
};
use crate::{
    provider::ads,
    secret::Secret,
    trusted_path::{self, UntrustedPath},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Read},
    path::{Path, PathBuf},
};
use toml::de::DeValue;

const FILE_NAME: &str = "proxy.toml";
const SYSTEM_DIRECTORY: &str = "/etc/adsproxy";

/// Far above any configuration written by hand.
const FILE_MAX_BYTES: u64 = 1 << 20;

/// Below these a pipe is one that this process has open; a device waits for no other program.
const OPEN_FILES: [&str; 4] = ["/dev/fd", "/dev/null", "/dev/stdin", "/proc"];

const NO_FILE: &str =
    "it is no regular file: write it into one, or pipe it to adsproxy --config /dev/stdin";

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
    /// What is not wrong but unwise, in the order of the file.
    pub warnings: Vec<ConfigProblem>,
    /// The environment variables that hold secrets, in use or not: no program that we start
    /// inherits them.
    pub secret_variables: BTreeSet<String>,
    /// Every value in effect as TOML, with secrets masked. Keys without a value are absent.
    pub effective: String,
    /// By the key that refers to them: secrets, and the digests of other files.
    pub(super) referred: BTreeMap<String, Vec<Secret>>,
    /// What it was read from.
    pub(crate) files: ReadFiles,
    /// The return addresses that the process has served from its start.
    pub(super) redirect_uris: BTreeSet<String>,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// None of the files that were looked for exists.
    #[error("no configuration found; looked for{}", not_found(.searched))]
    NotFound {
        /// In the order they were looked for.
        searched: Vec<PathBuf>,
    },
    /// Another user could change the file.
    #[error("the configuration is refused: {0}")]
    Untrusted(UntrustedPath),
    /// The file is there, or was asked for, but cannot be read.
    #[error("cannot read the configuration file {}{}", .path.display(), trusted_path::explain_denied(.path, .source))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Everything that is wrong, in the order of the file.
    #[error("{} error{} in the configuration{}", .0.len(), if .0.len() == 1 { "" } else { "s" }, listed(.0))]
    Invalid(Vec<ConfigProblem>),
}

fn not_found(searched: &[PathBuf]) -> String {
    let mut text: String = searched.iter().map(|path| format!("\n  {}", path.display())).collect();
    if Path::new(FILE_NAME).symlink_metadata().is_ok() {
        text += "\nthe current directory is not searched; for the proxy.toml in it, \
                 pass --config proxy.toml";
    }
    text
}

fn listed(problems: &[ConfigProblem]) -> String {
    problems.iter().map(|problem| format!("\n\n{problem}")).collect()
}

/// Reads the configuration.
///
/// # Errors
/// `NotFound` if no file exists and no variable is a key, `Untrusted` if another user could change
/// the file, `Unreadable` if it cannot be read, else `Invalid` with every problem.
pub fn load(options: &Options) -> Result<Loaded, LoadError> {
    load_noting(options, &mut ReadFiles::default())
}

/// As [`load`]; `files` get to know what was read, whether there is a configuration or not.
pub(crate) fn load_noting(options: &Options, files: &mut ReadFiles) -> Result<Loaded, LoadError> {
    let (source, text) = sources(options, files)?;
    parse_noting((source, &text), &options.environment, &options.overrides, files)
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
    parse_noting((source, text), environment, overrides, &mut ReadFiles::default())
}

fn parse_noting(
    (source, text): (Option<PathBuf>, &str),
    environment: &Environment,
    overrides: &[Override],
    files: &mut ReadFiles,
) -> Result<Loaded, LoadError> {
    let (document, syntax, mut problems) = overlaid(source.clone(), text, environment, overrides);
    let mut reader = ConfigReader::new(&document, environment);
    reader.follows_references = syntax.is_empty();
    let mut config = Config::read(&mut reader, &[]);
    config.source = source;
    let (telemetry, unsent) = telemetry::read(environment);
    config.telemetry = telemetry;
    clear_fallbacks(&mut config, &document);
    let effective = toml::to_string(&config.shown())
        .expect("a table of texts, numbers and tables is valid TOML");
    // What is missing may be in a part that could not be read.
    if syntax.is_empty() {
        reader.validate(&mut config);
    }
    problems.extend(reader.problems.into_iter().filter(|found| !on_a_line_of(&syntax, found)));
    problems.extend(syntax);
    files.extend(reader.files);
    if problems.is_empty() {
        let ConfigReader { mut warnings, referred, mut secret_variables, .. } = reader;
        warnings.extend(environment.unknown().into_iter().chain(unsent));
        warnings.sort_by(|a, b| a.place.cmp(&b.place));
        secret_variables.extend(environment.secret_names());
        let applications = config.applications.values();
        let redirect_uris = applications.map(|it| it.redirect_uri.clone()).collect();
        let files = files.clone();
        return Ok(Loaded {
            config,
            warnings,
            secret_variables,
            effective,
            referred,
            files,
            redirect_uris,
        });
    }
    problems.sort_by(|a, b| a.place.cmp(&b.place));
    Err(LoadError::Invalid(problems))
}

/// Clears the one default that depends on another key: other LWA hosts are a fallback for Amazon's
/// endpoint, never for a configured endpoint.
fn clear_fallbacks(config: &mut Config, document: &Document<'_>) {
    let lwa = config.lwa.iter_mut().map(|lwa| (vec!["lwa"], lwa));
    let named = config.applications.iter_mut();
    let named = named.map(|(name, application)| (vec!["applications", name.as_str()], application));
    for (mut key, application) in lwa.chain(named) {
        key.push("fallback_token_urls");
        if application.token_url != ads::TOKEN_URL && !document.contains(&key) {
            application.fallback_token_urls.clear();
        }
    }
}

/// Reads the addresses and the place of the store alone, for commands that only ask the server:
/// they may not read its secrets. Without any configuration it is the default address, where the sandbox is found too.
///
/// # Errors
/// `Untrusted` and `Unreadable` as with `load`, `Invalid` if the addresses are wrong or the file is
/// no TOML.
pub fn addresses(options: &Options) -> Result<Config, LoadError> {
    let (source, text) = match sources(options, &mut ReadFiles::default()) {
        Err(LoadError::NotFound { .. }) => (None, String::new()),
        found => found?,
    };
    let (document, syntax, _) = overlaid(source, &text, &options.environment, &options.overrides);
    if !syntax.is_empty() {
        return Err(LoadError::Invalid(syntax));
    }
    let mut reader = ConfigReader::new(&document, &options.environment);
    if !document.contains(&["listen"]) {
        reader.unknown_keys(&[], &Config::keys());
        if reader.lost(&["listen"]) {
            return Err(LoadError::Invalid(reader.problems));
        }
        reader.problems.clear();
    }
    let mut config = Config::default();
    reader.field(&[], "listen", table, &mut config.listen);
    reader.sockets(&mut config.listen);
    if !reader.problems.is_empty() {
        return Err(LoadError::Invalid(reader.problems));
    }
    // Where it cannot be read, there is no control socket to be found.
    reader.field(&[], "store", table, &mut config.store);
    reader.path(&["store", "path"], &mut config.store.path);
    Ok(config)
}

/// Reads the store alone, for a command that needs neither keys nor accounts.
///
/// # Errors
/// As with `load`, of what concerns the store.
pub fn store(options: &Options) -> Result<super::StoreConfig, LoadError> {
    let (source, text) = sources(options, &mut ReadFiles::default())?;
    let (document, syntax, _) = overlaid(source, &text, &options.environment, &options.overrides);
    if !syntax.is_empty() {
        return Err(LoadError::Invalid(syntax));
    }
    let mut reader = ConfigReader::new(&document, &options.environment);
    let mut store = super::StoreConfig::default();
    reader.field(&[], "store", table, &mut store);
    reader.store(&mut store);
    match reader.problems.is_empty() {
        true => Ok(store),
        false => Err(LoadError::Invalid(reader.problems)),
    }
}

/// The tree of all sources, with the file's syntax errors and the environment's mistakes.
fn overlaid<'i>(
    source: Option<PathBuf>,
    text: &'i str,
    environment: &'i Environment,
    overrides: &'i [Override],
) -> (Document<'i>, Vec<ConfigProblem>, Vec<ConfigProblem>) {
    let (mut document, syntax) = Document::parse(source, text);
    let problems = environment.lay_over(&mut document);
    for flag in overrides {
        let value = DeValue::String(flag.value.as_str().into());
        document.insert(flag.key, value, Provenance::Flag(flag.flag.to_owned()));
    }
    (document, syntax, problems)
}

/// What is left of a line with a syntax error often has a second error that is none.
fn on_a_line_of(syntax: &[ConfigProblem], misfit: &ConfigProblem) -> bool {
    let Provenance::Line(at) = &misfit.place else { return false };
    syntax.iter().any(|error| matches!(&error.place, Provenance::Line(it) if it.line == at.line))
}

/// The file, if there is one, and its text; none at all is fine if the environment says enough.
fn sources(
    options: &Options,
    files: &mut ReadFiles,
) -> Result<(Option<PathBuf>, String), LoadError> {
    let environment = &options.environment;
    let named = environment.non_empty("ADSPROXY_CONFIG").map(PathBuf::from);
    if let Some(path) = options.path.clone().or(named) {
        let text = read(&path, files)?;
        return Ok((Some(path), text));
    }
    // Not the current directory: a cloned repository must not name our hosts, hooks and secrets.
    let directories = environment.config_directory().into_iter().chain([SYSTEM_DIRECTORY.into()]);
    let searched: Vec<PathBuf> = directories.map(|directory| directory.join(FILE_NAME)).collect();
    for path in &searched {
        match read(path, files) {
            Err(LoadError::Unreadable { source, .. })
                if source.kind() == io::ErrorKind::NotFound => {}
            found => return Ok((Some(path.clone()), found?)),
        }
    }
    match environment.is_configuration() {
        true => Ok((None, String::new())),
        false => Err(LoadError::NotFound { searched }),
    }
}

fn read(path: &Path, files: &mut ReadFiles) -> Result<String, LoadError> {
    files.note(path);
    trusted_path::verify(path).map_err(LoadError::Untrusted)?;
    let text = || {
        // A pipe would hold up the start until another program opens it, unless it is open already.
        let is_open = OPEN_FILES.iter().any(|open| path.starts_with(open));
        if !is_open && !path.metadata()?.is_file() {
            return Err(io::Error::other(NO_FILE));
        }
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
