//! Cycles of waits: the youngest of a cycle is refused after a second, and nobody else ever is.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use zmqlocker::engine::{
    ClientInfo, Code, GrantId, Machine, Mode, Reply, Request, RequestId, SessionId, Term,
};
use zmqlocker::time::Timestamp;

use crate::locks::{M, READ, WRITE, lock, permits, term, wanted};
use crate::{Desk, SECOND, START, code};

fn desk<const N: usize>() -> (Desk, [SessionId; N]) {
    let mut desk = Desk::new(&[], &[]);
    let sessions = std::array::from_fn(|place| desk.greet(u8::try_from(place).unwrap()));
    (desk, sessions)
}

/// What a waiter has heard after so long: nothing, that it has its locks, or that it closed a
/// cycle.
fn refused(desk: &mut Desk, session: SessionId, id: RequestId) -> Option<bool> {
    desk.answer(session, id).map(|(_, reply)| match reply {
        Reply::Decision(decision) => !decision.allowed,
        reply => {
            assert_eq!(code(reply), Some(Code::Deadlock));
            true
        }
    })
}

#[test]
fn of_two_who_wait_for_each_other_the_younger_is_refused_after_a_second_and_the_other_goes_on() {
    let (mut desk, all @ [one, two]) = desk();
    desk.take(one, 1, &[("a", M)]).unwrap();
    let b = desk.take(two, 1, &[("b", M)]).unwrap();
    let first = desk.wait(one, 1, &[("b", M)]);
    desk.live(&all, SECOND / 2);
    let second = desk.wait(two, 1, &[("a", M)]);
    desk.live(&all, 2 * SECOND);
    let (at, reply) = desk.answer(two, second).unwrap();
    assert_eq!((at, code(reply)), (START + SECOND, Some(Code::Deadlock)));
    assert_eq!(desk.answer(one, first), None);
    desk.release(two, b);
    assert!(desk.token(one, first).is_some());
}

#[test]
fn the_message_names_who_waits_for_what_in_the_cycle() {
    let mut desk = Desk::new(&[], &[]);
    let all = ["one", "two", "three"].map(|name| {
        let client = ClientInfo { name: name.into(), host: "h".into(), pid: 7 };
        let now = Timestamp::from_nanos(desk.now);
        let machine: &mut Machine<usize> = &mut desk.machine;
        machine.greet(now, [name.as_bytes()[1]; 16], client).unwrap().0
    });
    let keys = ["a", "b", "c"];
    let held = [0, 1, 2].map(|at| desk.take(all[at], 5, &[(keys[at], M)]).unwrap());
    let waits = [0, 1, 2].map(|at| desk.wait(all[at], 5, &[(keys[(at + 1) % 3], M)]));
    desk.live(&all, 2 * SECOND);
    let Some((_, Reply::Refuse(problem))) = desk.answer(all[2], waits[2]) else { panic!() };
    let who = |name: &str| format!("thread or task 5 of {name:?} (process 7 on h)");
    let has = |key: &str, name, token: GrantId| {
        format!("waits for {key:?}; {} has it with the token {}", who(name), token.0)
    };
    let told = format!(
        "this wait is the youngest of a cycle in which nobody could go on: {} {}, and {}, and {}",
        who("three"),
        has("a", "one", held[0]),
        has("b", "two", held[1]),
        has("c", "three", held[2]),
    );
    assert_eq!(problem.message, told);
    assert_eq!(problem.code, Code::Deadlock);
    assert_eq!((desk.answer(all[0], waits[0]), desk.answer(all[1], waits[1])), (None, None));
}

#[test]
fn who_waits_for_what_it_holds_itself_is_refused() {
    for (held, wanted) in [(M, M), (READ, WRITE), (permits(3, 2), permits(3, 2))] {
        let (mut desk, all @ [one]) = desk();
        desk.take(one, 1, &[("k", held)]).unwrap();
        let waiter = desk.wait(one, 1, &[("k", wanted)]);
        desk.live(&all, 2 * SECOND);
        assert_eq!(refused(&mut desk, one, waiter), Some(true), "{held:?}");
    }
}

#[test]
fn two_readers_that_both_want_to_write_are_a_cycle() {
    let (mut desk, all @ [one, two]) = desk();
    let [_, held] = all.map(|session| desk.take(session, 1, &[("k", READ)]).unwrap());
    let waits = all.map(|session| desk.wait(session, 1, &[("k", WRITE)]));
    desk.live(&all, 2 * SECOND);
    // The elder waits for what it holds itself, too.
    assert_eq!(refused(&mut desk, one, waits[0]), Some(true));
    assert_eq!(refused(&mut desk, two, waits[1]), Some(true));
    assert_eq!(desk.release(two, held), None);
}

#[test]
fn a_cycle_may_lead_through_a_place_in_a_queue() {
    let (mut desk, all @ [reader, writer]) = desk();
    let held = desk.take(reader, 1, &[("k", READ)]).unwrap();
    let write = desk.wait(writer, 2, &[("k", WRITE)]);
    // It would be let in beside itself, but the writer is before it and waits for it.
    let again = desk.wait(reader, 1, &[("k", READ)]);
    desk.live(&all, 2 * SECOND);
    let Some((_, Reply::Refuse(problem))) = desk.answer(reader, again) else { panic!() };
    let who = |actor: u64| format!("thread or task {actor} of process 0 on ");
    let told = format!(
        ": {} waits for \"k\"; {} waits for it before, and waits for \"k\"; {} has it with the \
         token {}",
        who(1),
        who(2),
        who(1),
        held.0
    );
    assert!(problem.message.ends_with(&told), "{} is not {told}", problem.message);
    assert_eq!(refused(&mut desk, reader, again), Some(true));
    assert_eq!(refused(&mut desk, writer, write), None);
    desk.release(reader, held);
    assert!(desk.token(writer, write).is_some());
}

#[test]
fn a_cycle_may_lead_through_several_keys_of_one_wait() {
    let (mut desk, all @ [one, two, idle]) = desk();
    desk.take(one, 1, &[("a", M)]).unwrap();
    desk.take(two, 1, &[("b", M)]).unwrap();
    let free = desk.take(idle, 1, &[("c", M)]).unwrap();
    let first = desk.wait(one, 1, &[("c", M), ("b", M)]);
    let second = desk.wait(two, 1, &[("d", M), ("a", M)]);
    desk.live(&all, 2 * SECOND);
    assert_eq!(refused(&mut desk, two, second), Some(true));
    assert_eq!(refused(&mut desk, one, first), None);
    assert_eq!(desk.release(idle, free), None);
}

#[test]
fn who_may_still_be_served_by_somebody_who_does_not_wait_is_left_alone() {
    let (mut desk, all @ [one, two, third]) = desk();
    let semaphore = [("s", permits(2, 1))];
    desk.take(one, 1, &semaphore).unwrap();
    let free = desk.take(third, 1, &semaphore).unwrap();
    desk.take(two, 1, &[("m", M)]).unwrap();
    let waits = [desk.wait(one, 1, &[("m", M)]), desk.wait(two, 1, &semaphore)];
    desk.live(&all, 3 * SECOND);
    assert_eq!([desk.answer(one, waits[0]), desk.answer(two, waits[1])], [None, None]);
    // When that one waits too, it has closed the cycle.
    let last = desk.wait(third, 1, &[("m", M)]);
    desk.live(&all, 2 * SECOND);
    assert_eq!(refused(&mut desk, third, last), Some(true));
    desk.release(third, free);
    assert!(desk.token(two, waits[1]).is_some());
}

#[test]
fn a_lease_that_ends_by_itself_another_thread_or_nobody_in_particular_is_no_cycle() {
    let forever = term(9 * SECOND);
    let ends = Term::new(Duration::from_secs(9), Some(Duration::from_secs(60))).unwrap();
    for (term, holder, waiter) in [(ends, 1, 1), (forever, 1, 2), (forever, 0, 0)] {
        let (mut desk, all @ [one, two]) = desk();
        for (session, key) in [(one, "a"), (two, "b")] {
            desk.ask(session, &lock(&[(key, M)], None, term, holder));
        }
        let waits = [(one, "b"), (two, "a")].map(|(session, key)| {
            let request = lock(&[(key, M)], Some(9 * SECOND), forever, waiter);
            desk.send(session, &request)
        });
        desk.live(&all, 4 * SECOND);
        assert_eq!([desk.answer(one, waits[0]), desk.answer(two, waits[1])], [None, None]);
    }
}

#[test]
fn who_stands_behind_a_cycle_is_not_refused() {
    let (mut desk, all @ [one, two, third]) = desk();
    desk.take(one, 1, &[("a", M)]).unwrap();
    desk.take(two, 1, &[("b", M)]).unwrap();
    desk.take(third, 1, &[("c", M)]).unwrap();
    desk.wait(one, 1, &[("b", M)]);
    let second = desk.wait(two, 1, &[("a", M)]);
    let behind = desk.wait(third, 1, &[("a", M)]);
    desk.live(&all, 3 * SECOND);
    assert_eq!(refused(&mut desk, two, second), Some(true));
    assert_eq!(refused(&mut desk, third, behind), None);
}

#[test]
fn who_closes_two_cycles_is_not_left_in_one_of_them() {
    let (mut desk, all @ [one, two, third]) = desk();
    let held = [(one, "a"), (two, "b"), (third, "c")];
    let held = held.map(|(session, key)| desk.take(session, 1, &[(key, M)]).unwrap());
    let first = desk.wait(one, 1, &[("c", M)]);
    let closing = desk.wait(third, 1, &[("a", M), ("b", M)]);
    desk.live(&all, SECOND / 2);
    let late = desk.wait(two, 1, &[("c", M)]);
    desk.live(&all, 3 * SECOND);
    assert_eq!(refused(&mut desk, third, closing), Some(true));
    for id in [(one, first), (two, late)] {
        assert!(matches!(refused(&mut desk, id.0, id.1), None | Some(true)));
    }
    desk.release(third, held[2]);
    assert!(desk.token(one, first).is_some());
}

#[test]
fn a_cycle_is_found_where_its_leases_were_reclaimed_while_their_holders_waited() {
    let (mut desk, all @ [one, two]) = desk();
    desk.machine.number_grants_above(GrantId(100));
    desk.machine.begin_locks(Timestamp::from_nanos(desk.now), false);
    let waits = [(one, "b"), (two, "a")].map(|(it, key)| desk.wait(it, 1, &[(key, M)]));
    for (session, key, grant) in [(one, "a", 7), (two, "b", 8)] {
        let wanted = wanted(&[(key, M)], term(SECOND), 1);
        let grant = GrantId(grant);
        let reclaim = Request::Reclaim { grant, wanted };
        assert_eq!(desk.ask(session, &reclaim), Reply::Done);
    }
    desk.live(&all, 3 * SECOND);
    assert_eq!(refused(&mut desk, two, waits[1]), Some(true));
    assert_eq!(refused(&mut desk, one, waits[0]), None);
}

/// Whether somebody who waits can never be served, if all who do not wait give back what they have:
/// the naive way. Who holds and who waits, by their places: of each, what of which key.
fn is_stuck(held: &[Vec<(usize, u64)>], waits: &[Option<(usize, u64)>], order: &[usize]) -> bool {
    let mut stuck: Vec<usize> = order.to_vec();
    loop {
        let can = |at: usize| {
            let who = stuck[at];
            let Some((key, cost)) = waits[who] else { return true };
            let before = stuck[..at].iter().any(|it| waits[*it].is_some_and(|(it, _)| it == key));
            let kept: u64 = stuck
                .iter()
                .flat_map(|it| &held[*it])
                .filter(|(it, _)| *it == key)
                .map(|(_, cost)| cost)
                .sum();
            !before && kept + cost <= 2
        };
        match (0..stuck.len()).find(|at| can(*at)) {
            Some(at) => stuck.remove(at),
            None => return !stuck.is_empty(),
        };
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn somebody_is_refused_if_and_only_if_nobody_could_ever_be_served(
        takes in vec((0..5_usize, 0..4_usize, 1..3_u64), 1..12),
        waits in Just(vec![0, 1, 2, 3, 4]).prop_shuffle(),
        wanted in vec(prop::option::weighted(0.8, (0..4_usize, 1..3_u64)), 5),
    ) {
        const NAMES: [&str; 4] = ["a", "b", "c", "d"];
        let (mut desk, all) = desk::<5>();
        let mode = |cost| -> Mode { permits(2, cost) };
        let mut held = vec![Vec::new(); 5];
        for (who, key, cost) in takes {
            if desk.take(all[who], 1, &[(NAMES[key], mode(cost))]).is_some() {
                held[who].push((key, cost));
            }
        }
        let mut waiting = vec![None; 5];
        let mut order = Vec::new();
        let mut ids = Vec::new();
        for who in waits {
            let Some((key, cost)) = wanted[who] else { continue };
            let id = desk.wait(all[who], 1, &[(NAMES[key], mode(cost))]);
            if desk.token(all[who], id).is_some() {
                held[who].push((key, cost));
            } else {
                waiting[who] = Some((key, cost));
                order.push(who);
                ids.push((who, id));
            }
        }
        // Long enough for all cycles, one after another.
        desk.live(&all, 2 * SECOND);
        let gone: Vec<usize> = ids
            .iter()
            .filter(|(who, id)| refused(&mut desk, all[*who], *id) == Some(true))
            .map(|(who, _)| *who)
            .collect();
        prop_assert_eq!(!gone.is_empty(), is_stuck(&held, &waiting, &order));
        // Whoever was refused has what it had, and waits for nothing.
        for who in &gone {
            waiting[*who] = None;
        }
        order.retain(|who| !gone.contains(who));
        prop_assert!(!is_stuck(&held, &waiting, &order));
    }
}
