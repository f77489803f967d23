//! What is held against the laws, whenever servers change and when all is at rest.

use std::collections::BTreeMap;

use zmqlocker::cluster::{Partition, Standing};

use crate::law::{Law, Violation};
use crate::server::Server;
use crate::world::{SECOND, World};

impl World {
    /// At no instant may two servers grant in one partition.
    pub(super) fn check_homes(&mut self, server: usize) {
        for partition in self.partitions.clone() {
            let grants = |server: &Server| {
                let standing = server.standing(self.now, partition);
                server.is_up && matches!(standing, Standing::Granting(_) | Standing::Reclaiming(..))
            };
            if grants(&self.servers[server]) {
                let other = self.servers.iter().find(|it| it.number != server && grants(it));
                let other = other.map(|other| other.number);
                let now = self.now;
                self.laws.hold(Law::OneHome, other.is_none(), || {
                    format!("s{server} and s{other:?} are home of {partition} at {now}")
                });
            }
        }
    }

    /// After a while in which nothing goes wrong: each partition has a home, where it is wanted,
    /// and locks can be had.
    pub fn check_rest(&mut self) -> Result<(), Violation> {
        let now = self.now;
        let mut all = BTreeMap::new();
        for partition in Partition::all() {
            let is_home = |it: &&Server| {
                it.is_up && matches!(it.standing(now, partition), Standing::Granting(_))
            };
            let homes: Vec<_> = self.servers.iter().filter(is_home).map(|it| it.number).collect();
            all.extend(homes.iter().map(|home| (partition, *home)));
            self.laws.hold(Law::Heal, homes.len() == 1, || {
                format!("partition {partition} has the homes {homes:?}")
            });
        }
        self.check_wishes(&all);
        for (key, granted_at) in self.granted_at.into_iter().enumerate() {
            self.laws.hold(Law::Heal, now < granted_at + 4 * SECOND, || {
                format!("nobody had lock {key} since {granted_at}, at {now}")
            });
        }
        self.laws.verdict()
    }
}
