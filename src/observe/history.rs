//! What was asked for in the last minutes, second by second: for those who begin to look now.

use std::collections::{BTreeMap, VecDeque};

use crate::engine::{KeyRow, Tally};
use crate::time::Timestamp;

/// How many seconds are remembered.
pub const SECONDS_MAX: usize = 300;

/// Of how many keys.
pub const KEYS_MAX: usize = 64;

/// How many seconds one point of a key's line is.
pub const POINT_SECONDS: usize = 5;

/// What was answered in a second: how many were allowed, and how many refused.
pub type Answers = [u32; 2];

/// The last minutes of the server and of its busiest keys.
#[derive(Debug, Default)]
pub struct History {
    /// When the first second began.
    started_at: Option<Timestamp>,
    total: Line,
    waiting: VecDeque<u32>,
    /// By whether it is a lock, and by the name.
    keys: BTreeMap<(bool, Box<str>), Line>,
}

/// The last seconds of one thing that is counted.
#[derive(Debug, Default)]
struct Line {
    /// What was counted up to now.
    counted: [u64; 2],
    /// What was answered in each second, up to `last`.
    seconds: VecDeque<Answers>,
    /// The number of the last second.
    last: u64,
}

impl Line {
    /// In this second there is so much. What came in seconds that were left out is taken to have
    /// come evenly.
    fn take(&mut self, second: u64, counted: [u64; 2]) {
        let seconds = if self.seconds.is_empty() { 1 } else { second - self.last.min(second) };
        let seconds = seconds.max(1);
        let grown = [0, 1].map(|place| {
            // A counter that fell has begun anew.
            let (before, now) = (self.counted[place], counted[place]);
            now.checked_sub(before).unwrap_or(now)
        });
        let part = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        let each = grown.map(|grown| part(grown / seconds));
        let rest = grown.map(|grown| part(grown - grown / seconds * (seconds - 1)));
        let before = usize::try_from(seconds - 1).unwrap_or(SECONDS_MAX).min(SECONDS_MAX);
        self.seconds.extend(std::iter::repeat_n(each, before));
        self.seconds.push_back(rest);
        let surplus = self.seconds.len().saturating_sub(SECONDS_MAX);
        self.seconds.drain(..surplus);
        (self.counted, self.last) = (counted, second);
    }
}

impl History {
    /// Takes in what is counted now, if that is in another second than before.
    pub fn take(&mut self, now: Timestamp, tally: &Tally, keys: &[KeyRow]) {
        let is_first = self.started_at.is_none();
        let second = now.since(*self.started_at.get_or_insert(now)).as_secs();
        if !is_first && second <= self.total.last {
            return;
        }
        let counted = [tally.allowed, tally.refused];
        if is_first {
            // What was counted before is of no second that is known.
            self.total.counted = counted;
        }
        self.total.take(second, counted);
        let waiting = u32::try_from(tally.waiting).unwrap_or(u32::MAX);
        self.waiting.resize(self.total.seconds.len().saturating_sub(1), waiting);
        self.waiting.push_back(waiting);
        for row in keys.iter().take(KEYS_MAX) {
            let counted = [row.allowed, row.refused];
            // A key that was not there a second ago has done since all that is counted.
            let fresh =
                || Line { counted: if is_first { counted } else { [0; 2] }, ..Line::default() };
            let line = self.keys.entry((row.is_lock, row.key.clone())).or_insert_with(fresh);
            line.take(second, counted);
        }
        let oldest = second.saturating_sub(SECONDS_MAX as u64);
        self.keys.retain(|_, line| line.last >= oldest);
        while self.keys.len() > KEYS_MAX {
            let longest_ago = self.keys.iter().min_by_key(|(_, line)| line.last);
            let Some(name) = longest_ago.map(|(name, _)| name.clone()) else { return };
            self.keys.remove(&name);
        }
    }

    /// What was answered in each second that is known, the last one at the end.
    #[must_use]
    pub fn total(&self) -> impl ExactSizeIterator<Item = Answers> {
        self.total.seconds.iter().copied()
    }

    /// How many waited at the end of each.
    #[must_use]
    pub fn waiting(&self) -> impl ExactSizeIterator<Item = u32> {
        self.waiting.iter().copied()
    }

    /// What was answered of a key in each [`POINT_SECONDS`] seconds, the last of them at the end.
    #[must_use]
    pub fn points(&self, is_lock: bool, key: &str) -> Vec<Answers> {
        let Some(line) = self.keys.get(&(is_lock, key.into())) else { return Vec::new() };
        let still = self.total.last.saturating_sub(line.last);
        let still = usize::try_from(still).unwrap_or(SECONDS_MAX);
        let seconds = line.seconds.iter().rev().copied();
        let seconds = std::iter::repeat_n([0; 2], still).chain(seconds).take(SECONDS_MAX);
        let mut points: Vec<Answers> = Vec::new();
        for (place, answers) in seconds.enumerate() {
            if place % POINT_SECONDS == 0 {
                points.push([0; 2]);
            }
            if let Some(point) = points.last_mut() {
                *point = [0, 1].map(|part| point[part].saturating_add(answers[part]));
            }
        }
        points.reverse();
        points
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_nanos(7) + Duration::from_secs(seconds)
    }

    fn row(key: &str, allowed: u64, refused: u64) -> KeyRow {
        KeyRow {
            key: key.into(),
            is_lock: false,
            rate_millis: 0,
            allowed,
            refused,
            waiting: 0,
            holders: 0,
            remaining: 0,
            reset_after: Duration::ZERO,
            frozen: Duration::ZERO,
            limit: Arc::from(""),
        }
    }

    fn tally(allowed: u64) -> Tally {
        Tally { allowed, waiting: 3, ..Tally::default() }
    }

    #[test]
    fn each_second_has_what_was_answered_in_it() {
        let mut history = History::default();
        for (second, allowed) in [(0, 100), (1, 107), (4, 110)] {
            history.take(at(second), &tally(allowed), &[row("k", allowed, second)]);
        }
        history.take(at(4), &tally(999), &[row("k", 999, 0)]);
        let total: Vec<_> = history.total().map(|answers| answers[0]).collect();
        assert_eq!(total, [0, 7, 1, 1, 1]);
        assert_eq!(history.waiting().collect::<Vec<_>>(), [3; 5]);
        assert_eq!(history.points(false, "k"), [[10, 4]]);
        assert_eq!(history.points(true, "k"), [[0; 2]; 0]);
    }

    #[test]
    fn a_key_that_is_busy_no_more_is_shown_as_still_and_forgotten_in_the_end() {
        let mut history = History::default();
        history.take(at(0), &tally(0), &[]);
        history.take(at(1), &tally(9), &[row("k", 9, 0)]);
        history.take(at(12), &tally(9), &[]);
        assert_eq!(history.points(false, "k"), [[9, 0], [0, 0], [0, 0]]);
        history.take(at(302), &tally(9), &[]);
        assert_eq!(history.points(false, "k"), [[0; 2]; 0]);
    }

    #[test]
    fn a_counter_that_fell_has_begun_anew() {
        let mut history = History::default();
        history.take(at(0), &tally(50), &[row("k", 50, 0)]);
        history.take(at(1), &tally(60), &[row("k", 2, 1)]);
        assert_eq!(history.points(false, "k"), [[2, 1]]);
    }

    #[test]
    fn seconds_and_keys_are_bounded_whatever_comes() {
        let mut history = History::default();
        for second in 0..1000 {
            let keys: Vec<_> = (0..100).map(|n| row(&format!("{second} {n}"), 1, 0)).collect();
            history.take(at(second), &tally(second), &keys);
        }
        history.take(at(1_000_000), &tally(5), &[row("last", 1, 0)]);
        assert_eq!((history.total().len(), history.waiting().len()), (SECONDS_MAX, SECONDS_MAX));
        assert!(history.keys.len() <= KEYS_MAX);
        assert!(!history.points(false, "last").is_empty());
    }
}
