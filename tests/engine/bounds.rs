//! Bounds at their edges: the last one in is served, the next is told which bound is full, and when
//! one has left there is room again.

use std::time::Duration;

use zmqlocker::engine::{
    Bounds, ClientInfo, Code, Hold, Input, Problem, Reply, Request, RequestId, SessionId, Wait,
};
use zmqlocker::time::Timestamp;

use crate::{Desk, SECOND, acquire, key, wait_for};

/// A machine with two permits an hour of each key, and one at once of "one".
fn desk(bounds: Bounds) -> Desk {
    Desk::bounded(&[("one*", &["1 at once"]), ("many", &["100 at once"])], &["2/h"], bounds)
}

/// Full, and for the reason that is expected.
fn is_full(reply: &Reply, name: &str) -> bool {
    match reply {
        Reply::Refuse(problem) => names(problem, name),
        _ => false,
    }
}

fn names(problem: &Problem, name: &str) -> bool {
    problem.code == Code::BoundExceeded && problem.message.contains(&format!("`{name}`"))
}

fn spend(desk: &mut Desk, session: SessionId, name: &str) -> Reply {
    desk.ask(session, &acquire(&[(name, 1)], Wait::No, Hold::Spend))
}

fn lease(desk: &mut Desk, session: SessionId, name: &str) -> Reply {
    let hold = Hold::lease(Duration::from_secs(60)).unwrap();
    desk.ask(session, &acquire(&[(name, 1)], Wait::No, hold))
}

/// Waits for a minute; the answer, if there is one at once.
fn wait(desk: &mut Desk, session: SessionId, name: &str) -> (RequestId, Option<Reply>) {
    let id = desk.send(session, &wait_for(&[(name, 1)], 60 * SECOND));
    (id, desk.answer(session, id).map(|(_, reply)| reply.clone()))
}

#[test]
fn keys_max_counts_keys_that_are_in_use() {
    let mut desk = desk(Bounds { keys_max: 3, ..Bounds::default() });
    let session = desk.greet(1);
    // The key `default` is in use from the start, for a slot.
    assert!(matches!(spend(&mut desk, session, "a"), Reply::Decision(_)));
    assert!(matches!(spend(&mut desk, session, "b"), Reply::Decision(_)));
    let refused = spend(&mut desk, session, "c");
    assert!(is_full(&refused, "keys_max"), "{refused:?}");
    desk.ask(session, &Request::Reset { key: key("a") });
    assert!(matches!(spend(&mut desk, session, "c"), Reply::Decision(_)));
}

#[test]
fn waiters_max_counts_those_who_wait_for_any_key() {
    let mut desk = desk(Bounds { waiters_max: 2, ..Bounds::default() });
    let session = desk.greet(1);
    for name in ["a", "a", "b", "b"] {
        spend(&mut desk, session, name);
    }
    let (first, none) = wait(&mut desk, session, "a");
    assert_eq!((none, wait(&mut desk, session, "b").1), (None, None));
    let refused = wait(&mut desk, session, "b").1.unwrap();
    assert!(is_full(&refused, "waiters_max"), "{refused:?}");
    desk.handle(Input::Cancel(session, first));
    assert_eq!(wait(&mut desk, session, "b").1, None);
}

#[test]
fn key_waiters_max_counts_those_who_wait_for_one_key() {
    let mut desk = desk(Bounds { key_waiters_max: 2, ..Bounds::default() });
    let session = desk.greet(1);
    for name in ["a", "a", "b", "b"] {
        spend(&mut desk, session, name);
    }
    let (first, none) = wait(&mut desk, session, "a");
    assert_eq!((none, wait(&mut desk, session, "a").1), (None, None));
    let refused = wait(&mut desk, session, "a").1.unwrap();
    assert!(is_full(&refused, "key_waiters_max"), "{refused:?}");
    assert!(matches!(refused, Reply::Refuse(problem) if problem.message.contains("\"a\"")));
    assert_eq!(wait(&mut desk, session, "b").1, None);
    desk.handle(Input::Cancel(session, first));
    assert_eq!(wait(&mut desk, session, "a").1, None);
}

#[test]
fn who_may_wait_only_a_moment_is_refused_where_the_queue_is_full() {
    let bounds = Bounds { key_waiters_max: 1, ..Bounds::default() };
    let rules = crate::rules(&[], &["1/s"]);
    let now = Timestamp::from_nanos(SECOND);
    let mut machine = zmqlocker::engine::Machine::new(now, rules, Duration::from_secs(9), bounds);
    let answers: Vec<_> = (0..3)
        .map(|place| {
            machine.handle(now, Input::Next(place));
            std::iter::from_fn(|| machine.poll_output()).count()
        })
        .collect();
    // The first is served, the second waits, the third hears "sorry".
    assert_eq!(answers, [1, 0, 1]);
}

#[test]
fn leases_max_counts_what_all_clients_hold() {
    let mut desk = desk(Bounds { leases_max: 2, ..Bounds::default() });
    let [one, two] = [1, 2].map(|name| desk.greet(name));
    let grant = lease(&mut desk, one, "many").grant().unwrap();
    assert!(lease(&mut desk, two, "many").grant().is_some());
    let refused = lease(&mut desk, two, "many");
    assert!(is_full(&refused, "leases_max"), "{refused:?}");
    assert_eq!(desk.ask(one, &Request::Release { grant }), Reply::Done);
    assert!(lease(&mut desk, two, "many").grant().is_some());
}

#[test]
fn client_leases_max_counts_what_one_client_holds() {
    let mut desk = desk(Bounds { client_leases_max: 2, ..Bounds::default() });
    let [one, two] = [1, 2].map(|name| desk.greet(name));
    let grant = lease(&mut desk, one, "many").grant().unwrap();
    assert!(lease(&mut desk, one, "many").grant().is_some());
    let refused = lease(&mut desk, one, "many");
    assert!(is_full(&refused, "client_leases_max"), "{refused:?}");
    // What was refused took nothing, and another client is not concerned.
    assert_eq!(desk.peek(two, "many", 1).remaining, 98);
    assert!(lease(&mut desk, two, "many").grant().is_some());
    assert_eq!(desk.ask(one, &Request::Release { grant }), Reply::Done);
    assert!(lease(&mut desk, one, "many").grant().is_some());
}

#[test]
fn a_block_counts_as_a_lease_of_its_client() {
    let mut desk = desk(Bounds { client_leases_max: 1, ..Bounds::default() });
    let session = desk.greet(1);
    let grant = desk.block(session, "a", 1).grant.unwrap();
    let refused = lease(&mut desk, session, "many");
    assert!(is_full(&refused, "client_leases_max"), "{refused:?}");
    assert_eq!(desk.ask(session, &Request::GiveBack { grant, unused: 1 }), Reply::Done);
    assert!(lease(&mut desk, session, "many").grant().is_some());
}

#[test]
fn a_waiter_whose_client_is_full_when_its_turn_comes_is_refused_and_the_next_is_served() {
    let mut desk = desk(Bounds { client_leases_max: 1, ..Bounds::default() });
    let [holder, full, next] = [1, 2, 3].map(|name| desk.greet(name));
    let grant = lease(&mut desk, holder, "one").grant().unwrap();
    let hold = Hold::lease(Duration::from_secs(60)).unwrap();
    let minute = Wait::UpTo(Duration::from_secs(60));
    let turns = [full, next].map(|who| desk.send(who, &acquire(&[("one", 1)], minute, hold)));
    assert!(lease(&mut desk, full, "many").grant().is_some());
    assert_eq!(desk.ask(holder, &Request::Release { grant }), Reply::Done);
    let refused = desk.answer(full, turns[0]).unwrap().1;
    assert!(is_full(refused, "client_leases_max"), "{refused:?}");
    assert!(desk.answer(next, turns[1]).unwrap().1.grant().is_some());
}

#[test]
fn sessions_max_counts_clients() {
    let mut desk = desk(Bounds { sessions_max: 2, ..Bounds::default() });
    let [one, _] = [1, 2].map(|name| desk.greet(name));
    let now = Timestamp::from_nanos(desk.now);
    let problem = desk.machine.greet(now, [3; 16], ClientInfo::default()).unwrap_err();
    assert!(names(&problem, "sessions_max"), "{problem:?}");
    // Who is known is greeted again.
    assert_eq!(desk.greet(1), one);
    desk.handle(Input::Bye(one));
    desk.greet(3);
}

#[test]
fn client_answers_max_counts_what_one_client_has_not_said_that_it_has() {
    let mut desk = desk(Bounds { client_answers_max: 2, ..Bounds::default() });
    let [one, two] = [1, 2].map(|name| desk.greet(name));
    for _ in 0..2 {
        assert!(matches!(spend(&mut desk, one, "a"), Reply::Decision(_)));
    }
    let refused = spend(&mut desk, one, "b");
    assert!(is_full(&refused, "client_answers_max"), "{refused:?}");
    assert!(matches!(spend(&mut desk, two, "b"), Reply::Decision(_)));
    desk.handle(Input::Beat(one, RequestId(2), &[]));
    assert!(matches!(spend(&mut desk, one, "b"), Reply::Decision(_)));
}

#[test]
fn answers_max_counts_what_all_clients_have_not_said_that_they_have() {
    let mut desk = desk(Bounds { answers_max: 3, ..Bounds::default() });
    let [one, two] = [1, 2].map(|name| desk.greet(name));
    for (session, name) in [(one, "a"), (one, "a"), (two, "b")] {
        assert!(matches!(spend(&mut desk, session, name), Reply::Decision(_)));
    }
    let refused = spend(&mut desk, two, "b");
    assert!(is_full(&refused, "answers_max"), "{refused:?}");
    // With a session its answers are gone.
    desk.handle(Input::Bye(one));
    for _ in 0..2 {
        assert!(matches!(spend(&mut desk, two, "b"), Reply::Decision(_)));
    }
    let refused = spend(&mut desk, two, "b");
    assert!(is_full(&refused, "answers_max"), "{refused:?}");
    desk.handle(Input::Beat(two, RequestId(desk.last_request + 1), &[]));
    assert!(matches!(spend(&mut desk, two, "b"), Reply::Decision(_)));
}

#[test]
fn what_is_on_record_is_counted_right_whatever_becomes_of_it() {
    let mut desk = desk(Bounds { answers_max: 4, ..Bounds::default() });
    let session = desk.greet(1);
    for round in 0..50 {
        let first = desk.last_request + 1;
        spend(&mut desk, session, "one-taken");
        let (waiting, _) = wait(&mut desk, session, "many");
        match round % 4 {
            0 => desk.handle(Input::Cancel(session, waiting)),
            1 => desk.handle(Input::Lost(session, &[RequestId(first), waiting])),
            2 => desk.handle(Input::Cancel(session, RequestId(first))),
            _ => {}
        }
        desk.handle(Input::Beat(session, RequestId(desk.last_request + 1), &[]));
        desk.heard.clear();
    }
    for _ in 0..4 {
        assert!(!is_full(&spend(&mut desk, session, "a"), "answers_max"));
    }
    assert!(is_full(&spend(&mut desk, session, "a"), "answers_max"));
}
