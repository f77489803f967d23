//! What one run of the server granted, when, and in which order: seen from beside the engine.

use std::collections::{BTreeMap, BTreeSet};

use zmqlocker::engine::{Block, Reply, Request, RequestId};
use zmqlocker::time::Timestamp;

use crate::keys::{Law, law_of};

/// A request, and the client that made it.
type Ask = (usize, RequestId);

#[derive(Default)]
pub struct Witness {
    /// The keys of requests for permits.
    keys: BTreeMap<Ask, String>,
    /// When each request was granted.
    granted: BTreeMap<Ask, u64>,
    /// Who waits for a key, first come first.
    queues: BTreeMap<String, Vec<Ask>>,
    /// Whose place in a queue went with a connection.
    lost: BTreeSet<Ask>,
    /// When the slots of a key began.
    slots: BTreeMap<String, Vec<u64>>,
}

impl Witness {
    pub fn ask(&mut self, client: usize, id: RequestId, request: &Request<'_>) {
        let key = match request {
            Request::Acquire { demand, .. } => demand.parts()[0].0,
            Request::Block { key, .. } => *key,
            _ => return,
        };
        self.lost.remove(&(client, id));
        self.keys.insert((client, id), key.as_str().to_owned());
    }

    pub fn cancel(&mut self, client: usize, id: RequestId) {
        self.leave((client, id));
    }

    pub fn lose(&mut self, client: usize, requests: &[RequestId]) {
        for queue in self.queues.values_mut() {
            let (gone, stay) = queue.drain(..).partition(|(waiter, _)| *waiter == client);
            *queue = stay;
            self.lost.extend::<Vec<_>>(gone);
        }
        for id in requests {
            self.granted.remove(&(client, *id));
        }
    }

    /// Takes in an answer; of several at one instant, first those to whoever gets nothing.
    pub fn reply(&mut self, now: Timestamp, client: usize, id: RequestId, reply: &Reply) {
        let ask = (client, id);
        let Some(key) = self.keys.get(&ask).cloned() else { return };
        match reply {
            Reply::Queued { .. } => {
                let queue = self.queues.entry(key).or_default();
                if !queue.contains(&ask) {
                    queue.push(ask);
                }
            }
            Reply::Decision(decision) if decision.allowed => {
                let queue = self.queues.entry(key.clone()).or_default();
                let is_new = !self.granted.contains_key(&ask);
                if is_new || queue.contains(&ask) {
                    let first = queue.first().copied();
                    assert!(first.is_none_or(|first| first == ask), "{first:?} is overtaken");
                }
                queue.retain(|waiter| *waiter != ask);
                if is_new {
                    self.grant(now, ask, &key);
                }
            }
            Reply::Block(Block { permits: 1.., .. }) if !self.granted.contains_key(&ask) => {
                let queue = self.queues.get(&key);
                assert!(queue.is_none_or(Vec::is_empty), "a block overtakes {queue:?}");
                self.grant(now, ask, &key);
            }
            _ => self.leave(ask),
        }
    }

    fn grant(&mut self, now: Timestamp, ask: Ask, key: &str) {
        let now = now.as_nanos();
        self.granted.insert(ask, now);
        if let Law::Fixed(_, length) = law_of(key) {
            let slots = self.slots.entry(key.to_owned()).or_default();
            if slots.last().is_none_or(|begun| begun + length < now) {
                slots.push(now);
            }
        }
    }

    fn leave(&mut self, ask: Ask) {
        for queue in self.queues.values_mut() {
            queue.retain(|waiter| *waiter != ask);
        }
    }

    /// Whether the server waits no more with a request that it has not answered.
    pub fn has_lost(&self, client: usize, id: RequestId) -> bool {
        self.lost.contains(&(client, id))
    }

    /// When a request was granted.
    pub fn granted_at(&self, client: usize, id: RequestId) -> u64 {
        self.granted[&(client, id)]
    }

    pub fn slots(&self, key: &str) -> &[u64] {
        self.slots.get(key).map_or(&[], Vec::as_slice)
    }
}
