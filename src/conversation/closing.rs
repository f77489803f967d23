//! Answers on their way to whoever asked: kept open until they are taken, or given back.

use crate::asking::{LinkId, RequestId};
use crate::conversation::{Answered, Conversation, Outcome, Output};
use crate::time::Timestamp;

impl Conversation {
    /// A request is over: a server has answered it, or none will.
    pub(super) fn finish(&mut self, now: Timestamp, request: RequestId, outcome: Outcome) {
        let Some(outcome) = self.end_part(now, request, outcome) else { return };
        let answered = match &outcome {
            Outcome::Reply(by, reply) => Some((*by, 1, reply.grant())),
            Outcome::Replies(by, replies) => Some((*by, replies.len() as u64, None)),
            Outcome::Seed(..) | Outcome::Late | Outcome::Silence | Outcome::Denied(_) => None,
        };
        if let Some((by, count, grant)) = answered {
            self.unsettled.insert(request, Answered { by, count, grant });
        }
        self.outputs.push_back(Output::Finish(request, outcome));
    }

    /// Gives back all leases that would otherwise be renewed: how many of locks there were.
    pub fn release_all(&mut self, now: Timestamp) -> usize {
        let mut locks = 0;
        for link in (0..self.talks.len()).map(LinkId) {
            for (grant, is_of_locks) in self.talks[link.0].leases.renewed() {
                locks += usize::from(is_of_locks);
                self.release(now, link, grant);
            }
        }
        locks
    }

    /// Whoever asked has its answer, and keeps it.
    pub fn settle(&mut self, request: RequestId) {
        self.unsettled.remove(&request);
    }

    /// Nobody took the answer to a request: what was granted with it is given back.
    pub fn decline(&mut self, now: Timestamp, request: RequestId) {
        let Some(Answered { by, count, grant }) = self.unsettled.remove(&request) else { return };
        if grant.is_some_and(|grant| self.give_back_parts(now, grant)) {
            return;
        }
        for id in request.0..request.0 + count {
            self.cancel(by, RequestId(id));
        }
        let Some(grant) = grant else { return };
        let by = self.place_of(by, grant);
        let leases = &self.talks[by.0].leases;
        if leases.get(grant).is_some_and(|lease| lease.is_lock || self.knows_homes()) {
            // A later run of the server, or another one, may know the lease, but not the request.
            self.give_up_lease(by, grant);
            self.perform(now);
        } else {
            self.drop_lease(by, grant);
        }
    }
}
