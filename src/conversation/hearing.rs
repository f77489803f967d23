//! What servers say, and what becomes of it.

use crate::asking::{self, LinkId, RequestId};
use crate::conversation::question::Question;
use crate::conversation::{Conversation, Outcome};
use crate::engine::{Code, GrantId, Problem, Reply, Term};
use crate::time::Timestamp;
use crate::wire::Frames;
use crate::wire::reply::{Replies, ServerItem};

impl Conversation {
    /// Takes in a message of a server.
    pub(super) fn hear(&mut self, now: Timestamp, link: LinkId, message: &Frames) {
        self.available = true;
        if message.len() != 1 {
            if let Some((id, body)) = seed_answer(message)
                && self.end_answered(now, link, id).is_some()
            {
                self.finish(now, id, Outcome::Seed(link, body.to_vec()));
            }
            return;
        }
        for item in Replies::new(message.get(0).unwrap_or_default()) {
            match item {
                Ok(ServerItem::Welcome { server, .. }) => {
                    let is_shared = self.knows_homes();
                    for grant in self.talks[link.0].welcome(server, is_shared) {
                        self.reclaim(now, link, grant);
                    }
                }
                Ok(ServerItem::Homes(map)) => self.learn_homes(now, link, *map),
                Ok(ServerItem::Moved { grants }) => self.hear_moved(now, link, &grants),
                Ok(ServerItem::Lost { grants }) => {
                    for grant in grants {
                        self.give_up_lease(link, grant);
                    }
                }
                Ok(ServerItem::Heard { number }) => {
                    for grant in self.talks[link.0].ended(now) {
                        self.give_up_lease(link, grant);
                    }
                    self.talks[link.0].heard(number);
                }
                Ok(ServerItem::Answer { id, reply }) => self.answer(now, link, id, reply),
                Ok(ServerItem::Problem(problem)) => self.take_problem(now, link, &problem),
                Err(problem) => return self.take_problem(now, link, &problem),
            }
        }
    }

    /// Whether one of the servers has said that it is about to stop.
    #[must_use]
    pub fn hears_of_a_stop(&self) -> bool {
        self.talks.iter().any(|talk| talk.is_up && talk.closing_on == Some(talk.connection))
    }

    /// A lease is lost. It is given back all the same: our beats would keep it for ever.
    pub(super) fn give_up_lease(&mut self, link: LinkId, grant: GrantId) {
        self.lost = true;
        // One that we do not hold any more is over at the server as well, as this one tells us.
        let owed = self.stop_holding(link, grant).unwrap_or((Term::TTL_MIN, grant, None));
        self.talks[link.0].releases.owe(owed, None);
    }

    fn answer(&mut self, now: Timestamp, link: LinkId, id: RequestId, reply: Reply) {
        if let Some((first, question)) = self.questions.range_mut(..=id).next_back()
            && let Some(together) = &mut question.together
        {
            let (first, place) = (*first, id.0 - first.0);
            let place = usize::try_from(place).unwrap_or(usize::MAX);
            if let Some(replies) = together.take(place, reply)
                && self.end_answered(now, link, first).is_some()
            {
                self.finish(now, first, Outcome::Replies(link, replies));
            }
            return;
        }
        match &reply {
            Reply::Queued { .. } => {
                if let Some(question) = self.questions.get_mut(&id)
                    && question.queued_on.is_none()
                    && self.asking.is_asked(link, id)
                {
                    question.queued_on = Some(link);
                    if let Some((deadline, later)) = question.wait_for_last_word() {
                        self.deadlines.remove(&(deadline, id));
                        self.deadlines.insert((later, id));
                    }
                    self.asking.handle(now, asking::Input::Queued(id));
                    let interval = question.beat_interval();
                    self.talks[link.0].begin_wait(now, interval);
                }
                return;
            }
            // It is asked again when the link is up again, or another server is asked.
            Reply::Refuse(Problem { code: Code::Closing, .. }) => {
                let talk = &mut self.talks[link.0];
                talk.closing_on = Some(talk.connection);
                return;
            }
            Reply::Refuse(problem @ Problem { code: Code::NotHome, .. })
                if self.turn_away(now, link, id, problem) =>
            {
                return;
            }
            _ => {}
        }
        let Some(question) = self.end_answered(now, link, id) else {
            return self.hear_released(now, link, id, &reply);
        };
        let sent_at = question.sent_at(link).unwrap_or_default();
        if let Some((from, grant)) = question.reclaims {
            return self.hear_reclaimed(now, (from, link), grant, (sent_at, &reply));
        }
        let not_before = question.not_granted_before(link, self.talks[link.0].heard_at);
        if let (Some(lease), Reply::Decision(decision)) = (question.lease, &reply)
            && let Some(grant) = decision.grant
        {
            self.talks[link.0].take_lease(now, grant, (sent_at, not_before), lease);
        }
        let reply = self.page(question.look.as_ref(), reply);
        self.finish(now, id, Outcome::Reply(link, reply));
    }

    /// Something is wrong between the server and us, not with one request.
    fn take_problem(&mut self, now: Timestamp, link: LinkId, problem: &Problem) {
        if problem.code == Code::UnknownSession {
            self.lost |= !self.talks[link.0].leases.is_empty();
            self.talks[link.0].start_anew();
            self.requeue(link);
            self.asking.handle(now, asking::Input::Down(link));
            self.asking.handle(now, asking::Input::Up(link));
            return;
        }
        let asked = |(id, question): (&RequestId, &Question)| {
            (question.item.is_some() && self.asking.is_asked(link, *id)).then_some(*id)
        };
        for id in self.questions.iter().filter_map(asked).collect::<Vec<_>>() {
            if let Some(question) = self.end_answered(now, link, id) {
                // What is owed is owed on, for the connections to come.
                self.owe_unanswered(id, &question);
                let reply = Reply::Refuse(problem.clone());
                self.finish(now, id, Outcome::Reply(link, reply));
            }
        }
    }
}

/// The number and the body of an answer of the seed's protocol.
fn seed_answer(message: &Frames) -> Option<(RequestId, &[u8])> {
    let (number, empty, body) = (message.get(0)?, message.get(1)?, message.get(2)?);
    let number = u64::from_be_bytes(number.try_into().ok()?);
    (message.len() == 3 && empty.is_empty()).then_some((RequestId(number), body))
}
