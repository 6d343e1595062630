//! A bar on a terminal; nothing where nobody watches.

use rustix::termios::tcgetwinsize;
use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

const PAUSE: Duration = Duration::from_millis(100);
const COLUMNS: usize = 80;
const WIDTH_MAX: usize = 60;

/// How far the work is, on standard error. Cleared away when dropped.
pub(super) struct Progress {
    total: usize,
    done: usize,
    is_shown: bool,
    drawn_at: Option<Instant>,
}

impl Progress {
    /// Of `total` steps none is done.
    pub(super) fn new(total: usize) -> Self {
        let is_shown = io::stderr().is_terminal();
        Self { total, done: 0, is_shown, drawn_at: None }
    }

    /// One more step is done.
    pub(super) fn step(&mut self) {
        self.done += 1;
        let is_due = self.drawn_at.is_none_or(|at| at.elapsed() >= PAUSE);
        if self.is_shown && (is_due || self.done == self.total) {
            self.drawn_at = Some(Instant::now());
            let size = tcgetwinsize(io::stderr()).map_or(0, |size| usize::from(size.ws_col));
            // Some terminals do not know how wide they are.
            let columns = if size == 0 { COLUMNS } else { size };
            // A terminal that went away is no reason to stop.
            let _ = write!(io::stderr(), "\r{}\x1b[K", bar(self.done, self.total, columns));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.drawn_at.is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

/// One line shorter than `columns`.
fn bar(done: usize, total: usize, columns: usize) -> String {
    let count = format!("{done}/{total}");
    let width = columns.saturating_sub(count.len() + 5).min(WIDTH_MAX);
    let filled = done * width / total.max(1);
    format!("[{:<width$}] {count}", "#".repeat(filled))
}

#[cfg(test)]
mod tests {
    use super::bar;

    #[test]
    fn the_bar_fills_and_fits() {
        assert_eq!(bar(0, 4, 18), "[          ] 0/4");
        assert_eq!(bar(2, 4, 18), "[#####     ] 2/4");
        assert_eq!(bar(4, 4, 18), "[##########] 4/4");
        for columns in [0, 1, 10, 500] {
            assert!(bar(5000, 5000, columns).len() < columns.clamp(13, 80), "{columns}");
        }
    }
}
