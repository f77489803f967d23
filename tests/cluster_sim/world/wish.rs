//! What operators want in the simulation, and whether all is so when it is at rest.

use std::collections::BTreeMap;

use zmqlocker::cluster::{Overview, Partition, ServerName, Wish};

use crate::law::Law;
use crate::world::{Event, MILLI, SERVERS, World};

impl World {
    /// An operator wants something, of a server that may not be there and may never be.
    pub(super) fn wish(&mut self) {
        let Some(random) = self.wishes.as_mut().filter(|_| self.now < self.calm_from) else {
            return;
        };
        let name = format!("{}{}", random.pick(&["s", "t"]), random.range(0, SERVERS as u64 + 1));
        let name = ServerName::parse(&name).unwrap();
        let all: Vec<_> = Partition::all().collect();
        let some = if random.one_in(2) { &all } else { &self.partitions };
        let partition = random.pick(some);
        let wish = match random.range(0, 7) {
            0..=2 => Wish::Move(partition, name),
            3 => Wish::Unmove(partition),
            4 | 5 => Wish::Drain(name),
            _ => Wish::Undrain(name),
        };
        let again = self.now + random.range(20 * MILLI, 600 * MILLI);
        self.laws.tally.wishes += 1;
        self.registry.transact(&wish.transaction(), false);
        self.at(again, Event::Wish);
    }
    /// With these numbers of servers as homes: what was moved to a server that is not drained is
    /// there, those that are drained have nothing, unless all are, and the rest is even.
    pub(super) fn check_wishes(&mut self, homes: &BTreeMap<Partition, usize>) {
        let snapshot = self.registry.read(Overview::PREFIX);
        let overview = Overview::read(&snapshot).expect("entries of servers and wishes");
        let wishes = overview.wishes();
        let name_of = |server: usize| {
            let is_its = |name: &&ServerName| name.as_str()[1..] == server.to_string();
            overview.servers().find(is_its).cloned().expect("each server is there")
        };
        let names: Vec<_> = (0..SERVERS).map(name_of).collect();
        let is_drained: Vec<_> = names.iter().map(|it| wishes.drained.contains(it)).collect();
        let may_have = |server: usize| !is_drained[server] || is_drained.iter().all(|it| *it);
        let count = |server| homes.values().filter(|home| **home == server).count();
        let counts: Vec<_> = (0..SERVERS).map(count).collect();
        let least = (0..SERVERS).filter(|it| may_have(*it)).map(|it| counts[it]).min().unwrap_or(0);
        for (partition, home) in homes {
            let moved = wishes.moves[*partition].as_ref();
            let moved = moved.and_then(|name| names.iter().position(|it| it == name));
            let is_kept = match moved.filter(|it| may_have(*it)) {
                Some(moved) => moved == *home,
                None => may_have(*home) && counts[*home] <= least + 1,
            };
            self.laws.hold(Law::Wish, is_kept, || {
                format!("partition {partition} is with s{home}, of {counts:?}; wished: {wishes:?}")
            });
        }
    }
}
