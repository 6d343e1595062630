//! `listen.admin` as a Unix socket, or `"off"`: who is asked then, and that nothing else listens.

use crate::support::{
    program::{Said, said},
    proxy::{ACME_REFRESH, GLOBEX_REFRESH, Proxy, Setup, amazon},
};
use adsproxy::sandbox::CLIENT_SECRET;
use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::Path,
    process::Command,
};

const ADMIN: &str = "ADSPROXY_LISTEN__ADMIN";

fn setup(admin: &str) -> Setup {
    let env = vec![(ADMIN.to_owned(), admin.to_owned())];
    Setup { file_store: true, env, ..Setup::default() }
}

/// Runs a command on the configuration of `proxy`.
fn run(proxy: &Proxy, admin: &str, arguments: &str) -> Said {
    let mut command = Command::new(env!("CARGO_BIN_EXE_adsproxy"));
    command
        .arg("--config")
        .arg(proxy.dir.path().join("proxy.toml"))
        .args(arguments.split(' '))
        .env(ADMIN, admin)
        .env("CLIENT_SECRET", CLIENT_SECRET)
        .env("ACME_REFRESH", ACME_REFRESH)
        .env("GLOBEX_REFRESH", GLOBEX_REFRESH);
    said(&mut command)
}

fn get(socket: &Path, path: &str) -> String {
    let mut stream = UnixStream::connect(socket).expect("a listener");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .expect("sent");
    let mut response = String::new();
    stream.read_to_string(&mut response).expect("a response");
    response
}

/// The TCP ports that the process listens on.
fn ports(proxy: &Proxy) -> BTreeSet<String> {
    let fds = fs::read_dir(format!("/proc/{}/fd", proxy.pid())).expect("its files");
    let links = fds.filter_map(|fd| fs::read_link(fd.ok()?.path()).ok()).collect::<Vec<_>>();
    let tables = ["tcp", "tcp6"].map(|table| {
        fs::read_to_string(format!("/proc/{}/net/{table}", proxy.pid())).unwrap_or_default()
    });
    let listening = tables.iter().flat_map(|table| table.lines()).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let inode = format!("socket:[{}]", fields.get(9)?);
        let is_ours = links.iter().any(|link| link.to_str() == Some(&inode));
        (fields[3] == "0A" && is_ours)
            .then(|| fields[1].rsplit(':').next().unwrap_or("").to_owned())
    });
    listening.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_listener_may_be_a_unix_socket() {
    let amazon = amazon().await;
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("admin.sock");
    let admin = format!("unix:{}", socket.display());
    let mut proxy = Proxy::with(&amazon, setup(&admin));
    assert!(get(&socket, "/readyz").starts_with("HTTP/1.1 200 "));
    assert!(get(&socket, "/metrics").contains("adsproxy_build_info"));
    assert_eq!(fs::metadata(&socket).expect("a socket").permissions().mode() & 0o777, 0o660);
    assert_eq!(ports(&proxy).len(), 1, "the data plane's alone");
    for command in ["healthcheck", "wait --max 10s", "status"] {
        let said = run(&proxy, &admin, command);
        assert_eq!(said.code, Some(0), "{command}: {said:?}");
    }
    proxy.signal("TERM");
    assert_eq!(proxy.wait().code(), Some(0));
    assert!(!socket.exists(), "it is removed at the end");
    let said = run(&proxy, &admin, "healthcheck");
    assert!(said.code == Some(1) && said.err.contains("admin.sock"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_admin_listener_commands_use_the_control_socket() {
    let amazon = amazon().await;
    let mut proxy = Proxy::with(&amazon, setup("off"));
    assert_eq!(proxy.get("/a/acme/v2/profiles").await.status, 200);
    assert_eq!(ports(&proxy).len(), 1, "the data plane's alone");
    for command in ["healthcheck", "wait --max 10s", "status", "account list", "token acme"] {
        let said = run(&proxy, "off", command);
        assert_eq!(said.code, Some(0), "{command}: {said:?}");
    }
    proxy.signal("TERM");
    assert_eq!(proxy.wait().code(), Some(0));
    let said = run(&proxy, "off", "healthcheck");
    assert!(said.code == Some(1) && said.err.contains("listen.admin is \"off\""), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn by_default_the_admin_listener_has_a_port_of_its_own() {
    let amazon = amazon().await;
    let proxy = Proxy::with(&amazon, setup("127.0.0.1:0"));
    assert_eq!(ports(&proxy).len(), 2);
    assert!(proxy.ask_admin("/readyz").contains("200"));
}
