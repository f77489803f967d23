//! A simulated server: an engine and its peers, on a clock of its own.

use std::collections::BTreeMap;
use std::time::Duration;

use zmqlocker::cluster::peers::{Message, Output, Peers, Run, Times};
use zmqlocker::engine::{
    Bounds, ClientInfo, Cost, Demand, Hold, Input, Key, Left, Limits, Machine, Output as Said,
    Reply, Request, RequestId, Rules, SessionId, Usage, Wait,
};
use zmqlocker::time::Timestamp;
use zmqlocker::wire::peers::{decode, encode};

use crate::Mistake;
use crate::clock::Clock;
use crate::limits::LIMITS;

/// What a server did when it had its turn.
#[derive(Debug, Default)]
pub struct Done {
    /// The keys of which it granted a permit.
    pub granted: Vec<usize>,
    /// How many requests it refused.
    pub refused: u64,
    /// What it tells the others.
    pub messages: Vec<Vec<u8>>,
}

pub struct Server {
    pub clock: Clock,
    /// Which of its lives this is.
    pub life: u64,
    pub paused_until: u64,
    pub wakes_at: Option<u64>,
    running: Option<Running>,
    mistake: Option<Mistake>,
}

struct Running {
    machine: Machine<()>,
    peers: Peers,
    session: SessionId,
    /// What is asked for by each request that is not answered, and when it was asked, by the time
    /// of the world.
    open: BTreeMap<RequestId, (usize, u64)>,
    /// Of each run the last message, and which it was taken for.
    heard: BTreeMap<Run, (u64, u64)>,
    last: u64,
}

impl Server {
    pub fn new(clock: Clock, mistake: Option<Mistake>) -> Self {
        Self { clock, life: 0, paused_until: 0, wakes_at: None, running: None, mistake }
    }

    pub fn is_up(&self) -> bool {
        self.running.is_some()
    }

    pub fn start(&mut self, now: u64, run: u64, others: usize) -> Done {
        let now = self.local(now);
        let rules =
            LIMITS.map(|limit| (limit.key.to_owned(), Limits::parse(&[limit.text]).unwrap()));
        let rules = Rules::new(rules, None).unwrap();
        let mut machine = Machine::new(now, rules, Duration::ZERO, Bounds::default());
        let (session, _) = machine.greet(now, [1; 16], ClientInfo::default()).unwrap();
        let peers = Peers::new(now, Run(run), others, Times::default());
        let (open, heard) = (BTreeMap::new(), BTreeMap::new());
        self.running = Some(Running { machine, peers, session, open, heard, last: 0 });
        self.life += 1;
        self.turn(now, Done::default())
    }

    pub fn crash(&mut self) {
        (self.running, self.wakes_at, self.paused_until) = (None, None, 0);
    }

    /// It ends in order, and says so.
    pub fn leave(&mut self, now: u64) -> Done {
        let now = self.local(now);
        let mut done = Done::default();
        if let Some(running) = &mut self.running {
            running.machine.handle(now, Input::Close);
            running.drain(&mut done);
            done.messages.push(bytes(&running.peers.leave(now, &mut running.machine)));
        }
        self.crash();
        done
    }

    /// Somebody asks for a permit.
    pub fn ask(&mut self, now: u64, key: usize, waits: Duration) -> Done {
        let (at, local) = (now, self.local(now));
        let Some(running) = &mut self.running else { return Done::default() };
        running.last += 1;
        let request_id = RequestId(running.last);
        let demand = Demand::one(Key::parse(LIMITS[key].key).unwrap(), Cost::ONE);
        let wait = if waits.is_zero() { Wait::No } else { Wait::UpTo(waits) };
        let request = Request::Acquire { demand, wait, hold: Hold::Spend };
        running.open.insert(request_id, (key, at));
        running.machine.handle(local, Input::Ask(running.session, request_id, &request));
        let mut done = Done::default();
        running.drain(&mut done);
        self.turn(local, done)
    }

    pub fn hear(&mut self, now: u64, place: usize, message: &[u8]) -> Done {
        let now = self.local(now);
        let mut message = decode(message).unwrap();
        let mut done = Done::default();
        if let Some(running) = &mut self.running {
            running.mistake(now, self.mistake, &mut message, &mut done);
            running.peers.hear(now, place, message);
        }
        self.follow(now, &mut done);
        self.turn(now, done)
    }

    pub fn wake(&mut self, now: u64) -> Done {
        let now = self.local(now);
        let mut done = Done::default();
        if let Some(running) = &mut self.running {
            let floor = running.open.keys().next().copied();
            let floor = floor.unwrap_or(RequestId(running.last + 1));
            running.machine.handle(now, Input::Beat(running.session, floor, &[]));
            running.drain(&mut done);
            running.peers.tick(now);
        }
        self.follow(now, &mut done);
        self.turn(now, done)
    }

    /// Tells the others what there is to tell.
    fn turn(&mut self, now: Timestamp, mut done: Done) -> Done {
        self.follow(now, &mut done);
        let Some(running) = &mut self.running else { return done };
        while let Some(mut message) = running.peers.publish(now, &mut running.machine) {
            if self.mistake == Some(Mistake::GapIgnored) {
                message = running.without_gaps(message);
            }
            done.messages.push(bytes(&message));
        }
        done
    }

    fn follow(&mut self, now: Timestamp, done: &mut Done) {
        let Some(running) = &mut self.running else { return };
        while let Some(output) = running.peers.poll_output() {
            match output {
                Output::Count(_, goes) => {
                    for go in goes {
                        running.machine.count_in(now, &go).unwrap();
                        running.drain(done);
                    }
                }
                Output::TakeOver(_, usages) => {
                    for usage in usages {
                        running.machine.take_over(now, &usage).unwrap();
                        running.drain(done);
                    }
                }
                Output::Standing(mut standing) => {
                    if self.mistake == Some(Mistake::NoShare) {
                        standing.in_touch = standing.servers;
                    }
                    if self.mistake == Some(Mistake::NoWord) {
                        standing.is_told = false;
                    }
                    if self.mistake == Some(Mistake::NoJoin) {
                        standing.joins_until = Timestamp::ZERO;
                    }
                    running.machine.set_peering(now, standing);
                }
                Output::Known(number) => running.machine.is_known(now, number),
                Output::Touch(..) => {}
                Output::Double(place) => panic!("{place} is no double"),
            }
            running.drain(done);
        }
    }

    /// When it has something to do, by the time of the world.
    pub fn due(&self, now: u64) -> Option<u64> {
        let running = self.running.as_ref()?;
        let peers = running.peers.poll_timeout(&running.machine);
        let due = running.machine.poll_timeout().map_or(peers, |at| at.min(peers));
        Some(self.clock.true_time(due).max(now + 1))
    }

    /// How many permits it has counted of a sliding window.
    pub fn counted(&self, now: u64, key: usize) -> u64 {
        let Some(running) = &self.running else { return 0 };
        let (usages, _) = running.machine.usage(self.local(now), 0);
        let of_key = |usage: &&Usage| *usage.key == *LIMITS[key].key;
        match usages.iter().find(of_key).and_then(|usage| usage.limits[0].1.as_ref()) {
            Some(Left::Log(entries)) => entries.iter().map(|(_, permits)| permits).sum(),
            _ => 0,
        }
    }

    /// How much time is left of the slot of a fixed window, if one is open.
    pub fn slot_left(&self, now: u64, key: usize) -> Option<Duration> {
        let (usages, _) = self.running.as_ref()?.machine.usage(self.local(now), 0);
        let usage = usages.iter().find(|usage| *usage.key == *LIMITS[key].key)?;
        match usage.limits[0].1 {
            Some(Left::Slot(left, _)) => Some(left),
            _ => None,
        }
    }

    pub fn is_in_touch_with_all(&self) -> bool {
        let standing = self.running.as_ref().map(|running| running.peers.standing());
        standing.is_some_and(|standing| standing.in_touch == standing.servers)
    }

    /// The oldest request that was not answered: when it was asked.
    pub fn oldest(&self) -> Option<u64> {
        self.running.as_ref()?.open.values().map(|(_, at)| *at).min()
    }

    fn local(&self, now: u64) -> Timestamp {
        self.clock.local(now)
    }
}

impl Running {
    /// What a server with a mistake makes of a message.
    fn mistake(
        &mut self,
        now: Timestamp,
        mistake: Option<Mistake>,
        message: &mut Message,
        done: &mut Done,
    ) {
        let (heard, taken) = self.heard.entry(message.run).or_default();
        match mistake {
            Some(Mistake::DoubleCounts) if message.number <= *heard => {
                for go in &message.goes {
                    self.machine.count_in(now, go).unwrap();
                }
            }
            Some(Mistake::GapIgnored) if message.number > *heard => {
                *taken += if *heard == 0 { message.number } else { 1 };
                (*heard, message.number) = (message.number, *taken);
                return;
            }
            Some(Mistake::GapIgnored) => message.number = 0,
            Some(Mistake::AgeIgnored) => {
                let ages = message.goes.iter_mut().flat_map(|go| &mut go.ages);
                ages.for_each(|age| *age = Duration::ZERO);
            }
            Some(Mistake::NothingTakenOver) => {
                message.usage.iter_mut().for_each(|part| part.keys.clear());
            }
            _ => {}
        }
        *heard = message.number.max(*heard);
        self.drain(done);
    }

    /// What a server tells that takes no notice of gaps.
    fn without_gaps(&self, mut message: Message) -> Message {
        for (run, number) in &mut message.heard {
            *number = self.heard.get(run).map_or(*number, |(heard, _)| *heard);
        }
        message
    }

    fn drain(&mut self, done: &mut Done) {
        while let Some(output) = self.machine.poll_output() {
            let Said::Reply { request, reply, .. } = output else { continue };
            if matches!(reply, Reply::Queued { .. }) {
                continue;
            }
            let Some((key, _)) = self.open.remove(&request) else { continue };
            match reply {
                Reply::Decision(decision) if decision.allowed => done.granted.push(key),
                // Who was paused for long has lost its place.
                _ => done.refused += 1,
            }
        }
    }
}

fn bytes(message: &Message) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&mut out, message);
    out
}
