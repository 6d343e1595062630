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
use std::{collections::HashMap, sync::LazyLock};

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
    if *method != Method::POST {
        return OperationClass::Write;
    }
    let Some(segments) = Segments::of(path) else { return OperationClass::Write };
    let patterns = POSTS.get(segments.get()[0]).into_iter().flatten();
    let mut matching = patterns.filter(|(pattern, _)| pattern.matches(segments.get()));
    matching.next().map_or(OperationClass::Write, |(_, class)| *class)
}

/// No pattern has more segments.
const SEGMENTS_MAX: usize = 8;

/// What is between the slashes of a path.
struct Segments<'p>([&'p str; SEGMENTS_MAX], usize);

impl<'p> Segments<'p> {
    /// None if there are more than a pattern has.
    fn of(path: &'p str) -> Option<Self> {
        let (mut segments, mut count) = ([""; SEGMENTS_MAX], 0);
        for segment in path.strip_prefix('/')?.split('/') {
            *segments.get_mut(count)? = segment;
            count += 1;
        }
        Some(Self(segments, count))
    }

    /// At least one.
    fn get(&self) -> &[&'p str] {
        &self.0[..self.1]
    }
}

/// What may stand in each segment: any text that is not empty for `{}`, `a` or `b` for `a|b`.
struct Pattern(Vec<Vec<&'static str>>);

impl Pattern {
    fn new(text: &'static str) -> Self {
        let segments = text.strip_prefix('/').unwrap_or(text).split('/');
        Self(segments.map(|segment| segment.split('|').collect()).collect())
    }

    fn matches(&self, segments: &[&str]) -> bool {
        let fits = |(names, segment): (&Vec<&str>, &&str)| match names[..] {
            ["{}"] => !segment.is_empty(),
            ref names => names.contains(segment),
        };
        self.0.len() == segments.len() && self.0.iter().zip(segments).all(fits)
    }
}

/// The patterns of both lists by what may be their first segment: to try all of them for each request
/// would cost more than the rest of the request.
static POSTS: LazyLock<HashMap<&str, Vec<(Pattern, OperationClass)>>> = LazyLock::new(|| {
    let mut posts: HashMap<_, Vec<_>> = HashMap::new();
    for (list, class) in [(&READS[..], OperationClass::Read), (&REPORTS, OperationClass::Report)] {
        for text in list {
            for first in &Pattern::new(text).0[0] {
                posts.entry(*first).or_default().push((Pattern::new(text), class));
            }
        }
    }
    posts
});

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
