//! Blocks: what a client spends by itself, at the worst instants, never breaks the law.

use proptest::collection::vec;
use proptest::prelude::*;
use zmqlocker::engine::{Code, GrantId, Reply, Request};

use crate::laws::{Kind, Naive, gap, limit};
use crate::{Desk, SECOND, code, key, wait_for};

/// Whether spends, each with its instant, are within what the limit promises.
fn is_lawful(limit: &Naive, spends: &mut [(u64, u64)]) -> bool {
    spends.sort_unstable();
    (0..spends.len()).all(|first| {
        let (from, mut used) = (spends[first].0, 0);
        spends[first..].iter().all(|(at, permits)| {
            used += permits;
            let promised = match limit.kind {
                // A border of slots may lie between.
                Kind::Fixed => limit.max * 2,
                Kind::Sliding => limit.max,
                Kind::Gcra(burst) => burst + (at - from) * limit.max / SECOND,
            };
            let counts = matches!(limit.kind, Kind::Gcra(_)) || at - from <= SECOND;
            !counts || used <= promised
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn blocks_and_single_permits_together_keep_the_law(
        limit in limit(),
        steps in vec((gap(), 1..8_u64, 0..4_usize, any::<bool>()), 1..50),
    ) {
        let mut limit = limit;
        limit.max *= 3;
        let mut desk = Desk::new(&[], &[&limit.text()]);
        let sessions = [desk.greet(1), desk.greet(2)];
        let mut spends = Vec::new();
        // Session, block, permits, from when to when they may be spent, and whether late.
        let mut lent: Vec<(usize, GrantId, u64, [u64; 2], bool)> = Vec::new();
        for (gap, count, what, late) in steps {
            desk.advance(gap / 4);
            let who = usize::from(late);
            match what {
                0 if !lent.is_empty() => {
                    let place = usize::try_from(count).unwrap() % lent.len();
                    let (who, grant, permits, [from, until], late) = lent.remove(place);
                    let unused = count.min(permits);
                    let reply = desk.ask(sessions[who], &Request::GiveBack { grant, unused });
                    let is_back = reply == Reply::Done;
                    let end = if is_back { desk.now.min(until) } else { until };
                    let spent = if is_back { permits - unused } else { permits };
                    spends.push((if late { end } else { from }, spent));
                    let again = Request::GiveBack { grant, unused };
                    let reply = desk.ask(sessions[who], &again);
                    prop_assert_eq!(code(&reply), Some(Code::NotHeld));
                }
                0 | 1 => {
                    if desk.try_acquire(sessions[who], &[("k", 1)]).allowed {
                        spends.push((desk.now, 1));
                    }
                }
                _ => {
                    let block = desk.block(sessions[who], "k", count);
                    let valid = u64::try_from(block.valid_for.as_nanos()).unwrap();
                    let times = [desk.now, desk.now + valid];
                    lent.extend(block.grant.map(|grant| (who, grant, block.permits, times, late)));
                    prop_assert_eq!(block.permits > 0, block.decision.allowed);
                }
            }
        }
        // A block that is not given back is spent at one end of its validity.
        spends.extend(lent.iter().map(|(_, _, permits, times, late)| {
            (times[usize::from(*late)], *permits)
        }));
        prop_assert!(is_lawful(&limit, &mut spends), "{:?}", spends);
    }
}

#[test]
fn a_small_limit_lends_one_by_one_and_no_more_than_half_goes_to_one() {
    for (limit, permits) in [("1/s", 1), ("2/s sliding", 1), ("1/s gcra", 1), ("10/s", 5)] {
        let mut desk = Desk::new(&[], &[limit]);
        let session = desk.greet(1);
        assert_eq!(desk.block(session, "k", 100).permits, permits, "{limit}");
    }
}

#[test]
fn nothing_is_lent_while_others_wait_or_the_key_is_frozen() {
    let mut desk = Desk::new(&[], &["4/s"]);
    let session = desk.greet(1);
    desk.try_acquire(session, &[("k", 3)]);
    let waiter = desk.send(session, &wait_for(&[("k", 2)], 9 * SECOND));
    assert_eq!(desk.block(session, "k", 1).permits, 0);
    desk.handle(zmqlocker::engine::Input::Cancel(session, waiter));
    assert_eq!(desk.block(session, "k", 1).permits, 1);
    let length = std::time::Duration::from_secs(1);
    desk.ask(session, &Request::Freeze { key: key("other"), length });
    assert_eq!(desk.block(session, "other", 1).permits, 0);
}

#[test]
fn a_block_is_given_back_by_its_borrower_alone_and_never_more_than_was_lent() {
    let mut desk = Desk::new(&[], &["10/s sliding"]);
    let [borrower, other] = [desk.greet(1), desk.greet(2)];
    let block = desk.block(borrower, "k", 4);
    let grant = block.grant.unwrap();
    let back = |unused| Request::GiveBack { grant, unused };
    assert_eq!(code(&desk.ask(other, &back(1))), Some(Code::NotHeld));
    assert_eq!(code(&desk.ask(borrower, &back(5))), Some(Code::Config));
    assert_eq!(desk.ask(borrower, &back(4)), Reply::Done);
    assert_eq!(desk.peek(other, "k", 1).remaining, 10);
}

#[test]
fn blocks_of_one_instant_come_back_whole() {
    let mut desk = Desk::new(&[], &["20/s sliding"]);
    let session = desk.greet(1);
    let blocks = [5, 3].map(|wanted| desk.block(session, "k", wanted));
    for block in [&blocks[1], &blocks[0]] {
        let (grant, unused) = (block.grant.unwrap(), block.permits);
        desk.ask(session, &Request::GiveBack { grant, unused });
    }
    assert_eq!(desk.peek(session, "k", 1).remaining, 20);
}

#[test]
fn a_block_that_comes_back_leaves_a_later_one_its_time() {
    let reset_after = |with_earlier: bool| {
        let mut desk = Desk::new(&[], &["8/s gcra burst 3"]);
        let session = desk.greet(1);
        let earlier = with_earlier.then(|| desk.block(session, "k", 1).grant.unwrap());
        desk.advance(SECOND / 10);
        assert_eq!(desk.block(session, "k", 1).permits, 1);
        if let Some(grant) = earlier {
            desk.ask(session, &Request::GiveBack { grant, unused: 1 });
        }
        desk.peek(session, "k", 1).reset_after
    };
    assert_eq!(reset_after(true), reset_after(false));
}

#[test]
fn a_limit_in_the_shadow_lends_all_that_is_wanted() {
    let mut desk = Desk::new(&[], &["1/s shadow"]);
    let session = desk.greet(1);
    for _ in 0..3 {
        assert_eq!(desk.block(session, "k", 8).permits, 8);
    }
}
