//! What the rules say of a request that is only asked about, for operators.

use super::rules::{Denial, RuledRequest, Rules};
use crate::provider::{
    ads::{self, Service},
    operations::classify,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

/// A request that is only asked about.
#[derive(Debug)]
pub(crate) struct AskedRequest<'a> {
    pub(crate) method: &'a Method,
    /// The path at Amazon, without a query.
    pub(crate) path: &'a str,
    /// The account as the caller says it.
    pub(crate) account: Option<&'a str>,
    /// The account's default headers.
    pub(crate) defaults: &'a [(HeaderName, HeaderValue)],
    pub(crate) profile: Option<&'a HeaderValue>,
}

impl AskedRequest<'_> {
    /// The class of the operation, and why the rules refuse it, if they do.
    pub(crate) fn judge(&self, rules: &Rules) -> (&'static str, Option<Denial>) {
        let (method, path, defaults) = (self.method, self.path, self.defaults);
        let mut headers = HeaderMap::new();
        headers.extend(self.profile.map(|profile| (ads::SCOPE_FIELD.clone(), profile.clone())));
        let service = ads::service(path).0;
        let request = RuledRequest { method, path, service, headers: &headers, defaults };
        let denial = self.account.and_then(|name| rules.explain_account(name));
        let denial = denial.or_else(|| rules.judge(&request).err());
        let class = match service {
            Service::Api => classify(method, path).as_str(),
            Service::Mcp => "mcp",
        };
        (class, denial)
    }
}
