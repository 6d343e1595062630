//! Amazon Marketing Cloud samples.

use super::{
    ads::{ApiCall, classic, only},
    response::{EmulatorResponse, json},
    text::{ISO, random_uuid, spelled},
};
use serde_json::{Value, json};

const REQUIRED_HEADERS: [&str; 2] =
    ["amazon-advertising-api-marketplaceid", "amazon-advertising-api-advertiserid"];

pub(super) fn respond(call: &ApiCall<'_>, method: &str, path: &[&str]) -> EmulatorResponse {
    let is_missing = |name: &&&str| only(&call.parts.headers, name).is_none();
    let missing = REQUIRED_HEADERS.iter().find(is_missing).filter(|_| path != ["accounts"]);
    if let Some(name) = missing {
        return classic(400, &format!("Missing required header {name}"));
    }
    let body = match (method, path) {
        ("GET", ["accounts"]) => json!({ "amcAccounts": accounts(call) }),
        ("GET", ["instances"]) => instances(call),
        ("POST", ["reporting", _, "workflowExecutions"]) => json!({
            "workflowExecutionId": random_uuid(),
            "status": "PENDING",
            "createTime": spelled(call.now().wall, ISO),
        }),
        _ => return classic(404, "Not Found"),
    };
    json(200, body)
}

fn entities(call: &ApiCall<'_>) -> Vec<String> {
    call.grant.profiles.iter().map(|profile| format!("ENTITY{:X}", profile.id)).collect()
}

fn accounts(call: &ApiCall<'_>) -> Value {
    let accounts = call.grant.profiles.iter().zip(entities(call)).map(|(profile, entity)| {
        json!({
            "accountId": entity,
            "accountName": profile.name,
            "marketplaceId": profile.marketplace(),
        })
    });
    accounts.collect()
}

fn instances(call: &ApiCall<'_>) -> Value {
    let instance = json!({
        "instanceId": "amcsandbox1",
        "instanceName": "Sandbox instance",
        "customerCanonicalName": call.account,
        "instanceType": "STANDARD",
        "creationStatus": "COMPLETED",
        "creationDatetime": "2026-01-01T00:00:00Z",
        "apiEndpoint": "https://advertising-api.amazon.com",
        "s3BucketName": "amc-sandbox",
        "entities": entities(call),
        "optionalDatasets": [],
    });
    json!({ "instances": [instance], "nextToken": "" })
}
