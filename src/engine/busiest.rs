//! Which keys are asked for most: counted for a bounded number of them, whatever keys there are.
//!
//! The keys share as many counters as there may be. Where none is left, a key that is asked for
//! takes from the rate of another one in turn, and has its counter when nothing of that is left: so
//! a key with more than its part of all requests has one in the end. The idea is that of Misra and
//! Gries, "Finding repeated elements", 1982; here the rates also fade by a quarter each second.

use std::time::Duration;

use crate::engine::table::KeyId;
use crate::time::Timestamp;

/// For how many keys is counted.
pub(super) const BUSY_KEYS_MAX: u16 = 512;

/// One request, in the unit of rates.
const ONE: u64 = 1000;

/// How often the rates fade.
const FADE: Duration = Duration::from_secs(1);

/// For so long the order of the busiest is taken to be what it was: whoever asks again and again
/// has them sorted no more often.
const ORDER_LASTS: Duration = Duration::from_millis(10);

/// After so many times nothing is left of any rate.
const FADES_MAX: u128 = 200;

/// What was answered of one of the busiest keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Busy {
    pub(super) key: KeyId,
    /// Requests that were allowed, and permits that were lent.
    pub(super) allowed: u64,
    pub(super) refused: u64,
    /// How many answers in the present second.
    fresh: u64,
    /// Three times the rate in the seconds before.
    faded: u64,
}

impl Busy {
    /// How many answers a second, in thousandths, over the last few seconds.
    pub(super) const fn rate(&self) -> u64 {
        self.faded / 3
    }

    /// How busy the key is among others.
    pub(super) const fn rank(&self) -> u64 {
        self.faded.saturating_add(self.fresh.saturating_mul(ONE))
    }

    /// Another key wants the counter. Whether it has it.
    fn yields(&mut self) -> bool {
        if self.faded > 0 {
            self.faded = self.faded.saturating_sub(ONE);
        } else {
            self.fresh = self.fresh.saturating_sub(1);
        }
        self.rank() == 0
    }

    fn fade(&mut self, times: u128) {
        for _ in 0..times {
            self.faded = self.rank() / 4 * 3;
            self.fresh = 0;
        }
    }
}

/// The counters of the busiest keys.
#[derive(Debug, Default)]
pub(super) struct Busiest {
    all: Vec<Busy>,
    /// Whose counter is wanted next.
    hand: usize,
    fades_at: Timestamp,
    /// The places of the counters, the busiest first, as they were at an instant.
    order: Vec<u16>,
    ordered_at: Timestamp,
}

impl Busiest {
    /// Counts answers to requests for a key, so many that were allowed and so many that were
    /// refused. `place` is where its counter is, as this has said before.
    pub(super) fn count(
        &mut self,
        now: Timestamp,
        key: KeyId,
        place: &mut u16,
        (allowed, refused): (u64, u64),
    ) {
        self.fade(now);
        if self.all.get(usize::from(*place)).is_none_or(|busy| busy.key != key) {
            let Some(found) = self.make_room(key) else { return };
            *place = found;
        }
        let Some(busy) = self.all.get_mut(usize::from(*place)) else { return };
        busy.allowed = busy.allowed.saturating_add(allowed);
        busy.refused = busy.refused.saturating_add(refused);
        busy.fresh = busy.fresh.saturating_add(allowed).saturating_add(refused);
    }

    /// A counter for a key that has none, if there is one to be had.
    fn make_room(&mut self, key: KeyId) -> Option<u16> {
        let busy = Busy { key, allowed: 0, refused: 0, fresh: 0, faded: 0 };
        let place = u16::try_from(self.all.len()).unwrap_or(u16::MAX);
        if place < BUSY_KEYS_MAX {
            self.all.push(busy);
            return Some(place);
        }
        self.hand = if self.hand + 1 < self.all.len() { self.hand + 1 } else { 0 };
        if !self.all[self.hand].yields() {
            return None;
        }
        self.all[self.hand] = busy;
        u16::try_from(self.hand).ok()
    }

    fn fade(&mut self, now: Timestamp) {
        if now < self.fades_at {
            return;
        }
        let late = now.since(self.fades_at).as_nanos() / FADE.as_nanos();
        for busy in &mut self.all {
            busy.fade((late + 1).min(FADES_MAX));
        }
        self.fades_at = now + FADE;
    }

    /// Those that `is_there`, the busiest first.
    pub(super) fn ranked(&mut self, now: Timestamp, is_there: impl Fn(KeyId) -> bool) -> Vec<Busy> {
        self.fade(now);
        if self.order.len() != self.all.len() || now.since(self.ordered_at) >= ORDER_LASTS {
            self.sort(now);
        }
        let ranked = self.order.iter().filter_map(|place| self.all.get(usize::from(*place)));
        ranked.filter(|busy| is_there(busy.key)).copied().collect()
    }

    fn sort(&mut self, now: Timestamp) {
        let rank = |place: &u16| {
            let busy = &self.all[usize::from(*place)];
            (busy.rank(), busy.allowed.saturating_add(busy.refused), busy.key)
        };
        let mut order: Vec<_> = (0..=u16::MAX).take(self.all.len()).collect();
        order.sort_by_key(|place| std::cmp::Reverse(rank(place)));
        (self.order, self.ordered_at) = (order, now);
    }
}
