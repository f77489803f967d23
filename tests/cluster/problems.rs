//! What a server cannot be part of, and how it says so.

use zmqlocker::cluster::{Epoch, Memory, Partition, RunId};
use zmqlocker::registry::{Entry, Revision};

use crate::{Cluster, MILLI, settings};

/// Why a server has failed.
fn problem(cluster: &Cluster, server: usize) -> String {
    let problem = cluster.servers[server].problem.as_ref();
    problem.map(ToString::to_string).unwrap_or_default()
}

fn write(cluster: &mut Cluster, key: &str, value: &str) {
    let registry = &mut cluster.registry;
    registry.revision += 1;
    let (created, modified) = (Revision(registry.revision), Revision(registry.revision));
    let entry = Entry { key: key.to_owned(), value: value.into(), created, modified };
    registry.entries.insert(key.to_owned(), entry);
}

#[test]
fn a_second_server_of_a_name_is_told_so_and_the_first_one_goes_on() {
    let mut cluster = Cluster::of(&["a"]);
    cluster.start("a", settings("a", 2));
    cluster.pass(1_000 * MILLI);
    assert_eq!(
        problem(&cluster, 1),
        "another server of this cluster is named \"a\", and serves tcp://a:7777: give each server \
         a name of its own"
    );
    assert_eq!(cluster.shares(), [Partition::COUNT, 0]);
    assert_eq!(cluster.servers[0].name, "a");
}

#[test]
fn a_second_server_of_a_url_is_told_so_and_the_first_one_goes_on() {
    let at_a = || crate::Settings { url: settings("a", 1).url, ..settings("b", 2) };
    let told = "the server \"a\" of this cluster is found at tcp://a:7777 as well: give each \
                server a URL of its own, by `url` or by `advertise`";
    let mut cluster = Cluster::of(&["a"]);
    cluster.start("b", at_a());
    cluster.pass(1_000 * MILLI);
    assert_eq!(problem(&cluster, 1), told);
    assert_eq!(cluster.shares(), [Partition::COUNT, 0]);
    // Of two that start at once, the first in the registry stays.
    let mut cluster = Cluster::new();
    cluster.start("a", settings("a", 1));
    cluster.start("b", at_a());
    cluster.pass(3_000 * MILLI);
    assert_eq!([problem(&cluster, 0), problem(&cluster, 1)], ["", told]);
    assert_eq!(cluster.shares(), [Partition::COUNT, 0]);
}

#[test]
fn a_server_that_comes_back_under_another_name_takes_the_place_of_its_earlier_run() {
    let mut cluster = Cluster::of(&["a", "c"]);
    cluster.servers[0].is_up = false;
    cluster.start("b", crate::Settings { url: settings("a", 1).url, ..settings("b", 3) });
    cluster.pass(3_000 * MILLI);
    assert_eq!(problem(&cluster, 2), "");
    assert_eq!(cluster.shares(), [0, Partition::COUNT / 2, Partition::COUNT / 2]);
    // The earlier run was only slow: it finds its place taken.
    cluster.servers[0].is_up = true;
    cluster.pass(3_000 * MILLI);
    assert!(problem(&cluster, 0).contains("\"b\" of this cluster is found at tcp://a:7777"));
    assert_eq!(cluster.shares(), [0, Partition::COUNT / 2, Partition::COUNT / 2]);
}

#[test]
fn who_has_given_way_is_in_nobodys_way() {
    let at_a = |name, run| crate::Settings { url: settings("a", 1).url, ..settings(name, run) };
    let mut cluster = Cluster::new();
    for settings in [settings("a", 1), at_a("b", 2), settings("c", 3)] {
        cluster.start("", settings);
    }
    cluster.pass(500 * MILLI);
    assert!(problem(&cluster, 1).contains("found at tcp://a:7777 as well"));
    assert!(!cluster.registry.entries.contains_key("state/srv/b"));
    // It joins again after it was sealed.
    cluster.servers[0].is_up = false;
    cluster.pass(1_000 * MILLI);
    cluster.servers[0].is_up = true;
    cluster.pass(3_000 * MILLI);
    assert_eq!(cluster.shares(), [Partition::COUNT / 2, 0, Partition::COUNT / 2]);
}

#[test]
fn what_a_dead_server_has_left_at_a_url_is_deleted_by_who_serves_there() {
    let mut cluster = Cluster::of(&["a"]);
    let ours = cluster.registry.entries["state/srv/a"].value.clone();
    write(&mut cluster, "state/srv/b", std::str::from_utf8(&ours).unwrap());
    cluster.pass(600 * MILLI);
    assert!(cluster.registry.entries.contains_key("state/srv/b"));
    cluster.pass(400 * MILLI);
    assert!(!cluster.registry.entries.contains_key("state/srv/b"));
    assert_eq!((problem(&cluster, 0), cluster.shares()), (String::new(), vec![Partition::COUNT]));
}

#[test]
fn a_server_waits_for_the_one_that_leaves_its_url() {
    let mut cluster = Cluster::of(&["a", "c"]);
    cluster.tell(0, crate::Input::Leave);
    cluster.pass(20 * MILLI);
    cluster.start("b", crate::Settings { url: settings("a", 1).url, ..settings("b", 3) });
    cluster.pass(3_000 * MILLI);
    assert!(cluster.servers[0].has_left);
    assert_eq!(problem(&cluster, 2), "");
    assert_eq!(cluster.shares(), [0, Partition::COUNT / 2, Partition::COUNT / 2]);
}

#[test]
fn a_server_that_starts_anew_takes_the_place_of_its_earlier_run() {
    let mut cluster = Cluster::of(&["a"]);
    cluster.servers[0].is_up = false;
    cluster.start("a", settings("a", 2));
    cluster.pass(2_000 * MILLI);
    assert_eq!(problem(&cluster, 1), "");
    assert_eq!(cluster.shares(), [0, Partition::COUNT]);
    assert_eq!(cluster.servers[1].home.epoch(Partition::default()), Epoch(3));
}

#[test]
fn a_registry_that_was_restored_is_refused_by_who_has_seen_it_before() {
    let mut cluster = Cluster::of(&["a"]);
    let backup = cluster.registry.clone();
    cluster.pass(1_000 * MILLI);
    cluster.registry = backup;
    cluster.pass(1_000 * MILLI);
    let told = problem(&cluster, 0);
    assert!(told.starts_with("the registry went back: it is at revision "), "{told}");
    assert!(told.contains("start them with `above=2` in the registry's URL"), "{told}");
    assert_eq!(cluster.shares(), [0]);
}

#[test]
fn a_registry_that_was_restored_is_refused_by_who_remembers_and_mended_by_a_number() {
    let mut cluster = Cluster::of(&["a"]);
    let backup = cluster.registry.clone();
    let mut memory = cluster.servers[0].home.memory();
    memory.epochs[Partition::default()] = Epoch(7);
    cluster.servers[0].is_up = false;
    cluster.registry = backup;
    let restarted = |above| {
        let memory = memory.clone();
        crate::Settings { above, memory, ..settings("a", 2) }
    };
    cluster.start("a", restarted(Epoch(0)));
    cluster.start("a", restarted(Epoch(6)));
    cluster.pass(3_000 * MILLI);
    for server in [1, 2] {
        let told = problem(&cluster, server);
        assert!(told.contains("its last epoch is 2, after 7"), "{told}");
        assert!(told.contains("`above=7`"), "{told}");
    }
    let mended = cluster.start("a", restarted(Epoch(7)));
    cluster.pass(3_000 * MILLI);
    assert_eq!(problem(&cluster, mended), "");
    assert_eq!(cluster.shares()[mended], Partition::COUNT);
    assert_eq!(cluster.servers[mended].home.epoch(Partition::default()), Epoch(8));
}

#[test]
fn entries_that_were_deleted_are_missed() {
    let mut cluster = Cluster::of(&["a"]);
    cluster.registry.entries.remove("state/part/05");
    cluster.pass(200 * MILLI);
    assert!(problem(&cluster, 0).contains("partition 05 has epoch 0, after 1"));
    let mut cluster = Cluster::of(&["a"]);
    cluster.registry.entries.remove("state/epoch");
    cluster.pass(200 * MILLI);
    assert!(problem(&cluster, 0).contains("its last epoch is 0, after 2"));
    let mut cluster = Cluster::of(&["a"]);
    cluster.registry.entries.clear();
    cluster.pass(200 * MILLI);
    assert!(problem(&cluster, 0).contains("it knows nothing of the cluster"));
}

#[test]
fn the_registry_of_another_cluster_is_refused() {
    let mut cluster = Cluster::of(&["a"]);
    cluster.start("b", crate::Settings { cluster: "bank".to_owned(), ..settings("b", 2) });
    let other = Memory { cluster: Some(zmqlocker::cluster::ClusterId(9)), ..Memory::default() };
    cluster.start("c", crate::Settings { memory: other, run: RunId(3), ..settings("c", 3) });
    cluster.pass(500 * MILLI);
    assert_eq!(
        problem(&cluster, 1),
        "the registry is of the cluster \"shop\" with the id 0000000000000001, not of \"bank\": \
         give each cluster a prefix, a table or a folder of its own"
    );
    assert!(problem(&cluster, 2).contains("not of \"shop\" with the id 0000000000000009"));
    assert_eq!(cluster.shares(), [Partition::COUNT, 0, 0]);
}

#[test]
fn records_of_another_version_and_of_other_programs_are_refused() {
    for (key, value, part) in [
        ("state/srv/b", "2 whatever", "the entry state/srv/b of the registry is of format 2"),
        ("state/part/00", "my account", "the entry state/part/00 of the registry is none of"),
        ("state/part/64", "1 1 a 1 fresh 0", "the entry state/part/64 of the registry is none of"),
        ("state/other", "1 1", "the entry state/other of the registry is none of zmqlocker"),
        ("state/wish/part/64", "1 a", "the entry state/wish/part/64 of the registry is none of"),
        ("state/wish/srv/b", "1 gone", "the entry state/wish/srv/b of the registry is none of"),
        ("state/wish/srv/b", "2 x", "the entry state/wish/srv/b of the registry is of format 2"),
        ("state/srv/b", "1 zz here 0 u", "the entry state/srv/b of the registry is none of"),
    ] {
        let mut cluster = Cluster::of(&["a"]);
        write(&mut cluster, key, value);
        cluster.pass(200 * MILLI);
        let told = problem(&cluster, 0);
        assert!(told.starts_with(part), "{told}");
        assert_eq!(cluster.shares(), [0]);
    }
}
