//! Limits: how many permits there are, and the algorithms that count them.

mod fixed_window;
mod rate;

pub use fixed_window::FixedWindow;
pub use rate::Rate;

/// One limit of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// By which rule permits are counted, and how many there are.
    pub kind: Kind,
    /// Whether the limit only counts and tells what it would refuse, and lets everything pass.
    pub shadow: bool,
}

/// By which rule a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Burst(u64);

/// How many permits may be held at once; from 1 to [`Rate::MAX_REQUESTS_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AtOnce(u64);
