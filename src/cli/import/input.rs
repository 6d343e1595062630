//! Reads a file of credentials, or standard input, up to a limit and without leaving copies.

use crate::config::secret_ref::Exposed;
use anyhow::{Context as _, bail};
use std::{
    fs::File,
    io::{self, IsTerminal, Read},
    path::Path,
};
use zeroize::Zeroizing;

/// A hundred thousand accounts with two tokens of the longest kind each would not fit; thirty
/// thousand do.
const MAX_BYTES: usize = 64 * 1024 * 1024;
const FIRST_BYTES: usize = 64 * 1024;

/// What stands in a source.
pub(super) struct Input {
    /// The text, without a byte order mark.
    pub(super) text: Zeroizing<String>,
    /// What is to be said of the place it came from.
    pub(super) warning: Option<String>,
}

/// Reads `path`; `-` is standard input.
pub(super) fn read(path: &Path) -> anyhow::Result<Input> {
    if path == Path::new("-") {
        if io::stdin().is_terminal() {
            bail!("standard input is a terminal, where secrets would be shown: pipe the file in");
        }
        let bytes = read_all(io::stdin().lock(), FIRST_BYTES);
        return input(bytes.context("cannot read standard input")?, None);
    }
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let metadata = file.metadata()?;
    let exposed = Exposed::judge(path, &metadata).map(|exposed| exposed.to_string());
    let size = usize::try_from(metadata.len()).unwrap_or(MAX_BYTES).min(MAX_BYTES) + 1;
    let bytes = read_all(file, size);
    input(bytes.with_context(|| format!("cannot read {}", path.display()))?, exposed)
}

/// Grows by copying into a larger buffer that it wipes, which a vector of its own would not.
fn read_all(mut from: impl Read, first: usize) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(vec![0; first]);
    let mut filled = 0;
    loop {
        match from.read(&mut bytes[filled..]) {
            Ok(0) if filled < bytes.len() => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
        if filled > MAX_BYTES {
            bail!("it holds more than {} MiB: import it in parts", MAX_BYTES / 1024 / 1024);
        }
        if filled == bytes.len() {
            let mut larger = Zeroizing::new(vec![0; (filled * 2).min(MAX_BYTES + 1)]);
            larger[..filled].copy_from_slice(&bytes);
            bytes = larger;
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

fn input(mut bytes: Zeroizing<Vec<u8>>, warning: Option<String>) -> anyhow::Result<Input> {
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        bail!("it is UTF-16: save it as UTF-8");
    }
    match String::from_utf8(std::mem::take(&mut *bytes)) {
        Ok(text) => {
            let mut text = Zeroizing::new(text);
            if text.starts_with('\u{feff}') {
                text.drain(..'\u{feff}'.len_utf8());
            }
            Ok(Input { text, warning })
        }
        Err(error) => {
            let error_at = error.utf8_error().valid_up_to();
            let bytes = Zeroizing::new(error.into_bytes());
            let line = bytes[..error_at].iter().filter(|byte| **byte == b'\n').count() + 1;
            bail!("line {line} is not UTF-8 text: save the file as UTF-8")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_longer_than_the_first_buffer_is_read_whole() {
        for (length, first) in [(0, 1), (1, 1), (5, 2), (64, 64), (65, 64), (1000, 1)] {
            let bytes = vec![b'a'; length];
            assert_eq!(*read_all(&bytes[..], first).expect("read"), bytes, "{length} {first}");
        }
    }

    #[test]
    fn what_has_no_end_is_refused() {
        let error = read_all(io::repeat(b'a'), FIRST_BYTES).expect_err("endless");
        assert!(error.to_string().contains("64 MiB"), "{error}");
    }

    #[test]
    fn only_utf_8_is_text_and_its_mark_is_no_part_of_it() {
        let read = |bytes: &[u8]| input(Zeroizing::new(bytes.to_vec()), None);
        assert_eq!(*read("\u{feff}a".as_bytes()).expect("text").text, "a");
        let error = read(b"a\nCANARY\xe4\n").err().expect("no text").to_string();
        assert!(error.contains("line 2") && !error.contains("CANARY"), "{error}");
        assert!(read(b"\xff\xfea\0").err().expect("no text").to_string().contains("UTF-16"));
    }
}
