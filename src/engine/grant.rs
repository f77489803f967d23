//! Grants that may be given back: leases, reservations and blocks.

use std::collections::{BTreeMap, BTreeSet};

use smallvec::SmallVec;

pub(super) use crate::engine::request::GrantId;

use crate::engine::limit::Claim;
use crate::engine::lock::Term;
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
    /// Held until it is released, or its owner is silent for too long.
    Lease(Lease),
    /// Spent by the owner alone, and void at the end.
    Block(Box<Lent>),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Lease {
    pub(super) granted_at: Timestamp,
    /// From then on it lasts for its `ttl` for certain, whatever is heard of its owner.
    pub(super) renewed_at: Timestamp,
    pub(super) term: Term,
    /// Who of the owner holds it; 0 if nobody in particular.
    pub(super) actor: u64,
    /// Whether its owner has said that it holds it, where an earlier run has granted it.
    pub(super) is_claimed: bool,
    /// Whether it is written down, for a later run.
    pub(super) is_recorded: bool,
}

impl Lease {
    pub(super) const fn new(now: Timestamp, term: Term, actor: u64) -> Self {
        let (granted_at, renewed_at) = (now, now);
        Self { granted_at, renewed_at, term, actor, is_claimed: true, is_recorded: false }
    }
}

#[derive(Debug)]
pub(super) struct Lent {
    pub(super) claims: SmallVec<[Claim; 1]>,
    pub(super) permits: u64,
    pub(super) ends_at: Timestamp,
}

/// All grants that may be given back.
#[derive(Debug)]
pub(super) struct Grants {
    most: usize,
    last: GrantId,
    /// The number of the first that this run may give.
    first: GrantId,
    all: BTreeMap<GrantId, Grant>,
    of_session: BTreeSet<(SessionId, GrantId)>,
}

impl Grants {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            last: GrantId(0),
            first: GrantId(1),
            all: BTreeMap::new(),
            of_session: BTreeSet::new(),
        }
    }

    /// From now on grants have numbers above `last`.
    pub(super) fn number_above(&mut self, last: GrantId) {
        self.last = self.last.max(last);
        self.first = self.next_id();
    }

    /// The last number that was given.
    pub(super) fn last(&self) -> GrantId {
        self.last
    }

    /// Whether an earlier run has given this number.
    pub(super) fn is_earlier(&self, id: GrantId) -> bool {
        id < self.first
    }

    pub(super) fn is_full(&self) -> bool {
        self.all.len() >= self.most
    }

    fn next_id(&self) -> GrantId {
        GrantId(self.last.0 + 1)
    }

    /// A number for a grant, above all that were given.
    pub(super) fn number(&mut self) -> GrantId {
        self.last = self.next_id();
        self.last
    }

    pub(super) fn add(&mut self, id: GrantId, grant: Grant) {
        self.of_session.insert((grant.owner, id));
        self.all.insert(id, grant);
    }

    pub(super) fn get(&self, id: GrantId) -> Option<&Grant> {
        self.all.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: GrantId) -> Option<&mut Grant> {
        self.all.get_mut(&id)
    }

    pub(super) fn remove(&mut self, id: GrantId) -> Option<Grant> {
        let grant = self.all.remove(&id)?;
        self.of_session.remove(&(grant.owner, id));
        Some(grant)
    }

    /// All of them, oldest first.
    pub(super) fn ids(&self) -> impl Iterator<Item = GrantId> {
        self.all.keys().copied()
    }

    /// The grants of one session, oldest first.
    pub(super) fn of(&self, session: SessionId) -> impl Iterator<Item = GrantId> {
        let all = (session, GrantId(0))..=(session, GrantId(u64::MAX));
        self.of_session.range(all).map(|(_, grant)| *grant)
    }
}
