//! Permits that come back: of leases, reservations, and answers that nobody wanted.

use std::time::Duration;

use super::Gate;
use crate::engine::grant::{Charge, Charges, Grant, GrantKind, Lease};
use crate::engine::request::{Code, GrantId, Problem, Reply};
use crate::engine::session::SessionId;
use crate::engine::timers::Timer;
use crate::time::Timestamp;

/// How much longer a lease lasts at the server than was asked for, in thousandths. Clocks may
/// differ in rate by 2, which the holder's own margin bears as well: with a larger one, the
/// locks of the dead would be free late.
const LEASE_MARGIN: u32 = 4;

impl<A> Gate<A> {
    /// A reservation is over: what was not spent comes back, what was spent beyond it is counted.
    pub(super) fn commit(
        &mut self,
        now: Timestamp,
        owner: Option<SessionId>,
        id: GrantId,
        spent: &[u64],
    ) -> Result<Reply, Problem> {
        let reservation = |grant: &Grant| matches!(grant.kind, GrantKind::Reservation);
        let grant = self
            .owned(owner, id, reservation)
            .ok_or_else(|| Self::not_held("there is no such reservation of this client"))?;
        let keys = grant.taken.parts().len();
        if keys != spent.len() {
            let message = format!(
                "spent must be given for each of the {} keys of the reservation, not for {}",
                keys,
                spent.len()
            );
            return Err(Problem { code: Code::Config, message });
        }
        let charges =
            self.forget_grant(id).map(|grant| grant.taken.into_charges()).unwrap_or_default();
        for (charge, spent) in charges.iter().zip(spent) {
            self.take_back(now, charge, charge.cost.saturating_sub(*spent));
            self.overdraw(now, charge, spent.saturating_sub(charge.cost));
        }
        for charge in &charges {
            self.serve(now, charge.key);
        }
        Ok(Reply::Done)
    }

    /// A lease is given back.
    pub(super) fn release(
        &mut self,
        now: Timestamp,
        owner: Option<SessionId>,
        id: GrantId,
    ) -> Result<Reply, Problem> {
        let lease = |grant: &Grant| matches!(grant.kind, GrantKind::Lease(_));
        if self.owned(owner, id, lease).is_none() {
            return Err(Self::not_held("there is no such lease of this client"));
        }
        self.drop_grant(now, id);
        Ok(Reply::Done)
    }

    /// Whether the owner holds this lease.
    pub(in crate::engine) fn has_lease(&self, owner: SessionId, id: GrantId) -> bool {
        self.owned(Some(owner), id, |grant| matches!(grant.kind, GrantKind::Lease(_))).is_some()
    }

    /// The grant, if it is this owner's and of the right kind.
    pub(super) fn owned(
        &self,
        owner: Option<SessionId>,
        id: GrantId,
        is_kind: impl Fn(&Grant) -> bool,
    ) -> Option<&Grant> {
        self.grants.get(id).filter(|grant| Some(grant.owner) == owner && is_kind(grant))
    }

    /// Nobody wants what was granted with an answer: it comes back.
    pub(in crate::engine) fn refund(&mut self, now: Timestamp, charges: &Charges) {
        for charge in charges {
            self.take_back(now, charge, charge.cost);
        }
        for charge in charges {
            self.serve(now, charge.key);
        }
    }

    /// A grant of which the owner never learnt comes back whole.
    pub(in crate::engine) fn revoke(&mut self, now: Timestamp, id: GrantId) {
        let Some(grant) = self.drop_grant(now, id) else { return };
        let charges = grant.taken.into_charges();
        match grant.kind {
            GrantKind::Reservation | GrantKind::Lease(_) => self.refund(now, &charges),
            GrantKind::Block(lent) => {
                self.return_permits(now, &charges, &lent.claims, lent.permits);
            }
        }
    }

    /// The owner is gone: its leases end, and what it had reserved or borrowed is spent.
    pub(in crate::engine) fn abandon(&mut self, now: Timestamp, owner: SessionId) {
        // A block counts as lent until it is void, whoever has it.
        let ends = |(id, grant): (GrantId, &Grant)| {
            (!matches!(grant.kind, GrantKind::Block(_))).then_some(id)
        };
        for id in self.grants.of(owner).filter_map(ends).collect::<Vec<_>>() {
            self.drop_grant(now, id);
        }
    }

    /// Whether the owner holds anything that ends only when it is given back.
    pub(in crate::engine) fn has_leases(&self, owner: SessionId) -> bool {
        self.grants.of(owner).any(|(_, grant)| matches!(grant.kind, GrantKind::Lease(_)))
    }

    /// A grant may have come to its end: a lease whose holder was heard since lives on.
    pub(super) fn end_grant(&mut self, now: Timestamp, id: GrantId) {
        let Some(grant) = self.grants.get(id) else { return };
        if let GrantKind::Lease(lease) = &grant.kind {
            let ends_at = self.lease_ends_at(grant.owner, lease);
            if lease.is_renewed() {
                // It was claimed since, and has another timer.
                return;
            }
            if now < ends_at {
                return self.timers.set(ends_at, Timer::Grant(id));
            }
        }
        self.drop_grant(now, id);
    }

    /// When a lease ends if its holder stays silent.
    pub(super) fn lease_ends_at(&self, owner: SessionId, lease: &Lease) -> Timestamp {
        let (granted_at, renewed_at, term) = (lease.granted_at, lease.renewed_at, lease.term());
        let heard = self.heard.get(owner.place()).filter(|_| lease.is_claimed);
        let renewed_at = heard.copied().unwrap_or_default().max(renewed_at);
        let ends_at = renewed_at + margin(term.ttl);
        term.max_hold.map_or(ends_at, |most| ends_at.min(granted_at + margin(most)))
    }

    /// Forgets a grant; the permits of a lease can be held by others.
    pub(super) fn drop_grant(&mut self, now: Timestamp, id: GrantId) -> Option<Grant> {
        let grant = self.forget_grant(id)?;
        self.count_held(now, &grant);
        for (key, _) in grant.taken.parts() {
            self.serve(now, key);
        }
        Some(grant)
    }

    fn forget_grant(&mut self, id: GrantId) -> Option<Grant> {
        let grant = self.grants.remove(id)?;
        for (key, permits) in grant.taken.parts() {
            let Some(state) = self.table.get_mut(key) else { continue };
            match grant.kind {
                GrantKind::Lease(_) => state.holders.remove(id, permits),
                GrantKind::Block(_) => {
                    let rest = state.rest_mut();
                    rest.blocks = rest.blocks.saturating_sub(1);
                }
                GrantKind::Reservation => {
                    let rest = state.rest_mut();
                    rest.reserved = rest.reserved.saturating_sub(1);
                }
            }
        }
        if let GrantKind::Lease(lease) = &grant.kind {
            self.permits -= usize::from(lease.is_of_permits);
            self.actors.give_back(grant.owner, lease.actor);
            self.unwatch_lease(grant.owner, lease);
            self.forget_lease(id, lease);
        }
        Some(grant)
    }

    /// Takes `permits` of a charge back, where its meters are still the same.
    pub(super) fn take_back(&mut self, now: Timestamp, charge: &Charge, permits: u64) {
        let state = self.table.get_mut(charge.key);
        let Some(state) = state.filter(|state| state.version == charge.version) else { return };
        let meters = state.meters.iter_mut().zip(state.limits.iter());
        for ((meter, limit), mark) in meters.zip(&charge.marks) {
            meter.refund(now, &limit.kind, *mark, permits);
        }
        self.record_return(now, charge.key, permits);
    }

    /// Counts what was spent beyond what was reserved.
    fn overdraw(&mut self, now: Timestamp, charge: &Charge, permits: u64) {
        let Some(state) = self.table.get_mut(charge.key).filter(|_| permits > 0) else { return };
        for (meter, limit) in state.meters.iter_mut().zip(state.limits.iter()) {
            meter.charge(now, &limit.kind, permits);
        }
        self.took(now, charge.key, permits);
    }
}

/// The length of a lease at the server.
pub(super) fn margin(ttl: Duration) -> Duration {
    ttl + ttl * LEASE_MARGIN / 1000
}
