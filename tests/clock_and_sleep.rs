//! Clocks that jump and machines that sleep: no storm of refreshes, no dead token in use.

use crate::support::proxy::ACME_REFRESH;
use adsproxy::{
    sandbox::{CLIENT_ID, CLIENT_SECRET, Emulator, EmulatorOptions},
    testing::{
        AccessToken, AccountId, Actor, Application, ApplicationConfig, Audit, Authority, Cause,
        Clock, Credential, DEFAULT_APPLICATION, Dependencies, Expected, Grants, KnownGrant,
        LwaClient, LwaHttp, ManualClock, Metrics, MetricsConfig, Place, Region, Reports, Store,
        Token, TokenManager, client_config,
    },
};
use std::{sync::Arc, time::Duration};
use tokio::runtime::Handle;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// A machine with a clock of its own, and Amazon with the true time.
struct World {
    amazon: Emulator,
    truth: Arc<ManualClock>,
    machine: Arc<ManualClock>,
    store: Store,
    tokens: TokenManager,
}

impl World {
    async fn start() -> Self {
        let truth = Arc::new(ManualClock::new());
        let options = EmulatorOptions { clock: truth.clone(), ..EmulatorOptions::default() };
        let amazon = Emulator::start(options).await.expect("the emulator starts");
        let machine = Arc::new(ManualClock::new());
        let store = Store::memory().expect("a store");
        store.put_grant(&grant(), Expected::Any).await.expect("saved");
        let tokens = boot(&amazon, &machine, &store, grant());
        Self { amazon, truth, machine, store, tokens }
    }

    /// Ten requests at once: the token they get, which must work.
    async fn use_it(&self) -> Arc<AccessToken> {
        let asked = (0..10).map(|_| {
            let tokens = self.tokens.clone();
            tokio::spawn(async move { tokens.token(&acme()).await })
        });
        let asked: Vec<_> = asked.collect();
        let mut last = None;
        for answer in asked {
            last = Some(answer.await.expect("no panic").expect("a token"));
        }
        let token = last.expect("ten answers");
        assert!(self.works(&token).await, "a dead token is in use: {token:?}");
        token
    }

    async fn works(&self, token: &AccessToken) -> bool {
        let request = client()
            .get(format!("http://{}/v2/profiles", self.amazon.addr()))
            .header("Authorization", token.header())
            .header("Amazon-Advertising-API-ClientId", CLIENT_ID);
        request.send().await.expect("an answer").status() == 200
    }

    fn calls(&self) -> u64 {
        self.amazon.state().record.counts().token_calls
    }

    /// Time passes for all.
    fn pass(&self, time: Duration) {
        self.truth.advance(time);
        self.machine.advance(time);
    }

    /// The machine sleeps: its monotonic clock stands still meanwhile.
    fn sleep(&self, time: Duration) {
        self.truth.advance(time);
        self.machine.set_wall(self.machine.now().wall + time);
    }

    /// A new process on the same store and machine.
    async fn restart(&mut self) {
        let record = self.store.load(&acme()).await.expect("readable").expect("a record");
        self.tokens = boot(&self.amazon, &self.machine, &self.store, record);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wall_clock_that_jumps_ahead_costs_one_refresh() {
    for jump in [HOUR, DAY] {
        let world = World::start().await;
        world.use_it().await;
        world.machine.set_wall(world.machine.now().wall + jump);
        for _ in 0..5 {
            world.use_it().await;
        }
        assert_eq!(world.calls(), 2, "{jump:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wall_clock_that_is_set_back_does_not_prolong_a_token() {
    for jump in [HOUR, DAY] {
        let world = World::start().await;
        world.use_it().await;
        world.machine.set_wall(world.machine.now().wall - jump);
        for _ in 0..5 {
            world.use_it().await;
        }
        assert_eq!(world.calls(), 1, "{jump:?}: nothing has expired");
        world.pass(HOUR);
        world.use_it().await;
        assert_eq!(world.calls(), 2, "{jump:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wall_clock_that_jumps_to_and_fro_costs_at_most_one_refresh_a_jump() {
    let world = World::start().await;
    world.use_it().await;
    let start = world.machine.now().wall;
    for _ in 0..3 {
        world.machine.set_wall(start + DAY);
        world.use_it().await;
        world.use_it().await;
        world.machine.set_wall(start);
        world.use_it().await;
        world.use_it().await;
    }
    assert!(world.calls() <= 1 + 3, "{}", world.calls());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_expired_while_the_machine_slept_is_not_used() {
    for nap in [HOUR, 8 * HOUR, 30 * DAY] {
        let world = World::start().await;
        let before = world.use_it().await;
        world.sleep(nap);
        let after = world.use_it().await;
        assert_eq!((before.generation(), after.generation()), (1, 2), "{nap:?}");
        assert!(!world.works(&before).await, "{nap:?}");
        assert_eq!(world.calls(), 2, "{nap:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_sleep_costs_no_refresh() {
    let world = World::start().await;
    world.use_it().await;
    for _ in 0..3 {
        world.sleep(HOUR / 6);
        world.use_it().await;
    }
    assert_eq!(world.calls(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_token_is_used_after_a_restart_but_never_beyond_its_life() {
    let mut world = World::start().await;
    world.use_it().await;
    world.pass(HOUR / 2);
    world.restart().await;
    world.use_it().await;
    assert_eq!(world.calls(), 1);
    // Between two processes the clock is set back: the stored times look like the future.
    world.machine.set_wall(world.machine.now().wall - DAY);
    world.restart().await;
    world.pass(HOUR);
    world.restart().await;
    let token = world.tokens.token(&acme()).await.expect("a token");
    let token = if world.works(&token).await {
        token
    } else {
        // At most one 401 is the price of a clock that lies across a restart.
        world.tokens.replace(&acme(), &token, Cause::Caller).await.expect("a token").token
    };
    assert!(world.works(&token).await);
    assert_eq!(world.calls(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn days_of_use_cost_about_one_refresh_an_hour() {
    let world = World::start().await;
    for _ in 0..200 {
        world.pass(Duration::from_secs(20 * 60));
        world.use_it().await;
        // Whatever that started is over before the time moves on.
        while world.tokens.status(&acme()).expect("an account").state.as_str() != "fresh" {
            tokio::task::yield_now().await;
        }
    }
    let hours = 200 / 3;
    assert!((hours..=hours * 2).contains(&world.calls()), "{}", world.calls());
}

fn acme() -> AccountId {
    "acme".parse().expect("an alias")
}

fn boot(
    amazon: &Emulator,
    clock: &Arc<ManualClock>,
    store: &Store,
    record: Credential,
) -> TokenManager {
    let metrics = Metrics::new(&MetricsConfig { account_labels_max: 10 }, Arc::default());
    let tls = client_config(None, false).expect("TLS");
    let patience = Duration::from_secs(10);
    let http = LwaHttp::new(&tls, patience, patience).expect("a client");
    let with = Dependencies {
        clock: clock.clone(),
        lwa: LwaClient::new(http),
        grants: Grants::new(store.clone(), Audit::off()),
        metrics,
        reports: Reports::new(Audit::off(), Actor::Server, Handle::current()),
        control: Handle::current(),
    };
    let tokens = TokenManager::new(&token_config(), with);
    let application = Arc::new(Application::new("default", &application(amazon)));
    let (region, authority) = (record.region, Authority::Record);
    let grant = KnownGrant::Record(record);
    let state = tokens.new_state(&acme(), Place { region, application, authority }, grant);
    tokens.set_states([state]);
    tokens
}

fn client() -> reqwest::Client {
    // Fails when another test was first, which is fine.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().expect("a client")
}

fn grant() -> Credential {
    Credential {
        epoch: adsproxy::testing::Epoch::random(),
        account: "acme".parse().expect("an alias"),
        application: DEFAULT_APPLICATION.to_owned(),
        region: Region::Na,
        refresh_token: ACME_REFRESH.into(),
        previous_refresh_token: None,
        access_token: None,
        generation: 0,
        consented_at: None,
        updated_at: 0,
        reauthorization_required: false,
        seed: None,
        unknown: Default::default(),
    }
}

/// The defaults of `[token]`.
fn token_config() -> Token {
    Token {
        refresh_buffer: Duration::from_secs(300),
        background_lead: Duration::from_secs(900),
        background_concurrency: 8,
        forced_refresh_min_interval: Duration::from_secs(30),
        wait_timeout: Duration::from_secs(30),
        waiters_max: 16_384,
        lwa_concurrency: 16,
        lwa_connect_timeout: Duration::from_secs(5),
        lwa_timeout: Duration::from_secs(10),
        lwa_attempts_max: 3,
    }
}

fn application(amazon: &Emulator) -> ApplicationConfig {
    let url = |path| format!("http://{}{path}", amazon.addr()).parse().expect("a URL");
    ApplicationConfig {
        client_id: CLIENT_ID.to_owned(),
        client_secrets: vec![CLIENT_SECRET.into()],
        token_url: url("/auth/o2/token"),
        fallback_token_urls: Vec::new(),
        authorize_url: url("/ap/oa"),
        redirect_uri: String::new(),
        scopes: Vec::new(),
        ..ApplicationConfig::default()
    }
}
