//! The promises of locks, held against what happens in true time.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::AddAssign;

use zmqlocker::engine::{GrantId, Mode};

use crate::locks::plan::{BOOK, POOL, POOL_SIZE, Parts};

pub type Violation = crate::trial::Violation<Law>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Law {
    /// Nobody believes to hold what another one holds.
    Alone,
    /// A token is above all that were given before for the same lock.
    Rise,
    /// Who waits is answered in time.
    Answer,
    /// All locks come back, and nothing is left of them.
    Return,
    /// A client that holds nothing and waits for nothing says nothing.
    Silence,
}

/// How often things happened that make the simulation worth its while.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub grants: u64,
    pub reclaims: u64,
    pub restored: u64,
    /// Answers of an earlier run that a later one has said.
    pub found: u64,
    pub breaks: u64,
    pub deadlocks: u64,
    pub crashes: u64,
    pub stops: u64,
    /// Hellos of a connection that had a successor already.
    pub late_hellos: u64,
    /// Requests that were answered.
    pub answers: u64,
}

impl Tally {
    /// Whether all of it has happened.
    pub fn is_full(&self) -> bool {
        let Self { grants, reclaims, restored, breaks, deadlocks, .. } = *self;
        let Self { found, crashes, stops, late_hellos, answers, .. } = *self;
        let all = [grants, reclaims, restored, breaks, deadlocks, crashes, stops, late_hellos];
        all.into_iter().chain([found, answers]).all(|count| count > 0)
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, more: Self) {
        self.grants += more.grants;
        self.reclaims += more.reclaims;
        self.restored += more.restored;
        self.found += more.found;
        self.breaks += more.breaks;
        self.deadlocks += more.deadlocks;
        self.crashes += more.crashes;
        self.stops += more.stops;
        self.late_hellos += more.late_hellos;
        self.answers += more.answers;
    }
}

#[derive(Debug, Default)]
pub struct Laws {
    violation: Option<Violation>,
    pub tally: Tally,
    /// The last token of each lock.
    last: BTreeMap<&'static str, GrantId>,
    /// Leases that were taken from their holders, who may not know it yet.
    broken: BTreeSet<GrantId>,
    /// What the present run of the server has granted, and let be reclaimed.
    of_run: BTreeMap<GrantId, Parts>,
    /// Whether that is all that a run knows: what an earlier one has granted, others may have.
    pub forgets: bool,
}

impl Laws {
    pub fn hold(&mut self, law: Law, is_kept: bool, story: impl FnOnce() -> String) {
        if !is_kept && self.violation.is_none() {
            self.violation = Some(Violation { law, story: story() });
        }
    }

    /// The first violation, if there was one.
    pub fn verdict(&self) -> Result<(), Violation> {
        self.violation.clone().map_or(Ok(()), Err)
    }

    pub fn begin_run(&mut self) {
        self.of_run.clear();
    }

    /// Somebody goes on to hold locks that an earlier run has granted.
    pub fn reclaim(&mut self, now: u64, token: GrantId, parts: &Parts) {
        self.tally.reclaims += 1;
        let newer = self.of_run.range(token..).skip_while(|(other, _)| **other == token);
        let overtaken = newer
            .flat_map(|(other, theirs)| theirs.iter().map(move |part| (other, part)))
            .find(|(_, theirs)| parts.iter().any(|mine| excludes(mine, theirs)))
            .map(|(other, (key, _))| (*other, *key));
        self.hold(Law::Rise, overtaken.is_none(), || {
            format!("{token:?} is held again at {now}, after {overtaken:?}")
        });
        self.of_run.insert(token, parts.clone());
    }

    /// Somebody is granted locks under a token.
    pub fn grant(&mut self, now: u64, token: GrantId, parts: &Parts) {
        self.tally.grants += 1;
        self.of_run.insert(token, parts.clone());
        for (key, _) in parts {
            let before = self.last.insert(key, token);
            let rises = before.is_none_or(|before| before < token);
            self.hold(Law::Rise, rises, || {
                format!("{key} has {token:?} after {before:?} at {now}")
            });
        }
    }

    pub fn take_from_holders(&mut self, tokens: &[GrantId]) {
        for token in tokens {
            self.tally.breaks += u64::from(self.broken.insert(*token));
        }
    }

    /// These believe to hold locks: clients, their tokens and what they have.
    pub fn check_holders<'a>(
        &mut self,
        now: u64,
        holders: impl Iterator<Item = (usize, GrantId, &'a Parts)>,
    ) {
        let mut by_key: BTreeMap<&str, Vec<(usize, GrantId, Mode)>> = BTreeMap::new();
        let counts = |token: &GrantId| {
            !self.broken.contains(token) && (!self.forgets || self.of_run.contains_key(token))
        };
        for (client, token, parts) in holders.filter(|(_, token, _)| counts(token)) {
            for (key, mode) in parts {
                by_key.entry(key).or_default().push((client, token, *mode));
            }
        }
        for (key, holders) in by_key {
            let modes = || holders.iter().map(|(.., mode)| *mode);
            let can_be = match key {
                BOOK => holders.len() == 1 || modes().all(|mode| mode == Mode::Read),
                POOL => modes().map(Mode::permits).sum::<u64>() <= POOL_SIZE,
                _ => holders.len() == 1,
            };
            self.hold(Law::Alone, can_be, || format!("{holders:?} hold {key} at {now}"));
        }
    }
}

/// Whether nobody can have the one while another one has the other.
fn excludes((key, mine): &(&str, Mode), (other, theirs): &(&str, Mode)) -> bool {
    key == other
        && match *key {
            BOOK => [mine, theirs].contains(&&Mode::Write),
            POOL => mine.permits() + theirs.permits() > POOL_SIZE,
            _ => true,
        }
}
