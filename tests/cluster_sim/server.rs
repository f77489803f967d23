//! A server of the simulation: the product's own home, and a table for each partition that it has.

use std::collections::BTreeMap;
use std::time::Duration;

use zmqlocker::cluster::{
    Answer, Epoch, Home, Input, Memory, Output, Partition, Problem, Purpose, Request, RunId,
    ServerName, Settings, Standing, Times,
};
use zmqlocker::registry::{Outcome, Revision};
use zmqlocker::time::Timestamp;

use crate::Mistake;
use crate::clock::Clock;
use crate::law::Tally;
use crate::locks::{Block, TTL_MAX, Table, WINDOW, longer};

pub struct Server {
    pub number: usize,
    pub clock: Clock,
    pub home: Home,
    /// Which of its lives it is; what was meant for an earlier one is for nobody.
    pub life: u64,
    pub is_up: bool,
    pub paused_until: u64,
    /// The last wake-up that was asked for.
    pub wakes_at: Option<u64>,
    pub tables: BTreeMap<Partition, Table>,
    /// The number of the last grant: those of all partitions are numbered in one row.
    last: u64,
    pub mistake: Option<Mistake>,
    /// What an earlier incarnation has taken, by mistake.
    stolen: BTreeMap<Partition, u32>,
    /// That of the last beat.
    incarnation: Revision,
    pub requests: Vec<Request>,
    pub problem: Option<Problem>,
    pub has_left: bool,
}

/// What a server says to a client.
#[derive(Clone, Copy, Debug)]
pub enum Said {
    /// A lock is granted, renewed or taken up again, under this token.
    Held(u64),
    Lent(Block),
    Refused,
    /// Ask that server.
    Elsewhere(Option<usize>),
}

/// What a client asks for.
#[derive(Clone, Copy, Debug)]
pub enum Asked {
    Lock { ttl: u64 },
    Renew { token: u64, ttl: u64 },
    Release { token: u64 },
    Permits { count: u64 },
}

pub fn new_home(number: usize, run: u64, memory: Memory) -> Home {
    // Some come back under another name.
    let letter = if run.is_multiple_of(2) { "s" } else { "t" };
    let settings = Settings {
        name: ServerName::parse(&format!("{letter}{number}")).unwrap(),
        run: RunId(run),
        url: format!("tcp://s{number}:7777"),
        version: "0.1.0".to_owned(),
        cluster: "sim".to_owned(),
        above: Epoch(0),
        first: Epoch(0),
        memory,
    };
    Home::new(settings, Times::default())
}

impl Server {
    pub fn new(number: usize, clock: Clock, mistake: Option<Mistake>) -> Self {
        Self {
            number,
            clock,
            home: new_home(number, 1_000 + number as u64, Memory::default()),
            life: 0,
            is_up: true,
            paused_until: 0,
            wakes_at: None,
            tables: BTreeMap::new(),
            last: 0,
            mistake,
            stolen: BTreeMap::new(),
            incarnation: Revision::NONE,
            requests: Vec::new(),
            problem: None,
            has_left: false,
        }
    }

    pub fn local(&self, now: u64) -> Timestamp {
        self.clock.local(now)
    }

    /// It is gone, and what it knew, unless that is on its disk.
    pub fn crash(&mut self) {
        self.is_up = false;
        self.life += 1;
        self.tables.clear();
        self.last = 0;
        self.stolen.clear();
        self.requests.clear();
        self.wakes_at = None;
    }

    pub fn start(&mut self, run: u64, keeps_disk: bool) {
        let memory = if keeps_disk { self.home.memory() } else { Memory::default() };
        self.home = new_home(self.number, run, memory);
        self.is_up = true;
        self.has_left = false;
        self.life += 1;
    }

    /// Tells the home, and does what it says.
    pub fn handle(&mut self, now: u64, mut input: Input, tally: &mut Tally) {
        let local = self.local(now);
        if let (Some(Mistake::LifeFromReceipt), Input::Answer { sent, .. }) =
            (self.mistake, &mut input)
        {
            *sent = local;
        }
        if self.mistake == Some(Mistake::OldTakeOver) {
            self.steal(&input);
        }
        self.home.handle(local, input);
        while let Some(output) = self.home.poll_output() {
            match output {
                Output::Send(request) => {
                    if let Purpose::Beat { incarnation, .. } = request.purpose {
                        self.incarnation = incarnation;
                    }
                    self.requests.push(request);
                }
                Output::Gained { partition, epoch, start, holds, .. } => {
                    self.last = self.last.max(u64::from(epoch.0) << 32);
                    let table = match holds {
                        Some(holds) => {
                            tally.hand_overs += 1;
                            Table::decode(epoch.0, local.as_nanos(), &holds)
                        }
                        None => self.new_table(local, epoch, start, tally),
                    };
                    self.tables.insert(partition, table);
                    self.stolen.remove(&partition);
                }
                Output::Stop { partition, epoch } => {
                    let table = self.tables.remove(&partition);
                    let holds = table.map(|table| table.encode(local.as_nanos()));
                    self.home.handle(local, Input::Holds { partition, epoch, holds });
                }
                Output::Lost { partition } => {
                    tally.seals += 1;
                    self.tables.remove(&partition);
                }
                Output::Covered { .. } => {}
                Output::Left => self.has_left = true,
                Output::Failed(problem) => self.problem = Some(problem),
            }
        }
    }

    /// Permits of the home before are void when its windows are over; if there was none, at once.
    fn new_table(
        &self,
        local: Timestamp,
        epoch: Epoch,
        start: Timestamp,
        tally: &mut Tally,
    ) -> Table {
        if start <= local {
            return Table::new(epoch.0, 0);
        }
        tally.take_overs += 1;
        let wait = match self.mistake {
            Some(Mistake::NewHomeStartsAtOnce) => 0,
            _ => longer(WINDOW, 8),
        };
        Table::new(epoch.0, local.as_nanos() + wait)
    }

    /// Takes what an earlier incarnation has asked for.
    fn steal(&mut self, input: &Input) {
        if let Input::Answer { request, answer: Answer::Transacted(Outcome::Done(_)), .. } = input
            && let Purpose::TakeOver { incarnation, gains } = &request.purpose
            && *incarnation < self.incarnation
        {
            self.stolen.extend(gains.iter().map(|(partition, epoch)| (*partition, epoch.0)));
        }
    }

    /// What it may do, as it believes.
    pub fn standing(&self, now: u64, partition: Partition) -> Standing {
        let local = self.local(now);
        match self.home.standing(local, partition) {
            Standing::Reclaiming(epoch, _) if self.mistake == Some(Mistake::NoGrace) => {
                Standing::Granting(epoch)
            }
            Standing::Elsewhere if local < self.home.alive_until() => {
                let stolen = self.stolen.get(&partition);
                stolen.map_or(Standing::Elsewhere, |epoch| Standing::Granting(Epoch(*epoch)))
            }
            standing => standing,
        }
    }

    /// Answers a client; the number is that of the next window.
    pub fn answer(
        &mut self,
        now: u64,
        partition: Partition,
        (key, client): (usize, usize),
        asked: Asked,
        next: &mut u64,
    ) -> Said {
        let (epoch, grants) = match self.standing(now, partition) {
            Standing::Granting(epoch) => (epoch, true),
            Standing::Reclaiming(epoch, _) => (epoch, false),
            Standing::Suspended => return Said::Refused,
            Standing::Elsewhere => {
                let home = self.home.home_of(partition).map(|(name, _)| name.as_str());
                let number = home.map(|name| name[1..].parse().unwrap());
                return Said::Elsewhere(number.filter(|number| *number != self.number));
            }
        };
        let local = self.local(now).as_nanos();
        let table = self.tables.entry(partition).or_insert_with(|| Table::new(epoch.0, 0));
        let said = match asked {
            Asked::Lock { ttl } if grants => {
                table.grant(local, key, (client, ttl), &mut self.last).map(Said::Held)
            }
            Asked::Renew { token, ttl } => {
                let is_held = table.renew(local, key, (client, token), ttl, !grants);
                is_held.then_some(Said::Held(token))
            }
            Asked::Release { token } => {
                table.release(key, client, token);
                None
            }
            Asked::Permits { count } if grants => {
                table.lend(local, key, count, next).map(Said::Lent)
            }
            Asked::Lock { .. } | Asked::Permits { .. } => None,
        };
        said.unwrap_or(Said::Refused)
    }

    /// When it wants to be told of the time, in true time.
    pub fn timeout(&self) -> Option<u64> {
        self.home.poll_timeout().map(|at| self.clock.true_time(at))
    }
}

/// What is asked of a server that takes over: no lease is longer than the grace.
const _: () = assert!((TTL_MAX as u128) <= Duration::from_millis(800).as_nanos());
