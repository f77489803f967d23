//! Partitions change hands: who comes, who goes, and who is gone.

use std::time::Duration;

use zmqlocker::cluster::{Epoch, Holds, Input, Partition, Standing};

use crate::{Change, Cluster, MILLI, millis, settings};

/// How long each partition that a server has stopped was without a home.
pub fn gaps(cluster: &Cluster, from: usize) -> Vec<Duration> {
    let stops = cluster.servers[from].changes.iter().filter(|(.., it)| *it == Change::Stopped);
    let gaps = stops.map(|(stopped_at, partition, _)| {
        let others = cluster.servers.iter().flat_map(|it| &it.changes);
        let mut gains = others.filter(|(time, it, change)| {
            it == partition && time >= stopped_at && matches!(change, Change::Gained { .. })
        });
        let (gained_at, _, change) = gains.next().expect("a successor");
        let Change::Gained { start, .. } = change else { unreachable!() };
        millis(gained_at.max(start) - stopped_at)
    });
    gaps.collect()
}

pub fn holds_of(cluster: &Cluster, server: usize) -> Vec<Holds> {
    let gained = cluster.servers[server].changes.iter().filter_map(|(.., change)| match change {
        Change::Gained { holds, .. } => Some(holds.clone()),
        _ => None,
    });
    gained.collect()
}

#[test]
fn what_is_handed_on_as_soon_as_it_comes_is_not_deleted_before_it_is_read() {
    // The third server joins at some instant of the change of hands to the second.
    for wait in 0..60 {
        let mut cluster = Cluster::of(&["a"]);
        cluster.start("b", settings("b", 2));
        cluster.pass(wait * 5 * MILLI);
        cluster.start("c", settings("c", 3));
        cluster.pass(1_000 * MILLI);
        assert_eq!(cluster.shares(), [22, 21, 21]);
        for server in [1, 2] {
            assert!(!holds_of(&cluster, server).contains(&None), "after {wait} times 5 ms");
        }
    }
}

#[test]
fn the_first_server_has_all_partitions_at_once() {
    let mut cluster = Cluster::new();
    cluster.start("a", settings("a", 1));
    cluster.pass(100 * MILLI);
    assert_eq!(cluster.shares(), [Partition::COUNT]);
    assert_eq!(cluster.standing(0, Partition::default()), Standing::Granting(Epoch(1)));
    let (name, url) = cluster.servers[0].home.home_of(Partition::default()).unwrap();
    assert_eq!((name.as_str(), url), ("a", "tcp://a:7777"));
}

#[test]
fn who_joins_has_its_share_with_what_is_held_and_hardly_a_gap() {
    let mut cluster = Cluster::of(&["a"]);
    cluster.start("b", settings("b", 2));
    cluster.pass(1_000 * MILLI);
    assert_eq!(cluster.shares(), [32, 32]);
    let gaps = gaps(&cluster, 0);
    assert!(
        gaps.len() == 32 && gaps.iter().all(|gap| *gap < Duration::from_millis(50)),
        "{gaps:?}"
    );
    assert_eq!(holds_of(&cluster, 1), vec![Some(b"a".to_vec()); 32]);
    cluster.start("c", settings("c", 3));
    cluster.pass(1_000 * MILLI);
    assert_eq!(cluster.shares(), [22, 21, 21]);
    // Some of it was handed on as soon as it had come, before it was deleted.
    assert_eq!(holds_of(&cluster, 2).iter().filter(|holds| holds.is_none()).count(), 0);
    // What was read is not kept.
    assert!(cluster.registry.entries.keys().all(|key| !key.starts_with("holds/")));
}

#[test]
fn who_leaves_hands_over_all_it_has_and_hardly_leaves_a_gap() {
    let mut cluster = Cluster::of(&["a", "b", "c"]);
    cluster.servers[1].changes.clear();
    cluster.tell(1, Input::Leave);
    cluster.pass(1_000 * MILLI);
    assert!(cluster.servers[1].has_left);
    assert_eq!(cluster.shares(), [32, 0, 32]);
    let gaps = gaps(&cluster, 1);
    assert!(gaps.iter().all(|gap| *gap < Duration::from_millis(50)), "{gaps:?}");
    assert!(!cluster.registry.entries.contains_key("state/srv/b"));
}

#[test]
fn what_the_last_one_held_the_next_one_has() {
    let mut cluster = Cluster::of(&["a"]);
    cluster.tell(0, Input::Leave);
    cluster.pass(1_000 * MILLI);
    assert!(cluster.servers[0].has_left);
    cluster.start("b", settings("b", 2));
    cluster.pass(300 * MILLI);
    assert_eq!(cluster.shares(), [0, Partition::COUNT]);
    assert_eq!(holds_of(&cluster, 1), vec![Some(b"a".to_vec()); Partition::COUNT]);
}

#[test]
fn what_is_too_long_to_hand_over_is_heard_from_its_holders() {
    let mut cluster = Cluster::of(&["a"]);
    cluster.servers[0].holds = None;
    cluster.start("b", settings("b", 2));
    cluster.pass(700 * MILLI);
    assert_eq!(cluster.shares(), [32, 0]);
    cluster.pass(800 * MILLI);
    assert_eq!(cluster.shares(), [32, 32]);
    assert_eq!(holds_of(&cluster, 1), vec![None; 32]);
}

#[test]
fn who_is_gone_is_sealed_and_its_partitions_are_served_again_in_time() {
    let mut cluster = Cluster::of(&["a", "b", "c"]);
    cluster.servers[0].is_up = false;
    let [gone_at, before] = [cluster.now, cluster.shares()[1] as u64];
    cluster.servers.iter_mut().for_each(|it| it.changes.clear());
    while cluster.shares() != [0, 32, 32] {
        cluster.pass(MILLI);
        assert!(cluster.shares()[1] as u64 >= before, "others do not stop");
        assert!(millis(cluster.now - gone_at) < Duration::from_millis(1_700));
    }
    let taken = cluster.servers[1..].iter().flat_map(|it| &it.changes);
    for (time, _, change) in taken {
        let Change::Gained { epoch, start, holds: None } = change else { panic!("{change:?}") };
        assert!(*epoch > Epoch(1) && start - time == 800 * MILLI);
        // The last beat was sent up to 150 ms before.
        assert!(time - gone_at > 545 * MILLI, "too soon");
    }
}

#[test]
fn who_takes_over_waits_for_leases_that_are_longer_than_the_grace() {
    let mut cluster = Cluster::of(&["a", "b"]);
    let partition = Partition::all().find(|it| cluster.standing(0, *it) != Standing::Elsewhere);
    let (partition, length) = (partition.unwrap(), Duration::from_secs(5));
    cluster.servers[0].changes.clear();
    cluster.tell(0, Input::Cover { partition, length });
    cluster.pass(50 * MILLI);
    let [(covered_at, _, Change::Covered(covered))] = cluster.servers[0].changes[..] else {
        panic!("{:?}", cluster.servers[0].changes)
    };
    assert!(covered == length && covered_at <= cluster.now);
    cluster.servers[0].is_up = false;
    cluster.pass(1_800 * MILLI);
    assert_eq!(cluster.shares(), [0, 63]);
    assert!(matches!(cluster.standing(1, partition), Standing::Reclaiming(..)));
    cluster.pass(4_000 * MILLI);
    assert_eq!(cluster.shares(), [0, 64]);
    // Whoever is home next waits as long.
    let record = &cluster.registry.entries[&format!("state/part/{partition}")].value;
    assert!(record.ends_with(b" taken 5000"));
}

#[test]
fn without_a_registry_nothing_is_granted_after_600_ms_and_all_is_as_it_was_when_it_is_back() {
    let mut cluster = Cluster::of(&["a", "b"]);
    cluster.reaches = false;
    cluster.pass(400 * MILLI);
    assert_eq!(cluster.shares(), [32, 32]);
    cluster.pass(200 * MILLI);
    assert_eq!(cluster.shares(), [0, 0]);
    assert_eq!(cluster.standing(0, Partition::default()), Standing::Suspended);
    cluster.pass(5_000 * MILLI);
    cluster.servers.iter_mut().for_each(|it| it.changes.clear());
    cluster.reaches = true;
    cluster.pass(1_500 * MILLI);
    assert_eq!(cluster.shares(), [32, 32]);
}

#[test]
fn an_answer_that_is_unknown_gives_no_time_although_it_was_done() {
    let mut cluster = Cluster::of(&["a"]);
    cluster.answers = false;
    cluster.pass(650 * MILLI);
    assert_eq!(cluster.standing(0, Partition::default()), Standing::Suspended);
    cluster.answers = true;
    cluster.pass(200 * MILLI);
    assert_eq!(cluster.shares(), [Partition::COUNT]);
    assert_eq!(cluster.servers[0].home.epoch(Partition::default()), Epoch(1));
}

#[test]
fn who_was_sealed_while_it_stood_still_has_nothing_and_joins_again() {
    let mut cluster = Cluster::of(&["a", "b"]);
    cluster.servers[0].is_up = false;
    cluster.pass(2_000 * MILLI);
    cluster.servers[0].is_up = true;
    cluster.servers[0].changes.clear();
    cluster.pass(10 * MILLI);
    let lost = cluster.servers[0].changes.iter().filter(|(.., it)| *it == Change::Lost);
    assert_eq!(lost.count(), 32);
    cluster.pass(1_000 * MILLI);
    assert_eq!(cluster.shares(), [32, 32]);
}

#[test]
fn no_two_changes_of_hands_have_one_epoch_and_later_ones_have_later_ones() {
    let mut cluster = Cluster::of(&["a", "b"]);
    cluster.start("c", settings("c", 3));
    cluster.pass(1_000 * MILLI);
    cluster.servers[0].is_up = false;
    cluster.pass(2_000 * MILLI);
    let gains = cluster.servers.iter().enumerate().flat_map(|(number, server)| {
        server.changes.iter().filter_map(move |(time, _, change)| match change {
            Change::Gained { epoch, .. } => Some((*epoch, number, *time)),
            _ => None,
        })
    });
    let mut gains: Vec<_> = gains.collect();
    gains.sort_unstable();
    for pair in gains.windows(2) {
        let [(epoch, server, time), (next_epoch, next_server, next_time)] = pair else { panic!() };
        assert!(epoch != next_epoch || server == next_server, "{pair:?}");
        assert!(server != next_server || time <= next_time, "{pair:?}");
    }
}

#[test]
fn a_server_writes_less_than_ten_times_a_second() {
    let mut cluster = Cluster::of(&["a", "b", "c"]);
    cluster.writes = 0;
    cluster.pass(10_000 * MILLI);
    assert!(cluster.writes < 3 * 10 * 7, "{}", cluster.writes);
    assert!(cluster.writes > 3 * 10 * 6, "{}", cluster.writes);
}
