//! Grants that may be given back: leases, reservations and blocks.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use smallvec::SmallVec;

pub(super) use crate::engine::request::GrantId;

use crate::engine::limit::Claim;
use crate::engine::session::SessionId;
use crate::engine::table::KeyId;
use crate::time::Timestamp;

/// What was taken from one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Charge {
    pub(super) key: KeyId,
    /// The version of the key's meters.
    pub(super) version: u32,
    pub(super) cost: u64,
    /// What each meter needs to take it back.
    pub(super) marks: SmallVec<[u64; 2]>,
}

/// What was taken from all keys of a demand, in its order.
pub(super) type Charges = SmallVec<[Charge; 1]>;

/// Something that a session may give back.
#[derive(Debug)]
pub(super) struct Grant {
    pub(super) owner: SessionId,
    pub(super) charges: Charges,
    pub(super) kind: GrantKind,
}

#[derive(Debug)]
pub(super) enum GrantKind {
    /// Settled by a commit, or spent.
    Reservation,
    /// Held until it is released, or its owner is silent for `ttl`.
    Lease { granted_at: Timestamp, ttl: Duration },
    /// Spent by the owner alone, and void at `ends_at`.
    Block { claims: SmallVec<[Claim; 1]>, permits: u64, ends_at: Timestamp },
}

/// All grants that may be given back.
#[derive(Debug)]
pub(super) struct Grants {
    most: usize,
    last: GrantId,
    all: BTreeMap<GrantId, Grant>,
    of_session: BTreeSet<(SessionId, GrantId)>,
}

impl Grants {
    pub(super) fn new(most: usize) -> Self {
        Self { most, last: GrantId(0), all: BTreeMap::new(), of_session: BTreeSet::new() }
    }

    /// From now on grants have numbers above `last`.
    pub(super) fn number_above(&mut self, last: GrantId) {
        self.last = self.last.max(last);
    }

    pub(super) fn is_full(&self) -> bool {
        self.all.len() >= self.most
    }

    /// The number that the next grant gets.
    pub(super) fn next_id(&self) -> GrantId {
        GrantId(self.last.0 + 1)
    }

    pub(super) fn add(&mut self, grant: Grant) -> GrantId {
        self.last = self.next_id();
        self.of_session.insert((grant.owner, self.last));
        self.all.insert(self.last, grant);
        self.last
    }

    pub(super) fn get(&self, id: GrantId) -> Option<&Grant> {
        self.all.get(&id)
    }

    pub(super) fn remove(&mut self, id: GrantId) -> Option<Grant> {
        let grant = self.all.remove(&id)?;
        self.of_session.remove(&(grant.owner, id));
        Some(grant)
    }

    /// The grants of one session, oldest first.
    pub(super) fn of(&self, session: SessionId) -> impl Iterator<Item = GrantId> {
        let all = (session, GrantId(0))..=(session, GrantId(u64::MAX));
        self.of_session.range(all).map(|(_, grant)| *grant)
    }
}
