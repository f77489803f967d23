//! One run of a server of locks: what `net::service` and `net::ledger` are round the engine.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use zmqlocker::engine::{
    Bounds, ClientInfo, Code, GrantId, Input, LockPage, Machine, Output, Reply, Request, RequestId,
    Rules, SessionId,
};
use zmqlocker::time::Timestamp;
use zmqlocker::wire::Frames;
use zmqlocker::wire::reply::{encode_heard, encode_lost, encode_reply, encode_welcome};
use zmqlocker::wire::request::{ClientItem, Hello, Items};

use crate::desk::{ConnectionId, Desk, Letter};
use crate::locks::Mistake;
use crate::locks::disk::{Disk, Entry};
use crate::locks::law::Laws;
use crate::locks::plan::{Parts, Plan};

pub struct Server {
    pub machine: Machine<()>,
    pub run: u64,
    desk: Desk,
    inbox: VecDeque<(ConnectionId, Frames)>,
    outbox: Vec<Letter>,
    /// The number of the record for which the next answers wait.
    awaited: u64,
    /// What is to be written.
    entries: Vec<(u64, Entry)>,
    clients: BTreeMap<SessionId, usize>,
    /// The latest connection of each client that was heard of.
    latest: BTreeMap<usize, ConnectionId>,
    /// What each request wants, and the leases that were granted, on which connections.
    wanted: BTreeMap<(SessionId, RequestId), Parts>,
    granted: BTreeMap<GrantId, Option<ConnectionId>>,
    reclaims: BTreeMap<(SessionId, RequestId), GrantId>,
    /// The last lease of each lock.
    current: BTreeMap<&'static str, (SessionId, GrantId)>,
    parts: BTreeMap<GrantId, Parts>,
    /// What was found on the disk, and nobody was told of by this run.
    restored: BTreeSet<GrantId>,
    next_release: u64,
    mistake: Option<Mistake>,
}

impl Server {
    /// Starts as a server does that finds this on its disk.
    pub fn start(
        now: Timestamp,
        run: u64,
        disk: &mut Disk,
        laws: &mut Laws,
        mistake: Option<Mistake>,
    ) -> Self {
        let rules = Rules::new([], None).unwrap();
        let patience = Duration::from_millis(200);
        let mut machine = Machine::new(now, rules, patience, Bounds::default());
        if disk.is_none {
            // What the time of day gives.
            disk.numbers_up_to = run << 32;
        }
        machine.number_grants_above(GrantId(disk.numbers_up_to));
        let mut all_is_known = true;
        if !disk.is_none {
            let up_to = machine.make_durable();
            if mistake != Some(Mistake::EpochUnwritten) {
                disk.numbers_up_to = up_to.0;
            }
            all_is_known = disk.handed_over.replace(false) != Some(false);
        }
        machine.begin_locks(now, all_is_known || mistake == Some(Mistake::NoGrace));
        laws.begin_run();
        let mut server = Self {
            machine,
            run,
            desk: Desk::default(),
            inbox: VecDeque::new(),
            outbox: Vec::new(),
            awaited: 0,
            entries: Vec::new(),
            clients: BTreeMap::new(),
            latest: BTreeMap::new(),
            wanted: BTreeMap::new(),
            granted: BTreeMap::new(),
            reclaims: BTreeMap::new(),
            current: BTreeMap::new(),
            parts: BTreeMap::new(),
            restored: BTreeSet::new(),
            next_release: 1 << 40,
            mistake,
        };
        for (grant, (boot, record)) in disk.leases.clone() {
            let same_clock = boot == disk.boot;
            assert!(server.machine.restore_lease(now, same_clock, grant, &record));
            laws.tally.restored += 1;
            server.granted.insert(grant, None);
            server.restored.insert(grant);
            server.drain(now, laws);
        }
        disk.written = 0;
        disk.add(server.entries.drain(..));
        disk.write_all();
        server
    }

    pub fn receive(&mut self, from: ConnectionId, message: Frames) {
        self.inbox.push_back((from, message));
    }

    /// Takes in what has come, and does what is due.
    pub fn work(&mut self, now: Timestamp, laws: &mut Laws) {
        while let Some((from, message)) = self.inbox.pop_front() {
            self.take_message(now, from, &message, laws);
        }
        while self.machine.poll_timeout().is_some_and(|due| due <= now) {
            self.handle(now, Input::Tick, laws);
        }
        self.outbox.extend(self.desk.letters());
    }

    pub fn entries(&mut self) -> impl Iterator<Item = (u64, Entry)> {
        self.entries.drain(..)
    }

    pub fn has_letters(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// What may leave when so much is on the disk.
    pub fn letters(&mut self, written: u64) -> Vec<Letter> {
        if self.awaited > written && self.mistake != Some(Mistake::AnswerBeforeRecord) {
            return Vec::new();
        }
        std::mem::take(&mut self.outbox)
    }

    fn take_message(
        &mut self,
        now: Timestamp,
        from: ConnectionId,
        message: &Frames,
        laws: &mut Laws,
    ) {
        let knows = |session: &SessionId| self.machine.knows(*session);
        let mut session = self.desk.session_of(from).filter(knows);
        for item in Items::new(message.get(0).unwrap()) {
            match (item.expect("a client says only what is legal"), session) {
                (ClientItem::Hello(hello), _) => {
                    session = self.welcome(now, from, &hello, laws);
                    if session.is_none() {
                        return;
                    }
                }
                (ClientItem::Ask { id, request }, Some(session)) => {
                    self.ask(now, session, id, &request, laws);
                }
                (ClientItem::Beat { number, floor, open }, Some(session)) => {
                    self.handle(now, Input::Beat(session, floor, &open), laws);
                    self.desk.write(session, None, |body| encode_heard(body, number));
                }
                (ClientItem::Cancel(id), Some(session)) => {
                    self.handle(now, Input::Cancel(session, id), laws);
                }
                (ClientItem::Bye, Some(id)) => {
                    self.handle(now, Input::Bye(id), laws);
                    session = None;
                }
                (_, None) => return self.desk.does_not_know(from),
                (item, _) => panic!("a client says {item:?}"),
            }
        }
    }

    fn welcome(
        &mut self,
        now: Timestamp,
        from: ConnectionId,
        hello: &Hello<'_>,
        laws: &mut Laws,
    ) -> Option<SessionId> {
        let (id, _) = self.machine.greet(now, hello.session, ClientInfo::default()).unwrap();
        self.drain(now, laws);
        let client = hello.session[0].into();
        let latest = self.latest.entry(client).or_insert(from);
        laws.tally.late_hellos += u64::from(from < *latest);
        *latest = from.max(*latest);
        if !self.desk.settle(id, from, hello.connection) {
            return None;
        }
        self.clients.insert(id, client);
        let (run, patience) = (self.run, self.machine.patience());
        self.desk.write(id, None, |body| encode_welcome(body, run, patience));
        Some(id)
    }

    fn ask(
        &mut self,
        now: Timestamp,
        session: SessionId,
        id: RequestId,
        request: &Request<'_>,
        laws: &mut Laws,
    ) {
        match request {
            Request::Lock { wanted, .. } => {
                self.wanted.insert((session, id), Plan::parts_of(wanted));
            }
            Request::Reclaim { grant, wanted } => {
                self.parts.insert(*grant, Plan::parts_of(wanted));
                self.reclaims.insert((session, id), *grant);
                if self.mistake == Some(Mistake::ForgetsWhatWasHeld) {
                    self.machine.begin_locks(now, true);
                }
            }
            Request::Release { grant } if self.mistake == Some(Mistake::ReleaseWithoutToken) => {
                self.release_whatever_is_current(now, *grant, laws);
            }
            Request::Release { grant } if self.mistake == Some(Mistake::ReleaseSaidOnce) => {
                let on = self.granted.get(grant).copied().flatten();
                if on != self.desk.connection_of(session) {
                    let encode = |body: &mut Vec<u8>| encode_reply(body, id, &Reply::Done);
                    return self.desk.write(session, Some(id), encode);
                }
            }
            _ => {}
        }
        self.handle(now, Input::Ask(session, id, request), laws);
    }

    fn release_whatever_is_current(&mut self, now: Timestamp, grant: GrantId, laws: &mut Laws) {
        for (key, _) in self.parts.get(&grant).cloned().unwrap_or_default() {
            let Some((session, current)) = self.current.get(key).copied() else { continue };
            self.next_release += 1;
            let release = Request::Release { grant: current };
            self.handle(now, Input::Ask(session, RequestId(self.next_release), &release), laws);
        }
    }

    /// The connection on which these answers were sent was found to be gone.
    pub fn lose(
        &mut self,
        now: Timestamp,
        session: SessionId,
        requests: &[RequestId],
        laws: &mut Laws,
    ) {
        self.handle(now, Input::Lost(session, requests), laws);
    }

    fn handle(&mut self, now: Timestamp, input: Input<'_, '_, ()>, laws: &mut Laws) {
        self.machine.handle(now, input);
        self.drain(now, laws);
    }

    fn drain(&mut self, now: Timestamp, laws: &mut Laws) {
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Reply { session, request, reply } => {
                    self.note(now, (session, request), &reply, laws);
                    let encode = |body: &mut Vec<u8>| encode_reply(body, request, &reply);
                    self.desk.write(session, Some(request), encode);
                }
                Output::Lost { session, grants } => {
                    laws.take_from_holders(&grants);
                    self.desk.write(session, None, |body| encode_lost(body, &grants));
                }
                Output::Await { number } => self.awaited = number,
                output => self.entries.extend(Entry::of(output)),
            }
        }
    }

    /// Has the laws know what is granted.
    fn note(
        &mut self,
        now: Timestamp,
        asked: (SessionId, RequestId),
        reply: &Reply,
        laws: &mut Laws,
    ) {
        match reply {
            Reply::Decision(decision) => {
                let found = decision.grant.is_some_and(|token| self.restored.remove(&token));
                laws.tally.found += u64::from(found);
                let is_new = |token: &GrantId| !self.granted.contains_key(token);
                let Some(token) = decision.grant.filter(is_new) else { return };
                self.granted.insert(token, self.desk.connection_of(asked.0));
                let parts = self.wanted[&asked].clone();
                laws.grant(now.as_nanos(), token, &parts);
                for (key, _) in &parts {
                    self.current.insert(key, (asked.0, token));
                }
                self.parts.insert(token, parts);
            }
            Reply::Done => {
                if let Some(token) = self.reclaims.remove(&asked) {
                    laws.reclaim(now.as_nanos(), token, &self.parts[&token]);
                }
            }
            Reply::Refuse(problem) if problem.code == Code::Deadlock => laws.tally.deadlocks += 1,
            _ => {}
        }
    }

    /// Stops as a server does that is told to, with time to do so. The last that it says.
    pub fn stop(&mut self, now: Timestamp, disk: &mut Disk, laws: &mut Laws) -> Vec<Letter> {
        self.work(now, laws);
        self.handle(now, Input::Close, laws);
        self.outbox.extend(self.desk.letters());
        if disk.is_none {
            return std::mem::take(&mut self.outbox);
        }
        let mut next = Some(0);
        while let Some(place) = next {
            next = self.machine.settle(now, place);
            self.drain(now, laws);
        }
        let all_is_known = self.machine.hand_over(now);
        self.drain(now, laws);
        disk.add(self.entries.drain(..));
        disk.write_all();
        disk.handed_over = Some(all_is_known);
        std::mem::take(&mut self.outbox)
    }

    /// The locks that are held or waited for.
    pub fn page(&mut self, now: Timestamp, laws: &mut Laws) -> LockPage {
        self.work(now, laws);
        let (session, _) = self.machine.greet(now, [255; 16], ClientInfo::default()).unwrap();
        self.machine.handle(now, Input::Bye(session));
        let (session, _) = self.machine.greet(now, [255; 16], ClientInfo::default()).unwrap();
        let request = Request::Locks { from: 0 };
        self.machine.handle(now, Input::Ask(session, RequestId(1), &request));
        match self.machine.poll_output() {
            Some(Output::Reply { reply: Reply::Locks(page), .. }) => page,
            other => panic!("{other:?}"),
        }
    }
}
