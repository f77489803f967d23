//! Locks: who holds them, in which order they are had, and what is refused.

use std::time::Duration;

use zmqlocker::engine::{
    Bounds, Code, Cost, Decision, GrantId, Input, LockRequest, LockRow, Locks, Mode, Reply,
    Request, RequestId, SessionId, Term, Wait,
};

use crate::{Desk, SECOND, START, code, key};

pub(crate) fn permits(size: u64, cost: u64) -> Mode {
    let [size, cost] = [size, cost].map(|permits| Cost::new(permits.into()).unwrap());
    Mode::Permits { size, cost }
}

pub(crate) fn term(ttl: u64) -> Term {
    Term::new(Duration::from_nanos(ttl), None).unwrap()
}

pub(crate) fn wanted<'a>(parts: &[(&'a str, Mode)], term: Term, actor: u64) -> LockRequest<'a> {
    let locks = Locks::new(parts.iter().map(|(name, mode)| (key(name), *mode))).unwrap();
    LockRequest { locks, term, actor }
}

pub(crate) fn lock<'a>(
    parts: &[(&'a str, Mode)],
    patience: Option<u64>,
    term: Term,
    actor: u64,
) -> Request<'a> {
    let wait = patience.map_or(Wait::No, |nanos| Wait::UpTo(Duration::from_nanos(nanos)));
    Request::Lock { wanted: wanted(parts, term, actor), wait }
}

/// The length of a lease at the server, after the last message of its holder.
pub(crate) fn until_end(length: Duration) -> u64 {
    let nanos = u64::try_from(length.as_nanos()).unwrap();
    nanos + nanos * 4 / 1000
}

impl Desk {
    /// Tries to take locks for 9 seconds: the token.
    pub(crate) fn take(
        &mut self,
        session: SessionId,
        actor: u64,
        parts: &[(&str, Mode)],
    ) -> Option<GrantId> {
        match self.ask(session, &lock(parts, None, term(9 * SECOND), actor)) {
            Reply::Decision(decision) => decision.grant,
            other => panic!("{other:?}"),
        }
    }

    /// Waits for locks for as long as it may take.
    pub(crate) fn wait(
        &mut self,
        session: SessionId,
        actor: u64,
        parts: &[(&str, Mode)],
    ) -> RequestId {
        self.send(session, &lock(parts, Some(3_600 * SECOND), term(9 * SECOND), actor))
    }

    pub(crate) fn token(&self, session: SessionId, id: RequestId) -> Option<GrantId> {
        self.answer(session, id).and_then(|(_, reply)| reply.grant())
    }

    pub(crate) fn release(&mut self, session: SessionId, grant: GrantId) -> Option<Code> {
        code(&self.ask(session, &Request::Release { grant }))
    }

    /// Moves the clock on while all these sessions live.
    pub(crate) fn live(&mut self, sessions: &[SessionId], nanos: u64) {
        let until = self.now + nanos;
        while self.now < until {
            self.advance_to(until.min(self.now + SECOND / 4));
            for session in sessions {
                self.handle(Input::Beat(*session, RequestId(0), &[]));
            }
        }
    }

    /// All who hold and wait, page by page.
    pub(crate) fn rows(&mut self, session: SessionId) -> Vec<LockRow> {
        let (mut rows, mut next) = (Vec::new(), Some(0));
        while let Some(from) = next {
            let Reply::Locks(page) = self.ask(session, &Request::Locks { from }) else { panic!() };
            assert!(next < page.next || page.next.is_none(), "the pages go on");
            rows.extend(page.rows);
            next = page.next;
        }
        rows
    }
}

pub(crate) const M: Mode = Mode::Exclusive;
pub(crate) const READ: Mode = Mode::Read;
pub(crate) const WRITE: Mode = Mode::Write;

#[test]
fn a_writer_is_not_starved_by_readers_that_come_and_go() {
    let mut desk = Desk::new(&[], &[]);
    let [writer, one, two] = [1, 2, 3].map(|name| desk.greet(name));
    let mut readers = [one, two].map(|session| (session, desk.take(session, 0, &[("k", READ)])));
    let write = desk.wait(writer, 0, &[("k", WRITE)]);
    for (session, held) in &mut readers {
        assert_eq!(desk.take(*session, 0, &[("k", READ)]), None, "who comes late stands behind");
        assert_eq!(desk.token(writer, write), None);
        assert_eq!(desk.release(*session, held.take().unwrap()), None);
    }
    assert!(desk.token(writer, write).is_some());
}

#[test]
fn whoever_wants_many_permits_is_not_starved_by_those_who_want_one() {
    let mut desk = Desk::new(&[], &[]);
    let [large, small] = [1, 2].map(|name| desk.greet(name));
    let held = [(); 3].map(|()| desk.take(small, 0, &[("k", permits(3, 1))]).unwrap());
    let all = desk.wait(large, 0, &[("k", permits(3, 3))]);
    let late = desk.wait(small, 0, &[("k", permits(3, 1))]);
    for grant in held {
        assert_eq!((desk.token(large, all), desk.token(small, late)), (None, None));
        assert_eq!(desk.take(small, 0, &[("k", permits(3, 1))]), None);
        desk.release(small, grant);
    }
    let grant = desk.token(large, all).unwrap();
    assert_eq!(desk.token(small, late), None);
    desk.release(large, grant);
    assert!(desk.token(small, late).is_some());
}

#[test]
fn locks_are_taken_together_or_none_of_them_is() {
    let mut desk = Desk::new(&[], &[]);
    let [one, two] = [1, 2].map(|name| desk.greet(name));
    let b = desk.take(one, 0, &[("b", M)]).unwrap();
    assert_eq!(desk.take(two, 0, &[("a", M), ("b", M)]), None);
    let a = desk.take(two, 0, &[("a", M)]).unwrap();
    let both = desk.wait(two, 0, &[("a", M), ("b", M)]);
    desk.release(one, b);
    assert_eq!(desk.take(one, 0, &[("b", M)]), None, "nobody overtakes");
    desk.release(two, a);
    let grant = desk.token(two, both).unwrap();
    assert_eq!(desk.take(one, 0, &[("a", M)]), None);
    desk.release(two, grant);
    assert!(desk.take(one, 0, &[("a", M), ("b", M)]).is_some());
}

#[test]
fn a_lease_ends_after_max_hold_however_much_is_heard() {
    let mut desk = Desk::new(&[], &[]);
    let [holder, other] = [1, 2].map(|name| desk.greet(name));
    let second = Duration::from_secs(1);
    let term = Term::new(second, Some(3 * second)).unwrap();
    desk.ask(holder, &lock(&[("k", M)], None, term, 0));
    let waiter = desk.wait(other, 0, &[("k", M)]);
    desk.live(&[holder, other], 4 * SECOND);
    assert_eq!(desk.granted(other, waiter), Some((START + until_end(3 * second), true)));
}

#[test]
fn the_first_use_of_a_key_says_what_kind_of_lock_it_is() {
    let mut desk = Desk::new(&[("rule*", &["2 at once"])], &["5/s"]);
    let session = desk.greet(1);
    let modes = [M, READ, permits(3, 1), permits(4, 1)];
    for (first, mode) in modes.into_iter().enumerate() {
        let name = first.to_string();
        let grant = desk.take(session, 0, &[(&name, mode)]).unwrap();
        for (place, other) in modes.into_iter().enumerate().filter(|(place, _)| *place != first) {
            let reply = desk.ask(session, &lock(&[(&name, other)], None, term(SECOND), 0));
            let Reply::Refuse(problem) = reply else { panic!("{place}: {reply:?}") };
            assert_eq!(problem.code, Code::KindMismatch);
            let said = format!("key {name:?} is {}, not {}", mode.shape(), other.shape());
            assert!(problem.message.contains(&said), "{}", problem.message);
        }
        desk.release(session, grant);
    }
    let reply = desk.ask(session, &lock(&[("rule 7", M)], None, term(SECOND), 0));
    let Reply::Refuse(problem) = reply else { panic!("{reply:?}") };
    assert_eq!(problem.code, Code::KindMismatch);
    assert!(problem.message.contains("by the rule \"2 at once\""), "{}", problem.message);
}

#[test]
fn a_lock_and_a_limit_of_one_name_have_nothing_to_do_with_each_other() {
    let mut desk = Desk::new(&[], &["1/s"]);
    let session = desk.greet(1);
    assert!(desk.try_acquire(session, &[("k", 1)]).allowed);
    assert!(desk.take(session, 0, &[("k", M)]).is_some());
    desk.ask(session, &Request::Reset { key: key("k") });
    desk.ask(session, &Request::Freeze { key: key("k"), length: Duration::from_secs(9) });
    assert!(!desk.try_acquire(session, &[("k", 1)]).allowed);
    assert_eq!(desk.take(session, 0, &[("k", M)]), None);
    assert_eq!(desk.rows(session).len(), 1);
}

#[test]
fn the_size_of_a_semaphore_is_remembered_while_there_is_room() {
    let bounds = Bounds { keys_max: 40, ..Bounds::default() };
    let mut desk = Desk::bounded(&[], &[], bounds);
    let session = desk.greet(1);
    let use_key = |desk: &mut Desk, name: &str, mode: Mode| {
        let reply = desk.ask(session, &lock(&[(name, mode)], None, term(SECOND), 0));
        if let Some(grant) = reply.grant() {
            desk.release(session, grant);
        }
        code(&reply)
    };
    assert_eq!(use_key(&mut desk, "k", permits(3, 1)), None);
    for name in 0..30 {
        assert_eq!(use_key(&mut desk, &format!("other {name}"), M), None);
    }
    assert_eq!(use_key(&mut desk, "k", permits(4, 1)), Some(Code::KindMismatch));
    for name in 0..80 {
        assert_eq!(use_key(&mut desk, &format!("sized {name}"), permits(2, 1)), None);
    }
    assert_eq!(use_key(&mut desk, "k", permits(4, 1)), None);
}

#[test]
fn a_lock_that_nobody_holds_or_waits_for_may_become_another_kind_of_lock() {
    let mut desk = Desk::new(&[], &[]);
    let session = desk.greet(1);
    let kinds = [M, READ, M, WRITE];
    for (mode, other) in kinds.into_iter().zip(kinds.into_iter().cycle().skip(1)) {
        let grant = desk.take(session, 0, &[("k", mode)]).unwrap();
        let refused = desk.ask(session, &lock(&[("k", other)], None, term(SECOND), 0));
        assert_eq!(code(&refused), Some(Code::KindMismatch), "{mode:?} {other:?}");
        assert_eq!(desk.release(session, grant), None);
    }
    // With others, of which one stays what it is.
    let both = [("k", M), ("s", M)];
    let grant = desk.take(session, 0, &[("s", permits(2, 1))]).unwrap();
    assert_eq!(desk.release(session, grant), None);
    let refused = desk.ask(session, &lock(&both, None, term(SECOND), 0));
    assert_eq!(code(&refused), Some(Code::KindMismatch));
    assert!(desk.take(session, 0, &[("k", READ)]).is_some());
}

#[test]
fn a_request_that_is_refused_says_nothing_about_what_a_key_is() {
    let mut desk = Desk::new(&[], &[]);
    let session = desk.greet(1);
    desk.take(session, 0, &[("m", M)]).unwrap();
    let too_large = lock(&[("a", permits(3, 4))], None, term(SECOND), 0);
    let Reply::Refuse(problem) = desk.ask(session, &too_large) else { panic!() };
    assert_eq!(problem.code, Code::CostTooLarge);
    assert!(problem.message.contains("cost 4 of key \"a\""), "{}", problem.message);
    let mismatch = lock(&[("b", permits(3, 1)), ("m", READ)], None, term(SECOND), 0);
    assert_eq!(code(&desk.ask(session, &mismatch)), Some(Code::KindMismatch));
    assert!(desk.take(session, 0, &[("a", permits(5, 1)), ("b", permits(5, 1))]).is_some());
}

#[test]
fn each_bound_is_refused_by_name_and_what_is_held_stays_held() {
    for (bounds, name) in [
        (Bounds { leases_max: 1, ..Bounds::default() }, "leases_max"),
        (Bounds { keys_max: 1, ..Bounds::default() }, "keys_max"),
        (Bounds { waiters_max: 0, ..Bounds::default() }, "waiters_max"),
    ] {
        let mut desk = Desk::bounded(&[], &[], bounds);
        let [holder, other] = [1, 2].map(|name| desk.greet(name));
        let grant = desk.take(holder, 0, &[("k", M)]).unwrap();
        let asked = if name == "waiters_max" { "k" } else { "l" };
        let request = lock(&[(asked, M)], Some(SECOND), term(SECOND), 0);
        let Reply::Refuse(problem) = desk.ask(other, &request) else { panic!("{name}") };
        assert_eq!(problem.code, Code::BoundExceeded);
        assert!(problem.message.contains(name), "{}", problem.message);
        assert_eq!(desk.take(other, 0, &[("k", M)]), None);
        assert_eq!(desk.release(holder, grant), None);
        assert!(desk.take(other, 0, &[("l", M)]).is_some(), "{name}");
    }
}

#[test]
fn a_waiter_for_which_there_is_no_room_when_its_turn_comes_is_refused() {
    let mut desk = Desk::bounded(&[], &[], Bounds { leases_max: 1, ..Bounds::default() });
    let [holder, one, two] = [1, 2, 3].map(|name| desk.greet(name));
    let grant = desk.take(holder, 0, &[("k", permits(2, 2))]).unwrap();
    let first = desk.wait(one, 0, &[("k", permits(2, 1))]);
    let second = desk.wait(two, 0, &[("k", permits(2, 1))]);
    desk.release(holder, grant);
    assert!(desk.token(one, first).is_some());
    let (_, refused) = desk.answer(two, second).unwrap();
    assert_eq!(code(refused), Some(Code::BoundExceeded));
}

#[test]
fn the_token_of_a_lock_that_has_ended_is_not_told_again() {
    let mut desk = Desk::new(&[], &[]);
    let [holder, other] = [1, 2].map(|name| desk.greet(name));
    let request = lock(&[("k", M)], None, term(SECOND), 0);
    let id = desk.send(holder, &request);
    let token = desk.token(holder, id);
    desk.handle(Input::Ask(holder, id, &request));
    assert_eq!((desk.token(holder, id), desk.answers(holder, id)), (token, 2));
    desk.advance(until_end(Duration::from_secs(1)));
    let others = desk.take(other, 0, &[("k", M)]).unwrap();
    desk.handle(Input::Ask(holder, id, &request));
    assert_eq!(desk.granted(holder, id), Some((desk.now, false)));
    desk.release(other, others);
    desk.handle(Input::Ask(holder, id, &request));
    assert_eq!(desk.granted(holder, id), Some((desk.now, false)), "the answer is on record");
}

#[test]
fn a_refused_lock_can_be_had_at_retry_after_and_not_before() {
    let mut desk = Desk::new(&[], &[]);
    let [holder, other] = [1, 2].map(|name| desk.greet(name));
    desk.ask(holder, &lock(&[("k", READ)], None, term(SECOND), 0));
    let request = lock(&[("k", WRITE)], None, term(SECOND), 0);
    let Reply::Decision(refused) = desk.ask(other, &request) else { panic!() };
    let retry_after = until_end(Duration::from_secs(1));
    assert_eq!(refused.retry_after, Some(Duration::from_nanos(retry_after)));
    assert_eq!((&*refused.limit, refused.remaining), ("a rw lock", 999_999_999_999));
    desk.advance(retry_after - 1);
    assert!(matches!(desk.ask(other, &request), Reply::Decision(Decision { allowed: false, .. })));
    desk.advance(1);
    assert!(matches!(desk.ask(other, &request), Reply::Decision(Decision { allowed: true, .. })));
}
