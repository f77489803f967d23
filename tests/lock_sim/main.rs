//! A server with a disk and clients that take locks from it, in virtual time, where links fail,
//! clients and the server stop, crash and start anew, and clocks differ: nobody holds what another
//! one holds. Mistakes that are planted are found.
//!
//! `SIM_SEEDS=10000 cargo test --test lock_sim` tries more seeds than usual.

#[path = "../sim/clock.rs"]
mod clock;
mod desk;
mod locks;
#[path = "../sim/random.rs"]
mod random;
#[path = "../sim/trial.rs"]
mod trial;

use crate::clock::Clock;
use crate::random::Random;

/// A clock that has an origin of its own, and is a little too fast or too slow.
fn any_clock(random: &mut Random) -> Clock {
    Clock { base: random.range(0, 1 << 40), skew: random.pick(&[-2, -1, 0, 1, 2]) }
}
