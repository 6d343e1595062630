//! Amazon Marketing Cloud samples.

use super::{
    ads::{Call, classic, only},
    form::random_uuid,
    moment::iso,
    reports::presigned,
    response::{Body, json},
};
use http::{HeaderName, Method, Response, StatusCode};
use serde_json::json;

const MARKETPLACE: HeaderName = HeaderName::from_static("amazon-advertising-api-marketplaceid");
const ADVERTISER: HeaderName = HeaderName::from_static("amazon-advertising-api-advertiserid");

/// Responds to what lies below `/amc/`.
pub(super) fn respond(call: &Call<'_>, path: &[&str]) -> Response<Body> {
    let is_get = call.parts.method == Method::GET;
    let is_post = call.parts.method == Method::POST;
    if matches!(path, ["accounts"]) && is_get {
        return accounts(call);
    }
    for name in [MARKETPLACE, ADVERTISER] {
        if only(&call.parts.headers, &name).is_none() {
            let text = format!("Missing required header {name}");
            return classic(StatusCode::BAD_REQUEST, &text);
        }
    }
    match path {
        ["instances"] if is_get => instances(call),
        ["reporting", _, "workflowExecutions"] if is_post => {
            let body = json!({
                "workflowExecutionId": random_uuid(),
                "status": "PENDING",
                "createTime": iso(call.context.now().wall),
            });
            json(StatusCode::OK, &body)
        }
        ["reporting", _, "workflowExecutions", id] if is_get => {
            json(StatusCode::OK, &json!({ "workflowExecutionId": id, "status": "SUCCEEDED" }))
        }
        ["reporting", _, "workflowExecutions", id, "downloadUrls"] if is_get => {
            let urls = [presigned(call.context, id)];
            json(StatusCode::OK, &json!({ "downloadUrls": urls, "metadataDownloadUrls": [] }))
        }
        _ => classic(StatusCode::NOT_FOUND, "Not Found"),
    }
}

fn accounts(call: &Call<'_>) -> Response<Body> {
    let accounts = call.grant.profiles.iter().map(|profile| {
        json!({
            "accountId": format!("ENTITY{:X}", profile.id),
            "accountName": profile.name,
            "marketplaceId": profile.marketplace(),
        })
    });
    json(StatusCode::OK, &json!({ "amcAccounts": accounts.collect::<Vec<_>>() }))
}

fn instances(call: &Call<'_>) -> Response<Body> {
    let instance = json!({
        "instanceId": "amcsandbox1",
        "instanceName": "Sandbox instance",
        "customerCanonicalName": call.account,
        "instanceType": "STANDARD",
        "creationStatus": "COMPLETED",
        "creationDatetime": "2026-01-01T00:00:00Z",
        "apiEndpoint": "https://advertising-api.amazon.com",
        "s3BucketName": "amc-sandbox",
        "entities": call.grant.profiles.iter().map(|p| format!("ENTITY{:X}", p.id))
            .collect::<Vec<_>>(),
        "optionalDatasets": [],
    });
    json(StatusCode::OK, &json!({ "instances": [instance], "nextToken": "" }))
}
