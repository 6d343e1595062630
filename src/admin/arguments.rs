//! What a request says: arguments of the address or of a small body, cookies.

use super::AdminBody;
use crate::{login::LoginError, secret::Secret};
use http::{HeaderMap, header};
use http_body_util::{BodyExt, Limited};
use serde_json::Value;
use std::time::Duration;
use tokio::time::timeout;

/// No body here is longer, bytes.
const BODY_MAX_BYTES: usize = 16 * 1024;
/// From the head of a request to the end of its body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Pairs in the order they came in.
#[derive(Debug, Default)]
pub(super) struct Arguments(Vec<(String, Secret)>);

impl Arguments {
    /// Reads a query string or a form.
    pub(super) fn of_form(text: &str) -> Self {
        let pairs = form_urlencoded::parse(text.as_bytes()).into_owned();
        Self(pairs.map(|(name, value)| (name, Secret::new(value))).collect())
    }

    /// Reads a body: JSON if it says so, else a form. Texts, booleans, numbers and lists of texts
    /// count.
    pub(super) async fn of_body(headers: &HeaderMap, body: AdminBody) -> Result<Self, LoginError> {
        let bad = |why: &str| LoginError::bad_request(why);
        let read = timeout(BODY_TIMEOUT, Limited::new(body, BODY_MAX_BYTES).collect()).await;
        let read = read.map_err(|_| bad("the body did not arrive in time"))?;
        let body = read.map_err(|_| bad("the body is too long or broke off"))?.to_bytes();
        let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let is_json = kind.is_some_and(|kind| kind.trim_start().starts_with("application/json"));
        if !is_json {
            let text = std::str::from_utf8(&body).map_err(|_| bad("the body is no form"))?;
            return Ok(Self::of_form(text));
        }
        let object: serde_json::Map<String, Value> =
            serde_json::from_slice(&body).map_err(|_| bad("the body is no JSON object"))?;
        let mut pairs = Vec::new();
        for (name, value) in object {
            match value {
                Value::Null => {}
                Value::String(text) => pairs.push((name, Secret::new(text))),
                Value::Bool(_) | Value::Number(_) => {
                    pairs.push((name, Secret::new(value.to_string())));
                }
                Value::Array(list) if !list.is_empty() && list.iter().all(Value::is_string) => {
                    let texts = list.iter().filter_map(Value::as_str);
                    pairs.extend(texts.map(|text| (name.clone(), Secret::from(text))));
                }
                // Taken for absent, it could mean more than was meant.
                Value::Array(_) | Value::Object(_) => {
                    let what = "is neither a text, a number, a boolean nor a list of texts";
                    return Err(LoginError::bad_request(format_args!("{name:?} {what}")));
                }
            }
        }
        Ok(Self(pairs))
    }

    pub(super) fn pairs(&self) -> Vec<(String, Secret)> {
        self.0.clone()
    }

    pub(super) fn all(&self, name: &str) -> Vec<String> {
        let named = self.0.iter().filter(|(have, _)| have == name);
        named.map(|(_, value)| value.expose().to_owned()).collect()
    }

    /// Refuses what is called otherwise than `names`.
    pub(super) fn only(&self, names: &[&str]) -> Result<(), LoginError> {
        let Some((name, _)) = self.0.iter().find(|(name, _)| !names.contains(&name.as_str()))
        else {
            return Ok(());
        };
        let known = names.join(", ");
        Err(LoginError::bad_request(format_args!("{name:?} is not known here, but {known} are")))
    }

    /// The value of `name`; none if it is absent or empty. Several are refused: which one was
    /// meant is not for us to guess.
    pub(super) fn one(&self, name: &str) -> Result<Option<String>, LoginError> {
        let mut values = self.all(name);
        if values.len() > 1 {
            return Err(LoginError::bad_request(format_args!("{name} is there more than once")));
        }
        Ok(values.pop().filter(|value| !value.is_empty()))
    }
}

pub(super) fn cookies(headers: &HeaderMap) -> Vec<(String, Secret)> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.trim().to_owned(), Secret::from(value.trim()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn arguments_are_decoded_and_doubled_ones_are_seen() {
        let arguments = Arguments::of_form("a=b%20c+d&state=1&state=2&empty=&%61b=%zz%4&flag");
        assert_eq!(arguments.one("a").expect("one"), Some("b c d".to_owned()));
        assert_eq!(arguments.one("ab").expect("one"), Some("%zz%4".to_owned()));
        assert_eq!(arguments.one("empty").expect("one"), None);
        assert_eq!(arguments.one("flag").expect("one"), None);
        assert_eq!(arguments.all("state"), ["1", "2"]);
        assert!(arguments.one("state").is_err());
        assert_eq!(Arguments::of_form("a=%+1").one("a").expect("one"), Some("% 1".to_owned()));
    }

    #[test]
    fn cookies_of_every_line_are_read() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, HeaderValue::from_static("a=1; b=2=3"));
        headers.append(header::COOKIE, HeaderValue::from_static("a=4;c"));
        let read: Vec<_> = cookies(&headers)
            .iter()
            .map(|(name, value)| (name.clone(), value.expose().to_owned()))
            .collect();
        let expected = [("a", "1"), ("b", "2=3"), ("a", "4")];
        assert_eq!(read, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
}
