//! What a client holds at one server, and for how long that is safe.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::cluster::Partition;
use crate::engine::{GrantId, Term};
use crate::time::Timestamp;
use crate::wire::request::Wanted;

/// A lease as its holder sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    pub(super) term: Term,
    /// Until then it is safe, whatever becomes of the messages under way.
    pub(super) valid_until: Timestamp,
    /// When it ends at the latest.
    pub(super) ends_at: Timestamp,
    /// Whether the present run of the server knows it, so that what it hears renews it.
    pub(super) is_known: bool,
    /// What it is of: who did not grant it itself is told.
    pub(super) wanted: Wanted,
    /// Whether it is of locks; else it is of permits, which a new run of a server knows nothing of.
    pub(super) is_lock: bool,
    /// The partition of its keys, if they are all of one.
    pub(super) partition: Option<Partition>,
}

impl Lease {
    /// Until when it is safe, if the server has heard us at `heard_at`.
    pub(super) fn valid_until(&self, heard_at: Timestamp) -> Timestamp {
        let renewed =
            if self.is_known { heard_at + shortened(self.term.ttl) } else { Timestamp::ZERO };
        self.valid_until.max(renewed).min(self.ends_at)
    }
}

/// The leases of a client at one server.
#[derive(Debug, Default)]
pub(super) struct Leases {
    all: BTreeMap<GrantId, Lease>,
    /// How many are renewed, by their `ttl`.
    renewed: BTreeMap<Duration, usize>,
    /// When those end that are not.
    ends: BTreeSet<(Timestamp, GrantId)>,
}

impl Leases {
    pub(super) fn insert(&mut self, now: Timestamp, grant: GrantId, lease: Lease) {
        while let Some((_, over)) = self.ends.first().filter(|(ends_at, _)| *ends_at <= now) {
            self.remove(*over);
        }
        self.remove(grant);
        if lease.term.is_renewed() {
            *self.renewed.entry(lease.term.ttl).or_default() += 1;
        } else {
            self.ends.insert((lease.ends_at, grant));
        }
        self.all.insert(grant, lease);
    }

    pub(super) fn remove(&mut self, grant: GrantId) {
        self.take(grant);
    }

    /// A lease, which is not among these any more.
    pub(super) fn take(&mut self, grant: GrantId) -> Option<Lease> {
        let lease = self.all.remove(&grant)?;
        self.ends.remove(&(lease.ends_at, grant));
        if lease.term.is_renewed()
            && let Some(count) = self.renewed.get_mut(&lease.term.ttl)
        {
            *count -= 1;
            if *count == 0 {
                self.renewed.remove(&lease.term.ttl);
            }
        }
        Some(lease)
    }

    /// Nothing that the server hears after `heard_at` keeps a lease, until it is known again.
    pub(super) fn unknow(&mut self, grant: GrantId, heard_at: Timestamp) {
        if let Some(lease) = self.all.get_mut(&grant) {
            lease.valid_until = lease.valid_until(heard_at);
            lease.is_known = false;
        }
    }

    /// Those that may be reclaimed at another server, each with the partition of its keys.
    pub(super) fn movable(&self) -> Vec<(GrantId, Partition)> {
        let all = self.all.iter();
        all.filter_map(|(grant, lease)| Some((*grant, lease.partition?))).collect()
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Another run of the server is there. The leases that it may let us hold on: it knows none of
    /// them yet, and those that cannot be reclaimed are lost. What is over has to be released: a
    /// run that was asked to let us hold it, or has found it written down, may have it.
    pub(super) fn reclaimable(&mut self, heard_at: Timestamp, locks_alone: bool) -> Vec<GrantId> {
        let is_lost =
            |(grant, lease): (&GrantId, &Lease)| (locks_alone && !lease.is_lock).then_some(*grant);
        for lost in self.all.iter().filter_map(is_lost).collect::<Vec<_>>() {
            self.remove(lost);
        }
        for lease in self.all.values_mut() {
            lease.valid_until = lease.valid_until(heard_at);
            lease.is_known = false;
        }
        self.all.keys().copied().collect()
    }

    /// What is over at `now`, if the server has heard us at `heard_at`.
    pub(super) fn ended(&self, now: Timestamp, heard_at: Timestamp) -> Vec<GrantId> {
        let is_over = |(grant, lease): (&GrantId, &Lease)| {
            (lease.valid_until(heard_at) <= now).then_some(*grant)
        };
        self.all.iter().filter_map(is_over).collect()
    }

    pub(super) fn get(&self, grant: GrantId) -> Option<&Lease> {
        self.all.get(&grant)
    }

    /// The server knows a lease that it was told of, and has heard of it at `sent_at` or later.
    pub(super) fn know(&mut self, grant: GrantId, sent_at: Timestamp) {
        if let Some(lease) = self.all.get_mut(&grant) {
            lease.is_known = true;
            lease.valid_until = lease.valid_until.max(sent_at + shortened(lease.term.ttl));
        }
    }

    /// The shortest `ttl` of those that are to be renewed.
    pub(super) fn shortest(&self) -> Option<Duration> {
        self.renewed.first_key_value().map(|(ttl, _)| *ttl)
    }

    /// Those that are renewed, and whether they are of locks.
    pub(super) fn renewed(&self) -> Vec<(GrantId, bool)> {
        let all = self.all.iter().filter(|(_, lease)| lease.term.is_renewed());
        all.map(|(grant, lease)| (*grant, lease.is_lock)).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}

/// How long a lease is safe, counted from the sending of the message that keeps it: clocks may
/// differ in rate by 0.2 %.
pub(super) fn shortened(ttl: Duration) -> Duration {
    ttl.saturating_sub(ttl * 4 / 1000)
}
