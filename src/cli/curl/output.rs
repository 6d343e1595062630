//! Where `adsproxy curl` writes a response, and what it says of the exchange.

use anyhow::Context as _;
use flate2::write::GzDecoder;
use http::{
    HeaderMap, Request, Response,
    header::{CONTENT_ENCODING, CONTENT_TYPE},
};
use std::{
    fmt::Write as _,
    fs::File,
    io::{self, Write},
    path::Path,
    time::Instant,
};

/// Standard output, or a file.
pub(super) enum Output {
    Plain(Box<dyn Write>),
    Gzip(Box<GzDecoder<Box<dyn Write>>>),
}

impl Output {
    /// Opens `path`, and decompresses what is written if `response` is compressed and that is
    /// wanted.
    pub(super) fn open<B>(
        path: Option<&Path>,
        decompress: bool,
        response: &Response<B>,
    ) -> anyhow::Result<Self> {
        let to: Box<dyn Write> = match path.filter(|path| *path != Path::new("-")) {
            None => Box::new(io::stdout().lock()),
            Some(path) => {
                let file = File::create(path);
                Box::new(file.with_context(|| format!("cannot write {}", path.display()))?)
            }
        };
        let encoding = response.headers().get(CONTENT_ENCODING);
        Ok(match decompress && encoding.is_some_and(|encoding| encoding == "gzip") {
            true => Self::Gzip(Box::new(GzDecoder::new(to))),
            false => Self::Plain(to),
        })
    }

    /// Writes status line and headers.
    pub(super) fn head<B>(&mut self, response: &Response<B>) -> anyhow::Result<bool> {
        let head = response_head(response, "");
        let to = match self {
            Self::Plain(to) => to,
            Self::Gzip(to) => to.get_mut(),
        };
        judge(to.write_all(head.as_bytes()).and_then(|()| to.flush()))
    }

    /// Writes at once, because an event may be followed by the next one hours later. False if the
    /// reader went away.
    pub(super) fn write(&mut self, bytes: &[u8]) -> anyhow::Result<bool> {
        judge(match self {
            Self::Plain(to) => to.write_all(bytes).and_then(|()| to.flush()),
            Self::Gzip(to) => to.write_all(bytes).and_then(|()| to.flush()),
        })
    }

    pub(super) fn finish(self) -> anyhow::Result<bool> {
        judge(match self {
            Self::Plain(mut to) => to.flush(),
            Self::Gzip(to) => to.finish().map(drop),
        })
    }
}

fn judge(written: io::Result<()>) -> anyhow::Result<bool> {
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("cannot write the response"),
    }
}

/// Status line and headers, each line behind `mark`.
pub(super) fn response_head<B>(response: &Response<B>, mark: &str) -> String {
    let status = response.status();
    let reason = status.canonical_reason().unwrap_or_default();
    let first = format!("{:?} {} {reason}", response.version(), status.as_u16());
    head(&first, response.headers(), mark)
}

/// As it is sent, but for what the proxy changes: the account's token is not in it.
pub(super) fn request_head<B>(request: &Request<B>, target: &str) -> String {
    head(&format!("{} {target} HTTP/1.1", request.method()), request.headers(), "> ")
}

fn head(first: &str, headers: &HeaderMap, mark: &str) -> String {
    let mut text = format!("{mark}{first}\r\n");
    for (name, value) in headers {
        let shown = match name.as_str() {
            "authorization" | "proxy-authorization" => "[redacted]".into(),
            _ => String::from_utf8_lossy(value.as_bytes()),
        };
        let _ = write!(text, "{mark}{name}: {shown}\r\n");
    }
    text + mark.trim_end() + "\r\n"
}

/// What `--write-out` can say of a response.
pub(super) struct Written {
    status: u16,
    content_type: String,
    pub(super) size: usize,
    started: Instant,
}

impl Written {
    pub(super) fn new<B>(response: &Response<B>, started: Instant) -> Self {
        let content_type = response.headers().get(CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok()).unwrap_or_default();
        let status = response.status().as_u16();
        Self { status, content_type: content_type.to_owned(), size: 0, started }
    }

    /// `format` with its variables and escapes filled in; what is not known stays as it is.
    pub(super) fn show(&self, format: &str) -> String {
        let time = format!("{:.6}", self.started.elapsed().as_secs_f64());
        let (status, size) = (self.status.to_string(), self.size.to_string());
        let known = [
            ("%{http_code}", status.as_str()),
            ("%{response_code}", &status),
            ("%{content_type}", &self.content_type),
            ("%{size_download}", &size),
            ("%{time_total}", &time),
            ("%%", "%"),
            ("\\n", "\n"),
            ("\\r", "\r"),
            ("\\t", "\t"),
        ];
        let mut text = String::new();
        let mut rest = format;
        while let Some(next) = rest.chars().next() {
            let found = known.iter().find(|(name, _)| rest.starts_with(name));
            let (length, shown) = match found {
                Some((name, value)) => (name.len(), *value),
                None => (next.len_utf8(), &rest[..next.len_utf8()]),
            };
            text.push_str(shown);
            rest = &rest[length..];
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_filled_in_and_the_rest_is_kept() {
        let mut response = Response::new(());
        response.headers_mut().insert(CONTENT_TYPE, "text/x".parse().expect("a value"));
        let written = Written { size: 7, ..Written::new(&response, Instant::now()) };
        let shown = written.show("%{http_code} %{content_type}\\t%{size_download}%% %{other}\\n");
        assert_eq!(shown, "200 text/x\t7% %{other}\n");
    }
}
