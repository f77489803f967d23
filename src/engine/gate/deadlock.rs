//! Cycles of waits: who waits for a lock while it holds others, and is waited for in turn.
//!
//! Those who hold and wait are threads and tasks, not clients. Only one that begins to wait
//! while it holds something, or to hold something while it waits, can close a cycle, so only
//! such a one is looked at, a second later. Which of those that it waits for can ever go on is
//! found as in Coffman, Elphick and Shoshani, "System deadlocks", 1971: whoever could be served
//! by all that others may still give back is taken away, again and again; those that are left
//! are stuck.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use smallvec::SmallVec;

use super::{Gate, Said};
use crate::engine::grant::{Grant, GrantKind};
use crate::engine::measure::Ending;
use crate::engine::request::GrantId;
use crate::engine::session::SessionId;
use crate::engine::table::KeyId;
use crate::engine::waiters::WaiterId;
use crate::time::Timestamp;

/// How long one waits before a cycle is looked for.
pub(super) const DEADLOCK_AFTER: Duration = Duration::from_secs(1);

/// How many waiters are looked at for one cycle at most.
const WAITERS_MAX: usize = 10_000;

/// A thread or a task of a client; 0 is none in particular.
type Actor = (SessionId, u64);

/// One of those in a cycle of waits.
#[derive(Debug)]
pub(in crate::engine) struct Stuck {
    /// Who waits.
    who: Actor,
    /// For which key.
    key: Box<str>,
    /// The lease of that key by which the next one holds it up; nothing if the next one only waits
    /// before it.
    lease: Option<GrantId>,
}

/// Tells a cycle to people; `client` says who a session is.
pub(in crate::engine) fn tell_cycle(
    cycle: &[Stuck],
    client: impl Fn(SessionId) -> String,
) -> String {
    let name = |stuck: &Stuck| match stuck.who {
        (session, 0) => client(session),
        (session, actor) => format!("thread or task {actor} of {}", client(session)),
    };
    let links = cycle.iter().enumerate().map(|(place, stuck)| {
        let next = name(&cycle[(place + 1) % cycle.len()]);
        let how = match stuck.lease {
            Some(lease) => format!("{next} has it with the token {}", lease.0),
            None => format!("{next} waits for it before"),
        };
        let who = if place == 0 { format!("{} ", name(stuck)) } else { String::new() };
        format!("{who}waits for {:?}; {how}", stuck.key)
    });
    let links: Vec<_> = links.collect();
    let links = links.join(", and ");
    format!("this wait is the youngest of a cycle in which nobody could go on: {links}")
}

/// What holds a waiter up: another one, of which key, and by which lease unless it only waits
/// before it.
type Blocker = (WaiterId, (KeyId, Option<GrantId>));

/// Who holds locks, and who waits for some.
#[derive(Debug, Default)]
pub(super) struct Actors {
    /// How many leases each has. There may be as many actors as leases, and nothing iterates.
    held: HashMap<Actor, usize>,
    waits: BTreeMap<Actor, SmallVec<[WaiterId; 1]>>,
}

impl Actors {
    /// An actor has one more lease. What it waits for meanwhile.
    pub(super) fn take(&mut self, owner: SessionId, actor: u64) -> SmallVec<[WaiterId; 1]> {
        if actor == 0 {
            return SmallVec::new();
        }
        *self.held.entry((owner, actor)).or_default() += 1;
        self.waits((owner, actor)).into()
    }

    pub(super) fn give_back(&mut self, owner: SessionId, actor: u64) {
        if let Entry::Occupied(mut held) = self.held.entry((owner, actor)) {
            *held.get_mut() -= 1;
            if *held.get() == 0 {
                held.remove();
            }
        }
    }

    /// An actor begins to wait. Whether it holds something.
    pub(super) fn wait(&mut self, actor: Option<Actor>, waiter: WaiterId) -> bool {
        let Some(actor) = actor.filter(|(_, actor)| *actor != 0) else { return false };
        self.waits.entry(actor).or_default().push(waiter);
        self.held.contains_key(&actor)
    }

    pub(super) fn wait_no_more(&mut self, owner: Option<SessionId>, actor: u64, waiter: WaiterId) {
        let Some(actor) = owner.map(|owner| (owner, actor)) else { return };
        if let Some(waits) = self.waits.get_mut(&actor) {
            waits.retain(|it| *it != waiter);
            if waits.is_empty() {
                self.waits.remove(&actor);
            }
        }
    }

    fn waits(&self, actor: Actor) -> &[WaiterId] {
        self.waits.get(&actor).map_or(&[], |waits| waits)
    }
}

impl<A> Gate<A> {
    /// As long as a waiter is part of a cycle, the youngest of the cycle waits no more.
    pub(super) fn resolve_deadlock(&mut self, now: Timestamp, waiter: WaiterId) {
        while let Some(cycle) = self.cycle_in(&self.stuck_with(waiter), waiter) {
            self.break_cycle(now, &cycle);
        }
    }

    fn break_cycle(&mut self, now: Timestamp, cycle: &[Blocker]) {
        let Some(youngest) = cycle.iter().map(|(waiter, _)| *waiter).max() else { return };
        let first = cycle.iter().position(|(waiter, _)| *waiter == youngest).unwrap_or(0);
        let from_youngest = cycle.iter().cycle().skip(first).take(cycle.len());
        let said = from_youngest.filter_map(|(waiter, (key, lease))| {
            let ask = &self.waiters.get(*waiter)?.ask;
            let key = self.table.get(*key)?.name.clone();
            Some(Stuck { who: (ask.owner?, ask.actor), key, lease: *lease })
        });
        let cycle = said.collect();
        if let Some(waiter) = self.leave(now, youngest) {
            self.measures.count(self.pattern_of(&waiter.ask.parts), Ending::Failed, 1);
            self.said.push_back(Said::Deadlock { to: waiter.ask.asker, cycle });
        }
    }

    /// Those of a waiter and of all that it waits for who can never go on.
    fn stuck_with(&self, waiter: WaiterId) -> BTreeSet<WaiterId> {
        let mut stuck = BTreeSet::from([waiter]);
        let mut open = vec![waiter];
        while let Some(next) = open.pop() {
            for (blocker, _) in self.blockers(next) {
                if stuck.insert(blocker) {
                    open.push(blocker);
                }
            }
            if stuck.len() > WAITERS_MAX {
                return BTreeSet::new();
            }
        }
        loop {
            // The oldest first: whoever stands behind one that can go on is seen in the same round.
            let mut freed = false;
            for waiter in stuck.clone() {
                if self.could_go_on(waiter, &stuck) {
                    freed |= stuck.remove(&waiter);
                }
            }
            if !freed {
                return stuck;
            }
        }
    }

    /// Whether a waiter could have its locks if all but those who are `stuck` give back theirs.
    fn could_go_on(&self, waiter: WaiterId, stuck: &BTreeSet<WaiterId>) -> bool {
        let Some(waiting) = self.waiters.get(waiter) else { return true };
        waiting.ask.parts.iter().all(|(key, permits)| {
            let Some(state) = self.table.get(*key) else { return true };
            let queue = state.rest.as_deref().map(|rest| &rest.queue);
            let before = queue.and_then(|queue| queue.range(..waiter).next_back());
            if before.is_some_and(|before| stuck.contains(before)) {
                return false;
            }
            let is_stuck = |id: &GrantId| {
                let grant = self.grants.get(*id)?;
                let waits =
                    holder_for_good(grant).map_or(&[][..], |actor| self.actors.waits(actor));
                let parts = grant.taken.parts();
                let (_, permits) = parts.iter().find(|(other, _)| other == key)?;
                waits.iter().any(|wait| stuck.contains(wait)).then_some(*permits)
            };
            let kept =
                state.holders.leases().iter().filter_map(is_stuck).fold(0_u64, u64::saturating_add);
            let at_once = state.limits.shape().map_or(u64::MAX, |shape| shape.at_once().get());
            kept.saturating_add(*permits) <= at_once
        })
    }

    /// A way through the stuck from a waiter back to itself: each with that by which the next holds
    /// it up.
    fn cycle_in(&self, stuck: &BTreeSet<WaiterId>, start: WaiterId) -> Option<Vec<Blocker>> {
        if !stuck.contains(&start) {
            return None;
        }
        let mut seen = BTreeSet::new();
        let mut path: Vec<Blocker> = Vec::new();
        let mut open = vec![(0, start, None)];
        while let Some((depth, waiter, via)) = open.pop() {
            path.truncate(depth);
            if let (Some(via), Some(last)) = (via, path.last_mut()) {
                last.1 = via;
            }
            if waiter == start && depth > 0 {
                return Some(path);
            }
            if !seen.insert(waiter) {
                continue;
            }
            let blockers = self.blockers(waiter);
            path.push((waiter, blockers.first()?.1));
            let stuck_ones = blockers.into_iter().filter(|(blocker, _)| stuck.contains(blocker));
            open.extend(stuck_ones.map(|(blocker, via)| (depth + 1, blocker, Some(via))));
        }
        None
    }

    /// The waiters that hold a waiter up: who is before it in a queue, and what those wait for who
    /// hold what it wants, if they leave it too little.
    fn blockers(&self, waiter: WaiterId) -> Vec<Blocker> {
        let Some(waiting) = self.waiters.get(waiter) else { return Vec::new() };
        let mut blockers = Vec::new();
        for (key, permits) in &waiting.ask.parts {
            let Some(state) = self.table.get(*key) else { continue };
            let Some(shape) = state.limits.shape() else { continue };
            let queue = state.rest.as_deref().map(|rest| &rest.queue);
            let before = queue.and_then(|queue| queue.range(..waiter).next_back());
            blockers.extend(before.map(|before| (*before, (*key, None))));
            if state.holders.held().saturating_add(*permits) <= shape.at_once().get() {
                continue;
            }
            for lease in state.holders.leases() {
                if let Some(actor) = self.grants.get(*lease).and_then(holder_for_good) {
                    let waits = self.actors.waits(actor).iter();
                    blockers.extend(waits.map(|wait| (*wait, (*key, Some(*lease)))));
                }
            }
        }
        blockers
    }
}

/// Who has a lease that does not end by itself, as one does that an earlier run has granted and
/// nobody has claimed: its holder may not know of it.
fn holder_for_good(grant: &Grant) -> Option<Actor> {
    match &grant.kind {
        GrantKind::Lease(lease) => {
            let is_for_good = lease.is_claimed && lease.term().max_hold.is_none();
            (is_for_good && lease.actor != 0).then_some((grant.owner, lease.actor))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_actor_that_holds_and_does_not_wait_has_three_words() {
        assert_eq!(size_of::<(Actor, usize)>(), 24);
    }
}
