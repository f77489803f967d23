//! What operators and clients may change about a key while it is in use.

use std::sync::Arc;
use std::time::Duration;

use super::Gate;
use crate::engine::key::Key;
use crate::engine::limit::{Kind, Meter};
use crate::engine::measure::PatternId;
use crate::engine::request::{Code, Problem, Reply};
use crate::engine::rules::Limits;
use crate::engine::table::{KeyId, Meters, Space, fresh_meters};
use crate::error::Error;
use crate::time::Timestamp;

impl<A> Gate<A> {
    /// Nobody gets a permit of the key for so long, or longer where it is frozen already.
    pub(super) fn freeze(
        &mut self,
        now: Timestamp,
        key: Key<'_>,
        length: Duration,
    ) -> Result<Reply, Problem> {
        let id = self.find_or_add(now, key, &[])?;
        if let Some(state) = self.table.get_mut(id) {
            let rest = state.rest_mut();
            rest.frozen_until = rest.frozen_until.max(Some(now + length));
        }
        // The first in the queue has to wait longer than it was told.
        self.serve(now, id);
        Ok(Reply::Done)
    }

    /// What was used is forgotten, and a freeze ends. Who holds a lease goes on to hold it.
    pub(super) fn reset(&mut self, now: Timestamp, key: Key<'_>) -> Result<Reply, Problem> {
        let Some(id) = self.table.find(Space::Limits, key) else {
            return self.limits_of(key).map(|_| Reply::Done);
        };
        if let Some(state) = self.table.get_mut(id) {
            state.meters = fresh_meters(&state.limits);
            state.version = state.version.wrapping_add(1);
            if let Some(rest) = &mut state.rest {
                rest.frozen_until = None;
            }
        }
        self.record(now, id, true, true);
        self.serve(now, id);
        Ok(Reply::Done)
    }

    /// The key has these limits from now on, whatever the rules say.
    pub(super) fn set_limits(
        &mut self,
        now: Timestamp,
        key: Key<'_>,
        texts: &[&str],
    ) -> Result<Reply, Problem> {
        let limits = Limits::parse(texts).map_err(|error| config(&error))?;
        let lock = self.table.find(Space::Locks, key).and_then(|id| self.table.get(id));
        if lock.is_some_and(|state| !state.may_be_forgotten(now)) {
            let message = format!("key {:?} is a lock: it has no limits", key.as_str());
            return Err(Problem { code: Code::KindMismatch, message });
        }
        let id = match (self.rules.find(key), self.table.find(Space::Limits, key)) {
            (None, Some(id)) => id,
            // A key that no rule knows gets its limits here.
            (None, None) => self.add(now, key, (Arc::new(limits.clone()), PatternId::NONE), &[])?,
            (Some(_), _) => self.find_or_add(now, key, &[])?,
        };
        let Some(state) = self.table.get_mut(id) else { return Ok(Reply::Done) };
        if state.limits.has_concurrency() != limits.has_concurrency() {
            let (has, must) = if limits.has_concurrency() { ("no", "none") } else { ("a", "one") };
            let message = format!(
                "key {:?} has {has} concurrency limit, so its new limits must have {must} too: \
                 those who use it ask for the one kind of permit",
                key.as_str()
            );
            return Err(Problem { code: Code::KindMismatch, message });
        }
        state.rest_mut().own_limits = true;
        self.change_limits(now, id, Arc::new(limits));
        Ok(Reply::Done)
    }

    /// The limits of a key that were set for it alone.
    pub(super) fn own_limits(&self, key: Key<'_>) -> Option<&Limits> {
        let state = self.table.get(self.table.find(Space::Limits, key)?)?;
        state.rest.as_ref().is_some_and(|rest| rest.own_limits).then_some(&*state.limits)
    }

    /// Lets a key that is in use have the limits that the rules give it at present. One that they
    /// do not know is refused, and what was used of it is kept, should they know it again.
    pub(super) fn refresh(&mut self, now: Timestamp, id: KeyId) -> Result<(), Problem> {
        let Some(state) = self.table.get(id) else { return Ok(()) };
        let own_limits = state.rest.as_ref().is_some_and(|rest| rest.own_limits);
        let is_lock = state.space() == Space::Locks;
        if own_limits || is_lock || state.rules_version == self.rules_version {
            return Ok(());
        }
        let name = state.name.clone();
        let Ok(key) = Key::parse(&name) else { return Ok(()) };
        match self.rule_of(key) {
            Ok((limits, pattern)) => {
                if let Some(state) = self.table.get_mut(id) {
                    (state.rules_version, state.pattern) = (self.rules_version, pattern);
                }
                self.change_limits(now, id, limits);
                Ok(())
            }
            Err(problem) => {
                self.dissolve(now, id);
                Err(problem)
            }
        }
    }

    /// Gives a key other limits and keeps what was used.
    fn change_limits(&mut self, now: Timestamp, id: KeyId, limits: Arc<Limits>) {
        let Some(state) = self.table.get_mut(id) else { return };
        if *state.limits != *limits {
            state.meters = adopt(now, (&state.meters, &state.limits), &limits);
            state.version = state.version.wrapping_add(1);
            state.limits = limits;
            self.record(now, id, true, true);
        }
        self.recheck(now, id);
    }
}

/// Meters for new limits, each with the usage of an old one: of the same kind if there is one left,
/// otherwise of another.
pub(super) fn adopt(now: Timestamp, old: (&Meters, &Limits), limits: &Limits) -> Meters {
    let (meters, old_limits) = old;
    let mut left: Vec<(&Meter, &Kind)> =
        meters.iter().zip(old_limits.iter().map(|limit| &limit.kind)).collect();
    let mut adopted: Vec<Option<Meter>> = vec![None; limits.count()];
    for same_kind in [true, false] {
        for (limit, meter) in limits.iter().zip(&mut adopted) {
            let fits = |(_, kind): &(&Meter, &Kind)| {
                let same = std::mem::discriminant(*kind) == std::mem::discriminant(&limit.kind);
                same || !same_kind
            };
            if meter.is_none()
                && let Some(place) = left.iter().position(fits)
            {
                let (old_meter, old_kind) = left.remove(place);
                *meter = Some(Meter::adopt(now, (old_meter, old_kind), &limit.kind));
            }
        }
    }
    let fresh = limits.iter().map(|limit| Meter::new(&limit.kind));
    adopted.into_iter().zip(fresh).map(|(meter, fresh)| meter.unwrap_or(fresh)).collect()
}

/// A bad argument, as those hear it who sent it.
fn config(error: &Error) -> Problem {
    Problem { code: Code::Config, message: error.to_string() }
}
