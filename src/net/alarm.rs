//! An alarm clock that wakes a thread that waits for sockets, to the microsecond.

use std::io;
use std::os::fd::AsRawFd;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::fd::OwnedFd;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use crate::time::Timestamp;

/// A timer of the operating system on the clock that the engine is told. It goes on while the
/// machine is suspended; the time-out of a wait for sockets does not, and is rounded to
/// milliseconds.
#[derive(Debug)]
pub(super) struct Alarm {
    timer: OwnedFd,
    set_to: Option<Timestamp>,
}

impl Alarm {
    /// An alarm that is not set.
    pub(super) fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Boottime, flags)?;
        registry.register(&mut SourceFd(&timer.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Self { timer, set_to: None })
    }

    /// Lets the alarm go off at `at`, or not at all.
    pub(super) fn set(&mut self, at: Option<Timestamp>) -> io::Result<()> {
        if self.set_to == at {
            return Ok(());
        }
        // All zeros would mean never; the instant 0 has passed long ago, like 1.
        let nanos = at.map_or(0, |at| at.as_nanos().max(1));
        let value = Timespec {
            tv_sec: i64::try_from(nanos / 1_000_000_000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(nanos % 1_000_000_000).unwrap_or(0),
        };
        let interval = Timespec { tv_sec: 0, tv_nsec: 0 };
        let once = Itimerspec { it_interval: interval, it_value: value };
        timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &once)?;
        self.set_to = at;
        Ok(())
    }

    /// It went off, or may have: it is not set any more.
    pub(super) fn rang(&mut self) {
        self.set_to = None;
    }
}
