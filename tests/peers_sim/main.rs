//! Servers that count for each other, in virtual time: what they tell is lost, late, doubled and
//! out of order, some are cut off from others, on one side or on both, stop for a while, crash and
//! start anew, and their clocks differ. All of them together keep to their limits. Mistakes that
//! are planted are found.
//!
//! `SIM_SEEDS=10000 cargo test --test peers_sim` tries more seeds than usual; `scripts/simulate
//! 1000000 peers_sim` tries a million.

#[path = "../sim/clock.rs"]
mod clock;
mod law;
mod limits;
#[path = "../sim/random.rs"]
mod random;
mod server;
#[path = "../sim/trial.rs"]
mod trial;
mod world;

use crate::law::{Law, Tally, Violation};
use crate::trial::{seeds, try_all};
use crate::world::World;

/// What features change is not here: all are tried without them, and some with them.
const SEEDS: u64 = if cfg!(feature = "net") { 50 } else { 150 };

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// Nothing.
    Fair,
    /// One server at a time crashes, or ends in order, and starts anew.
    Crashes,
    /// Messages are lost, late, doubled and out of order.
    Lossy,
    /// Some are cut off from others.
    Cuts,
    /// All of it.
    Rough,
}

const WEATHERS: [Weather; 5] =
    [Weather::Fair, Weather::Crashes, Weather::Lossy, Weather::Cuts, Weather::Rough];

impl Weather {
    /// Whether messages are lost.
    #[must_use]
    pub fn loses(self) -> bool {
        matches!(self, Self::Lossy | Self::Rough)
    }
}

/// What was planted into the simulated servers, to see that it would be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// Who is cut off from others grants as before.
    NoShare,
    /// Who has granted goes on without the word of the others that they know.
    NoWord,
    /// What was heard before counts again.
    DoubleCounts,
    /// Who misses a message takes all for known.
    GapIgnored,
    /// What another one has granted counts as if it were granted now.
    AgeIgnored,
    /// Who comes back takes nothing over that others have counted.
    NothingTakenOver,
    /// Who starts grants at once.
    NoJoin,
}

/// Lets things go wrong, and then all come to rest.
fn simulate(seed: u64, mistake: Option<Mistake>) -> Result<Tally, Violation> {
    let weather = WEATHERS[usize::try_from(seed % WEATHERS.len() as u64).unwrap()];
    let mut world = World::new(seed, weather, mistake);
    world.run()?;
    Ok(world.laws.tally)
}

#[test]
fn all_together_keep_to_the_limits_whatever_fails() {
    let tally = try_all(seeds(SEEDS), |seed| simulate(seed, None));
    assert!(tally.is_full() || seeds(SEEDS) != (1..SEEDS + 1), "too little happens: {tally:?}");
}

/// How many seeds may be needed to find a mistake.
const SEEDS_TO_FIND: u64 = 1_000;

/// The mistake breaks one of these promises within the seeds, and no other one first.
fn breaks(mistake: Mistake, laws: &[Law]) {
    trial::breaks(mistake, laws, SEEDS_TO_FIND, |seed| simulate(seed, Some(mistake)));
}

#[test]
fn no_fair_share_for_those_who_are_cut_off_is_found() {
    breaks(Mistake::NoShare, &[Law::Shares, Law::Limit]);
}

#[test]
fn granting_without_the_word_of_the_others_is_found() {
    breaks(Mistake::NoWord, &[Law::Limit]);
}

#[test]
fn counting_twice_what_comes_twice_is_found() {
    breaks(Mistake::DoubleCounts, &[Law::Agree, Law::Serve]);
}

#[test]
fn a_gap_that_is_ignored_is_found() {
    breaks(Mistake::GapIgnored, &[Law::Agree, Law::Limit]);
}

#[test]
fn an_age_that_is_ignored_is_found() {
    breaks(Mistake::AgeIgnored, &[Law::Agree]);
}

#[test]
fn usage_that_is_not_taken_over_is_found() {
    breaks(Mistake::NothingTakenOver, &[Law::Limit, Law::Agree]);
}

#[test]
fn granting_before_the_others_are_heard_is_found() {
    breaks(Mistake::NoJoin, &[Law::Limit]);
}
