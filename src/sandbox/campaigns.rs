//! Sponsored Products campaigns (version 3) and their Ads API v1 view.

use super::{
    ads::{ApiCall, classic, only},
    response::{EmulatorResponse, HandlerResult, json, whole},
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const MEDIA_TYPE: &str = "application/vnd.spCampaign.v3+json";

/// Campaigns of one profile at most: the emulator is no database.
const CAMPAIGNS_MAX: usize = 1000;

/// The campaigns made so far, by profile.
pub(super) type Campaigns = Mutex<BTreeMap<i64, Vec<Value>>>;

/// Looks at the campaigns of `profile`, or changes them; the first look finds one.
fn with<T>(call: &ApiCall<'_>, profile: i64, look: impl FnOnce(&mut Vec<Value>) -> T) -> T {
    look(call.state().api.campaigns.lock().entry(profile).or_insert_with(|| {
        vec![json!({
            "campaignId": campaign_id(profile, 0),
            "name": "Sandbox campaign",
            "state": "ENABLED",
            "targetingType": "AUTO",
            "startDate": "2026-01-01",
            "budget": { "budget": 10.0, "budgetType": "DAILY" },
            "dynamicBidding": { "strategy": "LEGACY_FOR_SALES", "placementBidding": [] },
        })]
    }))
}

/// Adds a campaign to those of `profile`; returns it as stored, or what is wrong with it.
fn add(list: &mut Vec<Value>, profile: i64, mut campaign: Value) -> Result<Value, Value> {
    let name = campaign["name"].as_str().unwrap_or_default();
    if name.is_empty() {
        return Err(fault("missingValueError", "MISSING_VALUE", "name is required"));
    }
    if list.iter().any(|have| have["name"] == name) {
        let text = "Campaign with the specified name already exists";
        return Err(fault("duplicateValueError", "DUPLICATE_VALUE", text));
    }
    if list.len() >= CAMPAIGNS_MAX {
        return Err(fault("entityQuotaError", "QUOTA_EXCEEDED", "too many campaigns"));
    }
    campaign["campaignId"] = campaign_id(profile, list.len()).into();
    list.push(campaign.clone());
    Ok(campaign)
}

/// `POST /sp/campaigns/list`
pub(super) fn list(call: &ApiCall<'_>) -> HandlerResult {
    call.require_type(&[MEDIA_TYPE])?;
    let campaigns = with(call, call.scope()?, |list| list.clone());
    let body = json!({ "totalResults": campaigns.len(), "campaigns": campaigns });
    Ok(whole(200, MEDIA_TYPE, body.to_string()))
}

/// `POST /sp/campaigns`: 207, each campaign with its own outcome.
pub(super) fn create(call: &ApiCall<'_>) -> HandlerResult {
    call.require_type(&[MEDIA_TYPE])?;
    let profile = call.scope()?;
    let body = call.json().unwrap_or_default();
    let wanted = body["campaigns"].as_array();
    let wanted = wanted.ok_or_else(|| classic(400, "Could not parse JSON"))?;
    let prefer = only(&call.parts.headers, "prefer").unwrap_or_default();
    let (mut success, mut error) = (Vec::new(), Vec::new());
    for (index, campaign) in wanted.iter().enumerate() {
        match with(call, profile, |list| add(list, profile, campaign.clone())) {
            Ok(made) => {
                let mut item = json!({ "index": index, "campaignId": made["campaignId"] });
                if prefer.contains("return=representation") {
                    item["campaign"] = made;
                }
                success.push(item);
            }
            Err(what) => error.push(json!({ "index": index, "errors": [what] })),
        }
    }
    let body = json!({ "campaigns": { "success": success, "error": error } });
    Ok(whole(207, MEDIA_TYPE, body.to_string()))
}

/// `POST /adsApi/v1/query/campaigns`
pub(super) fn query(call: &ApiCall<'_>) -> EmulatorResponse {
    let first = call.grant.profiles.first().map_or(0, |profile| profile.id);
    let profile = call.scope().unwrap_or(first);
    let as_v1 = |campaign: &Value| {
        json!({
            "campaignId": campaign["campaignId"],
            "adProduct": "SPONSORED_PRODUCTS",
            "name": campaign["name"],
            "state": campaign["state"],
            "startDateTime": "2026-01-01T00:00:00Z",
            "marketplaceScope": "SINGLE_MARKETPLACE",
        })
    };
    let look = |list: &mut Vec<Value>| list.iter().map(as_v1).collect::<Value>();
    let campaigns = with(call, profile, look);
    json(200, json!({ "campaigns": campaigns, "nextToken": null }))
}

fn campaign_id(profile: i64, index: usize) -> String {
    format!("{}{index:04}", profile % 1_000_000_000)
}

fn fault(kind: &str, reason: &str, message: &str) -> Value {
    json!({ "errorType": kind, "errorValue": { kind: { "reason": reason, "message": message } } })
}
