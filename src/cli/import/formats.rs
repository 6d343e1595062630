//! Takes records out of a table, JSON, YAML, or a file of variables.

use super::{
    record::{Raw, field},
    tree::{self, Node, NodeValue},
};
use anyhow::{Context as _, bail};
use csv::{ReaderBuilder, StringRecord, Trim};
use std::collections::BTreeMap;
use zeroize::Zeroizing;

const DELIMITERS: [u8; 3] = [b',', b';', b'\t'];

/// Below one of these keys some programs put their list or their only record; none is a name.
const WRAPPERS: &str = "account accounts auth config credential credentials data installed items \
                        lwa oauth oauth2 record records response result token tokens web";
/// The deepest wrapping that is looked through.
const WRAPPED_MAX: usize = 4;

/// Where the lines of a text end.
pub(super) struct Lines(Vec<usize>);

impl Lines {
    pub(super) fn of(text: &str) -> Self {
        Self(text.match_indices('\n').map(|(at, _)| at).collect())
    }

    /// The number of the line that the byte `at` is in, from 1.
    pub(super) fn at(&self, at: usize) -> usize {
        self.0.partition_point(|end| *end < at) + 1
    }
}

/// The rows of a table with a heading; the heading is never quoted: without one, it is data.
pub(super) fn table(text: &str) -> anyhow::Result<Vec<Raw>> {
    let is_heading = |names: &StringRecord| {
        names.iter().any(|name| field(unquoted(name)) == Some("refresh_token"))
    };
    let found = DELIMITERS.into_iter().find_map(|delimiter| {
        let mut builder = ReaderBuilder::new();
        builder.delimiter(delimiter).flexible(true).trim(Trim::All);
        let mut reader = builder.from_reader(text.as_bytes());
        let names = reader.headers().ok().filter(|names| is_heading(names))?.clone();
        Some((reader, names))
    });
    let (mut reader, names) = found.context(
        "the first line names no column refresh_token: it must be a heading such as \
         account,refresh_token,region",
    )?;
    let names: Vec<String> = names
        .iter()
        .zip(1..)
        .map(|(name, number)| match unquoted(name) {
            "" => format!("column {number}"),
            name => name.to_owned(),
        })
        .collect();
    let lines = Lines::of(text);
    let mut raws = Vec::new();
    for row in reader.records() {
        // The parser's own message could quote the row.
        let row = row.ok().context("it is no table")?;
        if row.iter().all(str::is_empty) {
            continue;
        }
        // The reader's position is that of the blank lines before the row.
        let start = row.position().map_or(0, |at| at.byte() as usize);
        let blank = text[start..].bytes().take_while(u8::is_ascii_whitespace).count();
        let mut raw = Raw::at(lines.at(start + blank), None);
        if row.len() == names.len() {
            names.iter().zip(&row).for_each(|(name, value)| raw.add(name, unquoted(value)));
        } else {
            raw.broken = Some(format!(
                "it has {} fields, the heading has {}: a delimiter inside a value needs quotes",
                row.len(),
                names.len()
            ));
        }
        raws.push(raw);
    }
    Ok(raws)
}

/// Quotes after a space are no quotes in a table, but written in many.
fn unquoted(text: &str) -> &str {
    text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text)
}

/// The accounts of python-amazon-ad-api's file: every mapping below the top.
pub(super) fn yaml(text: &str) -> anyhow::Result<Vec<Raw>> {
    records(&*tree::yaml(text)?, 0)
}

/// The records of a JSON document: an object, a list, JSON Lines, or accounts as keys.
///
/// # Errors
/// When it is not JSON at all. A broken line of JSON Lines is a broken record.
pub(super) fn json(text: &str) -> anyhow::Result<Vec<Raw>> {
    let error = match tree::json(text) {
        Ok(root) => return records(&root, WRAPPED_MAX),
        Err(error) => error,
    };
    if text.trim().is_empty() {
        bail!("it is empty");
    }
    let lines = text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty());
    let lines: Vec<_> = lines.map(|(line, number)| (number, tree::json(line))).collect();
    // No document that is one value over many lines has a whole object in one of them.
    let is_object = |node: &Node| matches!(node.value, NodeValue::Object(_));
    let is_lines = lines.iter().any(|(_, line)| line.as_ref().is_ok_and(is_object));
    if !is_lines || !text.trim_start().starts_with('{') {
        bail!("it is not JSON: line {}, column {}", error.line(), error.column());
    }
    let raws = lines.into_iter().map(|(line, node)| match node {
        Ok(node) => record(&Node { line, ..node }, None),
        Err(error) => Raw {
            broken: Some(format!("this line is not JSON (column {})", error.column())),
            ..Raw::at(line, None)
        },
    });
    Ok(raws.collect())
}

fn records(node: &Node, wrapped_max: usize) -> anyhow::Result<Vec<Raw>> {
    let members = match &node.value {
        NodeValue::List(list) => return Ok(list.iter().map(|node| record(node, None)).collect()),
        NodeValue::Object(members) => members,
        _ => bail!("it holds no record: neither an object nor a list"),
    };
    let is_wrapper = |name: &str| {
        wrapped_max > 0 && WRAPPERS.split(' ').any(|word| word.eq_ignore_ascii_case(name))
    };
    let is_record = members.iter().any(|(name, _)| field(name) == Some("refresh_token"));
    let (scalars, containers): (Vec<_>, Vec<_>) = members
        .iter()
        .partition(|(_, node)| matches!(node.value, NodeValue::Text(_) | NodeValue::Null));
    if is_record || (containers.len() > 1 && containers.iter().all(|(name, _)| is_wrapper(name))) {
        return Ok(vec![record(node, None)]);
    }
    // Beside the list there may be a version, a count, the client id of all.
    let mut outer = Raw::default();
    scalars.iter().for_each(|(name, value)| add(&mut outer, None, name, value));
    let mut raws = match &containers[..] {
        [] => bail!("it holds no record: an account is an object with refresh_token"),
        [(name, inner)] if is_wrapper(name) => records(inner, wrapped_max - 1)?,
        _ => containers.iter().map(|(name, node)| record(node, Some(name))).collect(),
    };
    let is_only = raws.len() == 1;
    raws.iter_mut().for_each(|raw| raw.inherit(&outer, is_only));
    if let Some(first) = raws.first_mut() {
        first.unused.append(&mut outer.unused);
    }
    Ok(raws)
}

fn record(node: &Node, key: Option<&str>) -> Raw {
    let mut raw = Raw::at(node.line, key.map(str::to_owned));
    match &node.value {
        NodeValue::Object(members) => {
            members.iter().for_each(|(name, node)| add(&mut raw, None, name, node));
        }
        _ => raw.broken = Some("it is not an object".to_owned()),
    }
    raw
}

/// Takes one member of an object, and those of an object in it that is no field itself.
fn add(raw: &mut Raw, outer: Option<&str>, name: &str, node: &Node) {
    let path = outer.map_or_else(|| name.to_owned(), |outer| format!("{outer}.{name}"));
    match &node.value {
        NodeValue::Null => {}
        // `lwa.client_id`, `client.id`
        NodeValue::Text(text) if field(&path).is_none() && field(name).is_some() => {
            raw.add(name, text.expose());
        }
        NodeValue::Text(text) => raw.add(&path, text.expose()),
        NodeValue::Object(members) if outer.is_none() && field(name).is_none() => {
            members.iter().for_each(|(inner, node)| add(raw, Some(name), inner, node));
        }
        _ => match field(&path) {
            Some(field) => raw.broken = Some(format!("{field} is neither text nor a number")),
            None => drop(raw.unused.insert(path)),
        },
    }
}

/// The variables of a `.env` file: `NAME=value`, `export NAME='value'`, comments.
pub(super) fn variables(text: &str) -> anyhow::Result<BTreeMap<String, Zeroizing<String>>> {
    let mut variables = BTreeMap::new();
    for (line, number) in text.lines().map(str::trim).zip(1..) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let pair = line.strip_prefix("export ").unwrap_or(line).split_once('=');
        let (name, value) = pair.with_context(|| format!("line {number} is no NAME=value"))?;
        let value = value.trim();
        let quoted = ['"', '\''].into_iter().find_map(|quote| {
            value.strip_prefix(quote).and_then(|rest| rest.split_once(quote)).map(|(text, _)| text)
        });
        let value = quoted.unwrap_or_else(|| value.split(" #").next().unwrap_or_default().trim());
        variables.insert(name.trim().to_owned(), Zeroizing::new(value.to_owned()));
    }
    Ok(variables)
}

#[cfg(test)]
#[path = "formats_tests.rs"]
mod tests;
