//! How much of a server's memory a connection takes: what it has not finished, what waits to be
//! taken in, and what it does not read.
//!
//! ZeroMQ does not tell. It follows from what the system has counted on the wire, and what the
//! server has taken and sent. Both counts drift apart over days, by heartbeats and by lengths that
//! may be written in two ways; so they are compared from the last instant at which nothing waited.

/// The counts of one connection at one look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Bytes that the library has read.
    pub(super) read: u64,
    /// Messages, and their bytes, that the server has received from the library.
    pub(super) messages: u64,
    pub(super) taken: u64,
    /// Bytes that the server has sent, what they take in memory, and how many have arrived.
    pub(super) sent: u64,
    pub(super) weight: u64,
    pub(super) arrived: u64,
    /// Bytes that are written and have not arrived yet.
    pub(super) under_way: u64,
}

/// What is remembered of a connection between two looks.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Load {
    last: Counts,
    /// What had been read and taken when nothing waited to be taken in, as far as is known: never
    /// so that less would seem to wait than does.
    emptied: Counts,
    /// The counts when nothing waited to be read.
    delivered: Counts,
    /// What had been read when the last message was seen to be taken.
    read_before: u64,
}

impl Load {
    /// How many bytes a connection holds. `drained` is whether the server has had nothing more to
    /// take in at some time since the last look.
    pub(super) fn look(&mut self, now: Counts, drained: bool) -> u64 {
        if now.under_way == 0 {
            // More would be on its way if there were any.
            self.delivered = now;
        }
        if now.messages != self.last.messages {
            self.read_before = now.read;
        }
        let read = now.read.saturating_sub(self.emptied.read);
        let mut waiting = read.saturating_sub(now.taken.saturating_sub(self.emptied.taken));
        if drained {
            // What had been read by the last look has been taken since.
            waiting = waiting.min(now.read.saturating_sub(self.last.read));
            self.emptied = Counts { read: now.read.saturating_sub(waiting), ..now };
        }
        self.last = now;
        let unfinished = now.read.saturating_sub(self.read_before);
        waiting.max(unfinished).saturating_add(self.unread(now))
    }

    fn unread(&self, now: Counts) -> u64 {
        let sent = now.sent.saturating_sub(self.delivered.sent);
        let arrived = now.arrived.saturating_sub(self.delivered.arrived);
        let unread = u128::from(sent.saturating_sub(arrived));
        let weight = u128::from(now.weight.saturating_sub(self.delivered.weight));
        u64::try_from(unread * weight / u128::from(sent.max(1))).unwrap_or(u64::MAX)
    }
}

/// Which of these must end, so that none holds more than `each` and together they hold at most
/// `all`: the largest first. By place in `held`.
pub(super) fn too_large(held: &[u64], each: u64, all: u64) -> Vec<usize> {
    let mut places: Vec<usize> = (0..held.len()).collect();
    places.sort_unstable_by_key(|place| std::cmp::Reverse(held[*place]));
    let mut total: u64 = held.iter().sum();
    let is_too_large = |place: &usize| {
        let ends = held[*place] > each || total > all;
        total -= if ends { held[*place] } else { 0 };
        ends
    };
    places.into_iter().take_while(is_too_large).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_never_ends_is_held() {
        let mut load = Load::default();
        let counts = |read| Counts { read, messages: 1, taken: 100, ..Counts::default() };
        load.look(counts(110), true);
        for read in [110, 1000, 50_000] {
            assert_eq!(load.look(counts(read), true), read - 110);
        }
        // When it is taken after all, nothing is held.
        let whole = Counts { messages: 2, taken: 49_990, ..counts(50_000) };
        load.look(whole, true);
        assert_eq!(load.look(whole, true), 0);
    }

    #[test]
    fn what_waits_to_be_taken_in_is_held() {
        let mut load = Load::default();
        let counts = |read, messages, taken| Counts { read, messages, taken, ..Counts::default() };
        load.look(counts(1000, 10, 1000), true);
        assert_eq!(load.look(counts(9000, 11, 2000), false), 7000);
        assert_eq!(load.look(counts(9000, 12, 3000), false), 6000);
        // The server had taken all before these came.
        assert_eq!(load.look(counts(9500, 19, 9000), true), 500);
    }

    #[test]
    fn what_the_counts_drift_apart_by_is_held_no_longer_than_until_the_next_look() {
        let mut load = Load::default();
        for beat in 1..1_000_u64 {
            let counts =
                Counts { read: beat * 20, messages: beat, taken: beat * 10, ..Counts::default() };
            assert!(load.look(counts, true) <= 20);
        }
    }

    #[test]
    fn answers_that_are_not_read_are_held_with_what_they_weigh() {
        let mut load = Load::default();
        let counts = |sent, arrived, under_way| Counts {
            sent,
            arrived,
            under_way,
            weight: sent * 20,
            ..Counts::default()
        };
        assert_eq!(load.look(counts(100, 164, 0), true), 0);
        assert_eq!(load.look(counts(1100, 364, 300), true), 800 * 20);
        assert_eq!(load.look(counts(1100, 1164, 0), true), 0);
    }

    #[test]
    fn the_largest_end_first_and_no_more_than_must() {
        assert!(too_large(&[5, 1, 9, 3], 100, 100).is_empty());
        assert_eq!(too_large(&[5, 1, 9, 3], 8, 100), [2]);
        assert_eq!(too_large(&[5, 1, 9, 3], 100, 9), [2]);
        assert_eq!(too_large(&[5, 1, 9, 3], 100, 4), [2, 0]);
        assert_eq!(too_large(&[5, 1, 9, 3], 0, 100), [2, 0, 3, 1]);
        assert!(too_large(&[], 1, 1).is_empty());
    }
}
