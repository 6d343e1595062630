//! Reports: version 3 (the address in the body), version 2 (307), and the host they lie on.

use super::{
    Context,
    ads::{Call, gzip, refuse_type},
    form::{Form, encode, random_uuid},
    moment::{compact, days_ago, iso, iso_date},
    record::Received,
    response::{Body, json, set, whole},
};
use crate::clock::Now;
use bytes::Bytes;
use http::{Response, StatusCode, header, request::Parts};
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
pub(super) struct Reports(Mutex<BTreeMap<String, Report>>);

#[derive(Debug, Clone)]
struct Report {
    account: String,
    request: Value,
    body_sha256: String,
    polls: u32,
    created: Duration,
}

impl Reports {
    /// Adds a report, unless the same is being made: then its id.
    fn add(&self, report: Report, polls: u32) -> Result<String, String> {
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
    fn look(&self, account: &str, id: &str, polls: u32) -> Option<(Report, bool)> {
        let mut reports = self.0.lock();
        let report = reports.get_mut(id).filter(|report| report.account == account)?;
        let is_complete = report.polls >= polls;
        report.polls = report.polls.saturating_add(1);
        Some((report.clone(), is_complete))
    }
}

/// `POST /reporting/reports`
pub(super) fn request(call: &Call<'_>) -> Response<Body> {
    if let Some(refusal) = refuse_type(call.parts, &REQUEST_TYPES) {
        return refusal;
    }
    if let Err(refusal) = call.scope() {
        return *refusal;
    }
    let Some(wanted) = call.json().filter(|body| body["configuration"].is_object()) else {
        let body = json!({ "code": "400", "detail": "configuration is required" });
        return json(StatusCode::BAD_REQUEST, &body);
    };
    let polls = call.settings.report_polls;
    match call.context.state.api.reports.add(new_report(call, wanted.clone()), polls) {
        Ok(id) => {
            let body = view(&id, &new_report(call, wanted), call.context.now(), None);
            whole(StatusCode::OK, REQUESTED_TYPE, body.to_string())
        }
        Err(id) => {
            let detail = format!("The Request is a duplicate of : {id}");
            json(StatusCode::TOO_EARLY, &json!({ "code": "425", "detail": detail }))
        }
    }
}

/// `GET /reporting/reports/{id}`
pub(super) fn status(call: &Call<'_>, id: &str) -> Response<Body> {
    if let Err(refusal) = call.scope() {
        return *refusal;
    }
    let polls = call.settings.report_polls;
    match call.context.state.api.reports.look(&call.account, id, polls) {
        Some((report, is_complete)) => {
            let url = is_complete.then(|| presigned(call.context, id));
            let body = view(id, &report, call.context.now(), url);
            whole(StatusCode::OK, STATUS_TYPE, body.to_string())
        }
        None => not_found(id),
    }
}

/// `POST /sd/{type}/report`
pub(super) fn request_v2(call: &Call<'_>) -> Response<Body> {
    if let Err(refusal) = call.scope() {
        return *refusal;
    }
    let report = new_report(call, call.json().unwrap_or_default());
    // Version 2 knows no duplicates.
    let id = call.context.state.api.reports.add(report, 0).unwrap_or_else(|id| id);
    let body = json!({
        "reportId": id,
        "recordType": "campaigns",
        "status": "IN_PROGRESS",
        "statusDetails": "Report is being generated",
    });
    json(StatusCode::ACCEPTED, &body)
}

/// `GET /v2/reports/{id}`
pub(super) fn status_v2(call: &Call<'_>, id: &str) -> Response<Body> {
    let polls = call.settings.report_polls;
    match call.context.state.api.reports.look(&call.account, id, polls) {
        Some((_, true)) => {
            let body = json!({
                "reportId": id,
                "status": "SUCCESS",
                "statusDetails": "Report successfully generated",
                "location": format!("https://advertising-api.amazon.com/v2/reports/{id}/download"),
                "fileSize": file(call.context.now()).len(),
            });
            json(StatusCode::OK, &body)
        }
        Some((_, false)) => {
            json(StatusCode::OK, &json!({ "reportId": id, "status": "IN_PROGRESS" }))
        }
        None => not_found(id),
    }
}

/// `GET /v2/reports/{id}/download`: the address is in `Location`. Any id has a report.
pub(super) fn download_v2(call: &Call<'_>, id: &str) -> Response<Body> {
    let mut response = whole(StatusCode::TEMPORARY_REDIRECT, "", Bytes::new());
    set(&mut response, header::LOCATION, &presigned(call.context, id));
    response
}

/// The presigned host: it takes the signature in the query or a header, never both.
pub(super) fn stored(parts: &Parts, body: &Received, now: Now) -> Response<Body> {
    let query = Form::parse(parts.uri.query().unwrap_or_default());
    if let Some(sent) = parts.headers.get(header::AUTHORIZATION) {
        // S3 repeats the header it refuses: this is how bearer tokens leak.
        let sent = String::from_utf8_lossy(sent.as_bytes());
        let sent = sent.replace('&', "&amp;").replace('<', "&lt;");
        let more = format!(
            "<ArgumentName>Authorization</ArgumentName><ArgumentValue>{sent}</ArgumentValue>"
        );
        let text = "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, \
             Signature query string parameter or the Authorization header should be specified";
        return refusal(StatusCode::BAD_REQUEST, "InvalidArgument", text, &more);
    }
    if query.get("X-Amz-Signature").is_none() {
        return refusal(StatusCode::FORBIDDEN, "AccessDenied", "Access Denied", "");
    }
    if body.len > 0 {
        return refusal(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "Not allowed", "");
    }
    whole(StatusCode::OK, "application/octet-stream", file(now))
}

/// An address that looks like S3's; the emulator serves it under another host name than the API,
/// as a presigned address is never on Amazon's API host.
pub(super) fn presigned(context: &Context, id: &str) -> String {
    let date = compact(context.now().wall);
    let day = date.get(..8).unwrap_or_default();
    format!(
        "http://{}/_s3/offline-report-storage-us-east-1-prod/{id}/report-{id}.json.gz\
         ?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Date={date}&X-Amz-SignedHeaders=host\
         &X-Amz-Expires=3600&X-Amz-Credential={}&X-Amz-Signature={}",
        context.s3_authority,
        encode(&format!("SANDBOX/{day}/us-east-1/s3/aws4_request")),
        "0".repeat(64),
    )
}

fn new_report(call: &Call<'_>, request: Value) -> Report {
    let body_sha256 = call.body.sha256.clone();
    let created = call.context.now().wall;
    Report { account: call.account.clone(), request, body_sha256, polls: 0, created }
}

fn view(id: &str, report: &Report, now: Now, url: Option<String>) -> Value {
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

fn not_found(id: &str) -> Response<Body> {
    let detail = format!("Report {id} not found");
    json(StatusCode::NOT_FOUND, &json!({ "code": "404", "detail": detail }))
}

fn refusal(status: StatusCode, code: &str, message: &str, more: &str) -> Response<Body> {
    let id = random_uuid();
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code>\
         <Message>{message}</Message>{more}<RequestId>{id}</RequestId></Error>"
    );
    whole(status, "application/xml", body)
}
