//! What is measured of the requests of each pattern of keys. All of it is bounded, whatever keys
//! there are, and no clock is read for it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How a request for a key ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It was allowed at once.
    Allowed,
    /// It was allowed after a wait.
    Waited,
    /// It was refused at once.
    Refused,
    /// It waited in vain.
    TimedOut,
    /// Nobody waits for it any more.
    Cancelled,
    /// It cannot be answered.
    Failed,
    /// A permit of a block: the client that has it decides by itself.
    Lent,
}

impl Ending {
    /// All of them, with the words for people.
    pub const ALL: [(Self, &str); 7] = [
        (Self::Allowed, "allowed"),
        (Self::Waited, "waited"),
        (Self::Refused, "refused"),
        (Self::TimedOut, "timed_out"),
        (Self::Cancelled, "cancelled"),
        (Self::Failed, "error"),
        (Self::Lent, "lent"),
    ];
}

/// How often what was observed lies between which bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    bounds: &'static [u64],
    /// One more than there are bounds: what is above all of them.
    counts: Box<[u64]>,
    sum: u128,
}

impl Histogram {
    /// A histogram with these bounds, which rise.
    #[must_use]
    pub fn new(bounds: &'static [u64]) -> Self {
        Self { bounds, counts: vec![0; bounds.len() + 1].into(), sum: 0 }
    }

    /// Counts a value: of those up to a bound, the least that it is not above.
    pub fn observe(&mut self, value: u64) {
        let place = self.bounds.partition_point(|bound| *bound < value);
        self.counts[place] += 1;
        self.sum += u128::from(value);
    }

    /// Counts a length of time, in nanoseconds.
    pub fn observe_length(&mut self, length: Duration) {
        self.observe(u64::try_from(length.as_nanos()).unwrap_or(u64::MAX));
    }

    /// The bounds, and how many values are not above each.
    pub fn cumulated(&self) -> impl Iterator<Item = (u64, u64)> {
        let sums = self.counts.iter().scan(0, |sum: &mut u64, count| {
            *sum += count;
            Some(*sum)
        });
        self.bounds.iter().copied().zip(sums)
    }

    /// How many values there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// What they make together.
    #[must_use]
    pub const fn sum(&self) -> u128 {
        self.sum
    }
}

const MILLI: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;

/// The bounds for waits and holds, in nanoseconds: from a millisecond to an hour.
const LENGTHS: &[u64] = &[
    MILLI,
    5 * MILLI,
    10 * MILLI,
    25 * MILLI,
    50 * MILLI,
    100 * MILLI,
    250 * MILLI,
    500 * MILLI,
    SECOND,
    5 * SECOND / 2,
    5 * SECOND,
    10 * SECOND,
    30 * SECOND,
    60 * SECOND,
    300 * SECOND,
    3600 * SECOND,
];

/// What is counted of the keys that one rule is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatternCounts {
    /// Whether these are locks.
    pub is_lock: bool,
    /// The name or the pattern of the rule; `*` for all other keys, and for locks.
    pub pattern: Arc<str>,
    /// How often each of [`Ending::ALL`] was.
    pub counts: [u64; Ending::ALL.len()],
}

/// The place of a pattern among those that are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PatternId(u16);

impl PatternId {
    /// Those for which there is no room.
    pub(super) const MORE: Self = Self(0);
    /// Keys that no rule is for.
    pub(super) const NONE: Self = Self(1);
    /// All locks.
    pub(super) const LOCKS: Self = Self(2);
}

/// How those patterns are called that are none.
const MORE: &str = "(more)";
const NONE: &str = "(none)";

/// What is measured.
#[derive(Clone, Debug)]
pub struct Measures {
    patterns: Vec<PatternCounts>,
    by_pattern: BTreeMap<Arc<str>, PatternId>,
    patterns_max: usize,
    waits: [Histogram; 2],
    holds: [Histogram; 2],
}

impl Measures {
    /// Nothing yet, of at most so many patterns.
    pub(super) fn new(patterns_max: usize) -> Self {
        let none = [(false, MORE), (false, NONE), (true, "*")].map(|(is_lock, pattern)| {
            PatternCounts { is_lock, pattern: pattern.into(), counts: [0; Ending::ALL.len()] }
        });
        Self {
            patterns: none.into(),
            by_pattern: BTreeMap::new(),
            patterns_max,
            waits: [Histogram::new(LENGTHS), Histogram::new(LENGTHS)],
            holds: [Histogram::new(LENGTHS), Histogram::new(LENGTHS)],
        }
    }

    /// Where the keys of a rule are counted.
    pub(super) fn pattern(&mut self, pattern: &str) -> PatternId {
        if let Some(id) = self.by_pattern.get(pattern) {
            return *id;
        }
        let id = u16::try_from(self.patterns.len());
        let Ok(id) = id.map(PatternId) else { return PatternId::MORE };
        if self.by_pattern.len() >= self.patterns_max {
            return PatternId::MORE;
        }
        let pattern: Arc<str> = pattern.into();
        let counts = [0; Ending::ALL.len()];
        self.patterns.push(PatternCounts { is_lock: false, pattern: pattern.clone(), counts });
        self.by_pattern.insert(pattern, id);
        id
    }

    pub(super) fn count(&mut self, pattern: PatternId, ending: Ending, times: u64) {
        if let Some(pattern) = self.patterns.get_mut(usize::from(pattern.0)) {
            pattern.counts[ending as usize] += times;
        }
    }

    pub(super) fn waited(&mut self, is_lock: bool, length: Duration) {
        self.waits[usize::from(is_lock)].observe_length(length);
    }

    pub(super) fn held(&mut self, is_lock: bool, length: Duration) {
        self.holds[usize::from(is_lock)].observe_length(length);
    }

    /// The patterns, each with its counts.
    #[must_use]
    pub fn patterns(&self) -> &[PatternCounts] {
        &self.patterns
    }

    /// How long those waited that were allowed in the end: of limits, and of locks.
    #[must_use]
    pub const fn waits(&self) -> &[Histogram; 2] {
        &self.waits
    }

    /// How long leases were held that are over: of limits, and of locks.
    #[must_use]
    pub const fn holds(&self) -> &[Histogram; 2] {
        &self.holds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_at_a_bound_is_not_above_it() {
        let mut histogram = Histogram::new(&[1, 5]);
        for value in [0, 1, 2, 5, 6] {
            histogram.observe(value);
        }
        assert_eq!(histogram.cumulated().collect::<Vec<_>>(), [(1, 2), (5, 4)]);
        assert_eq!((histogram.count(), histogram.sum()), (5, 14));
    }

    #[test]
    fn beyond_the_bound_all_patterns_are_one() {
        let mut measures = Measures::new(2);
        let [a, b, c] = ["a", "b", "c"].map(|name| measures.pattern(name));
        assert!(a != b && a != PatternId::MORE && b != PatternId::MORE);
        assert_eq!((c, measures.pattern("a")), (PatternId::MORE, a));
        measures.count(c, Ending::Refused, 3);
        assert_eq!(measures.patterns().len(), 5);
        assert_eq!(measures.patterns()[0].counts, [0, 0, 3, 0, 0, 0, 0]);
    }

    #[test]
    fn the_words_stand_in_the_order_of_the_endings() {
        for (place, (ending, _)) in Ending::ALL.iter().enumerate() {
            assert_eq!(*ending as usize, place);
        }
    }
}
