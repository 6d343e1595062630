//! kill -9 at every system call of the store and around LWA's answer: no grant is ever lost.
//!
//! The real binary is killed by strace as it enters a chosen system call on a file of its store:
//! what came before has happened, what comes after has not. Which calls there are is recorded
//! first, so a new one is covered without a change here. A pause between kill and restart would
//! change nothing: the page cache outlives the process (power cuts: see `store_power_cut`).

use crate::support::{
    extras,
    load::TEST_TIMEOUT,
    proxy::{Proxy, Setup, amazon},
    strace::{Call, Strace, calls},
};
use adsproxy::sandbox::{Emulator, RefreshRotation};
use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    net::TcpStream,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};
use tokio::runtime::Runtime;

/// What the issue asks for.
const KILLS_MIN: usize = 1000;
/// The files of the store a refresh or a seed may touch.
const FILES: [&str; 7] = [
    "",
    "/accounts",
    "/accounts/.acme.tmp",
    "/accounts/acme.json",
    "/leases",
    "/leases/accounts",
    "/leases/accounts/acme",
];

/// What LWA does with the refresh token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Answer {
    /// It comes back as it was.
    Same,
    /// It is another; the old one dies when the new one, or what came with it, is used.
    Rotated,
    /// It is not in the answer.
    Absent,
    /// It is another, and the old one is dead at once. Between LWA's decision and our disk such
    /// a grant is in one process's memory only: no order of writes can save it there.
    Strict,
}

/// Where a process is killed: as it enters this call for the nth time.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Point {
    call: String,
    /// Below the store.
    file: String,
    nth: usize,
}

/// Kills by what LWA answers and by where they struck.
#[derive(Default)]
struct Tally {
    kills: BTreeMap<(Answer, String), usize>,
    lost: usize,
}

#[test]
fn a_thousand_kills_at_every_point_of_a_refresh_lose_no_grant() {
    if !extras::long() || !extras::required("strace") || !extras::root() {
        return;
    }
    let started = Instant::now();
    let lane_of = |answer| {
        let tally = Runtime::new().expect("a runtime").block_on(lane(answer));
        say(&format!("{answer:?}: {} kills in {:?}", tally.total(), started.elapsed()));
        tally
    };
    let lanes: Vec<Tally> = thread::scope(|scope| {
        let lanes = [Answer::Same, Answer::Rotated, Answer::Absent]
            .map(|answer| scope.spawn(move || lane_of(answer)));
        let seeds = scope.spawn(|| Runtime::new().expect("a runtime").block_on(seeds()));
        let lanes = lanes.into_iter().chain([seeds]);
        lanes.map(|lane| lane.join().expect("a lane ends well")).collect()
    });
    let kills: usize = lanes.iter().map(Tally::total).sum();
    let lost: usize = lanes.iter().map(|lane| lane.lost).sum();
    for lane in &lanes {
        lane.print();
    }
    say(&format!("{kills} kills, {lost} grants lost, {:?}", started.elapsed()));
    assert_eq!(lost, 0);
    assert!(kills >= KILLS_MIN, "{kills} kills");
    for call in ["openat", "write", "fsync", "rename", "mkdir", "flock", "close"] {
        let struck = |(_, place): &(Answer, String)| place.starts_with(&format!("{call} "));
        assert!(lanes.iter().any(|lane| lane.kills.keys().any(struck)), "none at {call}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_loses_a_grant_only_where_amazon_alone_could_have_kept_it() {
    // Also shows that the test above can see a loss.
    if !extras::required("strace") || !extras::root() {
        return;
    }
    let (amazon, mut proxy) = connect(Answer::Strict).await;
    let points = record(&amazon, &proxy).await;
    let mut tally = Tally::default();
    let mut world = (amazon, proxy);
    for point in &points {
        let (amazon, killed) = (&world.0, &mut world.1);
        let generation = || amazon.state().lwa.grant("acme").expect("a grant").generation;
        let path = killed.dir.path().join("store/accounts/acme.json");
        let before = (generation(), fs::read(&path).expect("a record"));
        if !crash(amazon, killed, point).await {
            continue;
        }
        let has_decided = generation() > before.0;
        let is_saved = fs::read(&path).expect("a record") != before.1;
        tally.count(Answer::Strict, point.to_string());
        proxy = world.1.restart();
        if !has_grant(&world.0, &proxy).await {
            assert!(has_decided, "lost by a kill at {point}, before Amazon was asked");
            assert!(!is_saved, "lost by a kill at {point}, after the record was saved");
            tally.lost += 1;
            world = connect(Answer::Strict).await;
        } else {
            world = (world.0, proxy);
        }
    }
    tally.print();
    say(&format!("{} kills, {} grants lost to Amazon's haste", tally.total(), tally.lost));
    assert!(tally.lost > 0, "the harness sees no loss");
    assert!(tally.lost < points.len(), "most kills lose nothing");
}

/// Every crash that one kind of answer can meet.
async fn lane(answer: Answer) -> Tally {
    let mut tally = Tally::default();
    let (amazon, proxy) = connect(answer).await;
    let points = record(&amazon, &proxy).await;
    drop(proxy);
    for point in &points {
        first_refresh(answer, point, &mut tally).await;
    }
    let (amazon, mut proxy) = connect(answer).await;
    for point in &points {
        proxy = crash_all(&amazon, proxy, &[point], answer, &mut tally).await;
    }
    // Two crashes in a row: what the first one left behind meets the second.
    let writes: Vec<&Point> = points.iter().filter(|point| point.changes_something()).collect();
    for first in &writes {
        for second in &writes {
            proxy = crash_all(&amazon, proxy, &[first, second], answer, &mut tally).await;
        }
    }
    around_the_answer(&amazon, proxy, answer, &mut tally).await;
    tally
}

/// A refresh that overwrites the seed.
async fn first_refresh(answer: Answer, point: &Point, tally: &mut Tally) {
    let amazon = amazon().await;
    configure(&amazon, answer);
    let mut proxy = Proxy::with(&amazon, setup());
    if crash(&amazon, &mut proxy, point).await {
        tally.count(answer, format!("{point}, first refresh"));
        tally.lost += usize::from(!has_grant(&amazon, &proxy.restart()).await);
    }
}

/// Kills at one point after the other, with a restart after each, and looks for the grant then.
async fn crash_all(
    amazon: &Emulator,
    mut proxy: Proxy,
    points: &[&Point],
    answer: Answer,
    tally: &mut Tally,
) -> Proxy {
    for point in points {
        if crash(amazon, &mut proxy, point).await {
            tally.count(answer, point.to_string());
            proxy = proxy.restart();
        }
    }
    tally.lost += usize::from(!has_grant(amazon, &proxy).await);
    proxy
}

/// Kills before LWA has decided, before it has answered, and from then on ever later.
async fn around_the_answer(amazon: &Emulator, mut proxy: Proxy, answer: Answer, tally: &mut Tally) {
    const STEP: Duration = Duration::from_micros(200);
    let lwa = &amazon.state().lwa;
    for round in 0..60 {
        let (place, gate) = match round {
            0..5 => ("before LWA decides", &lwa.gate),
            5..10 => ("before LWA answers", &lwa.responses),
            _ => ("after LWA's answer", &lwa.responses),
        };
        lwa.expire_access_tokens(Some("acme"));
        gate.hold();
        let caller = ask(&proxy);
        gate.until_waiting(1).await;
        if round >= 10 {
            gate.release();
            thread::sleep(STEP * (round - 10));
        }
        proxy.kill();
        gate.release();
        drop(caller);
        tally.count(answer, place.to_owned());
        proxy = proxy.restart();
        tally.lost += usize::from(!has_grant(amazon, &proxy).await);
    }
}

/// Kills while the store and its first record are made.
async fn seeds() -> Tally {
    let amazon = amazon().await;
    configure(&amazon, Answer::Rotated);
    let mut tally = Tally::default();
    let recorded = start_traced(&amazon, &[]).0;
    for point in recorded {
        let (_, proxy, dir) = start_traced(&amazon, std::slice::from_ref(&point));
        if proxy.is_ok() {
            continue;
        }
        tally.count(Answer::Rotated, format!("{point}, seed"));
        let proxy = Proxy::with(&amazon, Setup { dir: Some(dir), ..setup() });
        // Each start is another process's view of the one grant: it must have the current token.
        tally.lost += usize::from(!has_grant(&amazon, &proxy).await);
        amazon.state().lwa.add_grant(
            "acme",
            adsproxy::sandbox::CLIENT_ID,
            crate::support::proxy::ACME_REFRESH,
            amazon.state().lwa.grant("acme").expect("a grant").profiles,
        );
    }
    tally
}

/// Starts on an empty directory under strace: the calls it made, and the proxy if it lived.
fn start_traced(
    amazon: &Emulator,
    kill: &[Point],
) -> (Vec<Point>, Result<Proxy, String>, Arc<tempfile::TempDir>) {
    let dir = Arc::new(tempfile::tempdir().expect("a temporary directory"));
    let (store, log) = (dir.path().join("store"), dir.path().join("strace"));
    let mut runner: Vec<String> =
        ["strace", "-D", "-f", "-qq", "-y", "-o"].map(str::to_owned).into();
    runner.push(log.display().to_string());
    match kill {
        [] => runner.extend(watched(&store)),
        [point, ..] => runner.extend(point.kill(&store)),
    }
    let setup = Setup { dir: Some(dir.clone()), runner, ..setup() };
    let proxy = Proxy::try_with(amazon, setup);
    if let Ok(proxy) = &proxy {
        Strace::let_go(proxy.pid());
    }
    let text = std::fs::read_to_string(&log).unwrap_or_default();
    (points(&calls(&text), &store), proxy, dir)
}

async fn connect(answer: Answer) -> (Emulator, Proxy) {
    let amazon = amazon().await;
    configure(&amazon, answer);
    let proxy = Proxy::with(&amazon, setup());
    assert!(has_grant(&amazon, &proxy).await);
    (amazon, proxy)
}

fn configure(amazon: &Emulator, answer: Answer) {
    amazon.state().lwa.configure(|settings| {
        settings.omit_refresh_token = answer == Answer::Absent;
        settings.rotation = match answer {
            Answer::Same | Answer::Absent => RefreshRotation::Off,
            Answer::Rotated => RefreshRotation::OldDiesOnceUsed,
            Answer::Strict => RefreshRotation::OldDies,
        };
    });
}

/// The calls of one refresh.
async fn record(amazon: &Emulator, proxy: &Proxy) -> Vec<Point> {
    let store = proxy.dir.path().join("store");
    amazon.state().lwa.expire_access_tokens(Some("acme"));
    let strace = Strace::attach(proxy, &watched(&store));
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    points(&calls(&strace.detach()), &store)
}

/// Runs a refresh that is killed at `point`; says whether it was.
async fn crash(amazon: &Emulator, proxy: &mut Proxy, point: &Point) -> bool {
    amazon.state().lwa.expire_access_tokens(Some("acme"));
    let strace = Strace::attach(proxy, &point.kill(&proxy.dir.path().join("store")));
    let request = proxy.request(http::Method::GET, "/v2/profiles");
    let answer = proxy.try_send(request.header("X-Ads-Account", "acme")).await;
    strace.detach();
    let deadline = Instant::now() + TEST_TIMEOUT;
    // An answer may have got out just before the kill, which takes a moment to end every thread.
    while answer.is_err() || proxy.ask_admin("/livez").is_empty() {
        if proxy.has_ended() {
            return true;
        }
        assert!(Instant::now() < deadline, "neither answered nor dead: {answer:?} at {point}");
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(answer.expect("an answer").status, 200, "{point}\n{}", proxy.log());
    false
}

/// Whether the grant in the store is good for another access token.
async fn has_grant(amazon: &Emulator, proxy: &Proxy) -> bool {
    let lwa = &amazon.state().lwa;
    let generation = || lwa.grant("acme").expect("a grant").generation;
    let before = generation();
    lwa.expire_access_tokens(Some("acme"));
    let answer = proxy.get("/v2/profiles").await;
    if answer.status != 200 {
        assert_eq!(answer.error(), Some("reauthorization_required"), "{}", proxy.log());
    }
    answer.status == 200 && generation() > before
}

/// A request whose response is not read.
fn ask(proxy: &Proxy) -> TcpStream {
    let mut caller = TcpStream::connect(proxy.addr).expect("a connection");
    let request = b"GET /v2/profiles HTTP/1.1\r\nHost: localhost\r\nX-Ads-Account: acme\r\n\r\n";
    caller.write_all(request).expect("written");
    caller
}

fn watched(store: &Path) -> Vec<String> {
    FILES.iter().flat_map(|file| ["-P".to_owned(), format!("{}{file}", store.display())]).collect()
}

/// The points that `calls` pass, each once, in their order. strace counts by thread.
fn points(calls: &[Call], store: &Path) -> Vec<Point> {
    let store = store.display().to_string();
    let mut seen: BTreeMap<(&str, &str, &str), usize> = BTreeMap::new();
    let mut points = Vec::new();
    for call in calls {
        let Some(file) = call.path.strip_prefix(&store) else { continue };
        let nth = seen.entry((&call.thread, &call.name, file)).or_default();
        *nth += 1;
        let point = Point { call: call.name.clone(), file: file.to_owned(), nth: *nth };
        if !points.contains(&point) {
            points.push(point);
        }
    }
    points
}

impl Point {
    /// Arguments for strace.
    fn kill(&self, store: &Path) -> Vec<String> {
        let Self { call, file, nth } = self;
        vec![
            "-P".to_owned(),
            format!("{}{file}", store.display()),
            "-e".to_owned(),
            format!("trace={call}"),
            "-e".to_owned(),
            format!("inject={call}:signal=KILL:when={nth}"),
        ]
    }

    /// Whether it belongs to the change of a file or of a lease.
    fn changes_something(&self) -> bool {
        ["openat", "flock", "write", "fsync", "rename", "close"].contains(&&*self.call)
            && !self.file.ends_with("acme.json")
    }
}

impl std::fmt::Display for Point {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { call, file, nth } = self;
        write!(f, "{call} store{file} #{nth}")
    }
}

impl Tally {
    fn count(&mut self, answer: Answer, place: String) {
        *self.kills.entry((answer, place)).or_default() += 1;
    }

    fn total(&self) -> usize {
        self.kills.values().sum()
    }

    fn print(&self) {
        for ((answer, place), kills) in &self.kills {
            say(&format!("{kills:5} {answer:?}: {place}"));
        }
    }
}

/// Figures of a test that passes: the harness would swallow `print!`.
fn say(line: &str) {
    writeln!(std::io::stderr(), "{line}").ok();
}

fn setup() -> Setup {
    let toml = "[proxy]\nworkers = 1\n[token]\nforced_refresh_min_interval_secs = 0";
    Setup { toml: toml.into(), file_store: true, ..Setup::default() }
}
