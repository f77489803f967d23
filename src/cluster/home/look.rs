//! Seeing what all others have written: who is there, who is not, and what is ours.

use crate::cluster::home::{
    Hold, Home, Lane, Message, Output, Owned, Problem, Purpose, Request, Seen,
};
use crate::cluster::partition::Partition;
use crate::cluster::record::{Epoch, How, STATE, ServerName, State, decode_holds, holds_key};
use crate::registry::{Revision, Snapshot};
use crate::time::Timestamp;

impl Home {
    /// Looks, if it is time.
    pub(super) fn advance_look(&mut self, now: Timestamp) {
        if self.look.asked_at.is_some() || now < self.look.due_at {
            return;
        }
        let is_arriving = self
            .owned
            .iter()
            .any(|(_, it)| it.as_ref().is_some_and(|owned| matches!(owned.hold, Hold::Arriving)));
        let waits = self.looked < self.beat.after_look.max(self.step.after_look);
        let next = now + self.pace(now);
        // One look is made as soon as a server has been silent for long enough.
        let silent = self.seen.values().map(|seen| seen.since + self.times.stale);
        self.look.due_at = silent.filter(|at| now < *at).chain([next]).min().unwrap_or(next);
        if is_arriving && !waits {
            self.send(now, Purpose::ReadHolds, Message::Read("holds/"));
        } else {
            self.send(now, Purpose::Look { least: self.newest }, Message::Read(STATE));
        }
    }

    /// Often while a partition is about to come, but not for ever.
    fn pace(&mut self, now: Timestamp) -> std::time::Duration {
        let name = &self.settings.name;
        let wanted = &self.wanted;
        let is_coming = |partition: Partition| {
            let owned = &self.owned[partition];
            let is_arriving = owned.as_ref().is_some_and(|it| matches!(it.hold, Hold::Arriving));
            is_arriving || (owned.is_none() && wanted[partition].as_ref() == Some(name))
        };
        let someone_leaves =
            self.state.servers.iter().any(|(other, it)| {
                it.record.is_leaving && other != name && !self.is_stale(now, other)
            });
        if self.membership.is_none() || !(someone_leaves || Partition::all().any(is_coming)) {
            self.expecting = None;
            return self.times.look;
        }
        let since = *self.expecting.get_or_insert(now);
        if now < since + self.times.expect { self.times.look_soon } else { self.times.look }
    }

    /// Something was read.
    pub(super) fn hear_read(&mut self, now: Timestamp, request: &Request, snapshot: &Snapshot) {
        match &request.purpose {
            Purpose::Look { least } if snapshot.revision < *least => {
                let (found, known) = (snapshot.revision.0, least.0);
                self.went_back(format!("it is at revision {found}, after {known}"));
            }
            Purpose::Look { .. } if snapshot.revision >= self.state_at => {
                self.looked = self.looked.max(request.number);
                self.hear_look(now, snapshot);
            }
            Purpose::ReadHolds => self.hear_holds(now, snapshot),
            // It shows what was before something that we did, or is no reading.
            _ => {}
        }
    }

    fn hear_look(&mut self, now: Timestamp, snapshot: &Snapshot) {
        let wishes = std::mem::take(&mut self.state.wishes);
        let state = match State::decode(snapshot, std::mem::take(&mut self.state)) {
            Ok(state) => state,
            Err(strange) => return self.fail(strange.into()),
        };
        self.newest = self.newest.max(snapshot.revision);
        self.state_at = snapshot.revision;
        if let Some(problem) = self.find_other_cluster(&state) {
            return self.fail(problem);
        }
        if let Some(what) = self.find_went_back(&state) {
            return self.went_back(what);
        }
        for partition in Partition::all() {
            if let Some(part) = &state.parts[partition] {
                self.epochs[partition] = part.record.epoch;
            }
        }
        self.cluster = state.cluster.as_ref().map(|cluster| cluster.id);
        if state.wishes != wishes {
            self.wished_at = now;
        }
        self.state = state;
        self.has_looked = true;
        self.observe(now);
        self.see_myself(now);
        if self.yield_to_elder(now) {
            return;
        }
        self.see_parts(now);
        self.find_wanted(now);
        self.look.due_at = self.look.due_at.min(now + self.pace(now));
        self.is_due = true;
    }

    fn find_other_cluster(&self, state: &State) -> Option<Problem> {
        let cluster = state.cluster.as_ref()?;
        let is_ours = self.cluster.is_none_or(|id| id == cluster.id);
        if is_ours && cluster.name == self.settings.cluster {
            return None;
        }
        let shown = |name: &str, id: Option<u64>| match id {
            Some(id) => format!("{name:?} with the id {id:016x}"),
            None => format!("{name:?}"),
        };
        Some(Problem::OtherCluster {
            wanted: shown(&self.settings.cluster, self.cluster.map(|id| id.0)),
            found: shown(&cluster.name, Some(cluster.id.0)),
        })
    }

    /// What is less than it was.
    fn find_went_back(&self, state: &State) -> Option<String> {
        if state.cluster.is_none() && self.cluster.is_some() {
            return Some("it knows nothing of the cluster".to_owned());
        }
        let last = state.epoch.as_ref().map_or(Epoch(0), |epoch| epoch.record);
        let written = state.parts.iter().filter_map(|(_, part)| Some(part.as_ref()?.record.epoch));
        let known = self.epochs.iter().map(|(_, epoch)| *epoch).chain(written).max();
        if let Some(known) = known.filter(|known| last < *known) {
            return Some(format!("its last epoch is {}, after {}", last.0, known.0));
        }
        Partition::all().find_map(|partition| {
            let known = self.epochs[partition];
            let found = state.parts[partition].as_ref().map_or(Epoch(0), |part| part.record.epoch);
            (found < known)
                .then(|| format!("partition {partition} has epoch {}, after {}", found.0, known.0))
        })
    }

    fn went_back(&mut self, what: String) {
        let last = self.epochs.iter().map(|(_, epoch)| *epoch).max().unwrap_or_default();
        self.fail(Problem::WentBack { what, last });
    }

    /// Notes since when each server's entry is as it is.
    fn observe(&mut self, now: Timestamp) {
        let servers = &self.state.servers;
        self.seen.retain(|name, _| servers.contains_key(name));
        for (name, entry) in servers {
            let (created, modified) = (entry.created, entry.modified);
            let before = self.seen.get(name).filter(|seen| seen.created == created);
            if before.is_none_or(|it| it.modified != modified) {
                let changes = before.map_or(0, |it| it.changes + 1);
                let seen = Seen { created, modified, since: now, changes };
                self.seen.insert(name.clone(), seen);
            }
        }
    }

    /// Whether a server's entry has been as it is for long enough.
    pub(super) fn is_stale(&self, now: Timestamp, name: &ServerName) -> bool {
        self.seen.get(name).is_some_and(|seen| seen.since + self.times.stale <= now)
    }

    /// Our own entry: it may be gone, and it may be there without our knowing.
    fn see_myself(&mut self, now: Timestamp) {
        let entry = self.state.servers.get(&self.settings.name);
        let ours = entry.filter(|entry| entry.record.run == self.settings.run);
        let found = ours.map(|entry| (entry.created, entry.modified));
        match (&mut self.membership, found) {
            (Some(membership), Some((created, modified))) if membership.incarnation == created => {
                // A beat whose answer is not here yet. It gives no time.
                membership.last = membership.last.max(modified);
                self.see_last();
            }
            (Some(_), found) => {
                self.drop_all();
                if let Some((created, modified)) = found {
                    self.begin(now, created, modified);
                }
            }
            (None, Some((created, modified))) => self.begin(now, created, modified),
            (None, None) => {}
        }
    }

    /// Whether this is us, as we are now.
    fn is_me(&self, owner: Option<&(ServerName, Revision)>) -> bool {
        let incarnation = self.membership.map(|membership| membership.incarnation);
        owner.is_some_and(|(name, of)| *name == self.settings.name && Some(*of) == incarnation)
    }

    /// Takes what the records say is ours, and lets go of what they do not.
    pub(super) fn see_parts(&mut self, now: Timestamp) {
        for partition in Partition::all() {
            let Some(part) = &self.state.parts[partition] else { continue };
            let (epoch, how) = (part.record.epoch, part.record.how);
            let grace = self.times.grace.max(part.record.cover);
            if !self.is_me(part.record.owner.as_ref()) {
                self.lose(partition);
            } else if self.owned[partition].as_ref().is_none_or(|owned| owned.epoch < epoch) {
                match how {
                    How::Fresh => self.gain(partition, epoch, (now, true), None),
                    How::Taken => self.gain(partition, epoch, (now + grace, false), None),
                    How::Handed(_) => {
                        let owned = Owned { epoch, start: now, hold: Hold::Arriving };
                        self.owned[partition] = Some(owned);
                        self.look_first(now, Lane::Look);
                    }
                }
            } else {
                self.see_cover(partition);
            }
        }
    }

    fn gain(
        &mut self,
        partition: Partition,
        epoch: Epoch,
        (start, is_first): (Timestamp, bool),
        holds: Option<Vec<u8>>,
    ) {
        self.owned[partition] = Some(Owned { epoch, start, hold: Hold::Here });
        self.outputs.push_back(Output::Gained { partition, epoch, start, holds, is_first });
    }

    /// What is held in the partitions that were handed over. One whose text is not there is taken
    /// as one whose home is gone.
    fn hear_holds(&mut self, now: Timestamp, snapshot: &Snapshot) {
        for partition in Partition::all() {
            let Some(Owned { epoch, hold: Hold::Arriving, .. }) = self.owned[partition] else {
                continue;
            };
            let part = self.state.parts[partition].as_ref();
            let Some(part) = part.filter(|part| part.record.epoch == epoch) else { continue };
            // Read before the record that tells of it: another look is on its way.
            if snapshot.revision < part.modified {
                continue;
            }
            let How::Handed(of) = part.record.how else { continue };
            let grace = self.times.grace.max(part.record.cover);
            let key = holds_key(partition);
            let entry = snapshot.entries.iter().find(|entry| entry.key == key);
            let found = entry.and_then(|entry| decode_holds(&entry.value));
            match found.filter(|(epoch, _)| *epoch == of) {
                Some((_, holds)) => {
                    self.gain(partition, epoch, (now, false), Some(holds.to_vec()));
                    self.read_holds.push(partition);
                }
                None => self.gain(partition, epoch, (now + grace, false), None),
            }
        }
    }
}
