//! Which task runs a connection, which is woken for it, and what happens when either leaves.

use super::*;
use std::{
    cell::Cell,
    future::poll_fn,
    sync::atomic::AtomicUsize,
    time::{Duration, Instant},
};
use tokio::{
    runtime,
    sync::{mpsc, oneshot},
    task::{self, LocalSet},
};

impl Driver {
    /// As a request does it.
    async fn bring<F: Future>(&self, send: impl FnOnce() -> F) -> F::Output {
        let mut response = std::pin::pin!(self.give(send));
        poll_fn(|cx| self.poll_with(cx, |cx| response.as_mut().poll(cx))).await
    }
}

/// A request to the connection of these tests; the response is the id of the task that runs it.
type Job = oneshot::Sender<task::Id>;

/// A place under a limit.
struct Place(Rc<Cell<bool>>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

struct Connection {
    driver: Rc<Driver>,
    jobs: mpsc::UnboundedSender<Job>,
    is_open: Rc<Cell<bool>>,
}

impl Connection {
    /// One that responds at once, until its sender is gone.
    fn open() -> Self {
        let (jobs, mut coming) = mpsc::unbounded_channel::<Job>();
        let is_open = Rc::new(Cell::new(true));
        let place = Place(is_open.clone());
        let driver = Driver::spawn(async move {
            let _place = place;
            while let Some(job) = coming.recv().await {
                let _ = job.send(task::id());
            }
        });
        Self { driver, jobs, is_open }
    }

    fn ask(&self) -> oneshot::Receiver<task::Id> {
        let (job, response) = oneshot::channel();
        self.jobs.send(job).expect("the connection lives");
        response
    }
}

fn in_runtime<T>(test: impl Future<Output = T>) -> T {
    let runtime = runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let limit = Duration::from_secs(30);
    let test = async { tokio::time::timeout(limit, test).await.expect("no wake-up was lost") };
    LocalSet::new().block_on(&runtime, test)
}

/// Runs `request` in a task of its own, as a caller's connection does.
async fn as_a_task<T: 'static>(request: impl Future<Output = T> + 'static) -> T {
    spawn_local(request).await.expect("a task that ends")
}

/// Lets every task that is awake have one turn.
async fn yield_now() {
    let mut is_first = true;
    poll_fn(|cx| {
        if !std::mem::take(&mut is_first) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        yield_now().await;
    }
}

#[test]
fn a_request_runs_the_connection_until_it_hands_it_back() {
    in_runtime(as_a_task(async {
        let connection = Connection::open();
        let own = connection.ask().await.expect("a response");
        assert_ne!(own, task::id());
        for finish in [true, false] {
            for _ in 0..3 {
                let brought = connection.driver.bring(|| connection.ask()).await;
                assert_eq!(brought.expect("a response"), task::id());
            }
            connection.driver.hand_back(finish);
            assert_eq!(connection.ask().await.expect("a response"), own);
        }
    }));
}

#[test]
fn a_request_may_be_faster_than_the_task() {
    in_runtime(as_a_task(async {
        let connection = Connection::open();
        assert_eq!(connection.driver.bring(|| connection.ask()).await.expect("ran"), task::id());
        connection.driver.hand_back(true);
        assert_ne!(connection.ask().await.expect("a response"), task::id());
    }));
}

#[test]
fn what_a_request_leaves_unread_wakes_the_task() {
    in_runtime(as_a_task(async {
        for finish in [true, false] {
            let connection = Connection::open();
            connection.driver.bring(|| connection.ask()).await.expect("a response");
            // The request goes on although the connection was given more to do.
            let mut second = None;
            let send = || {
                second = Some(connection.ask());
                std::future::ready(())
            };
            connection.driver.bring(send).await;
            connection.driver.hand_back(finish);
            second.expect("asked").await.expect("a response");
        }
    }));
}

#[test]
fn a_request_that_leaves_takes_no_wake_up_with_it() {
    in_runtime(async {
        let (release, released) = oneshot::channel::<()>();
        let is_over = Rc::new(Cell::new(false));
        let over = is_over.clone();
        let driver = Driver::spawn(async move {
            released.await.expect("released");
            over.set(true);
        });
        let leaving = driver.clone();
        let request = spawn_local(async move { leaving.bring(std::future::pending::<()>).await });
        until(|| driver.request.borrow().is_some()).await;
        request.abort();
        assert!(request.await.expect_err("no response").is_cancelled());
        driver.hand_back(false);
        release.send(()).expect("the connection lives");
        until(|| is_over.get()).await;
    });
}

#[test]
fn wake_ups_of_other_threads_reach_the_request_whenever_they_come() {
    const TURNS: usize = 2000;
    in_runtime(as_a_task(async {
        let (beats, mut beating) = mpsc::unbounded_channel::<()>();
        let (jobs, mut coming) = mpsc::unbounded_channel::<oneshot::Sender<()>>();
        let driver = Driver::spawn(async move {
            while let Some(job) = coming.recv().await {
                beating.recv().await.expect("a beat");
                let _ = job.send(());
            }
        });
        let (asked, asking) = std::sync::mpsc::channel::<usize>();
        let thread = std::thread::spawn(move || {
            for turn in asking {
                // The wake-up comes before, while and after the connection is run.
                let until = Instant::now() + Duration::from_nanos(50 * (turn as u64 % 100));
                while Instant::now() < until {}
                beats.send(()).expect("the connection lives");
            }
        });
        for turn in 0..TURNS {
            asked.send(turn).expect("the thread lives");
            let (job, response) = oneshot::channel();
            driver
                .bring(|| jobs.send(job).map(|()| response).expect("it lives"))
                .await
                .expect("it");
            if turn % 3 == 0 {
                driver.hand_back(turn % 2 == 0);
            }
        }
        drop(asked);
        thread.join().expect("the thread ends");
    }));
}

#[test]
fn a_connection_that_always_wants_to_go_on_lets_others_have_their_turn() {
    in_runtime(as_a_task(async {
        let polls = Rc::new(Cell::new(0));
        let polled = polls.clone();
        let driver = Driver::spawn(poll_fn(move |cx| {
            polled.set(polled.get() + 1);
            cx.waker().wake_by_ref();
            Poll::Pending
        }));
        let request = driver.clone();
        let request = spawn_local(async move { request.bring(std::future::pending::<()>).await });
        until(|| driver.request.borrow().is_some()).await;
        let before = polls.get();
        for _ in 0..100 {
            yield_now().await;
        }
        let turns = polls.get() - before;
        assert!(turns >= 100, "it does not go on: {turns}");
        assert!(turns <= 102 * ROUNDS_MAX, "it does not stop: {turns}");
        request.abort();
    }));
}

#[test]
fn a_connection_that_ends_frees_its_place_at_once_and_its_task_with_it() {
    in_runtime(as_a_task(async {
        let connection = Connection::open();
        connection.driver.bring(|| connection.ask()).await.expect("a response");
        assert!(connection.is_open.get());
        let Connection { driver, jobs, is_open } = connection;
        // It ends while the request runs it, and not before.
        let ended = driver.bring(move || {
            drop(jobs);
            let is_open = is_open.clone();
            poll_fn(move |_| if is_open.get() { Poll::Pending } else { Poll::Ready(()) })
        });
        ended.await;
        assert_eq!(Rc::strong_count(&driver), 2, "the task waits");
        driver.hand_back(true);
        until(|| Rc::strong_count(&driver) == 1).await;
    }));
}

#[test]
fn a_connection_does_not_outlive_its_worker() {
    let runtime = runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let worker = LocalSet::new();
    let connection = worker.block_on(&runtime, async {
        as_a_task(async {
            let connection = Connection::open();
            connection.driver.bring(|| connection.ask()).await.expect("a response");
            connection
        })
        .await
    });
    assert!(connection.is_open.get());
    drop(worker);
    assert!(!connection.is_open.get());
}

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_relay_passes_wake_ups_on_unless_the_connection_is_being_run() {
    let (relay, count) = (Arc::new(Relay::default()), Arc::new(Count::default()));
    let waker = Waker::from(relay.clone());
    waker.wake_by_ref();
    *relay.target.lock() = Some(Waker::from(count.clone()));
    waker.wake_by_ref();
    assert_eq!((count.0.load(Ordering::SeqCst), relay.woken.load(Ordering::SeqCst)), (1, false));
    relay.running.store(true, Ordering::SeqCst);
    waker.wake_by_ref();
    assert_eq!((count.0.load(Ordering::SeqCst), relay.woken.load(Ordering::SeqCst)), (1, true));
    relay.running.store(false, Ordering::SeqCst);
    waker.wake();
    assert_eq!(count.0.load(Ordering::SeqCst), 2);
}
