//! Sends one attempt of a request to Amazon and brings its answer back.
//!
//! Knows hosts, connections, header rules and bodies; does not know tokens' lives, callers or
//! answers of our own. Nothing here follows a redirect, and no host but the configured six is
//! ever connected to.

pub mod body;
pub mod connect;
mod driver;
pub mod headers;
mod hop;
mod multiplex;
mod patient;
pub mod upstream;

use crate::{
    config, deadline::Deadlines, id::Region, metrics::WorkerMetrics, provider::ads::Service,
};
use body::{BodyError, Capture, ContinueGate};
use connect::{ConnectError, Connector};
use headers::{Framing, Injection, Reuse};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version, header::EXPECT};
use std::{fmt, rc::Rc, sync::Arc, time::Duration};
use upstream::{Host, Lease, Response};

/// Why an attempt brought no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection.
    #[error("no connection to the upstream")]
    Connect(#[source] ConnectError),
    /// The connection broke before an answer came.
    #[error("the upstream ended the connection without an answer")]
    Broken(#[source] hyper::Error),
    /// The caller's body failed.
    #[error("the request body")]
    Body(#[source] BodyError),
    /// All connections were in use for too long.
    #[error("no upstream connection came free in time")]
    Busy,
    /// No answer within `upstream.response_header_timeout_secs`.
    #[error("no answer in time")]
    Timeout,
    /// The head of the response is not acceptable.
    #[error("the upstream's response is malformed")]
    Malformed(#[source] Malformed),
    /// The body was not kept whole.
    #[error("the request cannot be sent again")]
    NotReplayable,
}

/// Why a response goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// No request asks for another protocol.
    #[error("101 Switching Protocols was not asked for")]
    SwitchingProtocols,
    /// See [`headers::clean_response`].
    #[error(transparent)]
    Connection(#[from] headers::TooManyConnectionNames),
}

/// One attempt's parts that stay the same in a replay.
#[derive(Debug)]
pub struct Attempt<'a> {
    /// The method.
    pub method: &'a Method,
    /// Path and query as they came, byte for byte.
    pub target: &'a Uri,
    /// The caller's header fields.
    pub headers: &'a HeaderMap,
    /// The caller's body.
    pub capture: &'a Capture,
    /// `Authorization`.
    pub bearer: &'a HeaderValue,
    /// The application's client id.
    pub client_id: &'a HeaderValue,
    /// The account's default fields.
    pub defaults: &'a [(HeaderName, HeaderValue)],
    /// Whether the newer client id field is set too.
    pub names_ads_client: bool,
}

impl Attempt<'_> {
    /// Whether sending it twice does no more than sending it once, whatever Amazon has read.
    fn is_safe_and_bodiless(&self) -> bool {
        self.capture.is_absent()
            && [Method::GET, Method::HEAD, Method::OPTIONS].contains(self.method)
    }
}

/// One worker's way to Amazon.
pub struct Forward {
    api: [Rc<Host>; 3],
    mcp: [Rc<Host>; 3],
    deadlines: Rc<Deadlines>,
    header_timeout: Duration,
}

impl fmt::Debug for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Forward")
    }
}

impl Forward {
    /// The configured hosts, without a connection yet. `workers` share the connection limit.
    #[must_use]
    pub fn new(
        config: &config::Upstream,
        workers: usize,
        tls: Arc<rustls::ClientConfig>,
        deadlines: &Rc<Deadlines>,
        metrics: &Arc<WorkerMetrics>,
    ) -> Self {
        let connector = Rc::new(Connector::new(tls, config.connect_timeout));
        let max = config.connections_max.div_ceil(workers);
        let unread = Rc::<multiplex::Unread>::default();
        let host = |uri: &Uri| {
            let (connector, deadlines) = (connector.clone(), deadlines.clone());
            let (metrics, unread) = (metrics.clone(), unread.clone());
            Host::new(uri, connector, max, config.idle_timeout, deadlines, metrics, unread)
        };
        Self {
            api: config.api.each_ref().map(host),
            mcp: config.mcp.each_ref().map(host),
            deadlines: deadlines.clone(),
            header_timeout: config.response_header_timeout,
        }
    }

    /// The host of `service` in `region`.
    #[must_use]
    pub fn host(&self, service: Service, region: Region) -> &Rc<Host> {
        match service {
            Service::Api => &self.api[region as usize],
            Service::Mcp => &self.mcp[region as usize],
        }
    }

    /// Housekeeping, about once a second.
    pub fn close_idle(&self) {
        self.api.iter().chain(&self.mcp).for_each(|host| host.close_idle());
    }

    /// Gives no connection of now any more requests.
    pub fn retire_all(&self) {
        self.api.iter().chain(&self.mcp).for_each(|host| host.retire_all());
    }

    /// Sends one attempt and waits for the head of the answer.
    ///
    /// A pooled connection that died before one byte was written costs nothing: the request goes
    /// out again on another. So does once, by RFC 9110 section 9.2.2, a safe request without a body
    /// for which the connection died without a byte of a response. Any other failure is final,
    /// because Amazon may have acted on the request.
    ///
    /// # Errors
    /// See [`Error`].
    ///
    /// # Cancel safety
    /// Safe: the connection is closed, the captured body stays.
    pub async fn send(
        &self,
        host: &Rc<Host>,
        attempt: &Attempt<'_>,
    ) -> Result<(Response, Lease), Error> {
        let (mut fresh, mut is_sent_again) = (false, false);
        for _ in 0..3 {
            let mut lease = self
                .deadlines
                .within(self.header_timeout, host.lease(fresh))
                .await
                .ok_or(Error::Busy)?
                .map_err(Error::Connect)?;
            let request = build(host, attempt, lease.is_http1()).ok_or(Error::NotReplayable)?;
            let answer = lease.send(request, attempt.capture.is_here());
            match self.within_header_timeout(attempt.capture, answer).await {
                None => {
                    lease.timed_out(self.header_timeout);
                    return Err(Error::Timeout);
                }
                Some(Ok(mut response)) => {
                    match clean(&mut response).map_err(Error::Malformed)? {
                        Reuse::Allowed => {}
                        Reuse::Forbidden => lease.forbid_reuse(),
                    }
                    return Ok((response, lease));
                }
                Some(Err(failed)) => {
                    let unwritten = failed.message().is_some();
                    if let Some(error) = attempt.capture.error() {
                        return Err(Error::Body(error));
                    }
                    let died_unheard =
                        !is_sent_again && attempt.is_safe_and_bodiless() && lease.died_unheard();
                    if !lease.is_reused() || !(unwritten || died_unheard) {
                        return Err(Error::Broken(failed.into_error()));
                    }
                    is_sent_again |= !unwritten;
                    fresh = true;
                }
            }
        }
        Err(Error::Busy)
    }

    /// Waits for an answer. The clock runs only while Amazon has the word: not while the caller
    /// still sends, nor while bytes still flow.
    async fn within_header_timeout<F: Future>(
        &self,
        capture: &Capture,
        answer: F,
    ) -> Option<F::Output> {
        let mut answer = std::pin::pin!(answer);
        let mut timer = self.deadlines.timer();
        let mut seen = (capture.received(), capture.is_finished());
        std::future::poll_fn(|cx| {
            use std::task::Poll;
            if let Poll::Ready(output) = answer.as_mut().poll(cx) {
                return Poll::Ready(Some(output));
            }
            while timer.poll_after(self.header_timeout, cx).is_ready() {
                let progress = (capture.received(), capture.is_finished());
                if progress == seen && !capture.waits_for_caller() {
                    return Poll::Ready(None);
                }
                seen = progress;
                timer.disarm();
            }
            Poll::Pending
        })
        .await
    }
}

fn clean(response: &mut Response) -> Result<Reuse, Malformed> {
    if response.status() == http::StatusCode::SWITCHING_PROTOCOLS {
        return Err(Malformed::SwitchingProtocols);
    }
    Ok(headers::clean_response(response.headers_mut())?)
}

fn build(host: &Host, attempt: &Attempt<'_>, http1: bool) -> Option<upstream::Request> {
    let chunked = attempt.capture.is_of_unknown_size() && http1;
    let gate = expects_continue(attempt.headers).then(|| Arc::new(ContinueGate::default()));
    let body = attempt.capture.attempt(gate.clone())?;
    let mut request = http::Request::new(body);
    *request.method_mut() = attempt.method.clone();
    *request.headers_mut() = headers::outgoing(
        attempt.headers,
        &Injection {
            bearer: attempt.bearer,
            client_id: attempt.client_id,
            host: host.authority(),
            defaults: attempt.defaults,
            names_ads_client: attempt.names_ads_client,
            framing: if chunked { Framing::Chunked } else { Framing::AsItCame },
        },
    );
    if http1 {
        *request.uri_mut() = attempt.target.clone();
    } else {
        // HTTP/2 has `:authority` for `Host` and needs the scheme.
        request.headers_mut().remove(http::header::HOST);
        let mut parts = attempt.target.clone().into_parts();
        parts.scheme = host.uri().scheme().cloned();
        parts.authority = host.uri().authority().cloned();
        *request.uri_mut() = Uri::from_parts(parts).ok()?;
        *request.version_mut() = Version::HTTP_2;
    }
    if let Some(gate) = gate {
        hyper::ext::on_informational(&mut request, move |answer| {
            if answer.status() == http::StatusCode::CONTINUE {
                gate.open();
            }
        });
    }
    Some(request)
}

fn expects_continue(headers: &HeaderMap) -> bool {
    headers.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}
