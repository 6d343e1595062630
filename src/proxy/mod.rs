//! The request path: guard, select, token, forward, replay, respond.
//!
//! One worker owns one [`Worker`]; nothing on the way of a request is shared between workers but
//! read-mostly tables. Decisions live in `answer`; the functions below it are straight lines. This
//! module never looks into a token and never picks a host.

mod classify_401;
mod content;
pub mod error;
mod exchange;
mod redact;
pub mod respond;
mod select;
mod shim;
mod upstream_body;

use crate::{
    caller_body::CallerBody,
    clock::{Clock, Now},
    config::Config,
    deadline::{Deadlines, Timer},
    error_chain::chain,
    forward::{
        self, Attempt, Forward,
        body::{Capture, CaptureContext, CaptureLimits},
        connect::ConnectError,
        headers,
        upstream::Host,
    },
    inbound::{
        fields::{Field, Fields},
        guard::{self, Guard, GuardRejection},
        request_id,
        session_key::SessionKey,
    },
    log::AccessLog,
    metrics::{Limit, ReplayOutcome, Upstream401, WorkerMetrics},
    provider::ads::Service,
    sync::{Directory, Table},
    token::{self, AccessToken, TokenManager},
};
use arc_swap::{ArcSwap, Cache};
use classify_401::classify_401;
use error::Error;
use exchange::Exchange;
use http::{HeaderValue, Request, Response, StatusCode, Version, request::Parts};
use hyper::body::Body;
use respond::{Answer, AnswerBody, Source};
use select::Selection;
use std::{
    borrow::Cow,
    cell::{Cell, RefCell},
    fmt,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use upstream_body::UpstreamBody;

/// By how much the clocks differ after the machine was suspended.
const SUSPENDED: Duration = Duration::from_secs(5);

/// What all workers share.
#[derive(Debug)]
pub struct Shared {
    /// The configuration.
    pub config: Arc<Config>,
    /// Known accounts.
    pub directory: Directory,
    /// Access tokens.
    pub tokens: TokenManager,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Limits of captures.
    pub captures: Arc<CaptureLimits>,
    /// TLS towards Amazon.
    pub tls: Arc<rustls::ClientConfig>,
    /// Whether new requests are refused.
    pub draining: Arc<AtomicBool>,
    /// What a request must bring, if the listener is private.
    pub session_key: Option<SessionKey>,
}

/// The data plane of one worker thread.
pub struct Worker {
    shared: Arc<Shared>,
    guard: Guard,
    /// The Host that was accepted last, if any was.
    known_host: RefCell<Option<Box<[u8]>>>,
    table: RefCell<Cache<Arc<ArcSwap<Table>>, Arc<Table>>>,
    forward: Forward,
    captures: Rc<CaptureContext>,
    deadlines: Rc<Deadlines>,
    metrics: Arc<WorkerMetrics>,
    access: AccessLog,
    in_flight: Cell<usize>,
    in_flight_max: usize,
    request_ids: Cell<u64>,
    ticked: Cell<Now>,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Worker")
    }
}

impl Worker {
    /// A worker without connections.
    #[must_use]
    pub fn new(shared: Arc<Shared>, metrics: Arc<WorkerMetrics>, access: AccessLog) -> Rc<Self> {
        let config = shared.config.clone();
        let workers = config.proxy.workers;
        let deadlines = Deadlines::new();
        Rc::new(Self {
            guard: Guard::new(&config.guard),
            known_host: RefCell::default(),
            table: RefCell::new(Cache::new(shared.directory.shared())),
            forward: Forward::new(
                &config.upstream,
                workers,
                shared.tls.clone(),
                &deadlines,
                &metrics,
            ),
            captures: Rc::new(CaptureContext {
                limits: shared.captures.clone(),
                deadlines: deadlines.clone(),
                metrics: metrics.clone(),
            }),
            deadlines,
            access,
            in_flight: Cell::new(0),
            in_flight_max: config.limits.in_flight_max.div_ceil(workers),
            request_ids: Cell::new(request_id::first()),
            ticked: Cell::new(shared.clock.now()),
            metrics,
            shared,
        })
    }

    /// Housekeeping, every [`crate::deadline::TICK`].
    pub fn tick(&self) {
        self.deadlines.advance();
        self.forward.close_idle();
        let now = self.shared.clock.now();
        if was_suspended(self.ticked.replace(now), now) {
            // The other side has long given up what looks fresh here.
            self.forward.retire_all();
        }
        self.access.flush();
    }

    /// Answers one request, whatever happens.
    pub async fn handle(self: Rc<Self>, request: Request<CallerBody>) -> Response<AnswerBody> {
        let (mut head, body) = request.into_parts();
        let key = self.shared.session_key.as_ref();
        let opened = key.map_or(Ok(()), |key| key.remove_from(&mut head.uri, &head.headers));
        let fields = Fields::of(&head.headers);
        let mut exchange = Exchange::begin(&self, &head.method, &head.uri, &fields);
        let mut body = Some(body);
        let answered = match opened {
            Ok(()) => self.answer(&head, &fields, &mut body, &mut exchange).await,
            Err(rejection) => Err(Error::Guard(rejection, None)),
        };
        // What was not read is discarded by the connection.
        drop(body);
        let answer = answered.unwrap_or_else(|error| {
            exchange.failed(error.code());
            self.report(&error, exchange.request_id());
            respond::problem(&error, exchange.request_id())
        });
        respond::finish(answer, exchange)
    }

    /// Writes the whole answer to what never became a request, and ends its connection.
    #[must_use]
    pub fn refuse(&self, error: &Error) -> Vec<u8> {
        let request_id = self.fresh_request_id();
        self.metrics.request(error.status().as_u16(), Duration::ZERO);
        self.report(error, &request_id);
        respond::refusal(error, request_id)
    }

    /// The way of a request.
    async fn answer(
        &self,
        head: &Parts,
        fields: &Fields<'_>,
        body: &mut Option<CallerBody>,
        exchange: &mut Exchange,
    ) -> Result<Answer, Error> {
        self.admit(head, fields, body.as_ref())?;
        if select::is_reserved(&head.uri) {
            return Err(Error::NotFound);
        }
        let default = self.shared.config.proxy.default_account.as_ref();
        if shim::is_asked(&head.method, &head.uri) {
            let table = self.shared.directory.snapshot();
            let shim = shim::answer(head, fields, body, &table, default, &self.deadlines);
            return Box::pin(shim).await;
        }
        let selection = select::select(
            &head.uri,
            &head.headers,
            fields,
            self.table.borrow_mut().load(),
            default,
        )?;
        exchange.serves(&selection.account, selection.region);
        let host = self.forward.host(selection.service, selection.region);
        let (tokens, holder) = (&self.shared.tokens, &selection.account.holder);

        let mut token = tokens
            .token_at(holder, exchange.began(), exchange.request_id().as_bytes())
            .await
            .map_err(Error::Token)?;
        let capture = Capture::new(body.take(), selection.account.id.as_str(), &self.captures);
        exchange.uploads(&capture);
        let http1 = head.version < Version::HTTP_2;
        if !http1 || fields.expect.first().is_none() {
            let gathered = capture.gather(http1).await;
            gathered.map_err(forward::Error::Body).map_err(Error::Forward)?;
        }
        let mut refresh_error = None;
        for replays in 0.. {
            let attempt = attempt(head, &selection, &capture, &token);
            let mut response = self.send(host, &attempt, replays).await?;
            if response.status() != StatusCode::UNAUTHORIZED {
                self.replayed(replays, ReplayOutcome::Succeeded);
                let prefix = self.mounted(&selection.prefix);
                headers::rewrite_location(response.headers_mut(), host.uri(), &prefix);
                return Ok(response.map(Source::Amazon));
            }
            let class = classify_401(response.headers(), response.body().peeked());
            self.metrics.upstream_401(class);
            if self.is_final(class, &capture, replays).await {
                if class != Upstream401::Permission {
                    // Too late for this request, in time for the next.
                    tokens.reject(holder, &token, exchange.request_id().as_bytes());
                    self.replayed(replays, ReplayOutcome::StillUnauthorized);
                    // No better token could be had: that is the cause, not the 401.
                    if let Some(error) = refresh_error {
                        return Err(Error::Token(error));
                    }
                }
                return Ok(unauthorized(response, &selection, exchange));
            }
            drop(response);
            let replacement =
                Box::pin(tokens.replace(holder, &token, exchange.request_id().as_bytes())).await;
            let replacement = replacement
                .inspect_err(|_| self.metrics.replay(ReplayOutcome::Failed))
                .map_err(Error::Token)?;
            (token, refresh_error) = (replacement.token, replacement.failed);
            exchange.replayed();
        }
        unreachable!("a request is replayed a bounded number of times")
    }

    /// Sends one attempt. The start of an error response is read before it goes on, so that a 401
    /// can be classified and no token is passed on.
    async fn send(
        &self,
        host: &Rc<Host>,
        attempt: &Attempt<'_>,
        replays: u32,
    ) -> Result<Response<UpstreamBody>, Error> {
        let sent = self.forward.send(host, attempt).await;
        let (response, lease) = sent
            .inspect_err(|_| self.replayed(replays, ReplayOutcome::Failed))
            .map_err(Error::Forward)?;
        let mut response = UpstreamBody::of(response, lease, self.idle_timer());
        if response.status().is_client_error() {
            Box::pin(response.body_mut().peek(&self.deadlines)).await;
            if redact::redact(&mut response, attempt.bearer) {
                self.metrics.response_redacted();
            }
        }
        Ok(response)
    }

    /// Refuses what must not go further, before anything is read of the body.
    fn admit(
        &self,
        head: &Parts,
        fields: &Fields<'_>,
        body: Option<&CallerBody>,
    ) -> Result<(), Error> {
        select::vet(head, fields)?;
        self.check_host(head, fields).map_err(|rejection| {
            let text = guard::explain(rejection, &head.uri, fields);
            Error::Guard(rejection, text.map(String::into_boxed_str))
        })?;
        let limits = &self.shared.config.limits;
        // HTTP/1 counts its lines while it reads them; HTTP/2 does not.
        let bytes = fields.bytes + target_bytes(head);
        if bytes > limits.header_max_bytes || head.headers.len() > limits.headers_max {
            return Err(Error::HeadersTooLarge);
        }
        if self.in_flight.get() > self.in_flight_max {
            self.metrics.limit(Limit::InFlight);
            return Err(Error::Overloaded(
                "The proxy has as many requests in flight as it may (limits.in_flight_max). \
                 Try again later.",
            ));
        }
        if body.is_some_and(|body| self.captures.limits.is_too_large(body.size_hint().lower())) {
            self.metrics.limit(Limit::Body);
            return Err(Error::BodyTooLarge);
        }
        if self.shared.draining.load(Ordering::Relaxed) {
            return Err(Error::Draining);
        }
        Ok(())
    }

    /// Asks the guard. The same Host comes again and again, and is parsed once; a request with a
    /// browser's fields never takes the short way.
    fn check_host(&self, head: &Parts, fields: &Fields<'_>) -> Result<(), GuardRejection> {
        let (Field::One(host), Field::Absent, Field::Absent, None) =
            (fields.host, fields.origin, fields.fetch_site, head.uri.authority())
        else {
            return self.guard.check(head.version, &head.uri, fields);
        };
        if self.known_host.borrow().as_deref() != Some(host.as_bytes()) {
            self.guard.check(head.version, &head.uri, fields)?;
            *self.known_host.borrow_mut() = Some(host.as_bytes().into());
        }
        Ok(())
    }

    /// Whether a 401 is Amazon's last word on this request.
    async fn is_final(&self, class: Upstream401, capture: &Capture, replays: u32) -> bool {
        let is_last = replays >= self.shared.config.replay.max_replays;
        if is_last || class == Upstream401::Permission {
            return true;
        }
        let is_kept = capture.is_kept().await;
        if !is_kept {
            self.metrics.replay(ReplayOutcome::NotReplayable);
        }
        !is_kept
    }

    /// Counts the limits that only an error tells of, and logs what the answer does not say. The
    /// access line has the code of every error already.
    fn report(&self, error: &Error, request_id: &HeaderValue) {
        match error {
            Error::HeadersTooLarge => self.metrics.limit(Limit::Headers),
            Error::Token(token::Error::TooManyWaiters) => self.metrics.limit(Limit::Waiters),
            Error::Forward(forward::Error::Connect(ConnectError::Timeout)) => {
                self.metrics.limit(Limit::ConnectTimeout);
            }
            Error::Forward(forward::Error::Timeout) => {
                self.metrics.limit(Limit::ResponseHeaderTimeout);
            }
            _ => {}
        }
        let request_id = request_id.to_str().unwrap_or_default();
        match error.origin() {
            error::Origin::Upstream => {
                tracing::warn!(request_id, code = error.code(), error = %chain(error), "request failed");
            }
            error::Origin::Caller | error::Origin::Proxy | error::Origin::Lwa => {
                tracing::debug!(request_id, code = error.code(), error = %chain(error), "request refused");
            }
        }
    }

    fn replayed(&self, replays: u32, outcome: ReplayOutcome) {
        if replays > 0 {
            self.metrics.replay(outcome);
        }
    }

    /// Our prefix of a path, as the caller has to write it.
    fn mounted<'a>(&self, prefix: &'a str) -> Cow<'a, str> {
        match &self.shared.session_key {
            None => Cow::Borrowed(prefix),
            Some(key) => Cow::Owned(key.path_prefix() + prefix),
        }
    }

    fn idle_timer(&self) -> (Timer, Duration) {
        (self.deadlines.timer(), self.shared.config.upstream.response_idle_timeout)
    }

    fn fresh_request_id(&self) -> HeaderValue {
        let number = self.request_ids.get();
        self.request_ids.set(number.wrapping_add(1));
        request_id::fresh(number)
    }
}

/// Amazon's last word on a request.
fn unauthorized(
    response: Response<UpstreamBody>,
    selection: &Selection,
    exchange: &mut Exchange,
) -> Answer {
    let mut response = response.map(Source::Amazon);
    if selection.service == Service::Mcp {
        respond::mark_unauthorized(&mut response);
        exchange.failed(respond::UNAUTHORIZED);
    }
    response
}

fn attempt<'a>(
    head: &'a Parts,
    selection: &'a Selection,
    capture: &'a Capture,
    token: &'a AccessToken,
) -> Attempt<'a> {
    Attempt {
        method: &head.method,
        target: &selection.target,
        headers: &head.headers,
        capture,
        bearer: token.header(),
        client_id: &selection.account.client_id,
        defaults: &selection.account.headers,
        names_ads_client: selection.names_ads_client,
    }
}

/// Whether the wall clock alone ran on.
fn was_suspended(then: Now, now: Now) -> bool {
    let awake = now.mono.saturating_duration_since(then.mono);
    now.wall.saturating_sub(then.wall) > awake + SUSPENDED
}

fn target_bytes(head: &Parts) -> usize {
    head.uri.path_and_query().map_or(0, |target| target.as_str().len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_future<A, B, F: Future>(_: impl Fn(A, B) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_suspended_machine_is_told_from_a_busy_one() {
        let clock = crate::clock::ManualClock::new();
        let then = clock.now();
        clock.advance(Duration::from_secs(600));
        assert!(!was_suspended(then, clock.now()), "late, but awake");
        let wall = clock.now().wall;
        clock.set_wall(wall + SUSPENDED);
        assert!(!was_suspended(then, clock.now()), "corrected by a little");
        clock.set_wall(then.wall);
        assert!(!was_suspended(then, clock.now()), "set back");
        clock.set_wall(wall + Duration::from_secs(60));
        assert!(was_suspended(then, clock.now()));
    }

    /// hyper moves the future of every request into its box and keeps that box while the
    /// connection idles: its size costs time and memory on all of them.
    #[test]
    fn the_future_of_a_request_stays_small() {
        let size = size_of_future(Worker::handle);
        assert!(size <= 3328, "{size} bytes: box what is rare");
    }
}
