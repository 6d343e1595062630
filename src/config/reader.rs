//! Reads the tree of all sources into checked types, and collects everything that is wrong with it.

use super::{
    document::{Document, KeyPath, PROBLEMS_MAX, begins_with, most_alike, show},
    environment::Environment,
    problem::{ConfigProblem, Provenance},
    read_files::ReadFiles,
    secret_ref::open,
};
use crate::{secret::Secret, trusted_path};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
};
use toml::de::{DeArray, DeValue};

/// A table of the file.
pub(super) trait Section {
    fn keys() -> Vec<&'static str>;

    /// Reads the keys that it knows; what is missing or wrong has its default.
    fn read_known(reader: &mut ConfigReader<'_>, at: &[&str]) -> Self;

    /// Reads the whole table at `at`.
    fn read(reader: &mut ConfigReader<'_>, at: &[&str]) -> Self
    where
        Self: Sized,
    {
        reader.unknown_keys(at, &Self::keys());
        Self::read_known(reader, at)
    }
}

/// The value of a key, on its way into a checked type.
pub(super) struct ConfigEntry<'r, 'd> {
    pub(super) reader: &'r mut ConfigReader<'d>,
    pub(super) at: &'r [&'r str],
    pub(super) value: &'r DeValue<'r>,
}

impl<'d> ConfigEntry<'_, 'd> {
    pub(super) fn reborrow(&mut self) -> ConfigEntry<'_, 'd> {
        ConfigEntry { reader: self.reader, at: self.at, value: self.value }
    }

    /// Reads the value with `take`, which has none if the value is of another type than `expected`.
    pub(super) fn take<T>(
        self,
        expected: &str,
        take: impl FnOnce(&DeValue<'_>) -> Option<Result<T, String>>,
    ) -> Option<T> {
        match take(self.value).unwrap_or_else(|| Err(mismatch(expected, self.value))) {
            Ok(taken) => Some(taken),
            Err(message) => self.reader.reject(self.at, message),
        }
    }

    pub(super) fn reject<T>(self, message: impl Display) -> Option<T> {
        self.reader.reject(self.at, message)
    }

    /// Reads `value`, which is the part `key` of this one.
    pub(super) fn part<T>(
        &mut self,
        key: &str,
        value: &DeValue<'_>,
        read: impl FnOnce(ConfigEntry<'_, '_>) -> Option<T>,
    ) -> Option<T> {
        let at = [self.at, &[key]].concat();
        read(ConfigEntry { reader: self.reader, at: &at, value })
    }

    /// The items of a list that could be read.
    pub(super) fn items<T>(
        &mut self,
        items: &DeArray<'_>,
        read: impl Fn(ConfigEntry<'_, '_>) -> Option<T>,
    ) -> Vec<T> {
        let items = items.iter().enumerate();
        items.filter_map(|(at, item)| self.part(&at.to_string(), item.get_ref(), &read)).collect()
    }
}

/// What was found while reading.
pub(super) struct ConfigReader<'a> {
    pub(super) document: &'a Document<'a>,
    pub(super) environment: &'a Environment,
    /// Secrets are fetched; else their keys are taken for wrong, without a word.
    pub(super) follows_references: bool,
    /// Keys already known to be wrong: what they lack is no new error.
    wrong: Vec<KeyPath>,
    pub(super) problems: Vec<ConfigProblem>,
    /// What is not wrong but unwise.
    pub(super) warnings: Vec<ConfigProblem>,
    /// Every secret that could be fetched, by the key that refers to it; of another file its digest.
    pub(super) referred: BTreeMap<String, Vec<Secret>>,
    /// What was read.
    pub(super) files: ReadFiles,
    /// The variables that references name.
    pub(super) secret_variables: BTreeSet<String>,
}

impl<'a> ConfigReader<'a> {
    pub(super) fn new(document: &'a Document<'a>, environment: &'a Environment) -> Self {
        Self {
            document,
            environment,
            follows_references: true,
            wrong: Vec::new(),
            problems: Vec::new(),
            warnings: Vec::new(),
            referred: BTreeMap::new(),
            files: ReadFiles::default(),
            secret_variables: BTreeSet::new(),
        }
    }

    /// Reads the value of `key` in the table `at` into `field`, if there is one.
    pub(super) fn field<T>(
        &mut self,
        at: &[&str],
        key: &str,
        read: impl FnOnce(ConfigEntry<'_, '_>) -> Option<T>,
        field: &mut T,
    ) {
        let at = [at, &[key]].concat();
        let value = self.document.get(&at);
        let value = value.and_then(|value| read(ConfigEntry { reader: self, at: &at, value }));
        if let Some(value) = value {
            *field = value;
        }
    }

    /// Reports the keys of the table `at` that are none of `known`.
    pub(super) fn unknown_keys(&mut self, at: &[&str], known: &[&'static str]) {
        let document = self.document;
        for (key, span) in document.keys(at).filter(|(key, _)| !known.contains(key)) {
            let path = [at, &[key]].concat();
            let place = document.at(&path, span);
            let meant = most_alike(key, known.iter().copied()).map(|key| [at, &[key]].concat());
            let help = match (&meant, &place) {
                (Some(meant), Provenance::Variable(_)) => {
                    format!("did you mean ADSPROXY_{}?", meant.join("__").to_ascii_uppercase())
                }
                (Some(meant), _) => format!("did you mean `{}`?", show(meant)),
                (None, _) => format!("known here: {}", known.join(", ")),
            };
            self.report(place, format!("unknown key `{}`", show(&path)), Some(&help));
            // Where the right key is there too, it is judged like any other.
            if let Some(meant) = meant.filter(|meant| !document.contains(meant)) {
                self.is_wrong(&meant);
            }
        }
    }

    /// Reports that the value at `at` cannot be read. What follows a line break says what to do.
    pub(super) fn reject<T>(&mut self, at: &[&str], message: impl Display) -> Option<T> {
        let message = message.to_string();
        let (message, help) = match message.split_once('\n') {
            Some((message, help)) => (message, Some(help)),
            None => (message.as_str(), None),
        };
        self.fail_with(at, message, help);
        self.is_wrong(at);
        None
    }

    pub(super) fn is_wrong(&mut self, key: &[&str]) {
        self.wrong.push(key.iter().map(|&key| key.to_owned()).collect());
    }

    /// Says whether the value at `key`, or a part of it, could not be read.
    pub(super) fn lost(&self, key: &[&str]) -> bool {
        self.wrong.iter().any(|wrong| begins_with(wrong, key) || begins_with(key, wrong))
    }

    fn report(&mut self, place: Provenance, message: String, help: Option<&str>) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(ConfigProblem { place, message, help: help.map(str::to_owned) });
        }
    }

    /// Notes what is unwise about the value at `key`.
    pub(super) fn warn(&mut self, key: &[&str], message: impl Display) {
        let message = format!("{}: {message}", show(key));
        self.warnings.push(ConfigProblem { place: self.document.place(key), message, help: None });
    }

    pub(super) fn fail(&mut self, key: &[&str], message: impl Display) {
        self.fail_with(key, message, None);
    }

    /// Notes what is wrong with the value at `key`, unless it is not the one that was written.
    pub(super) fn fail_with(&mut self, key: &[&str], message: impl Display, help: Option<&str>) {
        if !self.wrong.iter().any(|wrong| begins_with(key, wrong)) {
            self.report(self.document.place(key), format!("{}: {message}", show(key)), help);
        }
    }

    /// Notes that there is nothing at `key`, unless something was: it was wrong, and is reported.
    pub(super) fn missing(&mut self, key: &[&str], message: impl Display, help: Option<&str>) {
        if !self.lost(key) {
            self.fail_with(key, message, help);
        }
    }

    /// Notes that `key` has no value and no default.
    pub(super) fn require(&mut self, key: &[&str], message: &str, help: Option<&str>) {
        if !self.document.contains(key) {
            self.missing(key, message, help);
        }
    }

    pub(super) fn expanded(&self, path: &Path) -> Option<PathBuf> {
        self.environment.expand(path.to_str()?)
    }

    /// Completes a path that begins with `~`.
    pub(super) fn path(&mut self, key: &[&str], path: &mut PathBuf) {
        if path.as_os_str().is_empty() {
            self.fail(key, "is empty");
        }
        match self.expanded(path) {
            Some(expanded) => *path = expanded,
            None => {
                let shown = path.display();
                self.fail(key, format_args!("cannot find {shown}: `~` needs HOME to be set"));
            }
        }
    }

    /// A file of roots, whose content counts as the value of its key.
    pub(super) fn roots(&mut self, key: &[&str], path: Option<&mut PathBuf>) {
        let Some(path) = path else { return };
        self.readable(key, Some(path));
        self.files.note(path);
        let digest = self.files.digest(path).unwrap_or_default();
        let digest = Secret::new(digest.iter().map(|byte| format!("{byte:02x}")).collect());
        self.referred.insert(key.join("."), vec![digest]);
    }

    /// A file that is there, can be read, and cannot be changed by another user.
    pub(super) fn readable(&mut self, key: &[&str], path: Option<&mut PathBuf>) {
        let Some(path) = path else { return };
        self.path(key, path);
        if let Err(untrusted) = trusted_path::verify(path) {
            return self.fail(key, untrusted);
        }
        match open(path).map(|(_, metadata)| metadata.file_type()) {
            Ok(kind) if kind.is_dir() || kind.is_fifo() => {
                self.fail(key, format_args!("{} is not a file", path.display()));
            }
            Ok(_) => {}
            Err(error) => {
                let why = trusted_path::explain_denied(path, &error);
                self.fail(key, format_args!("cannot read {}: {error}{why}", path.display()));
            }
        }
    }
}

/// Says what kind of text was found, not which: a misplaced one may be a secret.
fn mismatch(expected: &str, value: &DeValue<'_>) -> String {
    let found = match value {
        DeValue::Integer(number) => format!("integer `{number}`"),
        DeValue::Float(number) => format!("number `{number}`"),
        DeValue::Array(_) => "a list".to_owned(),
        other => format!("a {}", other.type_str()),
    };
    format!("expected {expected}, found {found}")
}
