//! What `adsproxy curl` sends: `-d` and its relatives.

use anyhow::Context as _;
use std::io::Read;

/// The flags, as curl has them.
#[derive(Debug, clap::Args)]
pub(super) struct Data {
    /// Send this, as JSON unless -H says otherwise; @FILE and @- are read
    #[arg(short, long, value_name = "DATA")]
    data: Vec<String>,
    /// As --data, but line ends in a file are kept
    #[arg(long, value_name = "DATA")]
    data_binary: Vec<String>,
    /// As --data, but an @ means nothing
    #[arg(long, value_name = "DATA")]
    data_raw: Vec<String>,
    /// As --data-binary
    #[arg(long, value_name = "DATA")]
    json: Vec<String>,
}

impl Data {
    pub(super) fn is_any(&self) -> bool {
        [&self.data, &self.data_binary, &self.data_raw, &self.json].iter().any(|d| !d.is_empty())
    }

    /// Everything, with `&` between several as curl has it; none if nothing is to be sent.
    pub(super) fn read(&self) -> anyhow::Result<Option<Vec<u8>>> {
        if !self.is_any() {
            return Ok(None);
        }
        let mut parts = Vec::new();
        for text in &self.data {
            let mut part = content(text)?;
            if text.starts_with('@') {
                part.retain(|byte| !matches!(byte, b'\r' | b'\n' | 0));
            }
            parts.push(part);
        }
        for text in self.data_binary.iter().chain(&self.json) {
            parts.push(content(text)?);
        }
        parts.extend(self.data_raw.iter().map(|text| text.clone().into_bytes()));
        Ok(Some(parts.join(&b'&')))
    }
}

fn content(text: &str) -> anyhow::Result<Vec<u8>> {
    match text.strip_prefix('@') {
        None => Ok(text.as_bytes().to_vec()),
        Some("-") => {
            let mut bytes = Vec::new();
            std::io::stdin()
                .lock()
                .read_to_end(&mut bytes)
                .context("cannot read standard input")?;
            Ok(bytes)
        }
        Some(path) => std::fs::read(path).with_context(|| format!("cannot read {path}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(data: &[&str], binary: &[&str], raw: &[&str]) -> Data {
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        Data { data: owned(data), data_binary: owned(binary), data_raw: owned(raw), json: vec![] }
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
    fn nothing_is_not_an_empty_text() {
        assert_eq!(data(&[], &[], &[]).read().unwrap(), None);
        assert_eq!(data(&[""], &[], &[]).read().unwrap(), Some(Vec::new()));
        assert!(data(&["@/nonexistent"], &[], &[]).read().is_err());
    }
}
