//! A server's place in its cluster: which partitions it is home of, and until when.
//!
//! > Tell it what happens by [`handle`](Home::handle), then take all of
//! > [`poll_output`](Home::poll_output) before the next `handle`; tell it of the time no later than
//! > [`poll_timeout`](Home::poll_timeout) says. Ask [`standing`](Home::standing) before each grant.
//!
//! The rules, each where it is kept:
//!
//! - R1: a server registers under its name where there is no entry of that name or at its URL, and
//!   is known by the revision that did so, its incarnation (`beat.rs`).
//! - R2: it writes its entry anew every 150 ms, if nobody else has; from when such a beat was
//!   *sent*, it is alive for 600 ms. Where its entry is gone it was sealed: it has nothing any more
//!   (`beat.rs`, `look.rs`).
//! - R3: it grants while it is alive, and has the partition under its present incarnation
//!   ([`Home::standing`]).
//! - R4: an entry that has not changed for 700 ms, by our clock since we saw it, is deleted, which
//!   seals its server, and its partitions are taken over in the same transaction (`step.rs`).
//! - R5: for 800 ms after it has taken over, a home grants nothing anew (`look.rs`).
//! - R7: each change of hands has an epoch of its own for each new home, which numbers of grants
//!   begin with: so they are unique in the cluster, and rise for each key.
//! - R8: a home hands a partition over by writing its successor, under the next epoch, and what is
//!   held: it stops before, and the successor begins at once (`step.rs`).
//!
//! Who should have what, all compute alike, from the entries of the servers and the wishes of
//! operators that one look has shown (`assignment.rs`).
//!
//! Ownership comes from one place alone: the record of a partition that names this server and its
//! present incarnation, as a look or a transaction of our own has shown it. So an answer that is
//! lost, late or said twice does no harm, and one that is unknown is looked up.

mod beat;
mod event;
mod look;
mod memory;
mod step;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::cluster::partition::{Partition, PartitionMap};
use crate::cluster::record::{ClusterId, Epoch, RunId, ServerName, State};
use crate::registry::Revision;
use crate::time::Timestamp;

pub use event::{Answer, Holds, Input, Lane, Message, Output, Problem, Purpose, Request};
pub use memory::Memory;

/// What a server knows of itself and its cluster when it starts.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its name.
    pub name: ServerName,
    /// What tells it from others of that name.
    pub run: RunId,
    /// Where it serves, without a space.
    pub url: String,
    /// Its version, without a space.
    pub version: String,
    /// The name of the cluster, without a space.
    pub cluster: String,
    /// Epochs are above this one, for a registry that was restored from a backup.
    pub above: Epoch,
    /// The one before the first, where the registry has none yet: so tokens also rise from those
    /// that a server alone has given.
    pub first: Epoch,
    /// What it has known in an earlier run.
    pub memory: Memory,
}

/// The lengths of time in the rules.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// Between two beats.
    pub beat: Duration,
    /// For how long a beat keeps a server alive.
    pub alive: Duration,
    /// For how long an entry must stay as it is before its server is sealed.
    pub stale: Duration,
    /// For how long a home that has taken over only hears what is held.
    pub grace: Duration,
    /// Between two looks at all entries.
    pub look: Duration,
    /// The same while a partition is about to come.
    pub look_soon: Duration,
    /// For how long one is expected.
    pub expect: Duration,
    /// When a request without an answer is given up. The caller is to answer before.
    pub give_up: Duration,
    /// From saying that it leaves, or hearing of a wish, until a server hands over: so the others
    /// look for what comes.
    pub leave: Duration,
}

impl Default for Times {
    fn default() -> Self {
        let millis = Duration::from_millis;
        Self {
            beat: millis(150),
            alive: millis(600),
            stale: millis(700),
            grace: millis(800),
            look: millis(100),
            look_soon: millis(10),
            expect: millis(1_000),
            give_up: millis(350),
            leave: millis(250),
        }
    }
}

/// What a server may do for the keys of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Grant, under numbers that begin with this epoch.
    Granting(Epoch),
    /// Hear from holders what they hold, but grant nothing anew before that time.
    Reclaiming(Epoch, Timestamp),
    /// Nothing for the moment: it is home, but cannot be sure of it, or is about to hand over.
    Suspended,
    /// Nothing: it is not home.
    Elsewhere,
}

/// A server's place in its cluster.
#[derive(Debug)]
pub struct Home {
    settings: Settings,
    times: Times,
    outputs: VecDeque<Output>,
    /// The last revision that was seen.
    newest: Revision,
    /// What is below `state/`, as last seen.
    state: State,
    /// The revision of that, or of what we have changed in it since.
    state_at: Revision,
    /// Whether it was seen at all.
    has_looked: bool,
    /// Who should have what, as it looked then.
    wanted: PartitionMap<Option<ServerName>>,
    /// Since when operators want what they want.
    wished_at: Timestamp,
    /// Whether that may call for another step.
    is_due: bool,
    cluster: Option<ClusterId>,
    /// The last epoch of each partition.
    epochs: PartitionMap<Epoch>,
    membership: Option<Membership>,
    /// Until when this server is alive for sure.
    until: Timestamp,
    owned: PartitionMap<Option<Owned>>,
    /// Since when each entry of a server has been as it is, by our clock.
    seen: BTreeMap<ServerName, Seen>,
    beat: Course,
    look: Course,
    step: Course,
    /// The number of the last look that has shown something.
    looked: u64,
    /// Since when a partition is about to come.
    expecting: Option<Timestamp>,
    leaving: Option<Leaving>,
    /// The beat after which this server has asked for the end of its entry. It may do nothing from
    /// then on, unless a later beat shows that the entry did not end and cannot.
    quitting: Option<Revision>,
    /// How long leases are about to be, where the registry does not say so yet.
    covers: BTreeMap<Partition, Duration>,
    /// Partitions whose holds were read and can be deleted.
    read_holds: Vec<Partition>,
    has_ended: bool,
}

/// What a server is under its present incarnation.
#[derive(Clone, Copy, Debug)]
struct Membership {
    incarnation: Revision,
    /// The last beat.
    last: Revision,
}

/// A partition that this server is home of.
#[derive(Clone, Debug)]
struct Owned {
    epoch: Epoch,
    /// When it may grant.
    start: Timestamp,
    hold: Hold,
}

/// What is done with a partition at present.
#[derive(Clone, Debug)]
enum Hold {
    /// What is held has to be read first.
    Arriving,
    Here,
    /// The caller was asked what is held.
    Stopping,
    /// It is to be handed over, with this.
    Stopped(Holds),
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    created: Revision,
    modified: Revision,
    since: Timestamp,
    /// How often it was seen to change.
    changes: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Leaving {
    /// When the others could know of it.
    told_at: Option<Timestamp>,
}

/// Requests of one kind, one at a time.
#[derive(Clone, Copy, Debug, Default)]
struct Course {
    /// The number of the last request.
    number: u64,
    /// When the request was made that has no answer yet.
    asked_at: Option<Timestamp>,
    /// When the next one is due.
    due_at: Timestamp,
    /// The number of the look that must have shown something before the next one.
    after_look: u64,
}

impl Course {
    /// Whether another request may be made.
    fn is_free(&self, looked: u64) -> bool {
        self.asked_at.is_none() && looked >= self.after_look
    }
}

impl Home {
    /// A server that is about to join.
    #[must_use]
    pub fn new(settings: Settings, times: Times) -> Self {
        let Memory { cluster, epochs } = settings.memory.clone();
        // Whoever says that epochs are above all that were known has mended what was restored.
        let is_mended = epochs.iter().all(|(_, epoch)| *epoch <= settings.above);
        let epochs = if is_mended { PartitionMap::default() } else { epochs };
        Self {
            settings,
            times,
            outputs: VecDeque::new(),
            newest: Revision::NONE,
            state: State::default(),
            has_looked: false,
            wanted: PartitionMap::default(),
            wished_at: Timestamp::ZERO,
            is_due: false,
            cluster,
            epochs,
            membership: None,
            until: Timestamp::ZERO,
            owned: PartitionMap::default(),
            seen: BTreeMap::new(),
            beat: Course::default(),
            look: Course::default(),
            step: Course::default(),
            looked: 0,
            state_at: Revision::NONE,
            expecting: None,
            leaving: None,
            quitting: None,
            covers: BTreeMap::new(),
            read_holds: Vec::new(),
            has_ended: false,
        }
    }

    /// Something happens.
    pub fn handle(&mut self, now: Timestamp, input: Input) {
        if self.has_ended {
            return;
        }
        match input {
            Input::Tick => {}
            Input::Leave => {
                self.leaving.get_or_insert_default();
                // The others are told at once.
                self.beat.due_at = now;
            }
            Input::Cover { partition, length } => self.want_cover(now, partition, length),
            Input::Holds { partition, epoch, holds } => self.keep_holds(partition, epoch, holds),
            Input::Answer { request, sent, answer } => self.hear(now, &request, sent, answer),
        }
        self.advance(now);
    }

    /// What is to be done; nothing if all is done.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call [`handle`](Self::handle) at the latest; none once the server has ended.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        if self.has_ended {
            return None;
        }
        let due = |course: &Course| match course.asked_at {
            Some(asked_at) => Some(asked_at + self.times.give_up),
            None => course.is_free(self.looked).then_some(course.due_at),
        };
        let beat = due(&self.beat).filter(|_| self.membership.is_some());
        let step = self.step.asked_at.map(|at| at + self.times.give_up);
        [beat, due(&self.look), step].into_iter().flatten().min()
    }

    /// What this server may do for the keys of a partition now: to be asked before every grant,
    /// renewal and permit.
    #[must_use]
    pub fn standing(&self, now: Timestamp, partition: Partition) -> Standing {
        match &self.owned[partition] {
            None => Standing::Elsewhere,
            Some(Owned { epoch, start, hold: Hold::Here }) if now < self.alive_until() => {
                if now < *start {
                    Standing::Reclaiming(*epoch, *start)
                } else {
                    Standing::Granting(*epoch)
                }
            }
            Some(_) => Standing::Suspended,
        }
    }

    /// Until when this server is alive for sure: it grants nothing from then on, unless that is put
    /// off.
    #[must_use]
    pub fn alive_until(&self) -> Timestamp {
        if self.quitting.is_some() { Timestamp::ZERO } else { self.until }
    }

    /// The server that is home of a partition and its URL, as far as this one knows.
    #[must_use]
    pub fn home_of(&self, partition: Partition) -> Option<(&ServerName, &str)> {
        self.state.home_of(partition).map(|(name, server)| (name, server.record.url.as_str()))
    }

    /// The servers that are there, with their URLs and versions.
    pub fn servers(&self) -> impl Iterator<Item = (&ServerName, &str, &str)> {
        let servers = self.state.servers.iter();
        servers.map(|(name, it)| (name, it.record.url.as_str(), it.record.version.as_str()))
    }

    /// Whether this server is one of them, as far as it knows.
    #[must_use]
    pub fn is_member(&self) -> bool {
        self.membership.is_some()
    }

    /// The last epoch of a partition.
    #[must_use]
    pub fn epoch(&self, partition: Partition) -> Epoch {
        self.epochs[partition]
    }

    /// What to remember for the next run.
    #[must_use]
    pub fn memory(&self) -> Memory {
        Memory { cluster: self.cluster, epochs: self.epochs.clone() }
    }

    fn hear(&mut self, now: Timestamp, request: &Request, sent: Timestamp, answer: Answer) {
        let course = match request.purpose.lane() {
            Lane::Beat => &mut self.beat,
            Lane::Look => &mut self.look,
            Lane::Step => &mut self.step,
        };
        // The answer to one that was given up says what it says, and nothing of the next one.
        if course.number == request.number {
            course.asked_at = None;
        }
        match answer {
            Answer::Read(Ok(snapshot)) => self.hear_read(now, request, &snapshot),
            // It is read again soon.
            Answer::Read(Err(_)) => {}
            Answer::Transacted(outcome) => {
                self.hear_outcome(now, &request.purpose, sent, &outcome);
            }
        }
    }

    /// Does what is due.
    fn advance(&mut self, now: Timestamp) {
        let given_up = |course: &Course| {
            course.asked_at.is_some_and(|asked_at| asked_at + self.times.give_up <= now)
        };
        let [beat, look, step] = [&self.beat, &self.look, &self.step].map(given_up);
        if look {
            self.look.asked_at = None;
        }
        if beat {
            self.beat.asked_at = None;
            self.look_first(now, Lane::Beat);
        }
        if step {
            self.step.asked_at = None;
            self.look_first(now, Lane::Step);
        }
        if !self.has_ended {
            self.advance_beat(now);
        }
        if !self.has_ended {
            self.advance_step(now);
            self.advance_look(now);
        }
    }

    /// Nothing more is done on that lane before another look, which is made at once.
    fn look_first(&mut self, now: Timestamp, lane: Lane) {
        let next = self.look.number + 1;
        match lane {
            Lane::Beat => self.beat.after_look = next,
            Lane::Step => self.step.after_look = next,
            Lane::Look => {}
        }
        self.look.due_at = self.look.due_at.min(now);
    }

    fn send(&mut self, now: Timestamp, purpose: Purpose, message: Message) {
        let course = match purpose.lane() {
            Lane::Beat => &mut self.beat,
            Lane::Look => &mut self.look,
            Lane::Step => &mut self.step,
        };
        course.number += 1;
        course.asked_at = Some(now);
        let request = Request { number: course.number, purpose, message };
        self.outputs.push_back(Output::Send(request));
    }

    /// All that this server had is not its own any more.
    fn drop_all(&mut self) {
        self.until = Timestamp::ZERO;
        self.membership = None;
        self.quitting = None;
        for partition in Partition::all() {
            self.lose(partition);
        }
    }

    fn lose(&mut self, partition: Partition) {
        let was_here = self.owned[partition].take();
        self.covers.remove(&partition);
        if was_here.is_some_and(|it| matches!(it.hold, Hold::Here | Hold::Stopping)) {
            self.outputs.push_back(Output::Lost { partition });
        }
    }

    fn fail(&mut self, problem: Problem) {
        self.drop_all();
        self.has_ended = true;
        self.outputs.push_back(Output::Failed(problem));
    }
}
