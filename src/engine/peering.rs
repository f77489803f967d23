//! Several servers that count for each other: what one of them tells the others, and is told.
//!
//! Law: with each server telling all that it grants, and granting no more than its part of
//! [`Peering::UNTOLD_PART`] beyond what all others have said they know, all of them together grant
//! at most the limit and that part of it; while some are cut off, at most the limit and the fair
//! shares of one window.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::engine::limit::Kind;
use crate::engine::machine::Machine;
use crate::engine::table::KeyId;
use crate::time::Timestamp;

/// How a server stands to the others that grant permits of the same keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peering {
    /// How many servers there are, this one included.
    pub servers: u64,
    /// How many of them know of each other's grants, this one included.
    pub in_touch: u64,
    /// Whether any of the others says what it knows.
    pub is_told: bool,
    /// Until then nothing is granted: others may know what an earlier run of this one granted.
    pub joins_until: Timestamp,
}

impl Peering {
    /// Which part of a limit all servers but one may grant, beyond what the others know.
    pub const UNTOLD_PART: u64 = 100;

    /// How long a request that would not wait does so for the word of other servers.
    pub const HOLD: Duration = Duration::from_secs(1);

    /// A server that is alone.
    pub const ALONE: Self =
        Self { servers: 1, in_touch: 1, is_told: false, joins_until: Timestamp::ZERO };

    /// This server's part of so many permits, while it cannot know what others grant. It is one at
    /// the least: where there are more servers than permits, nobody would get any otherwise.
    #[must_use]
    pub fn share(&self, permits: u64) -> u64 {
        let share = u128::from(permits) * u128::from(self.in_touch) / u128::from(self.servers);
        u64::try_from(share).unwrap_or(permits).max(1)
    }

    /// What so many permits count for where only a share of the rate may be used.
    pub(super) fn weigh(&self, permits: u64) -> u64 {
        let weight = u128::from(permits) * u128::from(self.servers);
        u64::try_from(weight.div_ceil(u128::from(self.in_touch))).unwrap_or(u64::MAX)
    }

    /// How many permits of a limit may be granted that the others do not know of.
    pub(super) fn untold_max(&self, capacity: u64) -> u64 {
        (capacity / Self::UNTOLD_PART / self.servers.saturating_sub(1).max(1)).max(1)
    }

    pub(super) const fn is_cut_off(&self) -> bool {
        self.in_touch < self.servers
    }

    /// A limit of which only a share may be used.
    pub(super) fn tightened(&self, kind: Kind) -> Kind {
        match kind {
            Kind::FixedWindow(rate) => Kind::FixedWindow(rate.of(self.share(rate.max_requests()))),
            Kind::SlidingWindow(rate) => {
                Kind::SlidingWindow(rate.of(self.share(rate.max_requests())))
            }
            // Its instants are counted in parts of its rate, so what is asked for weighs more.
            Kind::Gcra(..) | Kind::Concurrency(_) => kind,
        }
    }
}

/// Permits of a key that a server has granted since it told last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Go {
    /// The key.
    pub key: Box<str>,
    /// The texts of its limits.
    pub limits: Vec<Arc<str>>,
    /// How many.
    pub permits: u64,
    /// For each limit how long ago: when the slot of a fixed window opened, and of the others when
    /// the last of them was granted.
    pub ages: Vec<Duration>,
}

/// What is used of a key, whoever granted it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// The key.
    pub key: Box<str>,
    /// The text of each limit, and what is used of it; nothing if nothing is.
    pub limits: Vec<(Arc<str>, Option<Left>)>,
}

/// What is used of a limit, with how long that counts from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Left {
    /// So many permits of a slot that ends then.
    Slot(Duration, u64),
    /// Permits, each for so long.
    Log(Vec<(Duration, u64)>),
    /// Everything is worked off then.
    Arrival(Duration),
}

/// Two servers do not agree about a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The key.
    pub key: Box<str>,
    /// Its limits here; empty if it has none.
    pub here: String,
    /// Its limits there.
    pub there: String,
}

/// What a gate that has peers keeps of them.
#[derive(Debug)]
pub(super) struct Peered {
    pub(super) standing: Peering,
    /// What was granted since the others were told.
    pub(super) granted: Vec<(KeyId, u64, Timestamp)>,
    /// When the first of it was.
    pub(super) since: Timestamp,
    /// Whether the others are to say soon that they know it.
    pub(super) is_urgent: bool,
    /// What they were told of, by the number of the message, and have not said that they know.
    pub(super) untold: VecDeque<(u64, KeyId, u64)>,
}

impl Peered {
    pub(super) const fn new(standing: Peering) -> Self {
        Self {
            standing,
            granted: Vec::new(),
            since: Timestamp::ZERO,
            is_urgent: false,
            untold: VecDeque::new(),
        }
    }
}

impl<E> Machine<E> {
    /// From now on other servers grant permits of the same keys, and this one stands to them like
    /// that. Drain the outputs after it.
    pub fn set_peering(&mut self, now: Timestamp, standing: Peering) {
        self.run_timers(now);
        self.gate.set_peering(now, standing);
        self.pass_on();
    }

    /// What was granted since this was asked last, of at most so many keys: it goes into the
    /// message of that number.
    pub fn take_granted(&mut self, now: Timestamp, number: u64, keys_max: usize) -> Vec<Go> {
        self.gate.take_granted(now, number, keys_max)
    }

    /// Since when something was granted that no message tells of, and whether the others are to say
    /// soon that they know it.
    #[must_use]
    pub fn granted_since(&self) -> Option<(Timestamp, bool)> {
        self.gate.granted_since()
    }

    /// All others know of the messages up to this number. Drain the outputs after it.
    pub fn is_known(&mut self, now: Timestamp, number: u64) {
        self.run_timers(now);
        self.gate.is_known(now, number);
        self.pass_on();
    }

    /// Counts what another server has granted.
    ///
    /// # Errors
    ///
    /// The [`Difference`] if the key has other limits there. It is counted all the same.
    pub fn count_in(&mut self, now: Timestamp, go: &Go) -> Result<(), Difference> {
        self.run_timers(now);
        let counted = self.gate.count_in(now, go);
        self.pass_on();
        counted
    }

    /// Takes over what another server has counted, where it has counted more.
    ///
    /// # Errors
    ///
    /// The [`Difference`] if the key has other limits there: then it is not taken over.
    pub fn take_over(&mut self, now: Timestamp, usage: &Usage) -> Result<(), Difference> {
        self.run_timers(now);
        let taken = self.gate.take_over(now, usage);
        self.pass_on();
        taken
    }

    /// What is used of some keys, `from` a place on, and where to go on if there are more.
    #[must_use]
    pub fn usage(&self, now: Timestamp, from: usize) -> (Vec<Usage>, Option<usize>) {
        self.gate.usage(now, from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_in_proportion_and_never_nothing() {
        let standing = |servers, in_touch| Peering { servers, in_touch, ..Peering::ALONE };
        assert_eq!(standing(3, 2).share(100), 66);
        assert_eq!(standing(3, 1).share(2), 1);
        assert_eq!(standing(3, 1).share(u64::MAX), u64::MAX / 3);
        assert_eq!(standing(3, 2).weigh(3), 5);
        assert_eq!(standing(2, 1).weigh(u64::MAX), u64::MAX);
    }

    #[test]
    fn a_hundredth_of_a_limit_may_be_untold_by_all_but_one() {
        let three = Peering { servers: 3, ..Peering::ALONE };
        assert_eq!(three.untold_max(10_000), 50);
        assert_eq!(three.untold_max(5), 1);
    }
}
