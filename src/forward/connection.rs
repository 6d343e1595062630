//! One connection to an upstream as one request has it, and what becomes of it afterwards.

use super::{
    body::CapturedBody, connect::ConnectError, driver::Driver, http2::StreamGuard, pool::Permit,
    shares::Claim, upstream_io::UpstreamIo,
};
use crate::deadline::Deadlines;
use bytes::Bytes;
use http_body::{Body as _, Frame};
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1},
};
use hyper_util::rt::TokioIo;
use std::{
    cell::Cell,
    future::poll_fn,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    runtime::Handle,
    task::spawn_local,
};

pub type Request = http::Request<CapturedBody>;
pub type Response = http::Response<Incoming>;
type Sent = Result<Response, TrySendError<Request>>;

/// What is read of a response whose caller has left, so that its connection serves again, bytes.
const FINISH_MAX_BYTES: u64 = 64 * 1024;
/// How long that may take, the wait for the response included.
const FINISH_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may take to be ready again behind a whole response.
const READY_TIMEOUT: Duration = Duration::from_secs(5);

/// An HTTP/1.1 connection. It closes when this is dropped.
pub(super) struct Http1 {
    pub(super) sender: http1::SendRequest<CapturedBody>,
    driver: Rc<Driver>,
    /// Whether a byte has come since the last request was sent.
    heard: Rc<Cell<bool>>,
}

impl Drop for Http1 {
    fn drop(&mut self) {
        // A request that left must not take the connection's wake-ups with it.
        self.driver.hand_back(false);
        // The rest of an upload that Amazon does not read would hold it for ever.
        if !self.sender.is_ready() {
            self.driver.end();
        }
    }
}

impl Http1 {
    /// Opens HTTP/1.1 on `io`. It holds `permit` until it has closed.
    pub(super) async fn open<T>(io: T, permit: Permit) -> Result<Channel, ConnectError>
    where
        T: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let heard = Rc::new(Cell::new(false));
        let io = TokioIo::new(UpstreamIo::new(io, heard.clone()));
        let (sender, connection) =
            http1::Builder::new().handshake(io).await.map_err(ConnectError::Http)?;
        let mut held = Some((connection, permit));
        // No async block: that would have room for the connection twice.
        let driver = Driver::spawn(poll_fn(move |cx| {
            let Some((connection, _)) = &mut held else { return Poll::Ready(()) };
            // An error reaches the request that waits for the response; without one it changes nothing.
            let _ = ready!(Pin::new(connection).poll(cx));
            held = None;
            Poll::Ready(())
        }));
        Ok(Channel::Http1(Self { sender, driver, heard }))
    }
}

pub(super) enum Channel {
    Http1(Http1),
    Http2(StreamGuard),
}

/// A connection for one request.
pub struct PooledConnection {
    /// None once it was given back.
    channel: Option<Channel>,
    claim: Claim,
    /// A response that is read to its end even if the caller leaves.
    awaited: Option<Pin<Box<dyn Future<Output = Sent>>>>,
    /// Whether it has served a request before: then a failure before the first byte may mean
    /// nothing but an old connection.
    pub is_reused: bool,
    pub is_reusable: bool,
}

impl PooledConnection {
    pub(super) fn new(channel: Channel, claim: Claim, is_reused: bool) -> Self {
        Self { channel: Some(channel), claim, awaited: None, is_reused, is_reusable: true }
    }

    /// Whether it has ended without a byte of a response to the request that was sent on it.
    pub fn died_unheard(&self) -> bool {
        match &self.channel {
            Some(Channel::Http1(connection)) => !connection.heard.get(),
            Some(Channel::Http2(stream)) => stream.connection.is_dead(),
            None => true,
        }
    }

    pub fn is_http1(&self) -> bool {
        matches!(self.channel, Some(Channel::Http1(_)))
    }

    /// Sends the `request` that is made for it, and waits for the head of the response; none if there is
    /// none to make. Where its body `is_here` whole, the connection is run from here until it is given
    /// back. An error has the request where no byte of it was written.
    pub async fn send(
        &mut self,
        request: impl FnOnce(bool) -> Option<Request>,
        is_here: bool,
        outlives_caller: bool,
    ) -> Option<Sent> {
        // A request is handed on as it is made: one that was held here would take its room in each
        // request's future.
        Some(
            match self.channel.as_mut().expect("a connection is sent on before it is given back") {
                Channel::Http1(Http1 { sender, heard, .. }) if outlives_caller => {
                    heard.set(false);
                    let response = sender.try_send_request(request(true)?);
                    let awaited = self.awaited.insert(Box::pin(response));
                    let sent = awaited.await;
                    self.awaited = None;
                    sent
                }
                Channel::Http1(Http1 { sender, driver, heard }) => {
                    heard.set(false);
                    let driver = is_here.then_some(&**driver);
                    let send = || Some(sender.try_send_request(request(true)?));
                    // One future for both ways: it is large, and every request has room for it.
                    let mut response = pin!(match driver {
                        Some(driver) => driver.give(send)?,
                        None => send()?,
                    });
                    poll_fn(|cx| match driver {
                        Some(driver) => driver.poll_with(cx, |cx| response.as_mut().poll(cx)),
                        None => response.as_mut().poll(cx),
                    })
                    .await
                }
                Channel::Http2(stream) => {
                    let heard = &stream.connection.heard;
                    // Boxed: it has room for a request, and few hosts speak HTTP/2.
                    let response = Box::pin(stream.send(request(false)?));
                    response.await.inspect(|_| heard.set(self.claim.pool.now()))
                }
            },
        )
    }

    /// No response came for `timeout`. A shared connection that brought no other request one
    /// either may be dead, and gets no more requests.
    pub fn timed_out(&mut self, timeout: Duration) {
        self.awaited = None;
        let before = self.claim.pool.now().saturating_sub(Deadlines::ticks(timeout));
        if let Some(Channel::Http2(stream)) = &self.channel
            && stream.connection.heard.get() <= before
        {
            self.claim.pool.retire(&stream.connection);
        }
    }

    /// The next frame of `body`, which came on this connection.
    pub fn poll_frame(
        &self,
        body: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &self.channel {
            Some(Channel::Http1(connection)) => connection.driver.poll_frame(body, cx),
            Some(Channel::Http2(_)) | None => Pin::new(body).poll_frame(cx),
        }
    }

    /// Reads the response to its end, although its caller has left.
    fn finish(mut self, body: Option<Incoming>) {
        let awaited = self.awaited.take();
        // A runtime that shuts down takes no more tasks.
        if !self.is_http1() || Handle::try_current().is_err() {
            return;
        }
        let deadlines = self.claim.pool.context.deadlines.clone();
        spawn_local(async move {
            let finished = async {
                let body = match (body, awaited) {
                    (Some(body), _) => body,
                    (None, Some(awaited)) => {
                        let mut response = awaited.await.ok()?;
                        super::clean(&mut response).ok()?.then(|| response.into_body())?
                    }
                    (None, None) => return None,
                };
                self.discard(body).await;
                Some(())
            };
            deadlines.within(FINISH_TIMEOUT, finished).await
        });
    }

    /// Reads the rest of a body, if that is short, and gives the connection back.
    async fn discard(self, mut body: Incoming) {
        let mut left = FINISH_MAX_BYTES;
        loop {
            match poll_fn(|cx| self.poll_frame(&mut body, cx)).await {
                None => return self.release(),
                Some(Err(_)) => return,
                Some(Ok(frame)) => {
                    let len = frame.data_ref().map_or(0, |data| data.len() as u64);
                    let Some(rest) = left.checked_sub(len) else { return };
                    left = rest;
                }
            }
        }
    }

    /// Drops the connection with a `body` that its caller does not want any more. One of which
    /// little is left is read to its end.
    pub fn leave(self, body: Incoming) {
        if body.is_end_stream() {
            self.release();
        } else if body.size_hint().exact().is_some_and(|rest| rest <= FINISH_MAX_BYTES) {
            self.finish(Some(body));
        }
    }

    /// Gives the connection back after a whole response.
    pub fn release(mut self) {
        let Some(Channel::Http1(mut connection)) = self.channel.take() else { return };
        if !self.is_reusable {
            return;
        }
        connection.driver.hand_back(true);
        if connection.sender.is_ready() {
            self.claim.pool.give_back(connection);
        } else if !connection.sender.is_closed() {
            // The connection has not seen the end yet, or still sends the request's body.
            let claim = self.claim.take();
            let deadlines = claim.pool.context.deadlines.clone();
            spawn_local(async move {
                let ready = deadlines.within(READY_TIMEOUT, connection.sender.ready()).await;
                if matches!(ready, Some(Ok(()))) {
                    claim.pool.give_back(connection);
                }
            });
        }
    }
}

impl Drop for PooledConnection {
    /// The caller may have left before the response.
    fn drop(&mut self) {
        if self.awaited.is_some() {
            let (channel, claim) = (self.channel.take(), self.claim.take());
            let awaited = self.awaited.take();
            Self { channel, claim, awaited, is_reused: true, is_reusable: true }.finish(None);
        }
    }
}
