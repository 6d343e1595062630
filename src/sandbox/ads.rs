//! The Ads API: who may call, which operation, what every response has in common.

use super::{
    EmulatorState, aids, amc, campaigns,
    fault::{ApiFault, Faults, RequestGate},
    grants::AdvertiserGrant,
    http_server::EmulatorService,
    mcp,
    profiles::Profile,
    record::SeenRequest,
    reports,
    response::{
        EmulatorResponse, HandlerResult, Stop, With, after, full, json, retry_after, scripted,
        stream, whole,
    },
    settings::ApiSettings,
    text::{FormPairs, random_text},
};
use crate::{
    clock::{Clock, Now, SystemClock},
    id::Region,
};
use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, Response, request::Parts};
use http_body::Body;
use http_body_util::{BodyExt, Collected};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::{
    io,
    io::Write,
    time::{Duration, UNIX_EPOCH},
};

#[derive(Debug, Default)]
pub struct Api {
    /// Parks requests after their body arrived.
    pub gate: RequestGate,
    pub faults: Faults<ApiFault>,
    pub(super) campaigns: campaigns::Campaigns,
    pub(super) reports: reports::ReportList,
    settings: Mutex<ApiSettings>,
}

impl Api {
    pub fn configure(&self, change: impl FnOnce(&mut ApiSettings)) {
        change(&mut self.settings.lock());
    }

    pub(super) fn settings(&self) -> ApiSettings {
        self.settings.lock().clone()
    }
}

/// A request that was accepted.
pub(super) struct ApiCall<'a> {
    pub(super) service: &'a EmulatorService,
    pub(super) parts: &'a Parts,
    pub(super) query: FormPairs,
    pub(super) body: Bytes,
    pub(super) seen: &'a Mutex<SeenRequest>,
    pub(super) account: String,
    pub(super) grant: AdvertiserGrant,
    pub(super) settings: ApiSettings,
}

/// Lets a request in, with its account and grant, before its body counts.
pub(super) async fn authenticate(
    state: &EmulatorState,
    parts: &Parts,
) -> Result<(String, AdvertiserGrant), Stop> {
    state.api.gate.pass().await;
    match state.api.faults.take() {
        None => {}
        Some(ApiFault::Hang) => std::future::pending::<()>().await,
        Some(ApiFault::Slow(delay)) => tokio::time::sleep(delay).await,
        Some(ApiFault::Drop) => return Err(Stop::HangUp),
        Some(fault) => return Err(instead(&fault).into()),
    }
    let owner = bearer(&parts.headers).and_then(|token| state.lwa.owner(token));
    let path = parts.uri.path().trim_start_matches('/');
    let needs_v1 = path.starts_with("adsApi/") || path == "mcp" || path.starts_with("mcp/");
    let is_client = |(_, grant): &(String, AdvertiserGrant)| {
        let has = |name| only(&parts.headers, name) == Some(&grant.client_id);
        has("amazon-advertising-api-clientid") && (!needs_v1 || has("amazon-ads-clientid"))
    };
    Ok(owner.filter(is_client).ok_or_else(|| classic(401, "Authentication failed"))?)
}

pub(super) async fn respond(call: &ApiCall<'_>) -> HandlerResult {
    // Amazon's own guide calls `//sp/campaigns/list`: empty segments do not count.
    let path: Vec<_> = call.parts.uri.path().split('/').filter(|part| !part.is_empty()).collect();
    match (call.parts.method.as_str(), path.as_slice()) {
        ("GET", ["v2", "profiles"]) => Ok(profiles(call)),
        ("POST", ["sp", "campaigns"]) => campaigns::create(call),
        ("POST", ["sp", "campaigns", "list"]) => campaigns::list(call),
        ("POST", ["adsApi", "v1", "query", "campaigns"]) => Ok(campaigns::query(call)),
        ("POST", ["reporting", "reports"]) => reports::request(call),
        ("GET", ["reporting", "reports", id]) => reports::status(call, id),
        ("POST", ["sd", _, "report"]) => reports::request_v2(call),
        ("GET", ["v2", "reports", id, "download"]) => Ok(reports::download_v2(call, id)),
        (method, ["amc", rest @ ..]) => Ok(amc::respond(call, method, rest)),
        (method, ["mcp"] | ["mcp", "lite"]) => Ok(mcp::respond(call, method)),
        (_, [aid, value @ ..]) if aid.starts_with('_') && value.len() < 2 => {
            Ok(aids::respond(call, aid, value.first().unwrap_or(&"")).await)
        }
        _ => Ok(wrong_path(call.parts)),
    }
}

/// Adds what all responses of the API have in common.
pub(super) async fn finish(
    parts: &Parts,
    settings: &ApiSettings,
    reply: EmulatorResponse,
) -> EmulatorResponse {
    let reply = reply
        .with("server", "Server")
        .with("vary", "Content-Type,Accept-Encoding,User-Agent")
        .with("x-amz-rid", &random_text::<15>())
        .with("x-amzn-requestid", &random_text::<15>());
    let mut accepted = parts.headers.get_all("accept-encoding").iter();
    let accepts_gzip = accepted.any(|value| value.as_bytes().windows(4).any(|w| w == b"gzip"));
    let media_type = reply.headers().get("content-type");
    let is_json = media_type.is_some_and(|value| value.as_bytes().ends_with(b"json"));
    let size = reply.body().size_hint().exact().unwrap_or(0);
    if !accepts_gzip || !is_json || size < settings.gzip_min_bytes as u64 {
        return reply;
    }
    let (parts, body) = reply.into_parts();
    // A body whose size is known is there as a whole: it cannot break off.
    let plain = body.collect().await.map(Collected::to_bytes).unwrap_or_default();
    Response::from_parts(parts, full(gzip(&plain))).with("content-encoding", "gzip")
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

/// An error in the classic shape.
pub(super) fn classic(status: u16, details: &str) -> EmulatorResponse {
    let (code, id) = (status.to_string(), random_text::<15>());
    json(status, json!({ "code": code, "details": details, "requestId": id }))
}

impl ApiCall<'_> {
    pub(super) fn state(&self) -> &EmulatorState {
        &self.service.state
    }

    pub(super) fn now(&self) -> Now {
        self.state().lwa.now()
    }

    /// The profile that the scope names, or Amazon's rejection.
    pub(super) fn scope(&self) -> Result<i64, Stop> {
        let scope = only(&self.parts.headers, "amazon-advertising-api-scope");
        let scope = scope.ok_or_else(|| classic(401, "Scope header is missing"))?;
        let has = |grant: &AdvertiserGrant, id| grant.profiles.iter().any(|p| p.id == id);
        match scope.parse::<i64>() {
            Ok(id) if has(&self.grant, id) => Ok(id),
            Ok(id) if self.state().lwa.grants().values().any(|grant| has(grant, id)) => {
                Err(classic(401, &format!("Not authorized to access scope {id}")).into())
            }
            _ => Err(classic(401, "No matching advertiser found for scope").into()),
        }
    }

    /// Rejects a content type that is none of `wanted`.
    pub(super) fn require_type(&self, wanted: &[&str]) -> Result<(), Stop> {
        let have = only(&self.parts.headers, "content-type").unwrap_or_default();
        let media_type = have.split(';').next().unwrap_or_default().trim();
        if wanted.iter().any(|wanted| media_type.eq_ignore_ascii_case(wanted)) {
            return Ok(());
        }
        Err(json(415, json!({ "code": "415", "details": "Cannot consume content type" })).into())
    }

    /// The body as JSON; an empty one is an empty object.
    pub(super) fn json(&self) -> Option<Value> {
        if self.body.is_empty() {
            return Some(json!({}));
        }
        serde_json::from_slice(&self.body).ok()
    }
}

/// The profiles of the grant in the region of the host; in all regions for other host names.
fn profiles(call: &ApiCall<'_>) -> EmulatorResponse {
    let host = only(&call.parts.headers, "host").or(call.parts.uri.host());
    let region = match host.unwrap_or_default().split('.').next().unwrap_or_default() {
        "advertising-api" | "advertising-ai" => Some(Region::Na),
        "advertising-api-eu" | "advertising-ai-eu" => Some(Region::Eu),
        "advertising-api-fe" | "advertising-ai-fe" => Some(Region::Fe),
        _ => None,
    };
    let served = call.grant.profiles.iter().filter(|profile| {
        region.is_none_or(|region| profile.region() == region)
            && call.query.get("profileTypeFilter").is_none_or(|kinds| kinds.contains("seller"))
    });
    let mut list: Vec<_> = served.cloned().collect();
    if let Some(template) = list.last().cloned() {
        for id in (template.id + 1..).take(call.settings.profiles_min.saturating_sub(list.len())) {
            list.push(Profile { id, ..template.clone() });
        }
    }
    json(200, list.iter().map(Profile::to_json).collect())
}

/// Amazon's gateway takes an unknown path for one signed the AWS way. It shows a hash of what came.
fn wrong_path(parts: &Parts) -> EmulatorResponse {
    let sent = parts.headers.get("authorization").map_or(&[][..], |value| value.as_bytes());
    let hash = BASE64_STANDARD.encode(digest(&SHA256, sent));
    let text =
        format!("'{hash}' not a valid key=value pair (missing equal-sign) in Authorization header");
    json(403, json!({ "message": text }))
}

fn instead(fault: &ApiFault) -> EmulatorResponse {
    match fault {
        ApiFault::AuthenticationFailed => classic(401, "Authentication failed"),
        ApiFault::Permission(permission) => classic(401, permission.as_str()),
        ApiFault::Throttled { retry_after: secs } => {
            let reply = json(429, json!({ "message": "Too Many Requests" }));
            retry_after(reply.with("amazon-advertising-api-throttled", "true"), *secs)
        }
        ApiFault::ThrottledUntil { secs } => {
            let until = SystemClock.now().wall + Duration::from_secs(*secs);
            let until = httpdate::fmt_http_date(UNIX_EPOCH + until);
            let reply = json(429, json!({ "message": "Too Many Requests" }));
            reply.with("retry-after", &until)
        }
        ApiFault::AccessDenied => json(429, json!({ "message": "Too Many Requests" }))
            .with("x-amzn-errortype", "AccessDeniedException"),
        ApiFault::GatewayHtml => whole(429, "text/html", "<html>Too Many Requests</html>"),
        ApiFault::ServerError => classic(500, "Internal Error"),
        ApiFault::Unavailable => classic(503, "Service Unavailable"),
        ApiFault::Truncate => {
            let half = after(Duration::ZERO, vec![b' '; 500]);
            // Lets the half be written out first: hyper throws away what it still holds.
            let end = Err(io::ErrorKind::ConnectionAborted.into());
            let frames = [half, (Duration::from_millis(20), end)];
            stream("application/json", frames).with("content-length", "1000")
        }
        ApiFault::Respond(script) => scripted(script),
        // What only delays or drops a request was dealt with before.
        ApiFault::SpuriousUnauthorized | ApiFault::Hang | ApiFault::Slow(_) | ApiFault::Drop => {
            json(401, json!({ "message": "Unauthorized" }))
        }
    }
}
