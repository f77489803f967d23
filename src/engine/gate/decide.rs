//! Whether a request can be granted, when at the earliest, and what is left.

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::deadlock::DEADLOCK_AFTER;
use super::{Gate, Said, Verdict, Whose, decision};
use crate::engine::grant::{Charge, Charges, Grant, GrantKind, Lease, Taken};
use crate::engine::key::Key;
use crate::engine::limit::Kind;
use crate::engine::request::{Code, Cost, Decision, GrantId, Hold, Problem, Reply};
use crate::engine::table::{KeyId, KeyState, Space};
use crate::engine::timers::Timer;
use crate::engine::waiters::{Ask, Parts};
use crate::time::Timestamp;

/// When to ask again where nobody knows which server may grant it.
const HOME_UNSURE: Duration = Duration::from_millis(50);

impl<A> Gate<A> {
    /// Whether such a request can ever be granted.
    pub(super) fn check(&self, parts: &Parts, is_lease: bool) -> Result<(), Problem> {
        for (key, cost) in parts {
            let Some(state) = self.table.get(*key) else { continue };
            let name = &state.name;
            if state.limits.has_concurrency() && !is_lease {
                let message = format!(
                    "key {name:?} has a concurrency limit, whose permits are held and given back: \
                     ask for it with `limit()`"
                );
                return Err(Problem { code: Code::KindMismatch, message });
            }
            let all = state.limits.iter().enumerate();
            let too_small =
                all.filter(|(_, limit)| !limit.shadow).find(|(_, limit)| limit.capacity() < *cost);
            if let Some((place, limit)) = too_small {
                let (text, capacity) = (state.limits.text(place), limit.capacity());
                let message = format!(
                    "cost {cost} of key {name:?} is above its limit {text:?}: at most {capacity} \
                     can be granted at once"
                );
                return Err(Problem { code: Code::CostTooLarge, message });
            }
        }
        Ok(())
    }

    /// When a request can be granted, for whoever asks.
    pub(super) fn verdict(&self, now: Timestamp, parts: &Parts, whose: Whose) -> Verdict {
        let mut verdict = Verdict { at: now, part: 0, limit: None };
        for (part, (key, cost)) in parts.iter().enumerate() {
            let Some(state) = self.table.get(*key) else { continue };
            let rest = state.rest.as_deref();
            let ahead = match whose {
                Whose::Newcomer => rest.map_or(0, |rest| rest.queued_cost),
                Whose::First | Whose::Leaver => 0,
            };
            let mut consider = |at: Timestamp, limit| {
                if verdict.at < at {
                    verdict = Verdict { at, part, limit };
                }
            };
            for (place, limit) in state.limits.iter().enumerate() {
                if limit.shadow {
                    continue;
                }
                consider(self.earliest(now, (state, place), ahead, *cost, whose), Some(place));
            }
            if ahead > 0 {
                // Nobody overtakes, even where there are permits for a smaller request.
                consider(rest.and_then(|rest| rest.wake_at).unwrap_or(now).max(now.next()), None);
            }
            if let Some(until) = rest.and_then(|rest| rest.frozen_until) {
                consider(until, None);
            }
            if let Some(until) = self.untold_until(now, state, *cost) {
                consider(until, None);
            }
            if state.space() == Space::Locks {
                consider(self.grace_until, None);
            }
            consider(self.granted_here_from(now, state), None);
        }
        verdict
    }

    /// When one limit of a key can grant `cost` after `ahead` others.
    pub(super) fn earliest(
        &self,
        now: Timestamp,
        (state, place): (&KeyState, usize),
        ahead: u64,
        cost: u64,
        whose: Whose,
    ) -> Timestamp {
        let kind = &state.limits.at(place).kind;
        let Kind::Concurrency(at_once) = kind else {
            let (kind, ahead, cost) = self.shared(*kind, ahead, cost);
            return state.meters[place].earliest(now, &kind, ahead, cost);
        };
        let held = state.holders.held();
        let wanted = held.saturating_add(ahead).saturating_add(cost);
        let too_many = wanted.saturating_sub(at_once.get());
        match whose {
            _ if too_many == 0 => now,
            // Whatever frees a permit serves the queue: there is no instant to wait for.
            Whose::First => Timestamp::NEVER,
            Whose::Newcomer | Whose::Leaver => self.leases_end_at(now, state, too_many),
        }
    }

    /// When so many permits of a key come back, if all its holders fall silent now.
    fn leases_end_at(&self, now: Timestamp, state: &KeyState, permits: u64) -> Timestamp {
        let mut ends: Vec<(Timestamp, u64)> = Vec::new();
        for id in state.holders.leases() {
            let Some(grant) = self.grants.get(*id) else { continue };
            let parts = grant.taken.parts();
            let cost = parts.iter().filter(|(key, _)| self.is_of(*key, state));
            let GrantKind::Lease(lease) = &grant.kind else { continue };
            ends.push((self.lease_ends_at(grant.owner, lease), cost.map(|(_, cost)| *cost).sum()));
        }
        ends.sort_unstable();
        let mut back: u64 = 0;
        let enough = ends.into_iter().find(|(_, cost)| {
            back = back.saturating_add(*cost);
            back >= permits
        });
        // Those ahead hold leases of their own in the end: nobody knows for how long.
        enough.map_or(now.next(), |(at, _)| at).max(now.next())
    }

    pub(super) fn is_of(&self, key: KeyId, state: &KeyState) -> bool {
        self.table.get(key).is_some_and(|other| std::ptr::eq(other, state))
    }

    /// Whether a request becomes a lease. One of what has no concurrency limit is spent: there is
    /// nothing to give back.
    pub(super) fn holds(&self, parts: &Parts, hold: Hold) -> bool {
        let has_concurrency = |(key, _): &(KeyId, u64)| {
            self.table.get(*key).is_some_and(|state| state.limits.has_concurrency())
        };
        matches!(hold, Hold::Lease(_)) && parts.iter().any(has_concurrency)
    }

    /// Grants a request that can be granted, and says so. If it waited, it did so since an instant.
    pub(super) fn grant(&mut self, now: Timestamp, ask: Ask<A>, since: Option<Timestamp>) {
        let Ask { asker, owner, parts, hold, actor } = ask;
        let parts = &parts;
        let keeper = owner.filter(|_| hold == Hold::Reserve || self.holds(parts, hold));
        if let Some(Err(problem)) = keeper.map(|owner| self.room_for_grant(owner)) {
            return self.fail(asker, self.pattern_of(parts), problem);
        }
        let mut charges: Charges =
            parts.iter().filter_map(|(key, cost)| self.charge(now, *key, *cost)).collect();
        self.count_allowed(now, parts, since);
        let mut decision = self.approval(now, parts);
        if let Some(owner) = keeper {
            let kind = match hold {
                Hold::Lease(term) => GrantKind::Lease(Lease::new(now, term, actor)),
                Hold::Spend | Hold::Reserve => GrantKind::Reservation,
            };
            let is_locks = parts.iter().all(|(key, _)| self.is_lock(*key));
            let charges = std::mem::take(&mut charges);
            let taken = if is_locks { self.taken_of_locks(parts) } else { Taken::new(charges) };
            let grant = Grant { owner, taken, kind };
            let id = self.number_next();
            self.hold(now, id, grant);
            decision.grant = Some(id);
            if let Hold::Lease(_) = hold {
                decision = Decision { grant: decision.grant, ..self.approval(now, parts) };
            }
        }
        self.said.push_back(Said::Reply { to: asker, reply: Reply::Decision(decision), charges });
    }

    /// Counts the permits of one key.
    fn charge(&mut self, now: Timestamp, key: KeyId, cost: u64) -> Option<Charge> {
        let state = self.table.get_mut(key)?;
        let held = state.holders.held();
        let mut marks = SmallVec::new();
        for (place, (meter, limit)) in state.meters.iter_mut().zip(state.limits.iter()).enumerate()
        {
            let is_now = || match &limit.kind {
                Kind::Concurrency(at_once) => held.saturating_add(cost) <= at_once.get(),
                kind => meter.earliest(now, kind, 0, cost) <= now,
            };
            let refused = limit.shadow && (cost > limit.capacity() || !is_now());
            if refused {
                let (key, limit) = (state.name.clone(), Arc::clone(state.limits.text(place)));
                self.said.push_back(Said::WouldRefuse { key, limit });
            }
            marks.push(if refused { 0 } else { meter.charge(now, &limit.kind, cost) });
        }
        let version = state.version;
        self.took(now, key, cost);
        Some(Charge { key, version, cost, marks })
    }

    /// Remembers a grant with its keys.
    pub(super) fn hold(&mut self, now: Timestamp, id: GrantId, mut grant: Grant) {
        let parts = grant.taken.parts();
        match &mut grant.kind {
            GrantKind::Reservation => {}
            GrantKind::Lease(lease) => {
                lease.is_of_permits = !parts.first().is_some_and(|(key, _)| self.is_lock(*key));
                self.permits += usize::from(lease.is_of_permits);
                for waiter in self.actors.take(grant.owner, lease.actor) {
                    self.timers.set(now + DEADLOCK_AFTER, Timer::Deadlock(waiter));
                }
                self.watch_lease(now, id, grant.owner, lease);
            }
            GrantKind::Block(lent) => self.timers.set(lent.ends_at, Timer::Grant(id)),
        }
        for (key, permits) in parts {
            let Some(state) = self.table.get_mut(key) else { continue };
            match grant.kind {
                GrantKind::Lease(_) => {
                    state.holders.add(id, permits);
                    self.remember_held(now, key);
                }
                GrantKind::Block(_) => state.rest_mut().blocks += 1,
                GrantKind::Reservation => state.rest_mut().reserved += 1,
            }
        }
        self.grants.add(id, grant);
        self.record_lease(id);
    }

    /// The answer to a request that was granted just now.
    pub(super) fn approval(&self, now: Timestamp, parts: &Parts) -> Decision {
        let mut tightest = self.state_of(now, parts, 0);
        for part in 1..parts.len() {
            let other = self.state_of(now, parts, part);
            let reset_after = tightest.reset_after.max(other.reset_after);
            if other.remaining < tightest.remaining {
                tightest = other;
            }
            tightest.reset_after = reset_after;
        }
        Decision { allowed: true, retry_after: Some(Duration::ZERO), ..tightest }
    }

    /// The answer to a request that cannot be granted before `verdict` says so.
    pub(super) fn refusal(&self, now: Timestamp, parts: &Parts, verdict: &Verdict) -> Decision {
        let state = self.state_of(now, parts, verdict.part);
        // A server that may grant nothing for the moment knows soon whether it may again.
        let is_known = verdict.at < Timestamp::NEVER;
        let retry_after = if is_known { verdict.at.since(now) } else { HOME_UNSURE };
        let text = verdict.limit.and_then(|place| {
            let key = self.table.get(parts[verdict.part].0)?;
            Some(Arc::clone(key.limits.text(place)))
        });
        Decision {
            allowed: false,
            retry_after: Some(retry_after),
            limit: text.unwrap_or(state.limit),
            ..state
        }
    }

    /// What is left of one key, by the limit that leaves the fewest permits.
    pub(super) fn state_of(&self, now: Timestamp, parts: &Parts, part: usize) -> Decision {
        let Some(state) = self.table.get(parts[part].0) else {
            return decision(false, Arc::from(""), part);
        };
        let held = state.holders.held();
        let (mut remaining, mut tightest, mut reset_after) = (u64::MAX, 0, Duration::ZERO);
        let enforced = state.limits.iter().enumerate().filter(|(_, limit)| !limit.shadow);
        for (place, limit) in enforced {
            let meter = &state.meters[place];
            let left = match &limit.kind {
                Kind::Concurrency(at_once) => at_once.get().saturating_sub(held),
                kind => self.remaining(now, meter, kind),
            };
            if left < remaining {
                (remaining, tightest) = (left, place);
            }
            reset_after = reset_after.max(meter.reset_at(now, &limit.kind).since(now));
        }
        if let Some(until) = state.rest.as_ref().and_then(|rest| rest.frozen_until) {
            reset_after = reset_after.max(until.since(now));
        }
        let limit = Arc::clone(state.limits.text(tightest));
        Decision { remaining, reset_after, ..decision(false, limit, part) }
    }

    /// What the answer to a request would be.
    pub(super) fn peek(
        &mut self,
        now: Timestamp,
        key: Key<'_>,
        cost: Cost,
    ) -> Result<Reply, Problem> {
        let known = self.table.find(Space::Limits, key).is_some();
        // A key that is not in use has nothing to show; it is put away again.
        let id = self.find_or_add(now, key, &[])?;
        let parts = Parts::from_elem((id, cost.permits()), 1);
        let answered = self.check(&parts, true).map(|()| {
            let verdict = self.verdict(now, &parts, Whose::Newcomer);
            if verdict.at <= now {
                let state = self.state_of(now, &parts, 0);
                Decision { allowed: true, retry_after: Some(Duration::ZERO), ..state }
            } else {
                self.refusal(now, &parts, &verdict)
            }
        });
        if !known {
            self.table.remove(id);
        }
        answered.map(Reply::Decision)
    }
}
