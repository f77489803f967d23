//! Clients that take locks, a server that is started again and again, and the links between them.

mod clients;

use std::collections::BTreeMap;

use zmqlocker::engine::{RequestId, SessionId};
use zmqlocker::wire::Frames;

use crate::any_clock;
use crate::clock::Clock;
use crate::desk::{ConnectionId, Letter};
use crate::locks::Mistake;
use crate::locks::client::Client;
use crate::locks::disk::Disk;
use crate::locks::law::{Law, Laws, Violation};
use crate::locks::plan::{MILLI, Plan, SECOND};
use crate::locks::server::Server;
use crate::random::Random;

#[derive(Clone, Debug)]
enum Event {
    ToServer(ConnectionId, Frames),
    /// The server has something to do.
    Serve,
    /// What a run was writing is on the disk.
    Written(u64),
    Start,
    /// The server ends, cleanly or not.
    End(bool),
    Disturb,
    Cut(usize),
    Client(usize, Happening),
}

/// What happens to a client; put off while it is paused.
#[derive(Clone, Debug)]
enum Happening {
    Message(ConnectionId, Frames),
    Down,
    Up,
    Wake,
    Act,
    Forget(RequestId),
    /// The next step of a plan.
    GoOn(Plan),
    /// The end of a plan.
    End(Plan),
    /// The caller takes the answer to the last step of a plan, or has gone.
    Settle(RequestId, Plan),
    Decline(RequestId, Plan),
}

struct Connection {
    client: usize,
    run: u64,
    is_alive: bool,
    /// Whether the server can tell that it is gone.
    is_noticed: bool,
    /// When what was sent on it comes to the server although it is gone.
    comes_at: Option<u64>,
    /// Whether the client reads what was sent before it sees that the connection is gone.
    is_read: bool,
    since: u64,
    last_delivery: [u64; 2],
}

pub struct World {
    pub now: u64,
    pub laws: Laws,
    /// Until then things go wrong, and clients begin plans.
    pub calm_from: u64,
    random: Random,
    mistake: Option<Mistake>,
    clients: Vec<Client>,
    deaths: usize,
    /// None while it is down.
    server: Option<Server>,
    server_clock: Clock,
    server_paused_until: u64,
    runs: u64,
    disk: Disk,
    events: BTreeMap<(u64, u64), Event>,
    sequence: u64,
    connections: BTreeMap<ConnectionId, Connection>,
    serve_at: Option<u64>,
    /// How long a lease is at most, in milliseconds.
    longest: u64,
    /// Whether links are down for longer than anybody waits.
    has_outages: bool,
}

impl World {
    pub fn new(seed: u64, mistake: Option<Mistake>) -> Self {
        let mut random = Random(seed);
        let now = 10 * SECOND;
        let count = usize::try_from(random.range(2, 7)).unwrap();
        let client = |number| Client::new(number, &mut random, mistake);
        let clients = (0..count).map(client).collect();
        let mut world = Self {
            now,
            laws: Laws::default(),
            calm_from: now + 12 * SECOND,
            server_clock: any_clock(&mut random),
            random,
            mistake,
            clients,
            deaths: 0,
            server: None,
            server_paused_until: 0,
            runs: 0,
            disk: Disk::default(),
            events: BTreeMap::new(),
            sequence: 0,
            connections: BTreeMap::new(),
            serve_at: None,
            longest: 5_000,
            has_outages: false,
        };
        world.at(now, Event::Start);
        for client in 0..count {
            world.later(client, 0, 300 * MILLI, Happening::Up);
            world.later(client, 0, 300 * MILLI, Happening::Act);
        }
        world.after(100 * MILLI, SECOND, Event::Disturb);
        world
    }

    /// One whose server writes nothing down.
    pub fn without_disk(seed: u64, mistake: Option<Mistake>) -> Self {
        let mut world = Self::new(seed, mistake);
        world.disk.is_none = true;
        world.laws.forgets = true;
        world.clients.iter_mut().for_each(|client| client.tells = true);
        world
    }

    /// One in which links may be down for long, and leases are as long.
    pub fn with_outages(seed: u64, mistake: Option<Mistake>) -> Self {
        let mut world = Self::new(seed, mistake);
        (world.longest, world.has_outages) = (40_000, true);
        world.calm_from += 60 * SECOND;
        world.clients.iter_mut().for_each(|client| client.tells = true);
        world
    }

    /// How long it takes at most until all has come to rest: leases that are left to end by
    /// themselves may follow one another.
    pub fn longest_rest(&self) -> u64 {
        6 * self.longest * MILLI
    }

    /// Lets time pass, up to the first violation.
    pub fn run(&mut self, until: u64) -> Result<(), Violation> {
        while let Some(entry) = self.events.first_entry()
            && entry.key().0 <= until
        {
            let ((at, _), event) = entry.remove_entry();
            self.now = at;
            match event {
                Event::ToServer(from, message) => self.arrive(from, message),
                Event::Serve => self.serve_at = None,
                Event::Written(run) => {
                    if self.runs == run && self.server.is_some() {
                        self.disk.finish();
                    }
                }
                Event::Start => self.start(),
                Event::End(is_clean) => self.end(is_clean),
                Event::Disturb => self.disturb(),
                Event::Cut(client) => self.cut(client),
                Event::Client(client, happening) => self.happen(client, happening),
            }
            self.serve();
            let living = self.clients.iter().enumerate().filter(|(_, client)| !client.is_dead);
            let now = self.now;
            let holders = living.flat_map(|(number, client)| {
                client.holds(now).map(move |(token, parts)| (number, token, parts))
            });
            self.laws.check_holders(now, holders);
            self.laws.verdict()?;
        }
        self.now = until;
        Ok(())
    }

    fn at(&mut self, at: u64, event: Event) {
        self.sequence += 1;
        self.events.insert((at, self.sequence), event);
    }

    fn after(&mut self, least: u64, most: u64, event: Event) {
        let at = self.now + self.random.range(least, most);
        self.at(at, event);
    }

    fn later(&mut self, client: usize, least: u64, most: u64, happening: Happening) {
        self.after(least, most, Event::Client(client, happening));
    }

    fn is_calm(&self) -> bool {
        self.now >= self.calm_from
    }

    /// A server that has had time to hear of it holds nothing that was given back.
    fn check_given_back(&mut self) {
        const TIME: u64 = 6 * SECOND;
        let (now, laws) = (self.now, &mut self.laws);
        let Some(server) = &mut self.server else { return };
        if now < self.server_paused_until + TIME || server.has_letters() {
            return;
        }
        let page = server.page(self.server_clock.local(now), laws);
        for client in self.clients.iter().filter(|client| !client.is_dead) {
            let connection = client.connection.map(|on| &self.connections[&on]);
            let Some(connection) = connection.filter(|it| it.is_alive) else { continue };
            let since = connection.since.max(client.paused_until);
            for grant in page.rows.iter().filter_map(|row| row.grant) {
                let given_back = client.given_back.get(&grant).map(|at| since.max(*at) + TIME);
                laws.hold(Law::Return, given_back.is_none_or(|at| now < at), || {
                    format!("{grant:?} was given back and is held at {now}")
                });
            }
        }
    }

    fn disturb(&mut self) {
        self.check_given_back();
        if self.is_calm() {
            return;
        }
        let place = self.random.range(0, self.clients.len() as u64);
        let client = usize::try_from(place).unwrap();
        match self.random.range(0, 24) {
            0..=9 => self.cut(client),
            10..=14 => {
                let length = self.random.range(100 * MILLI, 4 * SECOND);
                let client = &mut self.clients[client];
                client.paused_until = client.paused_until.max(self.now + length);
            }
            15 if self.deaths == 0 => self.die(client),
            16..=17 => self.pause_server(),
            18 | 19 => {
                let is_clean = self.random.one_in(2);
                self.end(is_clean);
            }
            _ => {}
        }
        self.after(50 * MILLI, 1_500 * MILLI, Event::Disturb);
    }

    /// A client ends: it says so, or it breaks.
    fn die(&mut self, number: usize) {
        self.deaths += 1;
        if self.random.one_in(2) && self.now >= self.clients[number].paused_until {
            self.clients[number].conversation.close();
            self.drain(number);
        } else {
            self.cut(number);
        }
        let client = &mut self.clients[number];
        client.is_dead = true;
        client.held.clear();
    }

    fn pause_server(&mut self) {
        let most = if self.random.one_in(2) { 4 * SECOND } else { 300 * MILLI };
        let length = self.random.range(10 * MILLI, most);
        self.server_paused_until = self.server_paused_until.max(self.now + length);
        self.at(self.server_paused_until, Event::Serve);
    }

    /// The link of a client fails. What is under way on it is lost, or comes late.
    fn cut(&mut self, client: usize) {
        let is_late = self.random.one_in(2);
        let length = if self.random.one_in(2) { 3 * SECOND } else { 200 * MILLI };
        let comes_at = self.now + self.random.range(0, length);
        let (is_noticed, is_read) = (self.random.one_in(2), self.random.one_in(2));
        let alive = self.connections.values_mut().find(|it| it.client == client && it.is_alive);
        if let Some(connection) = alive {
            connection.is_alive = false;
            connection.is_read = is_read;
            connection.is_noticed = is_noticed && !is_late;
            connection.comes_at = is_late.then_some(comes_at);
            self.later(client, 0, 300 * MILLI, Happening::Down);
        }
    }

    fn start(&mut self) {
        let now = self.server_clock.local(self.now);
        self.runs += 1;
        self.server_paused_until = 0;
        let (disk, laws) = (&mut self.disk, &mut self.laws);
        self.server = Some(Server::start(now, self.runs, disk, laws, self.mistake));
        if !self.is_calm() && self.random.one_in(3) {
            let is_clean = self.random.one_in(2);
            self.after(0, 1_200 * MILLI, Event::End(is_clean));
        }
    }

    fn end(&mut self, is_clean: bool) {
        let Some(mut server) = self.server.take() else { return };
        if is_clean && self.now >= self.server_paused_until {
            let now = self.server_clock.local(self.now);
            self.laws.tally.stops += 1;
            for letter in server.stop(now, &mut self.disk, &mut self.laws) {
                self.send(letter);
            }
        } else {
            self.laws.tally.crashes += 1;
            self.disk.crash(&mut self.random);
        }
        for client in 0..self.clients.len() {
            self.cut(client);
        }
        if self.random.one_in(4) {
            // The machine is started anew, and its clock with it.
            self.disk.boot += 1;
            self.server_clock = any_clock(&mut self.random);
        }
        let most = if self.random.one_in(4) { 3 * SECOND } else { 100 * MILLI };
        self.after(0, most, Event::Start);
    }

    fn arrive(&mut self, from: ConnectionId, message: Frames) {
        let connection = &self.connections[&from];
        let server = self.server.as_mut().filter(|server| server.run == connection.run);
        let Some(server) = server else { return };
        match connection.comes_at {
            _ if connection.is_alive => server.receive(from, message),
            Some(at) if self.now < at => self.at(at, Event::ToServer(from, message)),
            Some(_) => server.receive(from, message),
            None => {}
        }
    }

    /// Lets the server do what is due, and sends what it says once that is on the disk.
    fn serve(&mut self) {
        if self.now < self.server_paused_until {
            return;
        }
        let Some(mut server) = self.server.take() else { return };
        let now = self.server_clock.local(self.now);
        loop {
            if !server.has_letters() {
                server.work(now, &mut self.laws);
                if server.has_letters() && !self.is_calm() && self.random.one_in(300) {
                    self.pause_server();
                    break;
                }
            }
            self.disk.add(server.entries());
            if self.disk.begin() {
                let most = if self.random.one_in(20) { 100 * MILLI } else { 3 * MILLI };
                self.after(MILLI / 10, most, Event::Written(server.run));
                if !self.is_calm() && self.random.one_in(20) {
                    self.after(0, 2 * MILLI, Event::End(false));
                }
            }
            let letters = server.letters(self.disk.written);
            if letters.is_empty() {
                break;
            }
            for letter in letters {
                if let Some((session, requests)) = self.send(letter) {
                    server.lose(now, session, &requests, &mut self.laws);
                }
            }
        }
        // One that waits for its disk is woken by that.
        let due = server.machine.poll_timeout().filter(|_| !server.has_letters());
        let due = due.map(|due| self.server_clock.true_time(due));
        self.server = Some(server);
        if let Some(due) = due.map(|due| due.max(self.now))
            && due >= self.server_paused_until
            && self.serve_at.is_none_or(|serve_at| due < serve_at)
        {
            self.serve_at = Some(due);
            self.at(due, Event::Serve);
        }
    }

    /// Sends a message to a client; what it answers, if the client is seen not to be there.
    fn send(&mut self, letter: Letter) -> Option<(SessionId, Vec<RequestId>)> {
        let connection = &self.connections[&letter.to];
        if connection.is_alive || connection.comes_at.is_some() {
            let client = connection.client;
            let message = Happening::Message(letter.to, letter.frames);
            self.deliver(letter.to, 1, Event::Client(client, message));
            return None;
        }
        letter.answers.filter(|_| connection.is_noticed)
    }

    /// Puts a message under way; none overtakes another one of the same connection.
    fn deliver(&mut self, on: ConnectionId, direction: usize, event: Event) {
        let most = match self.random.range(0, 200) {
            0 if !self.is_calm() => 1_500 * MILLI,
            1..=5 => 200 * MILLI,
            _ => 3 * MILLI,
        };
        let at = self.now + self.random.range(MILLI / 20, most);
        let connection = self.connections.get_mut(&on).unwrap();
        let at = at.max(connection.last_delivery[direction]);
        connection.last_delivery[direction] = at;
        self.at(at, event);
    }

    /// When all has had time to end, all locks are free, and all who asked are answered.
    pub fn check_rest(&mut self) -> Result<(), Violation> {
        // Nothing else may happen that has the server look at who has just asked for the page.
        self.at(self.now + SECOND, Event::Serve);
        let (laws, now) = (&mut self.laws, self.now);
        let server_now = self.server_clock.local(now);
        let page = self.server.as_mut().expect("it is up").page(server_now, laws);
        let rows = page.rows.iter().map(|row| (&row.key, row.grant, row.since));
        laws.hold(Law::Return, page.rows.is_empty(), || {
            format!("the server has {:?}", rows.collect::<Vec<_>>())
        });
        let leases: Vec<_> = self.disk.leases.keys().collect();
        laws.hold(Law::Return, leases.is_empty(), || format!("the disk has {leases:?}"));
        for (number, client) in self.clients.iter().enumerate().filter(|(_, it)| !it.is_dead) {
            let asked = &client.asked;
            laws.hold(Law::Answer, asked.is_empty(), || format!("{number} waits for {asked:?}"));
            let held: Vec<_> = client.holds(now).collect();
            laws.hold(Law::Return, held.is_empty(), || format!("{number} still holds {held:?}"));
            let beat = client.conversation.next_beat();
            laws.hold(Law::Silence, beat.is_none(), || format!("{number} beats at {beat:?}"));
        }
        laws.verdict()
    }

    /// A server that has nothing to do knows nobody.
    pub fn check_end(&mut self) -> Result<(), Violation> {
        let machine = &self.server.as_ref().expect("it is up").machine;
        let (tally, due) = (machine.tally(), machine.poll_timeout());
        let is_idle = tally.sessions == 0 && tally.waiting == 0 && due.is_none();
        self.laws.hold(Law::Return, is_idle, || format!("the server has {tally:?}, {due:?}"));
        self.laws.verdict()
    }
}
