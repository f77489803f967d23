//! How requests end, and what the servers hear of it.

use proptest::prelude::*;
use zmqlocker::conversation::{Input, Outcome};
use zmqlocker::engine::{Code, Problem, Reply, RequestId};
use zmqlocker::wire::request::OPEN_MAX;

use super::{A, B, Item, QUEUED, Side, lease, patient, spend, yes};

/// The floors of the beats among what was said.
fn floors(items: &[Item]) -> Vec<u64> {
    let floor = |item: &Item| match item {
        Item::Beat { floor, .. } => Some(*floor),
        _ => None,
    };
    items.iter().filter_map(floor).collect()
}

/// Has the only link say a beat: the floor that it tells.
fn floor(side: &mut Side) -> u64 {
    let id = side.ask(&patient(10_000), None);
    side.said();
    side.answer(A, id, &QUEUED);
    let items: Vec<_> = side.advance(500).into_iter().flat_map(|(_, _, items)| items).collect();
    side.conversation.forget(side.now, RequestId(id));
    side.said();
    floors(&items)[0]
}

#[test]
fn a_caller_whose_request_waits_hears_late_and_the_server_cancel() {
    let mut side = Side::new(1);
    side.ask(&patient(5_000), Some(300));
    side.said();
    side.answer(A, 1, &QUEUED);
    let said = side.advance(300);
    assert_eq!(said, [(300, A, vec![Item::Cancel(1)])]);
    assert_eq!(side.outcomes(), [(1, Outcome::Late)]);
    assert!(side.conversation.is_available());
}

#[test]
fn a_server_that_answers_in_time_has_the_last_word() {
    let mut side = Side::new(1);
    side.ask(&patient(300), Some(300));
    side.said();
    side.answer(A, 1, &QUEUED);
    assert_eq!(side.advance(399), []);
    side.answer(A, 1, &yes(None));
    side.said();
    assert_eq!(side.outcomes(), [(1, Outcome::Reply(A, yes(None)))]);
}

#[test]
fn a_server_that_says_nothing_is_unavailable_until_it_says_something() {
    let mut side = Side::new(1);
    side.ask(&spend(), Some(300));
    side.said();
    side.advance(300);
    assert_eq!(side.outcomes(), [(1, Outcome::Silence)]);
    assert!(!side.conversation.is_available());
    let beats = side.advance(1_200);
    assert_eq!(beats.iter().map(|(at, ..)| *at).collect::<Vec<_>>(), [500, 1_000]);
    side.heard(A, 1);
    assert!(side.conversation.is_available());
    side.advance(1_000);
    assert_eq!(side.conversation.next_beat(), None);
}

#[test]
fn a_request_that_is_forgotten_is_cancelled_at_all_who_were_asked() {
    let mut side = Side::new(2);
    side.ask(&spend(), None);
    side.drain();
    assert_eq!(side.advance(1_000), [(1_000, B, vec![Item::Hello, Item::Ask(1)])]);
    side.conversation.forget(side.now, RequestId(1));
    assert_eq!(side.drain(), [(A, vec![Item::Cancel(1)]), (B, vec![Item::Cancel(1)])]);
}

#[test]
fn an_answer_that_is_declined_is_cancelled_at_who_gave_it() {
    let mut side = Side { hesitates: true, ..Side::new(1) };
    side.ask(&spend(), None);
    side.said();
    side.answer(A, 1, &yes(None));
    side.said();
    side.conversation.decline(side.now, RequestId(1));
    side.conversation.decline(side.now, RequestId(1));
    assert_eq!(side.said(), [Item::Cancel(1)]);
}

#[test]
fn a_cancel_is_said_on_each_connection_until_a_beat_behind_it_was_heard() {
    let mut side = Side::new(1);
    side.ask(&lease(500), Some(100));
    side.said();
    side.handle(&Input::Down(A));
    side.advance(100);
    assert_eq!(side.outcomes(), [(1, Outcome::Silence)]);
    for number in 1..3 {
        side.handle(&Input::Up(A));
        let beat = Item::Beat { number, floor: 2 };
        assert_eq!(side.said(), [Item::Hello, Item::Cancel(1), beat]);
        if number == 1 {
            side.handle(&Input::Down(A));
        }
    }
    side.heard(A, 2);
    side.handle(&Input::Down(A));
    side.handle(&Input::Up(A));
    assert_eq!(side.said(), []);
}

#[test]
fn who_was_asked_before_its_link_was_lost_is_told_as_well() {
    let mut side = Side::new(2);
    side.ask(&lease(500), None);
    side.drain();
    side.handle(&Input::Down(A));
    assert_eq!(side.drain(), [(B, vec![Item::Hello, Item::Ask(1)])]);
    side.answer(B, 1, &yes(Some(1)));
    side.drain();
    side.handle(&Input::Up(A));
    let beat = Item::Beat { number: 1, floor: 2 };
    assert_eq!(side.drain(), [(A, vec![Item::Hello, Item::Cancel(1), beat])]);
}

#[test]
fn a_silent_server_is_told_when_another_one_has_answered_and_that_one_is_not() {
    for (answers, other) in [(A, B), (B, A)] {
        let mut side = Side::new(2);
        side.ask(&lease(500), None);
        side.advance(1_000);
        side.drain();
        side.answer(answers, 1, &yes(None));
        assert_eq!(side.drain(), [(other, vec![Item::Cancel(1)])]);
    }
}

#[test]
fn a_server_that_closes_has_not_answered() {
    let mut side = Side::new(1);
    side.ask(&patient(5_000), None);
    side.said();
    let closing = Problem { code: Code::Closing, message: "the server stops".to_owned() };
    side.answer(A, 1, &Reply::Refuse(closing));
    side.handle(&Input::Down(A));
    assert_eq!((side.said(), side.outcomes()), (vec![], vec![]));
    side.handle(&Input::Up(A));
    assert_eq!(side.said(), [Item::Hello, Item::Ask(1)]);
}

#[test]
fn a_lease_that_is_declined_is_dropped_as_well() {
    let mut side = Side { hesitates: true, ..Side::new(1) };
    side.ask(&lease(900), None);
    side.said();
    side.answer(A, 1, &yes(Some(9)));
    side.said();
    side.conversation.decline(side.now, RequestId(1));
    assert_eq!(side.said(), [Item::Cancel(1)]);
    assert_eq!(side.advance(5_000), []);
}

#[test]
fn the_floor_waits_for_an_answer_until_it_is_settled_or_declined() {
    let mut side = Side { hesitates: true, ..Side::new(1) };
    for id in 1..3 {
        side.ask(&spend(), None);
        side.said();
        side.answer(A, id, &yes(None));
        side.said();
    }
    assert_eq!(floor(&mut side), 1);
    side.conversation.settle(RequestId(1));
    assert_eq!(floor(&mut side), 2);
    side.conversation.decline(side.now, RequestId(2));
    assert_eq!(side.said(), [Item::Cancel(2)]);
    assert!(floor(&mut side) > 2);
}

/// Has so many requests answered, one after the other: the last beat among what was said.
fn last_beat(side: &mut Side, count: u64) -> Item {
    let mut last = None;
    for _ in 0..count {
        let id = side.ask(&spend(), None);
        let said = side.said();
        side.answer(A, id, &yes(None));
        last = said.into_iter().rfind(|it| !matches!(it, Item::Ask(_))).or(last);
    }
    last.unwrap()
}

#[test]
fn what_waits_for_long_is_named_beside_the_floor() {
    let mut side = Side::new(1);
    for id in 1..3 {
        side.ask(&patient(3_600_000), None);
        side.said();
        side.answer(A, id, &QUEUED);
    }
    assert!(matches!(last_beat(&mut side, 1_000), Item::Beat { floor: 1, .. }));
    let Item::Open { open, .. } = last_beat(&mut side, 200) else { panic!() };
    assert_eq!(open, [1, 2]);
    side.answer(A, 1, &yes(None));
    let Item::Open { open, .. } = last_beat(&mut side, 64) else { panic!() };
    assert_eq!(open, [2]);
    side.answer(A, 2, &yes(None));
    let Item::Beat { floor, .. } = last_beat(&mut side, 64) else { panic!() };
    assert!(floor > 1_200);
}

#[test]
fn no_more_is_named_than_a_beat_may_say_and_the_floor_waits_for_the_rest() {
    let mut side = Side::new(1);
    let most = OPEN_MAX as u64;
    for id in 1..=most + 3 {
        side.ask(&patient(3_600_000), None);
        side.said();
        side.answer(A, id, &QUEUED);
    }
    let Item::Open { floor, open, .. } = last_beat(&mut side, 3_000) else { panic!() };
    assert_eq!((floor, open), (most + 1, (1..=most).collect()));
}

#[test]
fn the_numbers_of_what_is_asked_together_are_named_one_by_one() {
    let mut side = Side { hesitates: true, ..Side::new(1) };
    let all = [spend(), spend(), spend()];
    side.conversation.ask_together(side.now, &all, None);
    side.said();
    for id in 1..4 {
        side.answer(A, id, &yes(None));
    }
    side.said();
    side.hesitates = false;
    let Item::Open { open, .. } = last_beat(&mut side, 1_200) else { panic!() };
    assert_eq!(open, [1, 2, 3]);
}

proptest! {
    #[test]
    fn the_floor_never_passes_a_request_that_is_not_done_with(
        steps in prop::collection::vec((0_u8..7, any::<prop::sample::Index>()), 1..200),
    ) {
        let mut side = Side { hesitates: true, ..Side::new(1) };
        let (mut pending, mut open) = (vec![], vec![]);
        for (step, place) in steps {
            let of = |all: &mut Vec<u64>| {
                (!all.is_empty()).then(|| all.remove(place.index(all.len())))
            };
            match step {
                0 | 1 => pending.push(side.ask(&spend(), None)),
                2 | 3 => if let Some(id) = of(&mut pending) {
                    side.answer(A, id, &yes(None));
                    open.push(id);
                },
                4 => if let Some(id) = of(&mut open) {
                    side.conversation.settle(RequestId(id));
                },
                5 => if let Some(id) = of(&mut open) {
                    side.conversation.decline(side.now, RequestId(id));
                },
                _ => if let Some(id) = of(&mut pending) {
                    side.conversation.forget(side.now, RequestId(id));
                },
            }
            let least = pending.iter().chain(&open).min().copied().unwrap_or(u64::MAX);
            for floor in floors(&side.said()) {
                prop_assert!(floor <= least, "{floor} passes {least}");
            }
        }
        let least = pending.iter().chain(&open).min().copied().unwrap_or(u64::MAX);
        prop_assert!(floor(&mut side) <= least);
    }
}
