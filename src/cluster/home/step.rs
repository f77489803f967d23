//! Partitions that change hands: rules R4 and R8.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::cluster::assignment::assign;
use crate::cluster::home::{Hold, Holds, Home, Leaving, Message, Output, Problem, Purpose};
use crate::cluster::partition::{Partition, PartitionMap};
use crate::cluster::record::{
    ClusterId, ClusterRecord, Epoch, How, PartRecord, ServerName, Written, cluster_key,
    encode_epoch, encode_holds, epoch_key, holds_key, part_key, server_key,
};
use crate::registry::{Change, Guard, Revision, Transaction};
use crate::time::Timestamp;

/// How many partitions change hands in one transaction: it has two changes for each at most, and
/// as many guards where they are all of different servers.
const AT_ONCE_MAX: usize = 60;

/// How many bytes of what is held go into one transaction: etcd takes 1.5 MiB, in base 64.
const HOLDS_AT_ONCE_MAX: usize = 1 << 20;

/// A partition that is free, or will be.
struct Prey {
    partition: Partition,
    record: PartRecord,
    /// When it was written.
    modified: Revision,
    /// The server to seal, and its last beat.
    sealed: Option<(ServerName, Revision)>,
}

impl Home {
    /// Takes the next step, if there is one: after each look, and when all is stopped.
    pub(super) fn advance_step(&mut self, now: Timestamp) {
        if !self.step.is_free(self.looked) || !self.is_due {
            return;
        }
        if self.state.cluster.is_none() {
            return self.found(now);
        }
        let Some(membership) = self.membership else { return };
        if self.alive_until() <= now {
            return;
        }
        self.is_due = false;
        self.stop_surplus(now);
        let prey = self.find_prey(now);
        if self.any_hold(|hold| matches!(hold, Hold::Stopping)) {
            // The caller is about to say what is held.
        } else if self.any_hold(|hold| matches!(hold, Hold::Stopped(_))) {
            self.hand_over(now, membership.incarnation);
        } else if !prey.is_empty() {
            self.take_over(now, membership.incarnation, &prey);
        } else if !self.covers.is_empty() {
            self.write_covers(now);
        } else if !self.read_holds.is_empty() {
            self.tidy(now);
        }
    }

    fn any_hold(&self, is_so: impl Fn(&Hold) -> bool) -> bool {
        self.owned.iter().any(|(_, it)| it.as_ref().is_some_and(|owned| is_so(&owned.hold)))
    }

    /// Whether this server leaves, and has nothing any more.
    pub(super) fn has_handed_all(&self) -> bool {
        self.leaving.is_some_and(|leaving| leaving.told_at.is_some())
            && self.owned.iter().all(|(_, owned)| owned.is_none())
            && self.step.is_free(self.looked)
    }

    /// Finds who should have what, as it looks from here.
    pub(super) fn find_wanted(&mut self, now: Timestamp) {
        let me = &self.settings.name;
        let is_heir = |name: &&ServerName| {
            let entry = &self.state.servers[*name];
            if *name == me {
                return self.membership.is_some() && self.leaving.is_none();
            }
            // One that has not beaten yet may be a message that came late.
            let beats = entry.modified > entry.created;
            beats && !entry.record.is_leaving && !self.is_stale(now, name)
        };
        let wishes = &self.state.wishes;
        let heirs = wishes.heirs(self.state.servers.keys().filter(is_heir).collect());
        let owners = PartitionMap::from_fn(|it| Some(self.state.home_of(it)?.0));
        let moves = PartitionMap::from_fn(|partition| wishes.moves[partition].as_ref());
        let wanted = assign(&heirs, &owners, &moves);
        self.wanted = PartitionMap::from_fn(|partition| wanted[partition].cloned());
    }

    /// The first server says which cluster this is.
    fn found(&mut self, now: Timestamp) {
        if self.leaving.is_some() {
            return;
        }
        let id = ClusterId(self.settings.run.0);
        let record = ClusterRecord { name: self.settings.cluster.clone(), id };
        let guards = vec![Guard::Modified(cluster_key(), Revision::NONE)];
        let changes = vec![Change::Put(cluster_key(), record.encode())];
        self.send(now, Purpose::Found, Message::Transact(Transaction { guards, changes }));
    }

    /// Asks what is held in partitions that others should have. A home that still hears from
    /// holders does not know it, and keeps the partition until it does.
    fn stop_surplus(&mut self, now: Timestamp) {
        let is_early = match self.leaving {
            Some(Leaving { told_at: None }) => true,
            Some(Leaving { told_at: Some(at) }) => now < at + self.times.leave && self.has_heirs(),
            None => now < self.wished_at + self.times.leave,
        };
        if is_early {
            return;
        }
        let me = Some(&self.settings.name);
        for partition in Partition::all() {
            let Some(owned) = &mut self.owned[partition] else { continue };
            let is_mine = self.wanted[partition].as_ref() == me;
            if is_mine || !matches!(owned.hold, Hold::Here) {
                continue;
            }
            if now >= owned.start {
                owned.hold = Hold::Stopping;
                let epoch = owned.epoch;
                self.outputs.push_back(Output::Stop { partition, epoch });
            } else if self.leaving.is_some() {
                // The successor hears from the holders.
                owned.hold = Hold::Stopped(None);
                self.outputs.push_back(Output::Lost { partition });
            }
        }
    }

    fn has_heirs(&self) -> bool {
        self.wanted.iter().any(|(_, name)| name.is_some())
    }

    /// The caller has stopped a partition, and says what is held.
    pub(super) fn keep_holds(&mut self, partition: Partition, epoch: Epoch, holds: Holds) {
        if let Some(owned) = &mut self.owned[partition]
            && owned.epoch == epoch
            && matches!(owned.hold, Hold::Stopping)
        {
            owned.hold = Hold::Stopped(holds);
            self.is_due = true;
        }
    }

    /// Writes successors for what was stopped: those who should have it, this server again if that
    /// has changed, or nobody. A transaction of before that may still be done is done with then:
    /// both change the same records.
    fn hand_over(&mut self, now: Timestamp, incarnation: Revision) {
        let Some((first, mut guards, mut changes)) = self.begin_change(incarnation) else { return };
        let me = &self.settings.name;
        let (mut gifts, mut bytes) = (Vec::new(), 0);
        // Each heir has an epoch of its own: no two servers give a grant the same number.
        let mut heirs: Vec<Option<(ServerName, Revision)>> = Vec::new();
        for partition in Partition::all() {
            let Some(owned) = &self.owned[partition] else { continue };
            let Hold::Stopped(holds) = &owned.hold else { continue };
            let Some(part) = &self.state.parts[partition] else { continue };
            let length = holds.as_ref().map_or(0, Vec::len);
            if gifts.len() == AT_ONCE_MAX || (bytes > 0 && bytes + length > HOLDS_AT_ONCE_MAX) {
                break;
            }
            bytes += length;
            let heir = self.wanted[partition]
                .as_ref()
                .and_then(|name| Some((name.clone(), self.state.servers.get(name)?.created)));
            let place = heirs.iter().position(|it| *it == heir).unwrap_or_else(|| {
                heirs.push(heir.clone());
                heirs.len() - 1
            });
            let epoch = Epoch(first.0.saturating_add(u32::try_from(place).unwrap_or(u32::MAX)));
            let how = if holds.is_some() { How::Handed(epoch) } else { How::Taken };
            let cover = part.record.cover;
            let record = PartRecord { epoch, owner: heir, how, cover };
            guards.push(Guard::Modified(part_key(partition), part.modified));
            changes.push(Change::Put(part_key(partition), record.encode()));
            if let Some(holds) = holds {
                let key = holds_key(partition);
                changes.push(Change::Put(key, encode_holds(epoch, holds)));
            }
            gifts.push((partition, epoch));
        }
        let last = gifts.iter().map(|(_, epoch)| *epoch).max().unwrap_or(first);
        if last > Epoch::MAX {
            return self.fail(Problem::NoEpochsLeft);
        }
        changes[0] = Change::Put(epoch_key(), encode_epoch(last));
        let heirs = heirs.into_iter().flatten().filter(|(name, _)| name != me);
        guards.extend(heirs.map(|(it, of)| Guard::Created(server_key(&it), of)));
        let message = Message::Transact(Transaction { guards, changes });
        self.send(now, Purpose::HandOver { gifts }, message);
    }

    /// Partitions that this server should have and can take.
    fn find_prey(&self, now: Timestamp) -> Vec<Prey> {
        let me = &self.settings.name;
        let find = |partition: Partition| {
            if self.wanted[partition].as_ref() != Some(me) || self.owned[partition].is_some() {
                return None;
            }
            let mut record =
                PartRecord { epoch: Epoch(0), owner: None, how: How::Fresh, cover: Duration::ZERO };
            let Some(part) = &self.state.parts[partition] else {
                return Some(Prey { partition, record, modified: Revision::NONE, sealed: None });
            };
            record.clone_from(&part.record);
            let modified = part.modified;
            let Some((name, incarnation)) = &record.owner else {
                return Some(Prey { partition, record, modified, sealed: None });
            };
            record.how = How::Taken;
            let entry = self.state.servers.get(name).filter(|it| it.created == *incarnation);
            let sealed = match entry {
                None => None,
                // What is written as ours is seen as ours before long.
                Some(_) if name == me || !self.is_stale(now, name) => return None,
                Some(entry) => Some((name.clone(), entry.modified)),
            };
            Some(Prey { partition, record, modified, sealed })
        };
        Partition::all().filter_map(find).take(AT_ONCE_MAX).collect()
    }

    /// Seals who is silent, and takes its partitions in the same transaction.
    fn take_over(&mut self, now: Timestamp, incarnation: Revision, prey: &[Prey]) {
        let Some((epoch, mut guards, mut changes)) = self.begin_change(incarnation) else { return };
        let me = self.settings.name.clone();
        let mut gains = Vec::new();
        for Prey { partition, record, modified, .. } in prey {
            let owner = Some((me.clone(), incarnation));
            let record = PartRecord { epoch, owner, how: record.how, cover: record.cover };
            guards.push(Guard::Modified(part_key(*partition), *modified));
            changes.push(Change::Put(part_key(*partition), record.encode()));
            gains.push((*partition, epoch));
        }
        let sealed: BTreeSet<_> = prey.iter().filter_map(|it| it.sealed.clone()).collect();
        for (name, last) in sealed {
            guards.push(Guard::Modified(server_key(&name), last));
            changes.push(Change::Delete(server_key(&name)));
        }
        let message = Message::Transact(Transaction { guards, changes });
        self.send(now, Purpose::TakeOver { incarnation, gains }, message);
    }

    /// The first epoch of a change of hands, and how its transaction begins, first of all with the
    /// last epoch: it is done by the present incarnation, and follows all others. So a server may
    /// number its grants in one row: the next home of each of its partitions has a later epoch than
    /// it ever had of any.
    fn begin_change(&mut self, incarnation: Revision) -> Option<(Epoch, Vec<Guard>, Vec<Change>)> {
        let known = self.state.epoch.as_ref();
        let seen = known.map_or(Revision::NONE, |epoch| epoch.modified);
        let last = known.map_or(self.settings.first, |epoch| epoch.record).max(self.settings.above);
        if last >= Epoch::MAX {
            self.fail(Problem::NoEpochsLeft);
            return None;
        }
        let epoch = Epoch(last.0 + 1);
        let guards = vec![
            Guard::Created(server_key(&self.settings.name), incarnation),
            Guard::Modified(epoch_key(), seen),
        ];
        Some((epoch, guards, vec![Change::Put(epoch_key(), encode_epoch(epoch))]))
    }

    /// Leases are about to be longer.
    pub(super) fn want_cover(&mut self, now: Timestamp, partition: Partition, length: Duration) {
        if self.owned[partition].as_ref().is_some_and(|it| matches!(it.hold, Hold::Here)) {
            let cover = self.covers.entry(partition).or_default();
            *cover = length.max(*cover);
            self.is_due = true;
            self.look.due_at = self.look.due_at.min(now);
        }
    }

    /// Says how long leases are, in the records of the partitions.
    fn write_covers(&mut self, now: Timestamp) {
        let (mut guards, mut changes) = (Vec::new(), Vec::new());
        for (partition, length) in &self.covers {
            let Some(part) = &self.state.parts[*partition] else { continue };
            let record = PartRecord { cover: *length, ..part.record.clone() };
            guards.push(Guard::Modified(part_key(*partition), part.modified));
            changes.push(Change::Put(part_key(*partition), record.encode()));
        }
        self.send(now, Purpose::Cover, Message::Transact(Transaction { guards, changes }));
    }

    /// The record of a partition of ours was read: it may say how long leases are.
    pub(super) fn see_cover(&mut self, partition: Partition) {
        let Some(part) = &self.state.parts[partition] else { return };
        let length = part.record.cover;
        if self.covers.get(&partition).is_some_and(|wanted| *wanted <= length) {
            self.covers.remove(&partition);
            self.outputs.push_back(Output::Covered { partition, length });
        }
    }

    /// Deletes what was read, so that nobody reads it again. What was handed on since is for the
    /// successor.
    fn tidy(&mut self, now: Timestamp) {
        let owned = &self.owned;
        self.read_holds.retain(|partition| {
            owned[*partition].as_ref().is_some_and(|it| matches!(it.hold, Hold::Here))
        });
        if self.read_holds.is_empty() {
            return;
        }
        let (mut guards, mut changes) = (Vec::new(), Vec::new());
        for partition in &self.read_holds {
            let Some(Written { modified, .. }) = &self.state.parts[*partition] else { continue };
            guards.push(Guard::Modified(part_key(*partition), *modified));
            changes.push(Change::Delete(holds_key(*partition)));
        }
        self.send(now, Purpose::Tidy, Message::Transact(Transaction { guards, changes }));
    }
}
