//! Servers that tell each other what they grant, and what happens to what they tell.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::Duration;

use crate::clock::Clock;
use crate::law::{Law, Laws, Violation};
use crate::limits::{Kind, LIMITS, MILLI};
use crate::random::Random;
use crate::server::{Done, Server};
use crate::{Mistake, Weather};

const SECOND: u64 = 1000 * MILLI;

/// When things stop to go wrong, when nobody asks any more, and the end.
const CALM_FROM: u64 = 5 * SECOND;
const QUIET_FROM: u64 = 7 * SECOND;
const END: u64 = QUIET_FROM + 30 * MILLI;

#[derive(Clone, Debug)]
enum Event {
    /// A server, in this life, has something to do at that time.
    Wake(usize, u64, u64),
    /// What one server tells comes to another one.
    Tell(usize, usize, Vec<u8>),
    Ask(usize, usize),
    Disturb,
    Start(usize),
}

pub struct World {
    now: u64,
    pub laws: Laws,
    weather: Weather,
    random: Random,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    events: HashMap<u64, Event>,
    count: u64,
    runs: u64,
    servers: Vec<Server>,
    /// Until when what one tells does not come to another one.
    cut_until: Vec<Vec<u64>>,
    /// When the last message of one came to another one.
    last: Vec<Vec<u64>>,
}

impl World {
    pub fn new(seed: u64, weather: Weather, mistake: Option<Mistake>) -> Self {
        let mut random = Random(seed);
        let count = usize::try_from(random.range(2, 5)).unwrap();
        let mut server = |_| {
            let base = random.range(1 << 40, 1 << 41);
            Server::new(Clock { base, skew: random.pick(&[-2, -1, 0, 1, 2]) }, mistake)
        };
        let servers = (0..count).map(&mut server).collect();
        let mut world = Self {
            now: 0,
            laws: Laws::new(count as u64, weather),
            weather,
            random,
            queue: BinaryHeap::new(),
            events: HashMap::new(),
            count: 0,
            runs: 0,
            servers,
            cut_until: vec![vec![0; count]; count],
            last: vec![vec![0; count]; count],
        };
        for server in 0..count {
            let at = world.random.range(0, 100 * MILLI);
            world.at(at, Event::Start(server));
            for key in 0..LIMITS.len() {
                world.at(500 * MILLI, Event::Ask(server, key));
            }
        }
        if weather.loses() {
            world.laws.rough(CALM_FROM);
        }
        world.at(SECOND, Event::Disturb);
        world
    }

    fn at(&mut self, time: u64, event: Event) {
        self.count += 1;
        self.queue.push(Reverse((time, self.count)));
        self.events.insert(self.count, event);
    }

    pub fn run(&mut self) -> Result<(), Violation> {
        while let Some(Reverse((time, number))) = self.queue.pop() {
            if time > END {
                break;
            }
            let Some(event) = self.events.remove(&number) else { continue };
            self.now = self.now.max(time);
            self.happen(event);
            self.laws.verdict()?;
        }
        self.now = END;
        self.check_rest();
        self.laws.verdict()
    }

    fn is_calm(&self) -> bool {
        self.now >= CALM_FROM
    }

    fn happen(&mut self, event: Event) {
        let now = self.now;
        // Whoever is paused does it later, and not in the same order.
        if let Event::Wake(server, ..) | Event::Tell(_, server, _) | Event::Ask(server, _) = event
            && now < self.servers[server].paused_until
        {
            let at = self.servers[server].paused_until + self.random.range(0, MILLI);
            return self.at(at, event);
        }
        match event {
            Event::Wake(server, life, at) => {
                let it = &mut self.servers[server];
                if it.life == life && it.wakes_at == Some(at) {
                    it.wakes_at = None;
                    let done = it.wake(now);
                    self.take(server, done);
                }
            }
            Event::Tell(from, to, message) => {
                let place = if from < to { from } else { from - 1 };
                let done = self.servers[to].hear(now, place, &message);
                self.take(to, done);
            }
            Event::Ask(server, key) => self.ask(server, key),
            Event::Disturb => self.disturb(),
            Event::Start(server) => {
                if !self.servers[server].is_up() {
                    self.runs += 1;
                    let others = self.servers.len() - 1;
                    let done = self.servers[server].start(now, self.runs, others);
                    self.take(server, done);
                }
            }
        }
    }

    fn ask(&mut self, server: usize, key: usize) {
        if self.now >= QUIET_FROM {
            return;
        }
        let waits = self.random.one_in(10);
        let waits = Duration::from_millis(if waits { self.random.range(1, 300) } else { 0 });
        // Many ask at once.
        for _ in 0..if self.random.one_in(8) { 20 } else { 1 } {
            let done = self.servers[server].ask(self.now, key, waits);
            self.take(server, done);
        }
        let pause = self.random.range(1, 2 * LIMITS[key].every);
        self.at(self.now + pause, Event::Ask(server, key));
        let oldest = self.servers[server].oldest().unwrap_or(self.now);
        self.laws.hold(Law::Serve, self.now < oldest + 4 * SECOND, || {
            format!("server {server} owes an answer since {oldest}")
        });
    }

    fn take(&mut self, from: usize, done: Done) {
        self.laws.tally.refusals += done.refused;
        for key in done.granted {
            self.laws.grant(self.now, key);
        }
        for message in done.messages {
            for to in (0..self.servers.len()).filter(|to| *to != from) {
                self.send(from, to, &message);
            }
        }
        let it = &mut self.servers[from];
        let due = it.due(self.now);
        if let Some(due) = due.filter(|due| it.wakes_at != Some(*due)) {
            it.wakes_at = Some(due);
            let life = it.life;
            self.at(due, Event::Wake(from, life, due));
        }
    }

    fn send(&mut self, from: usize, to: usize, message: &[u8]) {
        if self.now < self.cut_until[from][to] {
            return;
        }
        let is_bad = self.weather.loses() && !self.is_calm();
        if is_bad && self.random.one_in(5) {
            self.laws.tally.lost += 1;
            return;
        }
        let most = if is_bad { self.random.pick(&[1, 2, 5, 50]) } else { 1 };
        let mut at = self.now + self.random.range(MILLI / 10, most * MILLI);
        if !is_bad {
            // A connection keeps the order.
            at = at.max(self.last[from][to] + 1);
            self.last[from][to] = at;
        }
        self.at(at, Event::Tell(from, to, message.to_vec()));
        // Doubled at any time.
        if self.weather.loses() && self.random.one_in(4) {
            self.laws.tally.doubled += 1;
            let at = at + self.random.range(0, 5 * MILLI);
            self.at(at, Event::Tell(from, to, message.to_vec()));
        }
    }

    /// Something goes wrong.
    fn disturb(&mut self) {
        if self.is_calm() {
            return;
        }
        let now = self.now;
        let server = usize::try_from(self.random.range(0, self.servers.len() as u64)).unwrap();
        let all_are_up = self.servers.iter().all(Server::is_up);
        match (self.weather, self.random.range(0, 4)) {
            (Weather::Crashes, which) if all_are_up => self.stop(server, which == 0),
            (Weather::Cuts, _) | (Weather::Rough, 1) => self.cut(),
            (Weather::Rough, 0) => self.stop(server, false),
            (Weather::Rough, 2) => {
                self.laws.tally.pauses += 1;
                let until = (now + self.random.range(10 * MILLI, 2 * SECOND)).min(CALM_FROM);
                self.servers[server].paused_until = until;
                self.laws.rough(until);
            }
            _ => {}
        }
        let next = self.random.range(SECOND / 2, 2 * SECOND);
        self.at(now + next, Event::Disturb);
    }

    fn stop(&mut self, server: usize, in_order: bool) {
        if in_order {
            self.laws.tally.leaves += 1;
            let done = self.servers[server].leave(self.now);
            self.take(server, done);
        } else {
            self.laws.tally.crashes += 1;
            self.servers[server].crash();
        }
        let at = self.now + self.random.range(MILLI, SECOND);
        self.at(at, Event::Start(server));
        if self.weather == Weather::Rough {
            self.laws.rough(at + SECOND / 2);
        }
    }

    /// Some do not hear others for a while, and these hear them or do not.
    fn cut(&mut self) {
        self.laws.tally.cuts += 1;
        let until = (self.now + self.random.range(10 * MILLI, 3 * SECOND)).min(CALM_FROM);
        let both = !self.random.one_in(3);
        let count = self.servers.len();
        let sides: Vec<u64> = (0..count).map(|_| self.random.range(0, 3)).collect();
        for from in 0..count {
            for to in (0..count).filter(|to| sides[*to] != sides[from]) {
                if both || from < to {
                    self.cut_until[from][to] = until;
                }
            }
        }
        // What was granted on both sides is known to neither when they are in touch again.
        self.laws.rough(until);
    }

    /// Nothing has gone wrong for long.
    fn check_rest(&mut self) {
        let now = self.now;
        for server in 0..self.servers.len() {
            let in_touch = self.servers[server].is_in_touch_with_all();
            self.laws.hold(Law::Agree, in_touch, || format!("{server} is not in touch at the end"));
        }
        for (key, limit) in LIMITS.iter().enumerate() {
            let granted = self.laws.count(key, now - 3 * limit.length.min(SECOND), now);
            let is_long = limit.length > END;
            self.check_slots(key);
            let is_slow = limit.every > 100 * MILLI;
            self.laws.hold(
                Law::Serve,
                is_long || is_slow || granted * 10 >= limit.permits * 12,
                || {
                    format!(
                        "{granted} of {} are granted in three windows before the end",
                        limit.key
                    )
                },
            );
            if limit.kind != Kind::Sliding {
                continue;
            }
            // What begins or ends to count about now may or may not.
            let about = 20 * MILLI;
            let from = now.saturating_sub(limit.length);
            let least = self.laws.count(key, from + about, now - about);
            let most = self.laws.count(key, from.saturating_sub(about), now);
            let (least, most) = if is_long { self.of_long(least) } else { (least, most) };
            for server in 0..self.servers.len() {
                let counted = self.servers[server].counted(now, key);
                self.laws.hold(Law::Agree, (least..=most).contains(&counted), || {
                    let key = limit.key;
                    format!("{server} has counted {counted} of {key}, not {least} to {most}")
                });
            }
        }
    }

    /// A slot is as old with all servers, but for the time that it takes to tell of it.
    fn check_slots(&mut self, key: usize) {
        let left = |server: &Server| server.slot_left(self.now, key);
        let slots: Vec<Duration> = self.servers.iter().filter_map(left).collect();
        let (least, most) = (slots.iter().min(), slots.iter().max());
        let apart =
            least.zip(most).map_or(Duration::ZERO, |(least, most)| most.saturating_sub(*least));
        // Of one that opens at the end not all have heard, and the one before is as good as over.
        let about = Duration::from_millis(20);
        let is_next = apart + about > Duration::from_nanos(LIMITS[key].length);
        self.laws.hold(Law::Agree, apart < about || is_next, || {
            format!("the slots of {} end {apart:?} apart", LIMITS[key].key)
        });
    }

    /// What may have been counted at the end of all that was granted.
    fn of_long(&self, granted: u64) -> (u64, u64) {
        match self.weather {
            Weather::Fair => (granted, granted),
            // What was on its way when a server crashed is known to some.
            Weather::Crashes => (granted - granted / 20, granted + granted / 10),
            Weather::Lossy => (granted - granted / 8, granted + granted / 10),
            Weather::Cuts | Weather::Rough => (granted / 2, granted + granted / 10),
        }
    }
}
