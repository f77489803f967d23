//! Which server should be home of which partition: as operators want it, and apart from that
//! evenly, with few moves, the same for all who see the same.

use std::collections::{BTreeMap, BTreeSet};

use crate::cluster::partition::{Partition, PartitionMap};
use crate::cluster::record::ServerName;

/// The server that each partition should have, if any is there: the one that it was given to by
/// `moves`, unless that is not there; or who has it, unless that is not there or has more than its
/// share.
///
/// Shares differ by one at most, but for servers that were given more. The larger ones go to who
/// has more already, then by name.
pub(super) fn assign<'a>(
    servers: &BTreeSet<&'a ServerName>,
    owners: &PartitionMap<Option<&'a ServerName>>,
    moves: &PartitionMap<Option<&'a ServerName>>,
) -> PartitionMap<Option<&'a ServerName>> {
    let moves = PartitionMap::from_fn(|it| moves[it].filter(|name| servers.contains(name)));
    let mut wanted = PartitionMap::from_fn(|it| {
        moves[it].or_else(|| owners[it].filter(|name| servers.contains(name)))
    });
    if servers.is_empty() {
        return wanted;
    }
    let mut counts = counts_of(servers, &wanted);
    let shares = shares_of(&counts, &counts_of(servers, &moves));
    for partition in Partition::all().rev() {
        if let Some(owner) = wanted[partition]
            && moves[partition].is_none()
            && counts[owner] > shares[owner]
        {
            counts.entry(owner).and_modify(|count| *count -= 1);
            wanted[partition] = None;
        }
    }
    for partition in Partition::all() {
        if wanted[partition].is_none() {
            let open = counts.iter().filter(|(name, count)| **count < shares[*name]);
            let next = open.min_by_key(|(_, count)| **count).map(|(name, _)| *name);
            if let Some(name) = next {
                counts.entry(name).and_modify(|count| *count += 1);
                wanted[partition] = Some(name);
            }
        }
    }
    wanted
}

type Counts<'a> = BTreeMap<&'a ServerName, usize>;

/// How many partitions each of these servers has in a map.
fn counts_of<'a>(
    servers: &BTreeSet<&'a ServerName>,
    owners: &PartitionMap<Option<&'a ServerName>>,
) -> Counts<'a> {
    let mut counts: Counts<'_> = servers.iter().map(|it| (*it, 0)).collect();
    for owner in owners.iter().filter_map(|(_, owner)| *owner) {
        counts.entry(owner).and_modify(|count| *count += 1);
    }
    counts
}

/// How many partitions each server should have, of which it has so many, and was given so many.
fn shares_of<'a>(counts: &Counts<'a>, given: &Counts<'a>) -> Counts<'a> {
    let mut shares = Counts::new();
    let (mut open, mut left) = (given.clone(), Partition::COUNT);
    // Who was given more than an equal part of what is left keeps that, and has nothing else.
    // There is always one who was not: all together were given no more than there is.
    loop {
        let share = left / open.len();
        let mut greater = open.iter().filter(|(_, count)| **count > share);
        let Some((name, count)) = greater.next().map(|(name, count)| (*name, *count)) else {
            break;
        };
        open.remove(name);
        left -= count;
        shares.insert(name, count);
    }
    let (share, larger) = (left / open.len(), left % open.len());
    // However far above its share one is: or the order would change while partitions move.
    let most = share + 1;
    let mut ranked: Vec<_> = open.keys().map(|name| (*name, counts[name].min(most))).collect();
    ranked.sort_by(|(one, more), (other, less)| less.cmp(more).then(one.cmp(other)));
    for (rank, (name, _)) in ranked.into_iter().enumerate() {
        shares.insert(name, share + usize::from(rank < larger));
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    type Owners<'a> = PartitionMap<Option<&'a ServerName>>;

    fn names(count: usize) -> Vec<ServerName> {
        (0..count).map(|number| ServerName::parse(&format!("s{number:02}")).unwrap()).collect()
    }

    /// What should be where without wishes.
    fn spread<'a>(servers: &BTreeSet<&'a ServerName>, owners: &Owners<'a>) -> Owners<'a> {
        assign(servers, owners, &PartitionMap::default())
    }

    fn counts(wanted: &Owners<'_>, names: &[ServerName]) -> Vec<usize> {
        counts_of(&names.iter().collect(), wanted).into_values().collect()
    }

    fn moved(old: &Owners<'_>, new: &Owners<'_>) -> Vec<Partition> {
        Partition::all().filter(|it| old[*it] != new[*it]).collect()
    }

    #[test]
    fn shares_differ_by_one_at_most_and_nothing_is_left() {
        for count in 1..=70 {
            let names = names(count);
            let wanted = spread(&names.iter().collect(), &PartitionMap::default());
            let counts = counts(&wanted, &names);
            assert_eq!(counts.iter().sum::<usize>(), Partition::COUNT);
            assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1);
        }
    }

    #[test]
    fn who_comes_takes_its_share_alone_and_who_goes_leaves_only_its_own() {
        for count in 1..=20 {
            let names = names(count + 1);
            let before: BTreeSet<_> = names[..count].iter().collect();
            let after: BTreeSet<_> = names.iter().collect();
            let old = spread(&before, &PartitionMap::default());
            let new = spread(&after, &old);
            let came = moved(&old, &new);
            assert!(came.iter().all(|it| new[*it] == Some(&names[count])));
            assert_eq!(came.len(), Partition::COUNT / (count + 1));
            let without: BTreeSet<_> = names[1..].iter().collect();
            let left = moved(&new, &spread(&without, &new));
            assert!(left.into_iter().all(|it| new[it] == Some(&names[0])));
        }
    }

    #[test]
    fn what_is_assigned_stays_so() {
        let names = names(7);
        let servers: BTreeSet<_> = names.iter().collect();
        let wanted = spread(&servers, &PartitionMap::default());
        assert_eq!(spread(&servers, &wanted), wanted);
        assert!(spread(&BTreeSet::new(), &wanted).iter().all(|(_, owner)| owner.is_none()));
    }

    /// The first partitions go to the first server, half as many more to the last one.
    fn given(names: &[ServerName], count: usize) -> Owners<'_> {
        let all: Vec<_> = Partition::all().collect();
        let mut moves = Owners::default();
        for (place, partition) in all.into_iter().enumerate().take(count + count / 2) {
            moves[partition] = if place < count { names.first() } else { names.last() };
        }
        moves
    }

    #[test]
    fn what_was_given_is_where_it_was_given_and_the_rest_is_even() {
        for (servers, count) in (1..=9).flat_map(|it| (0..=Partition::COUNT).map(move |g| (it, g)))
        {
            let names = names(servers);
            let servers: BTreeSet<_> = names.iter().collect();
            let old = spread(&servers, &PartitionMap::default());
            let moves = given(&names, count);
            let new = assign(&servers, &old, &moves);
            let is_given = |partition: &Partition| moves[*partition].is_some();
            assert!(Partition::all().filter(is_given).all(|it| new[it] == moves[it]));
            let counts = counts_of(&servers, &new);
            assert_eq!(counts.values().sum::<usize>(), Partition::COUNT);
            let least = counts.values().min().unwrap();
            for partition in Partition::all().filter(|it| !is_given(it)) {
                let count = counts[new[partition].unwrap()];
                assert!(count <= least + 1, "{counts:?} after {count} were given");
            }
            assert_eq!(assign(&servers, &new, &moves), new, "it stays so");
            let even = counts_of(&servers, &spread(&servers, &new));
            assert!(even.values().max().unwrap() - even.values().min().unwrap() <= 1, "{even:?}");
        }
    }

    #[test]
    fn one_that_is_given_moves_alone_or_for_another_one() {
        let names = names(3);
        let servers: BTreeSet<_> = names.iter().collect();
        let old = spread(&servers, &PartitionMap::default());
        for (partition, name) in Partition::all().flat_map(|it| names.iter().map(move |n| (it, n)))
        {
            let mut moves = Owners::default();
            moves[partition] = Some(name);
            let found = moved(&old, &assign(&servers, &old, &moves));
            assert!(found.len() <= 2, "{found:?}");
            assert_eq!(found.contains(&partition), old[partition] != Some(name));
        }
    }

    #[test]
    fn what_is_given_to_who_is_not_there_goes_where_it_would_go() {
        let names = names(4);
        let there: BTreeSet<_> = names[1..].iter().collect();
        let mut moves = given(&names, 9);
        moves[Partition::default()] = None;
        let only_last = PartitionMap::from_fn(|it| moves[it].filter(|name| *name != &names[0]));
        for owners in [Owners::default(), spread(&names.iter().collect(), &Owners::default())] {
            assert_eq!(assign(&there, &owners, &moves), assign(&there, &owners, &only_last));
        }
    }
}
