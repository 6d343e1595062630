//! Signing in by an OpenID provider: on the way to it, and back with a code.

use super::{
    Frame,
    attempt::{self, SignInAttempt},
    identity::VisitorIdentity,
    page, redirect, session,
    sign_in::{self, next, shown},
};
use crate::{
    admin::{AdminCall, arguments::Arguments, no_route, respond::Handled},
    callers::{
        Unauthenticated,
        jwt::{IdTokenRules, JwtRejection},
        oidc::{CodeExchange, OidcError, exchange},
        sessions::SessionUser,
    },
    config::{IssuerConfig, OidcConfig},
    error_chain::chain,
    login::LoginError,
    problem::Code,
    secret::Secret,
    store,
};
use askama::Template;
use http::{
    HeaderValue, Method, StatusCode,
    header::{HOST, ORIGIN, REFRESH, SET_COOKIE},
};

/// Where the provider sends the browser back to, below `dashboard.url`.
const CALLBACK: &str = "/dashboard/oidc/callback";
/// What a provider says of an error may be shown up to here.
const QUOTATION_MAX_CHARS: usize = 200;

/// Why the browser is not signed in, as the page to sign in says it.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("Too many sign-ins were begun from this address. Wait a minute.")]
    TooMany,
    #[error(
        "This response belongs to no sign-in under way: it was used already, is too old, or was \
         never asked for. Begin again."
    )]
    Unknown,
    #[error(
        "This sign-in was begun in another browser, or this one did not keep its cookie. Begin \
         again here."
    )]
    OtherBrowser,
    #[error("The sign-in took longer than ten minutes. Begin again.")]
    TooLate,
    #[error("The configuration was changed since this sign-in was begun. Begin again.")]
    Changed,
    #[error("The response is not one of {name} (iss). Begin again.")]
    OtherIssuer { name: String },
    #[error("{name} {}{}", meaning(.code), quoted(.code, .words))]
    Denied { name: String, code: String, words: String },
    #[error("{}", provider_failed(.name, .source))]
    Provider { name: String, source: OidcError },
    #[error(
        "The dashboard is for operators and for users of a tenant. An operator is listed in \
         dashboard.oidc.operators; {name} calls you {subject:?}."
    )]
    NoVisitor { name: String, subject: String },
    #[error(transparent)]
    Other(#[from] LoginError),
}

impl From<store::Error> for Failure {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Full => Self::TooMany,
            error => Self::Other(error.into()),
        }
    }
}

impl Failure {
    fn status(&self) -> StatusCode {
        match self {
            Self::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Self::Unknown | Self::TooLate => StatusCode::BAD_REQUEST,
            Self::Changed => StatusCode::CONFLICT,
            Self::Provider { source: OidcError::Timeout, .. } => StatusCode::GATEWAY_TIMEOUT,
            Self::Provider { source: OidcError::IdToken(_), .. } => StatusCode::FORBIDDEN,
            Self::Provider { source: OidcError::Refused { code: "invalid_grant", .. }, .. } => {
                StatusCode::FORBIDDEN
            }
            Self::Provider { .. } => StatusCode::BAD_GATEWAY,
            Self::OtherBrowser
            | Self::OtherIssuer { .. }
            | Self::Denied { .. }
            | Self::NoVisitor { .. } => StatusCode::FORBIDDEN,
            Self::Other(error) => error.code.row().status,
        }
    }

    /// Whether a response that is none counts as a wrong credential does. One that belongs to no sign-in
    /// does not: any page can send a browser here with it, and no state is guessed.
    fn is_suspicious(&self) -> bool {
        matches!(self, Self::OtherBrowser | Self::OtherIssuer { .. })
            || matches!(self, Self::Provider { source: OidcError::IdToken(_), .. })
    }
}

/// RFC 6749, 4.1.2.1; OpenID Connect Core 1.0, 3.1.2.6.
fn meaning(code: &str) -> &'static str {
    match code {
        "access_denied" => "denied access.",
        "login_required" | "interaction_required" | "account_selection_required" => {
            "wants you to sign in there first."
        }
        "consent_required" => "wants your consent first.",
        "temporarily_unavailable" | "server_error" => "does not work. Try again in a minute.",
        "unauthorized_client" | "invalid_scope" | "unsupported_response_type" => {
            "does not allow this: check dashboard.oidc, and the client there."
        }
        _ => "rejected the sign-in.",
    }
}

fn quoted(code: &str, words: &str) -> String {
    let words: String = words.chars().take(QUOTATION_MAX_CHARS).collect();
    let code: String = code.chars().take(QUOTATION_MAX_CHARS).collect();
    if words.is_empty() {
        format!(" ({code})")
    } else {
        format!(" It says: “{words}” ({code})")
    }
}

fn provider_failed(name: &str, error: &OidcError) -> String {
    match error {
        OidcError::Discovery(_) => format!(
            "{name} cannot be reached, or its discovery document cannot be used; the server's log \
             says why. Try again in a minute, or sign in with a key."
        ),
        OidcError::Timeout | OidcError::Unreachable(_) => {
            format!("{name} does not respond. Try again in a minute, or sign in with a key.")
        }
        OidcError::Refused { code: "invalid_grant", .. } => {
            format!(
                "{name} does not accept its code any more: it was used, or is too old. Begin again."
            )
        }
        OidcError::Refused { code: "invalid_client" | "unauthorized_client", .. } => format!(
            "{name} does not accept this server: check client_id and client_secret of \
             dashboard.oidc."
        ),
        OidcError::Refused { .. } | OidcError::NoIdToken => {
            format!("{name} gave no ID token; the server's log says why.")
        }
        OidcError::IdToken(JwtRejection::Tenant | JwtRejection::ForeignTenant) => format!(
            "{name} names no tenant of yours that is accepted here. Choose another organisation \
             there, or ask an operator."
        ),
        OidcError::IdToken(JwtRejection::Authentication) => {
            format!("{name} did not ask you to sign in again, which this needs.")
        }
        OidcError::IdToken(_) => {
            format!("The ID token of {name} is not accepted; the server's log says why.")
        }
    }
}

/// The button to sign in by the provider.
pub(super) struct OidcButton {
    pub(super) name: String,
    /// The page to sign in at the address that the browser comes back to, if it is at another one.
    pub(super) elsewhere: Option<String>,
}

#[derive(Template)]
#[template(path = "leave.html")]
struct LeavePage<'p> {
    frame: Frame,
    name: &'p str,
    url: &'p str,
}

/// The client and its issuer, where a provider is configured.
fn configured(call: &AdminCall) -> Option<(OidcConfig, IssuerConfig)> {
    let config = call.logins.engine.config();
    let oidc = config.dashboard.oidc.clone()?;
    let issuer = config.issuers.iter().find(|issuer| issuer.name == oidc.issuer)?.clone();
    Some((oidc, issuer))
}

/// None where no provider is configured.
pub(super) fn button(call: &AdminCall, next: &str, is_fresh: bool) -> Option<OidcButton> {
    let (oidc, _) = configured(call)?;
    let own = call.logins.engine.config().dashboard_url()?;
    let (_, own_host) = own.split_once("://")?;
    let host = call.parts.headers.get(HOST).and_then(|host| host.to_str().ok());
    let is_here = host.is_some_and(|host| host.eq_ignore_ascii_case(own_host));
    let elsewhere = (!is_here).then(|| own.clone() + &sign_in::address(next, is_fresh));
    Some(OidcButton { name: oidc.issuer, elsewhere })
}

/// Sends the browser to the provider. By a page of its own: a redirect would belong to the form, whose
/// page would have to allow every host that the provider leads on to.
pub(in crate::admin) async fn start(call: AdminCall) -> Handled {
    let (name, begun) = match begin(&call).await {
        Ok(begun) => begun,
        Err(failure) => return refused(&call, &call.form, failure).await,
    };
    let frame = Frame::bare(&format!("On to {name}"));
    let mut response = page(StatusCode::OK, &LeavePage { frame, name: &name, url: &begun.url })?;
    let headers = response.headers_mut();
    let to = HeaderValue::try_from(format!("0; url={}", begun.url)).map_err(|_| Code::Internal)?;
    headers.insert(REFRESH, to);
    headers.append(SET_COOKIE, begun.cookie);
    Ok(response)
}

async fn begin(call: &AdminCall) -> Result<(String, attempt::BegunAttempt), Failure> {
    let missing = || LoginError::new(Code::NotFound, "no OpenID provider is configured");
    let (oidc, issuer) = configured(call).ok_or_else(missing)?;
    let engine = &call.logins.engine;
    let own = engine.config().dashboard_url().ok_or_else(missing)?;
    let origin = call.parts.headers.get(ORIGIN).and_then(|origin| origin.to_str().ok());
    if origin != Some(&own) {
        // The cookie must be one of the host that the browser comes back to.
        let why = format!("sign in at {own}{}: the provider leads back there", sign_in::SIGN_IN);
        return Err(LoginError::bad_request(why).into());
    }
    let peer = call.admin.1.as_ref().map(|it| it.peer.origin());
    let writers = &call.admin.0.writers;
    writers.sign_in(peer, engine.clock().now().mono).map_err(|_| Failure::TooMany)?;
    let callers = call.admin.0.sessions.callers();
    let endpoints = callers.sign_in_endpoints(&engine.http, &issuer.issuer).await;
    let name = issuer.name.clone();
    let endpoints = endpoints.map_err(|source| Failure::Provider { name, source })?;
    let then = (next(&call.form), call.form.any("fresh").is_some());
    let redirect_uri = own + CALLBACK;
    let begun = attempt::begin(call, (&oidc, &issuer), &endpoints, redirect_uri, then).await?;
    Ok((issuer.name, begun))
}

/// Takes the provider's response. It comes by a GET, and only once.
pub(in crate::admin) async fn callback(call: AdminCall) -> Handled {
    if call.parts.method != Method::GET {
        return Ok(no_route("GET", &call.request_id));
    }
    let arguments = &call.query;
    let doubled = ["state", "code", "error", "iss"].iter().any(|it| arguments.all(it).len() > 1);
    let state = arguments.any("state").filter(|_| !doubled);
    let claimed = match state {
        Some(state) => attempt::claim(&call, &state).await,
        None => Err(Failure::Unknown),
    };
    let (attempt, removal) = match claimed {
        Ok(claimed) => claimed,
        Err(failure) => return refused(&call, &Arguments::default(), failure).await,
    };
    let mut response = match identify(&call, &attempt).await {
        Ok(identity) => {
            let cookie = session::begin(&call, identity, attempt.is_secure()).await?;
            let mut response = redirect(&attempt.next);
            response.headers_mut().append(SET_COOKIE, cookie);
            response
        }
        Err(failure) => {
            let mut then = vec![("next", attempt.next.as_str())];
            then.extend(attempt.is_fresh.then_some(("fresh", "1")));
            refused(&call, &Arguments::of_pairs(&then), failure).await?
        }
    };
    response.headers_mut().append(SET_COOKIE, removal);
    Ok(response)
}

/// Who the response says has signed in.
async fn identify(call: &AdminCall, attempt: &SignInAttempt) -> Result<VisitorIdentity, Failure> {
    let name = || attempt.name.clone();
    let (oidc, issuer) = configured(call).ok_or(Failure::Changed)?;
    if (&issuer.name, &issuer.issuer, &oidc.client_id)
        != (&attempt.name, &attempt.issuer, &attempt.client_id)
    {
        return Err(Failure::Changed);
    }
    // RFC 9207: a response of another provider must not be taken to this one.
    match call.query.any("iss") {
        Some(iss) if iss != attempt.issuer => return Err(Failure::OtherIssuer { name: name() }),
        None if attempt.names_issuer => return Err(Failure::OtherIssuer { name: name() }),
        _ => {}
    }
    if let Some(code) = call.query.any("error") {
        let words = call.query.any("error_description").unwrap_or_default();
        return Err(Failure::Denied { name: name(), code, words });
    }
    let code = call.query.any("code").map(Secret::new).ok_or(Failure::Unknown)?;
    let failed = |source| Failure::Provider { name: name(), source };
    let taken = CodeExchange {
        token_url: &attempt.token_url,
        takes_basic: attempt.takes_basic,
        code: &code,
        redirect_uri: &attempt.redirect_uri,
        verifier: &attempt.verifier,
    };
    let engine = &call.logins.engine;
    let token = exchange(&engine.http, &oidc, &taken).await.map_err(failed)?;
    let rules = IdTokenRules {
        issuer: &attempt.issuer,
        client_id: &attempt.client_id,
        nonce: &attempt.nonce,
        authenticated_since: attempt.is_fresh.then_some(attempt.begun),
        operators: &oidc.operators,
    };
    let callers = call.admin.0.sessions.callers();
    let bearer = callers.of_id_token(&token, &rules, &**engine.clock()).await.map_err(failed)?;
    let user = SessionUser { subject: bearer.subject, issuer: attempt.issuer.clone() };
    let identity = match oidc.operators.contains(&user.subject) {
        true => VisitorIdentity::Operator { name: name(), user: user.clone() },
        false => {
            VisitorIdentity::Bearer { name: name(), user: user.clone(), tenant: bearer.tenant }
        }
    };
    match call.admin.principal_of(&identity) {
        Ok(_) => Ok(identity),
        Err(()) => Err(Failure::NoVisitor { name: name(), subject: user.subject }),
    }
}

/// The page to sign in, with what went wrong; `said` holds where to go then.
async fn refused(call: &AdminCall, said: &Arguments, failure: Failure) -> Handled {
    if let Failure::Other(error) = failure {
        return Err(error);
    }
    if failure.is_suspicious() {
        // Counted in the audit log as any wrong credential is.
        let _ = call.admin.refuse(Unauthenticated::Rejected, &call.request_id).await;
    }
    if let Failure::Provider { name, source } = &failure {
        let issuer = name.as_str();
        tracing::warn!(issuer, error = %chain(source), "sign-in by an OpenID provider failed");
    }
    shown(call, said, failure.status(), Some(failure.to_string()))
}
