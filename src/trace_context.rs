//! The ids of traces and spans, and the header field that carries them from one program to the next.
//!
//! Source: <https://www.w3.org/TR/trace-context-2/> (read 2026-11-29).

use http::{HeaderMap, HeaderName, HeaderValue};
use std::{
    hash::{BuildHasher, RandomState},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// The field that names the trace and the span that a request belongs to.
pub static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// What a field of version 00 is long, bytes.
const LENGTH: usize = 55;
/// The flags that are known: the rest must not be passed on.
const SAMPLED: u8 = 1;
const RANDOM: u8 = 2;

/// A span, as others refer to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanContext {
    pub trace_id: [u8; 16],
    pub span_id: [u8; 8],
    flags: u8,
}

impl SpanContext {
    /// What `traceparent` says; none if it is malformed or comes twice.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(&TRACEPARENT).iter();
        let only = values.next().filter(|_| values.next().is_none())?;
        Self::parse(only.as_bytes())
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let (text, more) = text.split_at_checked(LENGTH)?;
        // A later version may say more, behind another dash.
        let is_whole = match hex::<1>(&text[..2])? {
            [0xff] => false,
            [0] => more.is_empty(),
            _ => more.first().is_none_or(|byte| *byte == b'-'),
        };
        let is_divided = [2, 35, 52].iter().all(|&at| text[at] == b'-');
        let (trace_id, span_id) = (hex(&text[3..35])?, hex(&text[36..52])?);
        let [flags] = hex(&text[53..])?;
        let is_good = is_whole && is_divided && trace_id != [0; 16] && span_id != [0; 8];
        is_good.then_some(Self { trace_id, span_id, flags: flags & (SAMPLED | RANDOM) })
    }

    /// Whether the span is recorded.
    pub fn is_sampled(self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// As the flags of a message in OTLP.
    pub fn flags(self) -> u32 {
        self.flags.into()
    }

    /// The same trace, recorded or not, as another span.
    pub fn with(self, span_id: [u8; 8], is_sampled: bool) -> Self {
        Self { span_id, flags: self.flags & RANDOM | u8::from(is_sampled), ..self }
    }

    /// The field's value for what this span calls.
    pub fn to_header(self) -> HeaderValue {
        let mut text = [b'-'; LENGTH];
        write_hex(&[0], &mut text[..2]);
        write_hex(&self.trace_id, &mut text[3..35]);
        write_hex(&self.span_id, &mut text[36..52]);
        write_hex(&[self.flags], &mut text[53..]);
        HeaderValue::from_bytes(&text).expect("hexadecimal digits are visible ASCII")
    }
}

/// Lower case only, as the field must be.
fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

fn write_hex(bytes: &[u8], text: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
}

/// Makes ids that differ, here and on other machines. No one should guess them, and no harm is done
/// if someone does.
#[derive(Debug, Default)]
pub struct SpanIds {
    keyed: RandomState,
    next: AtomicU64,
}

impl SpanIds {
    /// The first span of a new trace.
    pub fn root(&self) -> SpanContext {
        let mut trace_id = [0; 16];
        trace_id[..8].copy_from_slice(&self.span());
        trace_id[8..].copy_from_slice(&self.span());
        SpanContext { trace_id, span_id: self.span(), flags: RANDOM }
    }

    pub fn span(&self) -> [u8; 8] {
        loop {
            let id = self.keyed.hash_one(self.next.fetch_add(1, Relaxed));
            // Zero stands for none.
            if id != 0 {
                return id.to_be_bytes();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn of(values: &[&str]) -> Option<SpanContext> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(&TRACEPARENT, HeaderValue::from_str(value).expect("a value"));
        }
        SpanContext::of(&headers)
    }

    #[test]
    fn a_field_is_read_and_written_as_it_was() {
        let context = of(&[GOOD]).expect("good");
        assert_eq!(context.trace_id[..3], [0x0a, 0xf7, 0x65]);
        assert_eq!(context.span_id, [0xb7, 0xad, 0x6b, 0x71, 0x69, 0x20, 0x33, 0x31]);
        assert!(context.is_sampled());
        assert_eq!(context.to_header(), GOOD);
        let unsampled = of(&[&GOOD.replace("-01", "-02")]).expect("good");
        assert!(!unsampled.is_sampled());
        assert_eq!(unsampled.with([1; 8], true).flags(), 3);
        assert_eq!(of(&[&GOOD.replace("-01", "-ff")]).expect("good").flags(), 3, "the known ones");
    }

    #[test]
    fn a_later_version_may_say_more_and_this_one_may_not() {
        assert!(of(&[&GOOD.replacen("00", "01", 1)]).is_some());
        assert!(of(&[&format!("cc{}-what-comes", &GOOD[2..])]).is_some());
        assert!(of(&[&format!("cc{}.what-comes", &GOOD[2..])]).is_none());
        assert!(of(&[&format!("{GOOD}-00")]).is_none());
        assert!(of(&[&format!("ff{}", &GOOD[2..])]).is_none());
    }

    #[test]
    fn what_is_malformed_or_comes_twice_says_nothing() {
        let (trace, span) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
        for text in [
            "",
            "00",
            &GOOD[..54],
            &GOOD.to_uppercase(),
            &GOOD.replace('-', "_"),
            &GOOD.replace("b7ad", "b7ag"),
            &GOOD.replace(trace, &"0".repeat(32)),
            &GOOD.replace(span, &"0".repeat(16)),
            &GOOD.replace("-01", "-0x"),
            &format!(" {}", &GOOD[..54]),
            &"é".repeat(28),
        ] {
            assert!(of(&[text]).is_none(), "{text:?}");
        }
        assert!(of(&[GOOD, GOOD]).is_none());
        assert!(of(&[]).is_none());
    }

    #[test]
    fn ids_differ() {
        let ids = [SpanIds::default(), SpanIds::default()];
        let roots = (0..1000).map(|at| ids[at % 2].root());
        let all = roots.flat_map(|root| {
            let [first, last] = [0, 8].map(|at| root.trace_id[at..at + 8].to_vec());
            [first, last, root.span_id.to_vec()]
        });
        assert_eq!(all.collect::<BTreeSet<_>>().len(), 3000);
    }
}
