//! One request from its first byte to the end of its response: id, clocks, counters, access line.

use super::{
    Error, Worker, open_requests::OpenRequest, places::TakenPlace, respond::ExchangeBody,
    select::Selection, settings::WorkerSettings, trace::ExchangeTrace,
};
use crate::{
    callers::Principal,
    clock::Now,
    forward::{Attempt, body::Capture, headers::Injection},
    id::{AccountId, Region},
    inbound::{
        fields::Fields,
        path_key,
        peer::{ConnectionInfo, Origin},
        request_id::{self, REQUEST_ID, ServerRequestId},
    },
    log::AccessLine,
    metrics::LimitHit,
    problem::Code,
    provider::ads::Service,
    recent::RequestFacts,
    sync::Account,
    token::Cause,
};
use http::{HeaderName, HeaderValue, Method, Response, Uri, Version, request::Parts};
use std::{
    io, mem,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

static AMAZON_REQUEST_IDS: [HeaderName; 3] = [
    HeaderName::from_static("x-amzn-requestid"),
    HeaderName::from_static("x-amz-request-id"),
    HeaderName::from_static("x-amz-rid"),
];
/// The status in the access line of a caller that left before its response (nginx's convention).
const CALLER_LEFT: u16 = 499;

/// What is logged and counted of one request when it ends.
pub struct Exchange {
    worker: Rc<Worker>,
    pub(super) settings: Rc<WorkerSettings>,
    pub(super) began: Now,
    /// Where it came from.
    pub(super) origin: Origin,
    method: Method,
    uri: Uri,
    pub(super) request_id: HeaderValue,
    /// Beside a [`Self::request_id`] of the caller's own.
    pub(super) server_request_id: Option<ServerRequestId>,
    status: u16,
    /// On whose behalf it is, once that is known.
    pub(super) principal: Option<Arc<Principal>>,
    /// Ends it with its credential, if that can end.
    pub(super) open: Option<OpenRequest>,
    account: Option<(Arc<Account>, Region)>,
    /// Of its tenant or caller, where those have shares.
    place: Option<TakenPlace>,
    amazon_request_id: Option<HeaderValue>,
    pub(super) capture: Option<Rc<Capture>>,
    pub(super) error: Option<&'static str>,
    pub(super) replays: u32,
    pub(super) bytes_out: u64,
    /// Of a request that is recorded for a collector.
    pub(super) trace: ExchangeTrace,
}

impl Worker {
    pub(super) fn fresh_request_id(&self) -> HeaderValue {
        request_id::fresh(self.next_request_number())
    }

    fn next_request_number(&self) -> u64 {
        let number = self.request_ids.get();
        self.request_ids.set(number.wrapping_add(1));
        number
    }
}

impl Exchange {
    /// Begins an exchange; it counts as in flight until dropped.
    pub(super) fn begin(
        worker: &Rc<Worker>,
        head: &Parts,
        fields: &Fields<'_>,
        connection: &ConnectionInfo,
    ) -> Box<Self> {
        worker.in_flight.set(worker.in_flight.get() + 1);
        worker.metrics.in_flight_inc();
        let callers = request_id::of(fields);
        let server_request_id =
            callers.as_ref().map(|_| ServerRequestId::new(worker.next_request_number()));
        // On the heap: it travels with the response through many hands.
        Box::new(Self {
            began: worker.shared.clock.now(),
            origin: connection.peer.origin(),
            method: head.method.clone(),
            uri: head.uri.clone(),
            request_id: callers.unwrap_or_else(|| worker.fresh_request_id()),
            server_request_id,
            status: CALLER_LEFT,
            principal: None,
            open: None,
            account: None,
            place: None,
            amazon_request_id: None,
            capture: None,
            error: None,
            replays: 0,
            bytes_out: 0,
            trace: ExchangeTrace::begin(worker, &head.headers),
            settings: worker.settings.load(),
            worker: worker.clone(),
        })
    }

    /// Says whose request it is. One tenant, or caller without one, has at most half of the worker's
    /// places.
    pub(super) fn enter(&mut self, account: &Arc<Account>, region: Region) -> Result<(), Error> {
        self.account = Some((account.clone(), region));
        self.place = self.take_place(account.id());
        let held = self.place.as_ref().map_or(0, TakenPlace::requests);
        if held > (self.settings.in_flight_max / 2).max(1) {
            self.worker.metrics.limit(LimitHit::InFlight);
            return Err(Error::Overloaded(
                "Your tenant, or you, have as many requests in flight as one may (half of \
                 limits.in_flight_max). Try again later.",
            ));
        }
        Ok(())
    }

    /// Whether it is for an account of the caller's own tenant.
    fn is_tenants_own(&self) -> bool {
        let (Some((account, _)), Some(principal)) = (&self.account, &self.principal) else {
            return false;
        };
        principal.tenant.as_ref().is_some_and(|tenant| tenant.owns(account.id()))
    }

    /// Takes a place in the name of the tenant of `account`, else of the caller if there are others.
    fn take_place(&self, account: &AccountId) -> Option<TakenPlace> {
        let places = &self.worker.places;
        match account.tenant() {
            Some(tenant) => Some(places.tenants.enter(tenant)),
            None => {
                let caller = &self.principal.as_ref()?.caller;
                self.settings.has_callers.then(|| places.callers.enter(&caller.name))
            }
        }
    }

    /// Binds `response` to this exchange, which ends when the body does.
    pub(super) fn finish(
        mut self: Box<Self>,
        mut response: Response<ExchangeBody>,
    ) -> Response<ExchangeBody> {
        let status = response.status();
        self.status = status.as_u16();
        let ids = AMAZON_REQUEST_IDS.iter();
        self.amazon_request_id =
            ids.filter_map(|name| response.headers().get(name)).next().cloned();
        if let Some(capture) = &self.capture {
            capture.responded(status.is_client_error() || status.is_server_error());
        }
        *response.version_mut() = Version::HTTP_11;
        response.headers_mut().insert(REQUEST_ID.clone(), self.request_id.clone());
        response.body_mut().exchange = Some(self);
        response
    }

    /// What is sent, with a token; `reads_response` if the response is to be readable here.
    pub(super) fn attempt<'a>(
        &'a self,
        head: &'a Parts,
        selection: &'a Selection,
        bearer: &'a HeaderValue,
        reads_response: bool,
    ) -> Attempt<'a> {
        let pins: &[_] = match &self.principal {
            Some(principal) if selection.service == Service::Mcp => &principal.rules.pins,
            _ => &[],
        };
        Attempt {
            method: &head.method,
            target: &selection.target,
            headers: &head.headers,
            capture: self.capture.as_ref(),
            inject: Injection {
                bearer,
                client_id: selection.account.client_id_header(),
                defaults: selection.account.headers(),
                names_ads_client: selection.names_ads_client,
                pins,
                reads_response,
                traceparent: self.trace.traceparent(),
            },
            share: self.place.as_ref().map(TakenPlace::connections),
            outlives_caller: head.version >= Version::HTTP_2,
        }
    }

    /// What a refresh names that begins for this request.
    pub(super) fn cause(&self) -> Cause<'_> {
        Cause::Request {
            id: self.request_id.as_bytes(),
            server_id: self.server_request_id.as_ref().map(ServerRequestId::as_str),
            span: self.trace.span(),
        }
    }

    /// Ready once the credential that the request came with has ended.
    pub(super) fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.open.as_ref().map_or(Poll::Pending, |open| open.poll_ended(cx))
    }

    /// Amazon's body broke off or was cut, and with it the caller's.
    pub(super) fn broken(&mut self, how: io::ErrorKind) {
        let code = match how {
            io::ErrorKind::TimedOut => {
                self.worker.metrics.limit(LimitHit::ResponseIdleTimeout);
                Code::UpstreamTimeout
            }
            io::ErrorKind::PermissionDenied => Code::CallerRejected,
            _ => Code::UpstreamUnreachable,
        };
        self.error = Some(code.row().code);
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if let Some(capture) = &self.capture {
            capture.over();
        }
        let worker = &self.worker;
        worker.in_flight.set(worker.in_flight.get() - 1);
        worker.metrics.in_flight_dec();
        let trace = mem::take(&mut self.trace);
        let duration = worker.shared.clock.mono().saturating_duration_since(self.began.mono);
        worker.metrics.request(self.status, duration);
        let facts = RequestFacts {
            wall: self.began.wall,
            method: self.method.as_str(),
            path: &path_key::masked(self.uri.path()),
            status: self.status,
            caller: self.principal.as_ref().map(|principal| &*principal.caller.name),
            account: self.account.as_ref().map(|(account, _)| account.id().as_str()),
            is_tenants_own: self.is_tenants_own(),
            region: self.account.as_ref().map(|(_, region)| *region),
            request_id: self.request_id.to_str().unwrap_or_default(),
            amazon_request_id: self.amazon_request_id.as_ref().and_then(|id| id.to_str().ok()),
            duration,
            bytes_in: self.capture.as_ref().map_or(0, |body| body.received.get()),
            bytes_out: self.bytes_out,
            replays: self.replays,
            error: self.error,
        };
        worker.recent.push(&facts);
        trace.end(worker, &facts);
        if worker.shared.config.log.access {
            worker.access.write(&AccessLine {
                wall: facts.wall,
                method: facts.method,
                path: facts.path,
                status: facts.status,
                caller: facts.caller,
                account: facts.account,
                region: facts.region,
                request_id: facts.request_id,
                server_request_id: self.server_request_id.as_ref().map(ServerRequestId::as_str),
                amazon_request_id: facts.amazon_request_id,
                duration: facts.duration,
                bytes_in: facts.bytes_in,
                bytes_out: facts.bytes_out,
                replays: facts.replays,
                error: facts.error,
            });
        }
    }
}
