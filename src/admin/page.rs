//! Pages for people: own HTML, everything that came from elsewhere escaped, nothing loaded, no
//! script, not to be framed.

use super::respond::respond;
use crate::{
    login::{Confirmation, Connected, GrantProfiles, LoginError, LoginOutcome, is_deceptive},
    provider::ads::CONSENT_MANAGEMENT_URL,
};
use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{
    HeaderValue, Response, StatusCode,
    header::{CONTENT_SECURITY_POLICY, HeaderName, REFERRER_POLICY, X_FRAME_OPTIONS},
};
use http_body_util::Full;
use std::fmt::{Display, Write as _};

const HTML: &str = "text/html; charset=utf-8";

/// Where a question is answered.
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
pub(super) fn outcome(outcome: &LoginOutcome) -> Response<Full<Bytes>> {
    match outcome {
        LoginOutcome::Connected(account) => connected(account),
        LoginOutcome::Question(confirmation) => question(confirmation),
        LoginOutcome::Discarded { .. } | LoginOutcome::Failed { .. } => discarded(),
    }
}

fn connected(connected: &Connected) -> Response<Full<Bytes>> {
    let Connected { account, region, application, replaced, profiles, region_is_guess } = connected;
    let mut body = String::new();
    let how = if *replaced { "connected anew" } else { "connected" };
    line(
        &mut body,
        "p",
        format_args!(
            "{account} is {how}: region {region}, application {application}. You can close this page."
        ),
    );
    if *region_is_guess {
        body.push_str("<p>No region showed a profile, so the region is a guess: log in again with <code>--region</code> if it is wrong.</p>");
    }
    body.push_str("<h2>Whom you became</h2>");
    list(&mut body, profiles);
    body.push_str("<p>Are these not the ones you meant? Then another Amazon user was signed in: log in again.</p>");
    page(StatusCode::OK, &format!("{account} is connected"), &body, false)
}

fn question(question: &Confirmation) -> Response<Full<Bytes>> {
    let Confirmation { account, token, before, now } = question;
    let mut body = String::new();
    let why = match before {
        Some(_) => "has other profiles than the account has now",
        None => "may be another Amazon user's: what profiles the account had before cannot be told",
    };
    line(
        &mut body,
        "p",
        format_args!(
            "The consent you just gave {why}. Until you say yes, {account} stays as it is."
        ),
    );
    body.push_str("<h2>Now</h2>");
    match before {
        Some(before) => list(&mut body, before),
        None => body.push_str("<p>Not known.</p>"),
    }
    body.push_str("<h2>After a yes</h2>");
    list(&mut body, now);
    let token = Escaped(token.expose());
    write!(
        body,
        "<form method=\"post\" action=\"{CONFIRM_PATH}\">\
         <input type=\"hidden\" name=\"token\" value=\"{token}\">\
         <p><button name=\"answer\" value=\"no\">No, keep it</button>\
         <button name=\"answer\" value=\"yes\">Yes, replace {account}</button></p></form>"
    )
    .expect("writing to a String cannot fail");
    page(StatusCode::OK, &format!("Replace {account}?"), &body, true)
}

fn discarded() -> Response<Full<Bytes>> {
    let body = format!(
        "<p>The account stays as it was, and the new grant was thrown away here. Amazon still \
         lists it: the user you signed in as can take it back at {CONSENT_MANAGEMENT_URL}.</p>"
    );
    page(StatusCode::OK, "Nothing was changed", &body, false)
}

/// The page of a login that cannot go on.
pub(super) fn error(error: &LoginError) -> Response<Full<Bytes>> {
    let mut body = String::new();
    let row = error.cause.row();
    let message = error.to_string();
    let mut letters = message.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    line(&mut body, "p", format_args!("{first}{}.", letters.as_str()));
    if let Some(said) = &error.quotation {
        line(&mut body, "p", "Amazon said:");
        line(&mut body, "blockquote", said);
    }
    line(&mut body, "p", row.advice);
    line(&mut body, "p", format_args!("({})", row.code));
    let status = StatusCode::from_u16(row.status).unwrap_or(StatusCode::BAD_REQUEST);
    page(status, row.title, &body, false)
}

fn list(body: &mut String, found: &GrantProfiles) {
    let regions = found.regions();
    if regions.is_empty() {
        body.push_str("<p>No region of Amazon's told its profiles.</p>");
    }
    for (region, profiles) in regions {
        if profiles.is_empty() {
            line(body, "p", format_args!("{region}: no profiles"));
            continue;
        }
        line(body, "h3", region);
        body.push_str("<table><tr><th>Profile</th><th>Country</th><th>Name</th><th>Type</th></tr>");
        for profile in profiles.iter().take(SHOWN_MAX) {
            write!(
                body,
                "<tr><td class=\"id\">{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
                profile.id,
                Escaped(&profile.country),
                Escaped(&profile.name),
                Escaped(&profile.kind)
            )
            .expect("writing to a String cannot fail");
        }
        body.push_str("</table>");
        if let Some(more) = profiles.len().checked_sub(SHOWN_MAX).filter(|more| *more > 0) {
            line(body, "p", format_args!("and {more} more"));
        }
    }
}

/// One element with a text in it.
fn line(body: &mut String, element: &str, text: impl Display) {
    write!(body, "<{element}>{}</{element}>", Escaped(&text.to_string()))
        .expect("writing to a String cannot fail");
}

fn page(status: StatusCode, title: &str, body: &str, asks: bool) -> Response<Full<Bytes>> {
    let title = Escaped(title);
    let text = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{title} - adsproxy</title>\
         <style>{STYLE}</style></head><body><h1>{title}</h1>{body}</body></html>"
    );
    let mut response = respond(status, HTML, text);
    secure(&mut response, asks);
    response
}

/// What keeps a page from being used against the person who looks at it.
fn secure(response: &mut Response<Full<Bytes>>, asks: bool) {
    let style = STANDARD.encode(digest(&SHA256, STYLE.as_bytes()));
    let forms = if asks { "'self'" } else { "'none'" };
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
}

/// Text as it stands in HTML, in an element or in a quoted attribute.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
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
    use crate::login::{LoginCause, profiles::AdvertiserProfile};
    use http_body_util::BodyExt;

    async fn text(response: Response<Full<Bytes>>) -> String {
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        String::from_utf8(body.into()).expect("text")
    }

    const EVIL: &str = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>\u{7}&amp;";

    #[tokio::test]
    async fn whatever_comes_from_elsewhere_is_escaped() {
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
        let problem_page =
            error(&LoginError { quotation: Some(EVIL.into()), ..LoginCause::Denied.into() });
        let other = error(&LoginError::bad_request(EVIL));
        for page in [connected_page, question_page, problem_page, other] {
            let text = text(page).await;
            assert!(text.contains("&lt;script&gt;"), "{text}");
            for sign in ["<script", "<img", "\u{7}", "\"'>"] {
                assert!(!text.contains(sign), "{sign} in {text}");
            }
        }
    }

    #[tokio::test]
    async fn every_page_forbids_everything_it_does_not_need() {
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
                ("x-content-type-options", "nosniff"),
                ("cache-control", "no-store"),
                ("referrer-policy", "no-referrer"),
                ("content-type", HTML),
            ] {
                assert_eq!(headers[name], value);
            }
        }
    }

    #[tokio::test]
    async fn a_long_list_is_cut_and_says_so() {
        let profile =
            |id| AdvertiserProfile { id, country: "US".into(), name: "n".into(), kind: "k".into() };
        let found = GrantProfiles {
            na: Some((0..5000).map(profile).collect()),
            eu: Some(Vec::new()),
            fe: None,
        };
        let mut body = String::new();
        list(&mut body, &found);
        assert!(body.contains("and 4975 more") && body.contains("eu: no profiles"), "{body}");
        assert!(body.len() < 4000);
    }
}
