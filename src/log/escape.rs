//! Makes text from outside harmless for terminals and for readers of lines.

use std::fmt;

/// Whether a character can change how a line is read: a control character (C0, DEL, C1), a line
/// or paragraph separator, or a bidirectional control.
///
/// C1 counts because some terminals read U+009B as the start of an escape sequence; bidirectional
/// controls because they show a line in another order than it has.
pub(super) fn is_harmful(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

/// Passes text on with every harmful character written as an escape.
pub(super) struct Escaping<'a, W>(pub &'a mut W);

impl<W: fmt::Write> fmt::Write for Escaping<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.find(is_harmful) {
            self.0.write_str(&rest[..at])?;
            let control = rest[at..].chars().next().unwrap_or_default();
            write!(self.0, "{}", control.escape_default())?;
            rest = &rest[at + control.len_utf8()..];
        }
        self.0.write_str(rest)
    }
}

/// Appends `text` as the inside of a JSON string, harmful characters as `\uXXXX`.
pub(super) fn push_json(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    // Nearly all text needs no escape; written without branches, this check runs many bytes at once.
    let plain = |byte: u8| (0x20..0x7f).contains(&byte) & (byte != b'"') & (byte != b'\\');
    if bytes.iter().fold(true, |all, &byte| all & plain(byte)) {
        return out.extend_from_slice(bytes);
    }
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend_from_slice(&[b'\\', character as u8]),
            _ => push_harmless(out, character),
        }
    }
}

/// Escapes in a finished JSON line what `serde_json` leaves as it is. Such characters can stand
/// only inside strings, so the line stays valid.
pub(super) fn finish_json(line: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(line.len() + 16);
    for character in String::from_utf8_lossy(line).chars() {
        match character {
            '\n' => out.push(b'\n'),
            _ => push_harmless(&mut out, character),
        }
    }
    out
}

/// Every harmful character is in the basic plane: one `\uXXXX` is enough.
fn push_harmless(out: &mut Vec<u8>, character: char) {
    if !is_harmful(character) {
        return out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    }
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.extend_from_slice(b"\\u");
    let code = character as usize;
    out.extend([12, 8, 4, 0].map(|shift| HEX[(code >> shift) & 15]));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Write as _;

    const HOSTILE: &str =
        "a\"b\\c\n\r\t\0\u{1b}[31m\u{7f}\u{9b}é\u{a0}日\u{202e}gpj\u{2066}\u{200f}\u{2028}";

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
            assert!(!out.contains(is_harmful), "{out:?}");
        }
    }

    #[test]
    fn harmless_text_is_not_touched() {
        let mut json = Vec::new();
        push_json(&mut json, "/sp/campaigns/é\u{a0}");
        assert_eq!(json, "/sp/campaigns/é\u{a0}".as_bytes());
    }
}
