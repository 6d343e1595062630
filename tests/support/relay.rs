//! A relay before PostgreSQL: it notes the statements of a process, and kills that at one of them.

use rustix::process::{Pid, Signal, kill_process};
use std::{
    fmt,
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

/// `ReadyForQuery`, but for its last byte.
const READY: [u8; 5] = [b'Z', 0, 0, 0, 5];
const TIMEOUT: Duration = Duration::from_secs(10);

/// Where a process is killed: at this statement, as it comes for the nth time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Point {
    pub statement: String,
    pub nth: usize,
    /// Once the database has done it, of which the process never hears; else before.
    pub is_done: bool,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<_> = self.statement.split_whitespace().take(12).collect();
        let when = if self.is_done { "after" } else { "before" };
        write!(f, "{when} #{} of {}", self.nth, words.join(" "))
    }
}

/// Ends with the process.
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Mutex<Notes>>,
}

#[derive(Default)]
struct Notes {
    seen: Vec<String>,
    kill: Option<Point>,
    victim: Option<u32>,
    has_killed: bool,
    /// Connections that the database has not closed.
    open: usize,
}

impl Relay {
    /// Before the server whose socket is in `directory`.
    pub fn start(directory: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::<Mutex<Notes>>::default();
        let (notes, socket) = (shared.clone(), directory.join(".s.PGSQL.5432"));
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (notes, socket) = (notes.clone(), socket.clone());
                thread::spawn(move || drop(serve(client, &socket, &notes)));
            }
        });
        Self { address, shared }
    }

    pub fn url(&self) -> String {
        format!("postgres://adsproxy@{}/postgres", self.address)
    }

    /// Notes from now on.
    pub fn record(&self) {
        self.notes(|notes| notes.seen.clear());
    }

    /// How many statements came since then.
    pub fn count(&self) -> usize {
        self.notes(|notes| notes.seen.len())
    }

    /// A point for every statement since then, before and after it.
    pub fn points(&self) -> Vec<Point> {
        let seen = self.notes(|notes| notes.seen.clone());
        let mut points: Vec<Point> = Vec::new();
        for statement in seen {
            let nth = points.iter().filter(|point| point.statement == statement).count() / 2 + 1;
            for is_done in [false, true] {
                points.push(Point { statement: statement.clone(), nth, is_done });
            }
        }
        points
    }

    /// Kills the process at `point`, counted from now on, once it is known which one that is.
    pub fn kill_at(&self, point: &Point) {
        self.notes(|notes| {
            *notes = Notes { kill: Some(point.clone()), open: notes.open, ..Notes::default() };
        });
    }

    pub fn set_victim(&self, pid: u32) {
        self.notes(|notes| notes.victim = Some(pid));
    }

    pub fn has_killed(&self) -> bool {
        self.notes(|notes| notes.has_killed)
    }

    /// Kills no more; says whether it has. A kill that has begun is waited for: it would come later.
    pub fn disarm(&self) -> bool {
        if self.notes(|notes| notes.kill.take().is_some()) {
            return false;
        }
        let deadline = Instant::now() + 2 * TIMEOUT;
        while !self.has_killed() {
            assert!(
                Instant::now() < deadline,
                "the statement came, and the process was not killed"
            );
            thread::sleep(Duration::from_millis(1));
        }
        true
    }

    /// Whether all that came has happened, or will not: no connection is left.
    pub fn is_done(&self) -> bool {
        self.notes(|notes| notes.open == 0)
    }

    fn notes<T>(&self, work: impl FnOnce(&mut Notes) -> T) -> T {
        work(&mut self.shared.lock().expect("no panic"))
    }
}

/// Serves one connection to its end, and that of the one to the database.
fn serve(client: TcpStream, socket: &PathBuf, notes: &Mutex<Notes>) -> io::Result<()> {
    client.set_nodelay(true)?;
    let server = UnixStream::connect(socket)?;
    let is_held = Arc::<AtomicBool>::default();
    let (ready, is_ready) = channel();
    let (of_server, of_client, held) = (server.try_clone()?, client.try_clone()?, is_held.clone());
    notes.lock().expect("no panic").open += 1;
    let back = thread::spawn(move || drop(pass_back(of_server, of_client, &held, &ready)));
    let passed = pass_on(client, &server, (&is_held, &is_ready), notes);
    // The database closes it once it has done what came before.
    let ended = server.shutdown(Shutdown::Write);
    let _ = back.join();
    notes.lock().expect("no panic").open -= 1;
    passed.and(ended)
}

/// Passes on what the process sends.
fn pass_on(
    mut client: TcpStream,
    mut server: &UnixStream,
    held: (&AtomicBool, &Receiver<()>),
    notes: &Mutex<Notes>,
) -> io::Result<()> {
    // Parameters and name of the user have no tag.
    forward(&mut client, &mut server, &[])?;
    loop {
        let mut tag = [0];
        client.read_exact(&mut tag)?;
        let message = read(&mut client, &tag)?;
        if let Some(statement) = statement(&message)
            && let Some(point) = hit(notes, statement)
        {
            return kill(client, server, &message, &point, held, notes);
        }
        server.write_all(&message)?;
    }
}

/// Kills the process before or after the database has done what `message` begins.
fn kill(
    mut client: TcpStream,
    mut server: &UnixStream,
    message: &[u8],
    point: &Point,
    (is_held, is_ready): (&AtomicBool, &Receiver<()>),
    notes: &Mutex<Notes>,
) -> io::Result<()> {
    if point.is_done {
        is_held.store(true, SeqCst);
        server.write_all(message)?;
        let mut tag = [message[0]];
        // To the end of what belongs together: `Sync`, or a simple query.
        while tag != [b'S'] && tag != [b'Q'] {
            client.read_exact(&mut tag)?;
            forward(&mut client, &mut server, &tag)?;
        }
        is_ready.recv_timeout(TIMEOUT).map_err(io::Error::other)?;
    }
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let victim = notes.lock().expect("no panic").victim;
        if let Some(pid) = victim.and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)) {
            kill_process(pid, Signal::KILL)?;
            notes.lock().expect("no panic").has_killed = true;
            return Ok(());
        }
        assert!(Instant::now() < deadline, "nobody says which process");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Notes a statement; the point, if the process is to be killed here.
fn hit(notes: &Mutex<Notes>, statement: String) -> Option<Point> {
    let mut notes = notes.lock().expect("no panic");
    let nth = notes.seen.iter().filter(|seen| **seen == statement).count() + 1;
    let is_hit = notes.kill.as_ref().is_some_and(|it| it.statement == statement && it.nth == nth);
    notes.seen.push(statement);
    if is_hit { notes.kill.take() } else { None }
}

/// What the database responds goes to the process, unless it is held back: then its end is reported.
fn pass_back(
    mut server: UnixStream,
    mut client: TcpStream,
    is_held: &AtomicBool,
    ready: &Sender<()>,
) -> io::Result<()> {
    let (mut bytes, mut held) = ([0; 16_384], Vec::new());
    loop {
        let length = server.read(&mut bytes)?;
        if length == 0 {
            return client.shutdown(Shutdown::Write);
        }
        if !is_held.load(SeqCst) {
            // A process that is gone reads nothing, while the database is still at work for it.
            let _ = client.write_all(&bytes[..length]);
            continue;
        }
        held.extend_from_slice(&bytes[..length]);
        let end = held.len().saturating_sub(6);
        if held[end..].starts_with(&READY) {
            let _ = ready.send(());
        }
    }
}

/// The text of a message that begins a statement.
fn statement(message: &[u8]) -> Option<String> {
    let mut texts = message.get(5..)?.split(|byte| *byte == 0);
    let text = match message[0] {
        b'Q' => texts.next(),
        // Behind the name of the prepared statement.
        b'P' => texts.nth(1),
        _ => None,
    };
    text.map(|text| String::from_utf8_lossy(text).into_owned())
}

/// A message behind its tag, which may be empty: all of it.
fn read(from: &mut impl Read, tag: &[u8]) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let rest = usize::try_from(u32::from_be_bytes(length)).map_err(io::Error::other)?;
    let mut message = [tag, &length].concat();
    let start = message.len();
    message.resize(start + rest.saturating_sub(4), 0);
    from.read_exact(&mut message[start..])?;
    Ok(message)
}

fn forward(from: &mut impl Read, to: &mut impl Write, tag: &[u8]) -> io::Result<()> {
    let message = read(from, tag)?;
    to.write_all(&message)
}
