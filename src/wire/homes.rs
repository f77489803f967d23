//! Which server is home of which keys, as bytes: what a server of several tells its clients.

use crate::cluster::{Partition, PartitionMap};
use crate::config::URL_BYTES_MAX;
use crate::wire::item::{Fault, Fields};
use crate::wire::message_pack::{write_bytes, write_nil, write_number, write_text};

/// The longest name of a server, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// What stands in the place of a server where there is none.
const NOBODY: u8 = u8::MAX;

/// Which server is home of which keys, as one of them sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HomeMap {
    /// It rises whenever a partition changes hands.
    pub epoch: u64,
    /// The place of the server that says so; none if it is not in the list.
    pub me: Option<usize>,
    /// The servers.
    pub servers: Vec<HomeServer>,
    /// The place of the home of each partition; none if it has no home at present.
    pub homes: PartitionMap<Option<usize>>,
}

/// A server, as others know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HomeServer {
    /// Its name, which is its own in its cluster.
    pub name: Box<str>,
    /// Where it serves.
    pub url: Box<str>,
}

impl HomeMap {
    /// The most servers that a map has: each partition may have a home of its own.
    pub const SERVERS_MAX: usize = Partition::COUNT;

    /// How many partitions have the server at this place as their home; with `None`, have no home.
    #[must_use]
    pub fn count(&self, home: Option<usize>) -> usize {
        self.homes.iter().filter(|(_, one)| **one == home).count()
    }

    /// The home of a partition, if it has one.
    #[must_use]
    pub fn home_of(&self, partition: Partition) -> Option<&HomeServer> {
        self.servers.get(self.homes[partition]?)
    }
}

/// How many elements a map takes.
pub(super) fn count(map: &HomeMap) -> usize {
    3 + 2 * map.servers.len()
}

pub(super) fn write(out: &mut Vec<u8>, map: &HomeMap) {
    write_number(out, map.epoch);
    match map.me {
        Some(place) => write_number(out, place as u64),
        None => write_nil(out),
    }
    let place = |home: &Option<usize>| {
        home.and_then(|place| u8::try_from(place).ok()).filter(|it| *it < NOBODY).unwrap_or(NOBODY)
    };
    let mut homes = [NOBODY; Partition::COUNT];
    for (byte, (_, home)) in homes.iter_mut().zip(map.homes.iter()) {
        *byte = place(home);
    }
    write_bytes(out, &homes);
    for server in &map.servers {
        write_text(out, &server.name);
        write_text(out, &server.url);
    }
}

pub(super) fn read(fields: &mut Fields<'_>) -> Result<HomeMap, Fault> {
    let epoch = fields.number("epoch")?;
    let me = fields.number_or_nil("me")?;
    let places = fields.bytes("homes")?;
    if places.len() != Partition::COUNT {
        return Err(Fault::protocol(format!("homes must be {} bytes", Partition::COUNT)));
    }
    let mut servers = Vec::new();
    while fields.left() > 0 {
        if servers.len() == HomeMap::SERVERS_MAX {
            let most = HomeMap::SERVERS_MAX;
            return Err(Fault::protocol(format!("a map has {most} servers at most")));
        }
        let name = fields.text("name", NAME_BYTES_MAX)?.into();
        servers.push(HomeServer { name, url: fields.text("url", URL_BYTES_MAX)?.into() });
    }
    let known = |place: usize| {
        let is_known = place < servers.len();
        is_known.then_some(place).ok_or_else(|| Fault::protocol("a home must be in the list"))
    };
    let me = me.map(|me| known(usize::try_from(me).unwrap_or(usize::MAX))).transpose()?;
    let mut homes = PartitionMap::default();
    for (partition, place) in Partition::all().zip(places) {
        homes[partition] = if *place == NOBODY { None } else { Some(known(usize::from(*place))?) };
    }
    Ok(HomeMap { epoch, me, servers, homes })
}
