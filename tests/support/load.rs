//! How late a busy machine is, so that a test can hold the program to a time and not the machine.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

const PAUSE: Duration = Duration::from_millis(5);

/// How long a test waits for what must come: so long that only what never comes fails, however busy
/// the machine is. What must come *soon* is held to its time and the `slack` of `Load`.
pub const TEST_TIMEOUT: Duration = Duration::from_secs(90);

/// Measures for as long as it lives.
pub struct Load {
    latest: Arc<AtomicU64>,
    has_ended: Arc<AtomicBool>,
}

impl Load {
    pub fn measure() -> Self {
        let (latest, has_ended) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (late, end) = (latest.clone(), has_ended.clone());
        thread::spawn(move || {
            while !end.load(Relaxed) {
                let began = Instant::now();
                thread::sleep(PAUSE);
                let micros = began.elapsed().saturating_sub(PAUSE).as_micros();
                late.fetch_max(u64::try_from(micros).unwrap_or(u64::MAX), Relaxed);
            }
        });
        Self { latest, has_ended }
    }

    /// What several steps in a row may cost more than they would on a quiet machine: the latest
    /// wake-up of a thread that only slept, for each of ten.
    pub fn slack(&self) -> Duration {
        Duration::from_micros(self.latest.load(Relaxed)) * 10
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.has_ended.store(true, Relaxed);
    }
}
