//! Rows of text under each other in columns, safe to show on a terminal.

use crate::login::is_deceptive;
use serde_json::Value;

/// With less room than this, the last cell of a row goes below it.
const LAST_WIDTH_MIN: usize = 24;

/// Lays out `rows`, the first of which is the heading.
pub(super) fn table<const N: usize>(rows: &[[String; N]]) -> String {
    aligned(rows, &mut [0; N])
}

/// Lays out `rows` in columns that are at least `widths` wide. Widths grow and never shrink.
pub(super) fn aligned<const N: usize>(rows: &[[String; N]], widths: &mut [usize; N]) -> String {
    let rows: Vec<[String; N]> =
        rows.iter().map(|row| row.each_ref().map(|cell| plain(cell))).collect();
    for (column, width) in widths.iter_mut().enumerate() {
        *width = rows.iter().map(|row| row[column].chars().count()).fold(*width, usize::max);
    }
    rows.iter().map(|row| line(row, widths, usize::MAX)).collect()
}

/// The `cells` of a row. The last one goes on in further lines where it is longer than the room
/// that it has in a line of `line_width`.
pub(super) fn line(cells: &[String], widths: &[usize], line_width: usize) -> String {
    let Some((last, cells)) = cells.split_last() else { return String::new() };
    let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}  "));
    let mut line: String = padded.collect();
    let start = line.chars().count();
    let room = line_width.saturating_sub(start);
    let (indent, room) = match room >= LAST_WIDTH_MIN || last.chars().count() <= room {
        true => (start, room),
        false => {
            line.truncate(line.trim_end().len());
            line.push_str("\n    ");
            (4, line_width.saturating_sub(4).max(1))
        }
    };
    line.push_str(&wrap(last, room).join(&format!("\n{:indent$}", "")));
    line.truncate(line.trim_end().len());
    line + "\n"
}

/// Breaks `text` between words, and words that are longer, into lines of at most `width` characters.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let word: Vec<char> = word.chars().collect();
        for (index, piece) in word.chunks(width).enumerate() {
            let line = lines.last_mut().expect("one at least");
            let length = line.chars().count();
            if index > 0 || (length > 0 && length + 1 + piece.len() > width) {
                lines.push(piece.iter().collect());
            } else {
                line.extend((length > 0).then_some(' ').iter().chain(piece));
            }
        }
    }
    lines
}

/// Lays out the members `columns` of `objects`, under their names.
pub(super) fn table_of<const N: usize>(columns: [&str; N], objects: &[Value]) -> String {
    let mut rows = vec![columns.map(|name| name.to_uppercase().replace('_', " "))];
    rows.extend(objects.iter().map(|object| columns.map(|name| cell(&object[name]))));
    table(&rows)
}

/// A value of JSON for a person.
pub(super) fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// What is configured, for an error about a name that is not.
pub(super) fn configured<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let names: Vec<&str> = names.map(String::as_str).collect();
    format!("configured: {}", if names.is_empty() { "none".to_owned() } else { names.join(", ") })
}

/// Control characters would move the cursor or worse; an empty cell would shift the reader's eye.
pub(super) fn plain(cell: &str) -> String {
    if cell.is_empty() {
        return "-".to_owned();
    }
    cell.chars().map(|c| if is_deceptive(c) { '\u{fffd}' } else { c }).collect()
}

/// JSON in which no character can steer a terminal: beyond ASCII, controls and those that change the
/// direction of text are escaped.
pub(super) fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_ascii() || !is_deceptive(c) {
            text.push(c);
        } else {
            let mut units = [0; 2];
            text.extend(c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    text
}

/// A length of time in its two largest units.
pub(super) fn span(seconds: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(86_400, "d"), (3_600, "h"), (60, "m")];
    match UNITS.iter().position(|(size, _)| seconds >= *size) {
        None => format!("{seconds}s"),
        Some(unit) => {
            let (size, name) = UNITS[unit];
            let (next, next_name) = UNITS.get(unit + 1).copied().unwrap_or((1, "s"));
            format!("{}{name} {}{next_name}", seconds / size, seconds % size / next)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["A", "B", "C"], ["äcme", "", "x"]].map(|row| row.map(str::to_owned));
        assert_eq!(table(&rows), "A     B  C\näcme  -  x\n");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(table(&[["a\u{1b}[2Jb\nc".to_owned()]]), "a\u{fffd}[2Jb\u{fffd}c\n");
    }

    #[test]
    fn json_stays_the_same_and_steers_no_terminal() {
        let value = serde_json::json!({ "a\u{202e}": "\u{9b}2J\u{1b}\n\u{2066}ä\u{e0001}" });
        let text = escaped(&format!("{value:#}\n"));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
        let bad = |c: char| c != '\n' && is_deceptive(c);
        assert!(!text.contains(bad) && text.contains('ä'), "{text}");
        assert!(text.contains("\\u202e") && text.contains("\\u009b"), "{text}");
    }

    #[test]
    fn spans_have_two_units() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m 0s"),
            (3_599, "59m 59s"),
            (3_661, "1h 1m"),
            (90_000, "1d 1h"),
        ] {
            assert_eq!(span(seconds), text);
        }
    }
}
