//! The database is away: at the start, and while tokens end.

use crate::support::{
    commands::Commands,
    postgres::Cluster,
    program::said,
    proxy::{Proxy, Setup, amazon, ask_unix, eventually, write_private},
    secure::localhost,
};
use adsproxy::sandbox::{Emulator, RefreshRotation};
use reqwest::Certificate;
use std::{
    fs::{self, File},
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener},
    os::unix::net::UnixStream,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

const LIFETIME: Duration = Duration::from_secs(4);
const SERVE: &str = "serve --log-format json";
const LONG: Duration = Duration::from_secs(3600);

fn setup(cluster: &Cluster) -> Setup {
    let toml = "[proxy]\nworkers = 1\n[token]\nrefresh_buffer_secs = 1\nbackground_lead_secs = 0\n";
    let database = Some((cluster.url(), "adsproxy".to_owned()));
    Setup { toml: toml.to_owned(), database, ..Setup::default() }
}

fn free_address() -> SocketAddr {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
    free.expect("a free port")
}

/// Status, code and `Retry-After` of a response; none if nothing listens.
async fn get(address: SocketAddr, path: &str) -> Option<(u16, String, Option<u64>)> {
    // Fails when another test was first, which is fine.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let request = client.get(format!("http://{address}{path}")).header("X-Ads-Account", "acme");
    let response = request.send().await.ok()?;
    let field = |name: &str| Some(response.headers().get(name)?.to_str().expect("text").to_owned());
    let retry_after = field("retry-after").map(|it| it.parse().expect("seconds"));
    Some((response.status().as_u16(), field("x-ads-proxy-error").unwrap_or_default(), retry_after))
}

async fn until(address: SocketAddr, path: &str, status: u16) {
    let started = Instant::now();
    while get(address, path).await.is_none_or(|it| it.0 != status) {
        assert!(started.elapsed() < Duration::from_secs(60), "{path}: no {status}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn token_calls(amazon: &Emulator) -> u64 {
    amazon.state().record.counts().token_calls
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_starts_before_its_database_comes_up_by_itself() {
    let Some(mut cluster) = Cluster::start() else { return };
    cluster.stop();
    let (amazon, proxy, admin) = (amazon().await, free_address(), free_address());
    let commands = Commands::new(
        &amazon,
        &Setup { listen: Some(format!("[\"{proxy}\"]")), admin: Some(admin), ..setup(&cluster) },
    );
    let mut server = Server::start(&commands);
    until(admin, "/livez", 200).await;
    for probe in ["/startupz", "/readyz"] {
        assert_eq!(get(admin, probe).await.expect("a response").0, 503, "{probe}");
    }
    let (status, code, retry_after) = get(proxy, "/v2/profiles").await.expect("a response");
    assert_eq!((status, &*code), (503, "token_unavailable"));
    assert!(retry_after.is_some_and(|seconds| seconds > 0));
    assert_eq!(token_calls(&amazon), 0);
    cluster.run();
    until(admin, "/readyz", 200).await;
    until(admin, "/startupz", 200).await;
    assert_eq!(get(proxy, "/v2/profiles").await.expect("a response").0, 200);
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_waits_for_its_database_ends_by_a_signal() {
    let Some(mut cluster) = Cluster::start() else { return };
    cluster.stop();
    let admin = free_address();
    let commands = Commands::new(&amazon().await, &Setup { admin: Some(admin), ..setup(&cluster) });
    let mut server = Server::start(&commands);
    until(admin, "/livez", 200).await;
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_waits_speaks_tls_on_the_port_that_it_keeps_and_tells_commands_what_it_waits_for()
 {
    let Some(mut cluster) = Cluster::start() else { return };
    cluster.stop();
    let amazon = amazon().await;
    let commands = Commands::new(&amazon, &setup(&cluster));
    let (issuer, leaf, leaf_key) = localhost();
    write_private(&commands.path("tls.crt"), &leaf.pem());
    write_private(&commands.path("tls.key"), &leaf_key.serialize_pem());
    let toml = fs::read_to_string(commands.path("proxy.toml")).expect("a configuration");
    let files = "[listen.tls]\ncert_file = \"tls.crt\"\nkey_file = \"tls.key\"\n";
    fs::write(commands.path("proxy.toml"), format!("{toml}{files}")).expect("written");
    let mut server = Server::spawn(&commands, by_socket(&commands, SERVE));
    let address = server.address(&commands).await;
    // Fails when another test was first, which is fine.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let authority = Certificate::from_pem(issuer.pem().as_bytes()).expect("a certificate");
    let client = reqwest::Client::builder().no_proxy().resolve("localhost", address);
    let client = client.tls_certs_only([authority]).build().expect("a client");
    let url = format!("https://localhost:{}/v2/profiles", address.port());
    let get = || client.get(&url).header("X-Ads-Account", "acme").send();
    for _ in 0..3 {
        let response = get().await.expect("a response");
        assert_eq!((response.status().as_u16(), response.version()), (503, http::Version::HTTP_2));
        assert_eq!(response.headers()["x-ads-proxy-error"], "token_unavailable");
        assert_eq!(response.headers()["retry-after"], "2");
    }
    for (command, code, part) in
        [("status", 1, "waits for the database"), ("wait --timeout 300ms", 69, "responds with 503")]
    {
        let said = said(&mut by_socket(&commands, command));
        assert_eq!(said.code, Some(code), "{command}: {}", said.err);
        assert!(said.err.contains(part), "{command}: {}", said.err);
    }
    cluster.run();
    let waited = said(&mut by_socket(&commands, "wait"));
    assert_eq!(waited.code, Some(0), "{}", waited.err);
    assert_eq!(get().await.expect("a response").status(), 200, "on the same port");
    assert_eq!(said(&mut by_socket(&commands, "status")).code, Some(0));
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_waits_ends_by_a_request_to_its_control_socket() {
    let Some(mut cluster) = Cluster::start() else { return };
    cluster.stop();
    let commands = Commands::new(&amazon().await, &setup(&cluster));
    let mut server = Server::spawn(&commands, by_socket(&commands, SERVE));
    server.address(&commands).await;
    let socket = commands.path("control.sock");
    assert!(ask_unix(&socket, "GET /quitquitquit HTTP/1.1").starts_with("HTTP/1.1 503 "));
    assert!(server.0.try_wait().expect("a child").is_none());
    assert!(ask_unix(&socket, "POST /quitquitquit HTTP/1.1").starts_with("HTTP/1.1 200 "));
    assert_eq!(server.0.wait().expect("it ends").code(), Some(0));
    assert!(!socket.exists());
}

/// A server, or a command that finds it by its control socket: there is no admin listener.
fn by_socket(commands: &Commands, arguments: &str) -> Command {
    let mut command = commands.command(arguments);
    command.env("XDG_RUNTIME_DIR", commands.path("")).env("ADSPROXY_LISTEN__ADMIN", "off");
    command
}

/// A server that need not come up.
struct Server(Child);

impl Server {
    fn start(commands: &Commands) -> Self {
        Self::spawn(commands, commands.command(SERVE))
    }

    fn spawn(commands: &Commands, mut command: Command) -> Self {
        command.stdout(Stdio::null()).stderr(File::create(commands.path("log")).expect("a file"));
        Self(command.spawn().expect("it starts"))
    }

    /// Where it listens while it waits: the data plane is bound first, the control socket last.
    async fn address(&mut self, commands: &Commands) -> SocketAddr {
        let log = || fs::read_to_string(commands.path("log")).expect("a log");
        eventually("it waits", || log().contains("commands reach this server")).await;
        let log = log();
        let line = log.lines().find(|line| line.contains("listening, not ready"));
        let line: serde_json::Value = serde_json::from_str(line.expect("a line")).expect("JSON");
        line["address"].as_str().expect("an address").parse().expect("one of TCP")
    }

    fn stop(&mut self) {
        let pid = self.0.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(sent.expect("kill runs").success());
        assert_eq!(self.0.wait().expect("it ends").code(), Some(0));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has ended if the test went well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_that_cannot_be_used_ends_the_start() {
    let amazon = amazon().await;
    let commands = |url: &str| {
        let database = Some((url.to_owned(), "adsproxy".to_owned()));
        Commands::new(&amazon, &Setup { database, ..Setup::default() })
    };
    for url in ["nonsense", "postgres://db.example/x?sslmode=disable", "postgres://h/x?a=1"] {
        let said = commands(url).run("serve");
        assert_eq!(said.code, Some(78), "{url}: {}", said.err);
        assert!(said.err.contains("store.url"), "{url}: {}", said.err);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_whose_refresh_token_stays_is_refreshed_without_the_database() {
    let Some(mut cluster) = Cluster::start() else { return };
    let amazon = amazon().await;
    let lwa = &amazon.state().lwa;
    lwa.configure(|settings| settings.token_lifetime = LIFETIME);
    let proxy = Proxy::with(&amazon, setup(&cluster));
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    let issued = Instant::now();
    cluster.stop();
    assert_eq!(proxy.get("/v2/profiles").await.status, 200, "the token lives");
    assert_eq!(token_calls(&amazon), 1);
    lwa.configure(|settings| settings.token_lifetime = LONG);
    tokio::time::sleep(LIFETIME.saturating_sub(issued.elapsed())).await;
    let answer = proxy.get("/v2/profiles").await;
    assert_eq!(answer.status, 200, "{}\n{}", answer.text(), proxy.log());
    assert_eq!(token_calls(&amazon), 2);
    assert!(proxy.ask_admin("/readyz?verbose").contains("[!] store degraded"));
    cluster.run();
    eventually("what is new is saved", || {
        proxy.ask_admin("/readyz?verbose").contains("[+] store ok")
    })
    .await;
    let proxy = proxy.restart();
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    assert_eq!(token_calls(&amazon), 2, "the token of the outage is in the store");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_rotates_waits_for_the_database_and_is_not_lost() {
    let Some(mut cluster) = Cluster::start() else { return };
    let amazon = amazon().await;
    let lwa = &amazon.state().lwa;
    lwa.configure(|settings| {
        settings.token_lifetime = LIFETIME;
        settings.rotation = RefreshRotation::OldDiesOnceUsed;
    });
    let proxy = Proxy::with(&amazon, setup(&cluster));
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    let issued = Instant::now();
    cluster.stop();
    assert_eq!(proxy.get("/v2/profiles").await.status, 200, "the token lives");
    tokio::time::sleep(LIFETIME.saturating_sub(issued.elapsed())).await;
    for _ in 0..3 {
        let answer = proxy.get("/v2/profiles").await;
        assert_eq!((answer.status.as_u16(), answer.error()), (503, Some("token_unavailable")));
        let seconds = answer.headers["retry-after"].to_str().expect("text").parse::<u64>();
        assert!((1..=8).contains(&seconds.expect("seconds")));
    }
    assert_eq!(token_calls(&amazon), 1, "nothing was asked for that could not be kept");
    lwa.configure(|settings| settings.token_lifetime = LONG);
    cluster.run();
    let started = Instant::now();
    while proxy.get("/v2/profiles").await.status != 200 {
        assert!(started.elapsed() < Duration::from_secs(30), "{}", proxy.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(token_calls(&amazon), 2);
}

/// The audit log as the admin listener shows it, the oldest entry first, without those of starts.
fn refreshes(proxy: &Proxy) -> Vec<serde_json::Value> {
    let page = proxy.ask_admin("/api/v1/audit?limit=100");
    let body = page.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let page: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    let entries = page["entries"].as_array().cloned().unwrap_or_default();
    let of_tokens = entries.into_iter().filter(|entry| entry["action"] != "server.start");
    of_tokens.filter(|entry| entry["actor"] == "server").rev().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_of_the_audit_log_wait_for_the_database_and_none_is_lost() {
    let Some(mut cluster) = Cluster::start() else { return };
    let amazon = amazon().await;
    let lwa = &amazon.state().lwa;
    lwa.configure(|settings| {
        settings.token_lifetime = LIFETIME;
        settings.rotation = RefreshRotation::Off;
    });
    let proxy = Proxy::with(&amazon, setup(&cluster));
    for calls in 1..=2 {
        lwa.expire_access_tokens(Some("acme"));
        let started = Instant::now();
        while token_calls(&amazon) < calls {
            assert!(started.elapsed() < Duration::from_secs(30), "{}", proxy.log());
            proxy.get("/v2/profiles").await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    eventually("both are on record", || refreshes(&proxy).len() >= 2).await;
    let before = refreshes(&proxy).len();
    cluster.stop();
    let calls = token_calls(&amazon);
    let started = Instant::now();
    while token_calls(&amazon) < calls + 2 {
        assert!(started.elapsed() < Duration::from_secs(60), "{}", proxy.log());
        proxy.get("/v2/profiles").await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    lwa.configure(|settings| settings.token_lifetime = LONG);
    cluster.run();
    let late = || {
        let all = refreshes(&proxy);
        all.iter().filter(|entry| entry["occurred"].is_string()).count()
    };
    eventually("what happened meanwhile is on record", || late() >= 2).await;
    let all = refreshes(&proxy);
    assert!(all[..before].iter().all(|entry| entry["occurred"].is_null()), "{all:#?}");
    assert!(all.iter().all(|entry| entry["action"] != "audit.lost"), "{all:#?}");
    let verified = Commands::of(&proxy).run("audit verify");
    assert_eq!(verified.code, Some(0), "{verified:?}");
}

/// A way to the database of `cluster` that breaks for a moment once the list of accounts has been read, if
/// it is armed.
fn fragile_way(cluster: &Cluster) -> (SocketAddr, Arc<AtomicBool>) {
    const LIST: &[u8] = b"SELECT key, version, expires_at_ms";
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let (armed, listed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let down = Arc::new(Mutex::new(Instant::now()));
    let (directory, is_armed) = (cluster.directory.clone(), armed.clone());
    thread::spawn(move || {
        for mut near in listener.incoming().map_while(Result::ok) {
            if *down.lock().expect("no panic") > Instant::now() {
                continue;
            }
            let far = UnixStream::connect(directory.join(".s.PGSQL.5432"));
            let Ok(mut far) = far else { continue };
            let mut back = (far.try_clone().expect("a copy"), near.try_clone().expect("a copy"));
            thread::spawn(move || drop(std::io::copy(&mut back.0, &mut back.1)));
            let (armed, listed, down) = (is_armed.clone(), listed.clone(), down.clone());
            thread::spawn(move || {
                let mut buffer = [0; 65_536];
                while let Ok(length @ 1..) = near.read(&mut buffer) {
                    let has =
                        |words: &[u8]| buffer[..length].windows(words.len()).any(|it| it == words);
                    let is_of_accounts = armed.load(SeqCst) && has(b"accounts");
                    if is_of_accounts && listed.load(SeqCst) {
                        armed.store(false, SeqCst);
                        *down.lock().expect("no panic") = Instant::now() + Duration::from_secs(2);
                    }
                    listed.fetch_or(is_of_accounts && has(LIST), SeqCst);
                    if *down.lock().expect("no panic") > Instant::now() {
                        break;
                    }
                    if far.write_all(&buffer[..length]).is_err() {
                        break;
                    }
                }
                let _ = (far.shutdown(Shutdown::Both), near.shutdown(Shutdown::Both));
            });
        }
    });
    (address, armed)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_goes_away_during_the_start_makes_no_account_useless() {
    let Some(cluster) = Cluster::start() else { return };
    let (address, armed) = fragile_way(&cluster);
    let amazon = amazon().await;
    let url = format!("host=127.0.0.1 port={} user=adsproxy dbname=postgres", address.port());
    let database = Some((url, "adsproxy".to_owned()));
    let proxy = Proxy::with(&amazon, Setup { database, ..setup(&cluster) });
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    armed.store(true, SeqCst);
    let proxy = proxy.restart();
    assert!(!armed.load(SeqCst), "the way was broken");
    let response = proxy.get("/v2/profiles").await;
    assert_eq!(response.status, 200, "{}\n{}", response.text(), proxy.log());
}
