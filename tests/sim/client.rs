//! A client with a clock of its own, what it does with its permits, and what it believes to hold.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use zmqlocker::asking::{LinkId, RequestId};
use zmqlocker::conversation::{Conversation, Input, Outcome};
use zmqlocker::engine::{
    ClientInfo, Cost, Decision, Demand, GrantId, Hold, Key, Reply, Request, Wait,
};
use zmqlocker::spending::{Spending, Spent};
use zmqlocker::time::Timestamp;

use crate::clock::Clock;
use crate::keys::{ACCOUNT, LENT};
use crate::random::Random;
use crate::scenario::Scenario;
use crate::server::ConnectionId;

pub const LINK: LinkId = LinkId(0);
const MILLI: u64 = 1_000_000;

/// What a client asked for.
#[derive(Clone, Debug)]
pub enum Doing {
    Spend { key: &'static str, cost: u64 },
    Lease { key: &'static str },
    Reserve { cost: u64 },
    Commit { cost: u64, spent: u64, run: u64 },
    Release { run: u64 },
    Block { key: &'static str, sent_at: Timestamp },
    GiveBack,
}

/// What a client will do later.
#[derive(Clone, Copy, Debug)]
pub enum Later {
    Act,
    Forget(RequestId),
    Commit {
        grant: GrantId,
        cost: u64,
        run: u64,
    },
    Release {
        grant: GrantId,
    },
    /// The caller takes the answer, or has gone: the key, the cost, and when it was granted.
    Settle {
        id: RequestId,
        run: u64,
        key: &'static str,
        cost: u64,
        granted_at: u64,
    },
    Decline {
        id: RequestId,
    },
}

/// A lease that was not given back yet.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    pub run: u64,
    pub key: &'static str,
    pub grant: GrantId,
}

pub struct Client {
    pub conversation: Conversation,
    pub connection: Option<ConnectionId>,
    pub is_dead: bool,
    pub paused_until: u64,
    /// The requests that are over.
    pub ended: BTreeSet<RequestId>,
    pub asked: BTreeMap<RequestId, (Doing, Option<Timestamp>)>,
    pub held: Vec<Held>,
    pub spendings: BTreeMap<&'static str, Spending<(u64, GrantId)>>,
    /// For which instant it is to be woken, so that it is not asked for twice.
    pub wake_at: Option<u64>,
    clock: Clock,
    scenario: Scenario,
}

impl Client {
    pub fn new(number: usize, scenario: Scenario, skew: i64, random: &mut Random) -> Self {
        let name = [u8::try_from(number).unwrap(); 16];
        Self {
            conversation: Conversation::new(1, name, ClientInfo::default()),
            connection: None,
            is_dead: false,
            paused_until: 0,
            ended: BTreeSet::new(),
            asked: BTreeMap::new(),
            held: Vec::new(),
            spendings: BTreeMap::new(),
            wake_at: None,
            clock: Clock { base: random.range(0, 1 << 40), skew },
            scenario,
        }
    }

    /// What its clock shows.
    pub fn local(&self, true_time: u64) -> Timestamp {
        self.clock.local(true_time)
    }

    /// When its clock shows `local` at the latest.
    pub fn true_time(&self, local: Timestamp) -> u64 {
        self.clock.true_time(local)
    }

    pub fn handle(&mut self, now: u64, input: &Input<'_>) {
        let local = self.local(now);
        self.conversation.handle(local, input);
    }

    pub fn ask(
        &mut self,
        now: u64,
        doing: Doing,
        request: &Request<'_>,
        timeout: Option<u64>,
    ) -> RequestId {
        let local = self.local(now);
        let deadline = timeout.map(|nanos| local + Duration::from_nanos(nanos));
        let only = matches!(request, Request::Release { .. }).then_some(LINK);
        let id = self.conversation.ask(local, Some(request), only, deadline);
        let before = self.asked.insert(id, (doing, deadline));
        assert!(before.is_none(), "{id:?} is used twice");
        id
    }

    /// Asks for whatever it comes to its mind.
    pub fn act(&mut self, now: u64, random: &mut Random, used: &mut dyn FnMut(&'static str, u64)) {
        if self.scenario.leases_only {
            return self.wait_for_lease(now, random);
        }
        let timeout = random.range(50, 2_500) * MILLI;
        let nanos = random.range(1, timeout + 1);
        let wait =
            random.pick(&[Wait::No, Wait::Patience, Wait::UpTo(Duration::from_nanos(nanos))]);
        let timeout = Some(timeout);
        match random.range(0, 10) {
            0..=3 => {
                let key = random.pick(&["log", "slot", "cell", "lent", ACCOUNT]);
                let cost = random.range(1, 3);
                let doing = Doing::Spend { key, cost };
                self.ask(now, doing, &acquire(key, cost, wait, Hold::Spend), timeout);
            }
            4 | 5 => {
                let key = random.pick(&["lock", "pool"]);
                self.ask_lease(now, random, key, wait, timeout);
            }
            6 => {
                let cost = random.range(1, 10);
                let request = acquire(ACCOUNT, cost, wait, Hold::Reserve);
                self.ask(now, Doing::Reserve { cost }, &request, timeout);
            }
            _ => self.spend(now, random, used),
        }
    }

    fn wait_for_lease(&mut self, now: u64, random: &mut Random) {
        let timeout = random.range(1, 20) * 1_000 * MILLI;
        let key = random.pick(&["lock", "pool"]);
        let wait = Wait::UpTo(Duration::from_nanos(timeout));
        self.ask_lease(now, random, key, wait, Some(timeout));
    }

    fn ask_lease(
        &mut self,
        now: u64,
        random: &mut Random,
        key: &'static str,
        wait: Wait,
        timeout: Option<u64>,
    ) {
        let (least, most) = self.scenario.ttl;
        let ttl = Duration::from_nanos(random.range(least, most));
        let request = acquire(key, 1, wait, Hold::lease(ttl).unwrap());
        self.ask(now, Doing::Lease { key }, &request, timeout);
    }

    /// Spends out of blocks, and asks for another one.
    fn spend(&mut self, now: u64, random: &mut Random, used: &mut dyn FnMut(&'static str, u64)) {
        let key = random.pick(&LENT);
        let local = self.local(now);
        for _ in 0..random.range(1, 8) {
            let spending = self.spendings.entry(key).or_default();
            let wanted = match spending.spend(local, 1) {
                Spent::Yes => {
                    used(key, 1);
                    continue;
                }
                Spent::AskAhead(wanted) => {
                    used(key, 1);
                    wanted
                }
                Spent::Empty(wanted) => wanted,
                Spent::Refused(_) => break,
            };
            let is_it = |(doing, _): &(Doing, _)| match doing {
                Doing::Block { key: it, .. } => *it == key,
                _ => false,
            };
            if !self.asked.values().any(is_it) {
                let wanted = Cost::new(wanted.into()).unwrap();
                let request = Request::Block { key: Key::parse(key).unwrap(), wanted };
                let doing = Doing::Block { key, sent_at: local };
                self.ask(now, doing, &request, Some(random.range(50, 1_000) * MILLI));
            }
        }
        for (_, lots) in self
            .spendings
            .iter_mut()
            .map(|(key, spending)| (*key, spending.take_void()))
            .collect::<Vec<_>>()
        {
            for ((_, grant), unused) in lots {
                self.ask(now, Doing::GiveBack, &Request::GiveBack { grant, unused }, None);
            }
        }
    }

    /// Gives a lease back.
    pub fn release(&mut self, now: u64, grant: GrantId) {
        let place = self.held.iter().position(|held| held.grant == grant).unwrap();
        let held = self.held.remove(place);
        let doing = Doing::Release { run: held.run };
        self.ask(now, doing, &Request::Release { grant }, None);
    }

    /// Whether it believes that it holds a lease.
    pub fn holds(&self, now: u64, held: &Held) -> bool {
        self.conversation.lease_valid_until(self.local(now), LINK, held.grant).is_some()
    }

    /// Takes a block in, unless the server that lent it has gone.
    pub fn receive_block(
        &mut self,
        now: u64,
        (key, sent_at): (&'static str, Timestamp),
        run: Option<u64>,
        outcome: &Outcome,
    ) {
        let local = self.local(now);
        let spending = self.spendings.entry(key).or_default();
        match (outcome, run) {
            (Outcome::Reply(_, Reply::Block(block)), Some(run)) => {
                spending.receive(local, sent_at, block, block.grant.map(|grant| (run, grant)));
            }
            _ => spending.give_up_asking_ahead(),
        }
    }
}

pub fn acquire(key: &str, cost: u64, wait: Wait, hold: Hold) -> Request<'_> {
    let cost = Cost::new(cost.into()).unwrap();
    Request::Acquire { demand: Demand::one(Key::parse(key).unwrap(), cost), wait, hold }
}

/// The decision, if a request was allowed.
pub fn allowed(outcome: &Outcome) -> Option<&Decision> {
    match outcome {
        Outcome::Reply(_, Reply::Decision(decision)) => Some(decision).filter(|it| it.allowed),
        _ => None,
    }
}
