//! What `adsproxy curl` sends: `-d` and its relatives.

use crate::lwa::percent_encode;
use anyhow::Context as _;
use std::fs;

/// The flags, as curl has them.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Data {
    /// Send this, as JSON unless -H says otherwise; @FILE and @- are read
    #[arg(short, long, value_name = "DATA")]
    data: Vec<String>,
    /// As --data, but line ends in a file are kept
    #[arg(long, visible_alias = "json", value_name = "DATA")]
    data_binary: Vec<String>,
    /// As --data, but an @ means nothing
    #[arg(long, value_name = "DATA")]
    data_raw: Vec<String>,
    /// Send this as a form, percent-encoded; NAME=DATA keeps the name
    #[arg(long, value_name = "DATA")]
    data_urlencode: Vec<String>,
    /// Put the data into the query
    #[arg(short = 'G', long)]
    pub(super) get: bool,
}

impl Data {
    /// What the data is, unless a header says it.
    pub(super) fn content_type(&self) -> &'static str {
        match self.data_urlencode.is_empty() {
            true => "application/json",
            false => "application/x-www-form-urlencoded",
        }
    }

    /// Everything, with `&` between several as curl has it; none if nothing is to be sent.
    pub(super) fn read(&self) -> anyhow::Result<Option<Vec<u8>>> {
        let mut parts = Vec::new();
        for text in &self.data {
            let mut part = content(text)?;
            if text.starts_with('@') {
                part.retain(|byte| !matches!(byte, b'\r' | b'\n' | 0));
            }
            parts.push(part);
        }
        for text in &self.data_binary {
            parts.push(content(text)?);
        }
        parts.extend(self.data_raw.iter().map(|text| text.clone().into_bytes()));
        parts.extend(self.data_urlencode.iter().map(|text| encoded(text).into_bytes()));
        Ok((!parts.is_empty()).then(|| parts.join(&b'&')))
    }
}

/// `NAME=DATA`, `=DATA` or `DATA`, with the data percent-encoded.
fn encoded(text: &str) -> String {
    let (name, data) = text.split_once('=').unwrap_or(("", text));
    let mut encoded = if name.is_empty() { String::new() } else { format!("{name}=") };
    percent_encode(data, &mut encoded);
    encoded
}

fn content(text: &str) -> anyhow::Result<Vec<u8>> {
    match text.strip_prefix('@') {
        None => Ok(text.as_bytes().to_vec()),
        Some("-") => fs::read("/dev/stdin").context("cannot read standard input"),
        Some(path) => fs::read(path).with_context(|| format!("cannot read {path}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(data: &[&str], binary: &[&str], raw: &[&str]) -> Data {
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        Data {
            data: owned(data),
            data_binary: owned(binary),
            data_raw: owned(raw),
            ..Data::default()
        }
    }

    #[test]
    fn files_are_read_whole_or_without_line_ends() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "{\r\n1}\n").unwrap();
        let at = format!("@{}", file.path().display());
        let read = |data: Data| data.read().unwrap().unwrap();
        assert_eq!(read(data(&[&at], &[], &[])), b"{1}");
        assert_eq!(read(data(&[], &[&at], &[])), b"{\r\n1}\n");
        assert_eq!(read(data(&[], &[], &[&at])), at.as_bytes());
        assert_eq!(read(data(&["a\n", "b"], &[], &[])), b"a\n&b");
    }

    #[test]
    fn forms_are_encoded_as_curl_encodes_them() {
        for (text, expected) in [("a=b c", "a=b%20c"), ("=b&c", "b%26c"), ("b/c", "b%2Fc")] {
            assert_eq!(encoded(text), expected);
        }
    }

    #[test]
    fn nothing_is_not_an_empty_text() {
        assert_eq!(data(&[], &[], &[]).read().unwrap(), None);
        assert_eq!(data(&[""], &[], &[]).read().unwrap(), Some(Vec::new()));
        assert!(data(&["@/nonexistent"], &[], &[]).read().is_err());
    }
}
