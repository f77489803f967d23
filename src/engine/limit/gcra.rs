//! The generic cell rate algorithm: a burst, refilled one by one at the rate.

use std::time::Duration;

use crate::engine::limit::{Claim, Rate, drifted};
use crate::time::Timestamp;

/// The theoretical arrival time of the next request, if all came at the rate.
///
/// Law: at most `burst + length * max_requests / in_seconds` in any interval of that length, after
/// however long an idle time.
///
/// Source: virtual scheduling, ITU-T I.371. Departs from it in that a request may cost several
/// cells, and in that times are kept exactly: in units of a nanosecond by `max_requests`, in which
/// a cell takes `in_seconds` whole nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::engine) struct Gcra {
    arrival: Fine,
}

/// An instant in units of a nanosecond divided by `max_requests`: high and low half, so that it
/// needs no more than the alignment of a word.
#[derive(Clone, Copy, Debug, Default)]
struct Fine(u64, u64);

impl Fine {
    #[allow(clippy::cast_possible_truncation)]
    const fn new(value: u128) -> Self {
        Self((value >> 64) as u64, value as u64)
    }

    const fn value(self) -> u128 {
        (self.0 as u128) << 64 | self.1 as u128
    }
}

impl Gcra {
    /// What is not worked off at `now`, in fine units.
    fn debt(self, now: Timestamp, rate: Rate) -> u128 {
        self.arrival.value().saturating_sub(fine(now, rate))
    }

    pub(super) fn earliest(
        self,
        now: Timestamp,
        (rate, burst): (Rate, u64),
        ahead: u64,
        cost: u64,
    ) -> Timestamp {
        let wanted = self.debt(now, rate) + cell(rate) * (u128::from(ahead) + u128::from(cost));
        let over = wanted.saturating_sub(cell(rate) * u128::from(burst));
        let wait = over.div_ceil(u128::from(rate.max_requests()));
        now + Duration::from_nanos(u64::try_from(wait).unwrap_or(u64::MAX))
    }

    pub(super) fn charge(&mut self, now: Timestamp, rate: Rate, cost: u64) -> u64 {
        let from = self.arrival.value().max(fine(now, rate));
        self.arrival = Fine::new(from.saturating_add(cell(rate) * u128::from(cost)));
        self.mark(rate)
    }

    /// The arrival time in whole nanoseconds: rounded down, so that a refund is never too large.
    fn mark(self, rate: Rate) -> u64 {
        u64::try_from(self.arrival.value() / u128::from(rate.max_requests())).unwrap_or(u64::MAX)
    }

    /// Gives back that part of a charge which has not been worked off: what came before it was
    /// worked off first.
    pub(super) fn refund(&mut self, now: Timestamp, rate: Rate, mark: u64, cost: u64) {
        let left = fine(Timestamp::from_nanos(mark), rate).saturating_sub(fine(now, rate));
        let back = left.min(cell(rate) * u128::from(cost));
        self.arrival = Fine::new(self.arrival.value().saturating_sub(back));
    }

    pub(super) fn remaining(self, now: Timestamp, (rate, burst): (Rate, u64)) -> u64 {
        let free = (cell(rate) * u128::from(burst)).saturating_sub(self.debt(now, rate));
        u64::try_from(free / cell(rate)).unwrap_or(u64::MAX)
    }

    pub(super) fn reset_at(self, now: Timestamp, rate: Rate) -> Timestamp {
        let wait = self.debt(now, rate).div_ceil(u128::from(rate.max_requests()));
        now + Duration::from_nanos(u64::try_from(wait).unwrap_or(u64::MAX))
    }

    /// How many permits are not worked off, the last one whole.
    pub(super) fn used(self, now: Timestamp, rate: Rate) -> u64 {
        u64::try_from(self.debt(now, rate).div_ceil(cell(rate))).unwrap_or(u64::MAX)
    }

    /// Lends permits as if all of them were used at the last instant at which they may be.
    pub(super) fn claim(
        &mut self,
        now: Timestamp,
        (rate, burst): (Rate, u64),
        wanted: u64,
    ) -> Claim {
        let bucket = rate.in_seconds().as_nanos() * u128::from(burst);
        let quarter = bucket / u128::from(rate.max_requests()) / 4;
        let quarter = Duration::from_nanos(u64::try_from(quarter).unwrap_or(u64::MAX));
        let valid_for = quarter.min(rate.in_seconds() / 10);
        let last_use = fine(now + drifted(valid_for), rate);
        let from = self.arrival.value().max(last_use);
        let full = fine(now, rate) + cell(rate) * u128::from(burst);
        let room = full.saturating_sub(from) / cell(rate);
        let permits = wanted.min(u64::try_from(room).unwrap_or(u64::MAX));
        if permits > 0 {
            self.arrival = Fine::new(from + cell(rate) * u128::from(permits));
        }
        Claim { permits, valid_for, mark: self.mark(rate) }
    }

    /// When everything is worked off after `ahead` permits more: whole nanoseconds, and parts.
    pub(super) fn arrival_after(self, rate: Rate, ahead: u64) -> (Timestamp, u64) {
        let arrival = self.arrival.value() + cell(rate) * u128::from(ahead);
        let max = u128::from(rate.max_requests());
        let whole = u64::try_from(arrival / max);
        let part = u64::try_from(arrival % max).unwrap_or(u64::MAX);
        whole.map_or((Timestamp::NEVER, 0), |nanos| (Timestamp::from_nanos(nanos), part))
    }

    /// The same again.
    pub(super) fn restore(rate: Rate, (arrival, part): (Timestamp, u64)) -> Self {
        Self { arrival: Fine::new(fine(arrival, rate) + u128::from(part)) }
    }

    /// How many permits more are worked off by `arrival`; `None` if not even those that are used.
    pub(super) fn permits_until(
        self,
        now: Timestamp,
        rate: Rate,
        arrival: (Timestamp, u64),
    ) -> Option<u64> {
        if self.arrival_after(rate, 0) > arrival {
            return None;
        }
        let from = self.arrival.value().max(fine(now, rate));
        let until = Self::restore(rate, arrival).arrival.value();
        let permits = until.saturating_sub(from) / cell(rate);
        Some(u64::try_from(permits).unwrap_or(u64::MAX))
    }

    /// What is not worked off, under another rate.
    pub(super) fn of_usage(now: Timestamp, rate: Rate, used: u64) -> Self {
        Self { arrival: Fine::new(fine(now, rate) + cell(rate) * u128::from(used)) }
    }
}

/// An instant in fine units.
fn fine(at: Timestamp, rate: Rate) -> u128 {
    u128::from(at.as_nanos()) * u128::from(rate.max_requests())
}

/// How long one permit takes to be refilled, in fine units.
fn cell(rate: Rate) -> u128 {
    rate.in_seconds().as_nanos()
}
