//! What an operator wants of a cluster. It is written into the registry, beside the records of the
//! servers, so that all of them see the same wishes with the same look.

use std::collections::BTreeSet;

use crate::cluster::partition::{Partition, PartitionMap};
use crate::cluster::record::{ServerName, encode_wish, wish_key};
use crate::registry::{Change, Transaction};

/// Something that an operator wants, or does not want any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// This partition is to be with this server, whenever that is there and not drained.
    Move(Partition, ServerName),
    /// This partition may be with any server.
    Unmove(Partition),
    /// This server is to be home of nothing.
    Drain(ServerName),
    /// This server has its share again.
    Undrain(ServerName),
}

impl Wish {
    /// What writes it into the registry. It does no harm to write it twice: the last wish counts.
    #[must_use]
    pub fn transaction(&self) -> Transaction {
        let put = |key: String, text: &str| Change::Put(key, encode_wish(text));
        let change = match self {
            Self::Move(partition, name) => put(move_key(*partition), name.as_str()),
            Self::Unmove(partition) => Change::Delete(move_key(*partition)),
            Self::Drain(name) => put(drain_key(name), DRAINED),
            Self::Undrain(name) => Change::Delete(drain_key(name)),
        };
        Transaction { guards: Vec::new(), changes: vec![change] }
    }
}

/// All that operators want of a cluster at present.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// The server that each partition was given to, if it was given to any.
    pub moves: PartitionMap<Option<ServerName>>,
    /// Those that are to be home of nothing.
    pub drained: BTreeSet<ServerName>,
}

/// What the entry of a server that is drained says.
const DRAINED: &str = "drained";

fn move_key(partition: Partition) -> String {
    wish_key(&format!("part/{partition}"))
}

fn drain_key(name: &ServerName) -> String {
    wish_key(&format!("srv/{name}"))
}

impl Wishes {
    /// Takes up what an entry says; none if it is no wish. Its key is without what all have.
    pub(super) fn insert(&mut self, key: &str, text: &str) -> Option<()> {
        match key.split_once('/')? {
            ("part", number) => {
                let partition = Partition::numbered(number.parse().ok()?)?;
                self.moves[partition] = Some(ServerName::parse(text).ok()?);
            }
            ("srv", name) if text == DRAINED => {
                self.drained.insert(ServerName::parse(name).ok()?);
            }
            _ => return None,
        }
        Some(())
    }

    /// Those of these servers that are not drained; all of them if there are no others, since each
    /// partition needs a home.
    #[must_use]
    pub fn heirs<'a>(&self, servers: BTreeSet<&'a ServerName>) -> BTreeSet<&'a ServerName> {
        let is_drained = |name: &&ServerName| self.drained.contains(*name);
        if servers.iter().all(is_drained) {
            return servers;
        }
        servers.into_iter().filter(|name| !is_drained(name)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ServerName {
        ServerName::parse(text).unwrap()
    }

    #[test]
    fn those_that_are_drained_inherit_only_if_all_are() {
        let names = ["a", "b", "c"].map(name);
        let all: BTreeSet<_> = names.iter().collect();
        let mut wishes = Wishes::default();
        assert_eq!(wishes.heirs(all.clone()), all);
        wishes.drained.extend([name("a"), name("c"), name("gone")]);
        assert_eq!(wishes.heirs(all.clone()), BTreeSet::from([&names[1]]));
        wishes.drained.insert(name("b"));
        assert_eq!(wishes.heirs(all.clone()), all);
        assert_eq!(wishes.heirs(BTreeSet::new()), BTreeSet::new());
    }

    #[test]
    fn what_is_no_wish_is_not_taken_for_one() {
        for (key, text) in [
            ("part/64", "a"),
            ("part/x", "a"),
            ("part/07", "a b"),
            ("part/07", "-"),
            ("srv/a", "here"),
            ("srv/a b", "drained"),
            ("other/a", "drained"),
            ("srv", "drained"),
        ] {
            assert_eq!(Wishes::default().insert(key, text), None, "{key} {text}");
        }
    }
}
