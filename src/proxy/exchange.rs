//! One request from its first byte to the end of its response: id, clocks, counters, access line.

use super::{
    Error, Worker, open_requests::OpenRequest, places::Holders, respond::ExchangeBody,
    select::Selection,
};
use crate::{
    callers::Principal,
    clock::Now,
    forward::{Attempt, body::Capture, headers::Injection},
    id::Region,
    inbound::{
        fields::Fields,
        path_key,
        request_id::{self, REQUEST_ID},
    },
    log::AccessLine,
    metrics::LimitHit,
    problem::Code,
    provider::ads::Service,
    sync::Account,
};
use http::{HeaderName, HeaderValue, Method, Response, Uri, Version, request::Parts};
use std::{
    io,
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
    pub(super) began: Now,
    method: Method,
    uri: Uri,
    pub(super) request_id: HeaderValue,
    status: u16,
    /// On whose behalf it is, once that is known.
    pub(super) principal: Option<Arc<Principal>>,
    /// Ends it with its credential, if that can end.
    pub(super) open: Option<OpenRequest>,
    /// Set by [`Exchange::enter`] alone, which counts it.
    account: Option<(Arc<Account>, Region)>,
    amazon_request_id: Option<HeaderValue>,
    pub(super) capture: Option<Rc<Capture>>,
    pub(super) error: Option<&'static str>,
    pub(super) replays: u32,
    pub(super) bytes_out: u64,
}

impl Worker {
    pub(super) fn fresh_request_id(&self) -> HeaderValue {
        let number = self.request_ids.get();
        self.request_ids.set(number.wrapping_add(1));
        request_id::fresh(number)
    }
}

impl Exchange {
    /// Begins an exchange; it counts as in flight until dropped.
    pub(super) fn begin(worker: &Rc<Worker>, head: &Parts, fields: &Fields<'_>) -> Box<Self> {
        worker.in_flight.set(worker.in_flight.get() + 1);
        worker.metrics.in_flight_inc();
        // On the heap: it travels with the response through many hands.
        Box::new(Self {
            began: worker.shared.clock.now(),
            method: head.method.clone(),
            uri: head.uri.clone(),
            request_id: request_id::of(fields).unwrap_or_else(|| worker.fresh_request_id()),
            status: CALLER_LEFT,
            principal: None,
            open: None,
            account: None,
            amazon_request_id: None,
            capture: None,
            error: None,
            replays: 0,
            bytes_out: 0,
            worker: worker.clone(),
        })
    }

    /// Says whose request it is. One tenant, or caller without one, has at most half of the worker's
    /// places.
    pub(super) fn enter(&mut self, account: &Arc<Account>, region: Region) -> Result<(), Error> {
        self.account = Some((account.clone(), region));
        let worker = &self.worker;
        let held = self.places().map_or(0, |(places, name)| places.enter(name));
        if held > (worker.in_flight_max / 2).max(1) {
            worker.metrics.limit(LimitHit::InFlight);
            return Err(Error::Overloaded(
                "Your tenant, or you, have as many requests in flight as one may (half of \
                 limits.in_flight_max). Try again later.",
            ));
        }
        Ok(())
    }

    /// The places of which this request, once it has an account, takes one in a name.
    fn places(&self) -> Option<(&Holders, &str)> {
        let (account, _) = self.account.as_ref()?;
        match account.id.tenant() {
            Some(tenant) => Some((&self.worker.places.tenants, tenant)),
            None => {
                let caller = &self.principal.as_ref()?.caller;
                Some((self.worker.places.callers.as_ref()?, &caller.name))
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
        if self.worker.shared.config.log.access {
            let ids = AMAZON_REQUEST_IDS.iter();
            self.amazon_request_id =
                ids.filter_map(|name| response.headers().get(name)).next().cloned();
        }
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
                client_id: &selection.account.client_id,
                defaults: &selection.account.headers,
                names_ads_client: selection.names_ads_client,
                pins,
                reads_response,
            },
            outlives_caller: head.version >= Version::HTTP_2,
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
        if let Some((places, name)) = self.places() {
            places.leave(name);
        }
        worker.metrics.in_flight_dec();
        let duration = worker.shared.clock.now().mono.saturating_duration_since(self.began.mono);
        worker.metrics.request(self.status, duration);
        if !worker.shared.config.log.access {
            return;
        }
        worker.access.write(&AccessLine {
            wall: self.began.wall,
            method: self.method.as_str(),
            path: &path_key::masked(self.uri.path()),
            status: self.status,
            caller: self.principal.as_ref().map(|principal| &*principal.caller.name),
            account: self.account.as_ref().map(|(account, _)| account.id.as_str()),
            region: self.account.as_ref().map(|(_, region)| *region),
            request_id: self.request_id.to_str().unwrap_or_default(),
            amazon_request_id: self.amazon_request_id.as_ref().and_then(|id| id.to_str().ok()),
            duration,
            bytes_in: self.capture.as_ref().map_or(0, |body| body.received.get()),
            bytes_out: self.bytes_out,
            replays: self.replays,
            error: self.error,
        });
    }
}
