//! Nothing of what is to be operated responds to another user of the machine, nor through a reverse
//! proxy, without the credential of an operator.

use crate::support::{
    callers::{OPERATOR, TestCaller},
    extras,
    program::said,
    proxy::{Proxy, Setup, amazon, ask},
    reverse_proxy::{HostField, ReverseProxy},
};
use adsproxy::{sandbox::Emulator, testing::ROUTES};
use std::{
    fs::{Permissions, set_permissions},
    net::SocketAddr,
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::PathBuf,
    process::Command,
};
use tempfile::TempDir;

/// A user, and the group, of nobody's who is the server's or root.
const STRANGER: u32 = 54_321;

/// Method and path of every route that needs a credential, or a process of the server's own user.
fn routes() -> Vec<(&'static str, String)> {
    let closed = ROUTES.iter().filter(|it| ["operate", "local"].contains(&it.audience.as_str()));
    let path = |route: &str| format!("{}?account=acme", route.replace("{id}", "acme"));
    let routes: Vec<_> = closed.map(|it| (it.method.as_str(), path(it.path))).collect();
    assert!(routes.len() > 20, "{routes:?}");
    routes
}

/// What `user` is answered to each of `requests`, sent with `line` to a TCP port of loopback or to the
/// path of a Unix socket; "refused" where it cannot connect.
fn statuses(user: u32, to: &str, requests: &[(&str, String)], line: &str) -> Vec<String> {
    let script = "import socket,sys\n\
        to,line=sys.argv[1:3]\n\
        for request in sys.argv[3:]:\n  \
          unix=to.startswith('/')\n  \
          s=socket.socket(socket.AF_UNIX if unix else socket.AF_INET)\n  \
          try: s.connect(to if unix else ('127.0.0.1',int(to)))\n  \
          except PermissionError: print('refused'); continue\n  \
          s.sendall((request+' HTTP/1.1\\r\\nHost: localhost\\r\\nContent-Length: 0\\r\\n'+line+'\\r\\n').encode())\n  \
          print(s.recv(65536).split()[1].decode()); s.close()\n";
    let requests = requests.iter().map(|(method, path)| format!("{method} {path}"));
    let mut python = Command::new("python3");
    python.args(["-c", script, to, line]).args(requests);
    let said = said(python.uid(user).gid(user));
    assert_eq!(said.code, Some(0), "{said:?}");
    said.out.lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn another_user_of_the_machine_gets_nothing_over_tcp() {
    if !extras::root() {
        return;
    }
    let amazon = amazon().await;
    let data = TestCaller::new("data", "");
    let proxy = Proxy::with(
        &amazon,
        Setup { toml: data.toml.clone(), file_store: true, ..Setup::default() },
    );
    let port = proxy.admin.port().to_string();
    let routes = routes();
    let of_nobody = statuses(STRANGER, &port, &routes, "");
    assert!(of_nobody.iter().all(|status| status == "401"), "{of_nobody:?}");
    let of_no_operator = statuses(STRANGER, &port, &routes, &data.line());
    let is_refused = |status: &String| ["403", "404", "405"].contains(&status.as_str());
    assert!(of_no_operator.iter().all(is_refused), "{of_no_operator:?}");
    // The twin: it is the credential that makes the difference.
    let status = [("GET", "/status".to_owned())];
    assert_eq!(statuses(STRANGER, &port, &status, &OPERATOR.line()), ["200"]);
    assert_eq!(proxy.get("/v2/profiles").await.status, 200, "the account is as it was");
}

/// A server whose admin listener is a Unix socket, for the operator with `uid`.
fn on_a_socket(amazon: &Emulator, uid: u32) -> (Proxy, TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("admin.sock");
    let toml = format!("[[callers]]\nname = \"local\"\nunix_uids = [{uid}]\noperator = true\n");
    let env = vec![("ADSPROXY_LISTEN__ADMIN".into(), format!("unix:{}", socket.display()))];
    let proxy = Proxy::with(amazon, Setup { toml, env, ..Setup::default() });
    set_permissions(directory.path(), Permissions::from_mode(0o711)).expect("a mode");
    (proxy, directory, socket)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_that_the_admin_socket_refuses_gets_nothing_of_it() {
    if !extras::root() {
        return;
    }
    let amazon = amazon().await;
    let own = rustix::process::geteuid().as_raw();
    let (proxy, _directory, socket) = on_a_socket(&amazon, own);
    let (path, routes) = (socket.to_str().expect("UTF-8"), routes());
    let by_its_mode = statuses(STRANGER, path, &routes, &OPERATOR.line());
    assert!(by_its_mode.iter().all(|status| status == "refused"), "{by_its_mode:?}");
    // Of the socket's group, a user may connect and is nobody all the same.
    chown(&socket, None, Some(STRANGER)).expect("a group");
    let of_nobody = statuses(STRANGER, path, &routes, "");
    assert!(of_nobody.iter().all(|status| status == "401"), "{of_nobody:?}");
    // The twins: the right user, and the right key.
    let status = [("GET", "/status".to_owned())];
    assert_eq!(statuses(own, path, &status, ""), ["200"]);
    assert_eq!(statuses(STRANGER, path, &status, &OPERATOR.line()), ["200"]);
    assert_eq!(proxy.get("/v2/profiles").await.status, 200, "the account is as it was");
}

/// What the front says of a request for `host`; the sender claims to be on the server's machine.
fn through(front: SocketAddr, host: &str, (method, path): &(&str, String), line: &str) -> String {
    let claims = "X-Forwarded-For: 127.0.0.1\r\nX-Real-IP: 127.0.0.1\r\n\
                  Forwarded: for=127.0.0.1;host=localhost\r\nX-Forwarded-Host: localhost";
    let head =
        format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{line}{claims}\r\nContent-Length: 0");
    let said = ask(front, &head);
    assert!(!said.contains("1234567890123456"), "a profile of acme: {said}");
    said
}

fn has_status(said: &str, expected: &[&str]) -> bool {
    expected.iter().any(|status| said.starts_with(&format!("HTTP/1.1 {status} ")))
}

#[tokio::test(flavor = "multi_thread")]
async fn through_a_reverse_proxy_with_a_public_name_nothing_responds_but_to_an_operator() {
    let amazon = amazon().await;
    let data = TestCaller::new("data", "");
    let toml = format!(
        "[guard]\nallowed_hosts = [\"ads.example.com\"]\n[auth]\nrequired = true\n{}",
        data.toml
    );
    let proxy = Proxy::with(&amazon, Setup { toml, file_store: true, ..Setup::default() });
    for host in [HostField::Kept, HostField::Replaced] {
        let admin = ReverseProxy::start(proxy.admin, host).await;
        let to = |route: &(&str, String), line: &str| {
            through(admin.addr, "ads.example.com", route, line)
        };
        for route in routes() {
            let of_nobody = to(&route, "");
            assert!(has_status(&of_nobody, &["401"]), "{host:?} {route:?}: {of_nobody}");
            let of_no_operator = to(&route, &data.line());
            let refused = ["403", "404", "405"];
            assert!(has_status(&of_no_operator, &refused), "{host:?} {route:?}: {of_no_operator}");
            if host == HostField::Kept {
                let other_name = through(admin.addr, "evil.example.com", &route, &OPERATOR.line());
                assert!(has_status(&other_name, &["403"]), "{route:?}: {other_name}");
            }
        }
        // The twin: an operator is one from there, too.
        let status = ("GET", "/status".to_owned());
        assert!(has_status(&to(&status, &OPERATOR.line()), &["200"]), "{host:?}");
        let front = ReverseProxy::start(proxy.addr, host).await;
        let profiles = ("GET", "/a/acme/_sink".to_owned());
        let ask = |line: &str| through(front.addr, "ads.example.com", &profiles, line);
        assert!(has_status(&ask(""), &["403"]), "{host:?}");
        assert!(has_status(&ask(&data.line()), &["200"]), "{host:?}");
    }
    let answer = proxy.request(http::Method::GET, "/a/acme/_sink").header("x-ads-key", &data.key);
    assert_eq!(proxy.send(answer).await.status, 200, "the account is as it was");
}
