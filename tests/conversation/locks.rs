//! Leases of locks at their holder: never safe for longer than any server keeps them.

use std::time::Duration;

use zmqlocker::asking::LinkId;
use zmqlocker::conversation::{Input, Output};
use zmqlocker::engine::{
    Code, GrantId, Key, LockRequest, Locks, Mode, Problem, Reply, Request, RequestId, Term, Wait,
};
use zmqlocker::wire::reply::encode_lost;
use zmqlocker::wire::request::{ClientItem, Items};

use super::{A, B, Item, QUEUED, Side, yes};

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn lock(ttl: u64, max_hold: Option<u64>, wait: Wait) -> Request<'static> {
    let locks = Locks::new([(Key::parse("key").unwrap(), Mode::Write)]).unwrap();
    let term = Term::new(millis(ttl), max_hold.map(millis)).unwrap();
    Request::Lock { wanted: LockRequest { locks, term, actor: 7 }, wait }
}

pub fn now(ttl: u64, max_hold: Option<u64>) -> Request<'static> {
    lock(ttl, max_hold, Wait::No)
}

/// A side that holds a lock, asked for at its start and answered 100 ms later by run 1.
fn holder(ttl: u64, max_hold: Option<u64>) -> Side {
    let mut side = Side::new(1);
    side.ask(&now(ttl, max_hold), None);
    side.said();
    side.advance(100);
    side.welcome(A, 1);
    side.answer(A, 1, &yes(Some(9)));
    side.said();
    side
}

/// For how many milliseconds from now on the lease is safe.
fn safe_for(side: &Side, grant: u64) -> Option<u128> {
    let until = side.conversation.lease_valid_until(side.now, A, GrantId(grant));
    until.map(|until| until.since(side.now).as_millis())
}

fn refusal() -> Reply {
    Reply::Refuse(Problem { code: Code::NotHeld, message: "no".to_owned() })
}

/// The connection ends, and the next one is to another run.
fn restart(side: &mut Side, run: u64) -> Vec<Item> {
    side.handle(&Input::Down(A));
    side.handle(&Input::Up(A));
    side.said();
    side.welcome(A, run);
    side.said()
}

fn lost(side: &mut Side, grants: &[u64]) {
    let grants: Vec<_> = grants.iter().copied().map(GrantId).collect();
    side.hear(A, |body| encode_lost(body, &grants));
}

/// Lets so much time pass, with each beat heard at once. When they came.
fn beats(side: &mut Side, length: u64) -> Vec<u64> {
    let (begun, until) = (side.now, side.now + millis(length));
    let mut at = Vec::new();
    while side.now < until {
        for (_, _, items) in side.advance(1) {
            let is_beat = |item: &&Item| matches!(item, Item::Beat { .. });
            let Some(Item::Beat { number, .. }) = items.iter().find(is_beat) else { continue };
            let number = *number;
            at.push(u64::try_from(side.now.since(begun).as_millis()).unwrap());
            side.heard(A, number);
        }
    }
    at
}

#[test]
fn a_lock_is_counted_from_when_it_was_asked_for_and_then_from_each_beat_that_was_heard() {
    let mut side = holder(1_000, None);
    assert_eq!(safe_for(&side, 9), Some(896));
    let said = side.advance(350);
    assert_eq!(said, [(333, A, vec![Item::Beat { number: 1, floor: 2 }])]);
    side.heard(A, 1);
    assert_eq!(safe_for(&side, 9), Some(979));
    side.advance(980);
    assert_eq!(safe_for(&side, 9), None);
}

#[test]
fn a_lock_ends_after_max_hold_whatever_is_heard() {
    let mut side = holder(1_000, Some(3_000));
    beats(&mut side, 2_000);
    assert_eq!(safe_for(&side, 9), Some(2_988 - 2_100));
    side.advance(887);
    assert_eq!(safe_for(&side, 9), Some(1));
    side.advance(1);
    assert_eq!(safe_for(&side, 9), None);
}

#[test]
fn a_lease_that_is_not_renewed_needs_no_beats_and_is_safe_from_its_first_sending() {
    let mut side = Side::new(1);
    side.ask(&now(1_000, Some(1_000)), None);
    side.said();
    side.advance(300);
    side.handle(&Input::Down(A));
    side.handle(&Input::Up(A));
    assert_eq!(side.said(), [Item::Hello, Item::Ask(1)]);
    side.answer(A, 1, &yes(Some(9)));
    // The answer may be to what was sent first, 300 ms ago.
    assert_eq!(safe_for(&side, 9), Some(696));
    assert_eq!((side.conversation.next_beat(), side.advance(5_000)), (None, vec![]));
    assert_eq!(safe_for(&side, 9), None);
}

#[test]
fn a_lease_that_is_renewed_is_counted_from_its_last_sending() {
    let mut side = Side::new(1);
    side.ask(&now(1_000, Some(1_100)), None);
    side.said();
    side.advance(300);
    side.handle(&Input::Down(A));
    side.handle(&Input::Up(A));
    side.said();
    side.answer(A, 1, &yes(Some(9)));
    // 996 ms from now, but 1095 ms from the first sending at the latest.
    assert_eq!(safe_for(&side, 9), Some(795));
}

#[test]
fn what_was_waited_for_was_not_granted_before_the_last_beat_that_was_heard() {
    let mut side = Side::new(1);
    side.ask(&lock(1_500, Some(1_500), Wait::UpTo(millis(9_000))), None);
    side.said();
    side.answer(A, 1, &QUEUED);
    side.advance(1_050);
    side.heard(A, 2);
    side.answer(A, 1, &yes(Some(9)));
    assert_eq!(safe_for(&side, 9), Some(1_444));
    // The beat of 1500 ms was not heard, so it may have come after the grant.
    let mut side = Side::new(1);
    side.ask(&lock(1_500, Some(1_500), Wait::UpTo(millis(9_000))), None);
    side.said();
    side.answer(A, 1, &QUEUED);
    side.advance(1_050);
    side.heard(A, 1);
    side.answer(A, 1, &yes(Some(9)));
    assert_eq!(safe_for(&side, 9), Some(944));
}

#[test]
fn what_waited_on_a_connection_that_is_gone_may_have_been_granted_since_its_first_sending() {
    let mut side = Side::new(1);
    side.ask(&lock(3_000, Some(3_000), Wait::UpTo(millis(9_000))), None);
    side.said();
    side.answer(A, 1, &QUEUED);
    side.advance(1_050);
    side.heard(A, 2);
    side.handle(&Input::Down(A));
    side.handle(&Input::Up(A));
    side.said();
    side.answer(A, 1, &yes(Some(9)));
    assert_eq!(safe_for(&side, 9), Some(2_988 - 1_050));
}

#[test]
fn a_lease_that_was_waited_for_is_as_fresh_as_one_that_was_renewed() {
    let mut side = Side::new(1);
    side.ask(&lock(300, None, Wait::UpTo(millis(60_000))), None);
    side.said();
    side.welcome(A, 1);
    side.answer(A, 1, &QUEUED);
    assert_eq!(beats(&mut side, 1_050), (1..=10).map(|beat| beat * 100).collect::<Vec<_>>());
    side.answer(A, 1, &yes(Some(9)));
    assert_eq!(safe_for(&side, 9), Some(248));
}

#[test]
fn beats_come_every_third_of_the_shortest_ttl_for_any_number_of_locks() {
    let mut side = Side::new(1);
    let terms = [(900, None), (300, Some(9_000)), (100, Some(100)), (600, None)];
    for ((ttl, most), id) in terms.into_iter().zip(1..) {
        side.ask(&now(ttl, most), None);
        side.said();
        side.answer(A, id, &yes(Some(id)));
        side.said();
    }
    assert_eq!(beats(&mut side, 350), [100, 200, 300]);
    side.conversation.release(side.now, A, GrantId(2));
    assert_eq!(beats(&mut side, 550), [50, 250, 450]);
    side.conversation.release(side.now, A, GrantId(4));
    side.conversation.release(side.now, A, GrantId(1));
    assert_eq!(side.conversation.next_beat(), None);
}

#[test]
fn another_run_is_asked_to_let_us_hold_on_and_until_it_has_said_so_nothing_renews_the_lease() {
    let mut side = holder(1_000, None);
    assert_eq!(restart(&mut side, 1), [], "the same run knows its leases");
    assert_eq!(restart(&mut side, 2), [Item::Reclaim { id: 2, grant: 9 }]);
    side.advance(400);
    side.heard(A, 3);
    assert_eq!(safe_for(&side, 9), Some(496));
    side.answer(A, 2, &Reply::Done);
    // From now on all counts that this run has heard.
    assert_eq!(safe_for(&side, 9), Some(929));
    assert_eq!(side.said(), []);
}

#[test]
fn a_reclaim_says_what_is_held_and_how() {
    let mut side = holder(1_000, Some(9_000));
    side.handle(&Input::Down(A));
    side.handle(&Input::Up(A));
    side.said();
    side.welcome(A, 2);
    let Some(Output::Send(_, message)) = side.conversation.poll_output() else { panic!() };
    let Request::Lock { wanted, .. } = now(1_000, Some(9_000)) else { panic!() };
    let request = Request::Reclaim { grant: GrantId(9), wanted };
    let items: Vec<_> = Items::new(message.get(0).unwrap()).collect();
    assert_eq!(items, [Ok(ClientItem::Ask { id: RequestId(2), request })]);
}

#[test]
fn a_lease_that_may_not_be_held_on_is_lost_and_given_back() {
    let mut side = holder(1_000, None);
    restart(&mut side, 2);
    side.answer(A, 2, &refusal());
    assert_eq!(safe_for(&side, 9), None);
    assert_eq!(side.said(), [Item::Release { id: 3, grant: 9 }]);
    assert_eq!(side.conversation.next_beat(), None);
}

#[test]
fn no_answer_revives_a_lease_that_has_ended_and_what_has_ended_is_not_reclaimed() {
    let mut side = holder(1_000, None);
    restart(&mut side, 2);
    side.now = side.now + millis(896);
    side.answer(A, 2, &Reply::Done);
    assert_eq!(safe_for(&side, 9), None);
    assert!(side.said().contains(&Item::Release { id: 3, grant: 9 }));
    let mut side = holder(1_000, None);
    side.handle(&Input::Down(A));
    side.now = side.now + millis(896);
    side.handle(&Input::Up(A));
    side.said();
    side.welcome(A, 2);
    assert_eq!(safe_for(&side, 9), None);
    // That run may have found it written down.
    assert_eq!(side.said(), [Item::Release { id: 2, grant: 9 }]);
}

#[test]
fn nobody_waits_for_an_answer_to_a_reclaim_when_the_lease_is_over() {
    let mut side = holder(1_000, None);
    restart(&mut side, 2);
    let said = side.advance(1_000);
    assert_eq!(safe_for(&side, 9), None);
    assert!(said.iter().any(|(at, _, items)| *at == 896 && items.contains(&Item::Cancel(2))));
    assert_eq!(side.outcomes().len(), 1, "but for the lock itself, nobody asked for anything");
    // The server hears that it is over, whatever it has made of the reclaim.
    let last = said.iter().flat_map(|(_, _, items)| items).filter_map(|item| match item {
        Item::Beat { number, .. } => Some(*number),
        _ => None,
    });
    let last = last.max().unwrap();
    side.heard(A, last);
    assert_eq!(side.said(), [Item::Release { id: 3, grant: 9 }]);
}

#[test]
fn a_third_run_is_asked_as_well_and_what_the_second_had_said_counts_no_more() {
    let mut side = holder(1_000, None);
    restart(&mut side, 2);
    side.handle(&Input::Down(A));
    side.handle(&Input::Up(A));
    let again = side.said();
    assert!(again.contains(&Item::Reclaim { id: 2, grant: 9 }));
    side.welcome(A, 3);
    side.answer(A, 2, &Reply::Done);
    side.answer(A, 3, &Reply::Done);
    assert_eq!(safe_for(&side, 9), Some(996));
    assert!(!side.said().iter().any(|item| matches!(item, Item::Release { .. })));
}

#[test]
fn a_lock_that_is_released_while_it_is_reclaimed_is_not_held() {
    let mut side = holder(1_000, None);
    restart(&mut side, 2);
    side.conversation.release(side.now, A, GrantId(9));
    side.answer(A, 2, &Reply::Done);
    assert_eq!(safe_for(&side, 9), None);
    let release = Item::Release { id: 3, grant: 9 };
    assert_eq!(side.said(), [Item::Cancel(2), release]);
    // On the next connection the reclaim is not said again, behind the release.
    assert_eq!(restart(&mut side, 3), []);
}

#[test]
fn a_run_that_may_have_let_us_hold_on_what_is_over_by_now_is_told_so() {
    let mut side = holder(1_000, None);
    restart(&mut side, 2);
    // What was said on that connection comes late, and no answer comes.
    side.handle(&Input::Down(A));
    side.handle(&Input::Up(A));
    assert!(side.said().contains(&Item::Reclaim { id: 2, grant: 9 }));
    side.advance(1_000);
    side.said();
    side.welcome(A, 3);
    assert_eq!(side.said(), [Item::Release { id: 3, grant: 9 }]);
}

#[test]
fn max_hold_is_counted_from_the_first_run() {
    let mut side = holder(1_000, Some(1_500));
    restart(&mut side, 2);
    beats(&mut side, 700);
    side.answer(A, 2, &Reply::Done);
    assert_eq!(safe_for(&side, 9), Some(1_494 - 800));
    beats(&mut side, 400);
    assert_eq!(safe_for(&side, 9), Some(1_494 - 1_200));
}

#[test]
fn a_lease_that_was_taken_away_is_over_at_once_and_given_back() {
    let mut side = Side::new(2);
    let link = |side: &Side, link: LinkId, grant| {
        side.conversation.lease_valid_until(side.now, link, GrantId(grant)).is_some()
    };
    for (to, id) in [(A, 1), (B, 2), (A, 3)] {
        let request = now(1_000, None);
        side.conversation.ask(side.now, Some(&request), Some(to), None);
        side.drain();
        side.answer(to, id, &yes(Some(if to == A { 8 + id } else { 9 })));
        side.drain();
    }
    assert!(link(&side, A, 9) && link(&side, B, 9) && link(&side, A, 11));
    lost(&mut side, &[9]);
    assert!(!link(&side, A, 9) && link(&side, B, 9) && link(&side, A, 11));
    assert_eq!(side.drain(), [(A, vec![Item::Release { id: 4, grant: 9 }])]);
}
