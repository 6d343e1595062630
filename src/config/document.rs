//! The TOML tree of all sources together, each value with the place it came from.
//!
//! `read` turns the tree into a `File`. Serde stops at its first error, so an entry it refuses is
//! taken out of the tree and reading starts again, until what is left is clean: that is how every
//! error is found at once.

use super::{
    file::File,
    problem::{Excerpt, Place, Problem, is_secret_name},
};
use serde::Deserialize;
use std::{borrow::Cow, collections::BTreeSet, ops::Range, path::PathBuf};
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

/// The span of the whole tree.
const NOWHERE: Range<usize> = usize::MAX..usize::MAX;

/// The tree and where its parts came from.
pub(crate) struct Document<'i> {
    path: Option<PathBuf>,
    text: &'i str,
    root: DeTable<'i>,
    /// A span that begins beyond `text` is an index into these.
    others: Vec<Place>,
}

/// What could be read of a document.
pub(crate) struct Reading {
    /// Everything that was clean; none if there were too many problems to get that far.
    pub(crate) file: Option<File>,
    /// What was not.
    pub(crate) problems: Vec<Problem>,
    /// The keys that are therefore missing from `file`.
    pub(crate) removed: Vec<KeyPath>,
}

impl<'i> Document<'i> {
    /// A document without any value.
    pub(crate) fn empty() -> Self {
        Self { path: None, text: "", root: DeTable::new(), others: Vec::new() }
    }

    /// Parses `text`, which came from `path`. Parts that are no TOML are left out and reported.
    pub(crate) fn parse(path: PathBuf, text: &'i str) -> (Self, Vec<Problem>) {
        let (root, errors) = DeTable::parse_recoverable(text);
        let document = Self { path: Some(path), text, root: root.into_inner(), others: Vec::new() };
        let problems = errors.iter().take(PROBLEMS_MAX).map(|error| Problem {
            place: document.at(error.span().unwrap_or_default(), false),
            message: error.message().to_owned(),
            help: None,
        });
        let problems = problems.collect();
        (document, problems)
    }

    /// The file.
    pub(crate) fn source(&self) -> Option<&PathBuf> {
        self.path.as_ref()
    }

    /// Puts `value` at `keys`, in place of what is there. Does nothing if a key on the way is no
    /// table: that is an error of its own, found by `read`.
    pub(crate) fn insert(&mut self, keys: &[String], value: DeValue<'i>, source: Place) {
        let start = self.text.len() + 1 + self.others.len();
        self.others.push(source);
        put(&mut self.root, keys, respan(value, start..start + 1));
    }

    /// Says whether there is something at `keys`.
    pub(crate) fn contains<S: AsRef<str>>(&self, keys: &[S]) -> bool {
        let Some((last, parents)) = keys.split_last() else { return true };
        let mut table = &self.root;
        for key in parents {
            match table.get(key.as_ref()).map(Spanned::get_ref) {
                Some(DeValue::Table(inner)) => table = inner,
                _ => return false,
            }
        }
        table.contains_key(last.as_ref())
    }

    /// The keys of the table called `section`.
    pub(crate) fn names(&self, section: &str) -> impl Iterator<Item = &str> {
        let table = match self.root.get(section).map(Spanned::get_ref) {
            Some(DeValue::Table(table)) => Some(table),
            _ => None,
        };
        table.into_iter().flat_map(DeTable::keys).map(|key| key.get_ref().as_ref())
    }

    /// The variables that references such as `{ env = "NAME" }` name, in any key.
    pub(crate) fn secret_variables(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        self.root.values().for_each(|value| note_references(value.get_ref(), &mut found));
        found
    }

    /// The place of the value at `keys`; if there is none, of the innermost table it would be in.
    pub(crate) fn place(&self, keys: &[&str]) -> Place {
        let secret = |keys: &[&str]| {
            keys.first() != Some(&"token") && keys.iter().any(|key| is_secret_name(key))
        };
        let mut found = None;
        let mut table = &self.root;
        for (depth, &key) in keys.iter().enumerate() {
            let Some((name, value)) = table.get_key_value(key) else { break };
            // The table that lacks a secret holds nothing to hide.
            found = Some((name.span(), secret(&keys[..=depth])));
            match value.get_ref() {
                DeValue::Table(inner) if depth + 1 < keys.len() || !self.is_inline(value) => {
                    table = inner;
                }
                _ => {
                    found = Some((innermost_item(value, &keys[depth + 1..]).span(), secret(keys)));
                    break;
                }
            }
        }
        match found {
            Some((span, sensitive)) => self.at(span, sensitive),
            None => Place::Whole(self.path.clone()),
        }
    }

    /// Reads the tree, and takes out of it whatever does not fit.
    pub(crate) fn read(&mut self) -> Reading {
        let mut reading = Reading { file: None, problems: Vec::new(), removed: Vec::new() };
        while reading.problems.len() < PROBLEMS_MAX {
            let mut paths = Vec::new();
            let numbered = number_table(&self.root, &mut Vec::new(), &mut paths);
            let error = match File::deserialize(Deserializer::from(Spanned::new(NOWHERE, numbered)))
            {
                Ok(file) => {
                    reading.file = Some(file);
                    break;
                }
                Err(error) => error,
            };
            let number = error.span().unwrap_or(NOWHERE).start;
            let Some((path, span)) = paths.get(number) else {
                let place = Place::Whole(self.path.clone());
                let message = without_values(error.message());
                reading.problems.push(Problem { place, message, help: None });
                break;
            };
            let sensitive = path[0] != "token" && path.iter().any(|key| is_secret_name(key));
            let place = self.at(span.clone(), sensitive);
            let refusal = Refusal::new(error.message(), path, &place);
            // What lost a part is incomplete for that reason alone.
            let lost_a_part =
                |removed: &KeyPath| removed.len() > path.len() && removed.starts_with(path);
            if !reading.removed.iter().any(lost_a_part) {
                let Refusal { message, help, .. } = refusal;
                reading.problems.push(Problem { place, message, help });
            }
            // Where the right key is there too, it is judged like any other.
            reading.removed.extend(refusal.meant.filter(|meant| !self.contains(meant)));
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

    /// Says whether `value` is a table between braces, which has a place of its own.
    fn is_inline(&self, value: &Spanned<DeValue<'_>>) -> bool {
        self.text.get(value.span().start..).is_some_and(|text| text.starts_with('{'))
    }

    fn at(&self, span: Range<usize>, sensitive: bool) -> Place {
        match span.start.checked_sub(self.text.len() + 1) {
            Some(index) if index < self.others.len() => self.others[index].clone(),
            _ => {
                let path = self.path.clone().unwrap_or_default();
                Place::Line(Excerpt::new(path, self.text, span, sensitive))
            }
        }
    }
}

/// Says whether `keys` and `value` fit the file's structure.
pub(crate) fn fits(keys: &[String], value: &DeValue<'_>) -> bool {
    let mut root = DeTable::new();
    put(&mut root, keys, respan(value.clone(), 0..0));
    File::deserialize(Deserializer::from(Spanned::new(0..0, root))).is_ok()
}

/// Looks for references in `value` and below it.
fn note_references(value: &DeValue<'_>, found: &mut BTreeSet<String>) {
    match value {
        DeValue::Table(table) => {
            let name = table.get("env").map(Spanned::get_ref);
            if let (1, Some(DeValue::String(name))) = (table.len(), name) {
                found.insert(name.clone().into_owned());
            }
            table.values().for_each(|inner| note_references(inner.get_ref(), found));
        }
        DeValue::Array(items) => {
            items.iter().for_each(|item| note_references(item.get_ref(), found));
        }
        _ => {}
    }
}

fn put<'i>(table: &mut DeTable<'i>, keys: &[String], value: Spanned<DeValue<'i>>) {
    let Some((first, rest)) = keys.split_first() else { return };
    let span = value.span();
    let key = || Spanned::new(span.clone(), Cow::Owned(first.clone()));
    if rest.is_empty() {
        // The key is replaced too, so that an error about it names the new source.
        table.remove(first.as_str());
        table.insert(key(), value);
        return;
    }
    if !table.contains_key(first.as_str()) {
        table.insert(key(), Spanned::new(span.clone(), DeValue::Table(DeTable::new())));
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

/// The value at `keys` inside `value`, or the last one found on the way.
fn innermost_item<'a, 'i>(
    value: &'a Spanned<DeValue<'i>>,
    keys: &[&str],
) -> &'a Spanned<DeValue<'i>> {
    let Some((first, rest)) = keys.split_first() else { return value };
    let inner = match value.get_ref() {
        DeValue::Array(items) => first.parse::<usize>().ok().and_then(|index| items.get(index)),
        DeValue::Table(table) => table.get(*first),
        _ => None,
    };
    inner.map_or(value, |inner| innermost_item(inner, rest))
}

/// Gives `value` and everything in it one span.
fn respan(value: DeValue<'_>, span: Range<usize>) -> Spanned<DeValue<'_>> {
    let value = match value {
        DeValue::Array(items) => DeValue::Array(
            items.into_iter().map(|item| respan(item.into_inner(), span.clone())).collect(),
        ),
        DeValue::Table(table) => {
            let entries = table.into_iter().map(|(key, value)| {
                let key = Spanned::new(span.clone(), key.into_inner());
                (key, respan(value.into_inner(), span.clone()))
            });
            DeValue::Table(entries.collect())
        }
        scalar => scalar,
    };
    Spanned::new(span, value)
}

/// Every key and value that `number_table` met: its path and its true span.
type Numbered = Vec<(KeyPath, Range<usize>)>;

/// Copies `table` with a number of its own as the span of each key and value. Serde's errors then
/// say exactly what they are about, which true spans do not: tables have that of their header, and
/// all of a variable's value has the same.
fn number_table<'i>(
    table: &DeTable<'i>,
    path: &mut KeyPath,
    numbered: &mut Numbered,
) -> DeTable<'i> {
    let mut copy = DeTable::new();
    for (key, value) in table {
        path.push(key.get_ref().to_string());
        let number = numbered.len();
        numbered.push((path.clone(), key.span()));
        let name = Spanned::new(number..number + 1, key.get_ref().clone());
        let value = number_value(value, Some(key.span()), path, numbered);
        copy.insert(name, value);
        path.pop();
    }
    copy
}

fn number_value<'i>(
    value: &Spanned<DeValue<'i>>,
    key_span: Option<Range<usize>>,
    path: &mut KeyPath,
    numbered: &mut Numbered,
) -> Spanned<DeValue<'i>> {
    let number = numbered.len();
    let copy = match value.get_ref() {
        DeValue::Table(table) => {
            numbered.push((path.clone(), key_span.unwrap_or(value.span())));
            DeValue::Table(number_table(table, path, numbered))
        }
        DeValue::Array(items) => {
            numbered.push((path.clone(), value.span()));
            let mut copy = DeArray::new();
            for (index, item) in items.iter().enumerate() {
                path.push(index.to_string());
                copy.push(number_value(item, None, path, numbered));
                path.pop();
            }
            DeValue::Array(copy)
        }
        scalar => {
            numbered.push((path.clone(), value.span()));
            scalar.clone()
        }
    };
    Spanned::new(number..number + 1, copy)
}

/// Serde's refusal in our words.
struct Refusal {
    message: String,
    help: Option<String>,
    /// The key that was probably meant.
    meant: Option<KeyPath>,
}

impl Refusal {
    fn new(message: &str, path: &KeyPath, place: &Place) -> Self {
        let key = show(path);
        let Some(rest) = message.strip_prefix("unknown field ") else {
            let message = format!("{key}: {}", without_values(message));
            return Self { message, help: None, meant: None };
        };
        // "`x`, expected one of `a`, `b`": every second piece between backticks is a name.
        let names = rest.split('`').skip(1).step_by(2);
        let candidates: Vec<&str> = names.skip(1).collect();
        let unknown = path.last().map_or("", String::as_str);
        let likely = candidates
            .iter()
            .map(|&name| (strsim::jaro_winkler(unknown, name), name))
            .filter(|(likeness, _)| *likeness >= ALIKE)
            .max_by(|a, b| a.0.total_cmp(&b.0));
        let meant = likely.map(|(_, name)| {
            let mut meant = path.clone();
            meant.pop();
            meant.push(name.to_owned());
            meant
        });
        let help = match (&meant, place) {
            (Some(meant), Place::Variable(_)) => {
                let name = meant.join("__").to_ascii_uppercase();
                format!("did you mean ADSPROXY_{name}?")
            }
            (Some(meant), _) => format!("did you mean `{}`?", show(meant)),
            (None, _) => format!("known here: {}", candidates.join(", ")),
        };
        Self { message: format!("unknown key `{key}`"), help: Some(help), meant }
    }
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
    let Some(rest) =
        message.strip_prefix("invalid type: ").or_else(|| message.strip_prefix("invalid value: "))
    else {
        return message.to_owned();
    };
    let (found, expected) = rest.rsplit_once(", expected ").unwrap_or((rest, "something else"));
    let found = match found.split([' ', '`']).next().unwrap_or_default() {
        "string" => "a string",
        "integer" => found,
        "floating" => found,
        "boolean" => "true or false",
        "sequence" => "a list",
        "map" => "a table",
        _ => "something else",
    };
    let expected = match expected {
        "u64" => "a whole number, 0 or more",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "a map" => "a table",
        text if text.starts_with("struct ") => "a table",
        text => text,
    };
    format!("expected {expected}, found {found}")
}
