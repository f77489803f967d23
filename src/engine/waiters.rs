//! The requests that wait at the server, first come, first served.

use std::collections::BTreeMap;

use smallvec::SmallVec;

use crate::engine::request::Hold;
use crate::engine::session::SessionId;
use crate::engine::table::KeyId;
use crate::time::Timestamp;

/// A waiter's place in the order of all waiters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct WaiterId(u64);

/// What is wanted of which keys.
pub(super) type Parts = SmallVec<[(KeyId, u64); 1]>;

/// A request for permits.
#[derive(Debug)]
pub(super) struct Ask<A> {
    /// Whom to answer.
    pub(super) asker: A,
    pub(super) owner: Option<SessionId>,
    /// Who of the owner asks; 0 if nobody in particular.
    pub(super) actor: u64,
    pub(super) parts: Parts,
    pub(super) hold: Hold,
}

/// A request that waits for its permits.
#[derive(Debug)]
pub(super) struct Waiter<A> {
    pub(super) ask: Ask<A>,
    pub(super) since: Timestamp,
    /// Until when at the latest.
    pub(super) deadline: Timestamp,
}

/// All who wait, in the order in which they came.
#[derive(Debug)]
pub(super) struct Waiters<A> {
    most: usize,
    last: WaiterId,
    all: BTreeMap<WaiterId, Waiter<A>>,
}

impl<A> Waiters<A> {
    pub(super) const fn new(most: usize) -> Self {
        Self { most, last: WaiterId(0), all: BTreeMap::new() }
    }

    /// Puts a waiter at the end. The caller has seen that there is room.
    pub(super) fn add(&mut self, waiter: Waiter<A>) -> WaiterId {
        debug_assert!(!self.is_full());
        self.last = WaiterId(self.last.0 + 1);
        self.all.insert(self.last, waiter);
        self.last
    }

    pub(super) fn get(&self, id: WaiterId) -> Option<&Waiter<A>> {
        self.all.get(&id)
    }

    pub(super) fn remove(&mut self, id: WaiterId) -> Option<Waiter<A>> {
        self.all.remove(&id)
    }

    /// All of them, in their order.
    pub(super) fn ids(&self) -> impl Iterator<Item = WaiterId> {
        self.all.keys().copied()
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.all.len() >= self.most
    }
}
