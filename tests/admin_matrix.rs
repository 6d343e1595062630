//! Every route of the table, and the data plane, for every kind of caller and account: who is served,
//! who is refused, and that what is another's looks like what is not there.

use crate::support::{
    callers::{OPERATOR, TestCaller},
    extras,
    proxy::{Proxy, Setup, amazon, ask, eventually},
};
use adsproxy::testing::ROUTES;
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::process::CommandExt,
    process::Command,
    time::{Duration, Instant},
};

/// Tenant `a` has `shop`, tenant `b` has `other`.
const ACCOUNTS: &str = r#"
[accounts."a~shop"]
region = "na"
refresh_token = { env = "ACME_REFRESH" }
[accounts."b~other"]
region = "eu"
refresh_token = { env = "GLOBEX_REFRESH" }
"#;

struct World {
    proxy: Proxy,
    data: TestCaller,
    reader: TestCaller,
    tenant: TestCaller,
    wrong: TestCaller,
}

impl World {
    fn start(amazon: &adsproxy::sandbox::Emulator) -> Self {
        let [data, reader, tenant, wrong] = [
            ("data", ""),
            ("reader", "read_only = true"),
            ("of-a", "tenant = \"a\""),
            ("unknown", ""),
        ]
        .map(|(name, more)| TestCaller::new(name, more));
        let toml = ["[auth]\nrequired = true\n", ACCOUNTS].concat()
            + &[&data, &reader, &tenant].map(|caller| caller.toml.as_str()).concat();
        let proxy = Proxy::with(amazon, Setup { toml, file_store: true, ..Setup::default() });
        Self { proxy, data, reader, tenant, wrong }
    }

    /// Each kind of caller with its header line.
    fn callers(&self) -> [(&'static str, String); 6] {
        [
            ("nobody", String::new()),
            ("wrong key", self.wrong.line()),
            ("data key", self.data.line()),
            ("read-only key", self.reader.line()),
            ("tenant's key", self.tenant.line()),
            ("operator", OPERATOR.line()),
        ]
    }
}

/// Status, and the whole response without its date; all requests have one id.
fn send(address: SocketAddr, method: &str, path: &str, line: &str) -> (u16, String) {
    let form = path.split_once('?').map_or("", |(_, query)| query);
    let form = if method == "POST" { form } else { "" };
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: same\r\nConnection: close\r\n\
         {line}Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{form}",
        form.len()
    );
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut response = String::new();
    stream.read_to_string(&mut response).expect("a response");
    let status = response.split(' ').nth(1).expect("a status").parse().expect("a number");
    let lines = response.lines().filter(|line| !line.to_ascii_lowercase().starts_with("date:"));
    (status, lines.collect::<Vec<_>>().join("\n"))
}

/// A route's path for `account`.
fn path(route: &str, account: &str) -> String {
    format!("{}?account={account}", route.replace("{id}", account))
}

/// What is destroyed is sent last.
fn is_destructive(method: &str, path: &str) -> bool {
    method == "DELETE" || path.ends_with("/logout")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_serves_whom_it_is_for_and_nobody_else() {
    let amazon = amazon().await;
    let world = World::start(&amazon);
    let admin = world.proxy.admin;
    for (kind, line) in world.callers() {
        for route in ROUTES {
            let (method, audience) = (route.method.as_str(), route.audience.as_str());
            // What a caller may do to its account is another test.
            let account = if kind == "operator" { "missing" } else { "b~other" };
            let (status, response) = send(admin, method, &path(route.path, account), &line);
            let what = format!("{kind}: {method} {} ({audience}): {response}", route.path);
            let is_refused = matches!(status, 401 | 403 | 429);
            match (audience, kind) {
                ("public" | "read", _) => assert!(status != 401 && status < 500, "{what}"),
                (_, "nobody") => assert_eq!(status, 401, "{what}"),
                (_, "wrong key") => assert!(matches!(status, 401 | 429), "{what}"),
                (_, "data key" | "read-only key") => assert_eq!(status, 403, "{what}"),
                ("local", "operator") => assert!(matches!(status, 404 | 405), "{what}"),
                ("local", _) => assert!(matches!(status, 403..=405), "{what}"),
                (_, "tenant's key") if route.for_tenants => assert!(!is_refused, "{what}"),
                (_, "tenant's key") => assert_eq!(status, 403, "{what}"),
                _ => assert!(!is_refused && status < 500, "{what}"),
            }
            assert!(kind == "operator" || !response.contains("b~other"), "{what}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_credential_a_route_and_a_path_that_is_none_are_one_response() {
    let amazon = amazon().await;
    let world = World::start(&amazon);
    let (_, nothing) = send(world.proxy.admin, "GET", "/nothing", "");
    assert!(nothing.contains("authentication_required") && nothing.contains("Bearer"), "{nothing}");
    for route in ROUTES.iter().filter(|route| route.audience.as_str() == "operate") {
        for account in ["a~shop", "missing"] {
            let path = path(route.path, account);
            let said = send(world.proxy.admin, route.method.as_str(), &path, "").1;
            assert_eq!(said, nothing, "{path}");
        }
    }
    let (_, wrong) = send(world.proxy.admin, "GET", "/status", &world.wrong.line());
    assert_eq!(wrong, nothing, "which half was wrong is not said");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_tenants_account_and_a_missing_one_are_the_same_bytes() {
    let amazon = amazon().await;
    let world = World::start(&amazon);
    let (admin, data, line) = (world.proxy.admin, world.proxy.addr, world.tenant.line());
    let mut compared = 0;
    for route in ROUTES.iter().filter(|route| route.for_tenants) {
        let method = route.method.as_str();
        if route.path == "/api/auth/amazon/login" || route.path.ends_with("/logins") {
            // Begins the login of a new account of the tenant's own.
            continue;
        }
        let [other, whole, missing] = ["other", "b~other", "missing"]
            .map(|account| send(admin, method, &path(route.path, account), &line));
        assert_eq!(other, missing, "{method} {}", route.path);
        assert_eq!(whole, missing, "{method} {}", route.path);
        if !["/status", "/api/v1/accounts", "/api/v1/throttling"].contains(&route.path) {
            assert!(missing.0 == 404 && missing.1.contains("unknown_account"), "{missing:?}");
            compared += 1;
        }
    }
    assert!(compared >= 5, "{compared}");
    for method in ["GET", "POST", "HEAD"] {
        let said = ["other", "b~other", "acme", "missing"]
            .map(|account| send(data, method, &format!("/a/{account}/v2/profiles"), &line));
        assert!(said.iter().all(|one| *one == said[3]) && said[3].0 == 404, "{said:?}");
    }
    // The twins: what is the tenant's own.
    assert_eq!(send(data, "GET", "/a/shop/v2/profiles", &line).0, 200);
    let mut own: Vec<_> = ROUTES.iter().filter(|route| route.for_tenants).collect();
    own.sort_by_key(|route| is_destructive(route.method.as_str(), route.path));
    for route in own {
        let path = path(route.path, "shop");
        let (status, said) = send(admin, route.method.as_str(), &path, &line);
        // Forgotten once, it is not there to be forgotten again.
        let is_gone = is_destructive(route.method.as_str(), route.path) && status == 404;
        assert!(matches!(status, 200 | 201 | 303) || is_gone, "{path}: {said}");
        assert!(!said.contains("a~") && !said.contains("other"), "{said}");
    }
}

/// The median time of a response on a connection that is kept.
fn medians(address: SocketAddr, requests: [&str; 2]) -> [Duration; 2] {
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.set_nodelay(true).expect("set");
    let mut one = |request: &str| {
        let began = Instant::now();
        stream.write_all(request.as_bytes()).expect("sent");
        let mut response = Vec::new();
        let mut piece = [0; 4096];
        loop {
            let length = stream.read(&mut piece).expect("a response");
            response.extend_from_slice(&piece[..length]);
            let text = String::from_utf8_lossy(&response);
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let head = head.to_ascii_lowercase();
                let wanted = head.split("content-length: ").nth(1).expect("a length");
                let wanted: usize =
                    wanted.split("\r\n").next().expect("a line").parse().expect("a number");
                if body.len() >= wanted {
                    return began.elapsed();
                }
            }
        }
    };
    let mut times = [const { Vec::new() }; 2];
    for round in 0..300 {
        for at in [round % 2, 1 - round % 2] {
            times[at].push(one(requests[at]));
        }
    }
    times.map(|mut times| {
        times.sort_unstable();
        times[times.len() / 2]
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn another_tenants_account_and_a_missing_one_take_the_same_time() {
    let amazon = amazon().await;
    let world = World::start(&amazon);
    let line = world.tenant.line();
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{line}\r\n");
    for (address, other, missing) in [
        (world.proxy.admin, "/api/v1/accounts/other", "/api/v1/accounts/others"),
        (world.proxy.addr, "/a/other/v2/profiles", "/a/others/v2/profiles"),
    ] {
        let [other, missing] = medians(address, [&get(other), &get(missing)]);
        let difference = other.abs_diff(missing);
        let is_noise = difference < Duration::from_micros(50) || difference < missing / 5;
        assert!(is_noise, "{other:?} and {missing:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_data_plane_asks_every_caller_too() {
    let amazon = amazon().await;
    let world = World::start(&amazon);
    for (kind, line) in world.callers() {
        let (status, said) = send(world.proxy.addr, "GET", "/a/acme/v2/profiles", &line);
        let expected: &[u16] = match kind {
            "nobody" => &[403],
            "wrong key" => &[403, 429],
            "tenant's key" => &[404],
            _ => &[200],
        };
        assert!(expected.contains(&status), "{kind}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_control_socket_serves_the_servers_own_user_without_a_key() {
    let amazon = amazon().await;
    let world = World::start(&amazon);
    let socket = world.proxy.dir.path().join("store/control.sock");
    for (path, status) in [("/status", 200), ("/api/v1/server", 200), ("/nothing", 404)] {
        let mut stream = std::os::unix::net::UnixStream::connect(&socket).expect("a server");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .expect("sent");
        let mut said = String::new();
        stream.read_to_string(&mut said).expect("a response");
        assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_of_a_unix_socket_is_known_by_its_user() {
    let amazon = amazon().await;
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("admin.sock");
    let uid = rustix::process::geteuid().as_raw();
    for (uids, expected) in [(uid, "200"), (uid + 1, "401")] {
        let toml =
            format!("[[callers]]\nname = \"local\"\nunix_uids = [{uids}]\noperator = true\n");
        let env = vec![("ADSPROXY_LISTEN__ADMIN".into(), format!("unix:{}", socket.display()))];
        let proxy = Proxy::with(&amazon, Setup { toml, env, ..Setup::default() });
        let mut stream = std::os::unix::net::UnixStream::connect(&socket).expect("a server");
        stream
            .write_all(b"GET /status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .expect("sent");
        let mut said = String::new();
        stream.read_to_string(&mut said).expect("a response");
        assert!(said.starts_with(&format!("HTTP/1.1 {expected} ")), "{said}");
        drop(proxy);
        let _ = std::fs::remove_file(&socket);
    }
}

/// A user who is neither the server's nor root.
const STRANGER: u32 = 54_321;

#[tokio::test(flavor = "multi_thread")]
async fn another_user_of_the_machine_gets_nothing_of_what_is_to_be_operated() {
    if !extras::root() {
        return;
    }
    let amazon = amazon().await;
    let world = World::start(&amazon);
    let operate = ROUTES.iter().filter(|route| route.audience.as_str() == "operate");
    let requests: Vec<_> =
        operate.map(|route| format!("{} {}", route.method, path(route.path, "acme"))).collect();
    let script = "import http.client,sys\n\
        for line in sys.argv[2:]:\n  \
          method,path=line.split(' ')\n  \
          c=http.client.HTTPConnection('127.0.0.1',int(sys.argv[1]))\n  \
          c.request(method,path,headers={'Host':'localhost'})\n  \
          print(c.getresponse().status)\n";
    let mut python = Command::new("python3");
    python.args(["-c", script, &world.proxy.admin.port().to_string()]).args(&requests);
    let said = crate::support::program::said(python.uid(STRANGER).gid(STRANGER));
    let statuses: Vec<_> = said.out.lines().collect();
    assert_eq!(statuses, vec!["401"; requests.len()], "{said:?}");
    assert_eq!(send(world.proxy.addr, "GET", "/a/acme/v2/profiles", &world.data.line()).0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_public_name_nothing_of_what_is_to_be_operated_responds() {
    let amazon = amazon().await;
    let toml = "[guard]\nallowed_hosts = [\"ads.example.com\"]\n".to_owned();
    let proxy = Proxy::with(&amazon, Setup { toml, ..Setup::default() });
    // As a program in front of us forwards it; and with a name that is not allowed.
    for (host, expected) in [("ads.example.com", "401"), ("evil.example.com", "403")] {
        for route in ROUTES.iter().filter(|route| route.audience.as_str() == "operate") {
            let path = path(route.path, "acme");
            let head = format!(
                "{} {path} HTTP/1.1\r\nHost: {host}\r\nX-Forwarded-For: 203.0.113.7\r\n\
                 Content-Length: 0",
                route.method
            );
            let said = ask(proxy.admin, &head);
            assert!(said.starts_with(&format!("HTTP/1.1 {expected} ")), "{path}: {said}");
            assert!(!said.contains("acme"), "{said}");
        }
    }
    assert_eq!(proxy.get("/v2/profiles").await.status, 200, "the account is as it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_says_by_what_a_caller_was_known_and_which_request_of_ours_it_was() {
    let amazon = amazon().await;
    let world = World::start(&amazon);
    let (admin, line) = (world.proxy.admin, world.tenant.line());
    let (status, said) = send(admin, "POST", "/api/auth/refresh?account=shop", &line);
    assert_eq!(status, 200, "{said}");
    let log = world.proxy.dir.path().join("store/audit.jsonl");
    let entry = || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let lines = text.lines().map(|line| serde_json::from_str(line).expect("JSON"));
        let mut entries: Vec<serde_json::Value> = lines.collect();
        entries.retain(|entry| entry["action"] == "token.refresh" && entry["actor"] == "admin");
        entries.pop()
    };
    eventually("an entry", || entry().is_some()).await;
    let entry = entry().expect("an entry");
    assert_eq!((&entry["user"], &entry["tenant"]), (&"of-a".into(), &"a".into()), "{entry}");
    let key = &world.tenant.key[..13];
    assert_eq!(entry["key_id"], key, "its id and no more: {entry}");
    assert_eq!(entry["request_id"], "same", "the caller's own");
    let ours = entry["server_request_id"].as_str().expect("ours");
    assert!(ours.len() == 16 && ours.bytes().all(|b| b.is_ascii_hexdigit()), "{entry}");
    // The same through the API, which finds it by the key.
    let path = format!("/api/v1/audit?actor={key}&action=token.refresh&limit=1");
    let (status, said) = send(admin, "GET", &path, &OPERATOR.line());
    assert!(status == 200 && said.contains(ours), "{said}");
    assert!(!said.contains(&world.tenant.key), "no key");
}
