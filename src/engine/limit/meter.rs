//! What counts the use of one limit of one key, whatever its kind.

use std::time::Duration;

use crate::engine::limit::fixed_window::Slot;
use crate::engine::limit::gcra::Gcra;
use crate::engine::limit::sliding_window::SlidingLog;
use crate::engine::limit::{Kind, Rate};
use crate::time::Timestamp;

/// The state of a limit. It does not know its rate: a million keys share theirs.
#[derive(Clone, Debug)]
pub(in crate::engine) enum Meter {
    FixedWindow(Slot),
    SlidingWindow(Box<SlidingLog>),
    Gcra(Gcra),
    /// Leases are counted at the key.
    Concurrency,
}

/// Permits that were lent in a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::engine) struct Claim {
    pub(in crate::engine) permits: u64,
    /// For how long they may be spent, on the clock that counts.
    pub(in crate::engine) valid_for: Duration,
    /// What the meter needs to take them back.
    pub(in crate::engine) mark: u64,
}

impl Meter {
    /// A meter of which nothing is used; the first request opens a slot.
    pub(in crate::engine) fn new(kind: &Kind) -> Self {
        match kind {
            Kind::FixedWindow(_) => Self::FixedWindow(Slot::CLOSED),
            Kind::SlidingWindow(_) => Self::SlidingWindow(Box::default()),
            Kind::Gcra(..) => Self::Gcra(Gcra::default()),
            Kind::Concurrency(_) => Self::Concurrency,
        }
    }

    /// Opens a slot at `now`, with no request.
    pub(in crate::engine) fn open(&mut self, now: Timestamp, kind: &Kind) {
        if let (Self::FixedWindow(slot), Kind::FixedWindow(rate)) = (self, kind) {
            *slot = Slot::new(now, *rate);
        }
    }

    /// The earliest instant from `now` on at which `cost` permits can be granted, if `ahead` others
    /// are granted before as soon as possible. Exact if there are none; `now` if they can be now.
    pub(in crate::engine) fn earliest(
        &self,
        now: Timestamp,
        kind: &Kind,
        ahead: u64,
        cost: u64,
    ) -> Timestamp {
        match (self, kind) {
            (Self::FixedWindow(slot), Kind::FixedWindow(rate)) => {
                slot.earliest(now, *rate, ahead, cost)
            }
            (Self::SlidingWindow(log), Kind::SlidingWindow(rate)) => {
                log.earliest(now, *rate, ahead, cost)
            }
            (Self::Gcra(gcra), Kind::Gcra(rate, burst)) => {
                gcra.earliest(now, (*rate, burst.get()), ahead, cost)
            }
            _ => now,
        }
    }

    /// Counts permits, whatever the limit says. What is needed to take them back.
    pub(in crate::engine) fn charge(&mut self, now: Timestamp, kind: &Kind, cost: u64) -> u64 {
        match (self, rate_of(kind)) {
            (Self::FixedWindow(slot), Some(rate)) => slot.charge(now, rate, cost),
            (Self::SlidingWindow(log), Some(rate)) => log.charge(now, rate, cost),
            (Self::Gcra(gcra), Some(rate)) => gcra.charge(now, rate, cost),
            _ => 0,
        }
    }

    /// Takes permits of a charge back, as far as they still count.
    pub(in crate::engine) fn refund(&mut self, now: Timestamp, kind: &Kind, mark: u64, cost: u64) {
        match (self, rate_of(kind)) {
            (Self::FixedWindow(slot), _) => slot.refund(mark, cost),
            (Self::SlidingWindow(log), _) => log.refund(now, mark, cost),
            (Self::Gcra(gcra), Some(rate)) => gcra.refund(now, rate, mark, cost),
            _ => {}
        }
    }

    /// How many permits could be taken at once now.
    pub(in crate::engine) fn remaining(&self, now: Timestamp, kind: &Kind) -> u64 {
        match (self, kind) {
            (Self::FixedWindow(slot), Kind::FixedWindow(rate)) => slot.remaining(now, *rate),
            (Self::SlidingWindow(log), Kind::SlidingWindow(rate)) => log.remaining(now, *rate),
            (Self::Gcra(gcra), Kind::Gcra(rate, burst)) => {
                gcra.remaining(now, (*rate, burst.get()))
            }
            _ => u64::MAX,
        }
    }

    /// When nothing counts any more.
    pub(in crate::engine) fn reset_at(&self, now: Timestamp, kind: &Kind) -> Timestamp {
        match (self, rate_of(kind)) {
            (Self::FixedWindow(slot), _) => slot.reset_at(now),
            (Self::SlidingWindow(log), _) => log.reset_at(now),
            (Self::Gcra(gcra), Some(rate)) => gcra.reset_at(now, rate),
            _ => now,
        }
    }

    /// Whether forgetting the meter changes no later answer.
    pub(in crate::engine) fn is_idle(&self, now: Timestamp, kind: &Kind) -> bool {
        match self {
            Self::FixedWindow(slot) => slot.is_idle(now),
            _ => self.reset_at(now, kind) <= now,
        }
    }

    /// Lends up to `wanted` permits; `None` if the limit cannot lend.
    pub(in crate::engine) fn claim(
        &mut self,
        now: Timestamp,
        kind: &Kind,
        wanted: u64,
    ) -> Option<Claim> {
        Some(match (self, kind) {
            (Self::FixedWindow(slot), Kind::FixedWindow(rate)) => slot.claim(now, *rate, wanted),
            (Self::SlidingWindow(log), Kind::SlidingWindow(rate)) => log.claim(now, *rate, wanted),
            (Self::Gcra(gcra), Kind::Gcra(rate, burst)) => {
                gcra.claim(now, (*rate, burst.get()), wanted)
            }
            _ => return None,
        })
    }

    /// Takes back permits of a claim that will not be spent, as far as they still count.
    pub(in crate::engine) fn give_back(
        &mut self,
        now: Timestamp,
        kind: &Kind,
        claim: &Claim,
        unused: u64,
    ) {
        match self {
            Self::SlidingWindow(log) => log.give_back(now, claim, unused),
            _ => self.refund(now, kind, claim.mark, unused),
        }
    }

    /// A meter for a limit that takes the place of another one: what was used stays used, counted
    /// from now on where the kinds differ.
    pub(in crate::engine) fn adopt(now: Timestamp, old: (&Self, &Kind), kind: &Kind) -> Self {
        let fresh = Self::new(kind);
        let (Some(old_rate), Some(rate)) = (rate_of(old.1), rate_of(kind)) else { return fresh };
        match (old.0, fresh) {
            (Self::FixedWindow(slot), Self::FixedWindow(_)) => {
                Self::FixedWindow(slot.adopt(now, old_rate, rate))
            }
            (Self::SlidingWindow(log), Self::SlidingWindow(_)) => {
                Self::SlidingWindow(Box::new(log.adopt(now, old_rate, rate)))
            }
            (Self::Gcra(gcra), Self::Gcra(_)) => Self::Gcra(gcra.adopt(now, old_rate, rate)),
            (meter, Self::Gcra(_)) => {
                Self::Gcra(Gcra::of_usage(now, rate, meter.used(now, old_rate)))
            }
            (meter, mut fresh) => {
                let used = meter.used(now, old_rate);
                if used > 0 {
                    fresh.charge(now, kind, used);
                }
                fresh
            }
        }
    }

    fn used(&self, now: Timestamp, rate: Rate) -> u64 {
        match self {
            Self::FixedWindow(slot) => slot.used(now),
            Self::SlidingWindow(log) => log.used(now),
            Self::Gcra(gcra) => gcra.used(now, rate),
            Self::Concurrency => 0,
        }
    }
}

const fn rate_of(kind: &Kind) -> Option<Rate> {
    match kind {
        Kind::FixedWindow(rate) | Kind::SlidingWindow(rate) | Kind::Gcra(rate, _) => Some(*rate),
        Kind::Concurrency(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meter_has_four_words_at_most() {
        assert!(size_of::<Meter>() <= 32, "{}", size_of::<Meter>());
    }
}
