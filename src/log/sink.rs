//! The bounded queue and the thread behind it that writes.

use super::escape;
use crate::config::LogFormat;
use parking_lot::Mutex;
use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// Blocks that may wait for the writer: events are one line each, access logs fill theirs.
const QUEUE_BLOCKS: usize = 4096;
/// Bytes that may wait for the writer.
const QUEUE_BYTES: usize = 8 * 1024 * 1024;
/// An access log hands its buffer over when it is this full.
pub(super) const BLOCK_BYTES: usize = 64 * 1024;
/// Emptied access buffers kept for the next use.
const SPARE_BUFFERS: usize = 16;
/// How long a stopping process waits for a stuck output.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// One or more whole lines.
struct LogBlock {
    bytes: Vec<u8>,
    lines: u64,
}

/// The sending side, shared by all threads.
pub(super) struct Sink {
    queue: SyncSender<LogBlock>,
    queued: AtomicUsize,
    spare: Mutex<Vec<Vec<u8>>>,
    stopping: AtomicBool,
    pub(super) dropped: Arc<AtomicU64>,
    pub(super) format: LogFormat,
}

impl std::fmt::Debug for Sink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sink").field("format", &self.format).finish_non_exhaustive()
    }
}

/// The thread, and the sign that it has ended.
#[derive(Debug)]
pub(super) struct Writer {
    thread: Option<JoinHandle<()>>,
    ended: Receiver<()>,
}

/// Starts the writer thread.
pub(super) fn spawn(
    out: impl Write + Send + 'static,
    format: LogFormat,
) -> io::Result<(Arc<Sink>, Writer)> {
    let (queue, blocks) = sync_channel(QUEUE_BLOCKS);
    let (end, ended) = sync_channel::<()>(0);
    let sink = Arc::new(Sink {
        queue,
        queued: AtomicUsize::new(0),
        spare: Mutex::default(),
        stopping: AtomicBool::new(false),
        dropped: Arc::default(),
        format,
    });
    let shared = Arc::clone(&sink);
    let thread = thread::Builder::new().name("log".into()).spawn(move || {
        // Dropped when the thread ends, however it ends: that is the sign.
        let _end = end;
        run(&shared, &blocks, out);
    })?;
    Ok((sink, Writer { thread: Some(thread), ended }))
}

impl Sink {
    /// Queues one finished line of the event layer.
    pub(super) fn event(&self, line: &[u8]) {
        let bytes = match self.format {
            LogFormat::Json => escape::finish_json(line),
            LogFormat::Text => line.to_vec(),
        };
        self.send(bytes, 1);
    }

    /// Queues `buffer`, which holds `lines` lines, and leaves an empty one in its place.
    pub(super) fn swap(&self, buffer: &mut Vec<u8>, lines: u64) {
        let spare = self.spare.try_lock().and_then(|mut spare| spare.pop());
        let empty = spare.unwrap_or_else(|| Vec::with_capacity(BLOCK_BYTES + BLOCK_BYTES / 4));
        self.send(std::mem::replace(buffer, empty), lines);
    }

    /// Never waits: what does not fit is counted and gone.
    fn send(&self, bytes: Vec<u8>, lines: u64) {
        let len = bytes.len();
        let fits = self.queued.fetch_add(len, Ordering::Relaxed) < QUEUE_BYTES;
        if !fits || self.queue.try_send(LogBlock { bytes, lines }).is_err() {
            self.queued.fetch_sub(len, Ordering::Relaxed);
            self.dropped.fetch_add(lines, Ordering::Relaxed);
        }
    }

    fn keep_spare(&self, mut buffer: Vec<u8>) {
        // Only buffers of access logs are worth keeping; an unusually large one is let go.
        if (BLOCK_BYTES..4 * BLOCK_BYTES).contains(&buffer.capacity()) {
            buffer.clear();
            let mut spare = self.spare.lock();
            if spare.len() < SPARE_BUFFERS {
                spare.push(buffer);
            }
        }
    }
}

impl Writer {
    /// Lets the thread finish the queue and end.
    pub(super) fn stop(&mut self, sink: &Sink) {
        let Some(thread) = self.thread.take() else { return };
        sink.stopping.store(true, Ordering::SeqCst);
        // Wakes an idle thread. If the queue is full the thread is busy and looks by itself.
        sink.send(Vec::new(), 0);
        match self.ended.recv_timeout(STOP_TIMEOUT) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => drop(thread.join()),
        }
    }
}

fn run(sink: &Sink, blocks: &Receiver<LogBlock>, mut out: impl Write) {
    while let Ok(first) = blocks.recv() {
        let mut next = Some(first);
        while let Some(block) = next {
            sink.queued.fetch_sub(block.bytes.len(), Ordering::Relaxed);
            if out.write_all(&block.bytes).is_err() {
                sink.dropped.fetch_add(block.lines, Ordering::Relaxed);
            }
            sink.keep_spare(block.bytes);
            next = blocks.try_recv().ok();
        }
        // A failed flush has no lines to count, and there is nowhere to complain.
        let _unreported = out.flush();
        if sink.stopping.load(Ordering::SeqCst) {
            return;
        }
    }
}
