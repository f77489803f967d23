//! The gate within one process: a window of the engine, a clock, a mutex.

use std::sync::{Mutex, PoisonError};

use crate::answer::Answer;
use crate::engine::{FixedWindow, Rate};
use crate::time::Clock;

/// Grants at most so many requests in a slot of time, to all threads together.
///
/// ```
/// use std::time::Duration;
/// use zmqlocker::answer::Answer::{Go, Sorry};
/// use zmqlocker::engine::Rate;
/// use zmqlocker::locker::Locker;
/// use zmqlocker::time::ManualClock;
///
/// let clock = ManualClock::default();
/// let locker = Locker::new(&clock, Rate::new(2, 0.8)?);
/// assert_eq!([locker.next(), locker.next(), locker.next()], [Go, Go, Sorry]);
/// clock.advance(Duration::from_millis(801));
/// assert_eq!(locker.next(), Go);
/// # Ok::<(), zmqlocker::error::Error>(())
/// ```
#[derive(Debug)]
pub struct Locker<C> {
    clock: C,
    window: Mutex<FixedWindow>,
}

impl<C: Clock> Locker<C> {
    /// A locker whose first slot is open from now.
    pub fn new(clock: C, limit: Rate) -> Self {
        let window = Mutex::new(FixedWindow::new(clock.now(), limit));
        Self { clock, window }
    }

    /// Counts a request and answers it. Never waits.
    pub fn next(&self) -> Answer {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        // Read under the mutex: the window sees instants in their order.
        if window.try_acquire(self.clock.now()) { Answer::Go } else { Answer::Sorry }
    }
}
