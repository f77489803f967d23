//! The locks of the simulation, and what clients want to do with them.

use std::collections::VecDeque;
use std::time::Duration;

use zmqlocker::engine::{Cost, GrantId, Key, LockRequest, Locks, Mode, Request, Term, Wait};

use crate::random::Random;

pub const MILLI: u64 = 1_000_000;
pub const SECOND: u64 = 1_000 * MILLI;

pub const ALL: [&str; 5] = ["red", "green", "blue", BOOK, POOL];
const MUTEXES: [&str; 3] = ["red", "green", "blue"];
pub const BOOK: &str = "book";
pub const POOL: &str = "pool";
pub const POOL_SIZE: u64 = 3;

/// Longer than any simulation.
const FOR_EVER: Duration = Duration::from_secs(3600);

/// Which locks are wanted, and how.
pub type Parts = Vec<(&'static str, Mode)>;

/// Takes one set of locks after another while it holds those before, and gives all back.
#[derive(Clone, Debug)]
pub struct Plan {
    pub actor: u64,
    pub steps: VecDeque<Parts>,
    pub term: Term,
    pub wait: Wait,
    /// How long the caller waits for each step, in nanoseconds; without an end if there is none.
    pub timeout: Option<u64>,
    pub held: Vec<GrantId>,
    /// How long all of it is held.
    pub hold: u64,
    /// Whether it is left to end by itself.
    pub is_left: bool,
}

impl Plan {
    /// Something to do, with leases of up to `longest` milliseconds.
    pub fn draw(random: &mut Random, actor: u64, longest: u64) -> Self {
        let timeout = random.range(50, 2_500) * MILLI;
        let length = Duration::from_nanos(random.range(1, timeout + 1));
        let hold = if random.one_in(3) { 2 * SECOND } else { 300 * MILLI };
        let mut plan = Self {
            actor,
            steps: VecDeque::from([parts(random)]),
            term: term(random, longest),
            wait: random.pick(&[Wait::No, Wait::Patience, Wait::UpTo(length)]),
            timeout: Some(timeout),
            held: Vec::new(),
            hold: random.range(0, hold),
            is_left: false,
        };
        if actor != 0 {
            let first = random.range(0, 3);
            let order = [first, (first + random.range(1, 3)) % 3];
            let mutex =
                |place: u64| vec![(MUTEXES[usize::try_from(place).unwrap()], Mode::Exclusive)];
            plan.steps = order.into_iter().map(mutex).collect();
            if random.one_in(4) {
                plan.steps.push_back(several(random));
            }
            plan.term.max_hold = None;
        }
        if actor != 0 || random.one_in(6) {
            (plan.wait, plan.timeout) = (Wait::UpTo(FOR_EVER), None);
        }
        plan.is_left = plan.term.max_hold.is_some() && random.one_in(4);
        plan
    }

    /// The locks of a request.
    pub fn parts_of(wanted: &LockRequest<'_>) -> Parts {
        let part = |(key, mode): &(Key<'_>, Mode)| {
            let name = ALL.into_iter().find(|name| *name == key.as_str());
            (name.expect("a lock of the simulation"), *mode)
        };
        wanted.locks.parts().iter().map(part).collect()
    }

    pub fn request(parts: &Parts, term: Term, actor: u64, wait: Wait) -> Request<'static> {
        let keys = parts.iter().map(|(key, mode)| (Key::parse(key).unwrap(), *mode));
        let locks = Locks::new(keys).unwrap();
        Request::Lock { wanted: LockRequest { locks, term, actor }, wait }
    }
}

fn parts(random: &mut Random) -> Parts {
    match random.range(0, 10) {
        0..=4 => vec![(random.pick(&MUTEXES), Mode::Exclusive)],
        5 | 6 => vec![book(random)],
        7 => vec![pool(random)],
        _ => several(random),
    }
}

fn several(random: &mut Random) -> Parts {
    let all = [(random.pick(&MUTEXES), Mode::Exclusive), book(random), pool(random)];
    let left_out = usize::try_from(random.range(0, 6)).unwrap();
    let kept = all.into_iter().enumerate().filter(|(place, _)| *place != left_out);
    kept.map(|(_, part)| part).collect()
}

fn book(random: &mut Random) -> (&'static str, Mode) {
    (BOOK, random.pick(&[Mode::Read, Mode::Read, Mode::Write]))
}

fn pool(random: &mut Random) -> (&'static str, Mode) {
    let cost = |permits: u64| Cost::new(permits.into()).unwrap();
    (POOL, Mode::Permits { size: cost(POOL_SIZE), cost: cost(random.range(1, POOL_SIZE + 1)) })
}

fn term(random: &mut Random, longest: u64) -> Term {
    let range = if random.one_in(3) { (1_001, longest) } else { (100, 1_001) };
    let ttl = Duration::from_millis(random.range(range.0, range.1));
    let max_hold = match random.range(0, 8) {
        0 => Some(ttl),
        1 | 2 => Some(ttl + Duration::from_millis(random.range(1, 2_000))),
        _ => None,
    };
    Term::new(ttl, max_hold).unwrap()
}
