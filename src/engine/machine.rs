//! The engine: requests and the passing of time go in, answers come out.
//!
//! ```text
//! ┌────────────────────────────────────────────────────────────────────────────────┐
//! │ Drain `poll_output` after each `handle`, before the next one. Call `handle`     │
//! │ with `Input::Tick` at the instant that `poll_timeout` names, or later.          │
//! └────────────────────────────────────────────────────────────────────────────────┘
//! ```

use std::collections::VecDeque;
use std::time::Duration;

use crate::answer::Answer;
use crate::engine::asked::Asked;
use crate::engine::bounds::Bounds;
use crate::engine::event::{Input, Output, Tally};
use crate::engine::gate::{Gate, Said, Stuck, tell_cycle};
use crate::engine::grant::Charges;
use crate::engine::key::Key;
use crate::engine::request::{Code, Cost, Demand, Hold, Problem, Reply, Request, RequestId, Wait};
use crate::engine::rules::Rules;
use crate::engine::session::{ClientInfo, SessionId, SessionName, Sessions};
use crate::engine::status::{Happening, Happenings};
use crate::engine::timers::Timer;
use crate::time::Timestamp;

/// How many leases that were taken from a client are told of at once.
pub(super) const LOST_AT_ONCE: usize = 256;

/// Decides who gets permits of which keys, and when.
///
/// The loop that drives it is the same everywhere:
///
/// ```
/// use std::time::Duration;
/// use zmqlocker::answer::Answer;
/// use zmqlocker::engine::{Bounds, Input, Limits, Machine, Output, Rules};
/// use zmqlocker::time::Timestamp;
///
/// let rules = Rules::new([], Some(Limits::parse(&["1/s"])?))?;
/// let patience = Duration::from_millis(300);
/// let mut machine = Machine::new(Timestamp::ZERO, rules, patience, Bounds::default());
/// let mut heard = Vec::new();
///
/// // "b" comes too early to wait, "c" comes when the next slot is near.
/// for (millis, who) in [(0, "a"), (100, "b"), (900, "c")] {
///     let now = Timestamp::ZERO + Duration::from_millis(millis);
///     machine.handle(now, Input::Next(who));
///     while let Some(Output::Seed { to, answer: Ok(answer) }) = machine.poll_output() {
///         heard.push((to, answer));
///     }
/// }
/// assert_eq!(heard, [("a", Answer::Go), ("b", Answer::Sorry)]);
///
/// let due = machine.poll_timeout().expect("somebody waits");
/// machine.handle(due, Input::Tick);
/// assert_eq!(machine.poll_output(), Some(Output::Seed { to: "c", answer: Ok(Answer::Go) }));
/// assert_eq!(machine.poll_timeout(), None);
/// # Ok::<(), zmqlocker::error::Error>(())
/// ```
#[derive(Debug)]
pub struct Machine<E> {
    pub(super) gate: Gate<Asker<E>>,
    pub(super) sessions: Sessions,
    pub(super) outputs: VecDeque<Output<E>>,
    pub(super) tally: Tally,
    pub(super) happenings: Happenings,
    closing: bool,
}

/// Who asks.
#[derive(Clone, Debug)]
pub(super) enum Asker<E> {
    Seed(E),
    Client(SessionId, RequestId),
}

impl<E> Machine<E> {
    /// A machine that starts at `now`: the first slot of the key `default` opens.
    #[must_use]
    pub fn new(now: Timestamp, rules: Rules, patience: Duration, bounds: Bounds) -> Self {
        let mut gate = Gate::new(rules, patience, bounds);
        gate.open(now, Key::DEFAULT);
        Self {
            gate,
            sessions: Sessions::new(&bounds),
            outputs: VecDeque::new(),
            tally: Tally::default(),
            happenings: Happenings::default(),
            closing: false,
        }
    }

    /// A client says who it is. Its session, and whether it is new. Drain the outputs after it.
    ///
    /// # Errors
    ///
    /// A [`Problem`] if there are too many sessions.
    pub fn greet(
        &mut self,
        now: Timestamp,
        name: SessionName,
        client: ClientInfo,
    ) -> Result<(SessionId, bool), Problem> {
        // What is over by now is not kept by this.
        self.run_timers(now);
        let opened = self.sessions.open(now, name, client);
        let (id, is_new) = opened.ok_or_else(|| {
            self.tally.bounds_hit += 1;
            let message = "the server has as many clients as it may (`sessions_max`): try again \
                           later";
            Problem { code: Code::BoundExceeded, message: message.to_owned() }
        })?;
        if is_new && let Some(session) = self.sessions.get(id) {
            self.gate.timers.set(session.due_at, Timer::Session(id));
        }
        self.hear(now, id);
        Ok((id, is_new))
    }

    /// Takes in what happened at `now`, which is never before the `now` of an earlier call.
    pub fn handle(&mut self, now: Timestamp, input: Input<'_, '_, E>) {
        debug_assert!(self.outputs.is_empty(), "drain the outputs before the next input");
        self.run_timers(now);
        match input {
            Input::Next(to) => self.next(now, to),
            Input::Ask(session, id, request) => self.ask(now, session, id, request),
            Input::Beat(session, floor, open) => self.beat(now, session, floor, open),
            Input::Cancel(session, id) => self.cancel(now, session, id),
            Input::Bye(session) => self.end(now, session),
            Input::Lost(session, requests) => self.lose(now, session, requests),
            Input::Bar(session) => {
                self.refuse_waits(now, session, Code::Auth, "this client is not let in any more");
            }
            Input::Rules(rules) => self.gate.set_rules(now, rules),
            Input::Tick => {}
            Input::Drain => self.gate.drain(),
            Input::Close => {
                self.closing = true;
                self.gate.close(now);
            }
        }
        self.pass_on();
    }

    /// The next thing to say, if there is one.
    pub fn poll_output(&mut self) -> Option<Output<E>> {
        self.outputs.pop_front()
    }

    /// When to come back with a [`Input::Tick`], if nothing happens before.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.gate.timers.next()
    }

    pub(super) fn run_timers(&mut self, now: Timestamp) {
        while let Some(timer) = self.gate.timers.pop_due(now) {
            match timer {
                Timer::Session(session) => self.check_silence(now, session),
                timer => self.gate.handle_timer(now, timer),
            }
            // Whose turn has come waits no more: nothing that follows may take it for a waiter.
            self.pass_on();
        }
    }

    fn next(&mut self, now: Timestamp, to: E) {
        let request = Request::Acquire {
            demand: Demand::one(Key::DEFAULT, Cost::ONE),
            wait: Wait::Patience,
            hold: Hold::Spend,
        };
        self.gate.handle(now, (Asker::Seed(to), None), &request);
    }

    fn ask(&mut self, now: Timestamp, id: SessionId, request_id: RequestId, request: &Request) {
        self.hear(now, id);
        let Some(session) = self.sessions.get_mut(id) else { return };
        if let Some(Asked::Answered(reply, _)) = session.requests.get(request_id) {
            let lease = match request {
                Request::Acquire { hold: Hold::Lease(_), .. } | Request::Lock { .. } => {
                    reply.grant()
                }
                Request::Reclaim { grant, .. } => Some(*grant),
                _ => None,
            };
            // Where the answer was lost, and the lease has ended since, nobody may hear of it now.
            if lease.is_some_and(|grant| !self.gate.claim_lease(now, id, grant)) {
                self.forget_request(id, request_id);
            }
        }
        let Some(session) = self.sessions.get_mut(id) else { return };
        if let Request::Release { grant } | Request::ReleaseIn { grant, .. } = request {
            session.lost.retain(|lost| lost != grant);
        }
        let reply = match session.requests.get(request_id) {
            None if session.is_done_with(request_id) => return,
            None => match self.take_new(now, id, request_id, request) {
                Some(reply) => reply,
                None => return,
            },
            Some(Asked::Cancelled) => return,
            // It is not told that it waits: it has not asked for that.
            Some(Asked::Waiting(_)) if !request.may_wait() => return,
            Some(Asked::Waiting(waiter)) => Reply::Queued { ahead: self.gate.ahead_of(*waiter) },
            Some(Asked::Answered(reply, _)) => reply.clone(),
        };
        self.outputs.push_back(Output::Reply { session: id, request: request_id, reply });
    }

    /// Takes in a request that was not made before; what is to be said of it now, if the gate does
    /// not say it.
    fn take_new(
        &mut self,
        now: Timestamp,
        id: SessionId,
        request_id: RequestId,
        request: &Request,
    ) -> Option<Reply> {
        // Whoever asks again how things stand is told how they stand then.
        if let Some(seen) = self.look(now, request) {
            return Some(seen);
        }
        let asker = Asker::Client(id, request_id);
        if let Err(problem) = self.sessions.room_for_request(id) {
            if let Request::Release { .. } | Request::ReleaseIn { .. } = request {
                // It is taken in any case, and not put on record: done twice, it is done once.
                self.gate.handle(now, (asker, Some(id)), request);
                self.pass_on();
                self.forget_request(id, request_id);
                return None;
            }
            self.tally.count(&problem);
            return Some(Reply::Refuse(problem));
        }
        let (waiter, ahead) = self.gate.handle(now, (asker, Some(id)), request)?;
        self.begin_wait(id, request_id, Asked::Waiting(waiter));
        request.may_wait().then_some(Reply::Queued { ahead })
    }

    fn begin_wait(&mut self, id: SessionId, request: RequestId, waiting: Asked) {
        let timers = &mut self.gate.timers;
        self.sessions.change(id, |session| {
            session.requests.insert(request, waiting);
            session.waiting += 1;
            let silent_at = session.silent_at();
            if silent_at < session.due_at {
                timers.cancel(session.due_at, Timer::Session(id));
                session.due_at = silent_at;
                timers.set(silent_at, Timer::Session(id));
            }
        });
    }

    fn beat(&mut self, now: Timestamp, id: SessionId, floor: RequestId, open: &[RequestId]) {
        self.hear(now, id);
        if self.sessions.change(id, |session| session.raise_floor(floor, open)).is_some() {
            self.tell_losses(id);
            self.tell_moved(id);
        }
    }

    /// Tells a client which leases were taken from it, until it gives them up: or the answer to its
    /// beat would tell it that it still has them.
    fn tell_losses(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get(id)
            && !session.lost.is_empty()
        {
            for some in session.lost.chunks(LOST_AT_ONCE) {
                self.outputs.push_back(Output::Lost { session: id, grants: some.to_vec() });
            }
        }
    }

    fn cancel(&mut self, now: Timestamp, id: SessionId, request: RequestId) {
        self.hear(now, id);
        let has_room = self.sessions.room_for_request(id).is_ok();
        let cancelled = self.sessions.change(id, |session| {
            let is_known = session.requests.get(request).is_some();
            if session.is_done_with(request) || !(has_room || is_known) {
                return None;
            }
            let before = session.requests.insert(request, Asked::Cancelled);
            session.waiting -= usize::from(matches!(before, Some(Asked::Waiting(_))));
            before
        });
        match cancelled.flatten() {
            Some(Asked::Waiting(waiter)) => self.gate.withdraw(now, &[waiter]),
            Some(Asked::Answered(reply, charges)) => self.take_back(now, &reply, &charges),
            Some(Asked::Cancelled) | None => {}
        }
    }

    /// The connection of a session is gone: it waits no more, and what it was granted in vain comes
    /// back. On its next connection it may ask again, as if it had not asked before; what was done
    /// stays done, and is answered from the record.
    fn lose(&mut self, now: Timestamp, id: SessionId, requests: &[RequestId]) {
        for request in self.drop_waits(now, id) {
            self.forget_request(id, request);
        }
        for request in requests {
            let session = self.sessions.get(id);
            let asked = session.and_then(|session| session.requests.get(*request));
            let is_done = |asked: &Asked| match asked {
                Asked::Answered(reply, _) => *reply == Reply::Done,
                Asked::Waiting(_) | Asked::Cancelled => false,
            };
            if asked.is_some_and(is_done) {
                continue;
            }
            if let Some(Asked::Answered(reply, charges)) = self.forget_request(id, *request) {
                self.take_back(now, &reply, &charges);
            }
        }
    }

    fn forget_request(&mut self, id: SessionId, request: RequestId) -> Option<Asked> {
        self.sessions.change(id, |session| session.requests.remove(request))?
    }

    /// Whatever was granted with an answer comes back.
    fn take_back(&mut self, now: Timestamp, reply: &Reply, charges: &Charges) {
        self.gate.refund(now, charges);
        if let Some(grant) = reply.grant() {
            self.gate.revoke(now, grant);
        }
    }

    /// The client of a session is gone: what it holds comes back, and it waits no more.
    fn end(&mut self, now: Timestamp, id: SessionId) {
        self.drop_waits(now, id);
        self.gate.abandon(now, id);
        if let Some(session) = self.sessions.remove(id) {
            self.happenings.push(Happening::Left(session.client));
        }
    }

    fn hear(&mut self, now: Timestamp, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(id) {
            session.heard_at = now;
            self.gate.hear(now, id);
        }
    }

    /// The session was to be looked at, whether it has been silent for too long.
    fn check_silence(&mut self, now: Timestamp, id: SessionId) {
        let Some(session) = self.sessions.get(id) else { return };
        if session.silent_at() <= now {
            if session.waiting == 0 && !self.gate.has_leases(id) {
                return self.end(now, id);
            }
            let message = "nothing was heard of the client for 2 s, so it has lost its place in \
                           the queue: ask again";
            self.refuse_waits(now, id, Code::Forgotten, message);
        }
        let Some(session) = self.sessions.get_mut(id) else { return };
        // Leases end by timers of their own; the session is looked at again later.
        let silent_at = session.silent_at();
        session.due_at = if silent_at > now { silent_at } else { now + Duration::from_secs(1) };
        self.gate.timers.set(session.due_at, Timer::Session(id));
    }

    fn refuse_waits(&mut self, now: Timestamp, id: SessionId, code: Code, message: &str) {
        for request in self.drop_waits(now, id) {
            let problem = Problem { code, message: message.to_owned() };
            self.answer(id, request, Reply::Refuse(problem), Charges::new());
        }
    }

    /// Takes all requests of a session out of their queues.
    fn drop_waits(&mut self, now: Timestamp, id: SessionId) -> Vec<RequestId> {
        let Some(session) = self.sessions.get_mut(id) else { return Vec::new() };
        session.waiting = 0;
        let mut dropped = Vec::new();
        let mut waiters = Vec::new();
        for (request, asked) in session.requests.iter_mut() {
            if let Asked::Waiting(waiter) = asked {
                waiters.push(*waiter);
                dropped.push(*request);
                *asked = Asked::Cancelled;
            }
        }
        self.gate.withdraw(now, &waiters);
        dropped
    }

    /// Turns what the gate says into what is to be said to whom.
    pub(super) fn pass_on(&mut self) {
        while let Some(said) = self.gate.poll_said() {
            match said {
                Said::Reply { to: Asker::Seed(to), reply, .. } => {
                    let answer = match reply {
                        Reply::Decision(decision) if decision.allowed => Ok(Answer::Go),
                        Reply::Refuse(problem) => Err(problem),
                        _ => Ok(Answer::Sorry),
                    };
                    match &answer {
                        Ok(Answer::Go) => self.tally.allowed += 1,
                        Ok(Answer::Sorry) => self.tally.refused += 1,
                        Err(problem) => self.tally.count(problem),
                    }
                    self.outputs.push_back(Output::Seed { to, answer });
                }
                Said::Reply { to: Asker::Client(session, request), reply, charges } => {
                    self.answer(session, request, reply, charges);
                }
                Said::WouldRefuse { key, limit } => {
                    self.outputs.push_back(Output::WouldRefuse { key, limit });
                }
                Said::Record { number, key, record } => {
                    self.outputs.push_back(Output::Record { number, key, record });
                }
                Said::Lease { number, grant, record } => {
                    let request = match self.gate.is_told_to(grant) {
                        Some(Asker::Client(_, request)) => Some(*request),
                        _ => None,
                    };
                    self.say_lease(number, grant, record, request);
                }
                Said::Numbers { number, up_to } => {
                    self.outputs.push_back(Output::Numbers { number, up_to });
                }
                Said::Deadlock { to, cycle } => self.refuse_deadlock(&to, &cycle),
                Said::Broken { owner, grant, key } => {
                    if let Some(session) = self.sessions.get_mut(owner) {
                        let holder = session.client.clone();
                        self.happenings.push(Happening::Broken { key, holder });
                        session.lost.push(grant);
                        self.tell_losses(owner);
                    }
                }
                Said::Moved { owner, grant } => self.note_moved(owner, grant),
                Said::Elsewhere { to } => self.send_elsewhere(to),
                Said::Await { number } => self.outputs.push_back(Output::Await { number }),
            }
        }
    }

    /// Answers a request of a session, for now and for whenever it is asked again.
    fn answer(&mut self, id: SessionId, request: RequestId, mut reply: Reply, charges: Charges) {
        if let Reply::Refuse(problem) = &reply {
            self.tally.count(problem);
        }
        if let Reply::Decision(decision) = &reply {
            let counter =
                if decision.allowed { &mut self.tally.allowed } else { &mut self.tally.refused };
            *counter += 1;
            if self.closing && !decision.allowed {
                reply = Reply::Refuse(Problem::closing());
            }
        }
        let answered = Asked::Answered(reply.clone(), charges);
        let kept = self.sessions.change(id, |session| {
            let before = session.requests.insert(request, answered);
            session.waiting -= usize::from(matches!(before, Some(Asked::Waiting(_))));
        });
        if kept.is_some() {
            self.outputs.push_back(Output::Reply { session: id, request, reply });
        }
    }

    /// Tells a waiter that it closed a cycle, and which.
    fn refuse_deadlock(&mut self, to: &Asker<E>, cycle: &[Stuck]) {
        let message = tell_cycle(cycle, |session| {
            self.client(session).map_or_else(String::new, ToString::to_string)
        });
        if let Asker::Client(session, request) = to {
            let problem = Problem { code: Code::Deadlock, message };
            self.answer(*session, *request, Reply::Refuse(problem), Charges::new());
        }
    }
}
