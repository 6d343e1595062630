//! The languages of the pages that advertisers see: Amazon's marketplaces, by `Accept-Language`.

mod english;
mod french;
mod german;
mod italian;
mod japanese;
mod portuguese;
mod spanish;

use super::page::Escaped;
use crate::problem::Code;
use http::{HeaderMap, header::ACCEPT_LANGUAGE};

/// The texts of one language. `{account}`, `{who}`, `{region}`, `{application}` and `{count}` are filled
/// in.
#[derive(Debug)]
pub(super) struct Words {
    pub(super) language: &'static str,
    pub(super) reconnect: &'static str,
    pub(super) asks: &'static str,
    pub(super) unexpected: &'static str,
    pub(super) profiles: &'static str,
    pub(super) columns: [&'static str; 4],
    pub(super) next: &'static str,
    pub(super) steps: [&'static str; 3],
    pub(super) go_on: &'static str,
    /// Before the address at Amazon.
    pub(super) revoke: &'static str,
    pub(super) is_connected: &'static str,
    pub(super) connected: &'static str,
    pub(super) connected_anew: &'static str,
    pub(super) gives_access: &'static str,
    pub(super) other_user: &'static str,
    pub(super) no_profiles: &'static str,
    pub(super) no_list: &'static str,
    pub(super) region_is_guess: &'static str,
    /// Profiles beyond those that are shown.
    pub(super) more: &'static str,
    /// Another Amazon user has consented, or may have.
    pub(super) question: &'static str,
    pub(super) differs: &'static str,
    pub(super) unknown_user: &'static str,
    pub(super) until_yes: &'static str,
    pub(super) now: &'static str,
    pub(super) after: &'static str,
    pub(super) not_known: &'static str,
    pub(super) keep: &'static str,
    pub(super) replace: &'static str,
    /// The person has said no.
    pub(super) unchanged: &'static str,
    /// Before the address at Amazon.
    pub(super) discarded: &'static str,
    pub(super) amazon_said: &'static str,
    /// None in the language of the table of codes.
    pub(super) failures: Option<FailureTexts>,
}

/// What an advertiser needs to know of a login that cannot go on: a title, and what to do. The table of
/// codes says the same at more length, to operators.
#[derive(Debug)]
pub(super) struct FailureTexts {
    denied: [&'static str; 2],
    not_all: [&'static str; 2],
    link_over: [&'static str; 2],
    login_over: [&'static str; 2],
    other_browser: [&'static str; 2],
    /// It may work in a few minutes.
    later: [&'static str; 2],
    /// Only operators can do something about it.
    service: [&'static str; 2],
}

impl FailureTexts {
    pub(super) fn of(&self, code: Code) -> [&'static str; 2] {
        match code {
            Code::AccessDenied => self.denied,
            Code::ScopeMissing => self.not_all,
            Code::LinkUsed | Code::UnknownAccount => self.link_over,
            Code::OtherBrowser => self.other_browser,
            Code::StateMissing
            | Code::StateUnknown
            | Code::StateExpired
            | Code::ParameterDoubled
            | Code::NothingCameBack
            | Code::TooLate
            | Code::UsedAlready
            | Code::QuestionGone
            | Code::AccountChanged
            | Code::ConfigurationChanged => self.login_over,
            Code::AmazonFailed
            | Code::LwaTimeout
            | Code::LwaUnavailable
            | Code::TooManyLogins
            | Code::TooManyRequests
            | Code::Overloaded
            | Code::Draining
            | Code::StoreFailed
            | Code::NotSaved
            | Code::AuditFailed => self.later,
            _ => self.service,
        }
    }
}

pub(super) const ENGLISH: &Words = &english::WORDS;

const ALL: [&Words; 7] = [
    ENGLISH,
    &german::WORDS,
    &french::WORDS,
    &spanish::WORDS,
    &italian::WORDS,
    &japanese::WORDS,
    &portuguese::WORDS,
];

impl Words {
    /// Those of the language that the browser prefers among ours, else English.
    pub(super) fn of(headers: &HeaderMap) -> &'static Self {
        let lines = headers.get_all(ACCEPT_LANGUAGE).iter();
        let ranges = lines.filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(','));
        let mut best = (0.0, ALL[0]);
        for range in ranges {
            let (tag, parameters) = range.split_once(';').unwrap_or((range, ""));
            let quality = match parameters.trim().strip_prefix("q=") {
                Some(quality) => quality.trim().parse().unwrap_or(0.0),
                None => 1.0,
            };
            let primary = tag.trim().split('-').next().unwrap_or_default();
            let known = ALL.into_iter().find(|one| primary.eq_ignore_ascii_case(one.language));
            if let Some(words) = known.filter(|_| quality > best.0) {
                best = (quality, words);
            }
        }
        best.1
    }
}

/// `text` as HTML, each `{name}` in it replaced by its value.
pub(super) fn fill(text: &str, values: &[(&str, &str)]) -> String {
    let mut html = String::with_capacity(text.len());
    let mut parts = text.split('{');
    html.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let (name, after) = part.split_once('}').unwrap_or(("", part));
        let value = values.iter().find(|(known, _)| *known == name);
        html.push_str(value.map_or("", |(_, value)| value));
        html.push_str(after);
    }
    Escaped(&html).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use std::collections::BTreeSet;

    fn chosen(accepts: &'static str) -> &'static str {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_LANGUAGE, HeaderValue::from_static(accepts));
        Words::of(&headers).language
    }

    #[test]
    fn the_browsers_preferred_language_is_chosen_among_those_there_are() {
        for (accepts, expected) in [
            ("de-CH, en;q=0.5", "de"),
            ("nl, fr-CA;q=0.8, en;q=0.9", "en"),
            ("pt-BR", "pt"),
            ("JA", "ja"),
            ("es;q=0, it;q=0.1", "it"),
            ("nl", "en"),
            ("*", "en"),
            ("de;q=x", "en"),
            ("", "en"),
        ] {
            assert_eq!(chosen(accepts), expected, "{accepts}");
        }
        assert_eq!(Words::of(&HeaderMap::new()).language, "en");
    }

    /// Every text of a language, but for failures.
    fn texts(words: &Words) -> Vec<&'static str> {
        let mut texts = vec![
            words.reconnect,
            words.asks,
            words.unexpected,
            words.profiles,
            words.next,
            words.go_on,
            words.revoke,
            words.is_connected,
            words.connected,
            words.connected_anew,
            words.gives_access,
            words.other_user,
            words.no_profiles,
            words.no_list,
            words.region_is_guess,
            words.more,
            words.question,
            words.differs,
            words.unknown_user,
            words.until_yes,
            words.now,
            words.after,
            words.not_known,
            words.keep,
            words.replace,
            words.unchanged,
            words.discarded,
            words.amazon_said,
        ];
        texts.extend(words.steps);
        texts
    }

    #[test]
    fn every_language_has_each_text_and_names_what_english_names() {
        let places = |text: &str| {
            let names = ["{account}", "{who}", "{region}", "{application}", "{count}"];
            names.map(|name| text.matches(name).count())
        };
        for words in ALL {
            for (text, english) in texts(words).into_iter().zip(texts(ENGLISH)) {
                assert_eq!(places(text), places(english), "{text}");
                assert!(!text.is_empty(), "{english}");
                let is_translated = text != english || words.language == "en";
                assert!(is_translated, "{}: {text}", words.language);
            }
        }
    }

    #[test]
    fn every_language_but_english_has_a_text_for_each_failure() {
        let codes = [
            Code::AccessDenied,
            Code::ScopeMissing,
            Code::LinkUsed,
            Code::StateUnknown,
            Code::OtherBrowser,
            Code::LwaUnavailable,
            Code::NotApproved,
        ];
        let mut seen = BTreeSet::new();
        for words in ALL {
            let Some(failures) = &words.failures else {
                assert_eq!(words.language, "en");
                continue;
            };
            for code in codes {
                let [title, text] = failures.of(code);
                assert!(text.len() > title.len(), "{title}");
                assert!(seen.insert(title) && seen.insert(text), "{}: {title}", words.language);
            }
        }
        assert_eq!(seen.len(), 6 * codes.len() * 2);
    }

    #[test]
    fn a_value_is_escaped_and_fills_nothing_else() {
        let html = fill("{who} & {account}", &[("account", "acme"), ("who", "<b>{account}")]);
        assert_eq!(html, "&lt;b&gt;{account} &amp; acme");
    }
}
