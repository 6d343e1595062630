//! Where `adsproxy curl` writes an answer.

use anyhow::Context as _;
use http::Response;
use std::{
    fmt::Write as _,
    fs::File,
    io::{self, Write},
    path::Path,
};

/// Standard output, or a file.
pub(super) struct Output(Box<dyn Write>);

impl Output {
    pub(super) fn open(path: Option<&Path>) -> anyhow::Result<Self> {
        Ok(match path {
            None => Self(Box::new(io::stdout().lock())),
            Some(path) if path == Path::new("-") => Self(Box::new(io::stdout().lock())),
            Some(path) => {
                let file = File::create(path);
                Self(Box::new(file.with_context(|| format!("cannot write {}", path.display()))?))
            }
        })
    }

    /// Writes status line and headers.
    pub(super) fn head<B>(&mut self, response: &Response<B>) -> anyhow::Result<bool> {
        let status = response.status();
        let reason = status.canonical_reason().unwrap_or_default();
        let mut head = format!("{:?} {} {reason}\r\n", response.version(), status.as_u16());
        for (name, value) in response.headers() {
            write!(head, "{name}: {}\r\n", String::from_utf8_lossy(value.as_bytes()))?;
        }
        head.push_str("\r\n");
        self.write(head.as_bytes())
    }

    /// Writes at once, because an event may be followed by the next one hours later. False if the
    /// reader went away.
    pub(super) fn write(&mut self, bytes: &[u8]) -> anyhow::Result<bool> {
        match self.0.write_all(bytes).and_then(|()| self.0.flush()) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(error).context("cannot write the answer"),
        }
    }
}
