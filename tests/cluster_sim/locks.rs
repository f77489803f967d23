//! What a home decides, in small: locks with a lease each, and limits whose permits are lent in
//! blocks. It stands for the engine, of which only what depends on homes is of interest here.

use std::collections::BTreeMap;

use crate::world::{MILLI, SECOND};

/// The keys of locks, and those of limits after them.
pub const LOCKS: usize = 6;
pub const LIMITS: usize = 3;
pub const KEYS: usize = LOCKS + LIMITS;

/// How long leases are at most.
pub const TTL_MAX: u64 = 800 * MILLI;
/// So many permits in a window of so long.
pub const LIMIT: u64 = 60;
pub const WINDOW: u64 = 3 * SECOND / 2;

/// By how many thousandths clocks may differ in rate: e of the rules.
pub const fn longer(length: u64, thousandths: u64) -> u64 {
    length + length / 1_000 * thousandths
}

pub const fn shorter(length: u64, thousandths: u64) -> u64 {
    length - length / 1_000 * thousandths
}

/// A name of a key for the hash of partitions.
pub fn name(key: usize) -> String {
    format!("key:{key}")
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    client: usize,
    token: u64,
    expiry: u64,
}

#[derive(Clone, Copy, Debug)]
struct Window {
    number: u64,
    end: u64,
    claimed: u64,
}

/// What a home knows of a partition. Times are those of its clock.
#[derive(Clone, Debug, Default)]
pub struct Table {
    pub epoch: u32,
    /// When permits may be granted.
    pub permits_from: u64,
    leases: BTreeMap<usize, Lease>,
    windows: BTreeMap<usize, Window>,
}

/// A block of permits.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    pub window: u64,
    pub permits: u64,
    /// How long the window lasts.
    pub left: u64,
    /// Whether the window begins with it.
    pub is_first: bool,
}

impl Table {
    /// That of a home which knows nothing yet.
    pub fn new(epoch: u32, permits_from: u64) -> Self {
        Self { epoch, permits_from, ..Self::default() }
    }

    /// Grants a lock, if it is free, under the number after `last`.
    pub fn grant(
        &mut self,
        now: u64,
        key: usize,
        (client, ttl): (usize, u64),
        last: &mut u64,
    ) -> Option<u64> {
        if self.leases.get(&key).is_some_and(|lease| now < lease.expiry) {
            return None;
        }
        *last += 1;
        let token = *last;
        self.leases.insert(key, Lease { client, token, expiry: now + longer(ttl, 12) });
        Some(token)
    }

    /// Renews a lease, or hears of it in the grace.
    pub fn renew(
        &mut self,
        now: u64,
        key: usize,
        (client, token): (usize, u64),
        ttl: u64,
        reclaims: bool,
    ) -> bool {
        let expiry = now + longer(ttl, 12);
        match self.leases.get_mut(&key) {
            Some(lease) if now < lease.expiry => {
                let is_same = lease.client == client && lease.token == token;
                lease.expiry = lease.expiry.max(if is_same { expiry } else { 0 });
                is_same
            }
            _ if reclaims && token >> 32 < u64::from(self.epoch) => {
                self.leases.insert(key, Lease { client, token, expiry });
                true
            }
            _ => false,
        }
    }

    pub fn release(&mut self, key: usize, client: usize, token: u64) {
        let is_same = |lease: &Lease| lease.client == client && lease.token == token;
        if self.leases.get(&key).is_some_and(is_same) {
            self.leases.remove(&key);
        }
    }

    /// Lends permits.
    pub fn lend(&mut self, now: u64, key: usize, count: u64, next: &mut u64) -> Option<Block> {
        if now < self.permits_from {
            return None;
        }
        let open = self.windows.get(&key).copied().filter(|window| now <= window.end);
        let is_first = open.is_none();
        let mut window = open.unwrap_or_else(|| {
            *next += 1;
            Window { number: *next, end: now + WINDOW, claimed: 0 }
        });
        let permits = count.min(LIMIT - window.claimed);
        window.claimed += permits;
        self.windows.insert(key, window);
        let left = window.end - now;
        (permits > 0).then_some(Block { window: window.number, permits, left, is_first })
    }

    /// What is held, as lengths of time from now on.
    pub fn encode(&self, now: u64) -> Vec<u8> {
        let mut lines = Vec::new();
        for (key, lease) in &self.leases {
            let left = lease.expiry.saturating_sub(now);
            lines.push(format!("lease {key} {} {} {left}", lease.client, lease.token));
        }
        for (key, window) in &self.windows {
            let left = window.end.saturating_sub(now);
            lines.push(format!("window {key} {} {} {left}", window.number, window.claimed));
        }
        let wait = self.permits_from.saturating_sub(now);
        lines.push(format!("wait 0 0 0 {wait}"));
        lines.join("\n").into_bytes()
    }

    pub fn decode(epoch: u32, now: u64, text: &[u8]) -> Self {
        let mut table = Self::new(epoch, now);
        for line in std::str::from_utf8(text).unwrap().lines() {
            let (kind, rest) = line.split_once(' ').unwrap();
            let numbers: Vec<u64> = rest.split(' ').map(|it| it.parse().unwrap()).collect();
            let [key, first, second, left] = numbers[..] else { panic!("{line}") };
            let key = usize::try_from(key).unwrap();
            match kind {
                "lease" => {
                    let client = usize::try_from(first).unwrap();
                    let expiry = now + longer(left, 4);
                    table.leases.insert(key, Lease { client, token: second, expiry });
                }
                "window" => {
                    let end = now + longer(left, 4);
                    table.windows.insert(key, Window { number: first, end, claimed: second });
                }
                _ => table.permits_from = now + longer(left, 4),
            }
        }
        table
    }
}
