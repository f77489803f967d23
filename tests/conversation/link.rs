//! What is said on a connection, in which order and how often.

use super::{A, B, Item, QUEUED, Side, lease, patient, spend, yes};
use zmqlocker::conversation::{Input, Outcome};
use zmqlocker::engine::{Code, Reply};
use zmqlocker::wire::Frames;

#[test]
fn hello_is_first_on_each_connection_and_said_once() {
    let mut side = Side::new(1);
    assert_eq!(side.said(), []);
    for (first, second) in [(1, 2), (3, 4)] {
        side.ask(&spend(), None);
        assert_eq!(side.said(), [Item::Hello, Item::Ask(first)]);
        side.answer(A, first, &yes(None));
        side.ask(&spend(), None);
        assert_eq!(side.said(), [Item::Ask(second)]);
        side.answer(A, second, &yes(None));
        side.handle(&Input::Down(A));
        side.handle(&Input::Up(A));
        assert_eq!(side.said(), []);
    }
}

#[test]
fn what_is_asked_at_one_moment_goes_out_in_one_message() {
    let mut side = Side::new(1);
    for _ in 0..3 {
        side.ask(&spend(), None);
    }
    let items = vec![Item::Hello, Item::Ask(1), Item::Ask(2), Item::Ask(3)];
    assert_eq!(side.drain(), [(A, items)]);
}

#[test]
fn a_message_never_has_more_items_or_bytes_than_a_server_reads() {
    let mut side = Side::new(1);
    for _ in 0..10_000 {
        side.ask(&spend(), None);
    }
    // Reading them panics where a bound is exceeded.
    let asks = side.said().into_iter().filter(|item| matches!(item, Item::Ask(_))).count();
    assert_eq!(asks, 10_000);
}

#[test]
fn what_was_under_way_on_a_lost_link_is_sent_again_with_the_same_id() {
    let mut side = Side::new(1);
    side.ask(&spend(), None);
    side.ask(&patient(5_000), None);
    side.said();
    side.answer(A, 2, &QUEUED);
    side.handle(&Input::Down(A));
    assert_eq!(side.said(), []);
    side.handle(&Input::Up(A));
    assert_eq!(side.said(), [Item::Hello, Item::Ask(1), Item::Ask(2)]);
}

#[test]
fn a_server_that_does_not_know_the_session_hears_hello_and_is_asked_again() {
    let mut side = Side::new(1);
    side.ask(&spend(), None);
    side.said();
    side.problem(A, Code::UnknownSession);
    assert_eq!(side.said(), [Item::Hello, Item::Ask(1)]);
    assert_eq!(side.outcomes(), []);
}

#[test]
fn beats_come_every_half_second_while_a_request_waits_and_end_with_it() {
    let mut side = Side::new(1);
    side.ask(&patient(5_000), None);
    side.said();
    assert_eq!(side.conversation.next_beat(), None);
    side.answer(A, 1, &QUEUED);
    let said: Vec<_> = side.advance(1_600).into_iter().map(|(at, _, items)| (at, items)).collect();
    let beat = |number| vec![Item::Beat { number, floor: 1 }];
    assert_eq!(said, [(500, beat(1)), (1_000, beat(2)), (1_500, beat(3))]);
    side.answer(A, 1, &yes(None));
    assert_eq!(side.conversation.next_beat(), None);
    assert_eq!(side.advance(5_000), []);
}

#[test]
fn beats_come_every_third_of_the_shortest_ttl_and_end_with_the_leases() {
    let mut side = Side::new(1);
    for (id, ttl) in [(1, 900), (2, 300)] {
        side.ask(&lease(ttl), None);
        side.said();
        side.answer(A, id, &yes(Some(id)));
        side.said();
    }
    let beats = |side: &mut Side, millis| {
        let said = side.advance(millis);
        for (_, _, items) in &said {
            let [Item::Beat { number, .. }] = items[..] else { panic!("{items:?}") };
            side.heard(A, number);
        }
        said.into_iter().map(|(at, ..)| at).collect::<Vec<_>>()
    };
    assert_eq!(beats(&mut side, 250), [100, 200]);
    side.conversation.release(side.now, A, super::GrantId(2));
    assert_eq!(side.said(), [Item::Release { id: 3, grant: 2 }]);
    assert_eq!(beats(&mut side, 400), [50, 350]);
    side.conversation.release(side.now, A, super::GrantId(1));
    assert_eq!(side.conversation.next_beat(), None);
}

#[test]
fn who_closes_says_good_bye_where_it_has_spoken() {
    let mut side = Side::new(2);
    side.ask(&spend(), None);
    side.drain();
    side.conversation.close();
    assert_eq!(side.drain(), [(A, vec![Item::Bye])]);
}

#[test]
fn what_no_server_says_fails_the_requests_asked_there_and_nothing_else() {
    let mut side = Side::new(2);
    side.ask(&spend(), None);
    side.ask(&spend(), None);
    side.drain();
    let garbage = Frames::from_iter([b"\xc1".as_slice()]);
    side.handle(&Input::Message(A, &garbage));
    assert_eq!(side.drain(), []);
    let outcomes = side.outcomes();
    let [(1, Outcome::Reply(A, Reply::Refuse(problem)))] = &outcomes[..] else {
        panic!("{outcomes:?}")
    };
    assert_eq!(problem.code, Code::Protocol);
    side.answer(B, 2, &yes(None));
    side.drain();
    assert_eq!(side.outcomes(), [(2, Outcome::Reply(B, yes(None)))]);
}
