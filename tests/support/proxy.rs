//! The real binary as a child process, and a client that judges every answer.

use super::{callers::OPERATOR, load::TEST_TIMEOUT, stranger};
use adsproxy::sandbox::{CLIENT_ID, CLIENT_SECRET, Emulator};
use http::{HeaderMap, Method, StatusCode};
use std::{
    fmt::Write as _,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// The refresh token that seeds `acme`; no output may ever hold it.
pub const ACME_REFRESH: &str = adsproxy::sandbox::ACCOUNTS[0].1;
/// The refresh token that seeds `globex`.
pub const GLOBEX_REFRESH: &str = adsproxy::sandbox::ACCOUNTS[1].1;
/// A profile of `acme`.
pub const ACME_PROFILE: i64 = adsproxy::sandbox::ACCOUNTS[0].2;

/// How a proxy is to be configured beside the emulator it talks to.
#[derive(Default)]
pub struct Setup {
    /// Tables and keys appended to the configuration.
    pub toml: String,
    /// Replaces `listen.proxy`.
    pub listen: Option<String>,
    /// Replaces the upstream of all regions.
    pub upstream: Option<String>,
    /// Replaces the token endpoint.
    pub token_url: Option<String>,
    /// Replaces `listen.admin`.
    pub admin: Option<SocketAddr>,
    /// Further keys of `[lwa]`.
    pub lwa: String,
    /// `file` with a key, instead of `memory`.
    pub file_store: bool,
    /// `postgres` with a key: the URL and the schema.
    pub database: Option<(String, String)>,
    /// Further environment.
    pub env: Vec<(String, String)>,
    /// A directory with a configuration's key and store to use instead of new ones.
    pub dir: Option<Arc<TempDir>>,
    /// No operator may use the admin listener.
    pub without_operator: bool,
    /// What the program is run by: a command that ends in running its arguments.
    pub runner: Vec<String>,
}

/// A running adsproxy. Ends, and checks its output for secrets, when dropped.
pub struct Proxy {
    child: Option<Child>,
    /// The first TCP address of the data plane.
    pub addr: SocketAddr,
    /// The admin listener.
    pub admin: SocketAddr,
    log: Arc<Mutex<String>>,
    reader: Option<thread::JoinHandle<()>>,
    /// Configuration, key and store; survives a restart.
    pub dir: Arc<TempDir>,
    /// What its environment has beside the secrets of every configuration here.
    pub env: Vec<(String, String)>,
    runner: Vec<String>,
    client: reqwest::Client,
}

/// An answer, read whole.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    /// The code of an answer that is adsproxy's own.
    pub fn error(&self) -> Option<&str> {
        self.headers.get("x-ads-proxy-error").map(|code| code.to_str().expect("ASCII"))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.text()))
    }
}

impl Proxy {
    /// Starts in front of `amazon` with defaults: accounts `acme` and `globex`, memory store.
    pub fn start(amazon: &Emulator) -> Self {
        Self::with(amazon, Setup::default())
    }

    /// Starts with further configuration. Keys must not repeat those written here.
    pub fn with(amazon: &Emulator, setup: Setup) -> Self {
        Self::try_with(amazon, setup).unwrap_or_else(|said| panic!("the proxy ended:\n{said}"))
    }

    /// As `with`, for a proxy that may end before it listens; what it said then.
    pub fn try_with(amazon: &Emulator, setup: Setup) -> Result<Self, String> {
        let new = || Arc::new(tempfile::tempdir().expect("a temporary directory"));
        let dir = setup.dir.clone().unwrap_or_else(new);
        if !dir.path().join("proxy.toml").exists() {
            write_config(dir.path(), amazon, &setup);
        }
        Self::launch(dir, setup.env, setup.runner)
    }

    /// Starts again on the same configuration and store.
    pub fn restart(mut self) -> Self {
        self.stop();
        Self::launched(self.dir.clone(), self.env.clone(), self.runner.clone())
    }

    /// Whether the process has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        let running =
            self.child.as_mut().is_some_and(|child| child.try_wait().expect("a child").is_none());
        if !running {
            self.child = None;
        }
        !running
    }

    /// Another process on the configuration and store of `other`.
    pub fn twin(other: &Self) -> Self {
        Self::launched(other.dir.clone(), other.env.clone(), other.runner.clone())
    }

    /// A second process on the same store, with an admin port of its own.
    pub fn twin_of_login(&self) -> Self {
        let mut env = self.env.clone();
        env.push(("ADSPROXY_LISTEN__ADMIN".to_owned(), "127.0.0.1:0".to_owned()));
        Self::launched(self.dir.clone(), env, self.runner.clone())
    }

    /// Changes the environment of the next start.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.env.push((name.to_owned(), value.to_owned()));
    }

    /// Ends it as a power cut would.
    pub fn kill(&mut self) {
        self.signal("KILL");
        self.wait();
    }

    /// Runs a proxy that must not start; gives back its exit code and all it said.
    pub fn refused(amazon: &Emulator, setup: &Setup) -> (i32, String) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        write_config(dir.path(), amazon, setup);
        // That there is a caller would let it listen beyond loopback.
        let path = dir.path().join("proxy.toml");
        let text = fs::read_to_string(&path).expect("a configuration");
        fs::write(&path, text.replace(&OPERATOR.toml, "")).expect("written");
        let mut child = command(dir.path(), &setup.env, &[]).spawn().expect("the binary runs");
        let deadline = Instant::now() + TEST_TIMEOUT;
        let status = loop {
            if let Some(status) = child.try_wait().expect("a child of ours") {
                break status;
            }
            if Instant::now() > deadline {
                child.kill().expect("killed");
                panic!("it started");
            }
            thread::sleep(Duration::from_millis(10));
        };
        let mut said = String::new();
        child.stderr.take().expect("piped").read_to_string(&mut said).expect("text");
        said.push_str(&fs::read_to_string(dir.path().join("stdout")).expect("text"));
        assert_no_secret("the output of a failed start", said.as_bytes());
        (status.code().expect("no signal"), said)
    }

    fn launched(dir: Arc<TempDir>, env: Vec<(String, String)>, runner: Vec<String>) -> Self {
        Self::launch(dir, env, runner).unwrap_or_else(|said| panic!("the proxy ended:\n{said}"))
    }

    fn launch(
        dir: Arc<TempDir>,
        env: Vec<(String, String)>,
        runner: Vec<String>,
    ) -> Result<Self, String> {
        let mut child = command(dir.path(), &env, &runner).spawn().expect("the binary runs");
        let log = Arc::new(Mutex::new(String::new()));
        let stderr = child.stderr.take().expect("piped");
        let sink = log.clone();
        let reader = thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut log = sink.lock().expect("no reader panics");
                log.push_str(&line);
                log.push('\n');
            }
        });
        let Some((addr, admin)) = addresses(&mut child, &log) else {
            reader.join().expect("the reader ends with the pipe");
            return Err(log.lock().expect("no reader panics").clone());
        };
        // Fails when another test was first, which is fine.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .expect("a client");
        if let Ok(config) = fs::read_to_string(dir.path().join("proxy.toml"))
            && config.contains(stranger::table())
        {
            stranger::meet(addr);
        }
        let (child, reader) = (Some(child), Some(reader));
        Ok(Self { child, addr, admin, log, reader, dir, env, runner, client })
    }

    /// The URL of its database and the schema there, if its store is one.
    pub fn database(&self) -> Option<(String, String)> {
        let url = fs::read_to_string(self.dir.path().join("url")).ok()?;
        let config = fs::read_to_string(self.dir.path().join("proxy.toml")).ok()?;
        let schema = config.lines().find_map(|line| line.strip_prefix("schema = "))?;
        Some((url, schema.trim_matches('"').to_owned()))
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("running").id()
    }

    /// CPU that the process has used, in ticks of the kernel (10 ms).
    pub fn cpu(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("a process");
        let fields: Vec<&str> =
            stat.rsplit(')').next().expect("fields").split_whitespace().collect();
        [11, 12].map(|at| fields[at].parse::<u64>().expect("ticks")).iter().sum()
    }

    /// Every address of the data plane, as logged.
    pub fn listening(&self) -> Vec<String> {
        let log = self.log();
        let line = log.lines().find(|line| line.contains(r#""message":"listening""#));
        let line: serde_json::Value = serde_json::from_str(line.expect("a line")).expect("JSON");
        line["proxy"].as_str().expect("addresses").split(", ").map(str::to_owned).collect()
    }

    /// What was logged so far.
    pub fn log(&self) -> String {
        self.log.lock().expect("no reader panics").clone()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    /// `GET` for `acme`.
    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.client.get(self.url(path)).header("X-Ads-Account", "acme")).await
    }

    /// `POST` for `acme`.
    pub async fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> Answer {
        let request = self.client.post(self.url(path)).header("X-Ads-Account", "acme");
        self.send(request.body(body)).await
    }

    /// A request of the caller's making; no account is named.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, self.url(path))
    }

    /// Sends and judges the answer.
    pub async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        self.try_send(request).await.expect("an answer")
    }

    /// As `send`, for requests that may get no answer.
    pub async fn try_send(&self, request: reqwest::RequestBuilder) -> reqwest::Result<Answer> {
        let (client, request) = request.build_split();
        let request = request?;
        let stranger = stranger::send(&request).await;
        let response = client.execute(request).await?;
        let (status, headers) = (response.status(), response.headers().clone());
        let answer = Answer { status, headers, body: response.bytes().await?.to_vec() };
        judge(&answer);
        stranger.judge(&answer);
        Ok(answer)
    }

    /// Writes `bytes` on a new connection and reads until it is closed or silent for `patience`.
    pub fn raw(&self, bytes: &[u8], patience: Duration) -> Vec<u8> {
        stranger::send_raw(self.addr, bytes);
        let mut stream = TcpStream::connect(self.addr).expect("a connection");
        stream.set_read_timeout(Some(patience)).expect("a timeout");
        // The proxy may refuse and close before everything is written.
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        answer
    }

    /// What the admin listener answers, head and body; nothing if it does not listen any more.
    pub fn ask_admin(&self, path: &str) -> String {
        let key = &OPERATOR.key;
        ask(self.admin, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nX-Ads-Key: {key}"))
    }

    /// The metrics page.
    pub fn metrics(&self) -> String {
        self.ask_admin("/metrics")
    }

    /// One sample, for example `adsproxy_replays_total{outcome="succeeded"}`; 0 if absent.
    pub fn metric(&self, sample: &str) -> f64 {
        let page = self.metrics();
        let line = page
            .lines()
            .find(|line| line.strip_prefix(sample).is_some_and(|rest| rest.starts_with(' ')));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0.0)
    }

    /// Sends a signal by name: `TERM`, `KILL`, `STOP`, `CONT`, `HUP`.
    pub fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        let sent = Command::new("kill").args([&format!("-{name}"), &pid]).status();
        assert!(sent.expect("kill runs").success());
    }

    /// Waits for the end of the process.
    pub fn wait(&mut self) -> ExitStatus {
        let status = self.child.as_mut().expect("running").wait().expect("waited");
        self.child = None;
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the reader ends with the pipe");
        }
        status
    }

    /// Resident memory, bytes.
    pub fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("status");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
        let kib: u64 = line.split_whitespace().nth(1).expect("a number").parse().expect("KiB");
        kib * 1024
    }

    fn stop(&mut self) {
        if self.child.is_some() {
            self.signal("TERM");
            self.wait();
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        if !thread::panicking() {
            let log = self.log();
            assert_no_secret("the log", log.as_bytes());
            assert!(!log.contains("panicked at"), "the proxy panicked:\n{log}");
        }
    }
}

/// Every answer: a request id, nothing of ours that is not allowed, no secret.
pub fn judge(answer: &Answer) {
    let id = answer.headers.get("x-ads-proxy-request-id").expect("a request id");
    assert!((1..=128).contains(&id.len()));
    for (name, value) in &answer.headers {
        assert_no_secret(name.as_str(), value.as_bytes());
        let ours = name.as_str().starts_with("x-ads-");
        let allowed = ["x-ads-proxy-request-id", "x-ads-proxy-error"].contains(&name.as_str());
        assert!(!ours || allowed, "{name}");
    }
    assert_no_secret("the body", &answer.body);
    if let Some(code) = answer.error() {
        assert_ne!(answer.status, StatusCode::UNAUTHORIZED);
        assert!(answer.headers["proxy-status"].to_str().expect("ASCII").starts_with("adsproxy; "));
        if code == "upstream_unauthorized" {
            // Amazon's body, in whatever form.
            return assert_eq!(answer.status, StatusCode::FORBIDDEN);
        }
        if code == "caller_rejected" && answer.status == StatusCode::OK {
            // An error of one call to the MCP server, in the form of that protocol.
            return assert_eq!(answer.headers["content-type"], "application/json");
        }
        assert_eq!(answer.headers["content-type"], "application/problem+json");
        let body = answer.json();
        for field in ["code", "details", "message", "requestId", "detail", "title", "status"] {
            assert!(body.get(field).is_some(), "{field} is missing in {body}");
        }
        assert_eq!(body["code"], code);
    }
}

/// Fails if `bytes` hold a client secret, a refresh token or a real access token, in plain,
/// percent-encoded or base64 form.
pub fn assert_no_secret(place: &str, bytes: &[u8]) {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let text = String::from_utf8_lossy(bytes);
    for secret in [CLIENT_SECRET, ACME_REFRESH, GLOBEX_REFRESH, &OPERATOR.key] {
        let encoded = STANDARD.encode(secret);
        let forms = [secret.to_owned(), secret.replace('|', "%7C"), encoded];
        for form in forms {
            assert!(!text.contains(&form), "a secret is in {place}: {text}");
        }
    }
    // The emulator's tokens are long; a placeholder is not.
    let starts = ["Atza|", "Atza%7C", "Atzr|", "Atzr%7C"];
    for (at, _) in starts.iter().flat_map(|start| text.match_indices(start)) {
        let token: String = text[at + 5..]
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric() || "-_.~".contains(*c))
            .collect();
        assert!(token.len() < 100, "a token is in {place}");
    }
}

/// Sends a request's head (its last line end is added) and reads until the connection ends;
/// nothing if nobody listens.
pub fn ask(address: SocketAddr, head: &str) -> String {
    let Ok(mut stream) = TcpStream::connect(address) else { return String::new() };
    let _ = stream.write_all(format!("{head}\r\nConnection: close\r\n\r\n").as_bytes());
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

/// As `ask`, of the Unix socket at `path`.
pub fn ask_unix(path: &Path, head: &str) -> String {
    let mut stream = UnixStream::connect(path).expect("a server");
    let head = format!("{head}\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("a response");
    answer
}

/// Polls until `condition` holds.
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + TEST_TIMEOUT;
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The real binary, not running yet. Nothing in its surroundings protects it: what it makes too
/// open shows, and a crash would leave a core if it allowed one.
fn command(dir: &Path, env: &[(String, String)], runner: &[String]) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", "umask 0; ulimit -c unlimited; exec \"$@\"", "sh"])
        .args(runner)
        .arg(env!("CARGO_BIN_EXE_adsproxy"))
        .args(["serve", "--log-format", "json", "--config"])
        .arg(dir.join("proxy.toml"))
        .env_remove("HTTPS_PROXY")
        .env("CLIENT_SECRET", CLIENT_SECRET)
        .env("ACME_REFRESH", ACME_REFRESH)
        .env("GLOBEX_REFRESH", GLOBEX_REFRESH)
        .env("RUST_BACKTRACE", "1")
        .envs(env.iter().cloned())
        .stdin(Stdio::null())
        .stdout(fs::File::create(dir.join("stdout")).expect("a file"))
        .stderr(Stdio::piped());
    command
}

/// Reads the addresses from the line that says `listening`; none if it ended before.
fn addresses(child: &mut Child, log: &Mutex<String>) -> Option<(SocketAddr, SocketAddr)> {
    let deadline = Instant::now() + TEST_TIMEOUT;
    loop {
        let text = log.lock().expect("no reader panics").clone();
        let listening = text.lines().find(|line| line.contains(r#""message":"listening""#));
        if let Some(line) = listening {
            let line: serde_json::Value = serde_json::from_str(line).expect("a JSON line");
            let proxy = line["proxy"].as_str().expect("addresses");
            let proxy = proxy.split(", ").find_map(|address| address.parse().ok());
            let admin = line["admin"].as_str().and_then(|address| address.parse().ok());
            let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
            return Some((proxy.unwrap_or(nowhere), admin.unwrap_or(nowhere)));
        }
        if child.try_wait().expect("waited").is_some() {
            return None;
        }
        assert!(Instant::now() < deadline, "the proxy does not listen:\n{text}");
        thread::sleep(Duration::from_millis(2));
    }
}

pub fn write_config(dir: &Path, amazon: &Emulator, setup: &Setup) {
    let here = format!("http://{}", amazon.addr());
    let upstream = setup.upstream.as_deref().unwrap_or(&here);
    let token_url = setup.token_url.clone().unwrap_or_else(|| format!("{here}/auth/o2/token"));
    let listen = setup.listen.as_deref().unwrap_or(r#"["127.0.0.1:0"]"#);
    let mut toml = String::new();
    let store = if let Some((url, schema)) = &setup.database {
        let path = dir.join("url");
        write_private(&path, url);
        let key = key_table(dir);
        format!(
            "[store]\nkind = \"postgres\"\nurl = {{ file = {path:?} }}\nschema = {schema:?}\n{key}"
        )
    } else if setup.file_store {
        let (store, key) = (dir.join("store"), key_table(dir));
        format!("[store]\nkind = \"file\"\npath = {store:?}\n{key}")
    } else {
        "[store]\nkind = \"memory\"\n".to_owned()
    };
    let accounts = [("acme", "na", "ACME_REFRESH"), ("globex", "eu", "GLOBEX_REFRESH")];
    // `setup.toml` comes first so that it may begin with bare keys of `[listen]`.
    let admin = setup.admin.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)));
    write!(toml, "[listen]\nproxy = {listen}\nadmin = \"{admin}\"\n").expect("memory");
    write!(toml, "{}\n{store}", setup.toml).expect("memory");
    write!(
        toml,
        "[lwa]\nclient_id = \"{CLIENT_ID}\"\nclient_secret = {{ env = \"CLIENT_SECRET\" }}\n\
         token_url = \"{token_url}\"\n{}",
        setup.lwa,
    )
    .expect("memory");
    if !setup.toml.contains("[upstream]") {
        toml.push_str("[upstream]\n");
        for host in ["na", "eu", "fe", "mcp_na", "mcp_eu", "mcp_fe"] {
            writeln!(toml, "{host} = \"{upstream}\"").expect("memory");
        }
    }
    for (alias, region, env) in accounts {
        writeln!(
            toml,
            "[accounts.{alias}]\nregion = \"{region}\"\nrefresh_token = {{ env = \"{env}\" }}"
        )
        .expect("memory");
    }
    toml.push_str(stranger::table());
    if !setup.without_operator {
        toml.push_str(&OPERATOR.toml);
    }
    fs::write(dir.join("proxy.toml"), toml).expect("the configuration is written");
}

/// The six hosts of `[upstream]`, all `url`, with further keys of that table behind them.
pub fn upstream(url: &str, keys: &str) -> String {
    let hosts = ["na", "eu", "fe", "mcp_na", "mcp_eu", "mcp_fe"];
    let hosts: String = hosts.iter().map(|host| format!("{host} = \"{url}\"\n")).collect();
    format!("[upstream]\n{hosts}{keys}\n")
}

fn key_table(dir: &Path) -> String {
    let key = dir.join("key");
    write_private(&key, &base64_key());
    format!("[encryption]\nkeys = [{{ id = \"k1\", secret = {{ file = {key:?} }} }}]\n")
}

fn base64_key() -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    STANDARD.encode([7; 32])
}

/// Writes a file that only its owner can read.
pub fn write_private(path: &Path, text: &str) {
    fs::write(path, text).expect("a file is written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("a mode is set");
}

/// An emulator with the demo accounts.
pub async fn amazon() -> Emulator {
    Emulator::start(adsproxy::sandbox::EmulatorOptions::default())
        .await
        .expect("the emulator starts")
}
