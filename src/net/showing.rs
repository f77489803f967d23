//! What the thread of a server measures of itself, and shows to those who watch.

use crate::engine::{Bounds, Happening};
use crate::net::peers::PeerLine;
use crate::net::service::Service;
use crate::net::sight::{Sight, Wanted};
use crate::observe::{Door, Observation, People, ThreadMeasures};
use crate::time::{Clock, Timestamp};

/// How many bytes the pages have that people see: some hundred rows each.
const PAGE_BYTES: usize = 40_000;

/// As many keys as are counted for fit into so many bytes.
const KEYS_BYTES: usize = 1_000_000;

/// How many pages of locks are looked for, of some thousand keys each.
const LOCK_PAGES_MAX: usize = 16;

/// What there is only if somebody watches.
#[derive(Debug)]
pub(super) struct Showing {
    sight: Sight,
    bounds: Bounds,
    thread: ThreadMeasures,
    /// Since when the thread is busy.
    busy_since: Timestamp,
}

impl Showing {
    pub(super) fn new(now: Timestamp, sight: Sight, bounds: Bounds) -> Self {
        Self { sight, bounds, thread: ThreadMeasures::default(), busy_since: now }
    }

    /// So many messages were taken in together.
    pub(super) fn took(&mut self, messages: u64) {
        if messages > 0 {
            self.thread.batches.observe(messages);
        }
    }

    /// The thread begins to wait.
    pub(super) fn pause(&mut self, now: Timestamp) {
        self.thread.loops.observe_length(now.since(self.busy_since));
    }

    /// The thread has waited.
    pub(super) fn resume(&mut self, now: Timestamp) {
        self.busy_since = now;
    }
}

impl Service {
    /// Shows how things stand, and tells what happened, if somebody wants to know.
    pub(super) fn show(&mut self) {
        let Some(showing) = &self.showing else { return };
        while let Some(happening) = self.machine.poll_happening() {
            let (kind, text) = match &happening {
                Happening::Left(client) => ("client", format!("{client} left")),
                Happening::Broken { key, holder } => {
                    ("lock", format!("lock {key:?} was taken from {holder}"))
                }
            };
            self.journal.reporter.tell(self.clock.now(), kind, || text);
        }
        let wanted = showing.sight.take_wanted();
        if wanted == Wanted::Nothing {
            return;
        }
        let now = self.clock.now();
        let mut status = self.machine.status(now);
        status.facts = self.facts();
        let keys = self.machine.busy_keys(now, 0, KEYS_BYTES).rows;
        let people = (wanted == Wanted::All).then(|| self.people(now));
        let measures = self.machine.measures().clone();
        let counted = self.control.stats();
        let door = Door {
            connections: counted.connections,
            ended: counted.connections_ended,
            denied: counted.denied,
        };
        let sharing = self.homes.as_ref().map(|homes| homes.seen(now));
        let counting = self.peers.as_ref().map(PeerLine::seen);
        let stops_within = self.drained_at.map(|at| at.since(now));
        let Some(showing) = &self.showing else { return };
        let (thread, bounds) = (showing.thread.clone(), showing.bounds);
        let seen = Observation {
            at: now,
            status,
            stops_within,
            measures,
            thread,
            door,
            bounds,
            sharing,
            counting,
            keys,
            people,
        };
        showing.sight.show(Box::new(seen));
    }

    /// What only people look at.
    fn people(&self, now: Timestamp) -> People {
        let mut people = People::default();
        let (mut next, mut bytes) = (Some(0), PAGE_BYTES);
        for _ in 0..LOCK_PAGES_MAX {
            let Some(from) = next.filter(|_| bytes > 0) else { break };
            let page = self.machine.locks(now, from, bytes);
            let taken = |row: &crate::engine::LockRow| row.key.len() + 100;
            bytes = bytes.saturating_sub(page.rows.iter().map(taken).sum());
            people.locks.extend(page.rows);
            next = page.next;
        }
        people.more_locks = next.is_some();
        let mut page = self.machine.clients(now, 0, PAGE_BYTES);
        self.desk.fill_in(&mut page.rows);
        (people.clients, people.more_clients) = (page.rows, page.next.is_some());
        people
    }
}
