//! Servers, their registry and their clients, and what happens between them.

mod check;
mod wish;

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use zmqlocker::cluster::{Answer, Input, Message, Partition, Request, Standing};
use zmqlocker::engine::Key;
use zmqlocker::registry::{Outcome, Trouble};
use zmqlocker::time::Timestamp;

use crate::Mistake;
use crate::client::Client;
use crate::clock::Clock;
use crate::law::{Law, Laws, Violation};
use crate::locks::{KEYS, LIMIT, LOCKS, TTL_MAX, name};
use crate::random::Random;
use crate::registry::Registry;
use crate::server::{Asked, Said, Server};

pub const MILLI: u64 = 1_000_000;
pub const SECOND: u64 = 1_000 * MILLI;

const SERVERS: usize = 4;
const CLIENTS: usize = 4;

/// When a server takes a request to the registry for lost.
const PATIENCE: u64 = 300 * MILLI;

#[derive(Clone, Debug)]
enum Event {
    /// A server, in this life, has something to do at that time.
    Wake(usize, u64, u64),
    ToRegistry(usize, u64, Timestamp, Request),
    FromRegistry(usize, u64, Timestamp, Request, Answer),
    ToServer(usize, Letter),
    ToClient(Letter, Said),
    /// A client does something with a key.
    Act(usize, usize),
    Disturb,
    Leave(usize, u64),
    Crash(usize, u64),
    Start(usize),
    /// An operator wants something else.
    Wish,
}

/// What a client asks, and when, by its own clock.
#[derive(Clone, Copy, Debug)]
struct Letter {
    number: u64,
    client: usize,
    key: usize,
    sent: u64,
    asked: Asked,
}

pub struct World {
    pub now: u64,
    pub calm_from: u64,
    pub laws: Laws,
    random: Random,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    events: std::collections::HashMap<u64, Event>,
    count: u64,
    registry: Registry,
    /// Nobody reaches it before that time.
    away_until: u64,
    /// All messages of it take so much longer, before that time.
    slow: (u64, u64),
    servers: Vec<Server>,
    /// Until when what each server asks of the registry is lost, and what it is answered.
    mute_until: [u64; SERVERS],
    deaf_until: [u64; SERVERS],
    clients: Vec<Client>,
    partitions: Vec<Partition>,
    /// Letters without an answer.
    open: BTreeSet<u64>,
    windows: u64,
    runs: u64,
    /// When each lock was granted last.
    granted_at: [u64; LOCKS],
    mistake: Option<Mistake>,
    /// What operators want is drawn from it, in every other world.
    wishes: Option<Random>,
}

/// A clock that has an origin of its own, and is a little too fast or too slow.
fn any_clock(random: &mut Random) -> Clock {
    Clock { base: random.range(0, 1 << 40), skew: random.pick(&[-2, -1, 0, 1, 2]) }
}

impl World {
    pub fn new(seed: u64, mistake: Option<Mistake>) -> Self {
        let mut random = Random(seed);
        let servers =
            (0..SERVERS).map(|number| Server::new(number, any_clock(&mut random), mistake));
        let servers = servers.collect();
        let clients = (0..CLIENTS).map(|_| Client::new(any_clock(&mut random), mistake)).collect();
        let mut world = Self {
            now: 0,
            calm_from: random.range(5, 12) * SECOND,
            laws: Laws::default(),
            queue: BinaryHeap::new(),
            events: std::collections::HashMap::new(),
            count: 0,
            registry: Registry::default(),
            away_until: 0,
            slow: (0, 0),
            servers,
            mute_until: [0; SERVERS],
            deaf_until: [0; SERVERS],
            clients,
            partitions: (0..KEYS)
                .map(|key| Partition::of(Key::parse(&name(key)).unwrap()))
                .collect(),
            open: BTreeSet::new(),
            windows: 0,
            runs: 2_000,
            granted_at: [0; LOCKS],
            mistake,
            wishes: (seed % 2 == 1).then_some(Random(!seed)),
            random,
        };
        for server in 0..SERVERS {
            let at = world.random.range(0, 200 * MILLI);
            world.servers[server].wakes_at = Some(at);
            world.at(at, Event::Wake(server, 0, at));
            // Some come later.
            if world.random.one_in(3) {
                world.servers[server].crash();
                let at = world.random.range(0, 6 * SECOND);
                world.at(at, Event::Start(server));
            }
        }
        for client in 0..CLIENTS {
            for key in 0..KEYS {
                let at = world.random.range(0, SECOND);
                world.at(at, Event::Act(client, key));
            }
        }
        world.at(SECOND, Event::Disturb);
        if world.wishes.is_some() {
            world.at(SECOND / 2, Event::Wish);
        }
        let calm = world.calm_from;
        for server in 0..SERVERS {
            world.at(calm + 10 * MILLI, Event::Start(server));
        }
        world
    }

    fn at(&mut self, time: u64, event: Event) {
        self.count += 1;
        self.queue.push(Reverse((time, self.count)));
        self.events.insert(self.count, event);
    }

    pub fn run(&mut self, until: u64) -> Result<(), Violation> {
        while let Some(Reverse((time, number))) = self.queue.peek().copied() {
            if time > until {
                break;
            }
            self.queue.pop();
            let Some(event) = self.events.remove(&number) else { continue };
            self.now = self.now.max(time);
            self.happen(event);
            self.laws.verdict()?;
        }
        self.now = until;
        Ok(())
    }

    fn is_calm(&self) -> bool {
        self.now >= self.calm_from
    }

    /// How long a message takes; none if it is lost.
    fn delay(&mut self) -> Option<u64> {
        if self.is_calm() {
            return Some(self.random.range(100_000, 2 * MILLI));
        }
        let most =
            self.random.pick(&[MILLI / 5, MILLI, 2 * MILLI, 5 * MILLI, 50 * MILLI, 300 * MILLI]);
        let delay = self.random.range(0, most);
        (!self.random.one_in(33)).then_some(delay)
    }

    fn happen(&mut self, event: Event) {
        // Whoever is paused does it later, and not in the same order.
        let paused_until = match &event {
            Event::Wake(server, ..)
            | Event::FromRegistry(server, ..)
            | Event::ToServer(server, _)
            | Event::Leave(server, _) => self.servers[*server].paused_until,
            Event::ToClient(letter, _) => self.clients[letter.client].paused_until,
            Event::Act(client, _) => self.clients[*client].paused_until,
            _ => 0,
        };
        if self.now < paused_until {
            let at = paused_until + self.random.range(0, MILLI);
            return self.at(at, event);
        }
        match event {
            Event::Wake(server, life, at) => {
                // Another one may have taken its place.
                if self.is_alive(server, life) && self.servers[server].wakes_at == Some(at) {
                    self.servers[server].wakes_at = None;
                    self.tell(server, Input::Tick);
                }
            }
            Event::ToRegistry(server, life, sent, request) => {
                self.ask_registry(server, life, sent, &request);
            }
            Event::FromRegistry(server, life, sent, request, answer) => {
                if self.is_alive(server, life) {
                    let is_unknown = matches!(answer, Answer::Transacted(Outcome::Unknown(_)));
                    self.laws.tally.unknown += u64::from(is_unknown);
                    self.tell(server, Input::Answer { request, sent, answer });
                }
            }
            Event::ToServer(server, letter) => self.serve(server, letter),
            Event::ToClient(letter, said) => self.hear(letter, said),
            Event::Act(client, key) => self.act(client, key),
            Event::Disturb => self.disturb(),
            Event::Leave(server, life) => {
                if self.is_alive(server, life) {
                    self.tell(server, Input::Leave);
                }
            }
            Event::Crash(server, life) => {
                if self.is_alive(server, life) {
                    self.crash(server);
                }
            }
            Event::Start(server) => self.start(server),
            Event::Wish => self.wish(),
        }
    }

    fn is_alive(&self, server: usize, life: u64) -> bool {
        self.servers[server].is_up && self.servers[server].life == life
    }

    fn crash(&mut self, server: usize) {
        self.laws.tally.crashes += 1;
        self.servers[server].crash();
        self.servers[server].paused_until = 0;
        let again = self.now + self.random.range(10 * MILLI, 3 * SECOND);
        self.at(again, Event::Start(server));
    }

    fn start(&mut self, server: usize) {
        if !self.servers[server].is_up {
            self.runs += 1;
            let keeps_disk = !self.random.one_in(3);
            self.servers[server].start(self.runs, keeps_disk);
            self.tell(server, Input::Tick);
        }
    }

    fn tell(&mut self, server: usize, input: Input) {
        let now = self.now;
        self.servers[server].handle(now, input, &mut self.laws.tally);
        let life = self.servers[server].life;
        let sent = self.servers[server].local(now);
        for request in std::mem::take(&mut self.servers[server].requests) {
            self.send(server, life, sent, request);
        }
        let problem = self.servers[server].problem.clone();
        self.laws.hold(Law::Heal, problem.is_none(), || {
            format!("s{server} fails at {now}: {}", problem.unwrap())
        });
        self.check_homes(server);
        if self.servers[server].has_left {
            self.laws.tally.leaves += 1;
            self.servers[server].crash();
            let again = now + self.random.range(10 * MILLI, 2 * SECOND);
            return self.at(again, Event::Start(server));
        }
        let timeout = self.servers[server].timeout().map(|at| at.max(now));
        if let Some(at) = timeout
            && self.servers[server].wakes_at.is_none_or(|wakes_at| at < wakes_at)
        {
            self.servers[server].wakes_at = Some(at);
            self.at(at, Event::Wake(server, life, at));
        }
    }

    fn send(&mut self, server: usize, life: u64, sent: Timestamp, request: Request) {
        // What does not come in time is unknown; mostly the caller says so.
        let unknown = match request.message {
            Message::Read(_) => Answer::Read(Err(Trouble(String::new()))),
            Message::Transact(_) => Answer::Transacted(Outcome::Unknown(Trouble(String::new()))),
        };
        let is_mute = self.now < self.mute_until[server];
        let there = self.delay().filter(|_| !is_mute).map(|delay| self.now + delay);
        if let Some(at) = there {
            self.at(at, Event::ToRegistry(server, life, sent, request.clone()));
            if !self.is_calm() && self.random.one_in(50) {
                let at = at + self.random.range(0, SECOND);
                self.at(at, Event::ToRegistry(server, life, sent, request.clone()));
            }
        }
        if !self.is_calm() && !self.random.one_in(20) {
            let event = Event::FromRegistry(server, life, sent, request, unknown);
            self.at(self.now + PATIENCE, event);
        }
    }

    fn ask_registry(&mut self, server: usize, life: u64, sent: Timestamp, request: &Request) {
        if self.now < self.away_until {
            return;
        }
        let answer = self.registry.answer(request, self.mistake != Some(Mistake::NoSeal));
        let (slow_until, slow) = self.slow;
        let slow = if self.now < slow_until { slow } else { 0 };
        let is_deaf = self.now < self.deaf_until[server];
        let mut late = 0;
        // What was said may come again, long after.
        for _ in 0..if self.is_calm() || !self.random.one_in(20) { 1 } else { 2 } {
            if let Some(delay) = self.delay().filter(|_| !is_deaf) {
                let event =
                    Event::FromRegistry(server, life, sent, request.clone(), answer.clone());
                self.at(self.now + delay + slow + late, event);
            }
            late = self.random.range(0, 4 * SECOND);
        }
    }

    fn serve(&mut self, server: usize, letter: Letter) {
        if !self.servers[server].is_up {
            return;
        }
        let partition = self.partitions[letter.key];
        let (key, client) = (letter.key, letter.client);
        let (now, asked) = (self.now, letter.asked);
        let said =
            self.servers[server].answer(now, partition, (key, client), asked, &mut self.windows);
        match (said, asked) {
            (Said::Held(token), Asked::Lock { .. }) => {
                self.laws.grant(now, key, token);
                self.granted_at[key] = now;
            }
            (Said::Held(_), Asked::Renew { .. })
                if matches!(
                    self.servers[server].standing(now, partition),
                    Standing::Reclaiming(..)
                ) =>
            {
                self.laws.tally.reclaims += 1;
            }
            (Said::Lent(block), _) if block.is_first => self.laws.open(key, block.window),
            _ => {}
        }
        // It may stand still after it has decided, and before it says so.
        if !self.is_calm() && self.random.one_in(100) {
            self.servers[server].paused_until = now + self.random.range(0, 3 * SECOND);
        }
        let leaves_at = now.max(self.servers[server].paused_until);
        for _ in 0..if self.random.one_in(50) { 2 } else { 1 } {
            if let Some(delay) = self.delay() {
                self.at(leaves_at + delay, Event::ToClient(letter, said));
            }
        }
    }

    fn hear(&mut self, letter: Letter, said: Said) {
        // An answer is taken once.
        if !self.open.remove(&letter.number) {
            return;
        }
        let (client, key, now) = (letter.client, letter.key, self.now);
        if self.clients[client].hear(now, key, (letter.sent, letter.asked), said) {
            let mut others = (0..CLIENTS).filter(|it| *it != client);
            let other = others.find(|it| self.clients[*it].holds(now, key));
            self.laws.hold(Law::Alone, other.is_none(), || {
                format!("client {client} and {other:?} hold lock {key} at {now}: {said:?}")
            });
        }
    }

    /// A client holds on to a lock, gives it back or asks for it; or spends permits.
    fn act(&mut self, client: usize, key: usize) {
        let now = self.now;
        if key >= LOCKS {
            let again = now + self.random.range(MILLI, 200 * MILLI);
            self.at(again, Event::Act(client, key));
            if let Some(window) = self.clients[client].spend(now, key) {
                self.laws.spend(now, key, window, LIMIT);
            } else {
                let count = self.random.range(1, 30);
                self.ask(client, key, Asked::Permits { count });
            }
            return;
        }
        let again = now + self.random.range(TTL_MAX / 8, TTL_MAX / 4);
        self.at(again, Event::Act(client, key));
        let held = self.clients[client].held.get(&key).copied();
        let local = self.clients[client].local(now);
        match held.filter(|held| local < held.until) {
            Some(held) if self.random.one_in(if self.is_calm() { 3 } else { 8 }) => {
                self.clients[client].held.remove(&key);
                self.ask(client, key, Asked::Release { token: held.token });
            }
            Some(held) => {
                self.ask(client, key, Asked::Renew { token: held.token, ttl: held.ttl });
            }
            None => {
                let ttl = self.random.range(TTL_MAX / 2, TTL_MAX + 1);
                self.ask(client, key, Asked::Lock { ttl });
            }
        }
    }

    fn ask(&mut self, client: usize, key: usize, asked: Asked) {
        let any = usize::try_from(self.random.range(0, SERVERS as u64)).unwrap();
        if self.random.one_in(6) {
            self.clients[client].guess.insert(key, any);
        }
        let server = self.clients[client].guess.get(&key).copied().unwrap_or(0);
        self.post(client, key, server, asked);
        // Whoever holds something tells others of it, in case that one of them is home now.
        if matches!(asked, Asked::Renew { .. }) && any != server {
            self.post(client, key, any, asked);
        }
    }

    fn post(&mut self, client: usize, key: usize, server: usize, asked: Asked) {
        self.count += 1;
        let sent = self.clients[client].local(self.now);
        let letter = Letter { number: self.count, client, key, sent, asked };
        self.open.insert(letter.number);
        if let Some(delay) = self.delay() {
            self.at(self.now + delay, Event::ToServer(server, letter));
        }
    }

    fn disturb(&mut self) {
        if self.is_calm() {
            return;
        }
        let again = self.now + self.random.range(0, 1_200 * MILLI);
        self.at(again, Event::Disturb);
        let any = |random: &mut Random, count: usize| {
            usize::try_from(random.range(0, count as u64)).unwrap()
        };
        let server = any(&mut self.random, SERVERS);
        let longest = self.random.pick(&[200 * MILLI, 700 * MILLI, 1_500 * MILLI, 4 * SECOND]);
        let until = (self.now + self.random.range(0, longest)).min(self.calm_from);
        let life = self.servers[server].life;
        match self.random.range(0, 14) {
            0..=3 => self.servers[server].paused_until = until,
            4..=6 => {
                let client = any(&mut self.random, CLIENTS);
                self.clients[client].paused_until = until;
            }
            7 => self.away_until = until,
            8 => self.slow = (until, self.random.range(0, 400 * MILLI)),
            9 => self.mute_until[server] = until,
            10 => self.deaf_until[server] = until,
            11 | 12 => self.happen(Event::Crash(server, life)),
            _ => {
                self.happen(Event::Leave(server, life));
                let end = self.now + self.random.range(500 * MILLI, 2 * SECOND);
                self.at(end, Event::Crash(server, life));
            }
        }
    }
}
