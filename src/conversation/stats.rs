//! What a client counts of its own doings.

use std::time::Duration;

use crate::asking::{LinkId, RequestId};
use crate::conversation::Conversation;
use crate::conversation::question::Question;
use crate::time::Timestamp;

/// What a client has done since it was made, and what it does at present.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientStats {
    /// Requests that were begun.
    pub requests: u64,
    /// Requests that a server answered.
    pub answers: u64,
    /// Requests that were given up because their time ran out.
    pub timeouts: u64,
    /// How often a request was sent once more: on another connection, or to another server.
    pub retries: u64,
    /// How often a connection was made again after one had ended.
    pub reconnects: u64,
    /// Decisions that a policy made because no server answered.
    pub by_policy: u64,
    /// How long the requests that were answered took, all together.
    pub waited: Duration,
    /// How long the slowest of them took.
    pub waited_max: Duration,
    /// Requests that are under way.
    pub under_way: u64,
    /// Leases that are held.
    pub leases: u64,
    /// Servers that the client was given.
    pub servers: u64,
    /// How many of them it is connected to.
    pub servers_up: u64,
    /// How many of those answer: none of them owes an answer for longer than is expected.
    pub servers_healthy: u64,
}

impl Conversation {
    /// What was done so far.
    #[must_use]
    pub fn stats(&self) -> ClientStats {
        let leases = self.talks.iter().map(|talk| talk.leases.len() as u64).sum();
        let up = self.talks.iter().enumerate().filter(|(_, talk)| talk.is_up);
        let healthy = up.clone().filter(|(place, _)| !self.asking.is_silent(LinkId(*place)));
        let reconnects = self.talks.iter().map(|talk| talk.connection.saturating_sub(1)).sum();
        ClientStats {
            reconnects,
            under_way: self.questions.values().map(Question::count).sum(),
            leases,
            servers: self.talks.len() as u64,
            servers_up: up.count() as u64,
            servers_healthy: healthy.count() as u64,
            ..self.counts
        }
    }

    /// Ends a request that this server has answered, if it was under way.
    pub(super) fn end_answered(
        &mut self,
        now: Timestamp,
        link: LinkId,
        request: RequestId,
    ) -> Option<Question> {
        if !self.asking.answered(link, request) {
            return None;
        }
        let question = self.end(request, Some(link))?;
        let (counts, took) = (&mut self.counts, now.since(question.asked_at));
        let count = question.count();
        counts.answers += count;
        counts.waited += took * u32::try_from(count).unwrap_or(u32::MAX);
        counts.waited_max = counts.waited_max.max(took);
        Some(question)
    }
}
