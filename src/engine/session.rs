//! Sessions: who a client is, over all its connections, and what it was answered.
//!
//! A request that is repeated is answered from the record, and counted once.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::engine::asked::{Asked, Requests};
use crate::engine::bounds::Bounds;
use crate::engine::grant::Charges;
use crate::engine::request::{Code, GrantId, Problem, Reply, RequestId};
use crate::time::Timestamp;

/// A session's place among the sessions. Once it is forgotten this leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId {
    place: u32,
    generation: u32,
}

impl SessionId {
    /// A number below that of all sessions there ever were at once.
    #[must_use]
    pub const fn place(self) -> usize {
        self.place as usize
    }
}

/// What a client draws at random when it starts, so that it is known again on a new connection.
pub type SessionName = [u8; 16];

/// Who a client says that it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientInfo {
    /// A name for people.
    pub name: Box<str>,
    /// The host it runs on.
    pub host: Box<str>,
    /// The process.
    pub pid: u32,
}

impl fmt::Display for ClientInfo {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, host, pid } = self;
        match &**name {
            "" => write!(formatter, "process {pid} on {host}"),
            name => write!(formatter, "{name:?} (process {pid} on {host})"),
        }
    }
}

/// After so long without a message a session loses its places in queues.
pub const WAITER_SILENCE_MAX: Duration = Duration::from_secs(2);

/// After so long without a message, and without leases, a session is forgotten.
pub const SESSION_SILENCE_MAX: Duration = Duration::from_secs(60);

/// How many places of sessions are looked at for one page.
pub(super) const SESSIONS_A_PAGE: usize = 4096;

#[derive(Debug)]
pub(super) struct Session {
    pub(super) name: SessionName,
    pub(super) client: ClientInfo,
    /// When it was opened.
    pub(super) since: Timestamp,
    pub(super) heard_at: Timestamp,
    /// When the session is looked at, whether it has been silent for too long.
    pub(super) due_at: Timestamp,
    /// All requests below this one are answered, and the client has the answers.
    floor: RequestId,
    /// But for these, in their order.
    open: Vec<RequestId>,
    pub(super) requests: Requests,
    /// How many of the requests wait.
    pub(super) waiting: usize,
    /// Leases that were taken from it, and that it has not given up yet.
    pub(super) lost: Vec<GrantId>,
    /// Leases that went to other servers, and of which it has not said yet that it knows.
    pub(super) moved: Vec<GrantId>,
}

impl Session {
    fn new(now: Timestamp, name: SessionName, client: ClientInfo) -> Self {
        Self {
            name,
            client,
            since: now,
            heard_at: now,
            due_at: now + SESSION_SILENCE_MAX,
            floor: RequestId(0),
            open: Vec::new(),
            requests: Requests::default(),
            waiting: 0,
            lost: Vec::new(),
            moved: Vec::new(),
        }
    }

    /// The client has all answers below `floor`, but for those to `open`, which rise.
    pub(super) fn raise_floor(&mut self, floor: RequestId, open: &[RequestId]) {
        if floor < self.floor || (floor == self.floor && *open == *self.open) {
            return;
        }
        self.floor = floor;
        self.open.clear();
        self.open.extend_from_slice(open);
        self.requests.drop_below(floor, open);
    }

    /// Whether the client has said that it has the answer to a request.
    pub(super) fn is_done_with(&self, request: RequestId) -> bool {
        request < self.floor && self.open.binary_search(&request).is_err()
    }

    /// When the session has been silent for too long.
    pub(super) fn silent_at(&self) -> Timestamp {
        let silence = if self.waiting > 0 { WAITER_SILENCE_MAX } else { SESSION_SILENCE_MAX };
        self.heard_at + silence
    }
}

/// All sessions.
#[derive(Debug)]
pub(super) struct Sessions {
    most: usize,
    /// How many answers may be kept for one of them, and for all together.
    answers_max: (usize, usize),
    /// How many requests of all of them are on record.
    requests: usize,
    by_name: BTreeMap<SessionName, SessionId>,
    slots: Vec<(u32, Option<Session>)>,
    free: Vec<u32>,
}

impl Sessions {
    pub(super) const fn new(bounds: &Bounds) -> Self {
        Self {
            most: bounds.sessions_max,
            answers_max: (bounds.client_answers_max, bounds.answers_max),
            requests: 0,
            by_name: BTreeMap::new(),
            slots: Vec::new(),
            free: Vec::new(),
        }
    }

    /// The session of that name, made if it is not there; `None` if there are too many.
    pub(super) fn open(
        &mut self,
        now: Timestamp,
        name: SessionName,
        client: ClientInfo,
    ) -> Option<(SessionId, bool)> {
        if let Some(id) = self.by_name.get(&name) {
            return Some((*id, false));
        }
        if self.by_name.len() >= self.most {
            return None;
        }
        let place = self.free.pop().or_else(|| u32::try_from(self.slots.len()).ok())?;
        if place as usize == self.slots.len() {
            self.slots.push((0, None));
        }
        let (generation, slot) = &mut self.slots[place as usize];
        *slot = Some(Session::new(now, name, client));
        let id = SessionId { place, generation: *generation };
        self.by_name.insert(name, id);
        Some((id, true))
    }

    /// The session of a name, if there is one.
    pub(super) fn named(&self, name: SessionName) -> Option<SessionId> {
        self.by_name.get(&name).copied()
    }

    pub(super) fn get_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        let (generation, session) = self.slots.get_mut(id.place())?;
        session.as_mut().filter(|_| *generation == id.generation)
    }

    pub(super) fn get(&self, id: SessionId) -> Option<&Session> {
        let (generation, session) = self.slots.get(id.place())?;
        session.as_ref().filter(|_| *generation == id.generation)
    }

    /// Changes what is on record of a session's requests. `None` if there is no such session.
    pub(super) fn change<T>(
        &mut self,
        id: SessionId,
        change: impl FnOnce(&mut Session) -> T,
    ) -> Option<T> {
        let session = self.get_mut(id)?;
        let before = session.requests.len();
        let changed = change(session);
        let after = session.requests.len();
        self.requests = self.requests + after - before;
        Some(changed)
    }

    /// Whether one more request of a session may be put on record.
    pub(super) fn room_for_request(&self, id: SessionId) -> Result<(), Problem> {
        let (of_one, of_all) = self.answers_max;
        let kept = self.get(id).map_or(0, |session| session.requests.len());
        let message = if kept >= of_one {
            format!(
                "{kept} answers wait for the client to say that it has them, as many as may \
                 (`client_answers_max`): it says so in its beats"
            )
        } else if self.requests >= of_all {
            "the server keeps as many answers as it may until clients say that they have them \
             (`answers_max`), in their beats: try again later"
                .to_owned()
        } else {
            return Ok(());
        };
        Err(Problem { code: Code::BoundExceeded, message })
    }

    /// What an earlier run has answered, if it is still to be said.
    pub(super) fn restore_answer(&mut self, id: SessionId, request: RequestId, reply: Reply) {
        // The client does not say what it has before it asks: that has to have room.
        let of_one = self.answers_max.0 / 2;
        let has_room = self.get(id).is_some_and(|session| session.requests.len() < of_one);
        if has_room && self.requests < self.answers_max.1 / 2 {
            let answered = Asked::Answered(reply, Charges::new());
            self.change(id, |session| session.requests.insert(request, answered));
        }
    }

    /// The grants that clients have not said that they know of, and the requests that they answer.
    pub(super) fn granted(&self) -> impl Iterator<Item = (GrantId, RequestId)> {
        let sessions = self.slots.iter().filter_map(|(_, session)| session.as_ref());
        sessions.flat_map(|session| session.requests.iter()).filter_map(|(id, asked)| match asked {
            Asked::Answered(reply, _) => Some((reply.grant()?, *id)),
            Asked::Waiting(_) | Asked::Cancelled => None,
        })
    }

    pub(super) fn remove(&mut self, id: SessionId) -> Option<Session> {
        let session = self.get(id)?;
        let (name, requests) = (session.name, session.requests.len());
        self.requests -= requests;
        self.by_name.remove(&name);
        let (generation, session) = &mut self.slots[id.place()];
        *generation = generation.wrapping_add(1);
        let gone = session.take();
        self.free.push(id.place);
        gone
    }

    pub(super) fn len(&self) -> usize {
        self.by_name.len()
    }

    /// The sessions at [`SESSIONS_A_PAGE`] places from one on, in their order.
    pub(super) fn some(&self, from: usize) -> impl Iterator<Item = (SessionId, &Session)> {
        let places = self.slots.iter().enumerate().skip(from).take(SESSIONS_A_PAGE);
        places.filter_map(|(place, (generation, session))| {
            let place = u32::try_from(place).ok()?;
            Some((SessionId { place, generation: *generation }, session.as_ref()?))
        })
    }

    /// A number above that of all places.
    pub(super) fn places(&self) -> usize {
        self.slots.len()
    }
}
