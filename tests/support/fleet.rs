//! Several servers on one database, each on an address of its own, that are killed and started again
//! while requests come.

use super::{
    login::free_address,
    proxy::{Proxy, Setup, write_private},
};
use adsproxy::sandbox::{CLIENT_ID, Country, Emulator, EmulatorOptions, Profile};
use std::{
    fmt::Write as _,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A response must be there within this time, however long a refresh takes.
const TIMEOUT: Duration = Duration::from_secs(45);

pub struct Fleet {
    pub amazon: Emulator,
    pub replicas: Vec<Replica>,
    /// The aliases of all accounts.
    pub accounts: Vec<String>,
    /// When a replica was killed.
    pub kills: Mutex<Vec<Instant>>,
    /// What the killed ones have logged.
    past: Mutex<String>,
    /// Schema and key; the store can be opened with them.
    pub database: (String, String),
}

/// A server, or the place of one that was killed.
pub struct Replica {
    pub addr: SocketAddr,
    dir: Arc<TempDir>,
    env: Vec<(String, String)>,
    proxy: Mutex<Option<Proxy>>,
    /// Odd while it is down.
    life: AtomicU64,
}

/// How a request ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Response {
    Status(u16, String),
    /// There was none, or a part of one.
    Lost(String),
}

impl Fleet {
    /// So many replicas on the database at `url`, with so many accounts, which the configuration
    /// seeds. They notify each other over `listen_url`, if there is one. `toml` goes into the
    /// configuration of each.
    pub async fn start(
        url: &str,
        listen_url: Option<&str>,
        replicas: usize,
        accounts: usize,
        toml: &str,
    ) -> Self {
        let amazon = Emulator::start(EmulatorOptions::default()).await.expect("it starts");
        let accounts: Vec<_> = (0..accounts).map(|number| format!("fleet{number:03}")).collect();
        let database = (url.to_owned(), "fleet".to_owned());
        let mut config = toml.to_owned();
        let seeds = tempfile::tempdir().expect("a directory").keep();
        for (alias, id) in accounts.iter().zip(1_000_000_000..) {
            let refresh = format!("Atzr|refresh-token-of-{alias}");
            let profile = Profile::seller(id, Country::Us, alias);
            amazon.state().lwa.add_grant(alias, CLIENT_ID, &refresh, vec![profile]);
            let seed = seeds.join(alias);
            write_private(&seed, &refresh);
            writeln!(config, "[accounts.{alias}]\nregion = \"na\"").expect("memory");
            writeln!(config, "refresh_token = {{ file = {seed:?} }}").expect("memory");
        }
        let mut fleet = Self {
            amazon,
            replicas: Vec::new(),
            accounts,
            kills: Mutex::default(),
            past: Mutex::default(),
            database: database.clone(),
        };
        let starts = (0..replicas).map(|_| {
            let addr = free_address();
            let setup = Setup {
                toml: config.clone(),
                listen: Some(format!("[\"{addr}\"]")),
                database: Some(database.clone()),
                ..Setup::default()
            };
            let (amazon, dir) =
                (&fleet.amazon, Arc::new(tempfile::tempdir().expect("a directory")));
            super::proxy::write_config(dir.path(), amazon, &setup);
            // Commands are not wanted, and no other server's socket either.
            let runtime = dir.path().to_string_lossy().into_owned();
            let mut env = vec![("XDG_RUNTIME_DIR".to_owned(), runtime)];
            env.extend(listen_url.map(|url| ("ADSPROXY_STORE__LISTEN_URL".to_owned(), url.into())));
            let (life, proxy) = (AtomicU64::new(1), Mutex::default());
            Replica { addr, dir, env, proxy, life }
        });
        fleet.replicas = starts.collect();
        // All at once: they make the tables and seed the accounts at the same time.
        std::thread::scope(|scope| {
            for replica in &fleet.replicas {
                scope.spawn(|| replica.start(&fleet.amazon));
            }
        });
        fleet
    }

    /// Ends a replica as a power cut would.
    pub fn kill(&self, replica: usize) {
        let replica = &self.replicas[replica];
        let mut proxy = replica.proxy.lock().expect("no panic");
        if let Some(mut proxy) = proxy.take() {
            replica.life.fetch_add(1, SeqCst);
            self.kills.lock().expect("no panic").push(Instant::now());
            proxy.kill();
            self.past.lock().expect("no panic").push_str(&logged(&proxy));
        }
    }

    /// Starts a replica that was killed; tries again while it ends by itself, as a supervisor does.
    pub fn revive(&self, replica: usize) {
        self.replicas[replica].start(&self.amazon);
    }

    /// A request for `account` at the replica `first` or, where that was killed, at another one.
    /// Says how often it went to another one.
    pub async fn request(&self, first: usize, account: &str) -> (Response, usize) {
        let mut moved = 0;
        loop {
            let replica = &self.replicas[(first + moved) % self.replicas.len()];
            let life = replica.life.load(SeqCst);
            if life.is_multiple_of(2) {
                let response = replica.get(account).await;
                let is_dead = replica.life.load(SeqCst) != life;
                if !(matches!(response, Response::Lost(_)) && is_dead) {
                    return (response, moved);
                }
            }
            moved += 1;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// What the replicas have logged as a warning or an error.
    pub fn complaints(&self) -> String {
        let is_bad = |line: &str| line.contains("\"WARN\"") || line.contains("\"ERROR\"");
        self.logged(|line| is_bad(line) && !line.contains("environment variable"))
    }

    /// What the replicas have logged of `account`, its requests aside.
    pub fn history(&self, account: &str) -> String {
        let name = format!("\"account\":\"{account}\"");
        self.logged(|line| line.contains(&name) && !line.contains("adsproxy::access"))
    }

    fn logged(&self, is_wanted: impl Fn(&str) -> bool) -> String {
        let mut all = self.past.lock().expect("no panic").clone();
        for replica in &self.replicas {
            all += &replica.with(logged).unwrap_or_default();
        }
        let mut lines: Vec<_> = all.lines().filter(|line| is_wanted(line)).collect();
        lines.sort_unstable();
        lines.join("\n")
    }
}

/// The lines of a log, which begin with a time.
fn logged(proxy: &Proxy) -> String {
    let port = proxy.addr.port();
    proxy.log().lines().map(|line| format!("{line} (port {port})\n")).collect()
}

impl Replica {
    fn start(&self, amazon: &Emulator) {
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut slot = self.proxy.lock().expect("no panic");
        while slot.is_none() {
            let (dir, env) = (Some(self.dir.clone()), self.env.clone());
            let setup = Setup { dir, env, ..Setup::default() };
            match Proxy::try_with(amazon, setup) {
                Ok(proxy) => *slot = Some(proxy),
                Err(said) => {
                    assert!(Instant::now() < deadline, "the replica ended:\n{said}");
                    std::thread::sleep(Duration::from_millis(200));
                }
            }
        }
        self.life.fetch_add(1, SeqCst);
    }

    /// What `look` sees of the running server; none if it was killed.
    pub fn with<T>(&self, look: impl FnOnce(&Proxy) -> T) -> Option<T> {
        self.proxy.lock().expect("no panic").as_ref().map(look)
    }

    /// A request for `account` on a connection of its own.
    pub async fn get(&self, account: &str) -> Response {
        match tokio::time::timeout(TIMEOUT, get(self.addr, account)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => Response::Lost(error.to_string()),
            Err(_) => Response::Lost(format!("none within {TIMEOUT:?}")),
        }
    }
}

async fn get(addr: SocketAddr, account: &str) -> std::io::Result<Response> {
    let mut stream = tokio::net::TcpStream::connect(addr).await?;
    let head = format!(
        "GET /v2/profiles HTTP/1.1\r\nHost: localhost\r\nX-Ads-Account: {account}\r\n\
         Connection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    let status = text.split(' ').nth(1).and_then(|code| code.parse().ok());
    let is_whole = text.split_once("\r\n\r\n").is_some_and(|(_, body)| !body.is_empty());
    Ok(match status {
        Some(status) if is_whole => Response::Status(status, text),
        _ => Response::Lost(format!("a part: {text:?}")),
    })
}
