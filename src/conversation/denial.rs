//! Servers that do not let us in, and what becomes of requests that nobody else can answer.

use crate::asking::{LinkId, RequestId};
use crate::conversation::{Conversation, Outcome};
use crate::time::Timestamp;

impl Conversation {
    /// The server of a link did not let us in. Ends the requests that no other server can answer.
    /// Those to come wait: a link that is denied is tried again.
    pub(super) fn deny(&mut self, now: Timestamp, link: LinkId) {
        self.denied.insert(link.0);
        let all = self.denied.len() == self.talks.len();
        let is_hopeless = |id: &&RequestId| self.asking.only(**id).map_or(all, |only| only == link);
        let hopeless: Vec<_> = self.questions.keys().filter(is_hopeless).copied().collect();
        for id in hopeless {
            self.asking.forget(id);
            if self.end(id, None).is_some_and(|question| question.reclaims.is_none()) {
                self.finish(now, id, Outcome::Denied(link));
            }
        }
    }
}
