//! The laws of rates: at most so many, exactly; a refusal costs nothing, and tells the truth.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use zmqlocker::engine::{Hold, Input, Reply, Request, RequestId, SessionId, Wait};

use crate::{Desk, SECOND, START, acquire, key, set_limits, wait_for};

/// What a limit promises, counted anew from all grants each time.
#[derive(Clone, Debug)]
pub(crate) struct Naive {
    pub(crate) kind: Kind,
    pub(crate) max: u64,
    pub(crate) grants: Vec<(u64, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    Fixed,
    Sliding,
    Gcra(u64),
}

impl Naive {
    pub(crate) fn text(&self) -> String {
        match self.kind {
            Kind::Fixed => format!("{}/s", self.max),
            Kind::Sliding => format!("{}/s sliding", self.max),
            Kind::Gcra(burst) => format!("{}/s gcra burst {burst}", self.max),
        }
    }

    /// Whether a request is within the limit, all grants so far given.
    pub(crate) fn allows(&self, now: u64, cost: u64) -> bool {
        match self.kind {
            Kind::Fixed => {
                let (mut ends_at, mut used) = (0, 0);
                for (at, permits) in self.grants.iter().copied().chain([(now, 0)]) {
                    if at > ends_at {
                        (ends_at, used) = (at + SECOND, 0);
                    }
                    used += permits;
                }
                used + cost <= self.max
            }
            Kind::Sliding => {
                let near = self.grants.iter().filter(|(at, _)| at + SECOND >= now);
                near.map(|(_, permits)| permits).sum::<u64>() + cost <= self.max
            }
            // From each grant on, no more than the burst and what the time since has refilled.
            Kind::Gcra(burst) => (0..=self.grants.len()).all(|first| {
                let from = self.grants.get(first).map_or(now, |(at, _)| *at);
                let used: u64 = self.grants[first..].iter().map(|(_, permits)| permits).sum();
                used + cost <= burst + (now - from) * self.max / SECOND
            }),
        }
    }
}

pub(crate) fn limit() -> impl Strategy<Value = Naive> {
    let kind =
        prop_oneof![Just(Kind::Fixed), Just(Kind::Sliding), (1..7_u64).prop_map(Kind::Gcra),];
    (kind, 1..7_u64).prop_map(|(kind, max)| Naive { kind, max, grants: Vec::new() })
}

pub(crate) fn gap() -> impl Strategy<Value = u64> {
    prop_oneof![
        2 => Just(0),
        1 => Just(1),
        1 => Just(SECOND),
        1 => Just(SECOND + 1),
        1 => Just(SECOND - 1),
        3 => 0..SECOND / 2,
        1 => 0..3 * SECOND,
    ]
}

/// Gaps of time, and after each a request for so many permits of either of two keys, or of both.
fn requests() -> impl Strategy<Value = Vec<(u64, [u64; 2])>> {
    let costs = prop_oneof![[1..4_u64, 0..1], [0..1, 1..4_u64], [1..3_u64, 1..3_u64]];
    vec((gap(), costs), 1..40)
}

fn parts(costs: [u64; 2]) -> Vec<(&'static str, u64)> {
    ["a", "b"].into_iter().zip(costs).filter(|(_, cost)| *cost > 0).collect()
}

fn texts(limits: &[Naive]) -> Vec<String> {
    limits.iter().map(Naive::text).collect()
}

fn desk(limits: &[Vec<Naive>; 2]) -> (Desk, SessionId) {
    let [a, b] = limits.each_ref().map(|limits| texts(limits));
    let [a, b] = [&a, &b].map(|texts| texts.iter().map(String::as_str).collect::<Vec<_>>());
    let mut desk = Desk::new(&[("a", &a), ("b", &b)], &[]);
    let session = desk.greet(1);
    (desk, session)
}

fn two_keys() -> impl Strategy<Value = [Vec<Naive>; 2]> {
    [vec(limit(), 1..4), vec(limit(), 1..3)]
}

/// Asks for permits at once; `None` where they are more than the limit can ever give.
fn try_acquire(desk: &mut Desk, session: SessionId, costs: [u64; 2]) -> Option<bool> {
    match desk.ask(session, &acquire(&parts(costs), Wait::No, Hold::Spend)) {
        Reply::Decision(decision) => Some(decision.allowed),
        _ => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn all_keys_and_limits_grant_exactly_what_a_naive_count_allows(
        mut limits in two_keys(),
        requests in requests(),
        ticks in any::<bool>(),
    ) {
        let (mut desk, session) = desk(&limits);
        for (gap, costs) in requests {
            if ticks { desk.advance(gap) } else { desk.skip(gap) }
            let now = desk.now;
            let asked = limits.iter().zip(costs).filter(|(_, cost)| *cost > 0);
            let expected = asked
                .flat_map(|(limits, cost)| limits.iter().map(move |limit| (limit, cost)))
                .all(|(limit, cost)| limit.allows(now, cost));
            let heard = try_acquire(&mut desk, session, costs).unwrap_or(false);
            prop_assert_eq!(heard, expected, "{:?} at {}", costs, now - START);
            if heard {
                for (limits, cost) in limits.iter_mut().zip(costs).filter(|(_, cost)| *cost > 0) {
                    for limit in limits {
                        limit.grants.push((now, cost));
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_cancelled_or_not_spent_never_opens_the_gate_wider(
        limit in limit(),
        steps in vec((gap(), 1..4_u64, 0..4_usize, any::<proptest::sample::Index>()), 1..60),
    ) {
        let mut limit = limit;
        let text = limit.text();
        let mut desk = Desk::new(&[], &[&text]);
        let session = desk.greet(1);
        let mut open = Vec::new();
        for (gap, cost, what, which) in steps {
            desk.advance(gap);
            if what == 0 && !open.is_empty() {
                let (id, place): (RequestId, usize) = open.remove(which.index(open.len()));
                desk.handle(Input::Cancel(session, id));
                limit.grants[place].1 = 0;
            } else if what == 1 {
                desk.ask(session, &set_limits("k", &[&text]));
            } else {
                let id = desk.send(session, &acquire(&[("k", cost)], Wait::No, Hold::Spend));
                if desk.granted(session, id).is_some_and(|(_, allowed)| allowed) {
                    // A slot that was opened by what was cancelled stays open.
                    let fits = limit.kind == Kind::Fixed || limit.allows(desk.now, cost);
                    prop_assert!(fits, "at {}", desk.now - START);
                    open.push((id, limit.grants.len()));
                    limit.grants.push((desk.now, cost));
                    prop_assert!(limit.allows(desk.now, 0));
                }
            }
        }
    }

    #[test]
    fn what_is_cancelled_at_once_was_never_there(
        limit in limit(),
        steps in vec((gap(), 1..4_u64, any::<bool>()), 1..40),
    ) {
        // But for a fixed window: its slot stays open.
        prop_assume!(limit.kind != Kind::Fixed);
        let text = limit.text();
        let mut desk = Desk::new(&[], &[&text]);
        let session = desk.greet(1);
        let mut limit = limit;
        for (gap, cost, keep) in steps {
            desk.advance(gap);
            let id = desk.send(session, &acquire(&[("k", cost)], Wait::No, Hold::Spend));
            let heard = desk.granted(session, id).is_some_and(|(_, allowed)| allowed);
            prop_assert_eq!(heard, limit.allows(desk.now, cost));
            if !keep {
                desk.handle(Input::Cancel(session, id));
            } else if heard {
                limit.grants.push((desk.now, cost));
            }
        }
    }

    #[test]
    fn a_refusal_and_a_peek_cost_nothing(limits in two_keys(), requests in requests()) {
        let (mut asked, session) = desk(&limits);
        let (mut twin, twin_session) = desk(&limits);
        for (gap, costs) in requests {
            asked.advance(gap);
            twin.advance(gap);
            for (name, _) in parts(costs) {
                asked.peek(session, name, 1);
            }
            if try_acquire(&mut asked, session, costs) == Some(true) {
                prop_assert_eq!(try_acquire(&mut twin, twin_session, costs), Some(true));
            }
        }
        for name in ["a", "b"] {
            prop_assert_eq!(asked.peek(session, name, 1), twin.peek(twin_session, name, 1));
        }
    }

    #[test]
    fn a_refused_request_is_allowed_at_retry_after_and_not_before(
        limits in two_keys(),
        requests in requests(),
    ) {
        let (mut desk, session) = desk(&limits);
        for (gap, costs) in requests {
            desk.advance(gap);
            let request = acquire(&parts(costs), Wait::No, Hold::Spend);
            let Reply::Decision(decision) = desk.ask(session, &request) else { continue };
            if decision.allowed {
                continue;
            }
            let wait = u64::try_from(decision.retry_after.unwrap().as_nanos()).unwrap();
            desk.skip(wait - 1);
            prop_assert_eq!(try_acquire(&mut desk, session, costs), Some(false));
            desk.skip(1);
            prop_assert_eq!(try_acquire(&mut desk, session, costs), Some(true));
        }
    }

    #[test]
    fn what_remains_can_be_had_and_no_more_and_all_is_forgotten_at_reset(
        limits in two_keys(),
        requests in requests(),
    ) {
        let (mut desk, session) = desk(&limits);
        for (gap, costs) in requests {
            desk.advance(gap);
            try_acquire(&mut desk, session, costs);
        }
        let state = desk.peek(session, "a", 1);
        let peek = |desk: &mut Desk, cost: u64| {
            let cost = zmqlocker::engine::Cost::new(cost.into()).unwrap();
            match desk.ask(session, &Request::Peek { key: key("a"), cost }) {
                Reply::Decision(decision) => decision.allowed,
                _ => false,
            }
        };
        prop_assert!(state.remaining == 0 || peek(&mut desk, state.remaining));
        prop_assert!(!peek(&mut desk, state.remaining + 1));
        desk.skip(u64::try_from(state.reset_after.as_nanos()).unwrap());
        let (mut fresh, fresh_session) = self::desk(&limits);
        prop_assert_eq!(desk.peek(session, "a", 1), fresh.peek(fresh_session, "a", 1));
    }

    #[test]
    fn other_limits_of_the_same_kind_count_what_was_used(
        limit in limit(),
        max in 1..7_u64,
        requests in vec((gap(), 1..4_u64), 1..30),
        change in 0..30_usize,
    ) {
        let mut limit = limit;
        let mut desk = Desk::new(&[], &[&limit.text()]);
        let session = desk.greet(1);
        for (place, (gap, cost)) in requests.into_iter().enumerate() {
            desk.advance(gap);
            if place == change {
                // For GCRA another rate has no naive count: what is owed is owed.
                if let Kind::Gcra(burst) = &mut limit.kind {
                    *burst = max;
                } else {
                    limit.max = max;
                }
                desk.ask(session, &set_limits("k", &[&limit.text()]));
            }
            let heard = match desk.ask(session, &acquire(&[("k", cost)], Wait::No, Hold::Spend)) {
                Reply::Decision(decision) => decision.allowed,
                _ => false,
            };
            // A lower burst is below what some interval has seen already: only later ones count.
            let exact = !matches!(limit.kind, Kind::Gcra(_)) || place < change;
            if exact {
                prop_assert_eq!(heard, limit.allows(desk.now, cost));
            } else {
                prop_assert!(!heard || limit.allows(desk.now, cost));
            }
            if heard {
                limit.grants.push((desk.now, cost));
            }
        }
    }

    #[test]
    fn a_shadow_limit_refuses_nothing_and_says_what_it_would_have_refused(
        limit in limit(),
        requests in vec((gap(), 1..4_u64), 1..40),
    ) {
        let mut limit = limit;
        let mut desk = Desk::new(&[], &[&format!("{} shadow", limit.text())]);
        let session = desk.greet(1);
        for (gap, cost) in requests {
            desk.advance(gap);
            let before = desk.heard.len();
            prop_assert!(desk.try_acquire(session, &[("k", cost)]).allowed);
            let warned = desk.heard.len() - before == 2;
            prop_assert_eq!(warned, !limit.allows(desk.now, cost));
            if !warned {
                limit.grants.push((desk.now, cost));
            }
        }
    }
}

#[test]
fn a_freeze_refuses_until_its_end_and_a_reset_forgets_all() {
    let mut desk = Desk::new(&[], &["2/s"]);
    let session = desk.greet(1);
    let length = Duration::from_secs(5);
    desk.ask(session, &Request::Freeze { key: key("k"), length });
    let refused = desk.try_acquire(session, &[("k", 1)]);
    assert_eq!((refused.allowed, refused.retry_after), (false, Some(length)));
    let waiter = desk.send(session, &wait_for(&[("k", 1)], 9 * SECOND));
    for _ in 0..4 {
        desk.advance(SECOND);
        desk.handle(Input::Beat(session, RequestId(0), &[]));
    }
    desk.advance(2 * SECOND);
    assert_eq!(desk.granted(session, waiter), Some((START + 5 * SECOND, true)));
    assert!(desk.try_acquire(session, &[("k", 1)]).allowed);
    desk.ask(session, &Request::Freeze { key: key("k"), length });
    desk.ask(session, &Request::Reset { key: key("k") });
    assert!(desk.try_acquire(session, &[("k", 2)]).allowed);
}
