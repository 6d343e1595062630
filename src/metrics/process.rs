//! The usual `process_*` metrics, from `/proc/self`; systems without it show none.

use super::encode::{Exposition, MetricKind};
use std::fs;

/// Linux counts times for `/proc` in hundredths of a second on every architecture we build for.
const TICKS_PER_SECOND: f64 = 100.0;

/// Adds what can be found out.
pub(super) fn render(page: &mut Exposition) {
    if let Some(bytes) = memory_bytes("VmRSS:") {
        let help = "Resident memory.";
        page.family("process_resident_memory_bytes", help, MetricKind::Gauge);
        page.sample(&[], bytes);
    }
    if let Some(count) = open_fds() {
        page.family("process_open_fds", "Open file descriptors.", MetricKind::Gauge);
        page.sample(&[], count);
    }
    if let Some(count) = max_fds() {
        page.family("process_max_fds", "Limit of open file descriptors.", MetricKind::Gauge);
        page.sample(&[], count);
    }
    let Some(stat) = fs::read_to_string("/proc/self/stat").ok() else { return };
    if let Some(seconds) = cpu_seconds(&stat) {
        let help = "User and system time.";
        page.family("process_cpu_seconds_total", help, MetricKind::Counter);
        page.sample(&[], seconds);
    }
    if let Some(seconds) = start_time(&stat) {
        let help = "Start of the process since 1970-01-01 UTC.";
        page.family("process_start_time_seconds", help, MetricKind::Gauge);
        page.sample(&[], seconds);
    }
}

fn memory_bytes(key: &str) -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

fn open_fds() -> Option<usize> {
    // One of them is the directory being read.
    Some(fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1))
}

fn max_fds() -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Field `number` (from 1, as in proc(5)) of `/proc/self/stat`.
fn field(stat: &str, number: usize) -> Option<f64> {
    // The second field is the command in parentheses and may hold anything, spaces included.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    Some((field(stat, 14)? + field(stat, 15)?) / TICKS_PER_SECOND)
}

fn start_time(stat: &str) -> Option<f64> {
    let system = fs::read_to_string("/proc/stat").ok()?;
    let boot = system.lines().find_map(|line| line.strip_prefix("btime "))?;
    Some(boot.trim().parse::<f64>().ok()? + field(stat, 22)? / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let stat = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 1 0 4200 0";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(field(stat, 22), Some(4200.0));
        assert_eq!(cpu_seconds("no such thing"), None);
    }
}
