//! A server with a disk and clients that take locks from it, in virtual time, where links fail,
//! clients and the server stop, crash and start anew, and clocks differ: nobody holds what another
//! one holds. Mistakes that are planted are found.
//!
//! `SIM_SEEDS=10000 cargo test --test lock_sim` tries more seeds than usual.

mod clock;
mod desk;
mod locks;
#[path = "../sim/random.rs"]
mod random;

use std::ops::Range;

/// The seeds to try: so many, from the first on, unless the environment says otherwise.
fn seeds(usual: u64) -> Range<u64> {
    let number = |name| std::env::var(name).ok().map(|number| number.parse().unwrap());
    let first = number("SIM_FIRST").unwrap_or(1);
    first..first + number("SIM_SEEDS").unwrap_or(usual)
}
