//! Homes from outside: a few servers and their registry, on one clock that the test moves.

mod changes;
mod problems;
mod registry;
mod wishes;

use std::collections::BTreeMap;
use std::time::Duration;

use zmqlocker::cluster::{
    Answer, Epoch, Holds, Home, Input, Memory, Output, Partition, Problem, Request, RunId,
    ServerName, Settings, Standing, Times,
};
use zmqlocker::registry::{Outcome, Trouble};
use zmqlocker::time::Timestamp;

use crate::registry::Registry;

const MILLI: u64 = 1_000_000;

/// How long a message to the registry takes, and an answer.
const HOP: u64 = 2 * MILLI;

/// What was said of a partition, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Change {
    Gained { epoch: Epoch, start: u64, holds: Holds },
    Covered(Duration),
    Stopped,
    Lost,
}

struct Server {
    name: &'static str,
    home: Home,
    is_up: bool,
    /// What a partition is said to hold when it is to be handed over.
    holds: Holds,
    changes: Vec<(u64, Partition, Change)>,
    problem: Option<Problem>,
    has_left: bool,
}

/// Requests on their way, each with its server and when it was sent; then their answers.
enum Message {
    There(usize, u64, Request),
    Back(usize, u64, Request, Answer),
}

struct Cluster {
    now: u64,
    servers: Vec<Server>,
    registry: Registry,
    /// Whether requests come there, and answers back.
    reaches: bool,
    answers: bool,
    on_the_way: BTreeMap<(u64, u64), Message>,
    count: u64,
    writes: u64,
}

fn settings(name: &str, run: u64) -> Settings {
    Settings {
        name: ServerName::parse(name).unwrap(),
        run: RunId(run),
        url: format!("tcp://{name}:7777"),
        version: "0.1.0".to_owned(),
        cluster: "shop".to_owned(),
        above: Epoch(0),
        first: Epoch(0),
        memory: Memory::default(),
    }
}

fn at(nanos: u64) -> Timestamp {
    Timestamp::from_nanos(nanos)
}

impl Cluster {
    fn new() -> Self {
        Self {
            now: 1_000 * MILLI,
            servers: Vec::new(),
            registry: Registry::default(),
            reaches: true,
            answers: true,
            on_the_way: BTreeMap::new(),
            count: 0,
            writes: 0,
        }
    }

    /// A cluster of servers that have settled.
    fn of(names: &[&'static str]) -> Self {
        let mut cluster = Self::new();
        for (name, run) in names.iter().zip(1..) {
            cluster.start(name, settings(name, run));
        }
        cluster.pass(3_000 * MILLI);
        cluster
    }

    fn start(&mut self, name: &'static str, settings: Settings) -> usize {
        let home = Home::new(settings, Times::default());
        let (changes, holds) = (Vec::new(), Some(name.as_bytes().to_vec()));
        let (problem, has_left) = (None, false);
        self.servers.push(Server { name, home, is_up: true, holds, changes, problem, has_left });
        self.tell(self.servers.len() - 1, Input::Tick);
        self.servers.len() - 1
    }

    fn tell(&mut self, server: usize, input: Input) {
        let now = self.now;
        let it = &mut self.servers[server];
        let mut requests = Vec::new();
        it.home.handle(at(now), input);
        while let Some(output) = it.home.poll_output() {
            match output {
                Output::Send(request) => requests.push(request),
                Output::Gained { partition, epoch, start, holds, .. } => {
                    let start = start.as_nanos();
                    it.changes.push((now, partition, Change::Gained { epoch, start, holds }));
                }
                Output::Stop { partition, epoch } => {
                    it.changes.push((now, partition, Change::Stopped));
                    let holds = it.holds.clone();
                    it.home.handle(at(now), Input::Holds { partition, epoch, holds });
                }
                Output::Lost { partition } => it.changes.push((now, partition, Change::Lost)),
                Output::Covered { partition, length } => {
                    it.changes.push((now, partition, Change::Covered(length)));
                }
                Output::Left => it.has_left = true,
                Output::Failed(problem) => it.problem = Some(problem),
            }
        }
        for request in requests {
            self.post(now + HOP, Message::There(server, now, request));
        }
    }

    fn post(&mut self, time: u64, message: Message) {
        self.count += 1;
        self.on_the_way.insert((time, self.count), message);
    }

    /// Lets time pass.
    fn pass(&mut self, length: u64) {
        let end = self.now + length;
        loop {
            let wakes = self.servers.iter().enumerate().filter(|(_, it)| it.is_up);
            let wakes = wakes.filter_map(|(number, it)| {
                Some((it.home.poll_timeout()?.as_nanos().max(self.now), number))
            });
            let wake = wakes.min();
            let message = self.on_the_way.keys().next().copied();
            let next = wake.map(|(time, _)| time).into_iter().chain(message.map(|(time, _)| time));
            let Some(next) = next.min().filter(|next| *next <= end) else { break };
            self.now = next;
            match message.filter(|(time, _)| *time == next) {
                Some(place) => self.carry(place),
                None => self.tell(wake.unwrap().1, Input::Tick),
            }
        }
        self.now = end;
    }

    fn carry(&mut self, place: (u64, u64)) {
        match self.on_the_way.remove(&place).unwrap() {
            Message::There(server, sent, request) => {
                let mut answer = match request.message {
                    zmqlocker::cluster::Message::Read(_) => Answer::Read(Err(away())),
                    zmqlocker::cluster::Message::Transact(_) => {
                        Answer::Transacted(Outcome::Unknown(away()))
                    }
                };
                if self.reaches {
                    let found = self.registry.answer(&request, true);
                    self.writes += u64::from(matches!(found, Answer::Transacted(_)));
                    if self.answers {
                        answer = found;
                    }
                }
                self.post(self.now + HOP, Message::Back(server, sent, request, answer));
            }
            Message::Back(server, sent, request, answer) => {
                if self.servers[server].is_up {
                    let sent = at(sent);
                    self.tell(server, Input::Answer { request, sent, answer });
                }
            }
        }
    }

    /// In how many partitions each server may grant.
    fn shares(&self) -> Vec<usize> {
        let grants = |it: &&Server, partition| {
            it.is_up && matches!(it.home.standing(at(self.now), partition), Standing::Granting(_))
        };
        let count = |it| Partition::all().filter(|partition| grants(&it, *partition)).count();
        self.servers.iter().map(count).collect()
    }

    fn standing(&self, server: usize, partition: Partition) -> Standing {
        self.servers[server].home.standing(at(self.now), partition)
    }
}

fn away() -> Trouble {
    Trouble("the registry is away".to_owned())
}

fn millis(nanos: u64) -> Duration {
    Duration::from_nanos(nanos)
}
