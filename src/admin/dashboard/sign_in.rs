//! Signing in: by a link of the control socket, by a key, or by a token that a proxy in front or an
//! app of the same site brings; and signing out.

use super::{
    Frame, HOME, browsers,
    cookie::is_secure,
    failed,
    identity::VisitorIdentity,
    oidc::{self, OidcButton},
    page, redirect,
    session::{self, LINK_LIFETIME, item, limit},
};
use crate::{
    admin::{
        AdminCall,
        arguments::{Arguments, cookies},
        respond::{Handled, Reply, json_with},
    },
    callers::{Principal, Unauthenticated, key::KeyKind},
    inbound::{fields::bearer_token, peer::Origin},
    login::{LoginError, key_of},
    lwa::authorize::random_text,
    problem::{Code, Problem},
    secret::Secret,
    store::Space,
};
use askama::Template;
use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{AUTHORIZATION, SET_COOKIE},
    request::Parts,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;

pub(super) const SIGN_IN: &str = "/dashboard/sign-in";
/// The cookie of Clerk's sessions.
const CLERK_COOKIE: &str = "__session";

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignInPage {
    frame: Frame,
    /// Why the page is shown again.
    error: Option<String>,
    /// A link that is good, as it seems, and not used yet.
    link: Option<String>,
    /// The request brings a token.
    has_token: bool,
    oidc: Option<OidcButton>,
    needs_fresh: bool,
    next: String,
}

/// What is kept of a link.
#[derive(Serialize, Deserialize)]
struct SignInLink {
    uid: u32,
}

/// What a request without a session gets: a browser the page to sign in, a program a problem.
pub(in crate::admin) fn ask(parts: &Parts, request_id: &HeaderValue) -> Reply {
    if parts.method == Method::GET && crate::admin::oauth::wants_html(&parts.headers) {
        let next = parts.uri.path_and_query().map_or(HOME, |path| path.as_str());
        return redirect(&address(next, false));
    }
    failed(&Code::AuthenticationRequired.into(), request_id)
}

/// The page to sign in, which leads on to `next`.
pub(super) fn address(next: &str, needs_fresh: bool) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("next", next);
    if needs_fresh {
        query.append_pair("fresh", "1");
    }
    format!("{SIGN_IN}?{}", query.finish())
}

pub(in crate::admin) async fn show(call: AdminCall) -> Handled {
    shown(&call, &call.query, StatusCode::OK, None)
}

/// The page to sign in; what `said` holds is kept in its forms.
pub(super) fn shown(
    call: &AdminCall,
    said: &Arguments,
    status: StatusCode,
    error: Option<String>,
) -> Handled {
    let has_token = token(&call.parts.headers).is_some();
    let (next, needs_fresh) = (next(said), said.any("fresh").is_some());
    let page_of = SignInPage {
        frame: Frame::bare("Sign in"),
        link: said.any("link").filter(|_| error.is_none()),
        has_token: has_token && call.admin.0.sessions.callers().reads_tokens(),
        oidc: oidc::button(call, &next, needs_fresh),
        needs_fresh,
        next,
        error,
    };
    page(status, &page_of)
}

/// Where to go after the sign-in: a page of the dashboard.
pub(super) fn next(said: &Arguments) -> String {
    let is_ours = |path: &String| {
        let rest = path.strip_prefix(HOME);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
            && path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\')
    };
    said.any("next").filter(is_ours).unwrap_or_else(|| HOME.to_owned())
}

pub(in crate::admin) async fn sign_in(call: AdminCall) -> Handled {
    match identify(&call).await {
        Ok(identity) => {
            let cookie = session::begin(&call, identity, is_secure(&call.parts.headers)).await?;
            let mut response = redirect(&next(&call.form));
            response.headers_mut().append(SET_COOKIE, cookie);
            Ok(response)
        }
        Err(Rejected::Failed(error)) => Err(error),
        Err(Rejected::Credential(why)) => {
            let (status, text) = match why {
                Unauthenticated::TooMany(_) => (
                    StatusCode::TOO_MANY_REQUESTS,
                    "Too many credentials from this address were not accepted. Wait a minute.",
                ),
                _ => (StatusCode::FORBIDDEN, "That is not accepted here."),
            };
            if !matches!(why, Unauthenticated::TooMany(_)) {
                // Counted in the audit log as any wrong credential is.
                let _ = call.admin.refuse(Unauthenticated::Rejected, &call.request_id).await;
            }
            shown(&call, &call.form, status, Some(text.to_owned()))
        }
    }
}

/// Why a browser is not signed in.
enum Rejected {
    Credential(Unauthenticated),
    Failed(LoginError),
}

impl<T: Into<LoginError>> From<T> for Rejected {
    fn from(error: T) -> Self {
        Self::Failed(error.into())
    }
}

/// Who signs in, by the one thing that the form holds, or by the token of the request.
async fn identify(call: &AdminCall) -> Result<VisitorIdentity, Rejected> {
    let (callers, now) = (call.admin.0.sessions.callers(), call.logins.engine.clock().now());
    let origin = call.admin.1.as_ref().map_or(Origin::User(u32::MAX), |it| it.peer.origin());
    let wrong = || Rejected::Credential(callers.rejected(origin, now));
    if let Some(link) = call.form.any("link") {
        let links = call.logins.engine.store().entries(Space::SignInLinks);
        let taken = links.take(&key_of(&link)).await?;
        let good = taken.filter(|item| {
            item.expires_at_ms.is_some_and(|until| until > now.unix().saturating_mul(1000))
        });
        let good =
            good.and_then(|item| serde_json::from_str::<SignInLink>(item.text.expose()).ok());
        return good.map(|SignInLink { uid }| VisitorIdentity::User { uid }).ok_or_else(wrong);
    }
    let principal = match call.form.any("key").map(Secret::new) {
        // The key of a session would outlive what ends it.
        Some(key) if KeyKind::of(key.expose().trim()) == Some(KeyKind::Caller) => {
            callers.of_key(key.expose().trim(), origin, now)
        }
        Some(_) => return Err(wrong()),
        None => {
            let token = token(&call.parts.headers);
            let token = token.ok_or(Rejected::Credential(Unauthenticated::Missing))?;
            callers.of_token(token.expose(), origin, &**call.logins.engine.clock()).await
        }
    };
    let principal: Arc<Principal> = principal.map_err(Rejected::Credential)?;
    let config = call.logins.engine.config();
    let issuer = config.issuers.iter().find(|issuer| issuer.name == *principal.caller.name);
    let identity = VisitorIdentity::of(&principal, issuer.map(|issuer| issuer.issuer.clone()));
    identity.ok_or_else(|| {
        let why = "the dashboard is for operators (operator = true) and for callers of a tenant";
        Rejected::Failed(LoginError::new(Code::CallerRejected, why))
    })
}

/// The token that a proxy in front adds to each request, or that Clerk's script keeps in a cookie.
fn token(headers: &HeaderMap) -> Option<Secret> {
    let mut bearers = headers.get_all(AUTHORIZATION).iter().filter_map(bearer_token);
    let bearer = bearers.next().and_then(|token| str::from_utf8(token).ok()).map(Secret::from);
    let cookie = || {
        let found = cookies(headers).into_iter().find(|(name, _)| name == CLERK_COOKIE);
        found.map(|(_, value)| value)
    };
    bearer.or_else(cookie).filter(|token| token.expose().starts_with("eyJ"))
}

pub(in crate::admin) async fn sign_out(call: AdminCall) -> Handled {
    let mut response = redirect(SIGN_IN);
    let visitor = browsers::visitor_of(&call).await;
    if visitor.as_ref().is_err_and(|error| error.code == Code::StoreFailed) {
        call.admin.forget_visitor(&call.parts.headers);
    }
    if let Some(visitor) = visitor? {
        let everywhere = call.form.any("everywhere").is_some();
        let cookie = browsers::sign_out(&call, &visitor, everywhere).await?;
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    Ok(response)
}

/// Makes a link that signs a browser in as the user of the control socket's peer.
pub(in crate::admin) async fn link(call: AdminCall) -> Handled {
    let engine = &call.logins.engine;
    let config = engine.config();
    let address = config.listen.admin_tcp();
    let url = config.dashboard.url.clone();
    if address.is_none() && url.is_none() {
        let detail = "The dashboard is on the admin listener, and listen.admin is no TCP address: set \
                      dashboard.url to the address of the proxy in front of it.";
        return Ok(Problem { detail, ..Code::NotFound.problem() }.respond(&call.request_id));
    }
    let peer = call.admin.1.as_ref().and_then(|it| it.peer.uid());
    let uid = peer.unwrap_or_else(|| rustix::process::getuid().as_raw());
    let (secret, now) = (random_text(), engine.clock().now().unix());
    let kept = item(&SignInLink { uid }, now + LINK_LIFETIME.as_secs());
    let links = engine.store().entries(Space::SignInLinks);
    links.put(&key_of(secret.expose()), &kept, limit(now)).await?;
    let link = json!({
        "address": address.map(|address| address.to_string()),
        "url": url,
        "path": format!("{SIGN_IN}?link={}", secret.expose()),
        "expires_in": LINK_LIFETIME.as_secs(),
    });
    Ok(json_with(StatusCode::CREATED, &link))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_in_leads_to_pages_of_the_dashboard_only() {
        let next = |query| next(&Arguments::of_form(query));
        assert_eq!(next("next=/dashboard/accounts/acme?x=1"), "/dashboard/accounts/acme?x=1");
        assert_eq!(next("next=/dashboard?q=a"), "/dashboard?q=a");
        for other in [
            "",
            "next=//evil.test",
            "next=https://evil.test/dashboard",
            "next=/dashboards",
            "next=/dashboard.evil.test",
            "next=/dashboard/%0d%0aset-cookie:x",
            "next=/status",
            "next=/dashboard/a%5cb",
            "next=/dashboard&next=/dashboard/x",
        ] {
            assert_eq!(next(other), "/dashboard", "{other}");
        }
    }
}
