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
pub enum InvalidRefreshToken {
    #[error("the refresh token is empty")]
    Empty,
    #[error("this is no refresh token: it has more than {MAX_BYTES} bytes")]
    TooLong,
    #[error("this is no refresh token: remove the quotes around it")]
    Quoted,
    #[error("this is no refresh token: it must be one line of visible ASCII characters")]
    Characters,
    #[error("this is an access token (Atza|), which ends within the hour: give the refresh token")]
    AccessToken,
    #[error("this belongs to the application (amzn1.…): give the refresh token of the account")]
    Application,
}

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
        if token.is_empty() {
            return Err(InvalidRefreshToken::Empty);
        }
        if token.len() > MAX_BYTES {
            return Err(InvalidRefreshToken::TooLong);
        }
        if quoted('"') || quoted('\'') || quoted('`') {
            return Err(InvalidRefreshToken::Quoted);
        }
        // RFC 6749 A.17 allows blanks; without Amazon's beginning they make it some other text.
        let is_usual = token.starts_with(PREFIX);
        if !token.bytes().all(|byte| byte.is_ascii_graphic() || (is_usual && byte == b' ')) {
            return Err(InvalidRefreshToken::Characters);
        }
        if token.starts_with("Atza|") {
            return Err(InvalidRefreshToken::AccessToken);
        }
        if token.starts_with("amzn1.") {
            return Err(InvalidRefreshToken::Application);
        }
        Ok(Self { secret: Secret::from(token), is_usual })
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
        for (text, error) in [
            (" \n", InvalidRefreshToken::Empty),
            (&long, InvalidRefreshToken::TooLong),
            ("\"Atzr|CANARY\"", InvalidRefreshToken::Quoted),
            ("Atzr|CANARY'", InvalidRefreshToken::Quoted),
            ("two words", InvalidRefreshToken::Characters),
            ("Atzr|CAN\nARY", InvalidRefreshToken::Characters),
            ("Atzr|CANARY…", InvalidRefreshToken::Characters),
            ("Atza|CANARY", InvalidRefreshToken::AccessToken),
            ("amzn1.oa2-cs.v1.CANARY", InvalidRefreshToken::Application),
        ] {
            assert_eq!(RefreshToken::parse(&Secret::from(text)).unwrap_err(), error);
            assert!(!error.to_string().contains("CANARY"));
        }
    }
}
