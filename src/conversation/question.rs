//! A request that is under way, and how long its caller waits.

use std::time::Duration;

use smallvec::SmallVec;

use crate::asking::LinkId;
use crate::cluster::Partition;
use crate::conversation::BEAT_INTERVAL;
use crate::conversation::homes::whole_partition_of;
use crate::conversation::looks::Look;
use crate::conversation::parted::Parted;
use crate::conversation::releases::Owed;
use crate::engine::{GrantId, Hold, LockRequest, Locks, Mode, Problem, Reply, Request, Term};
use crate::time::Timestamp;
use crate::wire::request::{Wanted, encode_wanted};

/// How much longer than its caller wanted a request waits, at most, for the answer of the server in
/// whose queue it is: that one knows the limit that said no.
const LAST_WORD: Duration = Duration::from_millis(100);

/// A request that is under way, as its caller left it.
#[derive(Debug)]
pub(super) struct Question {
    /// What is asked in our protocol; none for the seed's.
    pub(super) item: Option<Vec<u8>>,
    /// How it is held, if it is to be held.
    pub(super) lease: Option<Held>,
    /// The partition of its keys, whose home is asked; none, and it may not be asked elsewhere.
    pub(super) partition: Option<Partition>,
    /// Who said last that it is not home, what it said, and the epoch that was known then.
    pub(super) refused: Option<(LinkId, Problem, Option<u64>)>,
    /// The lease that a new run of the server is to let us hold on.
    pub(super) reclaims: Option<(LinkId, GrantId)>,
    /// The lease that is given back.
    pub(super) releases: Option<(LinkId, Owed)>,
    /// Whether the server is to hear of it though nobody may wait for the answer.
    pub(super) is_errand: bool,
    /// How long the server is asked to let it wait.
    pub(super) wait: Option<Duration>,
    pub(super) asked_at: Timestamp,
    pub(super) deadline: Option<Timestamp>,
    /// Whom it was sent to, and when: each of them may have acted on it.
    pub(super) sent: SmallVec<[Sent; 1]>,
    pub(super) queued_on: Option<LinkId>,
    /// What it is where servers share the keys, if its keys are of several partitions.
    pub(super) parted: Option<Box<Parted>>,
    /// Which page it is of what servers tell, where several share the keys.
    pub(super) look: Option<Look>,
    /// The answers so far, where several requests are asked together; else none.
    pub(super) together: Option<Together>,
}

/// What is to be held.
#[derive(Debug)]
pub(super) struct Held {
    /// For how long.
    pub(super) term: Term,
    /// What is to be held.
    pub(super) wanted: Wanted,
    /// Whether it is of locks.
    pub(super) is_lock: bool,
    /// The partition of its keys, if they are all of one.
    pub(super) partition: Option<Partition>,
}

impl Held {
    /// What is to be held by a request, if anything is.
    pub(super) fn of(request: &Request<'_>) -> Option<Self> {
        let partition = whole_partition_of(request);
        match request {
            Request::Lock { wanted, .. } => {
                let term = wanted.term;
                Some(Self { term, wanted: encode_wanted(wanted), is_lock: true, partition })
            }
            Request::Acquire { demand, hold: Hold::Lease(term), .. } => {
                let parts = demand.parts().iter();
                let parts = parts.map(|(key, cost)| Some((*key, Mode::of_limit(cost.permits())?)));
                let parts = parts.collect::<Option<Vec<_>>>()?;
                let locks = Locks::new(parts).ok()?;
                let wanted = encode_wanted(&LockRequest { locks, term: *term, actor: 0 });
                Some(Self { term: *term, wanted, is_lock: false, partition })
            }
            _ => None,
        }
    }
}

/// When a request was sent to a server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) to: LinkId,
    first: Timestamp,
    /// On which of the link's connections it was sent last, and when it was sent there first: what
    /// is heard on a connection answers what was sent on it, but not always what was sent last.
    connection: u64,
    there: Timestamp,
}

/// Requests that are asked together, and answered when all of them are.
#[derive(Debug)]
pub(super) struct Together {
    /// How many there are.
    pub(super) count: u64,
    replies: Vec<Option<Reply>>,
    left: usize,
}

impl Together {
    pub(super) fn new(count: usize) -> Self {
        Self { count: count as u64, replies: vec![None; count], left: count }
    }

    /// Takes one answer in. All of them, once there are no more to come.
    pub(super) fn take(&mut self, place: usize, reply: Reply) -> Option<Vec<Reply>> {
        let slot = self.replies.get_mut(place)?;
        if slot.replace(reply).is_none() {
            self.left -= 1;
        }
        (self.left == 0).then(|| std::mem::take(&mut self.replies).into_iter().flatten().collect())
    }
}

impl Question {
    /// A request that was not sent yet, and for whose answer nobody has said how long to wait.
    pub(super) fn new(item: Option<Vec<u8>>) -> Self {
        Self {
            item,
            lease: None,
            partition: None,
            refused: None,
            reclaims: None,
            releases: None,
            is_errand: false,
            wait: None,
            asked_at: Timestamp::ZERO,
            deadline: None,
            sent: SmallVec::new(),
            queued_on: None,
            parted: None,
            look: None,
            together: None,
        }
    }

    /// How often the server has to hear of us while it waits there. A lease that it waits for is
    /// counted from the last beat before the grant: as much of it is left as after a renewal.
    pub(super) fn beat_interval(&self) -> Duration {
        let renewal = self.lease.as_ref().map(|held| held.term.ttl / 3);
        renewal.map_or(BEAT_INTERVAL, |renewal| renewal.min(BEAT_INTERVAL))
    }

    /// How many requests it is.
    pub(super) fn count(&self) -> u64 {
        self.together.as_ref().map_or(1, |together| together.count)
    }

    pub(super) fn sent_to(&mut self, link: LinkId, connection: u64, now: Timestamp) {
        match self.sent.iter_mut().find(|sent| sent.to == link) {
            Some(sent) if sent.connection == connection => {}
            Some(sent) => (sent.connection, sent.there) = (connection, now),
            None => self.sent.push(Sent { to: link, first: now, connection, there: now }),
        }
    }

    /// Whether it was sent on this connection of a link.
    pub(super) fn is_sent_on(&self, link: LinkId, connection: u64) -> bool {
        self.sent.iter().any(|sent| sent.to == link && sent.connection == connection)
    }

    /// An instant at which it was sent that the server has heard of when its answer comes.
    pub(super) fn sent_at(&self, link: LinkId) -> Option<Timestamp> {
        self.sent.iter().find(|sent| sent.to == link).map(|sent| sent.there)
    }

    /// An instant before which a server has not granted it, for certain: where it was sent again,
    /// the answer may be to what was sent first. Where the server has said that it waits, whatever
    /// of us it has heard since came before the grant.
    pub(super) fn not_granted_before(&self, link: LinkId, heard_at: Timestamp) -> Timestamp {
        let sent = self.sent.iter().find(|sent| sent.to == link);
        let is_queued = self.queued_on == Some(link);
        let instant = |it: &Sent| if is_queued { it.there.max(heard_at) } else { it.first };
        sent.map(instant).unwrap_or_default()
    }

    /// Puts the deadline off once, if the server in whose queue it is will answer by then: the
    /// deadline before, and the one from now on.
    pub(super) fn wait_for_last_word(&mut self) -> Option<(Timestamp, Timestamp)> {
        let (wait, deadline) = (self.wait.take()?, self.deadline?);
        if self.sent_at(self.queued_on?)? + wait > deadline + LAST_WORD / 2 {
            return None;
        }
        let later = deadline + LAST_WORD;
        self.deadline = Some(later);
        Some((deadline, later))
    }
}
