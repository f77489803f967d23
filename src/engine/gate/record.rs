//! Usage that outlives the process: what has to be written down before a grant is told.
//!
//! A record says more than is used, so that most grants need none. A new one is made when half of
//! that is used up, and has time to be written until all of it is.

use super::{Gate, Said};
use crate::engine::key::Key;
use crate::engine::limit::{Cover, Limit, Meter, Snapshot, Standing};
use crate::engine::record::Record;
use crate::engine::rules::Limits;
use crate::engine::table::{KeyId, KeyState, Meters, Recorded};
use crate::time::Timestamp;

/// What became of a record of an earlier run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restored {
    /// Its usage counts on.
    Kept,
    /// Nothing of it counts any more.
    Over,
    /// The key has no limits any more: its usage is dropped.
    Unserved,
}

/// Why a record cannot be taken up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// It is no record, or of another version.
    Unreadable,
    /// There are more keys than may be in use.
    TooManyKeys,
}

impl<A> Gate<A> {
    /// Permits of a key were taken: sees to it that they are recorded before anybody hears of it.
    pub(super) fn record_use(&mut self, now: Timestamp, key: KeyId, permits: u64) {
        if !self.durable {
            return;
        }
        let Some(state) = self.table.get_mut(key) else { return };
        if let Some(recorded) = &mut state.recorded {
            let covers = recorded.latest.iter_mut().chain(recorded.awaited.iter_mut().flatten());
            covers.for_each(|cover| cover.take(permits));
        }
        self.keep_up(now, key);
    }

    /// Permits of a key came back: sees to it that not too much is recorded.
    pub(super) fn record_return(&mut self, now: Timestamp, key: KeyId, permits: u64) {
        let state = self.table.get_mut(key).filter(|_| permits > 0);
        let Some(recorded) = state.and_then(|state| state.recorded.as_mut()) else { return };
        recorded.latest.iter_mut().for_each(|cover| cover.give_back(permits));
        self.keep_up(now, key);
    }

    /// Makes a record if it is time for one.
    fn keep_up(&mut self, now: Timestamp, key: KeyId) {
        let Some(state) = self.table.get_mut(key) else { return };
        if !state.limits.iter().any(Limit::is_durable) {
            return;
        }
        let Some(recorded) = &state.recorded else {
            return self.record(now, key, true, true);
        };
        let latest = standing(now, state, &recorded.latest);
        let awaited = recorded.awaited.as_ref();
        let outgrown =
            awaited.is_some_and(|covers| standing(now, state, covers) == Standing::Beyond);
        if latest == Standing::Beyond {
            self.record(now, key, true, true);
            return;
        }
        if outgrown {
            let number = recorded.number;
            self.said.push_back(Said::Await { number });
            if let Some(recorded) = &mut state.recorded {
                recorded.awaited = None;
            }
        }
        if latest != Standing::Within {
            self.record(now, key, true, false);
        }
    }

    /// Makes a record of a key; with what may be used next, if it is to be used on. The answers
    /// that follow wait for it if it is `urgent`.
    pub(super) fn record(&mut self, now: Timestamp, key: KeyId, ahead: bool, urgent: bool) {
        let Some(state) = self.table.get_mut(key).filter(|_| self.durable) else { return };
        let mut covers = Vec::with_capacity(state.limits.count());
        let mut limits = Vec::with_capacity(state.limits.count());
        for (place, (meter, limit)) in state.meters.iter().zip(state.limits.iter()).enumerate() {
            let more = if ahead { limit.kind.ahead() } else { 0 };
            let durable = Some(meter).filter(|_| limit.is_durable());
            let snapshot = durable.and_then(|meter| meter.snapshot(now, &limit.kind, more));
            covers.push(snapshot.as_ref().map_or(Cover::Nothing, Snapshot::cover));
            limits.push((state.limits.text(place).to_string(), snapshot));
        }
        let before = state.recorded.take();
        let used = limits.iter().any(|(_, snapshot)| snapshot.is_some());
        if !used && before.is_none() {
            return;
        }
        self.records += 1;
        let number = self.records;
        let key = state.name.clone();
        let record = used.then(|| Record { saved_at: now, limits }.encode());
        if used {
            // What is on the disk covers no more than this until the new record is awaited. One
            // that nobody has awaited yet would not be known to be there.
            let pending = before.as_ref().filter(|before| before.awaited.is_some() && !urgent);
            if let Some(pending) = pending {
                self.said.push_back(Said::Await { number: pending.number });
            }
            let awaited = before.map(|before| before.latest).filter(|_| !urgent);
            state.recorded = Some(Box::new(Recorded { number, latest: covers, awaited }));
        }
        self.said.push_back(Said::Record { number, key, record });
        if urgent {
            self.said.push_back(Said::Await { number });
        }
    }

    /// Forgets the records of keys that were forgotten.
    pub(super) fn drop_records(&mut self) {
        while let Some(key) = self.table.poll_forgotten() {
            self.records += 1;
            self.said.push_back(Said::Record { number: self.records, key, record: None });
        }
    }

    /// Records exactly what is used of some of the keys, in their order `from` a place in the
    /// table. Where to go on, if there are more.
    pub(in crate::engine) fn settle(&mut self, now: Timestamp, from: usize) -> Option<usize> {
        const AT_ONCE: usize = 4096;
        let (keys, more) = self.table.some(from, AT_ONCE);
        for key in keys {
            if self.table.get(key).is_some_and(|state| state.recorded.is_some()) {
                self.record(now, key, false, true);
            }
        }
        more
    }

    /// Takes up a record of an earlier run, whose clock was the same or another one.
    pub(in crate::engine) fn restore(
        &mut self,
        now: Timestamp,
        same_clock: bool,
        name: &str,
        bytes: &[u8],
    ) -> Result<Restored, Unfit> {
        let key = Key::parse(name).map_err(|_| Unfit::Unreadable)?;
        let mut record = Record::decode(bytes).ok_or(Unfit::Unreadable)?;
        let old = record.parse_limits().ok_or(Unfit::Unreadable)?;
        // A clock that went back is another one, whatever its name.
        let moved = !same_clock || now < record.saved_at;
        if moved {
            record.move_to(now);
        }
        let snapshots = || record.limits.iter().map(|(_, snapshot)| snapshot.as_ref());
        let mut meters = meters_of(now, &old, &record).ok_or(Unfit::Unreadable)?;
        if snapshots().flatten().all(|snapshot| snapshot.is_over(now)) {
            self.drop_record(name);
            return Ok(Restored::Over);
        }
        let Ok(limits) = self.limits_of(key).cloned() else {
            self.drop_record(name);
            return Ok(Restored::Unserved);
        };
        let id = self.find_or_add(now, key, &[]).map_err(|_| Unfit::TooManyKeys)?;
        if *limits != old {
            meters = super::change::adopt(now, (&meters, &old), &limits);
        }
        let fresh = self.put_restored(now, id, meters);
        let same = *limits == old && snapshots().eq(fresh.iter().map(Option::as_ref));
        if moved || !same {
            // Otherwise all that was left to wait would be left again at the next start.
            self.record(now, id, false, true);
        }
        Ok(Restored::Kept)
    }

    /// Gives a key the meters that were restored. Their exact snapshots.
    fn put_restored(
        &mut self,
        now: Timestamp,
        key: KeyId,
        meters: Meters,
    ) -> Vec<Option<Snapshot>> {
        let Some(state) = self.table.get_mut(key) else { return Vec::new() };
        state.meters = meters;
        state.version = state.version.wrapping_add(1);
        let snapshots: Vec<_> = state
            .meters
            .iter()
            .zip(state.limits.iter())
            .map(|(meter, limit)| {
                limit.is_durable().then(|| meter.snapshot(now, &limit.kind, 0)).flatten()
            })
            .collect();
        let cover =
            |snapshot: &Option<_>| snapshot.as_ref().map_or(Cover::Nothing, Snapshot::cover);
        let latest = snapshots.iter().map(cover).collect();
        state.recorded = Some(Box::new(Recorded { number: 0, latest, awaited: None }));
        snapshots
    }

    fn drop_record(&mut self, name: &str) {
        self.records += 1;
        let (number, key) = (self.records, name.into());
        self.said.push_back(Said::Record { number, key, record: None });
    }
}

/// The meters of a record.
pub(super) fn meters_of(now: Timestamp, limits: &Limits, record: &Record) -> Option<Meters> {
    let meter = |(limit, (_, snapshot)): (&Limit, &(_, Option<Snapshot>))| match snapshot {
        Some(snapshot) => Meter::restore(now, &limit.kind, snapshot),
        None => Some(Meter::new(&limit.kind)),
    };
    limits.iter().zip(&record.limits).map(meter).collect()
}

/// How the use of a key stands to what was recorded, by the limit for which it is worst.
fn standing(now: Timestamp, state: &KeyState, covers: &[Cover]) -> Standing {
    let meters = state.meters.iter().zip(state.limits.iter()).zip(covers);
    let durable = meters.filter(|((_, limit), _)| limit.is_durable());
    let standings = durable.map(|((meter, limit), cover)| meter.standing(now, &limit.kind, cover));
    standings.max().unwrap_or(Standing::Within)
}
