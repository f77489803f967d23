//! Rules and their grammar: what is printed is read again; which key has which limits, and when.

use proptest::collection::vec;
use proptest::prelude::*;
use zmqlocker::engine::{
    AtOnce, Burst, Code, Input, Key, Kind, Limit, Limits, Rate, Reply, Request, Rules,
};

use crate::{Desk, SECOND, code, rules, set_limits, wait_for};

fn any_limit() -> impl Strategy<Value = Limit> {
    let number = || prop_oneof![1..100_u64, 1..=Rate::MAX_REQUESTS_MAX];
    let length = prop_oneof![
        1..=1_000_000_000_000_000_000_u64,
        1..5_000_000_000_u64,
        (1..90_000_u64).prop_map(|seconds| seconds * SECOND),
    ];
    (number(), length, number(), 0..4_usize, any::<bool>()).prop_map(
        |(max, length, burst, kind, shadow)| {
            let length = std::time::Duration::from_nanos(length);
            let rate = Rate::from_duration(max.into(), length).unwrap();
            let kind = match kind {
                0 => Kind::FixedWindow(rate),
                1 => Kind::SlidingWindow(rate),
                2 => Kind::Gcra(rate, Burst::new(burst.into()).unwrap()),
                _ => Kind::Concurrency(AtOnce::new(burst.into()).unwrap()),
            };
            Limit { kind, shadow }
        },
    )
}

/// Whether a pattern fits, by trying out every length of every star.
fn fits(pattern: &[u8], key: &[u8]) -> bool {
    match pattern.split_first() {
        None => key.is_empty(),
        Some((b'*', rest)) => (0..=key.len()).any(|skip| fits(rest, &key[skip..])),
        Some((byte, rest)) => key.first() == Some(byte) && fits(rest, &key[1..]),
    }
}

/// All words of up to seven of two letters.
fn words() -> Vec<String> {
    let mut all = vec![String::new()];
    let mut place = 0;
    while place < all.len() && all[place].len() < 7 {
        for letter in ["a", "b"] {
            let word = format!("{}{letter}", all[place]);
            all.push(word);
        }
        place += 1;
    }
    all.split_off(1)
}

fn literals(pattern: &str) -> usize {
    pattern.bytes().filter(|byte| *byte != b'*').count()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn what_is_printed_is_read_again(limit in any_limit()) {
        prop_assert_eq!(limit.to_string().parse::<Limit>().unwrap(), limit);
    }

    #[test]
    fn no_text_is_too_strange(
        text in any::<String>(),
        near in "[0-9_]{0,4} ?[/a]t? ?[0-9.]{0,5} ?[a-z]{0,6} ?(gcra|sliding|é)? ?(burst)? ?[0-9]*",
    ) {
        for text in [text, near] {
            if let Ok(limit) = text.parse::<Limit>() {
                prop_assert_eq!(limit.to_string().parse::<Limit>().unwrap(), limit);
            }
        }
    }

    #[test]
    fn the_most_specific_rule_counts_and_ties_are_refused(
        patterns in vec("[ab*]{1,4}", 1..5),
        seed in any::<prop::sample::Index>(),
    ) {
        let words = words();
        let mut patterns = patterns;
        patterns.sort();
        patterns.dedup();
        let rule = |(place, pattern): (usize, &String)| {
            (pattern.clone(), Limits::parse(&[format!("{}/s", place + 1)]).unwrap())
        };
        let all: Vec<_> = patterns.iter().enumerate().map(rule).collect();
        let ties = patterns.iter().enumerate().any(|(place, one)| {
            patterns[..place].iter().any(|other| {
                one.contains('*') && other.contains('*') && literals(one) == literals(other)
                    && words.iter().any(|word| {
                        fits(one.as_bytes(), word.as_bytes())
                            && fits(other.as_bytes(), word.as_bytes())
                    })
            })
        });
        let mut turned = all.clone();
        turned.rotate_left(seed.index(all.len()));
        for given in [all, turned] {
            let rules = Rules::new(given, None);
            prop_assert_eq!(rules.is_err(), ties, "{:?}", patterns);
            let Ok(rules) = rules else { continue };
            for word in &words {
                let fitting = patterns.iter().enumerate();
                let best = fitting
                    .filter(|(_, pattern)| fits(pattern.as_bytes(), word.as_bytes()))
                    .max_by_key(|(_, pattern)| (!pattern.contains('*'), literals(pattern)));
                let expected = best.map(|(place, _)| format!("{}/s", place + 1));
                let found = rules.find(Key::parse(word).unwrap());
                prop_assert_eq!(found.map(|limits| limits.text(0).to_string()), expected);
            }
        }
    }
}

#[test]
fn other_rules_keep_what_was_used_even_of_a_key_that_was_without_for_a_while() {
    let mut desk = Desk::new(&[("k", &["3/s sliding"])], &[]);
    let session = desk.greet(1);
    desk.try_acquire(session, &[("k", 3)]);
    let waiter = desk.send(session, &wait_for(&[("k", 1)], SECOND));
    desk.handle(Input::Rules(rules(&[("other", &["1/s"])], &[])));
    assert_eq!(code(desk.answer(session, waiter).unwrap().1), Some(Code::Config));
    let refused = desk.ask(session, &wait_for(&[("k", 1)], SECOND));
    assert_eq!(code(&refused), Some(Code::Config));
    desk.handle(Input::Rules(rules(&[("k", &["4/s sliding"])], &[])));
    assert!(desk.try_acquire(session, &[("k", 1)]).allowed);
    assert!(!desk.try_acquire(session, &[("k", 1)]).allowed);
}

#[test]
fn leases_count_on_when_the_rules_leave_a_key_out_for_a_while() {
    let mut desk = Desk::new(&[("k", &["1 at once"])], &[]);
    let session = desk.greet(1);
    let lease = desk.lease(session, "k", SECOND).unwrap();
    desk.handle(Input::Rules(rules(&[], &[])));
    desk.ask(session, &Request::Reset { key: crate::key("k") });
    desk.handle(Input::Rules(rules(&[("k", &["1 at once"])], &[])));
    assert_eq!(desk.lease(session, "k", SECOND), None);
    assert_eq!(desk.ask(session, &Request::Release { grant: lease }), Reply::Done);
    assert!(desk.lease(session, "k", SECOND).is_some());
}

#[test]
fn rates_and_leases_do_not_take_each_others_place() {
    let mut desk = Desk::new(&[("rate", &["1/s"]), ("held", &["1 at once"])], &[]);
    let session = desk.greet(1);
    for (name, text) in [("rate", "1 at once"), ("held", "1/s")] {
        let reply = desk.ask(session, &set_limits(name, &[text]));
        assert_eq!(code(&reply), Some(Code::KindMismatch), "{name}");
    }
    assert_eq!(desk.ask(session, &set_limits("new", &["1/s"])), Reply::Done);
    assert!(desk.try_acquire(session, &[("new", 1)]).allowed);
}

#[test]
fn a_waiter_whose_cost_new_limits_cannot_grant_is_told() {
    let mut desk = Desk::new(&[], &["3/s"]);
    let session = desk.greet(1);
    desk.try_acquire(session, &[("k", 3)]);
    let waiters = [3, 1].map(|cost| desk.send(session, &wait_for(&[("k", cost)], SECOND)));
    desk.ask(session, &set_limits("k", &["2/s"]));
    let told = desk.answer(session, waiters[0]).map(|(_, reply)| code(reply));
    assert_eq!(told, Some(Some(Code::CostTooLarge)));
    desk.advance(2 * SECOND);
    assert!(desk.granted(session, waiters[1]).is_some_and(|(_, allowed)| !allowed));
}
