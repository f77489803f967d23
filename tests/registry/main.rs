//! Registries from outside: what holds for all engines, tried on each of them, and what is of one.
//! The engines are real ones, started here on ports that are free and folders that are removed.

mod engine;
mod etcd;
mod file;
mod laws;
mod members;
mod postgres;
mod tls;

use std::time::Duration;

use zmqlocker::registry::{
    Address, Change, Entry, Guard, Outcome, Registry, Revision, Transaction,
};

/// Longer than anything takes that is answered, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(20);

fn open(url: &str) -> Box<dyn Registry> {
    Address::parse(url).unwrap().0.open(PATIENCE).unwrap_or_else(|error| panic!("{error}"))
}

/// Why it cannot be opened.
fn problem(url: &str, within: Duration) -> String {
    let opened = Address::parse(url).and_then(|(address, _)| address.open(within));
    opened.err().unwrap_or_else(|| panic!("{url} can be opened")).to_string()
}

fn put(key: &str, value: &[u8]) -> Change {
    Change::Put(key.to_owned(), value.to_owned())
}

fn unchanged(key: &str, revision: Revision) -> Guard {
    Guard::Modified(key.to_owned(), revision)
}

fn transact(registry: &mut dyn Registry, guards: &[Guard], changes: &[Change]) -> Outcome {
    let transaction = Transaction { guards: guards.to_vec(), changes: changes.to_vec() };
    registry.transact(&transaction, PATIENCE)
}

#[track_caller]
fn done(outcome: Outcome) -> Revision {
    match outcome {
        Outcome::Done(revision) => revision,
        other => panic!("{other:?}"),
    }
}

/// The entries below a prefix.
fn read(registry: &mut dyn Registry, prefix: &str) -> Vec<Entry> {
    registry.read(prefix, PATIENCE).unwrap().entries
}
