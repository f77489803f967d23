//! A registry in memory: all that happens in it happens at one instant.

use std::collections::BTreeMap;

use zmqlocker::cluster::{Answer, Message, Purpose, Request};
use zmqlocker::registry::{Change, Entry, Guard, Outcome, Revision, Snapshot, Transaction};

#[derive(Clone, Debug, Default)]
pub struct Registry {
    pub revision: u64,
    pub entries: BTreeMap<String, Entry>,
}

impl Registry {
    /// Does what is asked; one that seals nobody leaves the entries of servers that are taken over.
    pub fn answer(&mut self, request: &Request, seals: bool) -> Answer {
        match &request.message {
            Message::Read(prefix) => Answer::Read(Ok(self.read(prefix))),
            Message::Transact(transaction) => {
                let takes = matches!(request.purpose, Purpose::TakeOver { .. });
                let keeps = takes && !seals;
                Answer::Transacted(self.transact(transaction, keeps))
            }
        }
    }

    pub fn read(&self, prefix: &str) -> Snapshot {
        let below = self.entries.range(prefix.to_owned()..);
        let below = below.take_while(|(key, _)| key.starts_with(prefix));
        let entries = below.map(|(_, entry)| entry.clone()).collect();
        Snapshot { revision: Revision(self.revision), entries }
    }

    /// Makes changes, unless guards do not hold; one that keeps deletes nothing.
    pub fn transact(&mut self, transaction: &Transaction, keeps: bool) -> Outcome {
        let holds = |guard: &Guard| {
            let (Guard::Created(key, wanted) | Guard::Modified(key, wanted)) = guard;
            let entry = self.entries.get(key);
            let found = entry.map_or(Revision::NONE, |entry| match guard {
                Guard::Created(..) => entry.created,
                Guard::Modified(..) => entry.modified,
            });
            found == *wanted
        };
        if !transaction.guards.iter().all(holds) {
            return Outcome::Refused;
        }
        self.revision += 1;
        let modified = Revision(self.revision);
        for change in &transaction.changes {
            match change {
                Change::Delete(_) if keeps => {}
                Change::Delete(key) => {
                    self.entries.remove(key);
                }
                Change::Put(key, value) => {
                    let created = self.entries.get(key).map_or(modified, |entry| entry.created);
                    let entry = Entry { key: key.clone(), value: value.clone(), created, modified };
                    self.entries.insert(key.clone(), entry);
                }
            }
        }
        Outcome::Done(modified)
    }
}
