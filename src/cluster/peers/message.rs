//! What a server tells all others at once.

use crate::engine::{Go, Usage};

/// The number of a run of a server: no two runs have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Run(pub u64);

/// A message to all others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who says it.
    pub run: Run,
    /// One more than that of the message before: who misses one has missed grants.
    pub number: u64,
    /// Whether it wants to hear soon that this was heard.
    pub is_urgent: bool,
    /// Whether it grants nothing from now on, for it ends.
    pub leaves: bool,
    /// Which others it has heard without a gap, each up to a number. One that is not named here
    /// tells it all that is used.
    pub heard: Vec<(Run, u64)>,
    /// What was granted since the message before.
    pub goes: Vec<Go>,
    /// A part of all that is used.
    pub usage: Option<Part>,
}

/// A part of all that is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Whether it is the first one.
    pub is_first: bool,
    /// Whether it is the last one.
    pub is_last: bool,
    /// What is used of some keys.
    pub keys: Vec<Usage>,
}
