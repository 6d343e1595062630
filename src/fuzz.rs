//! One target for each parser of ours: any bytes go in, and what must hold of what comes out is asserted.
//!
//! Each module has its targets in a file `fuzz.rs` of its own, with inputs to begin with. libFuzzer drives
//! them (`tests/fuzz/run`); `cargo test` gives each its seeds and some changed ones. They exist in
//! tests and with the feature `fuzz` only.

use http::{HeaderMap, HeaderName, HeaderValue, Request, Version, request::Parts};
use std::{collections::BTreeSet, fs, io, path::Path};

/// A parser, or some that read the same text.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Of lower case letters and `_`.
    pub name: &'static str,
    /// Panics where something does not hold that must.
    pub run: fn(&[u8]),
    /// Inputs that lead far into the parser.
    pub seeds: &'static [&'static str],
}

/// All targets.
pub fn targets() -> Vec<Target> {
    let modules = [
        crate::admin::fuzz::TARGETS,
        crate::audit::fuzz::TARGETS,
        crate::callers::fuzz::TARGETS,
        crate::cli::fuzz::TARGETS,
        crate::config::fuzz::TARGETS,
        crate::forward::fuzz::TARGETS,
        crate::inbound::fuzz::TARGETS,
        crate::listen::fuzz::TARGETS,
        crate::log::fuzz::TARGETS,
        crate::lwa::fuzz::TARGETS,
        crate::proxy::fuzz::TARGETS,
        crate::store::fuzz::TARGETS,
        crate::throttling::fuzz::TARGETS,
        &[Target { name: "trace_context", run: trace_context, seeds: TRACE_SEEDS }],
    ];
    modules.concat()
}

/// The target of this name. `planted` has a fault: a search that does not find it finds nothing.
pub fn target(name: &str) -> Option<Target> {
    let planted = Target { name: "planted", run: planted, seeds: &[] };
    targets().into_iter().chain([planted]).find(|target| target.name == name)
}

/// Each character is looked at only behind the one before.
fn planted(input: &[u8]) {
    let is_found = input.len() > 2 && input[0] == b'b' && input[1] == b'u' && input[2] == b'g';
    assert!(!is_found, "the planted fault");
}

/// Writes below `directory` what libFuzzer begins with, for each target: its seeds, and their words as a
/// dictionary.
///
/// # Errors
/// When a file cannot be written.
pub fn write_seeds(directory: &Path) -> io::Result<()> {
    for Target { name, seeds, .. } in targets() {
        let own = directory.join(name);
        fs::create_dir_all(own.join("seeds"))?;
        for (number, seed) in seeds.iter().enumerate() {
            fs::write(own.join("seeds").join(number.to_string()), seed)?;
        }
        let is_of_words = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '/');
        let words = seeds.iter().flat_map(|seed| seed.split(|c| !is_of_words(c)));
        let words: BTreeSet<_> = words.filter(|word| (2..=32).contains(&word.len())).collect();
        let lines = words.into_iter().map(|word| format!("\"{word}\"\n"));
        fs::write(own.join("dictionary"), lines.collect::<String>())?;
    }
    Ok(())
}

/// `input` as text, if it is that.
pub(crate) fn text(input: &[u8]) -> Option<&str> {
    str::from_utf8(input).ok()
}

/// The fields of `lines`, such as `host: localhost`; none if one of them cannot be in a request.
pub(crate) fn fields<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for line in lines.filter(|line| !line.is_empty()) {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        headers.append(name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?);
    }
    Some(headers)
}

/// The head of a request: a line with method, target and `1` or `2`, and those of its fields.
pub(crate) fn head(input: &[u8]) -> Option<Parts> {
    let mut lines = input.split(|byte| *byte == b'\n');
    let mut words = lines.next()?.split(|byte| *byte == b' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    let version = if version == b"2" { Version::HTTP_2 } else { Version::HTTP_11 };
    let request = Request::builder().method(method).uri(target).version(version).body(()).ok()?;
    let mut head = request.into_parts().0;
    head.headers = fields(lines)?;
    Some(head)
}

/// Asserts that what is shown of something holds no part of the secret that inputs have in the place of
/// secrets.
#[track_caller]
pub(crate) fn assert_hides(shown: &str) {
    assert!(!shown.contains("CANARY"), "a secret is shown: {shown}");
}

const TRACE_SEEDS: &[&str] = &[
    "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "traceparent: cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-ff-more",
];

/// What is sent on of a context is read as the same one, and has the length of version 00.
fn trace_context(input: &[u8]) {
    use crate::trace_context::{SpanContext, TRACEPARENT};
    let Some(headers) = fields(input.split(|byte| *byte == b'\n')) else { return };
    let Some(context) = SpanContext::of(&headers) else { return };
    assert_eq!(headers.get_all(&TRACEPARENT).iter().count(), 1);
    let value = context.to_header();
    assert_eq!(value.len(), 55);
    let again = SpanContext::of(&HeaderMap::from_iter([(TRACEPARENT.clone(), value)]));
    assert_eq!(again, Some(context));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that are the same in each run.
    struct Numbers(u64);

    impl Numbers {
        fn below(&mut self, end: usize) -> usize {
            // Knuth's MMIX.
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(self.0 >> 33).expect("31 bits") % end.max(1)
        }
    }

    /// Changes, removes, doubles or mixes in some bytes.
    fn changed(seed: &[u8], other: &[u8], numbers: &mut Numbers) -> Vec<u8> {
        let mut input = seed.to_vec();
        for _ in 0..=numbers.below(4) {
            let (at, end) = (numbers.below(input.len()), numbers.below(input.len() + 1));
            let range = at.min(end)..end.max(at).min(input.len());
            match numbers.below(4) {
                0 if !input.is_empty() => input[at] = numbers.below(256).to_le_bytes()[0],
                1 => drop(input.drain(range)),
                2 => {
                    let part = input[range].to_vec();
                    input.splice(end..end, part);
                }
                _ => {
                    let from = numbers.below(other.len());
                    input.splice(end..end, other[from..].iter().copied());
                }
            }
        }
        input
    }

    #[test]
    fn every_target_takes_its_seeds_and_changed_ones() {
        let mut numbers = Numbers(1);
        for Target { run, seeds, .. } in targets() {
            for (at, seed) in seeds.iter().enumerate() {
                run(seed.as_bytes());
                let other = seeds[(at + 1) % seeds.len()].as_bytes();
                for _ in 0..CHANGED_PER_SEED {
                    run(&changed(seed.as_bytes(), other, &mut numbers));
                }
            }
        }
    }

    #[test]
    fn targets_have_names_of_their_own_and_seeds() {
        let names: BTreeSet<_> = targets().iter().map(|target| target.name).collect();
        assert_eq!(names.len(), targets().len());
        for Target { name, seeds, .. } in targets() {
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
            assert!(!seeds.is_empty(), "{name}");
        }
    }

    #[test]
    fn a_head_is_read_as_it_is_written() {
        let head = head(b"POST /a/acme?x 2\nhost: localhost\nx-y:  z \n").expect("a head");
        assert_eq!((head.method.as_str(), head.uri.path()), ("POST", "/a/acme"));
        assert_eq!((head.version, head.headers.len()), (Version::HTTP_2, 2));
        assert_eq!(head.headers["x-y"], "z");
    }

    const CHANGED_PER_SEED: usize = 50;
}
