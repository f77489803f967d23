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
        self.drain();
    }

    fn drain(&mut self) {
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

/// A run that has granted a lock and ended: with all its leases on the disk, and what is asked
/// again of the run that follows.
struct Ended {
    next: Run,
    grant: GrantId,
    id: RequestId,
}

impl Ended {
    /// In order, or by a crash.
    fn new(is_clean: bool) -> Self {
        let mut run = Run::start(Timestamp::from_nanos(1_000_000_000), GrantId(0));
        let session = run.greet(1);
        let id = run.ask(session, &lock("a", 0, Wait::No));
        if is_clean {
            run.records.clear();
            assert!(run.machine.hand_over(run.now));
            run.drain();
        }
        let (grant, record) = run.records.pop().unwrap();
        let mut next = Run::start(run.now + Duration::from_secs(1), grant);
        next.last = id.0;
        assert!(next.machine.restore_lease(next.now, true, grant, &record));
        Self { next, grant, id }
    }
}

#[test]
fn who_asks_again_what_an_earlier_run_has_granted_is_told_of_that_and_holds_it() {
    for is_clean in [true, false] {
        let Ended { mut next, grant, id } = Ended::new(is_clean);
        let [asker, other] = [next.greet(1), next.greet(2)];
        let waiter = next.ask(other, &lock("a", 0, Wait::UpTo(10 * MINUTE)));
        next.handle(Input::Ask(asker, id, &lock("a", 0, Wait::No)));
        let (_, _, reply) = next.said.pop().unwrap();
        let Reply::Decision(decision) = &reply else { panic!("{reply:?}") };
        assert_eq!((decision.allowed, decision.grant), (true, Some(grant)));
        next.handle(Input::Ask(asker, id, &lock("a", 0, Wait::No)));
        assert_eq!(next.said.pop().map(|(_, _, again)| again), Some(reply));
        // It is renewed as any other.
        next.wait(&[asker, other], 3 * MINUTE);
        next.ask(asker, &Request::Release { grant });
        let is_of_waiter = |(to, request, _): &&(_, _, _)| (*to, *request) == (other, waiter);
        let (_, _, granted) = next.said.iter().rfind(is_of_waiter).unwrap();
        assert!(granted.grant().is_some_and(|newer| grant < newer));
    }
}

#[test]
fn nobody_else_is_told_of_what_an_earlier_run_has_granted() {
    let Ended { mut next, id, .. } = Ended::new(false);
    let [asker, other] = [next.greet(1), next.greet(2)];
    for (session, request) in [(asker, RequestId(id.0 + 1)), (other, id)] {
        next.handle(Input::Ask(session, request, &lock("a", 0, Wait::No)));
        let (_, _, reply) = next.said.pop().unwrap();
        assert_eq!(reply.grant(), None);
    }
}

#[test]
fn who_does_not_want_what_an_earlier_run_has_granted_gives_it_back() {
    let Ended { mut next, id, .. } = Ended::new(false);
    let [asker, other] = [next.greet(1), next.greet(2)];
    next.handle(Input::Cancel(asker, id));
    next.ask(other, &lock("a", 0, Wait::No));
    assert!(next.said.pop().is_some_and(|(_, _, reply)| reply.grant().is_some()));
}

#[test]
fn what_an_earlier_run_has_granted_and_has_ended_is_granted_anew() {
    let Ended { mut next, grant, id } = Ended::new(false);
    let asker = next.greet(1);
    next.wait(&[asker], 2 * MINUTE);
    next.handle(Input::Ask(asker, id, &lock("a", 0, Wait::No)));
    let (_, _, reply) = next.said.pop().unwrap();
    assert!(reply.grant().is_some_and(|newer| grant < newer));
}

#[test]
fn what_the_client_has_heard_of_is_not_told_again() {
    let mut run = Run::start(Timestamp::from_nanos(1_000_000_000), GrantId(0));
    let session = run.greet(1);
    let id = run.ask(session, &lock("a", 0, Wait::No));
    run.handle(Input::Beat(session, RequestId(id.0 + 1), &[]));
    run.records.clear();
    assert!(run.machine.hand_over(run.now));
    run.drain();
    let (grant, record) = run.records.pop().unwrap();
    let mut next = Run::start(run.now, grant);
    assert!(next.machine.restore_lease(next.now, true, grant, &record));
    let session = next.greet(1);
    next.handle(Input::Ask(session, id, &lock("a", 0, Wait::No)));
    assert_eq!(next.said.pop().and_then(|(_, _, reply)| reply.grant()), None);
}

#[test]
fn a_lease_that_its_holder_has_claimed_closes_a_cycle_of_waits() {
    assert!(is_told_of_a_deadlock(true));
}

#[test]
fn a_lease_that_nobody_has_claimed_ends_by_itself_and_closes_no_cycle() {
    assert!(!is_told_of_a_deadlock(false));
}
