//! What is to be done at which instant.

use std::collections::BTreeSet;

use crate::engine::grant::GrantId;
use crate::engine::session::SessionId;
use crate::engine::table::KeyId;
use crate::engine::waiters::WaiterId;
use crate::time::Timestamp;

/// What an instant is for. Of several at one instant, the first of these goes first: who has come
/// to a permit gets it even at the deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// A grant may have come to its end.
    Grant(GrantId),
    /// Leases of the session may have come to their end.
    Leases(SessionId),
    /// Whoever is first in the queue of the key may have a permit.
    Serve(KeyId),
    /// Whether the waiter is part of a cycle of waits is to be looked at.
    Deadlock(WaiterId),
    /// The waiter's time is over.
    Deadline(WaiterId),
    /// The session may not have been heard from for too long.
    Session(SessionId),
}

/// The timers, earliest first.
#[derive(Debug, Default)]
pub(super) struct Timers(BTreeSet<(Timestamp, Timer)>);

impl Timers {
    pub(super) fn set(&mut self, at: Timestamp, timer: Timer) {
        self.0.insert((at, timer));
    }

    pub(super) fn cancel(&mut self, at: Timestamp, timer: Timer) {
        self.0.remove(&(at, timer));
    }

    /// When the first timer is due.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.0.first().map(|(at, _)| *at)
    }

    /// Takes out the first timer if it is due at `now`.
    pub(super) fn pop_due(&mut self, now: Timestamp) -> Option<Timer> {
        if self.0.first().is_some_and(|(at, _)| *at <= now) {
            return self.0.pop_first().map(|(_, timer)| timer);
        }
        None
    }
}
