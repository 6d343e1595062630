//! One HTTP/2 connection to an upstream and the requests that share it.

use super::{
    body::CapturedBody,
    connect::ConnectError,
    connection::{Request, Response},
    pool::{Permit, Pool},
};
use crate::executor::LocalExecutor;
use hyper::{
    client::conn::{TrySendError, http2},
    rt::{Read, Write},
};
use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    pin::pin,
    rc::Rc,
    time::Duration,
};
use tokio::task::spawn_local;

/// What one response may leave unread, bytes: as long as there is much room, while it gets scarce,
/// and from then on. A connection's window is fixed when it opens.
const WINDOWS: [u32; 3] = [256 * 1024, 64 * 1024, 16 * 1024];
/// What the responses of one worker may leave unread together in windows that are not the smallest.
const UNREAD_MAX_BYTES: u64 = 64 * 1024 * 1024;
/// Never the bound: callers that do not read would stop all others on the connection.
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;
/// Requests on one connection, however many more the peer allows. Their windows fit in the
/// connection's.
const STREAMS_MAX: usize = 1000;
/// What the protocol recommends as the least limit: taken until the peer has sent its own.
const STREAMS_DEFAULT: usize = 100;

/// What all responses under way may leave unread, by the windows they were promised.
#[derive(Debug, Default)]
pub struct Unread(Cell<u64>);

impl Unread {
    /// The window of a connection that opens now.
    fn window(&self) -> u32 {
        let fits = |window: &u32| self.has_room(*window);
        WINDOWS.into_iter().find(fits).unwrap_or(WINDOWS[2])
    }

    /// Whether one more response may have `window`. The smallest is bounded by the requests in
    /// flight alone: none is refused for what other callers do not read.
    fn has_room(&self, window: u32) -> bool {
        let max = match WINDOWS.iter().position(|known| *known == window) {
            Some(0) => UNREAD_MAX_BYTES / 2,
            Some(1) => UNREAD_MAX_BYTES,
            _ => return true,
        };
        self.0.get() + u64::from(window) <= max
    }
}

/// A connection that requests share. It closes when the last request drops it.
pub(super) struct SharedConnection {
    sender: RefCell<http2::SendRequest<CapturedBody>>,
    pub(super) streams: Cell<usize>,
    streams_max: Cell<usize>,
    window: u32,
    /// When its last stream ended, and when it last brought a response.
    pub(super) released: Cell<u64>,
    pub(super) heard: Cell<u64>,
    /// Gets no more requests; those that it serves go on.
    pub(super) retired: Cell<bool>,
}

impl SharedConnection {
    /// Opens HTTP/2 on `io`. It holds `permit` until it has closed.
    pub(super) async fn open<T>(io: T, permit: Permit) -> Result<Rc<Self>, ConnectError>
    where
        T: Read + Write + Unpin + 'static,
    {
        let window = permit.0.context.unread.window();
        let (sender, connection) = http2::Builder::new(LocalExecutor)
            .timer(hyper_util::rt::TokioTimer::new())
            .keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(20))
            .max_header_list_size(256 * 1024)
            .initial_stream_window_size(window)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .initial_max_send_streams(STREAMS_DEFAULT)
            .handshake(io)
            .await
            .map_err(ConnectError::Http)?;
        let now = permit.0.now();
        let shared = Rc::new(Self {
            sender: RefCell::new(sender),
            streams: Cell::new(0),
            streams_max: Cell::new(STREAMS_DEFAULT),
            window,
            released: Cell::new(now),
            heard: Cell::new(now),
            retired: Cell::new(false),
        });
        permit.0.set_requests_per_connection(STREAMS_DEFAULT);
        // Held weakly: the task ends when the last sender is dropped.
        let weak = Rc::downgrade(&shared);
        spawn_local(async move {
            let mut connection = pin!(connection);
            let _ = poll_fn(|cx| {
                let polled = connection.as_mut().poll(cx);
                if let Some(shared) = weak.upgrade() {
                    let max = connection.current_max_send_streams().min(STREAMS_MAX);
                    if shared.streams_max.replace(max) != max {
                        permit.0.set_requests_per_connection(max);
                        permit.0.hand_out(&shared);
                    }
                }
                polled
            })
            .await;
            if let Some(shared) = weak.upgrade() {
                permit.0.retire(&shared);
            }
            drop(permit);
        });
        Ok(shared)
    }

    pub(super) fn has_room(&self, unread: &Unread) -> bool {
        self.streams.get() < self.streams_max.get()
            && !self.retired.get()
            && unread.has_room(self.window)
            && !self.is_outdated(unread)
            && !self.is_dead()
    }

    /// Whether it was opened while room was scarce, is free, and a new one would be better.
    fn is_outdated(&self, unread: &Unread) -> bool {
        self.window < WINDOWS[0] && self.streams.get() == 0 && self.window < unread.window()
    }

    pub(super) fn is_dead(&self) -> bool {
        self.sender.borrow().is_closed()
    }
}

/// One request's part of a connection; given up when dropped.
pub(super) struct StreamGuard {
    pub(super) connection: Rc<SharedConnection>,
    pool: Rc<Pool>,
}

impl StreamGuard {
    pub(super) fn take(connection: &Rc<SharedConnection>, pool: &Rc<Pool>) -> Self {
        connection.streams.update(|streams| streams + 1);
        pool.context.unread.0.update(|bytes| bytes + u64::from(connection.window));
        Self { connection: connection.clone(), pool: pool.clone() }
    }

    /// Sends `request`; ready with the head of the response. No `async fn`, whose future would hold
    /// the request twice.
    pub(super) fn send(
        &self,
        request: Request,
    ) -> impl Future<Output = Result<Response, TrySendError<Request>>> {
        self.connection.sender.borrow_mut().try_send_request(request)
    }
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.connection.streams.update(|streams| streams - 1);
        let window = u64::from(self.connection.window);
        self.pool.context.unread.0.update(|bytes| bytes - window);
        self.connection.released.set(self.pool.now());
        self.pool.hand_out(&self.connection);
    }
}
