//! How single values are read and written: each is checked while it is read, so that an error has
//! the place of its value. A message may go on after a line break with what to do about it.

use super::{AccountConfig, AdminAddress, LogFormat, ProxyAddress, StoreKind, log_filter, text::*};
use crate::{
    event::Kind,
    id::{AccountId, Region},
    secret::Secret,
};
use http::{HeaderName, HeaderValue, Uri};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{collections::BTreeMap, fmt, net::SocketAddr, ops::RangeInclusive, time::Duration};
use toml::Value;

/// Far above any sensible count, far below what a semaphore or a vector cannot hold.
const COUNT_MAX: u64 = 10_000_000;

/// A bound that keeps sums of deadlines representable.
const SECONDS_MAX: f64 = 1e9;

/// A hundred years.
const DAYS_MAX: u64 = 36_500;

/// Modules for `serde(with = …)`: the type, how it is read, and what is written of it.
macro_rules! with {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $read:ident($argument:expr), $write:expr;)*) => {$(
        $(#[$doc])*
        pub(crate) mod $name {
            use super::*;

            pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
                deserializer: D,
            ) -> Result<$type, D::Error> {
                $read(deserializer, $argument)
            }

            pub(crate) fn serialize<S: Serializer>(
                value: &$type,
                serializer: S,
            ) -> Result<S::Ok, S::Error> {
                let write: fn(&$type) -> _ = $write;
                write(value).serialize(serializer)
            }
        }
    )*};
}

with! {
    /// A length of time in seconds; fractions are accepted.
    seconds: Duration = duration(true), in_seconds;
    /// A time after which something is given up: 0 would give up everything.
    timeout: Duration = duration(false), in_seconds;
    /// A length of time in days.
    days: Duration = whole_days(0..=DAYS_MAX), |time| time.as_secs() / 86_400;
    /// At least one.
    count: usize = whole(1..=COUNT_MAX), |number| *number;
    /// Also none.
    count_or_none: usize = whole(0..=COUNT_MAX), |number| *number;
    /// Threads of the data plane; 0 means one per core.
    workers: usize = whole(0..=1024), |number| *number;
    /// Attempts at one call to LWA.
    attempts: u32 = whole(1..=100), |number| *number;
    /// Attempts at one delivery.
    deliveries: u32 = whole(1..=1000), |number| *number;
    /// Replays of one request.
    replays: u32 = whole(0..=10), |number| *number;
    /// A head; hyper needs a buffer of at least this size to read one into.
    header_bytes: usize = whole(8192..=16 << 20), |number| *number;
    /// Lines of a head.
    header_lines: usize = whole(1..=10_000), |number| *number;
    /// Streams of one HTTP/2 connection.
    streams: u32 = whole(1..=65_536), |number| *number;
    /// Any texts.
    texts: Vec<String> = list(|text| Ok(text.to_owned())), Vec::clone;
    /// `IP:PORT` or `localhost:PORT`.
    tcp_if_any: Option<SocketAddr> = text(|text| parse_tcp(text).map(Some)), written;
    /// The same, or `unix:/path`.
    proxy_addresses: Vec<ProxyAddress> = addresses(()), |all| all_written(all);
    admin: AdminAddress = text(parse_admin), AdminAddress::to_string;
    hosts: Vec<String> = list(parse_host), Vec::clone;
    origins: Vec<String> = list(parse_origin), Vec::clone;
    /// An https URL, or an http one of this machine.
    url: Uri = text(parse_url), Uri::to_string;
    url_if_any: Option<Uri> = text(|text| parse_url(text).map(Some)), written;
    urls: Vec<Uri> = list(parse_url), |all| all_written(all);
    /// A host of Amazon's API.
    base_url: Uri = text(parse_base_url), Uri::to_string;
    /// A URL that must be sent letter for letter.
    url_text: String = text(|text| parse_url(text).map(|_| text.to_owned())), String::clone;
    client_id: String = text(parse_client_id), String::clone;
    account_if_any: Option<AccountId> = text(parse_account), written;
    region: Region = text(parse_region), Region::to_string;
    headers: Vec<(HeaderName, HeaderValue)> = header_table(()), |all| written_headers(all);
    accounts: BTreeMap<AccountId, AccountConfig> = valid_aliases(()), by_alias;
    events: Vec<Kind> = list(parse_event), |kinds| -> Vec<_> {
        kinds.iter().map(|kind| kind.as_str()).collect()
    };
    /// A URL of which only the host is shown: many receivers know a sender by nothing but its path.
    hook_url: Secret = text(|text| Ok(text.into())), |url| without_path(url.expose());
    store_kind: StoreKind = text(parse_store_kind), |kind| kind.as_str();
    filter: String = text(|text| log_filter::check(text).map(|()| text.to_owned())), String::clone;
    format: Option<LogFormat> = text(parse_format), |format| format.map(LogFormat::as_str);
}

type Parse<T> = fn(&str) -> Result<T, String>;

/// A text.
struct ParsedText<T>(Parse<T>);

impl<T> de::Visitor<'_> for ParsedText<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.0)(text).map_err(E::custom)
    }
}

impl<'de, T> de::DeserializeSeed<'de> for ParsedText<T> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// A list of texts; one text is read as a list, its commas separate the items (for the
/// environment, where a list is awkward to write).
struct List<T>(Parse<T>);

impl<'de, T> de::Visitor<'de> for List<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of strings")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<T>, E> {
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        items.map(|item| (self.0)(item).map_err(E::custom)).collect()
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(ParsedText(self.0))? {
            items.push(item);
        }
        Ok(items)
    }
}

fn text<'de, D: Deserializer<'de>, T>(deserializer: D, parse: Parse<T>) -> Result<T, D::Error> {
    deserializer.deserialize_any(ParsedText(parse))
}

fn list<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    parse: Parse<T>,
) -> Result<Vec<T>, D::Error> {
    deserializer.deserialize_any(List(parse))
}

fn written<T: ToString>(value: &Option<T>) -> Option<String> {
    value.as_ref().map(T::to_string)
}

fn all_written<T: ToString>(values: &[T]) -> Vec<String> {
    values.iter().map(T::to_string).collect()
}

/// Reads any value, and takes it with `take`, which says what else was expected.
fn any<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    take: impl Fn(&Value) -> Option<Result<T, String>>,
    expected: &str,
) -> Result<T, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let taken = take(&value).unwrap_or_else(|| {
        let found = match value {
            Value::Integer(number) => format!("integer `{number}`"),
            Value::Float(number) => format!("number `{number}`"),
            other => format!("a {}", other.type_str()),
        };
        Err(format!("expected {expected}, found {found}"))
    });
    taken.map_err(de::Error::custom)
}

fn duration<'de, D: Deserializer<'de>>(
    deserializer: D,
    may_be_zero: bool,
) -> Result<Duration, D::Error> {
    let take = |value: &Value| {
        let number = value.as_float().or(value.as_integer().map(|number| number as f64))?;
        match number {
            0.0 if !may_be_zero => Some(Err("must be more than 0 seconds".to_owned())),
            0.0..=SECONDS_MAX => Some(Ok(Duration::from_secs_f64(number))),
            _ => None,
        }
    };
    any(deserializer, take, "a number of seconds (0 to 1000000000)")
}

/// Whole seconds without a decimal point.
fn in_seconds(time: &Duration) -> Value {
    match i64::try_from(time.as_secs()) {
        Ok(seconds) if time.subsec_nanos() == 0 => seconds.into(),
        _ => time.as_secs_f64().into(),
    }
}

/// Reads a whole number of `range` into a type that holds it.
fn whole<'de, D: Deserializer<'de>, T: TryFrom<u64>>(
    deserializer: D,
    range: RangeInclusive<u64>,
) -> Result<T, D::Error> {
    let (least, most) = range.into_inner();
    let take = |value: &Value| {
        let number = u64::try_from(value.as_integer()?).ok()?;
        let fit = T::try_from(number).ok().filter(|_| (least..=most).contains(&number));
        Some(fit.ok_or_else(|| format!("{number} is not between {least} and {most}")))
    };
    any(deserializer, take, "a whole number, 0 or more")
}

fn whole_days<'de, D: Deserializer<'de>>(
    deserializer: D,
    range: RangeInclusive<u64>,
) -> Result<Duration, D::Error> {
    Ok(Duration::from_secs(whole::<D, u64>(deserializer, range)? * 86_400))
}

fn addresses<'de, D: Deserializer<'de>>(
    deserializer: D,
    (): (),
) -> Result<Vec<ProxyAddress>, D::Error> {
    Ok(list(deserializer, parse_proxy)?.concat())
}

/// A bare number will do for a value, since most of them are Amazon's ids.
fn header_table<'de, D: Deserializer<'de>>(
    deserializer: D,
    (): (),
) -> Result<Vec<(HeaderName, HeaderValue)>, D::Error> {
    let mut headers = Vec::new();
    for (name, value) in BTreeMap::<String, Value>::deserialize(deserializer)? {
        let header = default_header(&name, &value, &headers);
        headers.push(header.map_err(|message| de::Error::custom(format!("{name:?} {message}")))?);
    }
    Ok(headers)
}

fn written_headers(headers: &[(HeaderName, HeaderValue)]) -> BTreeMap<String, String> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}

/// Leaves out those whose alias is none: `validate` reports them, after all that is in them.
fn valid_aliases<'de, D: Deserializer<'de>>(
    deserializer: D,
    (): (),
) -> Result<BTreeMap<AccountId, AccountConfig>, D::Error> {
    let all = BTreeMap::<String, AccountConfig>::deserialize(deserializer)?;
    let valid = all.into_iter().filter_map(|(alias, account)| Some((alias.parse().ok()?, account)));
    Ok(valid.collect())
}

fn by_alias(accounts: &BTreeMap<AccountId, AccountConfig>) -> BTreeMap<String, AccountConfig> {
    accounts.iter().map(|(id, account)| (id.to_string(), account.clone())).collect()
}
