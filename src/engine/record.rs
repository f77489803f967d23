//! The bytes of a record: what is used of a key, for a later run of the server.

use crate::engine::limit::Snapshot;
use crate::engine::rules::Limits;
use crate::time::Timestamp;

/// The first byte of a record. Another one is a record of another version.
const VERSION: u8 = 1;

/// What is used of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// When it was written, on the clock of its instants.
    pub(super) saved_at: Timestamp,
    /// The text of each limit, and what is used of it.
    pub(super) limits: Vec<(String, Option<Snapshot>)>,
}

impl Record {
    /// The limits by which was counted; `None` if their texts say none.
    pub(super) fn parse_limits(&self) -> Option<Limits> {
        let texts: Vec<&String> = self.limits.iter().map(|(text, _)| text).collect();
        Limits::parse(&texts).ok()
    }

    /// What was left to wait when it was written is left now, on whatever clock it was written.
    pub(super) fn move_to(&mut self, now: Timestamp) {
        for snapshot in self.limits.iter_mut().filter_map(|(_, snapshot)| snapshot.as_mut()) {
            *snapshot = snapshot.clone().moved(self.saved_at, now);
        }
        self.saved_at = now;
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        put(&mut bytes, self.saved_at.as_nanos());
        bytes.push(u8::try_from(self.limits.len()).unwrap_or(u8::MAX));
        for (text, snapshot) in &self.limits {
            put_text(&mut bytes, text);
            match snapshot {
                None => bytes.push(0),
                Some(Snapshot::Fixed { ends_at, used }) => {
                    bytes.push(1);
                    put(&mut bytes, ends_at.as_nanos());
                    put(&mut bytes, *used);
                }
                Some(Snapshot::Sliding { entries, ahead }) => {
                    bytes.push(2);
                    put(&mut bytes, *ahead);
                    put(&mut bytes, entries.len() as u64);
                    for (until, permits) in entries {
                        put(&mut bytes, until.as_nanos());
                        put(&mut bytes, *permits);
                    }
                }
                Some(Snapshot::Gcra { arrival }) => {
                    bytes.push(3);
                    put(&mut bytes, arrival.0.as_nanos());
                    put(&mut bytes, arrival.1);
                }
            }
        }
        bytes
    }

    /// The record that these bytes say; `None` if they say none.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        if byte(&mut rest)? != VERSION {
            return None;
        }
        let saved_at = instant(&mut rest)?;
        let count = byte(&mut rest)?;
        let mut limits = Vec::new();
        for _ in 0..count {
            let text = text(&mut rest)?.to_owned();
            let snapshot = match byte(&mut rest)? {
                0 => None,
                1 => {
                    let ends_at = instant(&mut rest)?;
                    Some(Snapshot::Fixed { ends_at, used: number(&mut rest)? })
                }
                2 => {
                    let (ahead, mut left) = (number(&mut rest)?, number(&mut rest)?);
                    let mut entries = Vec::new();
                    while left > 0 {
                        entries.push((instant(&mut rest)?, number(&mut rest)?));
                        left -= 1;
                    }
                    Some(Snapshot::Sliding { entries, ahead })
                }
                3 => {
                    let arrival = (instant(&mut rest)?, number(&mut rest)?);
                    Some(Snapshot::Gcra { arrival })
                }
                _ => return None,
            };
            limits.push((text, snapshot));
        }
        rest.is_empty().then_some(Self { saved_at, limits })
    }
}

pub(super) fn put(bytes: &mut Vec<u8>, number: u64) {
    bytes.extend(number.to_le_bytes());
}

/// Adds a text behind its length.
pub(super) fn put_text(bytes: &mut Vec<u8>, text: &str) {
    put(bytes, text.len() as u64);
    bytes.extend(text.as_bytes());
}

pub(super) fn text<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let length = usize::try_from(number(rest)?).ok()?;
    std::str::from_utf8(rest.split_off(..length)?).ok()
}

pub(super) fn byte(rest: &mut &[u8]) -> Option<u8> {
    rest.split_off_first().copied()
}

pub(super) fn number(rest: &mut &[u8]) -> Option<u64> {
    let bytes = rest.split_off(..8)?;
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

pub(super) fn instant(rest: &mut &[u8]) -> Option<Timestamp> {
    number(rest).map(Timestamp::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let at = Timestamp::from_nanos;
        let fixed = Snapshot::Fixed { ends_at: at(7), used: 8 };
        let sliding = Snapshot::Sliding { entries: vec![(at(1), 2), (at(3), 4)], ahead: 5 };
        let limits = [
            ("5/min", Some(fixed)),
            ("6/min sliding", Some(sliding)),
            ("7/min gcra", Some(Snapshot::Gcra { arrival: (at(9), 1) })),
            ("8 at once", None),
        ];
        let limits = limits.map(|(text, snapshot)| (text.to_owned(), snapshot)).to_vec();
        Record { saved_at: at(6), limits }
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        assert_eq!(Record::decode(&record().encode()), Some(record()));
    }

    #[test]
    fn a_record_that_is_cut_or_goes_on_is_none() {
        let bytes = record().encode();
        for length in 0..bytes.len() {
            assert_eq!(Record::decode(&bytes[..length]), None);
        }
        assert_eq!(Record::decode(&[&bytes[..], &[0]].concat()), None);
    }
}
