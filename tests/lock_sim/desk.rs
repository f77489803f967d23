//! What `net::desk` is, without sockets: whose connection is whose, and what is to be sent on it.

use std::collections::BTreeMap;

use zmqlocker::engine::{Code, Problem, RequestId, SessionId};
use zmqlocker::wire::Frames;
use zmqlocker::wire::reply::encode_problem;

/// A connection, by a number that is never used again.
pub type ConnectionId = u64;

#[derive(Default)]
pub struct Desk {
    /// Who said hello on which connection.
    sessions: BTreeMap<ConnectionId, SessionId>,
    connections: BTreeMap<SessionId, Connection>,
    problems: Vec<(ConnectionId, Vec<u8>)>,
}

struct Connection {
    id: ConnectionId,
    /// Which of the session's connections it is.
    number: u64,
    body: Vec<u8>,
    answered: Vec<RequestId>,
}

/// A message to a client, and the requests that it answers.
pub struct Letter {
    pub to: ConnectionId,
    pub frames: Frames,
    pub answers: Option<(SessionId, Vec<RequestId>)>,
}

impl Desk {
    /// The session that said hello on a connection.
    pub fn session_of(&self, connection: ConnectionId) -> Option<SessionId> {
        self.sessions.get(&connection).copied()
    }

    /// Where a session is.
    pub fn connection_of(&self, session: SessionId) -> Option<ConnectionId> {
        self.connections.get(&session).map(|connection| connection.id)
    }

    /// From now on the session is where this connection is, unless a later one has said hello.
    /// Whether it is there.
    pub fn settle(&mut self, session: SessionId, id: ConnectionId, number: u64) -> bool {
        if self.connections.get(&session).is_some_and(|other| number < other.number) {
            return false;
        }
        if let Some(before) = self.connections.remove(&session)
            && before.id != id
        {
            self.sessions.remove(&before.id);
        }
        self.sessions.insert(id, session);
        self.connections.insert(session, Connection { id, number, body: vec![], answered: vec![] });
        true
    }

    /// Writes an item to a session, which may be the answer to a request.
    pub fn write(
        &mut self,
        session: SessionId,
        request: Option<RequestId>,
        encode: impl FnOnce(&mut Vec<u8>),
    ) {
        if let Some(connection) = self.connections.get_mut(&session) {
            encode(&mut connection.body);
            connection.answered.extend(request);
        }
    }

    /// Tells a connection that its session is not known.
    pub fn does_not_know(&mut self, connection: ConnectionId) {
        let message = "the session is not known".to_owned();
        let mut body = Vec::new();
        encode_problem(&mut body, &Problem { code: Code::UnknownSession, message });
        self.problems.push((connection, body));
    }

    /// The messages that are to be sent now.
    pub fn letters(&mut self) -> Vec<Letter> {
        let problem = |(to, body): (ConnectionId, Vec<u8>)| {
            let frames = Frames::from_iter([body.as_slice()]);
            Letter { to, frames, answers: None }
        };
        let mut letters: Vec<_> = self.problems.drain(..).map(problem).collect();
        for (session, connection) in &mut self.connections {
            if !connection.body.is_empty() {
                let frames = Frames::from_iter([std::mem::take(&mut connection.body).as_slice()]);
                let answers = Some((*session, std::mem::take(&mut connection.answered)));
                letters.push(Letter { to: connection.id, frames, answers });
            }
        }
        letters
    }
}
