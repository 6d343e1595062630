//! One record: its values as a source has them, and the checks that make an account of them.

use super::{
    fernet::{self, FernetKeys},
    report::{ImportRecord, REJECTED},
};
use crate::{
    cli::{access::PLACEHOLDER, day},
    config::Config,
    grants::given::{GivenGrant, Replace},
    id::{AccountId, Region, placeholder_alias},
    provider::ads,
    secret::{RefreshToken, Secret},
    store::StoredAccessToken,
};
use anyhow::{Context as _, anyhow, bail, ensure};
use std::collections::{BTreeMap, BTreeSet};

/// The life of Amazon's access tokens.
const TOKEN_LIFE_SECS: u64 = 3600;
/// Longer than any name that a person gave.
const NAME_MAX_CHARS: usize = 128;
/// What Amazon's tokens, client ids and secrets begin with, and Fernet's.
const SECRET_PREFIXES: [&str; 5] = ["Atza", "Atzr", "amzn1.", "eyJ", fernet::PREFIX];
const CLIENT_ID_PREFIX: &str = "amzn1.application-oa2-client.";

/// Every field with its further spellings, in small letters and digits alone, and whether the name
/// of a tool may precede it: `lwa_client_id` is a client id, `app_name` no account.
const FIELDS: [(&str, bool, &[&str]); 12] = [
    ("account", false, &["alias", "accountname", "accountalias", "name"]),
    ("refresh_token", true, &["refreshtoken"]),
    ("access_token", true, &["accesstoken"]),
    ("expires_at", true, &["expiresat", "expiry", "accesstokenexpiresat"]),
    ("updated_at", false, &["updatedat"]),
    ("token_type", false, &["tokentype"]),
    ("region", true, &["apiregion", "marketplace", "defaultmarketplace", "endpoint"]),
    ("application", false, &["app"]),
    ("profile_id", true, &["profileid", "profile", "amazonadvertisingapiscope"]),
    ("consented_at", false, &["consentedat", "consentdate", "consent", "authorizedat"]),
    ("client_id", true, &["clientid", "clientidentifier"]),
    ("client_secret", true, &["clientsecret"]),
];

/// Names of tools and protocols, longest first; up to two precede the name of a field.
const TOOLS: &str = "amazonadvertisingapi amazonadvertising loginwithamazon amazonads amazon \
                     adsapi oauth2 adapi oauth lwa ads app";

/// The field that `name` means, however it is written: `Refresh Token`, `lwaRefreshToken`, …
pub(super) fn field(name: &str) -> Option<&'static str> {
    let plain = name.chars().filter(char::is_ascii_alphanumeric);
    let plain: String = plain.map(|c| c.to_ascii_lowercase()).collect();
    known(&plain, 0)
}

/// The field that `plain` names after so many names of tools.
fn known(plain: &str, tools: usize) -> Option<&'static str> {
    let is_it = |(field, of_tools, more): &&(&str, bool, &[&str])| {
        (*of_tools || tools == 0) && (*field == plain || more.contains(&plain))
    };
    let found = FIELDS.iter().find(is_it).map(|(field, ..)| *field);
    let without_tool = || TOOLS.split(' ').filter_map(|tool| plain.strip_prefix(tool));
    found.or_else(|| match tools {
        0 | 1 => without_tool().find_map(|rest| known(rest, tools + 1)),
        _ => None,
    })
}

/// One record as a source has it. All values are secrets: a column may hold what its name denies.
#[derive(Debug, Clone, Default)]
pub(super) struct Raw {
    /// Where it begins, counted from 1; none in a source without lines.
    pub(super) line: Option<usize>,
    /// The key above it.
    pub(super) key: Option<String>,
    pub(super) values: BTreeMap<&'static str, Secret>,
    /// Names that mean nothing here.
    pub(super) unused: BTreeSet<String>,
    /// Why it cannot be read.
    pub(super) broken: Option<String>,
}

impl Raw {
    pub(super) fn at(line: usize, key: Option<String>) -> Self {
        Self { line: Some(line), key, ..Self::default() }
    }

    /// Takes a value; nothing, and what databases write for nothing, is left out.
    pub(super) fn add(&mut self, name: &str, text: &str) {
        let text = text.trim();
        if matches!(text, "" | "null" | "NULL" | "None") {
            return;
        }
        let by_value = text.starts_with(CLIENT_ID_PREFIX).then_some("client_id");
        let Some(field) = field(name).or(by_value) else {
            self.unused.insert(name.to_owned());
            return;
        };
        let other = self.values.insert(field, Secret::from(text));
        if other.is_some_and(|other| other.expose() != text) {
            self.broken = Some(format!("{field} is there twice"));
        }
    }

    /// Takes what `outer` says of all its records, unless the record says it itself.
    pub(super) fn inherit(&mut self, outer: &Self, is_only: bool) {
        for (field, value) in &outer.values {
            if is_only || *field != "account" {
                self.values.entry(field).or_insert_with(|| value.clone());
            }
        }
    }

    pub(super) fn text(&self, field: &str) -> Option<&str> {
        self.values.get(field).map(Secret::expose)
    }
}

/// One account, every value checked.
#[derive(Debug, Clone)]
pub(super) struct ImportEntry {
    pub(super) alias: AccountId,
    /// With the access token only if that has not expired.
    pub(super) given: GivenGrant,
    pub(super) had_access_token: bool,
    pub(super) profile_id: Option<String>,
    pub(super) client_id: Option<Secret>,
    pub(super) client_secret: Option<Secret>,
}

/// How the records of a source are to be read.
pub(super) struct RecordReader<'a> {
    /// Opens the tokens of a source that has them encrypted.
    pub(super) keys: Option<FernetKeys>,
    /// Of the configuration and the store.
    pub(super) known: BTreeSet<AccountId>,
    /// The name that a flag gives to the only record.
    pub(super) account: Option<&'a AccountId>,
    /// The name of a record that has none.
    pub(super) unnamed: Option<&'a str>,
    pub(super) config: &'a Config,
    /// For records that name none.
    pub(super) region: Option<Region>,
    pub(super) application: Option<&'a str>,
    pub(super) replace: Replace,
    /// Seconds since 1970.
    pub(super) now: u64,
}

impl RecordReader<'_> {
    /// Checks one record; its entry is missing if it is rejected.
    pub(super) fn read(&self, raw: &Raw) -> ImportRecord {
        let flag = self.account.map(AccountId::as_str);
        let name = raw.text("account").or(raw.key.as_deref()).or(flag).or(self.unnamed);
        // A name that is a secret in the wrong column is never shown.
        let shown = name.filter(|name| !is_secret(raw, name)).map(str::to_owned);
        let (line, outcome) = (raw.line, REJECTED);
        let mut record = ImportRecord { line, name: shown, outcome, ..ImportRecord::default() };
        match self.entry(raw, name) {
            Ok(entry) => {
                record.account = Some(entry.alias.to_string());
                record.profile_id.clone_from(&entry.profile_id);
                record.entry = Some(entry);
            }
            Err(why) => record.note = format!("{why:#}"),
        }
        record
    }

    /// # Errors
    /// A clause that quotes nothing of the record but checked names.
    fn entry(&self, raw: &Raw, name: Option<&str>) -> anyhow::Result<ImportEntry> {
        if let Some(why) = &raw.broken {
            bail!(why.clone());
        }
        let name =
            name.context("it names no account: say --account ALIAS if it is the only record")?;
        ensure!(
            !is_secret(raw, name),
            "its account name looks like a secret, and is not shown: are columns swapped?"
        );
        let alias = alias(name).context(
            "no alias can be made of its account name: use letters, digits, '.', '_', '-'",
        )?;
        if let Some(account) = self.account.filter(|account| **account != alias) {
            bail!(
                "it is called {alias} here, and {account} by --account: leave --account out, or \
                 rename it here"
            );
        }
        ensure!(
            raw.text("token_type").is_none_or(|kind| kind.eq_ignore_ascii_case("bearer")),
            "its token_type is not bearer"
        );
        let refresh_token =
            self.token(raw, "refresh_token")?.context("it holds no refresh token")?;
        let refresh_token =
            RefreshToken::parse(&refresh_token).context("its refresh_token cannot be one")?.secret;
        ensure!(
            !self.is_placeholder(&alias, &refresh_token, raw),
            "its refresh_token is a placeholder of adsproxy's own, which `exec` and `env` set: \
             take the real one, from a shell without these variables"
        );
        let access_token = self.token(raw, "access_token")?;
        let is_token = |token: &Secret| token.expose().bytes().all(|byte| byte.is_ascii_graphic());
        ensure!(
            access_token.as_ref().is_none_or(is_token),
            "its access_token is no token: it has blanks or other characters"
        );
        let region = raw.text("region").map(|text| {
            ads::region(text)
                .context("its region is none of na, eu, fe, nor a marketplace such as US, DE, JP")
        });
        let consented_at = raw.text("consented_at").map(|text| {
            day::consent_at(text, self.now).ok().context(
                "its consented_at is no day such as 2026-11-20, still to come, or before Login \
                 with Amazon began (2013)",
            )
        });
        Ok(ImportEntry {
            alias,
            had_access_token: access_token.is_some(),
            given: GivenGrant {
                refresh_token,
                access_token: access_token.and_then(|token| self.unexpired(raw, token)),
                region: region.transpose()?,
                application: raw.text("application").map(str::to_owned),
                consented_at: consented_at.transpose()?,
                replace: self.replace,
            },
            profile_id: raw.text("profile_id").map(profile).transpose()?,
            client_id: raw.values.get("client_id").cloned(),
            client_secret: raw.values.get("client_secret").cloned(),
        })
    }

    /// Whether this is what `exec` and `env` put where an SDK looks for credentials.
    fn is_placeholder(&self, alias: &AccountId, token: &Secret, raw: &Raw) -> bool {
        let named = placeholder_alias(token.expose(), "Atzr");
        named.is_some_and(|named| named == alias.as_str() || self.known.contains(named))
            || raw.text("client_id") == Some(PLACEHOLDER)
    }

    fn token(&self, raw: &Raw, field: &'static str) -> anyhow::Result<Option<Secret>> {
        let Some(value) = raw.values.get(field) else { return Ok(None) };
        let is_fernet = value.expose().starts_with(fernet::PREFIX);
        let token = match &self.keys {
            None if is_fernet => bail!("its {field} looks Fernet-encrypted: say --from legacy"),
            None => value.clone(),
            Some(_) if value.expose().starts_with("Atz") => {
                bail!("its {field} is not encrypted: say --from json")
            }
            Some(keys) => keys
                .open(value.expose())
                .map_err(|why| anyhow!("its {field} cannot be decrypted: {why}"))?,
        };
        Ok(Some(token).filter(|token| !token.is_empty()))
    }

    /// The access token unless it has expired; its times are those of the record.
    fn unexpired(&self, raw: &Raw, token: Secret) -> Option<StoredAccessToken> {
        let moment = |field| raw.text(field).and_then(day::moment);
        // A clock that is ahead, or a local time taken for UTC, would make an expired token look good.
        let latest = self.now + TOKEN_LIFE_SECS;
        let expires_at = moment("expires_at").filter(|at| (self.now + 1..=latest).contains(at))?;
        let earliest = expires_at.saturating_sub(TOKEN_LIFE_SECS);
        let issued_at = moment("updated_at").filter(|at| (earliest..=self.now).contains(at));
        Some(StoredAccessToken { token, issued_at: issued_at.unwrap_or(earliest), expires_at })
    }
}

/// Profile ids are numbers; they may exceed what a double can hold, and stay text.
fn profile(text: &str) -> anyhow::Result<String> {
    if (1..=20).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(text.to_owned());
    }
    // `1.2E+15`, `1234567890.0`: a column that was taken for one of measurements.
    let is_number = text.replace(',', ".").parse::<f64>().is_ok();
    ensure!(
        !is_number || !text.contains(['e', 'E', '.', ',']),
        "its profile_id was turned into a decimal number such as 1.2E+15, as spreadsheets do, \
         which loses digits: set the column's format to text, enter the number anew, export again"
    );
    bail!("its profile_id is not a number: `GET /v2/profiles` lists the profiles of a grant")
}

/// Whether `name` must not be shown.
pub(super) fn looks_secret(name: &str) -> bool {
    name.chars().count() > NAME_MAX_CHARS || SECRET_PREFIXES.iter().any(|p| name.starts_with(p))
}

fn is_secret(raw: &Raw, name: &str) -> bool {
    let mut others = raw.values.iter().filter(|(field, _)| **field != "account");
    let is_another_value = name.len() > 16 && others.any(|(_, value)| value.expose() == name);
    looks_secret(name) || is_another_value
}

/// The account for `name`: the one of that id, else with `-` for every run of other characters, from
/// the first letter or digit on, cut at the longest alias.
fn alias(name: &str) -> Option<AccountId> {
    if let Ok(id) = name.parse() {
        return Some(id);
    }
    let mut text = String::new();
    for c in name.chars() {
        if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') {
            text.push(c);
        } else if !text.ends_with('-') {
            text.push('-');
        }
    }
    let text = text.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    let text = &text[..text.len().min(AccountId::PART_MAX_LEN)];
    let text = if text == name { text } else { text.trim_end_matches('-') };
    text.parse().ok()
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
