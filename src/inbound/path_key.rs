//! The key in front of a path, `/k/<key>`: for clients that can be told a base URL and nothing else.
//! Only the private listener of a command understands it; a log never shows it.

use http::{Uri, uri::PathAndQuery};
use std::borrow::Cow;

const MARK: &str = "/k/";
/// Of a key's id.
const ID_LEN: usize = 8;

/// The prefix of every path with `key`.
pub fn prefix(key: &str) -> String {
    format!("{MARK}{key}")
}

/// The key that `path` begins with, and the rest.
fn split(path: &str) -> Option<(&str, &str)> {
    let behind = path.strip_prefix(MARK)?;
    Some(behind.split_at(behind.find(['/', '?']).unwrap_or(behind.len())))
}

/// The key that `uri` begins with, right or wrong.
pub fn of(uri: &Uri) -> Option<&str> {
    split(uri.path()).map(|(key, _)| key)
}

/// Takes the key off `uri`, whose rest stays byte for byte: no later part sees it.
pub fn take(uri: &mut Uri) -> Option<String> {
    let whole = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let (key, rest) = split(whole)?;
    let slash = if rest.starts_with('/') { "" } else { "/" };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(format!("{slash}{rest}").parse().ok()?);
    let key = key.to_owned();
    *uri = Uri::from_parts(parts).ok()?;
    Some(key)
}

/// Whether `text` has a key of ours in it, right or wrong: a prefix and as much as an id behind it.
pub fn holds_key(text: &str) -> bool {
    let bytes = text.as_bytes();
    // Hardly a path of Amazon's has the character, and this runs for each request.
    let mut marks = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'_');
    marks.any(|(at, _)| {
        let id = bytes[at + 1..].get(..ID_LEN);
        (bytes[..at].ends_with(b"adsk") || bytes[..at].ends_with(b"adss"))
            && id.is_some_and(|id| id.iter().all(u8::is_ascii_alphanumeric))
    })
}

/// `path`, or a name that a caller chose, with each segment behind `/k/` and each key of ours masked but
/// for its id.
pub fn masked(path: &str) -> Cow<'_, str> {
    let is_clean = !path.contains(MARK) && !path.contains("adsk_") && !path.contains("adss_");
    if is_clean {
        return path.into();
    }
    let mut before = "";
    let segments = path.split('/').map(|segment| {
        let is_key = before == "k" && !segment.is_empty();
        before = segment;
        let begins = segment.find("adsk_").or_else(|| segment.find("adss_"));
        match begins {
            // The prefix and the id, all of ASCII.
            Some(at) => {
                let end = segment[at + 5..].find(|c: char| !c.is_ascii_alphanumeric());
                let end = end.map_or(segment.len(), |end| at + 5 + end).min(at + 5 + ID_LEN);
                format!("{}[masked]", &segment[at..end])
            }
            None if is_key => "[masked]".to_owned(),
            None => segment.to_owned(),
        }
    });
    segments.collect::<Vec<_>>().join("/").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_taken_off_and_the_rest_stays_byte_for_byte() {
        for (target, key, rest) in [
            ("/k/KEY/a/acme/v2/profiles?x=%2F", Some("KEY"), "/a/acme/v2/profiles?x=%2F"),
            ("/k/KEY//double//", Some("KEY"), "//double//"),
            ("/k/KEY", Some("KEY"), "/"),
            ("/k/KEY?q", Some("KEY"), "/?q"),
            ("/k/KEY/k/other", Some("KEY"), "/k/other"),
            ("/k//KEY", Some(""), "/KEY"),
            ("http://localhost:1/k/KEY/v2", Some("KEY"), "http://localhost:1/v2"),
            ("/K/KEY/v2", None, "/K/KEY/v2"),
            ("/x/k/KEY/v2", None, "/x/k/KEY/v2"),
            ("/v2?k=/k/KEY", None, "/v2?k=/k/KEY"),
            ("/k", None, "/k"),
        ] {
            let mut uri: Uri = target.parse().expect("a target");
            assert_eq!(of(&uri), key, "{target}");
            assert_eq!(take(&mut uri).as_deref(), key, "{target}");
            assert_eq!(uri.to_string(), rest, "{target}");
        }
    }

    #[test]
    fn a_key_is_found_wherever_it_is_and_what_is_too_short_is_none() {
        let key = format!("adsk_7Fh2kQ9x{}", "Z".repeat(38));
        for path in [
            format!("/k/{key}/v2"),
            format!("/a/acme/k/{key}/v2"),
            format!("/v2/{key}"),
            format!("/a/Atza%7C{key}/v2"),
            format!("/ads/adsk_/{}", key.replace("adsk", "adss")),
            "/adsads_/adss_7Fh2kQ9x".to_owned(),
        ] {
            assert!(holds_key(&path), "{path}");
        }
        for path in ["/v2/profiles", "/adsk_7Fh2kQ9", "/adsx_7Fh2kQ9x", "/adss_7Fh2/kQ9xy", "/ads"]
        {
            assert!(!holds_key(path), "{path}");
        }
    }

    #[test]
    fn a_log_shows_no_key_right_or_wrong() {
        let key = format!("adss_7Fh2kQ9x{}", "Z".repeat(38));
        for (path, shown) in [
            ("/v2/profiles".to_owned(), "/v2/profiles"),
            ("/k/secret/a/acme/v2".to_owned(), "/k/[masked]/a/acme/v2"),
            ("/a/acme/k/secret".to_owned(), "/a/acme/k/[masked]"),
            ("/k/one/k/two".to_owned(), "/k/[masked]/k/[masked]"),
            (format!("/k/{key}/v2"), "/k/adss_7Fh2kQ9x[masked]/v2"),
            (format!("/a/{key}/v2"), "/a/adss_7Fh2kQ9x[masked]/v2"),
            (format!("/a/Atza%7C{key}/v2"), "/a/adss_7Fh2kQ9x[masked]/v2"),
            ("/k/adsk_short".to_owned(), "/k/adsk_short[masked]"),
            ("/k/adsk_%C3%A9xx".to_owned(), "/k/adsk_[masked]"),
            ("/k//x".to_owned(), "/k//x"),
        ] {
            assert_eq!(masked(&path), shown, "{path}");
            assert!(!masked(&path).contains("ZZZ") && !masked(&path).contains("secret"));
        }
    }
}
