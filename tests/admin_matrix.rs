//! Every route of the table, and the data plane, for every kind of caller: who is served, and who is
//! refused.

use crate::support::{
    callers::OPERATOR,
    proxy::{Proxy, Setup, amazon, eventually},
    world::{ACCOUNTS, KINDS, World, send, send_over},
};
use adsproxy::testing::ROUTES;
use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
};

/// A route's path for `account`.
fn path(route: &str, account: &str) -> String {
    format!("{}?account={account}", route.replace("{id}", account))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_serves_whom_it_is_for_and_nobody_else() {
    let amazon = amazon().await;
    for at in 0..KINDS {
        // Another one for each: what an address changes is limited.
        let world = World::start(&amazon);
        let (admin, (kind, line)) = (world.proxy.admin, world.callers().swap_remove(at));
        for route in ROUTES {
            let (method, audience) = (route.method.as_str(), route.audience.as_str());
            // What a caller may do to its account is another test.
            let operates = ["operator", "operator's session", "operator's JWT"].contains(&kind);
            let account = if operates { "missing" } else { "b~other" };
            let (status, response) = send(admin, method, &path(route.path, account), &line);
            let what = format!("{kind}: {method} {} ({audience}): {response}", route.path);
            let is_refused = matches!(status, 401 | 403 | 429);
            match (audience, kind) {
                ("public" | "read", _) => assert!(status != 401 && status < 500, "{what}"),
                // Pages want a session of their own, which no key is, and forms a page behind them.
                ("dashboard", _) if method == "POST" => assert_eq!(status, 403, "{what}"),
                (_, "nobody") | ("dashboard", _) => assert_eq!(status, 401, "{what}"),
                (_, "wrong key") => assert!(matches!(status, 401 | 429), "{what}"),
                ("local", _) if operates => assert!(matches!(status, 404 | 405), "{what}"),
                (_, "operator's session")
                    if route.path == "/api/v1/sessions" && method == "POST" =>
                {
                    assert!(status == 403 && response.contains("a session makes no"), "{what}");
                }
                _ if operates => assert!(!is_refused && status < 500, "{what}"),
                ("local", _) => assert!(matches!(status, 403..=405), "{what}"),
                (_, kind) if kind.starts_with("tenant's") && route.for_tenants => {
                    assert!(!is_refused && status < 500, "{what}");
                }
                (_, "tenant's JWT") if route.for_users => {
                    let is_issue = method == "POST" && response.contains("session_ttl_max_secs");
                    assert!(is_issue || !is_refused && status < 500, "{what}");
                }
                _ => assert_eq!(status, 403, "{what}"),
            }
            assert!(operates || !response.contains("b~other"), "{what}");
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
async fn the_data_plane_asks_every_caller_too() {
    let amazon = amazon().await;
    let world = World::start(&amazon);
    for (kind, line) in world.callers() {
        let (status, said) = send(world.proxy.addr, "GET", "/a/acme/v2/profiles", &line);
        let expected: &[u16] = match kind {
            "nobody" => &[403],
            "wrong key" => &[403, 429],
            kind if kind.starts_with("tenant's") => &[404],
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
        let mut stream = UnixStream::connect(&socket).expect("a server");
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
        let mut stream = UnixStream::connect(&socket).expect("a server");
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

#[tokio::test(flavor = "multi_thread")]
async fn a_user_of_the_machine_who_is_a_tenants_sees_what_a_tenant_sees() {
    let amazon = amazon().await;
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("admin.sock");
    let uid = rustix::process::geteuid().as_raw();
    let toml =
        format!("[[callers]]\nname = \"local\"\nunix_uids = [{uid}]\ntenant = \"a\"\n{ACCOUNTS}");
    let env = vec![("ADSPROXY_LISTEN__ADMIN".into(), format!("unix:{}", socket.display()))];
    let _proxy = Proxy::with(&amazon, Setup { toml, env, file_store: true, ..Setup::default() });
    let send = |method: &str, path: &str| {
        send_over(UnixStream::connect(&socket).expect("a server"), method, path, "")
    };
    assert_eq!(send("GET", "/api/v1/accounts/shop").0, 200);
    for route in ROUTES.iter().filter(|route| route.audience.as_str() == "operate") {
        let method = route.method.as_str();
        let of = |account| send(method, &path(route.path, account));
        if !route.for_tenants {
            assert_eq!(of("shop").0, 403, "{method} {}", route.path);
        } else if !route.path.contains("login") {
            let (other, missing) = (of("other"), of("missing"));
            assert!(missing.0 != 401 && missing.0 != 403, "{missing:?}");
            assert_eq!(other, missing, "{method} {}", route.path);
            assert_eq!(of("b~other"), missing, "{method} {}", route.path);
        }
    }
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
