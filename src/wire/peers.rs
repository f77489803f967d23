//! What servers tell each other, as bytes: one array of MessagePack, in one frame.
//!
//! ```text
//! [version, run, number, is urgent, leaves, [[run, number] ...], [go ...], part]
//! go    [key, [limit ...], permits, [age in ns ...]]
//! part  nil, or [is first, is last, [[key, [limit, left] ...] ...]]
//! left  nil, or [0, left in ns, used], [1, left in ns, permits, left in ns, permits ...],
//!       [2, left in ns]
//! ```

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::cluster::peers::{GOES_MAX, Message, PEERS_MAX, Part, Run};
use crate::engine::{Go, Key, Left, Request, Usage};
use crate::wire::message_pack::{
    Malformed, Value, read, write_array, write_boolean, write_nanos, write_nil, write_number,
    write_text,
};

/// The version of what servers tell each other.
pub const VERSION: u64 = 1;

/// The most keys of which one message tells what is used.
const KEYS_MAX: u64 = 4096;

/// The most entries of a log.
const ENTRIES_MAX: u64 = 256;

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Bad {
    /// The other server is another version.
    #[error("it speaks version {0} to other servers, and this one speaks version {VERSION}")]
    Version(u64),
    /// It is none, or none of a server.
    #[error("it says what is no message of a server to another one")]
    Malformed,
}

impl From<Malformed> for Bad {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// Writes a message.
pub fn encode(out: &mut Vec<u8>, message: &Message) {
    write_array(out, 8);
    for number in [VERSION, message.run.0, message.number] {
        write_number(out, number);
    }
    write_boolean(out, message.is_urgent);
    write_boolean(out, message.leaves);
    write_array(out, message.heard.len());
    for (run, number) in &message.heard {
        write_array(out, 2);
        write_number(out, run.0);
        write_number(out, *number);
    }
    write_array(out, message.goes.len());
    for go in &message.goes {
        write_array(out, 4);
        write_text(out, &go.key);
        write_array(out, go.limits.len());
        go.limits.iter().for_each(|limit| write_text(out, limit));
        write_number(out, go.permits);
        write_array(out, go.ages.len());
        go.ages.iter().for_each(|age| write_nanos(out, *age));
    }
    let Some(part) = &message.usage else { return write_nil(out) };
    write_array(out, 3);
    write_boolean(out, part.is_first);
    write_boolean(out, part.is_last);
    write_array(out, part.keys.len());
    for usage in &part.keys {
        write_array(out, 1 + 2 * usage.limits.len());
        write_text(out, &usage.key);
        for (limit, left) in &usage.limits {
            write_text(out, limit);
            write_left(out, left.as_ref());
        }
    }
}

fn write_left(out: &mut Vec<u8>, left: Option<&Left>) {
    match left {
        None => write_nil(out),
        Some(Left::Slot(left, used)) => {
            write_array(out, 3);
            write_number(out, 0);
            write_nanos(out, *left);
            write_number(out, *used);
        }
        Some(Left::Log(entries)) => {
            write_array(out, 1 + 2 * entries.len());
            write_number(out, 1);
            for (left, permits) in entries {
                write_nanos(out, *left);
                write_number(out, *permits);
            }
        }
        Some(Left::Arrival(left)) => {
            write_array(out, 2);
            write_number(out, 2);
            write_nanos(out, *left);
        }
    }
}

/// Reads a message.
///
/// # Errors
///
/// [`Bad`] if it is none of this version.
pub fn decode(mut bytes: &[u8]) -> Result<Message, Bad> {
    let rest = &mut bytes;
    let elements = array(rest, u64::MAX)?;
    let version = number(rest)?;
    if version != VERSION {
        return Err(Bad::Version(version));
    }
    if elements != 8 {
        return Err(Bad::Malformed);
    }
    let (run, number_of_it) = (Run(number(rest)?), number(rest)?);
    let (is_urgent, leaves) = (boolean(rest)?, boolean(rest)?);
    let heard = list(rest, PEERS_MAX as u64, |rest| {
        exactly(array(rest, 2)?, 2)?;
        Ok((Run(number(rest)?), number(rest)?))
    })?;
    let goes = list(rest, GOES_MAX as u64, go)?;
    let usage = if take_nil(rest) { None } else { Some(part(rest)?) };
    if !rest.is_empty() {
        return Err(Bad::Malformed);
    }
    Ok(Message { run, number: number_of_it, is_urgent, leaves, heard, goes, usage })
}

fn go(rest: &mut &[u8]) -> Result<Go, Bad> {
    exactly(array(rest, 4)?, 4)?;
    let key = key(rest)?;
    let limits = list(rest, Request::LIMITS_MAX as u64, limit)?;
    let permits = number(rest)?;
    let ages = list(rest, Request::LIMITS_MAX as u64, nanos)?;
    Ok(Go { key, limits, permits, ages })
}

fn part(rest: &mut &[u8]) -> Result<Part, Bad> {
    exactly(array(rest, 3)?, 3)?;
    let (is_first, is_last) = (boolean(rest)?, boolean(rest)?);
    let keys = list(rest, KEYS_MAX, |rest| {
        let elements = array(rest, 1 + 2 * Request::LIMITS_MAX as u64)?;
        exactly(elements % 2, 1)?;
        let key = key(rest)?;
        let limits = (0..elements / 2).map(|_| Ok((limit(rest)?, left(rest)?)));
        Ok(Usage { key, limits: limits.collect::<Result<_, Bad>>()? })
    })?;
    Ok(Part { is_first, is_last, keys })
}

fn left(rest: &mut &[u8]) -> Result<Option<Left>, Bad> {
    if take_nil(rest) {
        return Ok(None);
    }
    let elements = array(rest, 1 + 2 * ENTRIES_MAX)?;
    Ok(Some(match (number(rest)?, elements) {
        (0, 3) => Left::Slot(nanos(rest)?, number(rest)?),
        (1, elements) if elements % 2 == 1 => {
            let mut entries: Vec<(Duration, u64)> = Vec::new();
            for _ in 0..elements / 2 {
                let entry = (nanos(rest)?, number(rest)?);
                // What is out of order is no log.
                if entries.last().is_some_and(|last| last.0 > entry.0) {
                    return Err(Bad::Malformed);
                }
                entries.push(entry);
            }
            Left::Log(entries)
        }
        (2, 2) => Left::Arrival(nanos(rest)?),
        _ => return Err(Bad::Malformed),
    }))
}

fn list<T>(
    rest: &mut &[u8],
    most: u64,
    mut element: impl FnMut(&mut &[u8]) -> Result<T, Bad>,
) -> Result<Vec<T>, Bad> {
    let count = array(rest, most)?;
    (0..count).map(|_| element(rest)).collect()
}

fn array(rest: &mut &[u8], most: u64) -> Result<u64, Bad> {
    match read(rest)? {
        Value::Array(count) if count <= most => Ok(count),
        _ => Err(Bad::Malformed),
    }
}

fn exactly(count: u64, wanted: u64) -> Result<(), Bad> {
    if count == wanted { Ok(()) } else { Err(Bad::Malformed) }
}

fn number(rest: &mut &[u8]) -> Result<u64, Bad> {
    match read(rest)? {
        Value::Number(number) => Ok(number),
        _ => Err(Bad::Malformed),
    }
}

fn nanos(rest: &mut &[u8]) -> Result<Duration, Bad> {
    number(rest).map(Duration::from_nanos)
}

fn boolean(rest: &mut &[u8]) -> Result<bool, Bad> {
    match read(rest)? {
        Value::Boolean(value) => Ok(value),
        _ => Err(Bad::Malformed),
    }
}

fn key(rest: &mut &[u8]) -> Result<Box<str>, Bad> {
    let text = text(rest, Key::BYTES_MAX)?;
    Key::parse(text).map(|key| key.as_str().into()).map_err(|_| Bad::Malformed)
}

fn limit(rest: &mut &[u8]) -> Result<Arc<str>, Bad> {
    text(rest, Request::LIMIT_BYTES_MAX).map(Arc::from)
}

fn text<'a>(rest: &mut &'a [u8], bytes_max: usize) -> Result<&'a str, Bad> {
    match read(rest)? {
        Value::Text(bytes) if bytes.len() <= bytes_max => {
            str::from_utf8(bytes).map_err(|_| Bad::Malformed)
        }
        _ => Err(Bad::Malformed),
    }
}

fn take_nil(rest: &mut &[u8]) -> bool {
    crate::wire::message_pack::take_byte(rest, crate::wire::message_pack::NIL)
}
