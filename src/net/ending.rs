//! The end of a server: when it comes, and what it leaves behind.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use crate::engine::Input;
use crate::error::Error;
use crate::net::service::Service;
use crate::time::{Clock, Timestamp};

impl Service {
    /// Whether it is to stop now. Takes up the wish that it stops soon.
    pub(super) fn is_done(&mut self) -> bool {
        let wish = self.control.drain.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(length) = wish {
            let now = self.clock.now();
            self.journal.drain(length, &self.machine.tally());
            self.drained_at = Some(now + length);
            self.handle(now, Input::Drain);
        }
        let is_drained = |at: Timestamp| {
            let tally = self.machine.tally();
            // What outlives the server is not waited for.
            let all = self.ledger.is_none();
            let held = if all { tally.leases } else { self.machine.permits_held() };
            at <= self.clock.now() || (tally.waiting == 0 && held == 0)
        };
        let ends =
            self.control.stop.load(Ordering::Acquire) || self.drained_at.is_some_and(is_drained);
        ends && self.has_left()
    }

    /// Writes down exactly what is used, so that the next server goes on from there.
    pub(super) fn settle(&mut self) -> Result<(), Error> {
        let mut next = self.ledger.is_some().then_some(0);
        while let Some(place) = next {
            next = self.machine.settle(self.clock.now(), place);
            self.drain();
        }
        let Some(ledger) = self.ledger.take() else { return Ok(()) };
        let all_is_known = self.machine.hand_over(self.clock.now());
        ledger.write_outputs(&mut self.machine);
        ledger.close(all_is_known)
    }
}
