//! Keys that come to this machine, and go to another one.

use std::collections::BTreeSet;

use super::{Gate, Said};
use crate::cluster::Partition;
use crate::engine::grant::GrantKind;
use crate::engine::homes::{Part, partition_of};
use crate::engine::measure::Ending;
use crate::engine::request::GrantId;
use crate::engine::table::{KeyId, KeyState, Space};
use crate::engine::waiters::WaiterId;
use crate::time::Timestamp;

/// How many places of the table are looked at together.
const PLACES: usize = 4096;

impl<A> Gate<A> {
    /// From now on it decides for no key that it is not given.
    pub(in crate::engine) fn share_keys(&mut self, now: Timestamp) {
        self.homes = Some(Box::default());
        self.evict(now, &Partition::all().collect());
    }

    /// Grants may be made until then.
    pub(in crate::engine) fn stay_alive(&mut self, now: Timestamp, until: Timestamp) {
        let Some(homes) = &mut self.homes else { return };
        let was_lapsed = homes.is_lapsed(now);
        homes.stay_alive(until);
        if was_lapsed && now < until {
            // No timer could serve them meanwhile.
            self.serve_all(now);
        }
    }

    /// A partition of the keys is decided for here from now on.
    pub(in crate::engine) fn gain(&mut self, now: Timestamp, partition: Partition, part: Part) {
        self.held_most.retain(|name, _| partition_of(name) != partition);
        if let Some(homes) = &mut self.homes {
            homes.set(partition, Some(part));
        }
        self.reclaim_until = self.reclaim_until.max(part.held_from).max(now);
    }

    /// Keys of these partitions are decided for elsewhere: whoever waits for one is told, and what
    /// is held is over here.
    pub(in crate::engine) fn evict(&mut self, now: Timestamp, partitions: &BTreeSet<Partition>) {
        if let Some(homes) = &mut self.homes {
            for partition in partitions {
                homes.set(*partition, None);
            }
        }
        let keys = self.keys_of(partitions);
        let states = || keys.iter().filter_map(|key| self.table.get(*key));
        let waiters: BTreeSet<WaiterId> = states()
            .filter_map(|state| state.rest.as_ref())
            .flat_map(|rest| rest.queue.iter().copied())
            .collect();
        let leases: BTreeSet<GrantId> =
            states().flat_map(|state| state.holders.leases().iter().copied()).collect();
        let gone = self.leave_together(now, &waiters.into_iter().collect::<Vec<_>>());
        self.count_waiters(&gone, Ending::Cancelled);
        for waiter in gone {
            self.said.push_back(Said::Elsewhere { to: waiter.ask.asker });
        }
        let keys: BTreeSet<KeyId> = keys.into_iter().collect();
        for id in leases {
            self.let_go(now, id, &keys);
        }
        for key in keys {
            self.table.remove(key);
        }
        self.drop_records();
    }

    /// A lease goes with its keys. One whose other keys stay is lost, and keeps them until it ends
    /// by itself, for its holder may not hear of it before.
    fn let_go(&mut self, now: Timestamp, id: GrantId, keys: &BTreeSet<KeyId>) {
        let Some(grant) = self.grants.get(id) else { return };
        let owner = grant.owner;
        let parts = grant.taken.parts();
        if parts.iter().all(|(key, _)| keys.contains(key)) {
            self.drop_grant(now, id);
            self.said.push_back(Said::Moved { owner, grant: id });
            return;
        }
        let first = parts.first().and_then(|(key, _)| self.table.get(*key));
        let key = first.map(|state| state.name.clone()).unwrap_or_default();
        self.end_by_itself(now, id);
        self.said.push_back(Said::Broken { owner, grant: id, key });
    }

    /// Nothing renews a lease any more.
    fn end_by_itself(&mut self, now: Timestamp, id: GrantId) {
        let Some(grant) = self.grants.get(id) else { return };
        let GrantKind::Lease(lease) = &grant.kind else { return };
        let (owner, lease) = (grant.owner, *lease);
        self.unwatch_lease(owner, &lease);
        if let Some(GrantKind::Lease(lease)) = self.grants.get_mut(id).map(|it| &mut it.kind) {
            (lease.renewed_at, lease.is_claimed) = (now, false);
            let lease = *lease;
            self.watch_lease(now, id, owner, &lease);
        }
    }

    /// The keys of some partitions that are in use.
    pub(super) fn keys_of(&self, partitions: &BTreeSet<Partition>) -> Vec<KeyId> {
        let is_of = |state: &KeyState| {
            self.homes.is_some() && partitions.contains(&partition_of(&state.name))
        };
        let (mut found, mut place) = (Vec::new(), Some(0));
        while let Some(from) = place {
            let (keys, more) = self.table.some(from, PLACES);
            found.extend(keys.into_iter().filter(|key| self.table.get(*key).is_some_and(is_of)));
            place = more;
        }
        found
    }

    /// Serves all keys that somebody waits for.
    pub(super) fn serve_all(&mut self, now: Timestamp) {
        let keys: BTreeSet<KeyId> = self
            .waiters
            .ids()
            .filter_map(|waiter| self.waiters.get(waiter))
            .flat_map(|waiter| waiter.ask.parts.iter().map(|(key, _)| *key))
            .collect();
        for key in keys {
            self.serve(now, key);
        }
    }

    /// When something of a key can be granted here.
    pub(super) fn granted_here_from(&self, now: Timestamp, state: &KeyState) -> Timestamp {
        let Some(homes) = &self.homes else { return now };
        let is_held = state.space() == Space::Locks || state.limits.has_concurrency();
        homes.grants_from(now, &state.name, is_held)
    }

    /// Until when what an earlier run, or another server, has granted of a key may be reclaimed.
    pub(super) fn may_be_reclaimed_until(&self, name: &str) -> Timestamp {
        let of_key = self.homes.as_ref().map(|homes| homes.reclaim_until(name));
        of_key.map_or(self.reclaim_until, |until| until.min(self.reclaim_until))
    }

    /// Has the limits of a key used up, where a home before may have done so.
    pub(super) fn use_up(&self, state: &mut KeyState) {
        let at = self.homes.as_ref().and_then(|homes| homes.used_up_at(partition_of(&state.name)));
        let Some(at) = at.filter(|_| state.limits.shape().is_none()) else { return };
        for (meter, limit) in state.meters.iter_mut().zip(state.limits.iter()) {
            // What was lent counts for longer than what was granted.
            let _ = meter.claim(at, &limit.kind, u64::MAX);
        }
    }
}
