//! At most so many in any interval: a log of all grants that still count.

use std::collections::VecDeque;
use std::time::Duration;

use crate::engine::limit::{Claim, Rate, drifted};
use crate::time::Timestamp;

/// The most entries of a log. Only a limit above it comes near: grants that are closer together
/// than that part of `in_seconds` are then counted as one, at the later instant, so that a little
/// less may be granted than the limit, and never more.
const LOG_MAX: u64 = 65_536;

/// Which part of the window a block may be spent in.
const BLOCK_PART: u32 = 10;

/// The most entries of a log that is recorded while it is in use.
const RECORDED_MAX: usize = 32;

/// The grants that count at present.
///
/// Law: at most `max_requests` in any closed interval of `in_seconds`. A grant at `t` counts up to
/// and with `t + in_seconds`. What is lent in a block may be used at any instant of its validity,
/// so it counts until `in_seconds` after the last of them.
///
/// Source: the sliding log; exact where others estimate from two counters.
#[derive(Clone, Debug, Default)]
pub(in crate::engine) struct SlidingLog {
    grants: VecDeque<Entry>,
    /// What was lent. Its entries last longer, so they have an order of their own.
    lent: VecDeque<Entry>,
    /// All permits of both.
    used: u64,
    /// When the newest entry of `grants` was begun.
    newest_begun: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// The last instant at which it counts.
    until: Timestamp,
    permits: u64,
}

impl SlidingLog {
    /// All that counts, in its order. If it is to be `short`, neighbours count as one, as long as
    /// the last of them.
    pub(super) fn entries(&self, now: Timestamp, short: bool) -> Vec<(Timestamp, u64)> {
        let counts = |entry: &&Entry| entry.until >= now && entry.permits > 0;
        let all = self.grants.iter().chain(&self.lent).filter(counts);
        let mut entries: Vec<_> = all.map(|entry| (entry.until, entry.permits)).collect();
        entries.sort_unstable();
        if !short || entries.len() <= RECORDED_MAX {
            return entries;
        }
        let together = |group: &[(Timestamp, u64)]| {
            let permits = group.iter().fold(0, |sum: u64, entry| sum.saturating_add(entry.1));
            (group[group.len() - 1].0, permits)
        };
        entries.chunks(entries.len().div_ceil(RECORDED_MAX)).map(together).collect()
    }

    /// A log that was recorded; what was recorded ahead counts as lent now, for a borrower may
    /// still spend it. `None` if there are more permits than can be.
    pub(super) fn restore(
        now: Timestamp,
        rate: Rate,
        entries: &[(Timestamp, u64)],
        ahead: u64,
    ) -> Option<Self> {
        let newest = now + rate.in_seconds();
        let mut log = Self::default();
        let ahead = Some((lent_until(now, rate), ahead)).filter(|(_, permits)| *permits > 0);
        for (until, permits) in entries.iter().copied().chain(ahead) {
            log.used = log.used.checked_add(permits)?;
            // What counts longer than a grant of now was lent.
            let part = if until <= newest { &mut log.grants } else { &mut log.lent };
            if part.back().is_some_and(|last| until < last.until) {
                return None;
            }
            part.push_back(Entry { until, permits });
        }
        log.expire(now);
        Some(log)
    }

    /// Forgets what does not count any more.
    fn expire(&mut self, now: Timestamp) {
        for log in [&mut self.grants, &mut self.lent] {
            while let Some(first) = log.front().filter(|entry| entry.until < now) {
                self.used -= first.permits;
                log.pop_front();
            }
        }
    }

    pub(super) fn used(&self, now: Timestamp) -> u64 {
        let over = |log: &VecDeque<Entry>| -> u64 {
            log.iter().take_while(|entry| entry.until < now).map(|entry| entry.permits).sum()
        };
        self.used - over(&self.grants) - over(&self.lent)
    }

    pub(super) fn earliest(&self, now: Timestamp, rate: Rate, ahead: u64, cost: u64) -> Timestamp {
        let max = rate.max_requests();
        let wanted = ahead.saturating_add(cost);
        let used = self.used(now);
        if used.saturating_add(wanted) <= max {
            return now;
        }
        // Those ahead beyond a full window come back one window later, and so on.
        let windows = (wanted - 1) / max;
        let rest = wanted - windows * max;
        let mut over = used.saturating_add(rest).saturating_sub(max);
        let mut free_at = now;
        let (mut grants, mut lent) = (self.grants.iter().peekable(), self.lent.iter().peekable());
        while over > 0 {
            let entry = match (grants.peek(), lent.peek()) {
                (Some(grant), Some(loan)) if loan.until < grant.until => lent.next(),
                (Some(_), _) => grants.next(),
                (None, _) => lent.next(),
            };
            let Some(entry) = entry else { break };
            if entry.until >= now {
                over = over.saturating_sub(entry.permits);
                free_at = entry.until.next();
            }
        }
        let apart = rate.in_seconds().as_nanos() + 1;
        let later = apart.saturating_mul(u128::from(windows));
        free_at + Duration::from_nanos(u64::try_from(later).unwrap_or(u64::MAX))
    }

    pub(super) fn charge(&mut self, now: Timestamp, rate: Rate, cost: u64) -> u64 {
        self.expire(now);
        let until = now + rate.in_seconds();
        // What is used is the sum of all entries, whatever was overdrawn.
        let cost = cost.min(u64::MAX - self.used);
        self.used += cost;
        let together = if rate.max_requests() > LOG_MAX {
            rate.in_seconds() / u32::try_from(LOG_MAX).unwrap_or(u32::MAX)
        } else {
            Duration::ZERO
        };
        let begun = self.newest_begun.filter(|begun| now.since(*begun) <= together);
        // The newest may have been taken back: then the last entry is an older one.
        let near = |last: &&mut Entry| begun.is_some_and(|at| at + rate.in_seconds() <= last.until);
        if let Some(newest) = self.grants.back_mut().filter(near) {
            newest.permits += cost;
            newest.until = newest.until.max(until);
        } else {
            self.grants.push_back(Entry { until, permits: cost });
            self.newest_begun = Some(now);
        }
        until.as_nanos()
    }

    pub(super) fn refund(&mut self, now: Timestamp, mark: u64, cost: u64) {
        self.expire(now);
        self.used -= take_out(now, &mut self.grants, mark, cost);
    }

    pub(super) fn remaining(&self, now: Timestamp, rate: Rate) -> u64 {
        rate.max_requests().saturating_sub(self.used(now))
    }

    pub(super) fn reset_at(&self, now: Timestamp) -> Timestamp {
        let last = self.grants.back().into_iter().chain(self.lent.back());
        let until = last.filter(|entry| entry.until >= now).map(|entry| entry.until.next()).max();
        until.unwrap_or(now)
    }

    pub(super) fn claim(&mut self, now: Timestamp, rate: Rate, wanted: u64) -> Claim {
        self.expire(now);
        let permits = wanted.min(self.remaining(now, rate));
        let valid_for = block_time(rate);
        let until = lent_until(now, rate);
        self.used += permits;
        match self.lent.back_mut().filter(|last| last.until == until) {
            Some(last) => last.permits += permits,
            None if permits > 0 => self.lent.push_back(Entry { until, permits }),
            None => {}
        }
        Claim { permits, valid_for, mark: until.as_nanos() }
    }

    pub(super) fn give_back(&mut self, now: Timestamp, claim: &Claim, unused: u64) {
        self.expire(now);
        self.used -= take_out(now, &mut self.lent, claim.mark, unused);
    }

    /// Counts permits that another server has granted so long ago.
    pub(super) fn count_in(&mut self, now: Timestamp, rate: Rate, age: Duration, permits: u64) {
        self.expire(now);
        let until = now.before(age) + rate.in_seconds();
        if until < now {
            return;
        }
        if self.grants.back().is_none_or(|last| last.until <= until) {
            self.charge(now.before(age), rate, permits);
            return;
        }
        let permits = permits.min(u64::MAX - self.used);
        self.used += permits;
        let place = self.grants.partition_point(|entry| entry.until < until);
        let together = rate.in_seconds() / u32::try_from(LOG_MAX).unwrap_or(u32::MAX);
        match self.grants.get_mut(place) {
            Some(next) if next.until == until || next.until.since(until) < together => {
                next.permits += permits;
            }
            _ => self.grants.insert(place, Entry { until, permits }),
        }
    }

    /// Takes over what another server has counted, in its order: at each instant the larger of the
    /// two counts from now on.
    pub(super) fn take_over(&mut self, now: Timestamp, rate: Rate, theirs: Vec<(Timestamp, u64)>) {
        self.expire(now);
        let ours = self.entries(now, false);
        let (mut ours, mut theirs) = (ours.into_iter().rev(), theirs.into_iter().rev());
        let (mut our_next, mut their_next) = (ours.next(), theirs.next());
        let (mut our_sum, mut their_sum, mut sum): (u64, u64, u64) = (0, 0, 0);
        let mut entries = VecDeque::new();
        // From the last instant on backwards: how much counts until then, or longer.
        while let Some(until) = our_next.max(their_next).map(|(until, _)| until) {
            while let Some((_, permits)) = our_next.filter(|(at, _)| *at >= until) {
                our_sum = our_sum.saturating_add(permits);
                our_next = ours.next();
            }
            while let Some((_, permits)) = their_next.filter(|(at, _)| *at >= until) {
                their_sum = their_sum.saturating_add(permits);
                their_next = theirs.next();
            }
            let more = our_sum.max(their_sum) - sum;
            if more > 0 {
                entries.push_front((until, more));
                sum += more;
            }
        }
        let entries = Vec::from(entries);
        if let Some(log) = Self::restore(now, rate, &entries, 0) {
            *self = Self { newest_begun: self.newest_begun, ..log };
        }
    }

    /// The log under another rate: each grant counts as long as it would have from the start.
    pub(super) fn adopt(&self, now: Timestamp, old: Rate, rate: Rate) -> Self {
        let moved = |entry: &Entry| {
            let at = entry.until.as_nanos().saturating_sub(nanos(old.in_seconds()));
            Entry { until: Timestamp::from_nanos(at) + rate.in_seconds(), ..*entry }
        };
        let mut adopted = Self {
            grants: self.grants.iter().map(moved).collect(),
            lent: self.lent.iter().map(moved).collect(),
            used: self.used,
            newest_begun: self.newest_begun,
        };
        adopted.expire(now);
        adopted
    }
}

/// For how long a block may be spent.
fn block_time(rate: Rate) -> Duration {
    rate.in_seconds() / BLOCK_PART
}

/// The last instant at which what is lent at `now` counts.
fn lent_until(now: Timestamp, rate: Rate) -> Timestamp {
    now + drifted(block_time(rate) + rate.in_seconds())
}

/// Takes permits out of the entry that counts until `mark`, or into which it was merged. How many.
fn take_out(now: Timestamp, log: &mut VecDeque<Entry>, mark: u64, permits: u64) -> u64 {
    let mark = Timestamp::from_nanos(mark);
    // Whatever is charged counts until an instant behind the origin of the clock.
    if mark < now || mark == Timestamp::ZERO {
        return 0;
    }
    let place = log.partition_point(|entry| entry.until < mark);
    let Some(entry) = log.get_mut(place) else { return 0 };
    let taken = permits.min(entry.permits);
    entry.permits -= taken;
    if entry.permits == 0 {
        log.remove(place);
    }
    taken
}

fn nanos(length: Duration) -> u64 {
    u64::try_from(length.as_nanos()).unwrap_or(u64::MAX)
}
