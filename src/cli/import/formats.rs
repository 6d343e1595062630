//! Takes records out of a table, JSON, a file of variables, or the YAML of python-amazon-ad-api.

use super::{
    record::{Raw, field},
    yaml::{self, Node},
};
use anyhow::{Context as _, bail};
use csv::{ByteRecord, ReaderBuilder, Trim};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::{collections::BTreeMap, fmt};
use zeroize::Zeroizing;

const DELIMITERS: [u8; 3] = [b',', b';', b'\t'];

/// Below one of these keys some programs put their list or their only record; none is a name.
const WRAPPERS: [&str; 19] = [
    "account",
    "accounts",
    "auth",
    "config",
    "credential",
    "credentials",
    "data",
    "installed",
    "items",
    "lwa",
    "oauth",
    "oauth2",
    "record",
    "records",
    "response",
    "result",
    "token",
    "tokens",
    "web",
];
/// The deepest wrapping that is looked through; each level is read once more.
const WRAPPED_MAX: usize = 4;

/// The rows of a table with a heading; the heading is never quoted: without one, it is data.
pub(super) fn table(text: &str) -> anyhow::Result<Vec<Raw>> {
    let found = DELIMITERS.iter().find_map(|delimiter| {
        let mut reader = reader(text, *delimiter);
        let names: Vec<String> =
            reader.headers().ok()?.iter().map(|name| unquoted(name).to_owned()).collect();
        let fits = names.iter().any(|name| field(name) == Some("refresh_token"));
        fits.then_some((*delimiter, names))
    });
    let (delimiter, names) = found.context(
        "the first line names no column refresh_token: it must be a heading such as \
         account,refresh_token,region",
    )?;
    for (index, name) in names.iter().enumerate() {
        let first = names.iter().position(|other| field(other) == field(name)).unwrap_or(index);
        if let (Some(field), true) = (field(name), first < index) {
            bail!("columns {} and {} are both {field}", first + 1, index + 1);
        }
    }
    let mut reader = reader(text, delimiter);
    let mut row = ByteRecord::new();
    let mut raws = Vec::new();
    let (mut counted, mut line) = (0, 1);
    // The parser's own words could quote the row.
    while reader.read_byte_record(&mut row).ok().context("it is no table")? {
        if row.iter().all(|value| value.is_empty()) {
            continue;
        }
        // The reader's own number is that of the blank lines before the row.
        let start = row.position().map_or(0, |at| at.byte() as usize).min(text.len());
        let blank = text[start..].bytes().take_while(u8::is_ascii_whitespace).count();
        let passed = text.as_bytes()[counted..start + blank].iter();
        line += passed.filter(|byte| **byte == b'\n').count();
        counted = start + blank;
        raws.push(cells(Raw::at(line, None), &row, &names));
    }
    Ok(raws)
}

fn cells(mut raw: Raw, row: &ByteRecord, names: &[String]) -> Raw {
    if row.len() != names.len() {
        raw.broken = Some(
            format!(
                "it has {} fields, the heading has {}: a delimiter inside a value needs quotes",
                row.len(),
                names.len()
            )
            .into(),
        );
        return raw;
    }
    for (index, (name, value)) in names.iter().zip(row).enumerate() {
        let value = String::from_utf8_lossy(value);
        match name.is_empty() {
            true => raw.add(&format!("column {}", index + 1), unquoted(&value)),
            false => raw.add(name, unquoted(&value)),
        }
    }
    raw
}

/// Quotes after a space are no quotes in a table, but written in many.
fn unquoted(text: &str) -> &str {
    text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text)
}

fn reader(text: &str, delimiter: u8) -> csv::Reader<&[u8]> {
    let mut builder = ReaderBuilder::new();
    builder.delimiter(delimiter).flexible(true).trim(Trim::All).from_reader(text.as_bytes())
}

/// The records of a JSON document: an object, a list, JSON Lines, or accounts as keys.
///
/// # Errors
/// When it is not JSON at all. A broken line of JSON Lines is a broken record.
pub(super) fn json(text: &str) -> anyhow::Result<Vec<Raw>> {
    match serde_json::from_str::<&RawValue>(text) {
        Ok(value) => records(value, &mut Lines { text, counted: 0, line: 1 }, WRAPPED_MAX),
        Err(_) if is_lines(text) => Ok(lines(text)),
        Err(_) if text.trim().is_empty() => bail!("it is empty"),
        Err(error) => bail!("it is not JSON: line {}, column {}", error.line(), error.column()),
    }
}

fn records(
    value: &RawValue,
    lines: &mut Lines<'_>,
    wrapped_max: usize,
) -> anyhow::Result<Vec<Raw>> {
    if let Ok(list) = serde_json::from_str::<Vec<&RawValue>>(value.get()) {
        return Ok(list.into_iter().map(|record| lines.raw(record, None)).collect());
    }
    let Some(Object(members)) = object(value) else {
        bail!("it holds no record: neither an object nor a list");
    };
    let is_container = |(_, member): &(String, &RawValue)| member.get().starts_with(['{', '[']);
    let is_wrapper = |name: &str| WRAPPERS.contains(&name.to_ascii_lowercase().as_str());
    let is_record = members.iter().any(|(name, _)| field(name) == Some("refresh_token"));
    let (containers, scalars): (Vec<_>, Vec<_>) = members.into_iter().partition(is_container);
    if is_record || (containers.len() > 1 && containers.iter().all(|(name, _)| is_wrapper(name))) {
        return Ok(vec![lines.raw(value, None)]);
    }
    // Beside the list there may be a version, a count, the client id of all.
    let mut outer = Raw::default();
    scalars.iter().for_each(|(name, value)| add(&mut outer, None, name, value));
    let mut raws = match &containers[..] {
        [] => bail!("it holds no record: an account is an object with refresh_token"),
        [(name, inner)] if wrapped_max > 0 && is_wrapper(name) => {
            records(inner, lines, wrapped_max - 1)?
        }
        _ => containers.into_iter().map(|(name, record)| lines.raw(record, Some(name))).collect(),
    };
    let is_only = raws.len() == 1;
    raws.iter_mut().for_each(|raw| raw.inherit(&outer, is_only));
    if let Some(first) = raws.first_mut() {
        first.unused.append(&mut outer.unused);
    }
    Ok(raws)
}

/// Whether some line alone is an object, as in no document that is one value over many lines.
fn is_lines(text: &str) -> bool {
    let is_object = |line: &str| serde_json::from_str::<Object<'_>>(line).is_ok();
    text.trim_start().starts_with('{') && text.lines().any(is_object)
}

fn lines(text: &str) -> Vec<Raw> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let raw = |(index, line): (usize, &str)| {
        let mut raw = Raw::at(index + 1, None);
        match serde_json::from_str::<&RawValue>(line) {
            Ok(record) => members(raw, record),
            Err(error) => {
                let why = format!("this line is not JSON (column {})", error.column());
                raw.broken = Some(why.into());
                raw
            }
        }
    };
    lines.map(raw).collect()
}

fn members(mut raw: Raw, record: &RawValue) -> Raw {
    match object(record) {
        None => raw.broken = Some("it is not a JSON object".into()),
        Some(Object(members)) => {
            members.iter().for_each(|(name, value)| add(&mut raw, None, name, value));
        }
    }
    raw
}

/// Takes one member of an object, and those of an object in it that is no field itself.
fn add(raw: &mut Raw, outer: Option<&str>, name: &str, value: &RawValue) {
    let text = match value.get().as_bytes() {
        [b'"', ..] => serde_json::from_str::<String>(value.get()).ok().map(Zeroizing::new),
        [b'-' | b'0'..=b'9', ..] | b"null" => Some(Zeroizing::new(value.get().to_owned())),
        _ => None,
    };
    match (text, outer, object(value)) {
        (Some(text), Some(outer), _) => raw.add_below(outer, name, &text),
        (Some(text), None, _) => raw.add(name, &text),
        (None, None, Some(Object(members))) if field(name).is_none() => {
            members.iter().for_each(|(inner, value)| add(raw, Some(name), inner, value));
        }
        (None, outer, _) => raw.add_other(&match outer {
            Some(outer) => format!("{outer}.{name}"),
            None => name.to_owned(),
        }),
    }
}

/// Counts the lines of a text, each once, for parts of it that come in their order.
struct Lines<'a> {
    text: &'a str,
    counted: usize,
    line: usize,
}

impl Lines<'_> {
    fn raw(&mut self, record: &RawValue, key: Option<String>) -> Raw {
        // The record is a part of the text, so where it lies there is where it begins.
        let at = (record.get().as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize);
        let passed = self.text.as_bytes().get(self.counted..at).unwrap_or_default();
        self.line += passed.iter().filter(|byte| **byte == b'\n').count();
        self.counted = self.counted.max(at);
        members(Raw::at(self.line, key), record)
    }
}

fn object(value: &RawValue) -> Option<Object<'_>> {
    serde_json::from_str(value.get()).ok()
}

/// The members of an object in their order, the same name twice included.
struct Object<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Members).map(Object)
    }
}

/// The accounts of python-amazon-ad-api's file: every mapping below the top.
pub(super) fn credentials_yml(text: &str) -> anyhow::Result<Vec<Raw>> {
    let root = yaml::parse(text)?;
    let accounts = root.members().context("it is no mapping of accounts")?;
    let raw = |(name, node): (&str, &Node)| {
        let mut raw = Raw::at(node.line, Some(name.to_owned()));
        for (key, value) in node.members()? {
            // The key above the account is the name that its callers use.
            match value.is_scalar() {
                _ if field(key) == Some("account") => {}
                true => raw.add(key, value.text().unwrap_or_default()),
                false => raw.add_other(key),
            }
        }
        Some(raw)
    };
    Ok(accounts.into_iter().filter_map(raw).collect())
}

/// The variables of a `.env` file: `NAME=value`, `export NAME='value'`, comments.
pub(super) fn variables(text: &str) -> anyhow::Result<BTreeMap<String, Zeroizing<String>>> {
    let mut variables = BTreeMap::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").unwrap_or(line);
        let Some((name, value)) = line.split_once('=') else {
            bail!("line {} is no NAME=value", index + 1);
        };
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
