//! What an earlier run of the server has granted, and its holders hold on.

use super::settle::margin;
use super::{Gate, hold};
use crate::engine::grant::{Grant, GrantKind, Lease};
use crate::engine::key::Key;
use crate::engine::lock::LockRequest;
use crate::engine::request::{GrantId, Problem, Reply};
use crate::engine::session::SessionId;
use crate::engine::table::KeyId;
use crate::engine::waiters::Parts;
use crate::time::Timestamp;

impl<A> Gate<A> {
    /// A run begins: for a while, holders may reclaim what an earlier run has granted them, and
    /// nothing else is granted unless that one has said all that it had granted.
    pub(in crate::engine) fn begin_locks(&mut self, now: Timestamp, all_is_known: bool) {
        self.reclaim_until = now + margin(hold::RECORDED_FROM);
        self.held_most.clear();
        if !all_is_known {
            self.grace_until = self.reclaim_until;
        }
    }

    /// Permits of a key are held from now on. What was granted while they were all it had is
    /// overtaken: as long as it may be reclaimed, that is remembered.
    pub(super) fn remember_held(&mut self, now: Timestamp, key: KeyId) {
        if now >= self.reclaim_until {
            return self.held_most.clear();
        }
        let Some(state) = self.table.get(key) else { return };
        let Some(shape) = state.limits.shape() else { return };
        let held = state.holders.held();
        if let Some((known, most)) = self.held_most.get_mut(&state.name) {
            *most = if *known == shape { held.max(*most) } else { u64::MAX };
        } else if self.held_most.len() < self.table.most() {
            self.held_most.insert(state.name.clone(), (shape, held));
        } else {
            // What cannot be remembered must not be asked for.
            self.reclaim_until = now;
        }
    }

    /// Whether what an earlier run has granted is not overtaken: nobody has had in this run what
    /// cannot be had beside it.
    fn was_free(&self, key: KeyId, permits: u64) -> bool {
        let Some(state) = self.table.get(key) else { return false };
        let Some(shape) = state.limits.shape() else {
            // Of several servers, none grants a permit anew as long as one may be reclaimed.
            let held = state.holders.held().saturating_add(permits);
            return self.homes.is_some() && held <= state.limits.at_once();
        };
        self.held_most.get(&state.name).is_none_or(|(known, most)| {
            *known == shape && most.saturating_add(permits) <= shape.at_once().get()
        })
    }

    /// A holder that knew an earlier run goes on to hold what that one has granted.
    pub(super) fn reclaim(
        &mut self,
        now: Timestamp,
        owner: Option<SessionId>,
        id: GrantId,
        wanted: &LockRequest<'_>,
    ) -> Result<Reply, Problem> {
        let gone = || Self::not_held("the lease cannot be reclaimed");
        // One of several servers may not know whether a client has heard who is home of what.
        let may_be = self.homes.is_some() || self.grants.is_earlier(id);
        let owner = owner.filter(|_| may_be).ok_or_else(gone)?;
        if self.grants.get(id).is_some() {
            return if self.claim_lease(now, owner, id) { Ok(Reply::Done) } else { Err(gone()) };
        }
        let is_over = |key: &Key<'_>| self.may_be_reclaimed_until(key.as_str()) <= now;
        if wanted.locks.parts().iter().any(|(key, _)| is_over(key)) {
            return Err(gone());
        }
        self.room_for_grant(owner)?;
        let parts = self.held_parts(now, &wanted.locks)?;
        if !parts.iter().all(|(key, permits)| self.was_free(*key, *permits)) {
            return Err(gone());
        }
        let lease = Lease::new(now, wanted.term, wanted.actor);
        self.take_up(now, id, owner, &parts, lease);
        Ok(Reply::Done)
    }

    /// The owner says that it holds a lease. Whether it does.
    pub(in crate::engine) fn claim_lease(
        &mut self,
        now: Timestamp,
        owner: SessionId,
        id: GrantId,
    ) -> bool {
        let Some(grant) = self.grants.get_mut(id).filter(|grant| grant.owner == owner) else {
            return false;
        };
        let GrantKind::Lease(lease) = &mut grant.kind else { return false };
        let was_claimed = std::mem::replace(&mut lease.is_claimed, true);
        lease.renewed_at = now;
        let lease = *lease;
        if !was_claimed && lease.is_renewed() {
            self.watch_lease(now, id, owner, &lease);
        }
        true
    }

    /// Has the owner hold what an earlier run has granted.
    pub(super) fn take_up(
        &mut self,
        now: Timestamp,
        id: GrantId,
        owner: SessionId,
        parts: &Parts,
        lease: Lease,
    ) {
        let taken = self.taken_of_locks(parts);
        self.hold(now, id, Grant { owner, taken, kind: GrantKind::Lease(lease) });
    }
}
