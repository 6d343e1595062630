//! Reports: version 3 (the address in the body), version 2 (307), and the host they lie on.

use super::{
    ads::{ApiCall, gzip},
    http_server::EmulatorService,
    response::{EmulatorResponse, HandlerResult, With, json, whole},
    text::{COMPACT, DATE, FormPairs, ISO, days_ago, encode, escape, random_uuid, spelled},
};
use crate::clock::Now;
use bytes::Bytes;
use http::request::Parts;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};

/// The documented type, and the one that python-amazon-ad-api sends.
const REQUEST_TYPES: [&str; 2] =
    ["application/vnd.createasyncreportrequest.v3+json", "application/json"];
const REQUESTED_TYPE: &str = "application/vnd.createasyncreportresponse.v3+json";
const STATUS_TYPE: &str = "application/vnd.getasyncreportresponse.v3+json";

/// Reports remembered at most; the oldest id (in text order) goes first.
const REPORTS_MAX: usize = 1000;

pub(super) type ReportList = Mutex<BTreeMap<String, RequestedReport>>;

#[derive(Debug)]
pub(super) struct RequestedReport {
    account: String,
    request: Value,
    body_sha256: String,
    polls: u32,
    created: Duration,
}

/// Adds a report; fails with the id of the same report that is still being made, which is one
/// that was looked at less than `polls` times.
fn add(call: &ApiCall<'_>, request: Value, polls: u32) -> Result<String, String> {
    let (account, body_sha256) = (call.account.clone(), call.seen.lock().body_sha256.clone());
    let mut reports = call.state().api.reports.lock();
    let running = reports.iter().find(|(_, have)| {
        have.polls < polls && have.account == account && have.body_sha256 == body_sha256
    });
    if let Some((id, _)) = running {
        return Err(id.clone());
    }
    if reports.len() >= REPORTS_MAX {
        reports.pop_first();
    }
    let (id, created) = (random_uuid(), call.now().wall);
    let report = RequestedReport { account, request, body_sha256, polls: 0, created };
    reports.insert(id.clone(), report);
    Ok(id)
}

impl RequestedReport {
    /// The report as version 3 shows it, with the address once it is complete.
    fn to_json(&self, call: &ApiCall<'_>, id: &str, is_complete: bool) -> String {
        let now = call.now();
        let once_complete = |value: Value| if is_complete { value } else { Value::Null };
        let expires = now.plus(Duration::from_secs(3600)).wall;
        let report = json!({
            "reportId": id,
            "name": self.request["name"],
            "startDate": self.request["startDate"],
            "endDate": self.request["endDate"],
            "configuration": self.request["configuration"],
            "status": if is_complete { "COMPLETED" } else { "PENDING" },
            "createdAt": spelled(self.created, ISO),
            "updatedAt": spelled(now.wall, ISO),
            "generatedAt": once_complete(spelled(now.wall, ISO).into()),
            "failureReason": null,
            "fileSize": once_complete(file(now).len().into()),
            "urlExpiresAt": once_complete(spelled(expires, ISO).into()),
            "url": once_complete(presigned(call.service, id).into()),
        });
        report.to_string()
    }
}

/// `POST /reporting/reports`
pub(super) fn request(call: &ApiCall<'_>) -> HandlerResult {
    call.require_type(&REQUEST_TYPES)?;
    call.scope()?;
    let wanted = call.json().filter(|body| body["configuration"].is_object());
    let wanted = wanted.ok_or_else(|| failed(400, "configuration is required"))?;
    let id = add(call, wanted, call.settings.report_polls)
        .map_err(|id| failed(425, &format!("The Request is a duplicate of : {id}")))?;
    let reports = call.state().api.reports.lock();
    Ok(whole(200, REQUESTED_TYPE, reports[&id].to_json(call, &id, false)))
}

/// `GET /reporting/reports/{id}`: complete once it was looked at often enough.
pub(super) fn status(call: &ApiCall<'_>, id: &str) -> HandlerResult {
    call.scope()?;
    let mut reports = call.state().api.reports.lock();
    let report = reports.get_mut(id).filter(|report| report.account == call.account);
    let report = report.ok_or_else(|| failed(404, &format!("Report {id} not found")))?;
    let is_complete = report.polls >= call.settings.report_polls;
    report.polls = report.polls.saturating_add(1);
    Ok(whole(200, STATUS_TYPE, report.to_json(call, id, is_complete)))
}

fn failed(status: u16, detail: &str) -> EmulatorResponse {
    json(status, json!({ "code": status.to_string(), "detail": detail }))
}

/// `POST /sd/{type}/report`: version 2 knows no duplicates.
pub(super) fn request_v2(call: &ApiCall<'_>) -> HandlerResult {
    call.scope()?;
    let body = json!({
        "reportId": add(call, call.json().unwrap_or_default(), 0).unwrap_or_else(|id| id),
        "recordType": "campaigns",
        "status": "IN_PROGRESS",
        "statusDetails": "Report is being generated",
    });
    Ok(json(202, body))
}

/// `GET /v2/reports/{id}/download`: the address is in `Location`. Any id has a report.
pub(super) fn download_v2(call: &ApiCall<'_>, id: &str) -> EmulatorResponse {
    whole(307, "", "").with("location", &presigned(call.service, id))
}

/// The presigned host: it takes the signature in the query or a header, never both.
pub(super) fn stored(parts: &Parts, body: &Bytes, now: Now) -> EmulatorResponse {
    if let Some(sent) = parts.headers.get("authorization") {
        // S3 repeats the header that it rejects: this is how bearer tokens leak.
        let more = format!(
            "<ArgumentName>Authorization</ArgumentName><ArgumentValue>{}</ArgumentValue>",
            escape(&String::from_utf8_lossy(sent.as_bytes()))
        );
        let text = "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, \
             Signature query string parameter or the Authorization header should be specified";
        return s3_error(400, "InvalidArgument", text, &more);
    }
    if FormPairs::of_query(&parts.uri).get("X-Amz-Signature").is_none() {
        return s3_error(403, "AccessDenied", "Access Denied", "");
    }
    if !body.is_empty() {
        return s3_error(405, "MethodNotAllowed", "Not allowed", "");
    }
    whole(200, "application/octet-stream", file(now))
}

/// An address that looks like S3's; the emulator serves it under another host name than the API,
/// as a presigned address is never on Amazon's API host.
fn presigned(service: &EmulatorService, id: &str) -> String {
    let now = service.state.lwa.now().wall;
    let (date, day) = (spelled(now, COMPACT), spelled(now, "%Y%m%d"));
    format!(
        "http://{}/_s3/offline-report-storage-us-east-1-prod/{id}/report-{id}.json.gz\
         ?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Date={date}&X-Amz-SignedHeaders=host\
         &X-Amz-Expires=3600&X-Amz-Credential={}&X-Amz-Signature={}",
        service.s3_authority,
        encode(&format!("SANDBOX/{day}/us-east-1/s3/aws4_request")),
        "0".repeat(64),
    )
}

/// The report itself, `GZIP_JSON`: the ten days before today.
fn file(now: Now) -> Bytes {
    let row = |day: u64| {
        json!({
            "date": spelled(days_ago(now, 11 - day), DATE),
            "campaignName": "Sandbox campaign",
            "impressions": 1000 + day,
            "clicks": 10 + day,
            "cost": 1.5,
        })
    };
    gzip((1..=10).map(row).collect::<Value>().to_string().as_bytes())
}

fn s3_error(status: u16, code: &str, message: &str, more: &str) -> EmulatorResponse {
    let id = random_uuid();
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code>\
         <Message>{message}</Message>{more}<RequestId>{id}</RequestId></Error>"
    );
    whole(status, "application/xml", body)
}
