//! Which server should be home of which partition: evenly, with few moves, the same for all who see
//! the same.

use std::collections::{BTreeMap, BTreeSet};

use crate::cluster::partition::{Partition, PartitionMap};
use crate::cluster::record::ServerName;

/// The server that each partition should have, if any is there: who has one keeps it, unless it is
/// not there or has more than its share.
///
/// Shares differ by one at most. The larger ones go to who has more already, then by name.
pub(super) fn assign<'a>(
    servers: &BTreeSet<&'a ServerName>,
    owners: &PartitionMap<Option<&'a ServerName>>,
) -> PartitionMap<Option<&'a ServerName>> {
    let mut wanted = PartitionMap::from_fn(|it| owners[it].filter(|it| servers.contains(it)));
    if servers.is_empty() {
        return wanted;
    }
    let mut counts: BTreeMap<&ServerName, usize> = servers.iter().map(|it| (*it, 0)).collect();
    for owner in wanted.iter().filter_map(|(_, owner)| *owner) {
        counts.entry(owner).and_modify(|count| *count += 1);
    }
    let (share, larger) = (Partition::COUNT / servers.len(), Partition::COUNT % servers.len());
    // However far above its share one is: or the order would change while partitions move.
    let most = share + 1;
    let ranked = counts.iter().map(|(name, count)| (*name, *count.min(&most)));
    let mut ranked: Vec<_> = ranked.collect();
    ranked.sort_by(|(one, more), (other, less)| less.cmp(more).then(one.cmp(other)));
    let shares: BTreeMap<_, _> = ranked
        .iter()
        .enumerate()
        .map(|(rank, (name, _))| (*name, share + usize::from(rank < larger)))
        .collect();
    for partition in Partition::all().rev() {
        if let Some(owner) = wanted[partition]
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

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> Vec<ServerName> {
        (0..count).map(|number| ServerName::parse(&format!("s{number:02}")).unwrap()).collect()
    }

    fn counts(wanted: &PartitionMap<Option<&ServerName>>, names: &[ServerName]) -> Vec<usize> {
        let count = |name| wanted.iter().filter(|(_, owner)| **owner == Some(name)).count();
        names.iter().map(count).collect()
    }

    #[test]
    fn shares_differ_by_one_at_most_and_nothing_is_left() {
        for count in 1..=70 {
            let names = names(count);
            let wanted = assign(&names.iter().collect(), &PartitionMap::default());
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
            let old = assign(&before, &PartitionMap::default());
            let new = assign(&after, &old);
            let moved = Partition::all().filter(|it| old[*it] != new[*it]).collect::<Vec<_>>();
            assert!(moved.iter().all(|it| new[*it] == Some(&names[count])));
            assert_eq!(moved.len(), Partition::COUNT / (count + 1));
            let without: BTreeSet<_> = names[1..].iter().collect();
            let left = assign(&without, &new);
            let moved = Partition::all().filter(|it| left[*it] != new[*it]);
            assert!(moved.into_iter().all(|it| new[it] == Some(&names[0])));
        }
    }

    #[test]
    fn what_is_assigned_stays_so() {
        let names = names(7);
        let servers: BTreeSet<_> = names.iter().collect();
        let wanted = assign(&servers, &PartitionMap::default());
        assert_eq!(assign(&servers, &wanted), wanted);
        assert!(assign(&BTreeSet::new(), &wanted).iter().all(|(_, owner)| owner.is_none()));
    }
}
