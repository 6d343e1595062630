//! How the values of keys are read, by kind, and shown, by type.

use super::{
    ClientAuth, JwtAlgorithm, ListenAddress, LogFormat, StoreKind, admin_text,
    reader::{ConfigEntry, Section},
    secret_ref::MASK,
    text::{default_header, parse_proxy, without_path},
};
use crate::{
    event::Kind,
    id::{AccountId, Region, Tenant},
    secret::Secret,
};
use http::{HeaderName, HeaderValue, Uri};
use std::{
    borrow::Cow, collections::BTreeMap, fmt::Display, net::SocketAddr, path::PathBuf,
    time::Duration,
};
use toml::{Table, Value, de::DeValue};

/// A bound that keeps sums of deadlines representable.
const SECONDS_MAX: f64 = 1e9;

type Entry<'r, 'd> = ConfigEntry<'r, 'd>;
type Parse<T> = fn(&str) -> Result<T, String>;

/// None if the key is absent, else what `read` makes of it.
pub(super) fn opt<T>(
    read: impl Fn(Entry<'_, '_>) -> Option<T>,
) -> impl Fn(Entry<'_, '_>) -> Option<Option<T>> {
    move |entry| read(entry).map(Some)
}

pub(super) fn flag(entry: Entry<'_, '_>) -> Option<bool> {
    entry.take("true or false", |value| value.as_bool().map(Ok))
}

/// A whole number from `least` to `most`.
pub(super) fn whole<T: TryFrom<u64>>(least: u64, most: u64) -> impl Fn(Entry<'_, '_>) -> Option<T> {
    move |entry| {
        entry.take("a whole number, 0 or more", |value| {
            let number = value.as_integer()?;
            let number = u64::from_str_radix(number.as_str(), number.radix()).ok()?;
            let fit = T::try_from(number).ok().filter(|_| (least..=most).contains(&number));
            Some(fit.ok_or_else(|| format!("{number} is not between {least} and {most}")))
        })
    }
}

/// At least one; far below what a semaphore or a vector cannot hold.
pub(super) fn count(entry: Entry<'_, '_>) -> Option<usize> {
    whole(1, 10_000_000)(entry)
}

pub(super) fn count_or_none(entry: Entry<'_, '_>) -> Option<usize> {
    whole(0, 10_000_000)(entry)
}

/// A list of whole numbers, such as of users.
pub(super) fn numbers(mut entry: Entry<'_, '_>) -> Option<Vec<u32>> {
    match entry.value {
        DeValue::Array(items) => Some(entry.items(items, whole(0, u32::MAX.into()))),
        _ => entry.take("a list of whole numbers", |_| None),
    }
}

pub(super) fn bytes(entry: Entry<'_, '_>) -> Option<u64> {
    whole(0, u64::MAX)(entry)
}

/// Whole days, at most a hundred years.
pub(super) fn days(entry: Entry<'_, '_>) -> Option<Duration> {
    whole(0, 36_500)(entry).map(|days: u64| Duration::from_secs(days * 86_400))
}

/// How long a session may live, whole seconds, at most 30 days: such a key is not rotated.
pub(super) fn session_ttl(entry: Entry<'_, '_>) -> Option<Duration> {
    whole(1, 30 * 86_400)(entry).map(Duration::from_secs)
}

/// A length of time in seconds, fractions accepted.
pub(super) fn seconds(entry: Entry<'_, '_>) -> Option<Duration> {
    entry.take("a number of seconds (0 to 1000000000)", |value| {
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

/// A time after which something is given up: 0 would give up everything.
pub(super) fn timeout(mut entry: Entry<'_, '_>) -> Option<Duration> {
    match seconds(entry.reborrow())? {
        Duration::ZERO => entry.reject("must be more than 0 seconds"),
        time => Some(time),
    }
}

/// A text that `parse` checks.
pub(super) fn text<T>(
    parse: impl Fn(&str) -> Result<T, String>,
) -> impl Fn(Entry<'_, '_>) -> Option<T> {
    move |entry| entry.take("a string", |value| value.as_str().map(&parse))
}

/// An address that `parse` checks; its port may be `$PORT`.
pub(super) fn address<T>(parse: Parse<T>) -> impl Fn(Entry<'_, '_>) -> Option<T> {
    move |entry| {
        let port = port_variable(&entry);
        text(|text| parse(&with_port(text, port.as_deref())?))(entry)
    }
}

/// The port that a platform such as Railway chooses, and leads the Internet to.
fn port_variable(entry: &Entry<'_, '_>) -> Option<String> {
    entry.reader.environment.non_empty("PORT").map(str::to_owned)
}

fn with_port<'t>(text: &'t str, port: Option<&str>) -> Result<Cow<'t, str>, String> {
    let Some(host) = text.strip_suffix(":$PORT") else { return Ok(text.into()) };
    let port = port.ok_or_else(|| format!("{text:?}: the environment variable PORT is not set"))?;
    Ok(format!("{host}:{port}").into())
}

/// Any text.
pub(super) fn any<T: for<'t> From<&'t str>>(entry: Entry<'_, '_>) -> Option<T> {
    text(|text| Ok(text.into()))(entry)
}

/// The items that can be read. One text is read as a list, its commas separate the items (for the
/// environment, where a list is awkward to write).
pub(super) fn list<T>(
    parse: impl Fn(&str) -> Result<T, String> + Copy,
) -> impl Fn(Entry<'_, '_>) -> Option<Vec<T>> {
    move |mut entry| match entry.value {
        DeValue::Array(items) => Some(entry.items(items, text(parse))),
        _ => entry.take("a list of strings", |value| {
            let items = value.as_str()?.split(',').map(str::trim);
            Some(items.filter(|item| !item.is_empty()).map(parse).collect())
        }),
    }
}

/// Addresses of the data plane, of which one text may name two.
pub(super) fn addresses(entry: Entry<'_, '_>) -> Option<Vec<ListenAddress>> {
    let port = port_variable(&entry);
    let parse = |text: &str| parse_proxy(&with_port(text, port.as_deref())?);
    list(parse)(entry).map(|addresses| addresses.concat())
}

/// Default headers. A bare number will do for a value, since most of them are Amazon's ids.
pub(super) fn headers(entry: Entry<'_, '_>) -> Option<Vec<(HeaderName, HeaderValue)>> {
    entry.take("a table", |value| {
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

/// A table of the file.
pub(super) fn table<T: Section>(mut entry: Entry<'_, '_>) -> Option<T> {
    entry.reborrow().take("a table", |value| value.is_table().then_some(Ok(())))?;
    Some(T::read(entry.reader, entry.at))
}

pub(super) fn tables<T: Section>(mut entry: Entry<'_, '_>) -> Option<Vec<T>> {
    match entry.value {
        DeValue::Array(items) => Some(entry.items(items, table)),
        _ => entry.take("a list", |_| None),
    }
}

/// Tables by a name that `parse` checks.
pub(super) fn named<K: Ord, T: Section>(
    parse: Parse<K>,
) -> impl Fn(Entry<'_, '_>) -> Option<BTreeMap<K, T>> {
    move |mut entry| {
        let DeValue::Table(entries) = entry.value else {
            return entry.take("a table", |_| None);
        };
        let tables = entries.iter().filter_map(|(name, value)| {
            let name = name.get_ref().as_ref();
            // What is in it is judged too, whatever its name.
            let read = entry.part(name, value.get_ref(), table);
            match parse(name) {
                Ok(name) => Some((name, read?)),
                Err(message) => {
                    entry.reader.fail(&[entry.at, &[name]].concat(), message);
                    None
                }
            }
        });
        Some(tables.collect())
    }
}

/// How a value in effect is shown; none if there is no value.
pub(super) trait Displayed {
    fn shown(&self) -> Option<Value>;
}

macro_rules! shown {
    ($($($type:ty)+, |$value:ident| $shown:expr;)+) => {
        $($(impl Displayed for $type {
            fn shown(&self) -> Option<Value> {
                let $value = self;
                $shown
            }
        })+)+
    };
}

shown! {
    Uri SocketAddr ListenAddress AccountId Tenant jiff::Timestamp Region StoreKind LogFormat Kind
    ClientAuth JwtAlgorithm,
        |value| Some(value.to_string().into());
    String, |text| Some(text.as_str().into());
    PathBuf, |path| Some(path.to_string_lossy().as_ref().into());
    Secret, |_secret| Some(MASK.into());
    bool, |flag| Some((*flag).into());
    u32, |number| Some(i64::from(*number).into());
    u64 usize, |number| i64::try_from(*number).ok().map(Value::Integer);
    // In seconds, without a decimal point if they are whole.
    Duration, |time| match time.subsec_nanos() {
        0 => time.as_secs().shown(),
        _ => Some(time.as_secs_f64().into()),
    };
}

impl<T: Displayed> Displayed for Option<T> {
    fn shown(&self) -> Option<Value> {
        self.as_ref().and_then(T::shown)
    }
}

impl<T: Displayed> Displayed for Vec<T> {
    fn shown(&self) -> Option<Value> {
        Some(Value::Array(self.iter().filter_map(T::shown).collect()))
    }
}

impl<K: Display, T: Displayed> Displayed for BTreeMap<K, T> {
    fn shown(&self) -> Option<Value> {
        let entries = self.iter().map(|(key, value)| Some((key.to_string(), value.shown()?)));
        Some(Value::Table(entries.flatten().collect::<Table>()))
    }
}

pub(super) fn shown_admin(address: &Option<ListenAddress>) -> Option<Value> {
    Some(admin_text(address).into())
}

pub(super) fn shown_days(time: &Duration) -> Option<Value> {
    (time.as_secs() / 86_400).shown()
}

pub(super) fn shown_headers(headers: &[(HeaderName, HeaderValue)]) -> Option<Value> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers = headers.iter().map(|(name, value)| (name.to_string(), text(value).into()));
    Some(Value::Table(headers.collect()))
}

/// As they are written: one alone is no list.
pub(super) fn shown_secrets(secrets: &[Secret]) -> Option<Value> {
    match secrets {
        [] => None,
        [secret] => secret.shown(),
        several => Some(vec![MASK; several.len()].into()),
    }
}

/// Only the host: many receivers know a sender by nothing but the path.
pub(super) fn shown_host(url: &Secret) -> Option<Value> {
    Some(without_path(url.expose()).into())
}
