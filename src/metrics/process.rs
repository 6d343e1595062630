//! The usual `process_*` metrics, from `/proc/self`; systems without it show none.

use super::encode::Exposition;
use std::fs;

/// Linux counts times for `/proc` in hundredths of a second on every architecture we build for.
const TICKS_PER_SECOND: f64 = 100.0;

/// Adds what can be found out.
pub(super) fn render(page: &mut Exposition) {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let memory = number("/proc/self/status", "VmRSS:").map(|kib| kib * 1024.0);
    let limit = number("/proc/self/limits", "Max open files");
    let start = number("/proc/stat", "btime ")
        .and_then(|boot| Some(boot + field(&stat, 22)? / TICKS_PER_SECOND));
    for (name, help, value) in [
        ("process_resident_memory_bytes", "Resident memory.", memory),
        ("process_open_fds", "Open file descriptors.", open_fds()),
        ("process_max_fds", "Limit of open file descriptors.", limit),
        ("process_cpu_seconds_total", "User and system time.", cpu_seconds(&stat)),
        ("process_start_time_seconds", "Start of the process since 1970-01-01 UTC.", start),
    ] {
        if let Some(value) = value {
            page.single(name, help, value);
        }
    }
}

/// The number behind `key` in the file `path`.
fn number(path: &str, key: &str) -> Option<f64> {
    let text = fs::read_to_string(path).ok()?;
    let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
    rest.split_whitespace().next()?.parse().ok()
}

fn open_fds() -> Option<f64> {
    // One of them is the directory being read.
    Some(fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1) as f64)
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
