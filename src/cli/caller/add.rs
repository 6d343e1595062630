//! `caller add` and `caller rotate`: make a key, show it once, and print the lines that accept it. The
//! configuration is a person's: nothing is written.

use crate::{
    callers::key::{KeyId, KeyKind, NewKey},
    cli::{Context, day, duration, note, print, table::configured},
    clock::{Clock as _, SystemClock},
    config::{CallerConfig, CallerKeyConfig, load::LoadError},
    hooks::rfc3339,
    id::{AccountId, Tenant},
};
use anyhow::{Context as _, bail};
use serde_json::json;
use std::{path::Path, time::Duration};

/// Of the JSON; it goes up when a member changes its meaning or goes away.
const VERSION: u32 = 1;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct AddCaller {
    /// What the log and commands call it
    #[arg(value_parser = name)]
    name: String,
    /// An account it may use, with * for any text [default: all]; may be repeated
    #[arg(long = "account", value_name = "GLOB", value_parser = glob)]
    accounts: Vec<String>,
    /// It may only read
    #[arg(long)]
    read_only: bool,
    /// It belongs to this tenant, and sees its accounts only
    #[arg(long, value_name = "TENANT")]
    tenant: Option<Tenant>,
    /// It may use the admin API
    #[arg(long)]
    operator: bool,
    /// The key ends then: a day such as 2027-03-01, or a time
    #[arg(long, value_name = "DATE", value_parser = later)]
    expires: Option<u64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct RotateCaller {
    /// The caller
    name: String,
    /// How long its old keys are accepted
    #[arg(long, value_name = "TIME", value_parser = duration::parse, default_value = "24h")]
    overlap: Duration,
    /// The new key ends then: a day such as 2027-03-01, or a time
    #[arg(long, value_name = "DATE", value_parser = later)]
    expires: Option<u64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl AddCaller {
    pub(super) fn run(&self, context: &Context) -> anyhow::Result<()> {
        let mut path = None;
        match context.load() {
            Ok(loaded) => {
                if loaded.config.callers.iter().any(|caller| caller.name == self.name) {
                    let name = &self.name;
                    bail!(
                        "there is a caller {name} already: `adsproxy caller rotate {name}` makes \
                           another key for it"
                    );
                }
                if !loaded.config.auth.required {
                    note(format_args!(
                        "note: until auth.required = true, a program of this machine needs no key"
                    ));
                }
                path = loaded.config.source;
            }
            // The first caller may be what the configuration lacks, and may come before it.
            Err(error) if error.downcast_ref::<LoadError>().is_none() => {}
            Err(error) => note(format_args!("note: the configuration is not right yet: {error}")),
        }
        let key = NewKey::generate(KeyKind::Caller)?;
        let mut lines = vec![
            "[[callers]]".to_owned(),
            format!("name = {}", quoted(&self.name)),
            format!("keys = [{}]", entry(&key, self.expires)),
        ];
        if !self.accounts.is_empty() {
            let globs: Vec<String> = self.accounts.iter().map(|glob| quoted(glob)).collect();
            lines.push(format!("accounts = [{}]", globs.join(", ")));
        }
        lines.extend(self.read_only.then(|| "read_only = true".to_owned()));
        lines.extend(
            self.tenant.iter().map(|tenant| format!("tenant = {}", quoted(tenant.as_str()))),
        );
        lines.extend(self.operator.then(|| "operator = true".to_owned()));
        let what = "Add these lines to";
        show(&key, &self.name, &lines.join("\n"), (what, path.as_deref()), self.json)
    }
}

impl RotateCaller {
    pub(super) fn run(&self, context: &Context) -> anyhow::Result<()> {
        let config = context.load()?.config;
        let Some(caller) = config.callers.iter().find(|caller| caller.name == self.name) else {
            let known = configured(config.callers.iter().map(|caller| &caller.name));
            bail!("there is no caller {:?}; {known}", self.name);
        };
        let key = NewKey::generate(KeyKind::Caller)?;
        let now = SystemClock.now().unix();
        let entries: Vec<String> = [entry(&key, self.expires)]
            .into_iter()
            .chain(self.kept(caller, now))
            .map(|entry| format!("    {entry},\n"))
            .collect();
        let lines = format!("keys = [\n{}]", entries.concat());
        let what = format!("Replace `keys` of caller {} by these lines in", self.name);
        show(&key, &self.name, &lines, (&what, config.source.as_deref()), self.json)
    }

    /// The keys that are still good, with their end.
    fn kept(&self, caller: &CallerConfig, now: u64) -> Vec<String> {
        let last = now.saturating_add(self.overlap.as_secs());
        let end = |key: &CallerKeyConfig| key.expires.map_or(last, |at| seconds(at).min(last));
        let good = caller.keys.iter().filter(|key| end(key) > now);
        good.map(|key| line(&key.id, &key.sha256, key.created.map(seconds), Some(end(key))))
            .collect()
    }
}

fn seconds(at: jiff::Timestamp) -> u64 {
    u64::try_from(at.as_second()).unwrap_or(0)
}

/// The line that accepts a new key.
fn entry(key: &NewKey, expires: Option<u64>) -> String {
    let presented = key.presented();
    let created = Some(SystemClock.now().unix());
    line(presented.id.as_str(), &presented.digest().hex(), created, expires)
}

fn line(id: &str, sha256: &str, created: Option<u64>, expires: Option<u64>) -> String {
    let text = |name: &str, at: Option<u64>| {
        at.map(|at| format!(", {name} = {}", quoted(&rfc3339(at)))).unwrap_or_default()
    };
    let (created, expires) = (text("created", created), text("expires", expires));
    format!("{{ id = {}, sha256 = {}{created}{expires} }}", quoted(id), quoted(sha256))
}

fn show(
    key: &NewKey,
    caller: &str,
    lines: &str,
    (what, path): (&str, Option<&Path>),
    as_json: bool,
) -> anyhow::Result<()> {
    let id = key.presented().id;
    if as_json {
        let document = json!({
            "version": VERSION, "caller": caller, "id": id, "key": key.expose(), "config": lines,
        });
        return print(format!("{document:#}\n"));
    }
    let place = path.map_or("proxy.toml".to_owned(), |path| path.display().to_string());
    print(format!(
        "The key of caller {caller}, which is shown only now:\n\n  {}\n\n\
         {what} {place}; a server that runs takes them over by itself:\n\n{lines}\n",
        key.expose()
    ))
}

/// `text` as TOML writes it.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

pub(super) fn name(text: &str) -> Result<String, &'static str> {
    let hint = "a name is 1 to 64 letters, digits, '.', '_' or '-'";
    if AccountId::is_alias(text) { Ok(text.to_owned()) } else { Err(hint) }
}

/// The name of an account, or a glob.
pub(super) fn glob(text: &str) -> Result<String, &'static str> {
    let may_stand = |b: u8| b.is_ascii_alphanumeric() || b"._-~*?".contains(&b);
    let is_glob = (1..=200).contains(&text.len()) && text.bytes().all(may_stand);
    if is_glob { Ok(text.to_owned()) } else { Err("this is no account, nor a pattern of accounts") }
}

fn later(text: &str) -> Result<u64, &'static str> {
    let at = day::moment(text).ok_or("write the day as 2027-03-01")?;
    if at > SystemClock.now().unix() { Ok(at) } else { Err("that day is over") }
}

/// The id in what a person has: the id, a key's beginning as the log shows it, or all of the key.
pub(in crate::cli) fn id_of(text: &str) -> anyhow::Result<KeyId> {
    let bare = KeyKind::of(text).map_or(text, |kind| &text[kind.prefix().len()..]);
    let id = if bare.len() == 46 { bare.get(..8).unwrap_or(bare) } else { bare };
    id.trim_end_matches('…').parse().context("this is no id of a key or session")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_from_whatever_a_person_has() {
        let key = NewKey::generate(KeyKind::Session).expect("random bytes");
        let id = key.presented().id;
        for text in
            [id.to_string(), format!("adss_{id}"), format!("adsk_{id}…"), key.expose().into()]
        {
            assert_eq!(id_of(&text).expect("an id"), id, "{text}");
        }
        for text in ["", "adsk_", "abc", "adsk_7Fh2kQ9", "../../x", &key.expose()[..50]] {
            assert!(id_of(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_printed_is_toml() {
        let text = line("7Fh2kQ9x", "00", Some(1_795_132_800), None);
        let expected = r#"{ id = "7Fh2kQ9x", sha256 = "00", created = "2026-11-20T00:00:00Z" }"#;
        assert_eq!(text, expected);
        for odd in ["a", "a\"b", "a\\b", "ä\n"] {
            let document: toml::Table = format!("x = {}", quoted(odd)).parse().expect("TOML");
            assert_eq!(document["x"].as_str(), Some(odd));
        }
    }
}
