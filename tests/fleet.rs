//! Three servers on one PostgreSQL, under load, while they are killed and the database restarts: one
//! call to LWA per account and expiry, and no request fails.
//!
//! Nothing may run beside it, or a machine of two cores has no time for what it demands:
//! `ADSPROXY_FLEET=short` asks for it (40 accounts, half a minute), which `tests/run` does in a step of
//! its own, and `ADSPROXY_FLEET=full` for 200 accounts and two minutes.

use crate::support::{
    fleet::{Fleet, Response},
    pooler::Pooler,
    postgres::Cluster,
};
use adsproxy::{
    sandbox::{LwaFault, RefreshRotation, Times},
    testing::{Encryption, EncryptionKey, Secret, Store, StoreConfig, StoreKind},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::task::{JoinSet, spawn_blocking};

const REPLICAS: usize = 3;
const LIFETIME: Duration = Duration::from_secs(10);
/// The lead of five seconds, its jitter of a tenth, whole seconds in the record, and some time to be late.
const EARLY: Duration = Duration::from_millis(6700);
/// Two calls for an expiry are one too many unless a replica was killed since a moment before the
/// first and before its result can have been kept, or the result could be kept nowhere.
const AROUND_KILL: Duration = Duration::from_secs(2);

const TOML: &str = "[proxy]\nworkers = 1\n\
    [token]\nrefresh_buffer_secs = 5\nbackground_lead_secs = 5\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn three_servers_refresh_once_per_expiry_while_they_are_killed_and_the_database_restarts() {
    if !is_wanted() {
        return;
    }
    let Some(cluster) = Cluster::start() else { return };
    let url = cluster.url();
    storm(cluster, (&url, None), RefreshRotation::OldDiesOnceUsed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_pooler_in_transaction_mode_changes_nothing_of_that() {
    if !is_wanted() {
        return;
    }
    let Some(cluster) = Cluster::start() else { return };
    let Some(pooler) = Pooler::start(&cluster) else { return };
    storm(cluster, (&pooler.url(), None), RefreshRotation::Off).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn servers_behind_a_pooler_that_notify_each_other_change_nothing_of_that() {
    if !is_wanted() {
        return;
    }
    let Some(cluster) = Cluster::start() else { return };
    let Some(pooler) = Pooler::start(&cluster) else { return };
    let direct = cluster.url();
    storm(cluster, (&pooler.url(), Some(&direct)), RefreshRotation::OldDiesOnceUsed).await;
}

fn is_wanted() -> bool {
    let is_wanted = std::env::var_os("ADSPROXY_FLEET").is_some();
    if !is_wanted {
        eprintln!("left out: ADSPROXY_FLEET asks for it");
    }
    is_wanted
}

/// Load at all replicas, of which one or two are killed now and then, and two restarts of the
/// database. The URLs are that of the store and that of its notifications.
async fn storm(
    mut cluster: Cluster,
    (url, listen_url): (&str, Option<&str>),
    rotation: RefreshRotation,
) {
    let is_full = std::env::var_os("ADSPROXY_FLEET").is_some_and(|scale| scale == "full");
    let (accounts, lasts) = if is_full { (200, 120) } else { (40, 30) };
    let fleet = Arc::new(Fleet::start(url, listen_url, REPLICAS, accounts, TOML).await);
    let lwa = &fleet.amazon.state().lwa;
    lwa.configure(|settings| {
        (settings.token_lifetime, settings.rotation) = (LIFETIME, rotation);
    });
    lwa.faults.add(LwaFault::Slow(Duration::from_millis(50)), Times::Forever);
    let seed = u64::from(std::process::id());
    let began = Instant::now();
    let until = began + Duration::from_secs(lasts);

    let mut load = JoinSet::new();
    for worker in 0..12 {
        load.spawn(request_until(fleet.clone(), until, Random(seed + worker)));
    }
    let killing = tokio::spawn(kill_until(fleet.clone(), until, Random(seed + 100)));
    for restart in 1..=2 {
        let at = began + Duration::from_secs(lasts) * restart / 3;
        tokio::time::sleep(at.saturating_duration_since(Instant::now())).await;
        tokio::task::block_in_place(|| {
            cluster.stop();
            std::thread::sleep(Duration::from_secs(1));
            cluster.run();
        });
    }
    killing.await.expect("no panic");
    let mut sum = Tally::default();
    for one in load.join_all().await {
        sum.add(one);
    }

    let kills = fleet.kills.lock().expect("no panic").clone();
    let ends = lwa.expiries();
    let issued: usize = ends.values().map(Vec::len).sum();
    let calls = fleet.amazon.state().record.counts().token_calls;
    println!(
        "seed {seed}, {accounts} accounts, {lasts} s, {} kills: {} requests, {} went to another \
         replica, {} failed, the slowest took {:?}; {calls} calls to LWA, {issued} tokens",
        kills.len(),
        sum.requests,
        sum.moved,
        sum.failures.len(),
        sum.slowest,
    );
    let complaints = || {
        let log = std::fs::read_to_string(cluster.directory.join("log"));
        let end = |text: String| {
            let lines: Vec<_> = text.lines().collect();
            lines[lines.len().saturating_sub(100)..].join("\n")
        };
        format!("{}\nPostgreSQL:\n{}", end(fleet.complaints()), end(log.unwrap_or_default()))
    };
    assert!(sum.failures.is_empty(), "{:#?}\n{}", sum.failures, complaints());
    assert!(sum.requests > accounts * 20, "{}", sum.requests);
    let mut doubled = 0;
    for (account, ends) in &ends {
        // A grant that does not rotate is refreshed without a lease while the database does not respond, which
        // other servers cannot know.
        let history = fleet.history(account);
        let mut without_lease = history.matches("login_with_amazon_without_lease").count();
        for pair in ends.windows(2).filter(|pair| pair[1] - pair[0] < LIFETIME - EARLY) {
            let (first, second) = (pair[0] - LIFETIME, pair[1] - LIFETIME);
            let was_killed = kills.iter().any(|kill| {
                *kill <= second && *kill + AROUND_KILL >= first && *kill <= first + AROUND_KILL
            });
            let was_away = rotation == RefreshRotation::Off && !was_killed && without_lease > 0;
            without_lease -= usize::from(was_away);
            doubled += 1;
            assert!(
                was_killed || was_away,
                "{account} was refreshed {:?} and {:?} after the beginning\n{}\n{}",
                first - began,
                second - began,
                history,
                complaints()
            );
        }
    }
    let expiries = usize::try_from(lasts / LIFETIME.as_secs()).expect("few");
    for account in &fleet.accounts {
        let issued = ends[account].len();
        assert!(issued >= expiries, "{account} was refreshed {issued} times");
    }
    println!("{doubled} refreshed twice where the owner was killed or the database away");
    // No grant was lost, and each replica has the others' tokens.
    assert_eq!(fleet.amazon.state().record.counts().unauthorized_sent, 0);
    for (number, account) in fleet.accounts.iter().enumerate() {
        let (response, _) = fleet.request(number % REPLICAS, account).await;
        assert!(matches!(response, Response::Status(200, _)), "{response:?}");
    }
}

async fn request_until(fleet: Arc<Fleet>, until: Instant, mut random: Random) -> Tally {
    let mut tally = Tally::default();
    while Instant::now() < until {
        let account = &fleet.accounts[random.below(fleet.accounts.len())];
        let began = Instant::now();
        let (response, moved) = fleet.request(random.below(REPLICAS), account).await;
        tally.requests += 1;
        tally.moved += moved;
        tally.slowest = tally.slowest.max(began.elapsed());
        if !matches!(response, Response::Status(200, _)) {
            tally.failures.push((account.clone(), began.elapsed(), response));
        }
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
    tally
}

/// Kills a replica, now and then two, and starts them again. One always lives.
async fn kill_until(fleet: Arc<Fleet>, until: Instant, mut random: Random) {
    let mut pause = |from: u64, to: usize| Duration::from_millis(from + random.below(to) as u64);
    let mut victim = 0;
    loop {
        let next = Instant::now() + pause(1000, 3000);
        if next + Duration::from_secs(3) > until {
            return;
        }
        tokio::time::sleep(next - Instant::now()).await;
        let both = pause(0, 3).is_zero();
        victim += 1 + pause(0, 2).as_millis() as usize;
        let victims: Vec<_> = (0..1 + usize::from(both)).map(|n| (victim + n) % REPLICAS).collect();
        let (down, fleet) = (pause(0, 1500), fleet.clone());
        spawn_blocking(move || {
            victims.iter().for_each(|&victim| fleet.kill(victim));
            std::thread::sleep(down);
            victims.iter().for_each(|&victim| fleet.revive(victim));
        })
        .await
        .expect("no panic");
    }
}

#[derive(Debug, Default)]
struct Tally {
    requests: usize,
    moved: usize,
    slowest: Duration,
    failures: Vec<(String, Duration, Response)>,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.moved += other.moved;
        self.slowest = self.slowest.max(other.slowest);
        self.failures.extend(other.failures);
    }
}

/// The same numbers for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) >> 33).expect("31 bits") % end
    }
}

/// Two replicas and one account, whose record rotates.
async fn pair(toml: &str) -> Option<(Cluster, Fleet)> {
    let cluster = Cluster::start()?;
    let fleet = Fleet::start(&cluster.url(), None, 2, 1, &format!("{TOML}{toml}")).await;
    let lwa = &fleet.amazon.state().lwa;
    lwa.configure(|settings| settings.rotation = RefreshRotation::OldDiesOnceUsed);
    Some((cluster, fleet))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_is_killed_costs_one_more_call_and_no_request() {
    let Some((_cluster, fleet)) = pair("").await else { return };
    let lwa = &fleet.amazon.state().lwa;
    let fleet = &fleet;
    lwa.responses.hold();
    let first = fleet.request(0, "fleet000");
    let others = async {
        // The first has its lease, and its token was issued.
        lwa.responses.until_waiting(1).await;
        let other = fleet.request(1, "fleet000");
        let kill = async {
            tokio::task::block_in_place(|| fleet.kill(0));
            lwa.responses.release();
        };
        tokio::join!(other, kill).0
    };
    let (first, other) = tokio::join!(first, others);
    assert!(matches!(first, (Response::Status(200, _), 1)), "{first:?}");
    assert!(matches!(other, (Response::Status(200, _), 0)), "{other:?}");
    assert_eq!(fleet.amazon.state().record.counts().token_calls, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_stopped_past_its_lease_writes_nothing_when_it_goes_on() {
    // Its own call has run out of time when it goes on.
    let Some((_cluster, fleet)) = pair("lwa_timeout_secs = 5\n").await else { return };
    let fleet = &fleet;
    let lwa = &fleet.amazon.state().lwa;
    let signal = |name: &str| fleet.replicas[0].with(|proxy| proxy.signal(name)).expect("runs");
    lwa.responses.hold();
    let stopped = fleet.request(0, "fleet000");
    let other = async {
        lwa.responses.until_waiting(1).await;
        signal("STOP");
        let other = fleet.request(1, "fleet000");
        let release = async {
            lwa.responses.until_waiting(2).await;
            lwa.responses.release();
        };
        let (other, ()) = tokio::join!(other, release);
        assert!(matches!(other, (Response::Status(200, _), 0)), "{other:?}");
        let kept = record(fleet).await;
        signal("CONT");
        kept
    };
    let (stopped, kept) = tokio::join!(stopped, other);
    // It uses what the other has brought.
    assert!(matches!(stopped, (Response::Status(200, _), 0)), "{stopped:?}");
    assert_eq!(record(fleet).await, kept);
    let grant = fleet.amazon.state().lwa.grant("fleet000").expect("a grant");
    assert_eq!(kept.1, grant.current(), "that of the second call");
    assert_eq!(fleet.amazon.state().record.counts().token_calls, 2);
}

/// Version and refresh token of the account's record.
async fn record(fleet: &Fleet) -> (u64, String) {
    let key = EncryptionKey::new("k1", Secret::new(STANDARD.encode([7; 32])));
    let (url, schema) = fleet.database.clone();
    let config = StoreConfig {
        kind: StoreKind::Postgres,
        url: Some(url.as_str().into()),
        schema,
        ..Default::default()
    };
    let open = move || Store::open(&config, &Encryption { keys: vec![key] }).expect("it opens");
    let store = spawn_blocking(open).await.expect("no panic");
    let found = store.grant(&"fleet000".parse().expect("an alias")).await.expect("it reads");
    let found = found.expect("a record");
    (found.version.0, found.value.refresh_token.expose().to_owned())
}
