//! When leases end that messages of their holders renew: one timer for all leases of a session.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Gate;
use super::settle::margin;
use crate::engine::grant::{Grant, GrantKind, Lease};
use crate::engine::request::GrantId;
use crate::engine::session::SessionId;
use crate::engine::timers::Timer;
use crate::time::Timestamp;

/// The leases of a session that its messages renew.
#[derive(Debug, Default)]
pub(super) struct Renewed {
    /// How many there are of each `ttl`.
    ttls: BTreeMap<Duration, usize>,
    /// When the first of them may have ended, as its timer has it.
    due_at: Option<Timestamp>,
}

impl<A> Gate<A> {
    /// Sets the timer by which a lease ends.
    pub(super) fn watch_lease(
        &mut self,
        now: Timestamp,
        id: GrantId,
        owner: SessionId,
        lease: &Lease,
    ) {
        if !lease.is_renewed() {
            let ends_at = self.lease_ends_at(owner, lease);
            return self.timers.set(ends_at, Timer::Grant(id));
        }
        let place = owner.place();
        if self.renewed.len() <= place {
            self.renewed.resize_with(place + 1, Renewed::default);
        }
        let ttl = lease.term().ttl;
        *self.renewed[place].ttls.entry(ttl).or_default() += 1;
        self.look_at_leases(owner, now + margin(ttl));
    }

    /// A lease is over, however it came: its timer is not needed.
    pub(super) fn unwatch_lease(&mut self, owner: SessionId, lease: &Lease) {
        let Some(renewed) = self.renewed.get_mut(owner.place()) else { return };
        let ttl = lease.term().ttl;
        if lease.is_renewed()
            && let Some(count) = renewed.ttls.get_mut(&ttl)
        {
            *count -= 1;
            if *count == 0 {
                renewed.ttls.remove(&ttl);
            }
            if renewed.ttls.is_empty()
                && let Some(due_at) = renewed.due_at.take()
            {
                self.timers.cancel(due_at, Timer::Leases(owner));
            }
        }
    }

    /// Has the leases of a session looked at, then or before.
    fn look_at_leases(&mut self, owner: SessionId, at: Timestamp) {
        let renewed = &mut self.renewed[owner.place()];
        if renewed.due_at.is_none_or(|due_at| at < due_at) {
            if let Some(due_at) = renewed.due_at.replace(at) {
                self.timers.cancel(due_at, Timer::Leases(owner));
            }
            self.timers.set(at, Timer::Leases(owner));
        }
    }

    /// Some leases of a session may have ended: not those of which the holder was heard since.
    pub(super) fn end_leases(&mut self, now: Timestamp, owner: SessionId) {
        let Some(renewed) = self.renewed.get_mut(owner.place()) else { return };
        renewed.due_at = None;
        let Some((shortest, _)) = renewed.ttls.first_key_value() else { return };
        let heard = self.heard.get(owner.place()).copied().unwrap_or_default();
        let none_before = heard + margin(*shortest);
        if now < none_before {
            return self.look_at_leases(owner, none_before);
        }
        let end_of = |(id, grant): (GrantId, &Grant)| match &grant.kind {
            GrantKind::Lease(lease) if lease.is_renewed() => {
                Some((self.lease_ends_at(owner, lease), id))
            }
            _ => None,
        };
        let ends: Vec<_> = self.grants.of(owner).filter_map(end_of).collect();
        let next = ends.iter().map(|(ends_at, _)| *ends_at).filter(|ends_at| now < *ends_at).min();
        for (_, id) in ends.into_iter().filter(|(ends_at, _)| *ends_at <= now) {
            self.drop_grant(now, id);
        }
        if let Some(next) = next {
            self.look_at_leases(owner, next);
        }
    }
}
