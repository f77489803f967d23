//! The limits of the simulated servers.

pub const MILLI: u64 = 1_000_000;

#[derive(Clone, Copy, Debug)]
pub struct Limited {
    pub key: &'static str,
    pub text: &'static str,
    pub kind: Kind,
    /// How many permits there are in a window, and how long that is.
    pub permits: u64,
    pub length: u64,
    /// How often it is asked for at each server, about.
    pub every: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Fixed,
    Sliding,
    /// With a burst as large as the limit.
    Gcra,
}

pub const LIMITS: [Limited; 6] = [
    Limited {
        key: "fixed",
        text: "6/0.4s",
        kind: Kind::Fixed,
        permits: 6,
        length: 400 * MILLI,
        every: 30 * MILLI,
    },
    // Its slots are used up late, if at all.
    Limited {
        key: "slow",
        text: "9/0.8s",
        kind: Kind::Fixed,
        permits: 9,
        length: 800 * MILLI,
        every: 300 * MILLI,
    },
    Limited {
        key: "sliding",
        text: "9/0.5s sliding",
        kind: Kind::Sliding,
        permits: 9,
        length: 500 * MILLI,
        every: 30 * MILLI,
    },
    Limited {
        key: "gcra",
        text: "12/0.6s gcra burst 12",
        kind: Kind::Gcra,
        permits: 12,
        length: 600 * MILLI,
        every: 30 * MILLI,
    },
    Limited {
        key: "large",
        text: "400/0.8s sliding",
        kind: Kind::Sliding,
        permits: 400,
        length: 800 * MILLI,
        every: 10 * MILLI,
    },
    // As long as a simulation: what was missed once is missed to the end.
    Limited {
        key: "long",
        text: "400/1h sliding",
        kind: Kind::Sliding,
        permits: 400,
        length: 3_600_000 * MILLI,
        every: 40 * MILLI,
    },
];

/// How many permits each server may grant beyond what the others know.
pub fn untold(limit: &Limited, servers: u64) -> u64 {
    (limit.permits / 100 / (servers - 1)).max(1)
}
