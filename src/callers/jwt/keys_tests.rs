//! When keys are fetched, with a fetch in memory.

use super::*;
use crate::{
    callers::jwt::samples::{issuer, other_rsa, published, rsa},
    config::MetricsConfig,
    metrics::Metrics,
};
use futures_util::FutureExt;
use parking_lot::Mutex;
use std::{
    io,
    sync::atomic::{
        AtomicUsize,
        Ordering::{Acquire, Relaxed},
    },
    time::Instant,
};
use tokio::task::JoinHandle;

const LONG: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(1);

/// An issuer's endpoint, and the keys that are fetched from it.
struct Scene {
    keys: Arc<Keys>,
    metrics: Arc<Metrics>,
    document: Arc<Mutex<Option<Vec<u8>>>>,
    fetches: Arc<AtomicUsize>,
    /// A fetch takes a permit.
    gate: Arc<Semaphore>,
    task: JoinHandle<()>,
}

impl Scene {
    fn start(document: Option<Vec<u8>>, least: Duration, usual: Duration) -> Self {
        Self::gated(document, least, usual, Semaphore::MAX_PERMITS)
    }

    /// The first `open` fetches end by themselves.
    fn gated(document: Option<Vec<u8>>, least: Duration, usual: Duration, open: usize) -> Self {
        let metrics = Metrics::new(&MetricsConfig::default(), Arc::default());
        let keys = Keys::new(&issuer(), metrics.issuer("clerk"), Arc::default());
        let (keys, document) = (Arc::new(keys), Arc::new(Mutex::new(document)));
        let (fetches, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(open)));
        let (ours, served) = (keys.clone(), document.clone());
        let (count, way) = (fetches.clone(), gate.clone());
        let task = tokio::spawn(async move {
            let fetch = || {
                count.fetch_add(1, Relaxed);
                let (served, way) = (served.clone(), way.clone());
                async move {
                    way.acquire().await.unwrap().forget();
                    let down =
                        || SourceError::File { path: "x".into(), source: io::Error::other("down") };
                    served.lock().clone().ok_or_else(down)
                }
            };
            ours.keep_fresh(Pace { least, usual }, fetch).await;
        });
        Self { keys, metrics, document, fetches, gate, task }
    }

    fn fetches(&self) -> usize {
        self.fetches.load(Relaxed)
    }

    /// Until as many more fetches have begun, and all but the last have ended.
    async fn more_fetches(&self, count: usize) {
        let wanted = self.fetches() + count;
        while self.fetches() < wanted {
            sleep(SHORT).await;
        }
    }

    async fn is(&self, wanted: Phase) {
        self.keys.phase.subscribe().wait_for(|phase| *phase == wanted).await.unwrap();
    }

    fn holds(&self, document: &[u8]) -> bool {
        KeySet::parse(document, &issuer().algorithms).unwrap().is_same(&self.keys.current())
    }

    fn epoch(&self) -> u64 {
        self.keys.epoch.load(Acquire)
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn first() -> Vec<u8> {
    published(&[&rsa().jwk])
}

fn second() -> Vec<u8> {
    published(&[&other_rsa().jwk])
}

#[test]
fn an_endpoint_is_asked_once_a_minute_at_most_and_every_ten_minutes() {
    let pace = Pace::of(&KeySource::Url("https://x".to_owned()));
    assert_eq!((pace.least.as_secs(), pace.usual.as_secs()), (60, 600));
    let file = Pace::of(&KeySource::File("x".into()));
    assert_eq!((file.least.as_secs(), file.usual.as_secs()), (5, 0));
}

#[tokio::test]
async fn keys_are_fetched_at_the_start_and_again_without_any_request() {
    let scene = Scene::start(Some(first()), SHORT, SHORT);
    scene.more_fetches(3).await;
    assert!(scene.holds(&first()));
}

#[tokio::test]
async fn a_flood_of_unknown_keys_causes_no_fetch_before_its_time_failures_included() {
    const LEAST: Duration = Duration::from_millis(200);
    for document in [Some(first()), None] {
        let scene = Scene::start(document, LEAST, LONG);
        let begun = Instant::now();
        while scene.fetches() < 4 {
            scene.keys.next_fetch().await;
            sleep(SHORT).await;
        }
        assert!(begun.elapsed() >= 3 * LEAST, "{:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn a_request_waits_for_the_key_that_was_rotated_in() {
    let scene = Scene::start(Some(first()), SHORT, LONG);
    scene.is(Phase::Ready).await;
    *scene.document.lock() = Some(second());
    let epoch = scene.epoch();
    scene.keys.next_fetch().await;
    assert!(scene.holds(&second()));
    assert_eq!((scene.epoch(), scene.fetches()), (epoch + 1, 2));
}

#[tokio::test]
async fn the_first_request_waits_for_the_first_keys() {
    let scene = Scene::start(Some(first()), LONG, LONG);
    scene.keys.next_fetch().await;
    assert!(scene.holds(&first()));
    assert_eq!(scene.fetches(), 1);
}

#[tokio::test]
async fn a_request_waits_for_two_seconds() {
    let scene = Scene::gated(Some(first()), LONG, LONG, 0);
    let begun = Instant::now();
    scene.keys.next_fetch().await;
    assert!(begun.elapsed() >= WAIT_MAX);
    assert!(!scene.holds(&first()));
}

#[tokio::test]
async fn a_request_does_not_wait_within_a_minute_after_a_fetch() {
    let scene = Scene::start(Some(first()), LONG, LONG);
    scene.is(Phase::Resting).await;
    assert!(scene.keys.next_fetch().now_or_never().is_some());
}

#[tokio::test]
async fn no_more_than_64_requests_wait() {
    let scene = Scene::gated(Some(first()), LONG, LONG, 0);
    let mut waiting: Vec<_> = (0..64).map(|_| Box::pin(scene.keys.next_fetch())).collect();
    for one in &mut waiting {
        assert!(one.as_mut().now_or_never().is_none());
    }
    assert!(scene.keys.next_fetch().now_or_never().is_some());
    scene.gate.add_permits(1);
    for one in waiting {
        one.await;
    }
    assert!(scene.holds(&first()));
}

#[tokio::test]
async fn old_keys_serve_through_an_outage_and_are_replaced_after_it() {
    let scene = Scene::start(Some(first()), SHORT, SHORT);
    scene.more_fetches(1).await;
    for outage in [None, Some(b"<html>".to_vec()), Some(published(&[]))] {
        *scene.document.lock() = outage;
        scene.more_fetches(3).await;
        assert!(scene.holds(&first()));
    }
    let page = scene.metrics.render(Some(&[]));
    assert!(page.contains("\nadsproxy_jwks_age_seconds{issuer=\"clerk\"} "), "{page}");
    let failures = "adsproxy_jwks_fetch_failures_total{issuer=\"clerk\"} ";
    let failures = page.lines().find_map(|line| line.strip_prefix(failures)).unwrap();
    assert!(failures.parse::<u64>().unwrap() >= 6, "{failures}");
    *scene.document.lock() = Some(second());
    scene.more_fetches(2).await;
    assert!(scene.holds(&second()));
}

#[tokio::test]
async fn the_same_keys_leave_the_epoch_as_it_is() {
    let scene = Scene::start(Some(first()), SHORT, SHORT);
    scene.more_fetches(1).await;
    scene.more_fetches(1).await;
    let epoch = scene.epoch();
    scene.more_fetches(3).await;
    assert_eq!((scene.epoch(), epoch), (1, 1));
}
