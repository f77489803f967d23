//! What happens to clients, and what they make of it.

use zmqlocker::conversation::{Input, Outcome, Output};
use zmqlocker::engine::{Reply, RequestId};

use super::{Connection, Event, Happening, World};
use crate::locks::client::{Doing, LINK};
use crate::locks::law::Law;
use crate::locks::plan::{MILLI, SECOND};

/// How much later than its deadline a request is answered at the latest, with the rounding of
/// clocks.
const GRACE: u64 = 100 * MILLI + 10_000;

impl World {
    pub(super) fn happen(&mut self, number: usize, happening: Happening) {
        let now = self.now;
        let client = &mut self.clients[number];
        if client.is_dead {
            return;
        }
        if now < client.paused_until {
            let until = client.paused_until;
            return self.at(until, Event::Client(number, happening));
        }
        match happening {
            Happening::Message(on, message) => {
                let connection = &self.connections[&on];
                if client.connection == Some(on) && (connection.is_alive || connection.is_read) {
                    client.receive(now, &message);
                    self.drain(number);
                    return self.clients[number].count(now);
                }
            }
            Happening::Down => {
                client.connection = None;
                client.handle(now, &Input::Down(LINK));
                let most = if self.random.one_in(2) { 1_500 * MILLI } else { 30 * MILLI };
                if self.has_outages && !self.is_calm() && self.random.one_in(6) {
                    return self.later(number, 8 * SECOND, 25 * SECOND, Happening::Up);
                }
                self.later(number, MILLI, most, Happening::Up);
            }
            Happening::Up => self.connect(number),
            Happening::Wake => {
                client.wake_at = None;
                let local = client.local(now);
                if client.conversation.poll_timeout().is_some_and(|due| due <= local) {
                    client.handle(now, &Input::Tick);
                }
            }
            Happening::Act => {
                if now < self.calm_from {
                    let asked = client.act(now, &mut self.random, self.longest);
                    if let Some(id) = asked.filter(|_| self.random.one_in(10)) {
                        self.later(number, 0, 500 * MILLI, Happening::Forget(id));
                    }
                    self.later(number, 10 * MILLI, 300 * MILLI, Happening::Act);
                }
            }
            Happening::Forget(id) => {
                if let Some((Doing::Step(plan), _)) = client.asked.remove(&id) {
                    let local = client.local(now);
                    client.conversation.forget(local, id);
                    client.end(now, &plan);
                }
            }
            Happening::GoOn(plan) => client.go_on(now, plan),
            Happening::End(plan) => client.end(now, &plan),
            Happening::Settle(id, plan) => {
                client.conversation.settle(id);
                client.end(now, &plan);
            }
            Happening::Decline(id, mut plan) => {
                if let Some(token) = plan.held.pop() {
                    client.held.remove(&token);
                }
                let local = client.local(now);
                client.conversation.decline(local, id);
                client.end(now, &plan);
            }
        }
        self.drain(number);
    }

    fn connect(&mut self, number: usize) {
        let Some(server) = &self.server else {
            return self.later(number, 5 * MILLI, 200 * MILLI, Happening::Up);
        };
        let id = self.connections.len() as u64;
        let connection = Connection {
            client: number,
            run: server.run,
            is_alive: true,
            is_noticed: false,
            comes_at: None,
            is_read: false,
            since: self.now,
            last_delivery: [0; 2],
        };
        self.connections.insert(id, connection);
        let client = &mut self.clients[number];
        client.connection = Some(id);
        client.handle(self.now, &Input::Up(LINK));
        if !self.is_calm() && self.random.one_in(10) {
            self.after(0, 3 * MILLI, Event::Cut(number));
        }
    }

    /// Sends what a client says, and has it look at what it hears.
    pub(super) fn drain(&mut self, number: usize) {
        while let Some(output) = self.clients[number].conversation.poll_output() {
            match output {
                Output::Send(_, message) => {
                    let on = self.clients[number].connection;
                    let on = on.expect("nothing is sent on a link that is down");
                    self.deliver(on, 0, Event::ToServer(on, message));
                }
                Output::Open(..) => panic!("there is one server"),
                Output::Finish(id, outcome) => self.finish(number, id, &outcome),
            }
        }
        let client = &mut self.clients[number];
        let due = client.conversation.poll_timeout();
        let due = due.map(|due| client.clock.true_time(due).max(self.now));
        if let Some(due) = due.filter(|due| client.wake_at.is_none_or(|wake_at| *due < wake_at)) {
            client.wake_at = Some(due);
            self.at(due, Event::Client(number, Happening::Wake));
        }
    }

    fn finish(&mut self, number: usize, id: RequestId, outcome: &Outcome) {
        if !self.hear(number, id, outcome) {
            self.clients[number].conversation.settle(id);
        }
    }

    /// Has a client do what it does about an answer. Whether it leaves open that it takes it.
    fn hear(&mut self, number: usize, id: RequestId, outcome: &Outcome) -> bool {
        let client = &mut self.clients[number];
        assert!(client.ended.insert(id), "{id:?} ends twice");
        // What a conversation gives back by itself, nobody has asked.
        let Some((doing, deadline)) = client.asked.remove(&id) else { return false };
        self.laws.tally.answers += 1;
        if let Some(deadline) = deadline {
            let late = client.local(self.now).since(deadline).as_nanos();
            let in_time = late <= GRACE.into() || self.now == client.paused_until;
            self.laws.hold(Law::Answer, in_time, || format!("{id:?} {doing:?} is {late} ns late"));
        }
        let Doing::Step(mut plan) = doing else { return false };
        let token = match outcome {
            Outcome::Reply(_, Reply::Decision(decision)) if decision.allowed => decision.grant,
            _ => None,
        };
        let Some(token) = token else {
            self.later(number, 0, 50 * MILLI, Happening::End(plan));
            return false;
        };
        let parts = plan.steps.pop_front().expect("a step was asked for");
        client.take(token, parts, plan.term.ttl);
        plan.held.push(token);
        let hold = plan.hold + 1;
        if !plan.steps.is_empty() {
            self.later(number, 0, 50 * MILLI, Happening::GoOn(plan));
        } else if plan.is_left {
            client.leave(&plan);
        } else if self.random.one_in(8) {
            let is_taken = self.random.one_in(2);
            let next = if is_taken { Happening::Settle } else { Happening::Decline };
            self.later(number, 0, hold, next(id, plan));
            return true;
        } else {
            self.later(number, 0, hold, Happening::End(plan));
        }
        false
    }
}
