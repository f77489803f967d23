//! What `net::service` and `net::desk` are round the engine, without sockets, and a witness of it.

use std::collections::BTreeMap;
use std::time::Duration;

use zmqlocker::engine::{
    Bounds, ClientInfo, Code, GrantId, Input, Limits, Machine, Output, Problem, Reply, Request,
    RequestId, Rules, SessionId,
};
use zmqlocker::time::Timestamp;
use zmqlocker::wire::Frames;
use zmqlocker::wire::reply::{encode_heard, encode_problem, encode_reply, encode_welcome};
use zmqlocker::wire::request::{ClientItem, Items};

use crate::keys::KEYS;
use crate::witness::Witness;

/// A message is sent when it has so many bytes: far fewer than at a real server, so that a batch
/// fills several.
const FULL: usize = 150;

/// A connection, by a number that is never used again.
pub type ConnectionId = u64;

/// One run of a server.
pub struct Server {
    pub machine: Machine<()>,
    pub run: u64,
    pub witness: Witness,
    /// Who said hello on which connection.
    sessions: BTreeMap<ConnectionId, SessionId>,
    connections: BTreeMap<SessionId, Connection>,
    names: BTreeMap<SessionId, usize>,
    full: Vec<Letter>,
}

struct Connection {
    id: ConnectionId,
    body: Vec<u8>,
    answered: Vec<RequestId>,
}

/// A message to a client, and the requests that it answers.
pub struct Letter {
    pub to: ConnectionId,
    pub frames: Frames,
    pub answers: Option<(SessionId, Vec<RequestId>)>,
}

impl Server {
    pub fn new(now: Timestamp, run: u64) -> Self {
        let rules = KEYS.iter().map(|key| (key.name.to_owned(), Limits::parse(&[key.limit])));
        let rules = Rules::new(rules.map(|(name, limits)| (name, limits.unwrap())), None).unwrap();
        let patience = Duration::from_millis(200);
        let mut machine = Machine::new(now, rules, patience, Bounds::default());
        // As the server does it: what an earlier run granted is not taken for what this one has.
        machine.number_grants_above(GrantId(run << 32));
        Self {
            machine,
            run,
            witness: Witness::default(),
            sessions: BTreeMap::new(),
            connections: BTreeMap::new(),
            names: BTreeMap::new(),
            full: Vec::new(),
        }
    }

    pub fn receive(&mut self, now: Timestamp, from: ConnectionId, message: &Frames) {
        let knows = |session: &SessionId| self.machine.knows(*session);
        let mut session = self.sessions.get(&from).copied().filter(knows);
        for item in Items::new(message.get(0).unwrap()) {
            match (item.expect("a client says only what is legal"), session) {
                (ClientItem::Hello(hello), _) => {
                    self.tick(now);
                    let client = ClientInfo::default();
                    let (id, _) = self.machine.greet(now, hello.session, client).unwrap();
                    session = Some(id);
                    self.settle(id, from);
                    self.names.insert(id, hello.session[0].into());
                    let (run, patience) = (self.run, self.machine.patience());
                    self.write(id, None, |body| encode_welcome(body, run, patience));
                }
                (ClientItem::Ask { id, request }, Some(session)) => {
                    self.ask(now, session, id, &request);
                }
                (ClientItem::Beat { number, floor, open }, Some(session)) => {
                    self.handle(now, Input::Beat(session, floor, &open));
                    self.write(session, None, |body| encode_heard(body, number));
                }
                (ClientItem::Cancel(id), Some(session)) => {
                    // Whose turn has come before is seen to have left its queue first.
                    self.tick(now);
                    self.witness.cancel(self.names[&session], id);
                    self.handle(now, Input::Cancel(session, id));
                }
                (ClientItem::Bye, Some(session)) => self.handle(now, Input::Bye(session)),
                (_, None) => {
                    let message = "the session is not known".to_owned();
                    let problem = Problem { code: Code::UnknownSession, message };
                    let mut body = Vec::new();
                    encode_problem(&mut body, &problem);
                    let frames = Frames::from_iter([body.as_slice()]);
                    return self.full.push(Letter { to: from, frames, answers: None });
                }
                (item, _) => panic!("a client says {item:?}"),
            }
        }
    }

    fn ask(&mut self, now: Timestamp, session: SessionId, id: RequestId, request: &Request<'_>) {
        self.witness.ask(self.names[&session], id, request);
        self.handle(now, Input::Ask(session, id, request));
    }

    pub fn tick(&mut self, now: Timestamp) {
        while self.machine.poll_timeout().is_some_and(|due| due <= now) {
            self.handle(now, Input::Tick);
        }
    }

    /// The connection on which these answers were sent was found to be gone.
    pub fn lose(&mut self, now: Timestamp, session: SessionId, requests: &[RequestId]) {
        if let Some(client) = self.names.get(&session) {
            self.witness.lose(*client, requests);
        }
        self.handle(now, Input::Lost(session, requests));
    }

    pub fn handle(&mut self, now: Timestamp, input: Input<'_, '_, ()>) {
        self.machine.handle(now, input);
        let mut replies = Vec::new();
        while let Some(output) = self.machine.poll_output() {
            let Output::Reply { session, request, reply } = output else { continue };
            self.write(session, Some(request), |body| encode_reply(body, request, &reply));
            replies.push((self.names[&session], request, reply));
        }
        // Whoever leaves a queue at this instant has left it before others move up.
        replies.sort_by_key(|(_, _, reply)| match reply {
            Reply::Decision(decision) => decision.allowed,
            Reply::Block(block) => block.permits > 0,
            _ => false,
        });
        for (client, request, reply) in replies {
            self.witness.reply(now, client, request, &reply);
        }
    }

    fn settle(&mut self, session: SessionId, id: ConnectionId) {
        if let Some(before) = self.connections.remove(&session)
            && before.id != id
        {
            self.sessions.remove(&before.id);
            self.full.retain(|letter| letter.to != before.id);
        }
        self.sessions.insert(id, session);
        self.connections.insert(session, Connection { id, body: vec![], answered: vec![] });
    }

    fn write(
        &mut self,
        session: SessionId,
        request: Option<RequestId>,
        encode: impl FnOnce(&mut Vec<u8>),
    ) {
        if let Some(connection) = self.connections.get_mut(&session) {
            encode(&mut connection.body);
            connection.answered.extend(request);
            if connection.body.len() > FULL {
                self.full.push(connection.finish(session));
            }
        }
    }

    pub fn letters(&mut self) -> Vec<Letter> {
        let mut letters = std::mem::take(&mut self.full);
        for (session, connection) in &mut self.connections {
            if !connection.body.is_empty() {
                letters.push(connection.finish(*session));
            }
        }
        letters
    }
}

impl Connection {
    fn finish(&mut self, session: SessionId) -> Letter {
        let frames = Frames::from_iter([std::mem::take(&mut self.body).as_slice()]);
        let answers = Some((session, std::mem::take(&mut self.answered)));
        Letter { to: self.id, frames, answers }
    }
}
