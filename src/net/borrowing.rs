//! Permits of the seed's key that a server borrows from the home of the key, where many ask for
//! them here: it answers those by itself, as a client spends a block.

use std::sync::Arc;
use std::time::Duration;

use crate::answer::Answer;
use crate::engine::{Cost, Key};
use crate::error::Error;
use crate::net::client::Client;
use crate::net::lender::{AtOnce, Lender};
use crate::time::Timestamp;

/// How long requests are counted before it is seen whether there are many.
const INTERVAL: Duration = Duration::from_millis(100);

/// So many in that time are many. Where there are fewer, what is borrowed could be missed by those
/// who ask elsewhere, and goes back.
const MANY: u32 = 50;

/// What is borrowed, and how many ask.
#[derive(Debug, Default)]
pub(super) struct Borrowing {
    lender: Option<Lender>,
    counted_from: Timestamp,
    count: u32,
}

impl Borrowing {
    /// When to look whether what is borrowed is still asked for.
    pub(super) fn poll_timeout(&self) -> Option<Timestamp> {
        self.lender.as_ref().map(|_| self.counted_from + INTERVAL)
    }

    /// Gives everything back.
    pub(super) fn end(&mut self) {
        self.lender = None;
    }

    /// Begins to borrow if many ask, and gives back if few do.
    pub(super) fn count(
        &mut self,
        now: Timestamp,
        home: Option<&Arc<Client>>,
    ) -> Result<(), Error> {
        if now < self.counted_from + INTERVAL {
            return Ok(());
        }
        let are_many = self.count >= MANY && now < self.counted_from + INTERVAL * 2;
        (self.counted_from, self.count) = (now, 0);
        match home.filter(|_| are_many) {
            None => self.end(),
            Some(home) if self.lender.is_none() => {
                self.lender = Some(Lender::new(Arc::clone(home), Key::DEFAULT.as_str())?);
            }
            Some(_) => {}
        }
        Ok(())
    }

    /// The answer to a request, if the home need not be asked; it waits for permits that are free
    /// within `patience`.
    pub(super) fn answer(&mut self, patience: Duration) -> Result<Option<Answer>, Error> {
        self.count = self.count.saturating_add(1);
        let Some(lender) = &self.lender else { return Ok(None) };
        Ok(match lender.spend_at_hand(Cost::ONE)? {
            AtOnce::Yes => Some(Answer::Go),
            AtOnce::No(decision) => {
                decision.retry_after.is_none_or(|wait| patience < wait).then_some(Answer::Sorry)
            }
            AtOnce::Ask(_) => None,
        })
    }
}
