//! What works and what does not: the server, its store and keys, Login with Amazon, messages to hooks,
//! limits, and the other servers.

use super::{Frame, page, redirect};
use crate::{
    account::State,
    admin::{AdminCall, bodies::ThrottledCalls, outbox, respond::Handled, throttling},
    hooks::{Message, rfc3339},
    login::LoginError,
    problem::Code,
};
use askama::Template;
use http::StatusCode;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// Messages that are shown.
const MESSAGES_MAX: usize = 100;
/// How old the counts of messages are that a stream sends.
const LETTERS_AGE_MAX: Duration = Duration::from_secs(10);
/// Servers that are shown.
const SERVERS_MAX: usize = 100;

#[derive(Template)]
#[template(path = "health.html")]
struct HealthPage {
    frame: Frame,
    version: &'static str,
    is_operator: bool,
    may_change: bool,
    /// The lines of `/readyz?verbose`.
    checks: Vec<String>,
    store: String,
    unsaved: usize,
    has_audit: bool,
    restart_required: Vec<String>,
    waiting: usize,
    dead: usize,
    /// Why it is not known how many messages wait.
    trouble: Option<String>,
    messages: Vec<LetterLine>,
    throttled: Vec<ThrottledCalls>,
    /// When a refresh succeeded last and failed last.
    refreshed: [Option<String>; 2],
    applications: Vec<ApplicationLine>,
    /// Limits that were hit, and how often.
    limits: Vec<(&'static str, u64)>,
    /// Ids of the keys of the configuration, the one that seals first; none where nothing is sealed.
    keys: Vec<String>,
    servers: Vec<ServerLine>,
}

/// A message to a hook.
struct LetterLine {
    message: Message,
    queued: String,
}

/// An LWA application, and how its accounts do.
#[derive(Debug, Default, PartialEq, Eq)]
struct ApplicationLine {
    name: String,
    accounts: usize,
    /// Login with Amazon rejects its client id or secret.
    is_rejected: bool,
    /// Accounts whose last refresh failed.
    failing: usize,
}

/// A server on the store.
struct ServerLine {
    name: String,
    version: Option<String>,
    /// It has the key that this server seals with.
    has_key: bool,
}

pub(in crate::admin) async fn show(call: AdminCall) -> Handled {
    let (engine, health) = (&call.logins.engine, &call.admin.0.health);
    let is_operator = call.sees_all();
    let unsaved = engine.tokens().unsaved();
    let report = health.report(call.may_count_all().then_some(unsaved == 0));
    let (letters, trouble) = match letters(&call).await {
        Ok(letters) => (letters, None),
        Err(error) => (Default::default(), Some(error.to_string())),
    };
    let (mut messages, [waiting, dead]) = letters;
    // What was given up is what a person is needed for.
    messages.sort_by_key(|message| !message.is_dead);
    messages.truncate(MESSAGES_MAX);
    let config = engine.config();
    let place = config.store.place().filter(|_| is_operator);
    let reload = health.reload.get().filter(|_| is_operator);
    let metrics = &engine.with.metrics;
    let ring = engine.store().ring();
    let template = HealthPage {
        frame: call.frame("Health", "health"),
        version: env!("CARGO_PKG_VERSION"),
        is_operator,
        may_change: call.may_change(),
        checks: report.lines().map(str::to_owned).collect(),
        store: [config.store.kind.as_str(), &place.unwrap_or_default()].join(" "),
        unsaved,
        has_audit: engine.audit().is_on(),
        restart_required: reload.map(|it| it.restart_required()).unwrap_or_default(),
        waiting,
        dead,
        trouble,
        messages: messages
            .into_iter()
            .map(|message| LetterLine { queued: rfc3339(message.queued_at), message })
            .collect(),
        throttled: throttling::cooling(&call),
        refreshed: metrics.last_refreshes().map(|at| at.map(rfc3339)),
        applications: if is_operator { applications(&call) } else { Vec::new() },
        limits: metrics.limit_hits().into_iter().filter(|(_, hits)| *hits > 0).collect(),
        keys: ring.ids().filter(|_| config.store.kind.seals()).map(str::to_owned).collect(),
        // A stream sends the live parts only, which these are not.
        servers: match is_operator && !call.is_live() && !is_away(&call) {
            true => servers(&call).await,
            false => Vec::new(),
        },
    };
    page(StatusCode::OK, &template)
}

/// Whether the store could not be reached just now: then nothing waits for it again.
fn is_away(call: &AdminCall) -> bool {
    call.visitor.as_ref().is_some_and(|visitor| visitor.is_remembered)
}

/// The messages to hooks, and how many wait and were given up. A stream sends no message, and counts
/// that are a moment old: an outbox may be long, above all when a person looks at it.
async fn letters(call: &AdminCall) -> Result<(Vec<Message>, [usize; 2]), LoginError> {
    if !call.sees_all() {
        return Ok(Default::default());
    }
    if is_away(call) {
        return Err(LoginError::new(Code::StoreFailed, "the store cannot be reached"));
    }
    let mut counted = call.admin.0.live.letters.lock().await;
    if let Some((at, counts)) = *counted
        && call.is_live()
        && at.elapsed() < LETTERS_AGE_MAX
    {
        return Ok((Vec::new(), counts));
    }
    let messages = outbox::messages(call).await?;
    let dead = messages.iter().filter(|message| message.is_dead).count();
    let counts = [messages.len() - dead, dead];
    *counted = Some((Instant::now(), counts));
    Ok((messages, counts))
}

/// The applications of the configuration, and how their accounts do.
fn applications(call: &AdminCall) -> Vec<ApplicationLine> {
    let config = call.logins.engine.config();
    let line = |name: &String| {
        (name.clone(), ApplicationLine { name: name.clone(), ..Default::default() })
    };
    let mut lines: BTreeMap<String, ApplicationLine> =
        config.applications.keys().map(line).collect();
    for view in call.listed_accounts().worst_first() {
        let Some(line) = lines.get_mut(&view.application) else { continue };
        line.accounts += 1;
        line.is_rejected |= view.state == State::ApplicationRejected;
        line.failing += usize::from(view.last_error.is_some());
    }
    lines.into_values().collect()
}

/// The servers that run on the store, this one first; none where the store does not say.
async fn servers(call: &AdminCall) -> Vec<ServerLine> {
    let store = call.logins.engine.store();
    let mut found = store.instances().await.unwrap_or_default();
    found.sort_by_key(|server| !server.is_this_process());
    found.truncate(SERVERS_MAX);
    let line = |server: crate::store::InstanceInfo| ServerLine {
        name: match (&server.host, server.is_this_process()) {
            (_, true) => "this server".to_owned(),
            (Some(host), false) => format!("{host}, process {}", server.pid),
            (None, false) => format!("process {}", server.pid),
        },
        has_key: server.has(store.ring().first()),
        version: server.version,
    };
    found.into_iter().map(line).collect()
}

/// Queues the message that the form names again, or all that were given up.
pub(in crate::admin) async fn resend(call: AdminCall) -> Handled {
    let id = call.form.one("id")?;
    let queued = outbox::queue_again(&call, id.as_deref()).await?;
    let missing = || LoginError::new(Code::NotFound, "there is none of this id any more");
    queued.map(|_| redirect("/dashboard/health")).ok_or_else(missing)
}
