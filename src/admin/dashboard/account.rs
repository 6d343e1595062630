//! One account: its state, its profiles, how it fared, what it did of late, and what can be done with it.

use super::{
    Frame, page,
    plot::RefreshPlot,
    requests,
    tenant_audit::OwnEntries,
    words::{self, Until},
};
use crate::{
    admin::{
        AdminCall,
        arguments::Arguments,
        audit_log,
        bodies::{RequestEntry, ThrottledCalls},
        respond::Handled,
        throttling,
    },
    hooks::{Message, rfc3339},
    id::AccountId,
    login::LoginError,
    metrics::CallTrouble,
    provider::operations::OperationClass,
    sync::Account,
};
use askama::Template;
use http::StatusCode;
use serde_json::{Map, Value};

/// Profiles of a region, requests and entries that are shown.
const SHOWN_MAX: usize = 25;

#[derive(Template)]
#[template(path = "account.html")]
struct OneAccountPage {
    frame: Frame,
    name: String,
    /// What was done just now.
    done: Option<&'static str>,
    state: &'static str,
    class: &'static str,
    trouble: Option<String>,
    region: &'static str,
    application: String,
    generation: u64,
    expires: Option<Until>,
    consent_days_left: Option<i64>,
    needs_login: bool,
    may_change: bool,
    profiles: Vec<RegionProfiles>,
    /// Default headers, a line each.
    headers: Vec<String>,
    has_audit: bool,
    /// None where no audit log is kept, or it cannot be read.
    plot: Option<RefreshPlot>,
    /// By class of operation, those of which something is to say; each as in `trouble_names`.
    troubles: Vec<(&'static str, Vec<u64>)>,
    trouble_names: [&'static str; CallTrouble::ALL.len()],
    throttled: Vec<ThrottledCalls>,
    requests: Vec<RequestEntry>,
    /// Messages to hooks, and what became of each; none for tenants, and where there are no hooks.
    hooks: Option<Vec<HookLine>>,
    audit: Vec<AuditLine>,
}

struct RegionProfiles {
    region: &'static str,
    shown: Vec<[String; 5]>,
    more: usize,
}

/// A message to a hook as a line.
struct HookLine {
    message: Message,
    at: String,
    state: &'static str,
    class: &'static str,
}

impl HookLine {
    fn of((message, waits): (Message, bool)) -> Self {
        let (state, class) = match (waits, message.is_dead) {
            (true, _) if message.attempts > 0 => ("failed, to be sent again", "warn"),
            (true, _) => ("waits", "idle"),
            (false, true) => ("given up", "bad"),
            (false, false) => ("delivered", "good"),
        };
        Self { at: rfc3339(message.at), state, class, message }
    }
}

/// An entry of the audit log as a line.
pub(super) struct AuditLine {
    pub(super) time: String,
    pub(super) actor: String,
    pub(super) action: String,
    pub(super) account: String,
    pub(super) outcome: String,
    pub(super) about: String,
}

impl AuditLine {
    pub(super) fn of(entry: &Map<String, Value>) -> Self {
        let text = |name: &str| match entry.get(name) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Null) | None => String::new(),
            Some(other) => other.to_string(),
        };
        let joined = |names: &[&str]| {
            let texts = names.iter().map(|name| text(name)).filter(|text| !text.is_empty());
            texts.collect::<Vec<_>>().join(" ")
        };
        Self {
            time: text("time"),
            actor: joined(&[
                "actor", "user", "tenant", "key_id", "session", "subject", "san", "uid",
            ]),
            action: text("action"),
            account: text("account"),
            outcome: joined(&["outcome", "reason"]),
            about: joined(&["about", "caller", "caller_subject", "count"]),
        }
    }
}

pub(in crate::admin) async fn show(call: AdminCall) -> Handled {
    let (view, id) = (call.view()?, call.id_in_path()?);
    let (account, now) = (call.account(&id)?, call.logins.engine.clock().now().wall);
    let name = call.name_of(&id);
    // A stream sends the live parts only, which need no look into the store or the audit log.
    let is_whole = !call.is_live();
    let template = OneAccountPage {
        frame: call.frame(&name, "accounts"),
        done: call.query.any("done").and_then(|done| match done.as_str() {
            "refresh" => Some("There is a good access token."),
            "profiles" => Some("The profiles are those of now."),
            _ => None,
        }),
        state: words::state(view.state),
        class: words::urgency(&view).class(),
        trouble: words::trouble(&view),
        region: view.region.as_str(),
        expires: view.expires_in.map(|left| Until::of(left, now)),
        needs_login: view.state.needs_login(),
        may_change: call.may_change(),
        profiles: if is_whole { profiles(&call, &id).await } else { Vec::new() },
        has_audit: call.logins.engine.audit().is_on(),
        plot: if is_whole { plot(&call, &id).await } else { None },
        troubles: troubles(&call, &id),
        trouble_names: CallTrouble::ALL.map(CallTrouble::as_str),
        hooks: hooks(&call, &id),
        headers: headers(&account),
        throttled: throttled(&call, &name),
        requests: requests_of(&call, &name)?,
        audit: if is_whole { audit_of(&call, &id).await? } else { Vec::new() },
        application: view.application,
        generation: view.generation,
        consent_days_left: view.consent_days_left,
        name,
    };
    page(StatusCode::OK, &template)
}

/// The profiles that the account had when they were read last.
async fn profiles(call: &AdminCall, id: &AccountId) -> Vec<RegionProfiles> {
    // The page says in its own way that a record is sealed or missing.
    let found = call.logins.remembered_profiles(std::slice::from_ref(id)).await;
    let found = found.ok().and_then(|mut found| found.remove(id)).unwrap_or_default();
    let max = if call.query.any("profiles").is_some() { usize::MAX } else { SHOWN_MAX };
    let regions = found.regions().into_iter().map(|(region, profiles)| {
        let shown = profiles.iter().take(max).map(|one| {
            let texts = [&one.name, &one.country, &one.currency, &one.kind];
            let [name, country, currency, kind] = texts.map(String::clone);
            [one.id.to_string(), name, country, currency, kind]
        });
        RegionProfiles {
            region: region.as_str(),
            shown: shown.collect(),
            more: profiles.len().saturating_sub(max),
        }
    });
    regions.collect()
}

/// How the refreshes of the last days went.
async fn plot(call: &AdminCall, id: &AccountId) -> Option<RefreshPlot> {
    let engine = &call.logins.engine;
    let (audit, id, now) = (engine.audit().clone(), id.clone(), engine.clock().now().wall);
    // The log is read by one page at a time.
    let mut history = call.admin.0.live.history.clone().lock_owned().await;
    let days = tokio::task::spawn_blocking(move || history.of(&audit, &id, now)).await;
    days.ok()?.map(|days| RefreshPlot::of(&days, now))
}

fn troubles(call: &AdminCall, id: &AccountId) -> Vec<(&'static str, Vec<u64>)> {
    let counts = call.logins.engine.with.metrics.troubles(id);
    let by_class = OperationClass::ALL.into_iter().zip(counts);
    let counted = by_class.filter(|(_, counts)| counts.iter().any(|count| *count > 0));
    counted.map(|(class, counts)| (class.as_str(), counts.to_vec())).collect()
}

fn hooks(call: &AdminCall, id: &AccountId) -> Option<Vec<HookLine>> {
    let reports = &call.logins.engine.with.reports;
    let messages = reports.to_hooks_about(id.as_str(), SHOWN_MAX).filter(|_| call.sees_all())?;
    Some(messages.into_iter().map(HookLine::of).collect())
}

fn headers(account: &Account) -> Vec<String> {
    let line = |(name, value): &(http::HeaderName, http::HeaderValue)| {
        format!("{name}: {}", value.to_str().unwrap_or_default())
    };
    account.headers().iter().map(line).collect()
}

fn throttled(call: &AdminCall, name: &str) -> Vec<ThrottledCalls> {
    let mut all = throttling::known(call);
    all.retain(|one| one.accounts.iter().any(|account| account == name));
    all
}

fn requests_of(call: &AdminCall, name: &str) -> Result<Vec<RequestEntry>, LoginError> {
    Ok(requests::list(call, &[("account", name), ("limit", "25")])?.requests)
}

async fn audit_of(call: &AdminCall, id: &AccountId) -> Result<Vec<AuditLine>, LoginError> {
    if !call.sees_all() {
        let own = OwnEntries { account: Some(id.clone()), ..OwnEntries::default() };
        let mut lines = own.read(call).await?;
        lines.truncate(SHOWN_MAX);
        return Ok(lines);
    }
    let query = Arguments::of_pairs(&[("account", id.as_str()), ("limit", "25")]);
    let entries = audit_log::page(call, &query).await?.entries;
    Ok(entries.iter().map(|entry| AuditLine::of(&entry.0)).collect())
}
