//! Leases and reservations: what is held is held once, and what comes back comes back when it may.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use zmqlocker::engine::{Code, GrantId, Hold, Input, Reply, Request, RequestId, SessionId, Wait};

use crate::{Desk, SECOND, START, acquire, code, wait_for};

const TTL: u64 = SECOND;

/// The length of a lease at the server, after the last message of its holder.
const fn length(ttl: u64) -> u64 {
    ttl + ttl * 4 / 1000
}

fn release(desk: &mut Desk, session: SessionId, grant: GrantId) -> Reply {
    desk.ask(session, &Request::Release { grant })
}

fn commit(desk: &mut Desk, session: SessionId, grant: GrantId, spent: u64) -> Reply {
    desk.ask(session, &Request::Commit { grant, spent: [spent].into_iter().collect() })
}

fn reserve(desk: &mut Desk, session: SessionId, cost: u64) -> GrantId {
    match desk.ask(session, &acquire(&[("k", cost)], Wait::No, Hold::Reserve)) {
        Reply::Decision(decision) => decision.grant.unwrap(),
        other => panic!("{other:?}"),
    }
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Lease(u64),
    Release(prop::sample::Index),
    Beat,
}

fn act() -> impl Strategy<Value = Act> {
    let ttl = prop_oneof![Just(TTL), SECOND / 10..3 * SECOND];
    prop_oneof![
        ttl.prop_map(Act::Lease),
        any::<prop::sample::Index>().prop_map(Act::Release),
        Just(Act::Beat),
    ]
}

proptest! {
    #[test]
    fn never_more_are_held_than_the_limit_and_each_as_long_as_its_holder_is_heard(
        at_once in 1..4_usize,
        steps in vec((0..SECOND, 0..3_usize, act()), 1..60),
    ) {
        let mut desk = Desk::new(&[], &[&format!("{at_once} at once")]);
        let sessions = [1, 2, 3].map(|name| desk.greet(name));
        let mut heard = [START; 3];
        // Holder, length, number.
        let mut held: Vec<(usize, u64, GrantId)> = Vec::new();
        let mut ever = Vec::new();
        for (gap, who, act) in steps {
            desk.advance(gap);
            let now = desk.now;
            held.retain(|(holder, ttl, _)| now < heard[*holder] + length(*ttl));
            heard[who] = now;
            match act {
                Act::Lease(ttl) => {
                    let granted = desk.lease(sessions[who], "k", ttl);
                    prop_assert_eq!(granted.is_some(), held.len() < at_once);
                    held.extend(granted.map(|id| (who, ttl, id)));
                    ever.extend(granted);
                }
                Act::Release(which) if !ever.is_empty() => {
                    let id = *which.get(&ever);
                    let place = held.iter().position(|(holder, _, n)| (*holder, *n) == (who, id));
                    let reply = release(&mut desk, sessions[who], id);
                    if let Some(place) = place {
                        prop_assert_eq!(reply, Reply::Done);
                        held.remove(place);
                    } else {
                        prop_assert_eq!(code(&reply), Some(Code::NotHeld));
                    }
                }
                Act::Release(_) | Act::Beat => {
                    desk.handle(Input::Beat(sessions[who], RequestId(0), &[]));
                }
            }
        }
    }

    #[test]
    fn whatever_is_waited_for_everybody_is_answered_once_when_all_is_given_back(
        waits in vec(prop::sample::subsequence(vec!["a", "b", "c"], 1..4), 1..12),
    ) {
        let mut desk = Desk::new(&[], &["1 at once"]);
        let sessions: Vec<_> = (0..12).map(|name| desk.greet(name)).collect();
        let hold = Hold::lease(Duration::from_nanos(TTL)).unwrap();
        let wait = Wait::UpTo(Duration::from_secs(30));
        let mut ids = Vec::new();
        for (keys, session) in waits.iter().zip(&sessions) {
            let parts: Vec<_> = keys.iter().map(|key| (*key, 1)).collect();
            ids.push((*session, desk.send(*session, &acquire(&parts, wait, hold))));
        }
        // Nobody gives anything back, and those who hold fall silent; those who wait do not.
        for _ in 0..15 {
            for (session, id) in &ids {
                if desk.answers(*session, *id) == 0 {
                    desk.handle(Input::Beat(*session, RequestId(0), &[]));
                }
            }
            desk.advance(SECOND);
        }
        for (session, id) in ids {
            prop_assert_eq!(desk.answers(session, id), 1);
            prop_assert!(desk.granted(session, id).is_some_and(|(_, allowed)| allowed));
        }
    }
}

#[test]
fn a_lease_is_free_at_its_end_and_not_before_and_goes_to_the_first_who_waits() {
    let mut desk = Desk::new(&[], &["1 at once"]);
    let [holder, first, second] = [1, 2, 3].map(|name| desk.greet(name));
    desk.lease(holder, "k", TTL).unwrap();
    let hold = Hold::lease(Duration::from_nanos(TTL)).unwrap();
    let request = acquire(&[("k", 1)], Wait::UpTo(Duration::from_secs(5)), hold);
    let [one, two] = [first, second].map(|session| desk.send(session, &request));
    desk.advance(SECOND / 2);
    desk.handle(Input::Beat(holder, RequestId(0), &[]));
    desk.advance(SECOND);
    desk.handle(Input::Beat(first, RequestId(0), &[]));
    desk.handle(Input::Beat(second, RequestId(0), &[]));
    desk.advance(SECOND / 2);
    let ends_at = START + SECOND / 2 + length(TTL);
    assert_eq!(desk.granted(first, one), Some((ends_at, true)));
    assert_eq!(desk.granted(second, two), None);
    desk.handle(Input::Cancel(first, one));
    assert_eq!(desk.granted(second, two), Some((desk.now, true)));
}

#[test]
fn a_refused_lease_can_be_had_at_retry_after_and_not_before() {
    let mut desk = Desk::new(&[], &["2 at once"]);
    let [holder, asker] = [desk.greet(1), desk.greet(2)];
    desk.lease(holder, "k", 2 * TTL).unwrap();
    desk.lease(holder, "k", TTL).unwrap();
    let hold = Hold::lease(Duration::from_nanos(TTL)).unwrap();
    for (cost, wait) in [(1, length(TTL)), (2, length(2 * TTL) - length(TTL))] {
        let request = acquire(&[("k", cost)], Wait::No, hold);
        let Reply::Decision(refused) = desk.ask(asker, &request) else { panic!() };
        assert_eq!(refused.retry_after, Some(Duration::from_nanos(wait)));
        desk.advance(wait - 1);
        assert!(matches!(desk.ask(asker, &request), Reply::Decision(d) if !d.allowed));
        desk.advance(1);
        let Reply::Decision(decision) = desk.ask(asker, &request) else { panic!() };
        assert_eq!(release(&mut desk, asker, decision.grant.unwrap()), Reply::Done);
    }
}

#[test]
fn what_was_reserved_and_not_spent_comes_back_and_what_was_overspent_is_owed() {
    for limit in ["10/s", "10/s sliding", "10/s gcra"] {
        let mut desk = Desk::new(&[], &[limit]);
        let session = desk.greet(1);
        let grant = reserve(&mut desk, session, 8);
        assert_eq!(commit(&mut desk, session, grant, 5), Reply::Done);
        assert_eq!(desk.peek(session, "k", 1).remaining, 5, "{limit}");
        assert_eq!(code(&commit(&mut desk, session, grant, 0)), Some(Code::NotHeld));
        let grant = reserve(&mut desk, session, 2);
        commit(&mut desk, session, grant, 4);
        assert_eq!(desk.peek(session, "k", 1).remaining, 1, "{limit}");
        let grant = reserve(&mut desk, session, 1);
        desk.advance(3 * SECOND);
        desk.try_acquire(session, &[("k", 4)]);
        commit(&mut desk, session, grant, 0);
        assert_eq!(desk.peek(session, "k", 1).remaining, 6, "{limit}");
    }
}

#[test]
fn an_overspent_amount_of_any_size_is_counted_and_harms_nothing() {
    for limit in ["10/s", "10/s sliding", "10/1000000000s gcra"] {
        let mut desk = Desk::new(&[], &[limit]);
        let session = desk.greet(1);
        let grants: Vec<_> = (0..10).map(|_| reserve(&mut desk, session, 1)).collect();
        for grant in grants {
            assert_eq!(commit(&mut desk, session, grant, u64::MAX), Reply::Done);
            assert!(!desk.try_acquire(session, &[("k", 1)]).allowed);
            desk.advance(1);
        }
        desk.advance(5 * SECOND);
        desk.peek(session, "k", 1);
    }
}

#[test]
fn what_is_overspent_is_owed_even_where_many_other_keys_came_between() {
    let bounds = zmqlocker::engine::Bounds { keys_max: 4, ..Default::default() };
    let mut desk = Desk::bounded(&[], &["10/s"], bounds);
    let session = desk.greet(1);
    let grant = reserve(&mut desk, session, 1);
    for name in ["a", "b", "c", "d", "e", "f"] {
        desk.advance(2 * SECOND);
        desk.try_acquire(session, &[(name, 1)]);
    }
    commit(&mut desk, session, grant, 11);
    assert_eq!(desk.peek(session, "k", 1).remaining, 0);
}

#[test]
fn the_grant_of_a_lease_that_has_ended_is_not_told_again() {
    let mut desk = Desk::new(&[], &["1 at once"]);
    let (holder, other) = (desk.greet(1), desk.greet(2));
    let request = acquire(&[("k", 1)], Wait::No, Hold::lease(Duration::from_nanos(TTL)).unwrap());
    let id = desk.send(holder, &request);
    assert_eq!(desk.granted(holder, id), Some((START, true)));
    desk.advance(length(TTL) + 1);
    assert!(desk.lease(other, "k", TTL).is_some());
    // The answer was lost with its connection, and the holder asks again.
    desk.handle(Input::Ask(holder, id, &request));
    assert_eq!(desk.granted(holder, id), Some((desk.now, false)));
}

#[test]
fn a_hello_keeps_no_lease_whose_time_is_over() {
    let mut desk = Desk::new(&[], &["1 at once"]);
    let [holder, other] = [desk.greet(1), desk.greet(2)];
    let grant = desk.lease(holder, "k", SECOND).unwrap();
    // The server stands still, and the first that it finds then is a hello.
    desk.skip(2 * SECOND);
    assert_eq!(desk.greet(1), holder);
    assert!(desk.lease(other, "k", SECOND).is_some());
    let reply = desk.ask(holder, &Request::Release { grant });
    assert_eq!(code(&reply), Some(Code::NotHeld));
}

#[test]
fn who_is_barred_waits_no_more_and_what_it_holds_runs_out() {
    let mut desk = Desk::new(&[("full", &["1/h"])], &["1 at once"]);
    let (barred, other) = (desk.greet(1), desk.greet(2));
    assert!(desk.lease(barred, "k", TTL).is_some());
    assert!(desk.try_acquire(barred, &[("full", 1)]).allowed);
    let (first, second) = (
        desk.send(barred, &wait_for(&[("full", 1)], 7200 * SECOND)),
        desk.send(other, &wait_for(&[("full", 1)], 7200 * SECOND)),
    );
    desk.handle(Input::Bar(barred));
    assert_eq!(code(desk.answer(barred, first).unwrap().1), Some(Code::Auth));
    assert_eq!(desk.answer(other, second), None);
    assert_eq!(desk.machine.tally().waiting, 1);
    // It still believes that it holds what it held.
    desk.advance(length(TTL) - 1);
    assert!(desk.lease(other, "k", TTL).is_none());
    desk.advance(2);
    assert!(desk.lease(other, "k", TTL).is_some());
    desk.handle(Input::Bar(barred));
    assert_eq!(desk.answers(barred, first), 1);
}
