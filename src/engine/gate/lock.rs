//! Locks: keys that no rule names, whose first use says what they are.

use std::num::NonZeroU64;
use std::sync::Arc;

use super::{Gate, Said};
use crate::engine::grant::{Charge, Grant, GrantKind, Taken};
use crate::engine::key::Key;
use crate::engine::lock::{LockPage, LockRequest, LockRow, Locks, Mode, Shape};
use crate::engine::measure::PatternId;
use crate::engine::request::{Code, GrantId, Hold, Problem, Reply, Wait};
use crate::engine::rules::Limits;
use crate::engine::session::{ClientInfo, SessionId, Sessions};
use crate::engine::table::{KeyId, KeyState, Space};
use crate::engine::waiters::{Ask, Parts, WaiterId};
use crate::time::Timestamp;

/// How many bytes a row has at most beside its names.
const ROW_BYTES: usize = 64;

/// How many keys are looked at for one page at most.
const PAGE_KEYS: usize = 4096;

impl<A> Gate<A> {
    /// Takes in a wish for locks. If it has to wait: its place, and how many are before it.
    pub(super) fn lock(
        &mut self,
        now: Timestamp,
        asker: A,
        owner: Option<SessionId>,
        wanted: &LockRequest<'_>,
        wait: Wait,
    ) -> Option<(WaiterId, u64)> {
        match self.lock_parts(now, &wanted.locks) {
            Ok(parts) => {
                let (hold, actor) = (Hold::Lease(wanted.term), wanted.actor);
                self.admit(now, Ask { asker, owner, actor, parts, hold }, wait)
            }
            Err(problem) => {
                self.fail(asker, PatternId::LOCKS, problem);
                None
            }
        }
    }

    /// What an earlier run, or another server, has granted of these keys: permits of those that
    /// have limits here, locks otherwise.
    pub(super) fn held_parts(
        &mut self,
        now: Timestamp,
        locks: &Locks<'_>,
    ) -> Result<Parts, Problem> {
        let is_limit = |(key, _): &(Key<'_>, Mode)| {
            self.rules.find(*key).is_some_and(|limits| limits.has_concurrency())
        };
        if !locks.parts().iter().all(is_limit) {
            return self.lock_parts(now, locks);
        }
        let mut parts = Parts::with_capacity(locks.parts().len());
        for (key, mode) in locks.parts() {
            let id = self.find_or_add(now, *key, &parts)?;
            parts.push((id, mode.permits()));
        }
        Ok(parts)
    }

    /// The keys of locks, each of which is in use from now on. A wish that is refused says nothing
    /// about what a key is.
    pub(super) fn lock_parts(
        &mut self,
        now: Timestamp,
        locks: &Locks<'_>,
    ) -> Result<Parts, Problem> {
        for (key, mode) in locks.parts() {
            self.check_lock(now, *key, *mode)?;
        }
        let mut parts = Parts::with_capacity(locks.parts().len());
        for (key, mode) in locks.parts() {
            let known = self.table.find(Space::Locks, *key);
            let shape = known.and_then(|id| self.table.get(id)?.limits.shape());
            let id = match known {
                Some(id) if shape == Some(mode.shape()) => id,
                other => {
                    if let Some(other) = other {
                        // It may be forgotten, or this would have been refused.
                        self.table.remove(other);
                    }
                    let rule = (self.limits_of_lock(mode.shape()), PatternId::LOCKS);
                    self.add(now, *key, rule, &parts)?
                }
            };
            parts.push((id, mode.permits()));
        }
        Ok(parts)
    }

    /// Whether a key can be a lock that has this mode: as long as it is in use it is what it is.
    fn check_lock(&self, now: Timestamp, key: Key<'_>, mode: Mode) -> Result<(), Problem> {
        let (name, shape) = (key.as_str(), mode.shape());
        let mismatch = |is: &str| {
            let message = format!("key {name:?} is {is}, not {shape}: use another key");
            Err(Problem { code: Code::KindMismatch, message })
        };
        let known = self.table.find(Space::Locks, key).and_then(|id| self.table.get(id));
        if let Some(state) = known.filter(|state| !state.may_be_forgotten(now)) {
            if let Some(other) = state.limits.shape().filter(|found| *found != shape) {
                return mismatch(&other.to_string());
            }
        } else if let Some(limits) = self.rules.named(key) {
            return mismatch(&format!("for permits, by the rule {:?}", &**limits.text(0)));
        } else if let Some(limits) = self.own_limits(key) {
            return mismatch(&format!("for permits, as was set: {:?}", &**limits.text(0)));
        }
        let (cost, size) = (mode.permits(), shape.at_once().get());
        if cost > size {
            let message = format!("cost {cost} of key {name:?} is above its size: it is {shape}");
            return Err(Problem { code: Code::CostTooLarge, message });
        }
        Ok(())
    }

    fn limits_of_lock(&self, shape: Shape) -> Arc<Limits> {
        match shape {
            Shape::Lock => Arc::clone(&self.lock_limits[0]),
            Shape::RwLock => Arc::clone(&self.lock_limits[1]),
            Shape::Semaphore(_) => Arc::new(Limits::of_lock(shape)),
        }
    }

    /// What a lease of locks is of.
    pub(super) fn taken_of_locks(&self, parts: &Parts) -> Taken {
        if let [(key, permits)] = parts.as_slice()
            && let Some(permits) = NonZeroU64::new(*permits)
        {
            return Taken::Lock(*key, permits);
        }
        let charge = |(key, cost): &(KeyId, u64)| {
            let version = self.table.get(*key).map_or(0, |state| state.version);
            Charge { key: *key, version, cost: *cost, marks: [0].into_iter().collect() }
        };
        Taken::new(parts.iter().map(charge).collect())
    }

    /// Takes a lock from its holders, or from the one with that lease.
    pub(super) fn break_lock(
        &mut self,
        now: Timestamp,
        key: Key<'_>,
        only: Option<GrantId>,
    ) -> Result<Reply, Problem> {
        let state = self.table.find(Space::Locks, key).and_then(|id| self.table.get(id));
        let leases = state.map_or(&[][..], |state| state.holders.leases());
        let is_meant = |id: &&GrantId| only.is_none_or(|only| only == **id);
        let broken: Vec<GrantId> = leases.iter().filter(is_meant).copied().collect();
        if broken.is_empty() {
            let what = match only {
                Some(token) => format!("the token {} is not current for", token.0),
                None => "nobody holds".to_owned(),
            };
            let message = format!("{what} the lock {:?}", key.as_str());
            return Err(Problem { code: Code::NotHeld, message });
        }
        for id in broken {
            if let Some(Grant { owner, .. }) = self.drop_grant(now, id) {
                let key = key.as_str().into();
                self.said.push_back(Said::Broken { owner, grant: id, key });
            }
        }
        Ok(Reply::Done)
    }

    /// Some of those who hold and wait. Where to go on is the place of a key in the table, and, in
    /// the lower half, that of the row among the rows of the key.
    pub(in crate::engine) fn page(
        &self,
        now: Timestamp,
        (from, bytes_max): (u64, usize),
        sessions: &Sessions,
    ) -> LockPage {
        let place = usize::try_from(from >> 32).unwrap_or(usize::MAX);
        let mut skip = usize::try_from(from & u64::from(u32::MAX)).unwrap_or(usize::MAX);
        let (keys, more) = self.table.some(place, PAGE_KEYS);
        let mut page = LockPage::default();
        let mut bytes = 0;
        for key in keys {
            let state = self.table.get(key).filter(|state| state.space() == Space::Locks);
            let first = std::mem::take(&mut skip);
            for (number, mut row) in
                state.iter().flat_map(|state| self.rows(now, state)).enumerate()
            {
                if number < first && key.place() == place {
                    continue;
                }
                let session = row.session.and_then(|session| sessions.get(session));
                row.client = session.map(|session| session.client.clone()).unwrap_or_default();
                let names = [&row.key, &row.client.name, &row.client.host];
                bytes += ROW_BYTES + names.map(|name| name.len()).iter().sum::<usize>();
                if bytes > bytes_max && !page.rows.is_empty() {
                    page.next = Some((key.place() as u64) << 32 | number as u64);
                    return page;
                }
                page.rows.push(row);
            }
        }
        page.next = more.map(|place| (place as u64) << 32);
        page
    }

    fn rows<'a>(&'a self, now: Timestamp, state: &'a KeyState) -> impl Iterator<Item = LockRow> {
        let shape = state.limits.shape().unwrap_or(Shape::Lock);
        let permits = move |parts: &Parts| {
            parts.iter().find(|(key, _)| self.is_of(*key, state)).map_or(1, |(_, permits)| *permits)
        };
        let row = move |permits, grant, since: Timestamp, until: Timestamp, session| LockRow {
            key: state.name.clone(),
            mode: shape.mode(permits),
            grant,
            since: now.since(since),
            left: until.since(now),
            session,
            client: ClientInfo::default(),
        };
        let rest = state.rest.as_deref();
        let holders = state.holders.leases().iter().filter_map(move |id| {
            let grant = self.grants.get(*id)?;
            let GrantKind::Lease(lease) = &grant.kind else { return None };
            let parts = grant.taken.parts();
            let ends_at = self.lease_ends_at(grant.owner, lease);
            Some(row(permits(&parts), Some(*id), lease.granted_at, ends_at, Some(grant.owner)))
        });
        let waiters = rest.into_iter().flat_map(|rest| &rest.queue).filter_map(move |id| {
            let waiter = self.waiters.get(*id)?;
            let permits = permits(&waiter.ask.parts);
            Some(row(permits, None, waiter.since, waiter.deadline, waiter.ask.owner))
        });
        holders.chain(waiters)
    }
}
