//! The seed's algorithm: a slot opens with the first request after the last one ended.

use std::time::Duration;

use crate::engine::limit::Rate;
use crate::time::Timestamp;

/// A counter of one slot at a time.
///
/// Law: of the requests that fall into one slot, the first `max_requests` are granted. Across the
/// border of two slots, an interval of `in_seconds` may thus see twice the limit.
///
/// Source: the class `Locker` of the first design, its `now > next_slot` included: a request at the
/// very instant at which a slot ends still belongs to it.
#[derive(Clone, Debug)]
pub struct FixedWindow {
    limit: Rate,
    used: u64,
    ends_at: Timestamp,
}

impl FixedWindow {
    /// A window whose first slot is open from `now`.
    #[must_use]
    pub fn new(now: Timestamp, limit: Rate) -> Self {
        Self { limit, used: 0, ends_at: now + limit.in_seconds() }
    }

    /// Takes a permit of the slot at `now`, if one is left.
    pub fn try_acquire(&mut self, now: Timestamp) -> bool {
        if now > self.ends_at {
            self.used = 0;
            self.ends_at = now + self.limit.in_seconds();
        }
        let allowed = self.used < self.limit.max_requests();
        self.used += u64::from(allowed);
        allowed
    }

    /// The first instant at which the next slot may open.
    #[must_use]
    pub fn next_slot(&self) -> Timestamp {
        self.ends_at.next()
    }

    /// When the slot opens in which a request gets its permit, if this slot is used up, `ahead`
    /// others are served before it, and every slot opens as soon as it may.
    #[must_use]
    pub fn slot_after(&self, ahead: u64) -> Timestamp {
        let slots_between = ahead / self.limit.max_requests();
        let apart = self.limit.in_seconds() + Duration::from_nanos(1);
        let nanos = apart.as_nanos().saturating_mul(u128::from(slots_between));
        self.next_slot() + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn at(nanos: u64) -> Timestamp {
        Timestamp::from_nanos(nanos)
    }

    #[test]
    fn the_instant_of_the_border_belongs_to_the_slot_that_ends() {
        let mut window = FixedWindow::new(at(0), Rate::new(1, 1.0).unwrap());
        assert!(window.try_acquire(at(0)));
        assert!(!window.try_acquire(at(SECOND)));
        assert!(window.try_acquire(at(SECOND + 1)));
    }

    #[test]
    fn a_slot_opens_with_the_first_request_after_the_last_one() {
        let mut window = FixedWindow::new(at(0), Rate::new(1, 1.0).unwrap());
        assert!(window.try_acquire(at(5 * SECOND)));
        assert!(!window.try_acquire(at(6 * SECOND)));
        assert!(window.try_acquire(at(6 * SECOND + 1)));
    }

    #[test]
    fn those_behind_a_full_slot_are_in_the_one_after_it() {
        let window = FixedWindow::new(at(0), Rate::new(2, 1.0).unwrap());
        assert_eq!(window.slot_after(0), at(SECOND + 1));
        assert_eq!(window.slot_after(1), at(SECOND + 1));
        assert_eq!(window.slot_after(2), at(2 * SECOND + 2));
    }
}
