//! Reports to the service manager that started this process how it is: started, reloading, stopping,
//! alive (`sd_notify`). Where there is none (`NOTIFY_SOCKET` is not set) nothing is sent.
//!
//! Source: sd_notify(3), sd_watchdog_enabled(3).

use crate::{admin::health::Health, listen::inherited::InheritedSockets};
use rustix::time::{ClockId, clock_gettime};
use std::{
    env,
    ffi::{OsStr, OsString},
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    process,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::time::sleep;
use tracing::{error, info, warn};

/// How long a manager that reads nothing may hold up what is reported.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);
/// Between two requests for more time to start.
const START_STEP: Duration = Duration::from_secs(10);
/// A worker without a heartbeat for this long hangs; the watchdog's time is used where there is one.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(30);
/// Looks at the heartbeats within that time.
const LOOKS: u32 = 4;
/// The count of a heartbeat whose thread has ended as it should.
const ENDED: u64 = u64::MAX;

/// What the service manager that started this process gives to a server.
#[derive(Default)]
pub(super) struct Managed {
    pub(super) sockets: InheritedSockets,
    pub(super) supervisor: Supervisor,
}

impl Managed {
    /// The same for another attempt to start.
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { sockets: self.sockets.try_clone()?, supervisor: self.supervisor.clone() })
    }
}

/// The service manager, if there is one. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Supervisor(Option<Arc<Manager>>);

#[derive(Debug)]
struct Manager {
    /// The socket's path, or its abstract name behind `@`.
    socket: OsString,
    /// After this long without a sign of life the process is killed.
    watchdog: Option<Duration>,
    is_stopping: AtomicBool,
    has_failed: AtomicBool,
}

impl Supervisor {
    /// The manager that this process's environment names. A hook's program does not inherit it:
    /// it gets no variable of ours.
    pub(super) fn of_process() -> Self {
        let socket = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty());
        let number = |name| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|micros| is_ours && *micros > 0);
        let manager =
            socket.map(|socket| Manager::new(socket, watchdog.map(Duration::from_micros)));
        Self(manager.map(Arc::new))
    }

    /// The start is over.
    pub(super) fn ready(&self) {
        self.send("READY=1\nSTATUS=Serving");
    }

    /// Asks for more time to start, for ever.
    pub(super) async fn keep_starting(&self) {
        let micros = (START_STEP * 3).as_micros();
        loop {
            self.send(&format!("EXTEND_TIMEOUT_USEC={micros}\nSTATUS=Waiting for the store"));
            sleep(START_STEP).await;
        }
    }

    /// A reload begins, and lasts until what is returned is dropped.
    pub(super) fn reloading(&self) -> Reloading {
        if self.0.is_some() {
            let now = clock_gettime(ClockId::Monotonic);
            let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
            self.send(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
        }
        Reloading { supervisor: self.clone(), is_done: false }
    }

    /// The stop begins.
    pub(super) fn stopping(&self) {
        if let Some(manager) = &self.0 {
            manager.is_stopping.store(true, Relaxed);
        }
        self.send("STOPPING=1\nSTATUS=Finishing the requests in flight");
    }

    /// Shows for ever whether each of `heartbeats` goes on, by the watchdog and by `health`. That this
    /// runs at all shows that its own runtime does.
    ///
    /// Looks are counted, not time: a process that was paused is not found hung when it goes on.
    pub(super) async fn keep_alive(self, heartbeats: Vec<Arc<Heartbeat>>, health: Arc<Health>) {
        let watchdog = self.0.as_ref().and_then(|manager| manager.watchdog);
        if let Some(timeout) = watchdog {
            info!(
                timeout_secs = timeout.as_secs_f64(),
                "the watchdog of the service manager is on"
            );
        }
        let pause = watchdog.unwrap_or(HEARTBEAT_TIMEOUT) / LOOKS;
        let mut seen: Vec<Option<u64>> = vec![None; heartbeats.len()];
        let mut missed = 0;
        loop {
            let counts: Vec<Option<u64>> = heartbeats.iter().map(|it| Some(it.count())).collect();
            let moves =
                |(old, new): (&Option<u64>, &Option<u64>)| old != new || *new == Some(ENDED);
            match seen.iter().zip(&counts).position(|pair| !moves(pair)) {
                None => {
                    health.set_hung(false);
                    if watchdog.is_some() {
                        self.send("WATCHDOG=1");
                    }
                    (seen, missed) = (counts, 0);
                }
                Some(worker) => {
                    missed += 1;
                    // Between two beats of the same worker there may be a look or two.
                    if missed > 1 {
                        warn!(worker, "a worker hangs");
                    }
                    health.set_hung(missed >= LOOKS);
                }
            }
            sleep(pause).await;
        }
    }

    fn send(&self, state: &str) {
        let Some(manager) = &self.0 else { return };
        if let Err(error) = manager.send(state)
            && !manager.has_failed.swap(true, Relaxed)
        {
            let socket = manager.socket.to_string_lossy();
            error!(%error, %socket, "cannot report to the service manager (NOTIFY_SOCKET)");
        }
    }
}

impl Manager {
    fn new(socket: OsString, watchdog: Option<Duration>) -> Self {
        let (is_stopping, has_failed) = Default::default();
        Self { socket, watchdog, is_stopping, has_failed }
    }

    fn send(&self, state: &str) -> io::Result<()> {
        let address = address(&self.socket)?;
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(SEND_TIMEOUT))?;
        socket.send_to_addr(state.as_bytes(), &address).map(drop)
    }
}

/// The address that `NOTIFY_SOCKET` names.
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes() {
        [b'/', ..] => SocketAddr::from_pathname(name),
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        _ => Err(io::Error::new(io::ErrorKind::Unsupported, "is neither a path nor abstract")),
    }
}

/// The manager shows a reload until this is dropped.
#[must_use]
pub(super) struct Reloading {
    supervisor: Supervisor,
    is_done: bool,
}

impl Reloading {
    /// Says how it went.
    pub(super) fn finish(mut self, is_done: bool) {
        self.is_done = is_done;
    }
}

impl Drop for Reloading {
    fn drop(&mut self) {
        let Some(manager) = &self.supervisor.0 else { return };
        // A process that stops does not become ready again.
        if manager.is_stopping.load(Relaxed) {
            return;
        }
        let status = match self.is_done {
            true => "Serving",
            false => {
                "Serving with the configuration before the last reload, which failed: see the log"
            }
        };
        self.supervisor.send(&format!("READY=1\nSTATUS={status}"));
    }
}

/// Counts the rounds of a thread.
#[derive(Debug, Default)]
pub(super) struct Heartbeat(AtomicU64);

impl Heartbeat {
    pub(super) fn beat(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// The thread ends as it should: nothing is expected of it any more.
    pub(super) fn end(&self) {
        self.0.store(ENDED, Relaxed);
    }

    fn count(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    const TIMEOUT: Duration = Duration::from_millis(200);

    /// A manager of the test's own, and the socket it reads.
    fn manager() -> (Supervisor, UnixDatagram) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        // The file must outlive this function.
        let path = directory.keep().join("notify").into_os_string();
        (Supervisor(Some(Arc::new(Manager::new(path, Some(TIMEOUT))))), socket)
    }

    fn message(socket: &UnixDatagram) -> Option<String> {
        let mut bytes = [0; 1024];
        let length = socket.recv(&mut bytes).ok()?;
        Some(String::from_utf8(bytes[..length].to_vec()).unwrap())
    }

    /// Waits for a sign of life for a hundred times as long as it may take.
    async fn lives(socket: &UnixDatagram) -> bool {
        for _ in 0..2000 {
            if message(socket).as_deref() == Some("WATCHDOG=1") {
                return true;
            }
            sleep(Duration::from_millis(10)).await;
        }
        false
    }

    #[tokio::test]
    async fn there_is_a_sign_of_life_while_every_worker_beats_and_none_once_one_hangs() {
        let (supervisor, socket) = manager();
        let [beating, hanging, ended] = [(); 3].map(|()| Arc::<Heartbeat>::default());
        ended.end();
        let heartbeats = vec![beating.clone(), hanging.clone(), ended];
        let health = Arc::<Health>::default();
        let task = tokio::spawn(supervisor.keep_alive(heartbeats, health.clone()));
        for _ in 0..3 {
            beating.beat();
            hanging.beat();
            assert!(lives(&socket).await);
        }
        // The whole process was paused: one look, however late, sees no beat.
        std::thread::sleep(TIMEOUT * 4);
        sleep(Duration::from_millis(1)).await;
        assert!(!health.is_hung());
        beating.beat();
        hanging.beat();
        assert!(lives(&socket).await);
        let silent = async {
            loop {
                beating.beat();
                assert_eq!(message(&socket), None);
                sleep(Duration::from_millis(10)).await;
            }
        };
        assert!(!health.is_hung());
        assert!(timeout(TIMEOUT * 4, silent).await.is_err());
        assert!(health.is_hung());
        beating.beat();
        hanging.beat();
        assert!(lives(&socket).await && !health.is_hung(), "it goes on");
        task.abort();
    }

    #[test]
    fn a_reload_ends_ready_unless_the_process_stops_meanwhile() {
        let (supervisor, socket) = manager();
        supervisor.reloading().finish(true);
        let begin = message(&socket).unwrap();
        let micros = begin.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        assert!(micros.parse::<u64>().unwrap() > 0);
        assert_eq!(message(&socket).as_deref(), Some("READY=1\nSTATUS=Serving"));
        supervisor.reloading().finish(false);
        assert!(message(&socket).unwrap().starts_with("RELOADING=1\n"));
        assert!(message(&socket).unwrap().contains("which failed"));
        let reload = supervisor.reloading();
        assert!(message(&socket).is_some());
        supervisor.stopping();
        assert!(message(&socket).unwrap().starts_with("STOPPING=1\n"));
        drop(reload);
        assert_eq!(message(&socket), None);
    }

    #[test]
    fn a_socket_has_a_path_or_an_abstract_name() {
        assert!(address("/run/notify".as_ref()).unwrap().as_pathname().is_some());
        let name = address("@a/b".as_ref()).unwrap();
        assert_eq!(name.as_abstract_name(), Some(b"a/b".as_slice()));
        for other in ["", "vsock:2:1", "run/notify"] {
            assert!(address(other.as_ref()).is_err(), "{other}");
        }
    }

    #[test]
    fn a_manager_that_is_gone_does_no_harm() {
        let manager = Manager::new("/no/such/socket".into(), None);
        let supervisor = Supervisor(Some(Arc::new(manager)));
        supervisor.ready();
        supervisor.stopping();
        Supervisor::default().reloading().finish(true);
    }
}
