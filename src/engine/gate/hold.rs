//! Leases and their numbers over restarts: what is written down, and taken up again.

use std::time::Duration;

use super::{Gate, Said};
use crate::engine::grant::{GrantKind, Lease};
use crate::engine::key::Key;
use crate::engine::lease_record::LeaseRecord;
use crate::engine::lock::Locks;
use crate::engine::request::{Decision, GrantId};
use crate::engine::session::SessionId;
use crate::time::Timestamp;

/// Leases with a `ttl` above this are written down; for all others a new run waits so long.
pub(super) const RECORDED_FROM: Duration = Duration::from_secs(1);

/// How many numbers for grants are laid in at a time.
const NUMBERS_AHEAD: u64 = 1 << 32;

impl<A> Gate<A> {
    /// From now on usage and leases are recorded. The last number for a grant that is laid in.
    pub(in crate::engine) fn make_durable(&mut self) -> GrantId {
        self.durable = true;
        self.numbers_up_to = GrantId(self.grants.last().0.saturating_add(NUMBERS_AHEAD));
        self.numbers_up_to
    }

    /// The number of the next grant. No run before or after this one gives it.
    pub(super) fn number_next(&mut self) -> GrantId {
        let id = self.grants.number();
        if self.durable && id > self.numbers_up_to {
            self.numbers_up_to = GrantId(id.0.saturating_add(NUMBERS_AHEAD));
            self.records += 1;
            let (number, up_to) = (self.records, self.numbers_up_to);
            self.said.push_back(Said::Numbers { number, up_to });
            self.said.push_back(Said::Await { number });
        }
        id
    }

    /// A lease of locks was granted: if it may outlive a restart by far, it is written down before
    /// anybody hears of it.
    pub(super) fn record_lease(&mut self, id: GrantId) {
        let Some(grant) = self.grants.get(id).filter(|_| self.durable) else { return };
        if let GrantKind::Lease(lease @ Lease { is_recorded: false, .. }) = &grant.kind
            && lease.term().ttl > RECORDED_FROM
            && let Some(number) = self.write_lease(id)
        {
            self.said.push_back(Said::Await { number });
        }
    }

    /// Writes down all leases of locks, for a run that follows at once. Whether these are all:
    /// while this run waits for what an earlier one may have granted, they are not.
    pub(in crate::engine) fn hand_over(&mut self, now: Timestamp) -> bool {
        for id in self.grants.ids() {
            self.write_lease(id);
        }
        self.grace_until <= now
    }

    /// Writes a lease down if it is of locks. The number of the record.
    fn write_lease(&mut self, id: GrantId) -> Option<u64> {
        let grant = self.grants.get_mut(id)?;
        let GrantKind::Lease(lease) = &mut grant.kind else { return None };
        let part = |(key, permits)| {
            let state = self.table.get(key)?;
            let shape = state.limits.shape()?;
            Some((state.name.clone(), shape.mode(permits)))
        };
        let parts = grant.taken.parts().into_iter().map(part);
        // Permits of a concurrency limit are not kept: their holders ask anew.
        let parts = parts.collect::<Option<Vec<_>>>()?;
        lease.is_recorded = true;
        let (granted_at, term, actor) = (lease.granted_at, lease.term(), lease.actor);
        let record = LeaseRecord { granted_at, term, actor, request: None, parts };
        let owner = grant.owner;
        self.records += 1;
        let (number, grant) = (self.records, id);
        self.said.push_back(Said::Lease { number, grant, record: Some((owner, record)) });
        Some(number)
    }

    /// A lease is over: what is written of it is dropped, before its end is told.
    pub(super) fn forget_lease(&mut self, id: GrantId, lease: &Lease) {
        if lease.is_recorded && self.durable {
            self.records += 1;
            let (number, grant) = (self.records, id);
            self.said.push_back(Said::Lease { number, grant, record: None });
            self.said.push_back(Said::Await { number });
        }
    }

    /// Takes up a lease that an earlier run has written down. It ends by itself unless its holder
    /// claims it. The answer to who asked for it; nothing if it could not be taken up.
    pub(in crate::engine) fn restore_lease(
        &mut self,
        now: Timestamp,
        same_clock: bool,
        (id, owner): (GrantId, SessionId),
        record: &LeaseRecord,
    ) -> Option<Decision> {
        let keys = record.parts.iter().map(|(name, mode)| Ok((Key::parse(name)?, *mode)));
        let locks = keys.collect::<Result<Vec<_>, _>>().and_then(Locks::new).ok()?;
        let parts = self.held_parts(now, &locks).ok()?;
        let known = same_clock && record.granted_at <= now;
        let mut lease = Lease::new(now, record.term, record.actor);
        lease.granted_at = if known { record.granted_at } else { now };
        (lease.is_claimed, lease.is_recorded) = (false, true);
        self.take_up(now, id, owner, &parts, lease);
        Some(Decision { grant: Some(id), ..self.approval(now, &parts) })
    }
}
