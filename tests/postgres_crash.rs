//! kill -9 at every statement that a login, a refresh, a logout and a rotation of the key send to
//! PostgreSQL, before the database does it and after: no grant is lost.
//!
//! Which statements there are is recorded first, so a new one is covered without a change here. A part
//! of the kills is enough beside other tests; `ADSPROXY_FLEET=full` runs them all.

use crate::support::{
    extras,
    login::{INITECH, Reply, ask_with, log_in, login_setup},
    postgres::{Session, database},
    proxy::{Proxy, Setup, amazon, eventually, write_config, write_private},
    relay::{Point, Relay},
};
use adsproxy::{
    sandbox::{CLIENT_SECRET, Emulator, RefreshRotation},
    testing::{Encryption, EncryptionKey, Secret, Store},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::Method;
use std::{
    fs,
    io::Write,
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Of all points, one in so many is tried, if not all are.
const SAMPLE: usize = 2;
/// How long what was done goes on to talk to the database.
const AFTERWARDS: Duration = Duration::from_millis(300);
/// How long a statement may take to come again: some come by themselves, one each two seconds, and the
/// fourth of them may be meant.
const AGAIN_MAX: Duration = Duration::from_secs(8);

/// What a server looks for by itself twice a second, and how many of these in a row are tried.
const LIST: &str = "SELECT key, version, expires_at_ms";
const LISTS_MAX: usize = 4;

/// What is done while a process is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    /// With a refresh token that changes, and the old one dies once the new one is used.
    Refresh,
    /// Of an account that was not there.
    Login,
    Logout,
    RotateKey,
}

/// A server on a database, with a relay between them.
struct World {
    amazon: Emulator,
    relay: Relay,
    database: (String, String),
    dir: Arc<TempDir>,
    proxy: Option<Proxy>,
    /// The number of the account that a login or a logout is about.
    shop: usize,
}

#[test]
fn a_kill_at_any_statement_of_a_refresh_or_of_a_rotation_loses_no_grant() {
    kill_everywhere(&[Act::Refresh, Act::RotateKey]);
}

#[test]
fn a_kill_at_any_statement_of_a_login_or_a_logout_leaves_a_grant_or_none() {
    kill_everywhere(&[Act::Login, Act::Logout]);
}

fn kill_everywhere(acts: &[Act]) {
    if !extras::long() || database().is_none() {
        return;
    }
    thread::scope(|scope| {
        for act in acts {
            scope.spawn(|| Runtime::new().expect("a runtime").block_on(lane(*act)));
        }
    });
}

/// Does it once to see its statements, and then again for each kill.
async fn lane(act: Act) {
    let started = Instant::now();
    let mut world = World::start(act).await;
    world.prepare(act).await;
    world.relay.record();
    world.perform(act, false).await;
    tokio::time::sleep(AFTERWARDS).await;
    let mut points = world.relay.points();
    // Where the machine was slow, more of these came by themselves than will come again in time.
    points.retain(|point| !point.statement.starts_with(LIST) || point.nth <= LISTS_MAX);
    let is_full = std::env::var_os("ADSPROXY_FLEET").is_some_and(|scale| scale == "full");
    let every = if is_full { 1 } else { SAMPLE };
    let (mut kills, mut missed) = (0, 0);
    for point in points.iter().skip(points.len() % every).step_by(every) {
        world.prepare(act).await;
        world.relay.kill_at(point);
        world.perform(act, true).await;
        if world.relay.disarm() {
            kills += 1;
            world.recover(act, point).await;
        } else {
            // The second look for what other servers did, for one, comes when it comes.
            missed += 1;
        }
    }
    let lasted = started.elapsed().as_secs();
    let _ = writeln!(
        std::io::stderr(),
        "{act:?}: {} statements, {kills} kills, {missed} statements did not come again, {lasted} s",
        points.len() / 2,
    );
    assert!(points.len() >= 8 && kills > missed, "{kills} and {missed} of {points:#?}");
}

async fn log_out(admin: SocketAddr, account: &str) -> Reply {
    let body = serde_json::json!({ "account": account }).to_string();
    let fields = [("content-type", "application/json")];
    ask_with(admin, Method::POST, "/api/auth/amazon/logout", &fields, body).await
}

impl World {
    async fn start(act: Act) -> Self {
        let database = database().expect("it was there before");
        let amazon = amazon().await;
        amazon.state().lwa.configure(|settings| {
            settings.rotation = RefreshRotation::OldDiesOnceUsed;
        });
        let directory = database.0.split_once("host=").expect("a directory").1;
        let relay = Relay::start(Path::new(directory));
        let dir = Arc::new(tempfile::tempdir().expect("a directory"));
        let toml = "[proxy]\nworkers = 1\n[token]\nforced_refresh_min_interval_secs = 0\n";
        let through = Some((relay.url(), database.1.clone()));
        let setup = Setup { toml: toml.to_owned(), database: through, ..Setup::default() };
        write_config(dir.path(), &amazon, &login_setup(&amazon, setup));
        let mut world = Self { amazon, relay, database, dir, proxy: None, shop: 0 };
        world.run_server();
        if act == Act::RotateKey {
            for account in ["acme", "globex"] {
                assert!(world.is_served(account).await);
            }
            world.proxy = None;
            world.end_leases().await;
            write_private(&world.dir.path().join("key2"), &STANDARD.encode([8; 32]));
        }
        world
    }

    /// Starts the server if none runs.
    fn run_server(&mut self) {
        if self.proxy.as_mut().is_some_and(|proxy| !proxy.has_ended()) {
            return;
        }
        let runtime = self.dir.path().to_string_lossy().into_owned();
        let env = vec![("XDG_RUNTIME_DIR".to_owned(), runtime)];
        let setup = Setup { dir: Some(self.dir.clone()), env, ..Setup::default() };
        self.proxy = Some(Proxy::with(&self.amazon, setup));
    }

    fn proxy(&self) -> &Proxy {
        self.proxy.as_ref().expect("it runs")
    }

    fn account(&self) -> String {
        format!("shop{}", self.shop)
    }

    /// Whether Amazon takes a request for `account` with a new access token.
    async fn is_served(&self, account: &str) -> bool {
        self.amazon.state().lwa.expire_access_tokens(None);
        let request = self.proxy().request(Method::GET, "/v2/profiles");
        self.proxy().send(request.header("X-Ads-Account", account)).await.status == 200
    }

    /// What has to be there before the act.
    async fn prepare(&mut self, act: Act) {
        match act {
            Act::Refresh => assert!(self.is_served("acme").await, "{}", self.proxy().log()),
            Act::Login => self.shop += 1,
            Act::Logout => {
                self.shop += 1;
                let account = self.account();
                let done = log_in(self.proxy().admin, &account, INITECH).await;
                assert_eq!(done.json()["state"], "connected", "{}", done.text);
                assert!(self.is_served(&account).await);
            }
            // The two keys change places.
            Act::RotateKey => self.edit(|toml| {
                let of = |id: &str, file: &str| {
                    let file = self.dir.path().join(file);
                    format!("{{ id = \"{id}\", secret = {{ file = {file:?} }} }}")
                };
                let (one, two) = (of("k1", "key"), of("k2", "key2"));
                let start = toml.find("keys = [").expect("keys") + "keys = [".len();
                let end = start + toml[start..].find("]\n").expect("their end");
                let is_one_first = toml[start..].starts_with(&one);
                let keys = if is_one_first { [two, one] } else { [one, two] };
                format!("{}{}{}", &toml[..start], keys.join(", "), &toml[end..])
            }),
        }
    }

    fn edit(&self, change: impl FnOnce(&str) -> String) {
        let path = self.dir.path().join("proxy.toml");
        let text = fs::read_to_string(&path).expect("a configuration");
        fs::write(&path, change(&text)).expect("written");
    }

    /// Does it, to its end or to that of the process, which comes if `is_killed`.
    async fn perform(&self, act: Act, is_killed: bool) {
        if act == Act::RotateKey {
            return self.rotate(is_killed);
        }
        let proxy = self.proxy();
        self.relay.set_victim(proxy.pid());
        let (admin, account) = (proxy.admin, self.account());
        let acting = match act {
            Act::Refresh => {
                self.amazon.state().lwa.expire_access_tokens(Some("acme"));
                let request = proxy.request(Method::GET, "/v2/profiles");
                let request = request.header("X-Ads-Account", "acme");
                tokio::spawn(async move { drop(request.send().await) })
            }
            Act::Login => tokio::spawn(async move { drop(log_in(admin, &account, INITECH).await) }),
            Act::Logout => tokio::spawn(async move { drop(log_out(admin, &account).await) }),
            Act::RotateKey => unreachable!("done above"),
        };
        // It panics where the server is gone.
        let _ = acting.await;
        let deadline = Instant::now() + AGAIN_MAX;
        while is_killed && !self.relay.has_killed() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn rotate(&self, is_killed: bool) {
        let mut command = self.command("key rotate");
        let child = command.stderr(Stdio::piped()).spawn().expect("it starts");
        self.relay.set_victim(child.id());
        let said = child.wait_with_output().expect("it ends");
        let text = String::from_utf8_lossy(&said.stderr);
        assert!(is_killed || said.status.success(), "{text}");
    }

    fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_adsproxy"));
        command.args(arguments.split(' ')).arg("--config").arg(self.dir.path().join("proxy.toml"));
        let refresh = adsproxy::sandbox::ACCOUNTS.map(|account| account.1);
        command.env("CLIENT_SECRET", CLIENT_SECRET).env_remove("XDG_RUNTIME_DIR");
        command.env("ACME_REFRESH", refresh[0]).env("GLOBEX_REFRESH", refresh[1]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    /// As a minute later: what was killed has no lease, and is no server that runs. A sign of life that
    /// it sent as it was killed comes before, and not behind.
    async fn end_leases(&self) {
        eventually("all that was sent has happened", || self.relay.is_done()).await;
        let by_hand = Session::open(&self.database.0);
        by_hand.run(&self.database.1, "UPDATE {schema}.owners SET alive_until = now()");
    }

    /// Starts again after a kill, and looks for what was there.
    async fn recover(&mut self, act: Act, point: &Point) {
        if let Some(proxy) = &mut self.proxy {
            eventually("the killed server is gone", || proxy.has_ended()).await;
        }
        self.end_leases().await;
        if act == Act::RotateKey {
            return self.finish_rotation(point).await;
        }
        self.run_server();
        let account = self.account();
        match act {
            Act::Refresh => {
                let generation = || self.amazon.state().lwa.grant("acme").expect("one").generation;
                let before = generation();
                let is_served = self.is_served("acme").await;
                assert!(is_served && generation() > before, "{point}\n{}", self.proxy().log());
            }
            Act::Login if !self.is_served(&account).await => {
                let done = log_in(self.proxy().admin, &account, INITECH).await;
                assert_eq!(done.json()["state"], "connected", "{point}: {}", done.text);
                assert!(self.is_served(&account).await, "{point}");
            }
            Act::Logout if self.is_served(&account).await => {
                let done = log_out(self.proxy().admin, &account).await;
                assert_eq!(done.status, 200, "{point}: {}", done.text);
                assert!(!self.is_served(&account).await, "{point}");
            }
            _ => {}
        }
    }

    /// Every record opens with both keys; another rotation leaves none that needs the old one.
    async fn finish_rotation(&self, point: &Point) {
        let path = self.dir.path().join("proxy.toml");
        let toml = fs::read_to_string(path).expect("a configuration");
        let is_back = toml.find("id = \"k1\"") < toml.find("id = \"k2\"");
        let (new, old) = if is_back { (("k1", 7), ("k2", 8)) } else { (("k2", 8), ("k1", 7)) };
        for account in ["acme", "globex"] {
            self.assert_opens(&[new, old], account, point).await;
        }
        self.rotate(false);
        for account in ["acme", "globex"] {
            self.assert_opens(&[new], account, point).await;
        }
    }

    async fn assert_opens(&self, keys: &[(&str, u8)], account: &str, point: &Point) {
        let keys = keys
            .iter()
            .map(|(id, byte)| EncryptionKey::new(id, Secret::new(STANDARD.encode([*byte; 32]))));
        let encryption = Encryption { keys: keys.collect() };
        let config = crate::support::postgres::config(&self.database);
        let open = move || Store::open(&config, &encryption);
        let store = tokio::task::spawn_blocking(open).await.expect("no panic");
        let store = store.unwrap_or_else(|error| panic!("{point}: {error:?}"));
        let record = store.load(&account.parse().expect("an alias")).await;
        let record = record.unwrap_or_else(|error| panic!("{point}: {error:?}")).expect("a record");
        let grant = self.amazon.state().lwa.grant(account).expect("a grant");
        assert_eq!(record.refresh_token.expose(), grant.current(), "{point}");
    }
}
