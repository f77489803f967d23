//! SANS-IO: how a client spends the permits of blocks by itself, and when it asks for more.
//!
//! The hot path is one look at the clock and one subtraction. The next block is asked for when half
//! of the present one is gone; how large it is follows from how fast the last one was spent. What a
//! block has left when its time is over is void here before the server counts it as free.

use std::time::Duration;

use crate::engine::{Block, Decision};
use crate::time::Timestamp;

/// How many permits are asked for at first.
const WANTED_FIRST: u64 = 16;

/// The most permits that are asked for.
const WANTED_MAX: u64 = 1_000_000_000;

/// What came of the wish to spend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spent {
    /// It was spent, out of what we have.
    Yes,
    /// It was spent, and it is time to ask for the next block, of so many permits.
    AskAhead(u64),
    /// There is nothing left: ask for a block of so many permits.
    Empty(u64),
    /// There is nothing left, and nothing to be had yet.
    Refused(Decision),
}

/// The permits of one client that it may spend by itself. `G` is what a block is given back by.
#[derive(Debug)]
pub struct Spending<G> {
    wanted: u64,
    present: Option<Lot<G>>,
    next: Option<Lot<G>>,
    asked_ahead: bool,
    /// What the server said when it had none, and until when that holds.
    refused: Option<(Timestamp, Decision)>,
    /// What is void, and was not given back yet.
    void: Vec<(G, u64)>,
}

#[derive(Debug)]
struct Lot<G> {
    granted: G,
    permits: u64,
    left: u64,
    sent_at: Timestamp,
    valid_until: Timestamp,
}

impl<G> Default for Spending<G> {
    fn default() -> Self {
        Self {
            wanted: WANTED_FIRST,
            present: None,
            next: None,
            asked_ahead: false,
            refused: None,
            void: Vec::new(),
        }
    }
}

impl<G> Spending<G> {
    /// Spends `cost` permits, if we have them.
    pub fn spend(&mut self, now: Timestamp, cost: u64) -> Spent {
        if let Some(lot) = &mut self.present
            && lot.left >= cost
            && now < lot.valid_until
        {
            lot.left -= cost;
            if lot.left <= lot.permits / 2 && !self.asked_ahead && self.next.is_none() {
                return self.ask_ahead(now);
            }
            return Spent::Yes;
        }
        self.spend_slowly(now, cost)
    }

    fn spend_slowly(&mut self, now: Timestamp, cost: u64) -> Spent {
        for _ in 0..2 {
            let Some(lot) = &mut self.present else { break };
            if now < lot.valid_until && lot.left >= cost {
                lot.left -= cost;
                return Spent::Yes;
            }
            if now < lot.valid_until && lot.left > 0 && self.next.is_none() {
                break;
            }
            self.retire(now);
        }
        match &self.refused {
            Some((until, decision)) if now < *until => {
                let retry_after = Some(until.since(now));
                Spent::Refused(Decision { retry_after, ..decision.clone() })
            }
            _ => Spent::Empty(self.wanted.max(cost)),
        }
    }

    /// The present lot is done with: how it went says how large the next one should be.
    fn retire(&mut self, now: Timestamp) {
        let Some(lot) = std::mem::replace(&mut self.present, self.next.take()) else { return };
        let used = lot.permits - lot.left;
        if now < lot.valid_until {
            self.wanted = lot.permits.saturating_mul(2).max(self.wanted).min(WANTED_MAX);
        } else {
            self.wanted = used.saturating_add(used / 4).max(1);
        }
        if lot.left > 0 {
            self.void.push((lot.granted, lot.left));
        }
    }

    fn ask_ahead(&mut self, now: Timestamp) -> Spent {
        self.asked_ahead = true;
        let wanted = self.present.as_ref().map_or(self.wanted, |lot| {
            // Half of it lasted so long: what will be needed for the whole time of a block?
            let took = now.since(lot.sent_at).max(Duration::from_nanos(1)).as_nanos();
            let whole = lot.valid_until.since(lot.sent_at).as_nanos();
            let used = u128::from(lot.permits - lot.left);
            u64::try_from(used.saturating_mul(whole) / took).unwrap_or(u64::MAX)
        });
        Spent::AskAhead(wanted.clamp(1, WANTED_MAX))
    }

    /// A block came that was asked for at `sent_at`, or the word that there is none.
    pub fn receive(
        &mut self,
        now: Timestamp,
        sent_at: Timestamp,
        block: &Block,
        granted: Option<G>,
    ) {
        self.asked_ahead = false;
        let Some(granted) = granted.filter(|_| block.permits > 0) else {
            // Nobody knows when: not to be asked again at once.
            let retry_after = block.decision.retry_after.unwrap_or(Duration::from_millis(1));
            self.refused = Some((now + retry_after, block.decision.clone()));
            return;
        };
        self.refused = None;
        // Clocks may differ in rate by 0.2 %, the server's and ours to either side.
        let valid_for = block.valid_for.saturating_sub(block.valid_for * 8 / 1000);
        let valid_until = sent_at + valid_for;
        let lot =
            Lot { granted, permits: block.permits, left: block.permits, sent_at, valid_until };
        if self.present.is_some() && self.next.is_none() {
            self.next = Some(lot);
        } else if let Some(old) = self.present.replace(lot)
            && old.left > 0
        {
            self.void.push((old.granted, old.left));
        }
    }

    /// Nothing will come of what was asked ahead.
    pub const fn give_up_asking_ahead(&mut self) {
        self.asked_ahead = false;
    }

    /// How many permits we may still spend.
    #[must_use]
    pub fn left(&self, now: Timestamp) -> u64 {
        let lots = self.present.iter().chain(&self.next);
        lots.filter(|lot| now < lot.valid_until).map(|lot| lot.left).sum()
    }

    /// What is void, and can be given back.
    pub fn take_void(&mut self) -> Vec<(G, u64)> {
        std::mem::take(&mut self.void)
    }

    /// Gives up everything that was not spent, so that it can be given back.
    pub fn take_all(&mut self) -> Vec<(G, u64)> {
        let lots = self.present.take().into_iter().chain(self.next.take());
        self.void.extend(lots.map(|lot| (lot.granted, lot.left)));
        self.take_void()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::ZERO + Duration::from_millis(millis)
    }

    fn block(permits: u64, millis: u64) -> Block {
        let decision = Decision {
            allowed: permits > 0,
            remaining: 0,
            retry_after: Some(Duration::from_millis(millis)),
            reset_after: Duration::ZERO,
            limit: Arc::from("1/s"),
            key: 0,
            grant: None,
        };
        Block { permits, valid_for: Duration::from_millis(millis), grant: None, decision }
    }

    #[test]
    fn the_next_block_is_asked_for_at_half() {
        let mut spending = Spending::default();
        assert_eq!(spending.spend(at(0), 1), Spent::Empty(WANTED_FIRST));
        spending.receive(at(1), at(0), &block(4, 1000), Some('a'));
        assert_eq!(spending.spend(at(10), 1), Spent::Yes);
        assert!(matches!(spending.spend(at(10), 1), Spent::AskAhead(_)));
        assert_eq!(spending.spend(at(10), 1), Spent::Yes);
        spending.receive(at(11), at(10), &block(8, 1000), Some('b'));
        assert_eq!(spending.left(at(11)), 9);
        assert_eq!(spending.spend(at(12), 1), Spent::Yes);
        assert_eq!(spending.spend(at(12), 1), Spent::Yes);
        assert_eq!(spending.left(at(12)), 7);
    }

    #[test]
    fn a_block_is_void_before_its_time_is_over_on_a_fast_clock() {
        let mut spending = Spending::default();
        spending.receive(at(500), at(0), &block(4, 1000), Some('a'));
        assert_eq!(spending.spend(at(991), 1), Spent::Yes);
        assert!(matches!(spending.spend(at(992), 1), Spent::Empty(_)));
        assert_eq!(spending.take_void(), [('a', 3)]);
    }

    #[test]
    fn a_refusal_holds_until_there_may_be_more() {
        let mut spending = Spending::<char>::default();
        spending.receive(at(1), at(0), &block(0, 100), None);
        assert!(matches!(spending.spend(at(100), 1), Spent::Refused(_)));
        assert!(matches!(spending.spend(at(101), 1), Spent::Empty(_)));
    }

    #[test]
    fn what_was_not_used_is_not_asked_for_again() {
        let mut spending = Spending::default();
        spending.receive(at(0), at(0), &block(1000, 1000), Some('a'));
        for _ in 0..8 {
            assert_eq!(spending.spend(at(1), 1), Spent::Yes);
        }
        assert_eq!(spending.spend(at(2000), 1), Spent::Empty(10));
    }
}
