//! A table with a heading, one account per row: commas, semicolons or tabs.

use super::{
    fields::{Collector, Draft, Field},
    rejection::Rejection,
};
use anyhow::{Context as _, bail};
use csv::{ByteRecord, ReaderBuilder, Trim};

const DELIMITERS: [u8; 3] = [b',', b';', b'\t'];

/// The rows of `text`.
///
/// # Errors
/// When the heading cannot be used. It is never quoted: without a heading the first row is data.
pub(super) fn drafts(text: &str) -> anyhow::Result<Vec<Draft>> {
    let found = DELIMITERS.iter().find_map(|delimiter| {
        let mut reader = reader(text, *delimiter);
        let names = reader.headers().ok()?;
        let columns: Vec<_> = names.iter().map(|name| Field::of(unquoted(name))).collect();
        columns.contains(&Some(Field::RefreshToken)).then_some((*delimiter, columns))
    });
    let (delimiter, columns) = found.context(
        "the first line names no column refresh_token: it must be a heading such as \
         account,refresh_token,region",
    )?;
    for (index, column) in columns.iter().enumerate() {
        let first = columns.iter().position(|other| other == column);
        if let (Some(field), Some(first)) = (column, first.filter(|first| *first < index)) {
            bail!("columns {} and {} are both {}", first + 1, index + 1, field.as_str());
        }
    }
    let mut reader = reader(text, delimiter);
    let mut row = ByteRecord::new();
    let mut drafts = Vec::new();
    let (mut counted, mut line) = (0, 1);
    loop {
        match reader.read_byte_record(&mut row) {
            Ok(false) => return Ok(drafts),
            // As an empty line, which the reader skips itself.
            Ok(true) if row.iter().all(|value| value.is_empty()) => {}
            Ok(true) => {
                // The reader's own number is that of the blank lines before the row.
                let start = row.position().map_or(0, |at| at.byte() as usize).min(text.len());
                let blank = text[start..].bytes().take_while(u8::is_ascii_whitespace).count();
                let lines = text.as_bytes()[counted..start + blank].iter();
                line += lines.filter(|byte| **byte == b'\n').count();
                counted = start + blank;
                let values = values(&row, &columns);
                drafts.push(Draft { line: Some(line), key: None, values });
            }
            // The parser's own words could quote the row.
            Err(_) => bail!("it is no table"),
        }
    }
}

fn values(row: &ByteRecord, columns: &[Option<Field>]) -> Result<super::fields::Values, Rejection> {
    if row.len() != columns.len() {
        return Err(Rejection::Fields { found: row.len(), expected: columns.len() });
    }
    let mut values = Collector::default();
    for (field, value) in columns.iter().zip(row) {
        let text = std::str::from_utf8(value).map_err(|_| Rejection::NotUtf8)?;
        if let Some(field) = field {
            values.add(*field, unquoted(text))?;
        }
    }
    Ok(values.finish())
}

/// Quotes after a space are no quotes in a table, but written in many.
fn unquoted(text: &str) -> &str {
    text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text)
}

fn reader(text: &str, delimiter: u8) -> csv::Reader<&[u8]> {
    ReaderBuilder::new()
        .delimiter(delimiter)
        .flexible(true)
        .trim(Trim::All)
        .from_reader(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    fn value(draft: &Draft, field: Field) -> Option<&str> {
        draft.values.as_ref().expect("readable").get(&field).map(Secret::expose)
    }

    #[test]
    fn every_usual_table_is_read() {
        for text in [
            "account,refresh_token,region\nacme,Atzr|x,eu\n",
            "account;Refresh Token;region;note\r\nacme;Atzr|x;eu;\"a;b\"\r\n",
            "region\trefreshToken\taccount\n\neu\tAtzr|x\tacme",
            "\"account\", \"refresh_token\", \"region\"\n\"acme\", \"Atzr|x\", eu\n",
        ] {
            let drafts = drafts(text).expect("a table");
            assert_eq!(drafts.len(), 1, "{text}");
            assert_eq!(value(&drafts[0], Field::Account), Some("acme"), "{text}");
            assert_eq!(value(&drafts[0], Field::RefreshToken), Some("Atzr|x"), "{text}");
            assert_eq!(value(&drafts[0], Field::Region), Some("eu"), "{text}");
        }
    }

    #[test]
    fn a_row_knows_its_line() {
        let text = "account,refresh_token\n\"a\nb\",x\n\nc,y,z\nd\n";
        let drafts = drafts(text).expect("a table");
        let lines: Vec<_> = drafts.iter().map(|draft| draft.line).collect();
        assert_eq!(lines, [Some(2), Some(5), Some(6)]);
        let wrong = |index: usize| drafts[index].values.as_ref().err().cloned();
        assert_eq!(wrong(0), None);
        assert_eq!(wrong(1), Some(Rejection::Fields { found: 3, expected: 2 }));
        assert_eq!(wrong(2), Some(Rejection::Fields { found: 1, expected: 2 }));
    }

    #[test]
    fn a_heading_that_is_none_is_not_quoted() {
        for text in ["", "acme,Atzr|CANARY,eu\n", "refresh_token,x,refreshToken\na,b,c\n"] {
            let error = format!("{:#}", drafts(text).expect_err("no heading"));
            assert!(!error.contains("CANARY"), "{error}");
        }
    }
}
