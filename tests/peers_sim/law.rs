//! The promises of servers that count for each other, held against what happens in true time.

use std::ops::AddAssign;

use crate::Weather;
use crate::limits::{Kind, LIMITS, MILLI, untold};

pub type Violation = crate::trial::Violation<Law>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Law {
    /// All servers together keep to the limit, and to what they may grant that others do not know.
    Limit,
    /// Where some were cut off or have forgotten, they keep to the limit and the fair shares of one
    /// window.
    Shares,
    /// Whoever asks is answered, and permits that are there are granted.
    Serve,
    /// Servers that are left alone are in touch, and have all counted the same.
    Agree,
}

/// How often things happened that make the simulation worth its while.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub grants: u64,
    pub refusals: u64,
    pub over: u64,
    pub cuts: u64,
    pub crashes: u64,
    pub leaves: u64,
    pub pauses: u64,
    pub lost: u64,
    pub doubled: u64,
}

impl Tally {
    fn counts(&mut self) -> [&mut u64; 9] {
        let Self { grants, refusals, over, cuts, crashes, leaves, pauses, lost, doubled } = self;
        [grants, refusals, over, cuts, crashes, leaves, pauses, lost, doubled]
    }

    /// Whether all of it has happened.
    pub fn is_full(mut self) -> bool {
        self.counts().into_iter().all(|count| *count > 0)
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, mut more: Self) {
        for (count, more) in self.counts().into_iter().zip(more.counts()) {
            *count += *more;
        }
    }
}

#[derive(Debug)]
pub struct Laws {
    violation: Option<Violation>,
    pub tally: Tally,
    servers: u64,
    weather: Weather,
    /// When each permit was granted, by keys.
    granted: [Vec<u64>; LIMITS.len()],
    /// When permits were last granted by servers that did not know of each other's, or had
    /// forgotten their own.
    rough_at: Option<u64>,
}

impl Laws {
    pub fn new(servers: u64, weather: Weather) -> Self {
        let granted = std::array::from_fn(|_| Vec::new());
        let (violation, tally, rough_at) = (None, Tally::default(), None);
        Self { violation, tally, servers, weather, granted, rough_at }
    }

    pub fn hold(&mut self, law: Law, is_kept: bool, story: impl FnOnce() -> String) {
        if !is_kept && self.violation.is_none() {
            self.violation = Some(Violation { law, story: story() });
        }
    }

    /// The first violation, if there was one.
    pub fn verdict(&self) -> Result<(), Violation> {
        self.violation.clone().map_or(Ok(()), Err)
    }

    /// Servers do not know of each other's grants, or have forgotten their own.
    pub fn rough(&mut self, now: u64) {
        self.rough_at = self.rough_at.max(Some(now));
    }

    /// A permit of a key is granted.
    pub fn grant(&mut self, now: u64, key: usize) {
        self.tally.grants += 1;
        self.granted[key].push(now);
        let limit = &LIMITS[key];
        let mut untold = (self.servers - 1) * untold(limit, self.servers);
        if self.weather != Weather::Fair {
            // Of what two grant while one of them tells the other all, the larger part counts.
            untold *= 2;
        }
        for windows in [1, 4] {
            // Clocks differ in rate, and the end of an interval belongs to it.
            let length = windows * limit.length / 1000 * 995;
            let most = match limit.kind {
                Kind::Fixed => (windows + 1) * (limit.permits + untold),
                Kind::Sliding => windows * (limit.permits + untold),
                Kind::Gcra => (windows + 1) * limit.permits + untold,
            };
            let is_rough = self.rough_at.is_some_and(|at| now < at + length + 1000 * MILLI);
            let (law, most) = if is_rough {
                (Law::Shares, most + windows * limit.permits.max(self.servers))
            } else {
                (Law::Limit, most)
            };
            let count = self.count(key, now.saturating_sub(length), now);
            if windows == 1 && limit.kind == Kind::Sliding {
                self.tally.over += u64::from(count > limit.permits);
            }
            self.hold(law, count <= most, || {
                let (key, length) = (limit.key, length / MILLI);
                format!("{count} of {key} in {length} ms until {now}, and not {most}")
            });
        }
    }

    /// How many permits of a key were granted from an instant to another one.
    pub fn count(&self, key: usize, from: u64, to: u64) -> u64 {
        let granted = &self.granted[key];
        let place = |at: u64| granted.partition_point(|granted| *granted < at);
        (place(to + 1) - place(from)) as u64
    }
}
