//! What clients ask for, how fast their clocks are, and what goes wrong.

use crate::world::{MILLI, SECOND};

#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// How many thousandths the server's clock may be fast.
    pub server_skews: &'static [i64],
    /// How many thousandths a client's clock may be faster than the server's.
    pub client_skews: &'static [i64],
    /// Whether clients ask for nothing but leases, and in vain for most of the time.
    pub leases_only: bool,
    /// How long a lease is at least and at most.
    pub ttl: (u64, u64),
    /// How long clients ask and things go wrong, and how long it takes until all is quiet.
    pub length: u64,
    pub calm: u64,
    /// How long a client does nothing at most.
    pub idle_max: u64,
    /// How long a link is down at most.
    pub down_max: u64,
    /// One in so many messages is slow.
    pub slow_one_in: u64,
}

/// A bit of all there is, with clocks that differ by as much as is promised.
pub const EVERYTHING: Scenario = Scenario {
    server_skews: &[-2, 0, 2],
    client_skews: &[-2, -1, 0, 1, 2],
    leases_only: false,
    ttl: (100 * MILLI, 900 * MILLI),
    length: 10 * SECOND,
    calm: 10 * SECOND,
    idle_max: 200 * MILLI,
    down_max: 1_500 * MILLI,
    slow_one_in: 40,
};

/// Long leases whose holders fall silent while others wait. The margins of the server and of its
/// clients each bear the difference of clocks that is promised; here they differ by as much as only
/// both margins together bear, so that neither can be missing.
pub const LEASES: Scenario = Scenario {
    server_skews: &[4],
    client_skews: &[-7, -7, 0],
    leases_only: true,
    ttl: (SECOND, 6 * SECOND),
    length: 60 * SECOND,
    calm: 40 * SECOND,
    idle_max: 2 * SECOND,
    down_max: 12 * SECOND,
    slow_one_in: 4,
};
