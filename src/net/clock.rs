//! The clock of the operating system.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::time::{Clock, Timestamp};

/// On Linux, `CLOCK_BOOTTIME`: monotonic, and goes on while the machine is suspended.
#[cfg(any(target_os = "linux", target_os = "android"))]
const CLOCK: ClockId = ClockId::Boottime;

/// Elsewhere, the monotonic clock.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const CLOCK: ClockId = ClockId::Monotonic;

/// Time since the machine was started.
#[derive(Clone, Copy, Debug, Default)]
pub struct BootClock;

impl Clock for BootClock {
    fn now(&self) -> Timestamp {
        let time = clock_gettime(CLOCK);
        // Both are positive on this clock, and the seconds of centuries fit.
        Timestamp::from_nanos(
            time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned(),
        )
    }
}

/// What a clock shows, as a length of time: those of the processor tell how much was worked.
pub(super) fn length(of: ClockId) -> Duration {
    let time = clock_gettime(of);
    Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
}

/// Microseconds of `CLOCK_MONOTONIC`, by which systemd tells what came first.
#[must_use]
pub fn monotonic_micros() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    // Both are positive on this clock, and the seconds of centuries fit.
    time.tv_sec.cast_unsigned() * 1_000_000 + time.tv_nsec.cast_unsigned() / 1_000
}

/// The time of day, since 1970: to show to people, never to decide by.
#[must_use]
pub fn unix_time() -> Duration {
    length(ClockId::Realtime)
}
