//! Who a server with a key lets in, and what it lets them do: what its thread does for that.

use std::sync::atomic::Ordering;

use crate::engine::{Problem, Request, SessionId};
use crate::error::Error;
use crate::net::refusals::Who;
use crate::net::service::Service;
use crate::time::{Clock, Timestamp};

impl Service {
    /// Answers whether clients are let in. Whether there are no more questions.
    pub(super) fn admit(&mut self) -> Result<bool, Error> {
        let Some(guard) = &mut self.guard else { return Ok(true) };
        let (now, journal, counters) =
            (self.clock.now(), &mut self.journal, &self.control.counters);
        guard.admit(|address, key| {
            counters.denied.fetch_add(1, Ordering::Relaxed);
            let who = Who { client: None, address: Some(address) };
            journal.refusals.auth_refused(now, who, &format_args!("the key {key} is not let in"));
        })
    }

    /// Sees who has sent the message that was received last.
    pub(super) fn recognize(&mut self) -> Result<(), Problem> {
        self.sender = match &self.guard {
            Some(guard) => Some(guard.sender(self.socket.user_id())?),
            None => None,
        };
        Ok(())
    }

    /// Whether the sender of the present message has the right to this.
    pub(super) fn judge(&self, request: &Request<'_>) -> Result<(), Problem> {
        self.sender.as_ref().map_or(Ok(()), |sender| sender.client.rights.judge(request))
    }

    /// Counts and tells the log that a client was refused for its key or its rights.
    pub(super) fn deny(&mut self, now: Timestamp, problem: &Problem) {
        self.control.counters.denied.fetch_add(1, Ordering::Relaxed);
        let name = self.sender.as_ref().map_or("unknown", |sender| &sender.client.name);
        let who = Who { client: None, address: self.socket.peer_address() };
        let reason = format_args!("the key of {name:?}: {problem}");
        self.journal.refusals.auth_refused(now, who, &reason);
    }

    /// The sender of the present message says that a session is its own.
    pub(super) fn claim(&mut self, session: SessionId) -> Result<(), Problem> {
        let (Some(guard), Some(sender)) = (&mut self.guard, &self.sender) else { return Ok(()) };
        guard.claim(session, sender.key, |session| self.machine.knows(session))
    }
}
