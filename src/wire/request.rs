//! What clients say in our protocol, as bytes. `docs/protocol.md` is the law.

use std::time::Duration;

use smallvec::SmallVec;

use crate::cluster::Partition;
use crate::engine::{
    Cost, Demand, GrantId, Hold, Key, LockRequest, Problem, Request, RequestId, Wait,
};
use crate::wire::item::{Body, Fault, Fields, VERSION};
use crate::wire::lock;
use crate::wire::message_pack::{
    write_array, write_bytes, write_nanos, write_nil, write_number, write_text,
};

/// The most bytes that the name or the host of a client may have.
pub const NAME_BYTES_MAX: usize = 256;

/// How many requests a beat may except from those that are answered.
pub const OPEN_MAX: usize = 512;

/// The first element of an item says what it is.
mod op {
    pub(super) const HELLO: u64 = 0;
    pub(super) const BEAT: u64 = 1;
    pub(super) const SPEND: u64 = 2;
    pub(super) const RESERVE: u64 = 3;
    pub(super) const LEASE: u64 = 4;
    pub(super) const COMMIT: u64 = 5;
    pub(super) const RELEASE: u64 = 6;
    pub(super) const CANCEL: u64 = 7;
    pub(super) const FREEZE: u64 = 8;
    pub(super) const PEEK: u64 = 9;
    pub(super) const RESET: u64 = 10;
    pub(super) const SET_LIMITS: u64 = 11;
    pub(super) const BLOCK: u64 = 12;
    pub(super) const GIVE_BACK: u64 = 13;
    pub(super) const BYE: u64 = 14;
    pub(super) const LOCK: u64 = 15;
    pub(super) const RECLAIM: u64 = 16;
    pub(super) const BREAK: u64 = 17;
    pub(super) const LOCKS: u64 = 18;
    pub(super) const STATUS: u64 = 19;
    pub(super) const KEYS: u64 = 20;
    pub(super) const CLIENTS: u64 = 21;
    pub(super) const KNOW_MOVED: u64 = 22;
}

/// Who a client is: the first that it says on each of its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello<'a> {
    /// The version of the protocol that it speaks.
    pub version: u64,
    /// 16 random bytes, drawn once and kept over all its connections.
    pub session: [u8; 16],
    /// The name of the client, for people; at most [`NAME_BYTES_MAX`] bytes.
    pub name: &'a str,
    /// The name of its host, for people; at most [`NAME_BYTES_MAX`] bytes.
    pub host: &'a str,
    /// The number of its process on that host.
    pub pid: u32,
    /// How many connections it has made, this one included: what comes on an earlier one after this
    /// is not listened to. 0 if it does not say.
    pub connection: u64,
}

/// One thing that a client says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientItem<'a> {
    /// Who it is.
    Hello(Hello<'a>),
    /// It says hello in another version of the protocol than [`VERSION`].
    OtherVersion(u64),
    /// It lives.
    Beat {
        /// The number of the beat, by which it knows the answer.
        number: u64,
        /// All its requests below this one are answered.
        floor: RequestId,
        /// But for these, in their order: at most [`OPEN_MAX`].
        open: Vec<RequestId>,
    },
    /// It asks.
    Ask {
        /// The number of the request.
        id: RequestId,
        /// What it asks.
        request: Request<'a>,
    },
    /// It does not want the answer to this request any more.
    Cancel(RequestId),
    /// It knows that these leases went to another server.
    KnowMoved(Vec<GrantId>),
    /// It goes, and gives back all that it has.
    Bye,
    /// What it says is no legal item; the rest of the message may be.
    Bad {
        /// The request that this was meant to be, where that can be read.
        id: Option<RequestId>,
        /// What is wrong.
        problem: Problem,
    },
}

/// The items of a body, first to last.
///
/// An `Err` is the last: nothing behind it can be trusted.
///
/// ```
/// use zmqlocker::wire::request::{ClientItem, Items, encode_bye};
///
/// let mut body = Vec::new();
/// encode_bye(&mut body);
/// let items: Vec<_> = Items::new(&body).collect();
/// assert_eq!(items, [Ok(ClientItem::Bye)]);
/// ```
#[derive(Clone, Debug)]
pub struct Items<'a>(Body<'a>);

impl<'a> Items<'a> {
    /// The items of this body.
    #[must_use]
    pub const fn new(body: &'a [u8]) -> Self {
        Self(Body::new(body))
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = Result<ClientItem<'a>, Problem>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(match self.0.next_item(item)? {
            Ok(item) => Ok(item),
            Err(Fault::Bad(problem)) => Ok(ClientItem::Bad { id: None, problem }),
            Err(Fault::Fatal(problem)) => Err(problem),
        })
    }
}

fn item<'a>(fields: &mut Fields<'a>) -> Result<ClientItem<'a>, Fault> {
    let item = match fields.number("op")? {
        op::HELLO => return hello(fields),
        op::BEAT => beat(fields)?,
        op::CANCEL => ClientItem::Cancel(RequestId(fields.number("id")?)),
        op::BYE => ClientItem::Bye,
        op::KNOW_MOVED => {
            let mut grants = Vec::new();
            while fields.left() > 0 {
                grants.push(GrantId(fields.number("grant")?));
            }
            ClientItem::KnowMoved(grants)
        }
        op @ (op::SPEND..=op::GIVE_BACK | op::LOCK..=op::CLIENTS) => {
            let id = RequestId(fields.number("id")?);
            let request = request(op, fields).and_then(|request| {
                fields.end()?;
                Ok(ClientItem::Ask { id, request })
            });
            return match request {
                Err(Fault::Bad(problem)) => Ok(ClientItem::Bad { id: Some(id), problem }),
                other => other,
            };
        }
        other => return Err(Fault::protocol(format!("op must be from 0 to 22, not {other}"))),
    };
    fields.end()?;
    Ok(item)
}

fn beat<'a>(fields: &mut Fields<'_>) -> Result<ClientItem<'a>, Fault> {
    let number = fields.number("number")?;
    let floor = RequestId(fields.number("floor")?);
    let mut open = Vec::new();
    if fields.left() > 0 {
        let count = bounded_count("open", fields.left(), OPEN_MAX)?;
        for _ in 0..count {
            let id = RequestId(fields.number("open")?);
            if id >= floor || open.last().is_some_and(|last| id <= *last) {
                return Err(Fault::protocol("open must rise, and be below floor"));
            }
            open.push(id);
        }
    }
    Ok(ClientItem::Beat { number, floor, open })
}

/// Reads a hello; later versions may say more in it.
fn hello<'a>(fields: &mut Fields<'a>) -> Result<ClientItem<'a>, Fault> {
    let version = fields.number("version")?;
    if version != VERSION {
        fields.skip()?;
        return Ok(ClientItem::OtherVersion(version));
    }
    let session = fields.bytes("session")?;
    let hello = Hello {
        version,
        session: session.try_into().map_err(|_| Fault::config("session must be 16 bytes"))?,
        name: fields.text("name", NAME_BYTES_MAX)?,
        host: fields.text("host", NAME_BYTES_MAX)?,
        pid: u32::try_from(fields.number("pid")?)
            .map_err(|_| Fault::config(format!("pid must be at most {}", u32::MAX)))?,
        connection: if fields.left() == 0 { 0 } else { fields.number("connection")? },
    };
    fields.skip()?;
    Ok(ClientItem::Hello(hello))
}

fn request<'a>(op: u64, fields: &mut Fields<'a>) -> Result<Request<'a>, Fault> {
    Ok(match op {
        op::SPEND | op::RESERVE | op::LEASE => acquire(op, fields)?,
        op::COMMIT => Request::Commit { grant: grant(fields)?, spent: spent(fields)? },
        op::RELEASE => release(fields)?,
        op::FREEZE => Request::Freeze {
            key: fields.key()?,
            length: Duration::from_nanos(fields.number("length")?),
        },
        op::PEEK => Request::Peek { key: fields.key()?, cost: last_cost(fields)? },
        op::RESET => Request::Reset { key: fields.key()? },
        op::SET_LIMITS => Request::SetLimits { key: fields.key()?, limits: limits(fields)? },
        op::BLOCK => Request::Block { key: fields.key()?, wanted: fields.cost("wanted")? },
        op::GIVE_BACK => {
            Request::GiveBack { grant: grant(fields)?, unused: fields.number("unused")? }
        }
        op::LOCK => {
            let wait = wait(fields)?;
            Request::Lock { wanted: lock::wanted(fields)?, wait }
        }
        op::RECLAIM => Request::Reclaim { grant: grant(fields)?, wanted: lock::wanted(fields)? },
        op::BREAK => Request::Break {
            key: fields.key()?,
            grant: fields.number_or_nil("grant")?.map(GrantId),
        },
        op::LOCKS => Request::Locks { from: fields.number("from")? },
        op::STATUS => Request::Status,
        op::KEYS => Request::Keys { from: fields.number("from")? },
        op::CLIENTS => Request::Clients { from: fields.number("from")? },
        other => return Err(Fault::protocol(format!("op {other} is no request"))),
    })
}

fn acquire<'a>(op: u64, fields: &mut Fields<'a>) -> Result<Request<'a>, Fault> {
    let wait = wait(fields)?;
    let hold = match op {
        op::SPEND => Hold::Spend,
        op::RESERVE => Hold::Reserve,
        _ => Hold::lease(Duration::from_nanos(fields.number("ttl")?))?,
    };
    Ok(Request::Acquire { demand: demand(fields)?, wait, hold })
}

fn wait(fields: &mut Fields<'_>) -> Result<Wait, Fault> {
    Ok(match fields.number_or_nil("wait")? {
        None => Wait::Patience,
        Some(0) => Wait::No,
        Some(nanos) => Wait::UpTo(Duration::from_nanos(nanos)),
    })
}

fn demand<'a>(fields: &mut Fields<'a>) -> Result<Demand<'a>, Fault> {
    if matches!(fields.left(), 1 | 2) {
        return Ok(Demand::one(fields.key()?, last_cost(fields)?));
    }
    if fields.left() % 2 == 1 {
        return Err(Fault::protocol("each of several keys must have a cost"));
    }
    let mut parts = SmallVec::<[(Key<'a>, Cost); 4]>::new();
    // One too many is enough to be told so.
    while fields.left() > 0 && parts.len() <= Demand::KEYS_MAX {
        parts.push((fields.key()?, fields.cost("cost")?));
    }
    let demand = Demand::new(parts)?;
    Ok(demand)
}

/// The cost that may be left out at the end.
fn last_cost(fields: &mut Fields<'_>) -> Result<Cost, Fault> {
    if fields.left() == 0 { Ok(Cost::ONE) } else { fields.cost("cost") }
}

fn grant(fields: &mut Fields<'_>) -> Result<GrantId, Fault> {
    fields.number("grant").map(GrantId)
}

fn release(fields: &mut Fields<'_>) -> Result<Request<'static>, Fault> {
    let grant = grant(fields)?;
    if fields.left() == 0 {
        return Ok(Request::Release { grant });
    }
    let number = fields.number("partition")?;
    let partition = usize::try_from(number).ok().and_then(Partition::numbered);
    let partition =
        partition.ok_or_else(|| Fault::protocol(format!("there is no partition {number}")))?;
    Ok(Request::ReleaseIn { grant, partition })
}

fn spent(fields: &mut Fields<'_>) -> Result<SmallVec<[u64; 1]>, Fault> {
    let count = bounded_count("spent", fields.left(), Demand::KEYS_MAX)?;
    (0..count).map(|_| fields.number("spent")).collect()
}

fn limits<'a>(fields: &mut Fields<'a>) -> Result<Vec<&'a str>, Fault> {
    let count = bounded_count("limits", fields.left(), Request::LIMITS_MAX)?;
    (0..count).map(|_| fields.text("a limit", Request::LIMIT_BYTES_MAX)).collect()
}

fn bounded_count(name: &str, count: u64, max: usize) -> Result<usize, Fault> {
    match usize::try_from(count) {
        Ok(count) if (1..=max).contains(&count) => Ok(count),
        _ => Err(Fault::config(format!("{name} must be from 1 to {max} in number, not {count}"))),
    }
}

/// Adds a hello to `out`.
pub fn encode_hello(out: &mut Vec<u8>, hello: &Hello<'_>) {
    begin(out, 7, op::HELLO);
    write_number(out, hello.version);
    write_bytes(out, &hello.session);
    write_text(out, hello.name);
    write_text(out, hello.host);
    write_number(out, hello.pid.into());
    write_number(out, hello.connection);
}

/// Adds a beat to `out`: all requests below `floor` are answered, but for those of `open`, which
/// rise.
pub fn encode_beat(out: &mut Vec<u8>, number: u64, floor: RequestId, open: &[RequestId]) {
    begin(out, 3 + open.len(), op::BEAT);
    write_number(out, number);
    write_number(out, floor.0);
    for id in open {
        write_number(out, id.0);
    }
}

/// Adds to `out` that nobody waits for this request any more.
pub fn encode_cancel(out: &mut Vec<u8>, id: RequestId) {
    begin(out, 2, op::CANCEL);
    write_number(out, id.0);
}

/// Adds to `out` that the client knows of leases that went to another server.
pub fn encode_know_moved(out: &mut Vec<u8>, grants: &[GrantId]) {
    begin(out, 1 + grants.len(), op::KNOW_MOVED);
    for grant in grants {
        write_number(out, grant.0);
    }
}

/// Adds to `out` that the client goes.
pub fn encode_bye(out: &mut Vec<u8>) {
    begin(out, 1, op::BYE);
}

/// A wish for locks as it is written, for whoever may have to say it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// How many elements of an item it takes.
    count: usize,
    bytes: Box<[u8]>,
}

/// A wish for locks as it is written.
#[must_use]
pub fn encode_wanted(wanted: &LockRequest<'_>) -> Wanted {
    let mut bytes = Vec::with_capacity(48);
    lock::write_wanted(&mut bytes, wanted);
    Wanted { count: lock::count_of(wanted), bytes: bytes.into() }
}

/// Adds a [`Request::Reclaim`] to `out`.
pub fn encode_reclaim(out: &mut Vec<u8>, id: RequestId, grant: GrantId, wanted: &Wanted) {
    begin_request(out, 3 + wanted.count, op::RECLAIM, id);
    write_number(out, grant.0);
    out.extend_from_slice(&wanted.bytes);
}

/// Adds a request to `out`.
pub fn encode_request(out: &mut Vec<u8>, id: RequestId, request: &Request<'_>) {
    match request {
        Request::Acquire { demand, wait, hold } => encode_acquire(out, id, demand, *wait, *hold),
        Request::Lock { wanted, wait } => {
            begin_request(out, 3 + lock::count_of(wanted), op::LOCK, id);
            write_wait(out, *wait);
            lock::write_wanted(out, wanted);
        }
        Request::Reclaim { grant, wanted } => {
            encode_reclaim(out, id, *grant, &encode_wanted(wanted));
        }
        Request::Break { key, grant } => {
            begin_request(out, 4, op::BREAK, id);
            write_text(out, key.as_str());
            lock::write_number_or_nil(out, grant.map(|grant| grant.0));
        }
        Request::Locks { from } => encode_with_number(out, op::LOCKS, id, *from),
        Request::Status => begin_request(out, 2, op::STATUS, id),
        Request::Keys { from } => encode_with_number(out, op::KEYS, id, *from),
        Request::Clients { from } => encode_with_number(out, op::CLIENTS, id, *from),
        Request::Commit { grant, spent } => {
            begin_request(out, 3 + spent.len(), op::COMMIT, id);
            write_number(out, grant.0);
            spent.iter().for_each(|permits| write_number(out, *permits));
        }
        Request::Release { grant } => encode_with_number(out, op::RELEASE, id, grant.0),
        Request::ReleaseIn { grant, partition } => {
            begin_request(out, 4, op::RELEASE, id);
            write_number(out, grant.0);
            write_number(out, partition.number().into());
        }
        Request::Freeze { key, length } => {
            begin_request(out, 4, op::FREEZE, id);
            write_text(out, key.as_str());
            write_nanos(out, *length);
        }
        Request::Peek { key, cost: Cost::ONE } => {
            begin_request(out, 3, op::PEEK, id);
            write_text(out, key.as_str());
        }
        Request::Peek { key, cost } => {
            begin_request(out, 4, op::PEEK, id);
            write_text(out, key.as_str());
            write_number(out, cost.permits());
        }
        Request::Reset { key } => {
            begin_request(out, 3, op::RESET, id);
            write_text(out, key.as_str());
        }
        Request::SetLimits { key, limits } => {
            begin_request(out, 3 + limits.len(), op::SET_LIMITS, id);
            write_text(out, key.as_str());
            for limit in limits {
                write_text(out, limit);
            }
        }
        Request::Block { key, wanted } => {
            begin_request(out, 4, op::BLOCK, id);
            write_text(out, key.as_str());
            write_number(out, wanted.permits());
        }
        Request::GiveBack { grant, unused } => {
            begin_request(out, 4, op::GIVE_BACK, id);
            write_number(out, grant.0);
            write_number(out, *unused);
        }
    }
}

fn encode_acquire(out: &mut Vec<u8>, id: RequestId, demand: &Demand<'_>, wait: Wait, hold: Hold) {
    let short = matches!(demand.parts(), [(_, Cost::ONE)]);
    let count = if short { 4 } else { 3 + 2 * demand.parts().len() };
    match hold {
        Hold::Spend => begin_request(out, count, op::SPEND, id),
        Hold::Reserve => begin_request(out, count, op::RESERVE, id),
        Hold::Lease(_) => begin_request(out, count + 1, op::LEASE, id),
    }
    write_wait(out, wait);
    if let Hold::Lease(term) = hold {
        write_nanos(out, term.ttl);
    }
    for (key, cost) in demand.parts() {
        write_text(out, key.as_str());
        if !short {
            write_number(out, cost.permits());
        }
    }
}

fn encode_with_number(out: &mut Vec<u8>, op: u64, id: RequestId, number: u64) {
    begin_request(out, 3, op, id);
    write_number(out, number);
}

fn write_wait(out: &mut Vec<u8>, wait: Wait) {
    match wait {
        Wait::No => write_number(out, 0),
        Wait::Patience => write_nil(out),
        Wait::UpTo(length) => write_nanos(out, length),
    }
}

fn begin_request(out: &mut Vec<u8>, count: usize, op: u64, id: RequestId) {
    begin(out, count, op);
    write_number(out, id.0);
}

fn begin(out: &mut Vec<u8>, count: usize, op: u64) {
    write_array(out, count);
    write_number(out, op);
}
