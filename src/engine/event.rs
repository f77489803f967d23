//! What the engine is told, and what it says.

use std::sync::Arc;

use crate::answer::Answer;
use crate::engine::request::{Code, GrantId, Problem, Reply, Request, RequestId};
use crate::engine::rules::Rules;
use crate::engine::session::SessionId;

/// What the engine is told. `E` is the shell's address of one of the seed's clients.
#[derive(Clone, Debug, PartialEq)]
pub enum Input<'a, 'b, E> {
    /// The seed's request: one permit of the key `default`.
    Next(E),
    /// A request of a session. If it was made before, its answer is repeated.
    Ask(SessionId, RequestId, &'a Request<'b>),
    /// The client lives, and has the answers to all its requests below this one, but for some.
    Beat(SessionId, RequestId, &'a [RequestId]),
    /// Nobody wants the answer to this request: what was granted with it comes back.
    Cancel(SessionId, RequestId),
    /// The client goes.
    Bye(SessionId),
    /// The connection of a session is gone, and the answers to these requests with it.
    Lost(SessionId, &'a [RequestId]),
    /// The client of a session is served no more: what it waits for is refused. What it holds ends
    /// when nothing is heard of it.
    Bar(SessionId),
    /// The keys have other limits from now on.
    Rules(Rules),
    /// Nothing but the time.
    Tick,
    /// The service is about to end: nobody begins to wait or to hold any more. Those who wait go
    /// on, and are served.
    Drain,
    /// The service ends: whoever waits is answered now.
    Close,
}

/// What is to be said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output<E> {
    /// The answer to one of the seed's clients.
    Seed {
        /// The address that came with the request.
        to: E,
        /// What to say; a problem if the key `default` cannot be had this way.
        answer: Result<Answer, Problem>,
    },
    /// The answer to a request of a session.
    Reply {
        /// The session.
        session: SessionId,
        /// Its request.
        request: RequestId,
        /// What to say.
        reply: Reply,
    },
    /// A limit in shadow mode would have refused a request.
    WouldRefuse {
        /// The key.
        key: Box<str>,
        /// The limit.
        limit: Arc<str>,
    },
    /// What is used of a key is to be written down, for a later run: see
    /// [`make_durable`](crate::engine::Machine::make_durable).
    Record {
        /// The number of the record: one more than that of the record before.
        number: u64,
        /// The key.
        key: Box<str>,
        /// What takes the place of the record of that key; `None` if it has none any more.
        record: Option<Vec<u8>>,
    },
    /// A lease of locks is to be written down, for a later run.
    Lease {
        /// The number of the record.
        number: u64,
        /// The lease.
        grant: GrantId,
        /// What takes the place of its record; `None` if it is over.
        record: Option<Vec<u8>>,
    },
    /// Grants will have numbers up to this one: a later run must not give them again.
    Numbers {
        /// The number of the record.
        number: u64,
        /// The last of them.
        up_to: GrantId,
    },
    /// A holder is to be told that leases were taken from it.
    Lost {
        /// Its session.
        session: SessionId,
        /// All that it was not seen to know of.
        grants: Vec<GrantId>,
    },
    /// A holder is to be told that leases went to another server, with their keys.
    Moved {
        /// Its session.
        session: SessionId,
        /// All that it has not said that it knows of.
        grants: Vec<GrantId>,
    },
    /// No answer that follows may be sent before this record is written, and all before it.
    Await {
        /// The number of the record.
        number: u64,
    },
}

/// What a machine counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests that were allowed.
    pub allowed: u64,
    /// Requests that were refused.
    pub refused: u64,
    /// Requests that cannot be answered.
    pub problems: u64,
    /// How many of them because a bound of the server was reached; and clients that were sent away
    /// for that.
    pub bounds_hit: u64,
    /// Requests that wait at present.
    pub waiting: usize,
    /// Keys that are in use at present.
    pub keys: usize,
    /// Leases, reservations and blocks at present.
    pub leases: usize,
    /// Sessions of clients at present.
    pub sessions: usize,
}

impl Tally {
    /// A request cannot be answered.
    pub(super) fn count(&mut self, problem: &Problem) {
        self.problems += 1;
        self.bounds_hit += u64::from(problem.code == Code::BoundExceeded);
    }
}
