//! Many accounts: the start, the memory, the statements and the CPU time that each of them costs.
//!
//! `ADSPROXY_FLEET=short` asks for a few thousand, with nothing beside them; the figures of `docs/scaling.md` are those of
//! `ADSPROXY_FLEET=full`, which wants 100,000 and prints what it measures. `ADSPROXY_PROGRAM` names
//! another build of the program to measure.

use crate::support::{
    postgres::{Session, config, database},
    proxy::{Proxy, Setup, amazon, upstream},
    relay::Relay,
    stream::Wire,
};
use adsproxy::{
    sandbox::{CLIENT_ID, CLIENT_SECRET, Emulator, EmulatorOptions},
    testing::{
        AccountId, Actor, Application, ApplicationConfig, Audit, Authority, Clock, Credential,
        Dependencies, Encryption, EncryptionKey, Epoch, Expected, Grants, KnownGrant, LwaClient,
        LwaHttp, ManualClock, Metrics, MetricsConfig, Place, Region, Reports, Secret, Store,
        StoredAccessToken, SystemClock, Token, TokenManager, client_config,
    },
};
use base64::{Engine, engine::general_purpose::STANDARD};
use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};
use tokio::{runtime::Handle, task::spawn_blocking};

/// As long as Amazon's.
const TOKEN_LENGTH: usize = 360;
const HOUR: Duration = Duration::from_secs(3600);
/// For the debug build of a machine on which other tests run.
const START_MAX: Duration = Duration::from_secs(30);
/// What a start needed for a moment is given back to the system after this time.
const GIVEN_BACK: Duration = Duration::from_secs(12);
/// What a start leaves to be done beside requests.
const SETTLED_MAX: Duration = Duration::from_secs(300);

fn is_full() -> bool {
    std::env::var_os("ADSPROXY_FLEET").is_some_and(|scale| scale == "full")
}

/// `ADSPROXY_ACCOUNTS`, else so many.
fn many(otherwise: usize) -> usize {
    let wanted = std::env::var("ADSPROXY_ACCOUNTS").ok();
    wanted.map_or(otherwise, |number| number.parse().expect("ADSPROXY_ACCOUNTS: a number"))
}

fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn id(number: usize) -> AccountId {
    format!("shop-{number:06}").parse().expect("an alias")
}

/// A record whose access token was issued at `issued`, in seconds since 1970, by a refresh that left the
/// refresh token as it was: a server keeps that too, for when the database is away.
fn record(number: usize, issued: u64) -> Credential {
    let text = |kind: &str| {
        let start = format!("{kind}|{number:06}-");
        format!("{start}{}", "x".repeat(TOKEN_LENGTH - start.len()))
    };
    Credential {
        epoch: Epoch::random(),
        account: id(number),
        application: "default".to_owned(),
        region: Region::Na,
        refresh_token: Secret::new(text("Atzr")),
        previous_refresh_token: None,
        access_token: Some(StoredAccessToken {
            token: Secret::new(text("Atza")),
            issued_at: issued,
            expires_at: issued + HOUR.as_secs(),
        }),
        generation: 2,
        consented_at: Some(issued),
        updated_at: issued,
        reauthorization_required: false,
        seed: None,
        unknown: Default::default(),
    }
}

/// Puts so many records into the store of `database`.
async fn fill(database: &(String, String), accounts: usize) {
    let key = EncryptionKey::new("k1", Secret::new(STANDARD.encode([7; 32])));
    let (config, encryption) = (config(database), Encryption { keys: vec![key] });
    let open = move || Store::open(&config, &encryption).expect("it opens");
    let store = spawn_blocking(open).await.expect("no panic");
    let now = SystemClock.now().unix();
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..8 {
        let store = store.clone();
        writers.spawn(async move {
            for number in (writer..accounts).step_by(8) {
                store.put_grant(&record(number, now), Expected::Any).await.expect("saved");
            }
        });
    }
    writers.join_all().await;
    Session::open(&database.0).run(&database.1, "ANALYZE {schema}.entries");
}

/// A server over so many accounts, and what is measured of it.
struct Server {
    proxy: Proxy,
    relay: Relay,
    accounts: usize,
    start: Duration,
    /// Without what it shares with other processes, bytes.
    memory: u64,
}

impl Server {
    async fn start(amazon: &Emulator, upstream_url: &str, accounts: usize) -> Option<Self> {
        let database = database()?;
        let relay = Relay::start(Path::new(database.0.split_once("host=").expect("a path").1));
        let keys = upstream(upstream_url, "");
        let program = std::env::var("ADSPROXY_PROGRAM").ok();
        // In place of the program of the tests.
        let script = program.map(|program| format!("shift; exec {program} \"$@\""));
        let runner = script.map(|script| ["sh", "-c", &script, "sh"].map(str::to_owned).to_vec());
        let setup = || Setup {
            toml: format!("[proxy]\nworkers = 1\n[log]\naccess = false\n{keys}"),
            database: Some((relay.url(), database.1.clone())),
            runner: runner.clone().unwrap_or_default(),
            ..Setup::default()
        };
        // It makes the tables and seeds the accounts of the configuration.
        let seeding = Proxy::with(amazon, setup());
        assert_eq!(seeding.get("/v2/profiles").await.status, 200);
        fill(&database, accounts).await;
        let began = Instant::now();
        let proxy = seeding.restart();
        let start = began.elapsed();
        // It looks once which keys its records need.
        let deadline = Instant::now() + SETTLED_MAX;
        while statements_of(&relay, Duration::from_secs(3)).await > 10.0 {
            assert!(Instant::now() < deadline, "statements come for ever");
        }
        tokio::time::sleep(GIVEN_BACK).await;
        let memory = anonymous_memory(&proxy);
        Some(Self { proxy, relay, accounts, start, memory })
    }

    /// Statements a second while nothing is due.
    async fn statements(&self) -> f64 {
        statements_of(&self.relay, Duration::from_secs(if is_full() { 30 } else { 8 })).await
    }

    /// CPU time of so many requests, each for another account, microseconds for one.
    fn cpu(&self, requests: usize) -> f64 {
        let stream = TcpStream::connect(self.proxy.addr).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a time");
        let (mut wire, before) = (Wire::new(stream), self.proxy.cpu());
        for number in 0..requests {
            // A step that has no common divisor with the number of accounts.
            let account = id(number * 7919 % self.accounts);
            let head = format!(
                "GET /v2/profiles HTTP/1.1\r\nHost: localhost\r\nX-Ads-Account: {account}\r\n\r\n"
            );
            wire.write(head).expect("written");
            assert_eq!(wire.reply().expect("a response").status, 200);
        }
        (self.proxy.cpu() - before) as f64 * 10_000.0 / requests as f64
    }
}

/// The URL of an upstream that knows every token.
fn ads() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            // A request comes as a whole, and no other behind it.
            thread::spawn(move || {
                while stream.read(&mut [0; 8192]).is_ok_and(|length| length > 0) {
                    let response = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]";
                    stream.write_all(response).expect("written");
                }
            });
        }
    });
    format!("http://{address}")
}

/// Statements a second for a while.
async fn statements_of(relay: &Relay, time: Duration) -> f64 {
    relay.record();
    tokio::time::sleep(time).await;
    relay.count() as f64 / time.as_secs_f64()
}

fn anonymous_memory(proxy: &Proxy) -> u64 {
    let path = format!("/proc/{}/smaps_rollup", proxy.pid());
    let rollup = fs::read_to_string(path).expect("a process of ours");
    let line = rollup.lines().find(|line| line.starts_with("Anonymous:")).expect("a line");
    let kib = line.split_whitespace().nth(1).expect("a number");
    kib.parse::<u64>().expect("KiB") * 1024
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_many_accounts_costs_little_memory_and_no_request_or_idle_server_more() {
    if std::env::var_os("ADSPROXY_FLEET").is_none() {
        return say("left out: ADSPROXY_FLEET asks for it");
    }
    let amazon = amazon().await;
    let ads = ads();
    // What a start needs for a moment, whatever the number of accounts, is no part of the difference.
    let (few, many) = if is_full() { (2, many(100_000)) } else { (2_000, 10_000) };
    let Some(small) = Server::start(&amazon, &ads, few).await else { return };
    let large = Server::start(&amazon, &ads, many).await.expect("a database is here");
    let each = large.memory.saturating_sub(small.memory) as f64 / (many - few) as f64;
    let idle = [small.statements().await, large.statements().await];
    let (rounds, requests) = if is_full() { (7, 40_000) } else { (3, 1_000) };
    let mut cpu = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        tokio::task::block_in_place(|| {
            cpu[0].push(small.cpu(requests));
            cpu[1].push(large.cpu(requests));
        });
    }
    let [of_few, of_many] = cpu.map(|mut rounds| {
        rounds.sort_by(f64::total_cmp);
        rounds[rounds.len() / 2]
    });
    say(&format!(
        "{many} accounts: start {:.2} s (with {few}: {:.2} s), {each:.0} bytes an account, \
         idle {:.2} statements a second (with {few}: {:.2}), {of_many:.2} us of CPU a request (with \
         {few}: {of_few:.2})",
        large.start.as_secs_f64(),
        small.start.as_secs_f64(),
        idle[1],
        idle[0],
    ));
    assert!(large.start < START_MAX, "{:?}", large.start);
    // With few, what the allocator has not given back yet counts for some hundred bytes of each.
    assert!(each < 2560.0, "{each} bytes an account");
    // One statement an account in ten seconds would be hundreds.
    assert!(idle[1] < idle[0] + 20.0, "{idle:?}");
    assert!(of_many < of_few * 2.0, "{of_few} and {of_many}");
}

/// Accounts whose clock goes as fast as their refreshes do.
struct Simulation {
    amazon: Emulator,
    clock: Arc<ManualClock>,
    tokens: TokenManager,
    application: Arc<Application>,
}

impl Simulation {
    /// The tokens of the accounts are of every age.
    async fn start(accounts: usize) -> Self {
        let clock = Arc::new(ManualClock::new());
        let options = EmulatorOptions { clock: clock.clone(), ..EmulatorOptions::default() };
        let amazon = Emulator::start(options).await.expect("it starts");
        let url = |path| format!("http://{}{path}", amazon.addr()).parse().expect("a URL");
        let application = Arc::new(Application::new(
            "default",
            &ApplicationConfig {
                client_id: CLIENT_ID.to_owned(),
                client_secrets: vec![CLIENT_SECRET.into()],
                token_url: url("/auth/o2/token"),
                authorize_url: url("/ap/oa"),
                ..ApplicationConfig::default()
            },
        ));
        let store = Store::memory().expect("a store");
        let tls = client_config(None, false).expect("TLS");
        let http = LwaHttp::new(&tls, Duration::from_secs(5), Duration::from_secs(10));
        let with = Dependencies {
            clock: clock.clone(),
            lwa: LwaClient::new(http.expect("a client")),
            grants: Grants::new(store.clone(), Audit::off()),
            metrics: Metrics::new(&MetricsConfig { account_labels_max: 10 }, Arc::default()),
            reports: Reports::new(Audit::off(), Actor::Server, Handle::current()),
            control: Handle::current(),
        };
        let tokens = TokenManager::new(&Token::default(), with);
        let this = Self { amazon, clock, tokens, application };
        let now = this.clock.now().unix();
        let mut states = Vec::new();
        for number in 0..accounts {
            let issued = now - HOUR.as_secs() * number as u64 / accounts as u64;
            let record = record(number, issued);
            let lwa = &this.amazon.state().lwa;
            lwa.add_grant(id(number).as_str(), CLIENT_ID, record.refresh_token.expose(), vec![]);
            store.put_grant(&record, Expected::Any).await.expect("saved");
            let grant = KnownGrant::Record(record);
            states.push(this.tokens.new_state(&id(number), this.place(), grant));
        }
        this.tokens.set_states(states);
        this
    }

    fn place(&self) -> Place {
        let (application, authority) = (self.application.clone(), Authority::Record);
        Place { region: Region::Na, application, authority }
    }

    /// Lets the refresher look at the clock at once: a plan was made.
    fn wake(&self) {
        let record = record(0, self.clock.now().unix());
        drop(self.tokens.new_state(&id(0), self.place(), KnownGrant::Record(record)));
    }

    /// One of a hundred accounts that has no fresh token, with its state.
    fn first_due(&self, accounts: usize) -> Option<String> {
        let ids = (0..accounts).step_by(accounts / 100).map(id);
        let views = ids.map(|id| self.tokens.status(&id).expect("an account"));
        let mut due = views.filter(|view| view.state.as_str() != "fresh");
        due.next().map(|view| format!("{}: {}", view.account, view.state.as_str()))
    }

    fn calls(&self) -> usize {
        usize::try_from(self.amazon.state().record.counts().token_calls).expect("few")
    }

    /// Waits until nothing is due any more; how many were refreshed.
    async fn settle(&self) -> usize {
        let before = self.calls();
        let mut last = usize::MAX;
        while last != self.calls() {
            last = self.calls();
            self.wake();
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
        last - before
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_hour_of_many_accounts_is_one_steady_stream_of_refreshes_and_no_token_expires() {
    let accounts = if is_full() { many(100_000) } else { 1_200 };
    let world = Simulation::start(accounts).await;
    let refresher = world.tokens.clone();
    let refresher = tokio::spawn(async move { refresher.run_background().await });
    let began = Instant::now();
    let mut steps = Vec::new();
    for _ in 0..12 {
        world.clock.advance(HOUR / 12);
        let mut refreshed = world.settle().await;
        // On a machine that has other things to do it may pause for longer than a moment.
        let mut pauses = 0;
        while let Some(due) = world.first_due(accounts) {
            let more = world.settle().await;
            pauses = if more == 0 { pauses + 1 } else { 0 };
            assert!(pauses < 20, "{due}, and nothing is refreshed");
            refreshed += more;
        }
        steps.push(refreshed);
    }
    refresher.abort();
    let sum: usize = steps.iter().sum();
    say(&format!(
        "{accounts} accounts: {sum} refreshes in an hour, in its steps {steps:?}, simulated in {:.1} s",
        began.elapsed().as_secs_f64()
    ));
    // Each lives for three quarters of an hour before it is refreshed.
    assert!((accounts..=accounts * 3 / 2).contains(&sum), "{sum}");
    // The first step also has those that are due at the start.
    let most = steps.iter().skip(1).max().expect("steps");
    assert!(*most < accounts / 4, "they come in turn: {steps:?}");
}
