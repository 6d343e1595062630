//! Amazon Marketing Cloud samples.

use super::{
    ads::{ApiCall, classic, only},
    form::random_uuid,
    moment::iso,
    reports::presigned,
    response::{Emulated, json},
};
use serde_json::{Value, json};

const REQUIRED: [&str; 2] =
    ["amazon-advertising-api-marketplaceid", "amazon-advertising-api-advertiserid"];

/// Responds to what lies below `/amc/`.
pub(super) fn respond(call: &ApiCall<'_>, method: &str, path: &[&str]) -> Emulated {
    let missing = REQUIRED.into_iter().find(|name| only(&call.parts.headers, name).is_none());
    let body = match (method, path, missing) {
        ("GET", ["accounts"], _) => accounts(call),
        (.., Some(name)) => {
            return classic(400, &format!("Missing required header {name}"));
        }
        ("GET", ["instances"], _) => instances(call),
        ("POST", ["reporting", _, "workflowExecutions"], _) => json!({
            "workflowExecutionId": random_uuid(),
            "status": "PENDING",
            "createTime": iso(call.service.now().wall),
        }),
        ("GET", ["reporting", _, "workflowExecutions", id], _) => {
            json!({ "workflowExecutionId": id, "status": "SUCCEEDED" })
        }
        ("GET", ["reporting", _, "workflowExecutions", id, "downloadUrls"], _) => {
            json!({ "downloadUrls": [presigned(call.service, id)], "metadataDownloadUrls": [] })
        }
        _ => return classic(404, "Not Found"),
    };
    json(200, body)
}

fn accounts(call: &ApiCall<'_>) -> Value {
    let accounts = call.grant.profiles.iter().map(|profile| {
        json!({
            "accountId": format!("ENTITY{:X}", profile.id),
            "accountName": profile.name,
            "marketplaceId": profile.marketplace(),
        })
    });
    json!({ "amcAccounts": accounts.collect::<Vec<_>>() })
}

fn instances(call: &ApiCall<'_>) -> Value {
    let entities = call.grant.profiles.iter().map(|profile| format!("ENTITY{:X}", profile.id));
    let instance = json!({
        "instanceId": "amcsandbox1",
        "instanceName": "Sandbox instance",
        "customerCanonicalName": call.account,
        "instanceType": "STANDARD",
        "creationStatus": "COMPLETED",
        "creationDatetime": "2026-01-01T00:00:00Z",
        "apiEndpoint": "https://advertising-api.amazon.com",
        "s3BucketName": "amc-sandbox",
        "entities": entities.collect::<Vec<_>>(),
        "optionalDatasets": [],
    });
    json!({ "instances": [instance], "nextToken": "" })
}
