//! The seed's algorithm: a slot opens with the first request after the last one ended.

use std::time::Duration;

use crate::engine::limit::{Claim, Rate};
use crate::time::Timestamp;

/// A counter of one slot at a time, with its rate: the gate within one process.
///
/// Law: of the requests that fall into one slot, the first `max_requests` are granted. Across the
/// border of two slots, an interval of `in_seconds` may thus see twice the limit.
///
/// Source: the class `Locker` of the first design, its `now > next_slot` included: a request at the
/// very instant at which a slot ends still belongs to it.
#[derive(Clone, Debug)]
pub struct FixedWindow {
    rate: Rate,
    slot: Slot,
}

impl FixedWindow {
    /// A window whose first slot is open from `now`.
    #[must_use]
    pub fn new(now: Timestamp, rate: Rate) -> Self {
        Self { rate, slot: Slot::new(now, rate) }
    }

    /// Takes a permit of the slot at `now`, if one is left.
    pub fn try_acquire(&mut self, now: Timestamp) -> bool {
        self.slot.move_on(now, self.rate);
        let allowed = self.slot.used < self.rate.max_requests();
        self.slot.used += u64::from(allowed);
        allowed
    }
}

/// The counter of a slot.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) struct Slot {
    used: u64,
    ends_at: Timestamp,
}

impl Slot {
    /// No slot: the first request opens one. None that is open ends at the origin of the clock.
    pub(super) const CLOSED: Self = Self { used: 0, ends_at: Timestamp::ZERO };

    pub(super) fn new(now: Timestamp, rate: Rate) -> Self {
        Self { used: 0, ends_at: now + rate.in_seconds() }
    }

    /// A slot that was recorded.
    pub(super) const fn restore(ends_at: Timestamp, used: u64) -> Self {
        Self { used, ends_at }
    }

    pub(super) const fn ends_at(&self) -> Timestamp {
        self.ends_at
    }

    /// Opens the next slot if this one has ended.
    fn move_on(&mut self, now: Timestamp, rate: Rate) {
        if self.is_over(now) {
            *self = Self::new(now, rate);
        }
    }

    fn is_over(&self, now: Timestamp) -> bool {
        now > self.ends_at || self.ends_at == Timestamp::ZERO
    }

    pub(super) fn earliest(&self, now: Timestamp, rate: Rate, ahead: u64, cost: u64) -> Timestamp {
        let left = self.remaining(now, rate);
        if ahead.saturating_add(cost) <= left {
            return now;
        }
        // Whoever comes to it opens the next slot as soon as it may be opened.
        let open_until = if self.is_over(now) { now + rate.in_seconds() } else { self.ends_at };
        let next_slot = open_until.next();
        let behind = ahead.saturating_sub(left).saturating_add(cost) - 1;
        let slots_between = behind / rate.max_requests();
        let apart = rate.in_seconds() + Duration::from_nanos(1);
        let nanos = apart.as_nanos().saturating_mul(u128::from(slots_between));
        next_slot + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    pub(super) fn charge(&mut self, now: Timestamp, rate: Rate, cost: u64) -> u64 {
        self.move_on(now, rate);
        self.used = self.used.saturating_add(cost);
        self.ends_at.as_nanos()
    }

    pub(super) fn refund(&mut self, mark: u64, cost: u64) {
        if mark == self.ends_at.as_nanos() {
            self.used = self.used.saturating_sub(cost);
        }
    }

    pub(super) fn used(&self, now: Timestamp) -> u64 {
        if self.is_over(now) { 0 } else { self.used }
    }

    pub(super) fn remaining(&self, now: Timestamp, rate: Rate) -> u64 {
        rate.max_requests().saturating_sub(self.used(now))
    }

    pub(super) fn reset_at(&self, now: Timestamp) -> Timestamp {
        if self.used(now) == 0 { now } else { self.ends_at.next() }
    }

    /// A slot that is over is as good as none. One that is open is not, even if nothing was taken.
    pub(super) fn is_idle(&self, now: Timestamp) -> bool {
        self.is_over(now)
    }

    pub(super) fn claim(&mut self, now: Timestamp, rate: Rate, wanted: u64) -> Claim {
        let permits = wanted.min(self.remaining(now, rate));
        let mark = self.charge(now, rate, permits);
        Claim { permits, valid_for: self.ends_at.since(now), mark }
    }

    /// How long ago the slot opened.
    pub(super) fn age(&self, now: Timestamp, rate: Rate) -> Duration {
        now.since(self.ends_at.before(rate.in_seconds()))
    }

    /// Counts permits of a slot that another server has opened so long ago.
    pub(super) fn count_in(&mut self, now: Timestamp, rate: Rate, age: Duration, permits: u64) {
        if let Some(used) = self.meet(now, rate, now.before(age) + rate.in_seconds()) {
            self.used = used.saturating_add(permits);
        }
    }

    /// Takes over what another server has counted of a slot that has so long left.
    pub(super) fn take_over(&mut self, now: Timestamp, rate: Rate, left: Duration, used: u64) {
        if let Some(ours) = self.meet(now, rate, now + left.min(rate.in_seconds())) {
            self.used = ours.max(used);
        }
    }

    /// Makes this slot and another server's, which ends then, the same: what is used of this one
    /// for that. `None` if the other one is over, and of no account.
    ///
    /// Servers open a slot within the time that a message takes of each other, so the slot that is
    /// open here and one that opened about a slot's length later are two; those that opened less
    /// than half a length apart are one, and it goes on here as it began.
    fn meet(&mut self, now: Timestamp, rate: Rate, ends_at: Timestamp) -> Option<u64> {
        if ends_at < now {
            return None;
        }
        if self.is_over(now) {
            *self = Self { used: 0, ends_at };
            return Some(0);
        }
        let later = ends_at.since(self.ends_at);
        if later > rate.in_seconds() / 2 {
            // The time of this one is up, or nearly so.
            let is_up = later > rate.in_seconds() * 7 / 8;
            let used = if is_up { 0 } else { self.used };
            *self = Self { used, ends_at };
        }
        Some(self.used)
    }

    /// The same slot under another rate: what was used stays, and so does the instant at which it
    /// opened.
    pub(super) fn adopt(self, now: Timestamp, old: Rate, rate: Rate) -> Self {
        if self.is_over(now) {
            return Self::CLOSED;
        }
        let opened = self.ends_at.as_nanos().saturating_sub(nanos(old.in_seconds()));
        Self { used: self.used, ends_at: Timestamp::from_nanos(opened) + rate.in_seconds() }
    }
}

fn nanos(length: Duration) -> u64 {
    u64::try_from(length.as_nanos()).unwrap_or(u64::MAX)
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
        let rate = Rate::new(2, 1.0).unwrap();
        let mut slot = Slot::new(at(0), rate);
        slot.charge(at(0), rate, 2);
        assert_eq!(slot.earliest(at(0), rate, 0, 1), at(SECOND + 1));
        assert_eq!(slot.earliest(at(0), rate, 1, 1), at(SECOND + 1));
        assert_eq!(slot.earliest(at(0), rate, 2, 1), at(2 * SECOND + 2));
    }
}
