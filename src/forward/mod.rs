//! Sends one attempt of a request to Amazon and returns the response.
//!
//! Knows hosts, connections, header rules and bodies; does not know tokens' lives, callers or
//! responses of our own. Follows no redirect, and connects to the six configured hosts only.

pub mod body;
pub mod connect;
pub mod connection;
mod driver;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
pub mod headers;
mod http2;
pub mod pool;
mod shares;
mod upstream_io;

use crate::{
    config, deadline::Deadlines, id::Region, metrics::WorkerMetrics, provider::ads::Service,
};
use body::{BodyError, Capture, CapturedBody, ContinueGate};
use connect::{ConnectError, Connector};
use connection::{PooledConnection, Request, Response};
use headers::Injection;
use http::{HeaderMap, Method, StatusCode, Uri, Version, header::EXPECT};
use http2::Unread;
use pool::{Pool, PoolContext};
pub use shares::ConnectionShare;
use std::{
    future::poll_fn,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::Duration,
};

/// Why an attempt brought no response.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no connection to the upstream")]
    Connect(#[from] ConnectError),
    #[error("the upstream ended the connection without a response")]
    Broken(#[source] hyper::Error),
    #[error("the request body")]
    Body(#[from] BodyError),
    #[error("no upstream connection came free in time")]
    Busy,
    /// `upstream.response_header_timeout_secs` is over.
    #[error("no response in time")]
    Timeout,
    #[error("the upstream's response is malformed")]
    Malformed(#[from] Malformed),
    /// The body was not kept whole.
    #[error("the request cannot be sent again")]
    NotReplayable,
}

/// Why a response goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("101 Switching Protocols was not asked for")]
    SwitchingProtocols,
    #[error("the response names more than {} fields in Connection", headers::CONNECTION_NAMES_MAX)]
    ConnectionNames,
    #[error("a list of tools is encoded, too long, or no JSON")]
    ToolList,
}

/// One attempt's parts that stay the same in a replay.
pub struct Attempt<'a> {
    pub method: &'a Method,
    /// Path and query as they came, byte for byte.
    pub target: &'a Uri,
    /// The caller's header fields.
    pub headers: &'a HeaderMap,
    pub capture: Option<&'a Rc<Capture>>,
    pub inject: Injection<'a>,
    /// The party whose connection it is one of; none has no limit of its own.
    pub share: Option<&'a Rc<ConnectionShare>>,
    /// Leaving costs the caller nothing (HTTP/2): then the exchange goes on to its end without it, so
    /// that its connection serves again.
    pub outlives_caller: bool,
}

impl Attempt<'_> {
    /// Whether sending it twice does no more than sending it once, whatever Amazon has read.
    fn is_safe_and_bodiless(&self) -> bool {
        self.capture.is_none() && [Method::GET, Method::HEAD, Method::OPTIONS].contains(self.method)
    }

    fn request(&self, pool: &Pool, is_http1: bool) -> Option<Request> {
        let is_chunked = is_http1 && self.capture.is_some_and(|body| body.size.exact().is_none());
        let expects_continue = self.capture.is_some() && expects_continue(self.headers);
        let gate = expects_continue.then(ContinueGate::new);
        let mut request = http::Request::new(match self.capture {
            None => CapturedBody::default(),
            Some(capture) => capture.attempt(gate.clone())?,
        });
        *request.method_mut() = self.method.clone();
        *request.headers_mut() =
            headers::outgoing(self.headers, &self.inject, &pool.authority, is_chunked);
        if is_http1 {
            *request.uri_mut() = self.target.clone();
        } else {
            // HTTP/2 has `:authority` for `Host` and needs the scheme.
            request.headers_mut().remove(http::header::HOST);
            let mut parts = self.target.clone().into_parts();
            parts.scheme = pool.uri.scheme().cloned();
            parts.authority = pool.uri.authority().cloned();
            *request.uri_mut() = Uri::from_parts(parts).ok()?;
            *request.version_mut() = Version::HTTP_2;
        }
        if let Some(gate) = gate {
            hyper::ext::on_informational(&mut request, move |response| {
                if response.status() == StatusCode::CONTINUE {
                    gate.open();
                }
            });
        }
        Some(request)
    }
}

fn expects_continue(headers: &HeaderMap) -> bool {
    headers.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// The connections of one worker to Amazon.
pub struct Forward {
    /// By service and region.
    pools: [[Rc<Pool>; 3]; 2],
    deadlines: Rc<Deadlines>,
    header_timeout: Duration,
}

impl Forward {
    /// The configured hosts, without a connection yet. `workers` share the connection limit.
    pub fn new(
        config: &config::Upstream,
        workers: usize,
        tls: Arc<rustls::ClientConfig>,
        deadlines: &Rc<Deadlines>,
        metrics: &Arc<WorkerMetrics>,
    ) -> Self {
        let context = Rc::new(PoolContext {
            connector: Connector::new(tls, config.connect_timeout),
            connections_max: config.connections_max.div_ceil(workers).max(1),
            idle_timeout: config.idle_timeout,
            deadlines: deadlines.clone(),
            metrics: metrics.clone(),
            unread: Unread::default(),
        });
        let mut numbers = 0..shares::POOLS;
        let mut pool = |uri| Pool::new(uri, numbers.next().expect("a number for each"), &context);
        let pools = [config.api(), config.mcp()].map(|uris| uris.map(&mut pool));
        Self { pools, deadlines: deadlines.clone(), header_timeout: config.response_header_timeout }
    }

    pub fn pool(&self, service: Service, region: Region) -> &Rc<Pool> {
        &self.pools[service as usize][region as usize]
    }

    /// Housekeeping, about once a second.
    pub fn close_idle(&self) {
        self.pools.iter().flatten().for_each(|pool| pool.close_idle());
    }

    /// Gives no connection of now any more requests.
    pub fn retire_all(&self) {
        self.pools.iter().flatten().for_each(|pool| pool.retire_all());
    }

    /// Sends one attempt and waits for the head of the response.
    ///
    /// A pooled connection that died before one byte was written costs nothing: the request goes
    /// out again on another. So does once, by RFC 9110 section 9.2.2, a safe request without a body
    /// for which the connection died without a byte of a response. Any other failure is final,
    /// because Amazon may have acted on the request.
    ///
    /// # Cancel safety
    /// Safe: the captured body stays; the connection is closed, or finishes its response.
    pub async fn send(
        &self,
        pool: &Rc<Pool>,
        attempt: &Attempt<'_>,
    ) -> Result<(Response, PooledConnection), Error> {
        let (mut fresh, mut is_sent_again) = (false, false);
        for _ in 0..3 {
            let taken = pin!(pool.connection(attempt.share, fresh));
            let taken = self.deadlines.within(self.header_timeout, taken).await;
            let mut connection = taken.ok_or(Error::Busy)??;
            let is_here = attempt.capture.is_some_and(|body| body.is_here());
            let sent = {
                // Pinned here: a future that is an argument takes its room twice.
                let request = |is_http1| attempt.request(pool, is_http1);
                let sent = pin!(connection.send(request, is_here, attempt.outlives_caller));
                self.within_header_timeout(attempt.capture, sent).await
            };
            match sent {
                None => {
                    connection.timed_out(self.header_timeout);
                    return Err(Error::Timeout);
                }
                Some(None) => return Err(Error::NotReplayable),
                Some(Some(Ok(mut response))) => {
                    connection.is_reusable = clean(&mut response)?;
                    return Ok((response, connection));
                }
                Some(Some(Err(failed))) => {
                    let unwritten = failed.message().is_some();
                    if let Some(error) = attempt.capture.and_then(|body| body.error.get()) {
                        return Err(Error::Body(error));
                    }
                    let died_unheard = !is_sent_again
                        && attempt.is_safe_and_bodiless()
                        && connection.died_unheard();
                    if !connection.is_reused || !(unwritten || died_unheard) {
                        return Err(Error::Broken(failed.into_error()));
                    }
                    is_sent_again |= !unwritten;
                    fresh = true;
                }
            }
        }
        Err(Error::Busy)
    }

    /// Waits for a response. The clock runs only while Amazon is to go on: not while the caller
    /// still sends, nor while bytes still flow.
    async fn within_header_timeout<F: Future>(
        &self,
        capture: Option<&Rc<Capture>>,
        mut response: Pin<&mut F>,
    ) -> Option<F::Output> {
        let mut timer = self.deadlines.timer();
        let progress = || capture.map(|body| (body.received.get(), body.is_finished.get()));
        let waits_for_caller = || capture.is_some_and(|body| body.waits_for_caller.get());
        let mut seen = progress();
        poll_fn(|cx| {
            if let Poll::Ready(output) = response.as_mut().poll(cx) {
                return Poll::Ready(Some(output));
            }
            while timer.poll_after(self.header_timeout, cx).is_ready() {
                let now = progress();
                if now == seen && !waits_for_caller() {
                    return Poll::Ready(None);
                }
                seen = now;
                timer.disarm();
            }
            Poll::Pending
        })
        .await
    }
}

/// Says whether the response's connection may serve another request.
fn clean(response: &mut Response) -> Result<bool, Malformed> {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Malformed::SwitchingProtocols);
    }
    headers::clean_response(response.headers_mut())
}
