//! The open connections of one worker, under a limit that all workers share.

use super::connection::{Close, Connection};
use crate::{
    inbound::peer::Peer,
    metrics::{Limit, WorkerMetrics},
};
use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

/// How many candidates one look over all connections finds.
const CANDIDATES_MAX: usize = 64;

/// The connections of one worker.
pub(super) struct ConnectionTable {
    /// Open connections of all workers.
    open: Arc<AtomicUsize>,
    max: usize,
    metrics: Arc<WorkerMetrics>,
    clock: Rc<Cell<u32>>,
    connections: RefCell<HashMap<u64, Rc<Connection>>>,
    next: Cell<u64>,
    /// Connections that waited longest for a request when looked for, the longest last.
    candidates: RefCell<Vec<(u32, u64)>>,
}

/// One connection in the table; leaves it when dropped.
pub(super) struct Entry {
    table: Rc<ConnectionTable>,
    key: u64,
    pub(super) connection: Rc<Connection>,
}

impl ConnectionTable {
    /// An empty table; `open` counts connections over all workers, of which there may be `max`.
    pub(super) fn new(open: Arc<AtomicUsize>, max: usize, metrics: Arc<WorkerMetrics>) -> Rc<Self> {
        Rc::new(Self {
            open,
            max,
            metrics,
            clock: Rc::default(),
            connections: RefCell::default(),
            next: Cell::new(0),
            candidates: RefCell::default(),
        })
    }

    /// Enters a connection, where necessary in the place of one that waits for a request. None
    /// if every other one serves a request.
    pub(super) fn enter(self: &Rc<Self>, peer: Peer) -> Option<Entry> {
        let is_full = self.open.fetch_add(1, Ordering::Relaxed) >= self.max;
        if is_full {
            self.metrics.limit(Limit::Connections);
            if !self.close_longest_waiting() {
                self.open.fetch_sub(1, Ordering::Relaxed);
                return None;
            }
        }
        let key = self.next.replace(self.next.get() + 1);
        let connection = Connection::new(peer, &self.clock);
        self.connections.borrow_mut().insert(key, connection.clone());
        self.metrics.connection_opened();
        Some(Entry { table: self.clone(), key, connection })
    }

    /// Closes the connection that has waited longest for a request, if one waits.
    fn close_longest_waiting(&self) -> bool {
        let connections = self.connections.borrow();
        let mut candidates = self.candidates.borrow_mut();
        for _ in 0..2 {
            while let Some((since, key)) = candidates.pop() {
                if let Some(connection) = connections.get(&key)
                    && connection.waits_since() == Some(since)
                {
                    connection.close(Close::Now);
                    return true;
                }
            }
            let waiting = connections.iter();
            candidates.extend(waiting.filter_map(|(key, one)| Some((one.waits_since()?, *key))));
            candidates.sort_unstable_by(|one, two| two.cmp(one));
            let surplus = candidates.len().saturating_sub(CANDIDATES_MAX);
            candidates.drain(..surplus);
        }
        false
    }

    /// Sets the time, in seconds; false if it is the same.
    pub(super) fn set_clock(&self, seconds: u32) -> bool {
        self.clock.replace(seconds) != seconds
    }

    pub(super) fn is_empty(&self) -> bool {
        self.connections.borrow().is_empty()
    }

    /// Every connection, to be asked to close.
    pub(super) fn for_each(&self, act: impl FnMut(&Rc<Connection>)) {
        self.connections.borrow().values().for_each(act);
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let table = &self.table;
        table.connections.borrow_mut().remove(&self.key);
        table.open.fetch_sub(1, Ordering::Relaxed);
        table.metrics.connection_closed();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_table_closes_what_has_waited_longest_and_never_what_serves_a_request() {
        let table = ConnectionTable::new(Arc::default(), 3, Arc::default());
        let enter = || table.enter(Peer::Tcp(([127, 0, 0, 1], 1).into()));
        let [first, second, third] = [(); 3].map(|()| enter().expect("room"));
        let request = first.connection.request();
        let fourth = enter().expect("the second makes room");
        let closing = |entry: &Entry| entry.connection.closing() == Close::Now;
        assert!(closing(&second) && !closing(&first) && !closing(&third));
        drop(second);
        let requests = [third.connection.request(), fourth.connection.request()];
        assert!(enter().is_none(), "every connection serves a request");
        drop((request, requests));
        assert!(enter().is_none(), "connections that have served requests are kept");
        drop((first, third, fourth));
        assert!(table.is_empty() && table.open.load(Ordering::Relaxed) == 0);
    }
}
