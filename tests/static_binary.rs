//! The statically linked program in an empty root directory, as in an image from nothing: no library,
//! no CA bundle, no resolver's settings but a name server, no place to write to.

use crate::support::{
    extras,
    proxy::{ACME_REFRESH, Answer, judge, upstream},
    secure::{secure_amazon, secure_url},
};
use adsproxy::sandbox::{CLIENT_ID, CLIENT_SECRET, Emulator};
use std::{
    fs::{self, Permissions},
    io::{BufRead, BufReader},
    net::{SocketAddr, UdpSocket},
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
};
use tempfile::TempDir;

/// The user of the image.
const USER: u32 = 65532;

/// A name server that leads every name to this machine.
struct NameServer {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<u8>>>,
}

impl NameServer {
    fn start() -> Self {
        // The port is fixed, so each test has an address of its own.
        let [a, b] = (std::process::id() as u16).to_be_bytes();
        let bind = |last| UdpSocket::bind(SocketAddr::from(([127, a, b, last], 53))).ok();
        let socket = (1..=254).find_map(bind).expect("an address");
        let address = socket.local_addr().expect("bound");
        let asked = Arc::<Mutex<Vec<u8>>>::default();
        let record = Arc::clone(&asked);
        thread::spawn(move || {
            let mut query = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut query) {
                let query = &query[..length];
                record.lock().expect("no panic").extend_from_slice(query);
                let _ = socket.send_to(&reply(query), from);
            }
        });
        Self { address, asked }
    }
}

/// 127.0.0.1 for a query of type A, nothing for others.
fn reply(query: &[u8]) -> Vec<u8> {
    let name = query[12..].iter().position(|byte| *byte == 0).expect("a name");
    let question = &query[12..12 + name + 5];
    let is_a = question[name + 1..name + 3] == [0, 1];
    let mut reply = query[..2].to_vec();
    reply.extend([0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
    reply.extend(question);
    if is_a {
        reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
    }
    reply
}

/// A root directory with `program` and what a pod mounts.
fn root(program: &Path, amazon: &Emulator, ca: Option<&Path>, names: &NameServer) -> TempDir {
    let root = tempfile::tempdir().expect("a directory");
    let url = secure_url(amazon);
    let roots = if ca.is_some() { "[tls]\nca_file = \"/ca.pem\"\n" } else { "" };
    let mut toml = format!(
        "[listen]\nproxy = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n[store]\nkind = \"memory\"\n{roots}\
         [lwa]\nclient_id = {CLIENT_ID:?}\nclient_secret = {{ file = \"/client\" }}\n\
         token_url = \"{url}/auth/o2/token\"\nfallback_token_urls = []\n\
         [accounts.acme]\nregion = \"na\"\nrefresh_token = {{ file = \"/acme\" }}\n"
    );
    toml.push_str(&upstream(&url, ""));
    let mount = |name: &str, text: &str, mode: u32| {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        fs::write(&path, text).expect("written");
        chown(&path, Some(0), Some(USER)).expect("an owner");
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("a mode");
    };
    mount("proxy.toml", &toml, 0o440);
    mount("client", CLIENT_SECRET, 0o440);
    mount("acme", ACME_REFRESH, 0o440);
    mount("etc/resolv.conf", &format!("nameserver {}\n", names.address.ip()), 0o444);
    if let Some(ca) = ca {
        mount("ca.pem", &fs::read_to_string(ca).expect("PEM"), 0o444);
    }
    fs::copy(program, root.path().join("adsproxy")).expect("copied");
    fs::set_permissions(root.path(), Permissions::from_mode(0o555)).expect("a mode");
    root
}

/// The program as another user in `root`, which cannot be written to.
fn run_in(root: &Path) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-ec"]).arg(
        "mount --bind \"$0\" \"$0\"; mount -o remount,bind,ro \"$0\"
         exec chroot --userspec=65532:65532 --groups= \"$0\" /adsproxy serve --config /proxy.toml --log-format json",
    );
    command.arg(root).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

struct Running {
    child: Child,
    proxy: SocketAddr,
    log: Option<thread::JoinHandle<String>>,
}

impl Running {
    fn start(root: &Path) -> Self {
        let mut child = run_in(root).spawn().expect("it runs");
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let mut log = String::new();
        let proxy = loop {
            let line = lines.next().unwrap_or_else(|| panic!("it ended:\n{log}")).expect("text");
            log += &(line.clone() + "\n");
            if line.contains(r#""message":"listening""#) {
                let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
                break line["proxy"].as_str().expect("an address").parse().expect("an address");
            }
        };
        let log = thread::spawn(move || {
            lines.map_while(Result::ok).fold(log, |log, line| log + &line + "\n")
        });
        Self { child, proxy, log: Some(log) }
    }

    async fn ask(&self, method: http::Method, path: &str, body: Vec<u8>) -> Answer {
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let request = client.request(method, format!("http://{}{path}", self.proxy));
        let request = request.header("X-Ads-Account", "acme").body(body);
        let response = request.send().await.expect("a response");
        let (status, headers) = (response.status(), response.headers().clone());
        let answer =
            Answer { status, headers, body: response.bytes().await.expect("a body").to_vec() };
        judge(&answer);
        answer
    }

    /// Ends it; what it logged.
    fn stop(mut self) -> String {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill").success());
        let status = self.child.wait().expect("waited");
        let log = self.log.take().expect("it runs").join().expect("no panic");
        assert_eq!(status.code(), Some(0), "{log}");
        log
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn program() -> Option<std::path::PathBuf> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    extras::static_program().filter(|_| extras::root() && extras::required("unshare"))
}

#[tokio::test(flavor = "multi_thread")]
async fn it_serves_from_an_empty_read_only_root_and_finds_names() {
    let Some(program) = program() else { return };
    let (amazon, ca) = secure_amazon(true).await;
    let names = NameServer::start();
    let root = root(&program, &amazon, Some(ca.path()), &names);
    let running = Running::start(root.path());
    let answer = running.ask(http::Method::GET, "/v2/profiles", Vec::new()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    // More than is kept in memory: with no place for the rest, it is sent all the same.
    let answer = running.ask(http::Method::POST, "/_sink", vec![b'x'; 3_000_000]).await;
    assert_eq!(answer.json()["length"], 3_000_000);
    let asked = names.asked.lock().expect("no panic").clone();
    assert!(asked.windows(9).any(|part| part == b"localhost"), "{asked:?}");
    running.stop();
}

/// The roots that are built in vouch for none of ours.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_file_of_our_authority_nothing_is_trusted() {
    let Some(program) = program() else { return };
    let (amazon, _ca) = secure_amazon(true).await;
    let names = NameServer::start();
    let root = root(&program, &amazon, None, &names);
    let running = Running::start(root.path());
    let answer = running.ask(http::Method::GET, "/v2/profiles", Vec::new()).await;
    assert_eq!(answer.error(), Some("token_unavailable"), "{}", answer.text());
    let log = running.stop();
    assert!(log.contains("UnknownIssuer"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_needs_libraries_does_not_start_there() {
    if program().is_none() {
        return;
    }
    let (amazon, ca) = secure_amazon(true).await;
    let dynamic = Path::new(env!("CARGO_BIN_EXE_adsproxy"));
    let root = root(dynamic, &amazon, Some(ca.path()), &NameServer::start());
    let output = run_in(root.path()).output().expect("it runs");
    assert_eq!(output.status.code(), Some(127), "{output:?}");
}
