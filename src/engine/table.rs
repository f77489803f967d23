//! The keys that are in use, each with the state of its limits.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use smallvec::SmallVec;

use crate::engine::holders::Holders;
use crate::engine::index::Index;
use crate::engine::key::Key;
use crate::engine::limit::{Cover, Meter};
use crate::engine::lock::Shape;
use crate::engine::measure::PatternId;
use crate::engine::rules::Limits;
use crate::engine::waiters::WaiterId;
use crate::time::Timestamp;

/// How many other keys are looked at, whether they may be forgotten, for each key that is added.
const LOOKS: usize = 3;

/// How many are looked at when the table is full.
const LOOKS_WHEN_FULL: usize = 4096;

/// What keys are for: a lock and a limit of one name have nothing to do with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Space {
    Limits,
    Locks,
}

/// A key's place in the table. Once the key is forgotten it leads nowhere, even if the place is
/// used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct KeyId {
    place: u32,
    generation: u32,
}

impl KeyId {
    /// The place in the table.
    pub(super) const fn place(self) -> usize {
        self.place as usize
    }
}

/// The keys in use. Idle ones are forgotten in passing, when others are added.
#[derive(Debug)]
pub(super) struct Table {
    keys_max: usize,
    /// By the name of the key.
    index: Index,
    hasher: RandomState,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Where the search for idle keys goes on.
    hand: usize,
    /// The names of keys that were forgotten, and of which there is a record.
    forgotten: Vec<Box<str>>,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    /// Of the space and the name: half of it, which is enough for the index.
    hash: u32,
    state: Option<KeyState>,
}

/// What is known of a key.
#[derive(Debug)]
pub(super) struct KeyState {
    pub(super) name: Box<str>,
    pub(super) limits: Arc<Limits>,
    /// Rises whenever the meters become others; charges of another version are of no meaning.
    pub(super) version: u32,
    /// The version of the rules that gave the limits.
    pub(super) rules_version: u32,
    /// One for each limit.
    pub(super) meters: Meters,
    /// What was recorded of the meters.
    pub(super) recorded: Option<Box<Recorded>>,
    pub(super) holders: Holders,
    /// Where it is counted how busy it is, if it is.
    pub(super) busy: u16,
    /// Where its answers are counted.
    pub(super) pattern: PatternId,
    /// What only few keys have at a time.
    pub(super) rest: Option<Box<Rest>>,
}

pub(super) type Meters = SmallVec<[Meter; 1]>;

/// What was recorded of a key, for a later run of the server.
#[derive(Debug)]
pub(super) struct Recorded {
    /// The number of the latest record.
    pub(super) number: u64,
    /// What it covers, for each limit.
    pub(super) latest: Vec<Cover>,
    /// What the record before covers, until the latest is known to be written.
    pub(super) awaited: Option<Vec<Cover>>,
}

/// What a key has beside its meters and holders while it is waited for, lent, frozen or changed.
#[derive(Debug, Default)]
pub(super) struct Rest {
    pub(super) frozen_until: Option<Timestamp>,
    /// Who waits, first come first.
    pub(super) queue: BTreeSet<WaiterId>,
    /// What all who wait cost together.
    pub(super) queued_cost: u64,
    /// The instant for which the key has a timer, to serve the queue.
    pub(super) wake_at: Option<Timestamp>,
    /// How many blocks of the key may still be spent from.
    pub(super) blocks: u64,
    /// How many reservations of the key are not settled: what they overdraw is still to be counted.
    pub(super) reserved: u64,
    /// Whether the limits were set for this key alone, while the server runs.
    pub(super) own_limits: bool,
    /// How many permits were granted of which not all other servers have said that they know.
    pub(super) untold: u64,
}

impl KeyState {
    pub(super) fn new(
        name: &str,
        (limits, pattern): (Arc<Limits>, PatternId),
        rules_version: u32,
    ) -> Self {
        let (name, meters) = (name.into(), fresh_meters(&limits));
        Self {
            name,
            limits,
            version: 0,
            rules_version,
            meters,
            recorded: None,
            holders: Holders::None,
            busy: u16::MAX,
            pattern,
            rest: None,
        }
    }

    /// What only few keys have; made if it is not there.
    pub(super) fn rest_mut(&mut self) -> &mut Rest {
        self.rest.get_or_insert_default()
    }

    pub(super) fn space(&self) -> Space {
        if self.limits.shape().is_some() { Space::Locks } else { Space::Limits }
    }

    /// Whether the size of a semaphore would be forgotten with the key.
    fn has_size(&self) -> bool {
        matches!(self.limits.shape(), Some(Shape::Semaphore(_)))
    }

    /// Whether forgetting the key changes no answer that anybody could count on.
    pub(super) fn may_be_forgotten(&self, now: Timestamp) -> bool {
        self.is_idle(now) && !self.has_size()
    }

    /// Whether forgetting the key changes no answer.
    fn is_idle(&self, now: Timestamp) -> bool {
        self.holders.leases().is_empty()
            && self.rest.as_ref().is_none_or(|rest| rest.is_empty(now))
            && self.meters.iter().zip(self.limits.iter()).all(|(m, l)| m.is_idle(now, &l.kind))
    }
}

impl Rest {
    fn is_empty(&self, now: Timestamp) -> bool {
        self.frozen_until.is_none_or(|until| until <= now)
            && self.queue.is_empty()
            && self.blocks == 0
            && self.reserved == 0
            && self.untold == 0
            && !self.own_limits
    }
}

/// The meters of a key of which nothing is used.
pub(super) fn fresh_meters(limits: &Limits) -> Meters {
    limits.iter().map(|limit| Meter::new(&limit.kind)).collect()
}

impl Table {
    pub(super) fn new(keys_max: usize) -> Self {
        Self {
            keys_max,
            index: Index::new(),
            hasher: RandomState::new(),
            slots: Vec::new(),
            free: Vec::new(),
            hand: 0,
            forgotten: Vec::new(),
        }
    }

    /// Where the key is, if it is in use.
    pub(super) fn find(&self, space: Space, key: Key<'_>) -> Option<KeyId> {
        let hash = self.hash(space, key.as_str());
        let named = |place| self.name_at(place) == Some((space, key.as_str()));
        let place = self.index.find(spread(hash), named)?;
        Some(KeyId { place, generation: self.slots[place as usize].generation })
    }

    /// Adds a key that is not in use. `None` if the table is full of keys that are. Those of `keep`
    /// are about to be used.
    pub(super) fn add(
        &mut self,
        now: Timestamp,
        state: KeyState,
        keep: &[(KeyId, u64)],
    ) -> Option<KeyId> {
        self.forget_idle(now, LOOKS, keep);
        if self.len() >= self.keys_max {
            self.forget_idle(now, LOOKS_WHEN_FULL, keep);
            if self.len() >= self.keys_max {
                return None;
            }
        }
        let hash = self.hash(state.space(), &state.name);
        let place = self.free.pop().or_else(|| u32::try_from(self.slots.len()).ok())?;
        if place as usize == self.slots.len() {
            push_slowly_growing(&mut self.slots, Slot { generation: 0, hash, state: None });
        }
        let slot = &mut self.slots[place as usize];
        slot.hash = hash;
        slot.state = Some(state);
        let generation = slot.generation;
        let slots = &self.slots;
        self.index.add(spread(hash), place, |it| spread(slots[it as usize].hash));
        Some(KeyId { place, generation })
    }

    pub(super) fn get(&self, id: KeyId) -> Option<&KeyState> {
        let slot = self.slots.get(id.place as usize)?;
        slot.state.as_ref().filter(|_| slot.generation == id.generation)
    }

    pub(super) fn get_mut(&mut self, id: KeyId) -> Option<&mut KeyState> {
        let slot = self.slots.get_mut(id.place as usize)?;
        slot.state.as_mut().filter(|_| slot.generation == id.generation)
    }

    /// Forgets a key and everything about it.
    pub(super) fn remove(&mut self, id: KeyId) {
        if self.get(id).is_some() {
            self.vacate(id.place);
        }
    }

    /// The name of a key that was forgotten, and of which there is a record.
    pub(super) fn poll_forgotten(&mut self) -> Option<Box<str>> {
        self.forgotten.pop()
    }

    /// The keys of `count` places from one on, and the place after them, if there are more.
    pub(super) fn some(&self, from: usize, count: usize) -> (Vec<KeyId>, Option<usize>) {
        let places = self.slots.iter().enumerate().skip(from).take(count);
        let keys = places.filter(|(_, slot)| slot.state.is_some()).filter_map(|(place, slot)| {
            Some(KeyId { place: u32::try_from(place).ok()?, generation: slot.generation })
        });
        let end = from.saturating_add(count);
        (keys.collect(), Some(end).filter(|end| *end < self.slots.len()))
    }

    /// How many keys may be in use.
    pub(super) const fn most(&self) -> usize {
        self.keys_max
    }

    /// How many keys are in use.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    #[expect(clippy::cast_possible_truncation, reason = "half of it is enough")]
    fn hash(&self, space: Space, name: &str) -> u32 {
        self.hasher.hash_one((space, name)) as u32
    }

    fn name_at(&self, place: u32) -> Option<(Space, &str)> {
        self.slots[place as usize].state.as_ref().map(|state| (state.space(), &*state.name))
    }

    /// Looks at the next keys in turn and forgets those that are idle. The size of a semaphore is
    /// remembered as long as there is room.
    fn forget_idle(&mut self, now: Timestamp, looks: usize, keep: &[(KeyId, u64)]) {
        let is_full = self.len() >= self.keys_max;
        for _ in 0..looks.min(self.slots.len()) {
            self.hand = if self.hand + 1 < self.slots.len() { self.hand + 1 } else { 0 };
            let may_go = |state: &KeyState| state.is_idle(now) && (is_full || !state.has_size());
            if self.slots[self.hand].state.as_ref().is_some_and(may_go)
                && let Ok(place) = u32::try_from(self.hand)
                && keep.iter().all(|(kept, _)| kept.place != place)
            {
                self.vacate(place);
            }
        }
    }

    fn vacate(&mut self, place: u32) {
        let slot = &mut self.slots[place as usize];
        let state = slot.state.take();
        let recorded = state.filter(|state| state.recorded.is_some());
        self.forgotten.extend(recorded.map(|state| state.name));
        slot.generation = slot.generation.wrapping_add(1);
        self.index.remove(spread(slot.hash), |other| other == place);
        self.free.push(place);
    }
}

/// The index looks at the higher and at the lowest bits: the half is in both of them.
fn spread(hash: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(hash)
}

/// Adds an element. The memory grows by an eighth at a time: with many elements, that of twice as
/// many would be far too much.
pub(super) fn push_slowly_growing<T>(elements: &mut Vec<T>, element: T) {
    if elements.len() == elements.capacity() {
        elements.reserve_exact(elements.len() / 8 + 64);
    }
    elements.push(element);
}
