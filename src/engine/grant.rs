//! Grants that may be given back: leases, reservations and blocks.

use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU64;
use std::time::Duration;

use smallvec::SmallVec;

pub(super) use crate::engine::request::GrantId;

use crate::engine::index::Index;
use crate::engine::limit::Claim;
use crate::engine::lock::Term;
use crate::engine::session::SessionId;
use crate::engine::table::{KeyId, push_slowly_growing};
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
    pub(super) taken: Taken,
    pub(super) kind: GrantKind,
}

impl Grant {
    /// Whether it is over when its owner is gone. A block counts until it is void.
    const fn ends_with_session(&self) -> bool {
        !matches!(self.kind, GrantKind::Block(_))
    }
}

/// What a grant is of.
#[derive(Debug)]
pub(super) enum Taken {
    /// One lock, and so many of its permits: there is nothing to be known to take them back.
    Lock(KeyId, NonZeroU64),
    /// Anything else.
    Charges(Box<Charges>),
}

const _: () = assert!(size_of::<Taken>() == 16, "there are many: the permits' niche is its tag");

impl Taken {
    pub(super) fn new(charges: Charges) -> Self {
        Self::Charges(Box::new(charges))
    }

    /// The keys, and how much was taken of each.
    pub(super) fn parts(&self) -> SmallVec<[(KeyId, u64); 1]> {
        match self {
            Self::Lock(key, permits) => SmallVec::from_elem((*key, permits.get()), 1),
            Self::Charges(charges) => {
                charges.iter().map(|charge| (charge.key, charge.cost)).collect()
            }
        }
    }

    /// What has to be known to take it back.
    pub(super) fn into_charges(self) -> Charges {
        match self {
            Self::Lock(..) => Charges::new(),
            Self::Charges(charges) => *charges,
        }
    }
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
    ttl: u64,
    /// 0 if there is none.
    max_hold: u64,
    /// Who of the owner holds it; 0 if nobody in particular.
    pub(super) actor: u64,
    /// Whether its owner has said that it holds it, where an earlier run has granted it.
    pub(super) is_claimed: bool,
    /// Whether it is written down, for a later run.
    pub(super) is_recorded: bool,
    /// Whether it is of permits, and not of locks.
    pub(super) is_of_permits: bool,
}

impl Lease {
    pub(super) fn new(now: Timestamp, term: Term, actor: u64) -> Self {
        let nanos = |length: Duration| u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
        Self {
            granted_at: now,
            renewed_at: now,
            ttl: nanos(term.ttl),
            max_hold: term.max_hold.map_or(0, nanos),
            actor,
            is_claimed: true,
            is_recorded: false,
            is_of_permits: false,
        }
    }

    /// Whether messages of its holder renew it, without an end.
    pub(super) fn is_renewed(&self) -> bool {
        self.is_claimed && self.max_hold == 0
    }

    pub(super) fn term(&self) -> Term {
        let max_hold = (self.max_hold > 0).then(|| Duration::from_nanos(self.max_hold));
        Term { ttl: Duration::from_nanos(self.ttl), max_hold }
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
    /// How many one session may have.
    most_of_one: usize,
    last: GrantId,
    /// The number of the first that this run may give.
    first: GrantId,
    /// By number.
    index: Index,
    hasher: RandomState,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// The first and the last grant of the sessions that have any, by their places.
    of_session: Vec<Ends>,
}

/// A grant, and its neighbours among those of its session.
#[derive(Debug)]
struct Slot {
    id: GrantId,
    before: u32,
    after: u32,
    grant: Option<Grant>,
}

/// No slot.
const NOWHERE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Ends {
    first: u32,
    last: u32,
    /// How many of them end with the session.
    count: u32,
    /// How many there are, those of a session that was at this place before too.
    all: u32,
}

impl Ends {
    const NONE: Self = Self { first: NOWHERE, last: NOWHERE, count: 0, all: 0 };
}

impl Grants {
    pub(super) fn new(most: usize, most_of_one: usize) -> Self {
        Self {
            most: most.min(NOWHERE as usize),
            most_of_one,
            last: GrantId(0),
            first: GrantId(1),
            index: Index::new(),
            hasher: RandomState::new(),
            slots: Vec::new(),
            free: Vec::new(),
            of_session: Vec::new(),
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
        self.index.len() >= self.most
    }

    /// Whether a session has as many as one may.
    pub(super) fn is_full_of(&self, session: SessionId) -> bool {
        let ends = self.of_session.get(session.place());
        ends.is_some_and(|ends| ends.all as usize >= self.most_of_one)
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
        let session = grant.owner.place();
        if self.of_session.len() <= session {
            self.of_session.resize(session + 1, Ends::NONE);
        }
        let before = self.of_session[session].last;
        self.of_session[session].count += u32::from(grant.ends_with_session());
        let slot = Slot { id, before, after: NOWHERE, grant: Some(grant) };
        let place = self.free.pop().unwrap_or(NOWHERE);
        let place = if let Some(free) = self.slots.get_mut(place as usize) {
            *free = slot;
            place
        } else {
            let place = u32::try_from(self.slots.len()).unwrap_or(NOWHERE);
            push_slowly_growing(&mut self.slots, slot);
            place
        };
        match self.slots.get_mut(before as usize) {
            Some(slot) => slot.after = place,
            None => self.of_session[session].first = place,
        }
        self.of_session[session].last = place;
        self.of_session[session].all += 1;
        let (hasher, slots) = (&self.hasher, &self.slots);
        let hash = |place: u32| hasher.hash_one(slots[place as usize].id.0);
        self.index.add(hash(place), place, hash);
    }

    fn find(&self, id: GrantId) -> Option<usize> {
        let is_it = |place| self.slots[place as usize].id == id;
        self.index.find(self.hasher.hash_one(id.0), is_it).map(|place| place as usize)
    }

    pub(super) fn get(&self, id: GrantId) -> Option<&Grant> {
        self.slots[self.find(id)?].grant.as_ref()
    }

    pub(super) fn get_mut(&mut self, id: GrantId) -> Option<&mut Grant> {
        let place = self.find(id)?;
        self.slots[place].grant.as_mut()
    }

    pub(super) fn remove(&mut self, id: GrantId) -> Option<Grant> {
        let is_it = |place| self.slots[place as usize].id == id;
        let place = self.index.remove(self.hasher.hash_one(id.0), is_it)?;
        let Slot { before, after, grant, .. } = &mut self.slots[place as usize];
        let (before, after, grant) = (*before, *after, grant.take()?);
        let ends = &mut self.of_session[grant.owner.place()];
        ends.count -= u32::from(grant.ends_with_session());
        ends.all -= 1;
        match self.slots.get_mut(before as usize) {
            Some(slot) => slot.after = after,
            None => ends.first = after,
        }
        match self.slots.get_mut(after as usize) {
            Some(slot) => slot.before = before,
            None => ends.last = before,
        }
        self.free.push(place);
        Some(grant)
    }

    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// How many leases and reservations a session has.
    pub(super) fn count_of(&self, session: SessionId) -> u64 {
        self.of_session.get(session.place()).map_or(0, |ends| ends.count.into())
    }

    /// All of them, in the order of their numbers.
    pub(super) fn ids(&self) -> Vec<GrantId> {
        let present = self.slots.iter().filter(|slot| slot.grant.is_some());
        let mut ids: Vec<_> = present.map(|slot| slot.id).collect();
        ids.sort_unstable();
        ids
    }

    /// The grants of one session, oldest first.
    pub(super) fn of(&self, session: SessionId) -> impl Iterator<Item = (GrantId, &Grant)> {
        let ends = self.of_session.get(session.place());
        let first = ends.and_then(|ends| self.slots.get(ends.first as usize));
        std::iter::successors(first, |slot| self.slots.get(slot.after as usize))
            .filter_map(|slot| Some((slot.id, slot.grant.as_ref()?)))
            // What was lent to a session that was at this place before is there until it is void.
            .filter(move |(_, grant)| grant.owner == session)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_has_fourteen_words_at_most() {
        assert!(size_of::<Slot>() <= 112, "{}", size_of::<Slot>());
    }
}
