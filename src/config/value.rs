//! The kinds of values: how each is read, checked and shown.

use super::{
    ProxyAddress,
    reader::{Field, Reader, Section},
    secret_ref::{MASK, REFERENCE, SecretRef},
    text::{default_header, parse_proxy, without_path},
};
use crate::{
    id::placeholder_alias,
    secret::{RefreshToken, Secret},
};
use http::{HeaderName, HeaderValue};
use std::{collections::BTreeMap, fmt::Display, path::PathBuf, time::Duration};
use toml::{Table, Value, de::DeValue};

/// Far above any sensible count, far below what a semaphore or a vector cannot hold.
pub(super) const COUNT_MAX: u64 = 10_000_000;

/// A bound that keeps sums of deadlines representable.
const SECONDS_MAX: f64 = 1e9;

/// Nothing if the key is absent, else what the inner kind reads.
pub(super) struct Opt<K>(pub(super) K);

impl<T, K: Field<T>> Field<Option<T>> for Opt<K> {
    fn read(&self, r: &mut Reader<'_>, at: &[&str], value: &DeValue<'_>) -> Option<Option<T>> {
        self.0.read(r, at, value).map(Some)
    }

    fn write(&self, value: &Option<T>) -> Option<Value> {
        value.as_ref().and_then(|value| self.0.write(value))
    }
}

pub(super) struct Flag;

impl Field<bool> for Flag {
    fn read(&self, r: &mut Reader<'_>, at: &[&str], value: &DeValue<'_>) -> Option<bool> {
        r.take(at, value, "true or false", |value| value.as_bool().map(Ok))
    }

    fn write(&self, value: &bool) -> Option<Value> {
        Some((*value).into())
    }
}

/// A whole number, from the first to the second.
pub(super) struct Whole(pub(super) u64, pub(super) u64);

impl<T: TryFrom<u64> + TryInto<i64> + Copy> Field<T> for Whole {
    fn read(&self, r: &mut Reader<'_>, at: &[&str], value: &DeValue<'_>) -> Option<T> {
        let &Self(least, most) = self;
        r.take(at, value, "a whole number, 0 or more", |value| {
            let number = value.as_integer()?;
            let number = u64::from_str_radix(number.as_str(), number.radix()).ok()?;
            let fit = T::try_from(number).ok().filter(|_| (least..=most).contains(&number));
            Some(fit.ok_or_else(|| format!("{number} is not between {least} and {most}")))
        })
    }

    fn write(&self, value: &T) -> Option<Value> {
        (*value).try_into().ok().map(Value::Integer)
    }
}

/// A whole number of days, at most a hundred years.
pub(super) struct Days;

impl Field<Duration> for Days {
    fn read(&self, r: &mut Reader<'_>, at: &[&str], value: &DeValue<'_>) -> Option<Duration> {
        let days: u64 = Whole(0, 36_500).read(r, at, value)?;
        Some(Duration::from_secs(days * 86_400))
    }

    fn write(&self, value: &Duration) -> Option<Value> {
        Whole(0, 36_500).write(&(value.as_secs() / 86_400))
    }
}

/// A length of time in seconds, fractions accepted.
pub(super) struct Seconds;

impl Field<Duration> for Seconds {
    fn read(&self, r: &mut Reader<'_>, at: &[&str], value: &DeValue<'_>) -> Option<Duration> {
        r.take(at, value, "a number of seconds (0 to 1000000000)", |value| {
            let number: f64 = match value {
                DeValue::Float(number) => number.as_str().parse().ok()?,
                DeValue::Integer(number) => {
                    u32::from_str_radix(number.as_str(), number.radix()).ok()?.into()
                }
                _ => return None,
            };
            (0.0..=SECONDS_MAX).contains(&number).then(|| Ok(Duration::from_secs_f64(number)))
        })
    }

    /// Whole seconds without a decimal point.
    fn write(&self, value: &Duration) -> Option<Value> {
        Some(match i64::try_from(value.as_secs()) {
            Ok(seconds) if value.subsec_nanos() == 0 => seconds.into(),
            _ => value.as_secs_f64().into(),
        })
    }
}

/// A time after which something is given up: 0 would give up everything.
pub(super) struct Timeout;

impl Field<Duration> for Timeout {
    fn read(&self, r: &mut Reader<'_>, at: &[&str], value: &DeValue<'_>) -> Option<Duration> {
        match Seconds.read(r, at, value)? {
            Duration::ZERO => r.reject(at, "must be more than 0 seconds"),
            time => Some(time),
        }
    }

    fn write(&self, value: &Duration) -> Option<Value> {
        Seconds.write(value)
    }
}

type Parse<T> = fn(&str) -> Result<T, String>;

fn parsed<T>(r: &mut Reader<'_>, at: &[&str], value: &DeValue<'_>, parse: Parse<T>) -> Option<T> {
    r.take(at, value, "a string", |value| value.as_str().map(parse))
}

/// A text that the function checks.
pub(super) struct Text<T>(pub(super) Parse<T>);

impl<T: Display> Field<T> for Text<T> {
    fn read(&self, r: &mut Reader<'_>, at: &[&str], value: &DeValue<'_>) -> Option<T> {
        parsed(r, at, value, self.0)
    }

    fn write(&self, value: &T) -> Option<Value> {
        Some(value.to_string().into())
    }
}

/// The path of a file or a directory.
pub(super) struct FilePath;

impl Field<PathBuf> for FilePath {
    fn read(&self, r: &mut Reader<'_>, at: &[&str], value: &DeValue<'_>) -> Option<PathBuf> {
        parsed(r, at, value, |text| Ok(text.into()))
    }

    fn write(&self, value: &PathBuf) -> Option<Value> {
        Some(value.to_string_lossy().as_ref().into())
    }
}

/// The items that can be read. One text is read as a list, its commas separate the items (for the
/// environment, where a list is awkward to write).
fn list<T>(
    r: &mut Reader<'_>,
    at: &[&str],
    value: &DeValue<'_>,
    parse: Parse<T>,
) -> Option<Vec<T>> {
    match value {
        DeValue::String(text) => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            match items.map(parse).collect() {
                Ok(items) => Some(items),
                Err(message) => r.reject(at, message),
            }
        }
        DeValue::Array(items) => {
            let item = |(index, item): (usize, &toml::Spanned<DeValue<'_>>)| {
                parsed(r, &[at, &[&index.to_string()]].concat(), item.get_ref(), parse)
            };
            Some(items.iter().enumerate().filter_map(item).collect())
        }
        other => r.take(at, other, "a list of strings", |_| None),
    }
}

fn written<T: ToString>(values: &[T]) -> Option<Value> {
    Some(values.iter().map(T::to_string).collect::<Vec<_>>().into())
}

/// A list of texts that the function checks.
pub(super) struct List<T>(pub(super) Parse<T>);

impl<T: Display> Field<Vec<T>> for List<T> {
    fn read(&self, r: &mut Reader<'_>, at: &[&str], value: &DeValue<'_>) -> Option<Vec<T>> {
        list(r, at, value, self.0)
    }

    fn write(&self, value: &Vec<T>) -> Option<Value> {
        written(value)
    }
}

/// Addresses of the data plane, of which one text may name two.
pub(super) struct Addresses;

impl Field<Vec<ProxyAddress>> for Addresses {
    fn read(
        &self,
        r: &mut Reader<'_>,
        at: &[&str],
        value: &DeValue<'_>,
    ) -> Option<Vec<ProxyAddress>> {
        Some(list(r, at, value, parse_proxy)?.concat())
    }

    fn write(&self, value: &Vec<ProxyAddress>) -> Option<Value> {
        written(value)
    }
}

/// Default headers. A bare number will do for a value, since most of them are Amazon's ids.
pub(super) struct Headers;

type HeaderList = Vec<(HeaderName, HeaderValue)>;

impl Field<HeaderList> for Headers {
    fn read(&self, r: &mut Reader<'_>, at: &[&str], value: &DeValue<'_>) -> Option<HeaderList> {
        r.take(at, value, "a table", |value| {
            let mut headers = Vec::new();
            for (name, value) in value.as_table()? {
                let name = name.get_ref();
                match default_header(name, value.get_ref(), &headers) {
                    Ok(header) => headers.push(header),
                    Err(message) => return Some(Err(format!("{name:?} {message}"))),
                }
            }
            Some(Ok(headers))
        })
    }

    fn write(&self, value: &HeaderList) -> Option<Value> {
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let table = value.iter().map(|(name, value)| (name.to_string(), text(value).into()));
        Some(Value::Table(table.collect()))
    }
}

/// A table of the file.
pub(super) struct Sub;

impl<T: Section> Field<T> for Sub {
    fn read(&self, r: &mut Reader<'_>, at: &[&str], value: &DeValue<'_>) -> Option<T> {
        r.take(at, value, "a table", |value| value.is_table().then_some(Ok(())))?;
        Some(T::read(r, at))
    }

    fn write(&self, value: &T) -> Option<Value> {
        Some(Value::Table(value.write()))
    }
}

/// A list of tables.
pub(super) struct Tables;

impl<T: Section> Field<Vec<T>> for Tables {
    fn read(&self, r: &mut Reader<'_>, at: &[&str], value: &DeValue<'_>) -> Option<Vec<T>> {
        let DeValue::Array(items) = value else {
            return r.take(at, value, "a list", |_| None);
        };
        let items = items.iter().enumerate();
        let item = |(index, item): (usize, &toml::Spanned<DeValue<'_>>)| {
            Sub.read(r, &[at, &[&index.to_string()]].concat(), item.get_ref())
        };
        Some(items.filter_map(item).collect())
    }

    fn write(&self, value: &Vec<T>) -> Option<Value> {
        let tables = value.iter().map(|table| Value::Table(table.write()));
        Some(Value::Array(tables.collect()))
    }
}

/// Tables by a name that the function checks.
pub(super) struct Named<K>(pub(super) Parse<K>);

impl<K: Ord + Display, T: Section> Field<BTreeMap<K, T>> for Named<K> {
    fn read(&self, r: &mut Reader<'_>, at: &[&str], value: &DeValue<'_>) -> Option<BTreeMap<K, T>> {
        r.take(at, value, "a table", |value| value.is_table().then_some(Ok(())))?;
        let mut tables = BTreeMap::new();
        for (name, value) in value.as_table().into_iter().flatten() {
            let name = name.get_ref().as_ref();
            let at = [at, &[name]].concat();
            // What is in it is judged too, whatever its name.
            let table = Sub.read(r, &at, value.get_ref());
            match ((self.0)(name), table) {
                (Ok(name), Some(table)) => drop(tables.insert(name, table)),
                (Ok(_), None) => {}
                (Err(message), _) => r.fail(&at, message),
            }
        }
        Some(tables)
    }

    fn write(&self, value: &BTreeMap<K, T>) -> Option<Value> {
        let tables = value.iter().map(|(name, table)| (name.to_string(), table.write().into()));
        Some(Value::Table(tables.collect::<Table>()))
    }
}

/// One secret, or a list of them in order of use: references, which are followed at once.
pub(super) struct Secrets;

impl Field<Vec<Secret>> for Secrets {
    fn read(&self, r: &mut Reader<'_>, at: &[&str], value: &DeValue<'_>) -> Option<Vec<Secret>> {
        let mut found = Vec::new();
        match value {
            DeValue::Array(items) if items.is_empty() => r.fail(at, "the list is empty"),
            DeValue::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    let index = index.to_string();
                    found.extend(resolve(r, &[at, &[&index]].concat(), item.get_ref()));
                }
            }
            one => found.extend(resolve(r, at, one)),
        }
        if !found.is_empty() {
            r.secrets.insert(at.join("."), found.clone());
        }
        Some(found)
    }

    fn write(&self, value: &Vec<Secret>) -> Option<Value> {
        match value.len() {
            0 => None,
            1 => Some(MASK.into()),
            several => Some(vec![MASK; several].into()),
        }
    }
}

/// Fetches the secret that `value` refers to.
fn resolve(r: &mut Reader<'_>, at: &[&str], value: &DeValue<'_>) -> Option<Secret> {
    let expected = format!("{REFERENCE}, or a list of them");
    let reference = r.take(at, value, &expected, SecretRef::parse)?;
    if let SecretRef::Env(name) = &reference {
        r.secret_variables.insert(name.clone());
    }
    // It opens the whole store, and adsproxy makes it with the right mode.
    let is_master_key = at[0] == "encryption";
    match reference.resolve(r.environment) {
        Ok(found) => {
            match found.exposed {
                Some(exposed) if is_master_key => r.fail(at, exposed),
                Some(exposed) => r.warn(at, exposed),
                None => {}
            }
            Some(found.secret)
        }
        Err(error) if is_master_key && at.ends_with(&["secret"]) && error.is_absence() => {
            r.reject(at, format!("{error}\n`adsproxy key init` makes a key"))
        }
        Err(error) => r.reject(at, error),
    }
}

/// One secret where a list makes no sense.
pub(super) struct OneSecret;

impl Field<Option<Secret>> for OneSecret {
    fn read(&self, r: &mut Reader<'_>, at: &[&str], value: &DeValue<'_>) -> Option<Option<Secret>> {
        match value.is_array() {
            true => r.reject(at, "takes one secret, not a list"),
            false => Secrets.read(r, at, value).map(|mut found| found.pop()),
        }
    }

    fn write(&self, value: &Option<Secret>) -> Option<Value> {
        value.as_ref().map(|_| MASK.into())
    }
}

/// What LWA can have issued.
pub(super) struct Refresh;

impl Field<Option<Secret>> for Refresh {
    fn read(&self, r: &mut Reader<'_>, at: &[&str], value: &DeValue<'_>) -> Option<Option<Secret>> {
        let secret = OneSecret.read(r, at, value)??;
        let token = match RefreshToken::parse(&secret) {
            Ok(token) => token,
            Err(error) => return r.reject(at, error),
        };
        if !token.is_usual {
            r.warn(at, RefreshToken::UNUSUAL);
        }
        // Taken for a new one, it would replace the real one in the store.
        let named = placeholder_alias(token.secret.expose(), "Atzr");
        if named.is_some_and(|named| r.document.contains(&["accounts", named])) {
            let message = "holds a placeholder of adsproxy's own, which `adsproxy exec` and `env` \
                           set: start from a shell without it";
            r.fail(at, message);
        }
        Some(Some(token.secret))
    }

    fn write(&self, value: &Option<Secret>) -> Option<Value> {
        OneSecret.write(value)
    }
}

/// A URL of which only the host is shown: many receivers know a sender by nothing but its path.
pub(super) struct HookUrl;

impl Field<Secret> for HookUrl {
    fn read(&self, r: &mut Reader<'_>, at: &[&str], value: &DeValue<'_>) -> Option<Secret> {
        parsed(r, at, value, |text| Ok(text.into()))
    }

    fn write(&self, value: &Secret) -> Option<Value> {
        (!value.is_empty()).then(|| without_path(value.expose()).into())
    }
}
