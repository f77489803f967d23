//! Instants of one monotonic clock, and clocks as values.
//!
//! Nothing outside `net::clock` asks the operating system for the time: whoever decides is told.

use std::ops::Add;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// An instant on a monotonic clock, in nanoseconds since an origin that only that clock knows.
///
/// Instants of different clocks cannot be compared; only lengths of time travel between hosts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The origin of the clock.
    pub const ZERO: Self = Self(0);

    /// The last instant that can be named: 584 years after the origin.
    pub const NEVER: Self = Self(u64::MAX);

    /// The instant `nanos` nanoseconds after the origin.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the origin.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The instant that follows this one: nothing lies between the two.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The instant that is so long before this one; none is before the origin.
    #[must_use]
    pub fn before(self, length: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(length.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// How long after `earlier` this instant is; nothing if it is not after.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    /// The end of time is the last instant that a [`Timestamp`] can name, 584 years away.
    fn add(self, length: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(length.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// Something that tells the time.
pub trait Clock {
    /// The present instant. Never before one that this clock has told already.
    fn now(&self) -> Timestamp;
}

/// A clock that moves only when it is told to: for tests of code that decides by time.
///
/// ```
/// use std::time::Duration;
/// use zmqlocker::time::{Clock, ManualClock, Timestamp};
///
/// let clock = ManualClock::default();
/// clock.advance(Duration::from_nanos(7));
/// assert_eq!(clock.now(), Timestamp::from_nanos(7));
/// ```
#[derive(Debug, Default)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    /// Moves the clock on.
    pub fn advance(&self, length: Duration) {
        self.0.store((self.now() + length).as_nanos(), Ordering::Release);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::Acquire))
    }
}

impl<C: Clock> Clock for &C {
    fn now(&self) -> Timestamp {
        (*self).now()
    }
}
