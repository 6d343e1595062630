//! One account as a source tells it, every value checked.

use super::{
    fernet::{self, Keys},
    fields::{Draft, Field, Values},
    name,
    rejection::Rejection,
};
use crate::{
    cli::{access::PLACEHOLDER, day, region},
    id::{AccountId, Region, placeholder_alias},
    secret::Secret,
    store::StoredAccessToken,
};
use std::collections::BTreeSet;

/// Amazon's documented maximum is 2048.
const TOKEN_MAX_BYTES: usize = 8192;
/// How long Amazon's access tokens live.
const TOKEN_LIFE_SECS: u64 = 3600;

/// How the records of a source are to be read.
pub(super) struct Reading<'a> {
    /// Opens the tokens of a source that has them encrypted.
    pub(super) keys: Option<&'a Keys>,
    /// The accounts that the configuration and the store know.
    pub(super) known: &'a BTreeSet<AccountId>,
    /// The name that a flag gives to the only record.
    pub(super) account: Option<&'a AccountId>,
    /// The name of a record that has none.
    pub(super) unnamed: Option<&'a AccountId>,
    /// Seconds since 1970.
    pub(super) now: u64,
}

/// One account as a source tells it.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) line: Option<usize>,
    /// What it is called in the source.
    pub(super) name: String,
    pub(super) alias: AccountId,
    pub(super) refresh_token: Secret,
    pub(super) access_token: AccessToken,
    pub(super) region: Option<Region>,
    pub(super) application: Option<Secret>,
    pub(super) profile_id: Option<String>,
    pub(super) consented_at: Option<u64>,
    pub(super) client_id: Option<Secret>,
    pub(super) client_secret: Option<Secret>,
}

/// What became of a record's access token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum AccessToken {
    /// There was none.
    Absent,
    /// It has expired, or nobody says when it does.
    Expired,
    /// It is good for a while.
    Valid(StoredAccessToken),
}

/// A record that is not imported, with as much of its name as may be shown.
#[derive(Debug)]
pub(super) struct Rejected {
    pub(super) line: Option<usize>,
    pub(super) name: Option<String>,
    pub(super) why: Rejection,
}

impl Reading<'_> {
    /// Checks one record.
    pub(super) fn read(&self, draft: Draft) -> Result<Entry, Rejected> {
        let line = draft.line;
        let key = draft.key;
        let values = match draft.values {
            Ok(values) => values,
            Err(why) => return Err(Rejected { line, name: key.filter(|k| shown(k)), why }),
        };
        let name = text(&values, Field::Account).map(str::to_owned).or(key);
        let name = name.or_else(|| Some(self.account.or(self.unnamed)?.to_string()));
        let Some(name) = name else {
            return Err(Rejected { line, name: None, why: Rejection::NoAccount });
        };
        // A name that is a secret in the wrong column must not be shown with another complaint.
        let is_secret = values.iter().any(|(field, value)| {
            *field != Field::Account && value.expose() == name && name.len() > 16
        });
        let checked = match name::alias(&name) {
            Ok(_) if is_secret => Err(Rejection::SecretName),
            Ok(alias) => match self.account {
                Some(account) if *account != alias => {
                    Err(Rejection::OtherName(alias, account.clone()))
                }
                _ => self.check(line, &name, alias, &values),
            },
            Err(why) => Err(why),
        };
        checked.map_err(|why| Rejected {
            line,
            name: Some(name).filter(|_| why != Rejection::SecretName),
            why,
        })
    }

    fn check(
        &self,
        line: Option<usize>,
        name: &str,
        alias: AccountId,
        values: &Values,
    ) -> Result<Entry, Rejection> {
        if text(values, Field::TokenType).is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
            return Err(Rejection::NotBearer);
        }
        let refresh_token =
            self.token(values, Field::RefreshToken)?.ok_or(Rejection::NoRefreshToken)?;
        if refresh_token.expose().starts_with("Atza|") {
            return Err(Rejection::AccessTokenInstead);
        }
        if self.is_placeholder(&alias, &refresh_token, values) {
            return Err(Rejection::Placeholder);
        }
        let secret = |field| values.get(&field).cloned();
        Ok(Entry {
            line,
            name: name.to_owned(),
            alias,
            refresh_token,
            access_token: self.access_token(values)?,
            region: checked(values, Field::Region, region::parse, Rejection::NotARegion)?,
            application: secret(Field::Application),
            profile_id: text(values, Field::ProfileId).map(profile).transpose()?,
            consented_at: checked(
                values,
                Field::ConsentedAt,
                |text| day::consent_at(text, self.now).ok(),
                Rejection::NotADay,
            )?,
            client_id: secret(Field::ClientId),
            client_secret: secret(Field::ClientSecret),
        })
    }

    /// Whether this is what `exec` and `env` put where an SDK looks for credentials.
    fn is_placeholder(&self, alias: &AccountId, token: &Secret, values: &Values) -> bool {
        let named = placeholder_alias(token.expose(), "Atzr").and_then(|named| named.parse().ok());
        named.is_some_and(|named: AccountId| named == *alias || self.known.contains(&named))
            || text(values, Field::ClientId) == Some(PLACEHOLDER)
    }

    fn token(&self, values: &Values, field: Field) -> Result<Option<Secret>, Rejection> {
        let Some(value) = values.get(&field) else { return Ok(None) };
        let (name, is_fernet) = (field.as_str(), value.expose().starts_with(fernet::PREFIX));
        let token = match self.keys {
            None if is_fernet => return Err(Rejection::Encrypted(name)),
            None => value.clone(),
            Some(_) if value.expose().starts_with("Atz") => {
                return Err(Rejection::NotEncrypted(name));
            }
            Some(keys) => keys
                .open(value.expose())
                .map_err(|cause| Rejection::Fernet { field: name, cause })?,
        };
        let text = token.expose();
        let is_token = (1..=TOKEN_MAX_BYTES).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic());
        if is_token { Ok(Some(token)) } else { Err(Rejection::NotAToken(name)) }
    }

    fn access_token(&self, values: &Values) -> Result<AccessToken, Rejection> {
        let Some(token) = self.token(values, Field::AccessToken)? else {
            return Ok(AccessToken::Absent);
        };
        let moment = |field| text(values, field).and_then(day::moment);
        // A clock that is ahead, or a local time taken for UTC, would make a dead token look good.
        let latest = self.now + TOKEN_LIFE_SECS;
        let expires_at = moment(Field::ExpiresAt).filter(|at| (self.now + 1..=latest).contains(at));
        let Some(expires_at) = expires_at else { return Ok(AccessToken::Expired) };
        let earliest = expires_at.saturating_sub(TOKEN_LIFE_SECS);
        let issued_at = moment(Field::UpdatedAt).filter(|at| (earliest..=self.now).contains(at));
        Ok(AccessToken::Valid(StoredAccessToken {
            token,
            issued_at: issued_at.unwrap_or(earliest),
            expires_at,
        }))
    }
}

fn text(values: &Values, field: Field) -> Option<&str> {
    values.get(&field).map(Secret::expose)
}

fn checked<T>(
    values: &Values,
    field: Field,
    parse: impl Fn(&str) -> Option<T>,
    wrong: Rejection,
) -> Result<Option<T>, Rejection> {
    text(values, field).map(|text| parse(text).ok_or(wrong)).transpose()
}

/// Profile ids are numbers; they may exceed what a double can hold, and stay text.
fn profile(text: &str) -> Result<String, Rejection> {
    if (1..=20).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(text.to_owned());
    }
    // `1.2E+15`, `1234567890.0`: a column that was taken for one of measurements.
    let is_rounded =
        text.contains(['e', 'E', '.', ',']) && text.replace(',', ".").parse::<f64>().is_ok();
    Err(if is_rounded { Rejection::RoundedProfile } else { Rejection::NotAProfile })
}

/// Whether `name` may be shown.
fn shown(name: &str) -> bool {
    name::alias(name) != Err(Rejection::SecretName)
}

#[cfg(test)]
#[path = "entry_tests.rs"]
mod tests;
