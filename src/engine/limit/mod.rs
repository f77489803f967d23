//! Limits: how many permits there are, and the algorithms that count them.

mod fixed_window;
mod gcra;
mod grammar;
mod meter;
mod outside;
mod rate;
mod sliding_window;
mod snapshot;

use std::time::Duration;

pub use fixed_window::FixedWindow;
pub(super) use meter::{Claim, Meter};
pub use rate::Rate;
pub(super) use snapshot::{Cover, Snapshot, Standing};

use crate::engine::request::Cost;
use crate::error::Error;

/// One limit of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limit {
    /// By which rule permits are counted, and how many there are.
    pub kind: Kind,
    /// Whether the limit only counts and tells what it would refuse, and lets everything pass.
    pub shadow: bool,
}

/// By which rule a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// So many in a slot of time, which opens with the first request after the last one ended.
    FixedWindow(Rate),
    /// So many in any interval of that length.
    SlidingWindow(Rate),
    /// The generic cell rate algorithm: `burst` at once, refilled one by one at the rate.
    Gcra(Rate, Burst),
    /// So many at any instant: each is given back by its holder, or when its holder has died.
    Concurrency(AtOnce),
}

/// How many permits may be taken at once; from 1 to [`Rate::MAX_REQUESTS_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Burst(u64);

impl Burst {
    /// A burst of so many permits.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] that names the bound.
    pub fn new(burst: i128) -> Result<Self, Error> {
        bounded("burst", burst).map(Self)
    }

    /// The number of permits.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// How many permits may be held at once; from 1 to [`Rate::MAX_REQUESTS_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AtOnce(u64);

impl AtOnce {
    /// One.
    pub(super) const ONE: Self = Self(1);

    /// As many as there may be.
    pub(super) const MOST: Self = Self(Rate::MAX_REQUESTS_MAX);

    /// As many as so many permits.
    pub(super) const fn of(permits: Cost) -> Self {
        Self(permits.permits())
    }

    /// So many permits at once.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] that names the bound.
    pub fn new(at_once: i128) -> Result<Self, Error> {
        bounded("at_once", at_once).map(Self)
    }

    /// The number of permits.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl Limit {
    /// The largest cost that can ever be allowed.
    #[must_use]
    pub const fn capacity(&self) -> u64 {
        match self.kind {
            Kind::FixedWindow(rate) | Kind::SlidingWindow(rate) => rate.max_requests(),
            Kind::Gcra(_, burst) => burst.get(),
            Kind::Concurrency(at_once) => at_once.get(),
        }
    }
}

fn bounded(argument: &'static str, permits: i128) -> Result<u64, Error> {
    if let Ok(permits @ 1..=Rate::MAX_REQUESTS_MAX) = u64::try_from(permits) {
        return Ok(permits);
    }
    let bound = Rate::MAX_REQUESTS_MAX;
    let problem = format!("must be from 1 to {bound}, not {permits}");
    Err(Error::Config { argument, problem })
}

/// A length of time that is over on this clock when it is over on the clock of a client for
/// certain: the two may differ in rate by 0.2 %, the one fast and the other slow.
fn drifted(length: Duration) -> Duration {
    length + length * 8 / 1000
}
