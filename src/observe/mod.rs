//! What those see who watch a server: metrics for programs, a page for people. Pure: whoever drives
//! a server says how things stand.

mod address;
mod document;
mod exposition;
mod history;
mod news;
mod others;
mod scrape;

use std::time::Duration;

pub use address::WatchAddress;
#[cfg(feature = "cli")]
pub(crate) use document::counts;
pub use document::document;
pub use history::{Answers, History, KEYS_MAX, POINT_SECONDS, SECONDS_MAX};
pub use news::{Latest, NEWS_MAX, News};
pub use others::{Counting, CountingCounts, Sharing, SharingCounts};
pub use scrape::{Process, Watch, scrape};

use crate::engine::{Bounds, ClientRow, Histogram, KeyRow, LockRow, Measures, ServerStatus};
use crate::time::Timestamp;

/// How things stand at a server.
#[derive(Clone, Debug)]
pub struct Observation {
    /// When.
    pub at: Timestamp,
    /// What was counted.
    pub status: ServerStatus,
    /// How long it lets those who wait be served before it stops, if it is about to.
    pub stops_within: Option<Duration>,
    /// What was measured of requests.
    pub measures: Measures,
    /// What was measured of the server's thread.
    pub thread: ThreadMeasures,
    /// Who comes and goes.
    pub door: Door,
    /// How many of what there may be.
    pub bounds: Bounds,
    /// The servers that it shares the keys with, if it does.
    pub sharing: Option<Sharing>,
    /// Its peers, if it has any.
    pub counting: Option<Counting>,
    /// The busiest keys, the busiest first.
    pub keys: Vec<KeyRow>,
    /// What only people look at, if somebody does.
    pub people: Option<People>,
}

/// What only people look at.
#[derive(Clone, Debug, Default)]
pub struct People {
    /// Those who hold locks, and who wait for them.
    pub locks: Vec<LockRow>,
    /// Whether there are more than that.
    pub more_locks: bool,
    /// Clients.
    pub clients: Vec<ClientRow>,
    /// Whether there are more than that.
    pub more_clients: bool,
}

/// Who comes to a server and goes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Door {
    /// How many connections there are.
    pub connections: u64,
    /// How many were ended because a bound was reached.
    pub ended: u64,
    /// How many connections and requests were refused for their keys and rights.
    pub denied: u64,
}

/// What is measured of the thread of a server.
#[derive(Clone, Debug)]
pub struct ThreadMeasures {
    /// How long it was busy before it waited again, in nanoseconds.
    pub loops: Histogram,
    /// How many messages it took in together.
    pub batches: Histogram,
}

const MICRO: u64 = 1_000;
const MILLI: u64 = 1_000_000;

/// The bounds for how long the thread is busy, in nanoseconds.
const LOOPS: &[u64] = &[
    10 * MICRO,
    25 * MICRO,
    50 * MICRO,
    100 * MICRO,
    250 * MICRO,
    500 * MICRO,
    MILLI,
    5 * MILLI,
    10 * MILLI,
    50 * MILLI,
    100 * MILLI,
    1000 * MILLI,
];

/// The bounds for how many messages are taken in together.
const BATCHES: &[u64] = &[1, 2, 4, 8, 16, 32, 64, 128, 256];

impl Default for ThreadMeasures {
    fn default() -> Self {
        Self { loops: Histogram::new(LOOPS), batches: Histogram::new(BATCHES) }
    }
}

impl Observation {
    /// Why the server does not grant everything that it will, if it does not.
    #[must_use]
    pub fn unready(&self) -> Option<String> {
        if let Some(left) = self.stops_within {
            let left = left.as_secs_f64();
            return Some(format!("the server stops within {left} s: nobody new is served"));
        }
        let grace = self.status.grace;
        (grace > Duration::ZERO).then(|| {
            format!(
                "no lock is granted for another {} s: the run before has ended without a word, \
                 and its holders may reclaim theirs",
                grace.as_secs_f64()
            )
        })
    }
}
