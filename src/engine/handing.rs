//! What a server hands over with a partition of the keys, as bytes.

use std::time::Duration;

use crate::engine::lease_record::{LeaseRecord, mode, put_mode};
use crate::engine::lock::Mode;
use crate::engine::record::{Record, byte, number, put, put_text, text};
use crate::engine::request::GrantId;
use crate::engine::session::{ClientInfo, SessionName};

/// The version of the format.
const VERSION: u8 = 1;

mod tag {
    pub(super) const USAGE: u8 = 1;
    pub(super) const BUSY: u8 = 2;
    pub(super) const LEASE: u8 = 3;
    pub(super) const USED_UP: u8 = 4;
}

/// One thing that the next home of a key has to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Handed {
    /// What is used of a key, and for how long nothing more may be granted of it.
    Usage {
        name: Box<str>,
        frozen_for: Duration,
        /// Whether its limits are those of the record, whatever the rules say.
        own_limits: bool,
        record: Record,
    },
    /// All limits of which nothing else is said were used up so long ago, as far as is known.
    UsedUp { age: Duration },
    /// A lock that nobody may have for so long.
    Busy { name: Box<str>, mode: Mode, busy_for: Duration },
    /// A lease of locks, and who holds it.
    Lease { grant: GrantId, record: LeaseRecord, holder: SessionName, client: ClientInfo },
}

/// All of this as bytes.
pub(super) fn encode(all: &[Handed]) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    put(&mut bytes, all.len() as u64);
    for handed in all {
        match handed {
            Handed::Usage { name, frozen_for, own_limits, record } => {
                bytes.push(tag::USAGE);
                put_text(&mut bytes, name);
                put_length(&mut bytes, *frozen_for);
                bytes.push(u8::from(*own_limits));
                put_bytes(&mut bytes, &record.encode());
            }
            Handed::UsedUp { age } => {
                bytes.push(tag::USED_UP);
                put_length(&mut bytes, *age);
            }
            Handed::Busy { name, mode, busy_for } => {
                bytes.push(tag::BUSY);
                put_text(&mut bytes, name);
                put_mode(&mut bytes, *mode);
                put_length(&mut bytes, *busy_for);
            }
            Handed::Lease { grant, record, holder, client } => {
                bytes.push(tag::LEASE);
                put(&mut bytes, grant.0);
                put_bytes(&mut bytes, &record.encode(*holder, client));
            }
        }
    }
    bytes
}

/// What these bytes say; `None` if they are of another version, or cut.
pub(super) fn decode(bytes: &[u8]) -> Option<Vec<Handed>> {
    let mut rest = bytes;
    if byte(&mut rest)? != VERSION {
        return None;
    }
    let count = number(&mut rest)?;
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(match byte(&mut rest)? {
            tag::USAGE => Handed::Usage {
                name: text(&mut rest)?.into(),
                frozen_for: length(&mut rest)?,
                own_limits: byte(&mut rest)? == 1,
                record: Record::decode(sized(&mut rest)?)?,
            },
            tag::USED_UP => Handed::UsedUp { age: length(&mut rest)? },
            tag::BUSY => Handed::Busy {
                name: text(&mut rest)?.into(),
                mode: mode(&mut rest)?,
                busy_for: length(&mut rest)?,
            },
            tag::LEASE => {
                let grant = GrantId(number(&mut rest)?);
                let (record, holder, client) = LeaseRecord::decode(sized(&mut rest)?)?;
                Handed::Lease { grant, record, holder, client }
            }
            _ => return None,
        });
    }
    rest.is_empty().then_some(all)
}

fn put_bytes(bytes: &mut Vec<u8>, some: &[u8]) {
    put(bytes, some.len() as u64);
    bytes.extend(some);
}

fn sized<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(number(rest)?).ok()?;
    rest.split_off(..length)
}

fn put_length(bytes: &mut Vec<u8>, length: Duration) {
    put(bytes, u64::try_from(length.as_nanos()).unwrap_or(u64::MAX));
}

fn length(rest: &mut &[u8]) -> Option<Duration> {
    number(rest).map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::lock::Term;
    use crate::engine::request::Cost;
    use crate::time::Timestamp;

    #[test]
    fn what_is_handed_over_is_read_as_it_was_written_and_not_if_it_is_cut() {
        let second = Duration::from_secs(1);
        let record =
            Record { saved_at: Timestamp::from_nanos(9), limits: vec![("5/min".to_owned(), None)] };
        let lease = LeaseRecord {
            granted_at: Timestamp::from_nanos(7),
            term: Term::new(second, None).unwrap(),
            actor: 0,
            request: None,
            parts: vec![("k".into(), Mode::Write)],
        };
        let size = Cost::new(4).unwrap();
        let mode = Mode::Permits { size, cost: Cost::ONE };
        let (name, client): (Box<str>, _) = ("k".into(), ClientInfo::default());
        let all = [
            Handed::UsedUp { age: second },
            Handed::Usage { name: name.clone(), frozen_for: second, own_limits: true, record },
            Handed::Busy { name, mode, busy_for: second },
            Handed::Lease { grant: GrantId(3), record: lease, holder: [5; 16], client },
        ];
        let bytes = encode(&all);
        assert_eq!(decode(&bytes).as_deref(), Some(&all[..]));
        for length in 0..bytes.len() {
            assert_eq!(decode(&bytes[..length]), None, "{length}");
        }
        assert_eq!(decode(&[&bytes[..], &[0]].concat()), None);
        assert_eq!(decode(&[&[VERSION + 1], &bytes[1..]].concat()), None);
    }
}
