//! A clock that has an origin of its own, and is a little too fast or too slow.

use zmqlocker::time::Timestamp;

use crate::random::Random;

#[derive(Clone, Copy, Debug)]
pub struct Clock {
    base: u64,
    /// How many thousandths it is fast.
    skew: i64,
}

impl Clock {
    pub fn new(random: &mut Random) -> Self {
        Self { base: random.range(0, 1 << 40), skew: random.pick(&[-2, -1, 0, 1, 2]) }
    }

    /// What it shows.
    pub fn local(&self, true_time: u64) -> Timestamp {
        let drift = i64::try_from(true_time).unwrap() / 1000 * self.skew;
        Timestamp::from_nanos((self.base + true_time).checked_add_signed(drift).unwrap())
    }

    /// When it shows `local` at the latest.
    pub fn true_time(&self, local: Timestamp) -> u64 {
        let shown = u128::from(local.as_nanos().saturating_sub(self.base));
        let rate = u128::from(1000_u64.checked_add_signed(self.skew).unwrap());
        u64::try_from(shown * 1000 / rate).unwrap() + 1000
    }
}
