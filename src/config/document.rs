//! The TOML tree of all sources together, each value with the place it came from.
//!
//! `read` turns the tree into a `Config`. Serde stops at its first error, so an entry it refuses is
//! taken out of the tree and reading starts again, until what is left is clean: that is how every
//! error is found at once.

use super::{
    Config,
    problem::{ConfigProblem, Excerpt, Provenance, is_secret_name},
};
use serde::Deserialize;
use std::{borrow::Cow, ops::Range, path::PathBuf};
use toml::{
    Spanned,
    de::{DeArray, DeTable, DeValue, Deserializer},
};

/// The names on the way to a value; a list's items are named by their index.
pub(crate) type KeyPath = Vec<String>;

/// More than anyone fixes at once; finding each costs a pass over the tree.
const PROBLEMS_MAX: usize = 50;

/// How alike two keys must be for one to be taken for a misspelling of the other.
pub(crate) const ALIKE: f64 = 0.8;

/// Stands for the index of an item that was taken out of a list: the next one has its index now.
const ITEM: &str = "";

/// The span of what has no place.
const NOWHERE: Range<usize> = usize::MAX..usize::MAX;

/// Every key and value of a tree: its path and its span.
type Entries = Vec<(KeyPath, Range<usize>)>;

/// The tree and where its parts came from.
pub(crate) struct Document<'i> {
    path: Option<PathBuf>,
    text: &'i str,
    root: DeTable<'i>,
    /// What did not come from the file, by the topmost key that it brought.
    overlays: Vec<(KeyPath, Provenance)>,
}

/// What could be read of a document.
pub(crate) struct Reading {
    /// Everything that was clean; none if there were too many problems to get that far.
    pub(crate) config: Option<Config>,
    /// What was not.
    pub(crate) problems: Vec<ConfigProblem>,
    /// The keys that are therefore missing from `config`.
    pub(crate) removed: Vec<KeyPath>,
}

impl<'i> Document<'i> {
    /// Parses `text`, which came from `path`, if from a file. Parts that are no TOML are left out
    /// and reported.
    pub(crate) fn parse(path: Option<PathBuf>, text: &'i str) -> (Self, Vec<ConfigProblem>) {
        let (root, errors) = DeTable::parse_recoverable(text);
        let document = Self { path, text, root: root.into_inner(), overlays: Vec::new() };
        let problems = errors.iter().take(PROBLEMS_MAX).map(|error| ConfigProblem {
            place: document.at(&[], error.span().unwrap_or_default()),
            message: error.message().to_owned(),
            help: None,
        });
        let problems = problems.collect();
        (document, problems)
    }

    /// Puts `value` at `keys`, in place of what is there. Does nothing if a key on the way is no
    /// table: that is an error of its own, found by `read`.
    pub(crate) fn insert(&mut self, keys: &[String], value: DeValue<'i>, source: Provenance) {
        let is_new = |depth: &usize| !self.contains(&keys[..*depth]);
        let topmost = (1..keys.len()).find(is_new).unwrap_or(keys.len());
        self.overlays.push((keys[..topmost].to_vec(), source));
        put(&mut self.root, keys, value);
    }

    /// Says whether there is something at `keys`.
    pub(crate) fn contains<S: AsRef<str>>(&self, keys: &[S]) -> bool {
        let Some((first, rest)) = keys.split_first() else { return true };
        let mut found = self.root.get(first.as_ref()).map(Spanned::get_ref);
        for key in rest.iter().map(AsRef::as_ref) {
            let inner = match found {
                Some(DeValue::Table(table)) => table.get(key),
                Some(DeValue::Array(items)) => key.parse().ok().and_then(|at: usize| items.get(at)),
                _ => None,
            };
            found = inner.map(Spanned::get_ref);
        }
        found.is_some()
    }

    /// The keys of the table called `section`.
    pub(crate) fn names(&self, section: &str) -> impl Iterator<Item = &str> {
        let table = self.root.get(section).and_then(|section| section.get_ref().as_table());
        table.into_iter().flat_map(DeTable::keys).map(|key| key.get_ref().as_ref())
    }

    /// The place of the value at `keys`; if there is none, of the innermost table it would be in.
    pub(crate) fn place(&self, keys: &[&str]) -> Provenance {
        let (_, entries) = self.numbered();
        let above = entries.iter().filter(|(path, _)| begins_with(keys, path));
        match above.max_by_key(|(path, _)| path.len()) {
            Some((path, span)) => self.at(path, span.clone()),
            None => Provenance::Whole(self.path.clone()),
        }
    }

    /// Reads the tree, and takes out of it whatever does not fit.
    pub(crate) fn read(&mut self) -> Reading {
        let mut reading = Reading { config: None, problems: Vec::new(), removed: Vec::new() };
        while reading.problems.len() < PROBLEMS_MAX {
            let (numbered, entries) = self.numbered();
            let error = match Config::deserialize(Deserializer::from(numbered)) {
                Ok(config) => {
                    reading.config = Some(config);
                    break;
                }
                Err(error) => error,
            };
            let number = error.span().unwrap_or(NOWHERE).start;
            let Some((path, span)) = entries.get(number) else {
                let place = Provenance::Whole(self.path.clone());
                let message = without_values(error.message());
                reading.problems.push(ConfigProblem { place, message, help: None });
                break;
            };
            let place = self.at(path, span.clone());
            let meant = (error.message().strip_prefix("unknown field "))
                .map(|rest| (likely(path, rest), rest));
            // What lost a part is incomplete for that reason alone.
            let lost_a_part =
                |removed: &KeyPath| removed.len() > path.len() && removed.starts_with(path);
            if !reading.removed.iter().any(lost_a_part) {
                reading.problems.push(match &meant {
                    Some((meant, rest)) => unknown(path, place, meant.as_ref(), rest),
                    None => misfit(path, place, error.message()),
                });
            }
            // Where the right key is there too, it is judged like any other.
            let meant = meant.and_then(|(meant, _)| meant);
            reading.removed.extend(meant.filter(|meant| !self.contains(meant)));
            let mut path = path.clone();
            if remove(&mut self.root, &path) {
                reading.removed.retain(|removed| !removed.starts_with(&path));
                path.pop();
                path.push(ITEM.to_owned());
            }
            reading.removed.push(path);
        }
        reading
    }

    /// A place of the entry at `path`, which has `span` if it is in the file.
    fn at(&self, path: &[String], span: Range<usize>) -> Provenance {
        if let Some((_, place)) = self.overlays.iter().rev().find(|(top, _)| path.starts_with(top))
        {
            return place.clone();
        }
        let sensitive = path.first().is_some_and(|section| section != "token")
            && path.iter().any(|key| is_secret_name(key));
        let file = self.path.clone().unwrap_or_default();
        Provenance::Line(Excerpt::new(file, self.text, span, sensitive))
    }

    /// A copy of the tree in which each key and value has its number among the entries as its span.
    /// Serde's errors then say exactly what they are about, which true spans do not: tables have
    /// that of their header, and a variable's value has none.
    fn numbered(&self) -> (Spanned<DeTable<'i>>, Entries) {
        let mut entries = Entries::new();
        let root = self.number(&self.root, &mut Vec::new(), &mut entries);
        (Spanned::new(NOWHERE, root), entries)
    }

    fn number(
        &self,
        table: &DeTable<'i>,
        path: &mut KeyPath,
        entries: &mut Entries,
    ) -> DeTable<'i> {
        let mut copy = DeTable::new();
        for (key, value) in table {
            path.push(key.get_ref().to_string());
            let number = entries.len();
            entries.push((path.clone(), key.span()));
            let name = Spanned::new(number..number + 1, key.get_ref().clone());
            copy.insert(name, self.number_value(value, key.span(), path, entries));
            path.pop();
        }
        copy
    }

    /// The span of a table is that of its key, unless it is written in braces.
    fn number_value(
        &self,
        value: &Spanned<DeValue<'i>>,
        key: Range<usize>,
        path: &mut KeyPath,
        entries: &mut Entries,
    ) -> Spanned<DeValue<'i>> {
        let number = entries.len();
        let text = self.text.get(value.span().start..).unwrap_or_default();
        let has_header = matches!(value.get_ref(), DeValue::Table(_)) && !text.starts_with('{');
        entries.push((path.clone(), if has_header { key } else { value.span() }));
        let copy = match value.get_ref() {
            DeValue::Table(table) => DeValue::Table(self.number(table, path, entries)),
            DeValue::Array(items) => {
                let mut copy = DeArray::new();
                for (index, item) in items.iter().enumerate() {
                    path.push(index.to_string());
                    copy.push(self.number_value(item, item.span(), path, entries));
                    path.pop();
                }
                DeValue::Array(copy)
            }
            scalar => scalar.clone(),
        };
        Spanned::new(number..number + 1, copy)
    }
}

/// Says whether `keys` and `value` fit the file's structure.
pub(crate) fn fits(keys: &[String], value: &DeValue<'_>) -> bool {
    let mut root = DeTable::new();
    put(&mut root, keys, value.clone());
    Config::deserialize(Deserializer::from(Spanned::new(0..0, root))).is_ok()
}

/// Says whether the path `key` is at or below `start`.
pub(crate) fn begins_with(key: &[impl AsRef<str>], start: &[impl AsRef<str>]) -> bool {
    key.len() >= start.len() && key.iter().zip(start).all(|(a, b)| a.as_ref() == b.as_ref())
}

fn put<'i>(table: &mut DeTable<'i>, keys: &[String], value: DeValue<'i>) {
    let Some((first, rest)) = keys.split_first() else { return };
    let key = Spanned::new(0..0, Cow::Owned(first.clone()));
    if rest.is_empty() {
        table.insert(key, Spanned::new(0..0, value));
        return;
    }
    if !table.contains_key(first.as_str()) {
        table.insert(key, Spanned::new(0..0, DeValue::Table(DeTable::new())));
    }
    if let Some(DeValue::Table(inner)) = table.get_mut(first.as_str()).map(Spanned::get_mut) {
        put(inner, rest, value);
    }
}

/// Takes out what is at `path`, and says whether it was an item of a list.
fn remove(table: &mut DeTable<'_>, path: &[String]) -> bool {
    let Some((first, rest)) = path.split_first() else { return false };
    if rest.is_empty() {
        table.remove(first.as_str());
        return false;
    }
    table.get_mut(first.as_str()).is_some_and(|value| remove_from_value(value.get_mut(), rest))
}

fn remove_from_value(value: &mut DeValue<'_>, path: &[String]) -> bool {
    match value {
        DeValue::Table(table) => remove(table, path),
        DeValue::Array(items) => {
            let Some((first, rest)) = path.split_first() else { return false };
            let Ok(index) = first.parse::<usize>() else { return false };
            if rest.is_empty() {
                let kept = items.iter().enumerate().filter(|(at, _)| *at != index);
                *items = kept.map(|(_, item)| item.clone()).collect();
                return true;
            }
            items.get_mut(index).is_some_and(|item| remove_from_value(item.get_mut(), rest))
        }
        _ => false,
    }
}

/// The key that was probably meant by the unknown one at `path`, of those that serde `expected`:
/// "`x`, expected one of `a`, `b`".
fn likely(path: &KeyPath, expected: &str) -> Option<KeyPath> {
    let (unknown, parents) = path.split_last()?;
    let alike = candidates(expected).map(|name| (strsim::jaro_winkler(unknown, name), name));
    let (_, name) =
        alike.filter(|(likeness, _)| *likeness >= ALIKE).max_by(|a, b| a.0.total_cmp(&b.0))?;
    Some([parents, &[name.to_owned()]].concat())
}

/// Every second piece between backticks is a name; the first is the unknown one.
fn candidates(expected: &str) -> impl Iterator<Item = &str> {
    expected.split('`').skip(1).step_by(2).skip(1)
}

fn unknown(
    path: &KeyPath,
    place: Provenance,
    meant: Option<&KeyPath>,
    expected: &str,
) -> ConfigProblem {
    let help = match (meant, &place) {
        (Some(meant), Provenance::Variable(_)) => {
            format!("did you mean ADSPROXY_{}?", meant.join("__").to_ascii_uppercase())
        }
        (Some(meant), _) => format!("did you mean `{}`?", show(meant)),
        (None, _) => format!("known here: {}", candidates(expected).collect::<Vec<_>>().join(", ")),
    };
    ConfigProblem { place, message: format!("unknown key `{}`", show(path)), help: Some(help) }
}

/// What follows a line break in the message of a check says what to do.
fn misfit(path: &KeyPath, place: Provenance, message: &str) -> ConfigProblem {
    let (message, help) = match message.split_once('\n') {
        Some((message, help)) => (message, Some(help.to_owned())),
        None => (message, None),
    };
    let message = format!("{}: {}", show(path), without_values(message));
    ConfigProblem { place, message, help }
}

/// A path as it would be written in TOML.
pub(crate) fn show<S: AsRef<str>>(path: &[S]) -> String {
    let mut text = String::new();
    for key in path.iter().map(AsRef::as_ref) {
        if !text.is_empty() {
            text.push('.');
        }
        let bare = !key.is_empty()
            && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
        if bare { text.push_str(key) } else { text.push_str(&format!("{key:?}")) }
    }
    text
}

/// Says what kind of value was found, not which: a misplaced one may be a secret.
fn without_values(message: &str) -> String {
    let mismatch = message.strip_prefix("invalid type: ");
    let Some((found, expected)) = mismatch.and_then(|rest| rest.rsplit_once(", expected ")) else {
        return message.to_owned();
    };
    let found = match found.split([' ', '`']).next().unwrap_or_default() {
        "integer" | "floating" => found,
        "sequence" => "a list",
        "map" => "a table",
        kind => &format!("a {kind}"),
    };
    let expected = match expected {
        "u64" => "a whole number, 0 or more",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        text if text == "a map" || text.starts_with("struct ") => "a table",
        text => text,
    };
    format!("expected {expected}, found {found}")
}
