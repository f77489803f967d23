//! Keys of which other servers grant permits too.

use std::time::Duration;

use super::{Gate, Whose};
use crate::engine::key::Key;
use crate::engine::limit::{Kind, Meter};
use crate::engine::peering::{Difference, Go, Left, Peered, Peering, Usage};
use crate::engine::request::{Code, Problem};
use crate::engine::rules::Limits;
use crate::engine::table::{KeyId, KeyState, Space};
use crate::engine::waiters::Parts;
use crate::time::Timestamp;

/// After how long whoever waits for the word of other servers is looked at, if none comes.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// How many bytes of usage are told at a time, about.
const USAGE_BYTES: usize = 16_384;

/// How many places of the table are looked at for that.
const USAGE_PLACES: usize = 1024;

impl<A> Gate<A> {
    pub(in crate::engine) fn set_peering(&mut self, now: Timestamp, standing: Peering) {
        self.peered.get_or_insert_with(|| Box::new(Peered::new(standing))).standing = standing;
        if !standing.is_told {
            self.is_known(now, u64::MAX);
        }
        self.serve_all(now);
    }

    /// Permits of a key were taken: others are to be told, and it may have to be recorded.
    pub(super) fn took(&mut self, now: Timestamp, key: KeyId, permits: u64) {
        self.record_use(now, key, permits);
        let Some(peered) = &mut self.peered else { return };
        let Some(state) = self.table.get_mut(key) else { return };
        if permits == 0 || state.space() == Space::Locks {
            return;
        }
        let standing = peered.standing;
        if peered.granted.is_empty() {
            (peered.since, peered.is_urgent) = (now, false);
        }
        match peered.granted.last_mut() {
            Some((last, sum, at)) if *last == key => {
                (*sum, *at) = (sum.saturating_add(permits), now);
            }
            _ => peered.granted.push((key, permits, now)),
        }
        let rest = state.rest_mut();
        rest.untold = rest.untold.saturating_add(permits);
        let untold = rest.untold;
        peered.is_urgent |= standing.is_told && untold >= untold_max(standing, state) / 2;
        if standing.is_cut_off() {
            // A rate of which only a share may be used.
            for (meter, limit) in state.meters.iter_mut().zip(state.limits.iter()) {
                if let Kind::Gcra(..) = limit.kind {
                    meter.charge(now, &limit.kind, standing.weigh(permits) - permits);
                }
            }
        }
    }

    pub(in crate::engine) fn granted_since(&self) -> Option<(Timestamp, bool)> {
        let peered = self.peered.as_ref().filter(|peered| !peered.granted.is_empty())?;
        Some((peered.since, peered.is_urgent))
    }

    pub(in crate::engine) fn take_granted(
        &mut self,
        now: Timestamp,
        number: u64,
        keys_max: usize,
    ) -> Vec<Go> {
        let Some(peered) = &mut self.peered else { return Vec::new() };
        peered.granted.sort_by_key(|(key, ..)| *key);
        peered.granted.dedup_by(|later, first| {
            let is_same = later.0 == first.0;
            if is_same {
                *first = (first.0, first.1.saturating_add(later.1), first.2.max(later.2));
            }
            is_same
        });
        let count = keys_max.min(peered.granted.len());
        let mut goes = Vec::with_capacity(count);
        for (key, permits, at) in peered.granted.drain(..count) {
            let Some(state) = self.table.get_mut(key) else { continue };
            if peered.standing.is_told {
                peered.untold.push_back((number, key, permits));
            } else {
                let rest = state.rest_mut();
                rest.untold = rest.untold.saturating_sub(permits);
            }
            let meters = state.meters.iter().zip(state.limits.iter());
            goes.push(Go {
                key: state.name.clone(),
                limits: texts(&state.limits),
                permits,
                ages: meters.map(|(meter, limit)| meter.age(now, &limit.kind, at)).collect(),
            });
        }
        goes
    }

    /// The others know of what was told in the messages up to this one.
    pub(in crate::engine) fn is_known(&mut self, now: Timestamp, number: u64) {
        let mut keys = Vec::new();
        let Some(peered) = &mut self.peered else { return };
        while peered.untold.front().is_some_and(|told| told.0 <= number) {
            let Some((_, key, permits)) = peered.untold.pop_front() else { break };
            let rest = self.table.get_mut(key).and_then(|state| state.rest.as_mut());
            if let Some(rest) = rest {
                rest.untold = rest.untold.saturating_sub(permits);
                if !rest.queue.is_empty() && !keys.contains(&key) {
                    keys.push(key);
                }
            }
        }
        for key in keys {
            self.serve(now, key);
        }
    }

    pub(in crate::engine) fn count_in(
        &mut self,
        now: Timestamp,
        go: &Go,
    ) -> Result<(), Difference> {
        let texts = go.limits.iter().map(|text| &**text);
        let (id, differs) = self.find_shared(now, &go.key, &texts)?;
        let Some(state) = self.table.get_mut(id) else { return Ok(()) };
        for (place, meter) in state.meters.iter_mut().enumerate() {
            // Of other limits the age says nothing: it counts as if it were granted now.
            let age = go.ages.get(place).copied().filter(|_| differs.is_none());
            match (age, &state.limits.at(place).kind) {
                (Some(age), kind) => meter.count_in(now, kind, age, go.permits),
                (None, kind) => drop(meter.charge(now, kind, go.permits)),
            }
        }
        self.record_use(now, id, go.permits);
        self.serve(now, id);
        differs.map_or(Ok(()), Err)
    }

    pub(in crate::engine) fn take_over(
        &mut self,
        now: Timestamp,
        usage: &Usage,
    ) -> Result<(), Difference> {
        let texts = usage.limits.iter().map(|(text, _)| &**text);
        let (id, differs) = self.find_shared(now, &usage.key, &texts)?;
        if let Some(differs) = differs {
            return Err(differs);
        }
        let Some(state) = self.table.get_mut(id) else { return Ok(()) };
        for (place, (_, left)) in usage.limits.iter().enumerate() {
            if let (Some(meter), Some(left)) = (state.meters.get_mut(place), left) {
                meter.take_over(now, &state.limits.at(place).kind, left);
            }
        }
        self.record(now, id, true, true);
        self.serve(now, id);
        Ok(())
    }

    /// The key that another server speaks of, and whether it has other limits there. An error if
    /// it is not served here.
    fn find_shared<'a>(
        &mut self,
        now: Timestamp,
        name: &str,
        texts: &(impl Iterator<Item = &'a str> + Clone),
    ) -> Result<(KeyId, Option<Difference>), Difference> {
        let there = || texts.clone().collect::<Vec<_>>().join(" and ");
        let none = |here| Difference { key: name.into(), here, there: there() };
        let id = Key::parse(name).ok().and_then(|key| self.find_or_add(now, key, &[]).ok());
        let id = id.ok_or_else(|| none(String::new()))?;
        let Some(state) = self.table.get(id) else { return Err(none(String::new())) };
        let here = (0..state.limits.count()).map(|place| &**state.limits.text(place));
        let differs = !here.clone().eq(texts.clone());
        Ok((id, differs.then(|| none(here.collect::<Vec<_>>().join(" and ")))))
    }

    pub(in crate::engine) fn usage(
        &self,
        now: Timestamp,
        from: usize,
    ) -> (Vec<Usage>, Option<usize>) {
        let (keys, more) = self.table.some(from, USAGE_PLACES);
        let mut all = Vec::new();
        let mut bytes = 0;
        for key in keys {
            if bytes > USAGE_BYTES {
                return (all, Some(key.place()));
            }
            let Some(state) = self.table.get(key).filter(|it| it.space() == Space::Limits) else {
                continue;
            };
            let left = |(place, meter): (usize, &Meter)| {
                let left = meter.left(now, &state.limits.at(place).kind);
                (state.limits.text(place).clone(), left)
            };
            let limits: Vec<_> = state.meters.iter().enumerate().map(left).collect();
            if limits.iter().any(|(_, left)| left.is_some()) {
                let key = state.name.clone();
                bytes += key.len() + limits.iter().map(size).sum::<usize>();
                all.push(Usage { key, limits });
            }
        }
        (all, more)
    }

    /// A limit and what is asked of it, of which only a share may be used while others are cut off.
    pub(super) fn shared(&self, kind: Kind, ahead: u64, cost: u64) -> (Kind, u64, u64) {
        let Some(standing) = self.cut_off() else { return (kind, ahead, cost) };
        match kind {
            Kind::Gcra(_, burst) => {
                (kind, standing.weigh(ahead), standing.weigh(cost).min(burst.get().max(cost)))
            }
            kind => (standing.tightened(kind), ahead, cost),
        }
    }

    /// How many permits could be taken at once now.
    pub(super) fn remaining(&self, now: Timestamp, meter: &Meter, kind: &Kind) -> u64 {
        match (self.cut_off(), kind) {
            (None, _) => meter.remaining(now, kind),
            (Some(standing), Kind::Gcra(..)) => match meter.remaining(now, kind) {
                0 => 0,
                left => standing.share(left),
            },
            (Some(standing), kind) => meter.remaining(now, &standing.tightened(*kind)),
        }
    }

    fn cut_off(&self) -> Option<Peering> {
        let peered = self.peered.as_ref()?;
        Some(peered.standing).filter(Peering::is_cut_off)
    }

    /// When to look again whether permits of a key can be granted, if the others are to say first
    /// that they know what was granted before.
    pub(super) fn untold_until(
        &self,
        now: Timestamp,
        state: &KeyState,
        cost: u64,
    ) -> Option<Timestamp> {
        let standing = self.peered.as_ref()?.standing;
        if now < standing.joins_until {
            return Some(standing.joins_until);
        }
        if !standing.is_told {
            return None;
        }
        let untold = state.rest.as_ref().map_or(0, |rest| rest.untold);
        let is_too_much = untold > 0 && untold.saturating_add(cost) > untold_max(standing, state);
        is_too_much.then(|| now + LOOK_AGAIN)
    }

    /// How many permits of a key may be lent that the others do not know of.
    pub(super) fn lendable(&self, state: &KeyState) -> u64 {
        self.peered.as_ref().map_or(u64::MAX, |peered| untold_max(peered.standing, state))
    }

    /// The answer for those who want a lock.
    pub(super) fn no_locks() -> Problem {
        let message = "servers that count for each other with `peers` have no locks and no \
                       concurrency limits: whoever holds one must be the only one, so give the \
                       servers a `registry`, or one server to all";
        Problem { code: Code::KindMismatch, message: message.to_owned() }
    }

    /// Until when a request waits that would not, because only the word of other servers keeps it
    /// from being granted.
    pub(super) fn held_until(&self, now: Timestamp, parts: &Parts) -> Option<Timestamp> {
        self.peered.as_ref()?;
        for (key, cost) in parts {
            let state = self.table.get(*key)?;
            let rest = state.rest.as_deref();
            let ahead = rest.map_or(0, |rest| rest.queued_cost);
            let is_free = |place| {
                let at = self.earliest(now, (state, place), ahead, *cost, Whose::Newcomer);
                state.limits.at(place).shadow || at <= now
            };
            if rest.is_some_and(|rest| rest.frozen_until.is_some_and(|until| until > now))
                || !(0..state.limits.count()).all(is_free)
            {
                return None;
            }
        }
        Some(now + Peering::HOLD)
    }
}

/// How many permits of a key may be granted that the others do not know of.
fn untold_max(standing: Peering, state: &KeyState) -> u64 {
    let enforced = state.limits.iter().filter(|limit| !limit.shadow);
    enforced.map(|limit| standing.untold_max(limit.capacity())).min().unwrap_or(u64::MAX)
}

fn texts(limits: &Limits) -> Vec<std::sync::Arc<str>> {
    (0..limits.count()).map(|place| limits.text(place).clone()).collect()
}

/// How many bytes it takes to tell of a limit, about.
fn size((text, left): &(std::sync::Arc<str>, Option<Left>)) -> usize {
    let left = match left {
        Some(Left::Log(entries)) => entries.len() * 16,
        _ => 16,
    };
    text.len() + left
}
