//! Where `adsproxy curl` writes a response, and what it says of the exchange.

use anyhow::Context as _;
use http::{HeaderMap, Request, Response};
use std::{
    fs::File,
    io::{self, Write},
    path::Path,
};

/// Opens standard output, or a file.
pub(super) fn open(path: Option<&Path>) -> anyhow::Result<Box<dyn Write>> {
    match path.filter(|path| *path != Path::new("-")) {
        None => Ok(Box::new(io::stdout().lock())),
        Some(path) => {
            let file = File::create(path);
            Ok(Box::new(file.with_context(|| format!("cannot write {}", path.display()))?))
        }
    }
}

/// Writes at once, because an event may be followed by the next one hours later. False if the
/// reader went away.
pub(super) fn write(to: &mut dyn Write, bytes: &[u8]) -> anyhow::Result<bool> {
    match to.write_all(bytes).and_then(|()| to.flush()) {
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
        text.push_str(&format!("{mark}{name}: {shown}\r\n"));
    }
    text + mark.trim_end() + "\r\n"
}

/// `format` with `variables` and escapes filled in; what is not known stays as it is.
pub(super) fn fill_in(format: &str, variables: &[(&str, String)]) -> String {
    const ESCAPES: [(&str, &str); 4] = [("%%", "%"), ("\\n", "\n"), ("\\r", "\r"), ("\\t", "\t")];
    let variables = variables.iter().map(|(name, value)| (*name, value.as_str()));
    let known: Vec<(&str, &str)> = variables.chain(ESCAPES).collect();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_filled_in_and_the_rest_is_kept() {
        let variables = [("%{http_code}", "200".to_owned()), ("%{size_download}", "7".to_owned())];
        let shown = fill_in("%{http_code}\\t%{size_download}%% %{other}\\n", &variables);
        assert_eq!(shown, "200\t7% %{other}\n");
    }
}
