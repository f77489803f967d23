//! How many requests one client may make in a second.

use crate::time::Timestamp;

const SECOND: u64 = 1_000_000_000;

/// So many requests in a second, all of them at once if need be.
///
/// Source: the generic cell rate algorithm (ITU-T I.371) with the burst of one second.
///
/// ```
/// use zmqlocker::pace::Pace;
/// use zmqlocker::time::Timestamp;
///
/// let mut pace = Pace::new(2);
/// let start = Timestamp::from_nanos(7);
/// assert!(pace.admits(start) && pace.admits(start));
/// assert!(!pace.admits(start));
/// assert!(pace.admits(Timestamp::from_nanos(7 + 500_000_000)));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// For how long one request counts, in nanoseconds; 0 if any number may be made.
    each: u64,
    /// When all that were made count no more.
    free_at: Timestamp,
}

impl Pace {
    /// At most `most` requests in a second; more than a billion are without a bound.
    #[must_use]
    pub const fn new(most: usize) -> Self {
        Self { each: SECOND / most as u64, free_at: Timestamp::ZERO }
    }

    /// Whether any number may be made.
    #[must_use]
    pub const fn is_free(&self) -> bool {
        self.each == 0
    }

    /// Whether one more may be made at `now`. It counts if so.
    pub fn admits(&mut self, now: Timestamp) -> bool {
        let busy = self.free_at.max(now).as_nanos() + self.each;
        let admits = self.is_free() || busy - now.as_nanos() <= SECOND;
        if admits {
            self.free_at = Timestamp::from_nanos(busy);
        }
        admits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_room_for_exactly_so_many() {
        for most in [1, 2, 3, 7, 1000, 999_999_937] {
            let mut pace = Pace::new(most);
            let mut now = Timestamp::from_nanos(3 * SECOND);
            let tried = most.min(2000);
            for _ in 0..tried {
                assert!(pace.admits(now));
            }
            assert_eq!(pace.admits(now), tried < most, "{most}");
            now = Timestamp::from_nanos(now.as_nanos() + SECOND + 1);
            assert!((0..tried).all(|_| pace.admits(now)));
        }
    }

    #[test]
    fn without_a_bound_all_are_admitted() {
        let mut pace = Pace::new(usize::MAX);
        assert!((0..10_000).all(|_| pace.admits(Timestamp::from_nanos(5))));
    }
}
