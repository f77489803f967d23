//! A lease that an earlier run has granted, and a cycle of waits that it may be part of.

use std::time::Duration;

use zmqlocker::engine::{
    Bounds, ClientInfo, Code, GrantId, Input, Key, LockRequest, Locks, Machine, Mode, Output,
    Problem, Reply, Request, RequestId, Rules, SessionId, Term, Wait,
};
use zmqlocker::time::Timestamp;

const MINUTE: Duration = Duration::from_secs(60);

/// A run of a server, with its clock and all its answers.
struct Run {
    machine: Machine<()>,
    now: Timestamp,
    last: u64,
    said: Vec<(SessionId, RequestId, Reply)>,
    records: Vec<(GrantId, Vec<u8>)>,
}

impl Run {
    fn start(now: Timestamp, last_number: GrantId) -> Self {
        let mut machine = Machine::new(now, Rules::default(), Duration::ZERO, Bounds::default());
        machine.number_grants_above(last_number);
        machine.make_durable();
        machine.begin_locks(now, true);
        Self { machine, now, last: 0, said: Vec::new(), records: Vec::new() }
    }

    fn greet(&mut self, name: u8) -> SessionId {
        self.machine.greet(self.now, [name; 16], ClientInfo::default()).unwrap().0
    }

    fn handle(&mut self, input: Input<'_, '_, ()>) {
        self.machine.handle(self.now, input);
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Reply { session, request, reply } => {
                    self.said.push((session, request, reply));
                }
                Output::Lease { grant, record: Some(record), .. } => {
                    self.records.push((grant, record));
                }
                _ => {}
            }
        }
    }

    fn ask(&mut self, session: SessionId, request: &Request<'_>) -> RequestId {
        self.last += 1;
        let id = RequestId(self.last);
        self.handle(Input::Ask(session, id, request));
        id
    }

    /// Lets time pass, with beats of all sessions.
    fn wait(&mut self, sessions: &[SessionId], length: Duration) {
        let until = self.now + length;
        while self.now < until {
            self.now = self.now + Duration::from_millis(250);
            for session in sessions {
                self.handle(Input::Beat(*session, RequestId(1), &[]));
            }
            self.handle(Input::Tick);
        }
    }

    fn is_deadlock(&self, session: SessionId, id: RequestId) -> bool {
        self.said.iter().any(|(to, request, reply)| {
            let deadlock = |problem: &Problem| problem.code == Code::Deadlock;
            (*to, *request) == (session, id)
                && matches!(reply, Reply::Refuse(problem) if deadlock(problem))
        })
    }
}

fn wish(key: &'static str, actor: u64) -> LockRequest<'static> {
    let locks = Locks::new([(Key::parse(key).unwrap(), Mode::Exclusive)]).unwrap();
    LockRequest { locks, term: Term::new(MINUTE, None).unwrap(), actor }
}

fn lock(key: &'static str, actor: u64, wait: Wait) -> Request<'static> {
    Request::Lock { wanted: wish(key, actor), wait }
}

/// Two who wait for each other, if the first one still holds what an earlier run has granted it.
/// Whether the younger one is told of a deadlock.
fn is_told_of_a_deadlock(is_claimed: bool) -> bool {
    let mut before = Run::start(Timestamp::from_nanos(1_000_000_000), GrantId(0));
    let session = before.greet(1);
    before.ask(session, &lock("a", 1, Wait::No));
    let (grant, record) = before.records.pop().unwrap();

    let mut run = Run::start(before.now + Duration::from_secs(1), grant);
    assert!(run.machine.restore_lease(run.now, true, grant, &record));
    let sessions = [run.greet(1), run.greet(2)];
    if is_claimed {
        run.ask(sessions[0], &Request::Reclaim { grant, wanted: wish("a", 1) });
    }
    run.ask(sessions[1], &lock("b", 2, Wait::No));
    run.ask(sessions[0], &lock("b", 1, Wait::UpTo(MINUTE)));
    let younger = run.ask(sessions[1], &lock("a", 2, Wait::UpTo(MINUTE)));
    run.wait(&sessions, Duration::from_secs(5));
    run.is_deadlock(sessions[1], younger)
}

#[test]
fn a_lease_that_its_holder_has_claimed_closes_a_cycle_of_waits() {
    assert!(is_told_of_a_deadlock(true));
}

#[test]
fn a_lease_that_nobody_has_claimed_ends_by_itself_and_closes_no_cycle() {
    assert!(!is_told_of_a_deadlock(false));
}
