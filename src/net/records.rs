//! What is kept on the disk, and in which tables.

use redb::{Database, Durability, TableDefinition};

use crate::engine::{GrantId, Output};

/// By key: the boot in which a record was written, and the record.
pub(super) const USAGE: TableDefinition<&str, (&str, &[u8])> = TableDefinition::new("usage");

/// By the number of a lease: the boot in which a record was written, and the record.
pub(super) const LEASES: TableDefinition<u64, (&str, &[u8])> = TableDefinition::new("leases");

/// What there is once.
pub(super) const RUN: TableDefinition<&str, u64> = TableDefinition::new("run");

/// In [`RUN`]: the last number that a grant may have.
pub(super) const NUMBERS: &str = "numbers_up_to";

/// In [`RUN`]: 1 if the last run has said all that it had granted.
pub(super) const HANDED_OVER: &str = "handed_over";

/// Something to be written. Of several about one thing, the last counts.
#[derive(Debug)]
pub(super) enum Entry {
    /// What is used of a key; nothing, if there is no record any more.
    Usage(Box<str>, Option<Vec<u8>>),
    /// A lease of locks; nothing, if it is over.
    Lease(GrantId, Option<Vec<u8>>),
    /// Grants have numbers up to this one.
    Numbers(GrantId),
    /// Whether all that is granted is written.
    HandedOver(bool),
}

impl Entry {
    /// What an engine wants to have written, and its number.
    pub(super) fn of<E>(output: Output<E>) -> Option<(u64, Self)> {
        Some(match output {
            Output::Record { number, key, record } => (number, Self::Usage(key, record)),
            Output::Lease { number, grant, record } => (number, Self::Lease(grant, record)),
            Output::Numbers { number, up_to } => (number, Self::Numbers(up_to)),
            _ => return None,
        })
    }
}

/// Writes entries, and returns when they are on the disk.
#[allow(clippy::result_large_err, reason = "the errors of the store are made rarely")]
pub(super) fn commit(
    database: &Database,
    boot: &str,
    entries: impl IntoIterator<Item = Entry>,
) -> Result<(), redb::Error> {
    let mut writing = database.begin_write()?;
    writing.set_durability(Durability::Immediate);
    {
        let mut usage = writing.open_table(USAGE)?;
        let mut leases = writing.open_table(LEASES)?;
        let mut run = writing.open_table(RUN)?;
        for entry in entries {
            match entry {
                Entry::Usage(key, Some(record)) => {
                    usage.insert(&*key, (boot, &*record)).map(drop)?;
                }
                Entry::Usage(key, None) => usage.remove(&*key).map(drop)?,
                Entry::Lease(grant, Some(record)) => {
                    leases.insert(grant.0, (boot, &*record)).map(drop)?;
                }
                Entry::Lease(grant, None) => leases.remove(grant.0).map(drop)?,
                Entry::Numbers(up_to) => run.insert(NUMBERS, up_to.0).map(drop)?,
                Entry::HandedOver(handed_over) => {
                    run.insert(HANDED_OVER, u64::from(handed_over)).map(drop)?;
                }
            }
        }
    }
    Ok(writing.commit()?)
}
