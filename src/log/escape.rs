//! Makes text from outside harmless for terminals and for readers of lines.

use std::fmt;

/// Passes text on with every control character (C0, DEL, C1) written as an escape.
///
/// C1 counts because some terminals read U+009B as the start of an escape sequence.
pub(super) struct Escaping<'a, W>(pub &'a mut W);

impl<W: fmt::Write> fmt::Write for Escaping<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.find(char::is_control) {
            self.0.write_str(&rest[..at])?;
            let control = rest[at..].chars().next().unwrap_or_default();
            write!(self.0, "{}", control.escape_default())?;
            rest = &rest[at + control.len_utf8()..];
        }
        self.0.write_str(rest)
    }
}

/// Appends `text` as the inside of a JSON string, controls (C0, DEL, C1) as `\u00XX`.
pub(super) fn push_json(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    // Nearly all text needs no escape; written without branches, this check runs many bytes at once.
    let plain = |byte: u8| (0x20..0x7f).contains(&byte) & (byte != b'"') & (byte != b'\\');
    if bytes.iter().fold(true, |all, &byte| all & plain(byte)) {
        return out.extend_from_slice(bytes);
    }
    let mut copied = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        let (code, len) = match byte {
            b'"' | b'\\' => {
                out.extend_from_slice(&bytes[copied..at]);
                out.extend_from_slice(&[b'\\', byte]);
                copied = at + 1;
                continue;
            }
            0..=0x1f | 0x7f => (byte, 1),
            // U+0080..U+009F are C2 80..C2 9F in UTF-8.
            0xc2 => match bytes.get(at + 1) {
                Some(&next) if next < 0xa0 => (next, 2),
                _ => continue,
            },
            _ => continue,
        };
        out.extend_from_slice(&bytes[copied..at]);
        push_code(out, code);
        copied = at + len;
    }
    out.extend_from_slice(&bytes[copied..]);
}

/// Escapes DEL and C1 in a finished JSON line, which `serde_json` leaves as they are. They can
/// stand only inside strings, so the line stays valid.
pub(super) fn finish_json(line: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(line.len() + 16);
    let mut bytes = line.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        match (byte, bytes.peek()) {
            (0x7f, _) => push_code(&mut out, byte),
            (0xc2, Some(&next)) if next < 0xa0 => {
                push_code(&mut out, next);
                bytes.next();
            }
            _ => out.push(byte),
        }
    }
    out
}

fn push_code(out: &mut Vec<u8>, code: u8) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.extend_from_slice(b"\\u00");
    out.push(HEX[usize::from(code >> 4)]);
    out.push(HEX[usize::from(code & 15)]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write as _;

    const HOSTILE: &str = "a\"b\\c\n\r\t\0\u{1b}[31m\u{7f}\u{9b}é\u{a0}日";

    #[test]
    fn a_json_string_reads_back_as_it_was() {
        let mut out = b"\"".to_vec();
        push_json(&mut out, HOSTILE);
        out.push(b'"');
        assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), HOSTILE);
    }

    #[test]
    fn no_control_character_is_left_in_either_format() {
        let mut json = Vec::new();
        push_json(&mut json, HOSTILE);
        let mut text = String::new();
        write!(Escaping(&mut text), "{HOSTILE}").unwrap();
        let finished = finish_json(serde_json::to_string(HOSTILE).unwrap().as_bytes());
        assert_eq!(serde_json::from_slice::<String>(&finished).unwrap(), HOSTILE);
        for out in [String::from_utf8(json).unwrap(), text, String::from_utf8(finished).unwrap()] {
            assert!(!out.contains(char::is_control), "{out:?}");
        }
    }

    #[test]
    fn harmless_text_is_not_touched() {
        let mut json = Vec::new();
        push_json(&mut json, "/sp/campaigns/é\u{a0}");
        assert_eq!(json, "/sp/campaigns/é\u{a0}".as_bytes());
    }
}
