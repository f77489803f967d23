//! What a server tells of itself to those who look at it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::engine::event::Tally;
use crate::engine::session::{ClientInfo, SessionId};

/// What a server is doing, and has done since it started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerStatus {
    /// What only the shell knows.
    pub facts: ServerFacts,
    /// For how long no lock is granted yet, because an earlier run may have granted it.
    pub grace: Duration,
    /// What was counted.
    pub tally: Tally,
}

/// What the engine does not know of its server: whoever drives it fills it in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerFacts {
    /// The version of the server.
    pub version: Box<str>,
    /// Where it serves.
    pub endpoint: Box<str>,
    /// The number of this run, as in a welcome.
    pub server: u64,
    /// For how long it has run.
    pub uptime: Duration,
    /// How its connections are secured: `none` or `curve`.
    pub security: Box<str>,
    /// Whether usage outlives it.
    pub is_durable: bool,
    /// Whether it has joined its registry and reaches it, without which it grants nothing; none if
    /// it has none.
    pub reaches_registry: Option<bool>,
    /// How many messages were no requests.
    pub bad_messages: u64,
}

/// Some of the busiest keys, the busiest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyPage {
    /// Which.
    pub rows: Vec<KeyRow>,
    /// Where to ask on, if there is more.
    pub next: Option<u64>,
}

/// One of the busiest keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRow {
    /// The key.
    pub key: Box<str>,
    /// Whether it is a lock: one may have the name of a limit.
    pub is_lock: bool,
    /// How many requests for it are answered a second, in thousandths, over the last few seconds.
    pub rate_millis: u64,
    /// How many were allowed since it is counted for; permits that were lent count each.
    pub allowed: u64,
    /// How many were refused because of it.
    pub refused: u64,
    /// How many wait for it.
    pub waiting: u64,
    /// How many leases of it are held.
    pub holders: u64,
    /// How many permits are left, by the limit that leaves the fewest.
    pub remaining: u64,
    /// When nothing of it will be counted any more, if nothing more is granted.
    pub reset_after: Duration,
    /// For how long it is frozen.
    pub frozen: Duration,
    /// The limit that leaves the fewest permits, as text; of a lock its kind.
    pub limit: Arc<str>,
}

/// Some of the clients that are known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientPage {
    /// Which.
    pub rows: Vec<ClientRow>,
    /// Where to ask on, if there is more.
    pub next: Option<u64>,
}

/// A client that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientRow {
    /// Its session.
    pub session: Option<SessionId>,
    /// Who it says that it is.
    pub client: ClientInfo,
    /// Where its messages come from; empty if that is not known. The shell fills it in.
    pub address: Box<str>,
    /// For how long it is known.
    pub since: Duration,
    /// For how long nothing was heard of it.
    pub silent: Duration,
    /// How many leases and reservations it has.
    pub leases: u64,
    /// How many of its requests wait.
    pub waiting: u64,
}

impl ClientRow {
    /// The most bytes that an address has in a page.
    pub const ADDRESS_BYTES_MAX: usize = 64;
}

/// Something that happened to a client, for those who watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happening {
    /// A client is gone: it said so, or was not heard for too long.
    Left(ClientInfo),
    /// A lock was taken from its holder.
    Broken {
        /// The lock.
        key: Box<str>,
        /// Who held it.
        holder: ClientInfo,
    },
}

/// What happened and nobody has looked at yet: the last of it.
#[derive(Debug, Default)]
pub(super) struct Happenings(VecDeque<Happening>);

impl Happenings {
    /// How many are kept.
    const MOST: usize = 64;

    pub(super) fn push(&mut self, happening: Happening) {
        if self.0.len() == Self::MOST {
            self.0.pop_front();
        }
        self.0.push_back(happening);
    }

    pub(super) fn pop(&mut self) -> Option<Happening> {
        self.0.pop_front()
    }
}
