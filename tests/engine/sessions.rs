//! Sessions: what is asked again is counted once; what is forgotten changes no answer.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use zmqlocker::engine::{
    Bounds, Code, Hold, Input, Output, Reply, Request, RequestId, SessionId, Wait,
};

use crate::{Desk, SECOND, acquire, code, wait_for};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn what_is_asked_again_is_answered_the_same_and_counted_once(
        limit in prop::sample::select(vec!["3/s", "3/s sliding", "3/s gcra burst 2"]),
        steps in vec((0..SECOND, 1..3_u64, vec(any::<prop::sample::Index>(), 0..4)), 1..30),
    ) {
        let mut desk = Desk::new(&[], &[limit]);
        let mut twin = Desk::new(&[], &[limit]);
        let (session, twin_session) = (desk.greet(1), twin.greet(1));
        let mut asked = Vec::new();
        for (gap, cost, again) in steps {
            desk.advance(gap);
            twin.advance(gap);
            let request = acquire(&[("k", cost)], Wait::No, Hold::Spend);
            let (id, twin_id) = (desk.send(session, &request), twin.send(twin_session, &request));
            let reply = desk.answer(session, id).unwrap().1.clone();
            prop_assert_eq!(&reply, twin.answer(twin_session, twin_id).unwrap().1);
            asked.push((id, cost, reply));
            for which in again {
                let (id, cost, reply) = which.get(&asked);
                let request = acquire(&[("k", *cost)], Wait::No, Hold::Spend);
                desk.handle(Input::Ask(session, *id, &request));
                prop_assert_eq!(desk.answer(session, *id).unwrap(), (desk.now, reply));
            }
        }
    }

    #[test]
    fn a_table_that_forgets_idle_keys_gives_the_answers_of_one_that_forgets_none(
        limit in prop::sample::select(vec!["2/s", "2/s sliding", "2/s gcra"]),
        keys_max in 2..6_usize,
        steps in vec((0..SECOND, prop::sample::subsequence(vec!["a", "b", "c", "d", "e"], 1..4)),
            1..60),
    ) {
        let bounds = Bounds { keys_max, ..Bounds::default() };
        let mut small = Desk::bounded(&[], &[limit], bounds);
        let mut large = Desk::new(&[], &[limit]);
        let (session, large_session) = (small.greet(1), large.greet(1));
        for (gap, keys) in steps {
            small.advance(gap);
            large.advance(gap);
            let parts: Vec<_> = keys.iter().map(|key| (*key, 1)).collect();
            let request = acquire(&parts, Wait::No, Hold::Spend);
            let reply = small.ask(session, &request);
            if code(&reply) == Some(Code::BoundExceeded) {
                prop_assert!(small.machine.tally().keys >= keys_max);
                continue;
            }
            prop_assert_eq!(reply, large.ask(large_session, &request));
        }
    }
}

#[test]
fn what_is_below_the_floor_is_heard_by_nobody() {
    let mut desk = Desk::new(&[], &["1/s"]);
    let session = desk.greet(1);
    desk.handle(Input::Beat(session, RequestId(10), &[]));
    let request = acquire(&[("k", 1)], Wait::No, Hold::Spend);
    desk.handle(Input::Ask(session, RequestId(9), &request));
    assert_eq!(desk.heard, []);
    desk.handle(Input::Ask(session, RequestId(10), &request));
    assert!(desk.granted(session, RequestId(10)).is_some_and(|(_, allowed)| allowed));
}

#[test]
fn what_is_cancelled_before_it_comes_is_void() {
    let mut desk = Desk::new(&[], &["1/s"]);
    let session = desk.greet(1);
    desk.handle(Input::Cancel(session, RequestId(5)));
    let request = acquire(&[("k", 1)], Wait::No, Hold::Spend);
    desk.handle(Input::Ask(session, RequestId(5), &request));
    assert_eq!(desk.heard, []);
    assert!(desk.try_acquire(session, &[("k", 1)]).allowed);
}

#[test]
fn what_was_granted_and_is_cancelled_comes_back_to_those_who_wait() {
    for hold in [Hold::Spend, Hold::Reserve] {
        let mut desk = Desk::new(&[], &["2/s"]);
        let session = desk.greet(1);
        let granted = desk.send(session, &acquire(&[("k", 2)], Wait::No, hold));
        let waiter = desk.send(session, &wait_for(&[("k", 1)], SECOND));
        for _ in 0..2 {
            desk.handle(Input::Cancel(session, granted));
        }
        assert_eq!(desk.granted(session, waiter), Some((desk.now, true)));
        assert_eq!(desk.peek(session, "k", 1).remaining, 1);
    }
}

/// Somebody waits for the only permit, which was leased for a second, and for so long nothing is
/// heard and the machine does not see the time.
fn wait_unseen(nanos: u64) -> (Desk, SessionId, RequestId) {
    let mut desk = Desk::new(&[], &["1 at once"]);
    let (holder, waiter) = (desk.greet(1), desk.greet(2));
    assert!(desk.lease(holder, "k", SECOND).is_some());
    let hold = Hold::lease(Duration::from_secs(60)).unwrap();
    let wait = Wait::UpTo(Duration::from_secs(30));
    let waiting = desk.send(waiter, &acquire(&[("k", 1)], wait, hold));
    desk.skip(nanos);
    (desk, waiter, waiting)
}

#[test]
fn who_leaves_when_its_turn_has_come_unseen_holds_nothing() {
    let (mut desk, waiter, waiting) = wait_unseen(SECOND * 3 / 2);
    desk.handle(Input::Cancel(waiter, waiting));
    assert_eq!(desk.peek(waiter, "k", 1).remaining, 1);
}

#[test]
fn who_was_silent_when_its_turn_has_come_unseen_is_answered_once() {
    let (mut desk, waiter, waiting) = wait_unseen(3 * SECOND);
    desk.handle(Input::Tick);
    assert_eq!(desk.answers(waiter, waiting), 1);
}

#[test]
fn a_client_that_never_says_what_it_has_is_refused_and_told_why() {
    let mut desk = Desk::new(&[], &["1/s"]);
    let session = desk.greet(1);
    let request = acquire(&[("k", 1)], Wait::No, Hold::Spend);
    for _ in 0..Bounds::default().client_answers_max {
        desk.send(session, &request);
    }
    desk.heard.clear();
    let Reply::Refuse(problem) = desk.ask(session, &request) else { panic!() };
    assert_eq!(problem.code, Code::BoundExceeded);
    assert!(problem.message.contains("`client_answers_max`): it says so in its beats"));
    desk.handle(Input::Beat(session, RequestId(desk.last_request + 1), &[]));
    assert_eq!(code(&desk.ask(session, &request)), None);
}

#[test]
fn a_wait_without_an_end_holds_back_the_answers_to_nothing_else() {
    let mut desk = Desk::new(&[("slow", &["1 at once"])], &["1/s"]);
    let [holder, session] = [desk.greet(1), desk.greet(2)];
    let held = desk.lease(holder, "slow", 60 * SECOND).unwrap();
    let term = Hold::lease(Duration::from_secs(60)).unwrap();
    let wait = acquire(&[("slow", 1)], Wait::UpTo(Duration::from_secs(3_600)), term);
    let waiting = desk.send(session, &wait);
    let request = acquire(&[("k", 1)], Wait::No, Hold::Spend);
    for _ in 0..=Bounds::default().client_answers_max / 1_000 {
        for _ in 0..1_000 {
            assert_eq!(code(&desk.ask(session, &request)), None);
        }
        let floor = RequestId(desk.last_request + 1);
        desk.handle(Input::Beat(session, floor, &[waiting]));
        desk.heard.clear();
    }
    let again = |desk: &mut Desk| {
        desk.heard.clear();
        desk.handle(Input::Ask(session, waiting, &wait));
        desk.heard.pop().map(|(_, output)| output)
    };
    let is_queued =
        |output| matches!(output, Some(Output::Reply { reply: Reply::Queued { .. }, .. }));
    assert!(is_queued(again(&mut desk)), "it keeps its place");
    desk.ask(holder, &Request::Release { grant: held });
    let granted = desk.granted(session, waiting);
    assert_eq!(granted, Some((desk.now, true)));
    desk.handle(Input::Beat(session, RequestId(desk.last_request + 1), &[waiting]));
    again(&mut desk);
    assert!(matches!(again(&mut desk), Some(Output::Reply { reply: Reply::Decision(_), .. })));
    desk.handle(Input::Beat(session, RequestId(desk.last_request + 1), &[]));
    assert_eq!(again(&mut desk), None, "the client has the answer");
}

#[test]
fn what_is_not_answered_is_heard_though_it_comes_below_the_floor() {
    let mut desk = Desk::new(&[], &["1/s"]);
    let session = desk.greet(1);
    desk.handle(Input::Beat(session, RequestId(10), &[RequestId(5), RequestId(9)]));
    let request = acquire(&[("k", 1)], Wait::No, Hold::Spend);
    for (id, is_heard) in [(4, false), (5, true), (8, false), (9, true)] {
        desk.handle(Input::Ask(session, RequestId(id), &request));
        assert_eq!(desk.answer(session, RequestId(id)).is_some(), is_heard, "{id}");
    }
    // A beat that was said before, and comes now, opens nothing again.
    desk.handle(Input::Beat(session, RequestId(9), &[RequestId(4)]));
    desk.handle(Input::Ask(session, RequestId(4), &request));
    assert_eq!(desk.answer(session, RequestId(4)), None);
}

#[test]
fn what_is_given_back_is_taken_from_a_client_that_never_says_what_it_has() {
    let bounds = Bounds { client_answers_max: 5, ..Bounds::default() };
    let mut desk = Desk::bounded(&[("one", &["1 at once"])], &["1/s"], bounds);
    let session = desk.greet(1);
    let grant = desk.lease(session, "one", 60 * SECOND).unwrap();
    for _ in 1..5 {
        desk.send(session, &acquire(&[("k", 1)], Wait::No, Hold::Spend));
    }
    desk.heard.clear();
    assert_eq!(desk.ask(session, &Request::Release { grant }), Reply::Done);
    assert_eq!(code(&desk.ask(session, &Request::Release { grant })), Some(Code::NotHeld));
    let lease = Hold::lease(Duration::from_secs(1)).unwrap();
    let more = desk.ask(session, &acquire(&[("one", 1)], Wait::No, lease));
    assert_eq!(code(&more), Some(Code::BoundExceeded));
}
