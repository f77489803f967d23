//! The keys of the simulation, and how their limits are counted naively.

const SECOND: u64 = 1_000_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Law {
    /// At most so many in any closed interval of this length.
    Sliding(u64, u64),
    /// At most so many in a slot of this length.
    Fixed(u64, u64),
    /// So many in this length, and a burst.
    Gcra(u64, u64, u64),
    /// At most so many at once.
    AtOnce(usize),
}

#[derive(Clone, Copy, Debug)]
pub struct SimKey {
    pub name: &'static str,
    pub limit: &'static str,
    pub law: Law,
}

/// The key that is never short: all that was spent of it must be accounted for in the end.
pub const ACCOUNT: &str = "account";
pub const ACCOUNT_LIMIT: u64 = 50_000;

pub const KEYS: [SimKey; 7] = [
    SimKey { name: "log", limit: "4/0.5s sliding", law: Law::Sliding(4, SECOND / 2) },
    SimKey { name: "slot", limit: "4/0.5s", law: Law::Fixed(4, SECOND / 2) },
    SimKey { name: "cell", limit: "8/s gcra burst 3", law: Law::Gcra(8, SECOND, 3) },
    SimKey { name: "lent", limit: "40/s sliding", law: Law::Sliding(40, SECOND) },
    SimKey { name: "lock", limit: "1 at once", law: Law::AtOnce(1) },
    SimKey { name: "pool", limit: "2 at once", law: Law::AtOnce(2) },
    SimKey {
        name: ACCOUNT,
        limit: "50000/86400s sliding",
        law: Law::Sliding(ACCOUNT_LIMIT, 86_400 * SECOND),
    },
];

/// The keys of which blocks are lent.
pub const LENT: [&str; 3] = ["lent", "slot", "cell"];

pub fn law_of(name: &str) -> Law {
    KEYS.iter().find(|key| key.name == name).unwrap().law
}

/// Whether these uses, each an instant and permits, keep a limit. `slots` are the opening instants
/// of the slots as the server began them.
pub fn check(name: &str, mut uses: Vec<(u64, u64)>, slots: &[u64]) {
    uses.sort_unstable();
    match law_of(name) {
        Law::Sliding(most, length) => {
            let (mut first, mut taken) = (0, 0);
            for (at, permits) in &uses {
                taken += permits;
                while uses[first].0 + length < *at {
                    taken -= uses[first].1;
                    first += 1;
                }
                assert!(taken <= most, "{taken} of {name} in the interval that ends at {at}");
            }
        }
        Law::Fixed(most, length) => {
            let mut taken = vec![0; slots.len()];
            for (at, permits) in &uses {
                let slot = slots.partition_point(|begun| begun <= at);
                assert!(
                    slot > 0 && *at <= slots[slot - 1] + length,
                    "{name} spent in no slot: {at}"
                );
                taken[slot - 1] += permits;
                assert!(taken[slot - 1] <= most, "too many of {name} in the slot of {at}");
            }
        }
        Law::Gcra(rate, length, burst) => {
            let mut arrival = 0;
            for (at, permits) in &uses {
                let now = u128::from(*at) * u128::from(rate);
                arrival = now.max(arrival) + u128::from(permits * length);
                assert!(arrival - now <= u128::from(burst * length), "too many of {name} at {at}");
            }
        }
        Law::AtOnce(_) => {}
    }
}
