//! A server's correspondence with clients that speak our protocol: whose connection is whose, and
//! what is to be sent on it.

use std::collections::HashMap;
use std::time::Duration;

use crate::engine::{ClientInfo, ClientRow, GrantId, Problem, Reply, RequestId, SessionId};
use crate::wire::homes::HomeMap;
use crate::wire::reply::{
    encode_heard, encode_homes, encode_lost, encode_moved, encode_problem, encode_reply,
    encode_welcome,
};
use crate::wire::request::Hello;
use crate::wire::seed::BYTES_MAX;
use crate::wire::{Frames, ITEMS_MAX};

/// A message is sent when it has so many bytes, that another item fits for certain.
const FULL: usize = BYTES_MAX - 4096;

/// ZeroMQ's name for a connection.
type RoutingId = Box<[u8]>;

/// The connections on which a hello was said.
#[derive(Debug, Default)]
pub(super) struct Desk {
    by_routing_id: HashMap<RoutingId, SessionId>,
    /// Where each session was heard last, by its place.
    connections: Vec<Option<Connection>>,
    /// The places of the sessions to which there is something to send.
    due: Vec<usize>,
    /// Whole messages, in the order in which they are to be sent.
    full: Vec<Letter>,
    /// How many answers were written since messages were sent last.
    answers: usize,
}

#[derive(Debug)]
struct Connection {
    session: SessionId,
    routing_id: RoutingId,
    /// Where it comes from, if that is known.
    address: Box<str>,
    /// Which of the session's connections it is.
    number: u64,
    body: Vec<u8>,
    /// How many items it has.
    items: usize,
    /// The requests that `body` answers.
    answered: Vec<RequestId>,
    /// Which map of homes was told on it, by its number.
    homes_told: u64,
}

/// A message to a client, and what is in it.
#[derive(Debug)]
pub(super) struct Letter {
    pub(super) frames: Frames,
    /// The session and the requests that it answers.
    pub(super) answers: Option<(SessionId, Vec<RequestId>)>,
}

impl Desk {
    /// The session that said hello on a connection.
    pub(super) fn session_of(&self, routing_id: &[u8]) -> Option<SessionId> {
        self.by_routing_id.get(routing_id).copied()
    }

    /// The sessions, each with the connection on which it was heard last.
    pub(super) fn sessions(&self) -> impl Iterator<Item = (SessionId, &[u8])> {
        let connections = self.connections.iter().flatten();
        connections.map(|connection| (connection.session, &*connection.routing_id))
    }

    /// How many connections have said hello.
    pub(super) fn len(&self) -> usize {
        self.by_routing_id.len()
    }

    /// From now on the session is where this connection is, unless a later one has said hello.
    /// Whether it is there.
    pub(super) fn settle(&mut self, session: SessionId, routing_id: &[u8], number: u64) -> bool {
        let place = session.place();
        if self.connections.len() <= place {
            self.connections.resize_with(place + 1, || None);
        }
        let is_later = |here: &Connection| here.session == session && number < here.number;
        if self.connections[place].as_ref().is_some_and(is_later) {
            return false;
        }
        self.by_routing_id.insert(routing_id.into(), session);
        match &mut self.connections[place] {
            // What was written for this very connection is still to be sent. If it was for another
            // session, that one is gone: nothing that it was granted is there to be taken back.
            Some(here) if *here.routing_id == *routing_id => {
                here.number = number;
                if here.session != session {
                    here.session = session;
                    here.answered.clear();
                }
            }
            elsewhere => {
                if let Some(before) =
                    elsewhere.replace(Connection::new(session, routing_id, number))
                {
                    self.by_routing_id.remove(&before.routing_id);
                    // What it would hear there it asks again here: nothing of that is lost.
                    self.full.retain(|letter| letter.frames.get(0) != Some(&before.routing_id));
                }
            }
        }
        true
    }

    /// Notes where the connection of a session comes from.
    pub(super) fn note_address(&mut self, session: SessionId, address: &str) {
        let here = self.connections.get_mut(session.place()).and_then(Option::as_mut);
        if let Some(here) = here.filter(|here| here.session == session) {
            here.address = address.into();
        }
    }

    /// Where the connection of a session comes from, if that is known.
    pub(super) fn address_of(&self, session: SessionId) -> Option<&str> {
        let here = self.connections.get(session.place()).and_then(Option::as_ref);
        let here = here.filter(|here| here.session == session && !here.address.is_empty());
        here.map(|here| &*here.address)
    }

    /// Says of clients where they are, as far as that is known.
    pub(super) fn fill_in(&self, rows: &mut [ClientRow]) {
        for row in rows {
            let address = row.session.and_then(|session| self.address_of(session));
            row.address = address.unwrap_or_default().into();
        }
    }

    /// Forgets the connections whose session is not there any more.
    pub(super) fn tidy(&mut self, is_there: impl Fn(SessionId) -> bool) {
        self.by_routing_id.retain(|_, session| is_there(*session));
        for connection in &mut self.connections {
            if connection.as_ref().is_some_and(|connection| !is_there(connection.session)) {
                *connection = None;
            }
        }
    }

    pub(super) fn welcome(&mut self, session: SessionId, server: u64, patience: Duration) {
        self.write(session, None, |body| encode_welcome(body, server, patience));
    }

    pub(super) fn heard(&mut self, session: SessionId, number: u64) {
        self.write(session, None, |body| encode_heard(body, number));
    }

    pub(super) fn lost(&mut self, session: SessionId, grants: &[GrantId]) {
        self.write(session, None, |body| encode_lost(body, grants));
    }

    pub(super) fn moved(&mut self, session: SessionId, grants: &[GrantId]) {
        self.write(session, None, |body| encode_moved(body, grants));
    }

    /// Tells a session who is home of what, unless it was told the map of that number. What follows
    /// comes behind it.
    pub(super) fn homes(&mut self, session: SessionId, number: u64, map: &HomeMap) {
        let connection = self.connections.get_mut(session.place()).and_then(Option::as_mut);
        let connection = connection.filter(|it| it.session == session && it.homes_told != number);
        let Some(connection) = connection else { return };
        connection.homes_told = number;
        if !connection.body.is_empty() {
            self.full.push(connection.finish());
        }
        // It may be longer than what is left in any other message.
        let mut body = Vec::new();
        encode_homes(&mut body, map);
        let frames = Frames::from_iter([&*connection.routing_id, &body]);
        self.full.push(Letter { frames, answers: None });
    }

    pub(super) fn reply(&mut self, session: SessionId, request: RequestId, reply: &Reply) {
        self.write(session, Some(request), |body| encode_reply(body, request, reply));
    }

    /// Tells a connection, whoever it is, that something is wrong with what it said.
    pub(super) fn problem(&mut self, routing_id: &[u8], problem: &Problem) {
        // Behind what was said before.
        let place = self.session_of(routing_id).map(SessionId::place);
        let connection = place.and_then(|place| self.connections.get_mut(place)?.as_mut());
        if let Some(connection) = connection.filter(|connection| !connection.body.is_empty()) {
            self.full.push(connection.finish());
        }
        let mut body = Vec::new();
        encode_problem(&mut body, problem);
        let frames = Frames::from_iter([routing_id, &body]);
        self.full.push(Letter { frames, answers: None });
    }

    fn write(
        &mut self,
        session: SessionId,
        request: Option<RequestId>,
        encode: impl FnOnce(&mut Vec<u8>),
    ) {
        let place = session.place();
        let connection = self.connections.get_mut(place).and_then(Option::as_mut);
        let Some(connection) = connection.filter(|connection| connection.session == session) else {
            return;
        };
        if connection.body.is_empty() {
            self.due.push(place);
        }
        encode(&mut connection.body);
        connection.items += 1;
        connection.answered.extend(request);
        self.answers += 1;
        if connection.body.len() > FULL || connection.items == ITEMS_MAX {
            self.full.push(connection.finish());
        }
    }

    /// How many answers were written since messages were sent last.
    pub(super) const fn answers(&self) -> usize {
        self.answers
    }

    /// The messages that are to be sent now.
    pub(super) fn letters(&mut self) -> Vec<Letter> {
        self.answers = 0;
        let mut letters = std::mem::take(&mut self.full);
        for place in self.due.drain(..) {
            if let Some(Some(connection)) = self.connections.get_mut(place)
                && !connection.body.is_empty()
            {
                letters.push(connection.finish());
            }
        }
        letters
    }
}

impl Connection {
    fn new(session: SessionId, routing_id: &[u8], number: u64) -> Self {
        let (body, items, answered) = (Vec::new(), 0, Vec::new());
        let (routing_id, address) = (routing_id.into(), Box::default());
        Self { session, routing_id, address, number, body, items, answered, homes_told: 0 }
    }

    fn finish(&mut self) -> Letter {
        let frames = Frames::from_iter([&*self.routing_id, &self.body]);
        self.body.clear();
        self.items = 0;
        Letter { frames, answers: Some((self.session, std::mem::take(&mut self.answered))) }
    }
}

/// What a client says of itself.
pub(super) fn client_info(hello: &Hello<'_>) -> ClientInfo {
    ClientInfo { name: hello.name.into(), host: hello.host.into(), pid: hello.pid }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Bounds, Machine, Rate, Rules};
    use crate::time::Timestamp;

    #[test]
    fn nothing_is_sent_where_a_session_is_no_more() {
        let rules = Rules::of_rate(Rate::new(1, 1.0).unwrap());
        let mut machine =
            Machine::<()>::new(Timestamp::ZERO, rules, Duration::ZERO, Bounds::default());
        let (session, _) = machine.greet(Timestamp::ZERO, [1; 16], ClientInfo::default()).unwrap();
        let mut desk = Desk::default();
        assert!(desk.settle(session, b"old", 1));
        for request in 0..=ITEMS_MAX as u64 {
            desk.reply(session, RequestId(request), &Reply::Done);
        }
        assert!(desk.settle(session, b"new", 2));
        desk.reply(session, RequestId(0), &Reply::Done);
        let letters = desk.letters();
        let to = |letter: &Letter| letter.frames.get(0) == Some(b"new");
        assert!(letters.iter().all(to), "{letters:?}");
        assert_eq!(letters.len(), 1);
    }
}
