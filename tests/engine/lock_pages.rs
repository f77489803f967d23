//! What operators see of locks, and how they take them away.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;
use zmqlocker::engine::{
    ClientInfo, Code, GrantId, Input, Mode, Output, Reply, Request, RequestId, SessionId,
};
use zmqlocker::time::Timestamp;

use crate::locks::{M, READ, WRITE, lock, permits, term};
use crate::{Desk, SECOND, START, code, key};

fn break_lock(desk: &mut Desk, by: SessionId, name: &str, grant: Option<GrantId>) -> Reply {
    desk.ask(by, &Request::Break { key: key(name), grant })
}

/// What a client was told that it has lost, since the place in all that was said.
fn lost(desk: &Desk, session: SessionId, from: usize) -> Vec<Vec<u64>> {
    let told = |(_, output): &(u64, Output<usize>)| match output {
        Output::Lost { session: to, grants } if *to == session => {
            Some(grants.iter().map(|grant| grant.0).collect())
        }
        _ => None,
    };
    desk.heard[from..].iter().filter_map(told).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn all_pages_together_have_every_row_once_and_each_queue_in_order(
        readers in 0..200_usize,
        waiters in 0..120_usize,
        others in vec((1..250_usize, 1..250_usize), 0..60),
    ) {
        let mut desk = Desk::new(&[], &[]);
        let sessions: Vec<_> = (0_u8..3)
            .map(|name| {
                let size = usize::from(name) * 100 + 5;
                let (host, name_text) = ("h".repeat(size), "n".repeat(size));
                let client = ClientInfo { name: name_text.into(), host: host.into(), pid: 1 };
                let now = Timestamp::from_nanos(START);
                desk.machine.greet(now, [name; 16], client).unwrap().0
            })
            .collect();
        let mut held = Vec::new();
        for place in 0..readers {
            held.extend(desk.take(sessions[place % 3], 0, &[("r", READ)]));
        }
        for place in 0..waiters {
            let mode = if place == 0 { WRITE } else { READ };
            desk.wait(sessions[place % 3], 0, &[("r", mode)]);
        }
        let mut names = BTreeSet::new();
        for (place, (length, who)) in others.into_iter().enumerate() {
            let name = format!("{place}{}", "k".repeat(length));
            desk.take(sessions[who % 3], 0, &[(&name, M)]).unwrap();
            names.insert(name);
        }
        let rows = desk.rows(sessions[0]);
        let (rw_lock, mutexes): (Vec<_>, Vec<_>) = rows.iter().partition(|row| &*row.key == "r");
        let tokens: Vec<_> = rw_lock.iter().filter_map(|row| row.grant).collect();
        if readers > 0 {
            prop_assert_eq!(&tokens, &held);
            prop_assert_eq!(rw_lock.len(), readers + waiters);
        }
        let queue: Vec<_> = rw_lock.iter().skip(tokens.len()).collect();
        for (place, row) in queue.iter().enumerate() {
            prop_assert!(row.grant.is_none() && (readers == 0
                || row.session == Some(sessions[place % 3])));
        }
        prop_assert_eq!(mutexes.len(), names.len());
        let seen: BTreeSet<String> = mutexes.iter().map(|row| row.key.to_string()).collect();
        prop_assert_eq!(seen, names);
        for row in &rows {
            prop_assert_eq!(Some(&row.client), desk.machine.client(row.session.unwrap()));
        }
    }
}

#[test]
fn a_row_says_in_which_mode_for_how_long_and_how_much_longer() {
    let mut desk = Desk::new(&[], &[]);
    let [one, two] = [desk.greet(1), desk.greet(2)];
    desk.ask(one, &lock(&[("s", permits(5, 4)), ("r", READ)], None, term(2 * SECOND), 0));
    desk.advance(SECOND / 2);
    desk.send(two, &lock(&[("s", permits(5, 3))], Some(SECOND), term(2 * SECOND), 0));
    desk.advance(SECOND / 2);
    let rows = desk.rows(two);
    let nanos = |length: std::time::Duration| u64::try_from(length.as_nanos()).unwrap();
    let seen: Vec<_> = rows
        .iter()
        .map(|row| (&*row.key, row.mode, row.grant, nanos(row.since), nanos(row.left)))
        .collect();
    let left = 2 * SECOND + 2 * SECOND * 4 / 1000 - SECOND;
    let expected: [(&str, Mode, Option<GrantId>, u64, u64); 3] = [
        ("s", permits(5, 4), Some(GrantId(1)), SECOND, left),
        ("s", permits(5, 3), None, SECOND / 2, SECOND / 2),
        ("r", READ, Some(GrantId(1)), SECOND, left),
    ];
    assert_eq!(seen, expected);
}

#[test]
fn a_lock_that_is_broken_goes_to_the_next_and_its_holder_is_told_until_it_gives_it_up() {
    let mut desk = Desk::new(&[], &[]);
    let [holder, other, operator] = [1, 2, 3].map(|name| desk.greet(name));
    let grant = desk.take(holder, 0, &[("k", M)]).unwrap();
    let next = desk.wait(other, 0, &[("k", M)]);
    assert_eq!(break_lock(&mut desk, operator, "k", None), Reply::Done);
    assert!(desk.token(other, next).is_some_and(|token| token > grant));
    assert_eq!(lost(&desk, holder, 0), [[grant.0]]);
    for _ in 0..2 {
        let from = desk.heard.len();
        desk.handle(Input::Beat(holder, RequestId(0), &[]));
        assert_eq!(lost(&desk, holder, from), [[grant.0]]);
        desk.handle(Input::Beat(other, RequestId(0), &[]));
        assert_eq!(lost(&desk, other, from), [[0; 0]; 0]);
    }
    assert_eq!(desk.release(holder, grant), Some(Code::NotHeld));
    let from = desk.heard.len();
    desk.handle(Input::Beat(holder, RequestId(0), &[]));
    assert_eq!(lost(&desk, holder, from), [[0; 0]; 0]);
    assert_eq!(desk.take(holder, 0, &[("k", M)]), None, "the next has it still");
}

#[test]
fn only_the_token_that_is_current_is_broken_if_one_is_named() {
    let mut desk = Desk::new(&[], &[]);
    let [one, two] = [1, 2].map(|name| desk.greet(name));
    let old = desk.take(one, 0, &[("k", READ)]).unwrap();
    let kept = desk.take(one, 0, &[("k", READ)]).unwrap();
    let elsewhere = desk.take(one, 0, &[("l", M)]).unwrap();
    assert_eq!(break_lock(&mut desk, two, "k", Some(old)), Reply::Done);
    for grant in [old, elsewhere, GrantId(99)] {
        let Reply::Refuse(problem) = break_lock(&mut desk, two, "k", Some(grant)) else { panic!() };
        assert_eq!(problem.code, Code::NotHeld);
        let said = format!("the token {} is not current for the lock \"k\"", grant.0);
        assert_eq!(problem.message, said);
    }
    assert_eq!(desk.release(one, kept), None);
    let reply = break_lock(&mut desk, two, "k", None);
    assert_eq!(code(&reply), Some(Code::NotHeld));
    assert_eq!(desk.release(one, elsewhere), None);
}

#[test]
fn whoever_holds_several_locks_of_one_lease_loses_them_together() {
    let mut desk = Desk::new(&[], &[]);
    let [one, two] = [1, 2].map(|name| desk.greet(name));
    desk.take(one, 0, &[("a", M), ("b", M)]).unwrap();
    assert_eq!(break_lock(&mut desk, two, "b", None), Reply::Done);
    assert!(desk.take(two, 0, &[("a", M)]).is_some());
}

#[test]
fn all_readers_lose_a_lock_and_the_writer_has_it() {
    let mut desk = Desk::new(&[], &[]);
    let [one, two, writer] = [1, 2, 3].map(|name| desk.greet(name));
    let held = [one, two].map(|session| desk.take(session, 0, &[("k", READ)]).unwrap());
    let write = desk.wait(writer, 0, &[("k", WRITE)]);
    assert_eq!(break_lock(&mut desk, writer, "k", None), Reply::Done);
    assert_eq!(
        (lost(&desk, one, 0), lost(&desk, two, 0)),
        (vec![vec![held[0].0]], vec![vec![held[1].0]])
    );
    assert!(desk.token(writer, write).is_some());
}
