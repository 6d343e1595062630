//! Checks of single values while they are read, so that an error has the place of its value.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{convert::identity, fmt, ops::RangeInclusive, time::Duration};

/// Far above any sensible count, far below what a semaphore or a vector cannot hold.
pub(crate) const COUNT_MAX: u64 = 10_000_000;

/// A bound that keeps sums of deadlines representable.
const SECONDS_MAX: f64 = 1e9;

/// A length of time in seconds; fractions are accepted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Seconds(pub(crate) Duration);

impl Seconds {
    pub(crate) const fn of(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }
}

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.subsec_nanos() == 0 {
            serializer.serialize_u64(self.0.as_secs())
        } else {
            serializer.serialize_f64(self.0.as_secs_f64())
        }
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SecondsVisitor { may_be_zero: true }).map(Self)
    }
}

struct SecondsVisitor {
    may_be_zero: bool,
}

impl de::Visitor<'_> for SecondsVisitor {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number of seconds (0 to 1000000000)")
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Duration, E> {
        match value {
            0.0 if !self.may_be_zero => Err(E::custom("must be more than 0 seconds")),
            0.0..=SECONDS_MAX => Ok(Duration::from_secs_f64(value)),
            _ => Err(E::invalid_value(de::Unexpected::Float(value), &self)),
        }
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Duration, E> {
        match u64::try_from(value) {
            Ok(0) if !self.may_be_zero => Err(E::custom("must be more than 0 seconds")),
            Ok(seconds) if seconds <= SECONDS_MAX as u64 => Ok(Duration::from_secs(seconds)),
            _ => Err(E::invalid_value(de::Unexpected::Signed(value), &self)),
        }
    }
}

/// A whole number within a range.
struct Whole(RangeInclusive<u64>);

impl de::Visitor<'_> for Whole {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number, 0 or more")
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<u64, E> {
        match u64::try_from(value) {
            Ok(value) => self.visit_u64(value),
            Err(_) => Err(E::invalid_value(de::Unexpected::Signed(value), &self)),
        }
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<u64, E> {
        if self.0.contains(&value) {
            return Ok(value);
        }
        let (least, most) = self.0.into_inner();
        Err(E::custom(format_args!("{value} is not between {least} and {most}")))
    }
}

/// Reads a whole number of `range` into a type that holds it.
fn whole<'de, D: Deserializer<'de>, T: TryFrom<u64>>(
    deserializer: D,
    range: RangeInclusive<u64>,
) -> Result<T, D::Error> {
    let number = deserializer.deserialize_any(Whole(range))?;
    T::try_from(number).map_err(|_| de::Error::custom("is too large for this machine"))
}

fn duration<'de, D: Deserializer<'de>>(
    deserializer: D,
    may_be_zero: bool,
) -> Result<Duration, D::Error> {
    deserializer.deserialize_any(SecondsVisitor { may_be_zero })
}

/// Modules for `serde(with = …)`: the type, how it is read, and how it is written.
macro_rules! with {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $read:ident($argument:expr), $write:path;)*) => {$(
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
                $write(*value).serialize(serializer)
            }
        }
    )*};
}

with! {
    /// Any length of time.
    seconds: Duration = duration(true), Seconds;
    /// A time after which something is given up: 0 would give up everything.
    timeout: Duration = duration(false), Seconds;
    /// At least one.
    count: usize = whole(1..=COUNT_MAX), identity;
    /// Also none.
    count_or_none: usize = whole(0..=COUNT_MAX), identity;
    /// Attempts at one call to LWA.
    attempts: u32 = whole(1..=100), identity;
    /// Attempts at one delivery.
    deliveries: u32 = whole(1..=1000), identity;
    /// Replays of one request.
    replays: u32 = whole(0..=10), identity;
    /// A head; hyper needs a buffer of at least this size to read one into.
    header_bytes: usize = whole(8192..=16 << 20), identity;
    /// Lines of a head.
    header_lines: usize = whole(1..=10_000), identity;
    /// Streams of one HTTP/2 connection.
    streams: u32 = whole(1..=65_536), identity;
}

/// A value that its type alone describes.
pub(crate) mod plain {
    use super::*;

    pub(crate) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<T, D::Error> {
        T::deserialize(deserializer)
    }

    pub(crate) fn serialize<T: Serialize, S: Serializer>(
        value: &T,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.serialize(serializer)
    }
}
