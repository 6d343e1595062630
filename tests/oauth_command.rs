//! `adsproxy login` and `adsproxy logout`, as a person or a script runs them.

use crate::support::{
    callers::OPERATOR,
    login::{INITECH, INITECH_PROFILE, at_amazon, come_back_in_browser, login_setup},
    program::Said,
    proxy::{
        ACME_PROFILE, ACME_REFRESH, GLOBEX_REFRESH, Proxy, Setup, amazon, assert_no_secret,
        eventually, write_config,
    },
};
use adsproxy::sandbox::{CLIENT_SECRET, Emulator};
use http::Method;
use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
};
use tempfile::TempDir;

/// A configuration with an Amazon in front of it, and no server.
struct Alone {
    amazon: Emulator,
    dir: TempDir,
    admin: SocketAddr,
}

impl Alone {
    async fn new() -> Self {
        Self::with(Setup { file_store: true, ..Setup::default() }).await
    }

    async fn with(setup: Setup) -> Self {
        let amazon = amazon().await;
        let dir = tempfile::tempdir().expect("a directory");
        let setup = login_setup(&amazon, setup);
        write_config(dir.path(), &amazon, &setup);
        let admin = setup.admin.expect("an address");
        Self { amazon, dir, admin }
    }

    fn command(&self, arguments: &str) -> Command {
        command(self.dir.path(), arguments)
    }
}

fn command(dir: &Path, arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_adsproxy"));
    command
        .args(arguments.split_whitespace())
        .arg("--config")
        .arg(dir.join("proxy.toml"))
        .env_clear()
        .env("HOME", dir)
        .env("PATH", "/usr/bin:/bin")
        .env("ADSPROXY_KEY", &OPERATOR.key)
        .env("CLIENT_SECRET", CLIENT_SECRET)
        .env("ACME_REFRESH", ACME_REFRESH)
        .env("GLOBEX_REFRESH", GLOBEX_REFRESH)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// A command under way whose words are read as they come.
struct Running {
    child: Child,
    said: Arc<Mutex<String>>,
    reader: thread::JoinHandle<()>,
}

impl Running {
    fn new(command: &mut Command) -> Self {
        let mut child = command.spawn().expect("it runs");
        let said = Arc::new(Mutex::new(String::new()));
        let (sink, stderr) = (said.clone(), child.stderr.take().expect("piped"));
        let reader = thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut said = sink.lock().expect("no panic");
                said.push_str(&line);
                said.push('\n');
            }
        });
        Self { child, said, reader }
    }

    fn said(&self) -> String {
        self.said.lock().expect("no panic").clone()
    }

    /// The address that it wants to be opened.
    async fn url(&self) -> String {
        let find = |said: &str| {
            let line = said.lines().find(|line| line.starts_with("  http"));
            line.map(|line| line.trim().to_owned())
        };
        eventually("it names an address", || find(&self.said()).is_some()).await;
        find(&self.said()).expect("found")
    }

    fn type_in(&mut self, line: &str) {
        let mut input = self.child.stdin.take().expect("piped");
        writeln!(input, "{line}").expect("it reads");
    }

    fn end(self) -> Said {
        let output = self.child.wait_with_output().expect("it ends");
        self.reader.join().expect("no panic");
        let err = self.said.lock().expect("no panic").clone();
        let out = String::from_utf8(output.stdout).expect("text");
        assert_no_secret("what the command says", format!("{out}{err}").as_bytes());
        Said { code: output.status.code(), out, err }
    }
}

/// A browser made of requests: opens the address, consents as `user`, comes back.
async fn browse(listens: SocketAddr, url: &str, user: &str) -> String {
    let path: http::Uri = url.parse().expect("an address");
    let path = path.path_and_query().expect("a path").as_str();
    let fields = [("accept", "text/html")];
    let sent = crate::support::login::ask(listens, Method::GET, path, &fields).await;
    assert_eq!(sent.status, 303, "{}", sent.text);
    let back = at_amazon(sent.location(), &format!("account={user}")).await;
    come_back_in_browser(listens, &back, &sent.cookie()).await.text
}

#[tokio::test(flavor = "multi_thread")]
async fn login_listens_by_itself_and_opens_the_browser_that_the_person_prefers() {
    let alone = Alone::new().await;
    let (script, note) = (alone.dir.path().join("browser"), alone.dir.path().join("opened"));
    fs::write(&script, format!("#!/bin/sh\necho \"$1\" > {}\n", note.display())).expect("written");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("its mode");
    let mut command = alone.command("login initech --region fe");
    let running = Running::new(command.env("BROWSER", &script));
    let url = running.url().await;
    eventually("the browser is opened", || {
        fs::read_to_string(&note).is_ok_and(|opened| opened.trim() == url)
    })
    .await;
    assert!(running.said().contains("Allowed Return URLs"), "{}", running.said());
    let page = browse(alone.admin, &url, INITECH).await;
    assert!(page.contains("Profiles this login gives access to"), "{page}");
    let said = running.end();
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.out.starts_with("account initech connected: region fe, application default\n"));
    assert!(said.out.contains(&INITECH_PROFILE.to_string()) && said.out.contains("Initech"));
    // It is in the store, and nothing listens any more.
    assert!(alone.dir.path().join("store/accounts/initech.json").exists());
    assert!(std::net::TcpStream::connect(alone.admin).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn login_uses_the_server_that_runs() {
    let amazon = amazon().await;
    let setup = Setup { file_store: true, ..Setup::default() };
    let proxy = crate::support::login::proxy(&amazon, setup);
    let running = Running::new(&mut command(proxy.dir.path(), "login initech --no-browser"));
    let url = running.url().await;
    browse(proxy.admin, &url, INITECH).await;
    let said = running.end();
    assert_eq!(said.code, Some(0), "{said:?}");
    served(&proxy, INITECH, INITECH_PROFILE).await;
    assert!(proxy.log().contains("account connected"), "it was the server that did it");
}

/// What the account sees, soon.
async fn served(proxy: &Proxy, account: &str, profile: i64) {
    for _ in 0..300 {
        let request = proxy.request(Method::GET, "/v2/profiles").header("X-Ads-Account", account);
        if proxy.send(request).await.text().contains(&profile.to_string()) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("{account} never saw {profile}");
}

#[tokio::test(flavor = "multi_thread")]
async fn login_reports_a_denial_and_a_failing_amazon() {
    let alone = Alone::new().await;
    for (choice, code, words) in [
        ("deny=1", 1, "access was denied on Amazon's page"),
        ("account=initech", 69, "cannot be reached"),
    ] {
        if code == 69 {
            use adsproxy::sandbox::{LwaFault, Times};
            alone.amazon.state().lwa.faults.add(LwaFault::ServerError, Times::Forever);
        }
        let running = Running::new(&mut alone.command("login initech --no-browser"));
        let url: http::Uri = running.url().await.parse().expect("an address");
        let path = url.path_and_query().expect("a path").as_str();
        let fields = [("accept", "text/html")];
        let sent = crate::support::login::ask(alone.admin, Method::GET, path, &fields).await;
        let back = at_amazon(sent.location(), choice).await;
        come_back_in_browser(alone.admin, &back, &sent.cookie()).await;
        let said = running.end();
        assert_eq!(said.code, Some(code), "{said:?}");
        assert!(said.err.contains(words) && said.out.is_empty(), "{said:?}");
    }
}

/// Runs a paste login with what Amazon answered `user`, made into what is pasted.
async fn paste(
    alone: &Alone,
    arguments: &str,
    user: &str,
    pasted: impl Fn(&str) -> String,
) -> Said {
    let mut command = alone.command(arguments);
    let mut running = Running::new(command.stdin(Stdio::piped()));
    let url = running.url().await;
    let back = at_amazon(&url, &format!("account={user}")).await;
    running.type_in(&pasted(&format!("http://localhost:{}{back}", alone.admin.port())));
    running.end()
}

fn code_of(address: &str) -> String {
    let code = address.split("code=").nth(1).and_then(|rest| rest.split('&').next());
    code.expect("a code").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn login_takes_a_pasted_address_or_a_bare_code() {
    let alone = Alone::new().await;
    let said = paste(&alone, "login one --paste --region eu", INITECH, str::to_owned).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.out.starts_with("account one connected: region eu"), "{said:?}");
    let said = paste(&alone, "login two --paste", INITECH, code_of).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    let elsewhere = |address: &str| address.replace("state=", "state=x");
    let said = paste(&alone, "login three --paste", INITECH, elsewhere).await;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("another login"), "{said:?}");
    let nothing = alone.command("login three --paste").output().expect("it runs");
    assert_eq!(nothing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nothing.stderr).contains("nothing was pasted"));
    let both = alone.command("login three --paste --no-browser").output().expect("it runs");
    assert_eq!(both.status.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_code_is_asked_for_again() {
    let alone = Alone::new().await;
    let again = |address: &str| format!("garbage\nAtza|0123456789abcdefghij\n{address}");
    let said = paste(&alone, "login one --paste", INITECH, again).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    let said = paste(&alone, "login two --paste", INITECH, |_| "garbage".to_owned()).await;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("this is no code"), "{said:?}");
}

/// A program that is no adsproxy, has the admin port, and would send a browser to `url`.
fn impostor(listener: std::net::TcpListener, url: &'static str) {
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut head = [0; 4096];
            let length = std::io::Read::read(&mut stream, &mut head).unwrap_or(0);
            let is_status = String::from_utf8_lossy(&head[..length]).starts_with("GET /status");
            let body = match is_status {
                true => serde_json::json!({ "version": "0", "accounts": [] }),
                false => serde_json::json!({
                    "url": url, "auth_url": url, "login": "x", "state": "s", "expires_in": 1,
                }),
            };
            let body = body.to_string();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            let _ = stream.write_all((head + &body).as_bytes());
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn login_shows_no_address_of_a_program_that_has_the_admin_port() {
    for url in ["https://evil.test/ap/oa?x=\u{1b}[2J", "file:///etc/passwd", "javascript:alert(1)"]
    {
        let memory = Alone::with(Setup::default()).await;
        impostor(std::net::TcpListener::bind(memory.admin).expect("the port"), url);
        for arguments in ["login acme --no-browser", "login acme --paste"] {
            let said: Said = memory.command(arguments).output().expect("it runs").into();
            assert_eq!(said.code, Some(1), "{said:?}");
            assert!(said.err.contains("leads neither to"), "{said:?}");
            assert!(!said.err.contains("open this address"), "{said:?}");
            assert!(!said.err.contains('\u{1b}'), "{said:?}");
        }
    }
    // With a store of its own, the command does not even ask.
    let alone = Alone::new().await;
    impostor(std::net::TcpListener::bind(alone.admin).expect("the port"), "https://evil.test/");
    let said: Said = alone.command("login acme --no-browser").output().expect("it runs").into();
    assert!(said.code == Some(1) && said.err.contains("another program listens"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn login_replaces_another_users_account_only_with_a_yes() {
    let alone = Alone::new().await;
    let first = paste(&alone, "login acme --paste", "acme", str::to_owned).await;
    assert_eq!(first.code, Some(0), "{first:?}");
    let said = paste(&alone, "login acme --paste", INITECH, str::to_owned).await;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("say --yes to replace it"), "{said:?}");
    for id in [ACME_PROFILE, INITECH_PROFILE] {
        assert!(said.err.contains(&id.to_string()), "{said:?}");
    }
    let said = paste(&alone, "login acme --paste --yes", INITECH, str::to_owned).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.out.starts_with("account acme connected anew"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn login_in_the_browser_waits_for_the_browsers_yes_where_there_is_no_terminal() {
    let alone = Alone::new().await;
    paste(&alone, "login acme --paste", "acme", str::to_owned).await;
    let running = Running::new(&mut alone.command("login acme --no-browser"));
    let url = running.url().await;
    let page = browse(alone.admin, &url, INITECH).await;
    let token =
        page.split("name=\"token\" value=\"").nth(1).and_then(|rest| rest.split('"').next());
    eventually("it says where to answer", || running.said().contains("--yes")).await;
    let body = format!("token={}&answer=yes", token.expect("a token"));
    let path = "/api/auth/amazon/confirm";
    let answered =
        crate::support::login::ask_with(alone.admin, Method::POST, path, &[], body).await;
    assert_eq!(answered.status, 200, "{}", answered.text);
    let said = running.end();
    assert!(said.code == Some(0) && said.out.contains("connected anew"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn login_says_what_is_in_its_way() {
    let alone = Alone::new().await;
    let taken = std::net::TcpListener::bind(alone.admin).expect("the port");
    let said: Said = alone.command("login acme --no-browser").output().expect("it runs").into();
    assert!(said.code == Some(1) && said.err.contains("--paste"), "{said:?}");
    drop(taken);
    let said: Said = alone.command("login acme --application x").output().expect("it runs").into();
    assert!(said.err.contains("configured: default"), "{said:?}");
    let said: Said =
        alone.command("login acme --no-browser --region fe").output().expect("it runs").into();
    assert!(said.err.contains("says region na, and wins"), "{said:?}");
    let memory = Alone::with(Setup::default()).await;
    let said: Said = memory.command("login acme --no-browser").output().expect("it runs").into();
    assert!(said.err.contains("store.kind = \"memory\""), "{said:?}");
    let said: Said = memory.command("logout acme --yes").output().expect("it runs").into();
    assert_eq!(said.code, Some(69), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn logout_forgets_within_two_seconds_in_the_running_server() {
    let amazon = amazon().await;
    let setup = Setup { file_store: true, ..Setup::default() };
    let proxy = crate::support::login::proxy(&amazon, setup);
    crate::support::login::log_in(proxy.admin, INITECH, INITECH).await;
    served(&proxy, INITECH, INITECH_PROFILE).await;
    for (account, note) in [(INITECH, false), ("acme", true)] {
        let mut command = command(proxy.dir.path(), &format!("logout {account} --yes"));
        let said: Said = command.output().expect("it runs").into();
        let began = std::time::Instant::now();
        assert_eq!(said.code, Some(0), "{said:?}");
        assert!(said.out.contains("https://amazon.com/ap/adam"), "{said:?}");
        assert_eq!(said.err.contains("still in the configuration"), note, "{said:?}");
        loop {
            let request =
                proxy.request(Method::GET, "/v2/profiles").header("X-Ads-Account", account);
            if proxy.send(request).await.status != 200 {
                break;
            }
            assert!(began.elapsed().as_secs_f64() < 2.0, "{account} is still served");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }
    let said: Said =
        command(proxy.dir.path(), "logout nobody --yes").output().expect("it runs").into();
    assert!(said.code == Some(1) && said.err.contains("there is no account nobody"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn logout_asks_the_server_where_it_alone_has_the_grant() {
    let amazon = amazon().await;
    let proxy = crate::support::login::proxy(&amazon, Setup::default());
    served(&proxy, "acme", ACME_PROFILE).await;
    let said: Said =
        command(proxy.dir.path(), "logout acme --yes").output().expect("it runs").into();
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.err.contains("at the next start"), "{said:?}");
    let answer = proxy.get("/v2/profiles").await;
    assert_eq!(answer.error(), Some("reauthorization_required"));
}
