//! Samples of servers that there are not, for the tests of the view.

use std::time::Duration;

use crate::cli::top::sample::Sample;
use crate::engine::{
    ClientInfo, ClientRow, GrantId, KeyRow, LockRow, Mode, ServerFacts, ServerStatus, Tally,
};
use crate::time::Timestamp;

/// A number of seconds after the clock began.
pub(super) fn at(seconds: u64) -> Timestamp {
    Timestamp::ZERO + Duration::from_secs(seconds)
}

/// A key with so many answers, ten of which a second.
pub(super) fn key(name: &str, allowed: u64, refused: u64) -> KeyRow {
    KeyRow {
        key: name.into(),
        is_lock: false,
        rate_millis: 10_000,
        allowed,
        refused,
        waiting: 2,
        holders: 1,
        remaining: 18,
        reset_after: Duration::from_secs(12),
        frozen: Duration::ZERO,
        limit: "500/min sliding".into(),
    }
}

/// Somebody who holds a lock, or waits for it.
pub(super) fn lock(name: &str, grant: Option<u64>, left: u64, who: &str) -> LockRow {
    LockRow {
        key: name.into(),
        mode: Mode::Exclusive,
        grant: grant.map(GrantId),
        since: Duration::from_secs(12),
        left: Duration::from_millis(left),
        session: None,
        client: ClientInfo { name: who.into(), host: "db1".into(), pid: 4711 },
    }
}

/// A client that was silent for so many milliseconds.
pub(super) fn client(name: &str, silent: u64) -> ClientRow {
    ClientRow {
        session: None,
        client: ClientInfo { name: name.into(), host: "web2".into(), pid: 812 },
        address: "10.0.0.7".into(),
        since: Duration::from_secs(90),
        silent: Duration::from_millis(silent),
        leases: 2,
        waiting: 1,
    }
}

/// A server with these keys, two locks and two clients.
pub(super) fn sample(keys: Vec<KeyRow>) -> Sample {
    let facts = ServerFacts {
        version: "0.1.0".into(),
        endpoint: "tcp://127.0.0.1:7777".into(),
        server: 7,
        uptime: Duration::from_secs(3725),
        security: "none".into(),
        is_durable: true,
        reaches_registry: None,
        bad_messages: 3,
    };
    let allowed = keys.iter().map(|row| row.allowed).sum();
    let refused = keys.iter().map(|row| row.refused).sum();
    let tally = Tally { allowed, refused, keys: 12, sessions: 2, ..Tally::default() };
    Sample {
        status: ServerStatus { facts, grace: Duration::ZERO, tally },
        round_trip: Duration::from_micros(410),
        keys,
        locks: vec![
            lock("invoice:42", Some(9), 700, "nightly"),
            lock("invoice:42", None, 8_800, "worker-3"),
            lock("invoice:42", None, 9_900, "worker-4"),
            lock("table", Some(8), 300, "reader"),
        ],
        clients: Some(vec![client("worker-3", 200), client("nightly", 900)]),
    }
}
