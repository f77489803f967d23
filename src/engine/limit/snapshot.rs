//! What a meter counts, written down ahead of its use: for records that outlive the process.

use std::time::Duration;

use crate::engine::limit::fixed_window::Slot;
use crate::engine::limit::gcra::Gcra;
use crate::engine::limit::sliding_window::SlidingLog;
use crate::engine::limit::{Kind, Limit, Meter};
use crate::time::Timestamp;

/// The shortest time of a limit whose usage is recorded: a restart takes about as long as what is
/// shorter.
const DURABLE_FROM: Duration = Duration::from_secs(5);

/// Which part of a limit is recorded ahead of its use, and is lost in a crash at most.
const AHEAD_PART: u64 = 16;

/// The usage of a limit, in instants of the clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Snapshot {
    /// So many permits are used of the slot that ends then.
    Fixed { ends_at: Timestamp, used: u64 },
    /// Permits, each with the last instant at which it counts, in their order; and those that may
    /// have been used since, nobody knows when.
    Sliding { entries: Vec<(Timestamp, u64)>, ahead: u64 },
    /// When everything is worked off: whole nanoseconds, and parts of one.
    Gcra { arrival: (Timestamp, u64) },
}

/// What a snapshot covers: as long as a meter stays within, it needs no other one.
#[derive(Clone, Debug)]
pub(in crate::engine) enum Cover {
    /// No usage at all.
    Nothing,
    /// So many permits of that slot.
    Fixed { ends_at: Timestamp, used: u64 },
    /// So many permits more, of which some may have been taken too often; and so many that came
    /// back since.
    Sliding { left: Option<u64>, back: u64 },
    /// Everything that is worked off by then.
    Gcra { arrival: (Timestamp, u64) },
}

/// How a meter stands to a cover.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::engine) enum Standing {
    /// Within it.
    Within,
    /// Within it, by so much that far more is recorded than is used.
    FarBelow,
    /// Within it, but less than half of what was recorded ahead is left.
    Near,
    /// More is used than was recorded.
    Beyond,
}

impl Limit {
    /// Whether the usage of the limit is to outlive the process. Leases do not: their holders ask
    /// anew.
    pub(in crate::engine) fn is_durable(&self) -> bool {
        !self.shadow
            && match self.kind {
                Kind::FixedWindow(rate) | Kind::SlidingWindow(rate) | Kind::Gcra(rate, _) => {
                    rate.in_seconds() >= DURABLE_FROM
                }
                Kind::Concurrency(_) => false,
            }
    }
}

impl Kind {
    /// How many permits are recorded ahead of their use. None of a small limit, which is not used
    /// often; of a rate with a small burst as many as come back in half a second.
    pub(in crate::engine) fn ahead(&self) -> u64 {
        match self {
            Self::FixedWindow(rate) | Self::SlidingWindow(rate) => rate.max_requests() / AHEAD_PART,
            Self::Gcra(rate, burst) => {
                let half_a_second = u128::from(rate.max_requests()) * 500_000_000;
                let refilled = half_a_second / rate.in_seconds().as_nanos();
                (burst.get() / AHEAD_PART).max(u64::try_from(refilled).unwrap_or(u64::MAX))
            }
            Self::Concurrency(_) => 0,
        }
    }
}

impl Meter {
    /// What is used, and `ahead` permits more; `None` if nothing is.
    pub(in crate::engine) fn snapshot(
        &self,
        now: Timestamp,
        kind: &Kind,
        ahead: u64,
    ) -> Option<Snapshot> {
        match (self, kind) {
            (Self::FixedWindow(slot), Kind::FixedWindow(rate)) => {
                let used = slot.used(now);
                let more = used.saturating_add(ahead).min(rate.max_requests());
                (used > 0)
                    .then(|| Snapshot::Fixed { ends_at: slot.ends_at(), used: used.max(more) })
            }
            (Self::SlidingWindow(log), _) => {
                let entries = log.entries(now, ahead > 0);
                (!entries.is_empty()).then_some(Snapshot::Sliding { entries, ahead })
            }
            (Self::Gcra(gcra), Kind::Gcra(rate, _)) => {
                let is_used = gcra.reset_at(now, *rate) > now;
                is_used.then(|| Snapshot::Gcra { arrival: gcra.arrival_after(*rate, ahead) })
            }
            _ => None,
        }
    }

    /// The meter of a snapshot; `None` if it is none of this kind.
    pub(in crate::engine) fn restore(
        now: Timestamp,
        kind: &Kind,
        snapshot: &Snapshot,
    ) -> Option<Self> {
        Some(match (snapshot, kind) {
            (_, _) if snapshot.is_over(now) => Self::new(kind),
            (Snapshot::Fixed { ends_at, used }, Kind::FixedWindow(_)) => {
                Self::FixedWindow(Slot::restore(*ends_at, *used))
            }
            (Snapshot::Sliding { entries, ahead }, Kind::SlidingWindow(rate)) => {
                Self::SlidingWindow(Box::new(SlidingLog::restore(now, *rate, entries, *ahead)?))
            }
            (Snapshot::Gcra { arrival }, Kind::Gcra(rate, _)) => {
                Self::Gcra(Gcra::restore(*rate, *arrival))
            }
            _ => return None,
        })
    }

    /// How the usage stands to what was recorded.
    pub(in crate::engine) fn standing(
        &self,
        now: Timestamp,
        kind: &Kind,
        cover: &Cover,
    ) -> Standing {
        let ahead = kind.ahead();
        let mut spare = 0;
        let left = match (self, kind, cover) {
            (Self::FixedWindow(slot), Kind::FixedWindow(rate), cover) => match cover {
                Cover::Fixed { ends_at, used } if *ends_at == slot.ends_at() => {
                    let left = used.checked_sub(slot.used(now));
                    if *used >= rate.max_requests() && left.is_some_and(|left| left < ahead) {
                        // No other snapshot covers more.
                        return Standing::Within;
                    }
                    left
                }
                _ => (slot.used(now) == 0).then_some(ahead),
            },
            (Self::SlidingWindow(_), _, Cover::Sliding { left, back }) => {
                spare = *back;
                *left
            }
            (Self::SlidingWindow(log), ..) => (log.used(now) == 0).then_some(ahead),
            (Self::Gcra(gcra), Kind::Gcra(rate, _), cover) => match cover {
                Cover::Gcra { arrival } if *arrival > (now, 0) => {
                    gcra.permits_until(now, *rate, *arrival)
                }
                _ => (gcra.reset_at(now, *rate) <= now).then_some(ahead),
            },
            _ => Some(ahead),
        };
        match left {
            None => Standing::Beyond,
            Some(left) if left < ahead.div_ceil(2) => Standing::Near,
            Some(left) if left.saturating_add(spare) > ahead.saturating_mul(2) => {
                Standing::FarBelow
            }
            Some(_) => Standing::Within,
        }
    }
}

impl Snapshot {
    /// Whether it counts no more.
    pub(in crate::engine) fn is_over(&self, now: Timestamp) -> bool {
        match self {
            Self::Fixed { ends_at, .. } => *ends_at < now,
            Self::Sliding { entries, ahead } => {
                *ahead == 0 && entries.iter().all(|(until, _)| *until < now)
            }
            Self::Gcra { arrival } => *arrival <= (now, 0),
        }
    }

    /// The same, where what was `then` on the clock of the snapshot is `now`.
    #[must_use]
    pub(in crate::engine) fn moved(self, then: Timestamp, now: Timestamp) -> Self {
        let moved = |at: Timestamp| now + at.since(then);
        match self {
            Self::Fixed { ends_at, used } => Self::Fixed { ends_at: moved(ends_at), used },
            Self::Sliding { mut entries, ahead } => {
                entries.retain(|(until, _)| *until >= then);
                for (until, _) in &mut entries {
                    *until = moved(*until);
                }
                Self::Sliding { entries, ahead }
            }
            Self::Gcra { arrival } => Self::Gcra { arrival: (moved(arrival.0), arrival.1) },
        }
    }

    /// What it covers.
    pub(in crate::engine) fn cover(&self) -> Cover {
        match self {
            Self::Fixed { ends_at, used } => Cover::Fixed { ends_at: *ends_at, used: *used },
            Self::Sliding { ahead, .. } => Cover::Sliding { left: Some(*ahead), back: 0 },
            Self::Gcra { arrival } => Cover::Gcra { arrival: *arrival },
        }
    }
}

impl Cover {
    /// Permits are taken. Only a log cannot tell by itself how many since.
    pub(in crate::engine) fn take(&mut self, permits: u64) {
        if let Self::Sliding { left, .. } = self {
            *left = left.and_then(|left| left.checked_sub(permits));
        }
    }

    /// Permits came back.
    pub(in crate::engine) fn give_back(&mut self, permits: u64) {
        if let Self::Sliding { back, .. } = self {
            *back = back.saturating_add(permits);
        }
    }
}
