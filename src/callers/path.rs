//! Whether a path can be read in one way only. Rules judge the bytes that go to Amazon; a path that a
//! gateway there might read as another one is refused, not normalised.

/// Why Amazon could read `path` differently from how it is spelled, or none.
pub(super) fn ambiguity(path: &str) -> Option<&'static str> {
    let mut segments = path.strip_prefix('/').unwrap_or(path).split('/').peekable();
    while let Some(segment) = segments.next() {
        if segment.is_empty() && segments.peek().is_some() {
            return Some("it has an empty segment (//)");
        }
        if matches!(segment, "." | "..") {
            return Some("it has a dot segment");
        }
        let mut rest = segment.as_bytes();
        while let [first, behind @ ..] = rest {
            match first {
                b'\\' => return Some("it has a backslash"),
                b';' => return Some("it has a parameter (;)"),
                b'%' => match decoded(behind) {
                    Some(byte) if must_be_encoded(byte) => rest = &behind[2..],
                    _ => return Some("it has an encoded character that can be read in two ways"),
                },
                b'!'..=b'~' => rest = behind,
                _ => return Some("it has characters that are not ASCII"),
            }
        }
    }
    None
}

/// The byte that the two digits behind a `%` stand for.
fn decoded(digits: &[u8]) -> Option<u8> {
    let digits = std::str::from_utf8(digits.get(..2)?).ok()?;
    digits.bytes().all(|digit| digit.is_ascii_hexdigit()).then_some(())?;
    u8::from_str_radix(digits, 16).ok()
}

/// Whether an encoded `byte` is honest: it structures no path (`/`, `\`, `;`, `?`, `#`), is no `%` that
/// would be decoded twice and no control character, and could not have been sent as it is (a letter,
/// a digit, `-._~`: one path, two spellings).
fn must_be_encoded(byte: u8) -> bool {
    matches!(byte, b' '..=b'~')
        && !byte.is_ascii_alphanumeric()
        && !matches!(byte, b'/' | b'\\' | b';' | b'?' | b'#' | b'%' | b'-' | b'.' | b'_' | b'~')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_can_be_read_in_two_ways_is_found() {
        for path in [
            "//sp/campaigns",
            "/sp//campaigns",
            "/sp/campaigns//",
            "/.",
            "/..",
            "/sp/../billing",
            "/sp/./campaigns",
            "/sp/..",
            "/sp/%2e%2e/billing",
            "/sp/%2E./billing",
            "/sp/.%2e",
            "/sp%2fcampaigns",
            "/sp%2Fcampaigns",
            "/sp%5ccampaigns",
            "/sp\\campaigns",
            "/sp;x=1/campaigns",
            "/sp/..;/billing",
            "/sp%3bx/campaigns",
            "/sp/campaigns%3fx",
            "/sp/campaigns%23",
            "/sp/%00",
            "/sp/%0d%0a",
            "/sp/%7f",
            "/sp/%252e%252e/billing",
            "/sp/%c0%ae",
            "/sp/%e4",
            "/sp/ä",
            "/sp/\u{ff0f}",
            "/%73p/campaigns",
            "/sp/%7E",
            "/sp/%",
            "/sp/%4",
            "/sp/%zz",
            "/sp/%+1",
            "/sp/%ä",
        ] {
            assert!(ambiguity(path).is_some(), "{path}");
        }
    }

    #[test]
    fn the_paths_of_amazon_are_read_in_one_way() {
        for path in [
            "/",
            "/v2/profiles",
            "/sp/campaigns/list",
            "/v2/dp/audiencemetadata/",
            "/exports/amzn1.export~a-b_c:d",
            "/accounts/amzn1.ads-account.g.x/dsp/orders/...",
            "/sd/a%20b/report",
            "/stores/a%7Cb%3A%40/insights",
        ] {
            assert_eq!(ambiguity(path), None, "{path}");
        }
    }
}
