//! The disk of a server, and the thread that writes to it: `net::ledger` without a file.

use std::collections::BTreeMap;
use std::mem;

use zmqlocker::engine::{GrantId, Output};

use crate::random::Random;

/// Something to be written.
#[derive(Clone, Debug)]
pub enum Entry {
    Lease(GrantId, Option<Vec<u8>>),
    Numbers(GrantId),
}

impl Entry {
    pub fn of(output: Output<()>) -> Option<(u64, Self)> {
        match output {
            Output::Lease { number, grant, record } => Some((number, Self::Lease(grant, record))),
            Output::Numbers { number, up_to } => Some((number, Self::Numbers(up_to))),
            _ => None,
        }
    }
}

#[derive(Debug, Default)]
pub struct Disk {
    /// Whether the server has none: nothing is written.
    pub is_none: bool,
    /// Grants of all runs so far have numbers up to this.
    pub numbers_up_to: u64,
    /// Whether the last run has said all that it had granted; none if there was no run.
    pub handed_over: Option<bool>,
    /// By number: the boot in which a lease was written, and the record.
    pub leases: BTreeMap<GrantId, (u64, Vec<u8>)>,
    pub boot: u64,
    /// The number of the last record that is on the disk.
    pub written: u64,
    queue: Vec<(u64, Entry)>,
    under_way: Vec<(u64, Entry)>,
}

impl Disk {
    pub fn add(&mut self, entries: impl IntoIterator<Item = (u64, Entry)>) {
        self.queue.extend(entries);
    }

    /// Begins to write what has come, unless something is being written. Whether it does.
    pub fn begin(&mut self) -> bool {
        if !self.under_way.is_empty() || self.queue.is_empty() {
            return false;
        }
        self.under_way = mem::take(&mut self.queue);
        true
    }

    /// What was being written is on the disk.
    pub fn finish(&mut self) {
        for (number, entry) in mem::take(&mut self.under_way) {
            self.written = number;
            match entry {
                Entry::Lease(grant, Some(record)) => {
                    self.leases.insert(grant, (self.boot, record));
                }
                Entry::Lease(grant, None) => drop(self.leases.remove(&grant)),
                Entry::Numbers(up_to) => self.numbers_up_to = up_to.0,
            }
        }
    }

    pub fn write_all(&mut self) {
        self.finish();
        self.begin();
        self.finish();
    }

    /// The server ends in the midst of it: what was being written is there, or nothing of it.
    pub fn crash(&mut self, random: &mut Random) {
        if random.one_in(2) {
            self.finish();
        }
        self.queue.clear();
        self.under_way.clear();
    }
}
