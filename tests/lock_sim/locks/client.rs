//! A client that takes locks, and what it believes to hold.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use zmqlocker::asking::{LinkId, RequestId};
use zmqlocker::conversation::{Conversation, Input};
use zmqlocker::engine::{ClientInfo, GrantId, Key, Request};
use zmqlocker::time::Timestamp;
use zmqlocker::wire::Frames;

use crate::any_clock;
use crate::clock::Clock;
use crate::desk::ConnectionId;
use crate::locks::Mistake;
use crate::locks::plan::{ALL, Parts, Plan, SECOND};
use crate::random::Random;

pub const LINK: LinkId = LinkId(0);

/// How much it is behind the time where it takes renewals for good that come too late.
const BEHIND: u64 = 2_000_000_000;

/// What a client asked for.
#[derive(Clone, Debug)]
pub enum Doing {
    /// The locks of the first step of a plan.
    Step(Plan),
    Release,
    Break,
}

/// A lease that was not given back yet.
#[derive(Clone, Debug)]
pub struct Held {
    pub parts: Parts,
    ttl: Duration,
    /// Until when it is good as the conversation has it, and as counted from the receipt.
    seen: Option<Timestamp>,
    counted: Timestamp,
}

pub struct Client {
    pub conversation: Conversation,
    pub clock: Clock,
    pub connection: Option<ConnectionId>,
    pub is_dead: bool,
    pub paused_until: u64,
    pub asked: BTreeMap<RequestId, (Doing, Option<Timestamp>)>,
    /// The requests that are over.
    pub ended: BTreeSet<RequestId>,
    pub held: BTreeMap<GrantId, Held>,
    /// What it has given back, and when.
    pub given_back: BTreeMap<GrantId, u64>,
    /// Whether it does not wait, or not for long, until the server knows of that.
    pub tells: bool,
    /// Who of it has a plan.
    pub busy: Vec<u64>,
    /// For which instant it is to be woken, so that it is not asked for twice.
    pub wake_at: Option<u64>,
    mistake: Option<Mistake>,
}

impl Client {
    pub fn new(number: usize, random: &mut Random, mistake: Option<Mistake>) -> Self {
        let name = [u8::try_from(number).unwrap(); 16];
        Self {
            conversation: Conversation::new(1, name, ClientInfo::default()),
            clock: any_clock(random),
            connection: None,
            is_dead: false,
            paused_until: 0,
            asked: BTreeMap::new(),
            ended: BTreeSet::new(),
            held: BTreeMap::new(),
            given_back: BTreeMap::new(),
            tells: false,
            busy: Vec::new(),
            wake_at: None,
            mistake,
        }
    }

    pub fn local(&self, true_time: u64) -> Timestamp {
        self.clock.local(true_time)
    }

    pub fn handle(&mut self, now: u64, input: &Input<'_>) {
        self.conversation.handle(self.clock.local(now), input);
    }

    pub fn receive(&mut self, now: u64, message: &Frames) {
        let late = self.mistake == Some(Mistake::RenewalAfterExpiry);
        let now = if late { now.saturating_sub(BEHIND) } else { now };
        self.conversation.handle(self.clock.local(now), &Input::Message(LINK, message));
    }

    pub fn ask(&mut self, now: u64, doing: Doing, request: &Request<'_>, timeout: Option<u64>) {
        let local = self.local(now);
        let deadline = timeout.map(|nanos| local + Duration::from_nanos(nanos));
        let only = matches!(request, Request::Release { .. }).then_some(LINK);
        let id = self.conversation.ask(local, Some(request), only, deadline);
        let before = self.asked.insert(id, (doing, deadline));
        assert!(before.is_none(), "{id:?} is used twice");
    }

    /// Asks for the next locks of a plan.
    pub fn go_on(&mut self, now: u64, plan: Plan) {
        let Some(parts) = plan.steps.front() else { return };
        let request = Plan::request(parts, plan.term, plan.actor, plan.wait);
        let timeout = plan.timeout;
        self.ask(now, Doing::Step(plan), &request, timeout);
    }

    /// Begins something, if it has not begun too much already. The number of the request.
    pub fn act(&mut self, now: u64, random: &mut Random, longest: u64) -> Option<RequestId> {
        if random.one_in(25) {
            let mine = self.held.first_key_value().map(|(token, held)| (held.parts[0].0, *token));
            let (key, grant) = match mine.filter(|_| random.one_in(2)) {
                Some((key, token)) => (key, Some(token)),
                None => (random.pick(&ALL), None),
            };
            let request = Request::Break { key: Key::parse(key).unwrap(), grant };
            self.ask(now, Doing::Break, &request, None);
            return None;
        }
        let actor = random.range(0, 4) % 3;
        if self.busy.len() >= 4 || (actor != 0 && self.busy.contains(&actor)) {
            return None;
        }
        self.busy.push(actor);
        self.go_on(now, Plan::draw(random, actor, longest));
        self.asked.last_key_value().map(|(id, _)| *id)
    }

    pub fn take(&mut self, token: GrantId, parts: Parts, ttl: Duration) {
        let held = Held { parts, ttl, seen: None, counted: Timestamp::ZERO };
        self.held.insert(token, held);
    }

    /// A plan is over: whatever it has is given back.
    pub fn end(&mut self, now: u64, plan: &Plan) {
        self.leave(plan);
        for grant in plan.held.iter().rev() {
            self.held.remove(grant);
            self.given_back.insert(*grant, now);
            match (self.tells, grant.0 % 2) {
                (true, 0) => {
                    let local = self.local(now);
                    self.conversation.release(local, LINK, *grant);
                }
                (tells, _) => {
                    let patience = tells.then_some(SECOND);
                    let request = Request::Release { grant: *grant };
                    self.ask(now, Doing::Release, &request, patience);
                }
            }
        }
    }

    /// A plan is over, but what it has is left to end by itself.
    pub fn leave(&mut self, plan: &Plan) {
        let place = self.busy.iter().position(|actor| *actor == plan.actor);
        self.busy.remove(place.expect("a plan ends once"));
    }

    /// A message came: notes what it makes of the leases for one who counts from the receipt.
    pub fn count(&mut self, now: u64) {
        let local = self.local(now);
        for (token, held) in &mut self.held {
            let until = self.conversation.lease_valid_until(local, LINK, *token);
            if until.is_some() && until != held.seen {
                (held.seen, held.counted) = (until, local + held.ttl * 996 / 1000);
            }
        }
    }

    /// What it believes to hold.
    pub fn holds(&self, now: u64) -> impl Iterator<Item = (GrantId, &Parts)> {
        let local = self.local(now);
        let counts = self.mistake == Some(Mistake::TtlFromReceipt);
        self.held.iter().filter_map(move |(token, held)| {
            let until = self.conversation.lease_valid_until(local, LINK, *token);
            let holds = until.is_some() || (counts && local < held.counted);
            holds.then_some((*token, &held.parts))
        })
    }
}
