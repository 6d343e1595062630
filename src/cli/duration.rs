//! Lengths of time as written by hand: `10m`, `1h 30m`, `90`.

use jiff::SignedDuration;
use std::time::Duration;

/// Reads `text`; a bare number counts seconds.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let explain = || format!("{text:?} is no length of time such as 30s, 10m or 1h30m");
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    let duration: SignedDuration = text.parse().map_err(|_| explain())?;
    duration.try_into().map_err(|_| explain())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        for (text, seconds) in
            [("0", 0), ("90", 90), ("30s", 30), ("10m", 600), ("1h30m", 5400), ("1h 30m", 5400)]
        {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(parse("250ms"), Ok(Duration::from_millis(250)));
    }

    #[test]
    fn nonsense_is_explained() {
        for text in ["", "soon", "-5", "-5m", "10 parsecs", "1e99999h"] {
            let error = parse(text).expect_err(text);
            assert!(error.contains("10m"), "{error}");
        }
    }
}
