//! A machine whose service is about to end: those who wait are served, and nobody joins them.

use std::time::Duration;

use zmqlocker::answer::Answer;
use zmqlocker::engine::{Code, Hold, Input, Output, Reply, Request, Wait};

use crate::{Desk, SECOND, acquire, code, wait_for};

const TTL: u64 = 10 * SECOND;

fn hold() -> Hold {
    Hold::lease(Duration::from_nanos(TTL)).unwrap()
}

fn wait() -> Wait {
    Wait::UpTo(Duration::from_secs(60))
}

#[test]
fn who_waits_is_served_and_who_holds_may_give_it_back() {
    let mut desk = Desk::new(&[], &["1 at once"]);
    let session = desk.greet(1);
    let held = desk.lease(session, "k", TTL).unwrap();
    assert_eq!(desk.machine.permits_held(), 1);
    let waiting = desk.send(session, &acquire(&[("k", 1)], wait(), hold()));
    desk.handle(Input::Drain);
    assert_eq!(desk.granted(session, waiting), None);
    assert_eq!(desk.ask(session, &Request::Release { grant: held }), Reply::Done);
    assert_eq!(desk.granted(session, waiting), Some((desk.now, true)));
    let Some((_, Reply::Decision(decision))) = desk.answer(session, waiting) else { panic!() };
    let grant = decision.grant.unwrap();
    assert_eq!(desk.ask(session, &Request::Release { grant }), Reply::Done);
    let tally = desk.machine.tally();
    assert_eq!((tally.waiting, tally.leases, desk.machine.permits_held()), (0, 0, 0));
}

#[test]
fn nobody_begins_to_wait_or_to_hold() {
    let mut desk = Desk::new(&[("k", &["1 at once"])], &["1/60s"]);
    let session = desk.greet(1);
    desk.handle(Input::Drain);
    for wait in [Wait::No, wait()] {
        let reply = desk.ask(session, &acquire(&[("k", 1)], wait, hold()));
        assert_eq!(code(&reply), Some(Code::Closing));
    }
    assert!(desk.try_acquire(session, &[("rate", 1)]).allowed);
    assert_eq!(code(&desk.ask(session, &wait_for(&[("rate", 1)], SECOND))), Some(Code::Closing));
    let tally = desk.machine.tally();
    assert_eq!((tally.waiting, tally.leases), (0, 0));
}

#[test]
fn what_needs_no_wait_is_decided_as_ever() {
    let mut desk = Desk::new(&[], &["1/60s"]);
    let session = desk.greet(1);
    desk.handle(Input::Drain);
    // A rate is spent, under whatever name it is asked for.
    let spent = desk.ask(session, &acquire(&[("k", 1)], Wait::No, hold()));
    assert!(matches!(spent, Reply::Decision(decision) if decision.allowed));
    assert!(!desk.try_acquire(session, &[("k", 1)]).allowed);
    for (address, answer) in [(1, Answer::Go), (2, Answer::Sorry)] {
        desk.handle(Input::Next(address));
        let (_, said) = desk.heard.last().unwrap();
        assert_eq!(said, &Output::Seed { to: address, answer: Ok(answer) });
    }
}
