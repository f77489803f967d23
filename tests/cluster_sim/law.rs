//! The promises of a cluster, held against what happens in true time.

use std::collections::BTreeMap;
use std::ops::AddAssign;

pub type Violation = crate::trial::Violation<Law>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Law {
    /// At no instant may two servers grant in one partition.
    OneHome,
    /// Nobody believes to hold what another one holds.
    Alone,
    /// A token is above all that were granted before for the same lock.
    Rise,
    /// No more permits than the limit are spent in a window, and none when it is over.
    Limit,
    /// A cluster that is left alone is whole again.
    Heal,
    /// All is then where operators want it, and apart from that even.
    Wish,
}

/// How often things happened that make the simulation worth its while.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub grants: u64,
    pub reclaims: u64,
    pub permits: u64,
    pub take_overs: u64,
    pub hand_overs: u64,
    pub seals: u64,
    pub crashes: u64,
    pub leaves: u64,
    pub unknown: u64,
    pub wishes: u64,
}

impl Tally {
    fn counts(&self) -> [u64; 10] {
        let Self { grants, reclaims, permits, take_overs, hand_overs, .. } = *self;
        let Self { seals, crashes, leaves, unknown, wishes, .. } = *self;
        [grants, reclaims, permits, take_overs, hand_overs, seals, crashes, leaves, unknown, wishes]
    }

    /// Whether all of it has happened.
    pub fn is_full(&self) -> bool {
        self.counts().into_iter().all(|count| count > 0)
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, more: Self) {
        self.grants += more.grants;
        self.reclaims += more.reclaims;
        self.permits += more.permits;
        self.take_overs += more.take_overs;
        self.hand_overs += more.hand_overs;
        self.seals += more.seals;
        self.crashes += more.crashes;
        self.leaves += more.leaves;
        self.unknown += more.unknown;
        self.wishes += more.wishes;
    }
}

#[derive(Debug, Default)]
pub struct Laws {
    violation: Option<Violation>,
    pub tally: Tally,
    /// The last token of each lock.
    last: BTreeMap<usize, u64>,
    /// The window of each limit that was opened last, and what was spent of it.
    windows: BTreeMap<usize, (u64, u64)>,
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

    /// A lock is granted under a token.
    pub fn grant(&mut self, now: u64, key: usize, token: u64) {
        self.tally.grants += 1;
        let before = self.last.insert(key, token).unwrap_or(0);
        self.hold(Law::Rise, before < token, || {
            format!("lock {key} has {token:x} after {before:x} at {now}")
        });
    }

    /// A window of a limit is opened: those of before are over.
    pub fn open(&mut self, key: usize, window: u64) {
        self.windows.insert(key, (window, 0));
    }

    /// A permit is spent, of a window.
    pub fn spend(&mut self, now: u64, key: usize, window: u64, limit: u64) {
        self.tally.permits += 1;
        let (open, spent) = self.windows.entry(key).or_default();
        *spent += u64::from(*open == window);
        let (open, spent) = (*open, *spent);
        self.hold(Law::Limit, open == window && spent <= limit, || {
            format!("{spent} permits of {key} are spent at {now}, of {window}; {open} is open")
        });
    }
}
