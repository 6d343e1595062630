//! The environment: a snapshot of its variables, and those of them that are configuration.

use super::{
    Config,
    document::{Document, KeyPath},
    problem::{ConfigProblem, Provenance, is_secret_name},
    reader::{ConfigReader, Section as _},
};
use crate::secret::Secret;
use std::{borrow::Cow, collections::BTreeMap, path::PathBuf};
use toml::{Spanned, de::DeValue};

const PREFIX: &str = "ADSPROXY_";
const SEPARATOR: &str = "__";

/// Short for `ADSPROXY_LOG__FILTER`.
const LOG: &str = "ADSPROXY_LOG";

/// Secrets that are read under a name that the configuration need not have: our own, Amazon's, and
/// those of the clients that `import --from env` knows.
const SECRETS: [&str; 10] = [
    "ADSPROXY_PASSPHRASE",
    // An operator's key, for commands beside a server without a control socket.
    "ADSPROXY_KEY",
    "AMAZON_CLIENT_SECRET",
    "AMAZON_REFRESH_TOKEN",
    "AD_API_CLIENT_SECRET",
    "AD_API_REFRESH_TOKEN",
    "AMAZON_ADS_CLIENT_SECRET",
    "AMAZON_ADS_REFRESH_TOKEN",
    "AMAZON_ADS_ACCESS_TOKEN",
    "AMAZON_ACCESS_TOKEN",
];

/// The variables that are no keys.
const KNOWN: [&str; 7] = [
    "ADSPROXY_CONFIG",
    "ADSPROXY_KEY",
    "ADSPROXY_PASSPHRASE",
    "ADSPROXY_PASSPHRASE_FILE",
    LOG,
    // For programs that a hook or `exec` runs.
    "ADSPROXY_ACCOUNT",
    "ADSPROXY_EVENT",
];

/// The name of the key that comes from `ADSPROXY_ENCRYPTION__KEYS` or `ADSPROXY_PASSPHRASE`.
const KEY_ID: &str = "default";

/// Variables by name, as they were at one moment. Their values, which may be secrets, are wiped on
/// drop: none outlives the reading of the configuration.
#[derive(Clone, Debug, Default)]
pub struct Environment(BTreeMap<String, Secret>);

impl Environment {
    /// Takes a snapshot of the process's variables. Those that are not UTF-8 are left out.
    pub fn of_process() -> Self {
        let variables = std::env::vars_os();
        variables
            .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
            .collect()
    }

    /// The value of `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(Secret::expose)
    }

    /// The value of `name`, if it is set and not empty.
    pub fn non_empty(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.is_empty())
    }

    /// `text` as a path, with a leading `~` replaced by `$HOME`; none if that is not set.
    pub fn expand(&self, text: &str) -> Option<PathBuf> {
        match text.strip_prefix('~') {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => {
                let home = PathBuf::from(self.non_empty("HOME")?);
                Some(home.join(rest.trim_start_matches('/')))
            }
            _ => Some(PathBuf::from(text)),
        }
    }

    /// adsproxy's directory for configuration: below `$XDG_CONFIG_HOME`, or else `~/.config`.
    pub fn config_directory(&self) -> Option<PathBuf> {
        let base = self.non_empty("XDG_CONFIG_HOME").map(PathBuf::from);
        Some(base.or_else(|| self.expand("~/.config"))?.join("adsproxy"))
    }

    /// Says whether any variable is a key of the configuration.
    pub fn is_configuration(&self) -> bool {
        self.0.keys().any(|name| is_key(name))
            || (self.get("AMAZON_CLIENT_ID").is_some()
                && self.get("AMAZON_CLIENT_SECRET").is_some())
    }

    /// The variables, in use or not, that this program reads as secrets under their own name.
    pub(super) fn secret_names(&self) -> impl Iterator<Item = String> {
        let is_secret_key = |name: &str| {
            let key = name.rsplit(SEPARATOR).next().unwrap_or_default().to_ascii_lowercase();
            is_key(name) && (is_secret_name(&key) || key.starts_with("keys"))
        };
        let names = self.0.keys();
        names.filter(move |name| SECRETS.contains(&name.as_str()) || is_secret_key(name)).cloned()
    }

    /// Lays the variables that are keys over `document`.
    pub(super) fn lay_over<'i>(&'i self, document: &mut Document<'i>) -> Vec<ConfigProblem> {
        let mut problems = Vec::new();
        if let Some(filter) = self.non_empty(LOG) {
            document.insert(&["log", "filter"], text(filter), Provenance::Variable(LOG.to_owned()));
        }
        for (name, value) in self.0.iter().filter(|(name, _)| is_key(name)) {
            let value = value.expose();
            let place = Provenance::Variable(name.clone());
            let mut keys = path(name, document);
            let twin = format!("{name}_FILE");
            // A list of encryption keys holds references.
            let is_list = keys[0] == "encryption" && value.trim_start().starts_with('[');
            let value = if is_secret(&keys) && !is_list {
                if self.0.contains_key(&twin) {
                    let message = format!("{twin} is set too; a secret has one source");
                    problems.push(ConfigProblem { place: place.clone(), message, help: None });
                }
                secret(&keys, "env", name)
            } else if let Some(base) = of_secret_file(&keys) {
                keys = base;
                secret(&keys, "file", value)
            } else {
                plain(value, &keys)
            };
            document.insert(&keys, value, place);
        }
        self.fill(document);
        problems
    }

    /// Variables of other names, used where nothing else is set.
    fn fill<'i>(&'i self, document: &mut Document<'i>) {
        const ID: &str = "AMAZON_CLIENT_ID";
        const SECRET: &str = "AMAZON_CLIENT_SECRET";
        const PASSPHRASE: &str = "ADSPROXY_PASSPHRASE";
        const PASSPHRASE_FILE: &str = "ADSPROXY_PASSPHRASE_FILE";
        let has_application = document.contains(&["lwa"]);
        let mut fill = |keys: [&str; 2], name: &str, value: fn(&'i str) -> DeValue<'i>| {
            if let Some(text) = self.non_empty(name).filter(|_| !document.contains(&keys)) {
                document.insert(&keys, value(text), Provenance::Variable(name.to_owned()));
            }
        };
        // Half an application that is not configured would only be an error.
        let is_whole = self.non_empty(ID).is_some() && self.non_empty(SECRET).is_some();
        if is_whole || has_application {
            fill(["lwa", "client_id"], ID, text);
            fill(["lwa", "client_secret"], SECRET, |_| reference("env", SECRET));
        }
        let keys = ["encryption", "keys"];
        fill(keys, PASSPHRASE, |_| one_key("passphrase", reference("env", PASSPHRASE)));
        fill(keys, PASSPHRASE_FILE, |path| one_key("passphrase", reference("file", path)));
    }

    /// Variables that look like ours and mean nothing.
    pub(super) fn unknown(&self) -> Vec<ConfigProblem> {
        let known = |name: &str| is_key(name) || KNOWN.contains(&name) || is_of_a_service(name);
        let unknown = self.0.keys().filter(|name| name.starts_with(PREFIX) && !known(name));
        unknown
            .map(|name| {
                let message = format!(
                    "environment variable {name} is unknown and not used: a key is written \
                     ADSPROXY_SECTION__KEY"
                );
                ConfigProblem { place: Provenance::Whole(None), message, help: None }
            })
            .collect()
    }
}

/// The key that the variable `name` means.
fn path(name: &str, document: &Document<'_>) -> KeyPath {
    let mut keys: KeyPath =
        name[PREFIX.len()..].split(SEPARATOR).map(str::to_ascii_lowercase).collect();
    if keys.len() >= 2 && matches!(keys[0].as_str(), "accounts" | "applications") {
        let names = document.keys(&keys[..1]).map(|(name, _)| name.to_owned());
        let existing: Option<String> = { names }.find(|name| same_in_a_variable(name, &keys[1]));
        keys[1] = existing.unwrap_or_else(|| keys[1].clone());
    }
    keys
}

/// The key whose secret is in the file that `keys` names.
fn of_secret_file(keys: &[String]) -> Option<KeyPath> {
    let (last, above) = keys.split_last()?;
    let base = [above, &[last.strip_suffix("_file")?.to_owned()]].concat();
    is_secret(&base).then_some(base)
}

/// What is at `keys` if its secret is found in the variable or file `place`.
fn secret<'i>(keys: &[String], kind: &'static str, place: &'i str) -> DeValue<'i> {
    let reference = reference(kind, place);
    if keys[0] == "encryption" { one_key("secret", reference) } else { reference }
}

/// A list of one key, whose `name` is found at `reference`.
fn one_key<'i>(name: &'static str, reference: DeValue<'i>) -> DeValue<'i> {
    let key = Spanned::new(0..0, table([("id", text(KEY_ID)), (name, reference)]));
    DeValue::Array([key].into_iter().collect())
}

/// `value` as TOML if it is TOML of the right kind, else as a string, unless only that TOML can be
/// what was meant.
fn plain<'i>(value: &'i str, keys: &[String]) -> DeValue<'i> {
    match DeValue::parse(value) {
        Ok(parsed) if fits(keys, parsed.get_ref()) || !fits(keys, &text(value)) => {
            parsed.into_inner()
        }
        _ => text(value),
    }
}

/// Says whether `keys` and `value` fit the file's structure.
fn fits(keys: &[String], value: &DeValue<'_>) -> bool {
    let (mut document, _) = Document::parse(None, "");
    document.insert(keys, value.clone(), Provenance::Whole(None));
    let environment = Environment::default();
    let mut reader = ConfigReader::new(&document, &environment);
    reader.follows_references = false;
    Config::read(&mut reader, &[]);
    reader.problems.is_empty()
}

/// `{ env = "place" }` or `{ file = "place" }`
fn reference<'i>(kind: &'static str, place: &'i str) -> DeValue<'i> {
    table([(kind, text(place))])
}

fn is_key(name: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|rest| rest.contains(SEPARATOR))
}

/// Says whether Kubernetes sets `name` in every pod beside a service called `adsproxy…`.
fn is_of_a_service(name: &str) -> bool {
    ["_SERVICE_HOST", "_SERVICE_PORT", "_PORT"].iter().any(|part| name.ends_with(part))
        || ["_SERVICE_PORT_", "_PORT_"].iter().any(|part| name.contains(part))
}

/// Says whether `keys` is one that holds a secret.
fn is_secret(keys: &[String]) -> bool {
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    matches!(
        keys[..],
        ["lwa", "client_secret"]
            | ["applications", _, "client_secret"]
            | ["accounts", _, "refresh_token"]
            | ["encryption", "keys"]
            | ["store", "url" | "listen_url"]
    )
}

/// A variable's name distinguishes neither case nor `.`, `-` and `_`.
fn same_in_a_variable(alias: &str, segment: &str) -> bool {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
    alias.chars().map(plain).eq(segment.chars().map(plain))
}

fn text(value: &str) -> DeValue<'_> {
    DeValue::String(Cow::Borrowed(value))
}

fn table<'i, const N: usize>(entries: [(&'static str, DeValue<'i>); N]) -> DeValue<'i> {
    let entry = |(key, value)| (Spanned::new(0..0, Cow::Borrowed(key)), Spanned::new(0..0, value));
    DeValue::Table(entries.into_iter().map(entry).collect())
}

impl FromIterator<(String, String)> for Environment {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(variables: I) -> Self {
        Self(variables.into_iter().map(|(name, value)| (name, Secret::new(value))).collect())
    }
}
