//! How accounts are connected.

use super::*;

sections! {
    /// `[login]`
    LoginConfig {
        timeout as "timeout_secs": Duration = secs(600), timeout;
        /// How long the question whether to replace an account waits for its confirmation.
        confirm_timeout as "confirm_timeout_secs": Duration = secs(600), timeout;
        reconnect_link as "reconnect_link_secs": Duration = secs(604_800), timeout;
        /// Who asks for an account, on the page of a reconnect link; the host if none.
        company: Option<String> = None, opt(text(parse_company));
        pending_max: usize = 3000, count;
    }
}

/// A name that fits a sentence on a page.
fn parse_company(text: &str) -> Result<String, String> {
    let length = text.chars().count();
    if !(1..=100).contains(&length) || text.chars().any(char::is_control) {
        return Err("must be a name of 1 to 100 characters, on one line".to_owned());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_company_is_a_name_on_one_line() {
        assert_eq!(parse_company("Example & Söhne").as_deref(), Ok("Example & Söhne"));
        assert!(parse_company(&"é".repeat(100)).is_ok());
        for wrong in ["", "two\nlines", &"x".repeat(101)] {
            assert!(parse_company(wrong).is_err(), "{wrong:?}");
        }
    }
}
