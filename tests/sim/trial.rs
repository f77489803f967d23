//! Many seeds of a simulation, on all processors: what fails, and whether a mistake is found.

use std::fmt::{self, Debug, Display, Formatter};
use std::ops::{AddAssign, Range};
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// A promise that was broken, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation<L> {
    pub law: L,
    pub story: String,
}

impl<L: Debug> Display for Violation<L> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}: {}", self.law, self.story)
    }
}

/// The seeds to try: so many, from the first on, unless the environment says otherwise.
pub fn seeds(usual: u64) -> Range<u64> {
    let number = |name| std::env::var(name).ok().map(|number| number.parse().unwrap());
    let first = number("SIM_FIRST").unwrap_or(1);
    first..first + number("SIM_SEEDS").unwrap_or(usual)
}

/// Tries these seeds, and tells of those that fail. What has happened in all of them together.
pub fn try_all<T, L>(all: Range<u64>, simulate: impl Fn(u64) -> Result<T, Violation<L>> + Sync) -> T
where
    T: AddAssign + Debug + Default + Send,
    L: Debug,
{
    let next = AtomicU64::new(all.start);
    let try_some = || {
        let (mut tally, mut failures) = (T::default(), Vec::new());
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if !all.contains(&seed) {
                return (tally, failures);
            }
            match panic::catch_unwind(AssertUnwindSafe(|| simulate(seed))) {
                Ok(Ok(more)) => tally += more,
                Ok(Err(violation)) => failures.push((seed, violation.to_string())),
                Err(_) => failures.push((seed, "it panics, see above".to_owned())),
            }
        }
    };
    let threads = thread::available_parallelism().map_or(1, Into::into);
    let (mut tally, mut failures) = (T::default(), Vec::new());
    thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(try_some)).collect();
        for thread in running {
            let (more, failed) = thread.join().unwrap();
            tally += more;
            failures.extend(failed);
        }
    });
    failures.sort();
    for (seed, violation) in &failures {
        println!("seed {seed} fails, SIM_FIRST={seed} SIM_SEEDS=1 tries it alone: {violation}");
    }
    assert!(failures.is_empty(), "{} seeds fail", failures.len());
    println!("{tally:?}");
    tally
}

/// The mistake breaks one of these promises within so many seeds, and no other one first.
pub fn breaks<T, L: Debug + PartialEq>(
    mistake: impl Debug,
    laws: &[L],
    seeds: u64,
    simulate: impl Fn(u64) -> Result<T, Violation<L>>,
) {
    let found = (1..=seeds).find_map(|seed| {
        let violation = simulate(seed).err()?;
        println!("{mistake:?} is found by seed {seed}: {violation}");
        Some(violation.law)
    });
    assert!(found.as_ref().is_some_and(|law| laws.contains(law)), "{mistake:?}: {found:?}");
}
