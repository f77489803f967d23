//! Where several servers keep who is home of what: a store that compares before it writes.
//!
//! A registry knows nothing of servers. It holds entries under keys, counts its changes in
//! [`Revision`]s, and does two things: it reads all entries below a prefix as they are at one
//! instant, and it makes changes together if nothing was changed meanwhile. Whatever more an engine
//! offers, such as leases, locks or clocks, is not used.

mod address;
#[cfg(feature = "etcd")]
mod etcd;
#[cfg(feature = "net")]
mod file;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(any(feature = "etcd", feature = "postgres"))]
mod tls;
mod url;

use std::fmt;
use std::time::Duration;

pub use address::{Address, EtcdAddress, PostgresAddress};
#[cfg(feature = "etcd")]
pub use etcd::Etcd;
#[cfg(feature = "net")]
pub use file::FileRegistry;
#[cfg(feature = "postgres")]
pub use postgres::Postgres;
pub use url::RegistryUrl;

/// The longest value of an entry, in bytes. A request of etcd takes 1.5 MiB.
pub const VALUE_BYTES_MAX: usize = 256 << 10;

/// How many guards, and how many changes, a transaction may have: what etcd takes by default.
pub const STEPS_MAX: usize = 128;

/// A store of entries that compares before it writes.
///
/// Both calls end after about `within`, or twice that where one engine is reached in several ways.
pub trait Registry: Send {
    /// All entries whose keys begin with `prefix`, in the order of their keys, as they are at one
    /// instant after the call.
    ///
    /// # Errors
    ///
    /// [`Trouble`] if they cannot be had now.
    fn read(&mut self, prefix: &str, within: Duration) -> Result<Snapshot, Trouble>;

    /// Makes all changes at one instant, if all guards hold then.
    fn transact(&mut self, transaction: &Transaction, within: Duration) -> Outcome;
}

/// A number that rises with each transaction that is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl Revision {
    /// That of an entry which is not there.
    pub const NONE: Self = Self(0);
}

/// A key, its value, and when both were written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key, without what an address puts before it.
    pub key: String,
    /// The value.
    pub value: Vec<u8>,
    /// The transaction that put the entry where there was none.
    pub created: Revision,
    /// The last transaction that put it.
    pub modified: Revision,
}

/// Entries, all of one instant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// That of the last transaction before the instant.
    pub revision: Revision,
    /// In the order of their keys.
    pub entries: Vec<Entry>,
}

/// Something that must be so for a transaction to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guard {
    /// The entry was put by this transaction where there was none; with [`Revision::NONE`], it is
    /// not there.
    Created(String, Revision),
    /// The entry was put last by this transaction; with [`Revision::NONE`], it is not there.
    Modified(String, Revision),
}

/// A change of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The entry has this value, whether it was there or not.
    Put(String, Vec<u8>),
    /// The entry is not there.
    Delete(String),
}

/// Changes that are made together, or not at all. Each key is changed once at most.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    /// What must be so.
    pub guards: Vec<Guard>,
    /// What is changed then.
    pub changes: Vec<Change>,
}

/// How a transaction ended, as far as is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done, under this revision.
    Done(Revision),
    /// A guard did not hold: nothing was changed.
    Refused,
    /// It may have been done, it may be done later, or never.
    Unknown(Trouble),
}

/// Why a registry did not answer, in words for an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble(pub String);

impl Trouble {
    #[cfg(feature = "net")]
    fn of(action: &str, problem: &dyn fmt::Display) -> Self {
        Self(format!("cannot {action}: {problem}"))
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Trouble {}
