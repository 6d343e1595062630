//! Reports: version 3 (the address in the body), version 2 (307), and the host they lie on.

use super::{
    Service,
    ads::{ApiCall, gzip},
    form::{Form, encode, random_uuid},
    moment::{compact, days_ago, iso, iso_date},
    record::Received,
    response::{Emulated, Stop, With, empty, json, whole},
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

/// The reports asked for so far, by id.
#[derive(Debug, Default)]
pub(super) struct Reports(Mutex<BTreeMap<String, SampleReport>>);

#[derive(Debug, Clone)]
struct SampleReport {
    account: String,
    request: Value,
    body_sha256: String,
    polls: u32,
    created: Duration,
}

impl SampleReport {
    fn of(call: &ApiCall<'_>, request: Value) -> Self {
        let body_sha256 = call.body.sha256.clone();
        let created = call.service.now().wall;
        Self { account: call.account.clone(), request, body_sha256, polls: 0, created }
    }
}

impl Reports {
    /// Adds a report, unless the same is being made: then its id.
    fn add(&self, report: SampleReport, polls: u32) -> Result<String, String> {
        let mut reports = self.0.lock();
        let running = reports.iter().find(|(_, have)| {
            have.polls < polls
                && have.account == report.account
                && have.body_sha256 == report.body_sha256
        });
        if let Some((id, _)) = running {
            return Err(id.clone());
        }
        if reports.len() >= REPORTS_MAX {
            reports.pop_first();
        }
        let id = random_uuid();
        reports.insert(id.clone(), report);
        Ok(id)
    }

    /// Looks at the report; says whether it is complete after `polls` earlier looks.
    fn look(&self, account: &str, id: &str, polls: u32) -> Option<(SampleReport, bool)> {
        let mut reports = self.0.lock();
        let report = reports.get_mut(id).filter(|report| report.account == account)?;
        let is_complete = report.polls >= polls;
        report.polls = report.polls.saturating_add(1);
        Some((report.clone(), is_complete))
    }
}

/// `POST /reporting/reports`
pub(super) fn request(call: &ApiCall<'_>) -> Result<Emulated, Stop> {
    call.takes(&REQUEST_TYPES)?;
    call.scope()?;
    let wanted = call.json().filter(|body| body["configuration"].is_object());
    let wanted = wanted.ok_or_else(|| {
        json(400, json!({ "code": "400", "detail": "configuration is required" }))
    })?;
    let report = SampleReport::of(call, wanted);
    let reports = &call.service.state.api.reports;
    let id = reports.add(report.clone(), call.settings.report_polls).map_err(|id| {
        let detail = format!("The Request is a duplicate of : {id}");
        json(425, json!({ "code": "425", "detail": detail }))
    })?;
    let body = view(&id, &report, call.service.now(), None);
    Ok(whole(200, REQUESTED_TYPE, body.to_string()))
}

/// `GET /reporting/reports/{id}`
pub(super) fn status(call: &ApiCall<'_>, id: &str) -> Result<Emulated, Stop> {
    call.scope()?;
    let (report, is_complete) = look(call, id)?;
    let url = is_complete.then(|| presigned(call.service, id));
    let body = view(id, &report, call.service.now(), url);
    Ok(whole(200, STATUS_TYPE, body.to_string()))
}

/// `POST /sd/{type}/report`
pub(super) fn request_v2(call: &ApiCall<'_>) -> Result<Emulated, Stop> {
    call.scope()?;
    let report = SampleReport::of(call, call.json().unwrap_or_default());
    // Version 2 knows no duplicates.
    let id = call.service.state.api.reports.add(report, 0).unwrap_or_else(|id| id);
    let body = json!({
        "reportId": id,
        "recordType": "campaigns",
        "status": "IN_PROGRESS",
        "statusDetails": "Report is being generated",
    });
    Ok(json(202, body))
}

/// `GET /v2/reports/{id}`
pub(super) fn status_v2(call: &ApiCall<'_>, id: &str) -> Result<Emulated, Stop> {
    let (_, is_complete) = look(call, id)?;
    if !is_complete {
        return Ok(json(200, json!({ "reportId": id, "status": "IN_PROGRESS" })));
    }
    let body = json!({
        "reportId": id,
        "status": "SUCCESS",
        "statusDetails": "Report successfully generated",
        "location": format!("https://advertising-api.amazon.com/v2/reports/{id}/download"),
        "fileSize": file(call.service.now()).len(),
    });
    Ok(json(200, body))
}

/// `GET /v2/reports/{id}/download`: the address is in `Location`. Any id has a report.
pub(super) fn download_v2(call: &ApiCall<'_>, id: &str) -> Emulated {
    empty(307).with("location", &presigned(call.service, id))
}

/// The report, and whether it is complete.
fn look(call: &ApiCall<'_>, id: &str) -> Result<(SampleReport, bool), Stop> {
    let reports = &call.service.state.api.reports;
    reports.look(&call.account, id, call.settings.report_polls).ok_or_else(|| {
        let detail = format!("Report {id} not found");
        json(404, json!({ "code": "404", "detail": detail })).into()
    })
}

/// The presigned host: it takes the signature in the query or a header, never both.
pub(super) fn stored(parts: &Parts, body: &Received, now: Now) -> Emulated {
    let query = Form::parse(parts.uri.query().unwrap_or_default());
    if let Some(sent) = parts.headers.get("authorization") {
        // S3 repeats the header it refuses: this is how bearer tokens leak.
        let sent = String::from_utf8_lossy(sent.as_bytes());
        let sent = sent.replace('&', "&amp;").replace('<', "&lt;");
        let more = format!(
            "<ArgumentName>Authorization</ArgumentName><ArgumentValue>{sent}</ArgumentValue>"
        );
        let text = "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, \
             Signature query string parameter or the Authorization header should be specified";
        return refusal(400, "InvalidArgument", text, &more);
    }
    if query.get("X-Amz-Signature").is_none() {
        return refusal(403, "AccessDenied", "Access Denied", "");
    }
    if body.len > 0 {
        return refusal(405, "MethodNotAllowed", "Not allowed", "");
    }
    whole(200, "application/octet-stream", file(now))
}

/// An address that looks like S3's; the emulator serves it under another host name than the API,
/// as a presigned address is never on Amazon's API host.
pub(super) fn presigned(service: &Service, id: &str) -> String {
    let date = compact(service.now().wall);
    let day = date.get(..8).unwrap_or_default();
    format!(
        "http://{}/_s3/offline-report-storage-us-east-1-prod/{id}/report-{id}.json.gz\
         ?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Date={date}&X-Amz-SignedHeaders=host\
         &X-Amz-Expires=3600&X-Amz-Credential={}&X-Amz-Signature={}",
        service.s3_authority,
        encode(&format!("SANDBOX/{day}/us-east-1/s3/aws4_request")),
        "0".repeat(64),
    )
}

fn view(id: &str, report: &SampleReport, now: Now, url: Option<String>) -> Value {
    let is_complete = url.is_some();
    let request = &report.request;
    let expires = now.plus(Duration::from_secs(3600)).wall;
    json!({
        "reportId": id,
        "name": request["name"],
        "startDate": request["startDate"],
        "endDate": request["endDate"],
        "configuration": request["configuration"],
        "status": if is_complete { "COMPLETED" } else { "PENDING" },
        "createdAt": iso(report.created),
        "updatedAt": iso(now.wall),
        "generatedAt": is_complete.then(|| iso(now.wall)),
        "failureReason": null,
        "fileSize": is_complete.then(|| file(now).len()),
        "url": url,
        "urlExpiresAt": is_complete.then(|| iso(expires)),
    })
}

/// The report itself, `GZIP_JSON`: the ten days before today.
fn file(now: Now) -> Bytes {
    let row = |day: u64| {
        json!({
            "date": iso_date(days_ago(now, 11 - day)),
            "campaignName": "Sandbox campaign",
            "impressions": 1000 + day,
            "clicks": 10 + day,
            "cost": 1.5,
        })
    };
    gzip(Value::Array((1..=10).map(row).collect()).to_string().as_bytes())
}

fn refusal(status: u16, code: &str, message: &str, more: &str) -> Emulated {
    let id = random_uuid();
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code>\
         <Message>{message}</Message>{more}<RequestId>{id}</RequestId></Error>"
    );
    whole(status, "application/xml", body)
}
