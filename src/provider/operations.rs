//! What an operation of Amazon's does: whether it reads, makes a report, or writes.
//!
//! Reading is often a `POST` (`…/list`, `…/query/…`, recommendations that are only computed), and
//! names do not tell: `POST /recommendations/apply` spends money. So each published `POST` that does
//! not write is listed below, and what is not listed is a write.
//!
//! Source: Amazon's OpenAPI files as of 2026-07, `tests/data/amazon-operations.tsv`. What this table
//! makes of them is `tests/data/operations-classified.tsv`.

use crate::named::named;
use http::Method;

named! {
    /// What an operation does at Amazon.
    pub enum OperationClass {
        /// Changes nothing.
        Read = "read",
        /// Starts a report, an export or a query whose result is read later; changes nothing else.
        Report = "report",
        /// Changes something, or may do so.
        Write = "write",
    }
}

/// The class of the operation that `method` and `path` (without query) name.
///
/// `GET`, `HEAD` and `OPTIONS` read, on unknown paths as well: no published one changes anything.
/// All but `POST` write. Upper and lower case are different, and so is a path with one more slash:
/// a spelling that is not the published one is a write.
pub fn classify(method: &Method, path: &str) -> OperationClass {
    if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
        return OperationClass::Read;
    }
    let lists = |patterns: &[&str]| patterns.iter().any(|pattern| matches(pattern, path));
    if *method != Method::POST {
        OperationClass::Write
    } else if lists(&READS) {
        OperationClass::Read
    } else if lists(&REPORTS) {
        OperationClass::Report
    } else {
        OperationClass::Write
    }
}

/// Whether `path` has the segments of `pattern`: `{}` is any one that is not empty, `a|b` either.
fn matches(pattern: &str, path: &str) -> bool {
    let (mut wanted, mut given) = (pattern.split('/'), path.split('/'));
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return true,
            (Some("{}"), Some(segment)) if !segment.is_empty() => {}
            (Some(names), Some(segment)) if names.split('|').any(|name| name == segment) => {}
            _ => return false,
        }
    }
}

/// `POST`s that only read.
const READS: [&str; 71] = [
    // Lists.
    "/accounts/{}/dsp/conversionDefinitions|mobileMeasurementPartners/list",
    "/adsAccounts/list",
    "/amc/instances/{}/collaboration/idmappingtables|idnamespaces/list",
    "/amc/instances/{}/collaboration/idmappingtables/{}/jobs/list",
    "/audiences/list",
    "/audiences/taxonomy/list",
    "/billing/paymentAgreements|paymentMethods/list",
    "/billingProfiles|billingProfileUsages/list",
    "/eligibility/product/list",
    "/invoiceSummaries/list",
    "/locations/list",
    "/measurement/vendorProducts/list",
    "/measurement/vendorProducts/omnichannelMetrics/brands/list",
    "/mediaPlan/v1/reachForecasts/list",
    "/mediaPlan/v1/reachForecasts/targets/list",
    "/mmm/v1/brandGroups/list",
    "/portfolios/list",
    "/recommendations/list",
    "/sb/ads/creatives/list",
    "/sb/negativeTargets|targets|themes/list",
    "/sb/recommendations/targets/product/list",
    "/sb/rules/optimization/list",
    "/sb/v4/adGroups|ads|campaigns/list",
    "/sp/adGroups|campaigns|productAds/list",
    "/sp/campaignNegativeKeywords|keywords|negativeKeywords/list",
    "/sp/campaignNegativeTargets|negativeTargets|targets/list",
    "/sp/global/targets/keywords/recommendations/list",
    "/sp/targetPromotionGroups/list",
    "/sp/targetPromotionGroups/targets/list",
    // Queries. Not /amc/audiences/query, which makes an audience from a query.
    "/adsApi/v1/query|retrieve/{}",
    "/adsApi/v1/query|retrieve/{}/dsp|sb",
    "/assets/search",
    "/history",
    "/sp/negativeTargets/brands/search",
    "/sp/rules/optimization/search",
    "/sp/v1/events",
    // Reads of many things at once.
    "/accounts/{}/dsp/batchOrders/conversionDefinitionAssociations",
    "/billing/notifications|statuses",
    "/moderation/results",
    "/product/metadata",
    "/sb/v4/legacyCampaigns/migrationJob/results|status",
    "/sb/v4/legacyCampaigns/overallMigrationResults",
    // Figures.
    "/insights/bandedSize|demographics|primeVideo",
    "/insights/topCategoriesPurchased|topOverlappingAudiences",
    "/portfolios/budget/usage",
    "/sb|sd|sp/campaigns/budget/usage",
    "/sb/campaigns/insights",
    "/sb|sp/targets/products/count",
    "/stores/{}/asinMetrics|insights",
    // Whether something would be allowed. Viewers may ask for pre-moderation; it keeps nothing.
    "/dsp/measurement/eligibility/{}",
    "/eligibility/programs",
    "/measurement/planning/eligibility",
    "/preModeration",
    "/sp/rules/campaignOptimization/eligibility|state",
    // Recommendations, forecasts and previews that are computed and not kept.
    "/dsp/campaigns/targetKpi/recommendations",
    "/sb|sd|sp/campaigns/budgetRecommendations",
    "/sb|sp/campaigns/budgetRules/recommendations",
    "/sb|sd/forecasts",
    "/sb/recommendations/bids|keyword|optimization",
    "/sb|sd/recommendations/creative/headline",
    "/sb/recommendations/targets/brand|category",
    "/sd/creatives/preview",
    "/sd/targets/recommendations",
    "/sd|sp/targets/bid/recommendations",
    "/sp/campaigns/initialBudgetRecommendation",
    "/sp/global/targets/bid/recommendations",
    "/sp/targetPromotionGroups/recommendations",
    "/sp/targeting/recommendations/keywordGroups",
    "/sp/targets/categories|keywords|products/recommendations",
    "/v2/sp/asins/suggested/keywords",
    "/v2/sp/keywords|targets/bidRecommendations",
];

/// `POST`s that make a report, an export, a snapshot, a statement, or run a query.
const REPORTS: [&str; 11] = [
    "/adGroups|ads|campaigns|targets/export",
    "/adsApi/v1/create/reports",
    "/amc/reporting/{}/workflowExecutions",
    "/attribution/report",
    "/billingStatements",
    "/insights/brandMetrics/report",
    "/mmm/v1/reports",
    "/reporting/reports",
    "/sd/{}/report|snapshot",
    "/v2/hsa/{}/report",
    "/v2/sp/{}/snapshot",
];

#[cfg(test)]
#[path = "operations_tests.rs"]
mod tests;
