//! Under a service manager: what it is told, and the sockets that it passes.

use crate::support::{
    extras,
    proxy::{Proxy, Setup, amazon, ask, eventually},
    stream::Wire,
};
use adsproxy::sandbox::Emulator;
use rustix::io::{FdFlags, fcntl_setfd};
use std::{
    fs,
    net::{SocketAddr as InternetAddress, TcpListener, TcpStream},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// What the manager's watchdog waits for, and how long it is silent before this is believed.
const WATCHDOG: Duration = Duration::from_secs(2);

/// The manager's end of `NOTIFY_SOCKET`.
struct Manager {
    socket: UnixDatagram,
    name: String,
    _directory: TempDir,
}

impl Manager {
    fn by_path() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        Self { socket, name: path.display().to_string(), _directory: directory }
    }

    fn by_abstract_name() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let name = directory.path().join("notify").display().to_string();
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let socket = UnixDatagram::bind_addr(&address).expect("a socket");
        Self { socket, name: format!("@{name}"), _directory: directory }
    }

    fn start(&self, amazon: &Emulator, more: &[(&str, &str)]) -> Proxy {
        let name = ("NOTIFY_SOCKET", self.name.as_str());
        let env = [name].into_iter().chain(more.iter().copied());
        let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Proxy::with(amazon, Setup { env, ..Setup::default() })
    }

    /// The next message within `limit`.
    fn told(&self, limit: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(limit)).expect("a time");
        let mut bytes = [0; 4096];
        let length = self.socket.recv(&mut bytes).ok()?;
        Some(String::from_utf8(bytes[..length].to_vec()).expect("text"))
    }

    fn next(&self) -> String {
        self.told(Duration::from_secs(20)).expect("a message")
    }

    /// Waits until there is no sign of life for longer than the watchdog waits.
    fn until_silent(&self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while let Some(message) = self.told(WATCHDOG + Duration::from_secs(1)) {
            assert_eq!(message, "WATCHDOG=1");
            assert!(Instant::now() < deadline, "it says for ever that it is alive");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_manager_is_told_of_the_start_each_reload_and_the_stop() {
    let amazon = amazon().await;
    for manager in [Manager::by_path(), Manager::by_abstract_name()] {
        let mut proxy = manager.start(&amazon, &[]);
        assert_eq!(manager.next(), "READY=1\nSTATUS=Serving");
        assert_eq!(proxy.get("/v2/profiles").await.status, 200);
        proxy.signal("HUP");
        let now = fs::read_to_string("/proc/uptime").expect("a time");
        let now: f64 = now.split(' ').next().and_then(|text| text.parse().ok()).expect("seconds");
        let began = manager.next();
        let micros = began.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect("a reload");
        let seconds = micros.parse::<f64>().expect("a number") / 1e6;
        assert!((now - 60.0..now + 60.0).contains(&seconds), "{seconds} at {now}");
        assert_eq!(manager.next(), "READY=1\nSTATUS=Serving");

        let path = proxy.dir.path().join("proxy.toml");
        let text = fs::read_to_string(&path).expect("a configuration");
        fs::write(&path, format!("{text}\n[nonsense]\n")).expect("written");
        assert!(manager.next().starts_with("RELOADING=1\n"), "a changed file");
        let failed = manager.next();
        assert!(failed.starts_with("READY=1\n") && failed.contains("which failed"), "{failed}");
        // The same failure each second is nothing new.
        assert_eq!(manager.told(Duration::from_millis(2500)), None);

        proxy.signal("TERM");
        assert!(manager.next().starts_with("STOPPING=1\n"));
        assert_eq!(proxy.wait().code(), Some(0));
        assert_eq!(manager.told(Duration::from_millis(100)), None, "no watchdog was asked for");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watchdog_of_another_process_is_not_fed() {
    let amazon = amazon().await;
    let manager = Manager::by_path();
    let watchdog = [("WATCHDOG_USEC", "1000000"), ("WATCHDOG_PID", "1")];
    let proxy = manager.start(&amazon, &watchdog);
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    assert!(manager.next().starts_with("READY=1\n"));
    assert_eq!(manager.told(Duration::from_millis(1500)), None);
}

/// Holds threads of a process in their next system call until dropped.
struct Hung(Vec<Child>);

impl Hung {
    /// Of `proxy`, the threads whose name begins with `name`.
    fn threads(proxy: &Proxy, name: &str) -> Self {
        let tasks = fs::read_dir(format!("/proc/{}/task", proxy.pid())).expect("threads");
        let paths = tasks.map(|task| task.expect("a thread").path());
        let named = paths.filter(|path| {
            fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.starts_with(name))
        });
        let threads: Vec<String> = named
            .map(|path| path.file_name().expect("a number").to_string_lossy().into_owned())
            .collect();
        assert!(!threads.is_empty(), "no thread {name}");
        let hold = |thread: &String| {
            let mut strace = Command::new("strace");
            // Without -f it is this thread alone.
            strace.args(["-qq", "-o", "/dev/null", "-e", "inject=all:delay_enter=600000000", "-p"]);
            strace.arg(thread).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            strace.spawn().expect("strace runs")
        };
        Self(threads.iter().map(hold).collect())
    }
}

impl Drop for Hung {
    fn drop(&mut self) {
        for tracer in &mut self.0 {
            let _ = tracer.kill();
            let _ = tracer.wait();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thread_that_hangs_ends_the_signs_of_life_until_it_goes_on() {
    if !extras::required("strace") || !extras::root() {
        return;
    }
    let amazon = amazon().await;
    let manager = Manager::by_path();
    let micros = WATCHDOG.as_micros().to_string();
    let mut proxy = manager.start(&amazon, &[("WATCHDOG_USEC", &micros)]);
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    let mut messages = vec![manager.next()];
    while messages.iter().filter(|message| *message == "WATCHDOG=1").count() < 5 {
        messages.push(manager.next());
    }
    assert!(messages.iter().any(|message| message.starts_with("READY=1\n")), "{messages:?}");
    // One worker of two or more, and the runtime of everything else.
    for name in ["worker-0", "control"] {
        let hung = Hung::threads(&proxy, name);
        manager.until_silent();
        assert!(!proxy.has_ended());
        // The runtime of everything else serves the probes, too.
        if name == "worker-0" {
            assert!(proxy.ask_admin("/livez").starts_with("HTTP/1.1 503 "), "{}", proxy.log());
        }
        drop(hung);
        assert_eq!(manager.next(), "WATCHDOG=1", "{name} goes on");
        assert!(proxy.ask_admin("/livez").starts_with("HTTP/1.1 200 "), "{name} goes on");
    }
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    proxy.signal("TERM");
    while !manager.next().starts_with("STOPPING=1\n") {}
    assert_eq!(proxy.wait().code(), Some(0));
}

/// Lets children inherit `socket`, and says how a shell makes it number 3 of the server.
fn passed(socket: BorrowedFd<'_>, variables: &str) -> Vec<String> {
    fcntl_setfd(socket, FdFlags::empty()).expect("a flag");
    let number = socket.as_raw_fd();
    // The process keeps its number when it becomes the server.
    let script =
        format!("[ {number} = 3 ] || exec 3<&{number} {number}<&-; {variables} exec \"$@\"");
    ["bash", "-c", &script, "bash"].map(str::to_owned).to_vec()
}

fn listen(address: &str, runner: Vec<String>) -> Setup {
    Setup { listen: Some(format!("[\"{address}\"]")), runner, ..Setup::default() }
}

fn ask_for_profiles(address: InternetAddress) -> Wire<TcpStream> {
    let stream = TcpStream::connect(address).expect("the kernel takes the connection");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a time");
    let mut wire = Wire::new(stream);
    let head = "GET /v2/profiles HTTP/1.1\r\nHost: localhost\r\nX-Ads-Account: acme\r\n\r\n";
    wire.write(head).expect("written");
    wire
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_is_passed_is_served_and_refuses_none_while_the_server_restarts() {
    let amazon = amazon().await;
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = socket.local_addr().expect("an address");
    let runner = passed(socket.as_fd(), "LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=web");
    let setup =
        Setup { toml: "[proxy]\nworkers = 3\n".to_owned(), ..listen("systemd:web", runner) };
    let mut proxy = Proxy::with(&amazon, setup);
    assert_eq!(proxy.listening(), [address.to_string()]);
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
    proxy.signal("TERM");
    assert_eq!(proxy.wait().code(), Some(0));
    // Nobody runs: whoever comes now waits for the next server.
    let mut waiting: Vec<_> = (0..5).map(|_| ask_for_profiles(address)).collect();
    let proxy = proxy.restart();
    for wire in &mut waiting {
        assert_eq!(wire.reply().expect("a response").status, 200);
    }
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_is_passed_neither_the_sockets_nor_the_variables() {
    let amazon = amazon().await;
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
    let variables = "LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=web NOTIFY_SOCKET=@nobody";
    let directory = tempfile::tempdir().expect("a directory");
    let seen = directory.path().join("seen");
    let script = "env; for f in /proc/self/fd/*; do readlink $f; done; echo end";
    let command = ["/bin/sh", "-c", &format!("({script}) > {}", seen.display())].map(str::to_owned);
    let events = "events = [\"grant.reauthorization_required\"]";
    let toml = format!("[[hooks]]\nname = \"look\"\n{events}\ncommand = {command:?}\n");
    let runner = passed(socket.as_fd(), variables);
    let setup = Setup { toml, file_store: true, ..listen("systemd:web", runner) };
    let proxy = Proxy::with(&amazon, setup);
    amazon.state().lwa.revoke("acme");
    assert_eq!(proxy.get("/v2/profiles").await.status, 403);
    let text = || fs::read_to_string(&seen).unwrap_or_default();
    eventually("the hook has run", || text().ends_with("end\n")).await;
    for part in ["LISTEN_", "NOTIFY_SOCKET"] {
        assert!(!text().contains(part), "{}", text());
    }
    let number = socket_number(socket.as_raw_fd());
    assert!(number.starts_with("socket:[") && !text().contains(&number), "{}", text());
}

/// What the kernel calls an open socket.
fn socket_number(number: i32) -> String {
    let link = fs::read_link(format!("/proc/self/fd/{number}")).expect("an open file");
    link.display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_is_missing_or_left_over_ends_the_start_and_says_how_to_name_it() {
    let amazon = amazon().await;
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
    let start = |address: &str, variables: &str| {
        Proxy::try_with(&amazon, listen(address, passed(socket.as_fd(), variables))).err()
    };
    for (address, variables, part) in [
        ("systemd:web", "LISTEN_PID=1 LISTEN_FDS=1 LISTEN_FDNAMES=web", "no socket was passed"),
        ("systemd:web", "", "FileDescriptorName=web"),
        ("systemd:web", "LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=admin", "only admin"),
        ("systemd:web", "LISTEN_PID=$$ LISTEN_FDS=1", "only unknown"),
        ("127.0.0.1:0", "LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=web", "add \"systemd:web\""),
        ("systemd:web", "LISTEN_PID=$$ LISTEN_FDS=many", "LISTEN_FDS"),
    ] {
        let said = start(address, variables).unwrap_or_else(|| panic!("it started: {variables}"));
        assert!(said.contains(part), "{part} is not in {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_health_and_the_public_listener_take_sockets_of_any_address() {
    let amazon = amazon().await;
    for (name, path, status) in [("health", "/readyz", 200), ("public", "/metrics", 404)] {
        let socket = TcpListener::bind("0.0.0.0:0").expect("a port");
        let port = socket.local_addr().expect("an address").port();
        let variables = format!("LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES={name}");
        let runner = passed(socket.as_fd(), &variables);
        let key = format!("ADSPROXY_LISTEN__{}", name.to_uppercase());
        let env = vec![(key, format!("systemd:{name}"))];
        let _proxy = Proxy::with(&amazon, Setup { runner, env, ..Setup::default() });
        let address = InternetAddress::from(([127, 0, 0, 1], port));
        let response = ask(address, &format!("GET {path} HTTP/1.1\r\nHost: localhost"));
        assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{name}: {response}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_listener_takes_a_socket_too() {
    let amazon = amazon().await;
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = socket.local_addr().expect("an address");
    let runner = passed(socket.as_fd(), "LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=admin");
    let admin = ("ADSPROXY_LISTEN__ADMIN".to_owned(), "systemd:admin".to_owned());
    let setup = Setup { runner, env: vec![admin], ..Setup::default() };
    let proxy = Proxy::with(&amazon, setup);
    assert_eq!(proxy.admin, address);
    assert!(proxy.ask_admin("/livez").starts_with("HTTP/1.1 200 "));
    assert_eq!(proxy.get("/v2/profiles").await.status, 200);
}
