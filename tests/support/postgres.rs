//! PostgreSQL of this test process alone: one server that tests share, each with a schema of its own,
//! and servers of one test, which it may stop and start. They end with the process.

use super::extras;
use adsproxy::testing::{StoreConfig, StoreKind, backend::Postgres};
use std::{
    env,
    ffi::OsString,
    net::TcpListener,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};
use tokio::runtime::{Builder, Runtime};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// A user without rights: PostgreSQL refuses to run as root.
const NOBODY: u32 = 65_534;

/// Runs the server in the directory `$0`, with further arguments, and removes that with it.
const RUN: &str =
    "[ -d $0/data ] || initdb -D $0/data -A trust -U adsproxy --no-sync -E UTF8 --locale C >$0/log 2>&1 \
    && exec >>$0/log 2>&1 || exit
    postgres -D $0/data -k $0 -c listen_addresses= -c fsync=off -c max_connections=400 \"$@\" &
    server=$!
    trap 'kill -INT $server; wait $server; rm -rf $0; exit' INT
    wait $server";

/// The URL of the shared server and the name of a schema that no other test has; none if the
/// calling test is to be left out.
pub fn database() -> Option<(String, String)> {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    static SCHEMAS: AtomicUsize = AtomicUsize::new(0);
    if !is_here() {
        return None;
    }
    let directory = DIRECTORY.get_or_init(start_shared).display();
    let schema = format!("of test {}", SCHEMAS.fetch_add(1, Ordering::Relaxed));
    Some((format!("postgres://adsproxy@/postgres?host={directory}"), schema))
}

/// The settings of a store there.
pub fn config((url, schema): &(String, String)) -> StoreConfig {
    StoreConfig {
        kind: StoreKind::Postgres,
        url: Some(url.as_str().into()),
        schema: schema.clone(),
        ..Default::default()
    }
}

pub fn backend(database: &(String, String)) -> Postgres {
    Postgres::open(&config(database)).expect("judged")
}

fn is_here() -> bool {
    extras::required("initdb") && extras::required("setpriv")
}

fn start_shared() -> PathBuf {
    let directory = new_directory();
    let (ready, is_ready) = mpsc::channel();
    let of_server = directory.clone();
    // The server is told to end when the thread that started it does: it lives as long as the process.
    thread::spawn(move || {
        let mut server = spawn(&of_server, &[]);
        ready.send(()).expect("it is awaited");
        panic!("PostgreSQL has ended: {}", server.wait().expect("awaited"));
    });
    is_ready.recv().expect("it was started");
    await_server(&directory);
    directory
}

fn new_directory() -> PathBuf {
    let directory = tempfile::tempdir().expect("a directory").keep();
    own(&directory);
    directory
}

/// Gives a file to the user that the server runs as.
pub fn own(path: &Path) {
    if rustix::process::geteuid().is_root() {
        chown(path, Some(NOBODY), Some(NOBODY)).expect("changed");
    }
}

fn spawn(directory: &Path, arguments: &[String]) -> Child {
    let mut command = command_of_nobody();
    command.args(["sh", "-c", RUN]).arg(directory).args(arguments).env("PATH", path());
    command.spawn().expect("setpriv starts")
}

/// Runs its arguments as the user without rights, until the thread ends that starts it.
pub fn command_of_nobody() -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "INT"]);
    if rustix::process::geteuid().is_root() {
        let id = NOBODY.to_string();
        command.args(["--reuid", &id, "--regid", &id, "--clear-groups"]);
    }
    command.stdin(Stdio::null()).current_dir("/");
    command
}

/// The search path, and before it where the programs are: that user may not enter the directory of
/// links that leads there.
fn path() -> OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).filter_map(|it| it.join("initdb").canonicalize().ok());
    let programs = found.filter_map(|it| it.parent().map(Path::to_path_buf)).take(1);
    let all: Vec<_> = programs.chain(env::split_paths(&path)).collect();
    env::join_paths(all).expect("they were joined before")
}

fn await_server(directory: &Path) {
    for _ in 0..1200 {
        let status = std::fs::read_to_string(directory.join("data/postmaster.pid"));
        if status.is_ok_and(|text| text.lines().last().is_some_and(|it| it.trim() == "ready")) {
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("{}", std::fs::read_to_string(directory.join("log")).unwrap_or_default());
}

/// A server of one test. It ends with the value, or with the thread that started it.
pub struct Cluster {
    pub directory: PathBuf,
    arguments: Vec<String>,
    server: Option<Child>,
    /// On loopback, if it listens there.
    pub port: Option<u16>,
}

impl Cluster {
    /// A server on a Unix socket that runs; none if the calling test is to be left out.
    pub fn start() -> Option<Self> {
        let mut cluster = Self::new()?;
        cluster.run();
        Some(cluster)
    }

    /// A server on loopback with TLS: its certificate and key in PEM.
    pub fn start_tls(certificate: &str, key: &str) -> Option<Self> {
        let mut cluster = Self::new()?;
        let [cert_file, key_file] = [("server.crt", certificate), ("server.key", key)].map(|it| {
            let path = cluster.directory.join(it.0);
            super::proxy::write_private(&path, it.1);
            own(&path);
            path.display().to_string()
        });
        let free = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
        let port = free.expect("a free port").port();
        let settings = [
            "listen_addresses=127.0.0.1".to_owned(),
            format!("port={port}"),
            "ssl=on".to_owned(),
            format!("ssl_cert_file={cert_file}"),
            format!("ssl_key_file={key_file}"),
        ];
        cluster.arguments = settings.into_iter().flat_map(|it| ["-c".to_owned(), it]).collect();
        cluster.port = Some(port);
        cluster.run();
        Some(cluster)
    }

    /// A server that was never started.
    pub fn new() -> Option<Self> {
        let (arguments, server, port) = (Vec::new(), None, None);
        is_here().then(|| Self { directory: new_directory(), arguments, server, port })
    }

    /// Where it listens, also while it does not run.
    pub fn url(&self) -> String {
        format!("postgres://adsproxy@/postgres?host={}", self.directory.display())
    }

    /// Starts it, on the data that it has.
    pub fn run(&mut self) {
        self.server = Some(spawn(&self.directory, &self.arguments));
        await_server(&self.directory);
    }

    /// Ends it as a power cut would, except that nothing that was committed is lost.
    pub fn stop(&mut self) {
        let Some(mut server) = self.server.take() else { return };
        self.signal("QUIT");
        server.wait().expect("awaited");
        // The next start must not be taken for ready by what this one has left.
        let _ = std::fs::remove_file(self.directory.join("data/postmaster.pid"));
    }

    /// Signals the server itself.
    pub fn signal(&self, name: &str) {
        let file = std::fs::read_to_string(self.directory.join("data/postmaster.pid"));
        let file = file.expect("a server that runs");
        let pid = file.lines().next().expect("a process id");
        let sent = Command::new("kill").args([&format!("-{name}"), pid]).status();
        assert!(sent.expect("kill runs").success());
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// What somebody does with SQL beside the program.
pub struct Session {
    runtime: Option<Runtime>,
    client: Client,
}

impl Session {
    pub fn open(url: &str) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let (client, connection) = apart(|| runtime.block_on(tokio_postgres::connect(url, NoTls)))
            .unwrap_or_else(|error| panic!("{error}"));
        runtime.spawn(connection);
        Self { runtime: Some(runtime), client }
    }

    /// Runs statements, in which `{schema}` is that of `database`; what they return, `NULL` as "".
    pub fn run(&self, schema: &str, statements: &str) -> Vec<Vec<String>> {
        let statements = statements.replace("{schema}", &format!("\"{schema}\""));
        let runtime = self.runtime.as_ref().expect("open");
        let messages = apart(|| runtime.block_on(self.client.simple_query(&statements)))
            .unwrap_or_else(|error| panic!("{statements}: {error:?}"));
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
        rows.map(|row| (0..row.len()).map(|at| text(row.get(at))).collect()).collect()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.runtime.take().expect("open").shutdown_background();
    }
}

/// Runs what blocks: the calling thread may belong to a runtime.
fn apart<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| scope.spawn(work).join().expect("no panic"))
}
