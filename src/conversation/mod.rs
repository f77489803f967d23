//! SANS-IO: what a client says to its servers and hears from them, over all its links.
//!
//! The seed's requests and those of our protocol share the numbers and the links of one
//! [`Asking`]. What is said in our protocol on one occasion goes out as one message per link. While
//! requests wait at a server, or leases are held there, beats tell it that the client lives; their
//! answers tell the client for how long its leases are safe, counted from when the beat was sent.

mod question;
mod talk;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::asking::{self, Asking, LinkId, RequestId};
use crate::conversation::question::Question;
use crate::conversation::talk::Talk;
use crate::engine::{
    ClientInfo, Code, GrantId, Hold, Problem, Reply, Request, SessionName, WAITER_SILENCE_MAX, Wait,
};
use crate::time::Timestamp;
use crate::wire::reply::{Replies, ServerItem};
use crate::wire::request::{encode_bye, encode_cancel, encode_request};
use crate::wire::seed::{self, BYTES_MAX};
use crate::wire::{Frames, ITEMS_MAX};

/// How often a client that waits for something at a server says that it lives.
const BEAT_INTERVAL: Duration = WAITER_SILENCE_MAX.checked_div(4).unwrap();

/// After so many requests the server is told which answers it may forget.
const FLOOR_INTERVAL: u32 = 64;

/// A message is sent when it has so many bytes, that another item fits for certain.
const FULL: usize = BYTES_MAX - 8192;

/// What a client is told by the world.
#[derive(Debug)]
pub enum Input<'a> {
    /// A link is connected.
    Up(LinkId),
    /// A link is not connected any more.
    Down(LinkId),
    /// A message came.
    Message(LinkId, &'a Frames),
    /// Nothing but the time.
    Tick,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a message to a server.
    Send(LinkId, Frames),
    /// A request is over.
    Finish(RequestId, Outcome),
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A server of the seed's protocol answered this.
    Seed(LinkId, Vec<u8>),
    /// A server answered.
    Reply(LinkId, Reply),
    /// The time of the caller ran out while the request waited at a server.
    Late,
    /// The time of the caller ran out, and no server had said anything about the request.
    Silence,
}

/// Everything that is under way between a client and its servers.
#[derive(Debug)]
pub struct Conversation {
    session: SessionName,
    me: ClientInfo,
    asking: Asking,
    talks: Vec<Talk>,
    questions: BTreeMap<RequestId, Question>,
    deadlines: BTreeSet<(Timestamp, RequestId)>,
    /// Answers that may still be declined, and who gave them.
    unsettled: BTreeMap<RequestId, (LinkId, Option<GrantId>)>,
    last_beat: u64,
    /// Whether a server was heard since a request was given up.
    available: bool,
    outputs: VecDeque<Output>,
}

impl Conversation {
    /// A client of `links` servers that has said nothing yet. `session` is drawn at random.
    #[must_use]
    pub fn new(links: usize, session: SessionName, me: ClientInfo) -> Self {
        Self {
            session,
            me,
            asking: Asking::new(links),
            talks: (0..links).map(|_| Talk::default()).collect(),
            questions: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            unsettled: BTreeMap::new(),
            last_beat: 0,
            available: true,
            outputs: VecDeque::new(),
        }
    }

    /// Starts a request: the seed's, or one of our protocol, to one link only if that is named.
    pub fn ask(
        &mut self,
        now: Timestamp,
        request: Option<&Request<'_>>,
        only: Option<LinkId>,
        deadline: Option<Timestamp>,
    ) -> RequestId {
        let id = self.asking.ask(now, only);
        let ttl = match request {
            Some(Request::Acquire { hold: Hold::Lease { ttl }, .. }) => Some(*ttl),
            _ => None,
        };
        let wait = match request {
            Some(Request::Acquire { wait: Wait::UpTo(length), .. }) => Some(*length),
            _ => None,
        };
        let item = request.map(|request| {
            let mut item = Vec::with_capacity(48);
            encode_request(&mut item, id, request);
            item
        });
        let question = Question { item, ttl, wait, deadline, sent_at: now, queued_on: None };
        self.questions.insert(id, question);
        self.deadlines.extend(deadline.map(|deadline| (deadline, id)));
        self.perform(now);
        id
    }

    /// Nobody waits for the answer any more: what was granted with it is given back.
    pub fn forget(&mut self, now: Timestamp, request: RequestId) {
        if self.end(request).is_some() {
            self.asking.forget(request);
            self.perform(now);
        }
    }

    /// The answer to a request that is over may still be declined, until it is settled.
    pub fn keep_open(&mut self, request: RequestId, link: LinkId, grant: Option<GrantId>) {
        self.unsettled.insert(request, (link, grant));
    }

    /// Whoever asked has its answer, and keeps it.
    pub fn settle(&mut self, request: RequestId) {
        self.unsettled.remove(&request);
    }

    /// Nobody took the answer to a request: what was granted with it is given back.
    pub fn decline(&mut self, request: RequestId) {
        let Some((link, grant)) = self.unsettled.remove(&request) else { return };
        if let Some(grant) = grant {
            self.drop_lease(link, grant);
        }
        let talk = &mut self.talks[link.0];
        if talk.is_up && talk.hello_said {
            talk.write(|body| encode_cancel(body, request));
            self.flush_full(link);
        }
    }

    /// All requests below this one are done with.
    fn floor(&self) -> RequestId {
        let unsettled = self.unsettled.first_key_value().map(|(request, _)| *request);
        unsettled.into_iter().fold(self.asking.floor(), RequestId::min)
    }

    /// Takes in what happened at `now`.
    pub fn handle(&mut self, now: Timestamp, input: &Input<'_>) {
        match *input {
            Input::Up(link) => {
                self.talks[link.0].connect();
                self.asking.handle(now, asking::Input::Up(link));
                if !self.talks[link.0].leases.is_empty() || !self.available {
                    self.beat(now, link);
                }
            }
            Input::Down(link) => {
                self.talks[link.0].disconnect();
                self.requeue(link);
                self.asking.handle(now, asking::Input::Down(link));
            }
            Input::Message(link, message) => self.hear(now, link, message),
            Input::Tick => {
                self.give_up(now);
                if self.asking.poll_timeout().is_some_and(|due| due <= now) {
                    self.asking.handle(now, asking::Input::Tick);
                }
                for place in 0..self.talks.len() {
                    if self.talks[place].next_beat.is_some_and(|due| due <= now) {
                        self.beat(now, LinkId(place));
                    }
                }
            }
        }
        self.perform(now);
    }

    /// The next thing to do, if there is one: first all that has happened, then what is to be sent.
    pub fn poll_output(&mut self) -> Option<Output> {
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        let place = self.talks.iter().position(|talk| !talk.body.is_empty())?;
        let talk = &mut self.talks[place];
        talk.items = 0;
        let message = Frames::from_iter([talk.body.as_slice()]);
        talk.body.clear();
        Some(Output::Send(LinkId(place), message))
    }

    /// When to come back with an [`Input::Tick`], if nothing happens before.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let beats = self.talks.iter().filter_map(|talk| talk.next_beat);
        let deadline = self.deadlines.first().map(|(deadline, _)| *deadline);
        beats.chain(deadline).chain(self.asking.poll_timeout()).min()
    }

    /// When the next beat is due: whoever drives this has to come back by then.
    #[must_use]
    pub fn next_beat(&self) -> Option<Timestamp> {
        self.talks.iter().filter_map(|talk| talk.next_beat).min()
    }

    /// Whether a server has still to answer a beat.
    #[must_use]
    pub fn is_beat_unanswered(&self) -> bool {
        self.talks.iter().any(|talk| !talk.beats.is_empty())
    }

    /// Whether a server was heard since a request was last given up because of silence.
    #[must_use]
    pub const fn is_available(&self) -> bool {
        self.available
    }

    /// Whether no request is under way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.questions.is_empty()
    }

    /// Until when a lease is safe; `None` if it is lost.
    #[must_use]
    pub fn lease_valid_until(
        &self,
        now: Timestamp,
        link: LinkId,
        grant: GrantId,
    ) -> Option<Timestamp> {
        let talk = self.talks.get(link.0)?;
        let valid_until = talk.leases.get(&grant)?.valid_until(talk);
        (now < valid_until).then_some(valid_until)
    }

    /// A lease is given back, or was lost: nothing keeps it any more.
    pub fn drop_lease(&mut self, link: LinkId, grant: GrantId) {
        if let Some(talk) = self.talks.get_mut(link.0) {
            talk.leases.remove(&grant);
            if self.available {
                talk.schedule_beat();
            }
        }
    }

    /// Says good-bye to all servers: what was not given back comes back now.
    pub fn close(&mut self) {
        for talk in &mut self.talks {
            if talk.is_up && talk.hello_said {
                encode_bye(&mut talk.body);
            }
            talk.leases.clear();
        }
    }

    /// Does what [`Asking`] wants done.
    fn perform(&mut self, now: Timestamp) {
        while let Some(output) = self.asking.poll_output() {
            match output {
                asking::Output::Send(link, request) => self.send(now, link, request),
                asking::Output::Cancel(link, request) => {
                    let talk = &mut self.talks[link.0];
                    if talk.is_up && talk.hello_said {
                        talk.write(|body| encode_cancel(body, request));
                        self.flush_full(link);
                    }
                }
            }
        }
    }

    fn send(&mut self, now: Timestamp, link: LinkId, request: RequestId) {
        let floor = self.floor();
        let Some(question) = self.questions.get_mut(&request) else { return };
        question.sent_at = now;
        let Some(item) = &question.item else {
            let number = request.0.to_be_bytes();
            let message = Frames::from_iter([number.as_slice(), b"", seed::REQUEST]);
            self.outputs.push_back(Output::Send(link, message));
            return;
        };
        self.talks[link.0].hello(self.session, &self.me);
        let talk = &mut self.talks[link.0];
        talk.write(|body| body.extend_from_slice(item));
        talk.requests_since_beat += 1;
        if talk.requests_since_beat >= FLOOR_INTERVAL {
            self.last_beat += 1;
            let number = self.last_beat;
            self.talks[link.0].beat(now, number, floor);
        }
        self.flush_full(link);
    }

    /// Sends a message that nothing more may be added to.
    fn flush_full(&mut self, link: LinkId) {
        let talk = &mut self.talks[link.0];
        if talk.body.len() > FULL || talk.items + 8 > ITEMS_MAX {
            talk.items = 0;
            let message = Frames::from_iter([talk.body.as_slice()]);
            talk.body.clear();
            self.outputs.push_back(Output::Send(link, message));
        }
    }

    fn beat(&mut self, now: Timestamp, link: LinkId) {
        self.last_beat += 1;
        let (number, floor) = (self.last_beat, self.floor());
        let talk = &mut self.talks[link.0];
        talk.next_beat = talk.interval().map(|interval| now + interval);
        if !self.available && talk.next_beat.is_none() {
            // Nothing else would find out that the server is back.
            talk.next_beat = Some(now + BEAT_INTERVAL);
        }
        if talk.is_up {
            talk.hello(self.session, &self.me);
            talk.beat(now, number, floor);
            self.flush_full(link);
        }
    }

    /// Takes in a message of a server.
    fn hear(&mut self, now: Timestamp, link: LinkId, message: &Frames) {
        self.available = true;
        if message.len() != 1 {
            if let Some((id, body)) = seed_answer(message)
                && self.asking.answered(link, id)
                && self.end(id).is_some()
            {
                self.outputs.push_back(Output::Finish(id, Outcome::Seed(link, body.to_vec())));
            }
            return;
        }
        for item in Replies::new(message.get(0).unwrap_or_default()) {
            match item {
                Ok(ServerItem::Welcome { server, .. }) => self.talks[link.0].welcome(server),
                Ok(ServerItem::Heard { number }) => {
                    for grant in self.talks[link.0].heard(now, number) {
                        // Our beats would keep for ever what we do not hold any more.
                        self.ask(now, Some(&Request::Release { grant }), Some(link), None);
                    }
                }
                Ok(ServerItem::Answer { id, reply }) => self.answer(now, link, id, reply),
                Ok(ServerItem::Problem(problem)) => self.take_problem(now, link, &problem),
                Err(problem) => return self.take_problem(now, link, &problem),
            }
        }
    }

    fn answer(&mut self, now: Timestamp, link: LinkId, id: RequestId, reply: Reply) {
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
                    self.talks[link.0].waiting += 1;
                    self.talks[link.0].schedule_beat_from(now);
                }
                return;
            }
            // It is asked again when the link is up again, or another server is asked.
            Reply::Refuse(Problem { code: Code::Closing, .. }) => return,
            Reply::Refuse(Problem { code: Code::Forgotten, .. }) => {
                return self.ask_anew(now, link, id);
            }
            _ => {}
        }
        if !self.asking.answered(link, id) {
            return;
        }
        let Some(question) = self.end(id) else { return };
        if let (Some(ttl), Reply::Decision(decision)) = (question.ttl, &reply)
            && let Some(grant) = decision.grant
        {
            self.talks[link.0].take_lease(now, grant, question.sent_at, ttl);
        }
        self.outputs.push_back(Output::Finish(id, Outcome::Reply(link, reply)));
    }

    /// The server has let the place of a request in its queue go: it is asked under a new number,
    /// which is of no concern to whoever waits.
    fn ask_anew(&mut self, now: Timestamp, link: LinkId, id: RequestId) {
        let forgotten = "the client was not heard of for too long while it waited: ask again";
        let problem = Problem { code: Code::Forgotten, message: forgotten.to_owned() };
        if self.asking.answered(link, id) && self.end(id).is_some() {
            let outcome = Outcome::Reply(link, Reply::Refuse(problem));
            self.outputs.push_back(Output::Finish(id, outcome));
        }
        self.perform(now);
    }

    /// Something is wrong between the server and us, not with one request.
    fn take_problem(&mut self, now: Timestamp, link: LinkId, problem: &Problem) {
        if problem.code == Code::UnknownSession {
            // It has forgotten us, and all that it had granted: from the start.
            let talk = &mut self.talks[link.0];
            talk.disconnect();
            talk.leases.clear();
            self.requeue(link);
            self.asking.handle(now, asking::Input::Down(link));
            self.talks[link.0].connect();
            self.asking.handle(now, asking::Input::Up(link));
            return;
        }
        let asked = |(id, question): (&RequestId, &Question)| {
            (question.item.is_some() && self.asking.is_asked(link, *id)).then_some(*id)
        };
        for id in self.questions.iter().filter_map(asked).collect::<Vec<_>>() {
            if self.asking.answered(link, id) && self.end(id).is_some() {
                let reply = Reply::Refuse(problem.clone());
                self.outputs.push_back(Output::Finish(id, Outcome::Reply(link, reply)));
            }
        }
    }

    /// Requests that waited at a server wait there no more.
    fn requeue(&mut self, link: LinkId) {
        for question in self.questions.values_mut() {
            if question.queued_on == Some(link) {
                question.queued_on = None;
            }
        }
        self.talks[link.0].waiting = 0;
    }

    /// Ends the requests whose callers' time has run out.
    fn give_up(&mut self, now: Timestamp) {
        while let Some((_, id)) = self.deadlines.first().filter(|(deadline, _)| *deadline <= now) {
            let id = *id;
            let Some(question) = self.end(id) else { return };
            self.asking.forget(id);
            let outcome =
                if question.queued_on.is_some() { Outcome::Late } else { Outcome::Silence };
            if outcome == Outcome::Silence {
                self.available = false;
                for talk in self.talks.iter_mut().filter(|talk| talk.next_beat.is_none()) {
                    talk.next_beat = Some(now + BEAT_INTERVAL);
                }
            }
            self.outputs.push_back(Output::Finish(id, outcome));
        }
    }

    /// Forgets a request that is over.
    fn end(&mut self, id: RequestId) -> Option<Question> {
        let question = self.questions.remove(&id)?;
        if let Some(deadline) = question.deadline {
            self.deadlines.remove(&(deadline, id));
        }
        if let Some(link) = question.queued_on {
            let talk = &mut self.talks[link.0];
            talk.waiting = talk.waiting.saturating_sub(1);
            if self.available {
                talk.schedule_beat();
            }
        }
        Some(question)
    }
}

/// The number and the body of an answer of the seed's protocol.
fn seed_answer(message: &Frames) -> Option<(RequestId, &[u8])> {
    let (number, empty, body) = (message.get(0)?, message.get(1)?, message.get(2)?);
    let number = u64::from_be_bytes(number.try_into().ok()?);
    (message.len() == 3 && empty.is_empty()).then_some((RequestId(number), body))
}
