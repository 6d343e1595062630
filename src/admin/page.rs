//! Pages for browsers: own HTML, everything that came from elsewhere escaped, nothing loaded, no
//! script, not to be framed.

use super::{
    languages::{Words, fill},
    respond::{Reply, reply},
};
use crate::{
    login::{
        Confirmation, Connected, GrantProfiles, LoginError, LoginOutcome, ReconnectRequest,
        is_deceptive,
    },
    provider::ads::CONSENT_MANAGEMENT_URL,
};
use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{
    HeaderValue, StatusCode,
    header::{
        CONTENT_LANGUAGE, CONTENT_SECURITY_POLICY, HeaderName, REFERRER_POLICY, X_FRAME_OPTIONS,
    },
};
use std::fmt::{self, Display, Write as _};

const HTML: &str = "text/html; charset=utf-8";

pub(super) const CONFIRM_PATH: &str = "/api/auth/amazon/confirm";

/// So many profiles of a region are shown.
const SHOWN_MAX: usize = 25;

/// A long name breaks anywhere; a table keeps its words and scrolls by itself.
const STYLE: &str = ":root{color-scheme:light dark}\
    body{font:16px/1.5 system-ui,sans-serif;max-width:44rem;margin:2rem auto;padding:0 1rem;\
    color:#222;background:#fff;overflow-wrap:anywhere}h1{font-size:1.5rem}\
    .wide{overflow-x:auto;overflow-wrap:normal}table{border-collapse:collapse;width:100%}\
    td,th{text-align:start;vertical-align:top;padding:.2rem 1rem .2rem 0;\
    border-bottom:1px solid #ddd}code,td.id{font-family:ui-monospace,monospace}\
    blockquote{border-inline-start:4px solid #ccc;margin-inline-start:0;padding-inline-start:1rem;\
    color:#555}.more{color:#555;border-top:1px solid #ccc}button,a.button{font:inherit;padding:.4rem 1rem;margin:0 1rem .5rem 0;max-width:100%}\
    a.button{display:inline-block;border:1px solid;border-radius:.3rem;text-decoration:none;\
    color:inherit}@media(prefers-color-scheme:dark){body{color:#ddd;background:#1b1b1b}\
    td,th{border-color:#444}blockquote,.more{color:#aaa;border-color:#555}}";

/// The page of a login that went well, or of its question. Leads back to the dashboard where the
/// browser is signed in there.
pub(super) fn outcome(outcome: &LoginOutcome, words: &Words, has_dashboard: bool) -> Reply {
    match outcome {
        LoginOutcome::Connected(account) => connected(account, words, has_dashboard),
        LoginOutcome::Question(confirmation) => question(confirmation, words),
        LoginOutcome::Discarded { .. } | LoginOutcome::Failed { .. } => discarded(words),
    }
}

/// The page that a reconnect link leads to: who asks for what, before anything begins. `go_on` is the
/// address of the login.
pub(super) fn reconnect(request: &ReconnectRequest, go_on: &str, words: &Words) -> Reply {
    let values = [("account", request.account.alias()), ("who", request.who.as_str())];
    let mut body = format!("<p>{}</p>", fill(words.asks, &values));
    if !request.profiles.regions().is_empty() {
        body.push_str(&element("h2", words.profiles));
        body.push_str(&list(&request.profiles, words.profiles, words));
    }
    body.push_str(&element("h2", words.next));
    body.push_str("<ol>");
    for step in words.steps {
        body.push_str(&element("li", step));
    }
    body.push_str(&format!(
        "</ol><p><a class=\"button\" href=\"{}\">{}</a></p><p>{}</p><p>{} {CONSENT_MANAGEMENT_URL}</p>",
        Escaped(go_on),
        Escaped(words.go_on),
        Escaped(words.unexpected),
        Escaped(words.revoke),
    ));
    page(words, StatusCode::OK, &fill(words.reconnect, &values), &body)
}

fn connected(connected: &Connected, words: &Words, has_dashboard: bool) -> Reply {
    let Connected { account, region, application, replaced, profiles, region_is_guess } = connected;
    let values = [
        ("account", alias(account)),
        ("region", region.as_str()),
        ("application", application.as_str()),
    ];
    let text = if *replaced { words.connected_anew } else { words.connected };
    let mut body = format!("<p>{}</p>", fill(text, &values));
    if *region_is_guess {
        body.push_str(&element("p", words.region_is_guess));
    }
    body.push_str(&element("h2", words.gives_access));
    body.push_str(&list(profiles, words.gives_access, words));
    body.push_str(&element("p", words.other_user));
    if has_dashboard {
        // Its pages are in English.
        body.push_str("<p><a href=\"/dashboard\">Back to the dashboard</a></p>");
    }
    page(words, StatusCode::OK, &fill(words.is_connected, &values), &body)
}

fn question(question: &Confirmation, words: &Words) -> Reply {
    let Confirmation { account, token, before, now } = question;
    let values = [("account", alias(account))];
    let why = if before.is_some() { words.differs } else { words.unknown_user };
    let before = match before {
        Some(before) => list(before, words.now, words),
        None => element("p", words.not_known),
    };
    let body = format!(
        "<p>{why} {until_yes}</p><h2>{heading}</h2>{before}{after}{now}\
         <form method=\"post\" action=\"{CONFIRM_PATH}\">\
         <input type=\"hidden\" name=\"token\" value=\"{token}\">\
         <p><button name=\"answer\" value=\"no\">{keep}</button>\
         <button name=\"answer\" value=\"yes\">{replace}</button></p></form>",
        why = Escaped(why),
        until_yes = fill(words.until_yes, &values),
        heading = Escaped(words.now),
        after = element("h2", words.after),
        now = list(now, words.after, words),
        token = Escaped(token.expose()),
        keep = Escaped(words.keep),
        replace = fill(words.replace, &values),
    );
    page(words, StatusCode::OK, &fill(words.question, &values), &body)
}

/// What the person at the browser calls an account.
fn alias(id: &str) -> &str {
    id.split_once('~').map_or(id, |(_, alias)| alias)
}

fn discarded(words: &Words) -> Reply {
    let body = element("p", format_args!("{} {CONSENT_MANAGEMENT_URL}", words.discarded));
    page(words, StatusCode::OK, &Escaped(words.unchanged).to_string(), &body)
}

/// The page of a login that cannot go on. What is said in another language comes first; who can help
/// may need the words of the table of codes.
pub(super) fn error(error: &LoginError, status: StatusCode, words: &Words) -> Reply {
    let row = error.code.row();
    let quotation = error.quotation.as_ref().map_or_else(String::new, |quotation| {
        [element("p", words.amazon_said), element("blockquote", quotation)].concat()
    });
    let what = element("p", sentence(&error.to_string()));
    let rest = [element("p", row.advice), element("p", format_args!("({})", row.code))].concat();
    let (title, body) = match &words.failures {
        None => (row.title, [what, quotation, rest].concat()),
        Some(failures) => {
            let [title, text] = failures.of(error.code);
            let english = format!("<div class=\"more\" lang=\"en\">{what}{rest}</div>");
            (title, [element("p", text), quotation, english].concat())
        }
    };
    page(words, status, &Escaped(title).to_string(), &body)
}

/// An error's clause as a sentence.
pub(super) fn sentence(text: &str) -> String {
    let (first, rest) = text.split_at(text.chars().next().map_or(0, char::len_utf8));
    let end = if text.ends_with('.') { "" } else { "." };
    format!("{}{rest}{end}", first.to_uppercase())
}

/// The profiles of each region, below a `heading`.
fn list(profiles: &GrantProfiles, heading: &str, words: &Words) -> String {
    let mut body = String::new();
    let regions = profiles.regions();
    if regions.is_empty() {
        body.push_str(&element("p", words.no_list));
    }
    for (region, profiles) in regions {
        if profiles.is_empty() {
            body.push_str(&element("p", format_args!("{region}: {}", words.no_profiles)));
            continue;
        }
        body.push_str(&element("h3", region));
        body.push_str(&format!(
            "<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"{}, {region}\"><table><tr>",
            Escaped(heading)
        ));
        for column in words.columns {
            body.push_str(&format!("<th scope=\"col\">{}</th>", Escaped(column)));
        }
        body.push_str("</tr>");
        for profile in profiles.iter().take(SHOWN_MAX) {
            let [country, name, kind] =
                [&profile.country, &profile.name, &profile.kind].map(|text| Escaped(text));
            body.push_str(&format!(
                "<tr><td class=\"id\">{}</td><td>{country}</td><td>{name}</td><td>{kind}</td></tr>",
                profile.id
            ));
        }
        body.push_str("</table></div>");
        if profiles.len() > SHOWN_MAX {
            let more = profiles.len() - SHOWN_MAX;
            body.push_str(&format!("<p>{}</p>", fill(words.more, &[("count", &more.to_string())])));
        }
    }
    body
}

fn element(name: &str, text: impl Display) -> String {
    format!("<{name}>{}</{name}>", Escaped(&text.to_string()))
}

/// The template of every page, in the language of `words`; `title` is HTML. What keeps it from being
/// used against its reader is in its fields.
fn page(words: &Words, status: StatusCode, title: &str, body: &str) -> Reply {
    let language = words.language;
    let text = format!(
        "<!doctype html><html lang=\"{language}\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><link rel=\"icon\" href=\"data:,\"><title>{title} - adsproxy</title>\
         <style>{STYLE}</style></head><body><main><h1>{title}</h1>{body}</main></body></html>"
    );
    let mut response = reply(status, HTML, text);
    let style = STANDARD.encode(digest(&SHA256, STYLE.as_bytes()));
    // What comes from elsewhere is escaped, so this form is ours.
    let forms = if body.contains("<form") { "'self'" } else { "'none'" };
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{style}'; img-src data:; form-action {forms}; base-uri 'none'; \
         frame-ancestors 'none'"
    );
    let headers = response.headers_mut();
    let policy = HeaderValue::try_from(policy).expect("the policy is ASCII");
    headers.insert(CONTENT_LANGUAGE, HeaderValue::from_static(language));
    headers.insert(CONTENT_SECURITY_POLICY, policy);
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    let opener = HeaderName::from_static("cross-origin-opener-policy");
    headers.insert(opener, HeaderValue::from_static("same-origin"));
    response
}

/// Text escaped for HTML, in an element or in a quoted attribute.
pub(super) struct Escaped<'a>(pub(super) &'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c if is_deceptive(c) => f.write_str("\u{fffd}")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::languages::ENGLISH;
    use crate::{login::profiles::AdvertiserProfile, problem::Code};
    use http::{HeaderMap, header::ACCEPT_LANGUAGE};

    fn text(response: &Reply) -> &str {
        std::str::from_utf8(response.body()).expect("text")
    }

    const EVIL: &str = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>\u{7}&amp;";

    #[test]
    fn an_error_is_shown_as_a_sentence() {
        assert_eq!(sentence("the store does not work"), "The store does not work.");
        assert_eq!(sentence("Try again."), "Try again.");
        assert_eq!(sentence(""), ".");
    }

    #[test]
    fn whatever_comes_from_elsewhere_is_escaped() {
        let evil = AdvertiserProfile {
            id: -1,
            country: EVIL.into(),
            name: EVIL.into(),
            kind: EVIL.into(),
            currency: EVIL.into(),
        };
        let found = GrantProfiles { na: Some(vec![evil]), ..GrantProfiles::default() };
        let connected_page = connected(
            &Connected {
                account: EVIL.into(),
                region: EVIL.into(),
                application: EVIL.into(),
                region_is_guess: true,
                replaced: true,
                profiles: found.clone(),
            },
            ENGLISH,
            true,
        );
        let question_page = question(
            &Confirmation {
                account: "acme".into(),
                token: EVIL.into(),
                before: Some(found.clone()),
                now: found,
            },
            ENGLISH,
        );
        let problem_page = error(
            &LoginError { quotation: Some(EVIL.into()), ..Code::AccessDenied.into() },
            StatusCode::FORBIDDEN,
            ENGLISH,
        );
        let other = error(&LoginError::bad_request(EVIL), StatusCode::FORBIDDEN, ENGLISH);
        for page in [connected_page, question_page, problem_page, other] {
            let text = text(&page);
            assert!(text.contains("&lt;script&gt;"), "{text}");
            for sign in ["<script", "<img", "\u{7}", "\"'>"] {
                assert!(!text.contains(sign), "{sign} in {text}");
            }
        }
    }

    #[test]
    fn every_page_forbids_everything_it_does_not_need() {
        let asks = question(
            &Confirmation {
                account: "acme".into(),
                token: "t".into(),
                before: None,
                now: GrantProfiles::default(),
            },
            ENGLISH,
        );
        for (page, forms) in [(discarded(ENGLISH), "'none'"), (asks, "'self'")] {
            let headers = page.headers();
            let policy = headers[CONTENT_SECURITY_POLICY].to_str().expect("ASCII");
            assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
            assert!(policy.contains(&format!("form-action {forms};")), "{policy}");
            assert!(policy.ends_with("frame-ancestors 'none'") && !policy.contains("unsafe"));
            for (name, value) in [
                ("x-frame-options", "DENY"),
                ("referrer-policy", "no-referrer"),
                ("content-type", HTML),
            ] {
                assert_eq!(headers[name], value);
            }
        }
    }

    #[test]
    fn a_long_list_is_cut_and_says_so() {
        let profile = |id| AdvertiserProfile {
            id,
            country: "US".into(),
            name: "n".into(),
            kind: "k".into(),
            currency: "USD".into(),
        };
        let found = GrantProfiles {
            na: Some((0..5000).map(profile).collect()),
            eu: Some(Vec::new()),
            fe: None,
        };
        let body = list(&found, "Profiles", ENGLISH);
        assert!(body.contains("and 4975 more") && body.contains("eu: no profiles"), "{body}");
        assert!(body.len() < 4000);
        let german = HeaderMap::from_iter([(ACCEPT_LANGUAGE, HeaderValue::from_static("de"))]);
        let body = list(&found, "Profile", Words::of(&german));
        assert!(body.contains("und 4975 weitere") && !body.contains("more"), "{body}");
    }
}
