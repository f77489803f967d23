//! What is counted of keys and their patterns, and shown to those who look.

use super::Gate;
use crate::engine::busiest::Busy;
use crate::engine::grant::{Grant, GrantKind};
use crate::engine::measure::{Ending, Measures, PatternId};
use crate::engine::request::{Decision, Problem, Reply};
use crate::engine::table::{KeyId, KeyState, Space};
use crate::engine::waiters::{Parts, Waiter, WaiterId};
use crate::time::Timestamp;

impl<A> Gate<A> {
    /// A request is allowed; if it waited, it did so since an instant.
    pub(super) fn count_allowed(
        &mut self,
        now: Timestamp,
        parts: &Parts,
        since: Option<Timestamp>,
    ) {
        let ending = if since.is_some() { Ending::Waited } else { Ending::Allowed };
        for (key, _) in parts {
            self.count(now, *key, (1, 0), ending);
        }
        if let (Some(since), Some((key, _))) = (since, parts.first()) {
            self.measures.waited(self.is_lock(*key), now.since(since));
        }
    }

    /// A request is refused because of this key.
    pub(super) fn count_refused(&mut self, now: Timestamp, key: KeyId, ending: Ending) {
        self.count(now, key, (0, 1), ending);
    }

    /// Permits of a key are lent.
    pub(super) fn count_lent(&mut self, now: Timestamp, key: KeyId, permits: u64) {
        self.count(now, key, (permits, 0), Ending::Lent);
    }

    fn count(&mut self, now: Timestamp, key: KeyId, answers: (u64, u64), ending: Ending) {
        if let Some(state) = self.table.get_mut(key) {
            self.busiest.count(now, key, &mut state.busy, answers);
            self.measures.count(state.pattern, ending, answers.0 + answers.1);
        }
    }

    /// A request cannot be answered: it is counted where its first key is, if that is known.
    pub(super) fn fail(&mut self, asker: A, pattern: PatternId, problem: Problem) {
        self.measures.count(pattern, Ending::Failed, 1);
        self.reply(asker, Reply::Refuse(problem));
    }

    /// These waiters end without a decision.
    pub(super) fn count_waiters(&mut self, waiters: &[Waiter<A>], ending: Ending) {
        for waiter in waiters {
            let pattern = self.pattern_of(&waiter.ask.parts);
            self.measures.count(pattern, ending, 1);
        }
    }

    /// Nobody wants what these waiters wait for any more.
    pub(in crate::engine) fn withdraw(&mut self, now: Timestamp, ids: &[WaiterId]) {
        let gone = self.leave_together(now, ids);
        self.count_waiters(&gone, Ending::Cancelled);
    }

    /// The pattern of the first of some keys.
    pub(super) fn pattern_of(&self, parts: &Parts) -> PatternId {
        let first = parts.first().and_then(|(key, _)| self.table.get(*key));
        first.map_or(PatternId::NONE, |state| state.pattern)
    }

    /// A lease is over.
    pub(super) fn count_held(&mut self, now: Timestamp, grant: &Grant) {
        if let GrantKind::Lease(lease) = &grant.kind
            && let Some((key, _)) = grant.taken.parts().first()
        {
            self.measures.held(self.is_lock(*key), now.since(lease.granted_at));
        }
    }

    pub(super) fn is_lock(&self, key: KeyId) -> bool {
        self.table.get(key).is_some_and(|state| state.space() == Space::Locks)
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

    /// What was measured.
    pub(in crate::engine) const fn measures(&self) -> &Measures {
        &self.measures
    }

    /// Before that no lock is granted: an earlier run may have granted it.
    pub(in crate::engine) const fn grace_until(&self) -> Timestamp {
        self.grace_until
    }
}
