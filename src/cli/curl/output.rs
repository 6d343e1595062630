//! What `adsproxy curl` says of the exchange.

use http::{HeaderMap, Request, Response};

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
pub(super) fn fill_in(format: &str, variables: &[(&str, &str)]) -> String {
    const ESCAPES: [(&str, &str); 4] = [("%%", "%"), ("\\n", "\n"), ("\\r", "\r"), ("\\t", "\t")];
    let (mut text, mut rest) = (String::new(), format);
    while let Some(next) = rest.chars().next() {
        let known = variables.iter().chain(&ESCAPES);
        let mut found = known.filter_map(|(name, value)| Some((rest.strip_prefix(*name)?, *value)));
        match found.next() {
            Some((after, value)) => {
                text.push_str(value);
                rest = after;
            }
            None => {
                text.push(next);
                rest = &rest[next.len_utf8()..];
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_filled_in_and_the_rest_is_kept() {
        let variables = [("%{http_code}", "200"), ("%{size_download}", "7")];
        let shown = fill_in("%{http_code}\\t%{size_download}%% %{other}\\n", &variables);
        assert_eq!(shown, "200\t7% %{other}\n");
        assert_eq!(fill_in("%%{http_code}", &variables), "%{http_code}");
    }
}
