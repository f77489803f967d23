//! Which answers the servers may forget.
//!
//! All below a floor, but for some that were asked long before: one that waits for hours holds back
//! the answers to nothing else.

use crate::asking::{LinkId, RequestId};
use crate::conversation::{Answered, Conversation, Question};
use crate::time::Timestamp;
use crate::wire::request::OPEN_MAX;

/// How far a request that is not done with is behind the next one when it is named. Those that are
/// under way at any time need not be.
const BEHIND: u64 = 1024;

/// All requests below `floor` are done with, but for those of `open`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Done {
    pub(super) floor: RequestId,
    pub(super) open: Vec<RequestId>,
}

impl Conversation {
    /// Says that we live, and what is done with.
    pub(super) fn say_beat(&mut self, now: Timestamp, link: LinkId) {
        self.last_beat += 1;
        let done = self.done();
        self.talks[link.0].beat(now, self.last_beat, &done);
    }

    /// What is done with. A cancel that is owed comes before any beat.
    fn done(&self) -> Done {
        let next = self.asking.next_number();
        let behind = RequestId(next.0.saturating_sub(BEHIND));
        let numbers = |first: &RequestId, count: u64| (first.0..first.0 + count).map(RequestId);
        let of_question = |(first, it): (&RequestId, &Question)| numbers(first, it.count());
        let of_answer = |(first, it): (&RequestId, &Answered)| numbers(first, it.count);
        // One more than may be named is the floor.
        let questions = self.questions.range(..behind).flat_map(of_question).take(OPEN_MAX + 1);
        let answers = self.unsettled.range(..behind).flat_map(of_answer).take(OPEN_MAX + 1);
        let mut open: Vec<_> = questions.chain(answers).collect();
        open.sort_unstable();
        let question = self.questions.range(behind..).next().map(|(id, _)| *id);
        let answer = self.unsettled.range(behind..).next().map(|(id, _)| *id);
        let too_many = open.get(OPEN_MAX).copied();
        let floor = [too_many, question, answer].into_iter().flatten().fold(next, RequestId::min);
        open.truncate(OPEN_MAX);
        Done { floor, open }
    }
}
