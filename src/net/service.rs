//! The thread of a server: takes messages in, has the engine decide, sends the answers.

use std::mem;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use mio::{Events, Poll, Token};

use crate::answer::Answer;
use crate::engine::{
    Code, Cost, Demand, Hold, Input, Key, Machine, Output, Problem, Reply, Request, ServerFacts,
    SessionId, Wait,
};
use crate::error::Error;
use crate::net::alarm::Alarm;
use crate::net::callers::Callers;
use crate::net::claim::Claim;
use crate::net::clock::BootClock;
use crate::net::desk::{Desk, Letter, client_info};
use crate::net::guard::{Guard, Sender};
use crate::net::homes::Homes;
use crate::net::journal::Journal;
use crate::net::ledger::Ledger;
use crate::net::peers::PeerLine;
use crate::net::records::Entry;
use crate::net::room::too_fast;
use crate::net::server::{Control, Reload};
use crate::net::showing::Showing;
use crate::net::socket::{Sent, Socket};
use crate::net::warden::Warden;
use crate::time::{Clock, Timestamp};
use crate::wire::request::{ClientItem, Hello, Items};
use crate::wire::seed::{self, Envelope};
use crate::wire::{Frames, VERSION};

/// How many messages are taken in, or requests answered, before the answers go out and the time is
/// looked at. Whoever asks much at once has the first answers while the others are worked out.
const BATCH_MAX: u64 = 256;

/// What the seed's clients ask for.
pub(super) const SEED_REQUEST: Request<'static> = Request::Acquire {
    demand: Demand::one(Key::DEFAULT, Cost::ONE),
    wait: Wait::Patience,
    hold: Hold::Spend,
};

pub(super) const SOCKET: Token = Token(0);
pub(super) const WAKER: Token = Token(1);
pub(super) const ALARM: Token = Token(2);
pub(super) const GUARD: Token = Token(3);
pub(super) const FORWARD: Token = Token(4);

/// Of the first of the other servers.
pub(super) const PEERS: usize = 5;

/// Tells those who wait for the end of a server, however it comes.
struct Finish {
    control: Arc<Control>,
    outcome: Result<(), Error>,
}

impl Drop for Finish {
    fn drop(&mut self) {
        let outcome = mem::replace(&mut self.outcome, Ok(()));
        *self.control.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
        self.control.finished.notify_all();
    }
}

/// What the thread of a server owns.
pub(super) struct Service {
    pub(super) endpoint: String,
    /// The number of this run of the server.
    pub(super) number: u64,
    pub(super) within_process: bool,
    pub(super) started_at: Timestamp,
    pub(super) socket: Socket,
    /// Who is let in, if the server has a key. Closed behind the socket, whose library asks it.
    pub(super) guard: Option<Guard>,
    /// Who has sent the message that is looked at, if clients have keys.
    pub(super) sender: Option<Sender>,
    pub(super) poll: Poll,
    pub(super) alarm: Alarm,
    pub(super) machine: Machine<Envelope>,
    pub(super) sessions_max: usize,
    /// When room for sessions may be looked for again.
    pub(super) room_at: Timestamp,
    pub(super) desk: Desk,
    /// Who speaks on which connection.
    pub(super) callers: Callers,
    /// Who looks after the connections, unless they are within the process.
    pub(super) warden: Option<Warden>,
    pub(super) clock: BootClock,
    pub(super) control: Arc<Control>,
    pub(super) journal: Journal,
    /// What there is for those who watch, if somebody may.
    pub(super) showing: Option<Showing>,
    /// Where usage outlives the server.
    pub(super) ledger: Option<Ledger>,
    /// Its place among several servers, if there are others.
    pub(super) homes: Option<Box<Homes>>,
    /// The other servers that count for each other with this one, if there are.
    pub(super) peers: Option<PeerLine>,
    /// When it stops, if it is to, though somebody waits or holds something.
    pub(super) drained_at: Option<Timestamp>,
    /// The number of the record for which the next answers wait.
    pub(super) awaited: u64,
    /// The memory into which the next message is received.
    pub(super) message: Frames,
    /// The answers of a batch: all that has come is taken in before any of them is sent.
    pub(super) outbox: Vec<(Envelope, Result<Answer, Problem>)>,
}

impl Service {
    pub(super) fn run(mut self, context: zmq::Context, claim: Option<Claim>) {
        let mut finish = Finish {
            control: Arc::clone(&self.control),
            outcome: Err(Error::system("serve", &"the thread broke: please report it")),
        };
        finish.outcome = self.serve();
        match &finish.outcome {
            Ok(()) => self.journal.stop(self.control.stats()),
            Err(error) => self.journal.failure(error),
        }
        // The name of an `inproc` endpoint is free after this, a port when the context is gone. To
        // unbind a port as well would end its connections with answers half written.
        if self.within_process {
            let _ = self.socket.options().unbind(&self.endpoint);
        }
        // Its threads may wait for the registry. Whoever asks meanwhile is not to be taken in.
        let homes = self.homes.take();
        let warden = self.warden.take();
        let control = Arc::clone(&self.control);
        drop(self);
        control.traffic.is_over.store(true, Ordering::Release);
        warden.into_iter().for_each(Warden::join);
        drop(context);
        drop(homes);
        claim.into_iter().for_each(Claim::end);
        drop(finish);
    }

    fn serve(&mut self) -> Result<(), Error> {
        let mut events = Events::with_capacity(8);
        while !self.is_done() {
            self.control.turns.fetch_add(1, Ordering::Relaxed);
            // Who has seen other clients let in and connects then is let in by them.
            self.reload();
            self.keep_home()?;
            let all_admitted = self.admit()?;
            let all_heard = self.hear_peers()?;
            let (messages, all_taken) = self.take_in()?;
            self.forward_on()?;
            if let Some(showing) = &mut self.showing {
                showing.took(messages);
            }
            self.tick();
            let all_told = self.tell_peers()?;
            self.set_alarm()?;
            let sent = self.send_answers()?;
            self.show();
            // To send is to look at the socket: what came meanwhile would not wake this thread.
            if all_admitted && all_heard && all_taken && all_told && !sent {
                self.wait(&mut events)?;
            }
        }
        self.handle(self.clock.now(), Input::Close);
        self.end_forwarding();
        self.leave_peers()?;
        self.send_answers()?;
        self.settle()
    }

    /// Takes in a batch of messages: how many, and whether there were no more.
    fn take_in(&mut self) -> Result<(u64, bool), Error> {
        let mut messages = 0;
        while messages < BATCH_MAX {
            if !self.socket.receive(&mut self.message)? {
                self.control.traffic.drained.fetch_add(1, Ordering::Release);
                return Ok((messages, true));
            }
            messages += 1;
            // Who has seen other rules come and asks then is answered by them.
            self.reload();
            let message = mem::take(&mut self.message);
            let now = self.clock.now();
            let known = self.recognize();
            self.callers.heard(now, message.get(0).unwrap_or_default(), &mut self.socket);
            match (message.len(), message.get(0), message.get(1)) {
                (2, Some(routing_id), Some(body)) if !body.is_empty() => match known {
                    Ok(()) => self.converse(now, routing_id, body),
                    Err(problem) => {
                        self.deny(now, &problem);
                        self.desk.problem(routing_id, &problem);
                    }
                },
                _ => self.answer_seed(now, &message, known)?,
            }
            self.message = message;
            // Answers that have to be on the disk before go there together.
            if self.ledger.is_none() && self.desk.answers() as u64 >= BATCH_MAX {
                break;
            }
        }
        Ok((messages, false))
    }

    /// A request of one of the seed's clients.
    fn answer_seed(
        &mut self,
        now: Timestamp,
        message: &Frames,
        known: Result<(), Problem>,
    ) -> Result<(), Error> {
        match seed::parse_request(message) {
            Ok(envelope) => {
                if let Err(problem) = known.and_then(|()| self.judge(&SEED_REQUEST)) {
                    self.deny(now, &problem);
                    let answer = format!("error: {problem}");
                    return self.socket.send(&envelope.answer(answer.as_bytes())).map(drop);
                }
                if self.journal.is_new(envelope.routing_id()) {
                    let address = self.socket.peer_address();
                    self.journal.first_request(now, envelope.routing_id(), address);
                }
                if self.callers.may_ask(now, envelope.routing_id()) {
                    self.next(now, envelope);
                } else {
                    self.hurried(now, None);
                    self.outbox.push((envelope, Err(too_fast())));
                }
            }
            Err((bad, envelope)) => {
                self.complain(now, envelope.routing_id(), &bad);
                self.send(&envelope.answer(bad.to_string().as_bytes()))?;
            }
        }
        Ok(())
    }

    /// A message of a client that speaks our protocol.
    fn converse(&mut self, now: Timestamp, routing_id: &[u8], body: &[u8]) {
        let mut session =
            self.desk.session_of(routing_id).filter(|session| self.machine.knows(*session));
        for item in Items::new(body) {
            let item = match item {
                Ok(item) => item,
                Err(problem) => return self.refuse(now, routing_id, &problem),
            };
            match (item, session) {
                (ClientItem::Hello(hello), _) => {
                    let Some(id) = self.greet(now, routing_id, &hello, session) else { return };
                    session = Some(id);
                }
                (ClientItem::OtherVersion(version), _) => {
                    let message =
                        format!("this server speaks version {VERSION}, not version {version}");
                    let problem = Problem { code: Code::Protocol, message };
                    return self.refuse(now, routing_id, &problem);
                }
                (ClientItem::Bad { id, problem }, Some(session)) => {
                    self.complain(now, routing_id, &problem);
                    match id {
                        Some(id) => {
                            let reply = Reply::Refuse(problem);
                            self.desk.reply(session, id, &reply);
                        }
                        None => self.desk.problem(routing_id, &problem),
                    }
                }
                (ClientItem::Bye, Some(id)) => {
                    self.handle(now, Input::Bye(id));
                    session = None;
                }
                (ClientItem::Ask { id, .. }, Some(session))
                    if !self.callers.may_ask(now, routing_id) =>
                {
                    self.hurried(now, Some(session));
                    self.desk.reply(session, id, &Reply::Refuse(too_fast()));
                }
                (item, Some(session)) => self.take_item(now, session, item),
                (_, None) => {
                    let message = "the session is not known: say hello, and ask again".to_owned();
                    let problem = Problem { code: Code::UnknownSession, message };
                    return self.desk.problem(routing_id, &problem);
                }
            }
        }
    }

    /// A client says who it is, on a connection that spoke for the session `before`. Its session,
    /// if what else it says here counts.
    fn greet(
        &mut self,
        now: Timestamp,
        routing_id: &[u8],
        hello: &Hello<'_>,
        before: Option<SessionId>,
    ) -> Option<SessionId> {
        let client = client_info(hello);
        self.make_room(now);
        let greeted = self.machine.greet(now, hello.session, client.clone());
        self.drain();
        let (id, is_new) = match greeted {
            Ok(greeted) => greeted,
            Err(problem) => {
                self.turn_away(now, routing_id, &client, &problem);
                return None;
            }
        };
        if let Err(problem) = self.claim(id) {
            self.deny(now, &problem);
            self.desk.problem(routing_id, &problem);
            return None;
        }
        if !self.desk.settle(id, routing_id, hello.connection) {
            // What the client has said here it has said again elsewhere.
            return None;
        }
        self.end_other(now, before, id);
        // Whoever is welcome knows by then whether there are other servers.
        self.tell_homes(id);
        self.desk.welcome(id, self.number, self.machine.patience());
        let address = self.socket.peer_address();
        self.desk.note_address(id, address.unwrap_or_default());
        self.callers.introduce(routing_id, &client);
        if is_new {
            self.journal.hello(now, hello, address);
        }
        Some(id)
    }

    fn take_item(&mut self, now: Timestamp, session: SessionId, item: ClientItem<'_>) {
        match item {
            ClientItem::Ask { id, request } => match self.judge(&request) {
                Ok(()) if self.is_home(now, (session, id), &request) => {
                    self.handle(now, Input::Ask(session, id, &request));
                }
                Ok(()) => {}
                Err(problem) => {
                    self.deny(now, &problem);
                    self.desk.reply(session, id, &Reply::Refuse(problem));
                }
            },
            ClientItem::Beat { number, floor, open } => {
                self.handle(now, Input::Beat(session, floor, &open));
                if self.is_alive(now) {
                    self.tell_homes(session);
                    self.desk.heard(session, number);
                }
            }
            ClientItem::KnowMoved(grants) => self.machine.know_moved(session, &grants),
            ClientItem::Cancel(id) => self.handle(now, Input::Cancel(session, id)),
            ClientItem::Hello(_)
            | ClientItem::OtherVersion(_)
            | ClientItem::Bad { .. }
            | ClientItem::Bye => {}
        }
    }

    /// Takes up other rules and other clients, if there are any.
    fn reload(&mut self) {
        if !self.control.reload_waits.load(Ordering::Acquire) {
            return;
        }
        self.control.reload_waits.store(false, Ordering::Release);
        let reload = self.control.reload.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Reload { rules, clients }) = reload else { return };
        let clients = clients.filter(|_| self.guard.is_some());
        self.journal.reload(self.clock.now(), &rules, clients.as_ref());
        if let (Some(guard), Some(clients)) = (&mut self.guard, clients) {
            for session in guard.take_up(clients) {
                self.handle(self.clock.now(), Input::Bar(session));
            }
        }
        self.handle(self.clock.now(), Input::Rules(rules));
    }

    pub(super) fn handle(&mut self, now: Timestamp, input: Input<'_, '_, Envelope>) {
        self.machine.handle(now, input);
        self.drain();
    }

    pub(super) fn drain(&mut self) {
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Seed { to, answer: Err(Problem { code: Code::NotHome, .. }) } => {
                    self.forward(self.clock.now(), to);
                }
                Output::Seed { to, answer } => {
                    if let Err(problem) = &answer {
                        self.note_seed_bound(problem);
                    }
                    self.outbox.push((to, answer));
                }
                Output::Reply { session, request, mut reply } => {
                    self.fill_in(&mut reply);
                    self.note_bound(session, &reply);
                    if let Reply::Refuse(Problem { code: Code::NotHome, .. }) = &reply {
                        self.point_home(session);
                    }
                    self.desk.reply(session, request, &reply);
                }
                Output::WouldRefuse { key, limit } => {
                    self.journal.would_refuse(self.clock.now(), &key, &limit);
                }
                Output::Lost { session, grants } => self.desk.lost(session, &grants),
                Output::Moved { session, grants } => self.desk.moved(session, &grants),
                output
                @ (Output::Record { .. } | Output::Lease { .. } | Output::Numbers { .. }) => {
                    if let (Some(ledger), Some((number, entry))) = (&self.ledger, Entry::of(output))
                    {
                        ledger.write(number, entry);
                    }
                }
                Output::Await { number } => self.awaited = number,
            }
        }
    }

    /// Adds what the engine does not know to what it says of this server.
    fn fill_in(&self, reply: &mut Reply) {
        match reply {
            Reply::Status(status) => status.facts = self.facts(),
            Reply::Clients(page) => self.desk.fill_in(&mut page.rows),
            _ => {}
        }
        if let Some(sender) = &self.sender {
            // What lists keys is an answer at once, to the sender of the present message.
            sender.client.rights.show(reply);
        }
    }

    pub(super) fn facts(&self) -> ServerFacts {
        let now = self.clock.now();
        let is_alive = |homes: &Homes| now < homes.membership.home().alive_until();
        ServerFacts {
            version: env!("CARGO_PKG_VERSION").into(),
            endpoint: self.endpoint.as_str().into(),
            server: self.number,
            uptime: now.since(self.started_at),
            security: if self.guard.is_some() { "curve" } else { "none" }.into(),
            is_durable: self.ledger.is_some(),
            reaches_registry: self.homes.as_deref().map(is_alive),
            bad_messages: self.control.stats().bad_messages,
        }
    }

    /// Sends what there is to send, once its usage is on the disk. Whether there was anything.
    fn send_answers(&mut self) -> Result<bool, Error> {
        if let Some(ledger) = &self.ledger {
            ledger.wait_until_written(self.awaited)?;
        }
        let letters = self.desk.letters();
        let any = !self.outbox.is_empty() || !letters.is_empty();
        self.control.counters.copy(self.machine.tally());
        let mut outbox = mem::take(&mut self.outbox);
        for (to, answer) in outbox.drain(..) {
            let message = match answer {
                Ok(answer) => to.answer(seed::encode_answer(answer)),
                Err(problem) => to.answer(format!("error: {problem}").as_bytes()),
            };
            // A client that is gone, or reads nothing, costs its answer and nothing else.
            self.send(&message)?;
        }
        self.outbox = outbox;
        for Letter { frames, answers } in letters {
            let sent = self.send(&frames)?;
            if let (Sent::Gone, Some((session, requests))) = (sent, answers) {
                // What it was granted is taken back, and goes to those who wait behind it.
                let now = self.clock.now();
                self.handle(now, Input::Lost(session, &requests));
            }
        }
        Ok(any)
    }
}
