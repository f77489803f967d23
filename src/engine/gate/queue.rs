//! Those who wait: first come, first served, by nobody's poll.

use std::collections::VecDeque;

use super::deadlock::DEADLOCK_AFTER;
use super::{Gate, Whose};
use crate::engine::measure::Ending;
use crate::engine::request::{Code, Hold, Problem, Reply};
use crate::engine::table::KeyId;
use crate::engine::timers::Timer;
use crate::engine::waiters::{Waiter, WaiterId};
use crate::time::Timestamp;

impl<A> Gate<A> {
    /// Lets a request wait in the queue of each of its keys. Its place, and how many are before it.
    pub(super) fn enqueue(&mut self, now: Timestamp, waiter: Waiter<A>) -> (WaiterId, u64) {
        let (parts, deadline) = (waiter.ask.parts.clone(), waiter.deadline);
        let actor = waiter.ask.owner.map(|owner| (owner, waiter.ask.actor));
        let id = self.waiters.add(waiter);
        if self.actors.wait(actor, id) {
            self.timers.set(now + DEADLOCK_AFTER, Timer::Deadlock(id));
        }
        self.timers.set(deadline, Timer::Deadline(id));
        let mut ahead = 0;
        for (key, cost) in &parts {
            let Some(state) = self.table.get_mut(*key) else { continue };
            let rest = state.rest_mut();
            ahead = ahead.max(rest.queue.len() as u64);
            rest.queue.insert(id);
            rest.queued_cost = rest.queued_cost.saturating_add(*cost);
        }
        if ahead == 0 {
            for (key, _) in parts {
                self.serve(now, key);
            }
        }
        (id, ahead)
    }

    /// Grants what can be granted to those who wait for a key, in their order, and sets the timer
    /// for the first who has to wait on.
    pub(super) fn serve(&mut self, now: Timestamp, key: KeyId) {
        let mut keys = VecDeque::from([key]);
        while let Some(key) = keys.pop_front() {
            self.cancel_wake(key);
            while let Some(first) = self.first_of(key) {
                match self.may_have_it_at(now, first) {
                    Some(at) if at <= now => {
                        let Some(Waiter { ask, since, .. }) = self.dequeue(first) else { break };
                        let others = ask.parts.iter().map(|(other, _)| *other);
                        keys.extend(others.filter(|other| *other != key));
                        self.grant(now, ask, Some(since));
                    }
                    Some(at) => {
                        self.wake(key, at);
                        break;
                    }
                    // Whoever is before it in the queue of another key is served there.
                    None => break,
                }
            }
        }
    }

    /// When a waiter can be granted what it wants; `None` if others come first.
    fn may_have_it_at(&self, now: Timestamp, id: WaiterId) -> Option<Timestamp> {
        let waiter = self.waiters.get(id)?;
        let parts = &waiter.ask.parts;
        let is_first = parts.iter().all(|(key, _)| self.first_of(*key) == Some(id));
        is_first.then(|| self.verdict(now, parts, Whose::First).at)
    }

    fn first_of(&self, key: KeyId) -> Option<WaiterId> {
        self.table.get(key)?.rest.as_ref()?.queue.first().copied()
    }

    /// How many are before a waiter, in the longest of its queues.
    pub(in crate::engine) fn ahead_of(&self, id: WaiterId) -> u64 {
        let Some(waiter) = self.waiters.get(id) else { return 0 };
        let before = waiter.ask.parts.iter().filter_map(|(key, _)| {
            let queue = &self.table.get(*key)?.rest.as_ref()?.queue;
            Some(queue.range(..id).count() as u64)
        });
        before.max().unwrap_or(0)
    }

    /// The waiter's time is over: it hears how long it would have to wait on.
    pub(super) fn give_up(&mut self, now: Timestamp, id: WaiterId) {
        let Some(waiter) = self.waiters.get(id) else { return };
        let parts = waiter.ask.parts.clone();
        let verdict = self.verdict(now, &parts, Whose::Leaver);
        let mut decision = self.refusal(now, &parts, &verdict);
        // It may come as soon as those before it have gone, which nobody can foretell.
        decision.retry_after = decision.retry_after.max(Some(now.next().since(now)));
        if let Some(waiter) = self.leave(now, id) {
            self.count_refused(now, parts[verdict.part].0, Ending::TimedOut);
            self.reply(waiter.ask.asker, Reply::Decision(decision));
        }
    }

    /// Takes a waiter out of all queues; those behind it move up.
    pub(in crate::engine) fn leave(&mut self, now: Timestamp, id: WaiterId) -> Option<Waiter<A>> {
        let waiter = self.dequeue(id)?;
        for (key, _) in &waiter.ask.parts {
            self.serve(now, *key);
        }
        Some(waiter)
    }

    /// Takes several waiters out of all queues, and none of them is served while the others go.
    pub(in crate::engine) fn leave_together(
        &mut self,
        now: Timestamp,
        ids: &[WaiterId],
    ) -> Vec<Waiter<A>> {
        let gone: Vec<_> = ids.iter().filter_map(|id| self.dequeue(*id)).collect();
        for (key, _) in gone.iter().flat_map(|waiter| &waiter.ask.parts) {
            self.serve(now, *key);
        }
        gone
    }

    /// Takes a waiter out of all queues.
    fn dequeue(&mut self, id: WaiterId) -> Option<Waiter<A>> {
        let waiter = self.waiters.remove(id)?;
        self.timers.cancel(waiter.deadline, Timer::Deadline(id));
        self.actors.wait_no_more(waiter.ask.owner, waiter.ask.actor, id);
        for (key, cost) in &waiter.ask.parts {
            let rest = self.table.get_mut(*key).and_then(|state| state.rest.as_mut());
            if let Some(rest) = rest
                && rest.queue.remove(&id)
            {
                rest.queued_cost = rest.queued_cost.saturating_sub(*cost);
            }
        }
        Some(waiter)
    }

    /// The service ends: whoever waits is told, in order.
    pub(in crate::engine) fn close(&mut self, now: Timestamp) {
        let ids: Vec<_> = self.waiters.ids().collect();
        let gone = self.leave_together(now, &ids);
        self.count_waiters(&gone, Ending::Cancelled);
        for waiter in gone {
            let verdict = self.verdict(now, &waiter.ask.parts, Whose::Leaver);
            let decision = self.refusal(now, &waiter.ask.parts, &verdict);
            self.reply(waiter.ask.asker, Reply::Decision(decision));
        }
    }

    /// Those who wait for a key whose limits have changed: who can never be served is told.
    pub(super) fn recheck(&mut self, now: Timestamp, key: KeyId) {
        let state = self.table.get(key);
        let queue: Vec<WaiterId> = state
            .and_then(|state| state.rest.as_ref())
            .map(|rest| rest.queue.iter().copied().collect())
            .unwrap_or_default();
        let problem_of = |id: &WaiterId| {
            let ask = &self.waiters.get(*id)?.ask;
            let is_lease = matches!(ask.hold, Hold::Lease(_));
            Some((*id, self.check(&ask.parts, is_lease).err()?))
        };
        let (ids, problems): (Vec<_>, Vec<_>) = queue.iter().filter_map(problem_of).unzip();
        let gone = self.leave_together(now, &ids);
        self.count_waiters(&gone, Ending::Failed);
        for (waiter, problem) in gone.into_iter().zip(problems) {
            self.reply(waiter.ask.asker, Reply::Refuse(problem));
        }
        self.serve(now, key);
    }

    /// All who wait for a key that has no limits any more are told.
    pub(super) fn dissolve(&mut self, now: Timestamp, key: KeyId) {
        let rest = self.table.get(key).and_then(|state| state.rest.as_ref());
        let queue = rest.map(|rest| rest.queue.iter().copied().collect::<Vec<_>>());
        let gone = self.leave_together(now, &queue.unwrap_or_default());
        self.count_waiters(&gone, Ending::Failed);
        for waiter in gone {
            let message = "the key has no limits any more".to_owned();
            let problem = Problem { code: Code::Config, message };
            self.reply(waiter.ask.asker, Reply::Refuse(problem));
        }
    }

    fn wake(&mut self, key: KeyId, at: Timestamp) {
        if let Some(state) = self.table.get_mut(key).filter(|_| at < Timestamp::NEVER) {
            state.rest_mut().wake_at = Some(at);
            self.timers.set(at, Timer::Serve(key));
        }
    }

    fn cancel_wake(&mut self, key: KeyId) {
        let rest = self.table.get_mut(key).and_then(|state| state.rest.as_mut());
        if let Some(at) = rest.and_then(|rest| rest.wake_at.take()) {
            self.timers.cancel(at, Timer::Serve(key));
        }
    }
}
