//! Those who wait: first come, first served, at the first instant possible, each answered once.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use zmqlocker::engine::{Hold, Input, RequestId, SessionId, Wait};

use crate::laws::{Kind, Naive};
use crate::{Desk, SECOND, START, acquire, wait_for};

/// A queue that is looked at again from its start whenever anything may have changed.
struct NaiveQueue {
    limits: [Naive; 2],
    /// Who waits: number, costs, deadline.
    waiters: Vec<(RequestId, [u64; 2], u64)>,
    answers: BTreeMap<RequestId, (u64, bool)>,
}

impl NaiveQueue {
    fn allows(&self, now: u64, costs: [u64; 2]) -> bool {
        let asked = self.limits.iter().zip(costs).filter(|(_, cost)| *cost > 0);
        asked.into_iter().all(|(limit, cost)| limit.allows(now, cost))
    }

    fn grant(&mut self, now: u64, costs: [u64; 2]) {
        for (limit, cost) in self.limits.iter_mut().zip(costs).filter(|(_, cost)| *cost > 0) {
            limit.grants.push((now, cost));
        }
    }

    /// Whether somebody before `place` waits for one of the keys.
    fn is_behind(&self, place: usize, costs: [u64; 2]) -> bool {
        let shares = |other: [u64; 2]| costs.iter().zip(other).any(|(one, two)| *one * two > 0);
        self.waiters[..place].iter().any(|(_, other, _)| shares(*other))
    }

    fn serve(&mut self, now: u64) {
        let may = |queue: &Self, place: usize| {
            let costs = queue.waiters[place].1;
            !queue.is_behind(place, costs) && queue.allows(now, costs)
        };
        while let Some(place) = (0..self.waiters.len()).find(|place| may(self, *place)) {
            let (id, costs, _) = self.waiters.remove(place);
            self.grant(now, costs);
            self.answers.insert(id, (now, true));
        }
    }

    /// Whatever happens from `from` until `until`, an instant at a time.
    fn advance(&mut self, mut from: u64, until: u64) {
        while from <= until {
            self.serve(from);
            while let Some(place) = self.waiters.iter().position(|(_, _, end)| *end <= from) {
                let (id, _, _) = self.waiters.remove(place);
                self.answers.insert(id, (from, false));
                self.serve(from);
            }
            let grants = self.limits.iter().flat_map(|limit| &limit.grants);
            let ends = grants.map(|(at, _)| at + SECOND + 1);
            let deadlines = self.waiters.iter().map(|(_, _, deadline)| *deadline);
            from = ends.chain(deadlines).filter(|at| *at > from).min().unwrap_or(u64::MAX);
        }
    }

    fn ask(&mut self, now: u64, id: RequestId, costs: [u64; 2], patience: Option<u64>) {
        if !self.is_behind(self.waiters.len(), costs) && self.allows(now, costs) {
            self.grant(now, costs);
            self.answers.insert(id, (now, true));
        } else if let Some(patience) = patience {
            self.waiters.push((id, costs, now + patience));
        } else {
            self.answers.insert(id, (now, false));
        }
    }
}

fn limit() -> impl Strategy<Value = Naive> {
    let kind = prop_oneof![Just(Kind::Fixed), Just(Kind::Sliding)];
    (kind, 3..7_u64).prop_map(|(kind, max)| Naive { kind, max, grants: Vec::new() })
}

#[derive(Clone, Debug)]
struct Step {
    gap: u64,
    costs: [u64; 2],
    patience: Option<u64>,
    cancel: bool,
}

fn step() -> impl Strategy<Value = Step> {
    let gap = prop_oneof![
        4 => Just(0),
        1 => Just(1),
        1 => Just(SECOND),
        1 => Just(SECOND + 1),
        4 => 0..SECOND / 2,
    ];
    let costs = prop_oneof![[1..4_u64, 0..1], [0..1, 1..4_u64], [1..4_u64, 1..4_u64]];
    let patience = prop_oneof![
        1 => Just(None),
        1 => Just(Some(0)),
        1 => Just(Some(SECOND)),
        1 => Just(Some(SECOND + 1)),
        4 => (0..6 * SECOND).prop_map(Some),
    ];
    (gap, costs, patience, prop::bool::weighted(0.2))
        .prop_map(|(gap, costs, patience, cancel)| Step { gap, costs, patience, cancel })
}

/// Moves on in steps so short that the client is never taken for dead.
fn live(desk: &mut Desk, session: SessionId, nanos: u64) {
    let until = desk.now + nanos;
    while desk.now < until {
        desk.advance_to(until.min(desk.now + SECOND));
        desk.handle(Input::Beat(session, RequestId(0), &[]));
    }
    desk.advance(0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn who_waits_is_served_in_turn_at_the_first_instant_possible(
        limits in [limit(), limit()],
        steps in vec(step(), 1..30),
    ) {
        let texts = limits.each_ref().map(Naive::text);
        let mut desk = Desk::new(&[("a", &[&texts[0]]), ("b", &[&texts[1]])], &[]);
        let session = desk.greet(1);
        let mut naive = NaiveQueue { limits, waiters: Vec::new(), answers: BTreeMap::new() };
        for Step { gap, costs, patience, cancel } in steps {
            let from = desk.now;
            live(&mut desk, session, gap);
            naive.advance(from, desk.now);
            if cancel && !naive.waiters.is_empty() {
                let (id, _, _) = naive.waiters.remove(naive.waiters.len() / 2);
                desk.handle(Input::Cancel(session, id));
                naive.serve(desk.now);
                prop_assert_eq!(desk.answers(session, id), 0);
                continue;
            }
            let named = ["a", "b"].into_iter().zip(costs).filter(|(_, cost)| *cost > 0);
            let parts: Vec<_> = named.collect();
            let request = match patience {
                Some(patience) => wait_for(&parts, patience),
                None => acquire(&parts, Wait::No, Hold::Spend),
            };
            let id = desk.send(session, &request);
            naive.ask(desk.now, id, costs, patience);
        }
        let from = desk.now;
        live(&mut desk, session, 8 * SECOND);
        naive.advance(from, desk.now);
        for (id, expected) in naive.answers {
            prop_assert_eq!(desk.granted(session, id), Some(expected), "{:?}", id);
            prop_assert_eq!(desk.answers(session, id), 1);
        }
        prop_assert_eq!(desk.machine.tally().waiting, 0);
    }
}

#[test]
fn who_is_silent_for_two_seconds_loses_all_places_at_once_and_those_behind_move_up() {
    let mut desk = Desk::new(&[], &["2/s sliding"]);
    let [silent, lively] = [desk.greet(1), desk.greet(2)];
    assert!(desk.try_acquire(lively, &[("k", 1)]).allowed);
    // The first cannot have its two before the single permit that is left would do for the second.
    desk.handle(Input::Beat(silent, RequestId(0), &[]));
    let freeze = std::time::Duration::from_secs(1);
    let freeze = zmqlocker::engine::Request::Freeze { key: crate::key("k"), length: freeze };
    let lost = [2, 1].map(|cost| desk.send(silent, &wait_for(&[("k", cost)], 9 * SECOND)));
    let kept = desk.send(lively, &wait_for(&[("k", 1)], 9 * SECOND));
    for _ in 0..3 {
        desk.ask(lively, &freeze);
        desk.advance(SECOND * 3 / 4);
    }
    for id in lost {
        assert!(matches!(desk.granted(silent, id), Some((at, false)) if at == START + 2 * SECOND));
    }
    desk.advance(SECOND);
    assert_eq!(desk.granted(lively, kept), Some((START + SECOND * 3 / 2 + SECOND, true)));
    assert!(desk.try_acquire(lively, &[("k", 1)]).allowed);
}

#[test]
fn who_says_bye_gets_nothing_from_places_of_its_own() {
    let mut desk = Desk::new(&[], &["2/s"]);
    let [goes, stays] = [desk.greet(1), desk.greet(2)];
    assert!(desk.try_acquire(stays, &[("k", 1)]).allowed);
    for cost in [2, 1] {
        desk.send(goes, &wait_for(&[("k", cost)], 9 * SECOND));
    }
    let behind = desk.send(stays, &wait_for(&[("k", 1)], 9 * SECOND));
    desk.handle(Input::Bye(goes));
    assert_eq!(desk.granted(stays, behind), Some((START, true)));
}

#[test]
fn a_request_is_answered_once_where_its_turn_and_the_end_of_patience_are_noticed_at_once() {
    for late in [0, 1] {
        let mut desk = Desk::new(&[], &["1/s"]);
        let [asker, other] = [desk.greet(1), desk.greet(2)];
        desk.try_acquire(other, &[("k", 1)]);
        let waiter = desk.send(asker, &wait_for(&[("k", 1)], 2 * SECOND - 1 + late));
        // Nobody has looked at the clock until the client was silent for too long.
        desk.skip(2 * SECOND);
        desk.handle(Input::Tick);
        assert_eq!(desk.answers(asker, waiter), 1);
        assert_eq!(desk.granted(asker, waiter), Some((desk.now, true)));
    }
}

#[test]
fn what_is_cancelled_at_the_moment_of_its_grant_comes_back() {
    let mut desk = Desk::new(&[], &["1 at once"]);
    let [holder, asker] = [desk.greet(1), desk.greet(2)];
    desk.lease(holder, "k", SECOND / 10).unwrap();
    let hold = Hold::lease(std::time::Duration::from_secs(9)).unwrap();
    let wait = Wait::UpTo(std::time::Duration::from_secs(9));
    let waiter = desk.send(asker, &acquire(&[("k", 1)], wait, hold));
    desk.skip(SECOND);
    desk.handle(Input::Cancel(asker, waiter));
    assert!(desk.lease(holder, "k", SECOND).is_some());
}
