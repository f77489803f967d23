//! What servers say in our protocol, as bytes. `docs/protocol.md` is the law.

use std::sync::Arc;
use std::time::Duration;

use crate::engine::{Block, Code, Decision, Demand, GrantId, Problem, Reply, RequestId};
use crate::wire::homes::{self, HomeMap};
use crate::wire::item::{Body, Fault, Fields, VERSION};
use crate::wire::lock;
use crate::wire::message_pack::{
    write_array, write_boolean, write_nanos, write_nil, write_number, write_text,
};
use crate::wire::seed::BYTES_MAX;
use crate::wire::status;

/// The most bytes of the message of a problem; what is longer is cut.
pub const MESSAGE_BYTES_MAX: usize = 500;

/// The first element of an item says what it is.
mod op {
    pub(super) const WELCOME: u64 = 0;
    pub(super) const HEARD: u64 = 1;
    pub(super) const DECISION: u64 = 2;
    pub(super) const QUEUED: u64 = 3;
    pub(super) const REFUSE: u64 = 4;
    pub(super) const DONE: u64 = 5;
    pub(super) const BLOCK: u64 = 6;
    pub(super) const LOCKS: u64 = 7;
    pub(super) const LOST: u64 = 8;
    pub(super) const STATUS: u64 = 9;
    pub(super) const KEYS: u64 = 10;
    pub(super) const CLIENTS: u64 = 11;
    pub(super) const MOVED: u64 = 12;
    pub(super) const HOMES: u64 = 13;
}

/// One thing that a server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerItem {
    /// The answer to a hello.
    Welcome {
        /// The version of the protocol that it speaks.
        version: u64,
        /// The number of this run of the server: another one has forgotten everything.
        server: u64,
        /// How long a request waits that leaves it to the server.
        patience: Duration,
    },
    /// The answer to a beat.
    Heard {
        /// The number of the beat.
        number: u64,
    },
    /// Leases were taken from the client.
    Lost {
        /// All that it was not seen to know of.
        grants: Vec<GrantId>,
    },
    /// Leases went to another server, with their keys.
    Moved {
        /// All that the client has not said that it knows of.
        grants: Vec<GrantId>,
    },
    /// Which server is home of which keys.
    Homes(Box<HomeMap>),
    /// The answer to a request.
    Answer {
        /// The number of the request.
        id: RequestId,
        /// What it hears.
        reply: Reply,
    },
    /// Something is wrong with a message or with the session.
    Problem(Problem),
}

/// The items of a body, first to last.
///
/// An `Err` is the last: a server that says what is not in the protocol is not to be trusted.
///
/// ```
/// use zmqlocker::wire::reply::{Replies, ServerItem, encode_heard};
///
/// let mut body = Vec::new();
/// encode_heard(&mut body, 7);
/// let items: Vec<_> = Replies::new(&body).collect();
/// assert_eq!(items, [Ok(ServerItem::Heard { number: 7 })]);
/// ```
#[derive(Clone, Debug)]
pub struct Replies<'a> {
    body: Body<'a>,
    ended: bool,
    /// The text of the limit that was read last: it nearly always is that of the next one too.
    limit: Option<Arc<str>>,
}

impl<'a> Replies<'a> {
    /// The items of this body.
    #[must_use]
    pub const fn new(body: &'a [u8]) -> Self {
        Self { body: Body::new(body), ended: false, limit: None }
    }
}

impl Iterator for Replies<'_> {
    type Item = Result<ServerItem, Problem>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let item = self.body.next_item(|fields| item(fields, &mut self.limit))?;
        self.ended = item.is_err();
        Some(item.map_err(|fault| match fault {
            Fault::Bad(problem) | Fault::Fatal(problem) => problem,
        }))
    }
}

fn item(fields: &mut Fields<'_>, known: &mut Option<Arc<str>>) -> Result<ServerItem, Fault> {
    let item = match fields.number("op")? {
        op::WELCOME => ServerItem::Welcome {
            version: fields.number("version")?,
            server: fields.number("server")?,
            patience: nanos(fields, "patience")?,
        },
        op::HEARD => ServerItem::Heard { number: fields.number("number")? },
        op::LOST => ServerItem::Lost { grants: grants(fields)? },
        op::MOVED => ServerItem::Moved { grants: grants(fields)? },
        op::HOMES => ServerItem::Homes(Box::new(homes::read(fields)?)),
        op::REFUSE => {
            let id = fields.number_or_nil("id")?;
            let problem = problem(fields)?;
            match id.map(RequestId) {
                Some(id) => ServerItem::Answer { id, reply: Reply::Refuse(problem) },
                None => ServerItem::Problem(problem),
            }
        }
        op @ (op::DECISION..=op::QUEUED | op::DONE..=op::LOCKS | op::STATUS..=op::CLIENTS) => {
            ServerItem::Answer {
                id: RequestId(fields.number("id")?),
                reply: match op {
                    op::DECISION => Reply::Decision(decision(fields, known)?),
                    op::QUEUED => Reply::Queued { ahead: fields.number("ahead")? },
                    op::DONE => Reply::Done,
                    op::LOCKS => Reply::Locks(lock::page(fields)?),
                    op::STATUS => Reply::Status(Box::new(status::status(fields)?)),
                    op::KEYS => Reply::Keys(status::keys(fields)?),
                    op::CLIENTS => Reply::Clients(status::clients(fields)?),
                    _ => Reply::Block(block(fields, known)?),
                },
            }
        }
        other => return Err(Fault::protocol(format!("op must be from 0 to 13, not {other}"))),
    };
    fields.end()?;
    Ok(item)
}

fn grants(fields: &mut Fields<'_>) -> Result<Vec<GrantId>, Fault> {
    let mut grants = Vec::new();
    while fields.left() > 0 {
        grants.push(GrantId(fields.number("grant")?));
    }
    Ok(grants)
}

fn decision(fields: &mut Fields<'_>, known: &mut Option<Arc<str>>) -> Result<Decision, Fault> {
    Ok(Decision {
        allowed: fields.boolean("allowed")?,
        remaining: fields.number("remaining")?,
        retry_after: nanos_or_nil(fields, "retry_after")?,
        reset_after: nanos(fields, "reset_after")?,
        limit: limit(fields, known)?,
        key: place(fields)?,
        grant: grant(fields)?,
    })
}

fn block(fields: &mut Fields<'_>, known: &mut Option<Arc<str>>) -> Result<Block, Fault> {
    Ok(Block {
        permits: fields.number("permits")?,
        valid_for: nanos(fields, "valid_for")?,
        grant: grant(fields)?,
        decision: Decision {
            remaining: fields.number("remaining")?,
            retry_after: nanos_or_nil(fields, "retry_after")?,
            reset_after: nanos(fields, "reset_after")?,
            limit: limit(fields, known)?,
            allowed: fields.boolean("allowed")?,
            key: 0,
            grant: None,
        },
    })
}

fn problem(fields: &mut Fields<'_>) -> Result<Problem, Fault> {
    let number = fields.number("code")?;
    let code = Code::ALL.into_iter().find(|code| u64::from(*code as u8) == number);
    let code = code.ok_or_else(|| {
        Fault::protocol(format!("code must be from 1 to {}, not {number}", Code::ALL.len()))
    })?;
    Ok(Problem { code, message: fields.text("message", BYTES_MAX)?.to_owned() })
}

/// The place of a key in the demand: its reader may use it as an index.
fn place(fields: &mut Fields<'_>) -> Result<usize, Fault> {
    let place = usize::try_from(fields.number("key")?).ok();
    place
        .filter(|place| *place < Demand::KEYS_MAX)
        .ok_or_else(|| Fault::protocol(format!("key must be a place below {}", Demand::KEYS_MAX)))
}

/// The text of a limit, which shares its memory with the one before if both are the same.
fn limit(fields: &mut Fields<'_>, known: &mut Option<Arc<str>>) -> Result<Arc<str>, Fault> {
    let text = fields.text("limit", BYTES_MAX)?;
    match known {
        Some(known) if **known == *text => Ok(Arc::clone(known)),
        _ => Ok(Arc::clone(known.insert(Arc::from(text)))),
    }
}

fn grant(fields: &mut Fields<'_>) -> Result<Option<GrantId>, Fault> {
    Ok(fields.number_or_nil("grant")?.map(GrantId))
}

fn nanos(fields: &mut Fields<'_>, name: &str) -> Result<Duration, Fault> {
    fields.number(name).map(Duration::from_nanos)
}

fn nanos_or_nil(fields: &mut Fields<'_>, name: &str) -> Result<Option<Duration>, Fault> {
    Ok(fields.number_or_nil(name)?.map(Duration::from_nanos))
}

/// Adds the answer to a hello to `out`.
pub fn encode_welcome(out: &mut Vec<u8>, server: u64, patience: Duration) {
    begin(out, 4, op::WELCOME);
    write_number(out, VERSION);
    write_number(out, server);
    write_nanos(out, patience);
}

/// Adds the answer to a beat to `out`.
pub fn encode_heard(out: &mut Vec<u8>, number: u64) {
    begin(out, 2, op::HEARD);
    write_number(out, number);
}

/// Adds the answer to a request to `out`.
pub fn encode_reply(out: &mut Vec<u8>, id: RequestId, reply: &Reply) {
    let begin = |out: &mut Vec<u8>, count: usize, op: u64| {
        begin(out, count, op);
        write_number(out, id.0);
    };
    match reply {
        Reply::Decision(decision) => {
            begin(out, 9, op::DECISION);
            write_boolean(out, decision.allowed);
            write_state(out, decision);
            write_number(out, decision.key as u64);
            write_grant(out, decision.grant);
        }
        Reply::Queued { ahead } => {
            begin(out, 3, op::QUEUED);
            write_number(out, *ahead);
        }
        Reply::Done => begin(out, 2, op::DONE),
        Reply::Locks(page) => {
            begin(out, 2 + lock::count_of_page(page), op::LOCKS);
            lock::write_page(out, page);
        }
        Reply::Status(seen) => {
            begin(out, 2 + status::STATUS_COUNT, op::STATUS);
            status::write_status(out, seen);
        }
        Reply::Keys(page) => {
            begin(out, 2 + status::count_of_keys(page), op::KEYS);
            status::write_keys(out, page);
        }
        Reply::Clients(page) => {
            begin(out, 2 + status::count_of_clients(page), op::CLIENTS);
            status::write_clients(out, page);
        }
        Reply::Block(block) => {
            begin(out, 10, op::BLOCK);
            write_number(out, block.permits);
            write_nanos(out, block.valid_for);
            write_grant(out, block.grant);
            write_state(out, &block.decision);
            write_boolean(out, block.decision.allowed);
        }
        Reply::Refuse(problem) => {
            begin(out, 4, op::REFUSE);
            write_problem(out, problem);
        }
    }
}

/// Adds to `out` that these leases were taken from the client.
pub fn encode_lost(out: &mut Vec<u8>, grants: &[GrantId]) {
    begin(out, 1 + grants.len(), op::LOST);
    for grant in grants {
        write_number(out, grant.0);
    }
}

/// Adds to `out` that these leases went to another server.
pub fn encode_moved(out: &mut Vec<u8>, grants: &[GrantId]) {
    begin(out, 1 + grants.len(), op::MOVED);
    for grant in grants {
        write_number(out, grant.0);
    }
}

/// Adds to `out` which server is home of which keys.
pub fn encode_homes(out: &mut Vec<u8>, map: &HomeMap) {
    begin(out, 1 + homes::count(map), op::HOMES);
    homes::write(out, map);
}

/// Adds a problem to `out` that is about a message or the session, not about one request.
pub fn encode_problem(out: &mut Vec<u8>, problem: &Problem) {
    begin(out, 4, op::REFUSE);
    write_nil(out);
    write_problem(out, problem);
}

fn write_problem(out: &mut Vec<u8>, problem: &Problem) {
    write_number(out, (problem.code as u8).into());
    let message = &problem.message;
    let mut end = message.len().min(MESSAGE_BYTES_MAX);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    write_text(out, &message[..end]);
}

/// What decisions and blocks have in common.
fn write_state(out: &mut Vec<u8>, decision: &Decision) {
    write_number(out, decision.remaining);
    match decision.retry_after {
        Some(length) => write_nanos(out, length),
        None => write_nil(out),
    }
    write_nanos(out, decision.reset_after);
    write_text(out, &decision.limit);
}

fn write_grant(out: &mut Vec<u8>, grant: Option<GrantId>) {
    lock::write_number_or_nil(out, grant.map(|grant| grant.0));
}

fn begin(out: &mut Vec<u8>, count: usize, op: u64) {
    write_array(out, count);
    write_number(out, op);
}
