//! A client of the simulation: it holds locks by its own clock, and spends permits in blocks.

use std::collections::BTreeMap;

use crate::Mistake;
use crate::clock::Clock;
use crate::locks::{Block, shorter};
use crate::server::{Asked, Said};

/// A lock that a client believes to hold.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    pub token: u64,
    pub ttl: u64,
    /// By its own clock.
    pub until: u64,
}

/// Permits that a client may spend.
#[derive(Clone, Copy, Debug)]
pub struct Lent {
    pub window: u64,
    pub permits: u64,
    pub until: u64,
}

pub struct Client {
    pub clock: Clock,
    pub paused_until: u64,
    pub held: BTreeMap<usize, Held>,
    pub lent: BTreeMap<usize, Lent>,
    /// Which server to ask for a key.
    pub guess: BTreeMap<usize, usize>,
    pub mistake: Option<Mistake>,
}

impl Client {
    pub fn new(clock: Clock, mistake: Option<Mistake>) -> Self {
        let (held, lent, guess) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { clock, paused_until: 0, held, lent, guess, mistake }
    }

    pub fn local(&self, now: u64) -> u64 {
        self.clock.local(now).as_nanos()
    }

    /// Whether it believes to hold a lock.
    pub fn holds(&self, now: u64, key: usize) -> bool {
        self.held.get(&key).is_some_and(|held| self.local(now) < held.until)
    }

    /// What it was answered to a request that it sent at `sent`, by its own clock. Whether it has
    /// a lock now that it had not, or holds on to one.
    pub fn hear(&mut self, now: u64, key: usize, (sent, asked): (u64, Asked), said: Said) -> bool {
        let local = self.local(now);
        match said {
            Said::Held(token) => {
                let (ttl, is_renewal) = match asked {
                    Asked::Renew { ttl, .. } => (ttl, true),
                    Asked::Lock { ttl } => (ttl, false),
                    Asked::Release { .. } | Asked::Permits { .. } => return false,
                };
                let from = if self.mistake == Some(Mistake::TtlFromReceipt) { local } else { sent };
                let until = from + shorter(ttl, 4);
                let held = self.held.get_mut(&key).filter(|held| local < held.until);
                match held {
                    Some(held) if is_renewal && held.token == token => {
                        held.until = held.until.max(until);
                        true
                    }
                    None if !is_renewal && local < until => {
                        self.held.insert(key, Held { token, ttl, until });
                        true
                    }
                    _ => false,
                }
            }
            Said::Lent(Block { window, permits, left, .. }) => {
                let is_late = self.mistake == Some(Mistake::PermitsFromReceipt);
                let from = if is_late { local } else { sent };
                let until = from + shorter(left, 8);
                self.lent.insert(key, Lent { window, permits, until });
                false
            }
            Said::Elsewhere(Some(server)) => {
                self.guess.insert(key, server);
                false
            }
            Said::Refused | Said::Elsewhere(None) => false,
        }
    }

    /// Spends a permit, if it has one: of which window.
    pub fn spend(&mut self, now: u64, key: usize) -> Option<u64> {
        let local = self.local(now);
        let lent = self.lent.get_mut(&key).filter(|lent| lent.permits > 0 && local < lent.until)?;
        lent.permits -= 1;
        Some(lent.window)
    }
}
