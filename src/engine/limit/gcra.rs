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
#[derive(Clone, Debug, Default)]
pub(in crate::engine) struct Gcra {
    arrival: Fine,
    /// Only few have given back something, or lent.
    past: Option<Box<Past>>,
}

/// By how much charges have moved to earlier times, because others were taken back, and what was
/// lent last. Marks are times as they would be without.
#[derive(Clone, Copy, Debug)]
struct Past {
    /// All that charges have moved, in nanoseconds.
    moved: u64,
    /// The lowest mark that was taken back. Charges with higher ones are taken to have moved by
    /// all: never by too little, so that a refund is never too large.
    from: u64,
    /// The mark of what was lent last, and when that may be used at the latest.
    lent: (u64, Timestamp),
}

impl Default for Past {
    fn default() -> Self {
        Self { moved: 0, from: u64::MAX, lent: (0, Timestamp::ZERO) }
    }
}

/// An instant in units of a nanosecond divided by `max_requests`: high and low half, so that it
/// needs no more than the alignment of a word.
#[derive(Clone, Copy, Debug, Default)]
struct Fine(u64, u64);

impl Fine {
    #[allow(clippy::cast_possible_truncation, reason = "the halves of a word")]
    const fn new(value: u128) -> Self {
        Self((value >> 64) as u64, value as u64)
    }

    const fn value(self) -> u128 {
        (self.0 as u128) << 64 | self.1 as u128
    }
}

impl Gcra {
    /// What is not worked off at `now`, in fine units.
    fn debt(&self, now: Timestamp, rate: Rate) -> u128 {
        self.arrival.value().saturating_sub(fine(now, rate))
    }

    pub(super) fn earliest(
        &self,
        now: Timestamp,
        (rate, burst): (Rate, u64),
        ahead: u64,
        cost: u64,
    ) -> Timestamp {
        let cells = u128::from(ahead) + u128::from(cost);
        let wanted = self.debt(now, rate).saturating_add(cell(rate).saturating_mul(cells));
        let over = wanted.saturating_sub(cell(rate) * u128::from(burst));
        let wait = over.div_ceil(u128::from(rate.max_requests()));
        now + Duration::from_nanos(u64::try_from(wait).unwrap_or(u64::MAX))
    }

    pub(super) fn charge(&mut self, now: Timestamp, rate: Rate, cost: u64) -> u64 {
        let from = self.arrival.value().max(fine(now, rate));
        let cells = cell(rate).saturating_mul(u128::from(cost));
        self.arrival = Fine::new(from.saturating_add(cells));
        self.mark(rate)
    }

    /// The arrival time in whole nanoseconds, had nothing been taken back: rounded down, so that a
    /// refund is never too large.
    fn mark(&self, rate: Rate) -> u64 {
        let arrival = self.arrival.value() / u128::from(rate.max_requests());
        let moved = self.past.as_ref().map_or(0, |past| past.moved);
        u64::try_from(arrival).unwrap_or(u64::MAX).saturating_add(moved)
    }

    /// Gives back that part of a charge which has not been worked off: what came before it was
    /// worked off first. What was lent after it may be used later, as if nothing were worked off
    /// until then.
    pub(super) fn refund(&mut self, now: Timestamp, rate: Rate, mark: u64, cost: u64) {
        let past = self.past.as_deref().copied().unwrap_or_default();
        let moved = if past.from <= mark { past.moved } else { 0 };
        let arrival = mark.saturating_sub(moved);
        let from = if mark < past.lent.0 { now.max(past.lent.1) } else { now };
        let left = if mark == self.mark(rate) {
            // Nothing was charged since: to the fraction of a nanosecond.
            self.debt(now, rate)
        } else {
            fine(Timestamp::from_nanos(arrival), rate).saturating_sub(fine(from, rate))
        };
        let back = left.min(cell(rate).saturating_mul(u128::from(cost)));
        if back == 0 {
            return;
        }
        self.arrival = Fine::new(self.arrival.value().saturating_sub(back));
        let nanos = back.div_ceil(u128::from(rate.max_requests()));
        let past = self.past.get_or_insert_default();
        past.moved = past.moved.saturating_add(u64::try_from(nanos).unwrap_or(u64::MAX));
        past.from = past.from.min(mark);
    }

    pub(super) fn remaining(&self, now: Timestamp, (rate, burst): (Rate, u64)) -> u64 {
        let free = (cell(rate) * u128::from(burst)).saturating_sub(self.debt(now, rate));
        u64::try_from(free / cell(rate)).unwrap_or(u64::MAX)
    }

    pub(super) fn reset_at(&self, now: Timestamp, rate: Rate) -> Timestamp {
        let wait = self.debt(now, rate).div_ceil(u128::from(rate.max_requests()));
        now + Duration::from_nanos(u64::try_from(wait).unwrap_or(u64::MAX))
    }

    /// How many permits are not worked off, the last one whole.
    pub(super) fn used(&self, now: Timestamp, rate: Rate) -> u64 {
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
        let last_use = now + drifted(valid_for);
        let permits = wanted.min(self.remaining(now, (rate, burst)));
        if permits > 0 {
            let from = self.arrival.value().max(fine(last_use, rate));
            self.arrival = Fine::new(from.saturating_add(cell(rate) * u128::from(permits)));
            let mark = self.mark(rate);
            self.past.get_or_insert_default().lent = (mark, last_use);
        }
        Claim { permits, valid_for, mark: self.mark(rate) }
    }

    /// When everything is worked off after `ahead` permits more: whole nanoseconds, and parts.
    pub(super) fn arrival_after(&self, rate: Rate, ahead: u64) -> (Timestamp, u64) {
        let arrival = self.arrival.value() + cell(rate) * u128::from(ahead);
        let max = u128::from(rate.max_requests());
        let whole = u64::try_from(arrival / max);
        let part = u64::try_from(arrival % max).unwrap_or(u64::MAX);
        whole.map_or((Timestamp::NEVER, 0), |nanos| (Timestamp::from_nanos(nanos), part))
    }

    /// The same again.
    pub(super) fn restore(rate: Rate, (arrival, part): (Timestamp, u64)) -> Self {
        Self { arrival: Fine::new(fine(arrival, rate) + u128::from(part)), past: None }
    }

    /// How many permits more are worked off by `arrival`; `None` if not even those that are used.
    pub(super) fn permits_until(
        &self,
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

    /// Everything is worked off then, or later; but no more than the burst is.
    pub(super) fn take_over(
        &mut self,
        now: Timestamp,
        (rate, burst): (Rate, u64),
        arrival: Timestamp,
    ) {
        let full = fine(now, rate).saturating_add(cell(rate).saturating_mul(u128::from(burst)));
        let theirs = fine(arrival, rate).min(full);
        self.arrival = Fine::new(self.arrival.value().max(theirs));
    }

    /// A debt of so many permits.
    pub(super) fn of_usage(now: Timestamp, rate: Rate, used: u64) -> Self {
        let debt = cell(rate).saturating_mul(u128::from(used));
        Self::of_debt(now, rate, debt)
    }

    /// What is not worked off, under another rate: as many permits, and the same part of one.
    pub(super) fn adopt(&self, now: Timestamp, old: Rate, rate: Rate) -> Self {
        let debt = self.debt(now, old);
        let (whole, part) = (debt / cell(old), debt % cell(old));
        let part = (part * cell(rate)).div_ceil(cell(old));
        Self::of_debt(now, rate, whole.saturating_mul(cell(rate)).saturating_add(part))
    }

    fn of_debt(now: Timestamp, rate: Rate, debt: u128) -> Self {
        Self { arrival: Fine::new(fine(now, rate).saturating_add(debt)), past: None }
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
