//! Servers that do not let a client in: who hears of it, and when.

use super::{A, B, Item, Side, patient, spend, yes};
use zmqlocker::conversation::{Input, Outcome};
use zmqlocker::engine::Request;

/// A client of so many links, all of them down.
fn down(links: usize) -> Side {
    let mut side = Side::new(links);
    for link in [A, B].into_iter().take(links) {
        side.handle(&Input::Down(link));
    }
    side
}

#[test]
fn who_is_not_let_in_hears_it_long_before_its_time_is_up() {
    let mut side = down(1);
    side.ask(&spend(), Some(10_000));
    side.ask(&patient(10_000), None);
    side.handle(&Input::Denied(A));
    assert_eq!(side.said(), []);
    assert_eq!(side.outcomes(), [(1, Outcome::Denied(A)), (2, Outcome::Denied(A))]);
    assert!(side.conversation.is_idle());
    assert_eq!(side.conversation.poll_timeout(), None);
}

#[test]
fn who_asks_later_waits_for_another_attempt() {
    let mut side = down(1);
    side.handle(&Input::Denied(A));
    side.ask(&spend(), None);
    side.ask(&spend(), None);
    assert_eq!(side.said(), []);
    assert_eq!(side.outcomes(), []);
    side.handle(&Input::Up(A));
    assert_eq!(side.said(), [Item::Hello, Item::Ask(1), Item::Ask(2)]);
    side.answer(A, 1, &yes(None));
    side.said();
    assert_eq!(side.outcomes(), [(1, Outcome::Reply(A, yes(None)))]);
    side.handle(&Input::Down(A));
    side.handle(&Input::Denied(A));
    side.said();
    assert_eq!(side.outcomes(), [(2, Outcome::Denied(A))]);
}

#[test]
fn a_server_that_may_still_let_the_client_in_is_waited_for() {
    let mut side = down(2);
    side.ask(&spend(), None);
    side.handle(&Input::Denied(A));
    side.said();
    assert_eq!(side.outcomes(), []);
    side.handle(&Input::Up(B));
    assert_eq!(side.drain(), [(B, vec![Item::Hello, Item::Ask(1)])]);
    side.handle(&Input::Denied(A));
    side.handle(&Input::Down(B));
    side.handle(&Input::Up(A));
    side.handle(&Input::Down(A));
    // What was once denied has let it in since.
    side.handle(&Input::Denied(B));
    side.said();
    assert_eq!(side.outcomes(), []);
    side.handle(&Input::Denied(A));
    side.said();
    assert_eq!(side.outcomes(), [(1, Outcome::Denied(A))]);
}

#[test]
fn what_one_server_alone_can_do_ends_when_that_one_denies() {
    let mut side = down(2);
    let release = Request::Release { grant: zmqlocker::engine::GrantId(7) };
    side.conversation.ask(side.now, Some(&release), Some(B), None);
    side.handle(&Input::Denied(A));
    side.said();
    assert_eq!(side.outcomes(), []);
    assert!(side.conversation.has_errands());
    side.handle(&Input::Denied(B));
    side.said();
    assert_eq!(side.outcomes(), [(1, Outcome::Denied(B))]);
    assert!(!side.conversation.has_errands());
}
