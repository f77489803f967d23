//! Requests that end: whoever was asked is told, unless it has answered.

use crate::asking::{LinkId, RequestId};
use crate::conversation::question::Question;
use crate::conversation::{BEAT_INTERVAL, Conversation, Outcome};
use crate::engine::Reply;
use crate::time::Timestamp;

impl Conversation {
    /// Ends the requests whose callers' time has run out.
    pub(super) fn give_up(&mut self, now: Timestamp) {
        while let Some((_, id)) = self.deadlines.first().filter(|(deadline, _)| *deadline <= now) {
            let id = *id;
            let Some(mut question) = self.end(id, None) else { return };
            self.asking.forget(id);
            self.counts.timeouts += question.count();
            let outcome = match question.refused.take() {
                _ if question.queued_on.is_some() => Outcome::Late,
                // Nobody has the lease any more: it was over by itself.
                Some((link, ..)) if question.releases.is_some() => {
                    Outcome::Reply(link, Reply::Done)
                }
                // Somebody has answered, but nobody could grant it.
                Some((link, problem, _)) => Outcome::Reply(link, Reply::Refuse(problem)),
                None => Outcome::Silence,
            };
            if outcome == Outcome::Silence {
                self.available = false;
                for talk in self.talks.iter_mut().filter(|talk| talk.next_beat.is_none()) {
                    talk.next_beat = Some(now + BEAT_INTERVAL);
                }
            }
            if question.reclaims.is_none() {
                self.finish(now, id, outcome);
            }
        }
    }

    /// Forgets a request that is over, and tells all who were asked, but for who answered it.
    pub(super) fn end(&mut self, id: RequestId, answered_by: Option<LinkId>) -> Option<Question> {
        let question = self.questions.remove(&id)?;
        self.errands -= usize::from(question.is_errand);
        let count = question.count();
        let is_owed = answered_by.is_none() && self.owe_unanswered(id, &question);
        let told = question.sent.iter().filter(|sent| Some(sent.to) != answered_by && !is_owed);
        for sent in told {
            for id in id.0..id.0 + if question.item.is_some() { count } else { 0 } {
                self.cancel(sent.to, RequestId(id));
            }
        }
        if let Some(deadline) = question.deadline {
            self.deadlines.remove(&(deadline, id));
        }
        if let Some(link) = question.queued_on {
            let talk = &mut self.talks[link.0];
            talk.end_wait(question.beat_interval());
            if self.available {
                talk.schedule_beat();
            }
        }
        Some(question)
    }
}
