//! What a request says: arguments of the address or of a small body, cookies.

use super::AdminBody;
use crate::{login::LoginError, named::named, secret::Secret};
use http::{HeaderMap, header};
use http_body_util::{BodyExt, Limited};
use serde_json::Value;
use std::time::Duration;
use tokio::time::timeout;

/// No body here is longer, bytes.
const BODY_MAX_BYTES: usize = 16 * 1024;
/// From the head of a request to the end of its body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// What is said, in the order it came in.
#[derive(Debug, Clone, Default)]
pub(super) struct Arguments(Vec<Argument>);

#[derive(Debug, Clone)]
struct Argument {
    name: String,
    value: Secret,
    kind: ValueKind,
}

named! {
    /// What a value is. In a form all are texts.
    enum ValueKind {
        Text = "a text",
        Number = "a number",
        Flag = "true or false",
        /// One of a list.
        Item = "a list",
    }
}

impl Arguments {
    /// Reads a query string or a form.
    pub(super) fn of_form(text: &str) -> Self {
        let pairs = form_urlencoded::parse(text.as_bytes()).into_owned();
        let argument =
            |(name, value)| Argument { name, value: Secret::new(value), kind: ValueKind::Text };
        Self(pairs.map(argument).collect())
    }

    /// What a page asks for by itself.
    #[cfg(feature = "dashboard")]
    pub(super) fn of_pairs(pairs: &[(&str, &str)]) -> Self {
        let argument = |(name, value): &(&str, &str)| Argument {
            name: (*name).to_owned(),
            value: Secret::from(*value),
            kind: ValueKind::Text,
        };
        Self(pairs.iter().map(argument).collect())
    }

    /// Reads a body: JSON if it says so, else a form. Texts, booleans, numbers and lists of texts
    /// count.
    pub(super) async fn of_body(headers: &HeaderMap, body: AdminBody) -> Result<Self, LoginError> {
        let bad = |why: &str| LoginError::bad_request(why);
        let read = timeout(BODY_TIMEOUT, Limited::new(body, BODY_MAX_BYTES).collect()).await;
        let read = read.map_err(|_| bad("the body did not arrive in time"))?;
        let body = read.map_err(|_| bad("the body is too long or broke off"))?.to_bytes();
        Self::of_bytes(headers, &body)
    }

    /// As [`Self::of_body`], of a body that was read.
    pub(super) fn of_bytes(headers: &HeaderMap, body: &[u8]) -> Result<Self, LoginError> {
        let bad = |why: &str| LoginError::bad_request(why);
        let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let is_json = kind.is_some_and(|kind| kind.trim_start().starts_with("application/json"));
        if !is_json {
            let text = std::str::from_utf8(body).map_err(|_| bad("the body is no form"))?;
            return Ok(Self::of_form(text));
        }
        let object: serde_json::Map<String, Value> =
            serde_json::from_slice(body).map_err(|_| bad("the body is no JSON object"))?;
        let mut arguments = Vec::new();
        for (name, value) in object {
            let mut add = |value: Secret, kind| {
                arguments.push(Argument { name: name.clone(), value, kind });
            };
            match value {
                Value::Null => {}
                Value::String(text) => add(Secret::new(text), ValueKind::Text),
                Value::Bool(flag) => add(Secret::new(flag.to_string()), ValueKind::Flag),
                Value::Number(number) => add(Secret::new(number.to_string()), ValueKind::Number),
                Value::Array(list) if !list.is_empty() && list.iter().all(Value::is_string) => {
                    let texts = list.iter().filter_map(Value::as_str);
                    texts.for_each(|text| add(Secret::from(text), ValueKind::Item));
                }
                // Taken for absent, it could mean more than was meant.
                Value::Array(_) | Value::Object(_) => {
                    let what = "is neither a text, a number, a boolean nor a list of texts";
                    return Err(LoginError::bad_request(format_args!("{name:?} {what}")));
                }
            }
        }
        Ok(Self(arguments))
    }

    /// The same without `name`, whose values come beside it.
    #[cfg(feature = "dashboard")]
    pub(super) fn without(mut self, name: &str) -> (Self, Vec<Secret>) {
        let taken = self.0.extract_if(.., |one| one.name == name);
        let taken = taken.map(|one| one.value).collect();
        (self, taken)
    }

    pub(super) fn pairs(&self) -> Vec<(String, Secret)> {
        self.0.iter().map(|one| (one.name.clone(), one.value.clone())).collect()
    }

    fn named(&self, name: &str) -> impl Iterator<Item = &Argument> {
        self.0.iter().filter(move |one| one.name == name)
    }

    pub(super) fn all(&self, name: &str) -> Vec<String> {
        self.named(name).map(|one| one.value.expose().to_owned()).collect()
    }

    /// Refuses what is called otherwise than `names`.
    pub(super) fn only(&self, names: &[&str]) -> Result<(), LoginError> {
        let Some(other) = self.0.iter().find(|one| !names.contains(&one.name.as_str())) else {
            return Ok(());
        };
        let (name, known) = (&other.name, names.join(", "));
        Err(LoginError::bad_request(format_args!("{name:?} is not known here, but {known} are")))
    }

    /// The texts `name`, of a list or alone.
    pub(super) fn texts(&self, name: &str) -> Result<Vec<String>, LoginError> {
        self.expect(name, &[ValueKind::Text, ValueKind::Item], "a list of texts")?;
        Ok(self.all(name))
    }

    /// The text `name`; none if it is absent or empty. Several are refused: which one was meant is
    /// not for us to guess.
    pub(super) fn one(&self, name: &str) -> Result<Option<String>, LoginError> {
        self.expect(name, &[ValueKind::Text], "a text")?;
        self.single(name)
    }

    /// The whole number `name`, or a text that is one.
    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, LoginError> {
        self.expect(name, &[ValueKind::Number, ValueKind::Text], "a number")?;
        let wrong = || LoginError::bad_request(format_args!("{name:?} is no whole number"));
        self.single(name)?.map(|text| text.parse().map_err(|_| wrong())).transpose()
    }

    /// Whether `name` is true, or a text that says so; none if it is absent.
    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, LoginError> {
        self.expect(name, &[ValueKind::Flag, ValueKind::Text], "true or false")?;
        let wrong = || LoginError::bad_request(format_args!("{name:?} is neither true nor false"));
        self.single(name)?.map(|text| text.parse().map_err(|_| wrong())).transpose()
    }

    /// The value of `name` whatever it is; none if it is absent, empty, or there more than once.
    pub(super) fn any(&self, name: &str) -> Option<String> {
        self.single(name).ok().flatten()
    }

    fn single(&self, name: &str) -> Result<Option<String>, LoginError> {
        let mut values = self.all(name);
        if values.len() > 1 {
            return Err(LoginError::bad_request(format_args!("{name} is there more than once")));
        }
        Ok(values.pop().filter(|value| !value.is_empty()))
    }

    /// Refuses a value of `name` that is of none of the `kinds`.
    fn expect(&self, name: &str, kinds: &[ValueKind], what: &str) -> Result<(), LoginError> {
        match self.named(name).find(|one| !kinds.contains(&one.kind)) {
            None => Ok(()),
            Some(one) => {
                let found = one.kind.as_str();
                Err(LoginError::bad_request(format_args!("{name:?} is {what}, not {found}")))
            }
        }
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
