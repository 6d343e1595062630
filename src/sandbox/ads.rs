//! The Ads API: who may call, which operation, what every response has in common.

use super::{
    Profile, Service, aids, amc, campaigns,
    fault::{ApiFault, Faults},
    form::{Form, random_text},
    gate::Gate,
    grants::{SandboxGrant, TokenOwner},
    lwa, mcp,
    record::Received,
    reports,
    response::{Emulated, Stop, With, feed, json, send, whole},
};
use crate::id::Region;
use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, Response, request::Parts};
use http_body::Body as _;
use http_body_util::BodyExt;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::{future::pending, io, io::Write, time::Duration};
use tokio::time::sleep;

/// The emulated API.
#[derive(Debug, Default)]
pub struct Api {
    /// Parks requests after their body arrived.
    pub gate: Gate,
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
    pub fn configure(&self, change: impl FnOnce(&mut ApiSettings)) {
        change(&mut self.settings.lock());
    }

    pub fn settings(&self) -> ApiSettings {
        self.settings.lock().clone()
    }
}

/// A request that was accepted.
pub(super) struct ApiCall<'a> {
    pub(super) service: &'a Service,
    pub(super) parts: &'a Parts,
    pub(super) query: Form,
    pub(super) body: &'a Received,
    pub(super) account: String,
    pub(super) grant: SandboxGrant,
    pub(super) settings: ApiSettings,
}

/// Says whose request it is, unless a refusal or a fault meets it before its body counts.
pub(super) async fn enter(service: &Service, parts: &Parts) -> Result<TokenOwner, Stop> {
    let api = &service.state.api;
    api.gate.pass().await;
    match api.faults.take() {
        None => {}
        Some(ApiFault::Hang) => pending().await,
        Some(ApiFault::Slow(delay)) => sleep(delay).await,
        Some(ApiFault::Drop) => return Err(Stop::Hangup),
        Some(fault) => return Err(instead(fault).into()),
    }
    authenticate(service, parts).ok_or_else(|| unauthorized("Authentication failed").into())
}

/// Responds to a request that was accepted.
pub(super) async fn respond(
    service: &Service,
    parts: &Parts,
    body: &Received,
    owner: TokenOwner,
) -> Result<Emulated, Stop> {
    let grant = service.state.lwa.grant(&owner.account);
    let grant = grant.ok_or_else(|| unauthorized("Authentication failed"))?;
    let query = Form::parse(parts.uri.query().unwrap_or_default());
    let settings = service.state.api.settings();
    let call = ApiCall { service, parts, query, body, account: owner.account, grant, settings };
    // Amazon's own guide calls `//sp/campaigns/list`: empty segments do not count.
    let path: Vec<_> = parts.uri.path().split('/').filter(|part| !part.is_empty()).collect();
    match (parts.method.as_str(), path.as_slice()) {
        ("GET", ["v2", "profiles"]) => Ok(profiles(&call)),
        ("POST", ["sp", "campaigns"]) => campaigns::create(&call),
        ("POST", ["sp", "campaigns", "list"]) => campaigns::list(&call),
        ("POST", ["adsApi", "v1", "query", "campaigns"]) => Ok(campaigns::query(&call)),
        ("POST", ["reporting", "reports"]) => reports::request(&call),
        ("GET", ["reporting", "reports", id]) => reports::status(&call, id),
        ("POST", ["sd", _, "report"]) => reports::request_v2(&call),
        ("GET", ["v2", "reports", id]) => reports::status_v2(&call, id),
        ("GET", ["v2", "reports", id, "download"]) => Ok(reports::download_v2(&call, id)),
        (method, ["amc", rest @ ..]) => Ok(amc::respond(&call, method, rest)),
        (method, ["mcp"] | ["mcp", "lite"]) => Ok(mcp::respond(&call, method)),
        (_, [aid, value @ ..]) if aid.starts_with('_') && value.len() < 2 => {
            Ok(aids::respond(&call, aid, value.first().copied()).await)
        }
        _ => Ok(wrong_path(parts)),
    }
}

/// What all responses of the API have in common.
pub(super) async fn finish(parts: &Parts, settings: &ApiSettings, reply: Emulated) -> Emulated {
    let reply = reply
        .with("server", "Server")
        .with("vary", "Content-Type,Accept-Encoding,User-Agent")
        .with("x-amz-rid", &random_text(15))
        .with("x-amzn-requestid", &random_text(15));
    let accepted = parts.headers.get_all("accept-encoding");
    let accepts_gzip =
        accepted.iter().any(|value| value.as_bytes().windows(4).any(|w| w == b"gzip"));
    let content_type = reply.headers().get("content-type");
    let is_json = content_type.is_some_and(|value| value.as_bytes().ends_with(b"json"));
    let size = reply.body().size_hint().exact().unwrap_or(0);
    if !accepts_gzip || !is_json || size < settings.gzip_min_bytes as u64 {
        return reply;
    }
    let (parts, body) = reply.into_parts();
    let plain = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let body = whole(200, "", gzip(&plain)).into_body();
    Response::from_parts(parts, body).with("content-encoding", "gzip")
}

pub(super) fn gzip(plain: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(plain).expect("writing to memory cannot fail");
    encoder.finish().expect("writing to memory cannot fail").into()
}

/// The bearer token of a request with exactly one `Authorization`.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    only(headers, "authorization")?.strip_prefix("Bearer ")
}

/// The one value of a field; none if it is absent or repeated.
pub(super) fn only<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

fn authenticate(service: &Service, parts: &Parts) -> Option<TokenOwner> {
    let owner = service.state.lwa.owner(bearer(&parts.headers)?)?;
    let path = parts.uri.path().trim_start_matches('/');
    let needs_v1 = path.starts_with("adsApi/") || path == "mcp" || path.starts_with("mcp/");
    let is_good = |name| only(&parts.headers, name) == Some(&owner.client_id);
    let is_client =
        is_good("amazon-advertising-api-clientid") && (!needs_v1 || is_good("amazon-ads-clientid"));
    is_client.then_some(owner)
}

/// Amazon's 401.
fn unauthorized(details: &str) -> Emulated {
    classic(401, details)
}

/// An error in the classic shape.
pub(super) fn classic(status: u16, details: &str) -> Emulated {
    let code = status.to_string();
    json(status, json!({ "code": code, "details": details, "requestId": random_text(15) }))
}

impl ApiCall<'_> {
    /// Refuses a content type that is none of `wanted`.
    pub(super) fn takes(&self, wanted: &[&str]) -> Result<(), Stop> {
        let have = only(&self.parts.headers, "content-type").unwrap_or_default();
        let media_type = have.split(';').next().unwrap_or_default().trim();
        if wanted.iter().any(|wanted| media_type.eq_ignore_ascii_case(wanted)) {
            return Ok(());
        }
        Err(json(415, json!({ "code": "415", "details": "Cannot consume content type" })).into())
    }

    /// The profile the scope names, or Amazon's refusal.
    pub(super) fn scope(&self) -> Result<i64, Stop> {
        let scope = only(&self.parts.headers, "amazon-advertising-api-scope")
            .ok_or_else(|| unauthorized("Scope header is missing"))?;
        let has = |grant: &SandboxGrant, id| grant.profiles.iter().any(|one| one.id == id);
        match scope.parse::<i64>() {
            Ok(id) if has(&self.grant, id) => Ok(id),
            Ok(id) if self.service.state.lwa.grants().values().any(|grant| has(grant, id)) => {
                Err(unauthorized(&format!("Not authorized to access scope {id}")).into())
            }
            _ => Err(unauthorized("No matching advertiser found for scope").into()),
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
        let host = only(&self.parts.headers, "host").or_else(|| self.parts.uri.host());
        match host.unwrap_or_default().split('.').next().unwrap_or_default() {
            "advertising-api" | "advertising-ai" => Some(Region::Na),
            "advertising-api-eu" | "advertising-ai-eu" => Some(Region::Eu),
            "advertising-api-fe" | "advertising-ai-fe" => Some(Region::Fe),
            _ => self.settings.region,
        }
    }
}

fn profiles(call: &ApiCall<'_>) -> Emulated {
    let region = call.region();
    let served = call.grant.profiles.iter().filter(|profile| {
        region.is_none_or(|region| profile.country.region() == region)
            && call.query.get("profileTypeFilter").is_none_or(|kinds| kinds.contains(profile.kind))
    });
    let mut list: Vec<_> = served.cloned().collect();
    if let Some(template) = list.last().cloned() {
        let missing = call.settings.profiles_min.saturating_sub(list.len());
        let more = (template.id + 1..).take(missing);
        list.extend(more.map(|id| Profile { id, ..template.clone() }));
    }
    json(200, list.iter().map(Profile::to_json).collect())
}

/// Amazon's gateway takes an unknown path for one signed the AWS way. It shows a hash of what came.
fn wrong_path(parts: &Parts) -> Emulated {
    let sent = parts.headers.get("authorization").map_or(&[][..], |value| value.as_bytes());
    let hash = BASE64_STANDARD.encode(digest(&SHA256, sent));
    let text =
        format!("'{hash}' not a valid key=value pair (missing equal-sign) in Authorization header");
    json(403, json!({ "message": text }))
}

/// The response that takes the place of the real one.
fn instead(fault: ApiFault) -> Emulated {
    match fault {
        ApiFault::AuthenticationFailed => unauthorized("Authentication failed"),
        ApiFault::Permission(permission) => unauthorized(permission.text()),
        ApiFault::Throttled { retry_after } => {
            let reply = json(429, json!({ "message": "Too Many Requests" }));
            lwa::with_retry_after(
                reply.with("amazon-advertising-api-throttled", "true"),
                retry_after,
            )
        }
        ApiFault::ServerError => classic(500, "Internal Error"),
        ApiFault::Unavailable => classic(503, "Service Unavailable"),
        ApiFault::Truncate => truncated(),
        ApiFault::Answer(scripted) => lwa::scripted(scripted),
        // What only delays or drops a request was dealt with before.
        ApiFault::SpuriousUnauthorized | ApiFault::Hang | ApiFault::Slow(_) | ApiFault::Drop => {
            json(401, json!({ "message": "Unauthorized" }))
        }
    }
}

fn truncated() -> Emulated {
    let reply = feed("application/json", |sender| async move {
        if send(&sender, vec![b' '; 500]).await {
            // Lets the half be written out first: hyper throws away what it still holds.
            sleep(Duration::from_millis(20)).await;
            drop(sender.send(Err(io::ErrorKind::ConnectionAborted.into())).await);
        }
    });
    reply.with("content-length", "1000")
}
