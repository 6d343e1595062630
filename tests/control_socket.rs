//! Commands beside a running server go through its control socket; the peer's user is the
//! credential. A server of another user than the command's is left as it was.

use crate::support::{
    extras,
    program::{Said, said},
    proxy::{ACME_REFRESH, Answer, GLOBEX_REFRESH, Proxy, Setup, amazon, eventually, write_config},
};
use adsproxy::sandbox::{CLIENT_ID, CLIENT_SECRET, Emulator, RefreshRotation};
use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown},
        net::UnixStream,
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

/// A user who is neither root nor the one that the tests run as.
const OTHER: u32 = 54_321;

/// A server with a store, and commands on its configuration.
struct Bench {
    proxy: Proxy,
    key: String,
    program: PathBuf,
}

impl Bench {
    fn start(amazon: &Emulator) -> Self {
        Self::start_as(amazon, None)
    }

    /// The server runs as `user`, as systemd does it: the configuration is root's, the store the
    /// server's.
    fn start_as(amazon: &Emulator, user: Option<u32>) -> Self {
        let dir = Arc::new(tempfile::tempdir().expect("a directory"));
        write_config(dir.path(), amazon, &Setup { file_store: true, ..Setup::default() });
        let path = dir.path().join("proxy.toml");
        let key_path = dir.path().join("key");
        let key = fs::read_to_string(&key_path).expect("a key");
        let text = fs::read_to_string(&path).expect("a configuration");
        let from = format!("file = {key_path:?}");
        assert!(text.contains(&from), "{text}");
        fs::write(&path, text.replace(&from, "env = \"SEAL_KEY\"")).expect("a configuration");
        let mut program = PathBuf::from(env!("CARGO_BIN_EXE_adsproxy"));
        let mut runner = Vec::new();
        if let Some(user) = user {
            fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
            // The build directory may be closed to other users.
            let copy = dir.path().join("adsproxy");
            fs::copy(&program, &copy).expect("a copy");
            program = copy;
            let store = dir.path().join("store");
            fs::create_dir(&store).expect("a store");
            fs::set_permissions(&store, fs::Permissions::from_mode(0o700)).expect("a mode");
            chown(&store, Some(user), Some(user)).expect("an owner");
            let (user, group) = (format!("--reuid={user}"), format!("--regid={user}"));
            // In place of the program in the build directory.
            runner = ["setpriv", &user, &group, "--clear-groups", "sh", "-c"]
                .map(str::to_owned)
                .to_vec();
            runner.push(format!("shift; exec {} \"$@\"", program.display()));
            runner.push("sh".to_owned());
        }
        let env = vec![("SEAL_KEY".to_owned(), key.trim().to_owned())];
        let setup = Setup { dir: Some(dir), env, runner, ..Setup::default() };
        Self { proxy: Proxy::with(amazon, setup), key, program }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.proxy.dir.path().join(name)
    }

    fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments.split_whitespace()).current_dir(self.proxy.dir.path()).env_clear();
        command
            .env("HOME", self.proxy.dir.path())
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("ADSPROXY_CONFIG", self.path("proxy.toml"))
            .env("SEAL_KEY", self.key.trim())
            .env("CLIENT_SECRET", CLIENT_SECRET)
            .env("ACME_REFRESH", ACME_REFRESH)
            .env("GLOBEX_REFRESH", GLOBEX_REFRESH)
            .stdin(std::process::Stdio::null());
        command
    }

    fn run(&self, arguments: &str) -> Said {
        said(&mut self.command(arguments))
    }

    async fn get(&self) -> Answer {
        self.proxy.get("/v2/profiles").await
    }

    /// Every file of the store, the audit log included, with its owner.
    fn owners(&self) -> BTreeMap<PathBuf, u32> {
        let mut owners = BTreeMap::new();
        collect(&self.path("store"), &mut owners);
        owners
    }
}

fn collect(path: &Path, owners: &mut BTreeMap<PathBuf, u32>) {
    for entry in fs::read_dir(path).expect("a directory").flatten() {
        // A lock file may go while this looks.
        let Ok(found) = entry.path().symlink_metadata() else { continue };
        owners.insert(entry.path(), found.uid());
        if found.is_dir() {
            collect(&entry.path(), owners);
        }
    }
}

async fn get_shop(proxy: &Proxy) -> u16 {
    let request = proxy.request(http::Method::GET, "/v2/profiles").header("X-Ads-Account", "shop");
    proxy.send(request).await.status.as_u16()
}

/// Head and body of the response to one request over the socket.
fn ask(socket: &Path, request: &str) -> String {
    ask_with_body(socket, request, "")
}

fn ask_with_body(socket: &Path, request: &str, body: &str) -> String {
    let mut stream = UnixStream::connect(socket).expect("a server");
    let request = format!("{request}\r\nHost: localhost\r\nConnection: close\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("a response");
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn the_socket_is_private_serves_every_route_and_goes_with_the_server() {
    let amazon = amazon().await;
    let mut bench = Bench::start(&amazon);
    let socket = bench.path("store/control.sock");
    let mode = socket.metadata().expect("a socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let server = ask(&socket, "GET /api/v1/server HTTP/1.1");
    assert!(server.contains(&format!("\"pid\":{}", bench.proxy.pid())), "{server}");
    assert!(ask(&socket, "GET /status HTTP/1.1").contains("\"acme\""));
    let missing = ask(&socket, "GET /nothing HTTP/1.1");
    assert!(missing.starts_with("HTTP/1.1 404") && missing.contains("\"requestId\""), "{missing}");
    // What only the socket serves is not on the admin listener.
    let answer = bench.proxy.ask_admin("/api/v1/server");
    assert!(answer.contains("not_found"), "{answer}");
    bench.proxy.signal("TERM");
    let status = bench.proxy.wait();
    assert!(status.success(), "{status}: {}", bench.proxy.log());
    assert!(!socket.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_servers_socket_is_replaced_and_a_second_server_takes_none() {
    let amazon = amazon().await;
    let mut bench = Bench::start(&amazon);
    let socket = bench.path("store/control.sock");
    let pid = format!("\"pid\":{}", bench.proxy.pid());
    let twin = Proxy::twin(&bench.proxy);
    assert!(ask(&socket, "GET /api/v1/server HTTP/1.1").contains(&pid), "the first one's");
    drop(twin);
    assert!(ask(&socket, "GET /api/v1/server HTTP/1.1").contains(&pid), "still");
    bench.proxy.kill();
    assert!(socket.exists(), "as a kill -9 leaves it");
    assert_eq!(bench.run("token acme").code, Some(0), "a dead server's is none");
    let next = Proxy::twin(&bench.proxy);
    let pid = format!("\"pid\":{}", next.pid());
    assert!(ask(&socket, "GET /api/v1/server HTTP/1.1").contains(&pid));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_takes_the_servers_token_and_the_server_records_it() {
    let amazon = amazon().await;
    let bench = Bench::start(&amazon);
    let before = bench.owners();
    let token = bench.run("token acme");
    assert_eq!(token.code, Some(0), "{token:?}");
    assert!(token.out.starts_with("Atza|"));
    assert_eq!(bench.run("token acme --json").code, Some(0));
    let curl = bench.run("curl acme /v2/profiles");
    assert_eq!(curl.code, Some(0), "{curl:?}");
    let exec = bench.run("exec acme -- true");
    assert_eq!(exec.code, Some(0), "{exec:?}");
    let counts = amazon.state().record.counts();
    assert_eq!(counts.token_calls, 1, "one token for all of them, fetched by the server");
    let unknown = bench.run("token nobody");
    assert!(unknown.code == Some(1) && unknown.err.contains("no account nobody"), "{unknown:?}");
    let audit = fs::read_to_string(bench.path("store/audit.jsonl")).expect("a log");
    for about in ["\"token\"", "\"curl\"", "\"true\""] {
        let entry = audit.lines().find(|line| line.contains(about) && line.contains("\"cli\""));
        assert!(entry.is_some(), "{about}: {audit}");
    }
    let verified = bench.run("audit verify");
    assert_eq!(verified.code, Some(0), "{verified:?}");
    assert!(bench.owners().len() <= before.len() + 3, "no files of the commands' own");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_data_plane_replays_with_the_servers_next_token() {
    let amazon = amazon().await;
    let bench = Bench::start(&amazon);
    assert_eq!(bench.run("curl acme /v2/profiles").code, Some(0));
    amazon.state().lwa.expire_access_tokens(None);
    let again = bench.run("curl acme /v2/profiles");
    assert_eq!(again.code, Some(0), "{again:?}");
    assert_eq!(amazon.state().record.counts().token_calls, 2);
    assert_eq!(bench.get().await.status, 200);
    assert_eq!(amazon.state().record.counts().token_calls, 2, "the server has it too");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_grant_is_77_over_the_socket_too() {
    let amazon = amazon().await;
    let bench = Bench::start(&amazon);
    assert!(amazon.state().lwa.revoke("acme"));
    assert_eq!(bench.run("token acme").code, Some(77));
    assert_eq!(bench.run("curl acme /v2/profiles").code, Some(77));
    assert_eq!(bench.run("exec acme -- true").code, Some(77));
}

#[tokio::test(flavor = "multi_thread")]
async fn logout_goes_through_the_server() {
    let amazon = amazon().await;
    let bench = Bench::start(&amazon);
    assert_eq!(bench.get().await.status, 200);
    let logout = bench.run("logout acme --yes");
    assert_eq!(logout.code, Some(0), "{logout:?}");
    assert_eq!(bench.get().await.status, 403, "at once, not when the store is looked at next");
}

/// A grant that Amazon knows, in a file, and that each refresh replaces.
fn rotated_grant(amazon: &Emulator, bench: &Bench) {
    let lwa = &amazon.state().lwa;
    lwa.add_grant("shop", CLIENT_ID, "Atzr|shop-grant", vec![]);
    lwa.configure(|settings| settings.rotation = RefreshRotation::OldDies);
    fs::write(bench.path("token"), "Atzr|shop-grant").expect("written");
    fs::set_permissions(bench.path("token"), fs::Permissions::from_mode(0o600)).expect("a mode");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_the_server_would_not_take_is_not_verified_and_so_not_lost() {
    let amazon = amazon().await;
    let bench = Bench::start(&amazon);
    rotated_grant(&amazon, &bench);
    // The server started with another region.
    let text = fs::read_to_string(bench.path("proxy.toml")).expect("a configuration");
    let (before, acme) = text.split_once("[accounts.acme]").expect("an account");
    let changed = acme.replacen("region = \"na\"", "region = \"eu\"", 1);
    assert_ne!(changed, acme);
    let changed = format!("{before}[accounts.acme]{changed}");
    fs::write(bench.path("proxy.toml"), changed).expect("written");
    let calls = amazon.state().record.counts().token_calls;
    let add = "--refresh-token-file token --verify";
    let refused = bench.run(&format!("account add acme --region eu --replace {add}"));
    assert!(refused.code == Some(1) && refused.err.contains("started with"), "{refused:?}");
    assert_eq!(amazon.state().record.counts().token_calls, calls, "nothing was asked");
    // So it is still good.
    let added = bench.run(&format!("account add shop --region na {add}"));
    assert_eq!(added.code, Some(0), "{added:?}");
    assert_eq!(get_shop(&bench.proxy).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_was_replaced_and_not_stored_is_reported_and_not_printed() {
    let amazon = amazon().await;
    let bench = Bench::start(&amazon);
    rotated_grant(&amazon, &bench);
    let log = bench.path("store/audit.jsonl");
    if log.exists() {
        fs::rename(&log, bench.path("aside")).expect("renamed");
    }
    fs::create_dir(&log).expect("made");
    let add = "account add shop --region na --refresh-token-file token";
    let failed = bench.run(&format!("{add} --verify"));
    assert_eq!(failed.code, Some(1), "{failed:?}");
    for part in ["replaced the refresh token", "`adsproxy login shop`", "audit log"] {
        assert!(failed.err.contains(part), "{failed:?}");
    }
    assert!(!format!("{failed:?}").contains("Atzr|"), "{failed:?}");
    // A token that was not tried is as it was.
    let failed = bench.run(&format!("{add} --no-verify"));
    assert!(failed.code == Some(1) && !failed.err.contains("replaced"), "{failed:?}");
    assert!(failed.err.contains("audit log"), "{failed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn grants_that_commands_bring_are_put_in_place_by_the_server() {
    let amazon = amazon().await;
    let bench = Bench::start(&amazon);
    let shop = async || get_shop(&bench.proxy).await;
    fs::write(bench.path("token"), ACME_REFRESH).expect("written");
    fs::set_permissions(bench.path("token"), fs::Permissions::from_mode(0o600)).expect("a mode");
    let add = "account add shop --region na --refresh-token-file token";
    assert_eq!(bench.run(add).code, Some(0));
    assert_eq!(shop().await, 200, "at once, not when the store is looked at next");
    let again = bench.run(add);
    assert_eq!(again.code, Some(1));
    assert!(again.err.contains("--replace"), "{again:?}");
    assert_eq!(bench.run("account remove shop --yes").code, Some(0));
    assert_eq!(shop().await, 404);
    fs::write(
        bench.path("table.csv"),
        format!("account,refresh_token,region\nshop,{ACME_REFRESH},na\n"),
    )
    .expect("written");
    assert_eq!(bench.run("import table.csv").code, Some(0));

    // The entries are the server's, and name the user who asked.
    let entries = bench.run("audit tail --account shop --json");
    let entries = entries.out.lines().map(|line| serde_json::from_str(line).expect("JSON"));
    let entries: Vec<serde_json::Value> = entries.collect();
    let user = rustix::process::geteuid().as_raw();
    for action in ["account.add", "account.remove"] {
        let of_action: Vec<_> = entries.iter().filter(|entry| entry["action"] == action).collect();
        assert!(of_action.len() >= 2, "{entries:?}");
        for entry in of_action {
            assert_eq!((&entry["actor"], &entry["uid"]), (&"cli".into(), &user.into()));
            assert!(entry["request_id"].is_string(), "{entry}");
        }
    }

    let proxy = bench.proxy.restart();
    assert_eq!(get_shop(&proxy).await, 200, "it is in the store");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_refuses_a_grant_that_is_none() {
    let amazon = amazon().await;
    let bench = Bench::start(&amazon);
    let socket = bench.path("store/control.sock");
    for (account, body) in [
        ("shop", "refresh_token=hello%20there&region=na&replace=always"),
        ("shop", "refresh_token=Atzr%7Cx&region=moon&replace=always"),
        ("shop", "refresh_token=Atzr%7Cx&replace=always"),
        ("acme", "refresh_token=Atzr%7Cx&region=fe&replace=always"),
        ("no%20alias", "refresh_token=Atzr%7Cx&region=na&replace=always"),
    ] {
        let head = format!(
            "POST /api/v1/accounts/{account}/grant HTTP/1.1\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}",
            body.len()
        );
        let said = ask_with_body(&socket, &head, body);
        assert!(said.starts_with("HTTP/1.1 400 "), "{body}: {said}");
        assert!(!said.contains("Atzr"), "{said}");
    }
    assert_eq!(bench.get().await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn root_works_beside_a_server_of_another_user_and_leaves_it_as_it_was() {
    if !extras::root() {
        return;
    }
    let amazon = amazon().await;
    let bench = Bench::start_as(&amazon, Some(OTHER));
    assert_eq!(bench.get().await.status, 200);
    let token = tempfile::NamedTempFile::new().expect("a private file");
    fs::write(token.path(), "Atzr|another").expect("written");
    let add =
        format!("account add shop --region na --refresh-token-file {}", token.path().display());
    let table = tempfile::NamedTempFile::new().expect("a private file");
    let rows = "account,refresh_token,region\nshop,Atzr|another,na\nstall,Atzr|third,eu\n";
    fs::write(table.path(), rows).expect("written");
    let import = format!("import --from csv {}", table.path().display());
    for arguments in [
        &add,
        &format!("{add} --replace"),
        "account remove shop --yes",
        &import,
        &format!("{import} --replace --json"),
        "account remove shop --yes",
        "logout stall --yes",
        "status",
        "token acme",
        "token globex --json",
        "curl acme /v2/profiles",
        "exec acme -- true",
        "account list",
        "account show acme",
        "doctor",
        "hooks list",
        "hooks resend --all",
        "key status",
        "key rotate",
        "key retire gone",
        "audit tail",
        "audit verify",
        "check-config",
    ] {
        let said = bench.run(arguments);
        assert_eq!(said.code, Some(0), "{arguments}: {said:?}");
        for (path, owner) in bench.owners() {
            assert_eq!(owner, OTHER, "after {arguments}: {}", path.display());
        }
        assert_eq!(bench.get().await.status, 200, "after {arguments}");
    }
    let Bench { proxy, .. } = bench;
    let proxy = proxy.restart();
    assert_eq!(proxy.get("/v2/profiles").await.status, 200, "after a restart");
    assert!(proxy.ask_admin("/status").contains("\"globex\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_user_than_the_servers_and_root_is_refused() {
    if !extras::root() {
        return;
    }
    let amazon = amazon().await;
    let bench = Bench::start(&amazon);
    let socket = bench.path("store/control.sock");
    // Even where the modes would let that user in.
    for (path, mode) in [("", 0o755), ("store", 0o755), ("store/control.sock", 0o666)] {
        let mode = fs::Permissions::from_mode(mode);
        fs::set_permissions(bench.path(path), mode).expect("a mode");
    }
    let script = "import socket,sys\n\
        s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n\
        s.sendall(b'GET /status HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n')\n\
        sys.stdout.buffer.write(s.recv(4096))";
    let mut python = Command::new("python3");
    python.args(["-c", script]).arg(&socket).uid(OTHER).gid(OTHER);
    let said = said(&mut python);
    assert!(!said.out.contains("HTTP/1.1"), "{said:?}");
    eventually("a line in the log", || bench.proxy.log().contains("was refused")).await;
    assert!(ask(&socket, "GET /status HTTP/1.1").contains("\"acme\""), "its own user is served");
}
