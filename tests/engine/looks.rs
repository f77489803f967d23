//! What those see who only look: which keys are the busiest, and which clients there are.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use zmqlocker::engine::{
    Bounds, ClientInfo, ClientRow, Code, Ending, Happening, Hold, Input, KeyRow, Reply, Request,
    RequestId, Wait,
};
use zmqlocker::time::Timestamp;

use crate::locks::M;
use crate::{Desk, SECOND, acquire, code, key, wait_for};

/// All pages of the busiest keys.
fn keys(desk: &mut Desk) -> Vec<KeyRow> {
    let session = desk.greet(0);
    let (mut rows, mut next) = (Vec::new(), Some(0));
    while let Some(from) = next {
        let Reply::Keys(page) = desk.ask(session, &Request::Keys { from }) else { panic!() };
        rows.extend(page.rows);
        next = page.next;
    }
    rows
}

fn named<'a>(rows: &'a [KeyRow], name: &str) -> &'a KeyRow {
    rows.iter().find(|row| &*row.key == name).unwrap()
}

fn clients(desk: &mut Desk) -> Vec<ClientRow> {
    let session = desk.greet(0);
    let (mut rows, mut next) = (Vec::new(), Some(0));
    while let Some(from) = next {
        let Reply::Clients(page) = desk.ask(session, &Request::Clients { from }) else { panic!() };
        rows.extend(page.rows);
        next = page.next;
    }
    rows
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn of_few_keys_every_answer_is_counted(asked in vec((0..300_u32, 0..SECOND), 0..600)) {
        let mut desk = Desk::new(&[], &["2/h"]);
        let session = desk.greet(1);
        let mut expected = BTreeMap::<String, (u64, u64)>::new();
        for (number, pause) in asked {
            desk.advance(pause / 100);
            let name = format!("key {number}");
            let allowed = desk.try_acquire(session, &[(&name, 1)]).allowed;
            let (yes, no) = expected.entry(name).or_default();
            if allowed { *yes += 1 } else { *no += 1 }
        }
        let mut seen = BTreeMap::new();
        for row in keys(&mut desk) {
            prop_assert!(seen.insert(row.key.to_string(), (row.allowed, row.refused)).is_none());
        }
        prop_assert_eq!(seen, expected);
    }

    #[test]
    fn a_key_that_is_asked_for_more_than_others_is_among_the_busiest(
        seed in any::<u64>(), others in 600..3000_u64
    ) {
        let mut desk = Desk::new(&[], &["1000000/h"]);
        let session = desk.greet(1);
        let mut random = seed | 1;
        for place in 0..20_000_u64 {
            desk.skip(SECOND / 5000);
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            // One request of fifty: far more than one of as many as there are counters.
            let name = match place % 50 {
                0 => "busy".to_owned(),
                _ => format!("other {}", random % others),
            };
            desk.try_acquire(session, &[(&name, 1)]);
            desk.handle(Input::Beat(session, RequestId(desk.last_request + 1), &[]));
            desk.heard.clear();
        }
        let rows = keys(&mut desk);
        prop_assert!(rows.len() <= 512);
        prop_assert_eq!(&*rows[0].key, "busy");
    }
}

#[test]
fn the_rate_is_that_of_the_last_seconds_and_fades() {
    let mut desk = Desk::new(&[], &["1000000/h"]);
    let session = desk.greet(1);
    for _ in 0..30 * 50 {
        desk.advance(SECOND / 50);
        desk.try_acquire(session, &[("k", 1)]);
    }
    let rate = keys(&mut desk)[0].rate_millis;
    assert!((48_000..=51_000).contains(&rate), "{rate}");
    desk.advance(5 * SECOND);
    let faded = keys(&mut desk)[0].rate_millis;
    assert!((8_000..=16_000).contains(&faded), "{faded}");
    desk.advance(3600 * SECOND);
    assert_eq!((keys(&mut desk)[0].rate_millis, keys(&mut desk)[0].allowed), (0, 1500));
}

#[test]
fn a_refusal_is_counted_for_the_key_that_said_no_and_a_grant_for_all() {
    let mut desk = Desk::new(&[("a", &["1/h"]), ("b", &["5/h"])], &[]);
    let session = desk.greet(1);
    for _ in 0..3 {
        desk.try_acquire(session, &[("b", 1), ("a", 1)]);
    }
    let rows = keys(&mut desk);
    let counts = |name| (named(&rows, name).allowed, named(&rows, name).refused);
    assert_eq!((counts("a"), counts("b")), ((1, 2), (1, 0)));
    assert_eq!((named(&rows, "a").remaining, &*named(&rows, "a").limit), (0, "1/h"));
}

#[test]
fn a_row_tells_who_waits_and_holds_and_what_is_left() {
    let mut desk = Desk::new(&[("gpu", &["2 at once"]), ("api", &["1/10s"])], &[]);
    let session = desk.greet(1);
    desk.lease(session, "gpu", SECOND).unwrap();
    desk.try_acquire(session, &[("api", 1)]);
    let waits = desk.send(session, &wait_for(&[("api", 1)], SECOND / 2));
    let rows = keys(&mut desk);
    let (gpu, api) = (named(&rows, "gpu"), named(&rows, "api"));
    assert_eq!((gpu.holders, gpu.waiting, gpu.remaining), (1, 0, 1));
    assert_eq!(
        (api.holders, api.waiting, api.reset_after),
        (0, 1, Duration::from_nanos(10 * SECOND + 1))
    );
    desk.advance(SECOND);
    assert!(!desk.granted(session, waits).unwrap().1);
    let rows = keys(&mut desk);
    assert_eq!((named(&rows, "api").allowed, named(&rows, "api").refused), (1, 1));
}

#[test]
fn whoever_asks_again_how_things_stand_is_told_how_they_stand_then() {
    let mut desk = Desk::new(&[], &["5/s"]);
    let session = desk.greet(1);
    let allowed = |desk: &mut Desk| {
        desk.handle(Input::Ask(session, RequestId(7), &Request::Status));
        match desk.answer(session, RequestId(7)) {
            Some((_, Reply::Status(status))) => status.tally.allowed,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(allowed(&mut desk), 0);
    desk.last_request = 7;
    desk.try_acquire(session, &[("k", 1)]);
    assert_eq!(allowed(&mut desk), 1);
}

#[test]
fn problems_are_counted_and_bounds_among_them() {
    let bounds = Bounds { keys_max: 2, sessions_max: 1, ..Bounds::default() };
    let mut desk = Desk::bounded(&[("a", &["5/s"]), ("b", &["5/s"])], &[], bounds);
    let session = desk.greet(1);
    let unknown = desk.ask(session, &acquire(&[("c", 1)], Wait::No, Hold::Spend));
    assert_eq!(code(&unknown), Some(Code::Config));
    let now = Timestamp::from_nanos(desk.now);
    assert!(desk.machine.greet(now, [9; 16], ClientInfo::default()).is_err());
    let tally = desk.machine.tally();
    assert_eq!((tally.problems, tally.bounds_hit, tally.sessions), (1, 1, 1));
}

#[test]
fn a_client_is_seen_with_what_it_holds_and_for_how_long_it_is_known() {
    let mut desk = Desk::new(&[("gpu", &["2 at once"])], &[]);
    let session = desk.greet(1);
    desk.advance(2 * SECOND);
    let grant = desk.lease(session, "gpu", 5 * SECOND).unwrap();
    desk.advance(SECOND);
    let rows = clients(&mut desk);
    let row = rows.iter().find(|row| row.session == Some(session)).unwrap();
    assert_eq!((row.leases, row.waiting), (1, 0));
    assert_eq!((row.since, row.silent), (Duration::from_secs(3), Duration::from_secs(1)));
    desk.ask(session, &Request::Release { grant });
    let rows = clients(&mut desk);
    assert!(rows.iter().all(|row| row.leases == 0));
    assert_eq!(desk.machine.tally().leases, 0);
}

#[test]
fn all_pages_of_clients_have_each_of_them_once() {
    let mut desk = Desk::new(&[], &["5/s"]);
    let now = Timestamp::from_nanos(desk.now);
    let long: Box<str> = "n".repeat(200).into();
    for name in 1..=200 {
        let client = ClientInfo { name: long.clone(), host: long.clone(), pid: name.into() };
        desk.machine.greet(now, [name; 16], client).unwrap();
    }
    let rows = clients(&mut desk);
    let mut pids: Vec<_> = rows.iter().map(|row| row.client.pid).filter(|pid| *pid > 0).collect();
    pids.sort_unstable();
    assert_eq!(pids, (1..=200).collect::<Vec<_>>());
}

/// How often the keys of a pattern ended how, without what never was.
fn endings(desk: &Desk, is_lock: bool, pattern: &str) -> Vec<(&'static str, u64)> {
    let patterns = desk.machine.measures().patterns();
    let found = patterns.iter().find(|it| it.is_lock == is_lock && &*it.pattern == pattern);
    let counts = Ending::ALL.iter().zip(found.unwrap().counts);
    counts.map(|((_, word), count)| (*word, count)).filter(|(_, count)| *count > 0).collect()
}

#[test]
fn every_way_in_which_a_request_ends_is_counted_at_its_pattern() {
    let mut desk = Desk::new(&[("tenant:*", &["1/s"]), ("api", &["1/s"])], &[]);
    let session = desk.greet(1);
    desk.try_acquire(session, &[("tenant:1", 1)]);
    desk.try_acquire(session, &[("tenant:2", 1)]);
    desk.try_acquire(session, &[("tenant:2", 1)]);
    let waits = desk.send(session, &wait_for(&[("tenant:1", 1)], 2 * SECOND));
    desk.send(session, &wait_for(&[("tenant:1", 1)], SECOND / 2));
    let cancelled = desk.send(session, &wait_for(&[("tenant:2", 1)], 2 * SECOND));
    desk.handle(Input::Cancel(session, cancelled));
    desk.advance(SECOND + SECOND / 2);
    assert!(desk.granted(session, waits).unwrap().1);
    let too_much = acquire(&[("tenant:1", 2)], Wait::No, Hold::Spend);
    assert_eq!(code(&desk.ask(session, &too_much)), Some(Code::CostTooLarge));
    let unknown = acquire(&[("unknown", 1)], Wait::No, Hold::Spend);
    assert_eq!(code(&desk.ask(session, &unknown)), Some(Code::Config));
    assert_eq!(desk.block(session, "api", 5).permits, 1);
    let expected = [
        ("allowed", 2),
        ("waited", 1),
        ("refused", 1),
        ("timed_out", 1),
        ("cancelled", 1),
        ("error", 1),
    ];
    assert_eq!(endings(&desk, false, "tenant:*"), expected);
    assert_eq!(endings(&desk, false, "api"), [("lent", 1)]);
    assert_eq!(endings(&desk, false, "(none)"), [("error", 1)]);
    let [limits, locks] = desk.machine.measures().waits();
    assert_eq!((limits.count(), locks.count()), (1, 0));
    assert!((900_000_000..1_100_000_000).contains(&limits.sum()), "{}", limits.sum());
}

#[test]
fn how_long_a_lock_was_held_is_known_when_it_is_over() {
    let mut desk = Desk::new(&[], &[]);
    let [one, two] = [1, 2].map(|name| desk.greet(name));
    let held = desk.take(one, 0, &[("k", M)]).unwrap();
    desk.advance(SECOND / 4);
    desk.wait(two, 0, &[("k", M)]);
    desk.advance(SECOND / 4);
    desk.release(one, held);
    let measures = desk.machine.measures();
    let ([_, waits], [_, holds]) = (measures.waits(), measures.holds());
    assert_eq!((waits.count(), waits.sum()), (1, u128::from(SECOND / 4)));
    assert_eq!((holds.count(), holds.sum()), (1, u128::from(SECOND / 2)));
    assert_eq!(endings(&desk, true, "*"), [("allowed", 1), ("waited", 1)]);
}

#[test]
fn beyond_the_bound_patterns_are_counted_together_and_other_rules_count_anew() {
    let bounds = Bounds { patterns_max: 1, ..Bounds::default() };
    let mut desk = Desk::bounded(&[("a", &["9/s"])], &["9/s"], bounds);
    let session = desk.greet(1);
    for name in ["a", "b", "c"] {
        desk.try_acquire(session, &[(name, 1)]);
    }
    // The key that the seed's clients ask for was there first, as one of all others.
    assert_eq!(endings(&desk, false, "*"), [("allowed", 2)]);
    assert_eq!(endings(&desk, false, "(more)"), [("allowed", 1)]);
    desk.handle(Input::Rules(crate::rules(&[], &["9/s"])));
    desk.try_acquire(session, &[("a", 1)]);
    assert_eq!(endings(&desk, false, "*"), [("allowed", 3)]);
}

#[test]
fn what_happened_to_clients_is_told_once_and_only_the_last_is_kept() {
    let mut desk = Desk::new(&[], &[]);
    let [one, two] = [1, 2].map(|name| desk.greet(name));
    desk.take(one, 0, &[("k", M)]).unwrap();
    desk.ask(two, &Request::Break { key: key("k"), grant: None });
    let (key, holder) = ("k".into(), ClientInfo::default());
    assert_eq!(desk.machine.poll_happening(), Some(Happening::Broken { key, holder }));
    desk.handle(Input::Bye(two));
    assert_eq!(desk.machine.poll_happening(), Some(Happening::Left(ClientInfo::default())));
    assert_eq!(desk.machine.poll_happening(), None);
    for name in 0..200 {
        let session = desk.greet(name);
        desk.handle(Input::Bye(session));
    }
    assert_eq!(std::iter::from_fn(|| desk.machine.poll_happening()).count(), 64);
}
