//! A cluster as its registry has it, for an operator who asks there.

use crate::cluster::home::Problem;
use crate::cluster::partition::Partition;
use crate::cluster::record::{STATE, ServerName, State};
use crate::cluster::wish::{Wish, Wishes};
use crate::registry::Snapshot;

/// A cluster as its registry has it.
///
/// ```
/// use zmqlocker::cluster::{Overview, Partition, ServerName, Wish};
/// use zmqlocker::registry::Snapshot;
///
/// // What was read of a registry below `Overview::PREFIX`.
/// let overview = Overview::read(&Snapshot::default()).unwrap();
/// assert_eq!(overview.cluster(), None);
/// let name = ServerName::parse("a")?;
/// assert!(!overview.shows(&Wish::Move(Partition::default(), name)));
/// # Ok::<(), zmqlocker::error::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Overview(State);

impl Overview {
    /// Below it is all that is to be read.
    pub const PREFIX: &str = STATE;

    /// What a snapshot of that says.
    ///
    /// # Errors
    ///
    /// [`Problem`] if something there is not written by servers of this version.
    pub fn read(snapshot: &Snapshot) -> Result<Self, Problem> {
        Ok(Self(State::decode(snapshot, State::default())?))
    }

    /// The name of the cluster; none if no server has ever been in it.
    #[must_use]
    pub fn cluster(&self) -> Option<&str> {
        self.0.cluster.as_ref().map(|cluster| cluster.name.as_str())
    }

    /// The servers that are there.
    #[must_use = "iterators are lazy"]
    pub fn servers(&self) -> impl Iterator<Item = &ServerName> {
        self.0.servers.keys()
    }

    /// Whether a server of this name is there, at this URL.
    #[must_use]
    pub fn has(&self, name: &str, url: &str) -> bool {
        let servers = &self.0.servers;
        servers.iter().any(|(other, it)| other.as_str() == name && it.record.url == url)
    }

    /// What operators want.
    #[must_use]
    pub const fn wishes(&self) -> &Wishes {
        &self.0.wishes
    }

    /// The server that is home of a partition.
    #[must_use]
    pub fn home_of(&self, partition: Partition) -> Option<&ServerName> {
        self.0.home_of(partition).map(|(name, _)| name)
    }

    /// Whether a wish is written down, and all is as it says.
    #[must_use]
    pub fn shows(&self, wish: &Wish) -> bool {
        let Wishes { moves, drained } = self.wishes();
        let has_any =
            |name| Partition::all().any(|partition| self.home_of(partition) == Some(name));
        match wish {
            Wish::Move(partition, name) => {
                let is_wanted = moves[*partition].as_ref() == Some(name);
                is_wanted && self.home_of(*partition) == Some(name)
            }
            Wish::Unmove(partition) => moves[*partition].is_none(),
            Wish::Drain(name) => drained.contains(name) && !has_any(name),
            Wish::Undrain(name) => !drained.contains(name),
        }
    }
}
