//! JSON of one account or many: an object, a list, JSON Lines, or an object with accounts as keys.

use super::{
    fields::{Collector, Draft, Field, Values},
    rejection::Rejection,
};
use anyhow::bail;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;
use zeroize::Zeroizing;

/// Under one of these keys some programs put their list or their only record; none is a name.
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

/// Nobody wraps a list more often; each time it is read once more.
const WRAPPED_MAX: usize = 4;

/// The records of `text`.
///
/// # Errors
/// When it is not JSON at all. A broken line of JSON Lines is a broken record.
pub(super) fn drafts(text: &str) -> anyhow::Result<Vec<Draft>> {
    match serde_json::from_str::<&RawValue>(text) {
        Ok(value) => records(value, &mut Lines::of(text), WRAPPED_MAX),
        Err(_) if is_lines(text) => Ok(lines(text)),
        Err(_) if text.trim().is_empty() => bail!("it is empty"),
        Err(error) => bail!("it is not JSON: line {}, column {}", error.line(), error.column()),
    }
}

fn records(
    value: &RawValue,
    lines: &mut Lines<'_>,
    wrapped_max: usize,
) -> anyhow::Result<Vec<Draft>> {
    if let Ok(list) = serde_json::from_str::<Vec<&RawValue>>(value.get()) {
        return Ok(list.into_iter().map(|record| draft(record, None, lines)).collect());
    }
    let Ok(Object(members)) = serde_json::from_str(value.get()) else {
        bail!("it holds no record: neither an object nor a list");
    };
    let is_record = |object: &Object<'_>| {
        object.0.iter().any(|(name, _)| Field::of(name) == Some(Field::RefreshToken))
    };
    if is_record(&Object(members.clone())) {
        return Ok(vec![draft(value, None, lines)]);
    }
    // Beside the list there may be a version, a date, a count.
    let mut containers = members.iter().filter(|(_, member)| member.get().starts_with(['{', '[']));
    if let (Some((name, inner)), None) = (containers.next(), containers.next())
        && WRAPPERS.contains(&name.to_ascii_lowercase().as_str())
        && wrapped_max > 0
    {
        return records(inner, lines, wrapped_max - 1);
    }
    if members.iter().all(|(_, member)| object(member).is_none()) {
        bail!("it holds no record: an account is an object with refresh_token");
    }
    Ok(members.into_iter().map(|(name, record)| draft(record, Some(name), lines)).collect())
}

/// Whether some line alone is an object, as in no document that is one value over many lines.
fn is_lines(text: &str) -> bool {
    text.trim_start().starts_with('{') && text.lines().any(|line| object_text(line).is_some())
}

fn lines(text: &str) -> Vec<Draft> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(index, line)| {
            let values = match serde_json::from_str::<&RawValue>(line) {
                Ok(record) => values(record),
                Err(error) => Err(Rejection::NotJson(error.column())),
            };
            Draft { line: Some(index + 1), key: None, values }
        })
        .collect()
}

fn draft(record: &RawValue, key: Option<String>, lines: &mut Lines<'_>) -> Draft {
    Draft { line: Some(lines.line_of(record)), key, values: values(record) }
}

/// Counts the lines of a text, each once, for parts of it that come in their order.
struct Lines<'a> {
    text: &'a str,
    counted: usize,
    line: usize,
}

impl<'a> Lines<'a> {
    fn of(text: &'a str) -> Self {
        Self { text, counted: 0, line: 1 }
    }

    /// The line at which `record` begins.
    fn line_of(&mut self, record: &RawValue) -> usize {
        // The record is a part of the text, so where it lies there is where it begins.
        let at = (record.get().as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize);
        let passed = self.text.as_bytes().get(self.counted..at).unwrap_or_default();
        self.line += passed.iter().filter(|byte| **byte == b'\n').count();
        self.counted = self.counted.max(at);
        self.line
    }
}

fn values(record: &RawValue) -> Result<Values, Rejection> {
    let Object(members) = object(record).ok_or(Rejection::NotAnObject)?;
    let mut values = Collector::default();
    for (name, value) in members {
        let Some(field) = Field::of(&name) else { continue };
        let value = value.get();
        if value.starts_with('"') {
            let text = serde_json::from_str::<String>(value).map(Zeroizing::new);
            values.add(field, &text.map_err(|_| Rejection::NotAText(field.as_str()))?)?;
        } else if value == "null" || value.starts_with(|c: char| c == '-' || c.is_ascii_digit()) {
            values.add(field, value)?;
        } else {
            return Err(Rejection::NotAText(field.as_str()));
        }
    }
    Ok(values.finish())
}

fn object(value: &RawValue) -> Option<Object<'_>> {
    object_text(value.get())
}

fn object_text(text: &str) -> Option<Object<'_>> {
    serde_json::from_str(text).ok()
}

/// The members of an object in their order, the same name twice included.
#[derive(Clone)]
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    /// Line, key and refresh token of every record.
    fn read(text: &str) -> Vec<(usize, Option<String>, Result<String, Rejection>)> {
        let token =
            |values: Values| values.get(&Field::RefreshToken).map_or("", Secret::expose).to_owned();
        drafts(text)
            .expect("JSON")
            .into_iter()
            .map(|draft| (draft.line.expect("a line"), draft.key, draft.values.map(token)))
            .collect()
    }

    #[test]
    fn every_shape_of_one_or_many_is_read() {
        let one = |line, key: Option<&str>, token: &str| {
            (line, key.map(str::to_owned), Ok(token.to_owned()))
        };
        for (text, expected) in [
            (r#"{"refresh_token":"a"}"#, vec![one(1, None, "a")]),
            (
                "[\n{\"refresh_token\":\"a\"},\n\n{\"refresh_token\":\"b\"}]",
                vec![one(2, None, "a"), one(4, None, "b")],
            ),
            (
                "{\"refresh_token\":\"a\"}\n\n{\"refreshToken\":\"b\"}\n",
                vec![one(1, None, "a"), one(3, None, "b")],
            ),
            (
                "{\n\"x\": {\"refresh_token\":\"a\"},\n\"y\": {\"refresh_token\":\"b\"}\n}",
                vec![one(2, Some("x"), "a"), one(3, Some("y"), "b")],
            ),
            ("{\"accounts\": [\n{\"refresh_token\":\"a\"}]}", vec![one(2, None, "a")]),
            ("{\"tokens\": {\"x\": {\"refresh_token\":\"a\"}}}", vec![one(1, Some("x"), "a")]),
            ("{\"tokens\": {\"refresh_token\":\"a\"}}", vec![one(1, None, "a")]),
            ("{\"web\": {\"refresh_token\":\"a\"}}", vec![one(1, None, "a")]),
            (
                "{\"version\": 1, \"accounts\": [\n{\"refresh_token\":\"a\"}], \"at\": \"x\"}",
                vec![one(2, None, "a")],
            ),
            ("[]", vec![]),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
    }

    #[test]
    fn a_broken_record_costs_no_other() {
        let text = "{\"refresh_token\":\"a\"}\n{\"refresh_token\":\n[1]\n{\"refresh_token\":\"b\"}";
        let wrong: Vec<_> = read(text).into_iter().map(|(_, _, token)| token.err()).collect();
        let expected = [None, Some(Rejection::NotJson(17)), Some(Rejection::NotAnObject), None];
        assert_eq!(wrong, expected);
        let text = r#"[1, {"refresh_token":[]}, {"refresh_token":"a","refresh_token":"b"}]"#;
        let wrong: Vec<_> = read(text).into_iter().map(|(_, _, token)| token.err()).collect();
        assert_eq!(
            wrong,
            [
                Some(Rejection::NotAnObject),
                Some(Rejection::NotAText("refresh_token")),
                Some(Rejection::SaidTwice("refresh_token")),
            ]
        );
    }

    #[test]
    fn a_hostile_file_costs_no_more_time_than_it_is_long() {
        let nested = |n| "{\"data\":".repeat(n) + "1" + &"}".repeat(n);
        assert!(drafts(&nested(3)).is_err(), "no record");
        // Quadratic, this would take hours.
        let deep = drafts(&nested(100_000)).expect("an object that is none of ours");
        assert_eq!(deep.len(), 1);
        let many = format!("[{}]", vec!["\n{\"refresh_token\":\"a\"}"; 50_000].join(","));
        assert_eq!(drafts(&many).expect("JSON")[49_999].line, Some(50_001));
    }

    #[test]
    fn what_holds_no_record_is_refused_without_its_content() {
        for text in ["", "\"CANARY\"", "1", "{}", "{\"CANARY\":1}", "{\"a\":\"CANARY", "CANARY"] {
            let error = format!("{:#}", drafts(text).expect_err("no records"));
            assert!(!error.contains("CANARY"), "{error}");
        }
    }
}
