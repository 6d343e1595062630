//! The Ads API: who may call, which operation, what every response has in common.

use super::{
    Context, aids, amc, campaigns,
    fault::{ApiFault, Faults},
    form::{Form, random_text},
    gate::Gate,
    grants::{Grant, TokenOwner},
    lwa, mcp,
    record::Received,
    reports,
    response::{Body, HandlerResult, Hangup, feed, json, set, whole},
};
use crate::id::Region;
use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, HeaderName, Method, Response, StatusCode, header, request::Parts};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::{io, io::Write, time::Duration};

/// The profile a request is about.
pub(super) const SCOPE: HeaderName = HeaderName::from_static("amazon-advertising-api-scope");

const CLIENT_ID: HeaderName = HeaderName::from_static("amazon-advertising-api-clientid");
const CLIENT_ID_V1: HeaderName = HeaderName::from_static("amazon-ads-clientid");

/// The emulated API.
#[derive(Debug, Default)]
pub struct Api {
    /// Parks requests after their body arrived.
    pub gate: Gate,
    /// Makes requests fail.
    pub faults: Faults<ApiFault>,
    pub(super) campaigns: campaigns::Campaigns,
    pub(super) reports: reports::Reports,
    settings: Mutex<ApiSettings>,
}

/// How the API behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiSettings {
    /// The region served where the `Host` names none; none serves all profiles of a grant.
    pub region: Option<Region>,
    /// Fills `GET /v2/profiles` up to this many (Amazon's most is 5000).
    pub profiles_min: usize,
    /// JSON responses of at least this size are compressed for those who accept gzip.
    pub gzip_min_bytes: usize,
    /// Responds with refusals and faults before the request's body was read.
    pub answers_before_body: bool,
    /// How often a report is looked at before it is complete.
    pub report_polls: u32,
    /// Events of an MCP stream.
    pub mcp_events: u64,
    /// The time between them.
    pub mcp_interval: Duration,
}

impl Default for ApiSettings {
    fn default() -> Self {
        Self {
            region: None,
            profiles_min: 0,
            gzip_min_bytes: 1024,
            answers_before_body: false,
            report_polls: 1,
            mcp_events: 3,
            mcp_interval: Duration::from_millis(300),
        }
    }
}

impl Api {
    /// Changes how the API behaves from now on.
    pub fn configure(&self, change: impl FnOnce(&mut ApiSettings)) {
        change(&mut self.settings.lock());
    }

    /// How the API behaves.
    #[must_use]
    pub fn settings(&self) -> ApiSettings {
        self.settings.lock().clone()
    }
}

/// A request that was accepted.
pub(super) struct Call<'a> {
    pub(super) context: &'a Context,
    pub(super) parts: &'a Parts,
    pub(super) query: Form,
    pub(super) body: &'a Received,
    pub(super) account: String,
    pub(super) grant: Grant,
    pub(super) settings: ApiSettings,
}

/// The refusal or fault a request meets before its body counts; none lets it in.
pub(super) async fn meet(context: &Context, parts: &Parts) -> Result<TokenOwner, HandlerResult> {
    let state = &context.state;
    state.api.gate.pass().await;
    if let Some(fault) = state.api.faults.take() {
        match fault {
            ApiFault::Hang => std::future::pending::<()>().await,
            ApiFault::Slow(delay) => tokio::time::sleep(delay).await,
            ApiFault::Drop => return Err(Err(Hangup)),
            fault => return Err(Ok(instead(&fault))),
        }
    }
    authenticate(context, parts).ok_or_else(|| Ok(unauthorized("Authentication failed")))
}

/// Responds to a request that was accepted.
pub(super) async fn respond(
    context: &Context,
    parts: &Parts,
    body: &Received,
    owner: TokenOwner,
) -> HandlerResult {
    let Some(grant) = context.state.lwa.grant(&owner.account) else {
        return Ok(unauthorized("Authentication failed"));
    };
    let query = Form::parse(parts.uri.query().unwrap_or_default());
    let settings = context.state.api.settings();
    let call = Call { context, parts, query, body, account: owner.account, grant, settings };
    // Amazon's own guide calls `//sp/campaigns/list`: empty segments do not count.
    let path: Vec<_> = parts.uri.path().split('/').filter(|part| !part.is_empty()).collect();
    route(&call, &path).await
}

async fn route(call: &Call<'_>, path: &[&str]) -> HandlerResult {
    let is_get = call.parts.method == Method::GET;
    let is_post = call.parts.method == Method::POST;
    Ok(match path {
        ["v2", "profiles"] if is_get => profiles(call),
        ["sp", "campaigns"] if is_post => campaigns::create(call),
        ["sp", "campaigns", "list"] if is_post => campaigns::list(call),
        ["adsApi", "v1", "query", "campaigns"] if is_post => campaigns::query(call),
        ["reporting", "reports"] if is_post => reports::request(call),
        ["reporting", "reports", id] if is_get => reports::status(call, id),
        ["sd", _, "report"] if is_post => reports::request_v2(call),
        ["v2", "reports", id] if is_get => reports::status_v2(call, id),
        ["v2", "reports", id, "download"] if is_get => reports::download_v2(call, id),
        ["amc", rest @ ..] => amc::respond(call, rest),
        ["mcp"] | ["mcp", "lite"] => mcp::respond(call),
        [aid] if aid.starts_with('_') => return aids::respond(call, aid, None).await,
        [aid, value] if aid.starts_with('_') => return aids::respond(call, aid, Some(value)).await,
        _ => wrong_path(call.parts),
    })
}

/// What all responses of the API have in common.
pub(super) async fn finish(
    parts: &Parts,
    settings: &ApiSettings,
    mut response: Response<Body>,
) -> Response<Body> {
    for (name, value) in [("server", "Server"), ("vary", "Content-Type,Accept-Encoding,User-Agent")]
    {
        set(&mut response, HeaderName::from_static(name), value);
    }
    for name in ["x-amz-rid", "x-amzn-requestid"] {
        set(&mut response, HeaderName::from_static(name), &random_text(15));
    }
    let accepted = parts.headers.get_all(header::ACCEPT_ENCODING);
    let accepts_gzip =
        accepted.iter().any(|value| value.as_bytes().windows(4).any(|w| w == b"gzip"));
    let is_json = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().ends_with(b"json"));
    let size = response.body().size_hint().exact().unwrap_or(0);
    if accepts_gzip && is_json && size >= settings.gzip_min_bytes as u64 {
        response = compress(response).await;
    }
    response
}

async fn compress(response: Response<Body>) -> Response<Body> {
    let (parts, body) = response.into_parts();
    let plain = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let mut response =
        Response::from_parts(parts, whole(StatusCode::OK, "", gzip(&plain)).into_body());
    set(&mut response, header::CONTENT_ENCODING, "gzip");
    response
}

/// Compresses `plain`.
pub(super) fn gzip(plain: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(plain).expect("writing to memory cannot fail");
    encoder.finish().expect("writing to memory cannot fail").into()
}

/// The bearer token of a request with exactly one `Authorization`.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    only(headers, &header::AUTHORIZATION)?.strip_prefix("Bearer ")
}

/// The one value of a field; none if it is absent or repeated.
pub(super) fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

fn authenticate(context: &Context, parts: &Parts) -> Option<TokenOwner> {
    let owner = context.state.lwa.owner(bearer(&parts.headers)?)?;
    let path = parts.uri.path().trim_start_matches('/');
    let needs_v1 = path.starts_with("adsApi/") || path == "mcp" || path.starts_with("mcp/");
    let is_good = |name: HeaderName| only(&parts.headers, &name) == Some(&owner.client_id);
    (is_good(CLIENT_ID) && (!needs_v1 || is_good(CLIENT_ID_V1))).then_some(owner)
}

/// Amazon's 401.
pub(super) fn unauthorized(details: &str) -> Response<Body> {
    classic(StatusCode::UNAUTHORIZED, details)
}

/// An error in the classic shape.
pub(super) fn classic(status: StatusCode, details: &str) -> Response<Body> {
    let code = status.as_str();
    json(status, &json!({ "code": code, "details": details, "requestId": random_text(15) }))
}

/// The refusal of a content type that is none of `wanted`.
pub(super) fn refuse_type(parts: &Parts, wanted: &[&str]) -> Option<Response<Body>> {
    let have = only(&parts.headers, &header::CONTENT_TYPE).unwrap_or_default();
    let media_type = have.split(';').next().unwrap_or_default().trim();
    let is_wanted = wanted.iter().any(|wanted| media_type.eq_ignore_ascii_case(wanted));
    (!is_wanted).then(|| {
        let body = json!({ "code": "415", "details": "Cannot consume content type" });
        json(StatusCode::UNSUPPORTED_MEDIA_TYPE, &body)
    })
}

impl Call<'_> {
    /// The profile the scope names, or Amazon's refusal.
    pub(super) fn scope(&self) -> Result<i64, Box<Response<Body>>> {
        let refuse = |text: &str| Box::new(unauthorized(text));
        let Some(scope) = only(&self.parts.headers, &SCOPE) else {
            return Err(refuse("Scope header is missing"));
        };
        let has = |grant: &Grant, id| grant.profiles.iter().any(|profile| profile.id == id);
        match scope.parse::<i64>() {
            Ok(id) if has(&self.grant, id) => Ok(id),
            Ok(id) if self.context.state.lwa.grants().values().any(|grant| has(grant, id)) => {
                Err(refuse(&format!("Not authorized to access scope {id}")))
            }
            _ => Err(refuse("No matching advertiser found for scope")),
        }
    }

    /// The body as JSON; an empty one is an empty object.
    pub(super) fn json(&self) -> Option<Value> {
        if self.body.start.is_empty() {
            return Some(json!({}));
        }
        serde_json::from_slice(&self.body.start).ok()
    }

    /// The region asked for by the host name, or the configured one.
    fn region(&self) -> Option<Region> {
        let host = only(&self.parts.headers, &header::HOST).or_else(|| self.parts.uri.host());
        let label = host.unwrap_or_default().split('.').next().unwrap_or_default();
        match label {
            "advertising-api" | "advertising-ai" => Some(Region::Na),
            "advertising-api-eu" | "advertising-ai-eu" => Some(Region::Eu),
            "advertising-api-fe" | "advertising-ai-fe" => Some(Region::Fe),
            _ => self.settings.region,
        }
    }
}

fn profiles(call: &Call<'_>) -> Response<Body> {
    let region = call.region();
    let served = call.grant.profiles.iter().filter(|profile| {
        region.is_none_or(|region| profile.country.region() == region)
            && call.query.get("profileTypeFilter").is_none_or(|kinds| kinds.contains(profile.kind))
    });
    let mut list: Vec<_> = served.cloned().collect();
    if let Some(template) = list.last().cloned() {
        for id in (template.id + 1..).take(call.settings.profiles_min.saturating_sub(list.len())) {
            list.push(super::Profile { id, ..template.clone() });
        }
    }
    let list = list.iter().map(super::Profile::to_json).collect();
    json(StatusCode::OK, &Value::Array(list))
}

/// Amazon's gateway takes an unknown path for one signed the AWS way. It shows a hash of what came.
fn wrong_path(parts: &Parts) -> Response<Body> {
    let sent = parts.headers.get(header::AUTHORIZATION).map_or(&[][..], |value| value.as_bytes());
    let hash = BASE64_STANDARD.encode(digest(&SHA256, sent));
    let text =
        format!("'{hash}' not a valid key=value pair (missing equal-sign) in Authorization header");
    json(StatusCode::FORBIDDEN, &json!({ "message": text }))
}

/// The response that takes the place of the real one.
fn instead(fault: &ApiFault) -> Response<Body> {
    match fault {
        ApiFault::AuthenticationFailed => unauthorized("Authentication failed"),
        ApiFault::Permission(permission) => unauthorized(permission.text()),
        ApiFault::Throttled { retry_after } => {
            let body = json!({ "message": "Too Many Requests" });
            let mut response = json(StatusCode::TOO_MANY_REQUESTS, &body);
            let name = HeaderName::from_static("amazon-advertising-api-throttled");
            set(&mut response, name, "true");
            lwa::with_retry_after(response, *retry_after)
        }
        ApiFault::ServerError => classic(StatusCode::INTERNAL_SERVER_ERROR, "Internal Error"),
        ApiFault::Unavailable => classic(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable"),
        ApiFault::Truncate => truncated(),
        ApiFault::Answer(scripted) => lwa::scripted(scripted),
        // What only delays or drops a request was dealt with before.
        ApiFault::SpuriousUnauthorized | ApiFault::Hang | ApiFault::Slow(_) | ApiFault::Drop => {
            json(StatusCode::UNAUTHORIZED, &json!({ "message": "Unauthorized" }))
        }
    }
}

fn truncated() -> Response<Body> {
    let mut response = feed(StatusCode::OK, "application/json", |sender| async move {
        let half = Frame::data(Bytes::from(vec![b' '; 500]));
        if sender.send(Ok(half)).await.is_ok() {
            // Lets the half be written out first: hyper throws away what it still holds.
            tokio::time::sleep(Duration::from_millis(20)).await;
            drop(sender.send(Err(io::ErrorKind::ConnectionAborted.into())).await);
        }
    });
    set(&mut response, header::CONTENT_LENGTH, "1000");
    response
}
