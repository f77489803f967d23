//! Room at a server: for those who come, and from those who take too much of it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::engine::{Code, Input, Problem, SessionId};
use crate::error::Error;
use crate::net::refusals::Who;
use crate::net::service::Service;
use crate::net::socket::Sent;
use crate::time::Timestamp;
use crate::wire::Frames;

/// A client whose connection is gone may take so long to come back, even if others need its place.
const ABSENCE_MAX: Duration = Duration::from_secs(5);

impl Service {
    /// Sees to it that there is room for one more client, where some have left without a word.
    pub(super) fn make_room(&mut self, now: Timestamp) {
        if self.machine.tally().sessions >= self.sessions_max && now >= self.room_at {
            self.room_at = now + Duration::from_secs(1);
            let is_late = |since: Timestamp| now.since(since) >= ABSENCE_MAX;
            let gone = self.desk.sessions().filter(|(session, routing_id)| {
                self.machine.idle_since(*session).is_some_and(is_late)
                    && self.callers.has_left(routing_id)
            });
            let gone: Vec<_> = gone.map(|(session, _)| session).collect();
            for session in gone {
                self.handle(now, Input::Bye(session));
            }
        }
        if self.desk.len() >= self.sessions_max {
            self.desk.tidy(|session| self.machine.knows(session));
        }
    }

    /// A connection has one session at a time: the one before ends.
    pub(super) fn end_other(&mut self, now: Timestamp, before: Option<SessionId>, id: SessionId) {
        if let Some(before) = before.filter(|before| *before != id) {
            self.handle(now, Input::Bye(before));
        }
    }

    /// Tells the log of one who asks faster than it may.
    pub(super) fn hurried(&mut self, now: Timestamp, session: Option<SessionId>) {
        self.control.counters.hurried.fetch_add(1, Ordering::Relaxed);
        let client = session.and_then(|session| self.machine.client(session));
        let who = Who { client, address: self.socket.peer_address() };
        self.journal.refusals.bound_hit(now, who, &too_fast());
    }

    pub(super) fn send(&mut self, message: &Frames) -> Result<Sent, Error> {
        let sent = self.socket.send(message)?;
        match sent {
            Sent::Yes => self.callers.said(message),
            // Whoever reads nothing may hear on its next connection what it has missed.
            Sent::Full => self.callers.end(message.get(0).unwrap_or_default()),
            Sent::Gone => {}
        }
        Ok(sent)
    }
}

/// Why a request is refused that came too early.
pub(super) fn too_fast() -> Problem {
    let message = "the client makes more requests in a second than one may \
                   (`client_requests_max`): ask again later";
    Problem { code: Code::BoundExceeded, message: message.to_owned() }
}
