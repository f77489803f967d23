//! Partitions of the keys that come and go: no permit twice, no lock with two holders, and whoever
//! waits is told.

use std::collections::BTreeSet;
use std::time::Duration;

use zmqlocker::cluster::{Epoch, Partition};
use zmqlocker::engine::{
    Code, Gain, GrantId, Hold, Input, Mode, Output, Reply, Request, RequestId, SessionId, Wait,
};
use zmqlocker::time::Timestamp;

use crate::locks::{M, lock, term, until_end, wanted};
use crate::{Desk, SECOND, START, acquire, code, key, set_limits, wait_for};

const FOREVER: u64 = START + 1_000_000 * SECOND;

fn at(nanos: u64) -> Timestamp {
    Timestamp::from_nanos(nanos)
}

fn of(name: &str) -> Partition {
    Partition::of(key(name))
}

/// A machine that shares its keys and lives, but is home of nothing.
fn member(keys: &[(&str, &[&str])], others: &[&str]) -> Desk {
    let mut desk = Desk::new(keys, others);
    desk.machine.share_keys(at(desk.now));
    desk.machine.stay_alive(at(desk.now), at(FOREVER));
    desk.drain();
    desk
}

/// One that is home of the partition of a key.
fn home(others: &[&str], name: &str, epoch: u32) -> Desk {
    let mut desk = member(&[], others);
    desk.gain(name, epoch, Gain::Fresh);
    desk
}

impl Desk {
    fn gain(&mut self, name: &str, epoch: u32, gain: Gain<'_>) -> bool {
        let (now, or_from) = (at(self.now), at(self.now + SECOND));
        let is_known = self.machine.gain(now, (of(name), Epoch(epoch)), gain, or_from);
        self.drain();
        is_known
    }

    /// What the next home of a key has to know. It is not this one any more.
    fn leave(&mut self, name: &str) -> Vec<u8> {
        let (now, partitions) = (at(self.now), BTreeSet::from([of(name)]));
        let bytes = self.machine.export(now, &partitions).remove(&of(name)).unwrap();
        self.machine.evict(now, &partitions);
        self.drain();
        bytes
    }

    fn moved(&self) -> Vec<GrantId> {
        let moved = self.heard.iter().rev().find_map(|(_, output)| match output {
            Output::Moved { grants, .. } => Some(grants.clone()),
            _ => None,
        });
        moved.unwrap_or_default()
    }

    fn lock(&mut self, session: SessionId, name: &str, ttl: u64) -> Option<GrantId> {
        match self.ask(session, &lock(&[(name, M)], None, term(ttl), 0)) {
            Reply::Decision(decision) => decision.grant,
            other => panic!("{other:?}"),
        }
    }
}

fn reclaim(desk: &mut Desk, session: SessionId, grant: GrantId, name: &str) -> Reply {
    let wanted = wanted(&[(name, Mode::Exclusive)], term(9 * SECOND), 0);
    desk.ask(session, &Request::Reclaim { grant, wanted })
}

#[test]
fn what_is_used_goes_with_its_key_for_every_algorithm() {
    for limit in ["5/s", "5/s sliding", "5/s gcra burst 5", "5/100ms", "5/min"] {
        let mut old = home(&[limit], "k", 1);
        let asker = old.greet(1);
        assert!((0..3).all(|_| old.try_acquire(asker, &[("k", 1)]).allowed), "{limit}");
        let bytes = old.leave("k");
        let mut new = member(&[], &[limit]);
        assert!(new.gain("k", 2, Gain::Handed(&bytes)));
        let asker = new.greet(1);
        let allowed = (0..5).filter(|_| new.try_acquire(asker, &[("k", 1)]).allowed).count();
        assert_eq!(allowed, 2, "{limit}");
    }
}

#[test]
fn what_a_dead_home_may_have_granted_counts_as_granted() {
    for (limit, first_at) in [
        ("5/s", SECOND + 1),
        // Permits that it may have lent can be spent for a tenth more, and count on from then.
        ("5/s sliding", (SECOND + SECOND / 10) * 1_008 / 1_000 + 1),
        ("5/s gcra burst 5", SECOND / 5 + SECOND / 10 * 1_008 / 1_000),
    ] {
        let mut desk = member(&[], &[limit]);
        let from = at(desk.now + SECOND / 2);
        desk.gain("k", 1, Gain::Taken(from));
        let taken_at = desk.now;
        let asker = desk.greet(1);
        // The key is seen for the first time long after.
        desk.advance(SECOND / 10);
        let refused = desk.try_acquire(asker, &[("k", 1)]);
        assert!(!refused.allowed, "{limit}");
        let retry_at = desk.now + u64::try_from(refused.retry_after.unwrap().as_nanos()).unwrap();
        assert!(retry_at <= taken_at + first_at, "{limit}: {}", retry_at - taken_at);
        assert!(retry_at + SECOND / 100 >= taken_at + first_at, "{limit}");
        desk.advance_to(retry_at);
        assert!(desk.try_acquire(asker, &[("k", 1)]).allowed, "{limit}");
    }
}

#[test]
fn what_a_dead_home_may_have_granted_counts_at_every_home_to_come() {
    let mut desk = member(&[], &["5/10s"]);
    desk.gain("k", 2, Gain::Taken(at(desk.now + SECOND)));
    for epoch in 3..6 {
        // Nobody has asked for the key since.
        desk.advance(SECOND);
        let (bytes, now) = (desk.leave("k"), desk.now);
        desk = member(&[], &["5/10s"]);
        desk.advance_to(now);
        assert!(desk.gain("k", epoch, Gain::Handed(&bytes)));
    }
    let asker = desk.greet(1);
    assert!(!desk.try_acquire(asker, &[("k", 1)]).allowed);
    desk.advance(8 * SECOND);
    assert!(desk.try_acquire(asker, &[("k", 1)]).allowed);
}

#[test]
fn of_a_dead_home_what_is_held_can_only_be_reclaimed_until_the_grace_ends() {
    let mut desk = member(&[("gpu", &["1 at once"])], &[]);
    let from = desk.now + SECOND;
    desk.gain("k", 7, Gain::Taken(at(from)));
    desk.gain("gpu", 7, Gain::Taken(at(from)));
    let all @ [holder, other] = [1, 2].map(|name| desk.greet(name));
    let waiter = desk.send(other, &lock(&[("k", M)], Some(9 * SECOND), term(SECOND), 0));
    let hold = Hold::lease(Duration::from_secs(1)).unwrap();
    let wait = Wait::UpTo(Duration::from_secs(9));
    let permit = desk.send(other, &acquire(&[("gpu", 1)], wait, hold));
    assert_eq!(reclaim(&mut desk, holder, GrantId(3), "k"), Reply::Done);
    desk.live(&all, 2 * SECOND);
    assert_eq!(desk.granted(other, permit), Some((from, true)));
    assert_eq!(desk.answer(other, waiter), None);
    assert_eq!(desk.release(holder, GrantId(3)), None);
    assert!(desk.token(other, waiter).is_some_and(|token| token > GrantId(7 << 32)));
    assert_eq!(code(&reclaim(&mut desk, holder, GrantId(4), "k")), Some(Code::NotHeld));
}

#[test]
fn the_grace_of_one_partition_is_none_for_the_others() {
    let mut desk = home(&[], "free", 1);
    desk.gain("k", 2, Gain::Taken(at(START + SECOND)));
    assert_ne!(of("free"), of("k"));
    let one = desk.greet(1);
    assert!(desk.lock(one, "free", SECOND).is_some());
    assert_eq!(desk.lock(one, "k", SECOND), None);
    assert_eq!(code(&reclaim(&mut desk, one, GrantId(1), "free")), Some(Code::NotHeld));
}

#[test]
fn a_lease_goes_with_its_key_and_its_holder_claims_it_where_it_is() {
    let mut old = home(&[], "k", 1);
    let holder = old.greet(1);
    let grant = old.lock(holder, "k", 9 * SECOND).unwrap();
    let bytes = old.leave("k");
    assert_eq!(old.moved(), [grant]);
    // It is told again with each beat, until it says that it knows.
    old.heard.clear();
    old.handle(Input::Beat(holder, RequestId(0), &[]));
    assert_eq!(old.moved(), [grant]);
    assert!(old.machine.has_moved(holder, grant));
    old.machine.know_moved(holder, &[grant]);
    assert!(!old.machine.has_moved(holder, grant));
    old.heard.clear();
    old.handle(Input::Beat(holder, RequestId(0), &[]));
    assert_eq!(old.moved(), []);

    let mut new = member(&[], &[]);
    assert!(new.gain("k", 2, Gain::Handed(&bytes)));
    let [holder, other] = [1, 2].map(|name| new.greet(name));
    assert_eq!(new.lock(other, "k", SECOND), None);
    assert_eq!(code(&reclaim(&mut new, other, grant, "k")), Some(Code::NotHeld));
    assert_eq!(reclaim(&mut new, holder, grant, "k"), Reply::Done);
    new.live(&[holder, other], 20 * SECOND);
    assert_eq!(new.lock(other, "k", SECOND), None);
    assert_eq!(new.release(holder, grant), None);
    let next = new.lock(other, "k", SECOND).unwrap();
    assert!(next > grant && next > GrantId(2 << 32));
}

#[test]
fn a_lease_that_nobody_claims_ends_by_itself() {
    let mut old = home(&[], "k", 1);
    let holder = old.greet(1);
    old.lock(holder, "k", 9 * SECOND).unwrap();
    let bytes = old.leave("k");
    let mut new = member(&[], &[]);
    assert!(new.gain("k", 2, Gain::Handed(&bytes)));
    let other = new.greet(2);
    let waiter = new.wait(other, 0, &[("k", M)]);
    new.live(&[other], 10 * SECOND);
    let end = START + until_end(Duration::from_secs(9));
    assert_eq!(new.granted(other, waiter), Some((end, true)));
}

#[test]
fn a_permit_that_is_held_keeps_others_out_at_the_next_home_until_it_is_over() {
    let mut old = home(&["1 at once"], "k", 1);
    let holder = old.greet(1);
    old.lease(holder, "k", SECOND).unwrap();
    let bytes = old.leave("k");
    let mut new = member(&[], &["1 at once"]);
    assert!(new.gain("k", 2, Gain::Handed(&bytes)));
    let other = new.greet(2);
    assert_eq!(new.lease(other, "k", SECOND), None);
    new.advance(until_end(Duration::from_secs(1)));
    assert!(new.lease(other, "k", SECOND).is_some());
}

/// Permits of a limit are told of as those of a semaphore.
fn reclaim_permits(desk: &mut Desk, session: SessionId, grant: GrantId, permits: u64) -> Reply {
    let mode = Mode::of_limit(permits).unwrap();
    let wanted = wanted(&[("k", mode)], term(9 * SECOND), 0);
    desk.ask(session, &Request::Reclaim { grant, wanted })
}

#[test]
fn a_permit_goes_with_its_key_and_its_holder_claims_it_where_it_is() {
    let mut old = home(&["2 at once", "5/s"], "k", 1);
    let holder = old.greet(1);
    let grant = old.lease(holder, "k", 9 * SECOND).unwrap();
    let bytes = old.leave("k");
    assert_eq!(old.moved(), [grant]);
    let mut new = member(&[], &["2 at once", "5/s"]);
    assert!(new.gain("k", 2, Gain::Handed(&bytes)));
    let (holder, other) = (new.greet(1), new.greet(2));
    // What it asked for first it asks for once: that answer has come along.
    new.ask(holder, &Request::Status);
    assert_eq!(reclaim_permits(&mut new, holder, grant, 1), Reply::Done);
    assert_eq!(code(&reclaim_permits(&mut new, other, grant, 1)), Some(Code::NotHeld));
    // One is left of two, and four of the five in a second.
    assert!(new.lease(other, "k", SECOND).is_some());
    assert_eq!(new.lease(other, "k", SECOND), None);
    assert_eq!(new.ask(holder, &Request::Release { grant }), Reply::Done);
    assert!(new.lease(other, "k", SECOND).is_some());
}

#[test]
fn permits_of_a_dead_home_are_reclaimed_in_the_grace_as_many_as_there_are() {
    let mut desk = member(&[], &["3 at once"]);
    desk.gain("k", 2, Gain::Taken(at(desk.now + SECOND)));
    let (one, other) = (desk.greet(1), desk.greet(2));
    let grant = |number: u64| GrantId((1 << 32) + number);
    assert_eq!(desk.lease(other, "k", SECOND), None);
    assert_eq!(reclaim_permits(&mut desk, one, grant(1), 2), Reply::Done);
    assert_eq!(code(&reclaim_permits(&mut desk, other, grant(2), 2)), Some(Code::NotHeld));
    assert_eq!(reclaim_permits(&mut desk, other, grant(3), 1), Reply::Done);
    desk.live(&[one, other], SECOND);
    assert_eq!(code(&reclaim_permits(&mut desk, other, grant(4), 1)), Some(Code::NotHeld));
    assert_eq!(desk.lease(other, "k", SECOND), None);
    assert_eq!(desk.ask(one, &Request::Release { grant: grant(1) }), Reply::Done);
    assert!(desk.lease(other, "k", SECOND).is_some());
}

#[test]
fn a_lease_of_keys_that_part_is_lost_and_none_of_them_is_free_before_its_end() {
    let mut old = home(&[], "k", 1);
    old.gain("other", 2, Gain::Fresh);
    assert_ne!(of("k"), of("other"));
    let holder = old.greet(1);
    let grant = old.take(holder, 0, &[("k", M), ("other", M)]).unwrap();
    let bytes = old.leave("k");
    let lost = |desk: &Desk| {
        let is_it = |output: &Output<usize>| match output {
            Output::Lost { grants, .. } => *grants == [grant],
            _ => false,
        };
        desk.heard.iter().any(|(_, output)| is_it(output))
    };
    assert!(lost(&old));
    let end = START + until_end(Duration::from_secs(9));
    let next = old.greet(2);
    let stays = old.wait(next, 0, &[("other", M)]);
    old.live(&[holder, next], 10 * SECOND);
    assert_eq!(old.granted(next, stays), Some((end, true)));
    assert_eq!(old.machine.permits_held(), 0);
    let mut new = member(&[], &[]);
    assert!(new.gain("k", 3, Gain::Handed(&bytes)));
    let next = new.greet(2);
    let goes = new.wait(next, 0, &[("k", M)]);
    new.live(&[next], 10 * SECOND);
    assert_eq!(new.granted(next, goes), Some((end, true)));
}

#[test]
fn whoever_waits_for_a_key_that_goes_is_told_and_may_ask_again() {
    let mut desk = home(&["1/min"], "k", 1);
    let asker = desk.greet(1);
    assert!(desk.try_acquire(asker, &[("k", 1)]).allowed);
    let waiter = desk.send(asker, &wait_for(&[("k", 1)], 1_000 * SECOND));
    assert_eq!(desk.answer(asker, waiter), None);
    let bytes = desk.leave("k");
    assert_eq!(code(desk.answer(asker, waiter).unwrap().1), Some(Code::NotHome));
    assert_eq!(desk.machine.tally().waiting, 0);
    assert!(desk.gain("k", 2, Gain::Handed(&bytes)));
    desk.handle(Input::Ask(asker, waiter, &wait_for(&[("k", 1)], 1_000 * SECOND)));
    let sessions = [asker];
    desk.live(&sessions, 61 * SECOND);
    assert!(matches!(desk.answer(asker, waiter), Some((_, Reply::Decision(it))) if it.allowed));
}

#[test]
fn nothing_is_granted_by_who_may_not_be_alive_and_those_who_wait_are_served_when_it_is() {
    let mut desk = home(&["1/s"], "k", 1);
    let asker = desk.greet(1);
    desk.machine.stay_alive(at(desk.now), at(START + SECOND / 2));
    assert!(desk.try_acquire(asker, &[("k", 1)]).allowed);
    let waiter = desk.send(asker, &wait_for(&[("k", 1)], 60 * SECOND));
    let free = desk.send(asker, &lock(&[("k", M)], Some(60 * SECOND), term(SECOND), 0));
    assert!(desk.token(asker, free).is_some());
    desk.live(&[asker], 2 * SECOND);
    assert_eq!(desk.answer(asker, waiter), None);
    assert_eq!(desk.block(asker, "k", 1).permits, 0);
    desk.machine.stay_alive(at(desk.now), at(FOREVER));
    desk.drain();
    assert_eq!(desk.granted(asker, waiter), Some((desk.now, true)));
}

#[test]
fn limits_that_were_set_and_freezes_go_with_their_key() {
    let mut old = home(&["1/min"], "k", 1);
    let asker = old.greet(1);
    assert_eq!(old.ask(asker, &set_limits("k", &["3/min"])), Reply::Done);
    let length = Duration::from_secs(5);
    assert_eq!(old.ask(asker, &Request::Freeze { key: key("k"), length }), Reply::Done);
    let bytes = old.leave("k");
    let mut new = member(&[], &["1/min"]);
    assert!(new.gain("k", 2, Gain::Handed(&bytes)));
    let asker = new.greet(1);
    let refused = new.try_acquire(asker, &[("k", 1)]);
    assert_eq!((refused.allowed, refused.retry_after), (false, Some(length)));
    new.advance(5 * SECOND);
    assert_eq!((0..4).filter(|_| new.try_acquire(asker, &[("k", 1)]).allowed).count(), 3);
}

#[test]
fn what_cannot_be_read_is_taken_as_of_a_home_that_is_dead() {
    let mut desk = member(&[], &["5/s"]);
    assert!(!desk.gain("k", 1, Gain::Handed(b"nonsense")));
    let asker = desk.greet(1);
    assert!(!desk.try_acquire(asker, &[("k", 1)]).allowed);
    assert_eq!(desk.lock(asker, "k", SECOND), None);
    desk.advance(SECOND + 1);
    assert!(desk.try_acquire(asker, &[("k", 1)]).allowed);
    assert!(desk.lock(asker, "k", SECOND).is_some());
}
