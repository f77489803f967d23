//! Partitions go where operators want them.

use std::time::Duration;

use zmqlocker::cluster::{Input, Overview, Partition, ServerName, Standing, Wish};
use zmqlocker::registry::Outcome;

use crate::changes::{gaps, holds_of};
use crate::{Cluster, MILLI, settings};

fn name(text: &str) -> ServerName {
    ServerName::parse(text).unwrap()
}

impl Cluster {
    /// An operator wants something, which is so after a while.
    fn wish(&mut self, wish: &Wish) {
        let outcome = self.registry.transact(&wish.transaction(), false);
        assert!(matches!(outcome, Outcome::Done(_)));
        self.pass(2_000 * MILLI);
    }

    fn shows(&self, wish: &Wish) -> bool {
        Overview::read(&self.registry.read(Overview::PREFIX)).unwrap().shows(wish)
    }

    /// The partitions in which a server may grant.
    fn homes(&self, server: usize) -> Vec<Partition> {
        let grants = |it: &Partition| matches!(self.standing(server, *it), Standing::Granting(_));
        Partition::all().filter(grants).collect()
    }
}

#[test]
fn what_is_moved_goes_with_what_is_held_and_hardly_a_gap_and_stays() {
    let mut cluster = Cluster::of(&["a", "b", "c"]);
    cluster.servers.iter_mut().for_each(|it| it.changes.clear());
    let partition = cluster.homes(0)[5];
    let wish = Wish::Move(partition, name("c"));
    assert!(!cluster.shows(&wish));
    cluster.wish(&wish);
    assert!(cluster.shows(&wish));
    assert!(matches!(cluster.standing(2, partition), Standing::Granting(_)));
    assert_eq!(cluster.shares(), [21, 21, 22]);
    assert_eq!(holds_of(&cluster, 2), [Some(b"a".to_vec())]);
    let gaps = gaps(&cluster, 0);
    assert!(matches!(gaps[..], [gap] if gap < Duration::from_millis(50)), "{gaps:?}");
    // Others come and go, and it stays.
    cluster.start("d", settings("d", 4));
    cluster.pass(2_000 * MILLI);
    cluster.tell(0, Input::Leave);
    cluster.pass(2_000 * MILLI);
    assert!(cluster.homes(2).contains(&partition));
    assert_eq!(cluster.shares(), [0, 22, 21, 21]);
}

#[test]
fn who_was_given_more_than_its_share_has_it_until_it_is_taken_back() {
    let mut cluster = Cluster::of(&["a", "b", "c"]);
    for partition in Partition::all().take(40) {
        let outcome =
            cluster.registry.transact(&Wish::Move(partition, name("b")).transaction(), false);
        assert!(matches!(outcome, Outcome::Done(_)));
    }
    cluster.pass(2_000 * MILLI);
    assert_eq!(cluster.shares(), [12, 40, 12]);
    for partition in Partition::all().take(40) {
        cluster.wish(&Wish::Unmove(partition));
    }
    assert!(cluster.shares().iter().all(|share| (21..=22).contains(share)));
}

#[test]
fn what_is_moved_to_who_is_gone_is_served_by_others_until_that_is_back() {
    let mut cluster = Cluster::of(&["a", "b"]);
    let partition = cluster.homes(0)[0];
    cluster.wish(&Wish::Move(partition, name("b")));
    cluster.servers[1].is_up = false;
    cluster.pass(2_000 * MILLI);
    assert_eq!(cluster.shares(), [Partition::COUNT, 0]);
    cluster.start("b", settings("b", 3));
    cluster.pass(2_000 * MILLI);
    assert!(cluster.homes(2).contains(&partition));
    assert_eq!(cluster.shares(), [32, 0, 32]);
}

#[test]
fn who_is_drained_hands_over_all_it_has_and_gets_nothing_also_after_a_restart() {
    let mut cluster = Cluster::of(&["a", "b", "c"]);
    cluster.servers.iter_mut().for_each(|it| it.changes.clear());
    let wish = Wish::Drain(name("b"));
    cluster.wish(&wish);
    assert!(cluster.shows(&wish));
    assert_eq!(cluster.shares(), [32, 0, 32]);
    let gaps = gaps(&cluster, 1);
    assert_eq!(gaps.len(), 21);
    assert!(gaps.iter().all(|gap| *gap < Duration::from_millis(50)), "{gaps:?}");
    let handed = [holds_of(&cluster, 0), holds_of(&cluster, 2)].concat();
    assert_eq!(handed, vec![Some(b"b".to_vec()); 21]);
    // It knows who is home, and is one of them.
    let home = &cluster.servers[1].home;
    assert!(Partition::all().all(|it| home.home_of(it).is_some()));
    assert_eq!(home.servers().count(), 3);
    cluster.tell(1, Input::Leave);
    cluster.pass(1_000 * MILLI);
    assert!(cluster.servers[1].has_left);
    cluster.start("b", settings("b", 4));
    cluster.pass(2_000 * MILLI);
    assert_eq!(cluster.shares(), [32, 0, 32, 0]);
    assert!(cluster.shows(&wish));
    cluster.wish(&Wish::Undrain(name("b")));
    assert_eq!(cluster.shares(), [22, 0, 21, 21]);
}

#[test]
fn where_all_are_drained_that_counts_for_nothing() {
    let mut cluster = Cluster::of(&["a", "b"]);
    cluster.wish(&Wish::Drain(name("a")));
    assert_eq!(cluster.shares(), [0, Partition::COUNT]);
    cluster.servers[1].is_up = false;
    cluster.pass(2_000 * MILLI);
    assert_eq!(cluster.shares(), [Partition::COUNT, 0]);
    cluster.wish(&Wish::Drain(name("b")));
    cluster.start("b", settings("b", 3));
    cluster.pass(2_000 * MILLI);
    assert_eq!(cluster.shares(), [32, 0, 32]);
    cluster.wish(&Wish::Undrain(name("a")));
    assert_eq!(cluster.shares(), [Partition::COUNT, 0, 0]);
}

#[test]
fn what_was_moved_to_who_is_drained_goes_there_when_that_ends() {
    let mut cluster = Cluster::of(&["a", "b", "c"]);
    let partition = cluster.homes(0)[0];
    cluster.wish(&Wish::Move(partition, name("b")));
    cluster.wish(&Wish::Drain(name("b")));
    assert_eq!(cluster.shares(), [32, 0, 32]);
    cluster.wish(&Wish::Undrain(name("b")));
    assert!(cluster.homes(1).contains(&partition));
    assert!(cluster.shares().iter().all(|share| (21..=22).contains(share)));
}
