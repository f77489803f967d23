//! What clients ask, and what they hear.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use crate::cluster::Partition;
use crate::engine::key::Key;
use crate::engine::limit::Rate;
use crate::engine::lock::{LockPage, LockRequest, Term};
use crate::engine::status::{ClientPage, KeyPage, ServerStatus};
use crate::error::Error;

/// How many permits a request takes from one key: 1 to [`Rate::MAX_REQUESTS_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cost(u64);

impl Cost {
    /// One permit.
    pub const ONE: Self = Self(1);

    /// A cost of so many permits.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] that names the bound.
    pub fn new(permits: i128) -> Result<Self, Error> {
        if let Ok(permits @ 1..=Rate::MAX_REQUESTS_MAX) = u64::try_from(permits) {
            return Ok(Self(permits));
        }
        let problem = format!("must be from 1 to {}, not {permits}", Rate::MAX_REQUESTS_MAX);
        Err(Error::Config { argument: "cost", problem })
    }

    /// The number of permits.
    #[must_use]
    pub const fn permits(self) -> u64 {
        self.0
    }
}

/// What a request wants of which keys: all of it or nothing. Has 1 to [`Demand::KEYS_MAX`] keys,
/// each once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand<'a>(Parts<'a>);

/// Nearly always one.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Parts<'a> {
    One([(Key<'a>, Cost); 1]),
    Several(Vec<(Key<'a>, Cost)>),
}

impl<'a> Demand<'a> {
    /// The most keys of one request.
    pub const KEYS_MAX: usize = 16;

    /// A demand of one key.
    #[must_use]
    pub const fn one(key: Key<'a>, cost: Cost) -> Self {
        Self(Parts::One([(key, cost)]))
    }

    /// A demand of several keys.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if there are none, too many, or one twice.
    pub fn new(parts: impl IntoIterator<Item = (Key<'a>, Cost)>) -> Result<Self, Error> {
        let bad = |problem| Err(Error::Config { argument: "keys", problem });
        let mut all = Vec::new();
        for (key, cost) in parts {
            if all.len() == Self::KEYS_MAX {
                return bad(format!("must be at most {} in one request", Self::KEYS_MAX));
            }
            if all.iter().any(|(other, _)| *other == key) {
                return bad(format!("must each be named once: {:?} is there twice", key.as_str()));
            }
            all.push((key, cost));
        }
        if all.is_empty() {
            return bad("must be at least one".to_owned());
        }
        Ok(Self(match *all {
            [one] => Parts::One([one]),
            _ => Parts::Several(all),
        }))
    }

    /// The keys and what they cost, in the order in which they were given.
    #[must_use]
    pub fn parts(&self) -> &[(Key<'a>, Cost)] {
        match &self.0 {
            Parts::One(one) => one,
            Parts::Several(several) => several,
        }
    }
}

/// How long a request may wait for its permits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Not at all.
    No,
    /// As long as the server is patient, if the permits will be there by then.
    Patience,
    /// So long.
    UpTo(Duration),
}

/// What becomes of the permits that a request gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// They are spent.
    Spend,
    /// They are spent, and what turns out not to be needed may be given back.
    Reserve,
    /// They are held until they are released, or until nothing was heard of the holder for a while.
    Lease(Term),
}

impl Hold {
    /// A lease of this `ttl`.
    ///
    /// # Errors
    ///
    /// As [`Term::new`].
    pub fn lease(ttl: Duration) -> Result<Self, Error> {
        Term::new(ttl, None).map(Self::Lease)
    }
}

/// The number of a grant that may be given back, unique within a server's run; never 0. Of a lock
/// it is the fencing token: it rises with each grant, over restarts too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GrantId(pub u64);

/// The number of a request: unique within the session of a client, and rising.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// A request that is about limits or locks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// Permits, all or nothing. Answered with a [`Decision`].
    Acquire {
        /// Of what, how many.
        demand: Demand<'a>,
        /// How long it may wait.
        wait: Wait,
        /// What becomes of the permits.
        hold: Hold,
    },
    /// Locks, all or nothing. Answered with a [`Decision`].
    Lock {
        /// Which, and for how long.
        wanted: LockRequest<'a>,
        /// How long it may wait.
        wait: Wait,
    },
    /// Locks that an earlier run of the server has granted, and that their holder still holds.
    Reclaim {
        /// The lease.
        grant: GrantId,
        /// What it is of.
        wanted: LockRequest<'a>,
    },
    /// A lock is taken from its holders.
    Break {
        /// The lock.
        key: Key<'a>,
        /// Only the lease of this number, which must be current; all leases if there is none.
        grant: Option<GrantId>,
    },
    /// Who holds and who waits for locks. Answered with a [`LockPage`].
    Locks {
        /// Where the page begins: 0, or where the page before said that there is more.
        from: u64,
    },
    /// What the server does and has done. Answered with a [`ServerStatus`].
    Status,
    /// Which keys are the busiest. Answered with a [`KeyPage`].
    Keys {
        /// Where the page begins: 0, or where the page before said that there is more.
        from: u64,
    },
    /// Which clients there are. Answered with a [`ClientPage`].
    Clients {
        /// As of keys.
        from: u64,
    },
    /// A reservation is settled: so much was spent of each key, in the order of the demand.
    Commit {
        /// The reservation.
        grant: GrantId,
        /// What was spent, for each key; 0 gives everything back.
        spent: SmallVec<[u64; 1]>,
    },
    /// A lease is given back.
    Release {
        /// The lease.
        grant: GrantId,
    },
    /// The same, where servers share the keys: the one that is home of this partition knows for
    /// sure whether there is such a lease.
    ReleaseIn {
        /// The lease.
        grant: GrantId,
        /// The partition of its keys.
        partition: Partition,
    },
    /// Nobody gets a permit of the key for so long.
    Freeze {
        /// The key.
        key: Key<'a>,
        /// How long, from now; a freeze that lasts longer stays.
        length: Duration,
    },
    /// What the answer to a request would be. Changes nothing.
    Peek {
        /// The key.
        key: Key<'a>,
        /// What the request would cost.
        cost: Cost,
    },
    /// Everything that was used of the key is forgotten, a freeze too. Leases stay.
    Reset {
        /// The key.
        key: Key<'a>,
    },
    /// The key has other limits from now on. What was used stays used.
    SetLimits {
        /// The key.
        key: Key<'a>,
        /// The new limits, as text.
        limits: Vec<&'a str>,
    },
    /// Permits to be spent without asking again. Answered with a [`Block`].
    Block {
        /// The key.
        key: Key<'a>,
        /// How many at most.
        wanted: Cost,
    },
    /// Permits of a block that will not be spent.
    GiveBack {
        /// The block.
        grant: GrantId,
        /// How many of its permits are left.
        unused: u64,
    },
}

impl<'a> Request<'a> {
    /// The keys that it is about, in its order. What is about a grant is about no key here.
    #[must_use]
    pub fn keys(&self) -> SmallVec<[Key<'a>; 1]> {
        match self {
            Self::Acquire { demand, .. } => demand.parts().iter().map(|(key, _)| *key).collect(),
            Self::Lock { wanted, .. } | Self::Reclaim { wanted, .. } => {
                wanted.locks.parts().iter().map(|(key, _)| *key).collect()
            }
            Self::Break { key, .. }
            | Self::Freeze { key, .. }
            | Self::Peek { key, .. }
            | Self::Reset { key }
            | Self::SetLimits { key, .. }
            | Self::Block { key, .. } => SmallVec::from_elem(*key, 1),
            Self::Commit { .. }
            | Self::Release { .. }
            | Self::ReleaseIn { .. }
            | Self::GiveBack { .. }
            | Self::Locks { .. }
            | Self::Status
            | Self::Keys { .. }
            | Self::Clients { .. } => SmallVec::new(),
        }
    }
}

impl Request<'_> {
    /// The most limits that a key may be given.
    pub const LIMITS_MAX: usize = 8;

    /// The most bytes that the text of one limit may have.
    pub const LIMIT_BYTES_MAX: usize = 256;

    /// Whether whoever asks may have to wait for the answer, and be told so.
    pub(super) const fn may_wait(&self) -> bool {
        !matches!(self, Self::Acquire { wait: Wait::No, .. })
    }
}

/// What a request hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The final answer to an acquire or a peek.
    Decision(Decision),
    /// The request waits, behind so many others; a decision follows.
    Queued {
        /// How many are served before it.
        ahead: u64,
    },
    /// It is done.
    Done,
    /// The answer to a request for a block.
    Block(Block),
    /// The answer to a question about locks.
    Locks(LockPage),
    /// What the server does and has done.
    Status(Box<ServerStatus>),
    /// The busiest keys.
    Keys(KeyPage),
    /// Clients of the server.
    Clients(ClientPage),
    /// It cannot be done.
    Refuse(Problem),
}

impl Reply {
    /// The number under which what was granted with it may be given back, if it may.
    #[must_use]
    pub const fn grant(&self) -> Option<GrantId> {
        match self {
            Self::Decision(decision) => decision.grant,
            Self::Block(block) => block.grant,
            _ => None,
        }
    }
}

/// Whether a request is allowed, and what is left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether the permits were granted.
    pub allowed: bool,
    /// How many permits of the key are left, by the limit that leaves the fewest.
    pub remaining: u64,
    /// When the same request could be allowed at the earliest; zero if it is, `None` for never.
    pub retry_after: Option<Duration>,
    /// When nothing of the key will be counted any more, if nothing more is granted.
    pub reset_after: Duration,
    /// The limit that said no, or else the one that leaves the fewest permits; as text.
    pub limit: Arc<str>,
    /// The place in the demand of the key that this is about.
    pub key: usize,
    /// The number under which it may be given back, if it may.
    pub grant: Option<GrantId>,
}

/// Permits that a client may spend by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// How many; 0 if there is none now, and then `decision` says why.
    pub permits: u64,
    /// For how long they may be spent, on the server's clock, from the grant on.
    pub valid_for: Duration,
    /// The number of the block.
    pub grant: Option<GrantId>,
    /// The state of the key after the grant.
    pub decision: Decision,
}

/// Why a request cannot be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Which kind of problem, the same in all releases.
    pub code: Code,
    /// The rest of the story, for people.
    pub message: String,
}

impl Problem {
    /// Nothing is begun any more that would outlast the server.
    pub(super) fn closing() -> Self {
        let message = "the server stops: ask again, or another one".to_owned();
        Self { code: Code::Closing, message }
    }

    /// The key that was waited for went to another server.
    pub(super) fn elsewhere() -> Self {
        let message = "another server decides for the key now: ask that one".to_owned();
        Self { code: Code::NotHome, message }
    }
}

/// The kinds of problems; the numbers are those of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// What was sent is no request.
    Protocol = 1,
    /// An argument is out of its bounds, or a key has no limits.
    Config = 2,
    /// The cost is above the limit: it can never be allowed.
    CostTooLarge = 3,
    /// The key has limits of another kind than the request is for.
    KindMismatch = 4,
    /// A bound of the server is reached.
    BoundExceeded = 5,
    /// There is no such lease, reservation or block, or not any more.
    NotHeld = 6,
    /// The server does not know this session: say hello first, and ask again.
    UnknownSession = 7,
    /// The server has not heard from the client for too long, and has let its place in a queue go.
    Forgotten = 8,
    /// The server stops.
    Closing = 9,
    /// The waiter closed a cycle of waits, in which nobody could ever go on.
    Deadlock = 10,
    /// The client has no right to this, or is not let in any more.
    Auth = 11,
    /// Another server decides for the key, or this one does not do so yet: ask its home, or again.
    NotHome = 12,
}

impl Code {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Protocol,
        Self::Config,
        Self::CostTooLarge,
        Self::KindMismatch,
        Self::BoundExceeded,
        Self::NotHeld,
        Self::UnknownSession,
        Self::Forgotten,
        Self::Closing,
        Self::Deadlock,
        Self::Auth,
        Self::NotHome,
    ];
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}
