//! A capture too large for memory: an unlinked temporary file, read and written off the worker.

use super::frames::Frames;
use bytes::Bytes;
use std::{
    fs::File,
    future::Future,
    io,
    os::unix::fs::FileExt,
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tokio::task::{JoinHandle, spawn_blocking};

/// How much is written or read back at once, bytes.
const BLOCK_BYTES: u64 = 64 * 1024;

/// The file, made if there was none, and how much it holds.
type Written = io::Result<(Arc<File>, u64)>;

/// The file, and what is on its way to or from it.
pub(super) struct Spill {
    directory: Option<PathBuf>,
    file: Option<Arc<File>>,
    /// Written once there is a block of it, or for a read.
    pub(super) queued: Frames,
    written: u64,
    writing: Option<JoinHandle<Written>>,
    /// A read under way, and where it began.
    reading: Option<(u64, JoinHandle<io::Result<Bytes>>)>,
}

impl Spill {
    /// A spill of `queued`, whose file is made in `directory` (or the system's) at the first write.
    pub(super) fn new(directory: Option<PathBuf>, queued: Frames) -> Self {
        Self { directory, file: None, queued, written: 0, writing: None, reading: None }
    }

    /// Ready when more may be appended, which bounds what waits in memory.
    pub(super) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.writing.is_none() && self.queued.len() < BLOCK_BYTES {
            return Poll::Ready(Ok(()));
        }
        self.poll_written(cx)
    }

    /// Ready when everything appended is in the file.
    pub(super) fn poll_written(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if let Some(writing) = &mut self.writing {
                let outcome = ready!(Pin::new(writing).poll(cx));
                self.writing = None;
                let (file, written) = outcome.map_err(io::Error::other)??;
                self.file = Some(file);
                self.written = written;
            }
            if self.queued.len() == 0 {
                return Poll::Ready(Ok(()));
            }
            let frames = std::mem::take(&mut self.queued);
            let (file, at, directory) = (self.file.take(), self.written, self.directory.clone());
            self.writing = Some(spawn_blocking(move || write(file, directory, at, frames)));
        }
    }

    /// Reads on from `offset`; everything must be written.
    pub(super) fn poll_read(
        &mut self,
        offset: u64,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Bytes>> {
        ready!(self.poll_written(cx))?;
        let Some(file) = &self.file else {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        };
        // An attempt that a 401 ended may have left a read at another offset behind.
        self.reading.take_if(|(at, _)| *at != offset);
        let (_, reading) = self.reading.get_or_insert_with(|| {
            let file = file.clone();
            let len = BLOCK_BYTES.min(self.written.saturating_sub(offset));
            let read = move || {
                let mut data = vec![0; usize::try_from(len).unwrap_or_default()];
                file.read_exact_at(&mut data, offset)?;
                Ok(Bytes::from(data))
            };
            (offset, spawn_blocking(read))
        });
        let outcome = ready!(Pin::new(reading).poll(cx));
        self.reading = None;
        let data = outcome.map_err(io::Error::other)??;
        if data.is_empty() {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        Poll::Ready(Ok(data))
    }
}

fn write(
    file: Option<Arc<File>>,
    directory: Option<PathBuf>,
    mut at: u64,
    frames: Frames,
) -> Written {
    let file = match (file, directory) {
        (Some(file), _) => file,
        (None, Some(directory)) => Arc::new(tempfile::tempfile_in(directory)?),
        (None, None) => Arc::new(tempfile::tempfile()?),
    };
    for frame in frames.into_frames() {
        file.write_all_at(&frame, at)?;
        at += frame.len() as u64;
    }
    Ok((file, at))
}
