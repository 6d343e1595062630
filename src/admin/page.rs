//! Pages for browsers: own HTML, everything that came from elsewhere escaped, nothing loaded, no
//! script, not to be framed.

use super::respond::{Reply, reply};
use crate::{
    login::{Confirmation, Connected, GrantProfiles, LoginError, LoginOutcome, is_deceptive},
    provider::ads::CONSENT_MANAGEMENT_URL,
};
use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{
    HeaderValue, StatusCode,
    header::{CONTENT_SECURITY_POLICY, HeaderName, REFERRER_POLICY, X_FRAME_OPTIONS},
};
use std::fmt::{self, Display, Write as _};

const HTML: &str = "text/html; charset=utf-8";

pub(super) const CONFIRM_PATH: &str = "/api/auth/amazon/confirm";

/// So many profiles of a region are shown.
const SHOWN_MAX: usize = 25;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:44rem;margin:4rem auto;\
    padding:0 1rem;color:#222;background:#fff}h1{font-size:1.5rem}\
    table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.2rem 1rem .2rem 0;\
    border-bottom:1px solid #ddd}code,td.id{font-family:ui-monospace,monospace}\
    blockquote{border-left:4px solid #ccc;margin-left:0;padding-left:1rem;color:#555}\
    button{font:inherit;padding:.4rem 1rem;margin-right:1rem}\
    @media(prefers-color-scheme:dark){body{color:#ddd;background:#1b1b1b}td,th{border-color:#444}}";

/// The page of a login that went well, or of its question.
pub(super) fn outcome(outcome: &LoginOutcome) -> Reply {
    match outcome {
        LoginOutcome::Connected(account) => connected(account),
        LoginOutcome::Question(confirmation) => question(confirmation),
        LoginOutcome::Discarded { .. } | LoginOutcome::Failed { .. } => discarded(),
    }
}

fn connected(connected: &Connected) -> Reply {
    let Connected { account, region, application, replaced, profiles, region_is_guess } = connected;
    let account = alias(account);
    let how = if *replaced { "connected anew" } else { "connected" };
    let what = format_args!(
        "{account} is {how}: region {region}, application {application}. You can close this page."
    );
    let guess = if *region_is_guess {
        "<p>No region showed a profile, so the region is a guess: log in again with \
         <code>--region</code> if it is wrong.</p>"
    } else {
        ""
    };
    let body = format!(
        "{}{guess}<h2>Profiles this login gives access to</h2>{}<p>Are these not the ones you \
         meant? Then another Amazon user was signed in: log in again.</p>",
        element("p", what),
        list(profiles)
    );
    page(StatusCode::OK, &format!("{account} is connected"), &body, false)
}

fn question(question: &Confirmation) -> Reply {
    let Confirmation { account, token, before, now } = question;
    let account = alias(account);
    let why = match before {
        Some(_) => "has other profiles than the account has now",
        None => "may be another Amazon user's: the profiles of the account are not known",
    };
    let body = format!(
        "<p>The consent you just gave {why}. Until you say yes, {name} stays as it is.</p>\
         <h2>Now</h2>{before}<h2>After a yes</h2>{now}\
         <form method=\"post\" action=\"{CONFIRM_PATH}\">\
         <input type=\"hidden\" name=\"token\" value=\"{token}\">\
         <p><button name=\"answer\" value=\"no\">No, keep it</button>\
         <button name=\"answer\" value=\"yes\">Yes, replace {name}</button></p></form>",
        why = Escaped(why),
        name = Escaped(account),
        before = before.as_ref().map_or_else(|| "<p>Not known.</p>".to_owned(), list),
        now = list(now),
        token = Escaped(token.expose()),
    );
    page(StatusCode::OK, &format!("Replace {account}?"), &body, true)
}

/// What the person at the browser calls an account.
fn alias(id: &str) -> &str {
    id.split_once('~').map_or(id, |(_, alias)| alias)
}

fn discarded() -> Reply {
    let body = format!(
        "<p>The account stays as it was, and the new grant was discarded here. Amazon still lists \
         it: the user you signed in as can take it back at {CONSENT_MANAGEMENT_URL}.</p>"
    );
    page(StatusCode::OK, "Nothing was changed", &body, false)
}

/// The page of a login that cannot go on.
pub(super) fn error(error: &LoginError, status: StatusCode) -> Reply {
    let (row, message) = (error.code.row(), error.to_string());
    let (first, rest) = message.split_at(message.chars().next().map_or(0, char::len_utf8));
    let quotation = error.quotation.as_ref().map_or_else(String::new, |quotation| {
        format!("<p>Amazon said:</p>{}", element("blockquote", quotation))
    });
    let (what, advice) = (format_args!("{}{rest}.", first.to_uppercase()), row.advice);
    let code = format_args!("({})", row.code);
    let body = [element("p", what), quotation, element("p", advice), element("p", code)];
    page(status, row.title, &body.concat(), false)
}

fn list(profiles: &GrantProfiles) -> String {
    let mut body = String::new();
    let regions = profiles.regions();
    if regions.is_empty() {
        body.push_str("<p>No region of Amazon's listed its profiles.</p>");
    }
    for (region, profiles) in regions {
        if profiles.is_empty() {
            body.push_str(&element("p", format_args!("{region}: no profiles")));
            continue;
        }
        body.push_str(&element("h3", region));
        body.push_str("<table><tr><th>Profile</th><th>Country</th><th>Name</th><th>Type</th></tr>");
        for profile in profiles.iter().take(SHOWN_MAX) {
            let [country, name, kind] =
                [&profile.country, &profile.name, &profile.kind].map(|text| Escaped(text));
            body.push_str(&format!(
                "<tr><td class=\"id\">{}</td><td>{country}</td><td>{name}</td><td>{kind}</td></tr>",
                profile.id
            ));
        }
        body.push_str("</table>");
        if profiles.len() > SHOWN_MAX {
            let more = profiles.len() - SHOWN_MAX;
            body.push_str(&element("p", format_args!("and {more} more")));
        }
    }
    body
}

fn element(name: &str, text: impl Display) -> String {
    format!("<{name}>{}</{name}>", Escaped(&text.to_string()))
}

/// The template of every page; what keeps it from being used against its reader is
/// in its fields.
fn page(status: StatusCode, title: &str, body: &str, has_form: bool) -> Reply {
    let title = Escaped(title);
    let text = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{title} - adsproxy</title>\
         <style>{STYLE}</style></head><body><h1>{title}</h1>{body}</body></html>"
    );
    let mut response = reply(status, HTML, text);
    let style = STANDARD.encode(digest(&SHA256, STYLE.as_bytes()));
    let forms = if has_form { "'self'" } else { "'none'" };
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{style}'; form-action {forms}; base-uri 'none'; \
         frame-ancestors 'none'"
    );
    let headers = response.headers_mut();
    let policy = HeaderValue::try_from(policy).expect("the policy is ASCII");
    headers.insert(CONTENT_SECURITY_POLICY, policy);
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    let opener = HeaderName::from_static("cross-origin-opener-policy");
    headers.insert(opener, HeaderValue::from_static("same-origin"));
    response
}

/// Text escaped for HTML, in an element or in a quoted attribute.
struct Escaped<'a>(&'a str);

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
    use crate::{login::profiles::AdvertiserProfile, problem::Code};

    fn text(response: &Reply) -> &str {
        std::str::from_utf8(response.body()).expect("text")
    }

    const EVIL: &str = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>\u{7}&amp;";

    #[test]
    fn whatever_comes_from_elsewhere_is_escaped() {
        let evil = AdvertiserProfile {
            id: -1,
            country: EVIL.into(),
            name: EVIL.into(),
            kind: EVIL.into(),
        };
        let found = GrantProfiles { na: Some(vec![evil]), ..GrantProfiles::default() };
        let connected_page = connected(&Connected {
            account: EVIL.into(),
            region: EVIL.into(),
            application: EVIL.into(),
            region_is_guess: true,
            replaced: true,
            profiles: found.clone(),
        });
        let question_page = question(&Confirmation {
            account: "acme".into(),
            token: EVIL.into(),
            before: Some(found.clone()),
            now: found,
        });
        let problem_page = error(
            &LoginError { quotation: Some(EVIL.into()), ..Code::AccessDenied.into() },
            StatusCode::FORBIDDEN,
        );
        let other = error(&LoginError::bad_request(EVIL), StatusCode::FORBIDDEN);
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
        let asks = question(&Confirmation {
            account: "acme".into(),
            token: "t".into(),
            before: None,
            now: GrantProfiles::default(),
        });
        for (page, forms) in [(discarded(), "'none'"), (asks, "'self'")] {
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
        let profile =
            |id| AdvertiserProfile { id, country: "US".into(), name: "n".into(), kind: "k".into() };
        let found = GrantProfiles {
            na: Some((0..5000).map(profile).collect()),
            eu: Some(Vec::new()),
            fe: None,
        };
        let body = list(&found);
        assert!(body.contains("and 4975 more") && body.contains("eu: no profiles"), "{body}");
        assert!(body.len() < 4000);
    }
}
