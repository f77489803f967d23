//! Until when a lease is safe: never longer than its server keeps it.

use std::time::Duration;

use zmqlocker::asking::RequestId;
use zmqlocker::conversation::Input;
use zmqlocker::engine::{Code, GrantId, Key, LockRequest, Locks, Mode, Reply, Request, Term, Wait};

use super::{A, B, Item, Side, lease, yes};

/// A side that holds a lease of one second, asked for at its start and answered 100 ms later.
fn holder() -> Side {
    let mut side = Side::new(1);
    side.ask(&lease(1_000), None);
    side.said();
    side.advance(100);
    side.welcome(A, 1);
    side.answer(A, 1, &yes(Some(9)));
    side.said();
    side
}

/// For how many milliseconds from now on the lease is safe.
fn safe_for(side: &Side) -> Option<u128> {
    let until = side.conversation.lease_valid_until(side.now, A, GrantId(9));
    until.map(|until| until.since(side.now).as_millis())
}

#[test]
fn a_lease_is_counted_from_when_it_was_asked_for() {
    let mut side = holder();
    assert_eq!(safe_for(&side), Some(896));
    side.now = side.now + Duration::from_millis(895);
    assert_eq!(safe_for(&side), Some(1));
    side.now = side.now + Duration::from_millis(1);
    assert_eq!(safe_for(&side), None);
}

#[test]
fn a_lease_is_counted_from_when_the_beat_was_sent_that_was_heard() {
    let mut side = holder();
    let said = side.advance(350);
    let beat = Item::Beat { number: 1, floor: 2 };
    assert_eq!(said, [(333, A, vec![beat])]);
    assert_eq!(safe_for(&side), Some(546));
    side.heard(A, 1);
    assert_eq!(safe_for(&side), Some(979));
}

#[test]
fn a_lease_that_was_lost_stays_lost_whatever_is_heard() {
    let mut side = holder();
    side.advance(900);
    assert_eq!(safe_for(&side), None);
    side.heard(A, 2);
    assert_eq!(safe_for(&side), None);
}

#[test]
fn a_lease_is_lost_with_the_run_of_its_server() {
    let mut side = holder();
    side.handle(&Input::Down(A));
    side.handle(&Input::Up(A));
    assert_eq!(side.said(), [Item::Hello, Item::Beat { number: 1, floor: 2 }]);
    side.welcome(A, 1);
    assert_eq!(safe_for(&side), Some(896));
    side.welcome(A, 2);
    assert_eq!(safe_for(&side), None);
}

#[test]
fn a_lease_is_lost_with_the_session() {
    let mut side = holder();
    side.problem(A, Code::UnknownSession);
    assert_eq!(safe_for(&side), None);
}

#[test]
fn a_lease_that_was_dropped_is_not_held() {
    let mut side = holder();
    side.conversation.release(side.now, A, GrantId(9));
    assert_eq!(safe_for(&side), None);
    assert_eq!(side.said(), [Item::Release { id: 2, grant: 9 }]);
    assert_eq!(side.advance(5_000), []);
}

#[test]
fn a_slow_server_s_lease_is_not_counted_from_when_another_one_was_asked() {
    let mut side = Side::new(2);
    side.ask(&lease(2_000), None);
    side.drain();
    assert_eq!(side.advance(1_500), [(1_000, B, vec![Item::Hello, Item::Ask(1)])]);
    side.answer(A, 1, &yes(Some(9)));
    assert_eq!(side.drain(), [(B, vec![Item::Cancel(1)])]);
    assert_eq!(safe_for(&side), Some(492));
}

#[test]
fn locks_that_nobody_took_are_given_back_to_a_run_that_does_not_know_the_request() {
    let mut side = Side { hesitates: true, ..Side::new(1) };
    let locks = Locks::new([(Key::parse("key").unwrap(), Mode::Exclusive)]).unwrap();
    let term = Term::new(Duration::from_secs(1), None).unwrap();
    let wanted = LockRequest { locks, term, actor: 0 };
    side.ask(&Request::Lock { wanted, wait: Wait::No }, None);
    side.welcome(A, 1);
    side.answer(A, 1, &yes(Some(9)));
    side.said();
    side.handle(&Input::Down(A));
    side.handle(&Input::Up(A));
    side.said();
    side.welcome(A, 2);
    assert_eq!(side.said(), [Item::Reclaim { id: 2, grant: 9 }]);
    side.answer(A, 2, &Reply::Done);
    side.conversation.decline(side.now, RequestId(1));
    assert_eq!(safe_for(&side), None);
    assert_eq!(side.said(), [Item::Cancel(1), Item::Release { id: 3, grant: 9 }]);
}

#[test]
fn a_lease_is_not_counted_from_when_it_was_asked_for_again_on_the_same_connection() {
    let mut side = Side::new(1);
    side.ask(&lease(1_000), None);
    side.said();
    side.advance(500);
    // Of two messages the server has said that it does not know us; the first has had us ask again.
    side.problem(A, Code::UnknownSession);
    side.advance(500);
    side.problem(A, Code::UnknownSession);
    side.welcome(A, 1);
    side.answer(A, 1, &yes(Some(9)));
    assert_eq!(safe_for(&side), None);
}
