//! Sponsored Products campaigns (version 3) and their Ads API v1 view.

use super::{
    ads::{Call, classic, only, refuse_type},
    response::{Body, whole},
};
use http::{HeaderName, Response, StatusCode};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const MEDIA_TYPE: &str = "application/vnd.spCampaign.v3+json";

/// Campaigns of one profile at most: the emulator is no database.
const CAMPAIGNS_MAX: usize = 1000;

/// The campaigns made so far, by profile.
#[derive(Debug, Default)]
pub(super) struct Campaigns(Mutex<BTreeMap<i64, Vec<Value>>>);

impl Campaigns {
    /// The campaigns of `profile`; the first look finds one.
    fn of(&self, profile: i64) -> Vec<Value> {
        self.0.lock().entry(profile).or_insert_with(|| vec![sample(profile)]).clone()
    }

    /// Adds a campaign; returns it as stored, or what is wrong with it.
    fn add(&self, profile: i64, mut campaign: Value) -> Result<Value, Value> {
        let mut all = self.0.lock();
        let list = all.entry(profile).or_insert_with(|| vec![sample(profile)]);
        let Some(name) = campaign.get("name").and_then(Value::as_str).filter(|n| !n.is_empty())
        else {
            return Err(fault("missingValueError", "MISSING_VALUE", "name is required"));
        };
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
}

/// `POST /sp/campaigns/list`
pub(super) fn list(call: &Call<'_>) -> Response<Body> {
    if let Some(refusal) = refuse_type(call.parts, &[MEDIA_TYPE]) {
        return refusal;
    }
    let profile = match call.scope() {
        Ok(profile) => profile,
        Err(refusal) => return *refusal,
    };
    let campaigns = call.context.state.api.campaigns.of(profile);
    let body = json!({ "totalResults": campaigns.len(), "campaigns": campaigns });
    whole(StatusCode::OK, MEDIA_TYPE, body.to_string())
}

/// `POST /sp/campaigns`: 207, each campaign with its own outcome.
pub(super) fn create(call: &Call<'_>) -> Response<Body> {
    if let Some(refusal) = refuse_type(call.parts, &[MEDIA_TYPE]) {
        return refusal;
    }
    let profile = match call.scope() {
        Ok(profile) => profile,
        Err(refusal) => return *refusal,
    };
    let body = call.json();
    let Some(wanted) = body.as_ref().and_then(|body| body["campaigns"].as_array()) else {
        return classic(StatusCode::BAD_REQUEST, "Could not parse JSON");
    };
    let is_full = only(&call.parts.headers, &HeaderName::from_static("prefer"))
        .is_some_and(|prefer| prefer.contains("return=representation"));
    let (mut success, mut error) = (Vec::new(), Vec::new());
    for (index, campaign) in wanted.iter().enumerate() {
        match call.context.state.api.campaigns.add(profile, campaign.clone()) {
            Ok(made) => {
                let mut item = json!({ "index": index, "campaignId": made["campaignId"] });
                if is_full {
                    item["campaign"] = made;
                }
                success.push(item);
            }
            Err(what) => error.push(json!({ "index": index, "errors": [what] })),
        }
    }
    let body = json!({ "campaigns": { "success": success, "error": error } });
    whole(StatusCode::MULTI_STATUS, MEDIA_TYPE, body.to_string())
}

/// `POST /adsApi/v1/query/campaigns`
pub(super) fn query(call: &Call<'_>) -> Response<Body> {
    let first = call.grant.profiles.first().map_or(0, |profile| profile.id);
    let profile = call.scope().unwrap_or(first);
    let campaigns = call.context.state.api.campaigns.of(profile);
    let campaigns: Vec<_> = campaigns.iter().map(as_v1).collect();
    super::response::json(StatusCode::OK, &json!({ "campaigns": campaigns, "nextToken": null }))
}

fn as_v1(campaign: &Value) -> Value {
    json!({
        "campaignId": campaign["campaignId"],
        "adProduct": "SPONSORED_PRODUCTS",
        "name": campaign["name"],
        "state": campaign["state"],
        "startDateTime": "2026-01-01T00:00:00Z",
        "marketplaceScope": "SINGLE_MARKETPLACE",
    })
}

fn sample(profile: i64) -> Value {
    json!({
        "campaignId": campaign_id(profile, 0),
        "name": "Sandbox campaign",
        "state": "ENABLED",
        "targetingType": "AUTO",
        "startDate": "2026-01-01",
        "budget": { "budget": 10.0, "budgetType": "DAILY" },
        "dynamicBidding": { "strategy": "LEGACY_FOR_SALES", "placementBidding": [] },
    })
}

fn campaign_id(profile: i64, index: usize) -> String {
    format!("{}{index:04}", profile % 1_000_000_000)
}

fn fault(kind: &str, reason: &str, message: &str) -> Value {
    json!({ "errorType": kind, "errorValue": { kind: { "reason": reason, "message": message } } })
}
