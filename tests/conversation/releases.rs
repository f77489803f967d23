//! Releases are owed: servers hear of them, however long that takes.

use std::time::Duration;

use zmqlocker::conversation::{Input, Outcome, Output};
use zmqlocker::engine::{Code, GrantId, Problem, Reply, Request};
use zmqlocker::wire::seed::BYTES_MAX;

use super::{A, Item, Side, items, lease, spend, yes};

/// A side that holds so many leases of this length, numbered from 1 on.
fn holder(count: u64, ttl: u64) -> Side {
    let mut side = Side::new(1);
    side.welcome(A, 1);
    for grant in 1..=count {
        let id = side.ask(&lease(ttl), None);
        side.said();
        side.answer(A, id, &yes(Some(grant)));
        side.said();
    }
    side
}

fn reconnect(side: &mut Side) -> Vec<Item> {
    side.handle(&Input::Down(A));
    side.handle(&Input::Up(A));
    side.said()
}

/// What was said, without beats.
fn without_beats(items: Vec<Item>) -> Vec<Item> {
    items.into_iter().filter(|item| !matches!(item, Item::Beat { .. })).collect()
}

fn release(id: u64, grant: u64) -> Item {
    Item::Release { id, grant }
}

#[test]
fn a_release_is_said_on_each_connection_until_it_is_answered() {
    let mut side = holder(1, 60_000);
    side.conversation.release(side.now, A, GrantId(1));
    assert_eq!(side.said(), [release(2, 1)]);
    for id in 3..5 {
        assert!(side.conversation.has_errands());
        side.advance(20_000);
        assert_eq!(without_beats(reconnect(&mut side)), [Item::Hello, release(id, 1)]);
    }
    side.answer(A, 4, &Reply::Done);
    assert!(!side.conversation.has_errands());
    assert_eq!(reconnect(&mut side), []);
}

#[test]
fn a_release_outlives_the_patience_of_its_caller() {
    for is_sent in [true, false] {
        let mut side = holder(2, 60_000);
        if !is_sent {
            side.handle(&Input::Down(A));
        }
        let request = Request::Release { grant: GrantId(1) };
        let until = Some(side.now + Duration::from_millis(500));
        side.conversation.ask(side.now, Some(&request), Some(A), until);
        assert_eq!(side.said().len(), usize::from(is_sent));
        assert_eq!(side.conversation.lease_valid_until(side.now, A, GrantId(1)), None);
        side.advance(15_000);
        assert_eq!(side.outcomes().pop(), Some((3, Outcome::Silence)));
        assert_eq!(without_beats(reconnect(&mut side)), [Item::Hello, release(4, 1)]);
    }
}

#[test]
fn a_release_whose_caller_has_gone_is_not_cancelled() {
    let mut side = holder(1, 60_000);
    let request = Request::Release { grant: GrantId(1) };
    let id = side.conversation.ask(side.now, Some(&request), Some(A), None);
    assert_eq!(side.said(), [release(2, 1)]);
    side.conversation.forget(side.now, id);
    assert_eq!(side.said(), [], "it is on its way");
    assert_eq!(without_beats(reconnect(&mut side)), [Item::Hello, release(3, 1)]);
    side.answer(A, 3, &Reply::Done);
    assert_eq!(reconnect(&mut side), []);
}

#[test]
fn what_is_asked_next_comes_behind_what_is_owed() {
    let mut side = holder(1, 60_000);
    side.handle(&Input::Down(A));
    side.conversation.release(side.now, A, GrantId(1));
    side.ask(&spend(), None);
    side.handle(&Input::Up(A));
    let said = without_beats(side.said());
    assert_eq!(said, [Item::Hello, release(3, 1), Item::Ask(2)]);
}

#[test]
fn what_has_ended_by_itself_is_owed_no_more() {
    let mut side = holder(2, 1_000);
    side.handle(&Input::Down(A));
    side.advance(500);
    for grant in 1..3 {
        side.conversation.release(side.now, A, GrantId(grant));
    }
    assert!(side.conversation.has_errands());
    // What was said last may have come a `ttl` later, and have kept it for another one.
    side.advance(2_499);
    assert!(side.conversation.has_errands());
    side.advance(1);
    assert!(!side.conversation.has_errands());
    assert_eq!((side.conversation.poll_timeout(), reconnect(&mut side)), (None, vec![]));
}

#[test]
fn a_server_that_has_forgotten_us_is_owed_nothing() {
    let mut side = holder(1, 60_000);
    side.conversation.release(side.now, A, GrantId(1));
    side.said();
    side.problem(A, Code::UnknownSession);
    assert!(!side.conversation.has_errands());
    assert_eq!(side.said(), []);
}

#[test]
fn a_problem_of_the_connection_is_no_answer_to_a_release() {
    let mut side = holder(1, 60_000);
    let request = Request::Release { grant: GrantId(1) };
    side.conversation.ask(side.now, Some(&request), Some(A), None);
    side.said();
    side.problem(A, Code::Protocol);
    let problem = Problem { code: Code::Protocol, message: "no".to_owned() };
    let outcome = Outcome::Reply(A, Reply::Refuse(problem));
    assert_eq!((side.said(), side.outcomes().pop()), (vec![], Some((2, outcome))));
    assert_eq!(without_beats(reconnect(&mut side)), [Item::Hello, release(3, 1)]);
}

#[test]
fn many_releases_are_said_in_messages_that_servers_take_and_none_is_left_out() {
    const COUNT: u64 = 10_000;
    let mut side = holder(COUNT, 60_000);
    side.handle(&Input::Down(A));
    for grant in 1..=COUNT {
        side.conversation.release(side.now, A, GrantId(grant));
    }
    side.handle(&Input::Up(A));
    let (mut grants, mut last, mut floor) = (Vec::new(), 0, COUNT);
    while let Some(output) = side.conversation.poll_output() {
        let Output::Send(_, message) = output else { continue };
        assert!(message.get(0).unwrap().len() < BYTES_MAX);
        for item in items(&message) {
            match item {
                Item::Release { id, grant } => {
                    assert!(id <= floor + 64, "the server keeps few answers");
                    last = id;
                    grants.push(grant);
                }
                Item::Beat { floor: up_to, .. } => {
                    assert!(up_to <= last + 1);
                    floor = up_to;
                }
                item => assert_eq!(item, Item::Hello),
            }
        }
    }
    grants.sort_unstable();
    assert_eq!(grants, (1..=COUNT).collect::<Vec<_>>());
    for id in 0..=last {
        side.answer(A, id, &Reply::Done);
    }
    assert!(!side.conversation.has_errands());
}
