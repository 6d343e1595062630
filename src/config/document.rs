//! The TOML tree of all sources together; knows the place that each value came from.

use super::problem::{ConfigProblem, Excerpt, Provenance, is_secret_name};
use std::{borrow::Cow, ops::Range, path::PathBuf};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// The names on the way to a value; a list's items are named by their index.
pub(super) type KeyPath = Vec<String>;

/// More than anyone fixes at once.
pub(super) const PROBLEMS_MAX: usize = 50;

pub(super) struct Document<'i> {
    path: Option<PathBuf>,
    text: &'i str,
    root: DeValue<'i>,
    /// What did not come from the file, by the topmost key that it brought.
    overlays: Vec<(KeyPath, Provenance)>,
}

impl<'i> Document<'i> {
    /// Parses `text`, which came from `path`, if from a file. Parts that are no TOML are left out
    /// and reported.
    pub(super) fn parse(path: Option<PathBuf>, text: &'i str) -> (Self, Vec<ConfigProblem>) {
        let (root, errors) = DeTable::parse_recoverable(text);
        let root = DeValue::Table(root.into_inner());
        let document = Self { path, text, root, overlays: Vec::new() };
        let problems = errors.iter().take(PROBLEMS_MAX).map(|error| ConfigProblem {
            place: document.at::<&str>(&[], error.span().unwrap_or_default()),
            message: error.message().to_owned(),
            help: None,
        });
        let problems = problems.collect();
        (document, problems)
    }

    /// Puts `value` at `keys`, in place of what is there. Does nothing if a key on the way is no
    /// table: that is an error of its own, found when the tree is read.
    pub(super) fn insert(
        &mut self,
        keys: &[impl AsRef<str>],
        value: DeValue<'i>,
        source: Provenance,
    ) {
        let keys: KeyPath = keys.iter().map(|key| key.as_ref().to_owned()).collect();
        let topmost = (self.walk(&keys).0 + 1).min(keys.len());
        self.overlays.push((keys[..topmost].to_vec(), source));
        let Some((last, above)) = keys.split_last() else { return };
        let name = |key: &String| Spanned::new(0..0, Cow::Owned(key.clone()));
        let mut table = &mut self.root;
        for key in above {
            let DeValue::Table(entries) = table else { return };
            let empty = || Spanned::new(0..0, DeValue::Table(DeTable::new()));
            table = entries.entry(name(key)).or_insert_with(empty).get_mut();
        }
        if let DeValue::Table(entries) = table {
            entries.insert(name(last), Spanned::new(0..0, value));
        }
    }

    /// How much of `path` there is, the span of the last part, and the value there.
    fn walk(&self, path: &[impl AsRef<str>]) -> (usize, Option<Range<usize>>, &DeValue<'i>) {
        let (mut depth, mut span, mut value) = (0, None, &self.root);
        while let Some(key) = path.get(depth).map(AsRef::as_ref) {
            let inner = match value {
                DeValue::Table(table) => table.get_key_value(key).map(|(name, value)| {
                    // The span of a table is that of its key, unless it is written in braces.
                    let text = self.text.get(value.span().start..).unwrap_or_default();
                    let has_header = value.get_ref().is_table() && !text.starts_with('{');
                    (if has_header { name.span() } else { value.span() }, value)
                }),
                DeValue::Array(items) => {
                    let item = key.parse().ok().and_then(|index: usize| items.get(index));
                    item.map(|item| (item.span(), item))
                }
                _ => None,
            };
            let Some((at, inner)) = inner else { break };
            (depth, span, value) = (depth + 1, Some(at), inner.get_ref());
        }
        (depth, span, value)
    }

    pub(super) fn get(&self, path: &[impl AsRef<str>]) -> Option<&DeValue<'i>> {
        let (depth, _, value) = self.walk(path);
        (depth == path.len()).then_some(value)
    }

    pub(super) fn contains(&self, path: &[impl AsRef<str>]) -> bool {
        self.get(path).is_some()
    }

    /// The keys of the table at `path`, and where they are.
    pub(super) fn keys(
        &self,
        path: &[impl AsRef<str>],
    ) -> impl Iterator<Item = (&str, Range<usize>)> {
        let keys = self.get(path).and_then(DeValue::as_table).into_iter().flat_map(DeTable::keys);
        keys.map(|key| (key.get_ref().as_ref(), key.span()))
    }

    /// The place of the value at `path`; if there is none, of the innermost table it would be in.
    pub(super) fn place(&self, path: &[&str]) -> Provenance {
        match self.walk(path) {
            (depth, Some(span), _) => self.at(&path[..depth], span),
            (_, None, _) => Provenance::Whole(self.path.clone()),
        }
    }

    /// A place of the entry at `path`, which has `span` if it is in the file.
    pub(super) fn at<S: AsRef<str>>(&self, path: &[S], span: Range<usize>) -> Provenance {
        let mut latest = self.overlays.iter().rev();
        if let Some((_, place)) = latest.find(|(top, _)| begins_with(path, top)) {
            return place.clone();
        }
        let sensitive = path.first().is_some_and(|section| section.as_ref() != "token")
            && path.iter().any(|key| is_secret_name(key.as_ref()));
        let file = self.path.clone().unwrap_or_default();
        Provenance::Line(Excerpt::new(file, self.text, span, sensitive))
    }
}

/// Says whether the path `key` is at or below `start`.
pub(super) fn begins_with(key: &[impl AsRef<str>], start: &[impl AsRef<str>]) -> bool {
    key.len() >= start.len() && key.iter().zip(start).all(|(a, b)| a.as_ref() == b.as_ref())
}

/// A path as it would be written in TOML.
pub(super) fn show(path: &[impl AsRef<str>]) -> String {
    let part = |key: &str| {
        let is_bare = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
        match !key.is_empty() && key.bytes().all(is_bare) {
            true => key.to_owned(),
            false => format!("{key:?}"),
        }
    };
    path.iter().map(|key| part(key.as_ref())).collect::<Vec<_>>().join(".")
}

/// The one of `names` of which `text` is probably a misspelling.
pub(super) fn most_alike<'a>(
    text: &str,
    names: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let alike = names.into_iter().map(|name| (strsim::jaro_winkler(text, name), name));
    let likely = alike.filter(|(likeness, _)| *likeness >= 0.8);
    likely.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, name)| name)
}
