//! What an earlier run of the server has granted, and its holders hold on.

use super::settle::margin;
use super::{Gate, hold};
use crate::engine::grant::{Grant, GrantKind, Lease};
use crate::engine::lock::LockRequest;
use crate::engine::request::{GrantId, Problem, Reply};
use crate::engine::session::SessionId;
use crate::engine::table::{KeyId, Space};
use crate::engine::waiters::Parts;
use crate::time::Timestamp;

impl<A> Gate<A> {
    /// A run begins: for a while, holders may reclaim what an earlier run has granted them, and
    /// nothing else is granted unless that one has said all that it had granted.
    pub(in crate::engine) fn begin_locks(&mut self, now: Timestamp, all_is_known: bool) {
        self.reclaim_until = now + margin(hold::RECORDED_FROM);
        self.table.keep_locks_until(self.reclaim_until);
        self.held_most.clear();
        if !all_is_known {
            self.grace_until = self.reclaim_until;
        }
    }

    /// Permits of a key are held from now on. What was granted while they were all it had is
    /// overtaken: as long as it may be reclaimed, that is remembered.
    pub(super) fn remember_held(&mut self, now: Timestamp, key: KeyId) {
        if now >= self.reclaim_until {
            // No key is kept for this any more.
            return self.held_most.clear();
        }
        let Some(state) = self.table.get(key).filter(|state| state.space() == Space::Locks) else {
            return;
        };
        let most = self.held_most.entry(key).or_default();
        *most = state.holders.held().max(*most);
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
        let owner = owner.filter(|_| self.grants.is_earlier(id)).ok_or_else(gone)?;
        if let Some(grant) = self.grants.get_mut(id) {
            return match &mut grant.kind {
                GrantKind::Lease(lease) if grant.owner == owner => {
                    let was_claimed = std::mem::replace(&mut lease.is_claimed, true);
                    lease.renewed_at = now;
                    let lease = *lease;
                    if !was_claimed && lease.is_renewed() {
                        self.watch_lease(now, id, owner, &lease);
                    }
                    Ok(Reply::Done)
                }
                _ => Err(gone()),
            };
        }
        if now >= self.reclaim_until {
            return Err(gone());
        }
        self.room_for_grant(owner)?;
        let parts = self.lock_parts(now, &wanted.locks)?;
        let was_free = |(key, permits): &(KeyId, u64)| {
            let Some(state) = self.table.get(*key) else { return false };
            let held = self.held_most.get(key).copied().unwrap_or_default();
            let at_once = state.limits.shape().map_or(0, |shape| shape.at_once().get());
            held.saturating_add(*permits) <= at_once
        };
        // Where it was not, others have had since what it is of, under a higher token.
        if !parts.iter().all(was_free) {
            return Err(gone());
        }
        let lease = Lease::new(now, wanted.term, wanted.actor);
        self.take_up(now, id, owner, &parts, lease);
        Ok(Reply::Done)
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
