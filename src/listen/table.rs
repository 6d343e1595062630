//! The open connections of one worker, under a limit that all workers share.

use super::connection::{Close, Connection, SERVED_RANK};
use crate::{
    inbound::peer::ConnectionInfo,
    metrics::{LimitHit, WorkerMetrics},
};
use parking_lot::Mutex;
use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    mem,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::{sync::Notify, time::sleep};

/// How many candidates one look over all connections finds.
const CANDIDATES_MAX: usize = 64;
/// How long the other workers may take to publish what they could evict.
const PUBLISH_TIMEOUT: Duration = Duration::from_millis(50);
/// The least time between two looks over all connections for other workers.
const PUBLISH_PAUSE: Duration = Duration::from_millis(5);

/// The limit of connections, and what each worker could evict for another's.
#[derive(Debug, Default)]
pub struct ConnectionLimit {
    max: usize,
    open: AtomicUsize,
    /// How many connections have ever come.
    arrivals: AtomicU64,
    workers: Mutex<Vec<Arc<Evictions>>>,
}

/// What one worker can evict, as of its last sweep, and what others ask it to.
#[derive(Debug, Default)]
pub(super) struct Evictions {
    known: Mutex<KnownEvictions>,
    notify: Notify,
}

#[derive(Debug, Default)]
struct KnownEvictions {
    candidates: usize,
    /// The lowest [`Connection::eviction_rank`] of them.
    rank: u64,
    /// The arrivals of the connections that one is to be evicted for, each.
    requests: Vec<u64>,
}

impl ConnectionLimit {
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, ..Self::default() })
    }

    /// Asks the worker with the lowest rank, if that is below `own`, to evict one connection for
    /// the one that has arrived as `arrival`.
    fn evict_elsewhere(&self, worker: &Arc<Evictions>, own: u64, arrival: u64) -> bool {
        let workers = self.workers.lock();
        let ranks =
            workers.iter().filter(|other| !Arc::ptr_eq(other, worker)).filter_map(|other| {
                let known = other.known.lock();
                (known.candidates > 0).then_some((known.rank, other))
            });
        let Some((rank, lowest)) = ranks.min_by_key(|(rank, _)| *rank) else { return false };
        if rank >= own || !may_evict(rank, arrival) {
            return false;
        }
        let mut known = lowest.known.lock();
        known.candidates = known.candidates.saturating_sub(1);
        known.requests.push(arrival);
        lowest.notify.notify_one();
        true
    }
}

/// Whether one with `rank` may be evicted for the one that has arrived as `arrival`: one that came
/// later and waits for its first request has waited less.
fn may_evict(rank: u64, arrival: u64) -> bool {
    rank < arrival || rank >= SERVED_RANK
}

pub(super) struct ConnectionTable {
    limit: Arc<ConnectionLimit>,
    evictions: Arc<Evictions>,
    metrics: Arc<WorkerMetrics>,
    clock: Rc<Cell<u32>>,
    connections: RefCell<HashMap<u64, Rc<Connection>>>,
    /// Those to be evicted first when looked for, the first last.
    candidates: RefCell<Vec<(u64, u64)>>,
}

/// One connection in the table; leaves it when dropped.
pub(super) struct ConnectionEntry {
    table: Rc<ConnectionTable>,
    pub(super) connection: Rc<Connection>,
}

impl ConnectionTable {
    pub(super) fn new(limit: Arc<ConnectionLimit>, metrics: Arc<WorkerMetrics>) -> Rc<Self> {
        let evictions = Arc::<Evictions>::default();
        limit.workers.lock().push(evictions.clone());
        Rc::new(Self {
            evictions,
            limit,
            metrics,
            clock: Rc::default(),
            connections: RefCell::default(),
            candidates: RefCell::default(),
        })
    }

    /// Enters a connection, where necessary in the place of the one, on any worker, that waits
    /// longest for a request. None if every other one serves a request. Another worker may find
    /// that what it was to evict serves a request by now: so there may be more than the limit, but
    /// never more than twice as many.
    pub(super) fn enter(
        self: &Rc<Self>,
        info: &ConnectionInfo,
        arrival: u64,
    ) -> Option<ConnectionEntry> {
        let open = self.limit.open.fetch_add(1, SeqCst);
        if open >= self.limit.max {
            let own = self.candidate().filter(|(rank, _)| may_evict(*rank, arrival));
            let rank = own.as_ref().map_or(u64::MAX, |(rank, _)| *rank);
            let may_exceed = open < 2 * self.limit.max;
            if !(may_exceed && self.limit.evict_elsewhere(&self.evictions, rank, arrival)) {
                let Some((_, connection)) = own else {
                    self.limit.open.fetch_sub(1, SeqCst);
                    return None;
                };
                connection.close(Close::Now);
            }
            self.metrics.limit(LimitHit::Connections);
        }
        let connection = Connection::new(info.clone(), arrival, &self.clock);
        self.connections.borrow_mut().insert(arrival, connection.clone());
        self.metrics.connection_opened();
        Some(ConnectionEntry { table: self.clone(), connection })
    }

    /// The number of a connection that comes now.
    pub(super) fn arrive(&self) -> u64 {
        self.limit.arrivals.fetch_add(1, SeqCst)
    }

    /// Has every other worker publish what it could evict: what is known of them is up to a second
    /// old.
    pub(super) async fn refresh_evictions(&self) {
        for other in self.limit.workers.lock().iter() {
            other.notify.notify_one();
        }
        sleep(PUBLISH_TIMEOUT).await;
    }

    /// Evicts for other workers, and publishes what could be evicted, whenever they ask, for ever.
    pub(super) async fn evict_for_others(&self) {
        loop {
            self.evictions.notify.notified().await;
            self.evict_requested();
            sleep(PUBLISH_PAUSE).await;
        }
    }

    fn evict_requested(&self) {
        let requests = mem::take(&mut self.evictions.known.lock().requests);
        for arrival in requests {
            let Some((rank, connection)) = self.candidate() else { break };
            if may_evict(rank, arrival) {
                connection.close(Close::Now);
            }
        }
        self.publish();
    }

    /// Publishes what could be evicted here.
    fn publish(&self) {
        let connections = self.connections.borrow();
        let ranks = connections.values().filter_map(|one| one.eviction_rank());
        let (candidates, rank) =
            ranks.fold((0, u64::MAX), |(count, lowest), rank| (count + 1, lowest.min(rank)));
        let mut known = self.evictions.known.lock();
        (known.candidates, known.rank) = (candidates, rank);
    }

    /// The connection to be evicted first, and its rank.
    fn candidate(&self) -> Option<(u64, Rc<Connection>)> {
        let connections = self.connections.borrow();
        let mut candidates = self.candidates.borrow_mut();
        for _ in 0..2 {
            while let Some((rank, key)) = candidates.last() {
                if let Some(connection) = connections.get(key)
                    && connection.eviction_rank() == Some(*rank)
                {
                    return Some((*rank, connection.clone()));
                }
                candidates.pop();
            }
            let ranks = connections.iter();
            candidates.extend(ranks.filter_map(|(key, one)| Some((one.eviction_rank()?, *key))));
            candidates.sort_unstable_by(|one, two| two.cmp(one));
            let surplus = candidates.len().saturating_sub(CANDIDATES_MAX);
            candidates.drain(..surplus);
        }
        None
    }

    /// Sets the time, in seconds: whether a second has passed.
    pub(super) fn set_clock(&self, seconds: u32) -> bool {
        if self.clock.replace(seconds) == seconds {
            return false;
        }
        self.publish();
        true
    }

    pub(super) fn is_empty(&self) -> bool {
        self.connections.borrow().is_empty()
    }

    pub(super) fn for_each(&self, act: impl FnMut(&Rc<Connection>)) {
        self.connections.borrow().values().for_each(act);
    }
}

impl Drop for ConnectionEntry {
    fn drop(&mut self) {
        let table = &self.table;
        table.connections.borrow_mut().remove(&self.connection.arrival);
        table.limit.open.fetch_sub(1, SeqCst);
        table.metrics.connection_closed();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbound::peer::Peer;

    fn table(limit: &Arc<ConnectionLimit>) -> Rc<ConnectionTable> {
        ConnectionTable::new(limit.clone(), Arc::default())
    }

    fn enter(table: &Rc<ConnectionTable>) -> Option<ConnectionEntry> {
        let peer = Peer::Tcp(([127, 0, 0, 1], 1).into());
        table.enter(&ConnectionInfo::new(peer, false), table.arrive())
    }

    fn is_closing(entry: &ConnectionEntry) -> bool {
        entry.connection.close.get() == Close::Now
    }

    #[test]
    fn a_full_table_closes_what_has_waited_longest_and_never_what_serves_a_request() {
        let table = table(&ConnectionLimit::new(3));
        let [first, second, third] = [(); 3].map(|()| enter(&table).expect("room"));
        let request = first.connection.request();
        let fourth = enter(&table).expect("the second makes room");
        assert!(is_closing(&second) && !is_closing(&first) && !is_closing(&third));
        drop(second);
        let requests = [third.connection.request(), fourth.connection.request()];
        assert!(enter(&table).is_none(), "every connection serves a request");
        drop((request, requests));
        assert!(enter(&table).is_none(), "their next requests may be on their way");
        drop((first, third, fourth));
        assert!(table.is_empty() && table.limit.open.load(SeqCst) == 0);
    }

    #[test]
    fn connections_that_were_served_go_after_those_that_never_were_and_once_they_are_idle() {
        let table = table(&ConnectionLimit::new(2));
        let served = enter(&table).expect("room");
        served.connection.begin(false, Default::default());
        drop(served.connection.request());
        table.set_clock(10);
        let silent = enter(&table).expect("room");
        let third = enter(&table).expect("the silent one makes room");
        assert!(is_closing(&silent) && !is_closing(&served));
        drop(silent);
        let _request = third.connection.request();
        assert!(enter(&table).is_some() && is_closing(&served), "it was idle for ten seconds");
    }

    #[test]
    fn what_has_waited_longest_goes_also_when_another_worker_has_it() {
        let limit = ConnectionLimit::new(3);
        let [one, two] = [(); 2].map(|()| table(&limit));
        let oldest = enter(&one).expect("room");
        for table in [&one, &two] {
            table.set_clock(1);
        }
        let own = enter(&two).expect("room");
        let busy = enter(&two).expect("room");
        let _request = busy.connection.request();
        let new = enter(&two).expect("the oldest makes room");
        one.evict_requested();
        assert!(is_closing(&oldest) && !is_closing(&own) && !is_closing(&new));
        drop(oldest);
        let newer = enter(&two).expect("one of its own makes room: the other worker has none");
        assert!(is_closing(&own) && !is_closing(&newer));
    }
    #[test]
    fn another_worker_that_cannot_evict_after_all_lets_the_limit_be_exceeded_twofold_only() {
        let limit = ConnectionLimit::new(2);
        let [one, two] = [(); 2].map(|()| table(&limit));
        let held = [(); 2].map(|()| enter(&one).expect("room"));
        held.iter().for_each(|entry| entry.connection.begin(false, Default::default()));
        let mut requests = held.each_ref().map(|entry| entry.connection.request());
        let mut exceeding = Vec::new();
        for second in [10, 20, 30] {
            drop(requests);
            one.set_clock(second - 5);
            // Both are idle for long, and published as such, but busy when they are to go.
            one.set_clock(second);
            requests = held.each_ref().map(|entry| entry.connection.request());
            for _ in 0..2 {
                let entered = enter(&two);
                exceeding.extend(entered.map(|entry| (entry.connection.request(), entry)));
            }
            one.evict_requested();
            assert!(held.iter().all(|entry| !is_closing(entry)));
            assert_eq!(limit.open.load(SeqCst), 4, "{second}");
        }
    }
}
