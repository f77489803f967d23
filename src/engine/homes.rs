//! Which keys this machine decides for, where several servers share them.

use crate::cluster::{Partition, PartitionMap};
use crate::engine::key::Key;
use crate::time::Timestamp;

/// The partitions of keys that this machine is home of, and until when.
#[derive(Debug, Default)]
pub(super) struct Homes {
    /// Nothing is granted from then on.
    alive_until: Timestamp,
    parts: PartitionMap<Option<Part>>,
}

/// A partition that this machine is home of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    /// Before that nothing is granted that is held: the home before may have granted it. Holders
    /// may reclaim it until then.
    pub(super) held_from: Timestamp,
    /// When all limits were used up, as far as is known: the home before may have done so.
    pub(super) used_up_at: Option<Timestamp>,
}

impl Homes {
    /// Whether nothing can be granted at `now`.
    pub(super) fn is_lapsed(&self, now: Timestamp) -> bool {
        self.alive_until <= now
    }

    pub(super) fn stay_alive(&mut self, until: Timestamp) {
        self.alive_until = until;
    }

    pub(super) fn set(&mut self, partition: Partition, part: Option<Part>) {
        self.parts[partition] = part;
    }

    /// The limits of a partition were used up then, as far as is known.
    pub(super) fn set_used_up(&mut self, partition: Partition, at: Timestamp) {
        if let Some(part) = &mut self.parts[partition] {
            part.used_up_at = Some(at);
        }
    }

    fn part(&self, name: &str) -> Option<Part> {
        self.parts[partition_of(name)]
    }

    /// When something of a key can be granted; if it `is_held`, something that others may hold.
    pub(super) fn grants_from(&self, now: Timestamp, name: &str, is_held: bool) -> Timestamp {
        match self.part(name).filter(|_| !self.is_lapsed(now)) {
            None => Timestamp::NEVER,
            Some(part) if is_held => part.held_from,
            Some(_) => now,
        }
    }

    /// Until when what the home before has granted of a key may be reclaimed.
    pub(super) fn reclaim_until(&self, name: &str) -> Timestamp {
        self.part(name).map_or(Timestamp::ZERO, |part| part.held_from)
    }

    /// When the limits of a partition were used up, as far as is known.
    pub(super) fn used_up_at(&self, partition: Partition) -> Option<Timestamp> {
        self.parts[partition]?.used_up_at
    }
}

/// The partition of what is known to be the name of a key.
pub(super) fn partition_of(name: &str) -> Partition {
    Key::parse(name).map_or_else(|_| Partition::default(), Partition::of)
}
