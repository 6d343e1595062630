//! What can be a refresh token of Login with Amazon: one judgement for every way in.

use super::Secret;

/// Amazon's documented maximum is 2048.
const MAX_BYTES: usize = 8192;

const PREFIX: &str = "Atzr|";

/// A text that can be a refresh token.
#[derive(Debug, Clone)]
pub struct RefreshToken {
    pub secret: Secret,
    /// Says whether it begins as Amazon's refresh tokens do; see [`RefreshToken::UNUSUAL`].
    pub is_usual: bool,
}

/// Why a text cannot be a refresh token. Holds no part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidRefreshToken(&'static str);

impl RefreshToken {
    /// What to say of a token that is not usual.
    pub const UNUSUAL: &'static str =
        "does not begin with `Atzr|`, as the refresh tokens of Login with Amazon do";

    /// Judges `text`.
    ///
    /// # Errors
    /// When LWA can never have issued it.
    pub fn parse(text: &Secret) -> Result<Self, InvalidRefreshToken> {
        let token = text.expose().trim_start_matches('\u{feff}').trim();
        let quoted = |quote| token.starts_with(quote) || token.ends_with(quote);
        // RFC 6749 A.17 allows blanks; without Amazon's beginning they make it some other text.
        let is_usual = token.starts_with(PREFIX);
        let is_of_a_token = |byte: u8| byte.is_ascii_graphic() || (is_usual && byte == b' ');
        let wrong = if token.is_empty() {
            "the refresh token is empty"
        } else if token.len() > MAX_BYTES {
            "this is no refresh token: it has more than 8192 bytes"
        } else if quoted('"') || quoted('\'') || quoted('`') {
            "this is no refresh token: remove the quotes around it"
        } else if !token.bytes().all(is_of_a_token) {
            "this is no refresh token: it must be one line of visible ASCII characters"
        } else if token.starts_with("Atza|") {
            "this is an access token (Atza|), which ends within the hour: give the refresh token"
        } else if token.starts_with("amzn1.") {
            "this belongs to the application (amzn1.…): give the refresh token of the account"
        } else {
            return Ok(Self { secret: Secret::from(token), is_usual });
        };
        Err(InvalidRefreshToken(wrong))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lwa_can_have_issued_is_taken_without_blanks_around_it() {
        for (text, token, is_usual) in [
            ("Atzr|abc", "Atzr|abc", true),
            ("\u{feff} Atzr|abc \r\n", "Atzr|abc", true),
            ("Atzr|a \"b\" c", "Atzr|a \"b\" c", true),
            ("some-other-token", "some-other-token", false),
        ] {
            let parsed = RefreshToken::parse(&Secret::from(text)).unwrap();
            assert_eq!((parsed.secret.expose(), parsed.is_usual), (token, is_usual));
        }
    }

    #[test]
    fn what_cannot_be_one_is_refused_without_being_shown() {
        let long = "a".repeat(MAX_BYTES + 1);
        for (text, part) in [
            (" \n", "is empty"),
            (&long, "8192 bytes"),
            ("\"Atzr|CANARY\"", "remove the quotes"),
            ("Atzr|CANARY'", "remove the quotes"),
            ("two words", "visible ASCII"),
            ("Atzr|CAN\nARY", "visible ASCII"),
            ("Atzr|CANARY…", "visible ASCII"),
            ("Atza|CANARY", "is an access token"),
            ("amzn1.oa2-cs.v1.CANARY", "belongs to the application"),
        ] {
            let error = RefreshToken::parse(&Secret::from(text)).unwrap_err().to_string();
            assert!(error.contains(part) && !error.contains("CANARY"), "{error}");
        }
    }
}
