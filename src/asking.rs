//! SANS-IO: which server a client asks, when it asks another one, and whose answer counts.
//!
//! A client has a link to each of its servers. A request goes to one link that is up, in turn. When
//! that link goes down the answer is lost, so the request goes to another one, or waits for a link.
//! Where a server stays silent for [`ANSWER_EXPECTED`] although it is up, another one is asked too,
//! and the silent one is left alone until it answers. The first answer counts; what comes later, or
//! for a request that nobody waits for any more, is dropped: every request has a number of its own.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

pub use crate::engine::RequestId;
use crate::time::Timestamp;

/// How long a server may be silent before another one is asked.
pub const ANSWER_EXPECTED: Duration = Duration::from_secs(1);

/// The place of a server in the client's list; below 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkId(pub usize);

/// What happens to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// A link is connected.
    Up(LinkId),
    /// A link is not connected any more; what it still owed is lost.
    Down(LinkId),
    /// A server said that a request waits: its answer may take its time.
    Queued(RequestId),
    /// Nothing but the time.
    Tick,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a request to a server.
    Send(LinkId, RequestId),
}

/// The requests of one client that are under way.
#[derive(Debug)]
pub struct Asking {
    links: usize,
    /// Whether there is anybody else to ask where a server is silent, or may be.
    has_others: bool,
    up: LinkSet,
    silent: LinkSet,
    /// Those that are asked only if they are named.
    resting: LinkSet,
    /// Where the search for a link starts: one behind the link that was asked last.
    turn: usize,
    next_id: u64,
    pending: BTreeMap<RequestId, Pending>,
    /// By when an answer is expected to each request that was sent, unless it waits at its server.
    expectations: BTreeSet<(Timestamp, RequestId)>,
    outputs: VecDeque<Output>,
}

#[derive(Debug)]
struct Pending {
    /// The links that may still answer.
    asked: LinkSet,
    /// When to ask one more; none while it was not sent, or waits at its server.
    answer_expected: Option<Timestamp>,
    /// The only link that may be asked, if there is such a one.
    only: Option<LinkId>,
    /// The link that is asked first, if it is up.
    prefers: Option<LinkId>,
}

impl Asking {
    /// A client of `links` servers, at most 64, none of which is connected yet.
    #[must_use]
    pub fn new(links: usize) -> Self {
        debug_assert!(links <= 64, "a set of links is a word of 64 bits");
        Self {
            links,
            has_others: links > 1,
            up: LinkSet::default(),
            silent: LinkSet::default(),
            resting: LinkSet::default(),
            turn: 0,
            next_id: 0,
            pending: BTreeMap::new(),
            expectations: BTreeSet::new(),
            outputs: VecDeque::new(),
        }
    }

    /// Starts a request: to `only` one link if it is about what that server has, to any otherwise.
    pub fn ask(&mut self, now: Timestamp, only: Option<LinkId>) -> RequestId {
        self.ask_together(now, only, 1)
    }

    /// The client has one link more, which is not connected yet.
    pub fn add_link(&mut self) {
        debug_assert!(self.links < 64, "a set of links is a word of 64 bits");
        self.links += 1;
        self.expect_others();
    }

    /// There may be more links: from now on it counts how long answers take.
    pub const fn expect_others(&mut self) {
        self.has_others = true;
    }

    /// Whether a link is asked only if it is named.
    pub fn rest(&mut self, link: LinkId, rests: bool) {
        if rests {
            self.resting.insert(link);
        } else {
            self.resting.remove(link);
        }
    }

    /// Starts a request that any link may answer, but that this one is asked first.
    pub fn ask_first(&mut self, now: Timestamp, prefers: Option<LinkId>) -> RequestId {
        self.next_id += 1;
        let request = RequestId(self.next_id);
        let asked = LinkSet::default();
        self.pending.insert(request, Pending { asked, answer_expected: None, only: None, prefers });
        self.send(now, request);
        request
    }

    /// A link cannot answer a request. Nobody else is asked for now.
    pub fn turn_away(&mut self, from: LinkId, request: RequestId) {
        self.silent.remove(from);
        self.expect(request, None);
        if let Some(pending) = self.pending.get_mut(&request) {
            pending.asked.remove(from);
        }
    }

    /// Asks a request again: this link, if it is up and does not owe the answer already; another
    /// one otherwise, even if one alone was to be asked before.
    pub fn send_to(&mut self, now: Timestamp, request: RequestId, prefers: Option<LinkId>) {
        if let Some(pending) = self.pending.get_mut(&request) {
            (pending.only, pending.prefers) = (None, prefers);
            self.send(now, request);
        }
    }

    /// Starts so many requests that go to the same link together. They have numbers in a row, and
    /// are known by the first.
    pub fn ask_together(&mut self, now: Timestamp, only: Option<LinkId>, count: u64) -> RequestId {
        let request = RequestId(self.next_id + 1);
        self.next_id += count;
        let asked = LinkSet::default();
        let pending = Pending { asked, answer_expected: None, only, prefers: None };
        self.pending.insert(request, pending);
        self.send(now, request);
        request
    }

    /// Whoever asked does not wait any more.
    pub fn forget(&mut self, request: RequestId) {
        self.end(request);
        self.outputs.retain(|Output::Send(_, it)| *it != request);
    }

    /// A server answered a request. Whether its answer is the first, and counts.
    pub fn answered(&mut self, from: LinkId, request: RequestId) -> bool {
        if request.0 <= self.next_id {
            self.silent.remove(from);
        }
        self.end(request)
    }

    /// Whether the request was under way.
    fn end(&mut self, request: RequestId) -> bool {
        self.expect(request, None);
        self.pending.remove(&request).is_some()
    }

    /// From now on an answer to the request is expected then.
    fn expect(&mut self, request: RequestId, at: Option<Timestamp>) {
        if !self.has_others {
            return;
        }
        let Some(pending) = self.pending.get_mut(&request) else { return };
        if let Some(before) = std::mem::replace(&mut pending.answer_expected, at) {
            self.expectations.remove(&(before, request));
        }
        self.expectations.extend(at.map(|at| (at, request)));
    }

    /// A number for a request that is kept track of elsewhere.
    pub fn take_number(&mut self) -> RequestId {
        self.next_id += 1;
        RequestId(self.next_id)
    }

    /// The number that the next request gets.
    #[must_use]
    pub const fn next_number(&self) -> RequestId {
        RequestId(self.next_id + 1)
    }

    /// The only link that may be asked this, if there is such a one.
    #[must_use]
    pub fn only(&self, request: RequestId) -> Option<LinkId> {
        self.pending.get(&request)?.only
    }

    /// Whether a link was asked this, and may still answer.
    #[must_use]
    pub fn is_asked(&self, link: LinkId, request: RequestId) -> bool {
        self.pending.get(&request).is_some_and(|pending| pending.asked.contains(link))
    }

    /// Whether a server owes an answer for longer than is expected.
    #[must_use]
    pub const fn is_silent(&self, link: LinkId) -> bool {
        self.silent.contains(link)
    }

    /// Takes in what happened at `now`.
    pub fn handle(&mut self, now: Timestamp, input: Input) {
        match input {
            Input::Up(link) => {
                self.up.insert(link);
                self.silent.remove(link);
                self.send_unsent(now);
            }
            Input::Down(link) => {
                self.up.remove(link);
                for pending in self.pending.values_mut() {
                    pending.asked.remove(link);
                }
                self.outputs.retain(|output| {
                    let Output::Send(to, _) = output;
                    *to != link
                });
                self.send_unsent(now);
            }
            Input::Queued(request) => {
                self.expect(request, None);
            }
            Input::Tick => self.ask_others(now),
        }
    }

    /// The next thing to do, if there is one.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to come back with an [`Input::Tick`], if nothing happens before.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.expectations.first().map(|(due, _)| *due)
    }

    /// Whether no request is under way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }

    fn send_unsent(&mut self, now: Timestamp) {
        let unsent = |(request, pending): (&RequestId, &Pending)| {
            // Whoever is silent is not waited for, unless it has said that it takes its time.
            let is_owed = pending.asked.is_within(self.silent) && pending.answer_expected.is_some();
            (pending.asked.is_empty() || is_owed).then_some(*request)
        };
        for request in self.pending.iter().filter_map(unsent).collect::<Vec<_>>() {
            self.expect(request, None);
            self.send(now, request);
        }
    }

    fn ask_others(&mut self, now: Timestamp) {
        let due = self.expectations.iter().take_while(|(at, _)| *at <= now);
        let mut overdue: Vec<_> = due.map(|(_, request)| *request).collect();
        // In the order in which they were asked.
        overdue.sort_unstable();
        for request in overdue {
            let asked = self.pending.get(&request).map_or_else(LinkSet::default, |it| it.asked);
            self.silent = self.silent.union(asked);
            self.send(now, request);
        }
    }

    /// Sends a request to a link that was not asked yet, if there is one.
    fn send(&mut self, now: Timestamp, request: RequestId) {
        let Some(pending) = self.pending.get(&request) else { return };
        let (asked, only, prefers) = (pending.asked, pending.only, pending.prefers);
        let usable = |link: &LinkId| self.up.contains(*link) && !asked.contains(*link);
        let any = || prefers.filter(usable).or_else(|| self.choose(asked));
        let link = only.map_or_else(any, |only| Some(only).filter(usable));
        if link.is_some() || !asked.is_empty() {
            self.expect(request, Some(now + ANSWER_EXPECTED));
        }
        let Some(pending) = self.pending.get_mut(&request) else { return };
        if let Some(link) = link {
            pending.asked.insert(link);
            self.turn = link.0 + 1;
            self.outputs.push_back(Output::Send(link, request));
        }
    }

    /// The next link in turn that is up and not in `asked`; a silent one only if there is no other.
    fn choose(&self, asked: LinkSet) -> Option<LinkId> {
        let candidates = || {
            (self.turn..self.turn + self.links)
                .map(|place| LinkId(place % self.links))
                .filter(|link| self.up.contains(*link) && !asked.contains(*link))
        };
        let rested = |link: &LinkId| !self.resting.contains(*link);
        let spoke = |link: &LinkId| !self.silent.contains(*link);
        let best = candidates().find(|link| rested(link) && spoke(link));
        best.or_else(|| candidates().find(spoke)).or_else(|| candidates().next())
    }
}

/// A set of links: bit n is link n.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct LinkSet(u64);

impl LinkSet {
    const fn insert(&mut self, link: LinkId) {
        self.0 |= 1 << link.0;
    }

    const fn remove(&mut self, link: LinkId) {
        self.0 &= !(1 << link.0);
    }

    const fn contains(self, link: LinkId) -> bool {
        self.0 & (1 << link.0) != 0
    }

    const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    const fn is_within(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    const fn is_empty(self) -> bool {
        self.0 == 0
    }
}
