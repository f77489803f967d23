//! What other servers have granted, counted where it belongs: by its age, never by a time of day.

use std::time::Duration;

use crate::engine::limit::{Kind, Meter};
use crate::engine::peering::Left;
use crate::time::Timestamp;

impl Meter {
    /// How old what was granted `at` an instant is now: of a fixed window, how old its slot is.
    pub(in crate::engine) fn age(&self, now: Timestamp, kind: &Kind, at: Timestamp) -> Duration {
        match (self, kind) {
            (Self::FixedWindow(slot), Kind::FixedWindow(rate)) => slot.age(now, *rate),
            _ => now.since(at),
        }
    }

    /// Counts permits that another server has granted, by their age. What would count no more by
    /// now is dropped.
    pub(in crate::engine) fn count_in(
        &mut self,
        now: Timestamp,
        kind: &Kind,
        age: Duration,
        permits: u64,
    ) {
        match (self, kind) {
            (Self::FixedWindow(slot), Kind::FixedWindow(rate)) => {
                slot.count_in(now, *rate, age, permits);
            }
            (Self::SlidingWindow(log), Kind::SlidingWindow(rate)) => {
                log.count_in(now, *rate, age, permits);
            }
            (Self::Gcra(gcra), Kind::Gcra(rate, _)) => {
                gcra.charge(now.before(age), *rate, permits);
            }
            _ => {}
        }
    }

    /// What is used, and how long it counts.
    pub(in crate::engine) fn left(&self, now: Timestamp, kind: &Kind) -> Option<Left> {
        match (self, kind) {
            (Self::FixedWindow(slot), _) => {
                let used = slot.used(now);
                (used > 0).then(|| Left::Slot(slot.ends_at().since(now), used))
            }
            (Self::SlidingWindow(log), _) => {
                let entries = log.entries(now, true).into_iter();
                let left = entries.map(|(until, permits)| (until.since(now), permits));
                Some(Left::Log(left.collect::<Vec<_>>())).filter(|left| *left != Left::Log(vec![]))
            }
            (Self::Gcra(gcra), Kind::Gcra(rate, _)) => {
                let left = gcra.reset_at(now, *rate).since(now);
                (!left.is_zero()).then_some(Left::Arrival(left))
            }
            _ => None,
        }
    }

    /// Takes over what another server has counted, where it has counted more. Both have counted
    /// most of it, so the larger of the two is taken, and not their sum.
    pub(in crate::engine) fn take_over(&mut self, now: Timestamp, kind: &Kind, left: &Left) {
        match (self, kind, left) {
            (Self::FixedWindow(slot), Kind::FixedWindow(rate), Left::Slot(left, used)) => {
                slot.take_over(now, *rate, *left, *used);
            }
            (Self::SlidingWindow(log), Kind::SlidingWindow(rate), Left::Log(entries)) => {
                let until = |(left, permits): &(Duration, u64)| {
                    ((now + *left).min(now + rate.in_seconds() * 2), *permits)
                };
                log.take_over(now, *rate, entries.iter().map(until).collect());
            }
            (Self::Gcra(gcra), Kind::Gcra(rate, burst), Left::Arrival(left)) => {
                gcra.take_over(now, (*rate, burst.get()), now + *left);
            }
            _ => {}
        }
    }
}
