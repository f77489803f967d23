//! A lease of locks, as it is written down for a later run of the server.

use std::time::Duration;

use crate::engine::lock::{Mode, Term};
use crate::engine::record::{byte, instant, number, put, put_text, text};
use crate::engine::request::{Cost, RequestId};
use crate::engine::session::{ClientInfo, SessionName};
use crate::time::Timestamp;

/// The version of the format.
const VERSION: u8 = 2;

/// What a later run has to know of a lease, but for its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LeaseRecord {
    pub(super) granted_at: Timestamp,
    pub(super) term: Term,
    pub(super) actor: u64,
    /// The request that it answers, if its holder may not have heard the answer.
    pub(super) request: Option<RequestId>,
    pub(super) parts: Vec<(Box<str>, Mode)>,
}

impl LeaseRecord {
    /// The bytes of the record of that holder.
    pub(super) fn encode(&self, holder: SessionName, client: &ClientInfo) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend(holder);
        put_text(&mut bytes, &client.name);
        put_text(&mut bytes, &client.host);
        put(&mut bytes, client.pid.into());
        put(&mut bytes, self.granted_at.as_nanos());
        put(&mut bytes, nanos(self.term.ttl));
        // No lease has a length of 0.
        put(&mut bytes, self.term.max_hold.map_or(0, nanos));
        put(&mut bytes, self.actor);
        bytes.push(self.request.is_some().into());
        self.request.iter().for_each(|RequestId(id)| put(&mut bytes, *id));
        put(&mut bytes, self.parts.len() as u64);
        for (key, mode) in &self.parts {
            put_text(&mut bytes, key);
            put_mode(&mut bytes, *mode);
        }
        bytes
    }

    /// The record, and whose lease it is; `None` if these are not the bytes of one.
    pub(super) fn decode(bytes: &[u8]) -> Option<(Self, SessionName, ClientInfo)> {
        let mut rest = bytes;
        if byte(&mut rest)? != VERSION {
            return None;
        }
        let holder = rest.split_off(..16)?.try_into().ok()?;
        let (name, host) = (text(&mut rest)?.into(), text(&mut rest)?.into());
        let client = ClientInfo { name, host, pid: u32::try_from(number(&mut rest)?).ok()? };
        let granted_at = instant(&mut rest)?;
        let ttl = Duration::from_nanos(number(&mut rest)?);
        let max_hold = Some(number(&mut rest)?).filter(|nanos| *nanos > 0);
        let term = Term::new(ttl, max_hold.map(Duration::from_nanos)).ok()?;
        let actor = number(&mut rest)?;
        let request = match byte(&mut rest)? {
            0 => None,
            1 => Some(RequestId(number(&mut rest)?)),
            _ => return None,
        };
        let count = number(&mut rest)?;
        let mut parts = Vec::new();
        for _ in 0..count {
            let key = text(&mut rest)?.into();
            parts.push((key, mode(&mut rest)?));
        }
        let record = Self { granted_at, term, actor, request, parts };
        rest.is_empty().then_some((record, holder, client))
    }
}

/// Adds the mode of a lock.
pub(super) fn put_mode(bytes: &mut Vec<u8>, mode: Mode) {
    match mode {
        Mode::Exclusive => bytes.push(0),
        Mode::Read => bytes.push(1),
        Mode::Write => bytes.push(2),
        Mode::Permits { size, cost } => {
            bytes.push(3);
            put(bytes, size.permits());
            put(bytes, cost.permits());
        }
    }
}

pub(super) fn mode(rest: &mut &[u8]) -> Option<Mode> {
    Some(match byte(rest)? {
        0 => Mode::Exclusive,
        1 => Mode::Read,
        2 => Mode::Write,
        3 => Mode::Permits { size: cost(rest)?, cost: cost(rest)? },
        _ => return None,
    })
}

fn cost(rest: &mut &[u8]) -> Option<Cost> {
    Cost::new(number(rest)?.into()).ok()
}

fn nanos(length: Duration) -> u64 {
    u64::try_from(length.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written_and_not_if_it_is_cut_or_goes_on() {
        let four = Cost::new(4).unwrap();
        let modes = [Mode::Exclusive, Mode::Read, Mode::Write];
        let permits = Mode::Permits { size: four, cost: Cost::ONE };
        let second = Duration::from_secs(1);
        let record = LeaseRecord {
            granted_at: Timestamp::from_nanos(7),
            term: Term::new(second, Some(2 * second)).unwrap(),
            actor: 9,
            request: Some(RequestId(41)),
            parts: modes.into_iter().chain([permits]).map(|mode| ("k".into(), mode)).collect(),
        };
        let client = ClientInfo { name: "worker".into(), host: "db1".into(), pid: 4711 };
        let bytes = record.encode([3; 16], &client);
        assert_eq!(LeaseRecord::decode(&bytes), Some((record, [3; 16], client)));
        for length in 0..bytes.len() {
            assert_eq!(LeaseRecord::decode(&bytes[..length]), None);
        }
        assert_eq!(LeaseRecord::decode(&[&bytes[..], &[0]].concat()), None);
    }
}
