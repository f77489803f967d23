//! What a server remembers of its cluster over restarts.

use crate::cluster::partition::{Partition, PartitionMap};
use crate::cluster::record::{ClusterId, Epoch};

/// What a server has known of its cluster: a registry that knows less was restored from a backup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Which cluster it was.
    pub cluster: Option<ClusterId>,
    /// The last epoch of each partition.
    pub epochs: PartitionMap<Epoch>,
}

impl Memory {
    /// A line of text, to be written down.
    #[must_use]
    pub fn encode(&self) -> String {
        let cluster = self.cluster.map_or_else(|| "-".to_owned(), |id| format!("{:016x}", id.0));
        let epochs = self.epochs.iter().map(|(_, epoch)| epoch.0.to_string());
        ["1".to_owned(), cluster].into_iter().chain(epochs).collect::<Vec<_>>().join(" ")
    }

    /// What such a line says; none if it is not one.
    #[must_use]
    pub fn decode(text: &str) -> Option<Self> {
        let mut words = text.trim_end().split(' ');
        if words.next() != Some("1") {
            return None;
        }
        let cluster = match words.next()? {
            "-" => None,
            id => Some(ClusterId(u64::from_str_radix(id, 16).ok()?)),
        };
        let mut epochs = PartitionMap::default();
        for partition in Partition::all() {
            let epoch = words.next()?.parse().ok().map(Epoch)?;
            epochs[partition] = Some(epoch).filter(|epoch| *epoch <= Epoch::MAX)?;
        }
        words.next().is_none().then_some(Self { cluster, epochs })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_read_as_it_was_written() {
        let mut memory = Memory::default();
        assert_eq!(Memory::decode(&memory.encode()), Some(memory.clone()));
        memory.cluster = Some(ClusterId(7));
        memory.epochs[Partition::default()] = Epoch::MAX;
        let text = memory.encode();
        assert_eq!(Memory::decode(&format!("{text}\n")), Some(memory));
        // A part of it, or more than it, is not taken for less.
        for wrong in [&text[..text.len() - 2], &format!("{text} 0"), "", "1", "2 - 0"] {
            assert_eq!(Memory::decode(wrong), None, "{wrong:?}");
        }
        let above = text.replace("2147483647", "2147483648");
        assert_eq!(Memory::decode(&above), None);
    }
}
