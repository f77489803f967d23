//! What is counted of each key, and shown to those who look.

use super::Gate;
use crate::engine::busiest::Busy;
use crate::engine::request::Decision;
use crate::engine::table::{KeyId, KeyState};
use crate::engine::waiters::Parts;
use crate::time::Timestamp;

impl<A> Gate<A> {
    /// A request was allowed.
    pub(super) fn count_allowed(&mut self, now: Timestamp, parts: &Parts) {
        for (key, _) in parts {
            self.count(now, *key, (1, 0));
        }
    }

    /// A request was refused because of this key.
    pub(super) fn count_refused(&mut self, now: Timestamp, key: KeyId) {
        self.count(now, key, (0, 1));
    }

    /// Counts answers of which so many were allowed, and so many refused.
    pub(super) fn count(&mut self, now: Timestamp, key: KeyId, answers: (u64, u64)) {
        if let Some(state) = self.table.get_mut(key) {
            self.busiest.count(now, key, &mut state.busy, answers);
        }
    }

    /// The busiest keys that are in use, the busiest first.
    pub(in crate::engine) fn ranked(&mut self, now: Timestamp) -> Vec<Busy> {
        let table = &self.table;
        self.busiest.ranked(now, |key| table.get(key).is_some())
    }

    /// A key, and what is left of it.
    pub(in crate::engine) fn shown(
        &self,
        now: Timestamp,
        key: KeyId,
    ) -> Option<(&KeyState, Decision)> {
        let decision = self.state_of(now, &Parts::from_elem((key, 1), 1), 0);
        Some((self.table.get(key)?, decision))
    }

    /// Before that no lock is granted: an earlier run may have granted it.
    pub(in crate::engine) const fn grace_until(&self) -> Timestamp {
        self.grace_until
    }
}
