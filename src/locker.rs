//! The gate within one process: an engine, a clock, a mutex.

use std::sync::{Mutex, PoisonError};

use crate::answer::Answer;
use crate::engine::{Input, Limit, Machine, Patience};
use crate::time::Clock;

/// Grants at most so many requests in a slot of time, to all threads together.
///
/// ```
/// use std::time::Duration;
/// use zmqlocker::answer::Answer::{Go, Sorry};
/// use zmqlocker::engine::Limit;
/// use zmqlocker::locker::Locker;
/// use zmqlocker::time::ManualClock;
///
/// let clock = ManualClock::default();
/// let locker = Locker::new(&clock, Limit::new(2, 0.8)?);
/// assert_eq!([locker.next(), locker.next(), locker.next()], [Go, Go, Sorry]);
/// clock.advance(Duration::from_millis(801));
/// assert_eq!(locker.next(), Go);
/// # Ok::<(), zmqlocker::error::Error>(())
/// ```
#[derive(Debug)]
pub struct Locker<C> {
    clock: C,
    machine: Mutex<Machine<()>>,
}

impl<C: Clock> Locker<C> {
    /// A locker whose first slot is open from now.
    pub fn new(clock: C, limit: Limit) -> Self {
        let machine = Mutex::new(Machine::new(clock.now(), limit, Patience::NONE));
        Self { clock, machine }
    }

    /// Counts a request and answers it. Never waits.
    pub fn next(&self) -> Answer {
        let mut machine = self.machine.lock().unwrap_or_else(PoisonError::into_inner);
        // Read under the mutex: the engine sees instants in their order.
        machine.handle(self.clock.now(), Input::Next(()));
        machine.poll_output().map_or(Answer::Sorry, |reply| reply.answer)
    }
}
