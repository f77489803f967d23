//! What a cluster writes into its registry: lines of text that an operator can read.
//!
//! ```text
//! state/cluster        1 NAME ID
//! state/epoch          1 EPOCH, the last one of all
//! state/srv/NAME       1 RUN here|leaving VERSION URL
//! state/part/07        1 EPOCH OWNER INCARNATION fresh|taken|handed:EPOCH COVER_MS
//! state/wish/part/07   1 NAME, of the server that this partition is to be with
//! state/wish/srv/NAME  1 drained, where this server is to be home of nothing
//! holds/07             1 EPOCH\n, and then what is held, as its owner wrote it
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::cluster::partition::{Partition, PartitionMap};
use crate::cluster::wish::Wishes;
use crate::error::Error;
use crate::registry::{Entry, Revision, Snapshot, VALUE_BYTES_MAX};

/// The version of these records. Servers that write another one do not work together.
const FORMAT: &str = "1";

/// Below it is all that every server reads again and again.
pub(super) const STATE: &str = "state/";

/// The longest text of what is held in a partition that can be handed over, in bytes.
pub const HOLDS_BYTES_MAX: usize = VALUE_BYTES_MAX - 64;

/// The name of a server in its cluster: 1 to 64 letters, digits, dots, hyphens and underscores.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerName(Box<str>);

impl ServerName {
    /// A name of this text.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] that says which names there are.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        if (1..=64).contains(&text.len()) && text.bytes().all(is_good) && text != "-" {
            return Ok(Self(text.into()));
        }
        let shown: String = text.chars().take(80).collect();
        let problem = format!(
            "must be 1 to 64 letters, digits, dots, hyphens and underscores, not {shown:?}"
        );
        Err(Error::Config { argument: "name", problem })
    }

    /// The text of the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.0)
    }
}

/// A number that a server draws when it starts: two that have one name differ in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunId(pub u64);

/// A number that the first server of a cluster draws for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterId(pub u64);

/// Which change of hands it was, of all in the cluster: the upper half of the numbers of grants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Epoch(pub u32);

impl Epoch {
    /// The last one: numbers of grants stay below 2^63.
    pub const MAX: Self = Self((1 << 31) - 1);
}

/// Which cluster it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ClusterRecord {
    pub(super) name: String,
    pub(super) id: ClusterId,
}

impl ClusterRecord {
    pub(super) fn encode(&self) -> Vec<u8> {
        format!("{FORMAT} {} {:016x}", self.name, self.id.0).into_bytes()
    }
}

/// A server that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServerRecord {
    pub(super) run: RunId,
    /// Whether it is about to hand over all that it has.
    pub(super) is_leaving: bool,
    pub(super) version: String,
    pub(super) url: String,
}

impl ServerRecord {
    pub(super) fn encode(&self) -> Vec<u8> {
        let Self { run, is_leaving, version, url } = self;
        let standing = if *is_leaving { "leaving" } else { "here" };
        format!("{FORMAT} {:016x} {standing} {version} {url}", run.0).into_bytes()
    }
}

/// How a home came to a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// Nobody had it before: nothing is held.
    Fresh,
    /// From one that is gone: its holders have to tell what they hold.
    Taken,
    /// From one that wrote down what is held, under this epoch.
    Handed(Epoch),
}

/// Who is home of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PartRecord {
    pub(super) epoch: Epoch,
    /// The home and the incarnation that became it; none, and the partition waits for one.
    pub(super) owner: Option<(ServerName, Revision)>,
    pub(super) how: How,
    /// The longest lease that its homes may have granted, if it is longer than the usual grace.
    pub(super) cover: Duration,
}

impl PartRecord {
    pub(super) fn encode(&self) -> Vec<u8> {
        let (name, incarnation) = match &self.owner {
            Some((name, incarnation)) => (name.as_str(), incarnation.0),
            None => ("-", 0),
        };
        let how = match self.how {
            How::Fresh => "fresh".to_owned(),
            How::Taken => "taken".to_owned(),
            How::Handed(epoch) => format!("handed:{}", epoch.0),
        };
        // Rounded up: whoever waits for leases waits for all of them.
        let cover = self.cover.as_micros().div_ceil(1_000);
        let epoch = self.epoch.0;
        format!("{FORMAT} {epoch} {name} {incarnation} {how} {cover}").into_bytes()
    }
}

/// What is held in a partition, under the epoch that it was handed over with.
pub(super) fn encode_holds(epoch: Epoch, holds: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{FORMAT} {}\n", epoch.0).into_bytes();
    bytes.extend_from_slice(holds);
    bytes
}

pub(super) fn decode_holds(bytes: &[u8]) -> Option<(Epoch, &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let line = std::str::from_utf8(&bytes[..end]).ok()?;
    let epoch = line.strip_prefix(FORMAT)?.strip_prefix(' ')?.parse().ok()?;
    Some((Epoch(epoch), &bytes[end + 1..]))
}

/// A record, and when it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Written<T> {
    pub(super) record: T,
    pub(super) created: Revision,
    pub(super) modified: Revision,
}

/// All that is below [`STATE`], at one instant.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub(super) cluster: Option<ClusterRecord>,
    /// The last epoch of all.
    pub(super) epoch: Option<Written<Epoch>>,
    pub(super) servers: BTreeMap<ServerName, Written<ServerRecord>>,
    pub(super) parts: PartitionMap<Option<Written<PartRecord>>>,
    pub(super) wishes: Wishes,
}

/// An entry that this version does not write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Strange {
    /// It is of another version.
    Format { key: String, found: String },
    /// It is nothing of ours.
    Entry { key: String },
}

pub(super) fn cluster_key() -> String {
    format!("{STATE}cluster")
}

pub(super) fn epoch_key() -> String {
    format!("{STATE}epoch")
}

pub(super) fn encode_epoch(epoch: Epoch) -> Vec<u8> {
    format!("{FORMAT} {}", epoch.0).into_bytes()
}

pub(super) fn server_key(name: &ServerName) -> String {
    format!("{STATE}srv/{name}")
}

pub(super) fn part_key(partition: Partition) -> String {
    format!("{STATE}part/{partition}")
}

pub(super) fn holds_key(partition: Partition) -> String {
    format!("holds/{partition}")
}

pub(super) fn wish_key(about: &str) -> String {
    format!("{STATE}wish/{about}")
}

pub(super) fn encode_wish(text: &str) -> Vec<u8> {
    format!("{FORMAT} {text}").into_bytes()
}

/// The partition that an entry is about.
fn partition_of(key: &str) -> Option<Partition> {
    let number = key.strip_prefix(STATE)?.strip_prefix("part/")?;
    Partition::numbered(number.parse().ok()?)
}

impl State {
    /// What a snapshot says; a record that has not changed since `before` is not read again.
    pub(super) fn decode(snapshot: &Snapshot, mut before: Self) -> Result<Self, Strange> {
        let mut state = Self::default();
        for entry in &snapshot.entries {
            if state.keep(entry, &mut before) {
                continue;
            }
            let strange = || Strange::Entry { key: entry.key.clone() };
            let text = std::str::from_utf8(&entry.value).map_err(|_| strange())?;
            let (format, rest) = text.split_once(' ').ok_or_else(strange)?;
            if format != FORMAT {
                let is_number = !format.is_empty() && format.bytes().all(|it| it.is_ascii_digit());
                let (key, found) = (entry.key.clone(), format.to_owned());
                return Err(if is_number { Strange::Format { key, found } } else { strange() });
            }
            let (created, modified) = (entry.created, entry.modified);
            state.insert(&entry.key, rest, created, modified).ok_or_else(strange)?;
        }
        Ok(state)
    }

    /// The server that is home of a partition, under its present incarnation.
    pub(super) fn home_of(
        &self,
        partition: Partition,
    ) -> Option<(&ServerName, &Written<ServerRecord>)> {
        let (name, incarnation) = self.parts[partition].as_ref()?.record.owner.as_ref()?;
        let server = self.servers.get(name).filter(|it| it.created == *incarnation)?;
        Some((name, server))
    }

    /// Takes a partition's record from `before`, if it is the same.
    fn keep(&mut self, entry: &Entry, before: &mut Self) -> bool {
        let Some(partition) = partition_of(&entry.key) else { return false };
        let same = before.parts[partition].take_if(|part| part.modified == entry.modified);
        self.parts[partition] = same;
        self.parts[partition].is_some()
    }

    fn insert(
        &mut self,
        key: &str,
        text: &str,
        created: Revision,
        modified: Revision,
    ) -> Option<()> {
        let key = key.strip_prefix(STATE)?;
        let words: Vec<_> = text.split(' ').collect();
        if key == "cluster" {
            let [name, id] = words[..] else { return None };
            let id = ClusterId(u64::from_str_radix(id, 16).ok()?);
            self.cluster = Some(ClusterRecord { name: name.to_owned(), id });
        } else if key == "epoch" {
            let record = decode_epoch(text)?;
            self.epoch = Some(Written { record, created, modified });
        } else if let Some(name) = key.strip_prefix("srv/") {
            let [run, standing, version, url] = words[..] else { return None };
            let record = ServerRecord {
                run: RunId(u64::from_str_radix(run, 16).ok()?),
                is_leaving: match standing {
                    "here" => false,
                    "leaving" => true,
                    _ => return None,
                },
                version: version.to_owned(),
                url: url.to_owned(),
            };
            let name = ServerName::parse(name).ok()?;
            self.servers.insert(name, Written { record, created, modified });
        } else if let Some(about) = key.strip_prefix("wish/") {
            self.wishes.insert(about, text)?;
        } else {
            let record = decode_part(&words)?;
            let partition = partition_of(&format!("{STATE}{key}"))?;
            self.parts[partition] = Some(Written { record, created, modified });
        }
        Some(())
    }
}

fn decode_epoch(text: &str) -> Option<Epoch> {
    text.parse().ok().filter(|epoch| *epoch <= Epoch::MAX.0).map(Epoch)
}

fn decode_part(words: &[&str]) -> Option<PartRecord> {
    let [epoch, name, incarnation, how, cover] = *words else { return None };
    let owner = match name {
        "-" => None,
        name => Some((ServerName::parse(name).ok()?, Revision(incarnation.parse().ok()?))),
    };
    let how = match how {
        "fresh" => How::Fresh,
        "taken" => How::Taken,
        handed => How::Handed(decode_epoch(handed.strip_prefix("handed:")?)?),
    };
    let cover = Duration::from_millis(cover.parse().ok()?);
    Some(PartRecord { epoch: decode_epoch(epoch)?, owner, how, cover })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::wish::Wish;
    use crate::registry::Change;

    /// The state after these wishes, and no other entry.
    fn after(wishes: &[Wish]) -> State {
        let mut entries = BTreeMap::new();
        for wish in wishes {
            match &wish.transaction().changes[..] {
                [Change::Put(key, value)] => drop(entries.insert(key.clone(), value.clone())),
                [Change::Delete(key)] => drop(entries.remove(key)),
                other => panic!("{other:?}"),
            }
        }
        let (created, modified) = (Revision(1), Revision(1));
        let entries = entries.into_iter();
        let entries = entries.map(|(key, value)| Entry { key, value, created, modified });
        let snapshot = Snapshot { revision: modified, entries: entries.collect() };
        State::decode(&snapshot, State::default()).unwrap()
    }

    #[test]
    fn wishes_are_read_as_they_were_written_and_the_last_one_counts() {
        let [a, b] = ["a", "b.example-1_2"].map(|name| ServerName::parse(name).unwrap());
        let [first, last] = [0, 63].map(|number| Partition::numbered(number).unwrap());
        let mut wishes = vec![
            Wish::Move(first, a.clone()),
            Wish::Move(last, a.clone()),
            Wish::Move(last, b.clone()),
            Wish::Drain(a.clone()),
            Wish::Drain(b.clone()),
        ];
        let mut wanted = Wishes::default();
        (wanted.moves[first], wanted.moves[last]) = (Some(a.clone()), Some(b.clone()));
        wanted.drained.extend([a.clone(), b.clone()]);
        assert_eq!(after(&wishes).wishes, wanted);
        wishes.extend([Wish::Unmove(first), Wish::Undrain(b.clone()), Wish::Unmove(first)]);
        (wanted.moves[first], wanted.drained) = (None, [a].into());
        assert_eq!(after(&wishes).wishes, wanted);
    }
}
