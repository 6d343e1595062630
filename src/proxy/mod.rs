//! The request path: limits, account, token, forward, replay, respond.
//!
//! One worker thread owns one [`Worker`]; on the way of a request workers share nothing but tables
//! that are read without a lock. The decisions are in `Worker::proxy`; the functions below it are
//! straight lines. This module never looks into a token and never picks a host.

mod caller;
mod classify_401;
mod content;
mod error;
mod exchange;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod mcp;
mod open_requests;
mod places;
mod redact;
mod report;
mod respond;
mod select;
mod settings;
mod shim;
mod throttled;
mod trace;
mod view;

use crate::{
    audit::Audit,
    caller_body::CallerBody,
    callers::{BearerCache, Callers, Principal, Unauthenticated, key::NewKey},
    clock::{Clock, Now},
    config::Config,
    deadline::Deadlines,
    forward::{Attempt, Forward, body::Capture, headers, pool::Pool},
    inbound::{
        fields::Fields,
        guard::{self, Guard},
        path_key,
        peer::ConnectionInfo,
        request_id,
    },
    log::AccessLog,
    metrics::{LimitHit, ReplayOutcome, Upstream401, WorkerMetrics},
    problem::Code,
    recent::{RecentRequests, WorkerRequests},
    sync::{Directory, Table},
    telemetry::{SpanRecorder, WorkerSpans},
    throttling::Throttling,
    token::TokenManager,
};
use arc_swap::{ArcSwap, Cache};
use bytes::Bytes;
use classify_401::classify_401;
pub use error::Error;
use exchange::Exchange;
use http::{Request, Response, StatusCode, Version, request::Parts};
use hyper::body::Body;
use mcp::ToolGate;
use open_requests::OpenRequests;
use places::Places;
use respond::{ExchangeBody, unauthorized};
use select::Selection;
pub use settings::Settings;
use settings::{LatestSettings, WorkerSettings};
use std::{
    cell::{Cell, RefCell},
    pin::pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::runtime::Handle;

/// What all workers share.
#[derive(Debug)]
pub struct DataPlane {
    /// As at the start: for what waits for a restart.
    pub config: Arc<Config>,
    pub settings: Arc<ArcSwap<Settings>>,
    pub directory: Directory,
    pub callers: Arc<Callers>,
    pub tokens: TokenManager,
    pub clock: Arc<dyn Clock>,
    pub throttling: Arc<Throttling>,
    /// For the admin API.
    pub requests: Arc<RecentRequests>,
    /// For a collector.
    pub spans: Option<SpanRecorder>,
    /// TLS towards Amazon.
    pub tls: Arc<rustls::ClientConfig>,
    /// Whether new requests are rejected.
    pub draining: Arc<AtomicBool>,
    pub audit: Audit,
    /// What is not to hold up a worker runs on it.
    pub control: Handle,
    /// Of the private listener of a command, which is reached below `/k/<key>` too.
    pub path_key: Option<NewKey>,
}

pub struct Worker {
    shared: Arc<DataPlane>,
    guard: Guard,
    /// The Host that was accepted last.
    known_host: RefCell<Option<Box<[u8]>>>,
    /// Whose JWTs were verified.
    bearers: BearerCache,
    table: RefCell<Cache<Arc<ArcSwap<Table>>, Arc<Table>>>,
    forward: Forward,
    settings: LatestSettings,
    deadlines: Rc<Deadlines>,
    metrics: Arc<WorkerMetrics>,
    access: AccessLog,
    recent: WorkerRequests,
    spans: Option<WorkerSpans>,
    in_flight: Cell<usize>,
    open: Rc<OpenRequests>,
    places: Places,
    /// Of requests whose form for the token endpoint is awaited.
    forms: Places,
    request_ids: Cell<u64>,
    ticked: Cell<Now>,
}

impl Worker {
    pub fn new(shared: Arc<DataPlane>, metrics: Arc<WorkerMetrics>, access: AccessLog) -> Rc<Self> {
        let config = shared.config.clone();
        let workers = config.proxy.workers;
        let deadlines = Deadlines::new();
        let tls = shared.tls.clone();
        Rc::new(Self {
            guard: Guard::new(&config.guard),
            known_host: RefCell::default(),
            bearers: BearerCache::default(),
            table: RefCell::new(Cache::new(shared.directory.clone())),
            forward: Forward::new(&config.upstream, workers, tls, &deadlines, &metrics),
            settings: LatestSettings::new(&shared.settings, &deadlines, &metrics),
            deadlines,
            access,
            recent: shared.requests.worker(),
            spans: shared.spans.as_ref().map(SpanRecorder::worker),
            in_flight: Cell::new(0),
            open: Rc::default(),
            places: Places::default(),
            forms: Places::default(),
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
        self.open.end(now);
        if now.was_suspended_since(self.ticked.replace(now)) {
            // The other side has long given up what looks fresh here.
            self.forward.retire_all();
        }
        self.access.flush();
        self.recent.hand_over();
        self.spans.iter().for_each(WorkerSpans::hand_over);
    }

    /// What a request that begins now goes by.
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.load().shared.clone()
    }

    /// Responds to one request, whatever happens; counts and logs it.
    pub fn handle(
        self: Rc<Self>,
        request: Request<CallerBody>,
        connection: Rc<ConnectionInfo>,
    ) -> impl Future<Output = Response<ExchangeBody>> + use<> {
        // Before the async block, whose room would hold the request twice.
        let (mut head, body) = request.into_parts();
        let path_key = self.shared.path_key.as_ref().and_then(|_| path_key::take(&mut head.uri));
        let mut body = Some(body);
        async move {
            let fields = Fields::of(&head.headers);
            let mut exchange = Exchange::begin(&self, &head, &fields, &connection);
            let proxied =
                match self.enforce_limits(&head, &fields, body.as_ref(), &exchange.settings) {
                    Ok(()) => {
                        let principal = self.authenticate(
                            &head,
                            &fields,
                            path_key,
                            &connection,
                            exchange.began,
                        );
                        exchange.open = self.open.begin(principal.as_ref().ok());
                        let watched = exchange.open.as_ref().map(|open| open.number);
                        let proxied =
                            self.proxy(&head, &fields, principal, &mut body, &mut exchange);
                        self.open.until_ended(watched, pin!(proxied)).await
                    }
                    Err(error) => Err(error),
                };
            // What was not read is discarded by the connection.
            drop(body);
            let response = proxied.unwrap_or_else(|error| {
                exchange.error = Some(error.code().row().code);
                self.report(&error, &exchange.request_id);
                respond::problem(&error, &exchange.request_id).map(ExchangeBody::ours)
            });
            exchange.finish(response)
        }
    }

    /// The response to what never became a request.
    pub fn reject(&self, error: &Error) -> Response<Bytes> {
        let request_id = self.fresh_request_id();
        self.metrics.request(error.status().as_u16(), Duration::ZERO);
        self.report(error, &request_id);
        respond::problem(error, &request_id)
    }

    async fn proxy(
        &self,
        head: &Parts,
        fields: &Fields<'_>,
        principal: Result<Option<Arc<Principal>>, Unauthenticated>,
        body: &mut Option<CallerBody>,
        exchange: &mut Exchange,
    ) -> Result<Response<ExchangeBody>, Error> {
        let principal = self.verified(principal, head).await;
        if shim::is_token_request(head) {
            return Box::pin(self.token_endpoint(head, fields, principal, body, exchange)).await;
        }
        exchange.principal = principal?;
        let selection = self.select_allowed(head, fields, exchange)?;
        let account = &selection.account;
        let _probe = self.reject_hopeless(head, &selection, exchange)?;
        let pool = self.forward.pool(selection.service, selection.region);
        let tokens = &self.shared.tokens;
        let mut token = tokens.token_at(&account.token, exchange.began, exchange.cause()).await?;
        let capture = Capture::new(body.take(), account.id().as_str(), &exchange.settings.captures);
        exchange.capture.clone_from(&capture);
        let is_http1 = head.version < Version::HTTP_2;
        if let Some(capture) = &capture
            && (!is_http1 || fields.expect.first().is_none())
        {
            capture.gather(is_http1).await?;
        }
        let mut gate = ToolGate::before(&selection, exchange, &self.shared);
        if let Some(gate) = &mut gate {
            Box::pin(gate.admit(head, capture.as_deref())).await?;
        }
        let mut refresh_error = None;
        loop {
            exchange.trace.begin_attempt(self, pool, &selection);
            let attempt = exchange.attempt(head, &selection, token.header(), gate.is_some());
            let response = self.send(pool, &attempt, exchange.replays).await?;
            exchange.trace.responded(self, response.status());
            self.observe(head, &selection, exchange, (response.status(), response.headers()));
            if response.status() != StatusCode::UNAUTHORIZED {
                self.count_replay(exchange.replays, ReplayOutcome::Succeeded);
                let response = self.pass(response, pool, &selection);
                let Some(gate) = gate else { return Ok(response) };
                return Box::pin(gate.pass(response, &self.deadlines)).await;
            }
            let class = classify_401(response.headers(), &response.body().peeked);
            self.metrics.upstream_401(class);
            exchange.trace.unauthorized(class);
            if class == Upstream401::Permission {
                return Ok(unauthorized(response, selection.service, exchange));
            }
            if !self.can_replay(capture.as_deref(), exchange).await {
                // Too late for this request, in time for the next.
                tokens.reject(account.id(), &token, exchange.cause());
                self.count_replay(exchange.replays, ReplayOutcome::StillUnauthorized);
                return match refresh_error {
                    // No better token could be had: that is the cause, not the 401.
                    Some(error) => Err(Error::Token(error)),
                    None => Ok(unauthorized(response, selection.service, exchange)),
                };
            }
            drop(response);
            let replacement = tokens.replace(account.id(), &token, exchange.cause());
            let replacement = Box::pin(replacement).await;
            let replacement =
                replacement.inspect_err(|_| self.metrics.replay(ReplayOutcome::Failed))?;
            (token, refresh_error) = (replacement.token, replacement.failed);
            exchange.replays += 1;
        }
    }

    /// Rejects what must not go further, before anything is read of the body.
    fn enforce_limits(
        &self,
        head: &Parts,
        fields: &Fields<'_>,
        body: Option<&CallerBody>,
        settings: &WorkerSettings,
    ) -> Result<(), Error> {
        select::validate(head, fields)?;
        self.check_host(head, fields).map_err(|rejection| {
            let text = guard::explain(rejection, &head.uri, fields);
            Error::Guard(rejection, text.map(String::into_boxed_str))
        })?;
        let limits = &settings.config().limits;
        // HTTP/1 counts its lines while it reads them; HTTP/2 does not.
        let target = head.uri.path_and_query().map_or(0, |target| target.as_str().len());
        if fields.bytes + target > limits.header_max_bytes
            || head.headers.len() > limits.headers_max
        {
            return Err(Error::Rejected(Code::HeadersTooLarge));
        }
        if self.in_flight.get() > settings.in_flight_max {
            self.metrics.limit(LimitHit::InFlight);
            return Err(Error::Overloaded(
                "The proxy has as many requests in flight as it may (limits.in_flight_max). \
                 Try again later.",
            ));
        }
        if body.is_some_and(|body| settings.captures.limits.is_too_large(body.size_hint().lower()))
        {
            self.metrics.limit(LimitHit::Body);
            return Err(Error::Rejected(Code::BodyTooLarge));
        }
        if self.shared.draining.load(Ordering::Relaxed) {
            return Err(Error::Rejected(Code::Draining));
        }
        if select::is_reserved(&head.uri) {
            return Err(Error::Rejected(Code::NotFound));
        }
        Ok(())
    }

    /// Sends one attempt. The start of an error response is read before it goes on, so that a 401
    /// can be classified and no token is passed on.
    async fn send(
        &self,
        pool: &Rc<Pool>,
        attempt: &Attempt<'_>,
        replays: u32,
    ) -> Result<Response<ExchangeBody>, Error> {
        let sent = self.forward.send(pool, attempt).await;
        let (response, connection) =
            sent.inspect_err(|_| self.count_replay(replays, ReplayOutcome::Failed))?;
        let idle = (self.deadlines.timer(), self.shared.config.upstream.response_idle_timeout);
        let mut response = ExchangeBody::of(response, connection, idle);
        if response.status().is_client_error() {
            Box::pin(response.body_mut().peek(&self.deadlines)).await;
            if redact::redact(&mut response, attempt.inject.bearer) {
                self.metrics.response_redacted();
            }
        }
        Ok(response)
    }

    /// Amazon's response as the caller gets it.
    fn pass(
        &self,
        mut response: Response<ExchangeBody>,
        pool: &Pool,
        selection: &Selection,
    ) -> Response<ExchangeBody> {
        let key = self.shared.path_key.as_ref();
        let with_key = key.map(|key| path_key::prefix(key.expose()) + &selection.prefix);
        let prefix = with_key.as_deref().unwrap_or(&selection.prefix);
        headers::rewrite_location(response.headers_mut(), &pool.uri, prefix);
        response
    }

    /// Whether the request may be sent once more, and can be.
    async fn can_replay(&self, capture: Option<&Capture>, exchange: &Exchange) -> bool {
        if exchange.replays >= exchange.settings.config().replay.max_replays {
            return false;
        }
        let Some(capture) = capture else { return true };
        let is_kept = capture.is_kept().await;
        if !is_kept {
            self.metrics.replay(ReplayOutcome::NotReplayable);
        }
        is_kept
    }

    fn count_replay(&self, replays: u32, outcome: ReplayOutcome) {
        if replays > 0 {
            self.metrics.replay(outcome);
        }
    }
}
