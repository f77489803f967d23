//! The engine from outside: laws against naive models, on a clock that moves when it is told to.

mod blocks;
mod bounds;
mod deadlocks;
mod draining;
mod laws;
mod leases;
mod lock_model;
mod lock_pages;
mod locks;
mod looks;
mod partitions;
mod reclaims;
mod rules;
mod runs;
mod seed;
mod sessions;
mod waiting;

use std::time::Duration;

use zmqlocker::engine::{
    Block, Bounds, ClientInfo, Code, Cost, Decision, Demand, GrantId, Hold, Input, Key, Limits,
    Machine, Output, Reply, Request, RequestId, Rules, SessionId, Wait,
};
use zmqlocker::time::Timestamp;

const SECOND: u64 = 1_000_000_000;

/// An instant of the tests at which nothing has happened yet, off the origin of the clock.
const START: u64 = 1_000 * SECOND;

fn rules(keys: &[(&str, &[&str])], others: &[&str]) -> Rules {
    let named = keys.iter().map(|(key, texts)| ((*key).to_owned(), Limits::parse(texts).unwrap()));
    let others = (!others.is_empty()).then(|| Limits::parse(others).unwrap());
    Rules::new(named, others).unwrap()
}

fn key(name: &str) -> Key<'_> {
    Key::parse(name).unwrap()
}

fn demand<'a>(parts: &[(&'a str, u64)]) -> Demand<'a> {
    let cost = |cost: u64| Cost::new(cost.into()).unwrap();
    Demand::new(parts.iter().map(|(name, permits)| (key(name), cost(*permits)))).unwrap()
}

/// A machine with its clock, and all that it has said, each with its instant.
struct Desk {
    machine: Machine<usize>,
    now: u64,
    last_request: u64,
    heard: Vec<(u64, Output<usize>)>,
}

impl Desk {
    fn new(keys: &[(&str, &[&str])], others: &[&str]) -> Self {
        Self::bounded(keys, others, Bounds::default())
    }

    fn bounded(keys: &[(&str, &[&str])], others: &[&str], bounds: Bounds) -> Self {
        let now = Timestamp::from_nanos(START);
        let machine = Machine::new(now, rules(keys, others), Duration::ZERO, bounds);
        Self { machine, now: START, last_request: 0, heard: Vec::new() }
    }

    fn greet(&mut self, name: u8) -> SessionId {
        let now = Timestamp::from_nanos(self.now);
        let greeted = self.machine.greet(now, [name; 16], ClientInfo::default()).unwrap();
        self.drain();
        greeted.0
    }

    fn drain(&mut self) {
        let now = self.now;
        self.heard.extend(std::iter::from_fn(|| self.machine.poll_output()).map(|o| (now, o)));
    }

    fn handle(&mut self, input: Input<'_, '_, usize>) {
        self.machine.handle(Timestamp::from_nanos(self.now), input);
        self.drain();
    }

    /// Moves the clock on without a look at the timers.
    fn skip(&mut self, nanos: u64) {
        self.now += nanos;
    }

    /// Moves the clock on to `until`, and stops wherever the machine wants to see the time.
    fn advance_to(&mut self, until: u64) {
        let mut ticks = 0;
        while let Some(due) = self.machine.poll_timeout().filter(|due| due.as_nanos() <= until) {
            ticks = if due.as_nanos() <= self.now { ticks + 1 } else { 0 };
            assert!(ticks < 4, "the machine ticks on the spot");
            self.now = self.now.max(due.as_nanos());
            self.handle(Input::Tick);
        }
        self.now = self.now.max(until);
    }

    fn advance(&mut self, nanos: u64) {
        self.advance_to(self.now + nanos);
    }

    /// Asks, and gives the number of the request.
    fn send(&mut self, session: SessionId, request: &Request<'_>) -> RequestId {
        self.last_request += 1;
        let id = RequestId(self.last_request);
        self.handle(Input::Ask(session, id, request));
        id
    }

    /// The last answer to a request that is no "wait", with its instant.
    fn answer(&self, session: SessionId, id: RequestId) -> Option<(u64, &Reply)> {
        self.heard.iter().rev().find_map(|(at, output)| match output {
            Output::Reply { reply: Reply::Queued { .. }, .. } => None,
            Output::Reply { session: to, request, reply } if (*to, *request) == (session, id) => {
                Some((*at, reply))
            }
            _ => None,
        })
    }

    /// How often a request was answered for good.
    fn answers(&self, session: SessionId, id: RequestId) -> usize {
        let is_it = |output: &Output<usize>| match output {
            Output::Reply { session: to, request, reply } => {
                (*to, *request) == (session, id) && !matches!(reply, Reply::Queued { .. })
            }
            _ => false,
        };
        self.heard.iter().filter(|(_, output)| is_it(output)).count()
    }

    /// Asks what is answered at once.
    fn ask(&mut self, session: SessionId, request: &Request<'_>) -> Reply {
        let id = self.send(session, request);
        self.answer(session, id).unwrap().1.clone()
    }

    fn try_acquire(&mut self, session: SessionId, parts: &[(&str, u64)]) -> Decision {
        match self.ask(session, &acquire(parts, Wait::No, Hold::Spend)) {
            Reply::Decision(decision) => decision,
            other => panic!("{other:?}"),
        }
    }

    fn peek(&mut self, session: SessionId, name: &str, cost: u64) -> Decision {
        let cost = Cost::new(cost.into()).unwrap();
        match self.ask(session, &Request::Peek { key: key(name), cost }) {
            Reply::Decision(decision) => decision,
            other => panic!("{other:?}"),
        }
    }

    fn lease(&mut self, session: SessionId, name: &str, ttl: u64) -> Option<GrantId> {
        let hold = Hold::lease(Duration::from_nanos(ttl)).unwrap();
        match self.ask(session, &acquire(&[(name, 1)], Wait::No, hold)) {
            Reply::Decision(decision) => decision.grant,
            other => panic!("{other:?}"),
        }
    }

    fn block(&mut self, session: SessionId, name: &str, wanted: u64) -> Block {
        let wanted = Cost::new(wanted.into()).unwrap();
        match self.ask(session, &Request::Block { key: key(name), wanted }) {
            Reply::Block(block) => block,
            other => panic!("{other:?}"),
        }
    }

    /// Whether a request was granted, and when; `None` while it waits.
    fn granted(&self, session: SessionId, id: RequestId) -> Option<(u64, bool)> {
        self.answer(session, id).map(|(at, reply)| match reply {
            Reply::Decision(decision) => (at, decision.allowed),
            _ => (at, false),
        })
    }
}

fn acquire<'a>(parts: &[(&'a str, u64)], wait: Wait, hold: Hold) -> Request<'a> {
    Request::Acquire { demand: demand(parts), wait, hold }
}

fn wait_for<'a>(parts: &[(&'a str, u64)], nanos: u64) -> Request<'a> {
    acquire(parts, Wait::UpTo(Duration::from_nanos(nanos)), Hold::Spend)
}

fn set_limits<'a>(name: &'a str, limits: &[&'a str]) -> Request<'a> {
    Request::SetLimits { key: key(name), limits: limits.to_vec() }
}

fn code(reply: &Reply) -> Option<Code> {
    match reply {
        Reply::Refuse(problem) => Some(problem.code),
        _ => None,
    }
}
