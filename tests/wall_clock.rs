//! The real process on a machine whose clock is set, or that is put to sleep: no expired token is
//! sent, and nothing is refreshed more than once for it.

use crate::support::{
    extras,
    proxy::{Answer, Proxy, Setup, amazon, eventually},
};
use adsproxy::sandbox::{CLIENT_ID, Emulator};
use http::Method;
use std::{
    fmt::Write as _,
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::task::JoinSet;

const ACCOUNTS: [&str; 2] = ["acme", "globex"];
const SLEEPERS: usize = 50;

/// Whether a jump takes the monotonic clock along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Jump {
    Wall,
    Both,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wall_clock_that_is_set_costs_at_most_one_refresh_per_account() {
    let jumps = ["+1h", "+0", "-1h", "+0", "+1d", "+0", "-1d", "+0", "+3d", "+0", "-3d", "+2h"];
    jumped(Jump::Wall, &jumps).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_clocks_that_jump_ahead_cost_at_most_one_refresh_per_account() {
    jumped(Jump::Both, &["+1h", "+1d", "+3d", "+4d"]).await;
}

/// Jumps, with requests after each.
async fn jumped(jump: Jump, to: &[&str]) {
    let Some((clock, setup)) = on_a_clock(jump) else { return };
    let amazon = amazon().await;
    let proxy = Arc::new(Proxy::with(&amazon, setup));
    use_all(&proxy).await;
    let calls = || amazon.state().record.counts().token_calls;
    for offset in to {
        let before = calls();
        set(&clock, offset);
        for _ in 0..5 {
            use_all(&proxy).await;
        }
        let refreshes = calls() - before;
        assert!(refreshes <= ACCOUNTS.len() as u64, "{jump:?} {offset}: {refreshes} refreshes");
        // Only further ahead than ever is there a reason: the tokens come from the last such time.
        let is_due = ["+1h", "+1d", "+3d", "+4d"].contains(offset);
        assert_eq!(refreshes > 0, is_due, "{jump:?} {offset}");
    }
    assert_eq!(amazon.state().record.counts().unauthorized_sent, 0, "no dead token was sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wall_clock_set_back_gives_no_token_a_longer_life() {
    let Some((clock, setup)) = on_a_clock(Jump::Wall) else { return };
    let amazon = amazon().await;
    const LIFETIME: Duration = Duration::from_secs(3);
    amazon.state().lwa.configure(|settings| settings.token_lifetime = LIFETIME);
    let toml = "[token]\nrefresh_buffer_secs = 1\nbackground_lead_secs = 1".to_owned();
    let proxy = Arc::new(Proxy::with(&amazon, Setup { toml, ..setup }));
    use_all(&proxy).await;
    for offset in ["-1h", "-1d", "-3d"] {
        set(&clock, offset);
        let before = amazon.state().record.counts().token_calls;
        let started = Instant::now();
        while started.elapsed() < LIFETIME * 2 {
            use_all(&proxy).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let counts = amazon.state().record.counts();
        assert_eq!(counts.unauthorized_sent, 0, "{offset}: no expired token was sent");
        // Every two seconds for each of two accounts, and one that was due anyhow.
        let refreshes = counts.token_calls - before;
        assert!((4..=10).contains(&refreshes), "{offset}: {refreshes} refreshes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_accounts_wake_from_a_suspend_with_one_refresh_each() {
    let amazon = amazon().await;
    let proxy = Arc::new(with_sleepers(&amazon));
    const LIFETIME: Duration = Duration::from_secs(6);
    let state = amazon.state();
    state.lwa.configure(|settings| settings.token_lifetime = LIFETIME);
    use_sleepers(&proxy, 1).await;
    assert_eq!(state.record.counts().token_calls, SLEEPERS as u64);
    state.lwa.configure(|settings| settings.token_lifetime = Duration::from_secs(3600));
    proxy.signal("STOP");
    eventually("every token ends", || state.lwa.live_access_tokens() == 0).await;
    // Requests that came while it slept, and those that come as it wakes.
    let asleep = tokio::spawn({
        let proxy = proxy.clone();
        async move { use_sleepers(&proxy, 2).await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    proxy.signal("CONT");
    use_sleepers(&proxy, 2).await;
    asleep.await.expect("every request is answered");
    let counts = state.record.counts();
    assert_eq!(counts.token_calls, 2 * SLEEPERS as u64, "one each, and no storm");
    assert_eq!(counts.unauthorized_sent, 0, "no expired token was sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_has_just_booted_believes_the_stored_token() {
    if !extras::root() {
        return;
    }
    let amazon = amazon().await;
    let toml = "[token]\nforced_refresh_min_interval_secs = 0";
    let mut proxy =
        Proxy::with(&amazon, Setup { toml: toml.into(), file_store: true, ..Setup::default() });
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    proxy.kill();
    let uptime = fs::read_to_string("/proc/uptime").expect("the uptime");
    let uptime: u64 = uptime.split('.').next().expect("seconds").parse().expect("a number");
    for (offset, boots) in [(format!("-{}", uptime - 1), "now"), ("+300000000".into(), "long ago")]
    {
        let runner = ["unshare", "--time", "--fork", "--kill-child", "--monotonic", &offset];
        let runner = runner.map(str::to_owned).into();
        let dir = Some(proxy.dir.clone());
        let setup = Setup { dir, runner, toml: toml.into(), ..Setup::default() };
        let other = Proxy::with(&amazon, setup);
        for _ in 0..5 {
            assert_eq!(other.get("/v2/profiles").await.status, 200, "booted {boots}");
        }
        let calls = || amazon.state().record.counts().token_calls;
        assert_eq!(calls(), 1, "booted {boots}");
        amazon.state().lwa.expire_access_tokens(None);
        assert_eq!(other.get("/v2/profiles").await.status, 200, "booted {boots}");
        assert_eq!(calls(), 2, "booted {boots}");
        amazon.state().record.clear();
        amazon.state().lwa.expire_access_tokens(None);
        // What it stored counts for the others, too.
        assert_eq!(other.get("/v2/profiles").await.status, 200, "booted {boots}");
    }
}

/// One request for every account, all at once, each answered.
async fn use_all(proxy: &Arc<Proxy>) {
    let mut asked = JoinSet::new();
    for account in ACCOUNTS.repeat(5) {
        asked.spawn(get(proxy.clone(), account.to_owned()));
    }
    assert!(asked.join_all().await.iter().all(|answer| answer.status == 200));
}

async fn use_sleepers(proxy: &Arc<Proxy>, times: usize) {
    let mut asked = JoinSet::new();
    for number in (0..SLEEPERS * times).map(|number| number % SLEEPERS) {
        asked.spawn(get(proxy.clone(), format!("sleeper-{number}")));
    }
    for answer in asked.join_all().await {
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

async fn get(proxy: Arc<Proxy>, account: String) -> Answer {
    let request = proxy.request(Method::GET, "/v2/profiles");
    // A connection that lies idle over a jump ahead is an old one then, and closed.
    proxy.send(request.header("X-Ads-Account", account).header("Connection", "close")).await
}

/// A proxy with fifty accounts that nothing refreshes but requests and a suspend.
fn with_sleepers(amazon: &Emulator) -> Proxy {
    let lwa = &amazon.state().lwa;
    let profiles = lwa.grant("acme").expect("a grant").profiles;
    let mut setup = Setup::default();
    setup.toml.push_str("[token]\nrefresh_buffer_secs = 1\nbackground_lead_secs = 1\n");
    for number in 0..SLEEPERS {
        let (alias, variable) = (format!("sleeper-{number}"), format!("SLEEPER_{number}"));
        let refresh = format!("Atzr|the-grant-of-sleeper-{number}");
        lwa.add_grant(&alias, CLIENT_ID, &refresh, profiles.clone());
        let toml = format!(
            "[accounts.{alias}]\nregion = \"na\"\nrefresh_token = {{ env = \"{variable}\" }}\n"
        );
        setup.toml.write_str(&toml).expect("memory");
        setup.env.push((variable, refresh));
    }
    Proxy::with(amazon, setup)
}

/// A directory with the clock of a proxy, which can be set while it runs.
fn on_a_clock(jump: Jump) -> Option<(Arc<TempDir>, Setup)> {
    let library = extras::library("faketime/libfaketimeMT.so.1")?;
    let clock = Arc::new(tempfile::tempdir().expect("a directory"));
    set(&clock, "+0");
    let monotonic = if jump == Jump::Wall { "1" } else { "0" };
    let env = [
        ("LD_PRELOAD", library.as_path()),
        ("FAKETIME_TIMESTAMP_FILE", &clock.path().join("offset")),
        ("FAKETIME_NO_CACHE", Path::new("1")),
        ("FAKETIME_DONT_FAKE_MONOTONIC", Path::new(monotonic)),
    ];
    let env = env.map(|(name, value)| (name.to_owned(), value.display().to_string()));
    Some((clock, Setup { env: env.into(), ..Setup::default() }))
}

/// Sets the clock to `offset` from the true time; in one step, as the library may read just now.
fn set(clock: &TempDir, offset: &str) {
    let new = clock.path().join("new");
    fs::write(&new, format!("{offset}\n")).expect("written");
    fs::rename(new, clock.path().join("offset")).expect("renamed");
}
