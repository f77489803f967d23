//! What goes with a partition of the keys to its next home, and comes with it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::Gate;
use super::change::adopt;
use super::record::meters_of;
use super::settle::margin;
use crate::cluster::Partition;
use crate::engine::grant::{Grant, GrantKind};
use crate::engine::handing::Handed;
use crate::engine::homes::partition_of;
use crate::engine::key::Key;
use crate::engine::lease_record::LeaseRecord;
use crate::engine::lock::{Locks, Mode};
use crate::engine::record::Record;
use crate::engine::request::GrantId;
use crate::engine::session::SessionId;
use crate::engine::table::{KeyState, Space};
use crate::time::Timestamp;

/// What goes: whatever is used, and the leases with their owners.
pub(in crate::engine) type Going = (Vec<Handed>, Vec<(GrantId, SessionId, LeaseRecord)>);

impl<A> Gate<A> {
    /// All that the next homes of these partitions have to know.
    pub(in crate::engine) fn export(
        &self,
        now: Timestamp,
        partitions: &BTreeSet<Partition>,
    ) -> BTreeMap<Partition, Going> {
        let used_up = |partition: Partition| {
            let at = self.homes.as_ref()?.used_up_at(partition)?;
            Some(Handed::UsedUp { age: now.since(at) })
        };
        // Before all else: what is said of a key holds instead.
        let begin = |partition: &Partition| {
            (*partition, (used_up(*partition).into_iter().collect(), Vec::new()))
        };
        let mut all: BTreeMap<Partition, Going> = partitions.iter().map(begin).collect();
        let mut seen = BTreeSet::new();
        for key in self.keys_of(partitions) {
            let Some(state) = self.table.get(key) else { continue };
            let Some(going) = all.get_mut(&partition_of(&state.name)) else { continue };
            if state.space() == Space::Limits {
                going.0.extend(self.usage_of(now, state));
            }
            for id in state.holders.leases() {
                let Some(grant) = self.grants.get(*id) else { continue };
                match self.lease_within(partition_of(&state.name), grant) {
                    Some(lease) if seen.insert(*id) => going.1.push((*id, grant.owner, lease)),
                    Some(_) => {}
                    None if state.space() == Space::Limits => {}
                    None => going.0.extend(self.busy_with(now, state, grant)),
                }
            }
        }
        all
    }

    fn usage_of(&self, now: Timestamp, state: &KeyState) -> Option<Handed> {
        let snapshot = |place, meter: &crate::engine::limit::Meter| {
            meter.snapshot(now, &state.limits.at(place).kind, 0)
        };
        let text = |place| state.limits.text(place).to_string();
        let meters = state.meters.iter().enumerate();
        let limits: Vec<_> = meters.map(|(place, it)| (text(place), snapshot(place, it))).collect();
        let rest = state.rest.as_deref();
        let frozen = rest.and_then(|rest| rest.frozen_until);
        // Whoever holds what cannot go with it holds it on by its own clock.
        let leases = state.holders.leases().iter().filter_map(|id| self.grants.get(*id));
        let stays = leases.filter(|it| self.lease_within(partition_of(&state.name), it).is_none());
        let held = stays.filter_map(|grant| self.ends_at(grant)).max();
        let own_limits = rest.is_some_and(|rest| rest.own_limits);
        let frozen_for = frozen.max(held).map(|until| until.since(now)).unwrap_or_default();
        let is_used = limits.iter().any(|(_, snapshot)| snapshot.is_some());
        (is_used || own_limits || !frozen_for.is_zero()).then(|| Handed::Usage {
            name: state.name.clone(),
            frozen_for,
            own_limits,
            record: Record { saved_at: now, limits },
        })
    }

    /// When a lease ends if nothing more is heard of its holder.
    fn ends_at(&self, grant: &Grant) -> Option<Timestamp> {
        match &grant.kind {
            GrantKind::Lease(lease) => Some(self.lease_ends_at(grant.owner, lease)),
            _ => None,
        }
    }

    /// A lease of which all keys are of one partition.
    fn lease_within(&self, partition: Partition, grant: &Grant) -> Option<LeaseRecord> {
        let GrantKind::Lease(lease) = &grant.kind else { return None };
        let part = |(key, permits)| {
            let state = self.table.get(key).filter(|it| partition_of(&it.name) == partition)?;
            let mode = state.limits.shape().map(|shape| shape.mode(permits));
            Some((state.name.clone(), mode.or_else(|| Mode::of_limit(permits))?))
        };
        let parts = grant.taken.parts().into_iter().map(part).collect::<Option<Vec<_>>>()?;
        let (granted_at, term, actor) = (lease.granted_at, lease.term(), lease.actor);
        Some(LeaseRecord { granted_at, term, actor, request: None, parts })
    }

    /// A lock whose lease cannot go with it: nobody may have it before that is over by itself.
    fn busy_with(&self, now: Timestamp, state: &KeyState, grant: &Grant) -> Option<Handed> {
        let busy_for = self.ends_at(grant)?.since(now);
        let mode = state.limits.shape()?.mode(1);
        Some(Handed::Busy { name: state.name.clone(), mode, busy_for })
    }

    /// Takes up what was used of a key elsewhere. Whether it could.
    pub(in crate::engine) fn import_usage(
        &mut self,
        now: Timestamp,
        name: &str,
        (frozen_for, own_limits): (Duration, bool),
        mut record: Record,
    ) -> bool {
        record.move_to(now);
        let (Ok(key), Some(old)) = (Key::parse(name), record.parse_limits()) else { return false };
        let Some(meters) = meters_of(now, &old, &record) else { return false };
        if own_limits {
            let texts: Vec<&str> = record.limits.iter().map(|(text, _)| text.as_str()).collect();
            if self.set_limits(now, key, &texts).is_err() {
                return false;
            }
        } else if self.limits_of(key).is_err() {
            // Nobody can ask for it here.
            return true;
        }
        let Ok(id) = self.find_or_add(now, key, &[]) else { return false };
        let Some(state) = self.table.get_mut(id) else { return false };
        let is_same = *state.limits == old;
        state.meters =
            if is_same { meters } else { adopt(now, (&meters, &old), &Arc::clone(&state.limits)) };
        state.version = state.version.wrapping_add(1);
        if !frozen_for.is_zero() {
            state.rest_mut().frozen_until = Some(now + frozen_for);
        }
        true
    }

    /// Takes up that the limits of a partition were used up so long ago.
    pub(in crate::engine) fn import_used_up(
        &mut self,
        now: Timestamp,
        partition: Partition,
        age: Duration,
    ) {
        if let Some(homes) = &mut self.homes {
            homes.set_used_up(partition, now.before(age));
        }
    }

    /// Takes up that nobody may have a lock for a while. Whether it could.
    pub(in crate::engine) fn import_busy(
        &mut self,
        now: Timestamp,
        (name, mode): (&str, Mode),
        busy_for: Duration,
    ) -> bool {
        let locks = Key::parse(name).and_then(|key| Locks::new([(key, mode)]));
        let Ok(parts) = locks.map(|locks| self.held_parts(now, &locks)) else { return false };
        let Ok(parts) = parts else { return false };
        for (key, _) in parts {
            if let Some(state) = self.table.get_mut(key) {
                let rest = state.rest_mut();
                rest.frozen_until = rest.frozen_until.max(Some(now + busy_for));
            }
        }
        true
    }

    /// Takes up a lease whose holder cannot be known here: it ends by itself. Whether it could.
    pub(in crate::engine) fn import_unknown(
        &mut self,
        now: Timestamp,
        record: &LeaseRecord,
    ) -> bool {
        let busy_for = margin(record.term.unrenewed());
        record.parts.iter().all(|(name, mode)| self.import_busy(now, (name, *mode), busy_for))
    }
}
