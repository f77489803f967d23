//! Clients, a server and the links between them, in virtual time.

use std::collections::BTreeMap;

use zmqlocker::conversation::{Input, Outcome, Output};
use zmqlocker::engine::{Code, Reply, Request, RequestId};
use zmqlocker::time::Timestamp;
use zmqlocker::wire::Frames;

use crate::client::{Client, Doing, Held, LINK, Later, allowed};
use crate::clock::Clock;
use crate::keys::{ACCOUNT, KEYS, Law, check, law_of};
use crate::random::Random;
use crate::scenario::Scenario;
use crate::server::{ConnectionId, Server};
use crate::witness::Witness;

pub const MILLI: u64 = 1_000_000;
pub const SECOND: u64 = 1_000 * MILLI;

/// How much later than its deadline a request is answered at the latest, with the rounding of
/// clocks.
const GRACE: u64 = 100 * MILLI + 10_000;

#[derive(Clone, Debug)]
enum Event {
    ToServer(ConnectionId, Frames),
    ServerTick,
    ServerGoesOn,
    Disturb,
    Client(usize, Happening),
}

/// What happens to a client; put off while it is paused.
#[derive(Clone, Debug)]
enum Happening {
    Message(ConnectionId, Frames),
    Down,
    Up,
    Wake,
    Do(Later),
}

struct Connection {
    client: usize,
    run: u64,
    is_alive: bool,
    /// Whether the server can tell that it is gone.
    is_noticed: bool,
    last_delivery: [u64; 2],
}

pub struct World {
    pub now: u64,
    scenario: Scenario,
    server_clock: Clock,
    pub random: Random,
    pub server: Server,
    pub clients: Vec<Client>,
    /// Until then things go wrong, and clients ask.
    pub calm_from: u64,
    /// How many clients have died.
    pub deaths: usize,
    /// What was used of each key of each run: when, and how many.
    pub uses: BTreeMap<(u64, &'static str), Vec<(u64, u64)>>,
    /// What clients know to have spent of the account of each run.
    pub account: BTreeMap<u64, u64>,
    /// The witnesses of the runs that are over.
    past: BTreeMap<u64, Witness>,
    events: BTreeMap<(u64, u64), Event>,
    sequence: u64,
    connections: BTreeMap<ConnectionId, Connection>,
    tick_at: Option<u64>,
    /// What has come to the server since it stands still, if it does.
    inbox: Option<Vec<(ConnectionId, Frames)>>,
}

impl World {
    pub fn new(scenario: Scenario, seed: u64) -> Self {
        let mut random = Random(seed);
        let now = 10 * SECOND;
        let count = usize::try_from(random.range(2, 7)).unwrap();
        let server_clock = Clock { base: 0, skew: random.pick(scenario.server_skews) };
        let mut client = |number| {
            let skew = server_clock.skew + random.pick(scenario.client_skews);
            Client::new(number, scenario, skew, &mut random)
        };
        let clients = (0..count).map(&mut client).collect();
        let mut world = Self {
            now,
            scenario,
            server_clock,
            server: Server::new(server_clock.local(now), 1),
            clients,
            calm_from: now + scenario.length,
            deaths: 0,
            uses: BTreeMap::new(),
            account: BTreeMap::new(),
            past: BTreeMap::new(),
            events: BTreeMap::new(),
            sequence: 0,
            connections: BTreeMap::new(),
            tick_at: None,
            inbox: None,
            random,
        };
        for client in 0..count {
            world.after(0, 300 * MILLI, Event::Client(client, Happening::Up));
            world.after(0, 300 * MILLI, Event::Client(client, Happening::Do(Later::Act)));
        }
        world.after(100 * MILLI, SECOND, Event::Disturb);
        world
    }

    /// Lets time pass.
    pub fn run(&mut self, until: u64) {
        while let Some(((at, _), event)) = self.events.pop_first() {
            if at > until {
                self.events.insert((at, 0), event);
                break;
            }
            self.now = at;
            match event {
                Event::ToServer(from, message) if self.connections[&from].is_alive => {
                    match &mut self.inbox {
                        Some(inbox) => inbox.push((from, message)),
                        None => self.server.receive(self.server_time(), from, &message),
                    }
                }
                Event::ToServer(..) => {}
                Event::ServerTick => self.tick_at = None,
                Event::ServerGoesOn => {
                    // It takes in all that has come before it answers.
                    for (from, message) in self.inbox.take().unwrap_or_default() {
                        self.server.receive(self.server_time(), from, &message);
                    }
                }
                Event::Disturb => self.disturb(),
                Event::Client(client, happening) => self.happen(client, happening),
            }
            if self.inbox.is_none() {
                self.serve();
            }
        }
        self.now = until;
    }

    pub fn server_time(&self) -> Timestamp {
        self.server_clock.local(self.now)
    }

    fn at(&mut self, at: u64, event: Event) {
        self.sequence += 1;
        self.events.insert((at, self.sequence), event);
    }

    fn after(&mut self, least: u64, most: u64, event: Event) {
        let at = self.now + self.random.range(least, most);
        self.at(at, event);
    }

    fn later(&mut self, client: usize, least: u64, most: u64, later: Later) {
        self.after(least, most, Event::Client(client, Happening::Do(later)));
    }

    /// Lets the server do what is due, and sends what it says.
    fn serve(&mut self) {
        let now = self.server_time();
        self.server.tick(now);
        loop {
            let letters = self.server.letters();
            if letters.is_empty() {
                break;
            }
            for letter in letters {
                let connection = &self.connections[&letter.to];
                if connection.is_alive {
                    let client = connection.client;
                    let message = Happening::Message(letter.to, letter.frames);
                    self.deliver(letter.to, 1, Event::Client(client, message));
                } else if let (true, Some((session, requests))) =
                    (connection.is_noticed, letter.answers)
                {
                    self.server.lose(now, session, &requests);
                }
            }
        }
        let due = self.server.machine.poll_timeout();
        let due = due.map(|due| self.server_clock.true_time(due).max(self.now));
        if due != self.tick_at
            && let Some(due) = due
        {
            self.tick_at = Some(due);
            self.at(due, Event::ServerTick);
        }
    }

    /// Puts a message under way; none overtakes another one of the same connection.
    fn deliver(&mut self, on: ConnectionId, direction: usize, event: Event) {
        let most =
            if self.random.one_in(self.scenario.slow_one_in) { 200 * MILLI } else { 3 * MILLI };
        let at = self.now + self.random.range(MILLI / 20, most);
        let connection = self.connections.get_mut(&on).unwrap();
        let at = at.max(connection.last_delivery[direction]);
        connection.last_delivery[direction] = at;
        self.at(at, event);
    }

    fn disturb(&mut self) {
        if self.now >= self.calm_from {
            return;
        }
        let place = self.random.range(0, self.clients.len() as u64);
        let client = usize::try_from(place).unwrap();
        match self.random.range(0, 20) {
            0..=9 => self.cut(client),
            10..=15 => {
                let length = self.random.range(100 * MILLI, 4 * SECOND);
                let client = &mut self.clients[client];
                client.paused_until = client.paused_until.max(self.now + length);
            }
            16 if self.deaths == 0 && self.random.one_in(2) => {
                self.deaths += 1;
                self.clients[client].is_dead = true;
                self.cut(client);
            }
            17 if !self.scenario.leases_only => self.restart(),
            18 if self.inbox.is_none() => {
                self.inbox = Some(Vec::new());
                self.after(MILLI, 3 * SECOND, Event::ServerGoesOn);
            }
            _ => {}
        }
        self.after(50 * MILLI, 1_500 * MILLI, Event::Disturb);
    }

    /// The link of a client fails, with all that is under way on it.
    fn cut(&mut self, client: usize) {
        let noticed = self.random.one_in(2);
        let alive = self.connections.iter_mut().find(|(_, it)| it.client == client && it.is_alive);
        if let Some((_, connection)) = alive {
            (connection.is_alive, connection.is_noticed) = (false, noticed);

            self.after(0, 300 * MILLI, Event::Client(client, Happening::Down));
        }
    }

    fn restart(&mut self) {
        for client in 0..self.clients.len() {
            self.cut(client);
        }
        let next = Server::new(self.server_time(), self.server.run + 1);
        let before = std::mem::replace(&mut self.server, next);
        self.past.insert(before.run, before.witness);
        self.tick_at = None;
        self.inbox = self.inbox.take().map(|_| Vec::new());
        // Limits start anew: what the run before had lent is spent no more.
        for client in &mut self.clients {
            client.spendings.clear();
        }
    }

    fn happen(&mut self, number: usize, happening: Happening) {
        let client = &mut self.clients[number];
        if client.is_dead {
            return;
        }
        if self.now < client.paused_until {
            let until = client.paused_until;
            return self.at(until, Event::Client(number, happening));
        }
        let mut run = self.server.run;
        match happening {
            Happening::Message(on, message) => {
                run = self.connections[&on].run;
                // What has come before the link failed is read; what was under way is lost.
                let had_come = client.paused_until == self.now;
                if client.connection == Some(on) && (self.connections[&on].is_alive || had_come) {
                    client.handle(self.now, &Input::Message(LINK, &message));
                }
            }
            Happening::Down => {
                client.connection = None;
                client.handle(self.now, &Input::Down(LINK));
                let down_max = self.scenario.down_max;
                self.after(MILLI, down_max, Event::Client(number, Happening::Up));
            }
            Happening::Up => self.connect(number),
            Happening::Wake => {
                client.wake_at = None;
                let now = client.local(self.now);
                if client.conversation.poll_timeout().is_some_and(|due| due <= now) {
                    client.handle(self.now, &Input::Tick);
                }
            }
            Happening::Do(later) => self.act(number, later),
        }
        self.drain(number, run);
    }

    fn connect(&mut self, number: usize) {
        let id = self.connections.len() as u64;
        let connection = Connection {
            client: number,
            run: self.server.run,
            is_alive: true,
            is_noticed: false,
            last_delivery: [0; 2],
        };
        self.connections.insert(id, connection);
        let client = &mut self.clients[number];
        client.connection = Some(id);
        client.handle(self.now, &Input::Up(LINK));
    }

    fn act(&mut self, number: usize, later: Later) {
        let (now, run) = (self.now, self.server.run);
        let client = &mut self.clients[number];
        match later {
            Later::Act if now < self.calm_from => {
                let uses = &mut self.uses;
                let at = self.server_clock.local(now).as_nanos();
                let mut note = |key, permits| {
                    uses.entry((run, key)).or_default().push((at, permits));
                };
                client.act(now, &mut self.random, &mut note);
                let asked = client.asked.last_key_value().map(|(id, _)| *id);
                if let Some(id) = asked.filter(|_| self.random.one_in(8)) {
                    self.later(number, 0, 500 * MILLI, Later::Forget(id));
                }
                self.later(number, 5 * MILLI, self.scenario.idle_max, Later::Act);
            }
            Later::Act => {}
            Later::Forget(id) => {
                let local = client.local(now);
                let may = |(doing, _): &(Doing, _)| {
                    matches!(
                        doing,
                        Doing::Spend { .. } | Doing::Lease { .. } | Doing::Reserve { .. }
                    )
                };
                if client.asked.get(&id).is_some_and(may) {
                    client.asked.remove(&id);
                    client.conversation.forget(local, id);
                }
            }
            Later::Commit { grant, cost, run } => {
                let spent = self.random.range(0, cost * 2);
                let request = Request::Commit { grant, spent: [spent].into_iter().collect() };
                client.ask(now, Doing::Commit { cost, spent, run }, &request, None);
            }
            Later::Release { grant } => client.release(now, grant),
            Later::Settle { id, run, key, cost, granted_at } => {
                client.conversation.settle(id);
                self.use_up(run, key, cost, granted_at);
            }
            Later::Decline { id } => {
                let local = client.local(now);
                client.conversation.decline(local, id);
            }
        }
    }

    fn use_up(&mut self, run: u64, key: &'static str, cost: u64, at: u64) {
        self.uses.entry((run, key)).or_default().push((at, cost));
        if key == ACCOUNT {
            *self.account.entry(run).or_default() += cost;
        }
    }

    /// Sends what a client says, and has it look at what it hears.
    fn drain(&mut self, number: usize, run: u64) {
        while let Some(output) = self.clients[number].conversation.poll_output() {
            match output {
                Output::Send(_, message) => {
                    let on = self.clients[number].connection;
                    let on = on.expect("nothing is sent on a link that is down");
                    self.deliver(on, 0, Event::ToServer(on, message));
                }
                Output::Open(..) => panic!("there is one server"),
                Output::Finish(id, outcome) => self.finish(number, run, id, &outcome),
            }
        }
        self.check_holders();
        let client = &mut self.clients[number];
        let due = client.conversation.poll_timeout().map(|due| client.true_time(due).max(self.now));
        if let Some(due) = due.filter(|due| client.wake_at.is_none_or(|wake_at| *due < wake_at)) {
            client.wake_at = Some(due);
            self.at(due, Event::Client(number, Happening::Wake));
        }
    }

    fn finish(&mut self, number: usize, run: u64, id: RequestId, outcome: &Outcome) {
        let client = &mut self.clients[number];
        let Some((doing, deadline)) = client.asked.remove(&id) else {
            // What a conversation gives back by itself, nobody has asked; all others end once.
            let given_back = matches!(outcome, Outcome::Silence)
                || matches!(outcome, Outcome::Reply(_, Reply::Done | Reply::Refuse(_)));
            assert!(given_back && client.ended.insert(id), "{id:?} ends twice");
            client.conversation.settle(id);
            return;
        };
        assert!(client.ended.insert(id), "{id:?} ends twice");
        if let Some(deadline) = deadline {
            let late = client.local(self.now).since(deadline).as_nanos();
            let woken = self.now == client.paused_until;
            assert!(late <= GRACE.into() || woken, "{id:?} {doing:?} is late by {late} ns");
        }
        let on = client.connection.filter(|on| self.connections[on].is_alive);
        if *outcome == Outcome::Late && on.is_some_and(|on| self.connections[&on].run == run) {
            assert!(!self.server.witness.has_lost(number, id), "{id:?} waits where nobody knows");
        }
        let decision = allowed(outcome).cloned();
        let granted_at = || {
            let witness = self.past.get(&run).unwrap_or(&self.server.witness);
            witness.granted_at(number, id)
        };
        let done = matches!(outcome, Outcome::Reply(_, Reply::Done));
        match (doing, decision) {
            (Doing::Spend { key, cost }, Some(_)) => {
                let granted_at = granted_at();
                if self.random.one_in(2) {
                    client.conversation.settle(id);
                    return self.use_up(run, key, cost, granted_at);
                }
                let settle = Later::Settle { id, run, key, cost, granted_at };
                let later = if self.random.one_in(2) { settle } else { Later::Decline { id } };
                return self.later(number, 0, SECOND, later);
            }
            (Doing::Lease { key }, Some(decision)) => {
                let grant = decision.grant.expect("a lease has a number");
                if self.random.one_in(8) {
                    return self.later(number, 0, SECOND, Later::Decline { id });
                }
                client.held.push(Held { run, key, grant });
                let hold_max = self.scenario.ttl.1 * 5 / 3;
                self.later(number, 0, hold_max, Later::Release { grant });
            }
            (Doing::Reserve { cost }, Some(decision)) => {
                self.use_up(run, ACCOUNT, cost, granted_at());
                let grant = decision.grant.expect("a reservation has a number");
                self.later(number, 0, SECOND, Later::Commit { grant, cost, run });
            }
            (Doing::Commit { cost, spent, run: of }, _) if of == run => {
                assert!(done, "a commit hears {outcome:?}");
                let account = self.account.get_mut(&run).unwrap();
                *account = *account - cost + spent;
            }
            (Doing::Release { run: of }, _) if of == run => {
                let gone = matches!(outcome, Outcome::Reply(_, Reply::Refuse(problem)) if
                    problem.code == Code::NotHeld);
                // It may have ended while this was under way.
                assert!(done || gone, "the release of a lease hears {outcome:?}");
            }
            (Doing::Block { key, sent_at }, _) => {
                let run = Some(run).filter(|run| *run == self.server.run);
                client.receive_block(self.now, (key, sent_at), run, outcome);
            }
            _ => {}
        }
        self.clients[number].conversation.settle(id);
    }

    /// Nobody believes to hold what others hold.
    fn check_holders(&self) {
        for key in KEYS {
            let Law::AtOnce(most) = law_of(key.name) else { continue };
            let mut holders: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
            for (number, client) in self.clients.iter().enumerate().filter(|(_, it)| !it.is_dead) {
                for held in client.held.iter().filter(|held| held.key == key.name) {
                    if client.holds(self.now, held) {
                        holders.entry(held.run).or_default().push(number);
                    }
                }
            }
            for (run, holders) in holders {
                assert!(holders.len() <= most, "{holders:?} hold {} of run {run}", key.name);
            }
        }
    }

    /// No limit was exceeded by what was used.
    pub fn check_uses(&self) {
        for ((run, key), uses) in &self.uses {
            let witness = self.past.get(run).unwrap_or(&self.server.witness);
            check(key, uses.clone(), witness.slots(key));
        }
    }
}
