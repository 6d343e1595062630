//! The latest requests of the data plane: kept by the worker that served them, read by the admin API.
//!
//! A request leaves here what its access line says, in memory that is used again: no allocation once
//! a worker has served as many as are kept, and no lock. At a tick a worker hands its requests over,
//! unless someone reads at that moment: then at the next.

use crate::id::Region;
use parking_lot::Mutex;
use std::{
    cell::RefCell,
    collections::{HashMap, VecDeque},
    fmt,
    hash::{BuildHasher, RandomState},
    mem,
    str::FromStr,
    sync::Arc,
    time::Duration,
};

/// Requests of one worker that are kept, beside those that are a tenant's own.
const KEPT: usize = 1000;
/// A tenant's own, and how many tenants have some: those that have sent nothing for longest go.
const KEPT_OF_TENANT: usize = 200;
const TENANTS_MAX: usize = 100;
/// What is kept of a path, and of any other text, bytes.
const PATH_MAX: usize = 512;
const TEXT_MAX: usize = 160;

/// What is kept of one request. No query string, no header value but the two ids.
#[derive(Debug, Clone, Copy)]
pub struct RequestFacts<'a> {
    /// When the request came, since 1970-01-01 UTC.
    pub wall: Duration,
    pub method: &'a str,
    pub path: &'a str,
    pub caller: Option<&'a str>,
    pub account: Option<&'a str>,
    /// Whether the caller is of the account's tenant.
    pub is_tenants_own: bool,
    pub region: Option<Region>,
    pub status: u16,
    pub error: Option<&'static str>,
    pub request_id: &'a str,
    pub amazon_request_id: Option<&'a str>,
    pub duration: Duration,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub replays: u32,
}

/// One request that has ended; its texts are one behind the other.
#[derive(Debug, Clone)]
pub struct RecentRequest {
    text: String,
    ends: [u16; 6],
    /// The facts that are no text.
    rest: RequestFacts<'static>,
    number: u64,
}

/// A place in the order of requests. Says nothing of how many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestPlace(u64, u64);

/// A text that is no place of a request.
#[derive(Debug)]
pub struct InvalidPlace;

/// The requests of all workers.
#[derive(Debug, Default)]
pub struct RecentRequests {
    workers: Mutex<Vec<Arc<Mutex<KeptRequests>>>>,
    keyed: RandomState,
}

/// Those of one worker.
#[derive(Debug)]
pub struct WorkerRequests {
    pending: RefCell<VecDeque<RecentRequest>>,
    /// Of requests that are kept no more.
    spare: RefCell<Vec<String>>,
    kept: Arc<Mutex<KeptRequests>>,
    next: RefCell<u64>,
}

/// What others see of one worker's.
#[derive(Debug, Default)]
struct KeptRequests {
    handed_over: u64,
    shared: VecDeque<RecentRequest>,
    /// A tenant sees these alone: how long they stay must not show how much all others send.
    tenants: HashMap<Box<str>, VecDeque<RecentRequest>>,
}

impl RecentRequests {
    /// The part of one more worker.
    pub fn worker(&self) -> WorkerRequests {
        let mut workers = self.workers.lock();
        let kept = Arc::<Mutex<_>>::default();
        workers.push(kept.clone());
        let next = RefCell::new((workers.len() as u64) << 48);
        WorkerRequests { pending: RefCell::default(), spare: RefCell::default(), kept, next }
    }

    /// A number that changes when there are others to list.
    #[cfg_attr(not(feature = "dashboard"), allow(dead_code, reason = "only pages ask for it"))]
    pub fn changes(&self) -> u64 {
        self.workers
            .lock()
            .iter()
            .fold(0, |sum, worker| sum.wrapping_add(worker.lock().handed_over))
    }

    /// The requests that are `wanted`, the newest first.
    pub fn list(
        &self,
        wanted: impl Fn(&RequestFacts<'_>) -> bool,
    ) -> Vec<(RequestPlace, RecentRequest)> {
        let mut found = Vec::new();
        for worker in &*self.workers.lock() {
            let kept = worker.lock();
            let all = kept.shared.iter().chain(kept.tenants.values().flatten());
            let wanted = all.filter(|request| wanted(&request.facts()));
            found.extend(wanted.map(|request| (self.place(request), request.clone())));
        }
        found.sort_unstable_by_key(|(place, _)| std::cmp::Reverse(*place));
        found
    }

    fn place(&self, request: &RecentRequest) -> RequestPlace {
        let nanos = u64::try_from(request.rest.wall.as_nanos()).unwrap_or(u64::MAX);
        RequestPlace(nanos, self.keyed.hash_one(request.number))
    }
}

impl WorkerRequests {
    /// Keeps a request that has ended.
    pub fn push(&self, facts: &RequestFacts<'_>) {
        let mut pending = self.pending.borrow_mut();
        let text = if pending.len() < KEPT {
            self.spare.borrow_mut().pop()
        } else {
            pending.pop_front().map(|oldest| oldest.text)
        };
        let number = self.next.replace_with(|number| number.wrapping_add(1));
        pending.push_back(RecentRequest::new(text.unwrap_or_default(), facts, number));
    }

    /// Lets others see the requests since the last time.
    pub fn hand_over(&self) {
        let mut pending = self.pending.borrow_mut();
        if pending.is_empty() {
            return;
        }
        let Some(mut kept) = self.kept.try_lock() else { return };
        let mut spare = self.spare.borrow_mut();
        kept.handed_over = kept.handed_over.wrapping_add(pending.len() as u64);
        for request in pending.drain(..) {
            spare.extend(kept.push(request).map(|oldest| oldest.text));
        }
    }
}

impl KeptRequests {
    /// Keeps `request`, in the place of the one that is returned.
    fn push(&mut self, request: RecentRequest) -> Option<RecentRequest> {
        let (kept, max) = match request.tenant() {
            None => (&mut self.shared, KEPT),
            Some(tenant) => (self.of_tenant(tenant), KEPT_OF_TENANT),
        };
        let oldest = if kept.len() == max { kept.pop_front() } else { None };
        kept.push_back(request);
        oldest
    }

    fn of_tenant(&mut self, tenant: &str) -> &mut VecDeque<RecentRequest> {
        if !self.tenants.contains_key(tenant) {
            let latest =
                |(_, kept): &(_, &VecDeque<RecentRequest>)| kept.back().map(|it| it.rest.wall);
            let oldest = self.tenants.iter().min_by_key(latest).map(|(oldest, _)| oldest.clone());
            if let Some(oldest) = oldest.filter(|_| self.tenants.len() == TENANTS_MAX) {
                self.tenants.remove(&oldest);
            }
            self.tenants.insert(tenant.into(), VecDeque::new());
        }
        self.tenants.get_mut(tenant).expect("it is there")
    }
}

impl RecentRequest {
    /// What is kept of `facts`, by itself.
    pub fn of(facts: &RequestFacts<'_>) -> Self {
        Self::new(String::new(), facts, 0)
    }

    fn new(mut text: String, facts: &RequestFacts<'_>, number: u64) -> Self {
        text.clear();
        let ids = [Some(facts.request_id), facts.amazon_request_id];
        let names = [facts.caller, facts.account];
        let mut ends = [0; 6];
        let texts = [Some(facts.method), Some(facts.path)].into_iter().chain(names).chain(ids);
        for (at, one) in texts.enumerate() {
            let max = if at == 1 { PATH_MAX } else { TEXT_MAX };
            text.push_str(cut(one.unwrap_or_default(), max));
            ends[at] = u16::try_from(text.len()).unwrap_or(u16::MAX);
        }
        let rest = RequestFacts {
            wall: facts.wall,
            is_tenants_own: facts.is_tenants_own,
            region: facts.region,
            status: facts.status,
            error: facts.error,
            duration: facts.duration,
            bytes_in: facts.bytes_in,
            bytes_out: facts.bytes_out,
            replays: facts.replays,
            method: "",
            path: "",
            caller: None,
            account: None,
            request_id: "",
            amazon_request_id: None,
        };
        Self { text, ends, rest, number }
    }

    /// The tenant whose own it is.
    fn tenant(&self) -> Option<&str> {
        let facts = self.facts();
        let account = facts.account.filter(|_| facts.is_tenants_own)?;
        account.split_once('~').map(|(tenant, _)| tenant)
    }

    pub fn facts(&self) -> RequestFacts<'_> {
        let mut start = 0;
        let [method, path, caller, account, request_id, amazon_request_id] =
            self.ends.map(|end| &self.text[mem::replace(&mut start, end.into())..end.into()]);
        RequestFacts {
            method,
            path,
            caller: Some(caller).filter(|text| !text.is_empty()),
            account: Some(account).filter(|text| !text.is_empty()),
            request_id,
            amazon_request_id: Some(amazon_request_id).filter(|text| !text.is_empty()),
            ..self.rest
        }
    }
}

/// What is kept of a path.
pub fn kept_path(path: &str) -> &str {
    cut(path, PATH_MAX)
}

/// The first `max` bytes of a text at most.
fn cut(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

impl fmt::Display for RequestPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0, self.1)
    }
}

impl FromStr for RequestPlace {
    type Err = InvalidPlace;

    fn from_str(text: &str) -> Result<Self, InvalidPlace> {
        let (nanos, number) = text.split_once('-').ok_or(InvalidPlace)?;
        let number_of = |text: &str| text.parse().map_err(|_| InvalidPlace);
        Ok(Self(number_of(nanos)?, number_of(number)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(path: &str, at: u64) -> RequestFacts<'_> {
        RequestFacts {
            wall: Duration::from_nanos(at),
            method: "GET",
            path,
            caller: None,
            account: Some("acme"),
            is_tenants_own: false,
            region: Some(Region::Na),
            status: 200,
            error: None,
            request_id: "id",
            amazon_request_id: None,
            duration: Duration::ZERO,
            bytes_in: 0,
            bytes_out: 0,
            replays: 0,
        }
    }

    #[test]
    fn the_latest_of_each_worker_are_kept_and_the_newest_is_first() {
        let all = RecentRequests::default();
        let workers = [all.worker(), all.worker()];
        for at in 0..3 * KEPT as u64 {
            workers[at as usize % 2].push(&facts("/x", at));
            if at % 700 == 0 {
                workers.iter().for_each(WorkerRequests::hand_over);
            }
        }
        assert!(all.list(|_| true).len() <= 2 * KEPT);
        workers.iter().for_each(WorkerRequests::hand_over);
        let times: Vec<_> = all.list(|_| true).iter().map(|(place, _)| place.0).collect();
        let latest: Vec<u64> = (KEPT as u64..3 * KEPT as u64).rev().collect();
        assert_eq!(times, latest);
    }

    #[test]
    fn how_long_a_tenants_own_request_stays_shows_nothing_of_what_others_send() {
        let (all, at) = (RecentRequests::default(), RefCell::new(0));
        let worker = all.worker();
        let send = |account: &'static str, path: &str, number: usize| {
            for _ in 0..number {
                let now = at.replace_with(|at| *at + 1);
                let own = account.contains('~');
                let facts = facts(path, now);
                worker.push(&RequestFacts { account: Some(account), is_tenants_own: own, ..facts });
                worker.hand_over();
            }
        };
        let is_kept = |path| !all.list(|one| one.path == path).is_empty();
        send("a~shop", "/marked", 1);
        send("acme", "/x", 3 * KEPT);
        send("b~shop", "/x", 3 * KEPT);
        send("a~other", "/x", KEPT_OF_TENANT - 1);
        assert!(is_kept("/marked"), "whatever others send");
        assert_eq!(all.list(|_| true).len(), KEPT + 2 * KEPT_OF_TENANT);
        send("a~shop", "/x", 1);
        assert!(!is_kept("/marked"), "the twin: by what it sends itself");
    }

    #[test]
    fn of_too_many_tenants_those_that_have_sent_nothing_for_longest_are_forgotten() {
        let mut kept = KeptRequests::default();
        for number in 0..2 * TENANTS_MAX as u64 {
            for name in ["first".to_owned(), number.to_string()] {
                let account = format!("{name}~shop");
                let facts = facts("/x", number);
                let own = RequestFacts { account: Some(&account), is_tenants_own: true, ..facts };
                kept.push(RecentRequest::of(&own));
            }
        }
        assert_eq!(kept.tenants.len(), TENANTS_MAX);
        assert!(kept.tenants.contains_key("first") && !kept.tenants.contains_key("7"));
    }

    #[test]
    fn a_request_is_kept_as_it_was_but_for_what_is_too_long() {
        let all = RecentRequests::default();
        let worker = all.worker();
        let long = format!("/{}", "é".repeat(PATH_MAX));
        worker.push(&facts(&long, 1));
        worker.push(&facts("/v2/profiles", 2));
        assert!(all.list(|_| true).is_empty(), "not handed over yet");
        let before = all.changes();
        worker.hand_over();
        let after = all.changes();
        worker.hand_over();
        assert!(after != before && after == all.changes());
        let list = all.list(|_| true);
        let [(_, short), (place, cut)] = &list[..] else { panic!("{list:?}") };
        let short = short.facts();
        assert_eq!((short.method, short.path, short.request_id), ("GET", "/v2/profiles", "id"));
        assert_eq!(
            (short.caller, short.account, short.amazon_request_id),
            (None, Some("acme"), None)
        );
        assert_eq!(cut.facts().path.len(), PATH_MAX - 1);
        assert!(long.starts_with(cut.facts().path));
        assert_eq!(place.to_string().parse::<RequestPlace>().expect("a place"), *place);
        assert!(
            ["", "1", "-1", "a-b", "1-2-3"].iter().all(|it| it.parse::<RequestPlace>().is_err())
        );
    }
}
