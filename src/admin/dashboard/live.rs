//! Live pages: for each page in sight a stream of events, with the parts of the page that changed.
//!
//! A stream renders its page as a request for it would, with what its session may see at that moment:
//! once a second at most, and only where something may have changed. It makes the next event when the
//! browser has taken the last one, so a slow browser costs no memory. It ends with its session and when
//! the server drains.

use super::{
    account_list::AccountList, audit_tail::AuditTail, check::LogChecks, history::RefreshHistory,
    profile_counts::ProfileCounts, verified::VerifiedSessions,
};
use crate::{
    admin::{
        AdminCall,
        access::CallerAccess,
        health::Readiness,
        respond::{Handled, Reply, stream},
        routes::{Audience, Route},
    },
    problem::Code,
};
use bytes::Bytes;
use futures_util::{
    StreamExt,
    stream::{once, unfold},
};
use http::{HeaderMap, Method, StatusCode, header::ACCEPT};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use parking_lot::Mutex;
use serde_json::json;
use std::{
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    future::ready,
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::{Duration, Instant},
};

/// Streams of one session, and of all sessions.
const SESSION_STREAMS_MAX: usize = 4;
const STREAMS_MAX: usize = 64;
/// Between two looks at what a page shows, and at the session.
const INTERVAL: Duration = Duration::from_secs(1);
/// After so long without an event a comment is sent: proxies end connections that are silent.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(15);
/// Then the browser opens another stream: the listener would end the connection a minute later.
const LIFETIME: Duration = Duration::from_secs(540);
/// The beginning of a part in a template, before its name, and its end.
const PART_BEGIN: &str = "<div data-live=\"";
const PART_END: &str = "<!--live-->";

/// What a stream is asked for and sent as.
const EVENTS: &str = "text/event-stream";
const HEARTBEAT: &str = ":\n\n";
/// The page is to be loaded again: its session has ended, or it is no more.
const END: &str = "event: end\ndata: 1\n\n";

/// The streams that are open, and what pages share.
#[derive(Default)]
pub(in crate::admin) struct LiveStreams {
    pub(super) accounts: AccountList,
    pub(super) profiles: ProfileCounts,
    pub(super) checks: Arc<LogChecks>,
    /// How many messages to hooks waited and were given up, and when.
    pub(super) letters: tokio::sync::Mutex<Option<(Instant, [usize; 2])>>,
    pub(super) audit: Arc<tokio::sync::Mutex<AuditTail>>,
    pub(super) history: Arc<tokio::sync::Mutex<RefreshHistory>>,
    pub(super) verified: VerifiedSessions,
    /// How many, by the session.
    open: Arc<Mutex<HashMap<String, usize>>>,
    /// Held by the one tenant that reads the audit log.
    pub(super) tenant_reader: tokio::sync::Mutex<()>,
}

/// The place of an open stream.
struct StreamPlace {
    open: Arc<Mutex<HashMap<String, usize>>>,
    session: String,
}

/// A stream that is open.
struct LiveStream {
    route: &'static Route,
    /// The request for the page, with what its session may see.
    call: AdminCall,
    pulse: Pulse,
    hasher: RandomState,
    /// The hash of each part as it was sent last.
    sent: BTreeMap<String, u64>,
    opened: Instant,
    wrote: Instant,
    _place: StreamPlace,
}

/// Numbers that change when something changes that a page may show.
#[derive(Debug, PartialEq, Eq)]
struct Pulse([u64; 7]);

/// What a look at the page has brought.
enum PageLook {
    Nothing,
    Changed(String),
    Ended,
}

/// Whether a request is for the stream of its page.
pub(in crate::admin) fn is_wanted(route: &Route, call: &AdminCall) -> bool {
    route.audience == Audience::Dashboard && call.parts.method == Method::GET && call.is_live()
}

/// Whether a request with these `headers` is for events: it is sent by a page, not by a person.
pub(super) fn asks_for_events(headers: &HeaderMap) -> bool {
    headers.get(ACCEPT).is_some_and(|accept| accept.as_bytes() == EVENTS.as_bytes())
}

/// Begins the stream of a page; a page that has no live part is returned as it is.
pub(in crate::admin) async fn begin(route: &'static Route, call: AdminCall) -> Handled {
    let state = call.admin.0.clone();
    if state.health.readiness() == Readiness::Draining {
        return Ok(Code::Draining.problem().respond(&call.request_id));
    }
    let session = call.visitor.as_ref().map(|visitor| visitor.key.clone());
    let Some(place) = state.live.enter(session.unwrap_or_default()) else {
        return Ok(Code::TooManyRequests.problem().respond(&call.request_id));
    };
    let now = Instant::now();
    let mut live = LiveStream {
        route,
        pulse: Pulse::of(&call),
        call,
        hasher: RandomState::new(),
        sent: BTreeMap::new(),
        opened: now,
        wrote: now,
        _place: place,
    };
    let page = (route.handler)(live.call.clone()).await?;
    let parts = live.changed(&page);
    if page.status() != StatusCode::OK || parts.is_empty() {
        return Ok(page);
    }
    // The browser's clock may be wrong: the script counts down by this one.
    let now = live.call.logins.engine.clock().now().wall.as_millis();
    let first = format!("retry: 3000\nevent: time\ndata: {now}\n\n{parts}");
    let following = unfold(Some(live), |live: Option<LiveStream>| async { live?.next().await });
    let frames = once(ready(Bytes::from(first))).chain(following);
    let frames = frames.map(|bytes| Ok::<_, Infallible>(Frame::data(bytes)));
    Ok(stream(EVENTS, StreamBody::new(frames).boxed_unsync()))
}

impl AdminCall {
    /// Whether the page is rendered for a stream: only its live parts count.
    pub(super) fn is_live(&self) -> bool {
        asks_for_events(&self.parts.headers)
    }
}

impl LiveStreams {
    /// A place for one more stream of `session`, if there is one.
    fn enter(&self, session: String) -> Option<StreamPlace> {
        let mut open = self.open.lock();
        let own = open.get(&session).copied().unwrap_or(0);
        if own >= SESSION_STREAMS_MAX || open.values().sum::<usize>() >= STREAMS_MAX {
            return None;
        }
        open.insert(session.clone(), own + 1);
        Some(StreamPlace { open: self.open.clone(), session })
    }
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        let mut open = self.open.lock();
        match open.get_mut(&self.session) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(open.remove(&self.session)),
        }
    }
}

impl LiveStream {
    /// The next event, with what is to be asked for the one after it; none at the end.
    async fn next(mut self) -> Option<(Bytes, Option<Self>)> {
        let health = self.call.admin.0.health.clone();
        let step = tokio::select! {
            () = health.draining() => None,
            step = self.step() => step,
        };
        let (text, is_last) = step?;
        self.wrote = Instant::now();
        Some((text, (!is_last).then_some(self)))
    }

    /// The next event, and whether it is the last; none after the lifetime.
    async fn step(&mut self) -> Option<(Bytes, bool)> {
        while self.opened.elapsed() < LIFETIME {
            tokio::time::sleep(INTERVAL).await;
            match self.look().await {
                PageLook::Changed(parts) => return Some((parts.into(), false)),
                PageLook::Ended => return Some((END.into(), true)),
                PageLook::Nothing if self.wrote.elapsed() >= HEARTBEAT_INTERVAL => {
                    return Some((HEARTBEAT.into(), false));
                }
                PageLook::Nothing => {}
            }
        }
        None
    }

    /// Looks at the session and then, where something may have changed, at the page.
    async fn look(&mut self) -> PageLook {
        let AdminCall { admin, parts, request_id, .. } = &self.call;
        // Another server or this one may have ended the session, and its rules may have changed.
        let access = match admin.visitor_access(self.route, parts, request_id).await {
            Ok(access) => access,
            // Nothing is shown while it cannot be said whether it may be.
            Err(reply) if reply.status().is_server_error() => return PageLook::Nothing,
            Err(_) => return PageLook::Ended,
        };
        let CallerAccess { principal, scope, visitor, actor: _ } = access;
        self.call = AdminCall { principal, scope, visitor, ..self.call.clone() };
        let pulse = Pulse::of(&self.call);
        if pulse == self.pulse {
            return PageLook::Nothing;
        }
        let page = match (self.route.handler)(self.call.clone()).await {
            Ok(page) if page.status() == StatusCode::OK => page,
            Err(error) if error.code.row().status.is_server_error() => return PageLook::Nothing,
            _ => return PageLook::Ended,
        };
        self.pulse = pulse;
        match self.changed(&page) {
            parts if parts.is_empty() => PageLook::Nothing,
            parts => PageLook::Changed(parts),
        }
    }

    /// The events for the parts of `page` that are not as they were sent last.
    fn changed(&mut self, page: &Reply) -> String {
        let page = str::from_utf8(page.body()).unwrap_or_default();
        let mut events = String::new();
        for (name, html) in parts(page) {
            let hash = self.hasher.hash_one(html);
            if self.sent.insert(name.to_owned(), hash) != Some(hash) {
                events += &format!("event: part\ndata: {}\n\n", json!([name, html]));
            }
        }
        events
    }
}

impl Pulse {
    fn of(call: &AdminCall) -> Self {
        let (engine, state) = (&call.logins.engine, &call.admin.0);
        let now = engine.clock().now().unix();
        // A good response says something, too, while calls wait for Amazon: their waits are shown.
        let are_waiting = engine.throttling.concerns(StatusCode::OK);
        Self([
            state.live.accounts.load(engine, AccountList::AGE_MAX).version,
            engine.requests.changes(),
            engine.with.metrics.events(),
            engine.tokens().unsaved() as u64,
            state.health.readiness() as u64,
            state.live.checks.version(),
            // What other servers wrote to the store, and texts such as `in 5 min`.
            if are_waiting { now } else { now / 10 },
        ])
    }
}

/// The live parts of a page, by their names. No text that is shown can hold their marks: it is escaped.
fn parts(page: &str) -> impl Iterator<Item = (&str, &str)> {
    page.split(PART_BEGIN).skip(1).filter_map(|part| {
        let (name, rest) = part.split_once("\">")?;
        Some((name, rest.split_once(PART_END)?.0))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_live_parts_of_a_page_are_found_by_their_names() {
        let page = "<p>x</p><div data-live=\"one\">\n<b>1</b>\n<!--live--></div> <div data-live=\"two\">2\
            <!--live--></div><div>3</div>";
        assert_eq!(parts(page).collect::<Vec<_>>(), [("one", "\n<b>1</b>\n"), ("two", "2")]);
        assert_eq!(parts("<p>&lt;div data-live=&quot;x&quot;&gt;</p>").count(), 0);
    }

    #[test]
    fn a_session_has_few_streams_and_all_have_a_limit() {
        let streams = LiveStreams::default();
        let mut places: Vec<_> = (0..SESSION_STREAMS_MAX)
            .map(|_| streams.enter("a".to_owned()).expect("a place"))
            .collect();
        assert!(streams.enter("a".to_owned()).is_none());
        places.pop();
        places.push(streams.enter("a".to_owned()).expect("the place of one that has ended"));
        for number in places.len()..STREAMS_MAX {
            places.push(streams.enter(number.to_string()).expect("another session's"));
        }
        assert!(streams.enter("b".to_owned()).is_none());
        drop(places);
        assert!(streams.open.lock().is_empty());
    }
}
