//! The parts that the keys of a cluster fall into: each has one home.

use std::fmt;

use crate::engine::Key;

/// One of the [`Partition::COUNT`] parts that all keys fall into.
///
/// ```
/// use zmqlocker::cluster::Partition;
/// use zmqlocker::engine::Key;
///
/// let partition = Partition::of(Key::parse("invoice:42")?);
/// assert_eq!(partition.to_string(), "36");
/// # Ok::<(), zmqlocker::error::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition(u8);

impl Partition {
    /// How many there are. All servers of a cluster agree on it, for ever.
    pub const COUNT: usize = Self::END as usize;

    const END: u8 = 64;

    /// The partition of a key: the same on every server and in every version.
    #[must_use]
    pub fn of(key: Key<'_>) -> Self {
        // FNV-1a of Fowler, Noll and Vo with 64 bits, whose upper bits are folded into the lower
        // ones: those alone hardly depend on the first bytes.
        let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        let hash = key.as_str().as_bytes().iter().fold(0xcbf2_9ce4_8422_2325, step);
        let folded = hash ^ (hash >> 32);
        Self(((folded ^ (folded >> 16)) % u64::from(Self::END)).to_le_bytes()[0])
    }

    /// All of them, in order.
    #[must_use = "iterators are lazy"]
    pub fn all() -> impl DoubleEndedIterator<Item = Self> {
        (0..Self::END).map(Self)
    }

    /// The one of a number, if there is one.
    #[must_use]
    pub fn numbered(number: usize) -> Option<Self> {
        u8::try_from(number).ok().filter(|number| *number < Self::END).map(Self)
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:02}", self.0)
    }
}

/// Something of each partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionMap<T>([T; Partition::COUNT]);

impl<T> PartitionMap<T> {
    /// What the function makes of each partition.
    pub fn from_fn(mut make: impl FnMut(Partition) -> T) -> Self {
        Self(std::array::from_fn(|number| make(Partition::numbered(number).unwrap_or_default())))
    }

    /// All, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Partition, &T)> {
        Partition::all().zip(&self.0)
    }
}

impl<T: Default> Default for PartitionMap<T> {
    fn default() -> Self {
        Self::from_fn(|_| T::default())
    }
}

impl<T> std::ops::Index<Partition> for PartitionMap<T> {
    type Output = T;

    fn index(&self, partition: Partition) -> &T {
        &self.0[usize::from(partition.0)]
    }
}

impl<T> std::ops::IndexMut<Partition> for PartitionMap<T> {
    fn index_mut(&mut self, partition: Partition) -> &mut T {
        &mut self.0[usize::from(partition.0)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_fall_evenly_into_partitions() {
        for (first, last) in [("tenant:", ""), ("", ":lock"), ("a/", "/b")] {
            let mut counts = PartitionMap::<u32>::default();
            for number in 0..64_000 {
                let name = format!("{first}{number}{last}");
                counts[Partition::of(Key::parse(&name).unwrap())] += 1;
            }
            // 1000 each, within five standard deviations.
            assert!(counts.iter().all(|(_, count)| (840..1_160).contains(count)), "{counts:?}");
        }
    }

    #[test]
    fn a_key_stays_in_its_partition_over_versions() {
        let numbers = ["default", "a", "b", "tenant:7", "\u{e4}"]
            .map(|key| Partition::of(Key::parse(key).unwrap()).0);
        assert_eq!(numbers, [37, 34, 11, 54, 31]);
    }
}
