//! The browsers that are signed in: a visitor's own, to an operator those of all; and their end.

use super::{
    CSRF,
    callers::HERE,
    cookie::{is_name, removal},
    redirect,
    session::BrowserSession,
    visitor::Visitor,
};
use crate::{
    admin::{AdminCall, respond::Handled},
    audit::Action,
    hooks::rfc3339,
    login::LoginError,
    problem::Code,
    secret::Secret,
};
use http::{HeaderMap, HeaderValue, header::USER_AGENT};

/// Sessions on the page.
const SHOWN_MAX: usize = 200;

/// A browser as the page shows it: neither its cookie nor a hash of that is in it.
pub(super) struct BrowserRow {
    pub(super) name: String,
    pub(super) who: String,
    pub(super) agent: String,
    pub(super) signed_in: String,
    pub(super) used: String,
    pub(super) ends: String,
    pub(super) is_this: bool,
    pub(super) is_own: bool,
    /// There is a button to end it.
    pub(super) may_end: bool,
}

/// Which sessions to end.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ended<'e> {
    /// The visitor's own.
    This,
    /// Each of the same visitor.
    All,
    /// Each of the same visitor but its own.
    Others,
    /// The one of this name; only an operator may name another visitor's.
    Named(&'e str),
}

/// The browsers in sight, the one that was used last first, and whether there are more.
pub(super) async fn rows(call: &AdminCall) -> Result<(Vec<BrowserRow>, bool), LoginError> {
    let (admin, visitor) = (&call.admin, call.visitor.as_deref().ok_or(Code::Internal)?);
    let tag = visitor.identity.tag();
    let mut names = admin.browsers().names().await?;
    match visitor.is_operator() {
        // Its own are never those that are left out.
        true => names.sort_by_key(|name| !name.starts_with(&tag)),
        false => names.retain(|name| name.starts_with(&tag)),
    }
    let has_more = names.len() > SHOWN_MAX;
    names.truncate(SHOWN_MAX);
    let mut sessions = admin.sessions_of(names).await?;
    sessions.retain(|(_, it)| visitor.is_operator() || it.identity == visitor.identity);
    sessions.sort_by_key(|(name, it)| (*name != visitor.key, u64::MAX - it.used));
    let row = |(name, session): (String, BrowserSession)| BrowserRow {
        who: session.identity.name(admin.principal_of(&session.identity).ok().flatten().as_deref()),
        signed_in: rfc3339(session.signed_in),
        used: rfc3339(session.used),
        ends: rfc3339(session.end()),
        is_this: name == visitor.key,
        is_own: session.identity == visitor.identity,
        may_end: name != visitor.key
            && (session.identity == visitor.identity || visitor.may_end_any()),
        agent: session.agent,
        name,
    };
    Ok((sessions.into_iter().map(row).collect(), has_more))
}

/// The visitor that a form is of, by its token. A visitor that may only read ends its sessions, too.
pub(super) async fn visitor_of(call: &AdminCall) -> Result<Option<Visitor>, LoginError> {
    let Some(visitor) = call.admin.visitor(&call.parts.headers).await? else { return Ok(None) };
    let is_right = call.form.any(CSRF).is_some_and(|it| Secret::new(it) == visitor.csrf);
    match is_right {
        true => Ok(Some(visitor)),
        false => Err(LoginError::new(
            Code::CallerRejected,
            "this form is none of your session: load the page again",
        )),
    }
}

/// Ends the browser that the path names.
pub(in crate::admin) async fn end_one(call: AdminCall) -> Handled {
    end_from_form(&call, Ended::Named(&call.segment)).await
}

/// Ends the visitor's other browsers.
pub(in crate::admin) async fn end_others(call: AdminCall) -> Handled {
    end_from_form(&call, Ended::Others).await
}

async fn end_from_form(call: &AdminCall, which: Ended<'_>) -> Handled {
    if let Some(visitor) = visitor_of(call).await? {
        let ended = end(call, &visitor, which).await?;
        if ended == 0 && matches!(which, Ended::Named(_)) {
            return Err(LoginError::new(Code::NotFound, "there is no such browser any more"));
        }
    }
    Ok(redirect(HERE))
}

/// Ends sessions; how many there were. Those that are not the visitor's to end are not there.
pub(super) async fn end(
    call: &AdminCall,
    visitor: &Visitor,
    which: Ended<'_>,
) -> Result<u64, LoginError> {
    let admin = &call.admin;
    let names = match which {
        Ended::This => vec![visitor.key.clone()],
        Ended::All | Ended::Others => admin.names_of(&visitor.identity).await?,
        Ended::Named(name) if is_name(name) => vec![name.to_owned()],
        Ended::Named(_) => Vec::new(),
    };
    let may_end_any = matches!(which, Ended::Named(_)) && visitor.may_end_any();
    let (mut ended, mut whose) = (0, None);
    for (name, session) in admin.sessions_of(names).await? {
        let is_own = session.identity == visitor.identity;
        let is_kept = matches!(which, Ended::Others) && name == visitor.key;
        if (is_own || may_end_any) && !is_kept && admin.end_session(&name).await? {
            ended += 1;
            whose = Some(session.identity).filter(|_| !is_own);
        }
    }
    if ended > 0 {
        let logins = &call.logins;
        let logins = logins.for_request(&logins.request_id, None, visitor.actor(admin));
        let mut entry = logins.entry_of(Action::DashboardSignOut).count(ended);
        if let Some(identity) = whose {
            entry = entry.about(&identity.name(None));
        }
        // What has ended stays ended; the log of the audit log reports a failure.
        let _ = logins.engine.audit().write(entry).await;
    }
    Ok(ended)
}

/// Signs the browser out, or `everywhere` each browser of the same visitor; what its cookie becomes.
pub(super) async fn sign_out(
    call: &AdminCall,
    visitor: &Visitor,
    everywhere: bool,
) -> Result<HeaderValue, LoginError> {
    end(call, visitor, if everywhere { Ended::All } else { Ended::This }).await?;
    Ok(removal(&call.parts.headers))
}

/// The browser and the system that the `User-Agent` field names, in the words people use.
pub(super) fn agent(headers: &HeaderMap) -> String {
    let field = headers.get(USER_AGENT).map_or(&b""[..], HeaderValue::as_bytes);
    let named = |known: &[(&str, &'static str)]| {
        let is_in = |part: &str| field.windows(part.len()).any(|it| it == part.as_bytes());
        known.iter().find(|(part, _)| is_in(part)).map(|(_, name)| *name)
    };
    // In this order: most browsers name those that they descend from, too.
    let browser = named(&[
        ("Edg", "Edge"),
        ("OPR/", "Opera"),
        ("Firefox/", "Firefox"),
        ("Chrom", "Chrome"),
        ("CriOS/", "Chrome"),
        ("Safari/", "Safari"),
    ]);
    let system = named(&[
        ("Android", "Android"),
        ("iPhone", "iOS"),
        ("iPad", "iOS"),
        ("Windows", "Windows"),
        ("Mac OS X", "macOS"),
        ("Linux", "Linux"),
    ]);
    match (browser, system) {
        (Some(browser), Some(system)) => format!("{browser} on {system}"),
        (one, other) => one.or(other).unwrap_or("unknown").to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_is_called_what_people_call_it() {
        for (field, name) in [
            (
                "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0",
                "Firefox on Linux",
            ),
            (
                "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like \
                 Gecko) Version/26.0 Safari/605.1.15",
                "Safari on macOS",
            ),
            (
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) \
                 Chrome/142.0.0.0 Safari/537.36 Edg/142.0.0.0",
                "Edge on Windows",
            ),
            (
                "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) \
                 Chrome/142.0.0.0 Mobile Safari/537.36",
                "Chrome on Android",
            ),
            ("<script>Firefox/1", "Firefox"),
            ("curl/8", "unknown"),
            ("", "unknown"),
        ] {
            let value = HeaderValue::from_str(field).expect("a value");
            assert_eq!(agent(&[(USER_AGENT, value)].into_iter().collect()), name);
        }
        assert_eq!(agent(&HeaderMap::new()), "unknown");
    }
}
