//! One run after another: who held goes on to hold, and nobody else gets it meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use zmqlocker::engine::{
    Bounds, ClientInfo, Code, GrantId, Input, Mode, Output, Reply, Request, SessionId, Term,
};
use zmqlocker::time::Timestamp;

use crate::locks::{M, READ, WRITE, lock, permits, term, until_end, wanted};
use crate::{Desk, SECOND, START, code};

/// How long a run lets earlier holders come back.
const GRACE: u64 = SECOND + SECOND * 4 / 1000;

/// A run whose grants have numbers above 100, and that knows all that was granted, or does not.
fn run<const N: usize>(all_is_known: bool) -> (Desk, [SessionId; N]) {
    let mut desk = Desk::new(&[], &[]);
    desk.machine.number_grants_above(GrantId(100));
    desk.machine.begin_locks(Timestamp::from_nanos(desk.now), all_is_known);
    let sessions = std::array::from_fn(|place| desk.greet(u8::try_from(place).unwrap()));
    (desk, sessions)
}

fn reclaim(desk: &mut Desk, session: SessionId, grant: u64, parts: &[(&str, Mode)]) -> Reply {
    let wanted = wanted(parts, term(SECOND), 0);
    desk.ask(session, &Request::Reclaim { grant: GrantId(grant), wanted })
}

#[test]
fn who_held_may_hold_on_and_nobody_else_is_granted_anything_in_the_grace() {
    let (mut desk, all @ [holder, other]) = run(false);
    let waiter = desk.wait(other, 0, &[("free", M)]);
    desk.live(&all, GRACE / 2);
    assert_eq!(desk.take(other, 0, &[("k", M)]), None);
    assert_eq!(reclaim(&mut desk, holder, 7, &[("k", M)]), Reply::Done);
    assert_eq!(reclaim(&mut desk, holder, 7, &[("k", M)]), Reply::Done, "twice is once");
    let next = desk.wait(other, 0, &[("k", M)]);
    desk.live(&all, SECOND);
    assert_eq!(desk.granted(other, waiter), Some((START + GRACE, true)));
    assert_eq!(desk.answer(other, next), None);
    assert_eq!(desk.release(holder, GrantId(7)), None);
    assert!(desk.token(other, next).is_some_and(|token| token > GrantId(100)));
    assert_eq!(desk.release(holder, GrantId(7)), Some(Code::NotHeld));
}

#[test]
fn a_lease_that_was_reclaimed_is_renewed_and_ends_as_any_other() {
    let (mut desk, [holder, other]) = run(false);
    reclaim(&mut desk, holder, 7, &[("k", M)]);
    let waiter = desk.wait(other, 0, &[("k", M)]);
    desk.live(&[holder, other], 2 * SECOND);
    assert_eq!(desk.answer(other, waiter), None);
    let heard = desk.now;
    desk.live(&[other], 2 * SECOND);
    assert_eq!(desk.granted(other, waiter), Some((heard + GRACE, true)));
}

#[test]
fn what_conflicts_with_what_is_held_is_refused_and_what_does_not_is_not() {
    let (mut desk, [one, two]) = run(false);
    let semaphore = |cost| permits(3, cost);
    for (session, grant, key, mode, expected) in [
        (one, 1, "m", M, None),
        (two, 2, "m", M, Some(Code::NotHeld)),
        (two, 1, "m", M, Some(Code::NotHeld)),
        (two, 3, "m", READ, Some(Code::KindMismatch)),
        (one, 4, "r", READ, None),
        (two, 5, "r", READ, None),
        (two, 6, "r", WRITE, Some(Code::NotHeld)),
        (one, 8, "s", semaphore(2), None),
        (two, 9, "s", semaphore(2), Some(Code::NotHeld)),
        (two, 10, "s", semaphore(1), None),
    ] {
        assert_eq!(code(&reclaim(&mut desk, session, grant, &[(key, mode)])), expected, "{grant}");
    }
    let both = [("free", M), ("m", M)];
    assert_eq!(code(&reclaim(&mut desk, two, 11, &both)), Some(Code::NotHeld));
    assert_eq!(reclaim(&mut desk, two, 12, &[("free", M)]), Reply::Done, "all or nothing");
}

#[test]
fn what_this_run_has_granted_or_may_still_grant_cannot_be_reclaimed() {
    let (mut desk, [one]) = run(true);
    let grant = desk.take(one, 0, &[("k", M)]).unwrap();
    assert_eq!(grant, GrantId(101));
    for number in [101, 102, u64::MAX] {
        let reply = reclaim(&mut desk, one, number, &[("k", M)]);
        assert_eq!(code(&reply), Some(Code::NotHeld), "{number}");
    }
}

#[test]
fn after_the_grace_nothing_is_reclaimed() {
    let (mut desk, [one]) = run(false);
    desk.advance(GRACE - 1);
    assert_eq!(reclaim(&mut desk, one, 7, &[("k", M)]), Reply::Done);
    desk.advance(1);
    assert_eq!(code(&reclaim(&mut desk, one, 8, &[("l", M)])), Some(Code::NotHeld));
    let mut never = Desk::new(&[], &[]);
    let session = never.greet(1);
    assert_eq!(code(&reclaim(&mut never, session, 0, &[("k", M)])), Some(Code::NotHeld));
}

#[test]
fn a_run_that_knows_all_grants_at_once() {
    let (mut desk, [one, two]) = run(true);
    assert!(desk.take(one, 0, &[("k", M)]).is_some());
    assert_eq!(code(&reclaim(&mut desk, two, 7, &[("k", M)])), Some(Code::NotHeld));
}

#[test]
fn what_others_have_had_in_this_run_is_not_reclaimed_under_an_older_token() {
    let four = [("m", M, M), ("w", WRITE, READ), ("r", READ, WRITE)];
    for (key, newer, older) in four.into_iter().chain([("s", permits(3, 2), permits(3, 2))]) {
        let (mut desk, [one, two]) = run(true);
        let grant = desk.take(one, 0, &[(key, newer)]).unwrap();
        desk.release(one, grant);
        // Others are in use meanwhile, and what is idle is forgotten for them.
        for number in 0..50 {
            let other = desk.take(one, 0, &[(&*format!("other {number}"), M)]).unwrap();
            desk.release(one, other);
        }
        let reply = reclaim(&mut desk, two, 5, &[("free", M), (key, older)]);
        assert_eq!(code(&reply), Some(Code::NotHeld), "{key}");
        assert_eq!(reclaim(&mut desk, two, 5, &[("free", M)]), Reply::Done, "all or nothing");
    }
}

#[test]
fn what_another_kind_of_lock_has_had_since_is_not_reclaimed() {
    let (mut desk, [one, two]) = run(true);
    let kinds = [M, READ, permits(3, 1)];
    for newer in kinds {
        for older in kinds.into_iter().filter(|older| *older != newer) {
            let key = &*format!("{newer:?} {older:?}");
            let grant = desk.take(one, 0, &[(key, newer)]).unwrap();
            desk.release(one, grant);
            // Idle keys are forgotten for others, and with them what kind of lock they are.
            for number in 0..50 {
                let other = desk.take(one, 0, &[(&*format!("other {number}"), M)]).unwrap();
                desk.release(one, other);
            }
            let reply = reclaim(&mut desk, two, 5, &[(key, older)]);
            assert!(matches!(code(&reply), Some(Code::NotHeld | Code::KindMismatch)), "{reply:?}");
        }
    }
}

#[test]
fn a_run_that_cannot_remember_what_it_has_granted_lets_nothing_be_reclaimed() {
    for (taken, expected) in [(2, None), (4, Some(Code::NotHeld))] {
        let bounds = Bounds { keys_max: 3, ..Bounds::default() };
        let mut desk = Desk::bounded(&[], &[], bounds);
        desk.machine.number_grants_above(GrantId(100));
        desk.machine.begin_locks(Timestamp::from_nanos(desk.now), true);
        let [one, two] = [desk.greet(1), desk.greet(2)];
        for key in &["a", "b", "c", "d"][..taken] {
            let grant = desk.take(one, 0, &[(key, M)]).unwrap();
            desk.release(one, grant);
        }
        assert_eq!(code(&reclaim(&mut desk, two, 5, &[("free", M)])), expected);
    }
}

#[test]
fn what_others_have_had_beside_it_may_still_be_reclaimed() {
    for (key, newer, older) in [("r", READ, READ), ("s", permits(3, 1), permits(3, 2))] {
        let (mut desk, [one, two]) = run(true);
        let grant = desk.take(one, 0, &[(key, newer)]).unwrap();
        desk.release(one, grant);
        assert_eq!(reclaim(&mut desk, two, 5, &[(key, older)]), Reply::Done, "{key}");
    }
}

#[test]
fn a_lock_that_was_broken_in_this_run_is_not_reclaimed_by_its_former_holder() {
    let (mut desk, [holder, operator]) = run(false);
    assert_eq!(reclaim(&mut desk, holder, 7, &[("k", M)]), Reply::Done);
    desk.ask(operator, &Request::Break { key: crate::key("k"), grant: None });
    assert_eq!(code(&reclaim(&mut desk, holder, 7, &[("k", M)])), Some(Code::NotHeld));
}

#[test]
fn a_reclaim_that_is_repeated_after_its_lease_was_taken_is_refused() {
    let (mut desk, [holder, operator]) = run(false);
    let wanted = wanted(&[("k", M)], term(SECOND), 0);
    let request = Request::Reclaim { grant: GrantId(7), wanted };
    let id = desk.send(holder, &request);
    desk.ask(operator, &Request::Break { key: crate::key("k"), grant: None });
    desk.advance(GRACE);
    desk.handle(Input::Ask(holder, id, &request));
    let (at, reply) = desk.answer(holder, id).unwrap();
    assert_eq!((at, code(reply)), (desk.now, Some(Code::NotHeld)));
}

/// What a machine says from one place on that has to be written, and what waits for it.
fn written(desk: &Desk, from: usize) -> Vec<String> {
    let line = |(_, output): &(u64, Output<usize>)| match output {
        Output::Lease { number, grant, record } => {
            format!("{number}: lease {} {}", grant.0, if record.is_some() { "is" } else { "over" })
        }
        Output::Numbers { number, up_to } => format!("{number}: numbers to {}", up_to.0),
        Output::Await { number } => format!("await {number}"),
        Output::Reply { reply: Reply::Done, .. } => "done".to_owned(),
        Output::Reply { reply: Reply::Queued { .. }, .. } => "queued".to_owned(),
        Output::Reply { reply, .. } => format!("grant {:?}", reply.grant().map(|it| it.0)),
        other => panic!("{other:?}"),
    };
    desk.heard[from..].iter().map(line).collect()
}

#[test]
fn a_lease_of_more_than_a_second_is_written_before_it_is_told_and_its_end_as_well() {
    let mut desk = Desk::new(&[], &["1 at once"]);
    desk.machine.make_durable();
    let [one, two] = [1, 2].map(|name| desk.greet(name));
    let short = desk.ask(one, &lock(&[("s", M)], None, term(SECOND), 0)).grant().unwrap();
    desk.release(one, short);
    desk.lease(one, "permit", 9 * SECOND).unwrap();
    assert_eq!(written(&desk, 0), ["grant Some(1)", "done", "grant Some(2)"]);
    let grant = desk.take(one, 0, &[("k", M)]).unwrap();
    desk.wait(two, 0, &[("k", M)]);
    desk.release(one, grant);
    let expected = [
        "1: lease 3 is",
        "await 1",
        "grant Some(3)",
        "queued",
        "2: lease 3 over",
        "await 2",
        "3: lease 4 is",
        "await 3",
        "grant Some(4)",
        "done",
    ];
    assert_eq!(written(&desk, 3), expected);
}

#[test]
fn numbers_are_laid_in_before_the_first_of_them_is_told() {
    let mut desk = Desk::new(&[], &[]);
    let GrantId(up_to) = desk.machine.make_durable();
    desk.machine.number_grants_above(GrantId(up_to - 1));
    let session = desk.greet(1);
    for key in ["a", "b", "c"] {
        desk.ask(session, &lock(&[(key, M)], None, term(SECOND), 0));
    }
    let laid_in = format!("1: numbers to {}", up_to + 1 + (1 << 32));
    let grants = [0, 1, 2].map(|more| format!("grant Some({})", up_to + more));
    let expected = [grants[0].as_str(), &laid_in, "await 1", &grants[1], &grants[2]];
    assert_eq!(written(&desk, 0), expected);
}

/// The leases that are on the disk after all that a machine has said.
fn disk(desk: &Desk) -> BTreeMap<GrantId, Vec<u8>> {
    let mut leases = BTreeMap::new();
    for (_, output) in &desk.heard {
        if let Output::Lease { grant, record, .. } = output {
            match record {
                Some(record) => leases.insert(*grant, record.clone()),
                None => leases.remove(grant),
            };
        }
    }
    leases
}

/// A run that follows another one, on the same clock or a fresh one.
fn follow(before: &Desk, same_clock: bool) -> Desk {
    let mut desk = Desk::new(&[], &[]);
    desk.now = if same_clock { before.now } else { SECOND };
    // Its clients go on to number their requests.
    desk.last_request = before.last_request;
    let now = Timestamp::from_nanos(desk.now);
    desk.machine.number_grants_above(GrantId(100));
    desk.machine.make_durable();
    desk.machine.begin_locks(now, true);
    for (grant, record) in disk(before) {
        assert!(desk.machine.restore_lease(now, same_clock, grant, &record));
        assert_eq!(desk.machine.poll_output(), None, "it is on the disk already");
    }
    desk
}

fn long(max_hold: Option<u64>) -> Term {
    Term::new(Duration::from_secs(5), max_hold.map(Duration::from_secs)).unwrap()
}

/// A run in which the session 1 holds three locks: two of one lease, and a place of a semaphore.
fn first_run(max_hold: Option<u64>) -> Desk {
    let mut desk = Desk::new(&[], &[]);
    desk.machine.make_durable();
    let client = ClientInfo { name: "worker".into(), host: "db1".into(), pid: 4711 };
    let now = Timestamp::from_nanos(desk.now);
    let (holder, _) = desk.machine.greet(now, [1; 16], client).unwrap();
    desk.ask(holder, &lock(&[("a", M), ("b", WRITE)], None, long(max_hold), 3));
    desk.ask(holder, &lock(&[("s", permits(3, 2))], None, long(max_hold), 3));
    desk
}

#[test]
fn what_was_written_is_held_by_its_holder_and_ends_by_itself_if_it_does_not_come_back() {
    for same_clock in [true, false] {
        let mut desk = follow(&first_run(None), same_clock);
        let begun = desk.now;
        let [holder, other] = [desk.greet(1), desk.greet(2)];
        let client = desk.machine.client(holder).unwrap();
        assert_eq!((&*client.name, client.pid), ("worker", 4711));
        let seen: Vec<_> =
            desk.rows(other).into_iter().map(|row| (row.key, row.mode, row.grant)).collect();
        let expected = [("a", M, 1), ("b", WRITE, 1), ("s", permits(3, 2), 2)];
        assert_eq!(seen, expected.map(|(key, mode, id)| (key.into(), mode, Some(GrantId(id)))));
        let waiter = desk.wait(other, 0, &[("a", M)]);
        // That its holder is heard does not keep what it has not claimed.
        desk.live(&[holder, other], 6 * SECOND);
        let end = begun + until_end(Duration::from_secs(5));
        assert_eq!(desk.granted(other, waiter), Some((end, true)));
        assert!(disk(&desk).keys().all(|grant| *grant > GrantId(100)));
        assert_eq!(code(&reclaim(&mut desk, holder, 1, &[("a", M)])), Some(Code::NotHeld));
    }
}

#[test]
fn what_was_written_may_be_claimed_as_long_as_it_lasts_and_by_its_holder_alone() {
    let mut desk = follow(&first_run(None), true);
    let [holder, other] = [desk.greet(1), desk.greet(2)];
    desk.live(&[holder, other], 4 * SECOND);
    assert_eq!(code(&reclaim(&mut desk, other, 1, &[("a", M)])), Some(Code::NotHeld));
    assert_eq!(reclaim(&mut desk, holder, 1, &[("a", M), ("b", WRITE)]), Reply::Done);
    let waiter = desk.wait(other, 0, &[("b", READ)]);
    desk.live(&[holder, other], 9 * SECOND);
    assert_eq!(desk.answer(other, waiter), None);
    assert_eq!(desk.release(holder, GrantId(1)), None);
    assert!(desk.token(other, waiter).is_some());
    assert_eq!(desk.release(holder, GrantId(2)), Some(Code::NotHeld), "it was not claimed");
}

#[test]
fn what_was_written_is_released_without_a_claim_and_by_a_bye() {
    for bye in [true, false] {
        let mut desk = follow(&first_run(None), true);
        let [holder, other] = [desk.greet(1), desk.greet(2)];
        if bye {
            desk.handle(Input::Bye(holder));
        } else {
            assert_eq!(desk.release(holder, GrantId(1)), None);
        }
        assert!(desk.take(other, 0, &[("a", M), ("b", READ)]).is_some());
    }
}

#[test]
fn max_hold_goes_on_over_a_restart_and_is_never_shorter_than_its_holder_counts() {
    for (same_clock, left) in [(true, until_end(Duration::from_secs(6)) - 2 * SECOND), (false, 0)] {
        let mut before = first_run(Some(6));
        before.skip(2 * SECOND);
        let mut desk = follow(&before, same_clock);
        let begun = desk.now;
        let [holder, other] = [desk.greet(1), desk.greet(2)];
        assert_eq!(reclaim(&mut desk, holder, 1, &[("a", M), ("b", WRITE)]), Reply::Done);
        let waiter = desk.wait(other, 0, &[("a", M)]);
        desk.live(&[holder, other], 7 * SECOND);
        // Another clock does not tell how much of it is over.
        let left = if same_clock { left } else { until_end(Duration::from_secs(6)) };
        assert_eq!(desk.granted(other, waiter), Some((begun + left, true)));
    }
}

#[test]
fn a_run_that_hands_over_writes_short_leases_too() {
    let mut desk = Desk::new(&[], &["1 at once"]);
    desk.machine.make_durable();
    let session = desk.greet(1);
    desk.ask(session, &lock(&[("k", M)], None, term(SECOND / 2), 0));
    desk.lease(session, "permit", SECOND).unwrap();
    assert!(disk(&desk).is_empty());
    assert!(desk.machine.hand_over(Timestamp::from_nanos(desk.now)));
    while let Some(output) = desk.machine.poll_output() {
        desk.heard.push((desk.now, output));
    }
    let mut next = follow(&desk, true);
    let [holder, other] = [next.greet(1), next.greet(2)];
    assert_eq!(next.take(other, 0, &[("k", M)]), None);
    assert_eq!(next.rows(other).len(), 1, "permits are not handed over");
    assert_eq!(reclaim(&mut next, holder, 1, &[("k", M)]), Reply::Done);
}

#[test]
fn what_is_no_record_is_not_taken_up() {
    let mut desk = Desk::new(&[], &[]);
    let now = Timestamp::from_nanos(desk.now);
    assert!(!desk.machine.restore_lease(now, true, GrantId(1), b"\x01rubbish"));
    let session = desk.greet(1);
    assert!(desk.rows(session).is_empty());
}
