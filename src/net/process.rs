//! What the system says of this process.

use std::sync::OnceLock;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::net::clock::unix_time;
use crate::observe::Process;

/// What is known now; on systems without `/proc` less than elsewhere.
pub(super) fn process() -> Process {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    let nanos = u32::try_from(spent.tv_nsec).unwrap_or(0);
    Process {
        resident_bytes: resident_bytes(),
        cpu: u64::try_from(spent.tv_sec).ok().map(|seconds| Duration::new(seconds, nanos)),
        open_fds: std::fs::read_dir("/proc/self/fd").ok().map(|all| all.count() as u64),
        started: started(),
    }
}

fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    pages.checked_mul(rustix::param::page_size() as u64)
}

/// When the process started, in time since 1970: as it is looked at first, so that it stays the
/// same.
fn started() -> Option<Duration> {
    static STARTED: OnceLock<Option<Duration>> = OnceLock::new();
    *STARTED.get_or_init(|| {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        // The name of the command, in parentheses, may have spaces.
        let ticks: u64 = stat.rsplit(") ").next()?.split(' ').nth(19)?.parse().ok()?;
        let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
        let uptime: f64 = uptime.split(' ').next()?.parse().ok()?;
        let per_second = rustix::param::clock_ticks_per_second();
        let since_boot = Duration::from_millis(ticks * 1000 / per_second);
        let age = Duration::try_from_secs_f64(uptime).ok()?.checked_sub(since_boot)?;
        unix_time().checked_sub(age)
    })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_process_knows_itself() {
        let seen = process();
        assert!(seen.resident_bytes.is_some_and(|bytes| bytes > 1 << 20));
        assert!(seen.open_fds.is_some_and(|count| count > 2));
        let age = unix_time().checked_sub(seen.started.unwrap()).unwrap();
        assert!(age < Duration::from_secs(24 * 3600), "{age:?}");
        assert_eq!(process().started, seen.started);
    }
}
