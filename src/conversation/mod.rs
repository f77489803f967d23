//! SANS-IO: what a client says to its servers and hears from them, over all its links.
//!
//! The seed's requests and those of our protocol share the numbers and the links of one
//! [`Asking`]. What is said in our protocol on one occasion goes out as one message per link. While
//! requests wait at a server, or leases are held there, beats tell it that the client lives; their
//! answers tell the client for how long its leases are safe, counted from when the beat was sent.

mod closing;
mod denial;
mod done;
mod ending;
mod hearing;
mod homes;
mod leases;
mod looks;
mod parted;
mod question;
mod releases;
mod saying;
mod stats;
mod talk;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::mem;
use std::time::Duration;

use crate::asking::{self, Asking, LinkId, RequestId};
use crate::conversation::homes::{Homes, partition_of};
use crate::conversation::parted::{InParts, Parted};
use crate::conversation::question::{Held, Question, Together};
pub use crate::conversation::stats::ClientStats;
use crate::conversation::talk::Talk;
use crate::engine::{ClientInfo, GrantId, Reply, Request, SessionName, WAITER_SILENCE_MAX, Wait};
use crate::time::Timestamp;
use crate::wire::Frames;
use crate::wire::request::{encode_bye, encode_reclaim, encode_request};
use crate::wire::seed::BYTES_MAX;

/// How often a client that waits for something at a server says that it lives.
const BEAT_INTERVAL: Duration = WAITER_SILENCE_MAX.checked_div(4).unwrap();

/// After so many requests the server is told which answers it may forget.
const FLOOR_INTERVAL: u32 = 64;

/// How long it is tried to tell a server what nobody waits for.
pub const TELL_TIMEOUT: Duration = Duration::from_secs(10);

/// How many requests are asked together at most.
const TOGETHER_MAX: usize = 256;

/// When requests that are asked together have so many bytes, no more are added.
pub const TOGETHER_BYTES_MAX: usize = 16 * 1024;

/// A message is sent when it has so many bytes, that another item fits for certain.
const FULL: usize = BYTES_MAX - TOGETHER_BYTES_MAX - 8192;

/// What a client is told by the world.
#[derive(Debug)]
pub enum Input<'a> {
    /// A link is connected.
    Up(LinkId),
    /// A link is not connected any more.
    Down(LinkId),
    /// A server does not let us in, or is not the one that it should be.
    Denied(LinkId),
    /// A message came.
    Message(LinkId, &'a Frames),
    /// Nothing but the time.
    Tick,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a message to a server.
    Send(LinkId, Frames),
    /// Open one link more, to the server at this URL.
    Open(LinkId, Box<str>),
    /// A request is over. What a server answered is kept open until it is settled or declined.
    Finish(RequestId, Outcome),
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A server of the seed's protocol answered this.
    Seed(LinkId, Vec<u8>),
    /// A server answered.
    Reply(LinkId, Reply),
    /// A server answered all that was asked together, in its order.
    Replies(LinkId, Vec<Reply>),
    /// The time of the caller ran out while the request waited at a server.
    Late,
    /// The time of the caller ran out, and no server had said anything about the request.
    Silence,
    /// None of the servers that may be asked lets us in; this one was the last to say so.
    Denied(LinkId),
}

/// A request, or several that were asked together, of which nobody has said yet that the answer was
/// taken.
#[derive(Debug)]
struct Answered {
    by: LinkId,
    count: u64,
    grant: Option<GrantId>,
}

/// Everything that is under way between a client and its servers.
#[derive(Debug)]
pub struct Conversation {
    session: SessionName,
    me: ClientInfo,
    asking: Asking,
    talks: Vec<Talk>,
    questions: BTreeMap<RequestId, Question>,
    /// How many of them are errands.
    errands: usize,
    deadlines: BTreeSet<(Timestamp, RequestId)>,
    /// What was answered and may still be declined.
    unsettled: BTreeMap<RequestId, Answered>,
    last_beat: u64,
    /// Whether a server was heard since a request was given up.
    available: bool,
    /// Whether a lease was lost since that was last asked.
    lost: bool,
    /// What was done so far, as far as that is counted and not seen.
    counts: ClientStats,
    /// The links whose servers did not let us in when they were connected last.
    denied: BTreeSet<usize>,
    /// Who is home of which keys, where servers share them.
    homes: Homes,
    /// What is asked, and was granted, partition by partition.
    in_parts: InParts,
    outputs: VecDeque<Output>,
}

impl Conversation {
    /// A client of `links` servers that has said nothing yet. `session` is drawn at random.
    #[must_use]
    pub fn new(links: usize, session: SessionName, me: ClientInfo) -> Self {
        Self {
            session,
            me,
            asking: Asking::new(links),
            talks: (0..links).map(|_| Talk::default()).collect(),
            questions: BTreeMap::new(),
            errands: 0,
            deadlines: BTreeSet::new(),
            unsettled: BTreeMap::new(),
            last_beat: 0,
            available: true,
            lost: false,
            counts: ClientStats::default(),
            denied: BTreeSet::new(),
            homes: Homes::default(),
            in_parts: InParts::default(),
            outputs: VecDeque::new(),
        }
    }

    /// Starts a request: the seed's, or one of our protocol, to one link only if that is named.
    pub fn ask(
        &mut self,
        now: Timestamp,
        request: Option<&Request<'_>>,
        only: Option<LinkId>,
        deadline: Option<Timestamp>,
    ) -> RequestId {
        let Some(free) = request.filter(|_| only.is_none()) else {
            return self.ask_whole(now, request, only, deadline);
        };
        if let Some(id) = self.look(now, free, deadline) {
            return id;
        }
        let parted = Parted::new(now, free, deadline);
        match parted {
            Some(parted) if self.knows_homes() => self.ask_in_parts(now, parted),
            parted => {
                let id = self.ask_whole(now, request, None, deadline);
                if let Some(question) = self.questions.get_mut(&id) {
                    question.parted = parted.map(Box::new);
                }
                id
            }
        }
    }

    /// The same for what is of one server, or not known to be of several.
    fn ask_whole(
        &mut self,
        now: Timestamp,
        request: Option<&Request<'_>>,
        only: Option<LinkId>,
        deadline: Option<Timestamp>,
    ) -> RequestId {
        let settled = request.and_then(|request| self.settle_parts(now, request));
        let request = settled.as_ref().or(request);
        let only = only.map(|link| match request {
            Some(Request::Release { grant } | Request::Commit { grant, .. }) => {
                self.place_of(link, *grant)
            }
            _ => link,
        });
        let (releases, only) = self.begin_release(request, only);
        let release = releases.as_ref().map(|(_, owed)| self.release_of(owed));
        let request = release.as_ref().or(request);
        let owed = releases.and_then(|(_, (.., partition))| partition);
        let of_keys = || request.filter(|_| only.is_none()).and_then(partition_of);
        let partition = owed.or_else(of_keys);
        let id = if only.is_some() {
            self.asking.ask(now, only)
        } else {
            let preferred = self.preferred(partition);
            self.asking.ask_first(now, preferred)
        };
        let wait = match request {
            Some(
                Request::Acquire { wait: Wait::UpTo(length), .. }
                | Request::Lock { wait: Wait::UpTo(length), .. },
            ) => Some(*length),
            _ => None,
        };
        let item = request.map(|request| {
            let mut item = Vec::with_capacity(48);
            encode_request(&mut item, id, request);
            item
        });
        let lease = request.and_then(Held::of);
        let is_errand = matches!(
            request,
            Some(
                Request::Release { .. }
                    | Request::ReleaseIn { .. }
                    | Request::Commit { .. }
                    | Request::GiveBack { .. }
            )
        );
        let question = Question {
            lease,
            partition,
            releases,
            is_errand,
            wait,
            deadline,
            ..Question::new(item)
        };
        self.begin(now, id, question);
        id
    }

    /// Asks a new run of a server to let us hold on what the run before has granted.
    fn reclaim(&mut self, now: Timestamp, link: LinkId, grant: GrantId) {
        let Some(lease) = self.talks[link.0].leases.get(grant) else { return };
        if lease.valid_until <= now {
            return self.give_up_lease(link, grant);
        }
        let wanted = lease.wanted.clone();
        let is_same = |question: &Question| question.reclaims == Some((link, grant));
        if self.questions.values().any(is_same) {
            return;
        }
        let partition = lease.partition;
        let id = self.asking.next_number();
        let mut item = Vec::new();
        encode_reclaim(&mut item, id, grant, &wanted);
        let deadline = Some(lease.valid_until);
        let reclaims = Some((link, grant));
        let question = Question {
            reclaims,
            partition,
            is_errand: true,
            deadline,
            ..Question::new(Some(item))
        };
        match self.preferred(partition) {
            None if partition.is_none() || !self.knows_homes() => self.asking.ask(now, Some(link)),
            home => self.asking.ask_first(now, home),
        };
        self.begin(now, id, question);
    }

    /// Starts several requests that wait for nothing, and that together are no longer than
    /// [`TOGETHER_BYTES_MAX`]: how many of `requests` there are under the number that is given.
    pub fn ask_together(
        &mut self,
        now: Timestamp,
        requests: &[Request<'_>],
        deadline: Option<Timestamp>,
    ) -> (RequestId, usize) {
        let first = self.asking.next_number();
        let mut item = Vec::new();
        let mut count = 0;
        for request in requests.iter().take(TOGETHER_MAX) {
            encode_request(&mut item, RequestId(first.0 + count), request);
            count += 1;
            if item.len() > TOGETHER_BYTES_MAX {
                break;
            }
        }
        let asked = usize::try_from(count).unwrap_or(usize::MAX);
        let id = self.asking.ask_together(now, None, count);
        let together = Some(Together::new(asked));
        let question = Question { deadline, together, ..Question::new(Some(item)) };
        self.begin(now, id, question);
        (id, asked)
    }

    fn begin(&mut self, now: Timestamp, id: RequestId, mut question: Question) {
        question.asked_at = now;
        self.counts.requests += question.count();
        self.deadlines.extend(question.deadline.map(|deadline| (deadline, id)));
        self.errands += usize::from(question.is_errand);
        self.questions.insert(id, question);
        self.perform(now);
    }

    /// Nobody waits for the answer any more: what was granted with it is given back.
    pub fn forget(&mut self, now: Timestamp, request: RequestId) {
        if !self.forget_parts(now, request) && self.end(request, None).is_some() {
            self.asking.forget(request);
            self.perform(now);
        }
    }

    /// Tells a server that nobody wants its answer, again on each connection until it was heard:
    /// what it granted would be kept by our beats.
    fn cancel(&mut self, link: LinkId, request: RequestId) {
        self.talks[link.0].cancel(request, self.last_beat);
        self.flush_full(link);
    }

    /// Takes in what happened at `now`.
    pub fn handle(&mut self, now: Timestamp, input: &Input<'_>) {
        match *input {
            Input::Denied(link) => self.deny(now, link),
            Input::Up(link) => {
                self.denied.remove(&link.0);
                self.talks[link.0].connect();
                self.greet(now, link);
                self.asking.handle(now, asking::Input::Up(link));
                let talk = &self.talks[link.0];
                let owes = !talk.cancels.is_empty() || !talk.releases.is_empty();
                if !talk.leases.is_empty() || owes || !self.available {
                    self.beat(now, link);
                }
            }
            Input::Down(link) => {
                self.talks[link.0].disconnect();
                self.talks[link.0].down_since = now;
                self.requeue(link);
                self.asking.handle(now, asking::Input::Down(link));
                self.follow_all(now, link);
            }
            Input::Message(link, message) => self.hear(now, link, message),
            Input::Tick => {
                self.give_up(now);
                self.retry(now);
                if self.asking.poll_timeout().is_some_and(|due| due <= now) {
                    self.asking.handle(now, asking::Input::Tick);
                }
                for place in 0..self.talks.len() {
                    self.talks[place].drop_over(now);
                    if self.talks[place].next_beat.is_some_and(|due| due <= now) {
                        self.beat(now, LinkId(place));
                    }
                }
            }
        }
        self.perform(now);
    }

    /// The next thing to do, if there is one: first all that has happened, then what is to be sent.
    pub fn poll_output(&mut self) -> Option<Output> {
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        let place = self.talks.iter().position(|talk| !talk.body.is_empty())?;
        Some(Output::Send(LinkId(place), self.talks[place].take_message()))
    }

    /// When to come back with an [`Input::Tick`], if nothing happens before.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let beats = self.talks.iter().filter_map(|talk| talk.next_beat);
        let deadline = self.deadlines.first().map(|(deadline, _)| *deadline);
        let over = self.talks.iter().filter_map(Talk::over_at);
        let homes = self.homes_due();
        beats.chain(deadline).chain(over).chain(homes).chain(self.asking.poll_timeout()).min()
    }

    /// When the next beat is due: whoever drives this has to come back by then.
    #[must_use]
    pub fn next_beat(&self) -> Option<Timestamp> {
        self.talks.iter().filter_map(|talk| talk.next_beat).min()
    }

    /// Whether a server is to hear of something that nobody may wait for: whoever drives this has
    /// to come back until it has.
    #[must_use]
    pub fn has_errands(&self) -> bool {
        let owes =
            |talk: &Talk| !talk.releases.is_empty() || (!talk.is_up && !talk.cancels.is_empty());
        self.errands > 0 || self.talks.iter().any(owes)
    }

    /// Whether a server has still to answer a beat, or to let us hold on what an earlier run of it
    /// has granted.
    #[must_use]
    pub fn is_keeping_unanswered(&self) -> bool {
        let reclaims = |question: &Question| question.reclaims.is_some();
        self.talks.iter().any(|talk| !talk.beats.is_empty())
            || self.questions.values().any(reclaims)
    }

    /// Whether a server was heard since a request was last given up because of silence.
    #[must_use]
    pub const fn is_available(&self) -> bool {
        self.available
    }

    /// Whether no request is under way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.questions.is_empty()
    }

    /// Until when a lease is safe; `None` if it is lost.
    #[must_use]
    pub fn lease_valid_until(
        &self,
        now: Timestamp,
        link: LinkId,
        grant: GrantId,
    ) -> Option<Timestamp> {
        let parts = self.parts_of(grant).map(|(link, grant, _)| self.valid_until(now, link, grant));
        parts.fold(self.valid_until(now, link, grant), Option::min)
    }

    /// The same for one that was granted as a whole, or for a part.
    fn valid_until(&self, now: Timestamp, link: LinkId, grant: GrantId) -> Option<Timestamp> {
        let talk = self.talks.get(self.place_of(link, grant).0)?;
        let valid_until = talk.leases.get(grant)?.valid_until(talk.heard_at);
        (now < valid_until).then_some(valid_until)
    }

    /// Whether a lease was lost since this was last asked, other than by the time.
    pub fn take_lost(&mut self) -> bool {
        mem::take(&mut self.lost)
    }

    /// Says good-bye to all servers: what was not given back comes back now.
    pub fn close(&mut self) {
        for talk in &mut self.talks {
            if talk.is_up && talk.hello_said {
                encode_bye(&mut talk.body);
            }
            talk.leases.clear();
            talk.releases.clear();
        }
    }
}
