//! One upstream host as one worker sees it: its connections, pooled and counted.
//!
//! Built on hyper's low-level connections: the pooled client costs a fifth of a request's CPU.
//! Idle HTTP/1.1 connections are a stack (the warmest first); HTTP/2 connections are shared, the
//! first with room serves. A connection holds its permit under the limit until it has ended. A party
//! that has its share of them waits, and so do requests for which none is free.

use super::{
    connect::{ConnectError, Connector, Io},
    connection::{Channel, Http1, PooledConnection},
    http2::{SharedConnection, StreamGuard, Unread},
    shares::{Claim, ConnectionShare, WaitingLines},
};
use crate::{
    deadline::Deadlines,
    metrics::{LimitHit, WorkerMetrics},
};
use http::{HeaderValue, Uri};
use hyper_util::rt::TokioIo;
use std::{
    cell::{Cell, RefCell},
    pin::pin,
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use tokio::sync::{Notify, oneshot::Sender};

/// The connections of one worker to one host.
pub struct Pool {
    /// Scheme and authority.
    pub uri: Uri,
    /// The value of `Host`.
    pub authority: HeaderValue,
    /// Which of the worker's pools it is.
    pub(super) number: usize,
    pub(super) context: Rc<PoolContext>,
    open: Cell<usize>,
    /// What one party may have: half of the connections, or of the streams that they can bring.
    share_max: Cell<usize>,
    /// Each with the tick since which it is idle.
    idle: RefCell<Vec<(Http1, u64)>>,
    http2: RefCell<Vec<Rc<SharedConnection>>>,
    /// Notifies those that open a connection of a shared one that is ready.
    http2_opened: Notify,
    waiting: RefCell<WaitingLines<Handover>>,
}

/// What the pools of one worker share.
pub(super) struct PoolContext {
    pub(super) connector: Connector,
    /// Of each pool.
    pub(super) connections_max: usize,
    pub(super) idle_timeout: Duration,
    pub(super) deadlines: Rc<Deadlines>,
    pub(super) metrics: Arc<WorkerMetrics>,
    /// What the worker's responses may leave unread.
    pub(super) unread: Unread,
}

/// What a waiting request is given: a channel, or the right to open a connection; in its own name.
type Handover = (Result<Channel, Permit>, Claim);

/// One open connection under the limit.
pub(super) struct Permit(pub(super) Rc<Pool>);

impl Drop for Permit {
    fn drop(&mut self) {
        let pool = &self.0;
        pool.open.update(|open| open - 1);
        if let Some((waiting, claim)) = pool.pop_waiting() {
            // Cannot fail: a waiter that left was passed over, and nothing runs in between.
            let _ = waiting.send((Err(Self::take(pool)), claim));
        }
    }
}

impl Permit {
    fn take(pool: &Rc<Pool>) -> Self {
        pool.open.update(|open| open + 1);
        Self(pool.clone())
    }
}

impl Pool {
    /// The pool of the host at `uri`.
    pub(super) fn new(uri: &Uri, number: usize, context: &Rc<PoolContext>) -> Rc<Self> {
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let pool = Self {
            uri: uri.clone(),
            number,
            authority: HeaderValue::from_str(authority)
                .expect("an authority of a parsed URI is a header value"),
            context: context.clone(),
            open: Cell::new(0),
            share_max: Cell::new(0),
            idle: RefCell::default(),
            http2: RefCell::default(),
            http2_opened: Notify::new(),
            waiting: RefCell::default(),
        };
        pool.set_requests_per_connection(1);
        Rc::new(pool)
    }

    /// The host takes so many requests on each connection at once.
    pub(super) fn set_requests_per_connection(&self, requests: usize) {
        let all = self.context.connections_max.saturating_mul(requests);
        self.share_max.set((all / 2).max(1));
    }

    fn may_have(&self, share: Option<&Rc<ConnectionShare>>) -> bool {
        share.is_none_or(|share| share.held(self) < self.share_max.get())
    }

    /// A ready connection: the warmest idle one, else a new one, else the next that comes free.
    /// `fresh` asks for a new one. A party that has its `share` waits for one of its own.
    ///
    /// # Cancel safety
    /// Safe: a connection that was being made is dropped, a turn in the queue given up.
    pub async fn connection(
        self: &Rc<Self>,
        share: Option<&Rc<ConnectionShare>>,
        fresh: bool,
    ) -> Result<PooledConnection, ConnectError> {
        if !fresh
            && self.may_have(share)
            && let Some(channel) = self.ready()
        {
            let claim = Claim::new(share.cloned(), self);
            return Ok(PooledConnection::new(channel, claim, true));
        }
        Box::pin(self.new_connection(share)).await
    }

    /// Opens a connection, or waits for one where there may be no more.
    async fn new_connection(
        self: &Rc<Self>,
        share: Option<&Rc<ConnectionShare>>,
    ) -> Result<PooledConnection, ConnectError> {
        let (permit, claim) = if self.may_open() && self.may_have(share) {
            (Permit::take(self), Claim::new(share.cloned(), self))
        } else {
            self.context.metrics.limit(LimitHit::UpstreamConnections);
            let turn = self.waiting.borrow_mut().push(share);
            match turn.await.expect("the pool lives as long as those that wait in it") {
                (Ok(channel), claim) => return Ok(PooledConnection::new(channel, claim, true)),
                (Err(permit), claim) => (permit, claim),
            }
        };
        let mut opening = pin!(self.open(permit));
        loop {
            // A burst finds out together that the host speaks HTTP/2: then one connection will do.
            tokio::select! {
                biased;
                channel = &mut opening => return Ok(PooledConnection::new(channel?, claim, false)),
                () = self.http2_opened.notified() => {
                    if let Some(stream) = self.stream() {
                        return Ok(PooledConnection::new(Channel::Http2(stream), claim, true));
                    }
                }
            }
        }
    }

    fn may_open(&self) -> bool {
        self.open.get() < self.context.connections_max
    }

    async fn open(self: &Rc<Self>, permit: Permit) -> Result<Channel, ConnectError> {
        let io = self.context.connector.open(&self.uri).await?;
        self.context.metrics.upstream_connection_opened();
        if !matches!(io, Io::TlsHttp2(_)) {
            self.set_requests_per_connection(1);
        }
        match io {
            Io::Plain(io) => Http1::open(io, permit).await,
            Io::Tls(io) => Http1::open(io, permit).await,
            Io::TlsHttp2(io) => {
                let connection = SharedConnection::open(TokioIo::new(io), permit).await?;
                let stream = StreamGuard::take(&connection, self);
                self.http2.borrow_mut().push(connection.clone());
                self.hand_out(&connection);
                self.http2_opened.notify_waiters();
                Ok(Channel::Http2(stream))
            }
        }
    }

    fn ready(self: &Rc<Self>) -> Option<Channel> {
        if let Some(stream) = self.stream() {
            return Some(Channel::Http2(stream));
        }
        let mut idle = self.idle.borrow_mut();
        while let Some((connection, _)) = idle.pop() {
            if connection.sender.is_ready() {
                return Some(Channel::Http1(connection));
            }
        }
        None
    }

    /// A part of the first shared connection with room, so that the others can go cold.
    fn stream(self: &Rc<Self>) -> Option<StreamGuard> {
        let http2 = self.http2.borrow();
        let connection =
            http2.iter().find(|connection| connection.has_room(&self.context.unread))?;
        Some(StreamGuard::take(connection, self))
    }

    /// Gives the room on `connection` to those that wait.
    pub(super) fn hand_out(self: &Rc<Self>, connection: &Rc<SharedConnection>) {
        while self.has_next() && connection.has_room(&self.context.unread) {
            let Some((waiting, claim)) = self.pop_waiting() else { return };
            let stream = StreamGuard::take(connection, self);
            let _ = waiting.send((Ok(Channel::Http2(stream)), claim));
        }
    }

    pub(super) fn retire(&self, connection: &Rc<SharedConnection>) {
        connection.retired.set(true);
        self.http2.borrow_mut().retain(|other| !Rc::ptr_eq(other, connection));
    }

    pub(super) fn now(&self) -> u64 {
        self.context.deadlines.now()
    }

    /// Whether a request waits that may have what comes free.
    fn has_next(&self) -> bool {
        self.waiting.borrow().has_next(|share| self.may_have(share))
    }

    /// The request whose turn it is, and what it will hold.
    fn pop_waiting(self: &Rc<Self>) -> Option<(Sender<Handover>, Claim)> {
        let (turn, share) = self.waiting.borrow_mut().pop(|share| self.may_have(share))?;
        Some((turn, Claim::new(share, self)))
    }

    /// Gives what is free, if anything is, to the request whose turn it is.
    pub(super) fn serve_next(self: &Rc<Self>) {
        if !self.has_next() {
            return;
        }
        // What is given back goes to those that wait.
        match self.ready() {
            Some(Channel::Http1(connection)) => self.give_back(connection),
            Some(Channel::Http2(stream)) => drop(stream),
            None if self.may_open() => drop(Permit::take(self)),
            None => {}
        }
    }

    pub(super) fn give_back(self: &Rc<Self>, connection: Http1) {
        match self.pop_waiting() {
            Some((waiting, claim)) => drop(waiting.send((Ok(Channel::Http1(connection)), claim))),
            None => self.idle.borrow_mut().push((connection, self.now())),
        }
    }

    /// Closes connections that were idle for the idle timeout. The stack's bottom is the coldest.
    pub fn close_idle(&self) {
        let oldest = self.now().saturating_sub(Deadlines::ticks(self.context.idle_timeout));
        let mut idle = self.idle.borrow_mut();
        let cold = idle.iter().take_while(|(_, since)| *since < oldest).count();
        let closed: Vec<_> = idle.drain(..cold).collect();
        idle.retain(|(connection, _)| !connection.sender.is_closed());
        drop(idle);
        drop(closed);
        self.http2
            .borrow_mut()
            .retain(|shared| shared.streams.get() > 0 || shared.released.get() >= oldest);
    }

    /// Gives no connection of now any more requests.
    pub fn retire_all(&self) {
        drop(self.idle.take());
        self.http2.take().iter().for_each(|connection| connection.retired.set(true));
    }
}
