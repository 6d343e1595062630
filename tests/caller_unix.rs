//! Callers on a Unix socket of the data plane, known by the user or the group of their process.

use crate::support::{
    callers::TestCaller,
    extras,
    program::said,
    proxy::{Proxy, Setup, amazon, eventually},
    stream::Wire,
};
use adsproxy::sandbox::Emulator;
use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{
    fs::{Permissions, set_permissions},
    os::unix::{
        fs::{PermissionsExt, chown},
        net::UnixStream,
    },
    path::PathBuf,
    process::Command,
};
use tempfile::TempDir;

/// Users and groups who are neither the server's nor root.
const USER: u32 = 54_321;
const OTHER: u32 = 54_322;
const GROUP: u32 = 54_323;

const REQUIRED: &str = "[auth]\nrequired = true\n";

struct Server {
    proxy: Proxy,
    directory: TempDir,
}

impl Server {
    /// In front of `amazon`, with a caller known by `known` that may use `acme`, and further tables.
    fn start(amazon: &Emulator, known: &str, more: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let unix = format!("unix:{}", directory.path().join("socket").display());
        let toml = format!("[[callers]]\nname = \"local\"\n{known}\naccounts = [\"acme\"]\n{more}");
        let listen = Some(format!("{:?}", ["127.0.0.1:0", &unix]));
        let proxy = Proxy::with(amazon, Setup { toml, listen, ..Setup::default() });
        Self { proxy, directory }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    /// Lets the processes of `group` connect, too.
    fn open_to(&self, group: u32) {
        set_permissions(self.directory.path(), Permissions::from_mode(0o711)).expect("a mode");
        chown(self.socket(), None, Some(group)).expect("a group");
    }

    /// The status that this process is answered about `account`, with further header lines.
    fn status(&self, account: &str, lines: &str) -> u16 {
        let stream = UnixStream::connect(self.socket()).expect("a connection");
        let mut wire = Wire::new(stream);
        wire.write(get(account, lines)).expect("sent");
        wire.reply().expect("an answer").status
    }

    /// What a process of `user` is answered to the same, whose groups are `group` and, beside it,
    /// `groups`; "refused" if it cannot connect.
    fn statuses(
        &self,
        (user, group, groups): (u32, u32, &str),
        requests: &[String],
    ) -> Vec<String> {
        let script = "import os,socket,sys\n\
            path,user,group,groups=sys.argv[1:5]\n\
            os.setgroups([int(one) for one in groups.split()])\n\
            os.setgid(int(group)); os.setuid(int(user))\n\
            for request in sys.argv[5:]:\n  \
              s=socket.socket(socket.AF_UNIX)\n  \
              try: s.connect(path)\n  \
              except PermissionError: print('refused'); continue\n  \
              s.sendall(request.encode())\n  \
              print(s.recv(65536).split()[1].decode()); s.close()\n";
        let mut python = Command::new("python3");
        python.args(["-c", script]).arg(self.socket());
        python.args([user.to_string(), group.to_string(), groups.to_owned()]).args(requests);
        let said = said(&mut python);
        assert_eq!(said.code, Some(0), "{said:?}");
        said.out.lines().map(str::to_owned).collect()
    }
}

fn get(account: &str, lines: &str) -> String {
    format!("GET /a/{account}/_sink HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n")
}

fn own_user() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn own_group() -> u32 {
    rustix::process::getegid().as_raw()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_is_served_as_the_caller_that_has_its_user_or_its_group() {
    let amazon = amazon().await;
    for more in ["", REQUIRED] {
        for known in
            [format!("unix_uids = [{}]", own_user()), format!("unix_gids = [{}]", own_group())]
        {
            let server = Server::start(&amazon, &known, more);
            assert_eq!((server.status("acme", ""), server.status("globex", "")), (200, 404));
            let named = r#""caller":"local""#;
            eventually("who it was is logged", || server.proxy.log().contains(named)).await;
            // Over TCP it is nobody, and then it may use either or neither.
            let over_tcp = server.proxy.get("/_sink").await;
            assert_eq!(over_tcp.status, if more.is_empty() { 200 } else { 403 });
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_known_over_http_2_too() {
    let amazon = amazon().await;
    let server = Server::start(&amazon, &format!("unix_uids = [{}]", own_user()), REQUIRED);
    let stream = tokio::net::UnixStream::connect(server.socket()).await.expect("a connection");
    let made = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (sender, connection) = made.await.expect("HTTP/2");
    tokio::spawn(connection);
    for (account, expected) in [("acme", 200), ("globex", 404)] {
        let uri = format!("http://localhost/a/{account}/_sink");
        let request = Request::builder().uri(uri).body(Empty::<Bytes>::new()).expect("a request");
        let response = sender.clone().send_request(request).await.expect("an answer");
        assert_eq!(response.status(), expected, "{account}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_sent_counts_before_the_user_right_or_wrong() {
    let amazon = amazon().await;
    let other = TestCaller::new("other", "accounts = [\"globex\"]");
    let known = format!("unix_uids = [{}]", own_user());
    for more in ["", REQUIRED] {
        let server = Server::start(&amazon, &known, &(other.toml.clone() + more));
        let line = other.line();
        assert_eq!((server.status("globex", &line), server.status("acme", &line)), (200, 404));
        let wrong = format!("X-Ads-Key: {}\r\n", other.other_secret());
        assert_eq!(server.status("acme", &wrong), 403, "it is not served as its user then");
        let two = format!("{line}Authorization: Bearer {}\r\n", other.key);
        assert_eq!(server.status("globex", &two), 400);
        assert_eq!(server.status("acme", ""), 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_that_nobody_has_is_asked_for_a_credential_where_everybody_is() {
    let amazon = amazon().await;
    let other = TestCaller::new("other", "accounts = [\"globex\"]");
    let known = format!("unix_uids = [{}]", own_user() + 1);
    let server = Server::start(&amazon, &known, &(other.toml.clone() + REQUIRED));
    assert_eq!((server.status("acme", ""), server.status("nobody", "")), (403, 403));
    assert_eq!(server.status("globex", &other.line()), 200);
    // Elsewhere it is as on loopback.
    let server = Server::start(&amazon, &known, "");
    assert_eq!((server.status("acme", ""), server.status("globex", "")), (200, 200));
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_of_other_users_are_told_apart() {
    if !extras::root() {
        return;
    }
    let amazon = amazon().await;
    let more = format!(
        "[[callers]]\nname = \"group\"\nunix_gids = [{GROUP}]\naccounts = [\"globex\"]\n{REQUIRED}"
    );
    let server = Server::start(&amazon, &format!("unix_uids = [{USER}]"), &more);
    let asked = [get("acme", ""), get("globex", "")];
    assert_eq!(server.statuses((USER, OTHER, ""), &asked), ["refused"; 2], "by the socket's mode");
    server.open_to(GROUP);
    for (process, expected) in [
        // The user goes before the group.
        ((USER, GROUP, ""), ["200", "404"]),
        ((USER, OTHER, "54323"), ["200", "404"]),
        ((OTHER, GROUP, ""), ["404", "200"]),
        // A group beside the primary one opens the socket, and is no credential.
        ((OTHER, OTHER, "54323"), ["403", "403"]),
        ((OTHER, OTHER, ""), ["refused", "refused"]),
    ] {
        assert_eq!(server.statuses(process, &asked), expected, "{process:?}");
    }
    // Nor is the server's own user, or root, anybody here.
    assert_eq!(server.status("acme", ""), 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_keys_of_one_user_are_not_counted_against_another() {
    if !extras::root() {
        return;
    }
    let amazon = amazon().await;
    let caller = TestCaller::new("reports", "");
    let server = Server::start(&amazon, "unix_uids = [1]", &(caller.toml.clone() + REQUIRED));
    server.open_to(GROUP);
    let wrong = get("acme", &format!("X-Ads-Key: {}\r\n", caller.other_secret()));
    let told = server.statuses((USER, GROUP, ""), &vec![wrong.clone(); 30]);
    // Another is an honest mistake for each three seconds that a busy machine takes.
    assert!(told[0] == "403" && told.iter().any(|status| status == "429"), "{told:?}");
    let right = get("acme", &caller.line());
    assert_eq!(server.statuses((USER, GROUP, ""), &[right]), ["200"]);
    assert_eq!(server.statuses((OTHER, GROUP, ""), &[wrong]), ["403"]);
}
